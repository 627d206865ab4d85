//! The file system that pins live on: where it is, what it is, how it is mounted and delegated.

mod allowed;
mod attach;
mod directory;
mod ensure;
mod handshake;
mod inspect;
mod instance;
mod mount;
mod noatime;
mod options;
mod statfs;
mod token;

pub use allowed::{Allowed, Delegable, Delegation};
pub use ensure::Ensured;
pub use inspect::{Inspection, ReadOnly, Verdict};
pub use instance::Bpffs;
pub use mount::Detached;
pub use options::MountOptions;
pub use token::Token;
