//! What nobody needs any more is removed.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FlockOperation, Mode, RenameFlags, Stat, fstat, renameat_with};
use rustix::io::Errno;

use crate::cause::Cause;
use crate::error::{Error, Operation, Reason, Result};
use crate::filename::Filename;
use crate::flock::{Held, try_lock_file};
use crate::kind::{Identity, Kind};
use crate::object::identity_at;
use crate::sys;

use super::names::{self, Left};
use super::{Entry, EntryType, PinDir};

/// What a sweep has done, or would do.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Swept {
    /// The names that were removed, or would be.
    pub removed: Vec<OsString>,
    /// The names that were given back to what a killed process had moved out of the way.
    pub restored: Vec<OsString>,
    /// What could not be done, and why. It did not end the sweep.
    pub failed: Vec<Error>,
}

impl PinDir {
    /// `unlink(2)`, `rmdir(2)`: removes what the predicate says is of no use any more, a directory
    /// with all that is in it. Of this directory alone: for a tree see [`walk`](Self::walk).
    ///
    /// Names of things on their way are not asked about: they are left to
    /// [`sweep_stale`](Self::sweep_stale). Right before, the name is seen to be still that of the file that the predicate was asked about,
    /// so what was replaced meanwhile stays. As with [`remove`](Self::remove) these are two steps.
    ///
    /// # Errors
    ///
    /// As [`entries`](Self::entries). What goes wrong with a name is in [`Swept::failed`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{Map, PinDir};
    ///
    /// // Maps that were made for one entry, say.
    /// let dir = PinDir::open("/sys/fs/bpf/app")?;
    /// let swept = dir.sweep(|entry| {
    ///     entry.open_as::<Map>().is_ok_and(|map| map.info().is_ok_and(|info| info.max_entries == 1))
    /// })?;
    /// println!("removed {:?}", swept.removed);
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn sweep(&self, is_useless: impl FnMut(&Entry<&Self>) -> bool) -> Result<Swept> {
        self.sweep_by(is_useless, |entry| self.remove_entry(entry))
    }

    /// As [`sweep`](Self::sweep), but removes nothing: what it tells, [`sweep`](Self::sweep) would remove.
    ///
    /// # Errors
    ///
    /// As [`entries`](Self::entries).
    pub fn sweep_dry_run(&self, is_useless: impl FnMut(&Entry<&Self>) -> bool) -> Result<Swept> {
        self.sweep_by(is_useless, |_| Ok(true))
    }

