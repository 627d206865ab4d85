//! The system call.

use crate::{bpf_attr, bpf_cmd, bpf_common_attr};

/// `bpf(2)`: one command, one argument of `size` bytes.
///
/// Returns -1 with the reason in `errno`; else what the command returns: a new descriptor, which is
/// close-on-exec, or 0. Linux 3.18.
///
/// # Safety
///
/// - `attr` is null or points to `size` bytes that can be read, and that can be written where the
///   command has a field marked *Out*. It need not be a whole [`bpf_attr`]; of one, any prefix.
/// - Every address in it is 0, or that of memory which the command may read or write as the field
///   says, until this returns.
/// - Every descriptor in it may be used so: a command can end what a descriptor of somebody else's
///   stands for.
/// - `cmd` does not have [`BPF_COMMON_ATTRS`](crate::BPF_COMMON_ATTRS) set.
///
/// # Errors
///
/// `E2BIG`, `EINVAL` and `EFAULT` as [the crate](crate#size) has them; `EPERM` for want of a
/// capability, and `ENOSYS` of a kernel without `CONFIG_BPF_SYSCALL`; the commands' own.
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
/// // SAFETY: `attr` is a whole union, all zero but for the address of a string that outlives the
/// // call; BPF_OBJ_GET writes nothing.
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
    // SAFETY: these are bpf's number and argument types; the caller answers for what they point to.
    unsafe { libc::syscall(libc::SYS_bpf, cmd, attr, size) }
}

/// `bpf(2)` with the argument that all commands share. Linux 7.2; before, every command with
/// [`BPF_COMMON_ATTRS`](crate::BPF_COMMON_ATTRS) is `EINVAL`, and without it the pair is not read.
///
/// Returns what [`bpf`] returns.
///
/// # Safety
///
/// That of [`bpf`] but for its last point. If `cmd` has `BPF_COMMON_ATTRS` set, `common` points to
/// `common_size` bytes that can be read and written, and the address in it is 0 or that of
/// `log_size` bytes that can be written until this returns.
#[inline]
pub unsafe fn bpf_common(
    cmd: bpf_cmd,
    attr: *mut bpf_attr,
    size: u32,
    common: *mut bpf_common_attr,
    common_size: u32,
) -> libc::c_long {
    // SAFETY: these are bpf's number and argument types; the caller answers for what they point to.
    unsafe { libc::syscall(libc::SYS_bpf, cmd, attr, size, common, common_size) }
}
