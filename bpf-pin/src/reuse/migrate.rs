//! The entries of one map in another, and the name with them.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bytemuck::{Pod, bytes_of, pod_read_unaligned};
use rustix::io::Errno;

use crate::dir::{ByteLock, PinDir, backup_name};
use crate::error::{Cause, Error, Failed, Operation, Reason, Result};
use crate::map::{Map, MapSpec};
use crate::path::Component;
use crate::types::Access;
use crate::types::Identity;

use super::copy::{Copy, Entries};
use super::{MapOutcome, OpenedMap, identity, is_overtaken};

/// What becomes of an entry: the old key and value in, the new ones out; false leaves it out.
type Convert<'f> = Box<dyn FnMut(&[u8], &[u8], &mut [u8], &mut [u8]) -> bool + 'f>;

/// How a map that does not fit is turned into one that does: [`Reuse::Migrate`](super::Reuse::Migrate).
///
/// The new map is created, and each entry of the old one copied to it through a function; then
/// once more, for what has changed meanwhile, and what is gone by then is taken out. Then the new
/// map gets the name, in one step, and the old one is kept under another name in the directory,
/// "_bpf-pin-old-", the new one's id and the name, with the same mode and owner, until
/// [`Migration::commit`]. Nobody else does that: who takes the map out of [`OpenedMap`] and lets the outcome
/// fall leaves the old one pinned. A migration of the new one that succeeds takes it for committed.
///
/// What is written to the old map while it is read for the second time, or after that, is in the old map
/// alone. If all writers are processes, [`freeze`](Self::freeze) leaves no such time. Programs are not
/// stopped by that. With them the order is: [`open_or_create`](PinDir::open_or_create), load the program with
/// the new map, [`open_or_attach`](PinDir::open_or_attach), and then [`Migration::commit_with`], which reads
/// the old map once more. A frozen map stays frozen, also after [`Migration::roll_back`] has given it its
/// name back.
///
/// The keys and values of the old map are kept in memory until the [`Migration`] is dropped.
///
/// Processes that migrate the same name exclude each other by a lock of their own. If one is killed, the
/// old map still has the name, or the new one has and the next
/// [`open_or_create`](PinDir::open_or_create) with `Migrate` goes on with
/// [`Resumed`](MapOutcome::Resumed). What is kept for a map that never had the name, or has it no more,
/// is removed by [`PinDir::remove_leftovers`].
///
/// Hashes, arrays, tries and their per-CPU kinds have entries that can be copied. An LRU map drops
/// what it has no room for, and may do so before it is full. Of a trie an entry that is deleted while
/// it is read may come with the value of a shorter prefix: that is the kernel's doing, and freezing
/// keeps it away. Values with spin locks, timers or pointers of the kernel are copied without these.
///
/// # Errors
///
/// [`Operation::Migrate`](crate::error::Operation::Migrate), and the old map has the name: [`UnsupportedType`](Cause::UnsupportedType) for other types;
/// [`Size`](Cause::Size) where the function's types are not as large as the map's;
/// [`PerCpu`](Cause::PerCpu) where it has types and one of the maps a value for each CPU;
/// [`MaxEntries`](Cause::MaxEntries) (E2BIG, of a trie ENOSPC) where the new map is too small,
/// [`IndexOutOfRange`](Cause::IndexOutOfRange) (E2BIG) of an array;
/// [`IterationAborted`](Cause::IterationAborted) where so much is deleted meanwhile that the walk comes to no end;
/// [`MapAccess`](Cause::MapAccess) (EPERM) where the new one is asked for with
/// [`RDONLY`](crate::types::MapFlags::RDONLY); whatever else stops elements from being read or written, or
/// the old map from being kept or replaced.
///
/// [`Operation::Lock`](crate::error::Operation::Lock) with [`Migrating`](Cause::Migrating) where another process or thread is at it, or
/// has not dropped its [`Migration`], for longer than one [waits](Self::patience). [`Operation::Reuse`](crate::error::Operation::Reuse) with
/// [`TooLong`](Cause::TooLong) for a name of more than 233 bytes whose map does not fit.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::reuse::{Migrate, MapOutcome, Reuse};
/// use bpf_pin::{MapSpec, MapType, PinDir};
///
/// let dir = PinDir::open("/sys/fs/bpf/app")?;
/// // Each value grows by the time when it was last seen.
/// let spec = MapSpec::new(MapType::HASH, 4, 16, 1024);
/// let mut grow = Migrate::new(|key: &u32, count: &u64| Some((*key, [*count, 0])));
/// let flows = dir.open_or_create("flows", &spec, Reuse::Migrate(&mut grow))?;
/// if let MapOutcome::Migrated(migration) | MapOutcome::Resumed(migration) = flows.outcome {
///     // All is well: the old one may go.
///     migration.commit()?;
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
pub struct Migrate<'f> {
    pub(super) convert: Convert<'f>,
    /// Of the old key and value, the new key and value; none where any will do.
    pub(super) sizes: Option<[usize; 4]>,
    freeze: bool,
    patience: Duration,
}

