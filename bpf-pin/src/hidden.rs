//! A bpffs that is there and is not seen.

use std::fmt;

use crate::mountinfo::Mount;

/// A bpffs that is mounted on the way that a path goes, and that the path does not lead to. What was
/// pinned there is in it: one that is mounted there anew is another, and empty.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HiddenBpffs {
    /// It is in this thread's mount namespace, and another mount hides it.
    ByMount {
        /// The bpffs.
        bpffs: Box<Mount>,
        /// What hides it: mounted over it, or over a directory on the way to it.
        by: Box<Mount>,
    },
    /// Process 1 has it, whose mount namespace is another, and this thread's has none there.
    InProcess1 {
        /// The bpffs, as process 1 sees it.
        bpffs: Box<Mount>,
    },
}

impl fmt::Display for HiddenBpffs {
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
