//! Links.

use std::mem::size_of;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr;

use bpf_pin_sys as abi;
use rustix::io::Errno;

use super::{Result, bpf, new_fd, raw};

/// `BPF_LINK_CREATE`. The descriptors that the arguments name by number must be open.
pub(crate) fn link_create(
    prog: BorrowedFd<'_>,
    target: u32,
    attach_type: u32,
    flags: u32,
) -> Result<OwnedFd> {
    let mut attr = abi::bpf_attr_link_create {
        prog_fd: raw(prog),
        target_fd: target,
        attach_type,
        flags,
        ..abi::bpf_attr_link_create::zeroed()
    };
    // SAFETY: zeroed options hold no address; LINK_CREATE returns a descriptor.
    unsafe { new_fd(bpf(abi::BPF_LINK_CREATE, &mut attr)) }
}

/// `BPF_LINK_CREATE` of no program: EBADF where the kernel knows the command.
pub(crate) fn no_link_create() -> Errno {
    let mut attr = abi::bpf_attr_link_create {
        prog_fd: u32::MAX,
        ..abi::bpf_attr_link_create::zeroed()
    };
    // SAFETY: zeroed options hold no address; LINK_CREATE returns a descriptor.
    let result = unsafe { new_fd(bpf(abi::BPF_LINK_CREATE, &mut attr)) };
    result.err().unwrap_or(Errno::INVAL)
}

/// `BPF_LINK_UPDATE`, with `BPF_F_REPLACE` where the old program is given.
pub(crate) fn link_update(
    link: BorrowedFd<'_>,
    new: BorrowedFd<'_>,
    old: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let mut attr = abi::bpf_attr_link_update {
        link_fd: raw(link),
        new_prog_fd: raw(new),
        flags: if old.is_some() { abi::BPF_F_REPLACE } else { 0 },
        old_prog_fd: old.map_or(0, raw),
    };
    // SAFETY: the arm holds no address.
    unsafe { bpf(abi::BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

pub(crate) fn link_detach(link: BorrowedFd<'_>) -> Result<()> {
    let mut attr = abi::bpf_attr_link_detach { link_fd: raw(link) };
    // SAFETY: the arm holds no address.
    unsafe { bpf(abi::BPF_LINK_DETACH, &mut attr) }.map(drop)
}

/// The part of a link's info that depends on its type, as words.
pub(crate) fn link_details(info: &abi::bpf_link_info) -> [u32; DETAILS / 4] {
    // SAFETY: every arm is integers, so any initialised bytes are words; and the kernel, or
    // else zeroed(), has written all of them.
    unsafe {
        ptr::from_ref(&info.details)
            .cast::<[u32; DETAILS / 4]>()
            .read()
    }
}
const DETAILS: usize = size_of::<abi::bpf_link_info_details>();
