//! Pins Linux BPF maps, programs and links on bpffs.
//!
//! The kernel frees a BPF object when nothing refers to it any more. A pin is a reference with a name on bpffs, the file system
//! usually mounted at `/sys/fs/bpf`: the object outlives the process that made it, and other processes open it by its name.
//!
//! ```no_run
//! use bpf_pin::{MapSpec, MapType, PinnedMap};
//!
//! MapSpec::new(MapType::HASH, 4, 8, 1024).create()?.pin("/sys/fs/bpf/flows")?;
//!
//! let flows = PinnedMap::open("/sys/fs/bpf/flows")?;
//! println!("{:?}", flows.info()?);
//! let map = flows.unpin()?;
//! # Ok::<(), bpf_pin::Error>(())
//! ```
//!
//! # Start here
//!
//! | to | use |
//! |---|---|
//! | pin, open and unpin one object | [`Map`], [`Prog`], [`Link`]; [`PinnedMap`], [`PinnedProg`], [`PinnedLink`]; [`Object`] for any kind |
//! | mount bpffs, or find it | [`Bpffs::ensure`], [`Bpffs::system`], [`Bpffs::inspect`] |
//! | work in one directory | [`PinDir::create`], [`PinDir::get`], [`PinDir::pin`], [`PinDir::replace`], [`PinDir::unpin`] |
//! | survive a restart | [`PinDir::open_or_create`] for maps, [`PinDir::open_or_attach`] for links |
//! | change a map's layout | [`Migrate`](reuse::Migrate) |
//! | replace several pins as one | [`PinDir::stage`], [`Stage::publish`] |
//! | clean up after killed loaders | [`PinDir::remove_leftovers`], [`PinDir::remove_where`] |
//! | read and write a map | [`Map::elements`] |
//! | find where an object is pinned | [`Inventory::take`] |
//! | find the programs at a target, or those that use a map | [`LinkSpec::query`], [`LinkSpec::links`], [`Prog::ids_using`] |
//! | share pins between users | [`Token`], [`MountOptions::grant_delegation`], [`PinDir::set_mode`] |
//! | handle errors | [`Error::kind`], [`Error::cause`], [`Error::is_missing`]; [`Failed`] gives the object back |
//! | use it beside aya, libbpf-rs or C | `Map::try_from(fd)`, `OwnedFd::from(map)`; [a page](guide::other_loaders) |
//!
//! [`guide`] has a page each about [mounting](guide::mounting), [restarting](guide::restarting) with a systemd unit,
//! [sharing between users](guide::sharing), and use [beside aya, libbpf-rs and C](guide::other_loaders).
//!
//! # If you know bpf(2)
//!
//! | command | here |
//! |---|---|
//! | `BPF_OBJ_PIN` | [`Map::pin`], [`Prog::pin`], [`Link::pin`], [`Object::pin`] |
//! | `BPF_OBJ_GET` | [`Map::open`], [`Map::open_with`], [`PinnedMap::open`], [`Object::open`], … |
//! | `unlink(2)` | [`PinnedMap::unpin`], [`PinDir::unpin`]; [`PinDir::unlink`] without a check |
//! | `BPF_OBJ_GET_INFO_BY_FD` | [`Map::info`], [`Map::id`], … |
//! | `BPF_*_GET_FD_BY_ID`, `BPF_*_GET_NEXT_ID` | [`Map::from_id`], [`Map::from_id_with`], [`Map::ids`], … |
//! | `BPF_MAP_CREATE` | [`MapSpec::create`] |
//! | `BPF_MAP_*_ELEM` | [`Map::elements`] |
//! | `BPF_MAP_*_BATCH` | [`Elements::iter`], [`Elements::to_vecs`], [`Elements::update_batch`], … |
//! | `BPF_MAP_FREEZE`, `mmap(2)` | [`Map::freeze`], [`Map::mmap`] |
//! | `BPF_PROG_LOAD` | [`ProgSpec::load`], [`ProgSpec::load_with_log`] |
//! | `BPF_PROG_TEST_RUN`, `BPF_PROG_BIND_MAP` | [`Prog::test_run`], [`Prog::bind_map`] |
//! | `BPF_BTF_LOAD` | [`Btf::load`] |
//! | `BPF_LINK_CREATE` | [`LinkSpec::create`] |
//! | `BPF_LINK_UPDATE`, `BPF_LINK_DETACH` | [`Link::update`], [`Link::detach`] |
//! | `BPF_PROG_QUERY` | [`LinkSpec::query`], [`LinkSpec::links`] |
//! | `BPF_RAW_TRACEPOINT_OPEN` | [`LinkSpec::raw_tracepoint`], [`LinkSpec::tracing`] |
//! | `BPF_ITER_CREATE` | [`Link::iter`] |
//! | `BPF_TOKEN_CREATE` | [`Token::create`] |
//! | `BPF_F_PATH_FD` and the `*at` calls | the methods of [`PinDir`] |
//! | `renameat2(2)` | [`PinDir::replace`], [`replace_if`](PinDir::replace_if), [`exchange`](PinDir::exchange), [`stage`](PinDir::stage) |
//! | `mkdir -p`, `rm -r` | [`PinDir::create`], [`PinDir::remove_dir_all`] |
//! | `getdents64(2)` | [`PinDir::entries`], [`PinDir::walk`] |
//! | `flock(2)` | [`PinDir::lock`] |
//! | `statfs(2)` against `BPF_FS_MAGIC` | [`FileSystem::at`], [`FileSystem::of`], [`Bpffs::at`] |
//! | `mount -t bpf`, `fsopen(2)`, `move_mount(2)` | [`Bpffs::ensure`], [`MountOptions::mount`], [`MountOptions::detached`] |
//! | `umount2(2)` | [`Bpffs::unmount`] |
//! | `/proc/self/mountinfo` | [`Bpffs::mounts`], [`Bpffs::inspect`] |
//! | capabilities and kernel features | [`Capabilities`], [`Features`] |
//! | the structs themselves | [`abi`], the crate `bpf-pin-sys` |
//!
//! # Promises
//!
//! - A [`Map`], [`Prog`] or [`Link`] exists only after the kernel has proven its kind, even if it is made from a descriptor. On Linux
//!   5.10 to 7.3 the proof is one system call, two for a map opened for writing only. It is more on a kernel with unknown struct
//!   sizes.
//! - A failing call leaves everything as it was, and an object that it took comes back in the error: see [`Failed`].
//! - A successful call makes only the documented system calls. Finding the [`Cause`] of an error takes additional ones,
//!   only after the failure. A cause is named only if it was proven. The sentence of the one exception,
//!   [`Cause::ExpectedAttachType`], then says "likely".
//! - Readers see [`PinDir::replace`] and, from Linux 5.17 (`RENAME_EXCHANGE`), [`Stage::publish`] as one step, even if the process is
//!   killed in the middle. [`PinDir::remove_leftovers`] removes what a killed process left.
//! - The kernel cannot check and remove a pin in one step. [`PinnedMap::unpin`] makes two calls, one right after the other.
//!
//! # Soundness
//!
//! Safe code that uses this library keeps the process's memory sound. A loaded program is not covered: it can write to memory
//! (`bpf_probe_write_user`), close or replace descriptors (`bpf_sys_close` under `test_run`), pass any address to bpf(2)
//! (`bpf_sys_bpf`) and override what a system call returns (`bpf_override_return`). Uprobes write to the code and data of processes, so
//! [`Uprobes::new`](link::Uprobes::new) is unsafe. A seccomp filter can return success without making the call, which leaves zeros in
//! the object's info: such info is rejected. Not covered: filters and tracers that forge other results, such as a descriptor, and
//! writes to `/proc/self/mem`.
//!
//! # Descriptors
//!
//! All descriptors are opened with `O_CLOEXEC`. [`Map`], [`Prog`] and [`Link`] have the layout of an
//! [`OwnedFd`](std::os::fd::OwnedFd), so `Option<Map>` can stand in an `extern "C"` signature, and descriptors go in and out through
//! `TryFrom` and `Into`:
//!
//! ```no_run
//! use std::os::fd::OwnedFd;
//!
//! use bpf_pin::Map;
//!
//! /// Pins a map that another library created.
//! fn adopt(fd: OwnedFd) -> bpf_pin::Result<OwnedFd> {
//!     let map = Map::try_from(fd)?.pin("/sys/fs/bpf/adopted")?;
//!     Ok(map.into_inner().into())
//! }
//! ```
//!
//! # Features
//!
//! All but `serde` are on by default. Without them only the core remains: kinds and their proof, pin, open, unpin, info, ids,
//! [`dir`], detection of bpffs, errors. `map`, `prog`, `link`, `reuse`, `inventory` and `probe` enable the modules of these names;
//! `mount` enables [`MountOptions`] and the delegation of a bpffs.
//!
//! `serde` implements `Serialize` for [`PinEntry`](inventory::PinEntry), [`ObjectInfo`](object::ObjectInfo) and the info of each kind,
//! [`Identity`], [`Inspection`](bpffs::Inspection), [`Mount`](bpffs::Mount), and the types in them. Fields have the kernel's names,
//! such as `map_flags` or `xdp.ifindex`. A number that has a name is serialized as that name, in the form of `Display`. A time is in
//! nanoseconds. A path is a string, or an array of its bytes if it is not UTF-8.
//!
//! The public signatures use types of two other crates: [bytemuck](https://docs.rs/bytemuck)'s traits for keys and values, and
//! flags made by bitflags.
//!
//! # What it does not do
//!
//! It does not load ELF objects, run a daemon, read ring buffers or perf events, or attach without a link.
#![deny(unsafe_code)]
// Without all features some system calls and types are unused.
#![cfg_attr(not(feature = "default"), allow(dead_code, unused_imports))]

