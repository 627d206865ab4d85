//! statmount(2), which rustix does not have.

use std::ptr;

use rustix::io::Errno;

use super::{Result, last_errno};

/// The system call's number, the same on all architectures except these, where numbers have an offset.
const SYS_STATMOUNT: Option<libc::c_long> = if cfg!(any(
    target_arch = "mips",
    target_arch = "mips32r6",
    target_arch = "mips64",
    target_arch = "mips64r6",
    all(target_arch = "x86_64", target_pointer_width = "32"),
)) {
    None
} else {
    Some(457)
};

/// `statmount(2)`: writes the `wanted` fields of the mount with this unique id, in this mount namespace, to
/// `buffer`. Linux 6.8.
pub(crate) fn statmount(mount_id: u64, wanted: u64, buffer: &mut [u8]) -> Result<()> {
    /// `struct mnt_id_req` in its first version.
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
    // SAFETY: the kernel reads request.size bytes of the request, and writes at most the size of buffer.
    let done = unsafe {
        libc::syscall(
            number,
            ptr::from_ref(&request),
            buffer.as_mut_ptr(),
            buffer.len(),
            0,
        )
    };
    match done {
        -1 => Err(last_errno()),
        _ => Ok(()),
    }
}
