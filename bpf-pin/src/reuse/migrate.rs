//! Replaces a pinned map by one of another shape, with its entries.

use std::fmt;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bytemuck::{Pod, bytes_of, pod_read_unaligned};
use rustix::io::Errno;

use crate::dir::{ByteLock, PinDir, backup_name};
use crate::error::{Cause, Error, Operation, Reason, Result};
use crate::map::{Map, MapInfo, MapSpec};
use crate::path::Component;
use crate::types::Access;

use super::copy::{Copy, Entries};
use super::migration::{Migration, State};
use super::retry::{Attempt, retry};
use super::{MapOutcome, OpenedMap, identity, lost_race};

/// Converts an entry: the old key and value, the new key and value. False skips the entry.
type Convert<'f> = Box<dyn FnMut(&[u8], &[u8], &mut [u8], &mut [u8]) -> bool + 'f>;

/// How a map that does not fit is replaced by one that does: [`Reuse::Migrate`](super::Reuse::Migrate).
///
/// 1. The new map is created, and each entry of the old map is converted by a function and copied.
/// 2. All entries are copied again, to catch up with changes. Entries that were deleted in the meantime
///    are deleted from the new map.
/// 3. The new map atomically gets the name. The old map stays pinned under a backup name in the same
///    directory, with the same mode and owner. That name is "_bpf-pin-old-", the id of the new map and the
///    original name.
/// 4. [`Migration::commit`] unpins the old map. Nothing else does, except a later successful migration of
///    the new map, which counts as a commit.
///
/// The keys and values of the old map stay in memory until the [`Migration`] is dropped.
///
/// # Concurrent writers
///
/// A write to the old map during or after the second pass reaches the old map only.
///
/// If all writers are processes, [`freeze`](Self::freeze) closes this window. It does not stop programs. If
/// programs count in the map, no count is lost in this order:
/// 1. [`open_or_create`](PinDir::open_or_create) creates the new map with the entries
/// 2. load the program with the new map
/// 3. [`open_or_attach`](PinDir::open_or_attach) updates the link in place: from here on only the new map
///    counts
/// 4. [`Migration::commit_adding`] adds what the old map has counted since it was copied
///
/// The counts between 1 and 4 are lost if the loader is killed there: they are in the old map, and the next
/// loader, which gets [`Resumed`](MapOutcome::Resumed), cannot know what had been copied.
///
/// A frozen map stays frozen, even after [`Migration::roll_back`] has given its name back.
///
/// # Races
///
/// Processes that migrate the same name exclude each other with a lock. If one is killed, either the old map
/// still has the name, or the new map has it and the next [`open_or_create`](PinDir::open_or_create) with
/// `Migrate` returns [`Resumed`](MapOutcome::Resumed). [`PinDir::remove_leftovers`] removes the backup of a
/// map that never got the name or has lost it.
///
/// # Map types
///
/// The entries of hashes, arrays, tries and their per-CPU variants can be copied. Values with spin locks,
/// timers or kernel pointers are copied without these.
///
/// An LRU map drops entries that it has no room for, possibly before it is full. If an entry of a trie is
/// deleted while it is read, the kernel may return it with the value of a shorter prefix; freezing avoids
/// this.
///
/// # Errors
///
/// [`Operation::Migrate`](crate::error::Operation::Migrate), and the old map has the name:
///
/// | Cause | Condition |
/// |---|---|
/// | [`UnsupportedType`](Cause::UnsupportedType) | another map type |
/// | [`Size`](Cause::Size) | the types of the function differ in size from those of the maps |
/// | [`PerCpu`](Cause::PerCpu) | the function has types, and one of the maps is per-CPU |
/// | [`MaxEntries`](Cause::MaxEntries) (E2BIG, ENOSPC for a trie) | the new map is too small |
/// | [`IndexOutOfRange`](Cause::IndexOutOfRange) (E2BIG) | the new array is too small |
/// | [`IterationAborted`](Cause::IterationAborted) | so many entries are deleted that no iteration ends |
/// | [`MapAccess`](Cause::MapAccess) (EPERM) | the new map is asked for with [`RDONLY`](crate::types::MapFlags::RDONLY) |
///
/// Also any other error of reading or writing elements, and of pinning the backup or replacing the name.
///
/// [`Operation::Lock`](crate::error::Operation::Lock) with [`Migrating`](Cause::Migrating): another process
/// or thread is migrating the name, or still holds its [`Migration`], for longer than the
/// [`patience`](Self::patience).
///
/// [`Operation::Reuse`](crate::error::Operation::Reuse) with [`TooLong`](Cause::TooLong): the map
/// does not fit, and its name has more than 233 bytes.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::reuse::{Migrate, MapOutcome, Reuse};
/// use bpf_pin::{MapSpec, MapType, PinDir};
///
/// let dir = PinDir::open("/sys/fs/bpf/app")?;
/// // Only processes write to the map. Each value gets a second field, for the time of the last packet.
/// let spec = MapSpec::new(MapType::HASH, 4, 16, 1024);
/// let mut grow = Migrate::new(|key: &u32, count: &u64| Some((*key, [*count, 0]))).freeze();
/// let flows = dir.open_or_create("flows", &spec, Reuse::Migrate(&mut grow))?;
/// if let MapOutcome::Migrated(migration) | MapOutcome::Resumed(migration) = flows.outcome {
///     // The new map works, so the old one can go.
///     migration.commit()?;
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
///
/// With a program as the writer: see [`Migration::commit_adding`].
pub struct Migrate<'f> {
    pub(super) convert: Convert<'f>,
    /// The sizes of the old key and value and of the new key and value. None accepts any.
    pub(super) sizes: Option<[usize; 4]>,
    freeze: bool,
    patience: Duration,
}

