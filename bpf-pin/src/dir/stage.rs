//! A whole set of pins appears at once, or never.

use std::ffi::OsStr;
use std::fmt;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{FileType, FlockOperation, RenameFlags, Stat, fstat, renameat_with};
use rustix::io::Errno;

use crate::cause::Cause;
use crate::diagnose;
use crate::error::{Failed, Operation, Reason, Result};
use crate::filename::Filename;
use crate::flock::{Held, lock_file, try_lock_file};
use crate::place::Place;

use super::PinDir;
use super::create::Hidden;

use super::names::{self, Left};

/// How often what somebody else sweeps away or takes meanwhile is tried again.
const TRIES: usize = 100;

/// A directory that nobody looks at yet, beside the name that it is for: see [`PinDir::stage`].
///
/// It is a [`PinDir`] to pin into. Dropped, it is removed with all that is in it. It holds a shared
/// lock of the directory, so [`lock`](PinDir::lock) of it waits for itself.
pub struct Stage<'d> {
    dir: PinDir,
    hidden: Guard<'d>,
    name: Filename,
}

/// Removes the directory that has the hidden name.
struct Guard<'d> {
    parent: &'d PinDir,
    name: Filename,
    /// A shared lock, by which a sweep sees that somebody lives.
    lock: Option<Held>,
    /// Of the directory: what has the name with another one is not ours to remove.
    inode: u64,
    /// It had a name that readers came by, and some may still be there.
    was_published: bool,
    is_armed: bool,
}

/// What [`Stage::publish`] has done.
#[derive(Debug)]
#[non_exhaustive]
pub struct Published<'d> {
    /// The directory, by its name.
    pub dir: PinDir,
    /// The directory that had the name before, by a hidden one. Dropped, it is removed with all that
    /// is in it, or left to [`PinDir::sweep_stale`] while a reader holds its
    /// [`lock_shared`](PinDir::lock_shared); [published](Stage::publish), it is back.
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
    /// Its name begins with "_bpf-pin-", and a lock on it tells [`sweep_stale`](Self::sweep_stale) that
    /// its process lives. [`chmod`](Self::chmod) gives it another mode.
    ///
    /// # Errors
    ///
    /// [`Operation::Stage`](crate::Operation::Stage), and nothing was made: [`Removed`](Cause::Removed) (ENOENT),
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
    ///     set.pin(MapSpec::new(MapType::HASH, 4, 8, 1024).create()?, name)?;
    /// }
    /// // Readers see the old two or the new two.
    /// set.publish()?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn stage(&self, name: impl AsRef<OsStr>) -> Result<Stage<'_>> {
        let name = self.name(Operation::Stage, name.as_ref())?;
        let Hidden {
            dir,
            name: hidden,
            lock,
        } = self
            .hidden(Left::Unfinished)
            .map_err(|reason| self.fail_at(Operation::Stage, name.as_os_str(), reason))?;
        let hidden = Guard {
            parent: self,
            name: hidden,
            inode: inode(&dir),
            lock: Some(lock.by_this_process()),
            was_published: false,
            is_armed: true,
        };
        Ok(Stage { dir, hidden, name })
    }
}

impl<'d> Stage<'d> {
    /// `renameat2(2)`: gives the directory its name, in one step.
    ///
    /// With `RENAME_NOREPLACE` where nothing has the name. Where a directory has it the two change
    /// places with `RENAME_EXCHANGE`: who comes by the name finds the old set or the new one, whole.
    /// Who holds the old directory finds it whole for as long as its
    /// [`lock_shared`](PinDir::lock_shared) is held.
    ///
    /// Before Linux 5.17, where bpffs has no `RENAME_EXCHANGE`, the old one is moved out of the way first: for a moment
    /// nothing has the name, and [`Published::had_gap`] tells. A reader that comes right then gets
    /// ENOENT, often without a cause: when it is looked for, the name is there again. If the process is killed right then,
    /// [`PinDir::sweep_stale`] puts the old one back.
    ///
    /// # Errors
    ///
    /// The error keeps the stage, and with it the directory borrowed: where that is too long,
    /// `.map_err(bpf_pin::Error::from)` drops the stage.
    ///
    /// [`Operation::Publish`](crate::Operation::Publish), with the stage, and the name is whose it was:
    /// [`NotADirectory`](Cause::NotADirectory) where a pin has it,
    /// [`SymbolicLink`](Cause::SymbolicLink); [`MountPoint`](Cause::MountPoint) (EBUSY);
    /// [`Sticky`](Cause::Sticky) (EPERM), [`Blocked`](Cause::Blocked) (EACCES).
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

    fn of_old(parent: &'d PinDir, hidden: Filename, name: Filename) -> Option<Self> {
        let dir = parent.open_dir_named(&hidden).ok()?;
        let lock = dir.readable().ok().filter(|file| {
            try_lock_file(file, FlockOperation::LockShared).is_ok_and(|is_taken| is_taken)
        });
        let hidden = Guard {
            parent,
            name: hidden,
            inode: inode(&dir),
            lock: lock.map(Held::new),
            was_published: true,
            is_armed: true,
        };
        Some(Self { dir, hidden, name })
    }

