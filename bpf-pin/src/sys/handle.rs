//! open_by_handle_at(2), which rustix does not have.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::{Result, last_errno};

/// `FILEID_KERNFS`: the handle is the 64-bit id of a kernfs node. Linux 5.5.
const FILEID_KERNFS: i32 = 0xfe;

/// `open_by_handle_at(2)`: opens the kernfs node of this id, such as a control group, on the file system that
/// `on` is in. ESTALE if it was removed; EPERM without `CAP_DAC_READ_SEARCH`.
pub(crate) fn open_kernfs_node(on: BorrowedFd<'_>, id: u64) -> Result<OwnedFd> {
    /// `struct file_handle` with its bytes.
    #[repr(C)]
    struct Handle {
        handle_bytes: u32,
        handle_type: i32,
        id: u64,
    }

    let mut handle = Handle {
        handle_bytes: size_of::<u64>() as u32,
        handle_type: FILEID_KERNFS,
        id,
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