impl<'f> Migrate<'f> {
    /// Converts entries with a function from the old key and value to the new ones. `None` skips the entry.
    ///
    /// The function runs at least twice for each entry. If it panics, the old map keeps its name, and stays
    /// frozen if [`freeze`](Self::freeze) was set. For per-CPU maps use [`bytes`](Self::bytes).
    pub fn new<K, V, NewK, NewV>(
        mut convert: impl FnMut(&K, &V) -> Option<(NewK, NewV)> + 'f,
    ) -> Self
    where
        K: Pod,
        V: Pod,
        NewK: Pod,
        NewV: Pod,
    {
        let sizes = [
            size_of::<K>(),
            size_of::<V>(),
            size_of::<NewK>(),
            size_of::<NewV>(),
        ];
        // The sizes were checked before.
        let convert = move |key: &[u8], value: &[u8], new_key: &mut [u8], new_value: &mut [u8]| {
            let (key, value): (K, V) = (pod_read_unaligned(key), pod_read_unaligned(value));
            let Some((key, value)) = convert(&key, &value) else {
                return false;
            };
            new_key.copy_from_slice(bytes_of(&key));
            new_value.copy_from_slice(bytes_of(&value));
            true
        };
        Self {
            sizes: Some(sizes),
            ..Self::bytes(convert)
        }
    }

    /// Converts entries with a function of bytes: the old key, the old value, the new key and the new value.
    /// `false` skips the entry.
    ///
    /// The new key and value are zeroed and have the sizes of the new map. The value of a per-CPU map holds
    /// the values of all CPUs, each rounded up to 8 bytes.
    ///
    /// # Examples
    ///
    /// Each CPU's counter of 8 bytes gets a second one, which starts at 0:
    ///
    /// ```no_run
    /// use bpf_pin::reuse::{Migrate, MapOutcome, Reuse};
    /// use bpf_pin::{MapSpec, MapType, PinDir};
    ///
    /// let dir = PinDir::open("/sys/fs/bpf/app")?;
    /// let spec = MapSpec::new(MapType::PERCPU_ARRAY, 4, 16, 64);
    /// let mut grow = Migrate::bytes(|key, values, new_key, new_values| {
    ///     new_key.copy_from_slice(key);
    ///     for (old, new) in values.chunks(8).zip(new_values.chunks_mut(16)) {
    ///         new[..8].copy_from_slice(old);
    ///     }
    ///     true
    /// });
    /// let counters = dir.open_or_create("counters", &spec, Reuse::Migrate(&mut grow))?;
    /// if let MapOutcome::Migrated(migration) | MapOutcome::Resumed(migration) = counters.outcome {
    ///     migration.commit()?;
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn bytes(convert: impl FnMut(&[u8], &[u8], &mut [u8], &mut [u8]) -> bool + 'f) -> Self {
        Self {
            convert: Box::new(convert),
            sizes: None,
            freeze: false,
            patience: Duration::from_secs(30),
        }
    }

