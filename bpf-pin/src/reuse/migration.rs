//! A migration until it is committed or rolled back.

use std::ffi::OsStr;
use std::fmt;

use bytemuck::{Pod, bytes_of, pod_read_unaligned};

use crate::dir::{ByteLock, PinDir};
use crate::error::{Cause, Error, Failed, Operation, Result, Subject};
use crate::map::Map;
use crate::path::Component;
use crate::types::{Identity, Kind};

use super::copy::{Entries, check_sizes};
use super::counters::{self, Adder, Counters};

/// A migration that is not committed yet. The old map is pinned under a backup name.
///
/// Holds the lock on the migrations of the name. If it is dropped, the backup stays, and the next
/// [`open_or_create`](PinDir::open_or_create) with `Migrate` returns
/// [`Resumed`](super::MapOutcome::Resumed).
///
/// # Examples
///
/// See [`Migrate`](super::Migrate).
#[must_use = "the old map stays pinned until the migration is committed"]
pub struct Migration(Box<State>);

// Boxed, because every result of open_or_create has room for a Migration.
pub(super) struct State {
    pub(super) dir: PinDir,
    pub(super) name: Component,
    pub(super) backup: Component,
    pub(super) old: Map,
    pub(super) old_id: Identity,
    pub(super) new_id: Identity,
    /// The entries that were copied. None if another process copied them.
    pub(super) copied: Option<Entries>,
    pub(super) _lock: ByteLock,
}

impl Migration {
    pub(super) fn new(state: State) -> Self {
        Self(Box::new(state))
    }

    /// Returns the map that had the name before.
    pub fn old(&self) -> &Map {
        &self.0.old
    }

    /// Returns the name under which the old map is pinned.
    pub fn kept_as(&self) -> &OsStr {
        self.0.backup.as_os_str()
    }

