//! bpffs, the file system that pins live on: detecting, inspecting, mounting and delegating it.

mod attach;
mod delegate;
mod directory;
mod ensure;
mod fallback;
mod inspect;
mod instance;
mod mount;
mod options;
mod statfs;

pub use crate::procfs::{Mount, Propagation, ShadowedBpffs};
pub use crate::types::FileSystem;
pub use ensure::MountOutcome;
pub use inspect::{Inspection, ReadOnly, Verdict};
pub use instance::Bpffs;
pub(crate) use instance::error;
pub use mount::Detached;
pub use options::MountOptions;
