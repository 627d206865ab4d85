//! Directories are removed, with all that is in them.

use std::ffi::OsStr;

use rustix::fs::{AtFlags, RenameFlags, unlinkat};
use rustix::io::Errno;

use crate::cause::Cause;
use crate::diagnose;
use crate::error::{Operation, Reason, Result};
use crate::filename::Filename;

use super::entries::Stream;
use super::names::{self, Left};
use super::{EntryType, PinDir};

/// How often a directory that is filled meanwhile is emptied again.
const TRIES: usize = 100;

impl PinDir {
    /// `rmdir(2)`: removes an empty directory.
    ///
    /// # Errors
    ///
    /// [`Operation::Remove`](crate::Operation::Remove): [`NotEmpty`](Cause::NotEmpty) (ENOTEMPTY);
    /// [`NotADirectory`](Cause::NotADirectory) or [`SymbolicLink`](Cause::SymbolicLink) (ENOTDIR);
    /// [`MountPoint`](Cause::MountPoint) (EBUSY); [`Missing`](Cause::Missing) or
    /// [`Removed`](Cause::Removed) (ENOENT); [`Sticky`](Cause::Sticky) (EPERM),
    /// [`Blocked`](Cause::Blocked) (EACCES); what is wrong with a name, as [`open_dir`](Self::open_dir).
    pub fn remove_dir(&self, name: impl AsRef<OsStr>) -> Result<()> {
        let name = self.name(Operation::Remove, name.as_ref())?;
        self.rmdir(&name)
    }

    /// `rename(2)`, `unlink(2)`, `rmdir(2)`: removes a directory and all that is in it.
    ///
    /// It loses its name at once, so nobody who comes by the name sees half of it; then it is emptied.
    /// If the process is killed before it is, [`sweep_stale`](Self::sweep_stale) of this directory does
    /// the rest. It takes two descriptors for each level of depth.
    /// Symbolic links are removed, not followed, and mounts are not crossed. What objects die of it
    /// is not asked.
    ///
    /// # Errors
    ///
    /// [`Operation::Remove`](crate::Operation::Remove), with the path of what could not be removed, and the causes of
    /// [`remove_dir`](Self::remove_dir). What is left has its name again, unless another took it meanwhile.
    pub fn remove_dir_all(&self, name: impl AsRef<OsStr>) -> Result<()> {
        let name = self.name(Operation::Remove, name.as_ref())?;
        self.remove_tree(&name)
    }

    pub(super) fn remove_tree(&self, name: &Filename) -> Result<()> {
        // What is no directory is not even renamed.
        self.open_dir_named(name)
            .map_err(|reason| self.fail_at(Operation::Remove, name.as_os_str(), reason))?;
        let hidden = names::passing(names::token(), 0, Left::Unfinished);
        self.rename_named(name, &hidden, RenameFlags::NOREPLACE)
            .map_err(|errno| self.not_removed(name, errno))?;
        self.remove_as(&hidden, name).inspect_err(|_| {
            let _ = self.rename_named(&hidden, name, RenameFlags::NOREPLACE);
        })
    }

    /// Removes a directory whose name nobody looks at. That it is gone already is fine.
    pub(super) fn remove_hidden(&self, name: &Filename) -> Result<()> {
        self.remove_as(name, name)
    }

    /// As [`remove_hidden`](Self::remove_hidden), of what a person knows by another name.
    fn remove_as(&self, name: &Filename, known_as: &Filename) -> Result<()> {
        // A stack of its own, for a tree may be deeper than the thread's is.
        let mut levels: Vec<Level> = Vec::new();
        let mut next = Some(*name);
        loop {
            let parent = levels.last().map_or(self, |level| &level.dir);
            if let Some(name) = next.take() {
                let known_as = if levels.is_empty() { *known_as } else { name };
                levels.extend(parent.level(name, known_as)?);
            }
            let Some(Level { dir, stream, .. }) = levels.last_mut() else {
                return Ok(());
            };
            match stream.advance() {
                Ok(true) => {
                    let entry = stream.entry();
                    if entry.entry_type() == EntryType::Directory {
                        next = Some(entry.filename());
                        continue;
                    }
                    match dir.place(entry.c_name()).unlink() {
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(errno) => return Err(dir.not_removed(&entry.filename(), errno)),
                    }
                }
                Ok(false) => self.remove_emptied(&mut levels)?,
                // Somebody else was done with it first.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(dir.list_error(errno)),
            }
        }
    }

    /// A directory to be emptied; None where it is gone.
    fn level(&self, name: Filename, known_as: Filename) -> Result<Option<Level>> {
        let mut dir = match self.open_dir_named(&name) {
            Ok(dir) => dir,
            Err(reason) if reason.is(Errno::NOENT) => return Ok(None),
            Err(reason) => {
                return Err(self.fail_at(Operation::Remove, known_as.as_os_str(), reason));
            }
        };
        dir.path = self.path.join(&known_as);
        match dir.stream(()) {
            Ok(stream) => Ok(Some(Level {
                dir,
                stream,
                name,
                known_as,
                tries: 0,
            })),
            Err(error) if error.is(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the last level, which is empty; if somebody has filled it again, begins it anew.
    fn remove_emptied(&self, levels: &mut Vec<Level>) -> Result<()> {
        let Some(mut level) = levels.pop() else {
            return Ok(());
        };
        let parent = levels.last().map_or(self, |level| &level.dir);
        match unlinkat(&parent.fd, level.name.as_c_str(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY) if level.tries < TRIES => {
                level.tries += 1;
                level.stream = level.dir.stream(())?;
                levels.push(level);
            }
            Err(errno) => {
                let path = level.dir.path().to_owned();
                let cause = match errno {
                    Errno::NOTEMPTY => Some(Cause::NotEmpty { path }),
                    _ => diagnose::unpin(&parent.place(&level.name), errno),
                };
                let known_as = level.known_as.as_os_str();
                let reason = Reason::new(errno, cause);
                return Err(parent.fail_at(Operation::Remove, known_as, reason));
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
        let reason = Reason::new(errno, diagnose::unpin(&place, errno));
        self.fail_at(Operation::Remove, name.as_os_str(), reason)
    }
}

/// A directory that is being emptied.
struct Level {
    dir: PinDir,
    stream: Stream<()>,
    /// In the directory around it, and for people.
    name: Filename,
    known_as: Filename,
    tries: usize,
}
