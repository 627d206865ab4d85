//! Removes names that a predicate selects, and the leftovers of killed processes.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, RenameFlags, Stat, fstat, renameat_with};
use rustix::io::Errno;

use crate::error::{Cause, Error, Operation, Reason, Result};
use crate::object::identity_at;
use crate::path::Component;
use crate::procfs::ids::is_own_uid;
use crate::sys::{self, FileLock};
use crate::types::{FileSystem, Identity, Kind};

use super::byte_lock::ByteLock;
use super::metadata::permissions;
use super::temp_names::{TempKind, hash_name, leftover_name, parse_backup_name, parse_temp_name};
use super::{Entry, EntryType, PinDir, unlink_reason};

/// The names that [`PinDir::remove_where`] or [`PinDir::remove_leftovers`] removed.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::PinDir;
///
/// let report = PinDir::open("/sys/fs/bpf/app")?.remove_leftovers()?;
/// println!("removed {:?}", report.removed);
/// for error in report.failed {
///     eprintln!("{error}");
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RemovalReport {
    /// The names that were removed. In a dry run: that would be.
    pub removed: Vec<OsString>,
    /// The names of directories that a killed process had moved aside, and that were moved back.
    pub restored: Vec<OsString>,
    /// The names that could not be removed, and why. The others were removed.
    pub failed: Vec<Error>,
}

impl PinDir {
    /// `unlink(2)`, `rmdir(2)`: removes the names that the predicate selects, directories with their
    /// contents.
    ///
    /// Reads only this directory: for a tree see [`walk`](Self::walk). Temporary names are not passed to the
    /// predicate: see [`remove_leftovers`](Self::remove_leftovers).
    ///
    /// Removing the last pin of a prog array empties the array, as with [`unpin`](Self::unpin).
    ///
    /// # Races
    ///
    /// The inode of a name is compared right before the removal, so a pin that was replaced meanwhile stays.
    /// As in [`unpin`](Self::unpin) these are two steps.
    ///
    /// # Errors
    ///
    /// As [`entries`](Self::entries). The failures of single names are in [`RemovalReport::failed`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{Map, PinDir};
    ///
    /// // Removes the maps of one entry.
    /// let dir = PinDir::open("/sys/fs/bpf/app")?;
    /// let report = dir.remove_where(|entry| {
    ///     entry.get::<Map>().is_ok_and(|map| map.info().is_ok_and(|info| info.max_entries == 1))
    /// })?;
    /// println!("removed {:?}", report.removed);
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn remove_where(
        &self,
        predicate: impl FnMut(&Entry<&Self>) -> bool,
    ) -> Result<RemovalReport> {
        self.each_where(predicate, |entry| self.remove_entry(entry))
    }

    /// As [`remove_where`](Self::remove_where), but removes nothing. The report has the names that it would
    /// remove.
    ///
    /// # Errors
    ///
    /// As [`entries`](Self::entries).
    pub fn remove_where_dry_run(
        &self,
        predicate: impl FnMut(&Entry<&Self>) -> bool,
    ) -> Result<RemovalReport> {
        self.each_where(predicate, |_| Ok(true))
    }

    fn each_where(
        &self,
        mut predicate: impl FnMut(&Entry<&Self>) -> bool,
        remove: impl Fn(&Entry<&Self>) -> Result<bool>,
    ) -> Result<RemovalReport> {
        self.each_entry(|entry, _| Ok(!entry.is_hidden() && predicate(entry) && remove(entry)?))
    }

    /// `remove` returns whether it has removed the entry.
    fn each_entry(
        &self,
        mut remove: impl FnMut(&Entry<&Self>, &mut RemovalReport) -> Result<bool>,
    ) -> Result<RemovalReport> {
        let (mut report, mut entries) = (RemovalReport::default(), self.entries()?);
        while let Some(entry) = entries.next_entry() {
            match entry.and_then(|entry| Ok((entry, remove(entry, &mut report)?))) {
                Ok((entry, true)) => report.removed.push(entry.name().to_owned()),
                Ok((_, false)) => {}
                Err(error) => report.failed.push(error),
            }
        }
        Ok(report)
    }

