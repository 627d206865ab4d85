//! Removes what is no longer needed: what a predicate selects, and what killed processes left.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FlockOperation, Mode, RenameFlags, Stat, fstat, renameat_with};
use rustix::io::Errno;

use crate::error::{Cause, Error, Operation, Reason, Result};
use crate::object::identity_at;
use crate::path::Component;
use crate::procfs::ids::is_own_uid;
use crate::sys::{self, FileLock};
use crate::types::FileSystem;
use crate::types::{Identity, Kind};

use super::metadata::permissions;
use super::temp_names::{TempKind, hash_name, leftover_name, parse_backup_name, parse_temp_name};
use super::{Entry, EntryType, PinDir};

/// What was removed, or would be.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RemovalReport {
    /// The names that were removed, or would be.
    pub removed: Vec<OsString>,
    /// The names that were given back to what a killed process had moved out of the way.
    pub restored: Vec<OsString>,
    /// What could not be done, and why. The rest was done all the same.
    pub failed: Vec<Error>,
}

impl PinDir {
    /// `unlink(2)`, `rmdir(2)`: removes what the predicate selects, a directory with all that is in it. Only
    /// in this directory: for a tree see [`walk`](Self::walk).
    ///
    /// Temporary names are not asked about: they are left to [`remove_leftovers`](Self::remove_leftovers).
    /// Right before, the name is seen to have the same inode still, so that what was replaced meanwhile stays.
    /// As with [`unpin`](Self::unpin) these are two steps.
    ///
    /// # Errors
    ///
    /// As [`entries`](Self::entries). What fails for one name is in [`RemovalReport::failed`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{Map, PinDir};
    ///
    /// // For example, maps of one entry.
    /// let dir = PinDir::open("/sys/fs/bpf/app")?;
    /// let report = dir.remove_where(|entry| {
    ///     entry.get::<Map>().is_ok_and(|map| map.info().is_ok_and(|info| info.max_entries == 1))
    /// })?;
    /// println!("removed {:?}", report.removed);
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn remove_where(
        &self,
        is_useless: impl FnMut(&Entry<&Self>) -> bool,
    ) -> Result<RemovalReport> {
        self.each_where(is_useless, |entry| self.remove_entry(entry))
    }

    /// As [`remove_where`](Self::remove_where), but removes nothing: reports what that would remove.
    ///
    /// # Errors
    ///
    /// As [`entries`](Self::entries).
    pub fn remove_where_dry_run(
        &self,
        is_useless: impl FnMut(&Entry<&Self>) -> bool,
    ) -> Result<RemovalReport> {
        self.each_where(is_useless, |_| Ok(true))
    }

    fn each_where(
        &self,
        mut is_useless: impl FnMut(&Entry<&Self>) -> bool,
        remove: impl Fn(&Entry<&Self>) -> Result<bool>,
    ) -> Result<RemovalReport> {
        self.each_entry(|entry, report| {
            if !entry.is_hidden() && is_useless(entry) && remove(entry)? {
                report.removed.push(entry.name().to_owned());
            }
            Ok(())
        })
    }

    fn each_entry(
        &self,
        mut each: impl FnMut(&Entry<&Self>, &mut RemovalReport) -> Result<()>,
    ) -> Result<RemovalReport> {
        let (mut report, mut entries) = (RemovalReport::default(), self.entries()?);
        while let Some(entry) = entries.next_entry() {
            if let Err(error) = entry.and_then(|entry| each(entry, &mut report)) {
                report.failed.push(error);
            }
        }
        Ok(report)
    }