    fn sweep_by(
        &self,
        mut is_useless: impl FnMut(&Entry<&Self>) -> bool,
        remove: impl Fn(&Entry<&Self>) -> Result<bool>,
    ) -> Result<Swept> {
        let (mut swept, mut entries) = (Swept::default(), self.entries()?);
        while let Some(entry) = entries.next_entry() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    swept.failed.push(error);
                    continue;
                }
            };
            // Whether somebody needs those is for the other sweep to see.
            if entry.is_hidden() || !is_useless(entry) {
                continue;
            }
            match remove(entry) {
                Ok(true) => swept.removed.push(entry.name().to_owned()),
                Ok(false) => {}
                Err(error) => swept.failed.push(error),
            }
        }
        Ok(swept)
    }

    /// False where the name was gone, or another's.
    fn remove_entry(&self, entry: &Entry<&Self>) -> Result<bool> {
        let name = &entry.filename();
        let place = self.place(name);
        match place.lstat() {
            Ok(stat) if stat.st_ino == entry.inode() => {}
            // Of a mount point it is the inode of what is mounted there.
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

    /// Removes what processes that were killed amid [`replace`](Self::replace), [`stage`](Self::stage),
    /// [`create`](Self::create) or [`remove_dir_all`](Self::remove_dir_all) have left in this directory.
    ///
    /// That nobody lives who needs it is asked of the kernel, by the locks that the living hold: pids
    /// play no part. Only names that begin with "_bpf-pin-" and go on as this crate makes them are
    /// looked at. A directory that was being replaced without `RENAME_EXCHANGE` is given its name back.
    /// A map that another was [migrated](crate::Migrate) from stays for as long as that other has the
    /// name.
    ///
    /// # Errors
    ///
    /// As [`entries`](Self::entries). What goes wrong with a name is in [`Swept::failed`].
    pub fn sweep_stale(&self) -> Result<Swept> {
        let fail = |reason| self.fail(Operation::RemoveLeftovers, reason);
        // A lock is seen from another open file than the one that holds it.
        let file = self.readable().map_err(fail)?;
        let (mut swept, mut entries) = (Swept::default(), self.entries()?);
        while let Some(entry) = entries.next_entry() {
            let swept_one = entry.and_then(|entry| self.sweep_left(entry, &file, &mut swept));
            if let Err(error) = swept_one {
                swept.failed.push(error);
            }
        }
        Ok(swept)
    }

    fn sweep_left(&self, entry: &Entry<&Self>, file: &OwnedFd, swept: &mut Swept) -> Result<()> {
        let bytes = entry.c_name().to_bytes();
        if let Some((name, id)) = names::parse_kept(bytes) {
            if entry.entry_type() == EntryType::Pin
                && self.is_superseded(&name, id, file)?
                && self.remove_entry(entry)?
            {
                swept.removed.push(entry.name().to_owned());
            }
            return Ok(());
        }
        let Some((token, left)) = names::parse(bytes) else {
            return Ok(());
        };
        let is_gone = match entry.entry_type() {
            EntryType::Pin => !self.is_claimed(token, file)? && self.remove_entry(entry)?,
            EntryType::Directory => self.sweep_dir(&entry.filename(), left, swept)?,
            _ => false,
        };
        if is_gone {
            swept.removed.push(entry.name().to_owned());
        }
        Ok(())
    }

    /// Whether the map that was migrated to has the name no more, and nobody migrates it right now.
    fn is_superseded(&self, name: &Filename, id: u32, file: &OwnedFd) -> Result<bool> {
        let is_at_it = sys::is_byte_held(file.as_fd(), names::number(name.as_bytes()))
            .map_err(|errno| self.fail(Operation::RemoveLeftovers, Reason::errno_only(errno)))?;
        if is_at_it {
            return Ok(false);
        }
        let kind = Kind::Map;
        Ok(match identity_at(&self.place(name)) {
            Ok(found) => found != Identity { kind, id },
            // Who may not see what has the name does not know.
            Err(reason) => matches!(reason.cause(), Some(Cause::Missing { .. })),
        })
    }

    fn is_claimed(&self, token: u64, file: &OwnedFd) -> Result<bool> {
        if self.claimed().is_some_and(|claim| claim.token() == token) {
            return Ok(true);
        }
        sys::is_byte_held(file.as_fd(), token)
            .map_err(|errno| self.fail(Operation::RemoveLeftovers, Reason::errno_only(errno)))
    }

    /// False where somebody holds it.
    fn sweep_dir(&self, name: &Filename, left: Left, swept: &mut Swept) -> Result<bool> {
        let fail = |reason| self.fail_at(Operation::RemoveLeftovers, name.as_os_str(), reason);
        let dir = match self.open_dir_named(name) {
            Err(reason) if reason.is(Errno::NOENT) => return Ok(false),
            other => other.map_err(fail)?,
        };
        // Kept until all is done, so that two sweeps do not meet.
        let (lock, mode) = dir.readable_whatever_its_mode().map_err(fail)?;
        let is_free = try_lock_file(&lock, FlockOperation::LockExclusive);
        if is_free != Ok(true) {
            dir.give_back(mode);
            return is_free.map_err(|errno| fail(Reason::errno_only(errno)));
        }
        let _lock = Held::briefly(lock);
        // Whoever holds the lock may have given it another name meanwhile, and now lives in it.
        let same = |stat: Stat| fstat(&dir.fd).is_ok_and(|held| held.st_ino == stat.st_ino);
        if !self.place(name).lstat().is_ok_and(same) {
            dir.give_back(mode);
            return Ok(false);
        }
        if mode.is_some() {
            dir.chmod_self(Mode::RWXU).map_err(fail)?;
        }
        if left == Left::Aside {
            dir.restore_into(self, swept)?;
        }
        self.remove_hidden(name).map(|()| true)
    }

    /// Gives what is in this directory its name back, where nobody has it.
    fn restore_into(&self, parent: &Self, swept: &mut Swept) -> Result<()> {
        let mut entries = self.entries()?;
        while let Some(entry) = entries.next_entry() {
            let entry = entry?;
            let name = entry.c_name();
            match renameat_with(&self.fd, name, &parent.fd, name, RenameFlags::NOREPLACE) {
                Ok(()) => swept.restored.push(entry.name().to_owned()),
                // It was replaced, and only the removal is left, once no reader is there.
                Err(Errno::EXIST) if entry.entry_type() == EntryType::Directory => {
                    let retired = names::passing(names::token(), 0, Left::Unfinished);
                    let to = retired.as_c_str();
                    renameat_with(&self.fd, name, &parent.fd, to, RenameFlags::NOREPLACE)
                        .map_err(|errno| self.not_removed(&entry.filename(), errno))?;
                    parent.sweep_dir(&retired, Left::Unfinished, swept)?;
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(self.not_removed(&entry.filename(), errno)),
            }
        }
        Ok(())
    }
}