    /// False if the name is gone, or is another file's now.
    fn remove_entry(&self, entry: &Entry<&Self>) -> Result<bool> {
        let name = entry.component();
        let at = self.at_path(&name);
        let fail = |errno| {
            let reason = unlink_reason(&at, errno);
            Err(self.fail_at(Operation::Remove, entry.name(), reason))
        };
        match at.lstat() {
            Ok(stat) if stat.st_ino == entry.inode() => {}
            // A mount point has the inode of the mounted directory.
            Ok(_) if entry.is_mount_point() == Some(true) => return fail(Errno::BUSY),
            Ok(_) | Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return fail(errno),
        }
        if entry.entry_type() == EntryType::Directory {
            return match self.remove_tree(&name) {
                Ok(()) => Ok(true),
                Err(error) if error.is(Errno::NOENT) => Ok(false),
                Err(error) => Err(error),
            };
        }
        match at.unlink() {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => fail(errno),
        }
    }

    /// Removes the leftovers of killed processes in this directory: temporary pins and hidden directories of
    /// [`replace`](Self::replace), [`stage`](Self::stage), [`create`](Self::create) and
    /// [`remove_dir_all`](Self::remove_dir_all).
    ///
    /// Looks only at names that begin with "_bpf-pin-" and have the form of this crate's names. A process
    /// locks its token before it makes such a name, and the kernel releases the lock when the process ends.
    /// Pids are not used. A name of a living process is not even opened.
    ///
    /// A directory that was being replaced without `RENAME_EXCHANGE` gets its name back, if nothing has it.
    /// The call takes the lock of [`replace_if`](Self::replace_if) for that.
    ///
    /// A forked process has the lock of its parent's names, and the parent that of a forked child's. So the
    /// names of a killed process are leftovers only when its children have ended, and those of a forked child
    /// when its parent has closed the directory. A child that opens the directory itself is independent.
    ///
    /// These stay:
    ///
    /// - an old set that a reader has [locked](Self::lock);
    /// - a map that was [migrated](crate::reuse::Migrate) to another, while that other has the name;
    /// - a file of another type than its name is for, which is reported. A process was killed right after it
    ///   had exchanged the name with a file of another process. The name of that file is not recorded. If the
    ///   file has the same type, it cannot be distinguished and is removed.
    ///
    /// # Errors
    ///
    /// As [`entries`](Self::entries), or [`Operation::RemoveLeftovers`] if the directory cannot be read. The
    /// failures of single names are in [`RemovalReport::failed`]: [`NotADirectory`](Cause::NotADirectory) and
    /// [`NotAnObject`](Cause::NotAnObject) for a file of another type, for example, and
    /// [`Locked`](Cause::Locked) if another process held the lock for five seconds.
    pub fn remove_leftovers(&self) -> Result<RemovalReport> {
        self.remove_leftovers_holding(None)
    }

    /// As [`remove_leftovers`](Self::remove_leftovers), for a caller that may hold the lock of swaps.
    pub(crate) fn remove_leftovers_holding(
        &self,
        swap: Option<&ByteLock>,
    ) -> Result<RemovalReport> {
        // Another open file description, because one does not see its own locks.
        let file = self
            .open_to_read()
            .map_err(|reason| self.fail(Operation::RemoveLeftovers, reason))?;
        self.each_entry(|entry, report| self.remove_leftover(entry, &file, swap, report))
    }

    fn remove_leftover(
        &self,
        entry: &Entry<&Self>,
        file: &OwnedFd,
        swap: Option<&ByteLock>,
        report: &mut RemovalReport,
    ) -> Result<bool> {
        let bytes = entry.c_name().to_bytes();
        if let Some((name, id)) = parse_backup_name(bytes) {
            return Ok(entry.entry_type() == EntryType::Pin
                && self.is_unused_backup(&name, id, file)?
                && self.remove_entry(entry)?);
        }
        let Some((token, kind)) = parse_temp_name(bytes) else {
            return Ok(false);
        };
        // Once its byte is free, no process uses the name.
        if self.is_held(token, file)? {
            return Ok(false);
        }
        let path = entry.path();
        let cause = match (kind, entry.entry_type()) {
            (TempKind::Pin, EntryType::Pin) => return self.remove_entry(entry),
            (TempKind::Directory, EntryType::Directory) => {
                return self.remove_leftover_dir(&entry.component(), kind, report);
            }
            (TempKind::Aside, EntryType::Directory) => {
                // A set that is moved back must not get into the gap of another process.
                let _lock = match swap {
                    Some(_) => None,
                    None => Some(self.lock_swap().map_err(|reason| {
                        self.fail_at(Operation::RemoveLeftovers, entry.name(), reason)
                    })?),
                };
                return self.remove_leftover_dir(&entry.component(), kind, report);
            }
            (TempKind::Pin, EntryType::Directory) => Cause::NotAnObject {
                path,
                what: "directory",
                found: FileSystem::BPF,
            },
            (_, EntryType::Pin) => Cause::NotADirectory { path },
            _ => return Ok(false),
        };
        Err(self.fail_at(Operation::RemoveLeftovers, entry.name(), cause))
    }

