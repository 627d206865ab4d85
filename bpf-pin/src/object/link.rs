//! Links.

use super::pinned::PinnedLink;
use super::typed::*;
use crate::types::LinkTarget;
use crate::types::LinkType;
#[cfg(feature = "serde")]
use crate::types::serialize::is_other;

typed_object! {
    /// An owned descriptor of a link, which keeps a program attached.
    ///
    /// Dropping it closes the descriptor. The program is detached with the link's last descriptor unless the
    /// link is pinned.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::fs::File;
    ///
    /// use bpf_pin::prog::Insn;
    /// use bpf_pin::types::{AttachType, ProgType};
    /// use bpf_pin::{LinkSpec, ProgSpec};
    ///
    /// let insns = [Insn::mov64_imm(0, 1), Insn::exit()];
    /// let prog = ProgSpec::new(ProgType::CGROUP_SKB, &insns).load()?;
    /// let cgroup = File::open("/sys/fs/cgroup/app")?;
    /// let link = LinkSpec::cgroup(&cgroup, AttachType::CGROUP_INET_EGRESS).create(&prog)?;
    /// let link = link.pin("/sys/fs/bpf/egress")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    Link, PinnedLink, "link", "egress", LinkInfo, bpf_link_info;

    /// Linux 5.7. The proof is the content of `struct bpf_link_info`.
    open;

    /// The kernel opens links for reading and writing only. This method exists for callers that pass on an `access`
    /// of their own.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and:
    ///
    /// | condition | cause | errno |
    /// |---|---|---|
    /// | `access` is not [`Access::ReadWrite`] | [`InvalidArgument`](crate::error::Cause::InvalidArgument) | EINVAL |
    open_with;

    /// `BPF_LINK_GET_FD_BY_ID`. Linux 5.8. The command has no open flags: only that of
    /// [maps](crate::Map::from_id_with) has them.
    from_id;

    /// `BPF_LINK_GET_NEXT_ID`. Linux 5.8.
    ids;

    /// Linux 5.8.
    info;

    /// Linux 5.7.
    pin;
}

/// `struct bpf_link_info`: the kernel's description of a link. Linux 5.8.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::Link;
///
/// let info = Link::open("/sys/fs/bpf/egress")?.info()?;
/// println!("{} link of program {}, attached to {:?}", info.link_type, info.prog_id, info.target);
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LinkInfo {
    /// The type.
    #[cfg_attr(feature = "serde", serde(rename = "type"))]
    pub link_type: LinkType,
    /// The id, unique among living links.
    pub id: u32,
    /// The id of the program that it attaches, or attached before it was detached; 0 if it holds a map.
    pub prog_id: u32,
    /// The target that it attaches the program to.
    #[cfg_attr(feature = "serde", serde(flatten, skip_serializing_if = "is_other"))]
    pub target: LinkTarget,
}

impl LinkInfo {
    pub(crate) fn from_raw(raw: abi::bpf_link_info) -> Self {
        Self {
            link_type: LinkType(raw.r#type),
            id: raw.id,
            prog_id: raw.prog_id,
            target: LinkTarget::from_info(&raw),
        }
    }
}