    /// False if the name is gone, or another's by now.
    fn remove_entry(&self, entry: &Entry<&Self>) -> Result<bool> {
        let name = &entry.filename();
        let place = self.at_path(name);
        match place.lstat() {
            Ok(stat) if stat.st_ino == entry.inode() => {}
            // A mount point has the inode of what is mounted there.
            Ok(_) if entry.is_mount_point() == Some(true) => {
                return Err(self.not_removed(name, Errno::BUSY));
            }
            Ok(_) | Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(self.not_removed(name, errno)),
        }
        if entry.entry_type() == EntryType::Directory {
            return match self.remove_tree(name) {
                Ok(()) => Ok(true),
                Err(error) if error.is(Errno::NOENT) => Ok(false),
                Err(error) => Err(error),
            };
        }
        match place.unlink() {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.not_removed(name, errno)),
        }
    }

    /// Removes what killed processes have left in this directory: temporary pins and hidden directories of
    /// [`replace`](Self::replace), [`stage`](Self::stage), [`create`](Self::create) and
    /// [`remove_dir_all`](Self::remove_dir_all).
    ///
    /// Only names that begin with "_bpf-pin-" and go on as this crate makes them are looked at. Whether the
    /// process of such a name is alive is asked of the kernel, by the lock that it holds before it makes the
    /// name; pids play no part. What has the name of a living process is not even opened. An old set that a
    /// reader has [locked](Self::lock) stays.
    ///
    /// A directory that was being replaced without `RENAME_EXCHANGE` is given its name back. A map that
    /// another was [migrated](crate::reuse::Migrate) from stays as long as that other has the name.
    ///
    /// What is of another type than its name is for stays, too, and is reported: a process was killed right
    /// after it exchanged the name with something that another process had put there, and which name that
    /// had is not recorded. If that was of the same type, the kernel offers no way to tell, and it is removed.
    ///
    /// # Errors
    ///
    /// As [`entries`](Self::entries). What fails for one name is in [`RemovalReport::failed`]:
    /// [`NotADirectory`](Cause::NotADirectory) and [`NotAnObject`](Cause::NotAnObject) of what is of another
    /// type, for example.
    pub fn remove_leftovers(&self) -> Result<RemovalReport> {
        // A lock is seen from another open file description than the one that holds it.
        let file = self
            .readable()
            .map_err(|reason| self.fail(Operation::RemoveLeftovers, reason))?;
        self.each_entry(|entry, report| {
            if self.remove_leftover(entry, &file, report)? {
                report.removed.push(entry.name().to_owned());
            }
            Ok(())
        })
    }

    fn remove_leftover(
        &self,
        entry: &Entry<&Self>,
        file: &OwnedFd,
        report: &mut RemovalReport,
    ) -> Result<bool> {
        let bytes = entry.c_name().to_bytes();
        if let Some((name, id)) = parse_backup_name(bytes) {
            let is_useless =
                entry.entry_type() == EntryType::Pin && self.is_superseded(&name, id, file)?;
            return Ok(is_useless && self.remove_entry(entry)?);
        }
        let Some((token, kind)) = parse_temp_name(bytes) else {
            return Ok(false);
        };
        // Once its byte is free, nobody gives the name to anything any more.
        if self.is_held(token, file)? {
            return Ok(false);
        }
        let path = entry.path();
        let cause = match (kind, entry.entry_type()) {
            (TempKind::Pin, EntryType::Pin) => return self.remove_entry(entry),
            (TempKind::Directory | TempKind::Aside, EntryType::Directory) => {
                return self.remove_leftover_dir(&entry.filename(), kind, report);
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

    /// Whether the map that was migrated to has lost the name, and nobody migrates it right now.
    fn is_superseded(&self, name: &Component, id: u32, file: &OwnedFd) -> Result<bool> {
        if self.is_held(hash_name(name.as_bytes()), file)? {
            return Ok(false);
        }
        let kind = Kind::Map;
        Ok(match identity_at(&self.at_path(name)) {
            Ok(found) => found != Identity { kind, id },
            // Only if nothing has the name: this user may not be allowed to open what has it.
            Err(reason) => matches!(reason.cause(), Some(Cause::Missing { .. })),
        })
    }

    fn is_held(&self, byte: u64, file: &OwnedFd) -> Result<bool> {
        sys::is_byte_held(file.as_fd(), byte)
            .map_err(|errno| self.fail(Operation::RemoveLeftovers, Reason::errno_only(errno)))
    }

    /// False if a reader holds it.
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
        // Until all is done, so that two calls do not meet.
        let lock = FileLock::try_take(file, FlockOperation::LockExclusive);
        let Ok(_lock) = lock.map_err(|errno| fail(Reason::errno_only(errno)))? else {
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

    /// As [`readable`](Self::readable), of a directory whose process is dead: if it is this user's, it is
    /// made readable.
    fn open_forcing_mode(&self) -> Result<OwnedFd, Reason> {
        let reason = match self.readable() {
            Err(reason) if reason.is(Errno::ACCESS) => reason,
            other => return other,
        };
        let stat = fstat(&self.fd).map_err(Reason::errno_only)?;
        if !is_own_uid(stat.st_uid) {
            return Err(reason);
        }
        self.chmod_self(permissions(&stat) | Mode::RWXU)?;
        self.readable()
    }

    /// Gives what is in this directory its name back, if it is free.
    fn restore_into(&self, parent: &Self, report: &mut RemovalReport) -> Result<()> {
        let mut entries = self.entries()?;
        while let Some(entry) = entries.next_entry() {
            let entry = entry?;
            let name = entry.c_name();
            match renameat_with(&self.fd, name, &parent.fd, name, RenameFlags::NOREPLACE) {
                Ok(()) => report.restored.push(entry.name().to_owned()),
                // It was replaced, and only the removal is left, once no reader is there.
                Err(Errno::EXIST) if entry.entry_type() == EntryType::Directory => {
                    let retired = leftover_name(TempKind::Directory);
                    let to = retired.as_c_str();
                    renameat_with(&self.fd, name, &parent.fd, to, RenameFlags::NOREPLACE)
                        .map_err(|errno| self.not_removed(&entry.filename(), errno))?;
                    parent.remove_leftover_dir(&retired, TempKind::Directory, report)?;
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(self.not_removed(&entry.filename(), errno)),
            }
        }
        Ok(())
    }
}