    /// Returns whether the new map no longer has the name, and no process migrates it.
    fn is_unused_backup(&self, name: &Component, id: u32, file: &OwnedFd) -> Result<bool> {
        if self.is_held(hash_name(name.as_bytes()), file)? {
            return Ok(false);
        }
        let kind = Kind::Map;
        Ok(match identity_at(&self.at_path(name)) {
            Ok(found) => found != Identity { kind, id },
            // Other errors: this user may not be allowed to open the pin that has the name.
            Err(reason) => matches!(reason.cause(), Some(Cause::Missing { .. })),
        })
    }

    fn is_held(&self, byte: u64, file: &OwnedFd) -> Result<bool> {
        sys::is_byte_held(file.as_fd(), byte)
            .map_err(|errno| self.fail(Operation::RemoveLeftovers, Reason::errno_only(errno)))
    }

    /// False if a reader has locked it.
    fn remove_leftover_dir(
        &self,
        name: &Component,
        kind: TempKind,
        report: &mut RemovalReport,
    ) -> Result<bool> {
        let fail = |reason| self.fail_at(Operation::RemoveLeftovers, name.as_os_str(), reason);
        let dir = match self.open_dir_named(name) {
            Err(reason) if reason.is(Errno::NOENT) => return Ok(false),
            other => other.map_err(fail)?,
        };
        let file = dir.open_forcing_mode().map_err(fail)?;
        // Held until the end, so that two calls exclude each other.
        let lock = FileLock::take_within(file, FlockOperation::LockExclusive, Duration::ZERO);
        let Some(_lock) = lock.map_err(|errno| fail(Reason::errno_only(errno)))? else {
            return Ok(false);
        };
        // Another call may have removed it.
        let is_same = |stat: Stat| fstat(&dir.fd).is_ok_and(|held| held.st_ino == stat.st_ino);
        if !self.at_path(name).lstat().is_ok_and(is_same) {
            return Ok(false);
        }
        if kind == TempKind::Aside {
            dir.restore_into(self, report)?;
        }
        self.remove_hidden(name).map(|()| true)
    }

    /// As [`open_to_read`](Self::open_to_read). A directory of this user is made readable first if necessary.
    fn open_forcing_mode(&self) -> Result<OwnedFd, Reason> {
        let reason = match self.open_to_read() {
            Err(reason) if reason.is(Errno::ACCESS) => reason,
            other => return other,
        };
        let stat = fstat(&self.fd).map_err(Reason::errno_only)?;
        if !is_own_uid(stat.st_uid) {
            return Err(reason);
        }
        self.chmod_self(permissions(&stat) | Mode::RWXU)?;
        self.open_to_read()
    }

    /// Moves the contents of this directory back to their names in `parent`, if these are free.
    fn restore_into(&self, parent: &Self, report: &mut RemovalReport) -> Result<()> {
        let mut entries = self.entries()?;
        while let Some(entry) = entries.next_entry() {
            let entry = entry?;
            let name = entry.c_name();
            let rename_to =
                |new| renameat_with(&self.fd, name, &parent.fd, new, RenameFlags::NOREPLACE);
            let fail = |errno| {
                let reason = unlink_reason(&self.at_path(name), errno);
                self.fail_at(Operation::Remove, entry.name(), reason)
            };
            match rename_to(name) {
                Ok(()) => report.restored.push(entry.name().to_owned()),
                // It was replaced, and only its removal is left, once no reader has locked it.
                Err(Errno::EXIST) if entry.entry_type() == EntryType::Directory => {
                    let old = leftover_name(TempKind::Directory);
                    rename_to(old.as_c_str()).map_err(fail)?;
                    parent.remove_leftover_dir(&old, TempKind::Directory, report)?;
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(fail(errno)),
            }
        }
        Ok(())
    }
}
