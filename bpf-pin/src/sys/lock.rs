//! Locks of single bytes of a file: open file description locks.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::{Result, last_errno};

/// Takes a shared lock on one byte of a file. The kernel releases it with the last descriptor of this open
/// file description, also if the process is killed.
pub(crate) fn hold_byte(file: BorrowedFd<'_>, offset: u64) -> Result<()> {
    let mut lock = Flock64::new(libc::F_RDLCK, offset);
    ofd_lock(file, libc::F_OFD_SETLK, &mut lock)
}

pub(crate) fn release_byte(file: BorrowedFd<'_>, offset: u64) -> Result<()> {
    let mut lock = Flock64::new(libc::F_UNLCK, offset);
    ofd_lock(file, libc::F_OFD_SETLK, &mut lock)
}

/// True if another open file description has locked the byte.
pub(crate) fn is_byte_held(file: BorrowedFd<'_>, offset: u64) -> Result<bool> {
    let mut lock = Flock64::new(libc::F_WRLCK, offset);
    ofd_lock(file, libc::F_OFD_GETLK, &mut lock)?;
    Ok(lock.kind != libc::F_UNLCK as i16)
}

/// The kernel's `struct flock64`. Those of the C libraries differ: on 32-bit targets glibc's `fcntl` expects
/// another one for these commands than its headers declare.
#[repr(C)]
struct Flock64 {
    kind: i16,
    whence: i16,
    start: i64,
    len: i64,
    pid: i32,
}

#[cfg(not(target_arch = "x86"))]
const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(Flock64, start) == 8 && offset_of!(Flock64, len) == 16);
    assert!(offset_of!(Flock64, pid) == 24 && size_of::<Flock64>() == 32);
};
/// On x86, 64-bit integers are aligned to 4 bytes.
#[cfg(target_arch = "x86")]
const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(Flock64, start) == 4 && offset_of!(Flock64, len) == 12);
    assert!(offset_of!(Flock64, pid) == 20 && size_of::<Flock64>() == 24);
};

impl Flock64 {
    fn new(kind: libc::c_int, offset: u64) -> Self {
        Self {
            kind: kind as i16,
            whence: libc::SEEK_SET as i16,
            start: (offset & i64::MAX as u64) as i64,
            len: 1,
            // These commands reject any other value.
            pid: 0,
        }
    }
}

/// The system call with 64-bit offsets. On these targets `fcntl` has them; other 32-bit ones have both calls.
#[cfg(any(
    target_pointer_width = "64",
    target_arch = "csky",
    target_arch = "riscv32",
    target_arch = "x86_64"
))]
use libc::SYS_fcntl as SYS_FCNTL;
#[cfg(not(any(
    target_pointer_width = "64",
    target_arch = "csky",
    target_arch = "riscv32",
    target_arch = "x86_64"
)))]
use libc::SYS_fcntl64 as SYS_FCNTL;

fn ofd_lock(file: BorrowedFd<'_>, cmd: libc::c_int, lock: &mut Flock64) -> Result<()> {
    // SAFETY: both commands read and write one struct flock64.
    match unsafe { libc::syscall(SYS_FCNTL, file.as_raw_fd(), cmd, ptr::from_mut(lock)) } {
        -1 => Err(last_errno()),
        _ => Ok(()),
    }
}
