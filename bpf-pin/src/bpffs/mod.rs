//! bpffs, the file system that pins live on: detecting, inspecting, mounting and delegating it.

#[cfg(feature = "mount")]
mod attach;
#[cfg(feature = "mount")]
mod delegate;
mod directory;
#[cfg(feature = "mount")]
mod ensure;
#[cfg(feature = "mount")]
mod fallback;
mod inspect;
mod instance;
#[cfg(feature = "mount")]
mod mount;
#[cfg(feature = "mount")]
mod options;
mod statfs;

pub use crate::procfs::{Mount, Propagation, ShadowedBpffs};
pub use crate::types::FileSystem;
#[cfg(feature = "mount")]
pub use ensure::MountOutcome;
pub use inspect::{Inspection, ReadOnly, Verdict};
pub use instance::Bpffs;
pub(crate) use instance::error;
#[cfg(feature = "mount")]
pub use mount::Detached;
#[cfg(feature = "mount")]
pub use options::MountOptions;
