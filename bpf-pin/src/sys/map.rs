//! Creating and freezing maps, and batches of no elements.

use std::mem::size_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bpf_pin_sys as abi;
use rustix::io::Errno;

use super::{Result, address, bpf, bpf_sized, new_fd, raw};

/// `BPF_MAP_CREATE`. The descriptors that `attr` names by number must be open.
pub(crate) fn map_create(attr: abi::bpf_attr_map_create, excl_prog_hash: &[u8]) -> Result<OwnedFd> {
    let mut attr = abi::bpf_attr_map_create {
        excl_prog_hash: address(excl_prog_hash),
        excl_prog_hash_size: u32::try_from(excl_prog_hash.len()).map_err(|_| Errno::TOOBIG)?,
        ..attr
    };
    // SAFETY: the arm's only address has the given length; MAP_CREATE returns a descriptor.
    unsafe { new_fd(bpf(abi::BPF_MAP_CREATE, &mut attr)) }
}

/// Returns whether a prog array that holds one program accepts the other: if not, EINVAL.
pub(crate) fn share_prog_array(first: BorrowedFd<'_>, second: BorrowedFd<'_>) -> Result<bool> {
    let attr = abi::bpf_attr_map_create {
        map_type: abi::BPF_MAP_TYPE_PROG_ARRAY,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        ..abi::bpf_attr_map_create::zeroed()
    };
    let map = map_create(attr, &[])?;
    let put = |prog| {
        let (key, value) = (0_u32, raw(prog));
        let mut attr = abi::bpf_attr_map_elem {
            map_fd: raw(map.as_fd()),
            key: address(&key),
            value: address(&value),
            ..abi::bpf_attr_map_elem::zeroed()
        };
        // SAFETY: the map's keys and values are four bytes long, and both outlive the call, which writes to
        // neither.
        unsafe { bpf(abi::BPF_MAP_UPDATE_ELEM, &mut attr) }
    };
    put(first)?;
    match put(second) {
        Ok(_) => Ok(true),
        Err(Errno::INVAL) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// `BPF_MAP_FREEZE`
pub(crate) fn map_freeze(fd: BorrowedFd<'_>) -> Result<()> {
    let mut attr = abi::bpf_attr_map_elem {
        map_fd: raw(fd),
        ..abi::bpf_attr_map_elem::zeroed()
    };
    // SAFETY: the command reads only the descriptor.
    unsafe { bpf_sized(abi::BPF_MAP_FREEZE, &mut attr, size_of::<u32>()) }.map(drop)
}

#[inline]
fn empty_batch(cmd: abi::bpf_cmd, map_fd: u32) -> Result<()> {
    let mut attr = abi::bpf_attr_batch {
        map_fd,
        ..abi::bpf_attr_batch::zeroed()
    };
    // SAFETY: no address is followed for a count of zero.
    unsafe { bpf(cmd, &mut attr) }.map(drop)
}

#[inline]
pub(crate) fn map_lookup_empty_batch(fd: BorrowedFd<'_>) -> Result<()> {
    empty_batch(abi::BPF_MAP_LOOKUP_BATCH, raw(fd))
}

pub(crate) fn map_update_empty_batch(fd: BorrowedFd<'_>) -> Result<()> {
    empty_batch(abi::BPF_MAP_UPDATE_BATCH, raw(fd))
}

/// `BPF_MAP_LOOKUP_BATCH` without a map: EBADF if the kernel has the command.
pub(crate) fn probe_batch() -> Errno {
    empty_batch(abi::BPF_MAP_LOOKUP_BATCH, u32::MAX)
        .err()
        .unwrap_or(Errno::INVAL)
}
