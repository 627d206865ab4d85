//! Pins Linux BPF maps, programs and links on bpffs, safely.
#![deny(unsafe_code)]

mod bpffs;
mod capability;
mod cause;
mod cpu;
mod diagnose;
mod error;
mod kind;
mod link;
mod map;
mod name;
mod object;
mod pathname;
mod pinned;
mod prog;
mod sys;
mod types;

pub use bpf_pin_sys as abi;

pub use bpffs::FileSystem;
pub use capability::Capability;
pub use cause::Cause;
pub use error::{Error, Failed, Reason, Result};
pub use kind::{Identity, Kind};
pub use link::{Link, LinkInfo, LinkSpec, LinkTarget};
pub use map::{
    ElemFlags, Elems, Keys, Map, MapFlags, MapInfo, MapSpec, PerCpu, Typed, TypedIter, TypedKeys,
};
pub use name::ObjName;
pub use object::{Access, Handle, Object, ObjectKind, Pinnable, kinds};
pub use pinned::{Pinned, PinnedLink, PinnedMap, PinnedProg};
pub use prog::{Insn, Prog, ProgFlags, ProgInfo, ProgSpec};
pub use sys::AsMap;
pub use types::{AttachType, LinkType, MapType, ProgType};

/// For this workspace's tests: each way of proving a kind, alone.
#[doc(hidden)]
pub mod __proof {
    pub use crate::kind::{by_command, by_info, by_proc};
}
