//! The result of `open_or_attach`.

use std::os::fd::AsFd;

use crate::error::{Cause, Error, Operation, Result, Subject};
use crate::sys;

pub use crate::error::mismatch::LinkMismatch;
pub use crate::link::verify::Verified;

/// A pinned link that holds the program, and the action that
/// [`PinDir::open_or_attach`](crate::PinDir::open_or_attach) took.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::reuse::Verified;
/// use bpf_pin::{LinkSpec, PinDir, Prog};
///
/// let dir = PinDir::open("/sys/fs/bpf/app")?;
/// let attached = dir.open_or_attach("xdp", &LinkSpec::xdp(2), &Prog::open("/sys/fs/bpf/app/filter")?)?;
/// if attached.verified == Verified::No {
///     println!("the kernel does not confirm where the link is attached");
/// }
/// for mismatch in &attached.mismatches {
///     println!("not applied: {mismatch}");
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Attached<L> {
    /// The link that is pinned under the name.
    pub link: L,
    /// The action that the call took.
    pub attachment: Attachment,
    /// The result of checking that the link is attached to the target of the spec.
    pub verified: Verified,
    /// The XDP mode and the position, if the spec sets them and a link that was pinned before does not have
    /// them. Empty for a new link. [`exact`](Self::exact) makes them an error.
    pub mismatches: Vec<LinkMismatch>,
}

/// The action that [`PinDir::open_or_attach`](crate::PinDir::open_or_attach) took.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::reuse::Attachment;
/// use bpf_pin::{LinkSpec, PinDir, Prog};
///
/// let app = PinDir::create("/sys/fs/bpf/app", 0o700)?;
/// let prog = Prog::open("/sys/fs/bpf/count")?;
/// let attached = app.open_or_attach("link", &LinkSpec::xdp(2), &prog)?;
/// if let Attachment::Updated { old_prog_id } = attached.attachment {
///     println!("link {} held program {old_prog_id} before", attached.link.id()?);
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attachment {
    /// Nothing: the pinned link held the program already. For netfilter, where the kernel reports no more,
    /// the position of the hook was taken as well.
    Unchanged,
    /// Updated the pinned link in place, without a moment in which no program was attached.
    Updated {
        /// The id of the program that the link held before.
        old_prog_id: u32,
    },
    /// Attached the program and pinned the link, because the name was free.
    Attached,
    /// Attached the program and gave the name to the new link. The pinned link was defunct, or a netfilter
    /// link in another network namespace.
    Reattached,
    /// Attached the program by a new link, which got the name, because links of this type cannot be
    /// updated. For a moment both programs were attached, or none for netfilter.
    Relinked {
        /// The id of the program that the old link holds until its last descriptor is closed.
        old_prog_id: u32,
    },
}

impl<L: AsFd> Attached<L> {
    /// Returns an error if the link does not have the XDP mode or the position of the spec.
    ///
    /// The link stays as it is: pinned, attached, and with the new program if it was updated. To apply the
    /// options, unpin and detach it, then attach again.
    ///
    /// # Errors
    ///
    /// [`Operation::Attach`](crate::error::Operation::Attach) with
    /// [`LinkMismatch`](crate::error::Cause::LinkMismatch), which holds [`mismatches`](Self::mismatches).
    pub fn exact(self) -> Result<Self> {
        if self.mismatches.is_empty() {
            return Ok(self);
        }
        let id = sys::object_id(self.link.as_fd()).ok();
        let mismatches = self.mismatches;
        Err(Error::new(Operation::Attach, Cause::LinkMismatch { mismatches }).of(Subject::link(id)))
    }
}

impl<L> Attached<L> {
    /// A new link, to which the kernel has applied every option.
    pub(super) fn new(link: L, attachment: Attachment) -> Self {
        Self {
            link,
            attachment,
            verified: Verified::Link,
            mismatches: vec![],
        }
    }

    pub(super) fn map<M>(self, map: impl FnOnce(L) -> M) -> Attached<M> {
        Attached {
            link: map(self.link),
            attachment: self.attachment,
            verified: self.verified,
            mismatches: self.mismatches,
        }
    }
}
