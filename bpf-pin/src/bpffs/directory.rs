//! Opening a directory, with an error that names the obstacle.

use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::diagnose;
use crate::error::{Cause, Reason};
use crate::path::Pathname;
use crate::procfs::{Directory, Mount, MountInfo, mount_id, mount_of};

impl Directory {
    pub(crate) fn open(path: &Path) -> Result<Self, Reason> {
        let name = Pathname::new(path)?;
        Self::hold(name.as_path()).map_err(|errno| Reason::new(errno, diagnose::walk(path, errno)))
    }

    /// Fails with the file system that is there if it is not a bpffs.
    pub(crate) fn on_bpffs(self, path: &Path) -> Result<Self, Cause> {
        if self.fs.is_bpffs() {
            Ok(self)
        } else {
            Err(diagnose::not_bpffs(path, self.fs))
        }
    }
}

/// The mount that `fd` was opened through. Fails if mountinfo does not list it.
pub(super) fn listed_mount(fd: BorrowedFd<'_>, mounts: &MountInfo) -> Result<Mount, Reason> {
    match mount_of(fd, mounts)? {
        Some(mount) => Ok(mount),
        None => {
            let mount_id = mount_id(fd)?;
            Err(Cause::NotListed { mount_id }.into())
        }
    }
}
