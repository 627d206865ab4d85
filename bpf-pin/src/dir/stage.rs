//! A whole set of pins appears at once, or not at all.

use std::ffi::OsStr;
use std::fmt;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{FileType, FlockOperation, RenameFlags, Stat, fstat, renameat_with};
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Failed, Operation, Reason, Result};
use crate::path::AtPath;
use crate::path::Component;
use crate::sys::{FileLock, LockOwner};

use super::PinDir;
use super::create::Hidden;
use super::temp_names::{TempKind, leftover_name};

/// How often a name that another takes or removes meanwhile is tried again.
const TRIES: usize = 100;

/// A hidden staging directory next to its target: see [`PinDir::stage`].
///
/// It is a [`PinDir`] to pin into. On drop it is removed with all that is in it.
pub struct Stage<'d> {
    dir: PinDir,
    hidden: HiddenDir<'d>,
    name: Component,
}

/// Removes the directory that has the hidden name, on drop.
struct HiddenDir<'d> {
    parent: &'d PinDir,
    name: Component,
    /// Of the directory: if the name has another inode, what has it is not ours to remove.
    inode: u64,
    owner: LockOwner,
    /// Of a directory that was published before: to see that no reader locks it.
    published: Option<Option<OwnedFd>>,
    is_armed: bool,
}

/// What [`Stage::publish`] has done.
#[derive(Debug)]
#[non_exhaustive]
pub struct Published<'d> {
    /// The directory, by its name.
    pub dir: PinDir,
    /// The directory that had the name before, under a hidden one. On drop it is removed with all that is
    /// in it, or left to [`PinDir::remove_leftovers`] while a reader holds its [`lock`](PinDir::lock).
    /// [Publishing](Stage::publish) it brings it back.
    pub old: Option<Stage<'d>>,
    /// For a moment nothing had the name: bpffs has no `RENAME_EXCHANGE` before Linux 5.17.
    pub had_gap: bool,
}

enum Put {
    New,
    Exchanged { had_gap: bool },
}

impl PinDir {
    /// `mkdir(2)`: a hidden directory of mode 0700 in this one, to be filled and then published as `name`.
    ///
    /// Its name begins with "_bpf-pin-". If the process is killed, [`remove_leftovers`](Self::remove_leftovers)
    /// removes it. [`chmod`](Self::chmod) gives it another mode.
    ///
    /// # Errors
    ///
    /// [`Operation::Stage`], and nothing was made: [`Removed`](Cause::Removed) (ENOENT),
    /// [`Blocked`](Cause::Blocked) (EACCES), [`ReadOnlyFileSystem`](Cause::ReadOnlyFileSystem) (EROFS);
    /// what is wrong with a name, as [`open_dir`](Self::open_dir).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{MapSpec, MapType, PinDir};
    ///
    /// let app = PinDir::create("/sys/fs/bpf/app", 0o700)?;
    /// let set = app.stage("current")?;
    /// for name in ["flows", "routes"] {
    ///     set.pin(&MapSpec::new(MapType::HASH, 4, 8, 1024).create()?, name)?;
    /// }
    /// // Readers see the old two or the new two.
    /// set.publish()?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn stage(&self, name: impl AsRef<OsStr>) -> Result<Stage<'_>> {
        let name = self.name(Operation::Stage, name.as_ref())?;
        let hidden = self
            .create_hidden(TempKind::Directory)
            .map_err(|reason| self.fail_at(Operation::Stage, name.as_os_str(), reason))?;
        let Hidden {
            dir,
            name: hidden,
            stat,
        } = hidden;
        let hidden = HiddenDir::new(self, hidden, stat.st_ino, None);
        Ok(Stage { dir, hidden, name })
    }
}