    /// Freezes the old map before the second pass (`BPF_MAP_FREEZE`), so that no write of a process is lost.
    /// Linux 5.2.
    ///
    /// A process that then writes to the old map by bpf(2) gets EPERM, and should open the name again to
    /// find the new map.
    ///
    /// Freezing cannot be undone. If the migration fails afterwards, the old map has its name and stays
    /// frozen, and the next migration continues from there. So everything else that can fail is tried first:
    /// all entries are copied once, and the pin is replaced by a new pin of the old map. Only a change
    /// between the two passes can still make it fail, for example if the new map becomes too small.
    ///
    /// # Errors
    ///
    /// [`Operation::Freeze`](crate::error::Operation::Freeze) within
    /// [`Operation::Migrate`](crate::error::Operation::Migrate) if the map's type cannot be frozen, or if its
    /// values are mapped for writing. The second takes about a second, because a write in progress looks
    /// the same. The old map then has its name, by a new pin.
    pub fn freeze(mut self) -> Self {
        self.freeze = true;
        self
    }

    /// Sets how long to wait for another process that migrates the same name. The default is 30 seconds.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

impl fmt::Debug for Migrate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migrate")
            .field("freeze", &self.freeze)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

impl PinDir {
    /// Resumes the migration to a pinned map that fits, if one was not committed.
    pub(super) fn resume<E: From<Error>>(
        &self,
        name: &Component,
        new: Map,
        info: &MapInfo,
        access: Access,
    ) -> Result<Attempt<OpenedMap, E>, E> {
        let new_id = identity(info);
        let Some((lock, backup, old)) = self.lock_backup(name, new_id.id) else {
            return Ok(OpenedMap::done(new, MapOutcome::Found));
        };
        // The name may have changed before the lock was taken.
        match self.find_with_info::<Map>(name, access)? {
            Some((_, info)) if identity(&info) == new_id => {}
            Some((_, info)) => {
                let (expected, found) = (new_id, identity(&info));
                let error = Error::new(Operation::Reuse, Cause::Replaced { expected, found });
                return Ok(Attempt::Retry(error.at(self.at_path(name).path()).into()));
            }
            None => return Ok(Attempt::Retry(self.missing_error(name).into())),
        }
        let old_id = old.identity()?;
        if old_id == new_id {
            return Ok(OpenedMap::done(new, MapOutcome::Found));
        }
        let migration = Migration::new(State {
            dir: self.try_clone()?,
            name: *name,
            backup,
            old,
            old_id,
            new_id,
            copied: None,
            _lock: lock,
        });
        Ok(OpenedMap::done(new, MapOutcome::Resumed(migration)))
    }

    /// Locks the name if it has a backup and is not locked by another process, and opens the backup.
    ///
    /// Any error counts as no backup: the map that fits can be used all the same.
    fn lock_backup(&self, name: &Component, id: u32) -> Option<(ByteLock, Component, Map)> {
        let backup = backup_name(name, id).ok()?;
        let open = || self.find_named::<Map>(&backup).ok().flatten();
        open()?;
        let lock = self.lock_migration(name, Duration::ZERO).ok()??;
        // It may have been committed before the lock was taken.
        Some((lock, backup, open()?))
    }

