//! What can be done with directories, for errors to name.

use std::fmt;
use std::path::Path;

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
        write!(f, "{before} {}", path.display())?;
        match to {
            Some(to) => write!(f, " {between} {}", to.display()),
            None => Ok(()),
        }
    }
}
