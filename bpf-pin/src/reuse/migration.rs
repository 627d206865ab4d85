//! A migration until it is committed or rolled back.

use std::ffi::OsStr;
use std::fmt;

use bytemuck::{Pod, pod_read_unaligned};

use crate::dir::{ByteLock, PinDir};
use crate::error::{Cause, Error, Failed, Operation, Result};
use crate::map::Map;
use crate::path::Component;
use crate::types::Identity;

use super::copy::{Entries, check_sizes};

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

    /// Reads the old map once more, merges what has changed, and [commits](Self::commit). Call it once
    /// all writers use the new map.
    ///
    /// `merge` gets the key of each entry that has changed since it was copied, the value that was copied
    /// and the value now. `None` is a missing entry. The caller decides what the change means for the new
    /// map: for a counter, it adds the difference.
    ///
    /// The types have the sizes of the old map. For per-CPU maps use
    /// [`commit_with_bytes`](Self::commit_with_bytes).
    ///
    /// # Races
    ///
    /// A merge that looks up a value and then updates it, as in the example, loses what the new program
    /// adds to that value in between. Counts stay exact if each release counts under a key or in a word of
    /// its own. A program that was replaced may still run on another CPU for a moment, so a count of it can
    /// come after the old map was read.
    ///
    /// # Errors
    ///
    /// All with the migration, which is not committed:
    ///
    /// - [`InvalidArgument`](Cause::InvalidArgument): the migration was
    ///   [resumed](super::MapOutcome::Resumed), so the copied values are unknown.
    /// - [`Size`](Cause::Size): a type has another size than the key or value.
    /// - The error of `merge`. It may have run for some of the entries.
    /// - The errors of [`commit`](Self::commit).
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
    /// // The new map, the program that writes to it, and its link: from here on only the new map changes.
    /// let flows = dir.open_or_create("flows", &spec, Reuse::Migrate(&mut grow))?;
    /// let filter = load(&flows.map)?;
    /// dir.open_or_attach("ingress", &LinkSpec::xdp(2), &filter)?;
    /// // Add what the old program has counted in the meantime.
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
        self,
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

    fn merge(
        &self,
        merge: impl FnMut(&[u8], Option<&[u8]>, Option<&[u8]>) -> Result<()>,
    ) -> Result<()> {
        let Some(copied) = &self.copied else {
            return Err(self.merge_error(Cause::invalid(
                "commit_with",
                "requires what was copied, which ended with the process that copied it",
            )));
        };
        let now = Entries::read(&self.old.elements()?)?;
        copied.differences(&now, merge)
    }

    fn check_sizes(&self, found: [usize; 2]) -> Result<()> {
        let old = self.old.elements::<[u8], [u8]>()?;
        let expected = [("key", old.key_len()), ("value", old.value_len())];
        check_sizes(expected, found).map_err(|cause| self.merge_error(cause))
    }

    fn merge_error(&self, cause: Cause) -> Error {
        Error::new(Operation::Elements, cause)
            .while_doing(Operation::Migrate, self.dir.at_path(&self.name).path())
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
