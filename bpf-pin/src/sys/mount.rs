//! What rustix has not of mounts.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::{Result, last_errno};

/// `mount_setattr(2)` with `MOUNT_ATTR_NOATIME`: nothing that is done through this mount sets a time of
/// last access. Linux 5.12.
pub(crate) fn set_noatime(mount: BorrowedFd<'_>) -> Result<()> {
    setattr_noatime(mount.as_raw_fd())
}

/// The same of no mount: EBADF where the kernel knows the call.
pub(crate) fn set_noatime_of_none() -> Result<()> {
    setattr_noatime(-1)
}

fn setattr_noatime(fd: i32) -> Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_NOATIME,
        attr_clr: libc::MOUNT_ATTR__ATIME,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: both addresses outlive the call, which reads a string and as much of attr as it is told.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            ptr::from_ref(&attr),
            size_of_val(&attr),
        )
    };
    match done {
        -1 => Err(last_errno()),
        _ => Ok(()),
    }
}