    /// Unpins the old map and returns it. It is freed with its last descriptor.
    ///
    /// # Errors
    ///
    /// [`Operation::Unpin`](crate::error::Operation::Unpin) as [`PinDir::unpin`], with the migration. A
    /// missing backup is not an error.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use bpf_pin::reuse::Migration;
    /// # fn done(migration: Migration) -> bpf_pin::Result<()> {
    /// let old = migration.commit()?;
    /// println!("map {} is no longer pinned", old.id()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn commit(self) -> Result<Map, Failed<Self>> {
        match self.0.unpin_backup() {
            Ok(()) => Ok(self.0.old),
            Err(error) => Err(Failed::new(self, error)),
        }
    }

    /// Reads the old map once more, adds what was counted in it after the copy to the counters of the new
    /// map, and [commits](Self::commit). Call it once all writers use the new map.
    ///
    /// No count is lost while programs count in the new map: each amount is added with one atomic
    /// instruction, as `__sync_fetch_and_add` does. The kernel has no command for this, so a program adds, a
    /// socket filter that this call loads and runs with `BPF_PROG_TEST_RUN`. It is loaded only if something was
    /// counted.
    ///
    /// `convert` is the function of [`Migrate::new`](super::Migrate::new). Here it gets the key and the growth
    /// of each counter since it was copied, and returns the new key and the amounts to add. `None` adds nothing.
    /// An entry that the new map lacks is created with the amounts. An entry that is gone from the old map
    /// changes nothing.
    ///
    /// Before it reads the old map, the call waits until no CPU runs the old program any more: for one RCU
    /// grace period.
    ///
    /// # What it cannot know
    ///
    /// - The program must add atomically too, and insert missing entries with `BPF_NOEXIST`. Otherwise it
    ///   loses counts by itself, with two CPUs and with this call.
    /// - A counter that was reset or deleted and created again grows by the difference, modulo its width.
    /// - A program that may sleep can run longer than the grace period, and count after the old map was read.
    /// - A link of a type without updates is replaced by a second link. For a moment both programs count, so
    ///   an event may be counted twice.
    /// - The values of a per-CPU map cannot be added to, because programs change them without atomic
    ///   instructions. Let each release count under a key of its own, and use
    ///   [`commit_with_bytes`](Self::commit_with_bytes).
    ///
    /// # Errors
    ///
    /// All with the migration, which is not committed. It remembers which entries were added, so the call can
    /// be repeated:
    ///
    /// - [`InvalidArgument`](Cause::InvalidArgument): `new` is not the new map, or the migration was
    ///   [resumed](super::MapOutcome::Resumed), so the copied values are unknown.
    /// - [`Size`](Cause::Size): a type has another size than the key or value.
    /// - [`PerCpu`](Cause::PerCpu), [`UnsupportedType`](Cause::UnsupportedType): a map is not a hash, LRU hash
    ///   or array.
    /// - [`MaxEntries`](Cause::MaxEntries), [`IndexOutOfRange`](Cause::IndexOutOfRange) (E2BIG): the new map
    ///   has no room for an entry that it lacks.
    /// - The errors of [`MapSpec::create`](crate::MapSpec::create), [`ProgSpec::load`](crate::ProgSpec::load)
    ///   and [`Prog::test_run`](crate::Prog::test_run), such as
    ///   [`MissingCapability`](Cause::MissingCapability) (EPERM) without CAP_BPF. EINVAL for values with a
    ///   spin lock, and EACCES for values with a kernel pointer.
    /// - The errors of [`commit`](Self::commit).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::reuse::{Migrate, MapOutcome, Reuse};
    /// use bpf_pin::{LinkSpec, Map, MapSpec, MapType, PinDir, Prog};
    ///
    /// # fn load(map: &Map) -> bpf_pin::Result<Prog> { Prog::open("/sys/fs/bpf/filter") }
    /// // The count becomes the first of two counters.
    /// fn grow(key: &u32, count: &u64) -> Option<(u32, [u64; 2])> {
    ///     Some((*key, [*count, 0]))
    /// }
    ///
    /// let dir = PinDir::open("/sys/fs/bpf/app")?;
    /// let spec = MapSpec::new(MapType::HASH, 4, 16, 1024);
    /// // The new map with the entries, the program that counts in it, and its link.
    /// let flows = dir.open_or_create("flows", &spec, Reuse::Migrate(&mut Migrate::new(grow)))?;
    /// let filter = load(&flows.map)?;
    /// dir.open_or_attach("ingress", &LinkSpec::xdp(2), &filter)?;
    /// // What the old program has counted in the meantime.
    /// if let MapOutcome::Migrated(migration) = flows.outcome {
    ///     migration.commit_adding(&flows.map, grow)?;
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn commit_adding<K, V, NewK, NewV>(
        mut self,
        new: &Map,
        convert: impl FnMut(&K, &V) -> Option<(NewK, NewV)>,
    ) -> Result<Map, Failed<Self>>
    where
        K: Pod,
        V: Counters,
        NewK: Pod,
        NewV: Counters,
    {
        match self.0.add_growth(new, convert) {
            Ok(()) => self.commit(),
            Err(error) => Err(Failed::new(self, error)),
        }
    }

    /// Reads the old map once more, merges what has changed, and [commits](Self::commit). Call it once
    /// all writers use the new map. For counters use [`commit_adding`](Self::commit_adding).
    ///
    /// `merge` gets the key of each entry that has changed since it was copied, the value that was copied
    /// and the value now. `None` is a missing entry. The caller decides what the change means for the new
    /// map. Before it reads the old map, the call waits for one RCU grace period, until no CPU runs the old
    /// program any more.
    ///
    /// The types have the sizes of the old map. For per-CPU maps use
    /// [`commit_with_bytes`](Self::commit_with_bytes).
    ///
    /// # Races
    ///
    /// A merge that looks up a value and then updates it loses what programs write to that value in between.
    /// A program that may sleep can run longer than the grace period, and write after the old map was read.
    ///
    /// # Errors
    ///
    /// All with the migration, which is not committed. If the call is repeated, it continues with the entry
    /// for which `merge` failed:
    ///
    /// - [`InvalidArgument`](Cause::InvalidArgument): the migration was
    ///   [resumed](super::MapOutcome::Resumed), so the copied values are unknown.
    /// - [`Size`](Cause::Size): a type has another size than the key or value.
    /// - The error of `merge`.
    /// - The errors of [`commit`](Self::commit).
    ///
    /// # Examples
    ///
    /// Values are times here, and the later one wins:
    ///
    /// ```no_run
    /// # use bpf_pin::map::ElemFlags;
    /// # use bpf_pin::reuse::Migration;
    /// # use bpf_pin::Map;
    /// # fn merge(migration: Migration, new: &Map) -> bpf_pin::Result<()> {
    /// let seen = new.elements::<u32, [u64; 2]>()?;
    /// migration.commit_with(|key: &u32, _copied: Option<&u64>, now: Option<&u64>| {
    ///     match (now, seen.lookup(key)?) {
    ///         // A program may write a later time right here, and this update replaces it.
    ///         (Some(now), Some([time, other])) if *now > time => {
    ///             seen.update(key, &[*now, other], ElemFlags::EXIST)
    ///         }
    ///         _ => Ok(()),
    ///     }
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn commit_with<K: Pod, V: Pod>(
        self,
        mut merge: impl FnMut(&K, Option<&V>, Option<&V>) -> Result<()>,
    ) -> Result<Map, Failed<Self>> {
        if let Err(error) = self.0.check_sizes([size_of::<K>(), size_of::<V>()]) {
            return Err(Failed::new(self, error));
        }
        let value = |bytes: Option<&[u8]>| bytes.map(pod_read_unaligned::<V>);
        self.commit_with_bytes(|key, copied, now| {
            let (copied, now) = (value(copied), value(now));
            merge(&pod_read_unaligned(key), copied.as_ref(), now.as_ref())
        })
    }

    /// As [`commit_with`](Self::commit_with), with bytes. The value of a per-CPU map holds the values of all
    /// CPUs, each rounded up to 8 bytes.
    ///
    /// # Errors
    ///
    /// As [`commit_with`](Self::commit_with).
    pub fn commit_with_bytes(
        mut self,
        merge: impl FnMut(&[u8], Option<&[u8]>, Option<&[u8]>) -> Result<()>,
    ) -> Result<Map, Failed<Self>> {
        match self.0.merge(merge) {
            Ok(()) => self.commit(),
            Err(error) => Err(Failed::new(self, error)),
        }
    }

    /// Atomically gives the name back to the old map, if the new map still has it.
    ///
    /// Entries that were written to the new map are not copied back. An old map that was
    /// [frozen](super::Migrate::freeze) stays frozen: processes can no longer write to it by bpf(2). A
    /// backup pin that cannot be removed is left to [`PinDir::remove_leftovers`].
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
    ///     // Without the program that uses the new map, go back to the old one.
    ///     match dir.get::<Prog>("filter") {
    ///         Ok(_) => migration.commit()?,
    ///         Err(_) => migration.roll_back()?,
    ///     };
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn roll_back(self) -> Result<Map, Failed<Self>> {
        let state = &self.0;
        let name = state.name.as_os_str();
        match state
            .dir
            .replace_if_keeping_mode(&state.old, name, state.new_id)
        {
            Ok(()) => {
                let _ = state.unpin_backup();
                Ok(self.0.old)
            }
            Err(error) => Err(Failed::new(self, error)),
        }
    }
}

