//! What can be done with directories, file systems and tokens, for errors to name.

use std::fmt;
use std::path::Path;

use crate::shown::Shown;

/// What was done with a directory, or a name in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DirOperation {
    /// `open(2)` with `O_PATH`, `fstatfs(2)`.
    Open,
    /// A descriptor from elsewhere was taken for a directory on a bpffs.
    Take,
    /// `mkdir(2)`.
    Create,
    /// `dup(2)`.
    Clone,
    /// `getdents64(2)`.
    List,
    /// `fstatat(2)`.
    Stat,
    /// `unlink(2)` or `rmdir(2)`.
    Remove,
    /// `link(2)`.
    Link,
    /// `renameat2(2)` with `RENAME_NOREPLACE`.
    Rename,
    /// `renameat2(2)` with `RENAME_EXCHANGE`.
    Exchange,
    /// `BPF_OBJ_PIN` and `rename(2)`.
    Replace,
    /// A hidden directory beside the name.
    Stage,
    /// `renameat2(2)` of the hidden directory.
    Publish,
    /// `flock(2)`.
    Lock,
    /// `chmod(2)`.
    Chmod,
    /// `chown(2)`.
    Chown,
    /// The search for what dead processes have left.
    Sweep,
}

impl DirOperation {
    pub(crate) fn write(
        self,
        f: &mut fmt::Formatter<'_>,
        path: &Path,
        to: Option<&Path>,
    ) -> fmt::Result {
        let (before, between) = match self {
            Self::Open => ("open directory", ""),
            Self::Take => ("take as a directory", ""),
            Self::Create => ("create directory", ""),
            Self::Clone => ("clone the descriptor of", ""),
            Self::List => ("list", ""),
            Self::Stat => ("stat", ""),
            Self::Remove => ("remove", ""),
            Self::Link => ("link", "as"),
            Self::Rename => ("rename", "to"),
            Self::Exchange => ("exchange", "and"),
            Self::Replace => ("replace", ""),
            Self::Stage => ("stage", ""),
            Self::Publish => ("publish", ""),
            Self::Lock => ("lock", ""),
            Self::Chmod => ("change the mode of", ""),
            Self::Chown => ("change the owner of", ""),
            Self::Sweep => ("sweep", ""),
        };
        write!(f, "{before} {}", Shown(path.display()))?;
        match to {
            Some(to) => write!(f, " {between} {}", Shown(to.display())),
            None => Ok(()),
        }
    }
}

/// What was done to a bpffs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MountOperation {
    /// [`Bpffs::at`](crate::Bpffs::at), [`still_here`](crate::Bpffs::still_here).
    Find,
    /// [`Bpffs::inspect`](crate::Bpffs::inspect).
    Inspect,
    /// [`Bpffs::mounts`](crate::Bpffs::mounts) and what else reads mountinfo.
    ReadMounts,
    /// [`inventory`](crate::inventory()).
    List,
    /// [`MountOptions::detached`](crate::MountOptions::detached).
    Make,
    /// [`MountOptions::mount`](crate::MountOptions::mount), [`Bpffs::ensure`](crate::Bpffs::ensure).
    Mount,
    /// [`Detached::attach`](crate::Detached::attach).
    Attach,
    /// [`Bpffs::unmount`](crate::Bpffs::unmount).
    Unmount,
    /// [`MountOptions::request_delegation`](crate::MountOptions::request_delegation).
    RequestDelegation,
    /// [`MountOptions::grant_delegation`](crate::MountOptions::grant_delegation).
    GrantDelegation,
}

impl fmt::Display for MountOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Find => "find a bpffs at",
            Self::Inspect => "inspect",
            Self::ReadMounts => "read the mounts",
            Self::List => "list the bpffs mounted at",
            Self::Make => "make a bpffs",
            Self::Mount => "mount a bpffs at",
            Self::Attach => "attach a bpffs at",
            Self::Unmount => "unmount",
            Self::RequestDelegation => "request a delegated bpffs",
            Self::GrantDelegation => "grant a delegated bpffs",
        })
    }
}

/// What was done to a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenOperation {
    /// `BPF_TOKEN_CREATE`.
    Create,
    /// A descriptor from elsewhere was taken for one.
    Descriptor,
    /// `BPF_OBJ_GET_INFO_BY_FD`.
    Info,
}

impl fmt::Display for TokenOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create a token",
            Self::Descriptor => "take a descriptor for a token",
            Self::Info => "read what a token allows",
        })
    }
}
