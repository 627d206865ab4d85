//! What rustix has not of mounts.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::io::Errno;

use super::{Result, last_errno};

/// `mount_setattr(2)` with `MOUNT_ATTR_NOATIME`: nothing that is done through this mount sets a time of
/// last access. Linux 5.12. Nor are symbolic links followed, where the kernel knows how: Linux 5.14.
pub(crate) fn set_noatime(mount: BorrowedFd<'_>) -> Result<()> {
    let fd = mount.as_raw_fd();
    match setattr_noatime(fd, libc::MOUNT_ATTR_NOSYMFOLLOW) {
        Err(Errno::INVAL) => setattr_noatime(fd, 0),
        other => other,
    }
}

/// The same of no mount: EBADF where the kernel knows the call.
pub(crate) fn set_noatime_of_none() -> Result<()> {
    setattr_noatime(-1, 0)
}

fn setattr_noatime(fd: i32, and: u64) -> Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_NOATIME | and,
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

/// The same number everywhere, but for what begins elsewhere.
#[cfg(not(any(
    target_arch = "mips",
    target_arch = "mips32r6",
    target_arch = "mips64",
    target_arch = "mips64r6",
    all(target_arch = "x86_64", target_pointer_width = "32"),
)))]
const SYS_STATMOUNT: Option<libc::c_long> = Some(457);
#[cfg(any(
    target_arch = "mips",
    target_arch = "mips32r6",
    target_arch = "mips64",
    target_arch = "mips64r6",
    all(target_arch = "x86_64", target_pointer_width = "32"),
))]
const SYS_STATMOUNT: Option<libc::c_long> = None;

/// `statmount(2)`: what `wanted` asks for of the mount of this unique id, which is of this mount namespace,
/// into `room`. Linux 6.8.
pub(crate) fn statmount(mount_id: u64, wanted: u64, room: &mut [u64]) -> Result<()> {
    /// `struct mnt_id_req`, as long as it was at first.
    #[repr(C)]
    struct Request {
        size: u32,
        spare: u32,
        mnt_id: u64,
        param: u64,
    }

    let request = Request {
        size: size_of::<Request>() as u32,
        spare: 0,
        mnt_id: mount_id,
        param: wanted,
    };
    let number = SYS_STATMOUNT.ok_or(Errno::NOSYS)?;
    // SAFETY: the kernel reads as much of the request as that says, and writes to no more of room than
    // it is told.
    let done = unsafe {
        libc::syscall(
            number,
            ptr::from_ref(&request),
            room.as_mut_ptr(),
            size_of_val(room),
            0,
        )
    };
    match done {
        -1 => Err(last_errno()),
        _ => Ok(()),
    }
}
