//! statmount(2), which rustix does not have.

use std::ptr;

use rustix::io::Errno;

use super::{Result, last_errno};

/// The same number on all architectures, except where numbers have an offset.
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

/// `statmount(2)`: writes the `wanted` fields of the mount with this unique id, in this mount namespace, to
/// `room`. Linux 6.8.
pub(crate) fn statmount(mount_id: u64, wanted: u64, room: &mut [u64]) -> Result<()> {
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
    // SAFETY: the kernel reads as much of the request as its size says, and writes no more than the size of
    // room.
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
