//! Directories are removed, with all that is in them.

use std::ffi::OsStr;

use rustix::fs::{AtFlags, RenameFlags, unlinkat};
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Reason, Result};
use crate::filename::Filename;
use crate::operation::DirOperation;

use super::names::{self, Left};
use super::{EntryType, PinDir};

/// How often a directory that is filled meanwhile is emptied again.
const TRIES: usize = 100;

impl PinDir {
    /// `rmdir(2)`: removes an empty directory.
    ///
    /// # Errors
    ///
    /// [`Error::Directory`](crate::Error::Directory): [`NotEmpty`](crate::Cause::NotEmpty) (ENOTEMPTY);
    /// [`NotADirectory`](crate::Cause::NotADirectory) or [`SymbolicLink`](crate::Cause::SymbolicLink) (ENOTDIR);
    /// [`MountPoint`](crate::Cause::MountPoint) (EBUSY); [`Missing`](crate::Cause::Missing) or
    /// [`Removed`](crate::Cause::Removed) (ENOENT); [`Sticky`](crate::Cause::Sticky) (EPERM),
    /// [`Blocked`](crate::Cause::Blocked) (EACCES); what is wrong with a name, as [`open_dir`](Self::open_dir).
    pub fn remove_dir(&self, name: impl AsRef<OsStr>) -> Result<()> {
        let name = self.name(DirOperation::Remove, name.as_ref())?;
        self.rmdir(&name)
    }

    /// `rename(2)`, `unlink(2)`, `rmdir(2)`: removes a directory and all that is in it.
    ///
    /// It loses its name at once, so nobody who comes by the name sees half of it; then it is emptied.
    /// If the process is killed before it is, [`sweep_stale`](Self::sweep_stale) does the rest.
    /// Symbolic links are removed, not followed, and mounts are not crossed. What objects die of it
    /// is not asked.
    ///
    /// # Errors
    ///
    /// [`Error::Directory`](crate::Error::Directory), with the path of what could not be removed, and the causes of
    /// [`remove_dir`](Self::remove_dir). What is left has its name again, unless another took it meanwhile.
    pub fn remove_dir_all(&self, name: impl AsRef<OsStr>) -> Result<()> {
        let name = self.name(DirOperation::Remove, name.as_ref())?;
        self.remove_tree(&name)
    }

    pub(super) fn remove_tree(&self, name: &Filename) -> Result<()> {
        // What is no directory is not even renamed.
        self.open_dir_named(name)
            .map_err(|reason| self.fail_at(DirOperation::Remove, name.as_os_str(), reason))?;
        let hidden = names::passing(names::token(), 0, Left::Unfinished);
        self.rename_named(name, &hidden, RenameFlags::NOREPLACE)
            .map_err(|errno| self.not_removed(name, errno))?;
        self.remove_hidden(&hidden).inspect_err(|_| {
            let _ = self.rename_named(&hidden, name, RenameFlags::NOREPLACE);
        })
    }

    /// Removes a directory whose name nobody looks at. That it is gone already is fine.
    pub(super) fn remove_hidden(&self, name: &Filename) -> Result<()> {
        let mut tries = 0;
        loop {
            let dir = match self.open_dir_named(name) {
                Ok(dir) => dir,
                Err(reason) if reason.is(Errno::NOENT) => return Ok(()),
                Err(reason) => {
                    return Err(self.fail_at(DirOperation::Remove, name.as_os_str(), reason));
                }
            };
            dir.clear()?;
            tries += 1;
            match unlinkat(&self.fd, name.as_c_str(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::NOTEMPTY) if tries < TRIES => {}
                Err(errno) => return Err(self.not_removed(name, errno)),
            }
        }
    }

    fn clear(&self) -> Result<()> {
        for entry in self.entries()? {
            let entry = entry?;
            match entry.entry_type() {
                EntryType::Directory => self.remove_hidden(&entry.name)?,
                _ => match self.place(&entry.name).unlink() {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(self.not_removed(&entry.name, errno)),
                },
            }
        }
        Ok(())
    }

    pub(super) fn rmdir(&self, name: &Filename) -> Result<()> {
        unlinkat(&self.fd, name.as_c_str(), AtFlags::REMOVEDIR)
            .map_err(|errno| self.not_removed(name, errno))
    }

    #[cold]
    pub(super) fn not_removed(&self, name: &Filename, errno: Errno) -> crate::Error {
        let place = self.place(name);
        let reason = Reason::new(errno, diagnose::find(&place, errno));
        self.fail_at(DirOperation::Remove, name.as_os_str(), reason)
    }
}
