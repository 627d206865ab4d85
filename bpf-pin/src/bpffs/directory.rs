//! Opening a directory, with an error that says what is in the way.

use std::path::Path;

use crate::diagnose;
use crate::error::{Cause, Reason};
use crate::path::Pathname;
use crate::procfs::{Directory, Mount, MountInfo};

impl Directory {
    pub(crate) fn open(path: &Path) -> Result<Self, Reason> {
        let name = Pathname::new(path)?;
        Self::hold(name.as_c_str()).map_err(|errno| Reason::new(errno, diagnose::walk(path, errno)))
    }

    /// Fails with what is there instead if it is not on a bpffs.
    pub(crate) fn on_bpffs(self, path: &Path) -> Result<Self, Cause> {
        match self.fs.is_bpffs() {
            true => Ok(self),
            false => Err(diagnose::not_bpffs(path, self.fs)),
        }
    }

    pub(crate) fn listed_mount(&self, mounts: &MountInfo) -> Result<Mount, Reason> {
        match self.mount(mounts)? {
            Some(mount) => Ok(mount),
            None => {
                let mount_id = self.mount_id()?;
                Err(Cause::NotListed { mount_id }.into())
            }
        }
    }
}
