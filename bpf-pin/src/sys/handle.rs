//! open_by_handle_at(2) and name_to_handle_at(2), which rustix does not have.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::{Result, last_errno};

/// `FILEID_KERNFS`: the handle is the 64-bit id of a kernfs node. Linux 5.5.
const FILEID_KERNFS: i32 = 0xfe;

/// `struct file_handle` with its bytes.
#[repr(C)]
struct Handle {
    handle_bytes: u32,
    handle_type: i32,
    id: [u8; 8],
}

/// The id of a kernfs node, such as a control group: its inode number, or on a 32-bit kernel
/// `name_to_handle_at(2)`, because the inode number is only the lower half there.
pub(crate) fn kernfs_id(fd: BorrowedFd<'_>) -> Result<u64> {
    let inode = rustix::fs::fstat(fd)?.st_ino;
    // A 32-bit process does not know whether the kernel has 64 bits.
    if cfg!(target_pointer_width = "64") {
        return Ok(inode);
    }
    let mut mount_id = 0_i32;
    let mut handle = Handle {
        handle_bytes: size_of::<u64>() as u32,
        handle_type: 0,
        id: [0; 8],
    };
    // SAFETY: the path is a C string, the handle is as long as handle_bytes says, and the mount's id is an int.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            fd.as_raw_fd(),
            c"".as_ptr(),
            ptr::from_mut(&mut handle),
            ptr::from_mut(&mut mount_id),
            libc::AT_EMPTY_PATH,
        )
    };
    match (result, handle.handle_type) {
        (0, FILEID_KERNFS) => Ok(u64::from_ne_bytes(handle.id)),
        _ => Ok(inode),
    }
}

/// `open_by_handle_at(2)`: opens the kernfs node of this id, such as a control group, on the file system that
/// `on` is in. ESTALE if it was removed; EPERM without `CAP_DAC_READ_SEARCH`.
pub(crate) fn open_kernfs_node(on: BorrowedFd<'_>, id: u64) -> Result<OwnedFd> {
    let mut handle = Handle {
        handle_bytes: size_of::<u64>() as u32,
        handle_type: FILEID_KERNFS,
        id: id.to_ne_bytes(),
    };
    // SAFETY: the handle is initialised and as long as handle_bytes says.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            on.as_raw_fd(),
            ptr::from_mut(&mut handle),
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    match fd {
        // SAFETY: the kernel has just opened it, and nothing else owns it.
        0.. => Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
        _ => Err(last_errno()),
    }
}