impl<'f> Migrate<'f> {
    /// With a function from an old key and value to the new ones; None leaves the entry out.
    ///
    /// It sees an entry twice or more. If it panics, the old map has its name, frozen if it was to be.
    /// Of per-CPU maps: [`bytes`](Self::bytes).
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
        let convert = move |key: &[u8], value: &[u8], new_key: &mut [u8], new_value: &mut [u8]| {
            // The sizes were checked before.
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

    /// With a function of bytes: the old key and value, and room for the new ones, of the new map's
    /// sizes and zeroed; false leaves the entry out.
    ///
    /// The value of a per-CPU map is those of all CPUs, each rounded up to 8 bytes.
    ///
    /// # Examples
    ///
    /// Each CPU's counter of 8 bytes gets a second one beside it, which begins at 0:
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

    /// `BPF_MAP_FREEZE`, before the old map is read for the second time: who writes to it by bpf(2)
    /// gets EPERM from then on, and nothing that was written is lost. It opens the name anew to find
    /// the new map. Linux 5.2.
    ///
    /// There is no way back: if the migration fails after that, the old map has its name and stays
    /// frozen, and the next migration goes on from there. So what else can fail was tried before: all
    /// entries were copied once, and the name was replaced, by a new pin of the old map. What is left
    /// is what happens between the two passes, as when the new map gets too small.
    ///
    /// While values of the map are mapped for writing, or its type is none that can be frozen, that is
    /// [`Operation::Freeze`](crate::error::Operation::Freeze) within [`Operation::Migrate`](crate::error::Operation::Migrate), after up to five seconds, for a write on its way
    /// looks the same; and the map has its name, by a new pin.
    pub fn freeze(mut self) -> Self {
        self.freeze = true;
        self
    }

    /// For how long another process that migrates the same name is waited for; 30 seconds if nothing
    /// else is said.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

/// What was migrated and is not committed: the old map, kept under a name of its own.
///
/// Dropped, it leaves that to the next process, which gets it with
/// [`Resumed`](MapOutcome::Resumed). As long as it lives it has the turn among those who migrate the name.
#[must_use = "the old map is kept until the migration is committed"]
pub struct Migration {
    // Not in place: what is moved with each result of open_or_create is not to be large.
    dir: Box<PinDir>,
    name: Box<Component>,
    kept: Box<Component>,
    old: Map,
    old_is: Identity,
    new_is: Identity,
    /// What was copied, if this process did it.
    copied: Option<Box<Entries>>,
    _lock: ByteLock,
}

impl Migration {
    /// The map that had the name before.
    pub fn old(&self) -> &Map {
        &self.old
    }

    /// The name under which it is kept.
    pub fn kept_as(&self) -> &OsStr {
        self.kept.as_os_str()
    }

    /// `unlink(2)` of the name under which the old map is kept: it dies with its last descriptor.
    ///
    /// # Errors
    ///
    /// [`Operation::Unpin`](crate::error::Operation::Unpin) as [`PinDir::unpin`], with the migration. That it is gone is none.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use bpf_pin::reuse::Migration;
    /// # fn done(migration: Migration) -> bpf_pin::Result<()> {
    /// // Its last entries may be read still.
    /// let old = migration.commit()?;
    /// println!("map {} is pinned no more", old.id()?);
    /// # Ok(())
    /// # }
    /// ```
    #[allow(
        clippy::result_large_err,
        reason = "nothing is lost, the old map included"
    )]
    pub fn commit(self) -> Result<Map, Failed<Self>> {
        match self.forget() {
            Ok(()) => Ok(self.old),
            Err(error) => Err(Failed::new(self, error)),
        }
    }

