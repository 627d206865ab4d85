//! Removes directories with their contents.

use std::ffi::{CStr, OsStr};

use rustix::fs::{AtFlags, RenameFlags, unlinkat};
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Error, Operation, Reason, Result};
use crate::path::{AtPath, Component, Pathname};

use super::entries::Stream;
use super::stage::check_directory;
use super::temp_names::{TempKind, leftover_name};
use super::{EntryType, PinDir, TRIES, unlink_reason};

impl PinDir {
    /// `rmdir(2)`: removes an empty directory.
    ///
    /// # Errors
    ///
    /// [`Operation::Remove`], with these causes and those of [names](Self#names) and
    /// [access](Self#access):
    ///
    /// | condition | cause | errno |
    /// |---|---|---|
    /// | nothing has the name | [`Missing`](Cause::Missing) | ENOENT |
    /// | the directory is not empty | [`NotEmpty`](Cause::NotEmpty) | ENOTEMPTY |
    /// | it is not a directory | [`NotADirectory`](Cause::NotADirectory) | ENOTDIR |
    /// | it is a symbolic link | [`SymbolicLink`](Cause::SymbolicLink) | ENOTDIR |
    /// | something is mounted on it | [`MountPoint`](Cause::MountPoint) | EBUSY |
    pub fn remove_dir(&self, name: impl AsRef<OsStr>) -> Result<()> {
        self.on_name(Operation::Remove, name.as_ref(), |at| self.rmdir(at))
    }

    pub(super) fn rmdir(&self, at: &AtPath<'_>) -> Result<(), Reason> {
        unlinkat(&self.fd, at.name, AtFlags::REMOVEDIR).map_err(|errno| unlink_reason(at, errno))
    }

    /// `rename(2)`, `unlink(2)`, `rmdir(2)`: removes a directory with its contents.
    ///
    /// The directory loses its name in one step, so no process finds half of it there. Then it is emptied,
    /// with two descriptors for each level of depth. Symbolic links are removed, not followed, and mounts
    /// are not crossed. Does not check which objects it frees.
    ///
    /// Removing the last pin of a prog array empties the array, even while programs tail-call into it:
    /// [`Prog::ids_using`](crate::Prog::ids_using) lists those programs.
    ///
    /// # Races
    ///
    /// The kernel cannot check what it renames. A directory that another process puts under the name during
    /// the call, such as a set that it publishes, is removed. If it puts a pin there, the pin gets its name
    /// back.
    ///
    /// If this process is killed meanwhile, the remains have a hidden name, and
    /// [`remove_leftovers`](Self::remove_leftovers) of this directory removes them. A pin of another process
    /// that has the hidden name then is not removed.
    ///
    /// # Errors
    ///
    /// As [`remove_dir`](Self::remove_dir), with the path of the file or directory that could not be
    /// removed. The remains get the name again. If another process has taken it, they are left to
    /// [`remove_leftovers`](Self::remove_leftovers). [`Displaced`](Cause::Displaced) if a pin of
    /// another process could not get its name back.
    pub fn remove_dir_all(&self, name: impl AsRef<OsStr>) -> Result<()> {
        let name = self.name(Operation::Remove, name.as_ref())?;
        self.remove_tree(&name)
    }

    pub(super) fn remove_tree(&self, name: &Component) -> Result<()> {
        let at = self.at_path(name);
        let fail = |reason| self.fail_at(Operation::Remove, name.as_os_str(), reason);
        let explain = |reason: Reason| fail(reason.explained(|errno| diagnose::unpin(&at, errno)));
        let not_a_directory = |reason: Reason| match reason.cause() {
            Some(cause) => fail(Reason::new(Errno::NOTDIR, Some(cause.clone()))),
            None => explain(reason),
        };
        // Anything else is not even renamed.
        check_directory(&at, || at.path()).map_err(not_a_directory)?;
        let rename = |hidden: &Component| {
            self.rename_named(name, hidden, RenameFlags::NOREPLACE)
                .map_err(Reason::errno_only)
        };
        let (hidden, ()) = self
            .with_temp_name(TempKind::Directory, rename)
            .map_err(explain)?;
        let Err(error) = self.remove_at(hidden, self.path.join(name)) else {
            return Ok(());
        };
        let is_directory = check_directory(&self.at_path(&hidden), || at.path());
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

    /// Leaves a temporary name to the removal of leftovers.
    #[cold]
    pub(super) fn give_up(&self, hidden: &Component, kind: TempKind) {
        let name = leftover_name(kind);
        let _ = self.rename_named(hidden, &name, RenameFlags::NOREPLACE);
    }

    /// Another process put something under the name, and it could not be given the name back.
    #[cold]
    pub(super) fn changed_hands(
        &self,
        name: &(impl AsRef<CStr> + ?Sized),
        hidden: &impl AsRef<CStr>,
    ) -> Reason {
        let (path, now_at) = (self.at_path(name).path(), self.at_path(hidden).path());
        Cause::Displaced { path, now_at }.into()
    }

    /// Removes a directory that has a hidden name. It may be gone already.
    pub(super) fn remove_hidden(&self, name: &Component) -> Result<()> {
        self.remove_at(*name, self.path.join(name))
    }

    /// Removes a directory. Errors name it by `path`.
    fn remove_at(&self, name: Component, path: Pathname) -> Result<()> {
        // Not recursive: a tree may be deeper than the thread's stack allows.
        let mut levels = Vec::from_iter(self.open_level(name, path)?);
        while let Some(Level { dir, stream, .. }) = levels.last_mut() {
            match stream.advance() {
                Ok(true) if stream.entry().entry_type() == EntryType::Directory => {
                    let name = stream.entry().component();
                    let level = dir.open_level(name, dir.path.join(&name))?;
                    levels.extend(level);
                }
                Ok(true) => {
                    let at = dir.at_path(stream.entry().c_name());
                    match at.unlink() {
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(errno) => {
                            let error = Error::new(Operation::Remove, unlink_reason(&at, errno));
                            return Err(error.at(at.path()));
                        }
                    }
                }
                Ok(false) => self.remove_emptied(&mut levels)?,
                // Another process has removed the directory.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(dir.list_error(errno)),
            }
        }
        Ok(())
    }

    /// Opens a directory to empty it. `None` if it is gone.
    fn open_level(&self, name: Component, path: Pathname) -> Result<Option<Level>> {
        let mut dir = match self.open_dir_named(&name) {
            Ok(dir) => dir,
            Err(reason) if reason.is(Errno::NOENT) => return Ok(None),
            Err(reason) => {
                return Err(Error::new(Operation::Remove, reason).at(path.as_path()));
            }
        };
        dir.path = path;
        match dir.stream(()) {
            Ok(stream) => Ok(Some(Level {
                dir,
                stream,
                name,
                tries: 0,
            })),
            Err(error) if error.is(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the last level, which was emptied. If it was filled again, it stays and is read again.
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
                return Err(level.dir.fail(Operation::Remove, Reason::new(errno, cause)));
            }
        }
        Ok(())
    }
}

/// A directory that is being emptied.
struct Level {
    dir: PinDir,
    stream: Stream<()>,
    /// Its name in the directory around it.
    name: Component,
    tries: usize,
}