pub mod bpffs;
mod diagnose;
pub mod dir;
pub mod error;
#[cfg(any(doc, doctest))]
pub mod guide;
#[cfg(feature = "inventory")]
pub mod inventory;
#[cfg(feature = "link")]
pub mod link;
#[cfg(feature = "map")]
pub mod map;
pub mod object;
mod path;
#[cfg(feature = "probe")]
pub mod probe;
mod process;
mod procfs;
#[cfg(feature = "prog")]
pub mod prog;
mod proof;
#[cfg(feature = "reuse")]
pub mod reuse;
mod sys;
pub mod token;
pub mod types;

#[cfg(doc)]
use {
    bpffs::{FileSystem, MountOptions},
    dir::Stage,
    error::{Cause, Failed},
    inventory::Inventory,
    map::Elements,
    probe::{Capabilities, Features},
    prog::Btf,
    token::Token,
};

pub use bpf_pin_sys as abi;
/// Plain data for keys and values.
#[cfg(feature = "map")]
pub use bytemuck;

pub use bpffs::Bpffs;
pub use dir::PinDir;
pub use error::{Error, Result};
#[cfg(feature = "link")]
pub use link::LinkSpec;
#[cfg(feature = "map")]
pub use map::MapSpec;
pub use object::{Link, Map, Object, PinnedLink, PinnedMap, PinnedProg, Prog};
#[cfg(feature = "prog")]
pub use prog::ProgSpec;
pub use types::{Access, Identity, Kind, MapType};

/// For this workspace's tests: each way of proving a kind, alone.
#[doc(hidden)]
pub mod __proof {
    pub use crate::proof::{by_command, by_info, by_proc};
}

/// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