    /// Reads the old map once more and [commits](Self::commit): for when what writes to the map has moved
    /// to the new one. `merge` gets the key of each entry that has changed since it was copied, the value
    /// that was copied and the value now. `None` is an entry that was not there, or is gone.
    ///
    /// What the change means for the new map is for the caller to say: of a count it is the difference, to be
    /// added. The sizes are those of the old map; per-CPU maps: [`commit_with_bytes`](Self::commit_with_bytes).
    ///
    /// # Errors
    ///
    /// With the migration, which is not committed: [`InvalidArgument`](Cause::InvalidArgument) for one that was
    /// [resumed](MapOutcome::Resumed), because what was copied is not known any more; [`Size`](Cause::Size);
    /// what `merge` returns, and it may have been called for some of the entries;
    /// as [`commit`](Self::commit).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::map::ElemFlags;
    /// use bpf_pin::reuse::{Migrate, MapOutcome, Reuse};
    /// use bpf_pin::{LinkSpec, Map, MapSpec, MapType, PinDir, Prog};
    ///
    /// # fn load(map: &Map) -> bpf_pin::Result<Prog> { Prog::open("/sys/fs/bpf/filter") }
    /// let dir = PinDir::open("/sys/fs/bpf/app")?;
    /// let spec = MapSpec::new(MapType::HASH, 4, 16, 1024);
    /// let mut grow = Migrate::new(|key: &u32, count: &u64| Some((*key, [*count, 0])));
    /// // The new map, the program that writes to it, and the link: from then on only the new map grows.
    /// let flows = dir.open_or_create("flows", &spec, Reuse::Migrate(&mut grow))?;
    /// let filter = load(&flows.map)?;
    /// dir.open_or_attach("ingress", &LinkSpec::xdp(2), &filter)?;
    /// // What the old program has counted meanwhile.
    /// if let MapOutcome::Migrated(migration) = flows.outcome {
    ///     let new = flows.map.elements::<u32, [u64; 2]>()?;
    ///     migration.commit_with(|key: &u32, copied: Option<&u64>, now: Option<&u64>| {
    ///         let more = now.unwrap_or(&0).saturating_sub(*copied.unwrap_or(&0));
    ///         let [count, other] = new.lookup(key)?.unwrap_or_default();
    ///         new.update(key, &[count + more, other], ElemFlags::ANY)
    ///     })?;
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    #[allow(
        clippy::result_large_err,
        reason = "nothing is lost, the old map included"
    )]
    pub fn commit_with<K: Pod, V: Pod>(
        self,
        mut merge: impl FnMut(&K, Option<&V>, Option<&V>) -> Result<()>,
    ) -> Result<Map, Failed<Self>> {
        if let Err(error) = self.check_sizes([size_of::<K>(), size_of::<V>()]) {
            return Err(Failed::new(self, error));
        }
        let value = |bytes: Option<&[u8]>| bytes.map(pod_read_unaligned::<V>);
        self.commit_with_bytes(|key, copied, now| {
            let (copied, now) = (value(copied), value(now));
            merge(&pod_read_unaligned(key), copied.as_ref(), now.as_ref())
        })
    }

    /// As [`commit_with`](Self::commit_with), with bytes. The value of a per-CPU map is that of all CPUs, each
    /// rounded up to 8 bytes.
    ///
    /// # Errors
    ///
    /// As [`commit_with`](Self::commit_with).
    #[allow(
        clippy::result_large_err,
        reason = "nothing is lost, the old map included"
    )]
    pub fn commit_with_bytes(
        self,
        merge: impl FnMut(&[u8], Option<&[u8]>, Option<&[u8]>) -> Result<()>,
    ) -> Result<Map, Failed<Self>> {
        let merged = match &self.copied {
            Some(copied) => {
                Entries::read(&self.old).and_then(|now| copied.differences(&now, merge))
            }
            None => Err(self.merge_error(Cause::invalid(
                "commit_with",
                "requires what was copied, which ended with the process that copied it",
            ))),
        };
        match merged {
            Ok(()) => self.commit(),
            Err(error) => Err(Failed::new(self, error)),
        }
    }

    fn check_sizes(&self, found: [usize; 2]) -> Result<()> {
        let old = self.old.elements::<[u8], [u8]>()?;
        let expected = [("key", old.key_len()), ("value", old.value_len())];
        for ((what, expected), found) in expected.into_iter().zip(found) {
            if expected != found {
                return Err(self.merge_error(Cause::Size {
                    what,
                    expected,
                    found,
                }));
            }
        }
        Ok(())
    }

    fn merge_error(&self, cause: Cause) -> Error {
        Error::new(Operation::Elements, cause)
            .while_doing(Operation::Migrate, self.dir.at_path(&*self.name).path())
    }

    /// Gives the name back to the old map, in one step, if the new one still has it. If the old one was
    /// [frozen](Migrate::freeze), it stays so: nobody writes to it by bpf(2) any more, and who is to do
    /// so needs another map.
    ///
    /// What was written to the new one is not copied. The name under which the old one was kept is
    /// removed, or left to [`PinDir::remove_leftovers`].
    ///
    /// # Errors
    ///
    /// [`Operation::Replace`](crate::error::Operation::Replace) as [`PinDir::replace_if`], with the migration.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::reuse::{Migrate, MapOutcome, Reuse};
    /// use bpf_pin::{MapSpec, MapType, PinDir, Prog};
    ///
    /// let dir = PinDir::open("/sys/fs/bpf/app")?;
    /// let spec = MapSpec::new(MapType::HASH, 4, 16, 1024);
    /// let mut grow = Migrate::new(|key: &u32, count: &u64| Some((*key, [*count, 0])));
    /// let flows = dir.open_or_create("flows", &spec, Reuse::Migrate(&mut grow))?;
    /// if let MapOutcome::Migrated(migration) = flows.outcome {
    ///     // Whoever is to use the new map is not there: all goes on with the old one.
    ///     match dir.get::<Prog>("filter") {
    ///         Ok(_) => migration.commit()?,
    ///         Err(_) => migration.roll_back()?,
    ///     };
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    #[allow(
        clippy::result_large_err,
        reason = "nothing is lost, the old map included"
    )]
    pub fn roll_back(self) -> Result<Map, Failed<Self>> {
        let back = self
            .dir
            .replace_if_keeping_mode(&self.old, self.name.as_os_str(), self.new_is);
        match back {
            Ok(()) => {
                // The old one has its name: what cannot be removed is left to a sweep.
                let _ = self.forget();
                Ok(self.old)
            }
            Err(error) => Err(Failed::new(self, error)),
        }
    }

    fn forget(&self) -> Result<()> {
        match self.dir.unpin_named(self.old_is, &self.kept) {
            Err(error) if matches!(error.cause(), Some(Cause::Missing { .. })) => Ok(()),
            done => done,
        }
    }
}