impl<'d> Stage<'d> {
    /// `renameat2(2)`: gives the directory its name, in one step.
    ///
    /// If nothing has the name, with `RENAME_NOREPLACE`. If a directory has it, the two change places with
    /// `RENAME_EXCHANGE`: a reader that comes by the name finds the old set or the new one, whole. A reader
    /// that has opened the old one finds it whole while it holds its [`lock`](PinDir::lock) shared.
    ///
    /// Before Linux 5.17, where bpffs has no `RENAME_EXCHANGE`, the old one is moved out of the way first: for
    /// a moment nothing has the name, which [`Published::had_gap`] reports. A reader that comes right then gets
    /// ENOENT, often without a cause: when the cause is looked for, the name is there again. If the process is
    /// killed right then, [`PinDir::remove_leftovers`] puts the old one back.
    ///
    /// If another process puts a pin under the name during the call, the names are exchanged back. The
    /// kernel cannot check what it exchanges: if this process is killed between the two, that pin keeps its
    /// hidden name, which [`PinDir::remove_leftovers`] reports and does not remove.
    ///
    /// # Errors
    ///
    /// The error keeps the stage, and with it the directory borrowed. If that is too long,
    /// `.map_err(bpf_pin::Error::from)` drops the stage.
    ///
    /// The name is as it was: [`NotADirectory`](Cause::NotADirectory) if a pin has it,
    /// [`SymbolicLink`](Cause::SymbolicLink); [`MountPoint`](Cause::MountPoint) (EBUSY);
    /// [`Sticky`](Cause::Sticky) (EPERM), [`Blocked`](Cause::Blocked) (EACCES). Only with
    /// [`Displaced`](Cause::Displaced) it is not.
    #[allow(
        clippy::result_large_err,
        reason = "nothing is lost, the stage included"
    )]
    pub fn publish(self) -> Result<Published<'d>, Failed<Self>> {
        let put = match self.put() {
            Ok(put) => put,
            Err(reason) => {
                let name = self.name.as_os_str();
                let error = self.hidden.parent.fail_at(Operation::Publish, name, reason);
                return Err(Failed::new(self, error));
            }
        };
        let Self { dir, hidden, name } = self;
        let parent = hidden.parent;
        let hidden_name = hidden.name;
        // The name is another's now, or nobody's.
        hidden.disarm();
        let (old, had_gap) = match put {
            Put::New => (None, false),
            Put::Exchanged { had_gap } => (Self::of_old(parent, hidden_name, name), had_gap),
        };
        let dir = parent.child(dir.fd, &name);
        Ok(Published { dir, old, had_gap })
    }

    /// The set that was published before.
    fn of_old(parent: &'d PinDir, hidden: Component, name: Component) -> Option<Self> {
        let dir = parent.open_dir_named(&hidden).ok()?;
        let inode = fstat(&dir.fd).ok()?.st_ino;
        let hidden = HiddenDir::new(parent, hidden, inode, Some(dir.readable().ok()));
        Some(Self { dir, hidden, name })
    }

    /// Removes the directory and all that is in it. If it was published before, this waits until nobody
    /// holds its lock.
    ///
    /// # Errors
    ///
    /// As [`PinDir::remove_dir_all`]. What could not be removed is left under a hidden name, for
    /// [`PinDir::remove_leftovers`].
    pub fn discard(self) -> Result<()> {
        let Self {
            dir, mut hidden, ..
        } = self;
        let file = hidden.published.take().map(|file| match file {
            Some(file) => Ok(file),
            None => dir.readable(),
        });
        let lock = file.map(|file| {
            FileLock::take(file?, FlockOperation::LockExclusive).map_err(Reason::errno_only)
        });
        let _lock = lock
            .transpose()
            .map_err(|reason| dir.fail(Operation::Remove, reason))?;
        hidden.is_armed = false;
        hidden.remove()
    }

    fn put(&self) -> Result<Put, Reason> {
        let (parent, hidden, name) = (self.hidden.parent, &self.hidden.name, &self.name);
        let at = parent.at_path(name);
        let explain = |errno| Reason::new(errno, diagnose::unpin(&at, errno));
        for _ in 0..TRIES {
            match parent.rename_named(hidden, name, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(Put::New),
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Err(self.vanished()),
                Err(errno) => return Err(explain(errno)),
            }
            let path = || at.path();
            match is_directory(&at, path) {
                Ok(()) => {}
                Err(reason) if reason.is(Errno::NOENT) => continue,
                Err(reason) => return Err(reason.explained(|errno| diagnose::unpin(&at, errno))),
            }
            let exchange = || parent.rename_named(hidden, name, RenameFlags::EXCHANGE);
            match exchange() {
                Ok(()) => {
                    // Another process may have put something else there meanwhile: it gets its name back.
                    return match is_directory(&parent.at_path(hidden), path) {
                        Err(reason) if reason.cause().is_some() => {
                            match parent.swap_back(hidden, name, self.hidden.inode) {
                                true => Err(reason),
                                false => Err(parent.changed_hands(name, hidden)),
                            }
                        }
                        _ => Ok(Put::Exchanged { had_gap: false }),
                    };
                }
                // Gone meanwhile.
                Err(Errno::NOENT) => {}
                Err(Errno::INVAL) => {
                    if self.put_with_gap()? {
                        return Ok(Put::Exchanged { had_gap: true });
                    }
                }
                Err(errno) => return Err(explain(errno)),
            }
        }
        Err(Reason::errno_only(Errno::EXIST))
    }

    /// The hidden name is gone, or the directory around it.
    #[cold]
    fn vanished(&self) -> Reason {
        let parent = self.hidden.parent;
        let at = parent.at_path(&self.hidden.name);
        Reason::new(Errno::NOENT, diagnose::unpin(&at, Errno::NOENT))
    }

    /// False if another process was faster with the name.
    #[cold]
    fn put_with_gap(&self) -> Result<bool, Reason> {
        let parent = self.hidden.parent;
        let aside = parent.create_hidden(TempKind::Aside)?;
        let done = self.put_past(&aside.dir);
        // If something is in it still, it is left to the removal of leftovers.
        if parent.rmdir(&aside.name).is_err() {
            parent.give_up(&aside.name, TempKind::Aside);
        }
        done.map_err(|reason| {
            reason.explained(|errno| diagnose::unpin(&parent.at_path(&self.name), errno))
        })
    }

    fn put_past(&self, aside: &PinDir) -> Result<bool, Reason> {
        let (parent, hidden, name) = (self.hidden.parent, &self.hidden.name, &self.name);
        let no_replace = RenameFlags::NOREPLACE;
        let moved = |from: &PinDir, old: &Component, to: &PinDir, new: &Component| {
            renameat_with(&from.fd, old.as_c_str(), &to.fd, new.as_c_str(), no_replace)
        };
        match moved(parent, name, aside, name) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(Reason::errno_only(errno)),
        }
        let path = || parent.at_path(name).path();
        let put = is_directory(&aside.at_path(name), path).and_then(|()| {
            parent
                .rename_named(hidden, name, no_replace)
                .map_err(Reason::errno_only)
        });
        match put {
            Ok(()) => {
                // The old one takes the name that was the new one's; if not, it goes with the other.
                let _ = moved(aside, name, parent, hidden);
                Ok(true)
            }
            // Another process was faster: what was moved is the old set of its publication, too, and may
            // have readers.
            Err(reason) if reason.is(Errno::EXIST) => {
                let retired = leftover_name(TempKind::Directory);
                if moved(aside, name, parent, &retired).is_ok() {
                    drop(Self::of_old(parent, retired, *name));
                }
                Ok(false)
            }
            Err(reason) => {
                let _ = moved(aside, name, parent, name);
                Err(reason)
            }
        }
    }
}

