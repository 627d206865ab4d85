//! What the kernel tells of a link.

use bpf_pin_sys as abi;

use crate::types::LinkType;

use crate::link::LinkTarget;

/// `struct bpf_link_info`: what the kernel tells of a link. Linux 5.8.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkInfo {
    /// The type.
    pub link_type: LinkType,
    /// Unique among living links.
    pub id: u32,
    /// The program that it holds in place, or held before it was detached; 0 where it holds a map.
    pub prog_id: u32,
    /// Where.
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
