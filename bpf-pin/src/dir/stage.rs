//! Publishes a set of pins in one step.

use std::ffi::OsStr;
use std::fmt;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FileType, FlockOperation, RenameFlags, fstat, renameat_with};
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Failed, Operation, Reason, Result};
use crate::path::{AtPath, Component};
use crate::sys::{FileLock, LockOwner};

use super::create::HiddenDir;
use super::temp_names::{TempKind, leftover_name};
use super::{PinDir, TRIES, unlink_reason};

/// A hidden staging directory next to its target: see [`PinDir::stage`].
///
/// It dereferences to the [`PinDir`] to pin into. On drop it is removed with its contents.
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
/// set.publish()?;
/// # Ok::<(), bpf_pin::Error>(())
/// ```
pub struct Stage<'d> {
    dir: PinDir,
    guard: Guard<'d>,
    name: Component,
}

/// Removes a hidden directory on drop.
struct Guard<'d> {
    parent: &'d PinDir,
    hidden: Component,
    /// The inode of the directory. If the name has another one, it is not ours to remove.
    inode: u64,
    owner: LockOwner,
    /// The directory was published, so readers may have locked it.
    was_published: bool,
    /// For the lock that excludes readers. `None` if it could not be opened.
    lock_file: Option<OwnedFd>,
    is_armed: bool,
}

/// The result of [`Stage::publish`].
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::PinDir;
///
/// let app = PinDir::create("/sys/fs/bpf/app", 0o700)?;
/// let published = app.stage("current")?.publish()?;
/// if let Some(old) = published.old {
///     // Waits for the readers that hold its lock.
///     old.discard()?;
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Published<'d> {
    /// The published directory.
    pub dir: PinDir,
    /// The directory that had the name before, which has a hidden name now.
    ///
    /// On drop it is removed with its contents. While a reader holds its [`lock`](PinDir::lock), it is left
    /// to [`PinDir::remove_leftovers`]. [Publishing](Stage::publish) it restores it.
    pub old: Option<Stage<'d>>,
    /// For a moment nothing had the name: bpffs has no `RENAME_EXCHANGE` before Linux 5.17.
    pub had_gap: bool,
}

/// How the name was given to the new directory.
enum Placed {
    New,
    Exchanged { had_gap: bool },
}

impl PinDir {
    /// `mkdir(2)`: creates a hidden directory of mode 0700 in this one, to fill and then publish as `name`.
    ///
    /// The hidden name begins with "_bpf-pin-". If the process is killed,
    /// [`remove_leftovers`](Self::remove_leftovers) removes the directory. [`chmod`](Self::chmod) sets
    /// another mode.
    ///
    /// # Errors
    ///
    /// [`Operation::Stage`], with the causes of [names](Self#names) and [access](Self#access). Nothing was
    /// made.
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
    /// // Readers see both old maps or both new ones.
    /// set.publish()?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn stage(&self, name: impl AsRef<OsStr>) -> Result<Stage<'_>> {
        let name = self.name(Operation::Stage, name.as_ref())?;
        let hidden = self
            .create_hidden(TempKind::Directory)
            .map_err(|reason| self.fail_at(Operation::Stage, name.as_os_str(), reason))?;
        let guard = Guard::new(self, hidden.name, hidden.stat.st_ino);
        let dir = hidden.dir;
        Ok(Stage { dir, guard, name })
    }
}

