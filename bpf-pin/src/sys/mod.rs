//! The syscalls: an attr in, an owned descriptor or an errno out.
//!
//! The only module with `unsafe` code. Its functions are safe to call: each builds its own attr from
//! references, and has checked their lengths.

#![allow(unsafe_code)]

mod batch;
mod btf;
#[cfg(feature = "mount")]
mod cmsg;
pub(crate) mod cpu;
mod dirent;
mod elem;
mod file;
mod flock;
#[cfg(feature = "link")]
mod handle;
mod link;
mod lock;
mod map;
#[cfg(feature = "map")]
mod mmap;
mod mount;
mod object;
mod process;
mod prog;
pub(crate) mod random;
#[cfg(feature = "link")]
mod rtnetlink;
mod token;

pub(crate) use batch::BatchBuffers;
pub(crate) use btf::{btf_id, btf_load};
#[cfg(feature = "mount")]
pub(crate) use cmsg::{Received, receive};
pub(crate) use dirent::{Dirent, getdents};
pub(crate) use elem::{ElemError, LAST_MAP_TYPE, SizeError, SizedMap, WriteError};
pub(crate) use file::{read_file, read_number, read_to_end, read_to_string};
pub(crate) use flock::FileLock;
#[cfg(feature = "link")]
pub(crate) use handle::{kernfs_id, open_kernfs_node};
pub(crate) use link::{
    Functions, LinkOpts, iter_create, link_arm, link_create, link_create_struct_ops, link_detach,
    link_name, link_update, probe_attach_type, probe_cgroup_attach, probe_link_create,
    probe_raw_tracepoint_cookie, raw_tracepoint_open,
};
pub(crate) use lock::{hold_byte, is_byte_held, release_byte};
pub(crate) use map::{
    map_create, map_freeze, map_lookup_empty_batch, map_update_empty_batch, probe_batch,
    share_prog_array,
};
#[cfg(feature = "map")]
pub(crate) use mmap::Mapping;
pub(crate) use mount::statmount;
pub(crate) use object::{
    AnyInfo, ById, InfoBuf, InfoHead, info, info_head, link_head, map_head, obj_get, obj_get_at,
    obj_pin, obj_pin_at, object_id, probe_bpf_allowed, probe_command, probe_link, probe_path_fd,
    probe_prog,
};
pub(crate) use process::{LockOwner, page_size};
pub(crate) use prog::{
    ProgData, ProgField, QueryBuffers, Records, RunArgs, RunError, RunOut, probe_prog_field,
    prog_bind_map, prog_load, prog_map_ids, prog_query, prog_test_run,
};
#[cfg(feature = "link")]
pub(crate) use rtnetlink::xdp_progs;
pub(crate) use token::{probe_token_create, token_create};

pub use elem::AsMap;
pub use link::Uprobes;
#[cfg(feature = "map")]
pub use mmap::{Atom, LoadOnly};
pub use object::Info;

use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use bpf_pin_sys as abi;
use rustix::io::Errno;

pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// The kernel's internal "not supported", which some commands return to user space.
pub(crate) const ENOTSUPP: Errno = Errno::from_raw_os_error(524);

/// Calls bpf(2) with the whole of `attr`.
///
/// # Safety
///
/// Every address in `attr` is valid for what `cmd` reads or writes there.
#[inline]
unsafe fn bpf<A>(cmd: abi::bpf_cmd, attr: &mut A) -> Result<i32> {
    // SAFETY: as the caller promises; all of attr is initialised.
    unsafe { bpf_sized(cmd, attr, size_of::<A>()) }
}

/// As [`bpf`], with only the first `size` bytes of `attr`.
///
/// # Safety
///
/// As [`bpf`].
#[inline]
unsafe fn bpf_sized<A>(cmd: abi::bpf_cmd, attr: &mut A, size: usize) -> Result<i32> {
    debug_assert!(size <= size_of::<A>());
    // SAFETY: as the caller promises; the kernel stays within the first size bytes of attr.
    let result = unsafe { abi::bpf(cmd, ptr::from_mut(attr).cast(), size as u32) };
    if result < 0 {
        return Err(last_errno());
    }
    Ok(result as i32)
}

#[cold]
fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Takes ownership of a new descriptor.
///
/// # Safety
///
/// `result` is the result of a command that returns a new descriptor.
#[inline]
unsafe fn new_fd(result: Result<i32>) -> Result<OwnedFd> {
    // SAFETY: the kernel has just opened it, and nothing else owns it.
    result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// The address of `target`, or 0 if it has no bytes. Given another address the kernel might read there.
#[inline]
fn address<T: ?Sized>(target: &T) -> u64 {
    match size_of_val(target) {
        0 => 0,
        _ => ptr::from_ref(target).cast::<()>() as u64,
    }
}

/// As [`address`], for data that the kernel writes.
#[inline]
fn address_mut<T: ?Sized>(target: &mut T) -> u64 {
    match size_of_val(target) {
        0 => 0,
        _ => ptr::from_mut(target).cast::<()>() as u64,
    }
}

/// A descriptor for a field of an attr in which 0 means none.
pub(crate) enum NonZeroFd<'fd> {
    None,
    Given(BorrowedFd<'fd>),
    /// A duplicate of descriptor 0.
    Copy(OwnedFd),
}

impl<'fd> NonZeroFd<'fd> {
    pub(crate) fn new(fd: Option<BorrowedFd<'fd>>) -> Result<Self> {
        match fd {
            None => Ok(Self::None),
            Some(fd) if fd.as_raw_fd() != 0 => Ok(Self::Given(fd)),
            Some(zero) => rustix::io::fcntl_dupfd_cloexec(zero, 1).map(Self::Copy),
        }
    }

    pub(crate) fn number(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Given(fd) => raw(*fd),
            Self::Copy(fd) => raw(fd.as_fd()),
        }
    }
}

pub(crate) mod sealed {
    /// Implemented in this crate only.
    pub trait Sealed {}
    impl<T: Sealed> Sealed for &T {}
}
