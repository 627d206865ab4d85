//! The system call.

use crate::{bpf_attr, bpf_cmd};

/// `bpf(2)`: one command, one argument.
///
/// Returns -1 with the reason in `errno`, else what the command returns: a file descriptor
/// (close-on-exec) or 0.
///
/// # Safety
///
/// x
#[inline]
pub unsafe fn bpf(cmd: bpf_cmd, attr: *mut bpf_attr, size: u32) -> libc::c_long {
    // SAFETY: the caller keeps the contract above; the number and the argument types are bpf's.
    unsafe { libc::syscall(libc::SYS_bpf, cmd, attr, size) }
}