    /// Removes the directory and all that is in it. One that was published before is waited for
    /// until nobody holds its lock.
    ///
    /// # Errors
    ///
    /// [`Operation::Remove`](crate::Operation::Remove), as [`PinDir::remove_dir_all`]: what could not be removed is left under
    /// its hidden name, for [`PinDir::sweep_stale`].
    pub fn discard(self) -> Result<()> {
        let Self { dir, hidden, .. } = self;
        if hidden.was_published {
            let wait = |file: &OwnedFd| {
                // Its own shared lock becomes this one.
                lock_file(file, FlockOperation::LockExclusive).map_err(Reason::errno_only)
            };
            let waited = match &hidden.lock {
                Some(held) => wait(&held.file),
                None => dir.readable().and_then(|file| wait(&file)),
            };
            waited.map_err(|reason| dir.fail(Operation::Remove, reason))?;
        }
        let (parent, name) = (hidden.parent, hidden.name);
        let removed = parent.remove_hidden(&name);
        hidden.disarm();
        removed
    }

    fn put(&self) -> Result<Put, Reason> {
        // Nobody sweeps it away while it is given its name.
        let _lock = match &self.hidden.lock {
            Some(_) => None,
            None => Some(self.dir.readable().and_then(|file| {
                let is_taken = try_lock_file(&file, FlockOperation::LockShared);
                match is_taken.map_err(Reason::errno_only)? {
                    true => Ok(Held::briefly(file)),
                    false => Err(Cause::Locked.into()),
                }
            })?),
        };
        let (parent, hidden, name) = (self.hidden.parent, &self.hidden.name, &self.name);
        let place = parent.place(name);
        let explain = |errno| Reason::new(errno, diagnose::unpin(&place, errno));
        for _ in 0..TRIES {
            match parent.rename_named(hidden, name, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(Put::New),
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Err(self.vanished()),
                Err(errno) => return Err(explain(errno)),
            }
            let path = || place.path();
            match is_directory(&place, path) {
                Ok(()) => {}
                Err(reason) if reason.is(Errno::NOENT) => continue,
                Err(reason) => return Err(reason.explained(|errno| diagnose::unpin(&place, errno))),
            }
            let exchange = || parent.rename_named(hidden, name, RenameFlags::EXCHANGE);
            match exchange() {
                Ok(()) => {
                    // Somebody may have put something else there meanwhile: it gets its name back.
                    return match is_directory(&parent.place(hidden), path) {
                        Err(reason) if reason.cause().is_some() => {
                            parent.swap_back(hidden, name, self.hidden.inode);
                            Err(reason)
                        }
                        // If the old one is gone, a sweep was faster.
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

    /// The hidden name is not ours any more, or the directory around it is gone.
    #[cold]
    fn vanished(&self) -> Reason {
        let parent = self.hidden.parent;
        let place = parent.place(&self.hidden.name);
        Reason::new(Errno::NOENT, diagnose::unpin(&place, Errno::NOENT))
    }

    /// False where somebody else was faster with the name.
    #[cold]
    fn put_with_gap(&self) -> Result<bool, Reason> {
        let parent = self.hidden.parent;
        let aside = parent.hidden(Left::Aside)?;
        let done = self.put_past(&aside.dir);
        // If something is in it still, a sweep finds what to do with it.
        let _ = parent.rmdir(&aside.name);
        done.map_err(|reason| {
            reason.explained(|errno| diagnose::unpin(&parent.place(&self.name), errno))
        })
    }

    fn put_past(&self, aside: &PinDir) -> Result<bool, Reason> {
        let (parent, hidden, name) = (self.hidden.parent, &self.hidden.name, &self.name);
        let no_replace = RenameFlags::NOREPLACE;
        let moved = |from: &PinDir, old: &Filename, to: &PinDir, new: &Filename| {
            renameat_with(&from.fd, old.as_c_str(), &to.fd, new.as_c_str(), no_replace)
        };
        match moved(parent, name, aside, name) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(Reason::errno_only(errno)),
        }
        let path = || parent.place(name).path();
        let put = is_directory(&aside.place(name), path).and_then(|()| {
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
            // What was moved is an old one to somebody else's publication, too: readers may be there.
            Err(reason) if reason.is(Errno::EXIST) => {
                let retired = names::passing(names::token(), 0, Left::Unfinished);
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

/// 0, which nothing has, where it cannot be told.
fn inode(dir: &PinDir) -> u64 {
    fstat(&dir.fd).map_or(0, |stat| stat.st_ino)
}

/// An error where it is something else, by the name that a person knows.
fn is_directory(place: &Place<'_>, path: impl FnOnce() -> PathBuf) -> Result<(), Reason> {
    let stat = place.lstat().map_err(Reason::errno_only)?;
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

impl Guard<'_> {
    fn disarm(mut self) {
        self.is_armed = false;
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if !self.is_armed {
            return;
        }
        let lock = self.lock.take();
        if lock.as_ref().is_some_and(Held::is_inherited) {
            return;
        }
        if self.was_published {
            let is_free = |held: &Held| {
                let taken = try_lock_file(&held.file, FlockOperation::LockExclusive);
                taken.is_ok_and(|is_taken| is_taken)
            };
            if !lock.as_ref().is_some_and(is_free) {
                return;
            }
        }
        // What cannot be removed is found by a sweep.
        let is_ours = |stat: Stat| stat.st_ino == self.inode;
        if self.parent.place(&self.name).lstat().is_ok_and(is_ours) {
            let _ = self.parent.remove_hidden(&self.name);
        }
    }
}

crate::error::boxes_error_only!(['d] Stage<'d>);