impl State {
    fn unpin_backup(&self) -> Result<()> {
        match self.dir.unpin_named(self.old_id, &self.backup) {
            Err(error) if matches!(error.cause(), Some(Cause::Missing { .. })) => Ok(()),
            unpinned => unpinned,
        }
    }

    /// Calls `merge` for each entry that has changed. If it fails, the next call continues with that entry.
    fn merge(
        &mut self,
        mut merge: impl FnMut(&[u8], Option<&[u8]>, Option<&[u8]>) -> Result<()>,
    ) -> Result<()> {
        let Some(copied) = &self.copied else {
            return Err(self.merge_error(Cause::invalid(
                "commit_with",
                "requires what was copied, which ended with the process that copied it",
            )));
        };
        counters::wait_for_programs().map_err(|error| self.while_migrating(error))?;
        let now = Entries::read(&self.old.elements()?)?;
        let mut last = None;
        let done = copied.differences(&now, |key, copied, now| {
            merge(key, copied, now).inspect(|()| last = Some(key.to_vec()))
        });
        // The next call, if this one or the commit fails, merges only what was not merged.
        match (&done, last) {
            (Ok(()), _) => self.copied = Some(now),
            (Err(_), Some(last)) => self.copied = Some(copied.merged_up_to(&last, &now)),
            (Err(_), None) => {}
        }
        done
    }

    fn add_growth<K: Pod, V: Counters, NewK: Pod, NewV: Counters>(
        &mut self,
        new: &Map,
        mut convert: impl FnMut(&K, &V) -> Option<(NewK, NewV)>,
    ) -> Result<()> {
        let info = new.info()?;
        if info.id != self.new_id.id {
            let problem = format!("is map {}, not map {}", info.id, self.new_id.id);
            return Err(self.merge_error(Cause::invalid("new", problem)));
        }
        for map_type in [self.old.info()?.map_type, info.map_type] {
            counters::check_type(map_type).map_err(|cause| self.merge_error(cause))?;
        }
        self.check_sizes([size_of::<K>(), size_of::<V>()])?;
        let sizes = [
            ("new key", info.key_size as usize),
            ("new value", info.value_size as usize),
        ];
        check_sizes(sizes, [size_of::<NewK>(), size_of::<NewV>()])
            .map_err(|cause| self.merge_error(cause))?;
        let mut adder = Adder::new(new).map_err(|error| self.while_migrating(error))?;
        self.merge(|key, copied, now| {
            let Some(now) = now else {
                return Ok(());
            };
            let grown = counters::growth(copied, now);
            match convert(&pod_read_unaligned(key), &grown) {
                Some((key, amounts)) => adder.add(bytes_of(&key), &amounts),
                None => Ok(()),
            }
        })
        .map_err(|error| self.while_migrating(error))
    }

    fn check_sizes(&self, found: [usize; 2]) -> Result<()> {
        let old = self.old.elements::<[u8], [u8]>()?;
        let expected = [("key", old.key_len()), ("value", old.value_len())];
        check_sizes(expected, found).map_err(|cause| self.merge_error(cause))
    }

    fn merge_error(&self, cause: Cause) -> Error {
        let error = Error::new(Operation::Elements, cause);
        self.while_migrating(error.of(Subject::Kind(Kind::Map)))
    }

    fn while_migrating(&self, error: Error) -> Error {
        match error.during() {
            Some(Operation::Migrate) => error,
            _ => error.while_doing(Operation::Migrate, self.dir.at_path(&self.name).path()),
        }
    }
}

impl fmt::Debug for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Migration")
            .field("name", &self.0.name)
            .field("old", &self.0.old)
            .finish_non_exhaustive()
    }
}

impl crate::error::Owned for Migration {}
