//! The position of a link among the programs at its target, and other options.

use std::os::fd::AsFd;

use bitflags::bitflags;
use rustix::io::Errno;

use bpf_pin_sys as abi;

use crate::object::Prog;
use crate::sys::NonZeroFd;

use super::Link;

bitflags! {
    /// The mode in which a device runs an XDP program: `XDP_FLAGS_*`.
    ///
    /// Without a flag, the device uses driver mode if its driver has one. A link accepts only mode bits
    /// (EINVAL for others). Unknown bits are kept, for newer kernels.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::link::XdpFlags;
    /// use bpf_pin::{LinkSpec, Prog};
    ///
    /// let prog = Prog::open("/sys/fs/bpf/count")?;
    /// let link = LinkSpec::xdp(2).xdp_flags(XdpFlags::SKB_MODE).create(&prog)?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct XdpFlags: u32 {
        /// `XDP_FLAGS_SKB_MODE`: generic mode, which every device has.
        const SKB_MODE = 1 << 1;
        /// `XDP_FLAGS_DRV_MODE`: driver mode.
        const DRV_MODE = 1 << 2;
        /// `XDP_FLAGS_HW_MODE`: the program runs on the device itself.
        const HW_MODE = 1 << 3;
        const _ = !0;
    }
}

/// The position of a program among the others at the same target: `BPF_F_BEFORE`, `BPF_F_AFTER`. Linux 6.6.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::link::Position;
/// use bpf_pin::types::AttachType;
/// use bpf_pin::{LinkSpec, Prog};
///
/// let prog = Prog::open("/sys/fs/bpf/count")?;
/// let link = LinkSpec::tcx(2, AttachType::TCX_INGRESS).position(Position::First).create(&prog)?;
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub enum Position<'a> {
    /// Before all other programs.
    First,
    /// After all other programs.
    Last,
    /// Directly before this program.
    Before(Anchor<'a>),
    /// Directly after this program.
    After(Anchor<'a>),
}

/// The program or link at the same target that a [`Position`] refers to.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::link::{Anchor, Position};
/// use bpf_pin::types::AttachType;
/// use bpf_pin::{LinkSpec, Prog};
///
/// let (filter, count) = (Prog::open("/sys/fs/bpf/filter")?, Prog::open("/sys/fs/bpf/count")?);
/// let position = Position::Before(Anchor::Prog(&filter));
/// let link = LinkSpec::tcx(2, AttachType::TCX_INGRESS).position(position).create(&count)?;
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub enum Anchor<'a> {
    /// `BPF_F_LINK`: the program of this link.
    Link(&'a Link),
    /// This program. EINVAL for a control group, where the anchor must be a link.
    Prog(&'a Prog),
    /// `BPF_F_LINK`, `BPF_F_ID`: the program of the link with this id.
    LinkId(u32),
    /// `BPF_F_ID`: the program with this id. EINVAL for a control group.
    ProgId(u32),
}

impl<'a> Position<'a> {
    pub(super) fn flags(&self) -> u32 {
        let (side, anchor) = match self {
            Self::First => (abi::BPF_F_BEFORE, None),
            Self::Last => (abi::BPF_F_AFTER, None),
            Self::Before(anchor) => (abi::BPF_F_BEFORE, Some(anchor)),
            Self::After(anchor) => (abi::BPF_F_AFTER, Some(anchor)),
        };
        let of_anchor = match anchor {
            None | Some(Anchor::Prog(_)) => 0,
            Some(Anchor::Link(_)) => abi::BPF_F_LINK,
            Some(Anchor::LinkId(_)) => abi::BPF_F_LINK | abi::BPF_F_ID,
            Some(Anchor::ProgId(_)) => abi::BPF_F_ID,
        };
        side | of_anchor
    }

    /// The anchor as a number. 0 is no anchor, so a descriptor is never 0.
    pub(super) fn relative(&self) -> Result<Relative<'a>, Errno> {
        let (Self::Before(anchor) | Self::After(anchor)) = *self else {
            return Ok(Relative::Id(0));
        };
        let fd = match anchor {
            Anchor::Link(link) => link.as_fd(),
            Anchor::Prog(prog) => prog.as_fd(),
            Anchor::LinkId(id) | Anchor::ProgId(id) => return Ok(Relative::Id(id)),
        };
        NonZeroFd::new(Some(fd)).map(Relative::Fd)
    }
}

/// The descriptor or id of the anchor. Keeps the descriptor open.
pub(super) enum Relative<'a> {
    Fd(NonZeroFd<'a>),
    Id(u32),
}

impl Relative<'_> {
    pub(super) fn number(&self) -> u32 {
        match self {
            Self::Fd(fd) => fd.number(),
            Self::Id(id) => *id,
        }
    }
}

/// Restricts an iterator to the resources of one task. Linux 6.1.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::link::IterTask;
/// use bpf_pin::{LinkSpec, Prog};
///
/// let lists_files = Prog::open("/sys/fs/bpf/lists_files")?;
/// let link = LinkSpec::iter_task(IterTask::Pid(1)).create(&lists_files)?;
/// let files = std::io::read_to_string(link.iter()?);
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub enum IterTask {
    /// One thread.
    Tid(u32),
    /// One process.
    Pid(u32),
}
