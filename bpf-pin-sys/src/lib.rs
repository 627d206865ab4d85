//! `bpf(2)` as the kernel has it: the argument, the commands, the flags and the structs of
//! `linux/bpf.h`, by the kernel's own names, as of Linux 7.3.
//!
//! Nothing is made safe or convenient here. What there is, is exact: every field's offset and every
//! struct's size is proven at compile time, next to where it is written, and is data besides
//! ([`ARMS`], [`INFOS`], [`BPF_CMDS`], [`BPF_FLAGS`] and the other tables), so that it can be held
//! against a kernel's BTF. Each name says which release first had it.
//!
//! No allocation, no std; libc is needed for the system call's number. Linux only.
//!
//! # Names
//!
//! - `union bpf_attr` is [`bpf_attr`]. The struct of a command is an arm of it, and its type is
//!   `bpf_attr_` and the arm's name. C leaves many arms anonymous; those are named here, for their
//!   command ([`bpf_attr_map_create`]) or for what several commands share ([`bpf_attr_obj`]).
//! - Where C puts several names of one type into an anonymous union, the first of them is the
//!   field. The others are listed in its documentation and found by the search: `next_key` is
//!   [`bpf_attr_map_elem::value`].
//! - Where C puts structs into an anonymous union, there is a field for the union: `opts` in
//!   [`bpf_attr_link_create`], `details` in [`bpf_link_info`].
//! - `type` is `r#type`. `__padNN` is padding at the offset NN and must be zero.
//! - A C `char` array is `[u8; N]`, an `__aligned_u64` is `u64`. An address goes in as
//!   `pointer.expose_provenance() as u64`.
//!
//! # Size
//!
//! The third argument of `bpf(2)` is the number of bytes that the caller's argument has. It need
//! not be that of a kernel's union: a kernel that knows a longer one takes the rest for zero, and
//! one that knows a shorter one insists that the rest is zero. So a zeroed argument of any size
//! will do, on any kernel, as long as only fields are set that the kernel knows. Two bounds tell
//! what it knows: [`bpf_attr_size`], up to the end of the command's last field, and
//! [`BPF_ATTR_SIZES`], the whole union. Breaches are told apart by errno:
//!
//! | errno | cause |
//! |---|---|
//! | `E2BIG` | a non-zero byte beyond the kernel's union, or a size of more than a page |
//! | `EINVAL` | a non-zero byte within the kernel's union, after the command's last field |
//! | `EINVAL` | a command that the kernel does not know |
//! | `EFAULT` | an argument that cannot be read, such as NULL |
//!
//! A field too new for the kernel is thus `EINVAL` as a rule, and `E2BIG` only where it lies beyond
//! everything that the kernel knows: `path_fd` before 6.5 is `EINVAL`.
//!
//! The info structs of `BPF_OBJ_GET_INFO_BY_FD` follow the same rule for their own size,
//! `info_len`; the kernel fills in what it knows and writes back how much that is.
//!
//! # The common argument
//!
//! From 7.2 on, `bpf(2)` takes two more arguments, the address and size of a [`bpf_common_attr`],
//! and reads them only if the command has [`BPF_COMMON_ATTRS`] set. They give any command a log.
//! Earlier kernels know no such command: `EINVAL`. [`bpf`] does not pass them; [`bpf_common`] does.
//!
//! # 32 bits
//!
//! The layout is the one of 64-bit kernels, on every target: also for a 32-bit process on such a
//! kernel. A 32-bit kernel has it too, unless its C aligns a plain `__u64` to less than 8 bytes, as
//! on x86 (i386) and m68k. Such a kernel differs in `cookie` of
//! [`bpf_attr_link_create_tracing`], in `expected_revision` of the arms `tcx`, `netkit` and
//! `cgroup` beside it, and in the size of [`bpf_cgroup_storage_key`].
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
