//! The ABI of `bpf(2)`: the argument, commands, flags and structs of `linux/bpf.h` as of Linux 7.3, with the
//! kernel's own names.
//!
//! The crate adds no safety and no convenience. Every field's offset and every struct's size is proven at compile
//! time, beside its definition. The layout is also data ([`ARMS`], [`INFOS`], [`BPF_CMDS`], [`BPF_FLAGS`] and the
//! other tables), so that a program can compare it with a kernel's BTF. Each name has the release that first had it.
//!
//! `no_std`, no allocation, Linux only. libc provides the system call's number.
//!
//! # Names
//!
//! - `union bpf_attr` is [`bpf_attr`]. The struct of a command is an arm of the union, and its type is
//!   `bpf_attr_` plus the arm's name. Arms that C leaves anonymous are named here for their command
//!   ([`bpf_attr_map_create`]) or for the subject of several commands ([`bpf_attr_obj`]).
//! - If C puts several names of one type into an anonymous union, the first name is the field. The documentation
//!   of the field lists the other names, and the search finds them: `next_key` is [`bpf_attr_map_elem::value`].
//! - If C puts structs into an anonymous union, the union is a field: `opts` in [`bpf_attr_link_create`],
//!   `details` in [`bpf_link_info`].
//! - `type` is `r#type`. `__padNN` is padding at offset NN and must be zero.
//! - A C `char` array is `[u8; N]`, and an `__aligned_u64` is `u64`. An address is stored as
//!   `pointer.expose_provenance() as u64`.
//!
//! # Size
//!
//! The third argument of `bpf(2)` is the size of the caller's argument in bytes. It may differ from the size of the
//! kernel's union. A kernel with a longer union reads the missing bytes as zero. A kernel with a shorter union
//! requires the remaining bytes to be zero. So a zeroed argument of any size works on any kernel, if the caller sets
//! only fields that the kernel knows. Two bounds say which: [`bpf_attr_size`], the end of the command's last field,
//! and [`BPF_ATTR_SIZES`], the size of the whole union. The errno distinguishes the failures:
//!
//! | errno | cause |
//! |---|---|
//! | `E2BIG` | a non-zero byte beyond the kernel's union, or a size above one page |
//! | `EINVAL` | a non-zero byte within the kernel's union, after the command's last field |
//! | `EINVAL` | a command that the kernel does not know |
//! | `EFAULT` | an argument that cannot be read, such as NULL |
//!
//! So a field that is too new for the kernel usually fails with `EINVAL`: `path_fd` does before 6.5. It fails with
//! `E2BIG` only if it lies beyond the kernel's whole union.
//!
//! The info structs of `BPF_OBJ_GET_INFO_BY_FD` follow the same rule for their own size, `info_len`. The kernel fills
//! in the fields that it knows, and writes back their size.
//!
//! # The common argument
//!
//! Since 7.2, `bpf(2)` has two more arguments: the address and size of a [`bpf_common_attr`]. The kernel reads them
//! only if the command has [`BPF_COMMON_ATTRS`] set. They add a log to any command. Earlier kernels reject such a
//! command with `EINVAL`. [`bpf_common`] passes these arguments, [`bpf`] does not.
//!
//! # 32 bits
//!
//! The layout on every target is that of 64-bit kernels, which is also right for a 32-bit process on a 64-bit kernel.
//! 32-bit kernels have the same layout, except where C aligns a plain `__u64` to less than 8 bytes: on x86 (i386) and
//! m68k. Such a kernel differs in `cookie` of [`bpf_attr_link_create_tracing`], in `expected_revision` of the
//! neighbouring arms `tcx`, `netkit` and `cgroup`, and in the size of [`bpf_cgroup_storage_key`].
//!
//! # References
//!
//! [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html);
//! [`include/uapi/linux/bpf.h`](https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/include/uapi/linux/bpf.h)
//! and [`kernel/bpf/syscall.c`](https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/kernel/bpf/syscall.c).

#![no_std]

#[macro_use]
mod abi;

mod attr;
mod cmd;
mod flags;
mod info;
mod insn;
mod magic;
mod syscall;
mod types;

pub use abi::*;
pub use attr::*;
pub use cmd::*;
pub use flags::*;
pub use info::*;
pub use insn::*;
pub use magic::*;
pub use syscall::*;
pub use types::*;

// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
