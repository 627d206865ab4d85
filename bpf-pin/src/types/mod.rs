//! Plain types: the kernel's numbers, flags and names, and the kind and identity of an object.

pub(crate) mod access;
pub(crate) mod file_system;
pub(crate) mod flags;
mod kind;
pub(crate) mod name;
mod numbered;

pub use access::Access;
pub use file_system::FileSystem;
pub use flags::{LogLevel, MapFlags};
pub use kind::{Identity, Kind};
pub use name::ObjName;
pub use numbered::{AttachType, CgroupIterOrder, Command, LinkType, MapType, ProgType};