    /// Replaces the map that has the name by a new one with its entries. None if the map was replaced,
    /// removed or made to fit by another process.
    pub(super) fn migrate<E: From<Error>>(
        &self,
        name: &Component,
        spec: &MapSpec<'_>,
        migrate: &mut Migrate<'_>,
        create: &mut dyn FnMut() -> Result<Map, E>,
        is_filled: bool,
    ) -> Result<Option<OpenedMap>, E> {
        let fail = |error: Error| error.while_doing(Operation::Migrate, self.at_path(name).path());
        let Some((lock, old, info)) = self.lock_misfit(name, spec, migrate.patience)? else {
            return Ok(None);
        };
        let (old_id, is_to_freeze) = (identity(&info), migrate.freeze);
        let dir = self.try_clone()?;
        let new = create()?;
        let new_id = new.identity()?;
        let backup = backup_name(name, new_id.id)
            .map_err(|cause| Error::new(Operation::Reuse, cause).at(self.at_path(name).path()))?;
        let mut copy = Copy::new(&old, &new, migrate).map_err(fail)?;
        if is_filled {
            copy.remember_filled().map_err(fail)?;
        }
        copy.first_pass().map_err(fail)?;
        match self.pin_named_as(old.as_fd(), &backup, name) {
            Err(error) if lost_race(&error) => return Ok(None),
            pinned => pinned.map_err(fail)?,
        }
        let mut backup_pin = BackupPin {
            dir: self,
            name: &backup,
            lock: &lock,
            is_armed: true,
        };
        let finish = || -> Result<Entries> {
            if is_to_freeze {
                // Replaces the pin by one of the same map, to fail before the map is frozen.
                self.replace_if_keeping_mode(&old, name.as_os_str(), old_id)?;
                freeze(&old)?;
            }
            let copied = copy.second_pass()?;
            self.replace_if_keeping_mode(&new, name.as_os_str(), old_id)?;
            Ok(copied)
        };
        let copied = match finish() {
            Ok(copied) => copied,
            Err(error) if lost_race(&error) => return Ok(None),
            Err(error) => return Err(fail(error).into()),
        };
        backup_pin.is_armed = false;
        drop(backup_pin);
        // The old map may itself come from a migration, which counts as committed now. If its backup
        // cannot be removed, it is a leftover.
        if let Ok(before) = backup_name(name, old_id.id) {
            let _ = self.at_path(&before).unlink();
        }
        let migration = Migration::new(State {
            dir,
            name: *name,
            backup,
            old,
            old_id,
            new_id,
            copied: Some(copied),
            _lock: lock,
        });
        Ok(Some(OpenedMap::new(new, MapOutcome::Migrated(migration))))
    }

    /// Locks the name for a migration and opens its map. None if there is no map any more, or one that fits.
    fn lock_misfit(
        &self,
        name: &Component,
        spec: &MapSpec<'_>,
        patience: Duration,
    ) -> Result<Option<(ByteLock, Map, MapInfo)>> {
        /// The map is checked again after each wait of this length.
        const INTERVAL: Duration = Duration::from_millis(100);

        let fail =
            |reason: Reason| Error::new(Operation::Lock, reason).at(self.at_path(name).path());
        // None if the patience is longer than the clock can express.
        let end = Instant::now().checked_add(patience);
        loop {
            let lock = self
                .lock_migration(name, INTERVAL.min(patience))
                .map_err(fail)?;
            // The old map is read and may be frozen, whatever access the caller asks for.
            let Some((map, info)) = self.find_with_info::<Map>(name, Access::ReadWrite)? else {
                return Ok(None);
            };
            if spec.compare_whole(&map, &info).0.is_empty() {
                return Ok(None);
            }
            if let Some(lock) = lock {
                return Ok(Some((lock, map, info)));
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                return Err(fail(Cause::Migrating.into()));
            }
        }
    }
}

/// The backup pin of the old map, which is removed unless the migration succeeds. Its name contains the id
/// of the new map, so other processes do not use it.
struct BackupPin<'a> {
    dir: &'a PinDir,
    name: &'a Component,
    lock: &'a ByteLock,
    is_armed: bool,
}

impl Drop for BackupPin<'_> {
    fn drop(&mut self) {
        // A process that the conversion has forked drops a copy of this and must not remove the pin.
        if self.is_armed && !self.lock.is_inherited() {
            // Needs no new descriptor. If it fails, the pin is a leftover.
            let _ = self.dir.at_path(self.name).unlink();
        }
    }
}

/// Freezes a map. It is busy (EBUSY) while a write is in progress.
fn freeze(map: &Map) -> Result<()> {
    retry(|| match map.freeze() {
        Ok(()) => Ok(Attempt::Done(())),
        // A migration that was killed has frozen it.
        Err(error) if matches!(error.cause(), Some(Cause::Frozen)) => Ok(Attempt::Done(())),
        Err(error) if error.is(Errno::BUSY) => Ok(Attempt::Retry(error)),
        Err(error) => Err(error),
    })
}