impl<'d> Stage<'d> {
    /// `renameat2(2)`: gives the directory its name, in one step.
    ///
    /// Uses `RENAME_NOREPLACE` if nothing has the name. If a directory has it, the two change places with
    /// `RENAME_EXCHANGE`: a reader that opens the name gets the old set or the new one, whole. A reader that
    /// has opened the old set finds it unchanged while it holds a shared [`lock`](PinDir::lock) of it.
    ///
    /// The old set is removed with [`Published`]. That empties a prog array without another pin or descriptor,
    /// even while programs tail-call into it ([`Prog::ids_using`](crate::Prog::ids_using) lists them). Keep
    /// such an array open until no program uses it.
    ///
    /// # Older kernels
    ///
    /// Before Linux 5.17 bpffs has no `RENAME_EXCHANGE`. The old directory is moved aside first, and for a
    /// moment nothing has the name: see [`Published::had_gap`]. A reader that opens the name at that moment
    /// gets ENOENT, often without a cause, because the name is back when the cause is looked for. If the
    /// process is killed at that moment, [`PinDir::remove_leftovers`] moves the old directory back.
    ///
    /// Such calls exclude each other, and the removal of leftovers, with the lock of
    /// [`PinDir::replace_if`]. Each removes the leftovers of earlier ones first, so that a set never replaces
    /// a newer one. One case remains: if a process is killed while its forked children live, its set cannot be
    /// recognized as a leftover. The set may come back later if another process is killed at that moment, too.
    ///
    /// # Races
    ///
    /// The kernel cannot check what it exchanges. A directory that another process puts under the name during the
    /// call is returned as the old one. If it puts a pin there, the names are exchanged back. If this process is
    /// killed before that, the pin keeps its hidden name, which [`PinDir::remove_leftovers`] reports and does not
    /// remove.
    ///
    /// # Errors
    ///
    /// [`Operation::Publish`]; the name is unchanged, except with [`Displaced`](Cause::Displaced). With
    /// these causes and those of [access](PinDir#access):
    ///
    /// | condition | cause | errno |
    /// |---|---|---|
    /// | a pin has the name | [`NotADirectory`](Cause::NotADirectory) | |
    /// | a symbolic link has the name | [`SymbolicLink`](Cause::SymbolicLink) | |
    /// | something is mounted on it | [`MountPoint`](Cause::MountPoint) | EBUSY |
    /// | another process's pin could not get its name back | [`Displaced`](Cause::Displaced), with the path where it is now | |
    /// | on an older kernel, another process held the lock for five seconds | [`Locked`](Cause::Locked) | |
    ///
    /// The error returns the stage, which borrows its parent directory. `.map_err(bpf_pin::Error::from)`
    /// drops the stage.
    #[allow(
        clippy::result_large_err,
        reason = "nothing is lost, the stage included"
    )]
    pub fn publish(self) -> Result<Published<'d>, Failed<Self>> {
        let placed = match self.place() {
            Ok(placed) => placed,
            Err(reason) => {
                let name = self.name.as_os_str();
                let error = self.guard.parent.fail_at(Operation::Publish, name, reason);
                return Err(Failed::new(self, error));
            }
        };
        let Self { dir, guard, name } = self;
        let (parent, hidden) = (guard.parent, guard.hidden);
        guard.disarm();
        let (old, had_gap) = match placed {
            Placed::New => (None, false),
            Placed::Exchanged { had_gap } => (Self::of_old(parent, hidden, name), had_gap),
        };
        let dir = parent.child(dir.fd, &name);
        Ok(Published { dir, old, had_gap })
    }

    /// The set that had `name` before, and has the hidden name now.
    fn of_old(parent: &'d PinDir, hidden: Component, name: Component) -> Option<Self> {
        let dir = parent.open_dir_named(&hidden).ok()?;
        let mut guard = Guard::new(parent, hidden, fstat(&dir.fd).ok()?.st_ino);
        guard.was_published = true;
        guard.lock_file = dir.open_to_read().ok();
        Some(Self { dir, guard, name })
    }

    /// Removes the directory with its contents. If it was published before, waits until no reader holds its
    /// lock.
    ///
    /// # Errors
    ///
    /// As [`PinDir::remove_dir_all`]. The remains are left under a hidden name, for
    /// [`PinDir::remove_leftovers`].
    pub fn discard(self) -> Result<()> {
        let Self { dir, mut guard, .. } = self;
        let mut take_lock = || -> Result<Option<FileLock>, Reason> {
            if !guard.was_published {
                return Ok(None);
            }
            let file = guard.lock_file.take();
            let file = file.map_or_else(|| dir.open_to_read(), Ok)?;
            FileLock::take(file, FlockOperation::LockExclusive)
                .map(Some)
                .map_err(Reason::errno_only)
        };
        let _lock = take_lock().map_err(|reason| dir.fail(Operation::Remove, reason))?;
        guard.is_armed = false;
        guard.remove()
    }

    fn place(&self) -> Result<Placed, Reason> {
        let (parent, hidden, name) = (self.guard.parent, &self.guard.hidden, &self.name);
        let at = parent.at_path(name);
        let path = || at.path();
        for _ in 0..TRIES {
            match parent.rename_named(hidden, name, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(Placed::New),
                Err(Errno::EXIST) => {}
                // The hidden name is gone, or its parent.
                Err(errno @ Errno::NOENT) => {
                    return Err(unlink_reason(&parent.at_path(hidden), errno));
                }
                Err(errno) => return Err(unlink_reason(&at, errno)),
            }
            match check_directory(&at, path) {
                Ok(()) => {}
                Err(reason) if reason.is(Errno::NOENT) => continue,
                Err(reason) => return Err(reason.explained(|errno| diagnose::unpin(&at, errno))),
            }
            match parent.rename_named(hidden, name, RenameFlags::EXCHANGE) {
                Ok(()) => {
                    // Another process may have put another file there meanwhile: that gets its name back.
                    return match check_directory(&parent.at_path(hidden), path) {
                        Err(reason) if reason.cause().is_some() => {
                            if parent.swap_back(hidden, name, Some(self.guard.inode)) {
                                Err(reason)
                            } else {
                                Err(parent.changed_hands(name, hidden))
                            }
                        }
                        _ => Ok(Placed::Exchanged { had_gap: false }),
                    };
                }
                // The old directory is gone meanwhile.
                Err(Errno::NOENT) => {}
                Err(Errno::INVAL) => {
                    if self.place_with_gap()? {
                        return Ok(Placed::Exchanged { had_gap: true });
                    }
                }
                Err(errno) => return Err(unlink_reason(&at, errno)),
            }
        }
        Err(Reason::errno_only(Errno::EXIST))
    }

    /// False if another process has taken the name meanwhile.
    #[cold]
    fn place_with_gap(&self) -> Result<bool, Reason> {
        let parent = self.guard.parent;
        let lock = parent.lock_swap()?;
        // The set of an earlier gap is older than the one that has the name now. If it stayed and this process
        // was killed in its gap, it could get the name back.
        let _ = parent.remove_leftovers_holding(Some(&lock));
        let HiddenDir { dir, name, .. } = parent.create_hidden(TempKind::Aside)?;
        let placed = self.move_aside_and_place(&dir);
        // If it is not empty, it is left to the removal of leftovers.
        if parent.rmdir(&parent.at_path(&name)).is_err() {
            parent.give_up(&name, TempKind::Aside);
        }
        placed.map_err(|reason| {
            reason.explained(|errno| diagnose::unpin(&parent.at_path(&self.name), errno))
        })
    }

    fn move_aside_and_place(&self, aside: &PinDir) -> Result<bool, Reason> {
        let (parent, hidden, name) = (self.guard.parent, &self.guard.hidden, &self.name);
        let no_replace = RenameFlags::NOREPLACE;
        let rename = |from: &PinDir, old: &Component, to: &PinDir, new: &Component| {
            renameat_with(&from.fd, old.as_c_str(), &to.fd, new.as_c_str(), no_replace)
        };
        match rename(parent, name, aside, name) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(Reason::errno_only(errno)),
        }
        let path = || parent.at_path(name).path();
        let placed = check_directory(&aside.at_path(name), path)
            .and_then(|()| rename(parent, hidden, parent, name).map_err(Reason::errno_only));
        match placed {
            Ok(()) => {
                // The old set gets the hidden name. If that fails, it is removed with its parent.
                let _ = rename(aside, name, parent, hidden);
                Ok(true)
            }
            // Another process published its set meanwhile. The old set may have readers.
            Err(reason) if reason.is(Errno::EXIST) => {
                let old = leftover_name(TempKind::Directory);
                if rename(aside, name, parent, &old).is_ok() {
                    drop(Self::of_old(parent, old, *name));
                }
                Ok(false)
            }
            Err(reason) => {
                let _ = rename(aside, name, parent, name);
                Err(reason)
            }
        }
    }
}

