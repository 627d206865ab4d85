//! The syscalls: an attr in, an owned descriptor or an errno out.
//!
//! The only room with `unsafe`. Its functions are safe to call because each builds
//! its own attr from references whose lengths it has checked.

#![allow(unsafe_code)]

mod batch;
mod btf;
mod cmsg;
pub(crate) mod cpu;
mod dirent;
mod elem;
mod flock;
mod link;
mod lock;
mod map;
mod mmap;
mod mount;
mod object;
mod process;
mod prog;
pub(crate) mod random;
mod token;

pub(crate) use batch::Room;
pub(crate) use btf::{btf_fd_by_id, btf_id, btf_load};
pub(crate) use cmsg::Control;
pub(crate) use dirent::{Dirent, getdents};
pub(crate) use elem::{ElemError, LAST_MAP_TYPE, SizeError, SizedMap, WriteError};
pub(crate) use flock::FileLock;
pub(crate) use link::{
    Functions, LinkOpts, iter_create, link_arm, link_create, link_create_nowhere,
    link_create_struct_ops, link_detach, link_name, link_update, no_link_create,
    no_raw_tracepoint_with_cookie, query_no_device, raw_tracepoint_open,
};
pub(crate) use lock::{hold_byte, is_byte_held, release_byte};
pub(crate) use map::{
    map_create, map_freeze, map_lookup_empty_batch, map_update_empty_batch, no_batch,
};
pub(crate) use mmap::{Mapping, page_size};
pub(crate) use mount::statmount;
pub(crate) use object::{
    AnyInfo, InfoBuf, InfoHead, info, info_head, link_fd_by_id, link_head, link_next_id,
    map_fd_by_id, map_head, map_next_id, obj_get, obj_get_at, obj_pin, obj_pin_at, object_id,
    probe_bpf_allowed, probe_link, probe_path_fd, probe_prog, prog_fd_by_id, prog_next_id,
};
pub(crate) use process::LockOwner;
pub(crate) use prog::{
    ProgData, ProgField, Records, RunArgs, RunError, RunOut, knows_prog_field, prog_bind_map,
    prog_load, prog_map_ids, prog_test_run,
};
pub(crate) use token::{no_token_create, token_create};

pub use elem::AsMap;
pub use link::Uprobes;
pub use mmap::{Atom, LoadOnly};
pub use object::Info;

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use bpf_pin_sys as abi;
use rustix::io::Errno;

pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// The kernel's own "not supported", which leaks out of some commands.
pub(crate) const ENOTSUPP: Errno = Errno::from_raw_os_error(524);

/// # Safety
///
/// Every address in `attr` is valid for what `cmd` reads or writes there.
#[inline]
unsafe fn bpf<A>(cmd: abi::bpf_cmd, attr: &mut A) -> Result<i32> {
    // SAFETY: the caller's; all of attr is initialised.
    unsafe { bpf_sized(cmd, attr, size_of::<A>()) }
}

/// As [`bpf`], of which the kernel is shown no more than `size` bytes.
///
/// # Safety
///
/// As [`bpf`].
#[inline]
unsafe fn bpf_sized<A>(cmd: abi::bpf_cmd, attr: &mut A, size: usize) -> Result<i32> {
    debug_assert!(size <= size_of::<A>());
    // SAFETY: the caller's; the kernel reads and writes no more of attr than size bytes.
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

/// # Safety
///
/// `result` is what a command that makes a descriptor has returned.
#[inline]
unsafe fn new_fd(result: Result<i32>) -> Result<OwnedFd> {
    // SAFETY: the kernel has just made it, for us alone.
    result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

fn address<T: ?Sized>(of: &T) -> u64 {
    ptr::from_ref(of).cast::<()>() as u64
}

fn address_mut<T: ?Sized>(of: &mut T) -> u64 {
    ptr::from_mut(of).cast::<()>() as u64
}

/// A descriptor for a field of an attr where 0 stands for none.
pub(crate) enum NonZeroFd<'fd> {
    None,
    Given(BorrowedFd<'fd>),
    /// Of what is open as 0.
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
