//! The magic number of bpffs.

/// `BPF_FS_MAGIC` of `linux/magic.h`: the `statfs.f_type` of a bpffs.
///
/// The libc crate has a constant of the same name. Its type is that of the target's `f_type`, which is signed and 32
/// bits wide on some targets, so the constant is negative there. For code that works on every target, compare the low
/// 32 bits of `f_type` with this constant.
///
/// Linux 4.4.
pub const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
