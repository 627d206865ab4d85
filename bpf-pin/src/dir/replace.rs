//! Replaces a pin without a gap.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Operation, Reason, Result};
use crate::object::{identify, identity_at, pin_at};
use crate::path::{AtPath, Component};
use crate::types::Identity;

use super::temp_names::{TempKind, TempName};
use super::{PinDir, TRIES, unlink_reason};

impl PinDir {
    /// `BPF_OBJ_PIN`, `renameat2(2)`: pins the object and replaces the pin that has the name, if any.
    ///
    /// A process that opens the name gets the old object or the new one: there is no gap. The object is
    /// pinned under a temporary name first, which begins with "_bpf-pin-". The first call on a directory
    /// makes three more system calls, to lock such names.
    ///
    /// The new file has mode 0600 less the umask and this user's owner, whatever the old one had:
    /// see [`replace_keeping_mode`](Self::replace_keeping_mode).
    ///
    /// The old object is freed if this was its last pin and no descriptor is open. An old prog array is
    /// emptied then, even while programs tail-call into it ([`Prog::ids_using`](crate::Prog::ids_using) lists
    /// them). Keep it open until no program uses it.
    ///
    /// If the process is killed before the rename, the temporary pin is left for
    /// [`remove_leftovers`](Self::remove_leftovers), which says when forked processes delay that.
    ///
    /// # Errors
    ///
    /// [`Operation::Replace`]; the name is unchanged. With these causes and those of [names](Self#names)
    /// and [access](Self#access):
    ///
    /// | condition | cause | errno |
    /// |---|---|---|
    /// | a directory has the name | [`NotAnObject`](Cause::NotAnObject) | EISDIR |
    /// | something is mounted on it | [`MountPoint`](Cause::MountPoint) | EBUSY |
    /// | the descriptor is not a map, program or link | [`WrongDescriptor`](Cause::WrongDescriptor) | EINVAL |
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
        self.replace_any(object.as_fd(), name.as_ref(), false)
    }

    /// As [`replace`](Self::replace), and the new pin has the mode and owner of the old one before it gets
    /// the name. A process that may open the old one may open the new one.
    ///
    /// # Errors
    ///
    /// As [`replace`](Self::replace), and:
    ///
    /// | condition | cause | errno |
    /// |---|---|---|
    /// | nothing has the name | [`Missing`](Cause::Missing) | ENOENT |
    /// | it is a symbolic link, which has no mode | [`SymbolicLink`](Cause::SymbolicLink) | |
    /// | the owner is another user without a mapping in this thread's user namespace | [`UnmappedOwner`](Cause::UnmappedOwner) | |
    /// | the owner is another user, and this thread lacks `CAP_CHOWN` | | EPERM |
    pub fn replace_keeping_mode(
        &self,
        object: &(impl AsFd + ?Sized),
        name: impl AsRef<OsStr>,
    ) -> Result<()> {
        self.replace_any(object.as_fd(), name.as_ref(), true)
    }

    /// Compare-and-swap: as [`replace`](Self::replace), but fails if the pin is not that of `expected`.
    ///
    /// # Races
    ///
    /// Calls in one directory exclude each other with a lock of their own, which is unrelated to
    /// [`lock`](Self::lock). Of several calls with the same `expected`, one succeeds. If a process is killed
    /// during a call, the lock is free when its forked children have ended, too.
    ///
    /// Other writers of the name are not excluded. From Linux 5.17 on the two pins change places, and then
    /// the old one is checked. If another process replaced the pin meanwhile, the two change places again,
    /// so its replacement is not lost. In between the new object is visible. If another process removes the
    /// name at that moment, it removes the new object, and the old one comes back. If this process is killed
    /// in between, the other process's file keeps the temporary name. A pin there is removed as a leftover.
    ///
    /// Before Linux 5.17 bpffs has no `RENAME_EXCHANGE`. The old pin is checked right before, and a pin that
    /// another process puts there in between is lost.
    ///
    /// # Errors
    ///
    /// As [`replace`](Self::replace), and:
    ///
    /// | condition | cause | errno |
    /// |---|---|---|
    /// | it is another object | [`Replaced`](Cause::Replaced) | |
    /// | nothing has the name | [`Missing`](Cause::Missing) | ENOENT |
    /// | another process held the lock for five seconds | [`Locked`](Cause::Locked) | |
    /// | the pins could not change places again | [`Displaced`](Cause::Displaced), with the path where the other process's file is now | |
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::error::Cause;
    /// use bpf_pin::{MapSpec, MapType, PinDir};
    ///
    /// let dir = PinDir::open("/sys/fs/bpf/app")?;
    /// let expected = dir.identity("flows")?;
    /// let new = MapSpec::new(MapType::HASH, 4, 8, 4096).create()?;
    /// match dir.replace_if(&new, "flows", expected) {
    ///     Err(error) if matches!(error.cause(), Some(Cause::Replaced { .. })) => {
    ///         println!("another process replaced it: {error}");
    ///     }
    ///     result => result?,
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn replace_if(
        &self,
        object: &(impl AsFd + ?Sized),
        name: impl AsRef<OsStr>,
        expected: Identity,
    ) -> Result<()> {
        self.compare_and_swap(object.as_fd(), name.as_ref(), expected, false)
    }

    /// As [`replace_if`](Self::replace_if), and the new pin has the mode and owner of the old one before it
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
        self.compare_and_swap(object.as_fd(), name.as_ref(), expected, true)
    }

    fn replace_any(&self, object: BorrowedFd<'_>, name: &OsStr, keeps_mode: bool) -> Result<()> {
        self.on_name(Operation::Replace, name, |at| {
            let mut temporary = self.pin_temporarily(object)?;
            let copied = match keeps_mode {
                true => self.copy_mode(at, &temporary.name, object),
                false => Ok(()),
            };
            let replaced = copied.and_then(|()| {
                self.rename_named(&temporary.name, at.name, RenameFlags::empty())
                    .map_err(Reason::errno_only)
            });
            temporary.is_armed = replaced.is_err();
            replaced.map_err(|reason| {
                reason.explained(|errno| match errno {
                    Errno::NOENT => diagnose::make(at, errno),
                    _ => diagnose::unpin(at, errno),
                })
            })
        })
    }

    fn compare_and_swap(
        &self,
        object: BorrowedFd<'_>,
        name: &OsStr,
        expected: Identity,
        keeps_mode: bool,
    ) -> Result<()> {
        self.on_name(Operation::Replace, name, |at| {
            let _lock = self.lock_swap()?;
            check_identity(identity_at(at)?, expected)?;
            let mut temporary = self.pin_temporarily(object)?;
            if keeps_mode {
                self.copy_mode(at, &temporary.name, object)?;
            }
            self.exchange_if(&mut temporary, at, object, expected)
        })
    }

    /// As [`replace_if_keeping_mode`](Self::replace_if_keeping_mode), for a caller that holds the lock and has
    /// just identified the pin. If the name is gone meanwhile, the object gets it.
    pub(crate) fn replace_locked_if(
        &self,
        object: BorrowedFd<'_>,
        name: &Component,
        expected: Identity,
    ) -> Result<(), Reason> {
        let at = self.at_path(name);
        let mut temporary = self.pin_temporarily(object)?;
        self.copy_mode(&at, &temporary.name, object)?;
        match self.exchange_if(&mut temporary, &at, object, expected) {
            Err(reason) if reason.is(Errno::NOENT) => {
                self.rename_named(&temporary.name, name, RenameFlags::NOREPLACE)
                    .map_err(|errno| unlink_reason(&at, errno))?;
                temporary.is_armed = false;
                Ok(())
            }
            result => result,
        }
    }

    fn pin_temporarily(&self, object: BorrowedFd<'_>) -> Result<TempPin<'_>, Reason> {
        let pin = |name: &TempName| pin_at(&self.at_path(name), object);
        let (name, ()) = self.with_temp_name(TempKind::Pin, pin)?;
        let (dir, is_armed) = (self, true);
        Ok(TempPin {
            dir,
            name,
            is_armed,
        })
    }

    /// `RENAME_EXCHANGE`: the temporary pin and the name change places, and change back if the old pin was
    /// another object's. Before Linux 5.17 the name is checked right before.
    fn exchange_if(
        &self,
        temporary: &mut TempPin<'_>,
        at: &AtPath<'_>,
        object: BorrowedFd<'_>,
        expected: Identity,
    ) -> Result<(), Reason> {
        let explain = |errno| unlink_reason(at, errno);
        match self.rename_named(&temporary.name, at.name, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::INVAL) => {
                check_identity(identity_at(at)?, expected)?;
                self.rename_named(&temporary.name, at.name, RenameFlags::empty())
                    .map_err(explain)?;
                temporary.is_armed = false;
                return Ok(());
            }
            Err(errno) => return Err(explain(errno)),
        }
        let displaced = identity_at(&self.at_path(&temporary.name));
        let Err(reason) = displaced.and_then(|found| check_identity(found, expected)) else {
            // The old pin has the temporary name now, and is removed with it.
            return Ok(());
        };
        let inode = self.inode_of(at, object);
        if !self.swap_back(&temporary.name, at.name, inode) {
            // The temporary name is another process's file now.
            temporary.is_armed = false;
            return Err(self.changed_hands(at.name, &temporary.name));
        }
        // If the displaced file is not a pin, its own name is the one to report.
        match reason.cause() {
            Some(Cause::Replaced { .. }) => Err(reason),
            _ => Err(identity_at(at).err().unwrap_or(reason)),
        }
    }

    /// The inode of a pin, or `None` if it is another object's.
    #[cold]
    fn inode_of(&self, at: &AtPath<'_>, object: BorrowedFd<'_>) -> Option<u64> {
        let inode = || at.lstat().map(|stat| stat.st_ino).ok();
        let before = inode();
        let is_ours = match (identity_at(at), identify(object)) {
            (Ok(found), Ok(object)) => found == object && inode() == before,
            // Not known, for example because no descriptor is left.
            _ => true,
        };
        before.filter(|_| is_ours)
    }

    /// Exchanges the names until the hidden one holds the file that was put under the name: first `inode`,
    /// then the files that other processes put there meanwhile. False if that fails.
    #[cold]
    pub(super) fn swap_back(
        &self,
        hidden: &impl AsRef<CStr>,
        name: &(impl AsRef<CStr> + ?Sized),
        inode: Option<u64>,
    ) -> bool {
        let hidden_inode = || self.at_path(hidden).lstat().map(|stat| stat.st_ino);
        let mut put = inode;
        for _ in 0..TRIES {
            let Ok(next) = hidden_inode() else { break };
            match self.rename_named(hidden, name, RenameFlags::EXCHANGE) {
                Ok(()) if put.is_some() && hidden_inode().ok() == put => return true,
                Ok(()) => put = Some(next),
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

fn check_identity(found: Identity, expected: Identity) -> Result<(), Reason> {
    if found != expected {
        return Err(Cause::Replaced { expected, found }.into());
    }
    Ok(())
}

/// A pin with a temporary name, which is removed on drop.
struct TempPin<'d> {
    dir: &'d PinDir,
    name: TempName,
    is_armed: bool,
}

impl Drop for TempPin<'_> {
    fn drop(&mut self) {
        if self.is_armed {
            let _ = self.dir.at_path(&self.name).unlink();
        }
    }
}
