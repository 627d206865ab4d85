//! The system call.

use crate::{bpf_attr, bpf_cmd, bpf_common_attr};

/// Calls `bpf(2)` with a command and an argument of `size` bytes.
///
/// Returns the command's result, which is 0 or a new descriptor that is close-on-exec. On failure it returns -1 and
/// stores the reason in `errno`. Linux 3.18.
///
/// # Safety
///
/// - `attr` is null or points to `size` readable bytes. The fields that the command marks *Out* are also writable.
///   The bytes may be any prefix of a [`bpf_attr`].
/// - Every address in it is 0, or refers to memory that the command may read or write, as its field says, until this
///   function returns.
/// - The caller may use every descriptor in it for the command: a command can destroy an attachment that other code
///   owns and relies on.
/// - `cmd` does not have [`BPF_COMMON_ATTRS`](crate::BPF_COMMON_ATTRS) set.
///
/// # Errors
///
/// - `E2BIG`, `EINVAL`, `EFAULT`: see [the crate's documentation](crate#size).
/// - `EPERM`: a capability is missing.
/// - `ENOSYS`: the kernel was built without `CONFIG_BPF_SYSCALL`.
/// - The errors of the command.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin_sys::{BPF_OBJ_GET, bpf, bpf_attr, bpf_attr_obj};
///
/// let path = c"/sys/fs/bpf/flows";
/// let mut attr = bpf_attr::zeroed();
/// attr.obj = bpf_attr_obj {
///     pathname: path.as_ptr().expose_provenance() as u64,
///     ..bpf_attr_obj::zeroed()
/// };
/// // SAFETY: `attr` is a whole union, all zero except for the address of a string that outlives the
/// // call. BPF_OBJ_GET writes nothing.
/// let fd = unsafe { bpf(BPF_OBJ_GET, &mut attr, size_of::<bpf_attr>() as u32) };
/// assert!(fd >= 0, "{}", std::io::Error::last_os_error());
/// ```
///
/// # References
///
/// [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html), `__sys_bpf` in
/// `kernel/bpf/syscall.c`.
#[inline]
pub unsafe fn bpf(cmd: bpf_cmd, attr: *mut bpf_attr, size: u32) -> libc::c_long {
    // SAFETY: these are the number and the argument types of bpf(2). The caller guarantees what they point to.
    unsafe { libc::syscall(libc::SYS_bpf, cmd, attr, size) }
}

/// Calls `bpf(2)` with the additional argument that all commands share.
///
/// Linux 7.2. Earlier kernels reject every command with [`BPF_COMMON_ATTRS`](crate::BPF_COMMON_ATTRS) set with
/// `EINVAL`. If it is not set, the kernel does not read the additional argument. The result is that of [`bpf`].
///
/// # Safety
///
/// The conditions of [`bpf`] apply, except for the last. If `cmd` has `BPF_COMMON_ATTRS` set, `common` points to
/// `common_size` readable and writable bytes. The address in it is 0, or refers to `log_size` bytes that are writable
/// until this function returns.
#[inline]
pub unsafe fn bpf_common(
    cmd: bpf_cmd,
    attr: *mut bpf_attr,
    size: u32,
    common: *mut bpf_common_attr,
    common_size: u32,
) -> libc::c_long {
    // SAFETY: these are the number and the argument types of bpf(2). The caller guarantees what they point to.
    unsafe { libc::syscall(libc::SYS_bpf, cmd, attr, size, common, common_size) }
}