/// Fails if it is not a directory. `path` is the path that the caller used.
pub(super) fn check_directory(
    at: &AtPath<'_>,
    path: impl FnOnce() -> PathBuf,
) -> Result<(), Reason> {
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

impl<'d> Guard<'d> {
    fn new(parent: &'d PinDir, hidden: Component, inode: u64) -> Self {
        Self {
            parent,
            hidden,
            inode,
            owner: LockOwner::this_process(),
            was_published: false,
            lock_file: None,
            is_armed: true,
        }
    }

    fn disarm(mut self) {
        self.is_armed = false;
    }

    fn remove(&self) -> Result<()> {
        match self.parent.at_path(&self.hidden).lstat() {
            Ok(stat) if stat.st_ino == self.inode => {}
            _ => return Ok(()),
        }
        self.parent
            .remove_hidden(&self.hidden)
            .inspect_err(|_| self.give_up())
    }

    fn give_up(&self) {
        self.parent.give_up(&self.hidden, TempKind::Directory);
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // A forked child drops a copy: the directory is its parent's.
        if !self.is_armed || self.owner.is_another() {
            return;
        }
        let lock = self
            .lock_file
            .take()
            .map(|file| FileLock::take_within(file, FlockOperation::LockExclusive, Duration::ZERO));
        match lock {
            Some(Ok(Some(_lock))) => drop(self.remove()),
            None if !self.was_published => drop(self.remove()),
            // A reader has locked it, or that is not known.
            _ => self.give_up(),
        }
    }
}

crate::error::boxes_error_only!(['d] Stage<'d>);
