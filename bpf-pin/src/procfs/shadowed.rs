//! A mounted bpffs that a path does not reach.

use std::fmt;

use super::Mount;

/// A bpffs that is mounted at or above a path, but that the path does not reach.
///
/// It holds the objects that were pinned there. Another bpffs mounted there would be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ShadowedBpffs {
    /// It is in this thread's mount namespace, under another mount.
    ByMount {
        /// The bpffs.
        bpffs: Box<Mount>,
        /// The mount on top of it, or on top of a directory on its path.
        by: Box<Mount>,
    },
    /// It is in the mount namespace of process 1, and this thread's namespace has none there.
    InProcess1 {
        /// The bpffs, as process 1 sees it.
        bpffs: Box<Mount>,
    },
}

impl fmt::Display for ShadowedBpffs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByMount { bpffs, by } => write!(
                f,
                "the bpffs mounted at {} (mount {}) is hidden by {}, mounted at {} (mount {})",
                bpffs.mount_point.display(),
                bpffs.mount_id,
                by.fs_type.to_string_lossy(),
                by.mount_point.display(),
                by.mount_id
            ),
            Self::InProcess1 { bpffs } => write!(
                f,
                "in the mount namespace of process 1 a bpffs is mounted at {}",
                bpffs.mount_point.display()
            ),
        }
    }
}
