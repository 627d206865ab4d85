//! Replaces a pin without a gap.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, RenameFlags};
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Operation, Reason, Result};
use crate::object::{identify, identity_at, pin_at};
use crate::path::AtPath;
use crate::path::{Component, with_name};
use crate::types::Identity;

use super::PinDir;
use super::temp_names::{TempKind, TempName};

/// How often a name that another has taken is tried again.
const TRIES: usize = 1000;

impl PinDir {
    /// `BPF_OBJ_PIN`, `renameat2(2)`: the name becomes this object's, whatever had it before, and
    /// even if nothing had.
    ///
    /// A process that opens the name sees the old object or the new one, never nothing. The object is pinned
    /// under a temporary name first, which begins with "_bpf-pin-". If the process is killed right then, that
    /// pin is left for [`remove_leftovers`](Self::remove_leftovers); if it had forked, only once its children
    /// have ended. The first call on a directory makes three system calls more, to lock such names.
    ///
    /// The new file has mode 0600 less the umask and this user's owner, whatever the old one had:
    /// see [`replace_keeping_mode`](Self::replace_keeping_mode). The object is borrowed: it stays the caller's,
    /// also if the call fails.
    ///
    /// # Errors
    ///
    /// The name is as it was. [`NotAnObject`](Cause::NotAnObject) (EISDIR) if a directory has the name; [`MountPoint`](Cause::MountPoint) (EBUSY);
    /// [`Sticky`](Cause::Sticky) (EPERM) where the old pin is another user's;
    /// [`Removed`](Cause::Removed) (ENOENT) where the directory is gone;
    /// [`Blocked`](Cause::Blocked) (EACCES) where the directory may not be read, searched or written;
    /// [`ReadOnlyFileSystem`](Cause::ReadOnlyFileSystem) (EROFS);
    /// [`MissingCapability`](Cause::MissingCapability) (EPERM); [`WrongDescriptor`](Cause::WrongDescriptor) (EINVAL);
    /// [`NoProc`](Cause::NoProc); what is wrong with a name, as [`open_dir`](Self::open_dir).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{MapSpec, MapType, PinDir};
    ///
    /// let dir = PinDir::open("/sys/fs/bpf/app")?;
    /// let larger = MapSpec::new(MapType::HASH, 4, 8, 4096).create()?;
    /// dir.replace(&larger, "flows")?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn replace(&self, object: &(impl AsFd + ?Sized), name: impl AsRef<OsStr>) -> Result<()> {
        self.replacing(name.as_ref(), |name| {
            self.replace_with(object.as_fd(), name, |_| Ok(()))
        })
    }

    /// As [`replace`](Self::replace), where the new file gets the mode and owner of the old one
    /// before it gets the name, so that whoever might open the old one may open the new one, too.
    ///
    /// # Errors
    ///
    /// As [`replace`](Self::replace); [`Missing`](Cause::Missing) (ENOENT) where nothing has the name;
    /// [`SymbolicLink`](Cause::SymbolicLink), whose mode is none;
    /// [`UnmappedOwner`](Cause::UnmappedOwner) where the owner is another who is not mapped in this
    /// thread's user namespace;
    /// EPERM where the owner is another and this user may not give files away.
    pub fn replace_keeping_mode(
        &self,
        object: &(impl AsFd + ?Sized),
        name: impl AsRef<OsStr>,
    ) -> Result<()> {
        self.replacing(name.as_ref(), |name| {
            let at = self.at_path(name);
            let old = at
                .lstat()
                .map_err(|errno| Reason::new(errno, diagnose::find(&at, errno)))?;
            if FileType::from_raw_mode(old.st_mode) == FileType::Symlink {
                return Err(Cause::SymbolicLink { path: at.path() }.into());
            }
            self.replace_with(object.as_fd(), name, |temporary| {
                self.copy_mode(&old, temporary, object.as_fd())
            })
        })
    }

    /// As [`replace`](Self::replace), only while the name is still the object's that the caller saw:
    /// compare and swap.
    ///
    /// Calls in one directory exclude each other by a lock of their own, which is unrelated to
    /// [`lock`](Self::lock). So among them each replaces what it has seen, or fails. A process that waits for
    /// the lock holds nothing.
    ///
    /// Other processes that write the name are not excluded. From Linux 5.17 on the two pins change places,
    /// then the old one is looked at: if another process was faster, they change places again. So its
    /// replacement is not lost. In between our object is visible; if another process removes it in that
    /// moment, it has removed the wrong one, and what was there before comes back. If this process is killed in
    /// between, what the other put there keeps the temporary name and is removed as a leftover if it is a pin.
    /// Before Linux 5.17 the old one is looked at right before, and what is put under the name in between is lost.
    ///
    /// # Errors
    ///
    /// As [`replace`](Self::replace); [`Replaced`](Cause::Replaced) if another object has the name;
    /// [`Missing`](Cause::Missing) (ENOENT) if none has; [`Locked`](Cause::Locked) if another process was at it
    /// for five seconds. [`Displaced`](Cause::Displaced) if the pins could not change places again: it
    /// says where the other process's file is now.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::error::Cause;
    /// use bpf_pin::{MapSpec, MapType, PinDir};
    ///
    /// let dir = PinDir::open("/sys/fs/bpf/app")?;
    /// let seen = dir.identity("flows")?;
    /// let mine = MapSpec::new(MapType::HASH, 4, 8, 4096).create()?;
    /// match dir.replace_if(&mine, "flows", seen) {
    ///     Err(error) if matches!(error.cause(), Some(Cause::Replaced { .. })) => {
    ///         println!("somebody was faster: {error}");
    ///     }
    ///     done => done?,
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn replace_if(
        &self,
        object: &(impl AsFd + ?Sized),
        name: impl AsRef<OsStr>,
        expected: Identity,
    ) -> Result<()> {
        self.replacing(name.as_ref(), |name| {
            self.swap(object.as_fd(), name, expected, |_| Ok(()))
        })
    }

    /// As [`replace_if`](Self::replace_if); the new file gets the mode and owner of the old one before it
    /// gets the name.
    ///
    /// # Errors
    ///
    /// As [`replace_if`](Self::replace_if) and [`replace_keeping_mode`](Self::replace_keeping_mode).
    pub fn replace_if_keeping_mode(
        &self,
        object: &(impl AsFd + ?Sized),
        name: impl AsRef<OsStr>,
        expected: Identity,
    ) -> Result<()> {
        let object = object.as_fd();
        self.replacing(name.as_ref(), |name| {
            let at = self.at_path(name);
            self.swap(object, name, expected, |temporary| {
                let old = at
                    .lstat()
                    .map_err(|errno| Reason::new(errno, diagnose::find(&at, errno)))?;
                self.copy_mode(&old, temporary, object)
            })
        })
    }

    fn replacing(
        &self,
        name: &OsStr,
        replace: impl FnOnce(&CStr) -> Result<(), Reason>,
    ) -> Result<()> {
        with_name(name, replace)
            .unwrap_or_else(|bad| Err(bad.into()))
            .map_err(|reason| self.fail_at(Operation::Replace, name, reason))
    }

    fn replace_with(
        &self,
        object: BorrowedFd<'_>,
        name: &CStr,
        prepare: impl Fn(&TempName) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        let mut temporary = self.pin_temporarily(object)?;
        let renamed = prepare(&temporary.name).and_then(|()| {
            self.rename_named(&temporary.name, name, RenameFlags::empty())
                .map_err(Reason::errno_only)
        });
        temporary.is_armed = renamed.is_err();
        renamed.map_err(|reason| {
            drop(temporary);
            reason.explained(|errno| match errno {
                Errno::NOENT => diagnose::make(&self.at_path(name), errno),
                _ => diagnose::unpin(&self.at_path(name), errno),
            })
        })
    }

    fn pin_temporarily(&self, object: BorrowedFd<'_>) -> Result<Temporary<'_>, Reason> {
        let names = self.temp_names()?;
        for _ in 0..TRIES {
            let name: TempName = names.acquire(TempKind::Pin);
            match pin_at(&self.at_path(&name), object) {
                Ok(()) => {
                    return Ok(Temporary {
                        dir: self,
                        name,
                        is_armed: true,
                    });
                }
                // A forked process has the same names, and anyone may guess one.
                Err(reason) if reason.is(Errno::EXIST) => {}
                Err(reason) => return Err(reason),
            }
        }
        Err(Reason::errno_only(Errno::EXIST))
    }

    fn swap(
        &self,
        object: BorrowedFd<'_>,
        name: &CStr,
        expected: Identity,
        prepare: impl FnOnce(&TempName) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        let _lock = self.lock_swap()?;
        check_holder(identity_at(&self.at_path(name))?, expected)?;
        let mut temporary = self.pin_temporarily(object)?;
        prepare(&temporary.name)?;
        self.exchange_if(&mut temporary, name, object, expected)
    }

    /// As [`replace_if_keeping_mode`](Self::replace_if_keeping_mode), for a caller that has the lock and has just seen what
    /// has the name. If nothing has it any more, the object gets it all the same.
    pub(crate) fn replace_locked_if(
        &self,
        object: BorrowedFd<'_>,
        name: &Component,
        expected: Identity,
    ) -> Result<(), Reason> {
        let at = self.at_path(name);
        let explain = |errno| Reason::new(errno, diagnose::unpin(&at, errno));
        let old = at.lstat().map_err(explain)?;
        let mut temporary = self.pin_temporarily(object)?;
        self.copy_mode(&old, &temporary.name, object)?;
        match self.exchange_if(&mut temporary, name.as_c_str(), object, expected) {
            Err(reason) if reason.is(Errno::NOENT) => {
                self.rename_named(&temporary.name, name, RenameFlags::NOREPLACE)
                    .map_err(explain)?;
                temporary.is_armed = false;
                Ok(())
            }
            done => done,
        }
    }

    /// `RENAME_EXCHANGE`: the temporary pin and the name change places, and change back if the name was another's. Before
    /// Linux 5.17 the name is looked at right before.
    fn exchange_if(
        &self,
        temporary: &mut Temporary<'_>,
        name: &CStr,
        object: BorrowedFd<'_>,
        expected: Identity,
    ) -> Result<(), Reason> {
        let at = self.at_path(name);
        let explain = |errno| Reason::new(errno, diagnose::unpin(&at, errno));
        match self.rename_named(&temporary.name, name, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::INVAL) => {
                check_holder(identity_at(&at)?, expected)?;
                self.rename_named(&temporary.name, name, RenameFlags::empty())
                    .map_err(explain)?;
                temporary.is_armed = false;
                return Ok(());
            }
            Err(errno) => return Err(explain(errno)),
        }
        let displaced = identity_at(&self.at_path(&temporary.name));
        let Err(reason) = displaced.and_then(|found| check_holder(found, expected)) else {
            // The old one is under the temporary name now, and is removed with it.
            return Ok(());
        };
        let ours = self.inode_of(&at, object);
        if !self.swap_back(&temporary.name, name, ours) {
            // What has the temporary name now is not ours to remove.
            temporary.is_armed = false;
            return Err(self.changed_hands(name, &temporary.name));
        }
        // If what was displaced is no pin, its own name is the one to report.
        match reason.cause() {
            Some(Cause::Replaced { .. }) => Err(reason),
            _ => Err(identity_at(&at).err().unwrap_or(reason)),
        }
    }

    /// The inode of a pin, or 0, which no inode has, if it is another object's by now.
    #[cold]
    fn inode_of(&self, at: &AtPath<'_>, object: BorrowedFd<'_>) -> u64 {
        let inode = || at.lstat().map(|stat| stat.st_ino).ok();
        let before = inode();
        let is_ours = match (identity_at(at), identify(object)) {
            (Ok(found), Ok(object)) => found == object && inode() == before,
            // As when there is no descriptor left.
            _ => true,
        };
        before.filter(|_| is_ours).unwrap_or(0)
    }

    /// Gives the name back to what was displaced, until what is taken from it is what was put there: first
    /// ours, then what other processes have put over it meanwhile. Returns whether the hidden name then has
    /// what was given away last.
    #[cold]
    pub(super) fn swap_back(
        &self,
        hidden: &impl AsRef<CStr>,
        name: &(impl AsRef<CStr> + ?Sized),
        ours: u64,
    ) -> bool {
        let inode = || self.at_path(hidden).lstat().map(|stat| stat.st_ino);
        let mut put = ours;
        for _ in 0..TRIES {
            let Ok(next) = inode() else { break };
            match self.rename_named(hidden, name, RenameFlags::EXCHANGE) {
                Ok(()) if inode() == Ok(put) => return true,
                Ok(()) => put = next,
                Err(Errno::NOENT) => {
                    match self.rename_named(hidden, name, RenameFlags::NOREPLACE) {
                        Err(Errno::EXIST) => {}
                        _ => break,
                    }
                }
                Err(_) => break,
            }
        }
        false
    }
}

fn check_holder(found: Identity, expected: Identity) -> Result<(), Reason> {
    match found == expected {
        true => Ok(()),
        false => Err(Cause::Replaced { expected, found }.into()),
    }
}

/// A pin under a temporary name, which is removed on drop.
struct Temporary<'d> {
    dir: &'d PinDir,
    name: TempName,
    is_armed: bool,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if self.is_armed {
            let _ = self.dir.at_path(&self.name).unlink();
        }
    }
}
