//! A directory of a bpffs that was found or created by this library.

#[cfg(feature = "mount")]
use std::path::Path;

use rustix::io::fcntl_dupfd_cloexec;

#[cfg(feature = "mount")]
use crate::bpffs::Detached;
use crate::bpffs::{Bpffs, error};
use crate::error::{Operation, Reason, Result};

use super::PinDir;

impl Bpffs {
    /// Returns its directory, to pin in.
    ///
    /// # Errors
    ///
    /// [`Operation::FindBpffs`](crate::error::Operation::FindBpffs) with EMFILE if the process has no descriptor left.
    pub fn dir(&self) -> Result<PinDir> {
        let fd = fcntl_dupfd_cloexec(self, 0).map_err(Reason::errno_only);
        fd.and_then(|fd| Ok(PinDir::of_bpffs(fd, self.path())?))
            .map_err(|reason| error(Operation::FindBpffs, self.path(), reason))
    }
}

#[cfg(feature = "mount")]
impl Detached {
    /// Returns its root, to pin in.
    ///
    /// # Errors
    ///
    /// [`Operation::CreateBpffs`](crate::error::Operation::CreateBpffs) with EMFILE if the process has no descriptor left.
    pub fn dir(&self) -> Result<PinDir> {
        let fd = fcntl_dupfd_cloexec(self, 0).map_err(|errno| {
            let reason = Reason::errno_only(errno);
            error(Operation::CreateBpffs, Path::new(""), reason)
        })?;
        PinDir::from_fd(fd).map_err(|failed| failed.into())
    }
}
