//! Plain types: the kernel's numbers, flags and names, and the kind and identity of an object.

mod access;
mod file_system;
mod flags;
mod kind;
mod link_target;
mod name;
mod numbered;
#[cfg(feature = "serde")]
pub(crate) mod serialize;

pub use access::Access;
pub use file_system::FileSystem;
pub(crate) use file_system::ST_NOSYMFOLLOW;
pub use flags::{LogLevel, MapFlags};
pub use kind::{Identity, Kind};
pub use link_target::LinkTarget;
pub(crate) use name::InvalidName;
pub use name::ObjName;
pub use numbered::{AttachType, CgroupIterOrder, Command, LinkType, MapType, ProgType};
