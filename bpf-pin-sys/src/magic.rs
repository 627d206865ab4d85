//! The magic number of bpffs.

/// `BPF_FS_MAGIC` of `linux/magic.h`: what `statfs.f_type` of a file system of type `bpf` holds.
///
/// The libc crate has a constant of this name too. Its type is that of the target's `f_type`
/// (signed and 32 bits wide in places, where the number turns negative), so it cannot be compared
/// across targets. Compare the low 32 bits of `f_type` with this one.
///
/// Linux 4.4.
pub const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
