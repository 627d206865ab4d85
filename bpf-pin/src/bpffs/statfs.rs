//! The file system that a path or descriptor is on.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{fstatfs, statfs};

use crate::diagnose;
use crate::error::{Error, Operation, Reason, Result};
use crate::path::Pathname;
use crate::types::FileSystem;

impl FileSystem {
    /// `statfs(path)`: returns the file system that `path` is on.
    ///
    /// # Errors
    ///
    /// [`Operation::Statfs`](crate::error::Operation::Statfs) with ENOENT, ENOTDIR, EACCES, ELOOP or
    /// ENAMETOOLONG if the path cannot be walked, and without an errno if it holds a NUL.
    ///
    /// # Examples
    ///
    /// ```
    /// use bpf_pin::bpffs::FileSystem;
    ///
    /// let fs = FileSystem::at("/proc")?;
    /// assert!(!fs.is_bpffs());
    /// assert_eq!(fs.to_string(), "proc");
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn at(path: impl AsRef<Path>) -> Result<Self> {
        Self::at_path(path.as_ref())
    }

    fn at_path(path: &Path) -> Result<Self> {
        let fail = |reason| Error::new(Operation::Statfs, reason).at(path);
        let name = Pathname::new(path).map_err(|nul| fail(nul.into()))?;
        match statfs(name.as_c_str()) {
            Ok(stat) => Ok(Self::from_stat(&stat)),
            Err(errno) => Err(fail(Reason::new(errno, diagnose::walk(path, errno)))),
        }
    }

    /// `fstatfs(fd)`: returns the file system that an open file, or an `O_PATH` descriptor, is on.
    ///
    /// The descriptor of a map, program or link is an anonymous inode, even if the object is pinned.
    ///
    /// # Errors
    ///
    /// [`Operation::Fstatfs`](crate::error::Operation::Fstatfs) with the errno of `fstatfs(2)`, usually EIO.
    pub fn of(fd: impl AsFd) -> Result<Self> {
        match fstatfs(fd) {
            Ok(stat) => Ok(Self::from_stat(&stat)),
            Err(errno) => Err(Error::new(Operation::Fstatfs, Reason::errno_only(errno))),
        }
    }
}
