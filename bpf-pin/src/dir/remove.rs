//! Removes directories, with all that is in them.

use std::ffi::{CStr, OsStr};

use rustix::fs::{AtFlags, RenameFlags, unlinkat};
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Operation, Reason, Result};
use crate::path::Component;

use super::entries::Stream;
use super::stage::is_directory;
use super::temp_names::{TempKind, leftover_name};
use super::{EntryType, PinDir};

/// How often a directory that is filled meanwhile is emptied again.
const TRIES: usize = 100;

impl PinDir {
    /// `rmdir(2)`: removes an empty directory.
    ///
    /// # Errors
    ///
    /// [`Operation::Remove`] with [`NotEmpty`](Cause::NotEmpty) (ENOTEMPTY);
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
    /// It loses its name at once, so that nobody who comes by the name sees half of it. Then it is emptied,
    /// with two descriptors for each level of depth. Symbolic links are removed, not followed, and mounts
    /// are not crossed. Which objects are freed by it is not checked.
    ///
    /// If the process is killed meanwhile, the name is gone and the rest has a hidden name:
    /// [`remove_leftovers`](Self::remove_leftovers) of this directory removes it. The kernel cannot check
    /// what it renames: a pin that another process puts under the name during the call gets its name back,
    /// or keeps the hidden one if this process is killed before; then it is not removed.
    ///
    /// # Errors
    ///
    /// The error has the path of what could not be removed, and the causes of [`remove_dir`](Self::remove_dir).
    /// What is left has its name again, unless another took it meanwhile: then it is left to
    /// [`remove_leftovers`](Self::remove_leftovers). [`Displaced`](Cause::Displaced) if that is the pin
    /// of another process.
    pub fn remove_dir_all(&self, name: impl AsRef<OsStr>) -> Result<()> {
        let name = self.name(Operation::Remove, name.as_ref())?;
        self.remove_tree(&name)
    }

    pub(super) fn remove_tree(&self, name: &Component) -> Result<()> {
        let place = self.at_path(name);
        let fail = |reason| self.fail_at(Operation::Remove, name.as_os_str(), reason);
        let not_a_directory = |reason: Reason| match reason.cause() {
            Some(cause) => fail(Reason::new(Errno::NOTDIR, Some(cause.clone()))),
            None => fail(reason.explained(|errno| diagnose::unpin(&place, errno))),
        };
        // What is no directory is not even renamed.
        is_directory(&place, || place.path()).map_err(not_a_directory)?;
        let names = self.temp_names().map_err(fail)?;
        let mut tries = 0;
        let hidden: Component = loop {
            let hidden = names.acquire(TempKind::Directory);
            match self.rename_named(name, &hidden, RenameFlags::NOREPLACE) {
                Ok(()) => break hidden,
                // A forked process has the same names.
                Err(Errno::EXIST) if tries < TRIES => tries += 1,
                Err(errno) => return Err(self.not_removed(name, errno)),
            }
        };
        let Err(error) = self.remove_as(&hidden, name) else {
            return Ok(());
        };
        let is_directory = is_directory(&self.at_path(&hidden), || place.path());
        match self.rename_named(&hidden, name, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::NOENT) => Err(match is_directory {
                // It was exchanged before it was renamed, and has its name again.
                Err(reason) if reason.cause().is_some() => not_a_directory(reason),
                _ => error,
            }),
            Err(_) if is_directory.is_ok() => {
                self.give_up(&hidden, TempKind::Directory);
                Err(error)
            }
            Err(_) => Err(fail(self.changed_hands(name, &hidden))),
        }
    }

    /// Leaves what has a temporary name to the removal of leftovers.
    #[cold]
    pub(super) fn give_up(&self, hidden: &Component, kind: TempKind) {
        let name = leftover_name(kind);
        let _ = self.rename_named(hidden, &name, RenameFlags::NOREPLACE);
    }

    /// What another process put under the name could not be given its name back.
    #[cold]
    pub(super) fn changed_hands(
        &self,
        name: &(impl AsRef<CStr> + ?Sized),
        hidden: &impl AsRef<CStr>,
    ) -> Reason {
        let (path, now_at) = (self.at_path(name).path(), self.at_path(hidden).path());
        Cause::Displaced { path, now_at }.into()
    }

    /// Removes a directory that has a hidden name. If it is gone already, that is fine.
    pub(super) fn remove_hidden(&self, name: &Component) -> Result<()> {
        self.remove_as(name, name)
    }

    /// As [`remove_hidden`](Self::remove_hidden), of what the caller knows by another name.
    fn remove_as(&self, name: &Component, known_as: &Component) -> Result<()> {
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
                    match dir.at_path(entry.c_name()).unlink() {
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
    fn level(&self, name: Component, known_as: Component) -> Result<Option<Level>> {
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
                    _ => diagnose::unpin(&parent.at_path(&level.name), errno),
                };
                let known_as = level.known_as.as_os_str();
                let reason = Reason::new(errno, cause);
                return Err(parent.fail_at(Operation::Remove, known_as, reason));
            }
        }
        Ok(())
    }

    pub(super) fn rmdir(&self, name: &Component) -> Result<()> {
        unlinkat(&self.fd, name.as_c_str(), AtFlags::REMOVEDIR)
            .map_err(|errno| self.not_removed(name, errno))
    }

    #[cold]
    pub(super) fn not_removed(&self, name: &Component, errno: Errno) -> crate::error::Error {
        let place = self.at_path(name);
        let reason = Reason::new(errno, diagnose::unpin(&place, errno));
        self.fail_at(Operation::Remove, name.as_os_str(), reason)
    }
}

/// A directory that is being emptied.
struct Level {
    dir: PinDir,
    stream: Stream<()>,
    /// In the directory around it, and for people.
    name: Component,
    known_as: Component,
    tries: usize,
}
