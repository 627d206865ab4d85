//! Pins Linux BPF maps, programs and links on bpffs, safely. Opening by path costs what the bare syscalls cost;
//! removing adds those that check whose pin it is.
//!
//! A BPF object dies with its last descriptor. Pinned, it has a name on bpffs and lives as long as
//! the name: [`Map::pin`] gives it one, [`Map::open`] finds it again, [`PinnedMap::unpin`] takes the
//! name away; and the same for [`Prog`] and [`Link`].
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
//! # If you know bpf(2)
//!
//! | command | here |
//! |---|---|
//! | `BPF_OBJ_PIN` | [`Map::pin`], [`Prog::pin`], [`Link::pin`], [`Object::pin`] |
//! | `BPF_OBJ_GET` | [`Map::open`], [`Map::open_with`], [`PinnedMap::open`], …; [`Object::open`] for any kind |
//! | `unlink(2)` | [`PinnedMap::unpin`], … |
//! | `BPF_OBJ_GET_INFO_BY_FD` | [`Map::info`], [`Map::id`], … |
//! | `BPF_*_GET_FD_BY_ID`, `BPF_*_GET_NEXT_ID` | [`Map::from_id`], [`Map::from_id_with`], [`Map::ids`], … |
//! | `BPF_MAP_CREATE` | [`MapSpec::create`] |
//! | `BPF_MAP_*_ELEM` | [`Map::elements`] |
//! | `BPF_MAP_*_BATCH` | [`Elements::iter`], [`Elements::to_vecs`], [`Elements::update_batch`], … |
//! | `BPF_MAP_FREEZE` | [`Map::freeze`] |
//! | `mmap(2)` | [`Map::mmap`] |
//! | `BPF_PROG_LOAD` | [`ProgSpec::load`], [`ProgSpec::load_with_log`] |
//! | `BPF_PROG_TEST_RUN`, `BPF_PROG_BIND_MAP` | [`Prog::test_run`], [`Prog::bind_map`] |
//! | `BPF_BTF_LOAD` | [`Btf::load`] |
//! | `BPF_LINK_CREATE` | [`LinkSpec::create`] |
//! | `BPF_RAW_TRACEPOINT_OPEN` | [`LinkSpec::raw_tracepoint`], [`LinkSpec::tracing`] |
//! | `BPF_ITER_CREATE` | [`Link::iter`] |
//! | all that it takes after a restart | [`PinDir::open_or_create`], [`PinDir::open_or_attach`]; by path [`PinnedMap::open_or_create`], [`PinnedLink::open_or_attach`] |
//! | `BPF_LINK_UPDATE`, `BPF_LINK_DETACH` | [`Link::update`], [`Link::detach`] |
//! | `BPF_F_PATH_FD` and the `*at` calls | [`PinDir`]: [`pin`](PinDir::pin), [`get`](PinDir::get), [`unpin`](PinDir::unpin), … |
//! | `renameat2(2)` | [`PinDir::replace`], [`replace_if`](PinDir::replace_if), [`exchange`](PinDir::exchange), [`stage`](PinDir::stage) |
//! | `mkdir -p`, `rm -r` | [`PinDir::create`], [`PinDir::remove_dir_all`] |
//! | `getdents64(2)` | [`PinDir::entries`], [`PinDir::walk`], [`PinDir::remove_where`] |
//! | `flock(2)` | [`PinDir::lock`] |
//! | `statfs(2)` against `BPF_FS_MAGIC` | [`FileSystem::at`], [`FileSystem::of`], [`Bpffs::at`] |
//! | `mount -t bpf`, `fsopen(2)` and its like | [`Bpffs::ensure`], [`MountOptions::mount`], [`MountOptions::detached`] |
//! | `umount2(2)` | [`Bpffs::unmount`] |
//! | `/proc/self/mountinfo` | [`Bpffs::mounts`], [`Bpffs::inspect`] |
//! | which pins there are | [`Inventory::take`] |
//! | what may be done, what the kernel has | [`Capabilities`], [`Features`] |
//! | `BPF_TOKEN_CREATE` | [`Token::create`], [`MountOptions::grant_delegation`] |
//!
//! # Promises
//!
//! - The kernel proves a kind before a typed value exists, whether the descriptor comes from a pin or from
//!   elsewhere. On Linux 5.10 to 7.3 the proof is one system call, two for a map opened for writing only; on a
//!   kernel whose structs are of unknown sizes it takes more. A seccomp filter or a tracer can forge the
//!   kernel's answers, and so a proof. An answer that leaves the info at zero is taken for no proof.
//! - What safe code does with the library keeps the process's memory sound. What a program does to that
//!   once it is loaded, by helpers made for it such as `bpf_probe_write_user`, is beyond what Rust's safety
//!   is about, as is `/proc/self/mem`.
//! - A failing call leaves everything as it was, and an object that it took comes back in the
//!   error, see [`Failed`].
//! - A success takes the syscalls that its docs name and no more. To find the [`Cause`] of an error
//!   takes more, and happens after the failure only. What was not proven is not claimed.
//! - What [`PinDir::replace`] and [`Stage::publish`] do, a reader sees at once and whole, also if the
//!   process is killed amid it; [`PinDir::remove_leftovers`] finds what it left.
//! - The kernel cannot check whose a pin is and remove it in one step. [`PinnedMap::unpin`] does one
//!   right after the other.
//!
//! # Descriptors
//!
//! All descriptors are opened with `O_CLOEXEC`. [`Map`], [`Prog`] and [`Link`] have the layout of an
//! [`OwnedFd`](std::os::fd::OwnedFd), so `Option<Map>` may stand in an `extern "C"` signature, and descriptors
//! go in and out through `TryFrom` and `Into`:
//!
//! ```no_run
//! use std::os::fd::OwnedFd;
//!
//! use bpf_pin::Map;
//!
//! /// A descriptor that another library made, as a map, pinned.
//! fn adopt(fd: OwnedFd) -> bpf_pin::Result<OwnedFd> {
//!     let map = Map::try_from(fd)?.pin("/sys/fs/bpf/adopted")?;
//!     Ok(map.into_inner().into())
//! }
//! ```
#![deny(unsafe_code)]
// A part of the library uses a part of the system calls.
#![cfg_attr(not(feature = "default"), allow(dead_code, unused_imports))]

pub mod bpffs;
mod diagnose;
pub mod dir;
pub mod error;
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

/// For this workspace's tests: each way of proving a kind, alone, and what an inventory makes of a text.
#[doc(hidden)]
pub mod __proof {
    #[cfg(feature = "inventory")]
    pub use crate::inventory::{Outline, outline};
    pub use crate::proof::{by_command, by_info, by_proc};
}

/// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
