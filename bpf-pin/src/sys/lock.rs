//! Locks of single bytes.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::{Result, last_errno};

/// A shared lock on one byte of a file, at an offset that stands for whoever holds it: gone with
/// the last descriptor of this open file description, however its process ends.
pub(crate) fn hold_byte(file: BorrowedFd<'_>, offset: u64) -> Result<()> {
    let mut lock = byte_lock(libc::F_RDLCK, offset);
    ofd_lock(file, libc::F_OFD_SETLK, &mut lock)
}

pub(crate) fn release_byte(file: BorrowedFd<'_>, offset: u64) -> Result<()> {
    let mut lock = byte_lock(libc::F_UNLCK, offset);
    ofd_lock(file, libc::F_OFD_SETLK, &mut lock)
}

/// Whether another open file description holds the byte.
pub(crate) fn is_byte_held(file: BorrowedFd<'_>, offset: u64) -> Result<bool> {
    let mut lock = byte_lock(libc::F_WRLCK, offset);
    ofd_lock(file, libc::F_OFD_GETLK, &mut lock)?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// With 64-bit offsets, which these commands take everywhere.
#[cfg(target_env = "gnu")]
type Flock = libc::flock64;
#[cfg(not(target_env = "gnu"))]
type Flock = libc::flock;

fn byte_lock(kind: libc::c_int, offset: u64) -> Flock {
    // SAFETY: integers, for which all zeroes are a value.
    let mut lock: Flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = (offset & i64::MAX as u64) as _;
    lock.l_len = 1;
    lock
}

fn ofd_lock(file: BorrowedFd<'_>, cmd: libc::c_int, lock: &mut Flock) -> Result<()> {
    // SAFETY: both commands read and write one struct flock.
    match unsafe { libc::fcntl(file.as_raw_fd(), cmd, ptr::from_mut(lock)) } {
        -1 => Err(last_errno()),
        _ => Ok(()),
    }
}
