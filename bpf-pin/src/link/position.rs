//! Options of a link that choose among several programs at one target.

use std::os::fd::AsFd;

use bitflags::bitflags;
use rustix::io::Errno;

use bpf_pin_sys as abi;

use crate::object::Prog;
use crate::sys::NonZeroFd;

use super::Link;

bitflags! {
    /// `XDP_FLAGS_*`: the mode in which a device runs an XDP program. Without any, the driver's own
    /// mode if it has one. Bits that a newer kernel knows are kept. A link takes mode bits only
    /// (EINVAL for others).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct XdpFlags: u32 {
        /// `XDP_FLAGS_SKB_MODE`: the generic mode, which every device has.
        const SKB_MODE = 1 << 1;
        /// `XDP_FLAGS_DRV_MODE`: the driver's.
        const DRV_MODE = 1 << 2;
        /// `XDP_FLAGS_HW_MODE`: the device's own.
        const HW_MODE = 1 << 3;
        const _ = !0;
    }
}

/// The position among the programs at the same target: `BPF_F_BEFORE`, `BPF_F_AFTER`. Linux 6.6.
#[derive(Debug, Clone, Copy)]
pub enum Position<'a> {
    /// Before all others.
    First,
    /// After all others.
    Last,
    /// Right before this one.
    Before(Anchor<'a>),
    /// Right after this one.
    After(Anchor<'a>),
}

/// A program or link at the same target, which a [`Position`] refers to.
#[derive(Debug, Clone, Copy)]
pub enum Anchor<'a> {
    /// `BPF_F_LINK`: the program of this link.
    Link(&'a Link),
    /// This program. EINVAL for a control group, where a link's position refers to a link.
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

    /// The anchor as a number. A descriptor is never 0, which stands for no anchor.
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

/// The anchor as the kernel takes it. Keeps the descriptor open.
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

/// The iterator visits the resources of one task. Linux 6.1.
#[derive(Debug, Clone, Copy)]
pub enum IterTask {
    /// One thread.
    Tid(u32),
    /// One process.
    Pid(u32),
}
