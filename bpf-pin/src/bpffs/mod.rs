//! The file system that pins live on: where it is, what it is, how it is mounted and delegated.

mod allowed;
mod attach;
mod directory;
mod ensure;
mod handshake;
mod inspect;
mod instance;
mod mount;
mod mountinfo;
mod noatime;
mod options;
mod statfs;
mod statmount;
mod table;
mod token;

pub(crate) use directory::mount_id;
pub(crate) use table::{Row, Table};

pub use allowed::{Allowed, Delegable, Delegation};
pub use ensure::Ensured;
pub use inspect::{Inspection, ReadOnly, Verdict};
pub use instance::Bpffs;
pub use mount::Detached;
pub use mountinfo::{Mount, Propagation};
pub use options::MountOptions;
pub use token::Token;