/// An error if it is something else, with the path that the caller knows it by.
pub(super) fn is_directory(at: &AtPath<'_>, path: impl FnOnce() -> PathBuf) -> Result<(), Reason> {
    let stat = at.lstat().map_err(Reason::errno_only)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(()),
        FileType::Symlink => Err(Cause::SymbolicLink { path: path() }.into()),
        _ => Err(Cause::NotADirectory { path: path() }.into()),
    }
}

impl Deref for Stage<'_> {
    type Target = PinDir;

    fn deref(&self) -> &PinDir {
        &self.dir
    }
}

impl fmt::Debug for Stage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage")
            .field("dir", &self.dir)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<'d> HiddenDir<'d> {
    fn new(
        parent: &'d PinDir,
        name: Component,
        inode: u64,
        published: Option<Option<OwnedFd>>,
    ) -> Self {
        Self {
            parent,
            name,
            inode,
            owner: LockOwner::this_process(),
            published,
            is_armed: true,
        }
    }

    fn disarm(mut self) {
        self.is_armed = false;
    }

    fn remove(&self) -> Result<()> {
        let is_ours = |stat: Stat| stat.st_ino == self.inode;
        if !self.parent.at_path(&self.name).lstat().is_ok_and(is_ours) {
            return Ok(());
        }
        let removed = self.parent.remove_hidden(&self.name);
        if removed.is_err() {
            self.parent.give_up(&self.name, TempKind::Directory);
        }
        removed
    }
}

impl Drop for HiddenDir<'_> {
    fn drop(&mut self) {
        // What a forked child drops is its parent's.
        if !self.is_armed || self.owner.is_another() {
            return;
        }
        let exclusive = FlockOperation::LockExclusive;
        let _lock = match self.published.take() {
            None => None,
            Some(file) => match file.map(|file| FileLock::try_take(file, exclusive)) {
                Some(Ok(Ok(lock))) => Some(lock),
                // A reader is there.
                _ => return self.parent.give_up(&self.name, TempKind::Directory),
            },
        };
        let _ = self.remove();
    }
}

crate::error::boxes_error_only!(['d] Stage<'d>);