impl fmt::Debug for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migration")
            .field("name", &self.name)
            .field("old", &self.old)
            .finish_non_exhaustive()
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
    /// What has the name fits. None where it has lost it meanwhile.
    pub(super) fn found_or_resumed(
        &self,
        name: &Component,
        new_is: Identity,
        access: Access,
    ) -> Result<Option<MapOutcome>> {
        let found = Ok(Some(MapOutcome::Found));
        // Under so long a name nothing is kept.
        let Ok(kept) = backup_name(name, new_is.id) else {
            return found;
        };
        // A map that fits is found, whatever may not be done with the one before it.
        let old = || self.find_named::<Map>(&kept).ok().flatten();
        if old().is_none() {
            return found;
        }
        let Ok(Some(lock)) = self.lock_for(name, Duration::ZERO) else {
            return found;
        };
        // Nobody is at it now, so what is there stays there.
        let Some(old) = old() else { return found };
        let now = self.find_with_info::<Map>(name, access)?;
        if now.map(|(_, info)| identity(&info)) != Some(new_is) {
            return Ok(None);
        }
        let old_is = old.identity()?;
        if old_is == new_is {
            return found;
        }
        Ok(Some(MapOutcome::Resumed(Migration {
            dir: self.try_clone()?.into(),
            name: Box::new(*name),
            kept: kept.into(),
            old,
            old_is,
            new_is,
            copied: None,
            _lock: lock,
        })))
    }

    /// None where the name was another map's, or a fitting one's, or nobody's, when its turn came.
    pub(super) fn migrate<E: From<Error>>(
        &self,
        name: &Component,
        spec: &MapSpec<'_>,
        migrate: &mut Migrate<'_>,
        make: &mut dyn FnMut() -> Result<Map, E>,
        is_filled: bool,
    ) -> Result<Option<OpenedMap>, E> {
        /// After a wait of this long for the lock it checks whether the migration is still needed.
        const GLANCE: Duration = Duration::from_millis(100);

        let fail = |error: Error| error.while_doing(Operation::Migrate, self.at_path(name).path());
        // None is farther away than time goes.
        let end = Instant::now().checked_add(migrate.patience);
        let (lock, old, info) = loop {
            let lock = self.lock_for(name, GLANCE.min(migrate.patience))?;
            // Whatever the new one is for, this one is read, and may be frozen.
            let found = self.find_with_info::<Map>(name, Access::ReadWrite)?;
            let Some((map, info)) = found else {
                return Ok(None);
            };
            if spec.compare_info(&info).is_empty() {
                return Ok(None);
            }
            match lock {
                Some(lock) => break (lock, map, info),
                None if end.is_some_and(|end| Instant::now() >= end) => {
                    return Err(self.lock_error(name, Cause::Migrating.into()).into());
                }
                None => {}
            }
        };
        let (old_is, is_to_freeze) = (identity(&info), migrate.freeze);
        let dir = self.try_clone()?;
        let new = make()?;
        let new_is = new.identity()?;
        let kept = backup_name(name, new_is.id)
            .map_err(|cause| Error::new(Operation::Reuse, cause).at(self.at_path(name).path()))?;
        let mut copy = Copy::new(&old, &new, migrate).map_err(fail)?;
        if is_filled {
            copy.remember_filled().map_err(fail)?;
        }
        copy.first().map_err(fail)?;
        // Whoever might open the old one may go on with it from there.
        match self.pin_named_as(old.as_fd(), &kept, name) {
            Err(error) if is_overtaken(&error) => return Ok(None),
            done => done.map_err(fail)?,
        }
        let mut backup = BackupPin {
            dir: self,
            kept: &kept,
            lock: &lock,
            is_armed: true,
        };
        let finish = || -> Result<Entries> {
            if is_to_freeze {
                // By itself: whoever may not do this finds out now, and not when there is no way back.
                self.replace_if_keeping_mode(&old, name.as_os_str(), old_is)?;
                freeze(&old)?;
            }
            let copied = copy.second()?;
            self.replace_if_keeping_mode(&new, name.as_os_str(), old_is)?;
            Ok(copied)
        };
        let copied = match finish() {
            Ok(copied) => copied,
            Err(error) if is_overtaken(&error) => return Ok(None),
            Err(error) => return Err(fail(error).into()),
        };
        backup.is_armed = false;
        drop(backup);
        self.forget_before(name, old_is);
        let migration = Migration {
            dir: dir.into(),
            name: Box::new(*name),
            kept: kept.into(),
            old,
            old_is,
            new_is,
            copied: Some(copied.into()),
            _lock: lock,
        };
        Ok(Some(OpenedMap::new(new, MapOutcome::Migrated(migration))))
    }

    /// What was kept for the map that is itself kept now. What cannot be removed is left to a sweep.
    fn forget_before(&self, name: &Component, old_is: Identity) {
        if let Ok(before) = backup_name(name, old_is.id) {
            let _ = self.at_path(&before).unlink();
        }
    }

    fn lock_for(&self, name: &Component, patience: Duration) -> Result<Option<ByteLock>> {
        self.lock_migration(name, patience)
            .map_err(|reason| self.lock_error(name, reason))
    }

    fn lock_error(&self, name: &Component, reason: Reason) -> Error {
        let path = self.at_path(name).path();
        let operation = Operation::Lock;
        Error::new(operation, reason).at(path)
    }
}

/// The old map's other name, taken away again unless all goes well. Nobody else makes it up: it has the
/// new map's id.
struct BackupPin<'a> {
    dir: &'a PinDir,
    kept: &'a Component,
    lock: &'a ByteLock,
    is_armed: bool,
}

impl Drop for BackupPin<'_> {
    fn drop(&mut self) {
        // A process that a conversion has forked has a copy of this, and its end is not that of this.
        if self.is_armed && !self.lock.is_inherited() {
            // It takes no descriptor. What cannot be removed is left to a sweep.
            let _ = self.dir.at_path(self.kept).unlink();
        }
    }
}

/// A write that is on its way keeps a map from being frozen for as long as it takes.
fn freeze(map: &Map) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);

    let end = Instant::now() + PATIENCE;
    loop {
        match map.freeze() {
            Ok(()) => return Ok(()),
            // By one that was killed, say.
            Err(error) if matches!(error.cause(), Some(Cause::Frozen)) => return Ok(()),
            Err(error) if is_busy(&error) && Instant::now() < end => {
                sleep(Duration::from_micros(50));
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_busy(error: &Error) -> bool {
    error.raw_os_error() == Some(Errno::BUSY.raw_os_error())
}

impl crate::error::Owned for Migration {}
