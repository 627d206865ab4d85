//! Opens what is pinned if it fits, and creates it otherwise: maps, and attached links.

mod attach;
mod attached;
mod copy;
mod counters;
mod migrate;
mod migration;
mod path;
mod retry;

pub use attached::{Attached, Attachment, LinkMismatch, Verified};
pub use counters::{Counter, Counters};
pub use migrate::Migrate;
pub use migration::Migration;

use std::ffi::OsStr;
use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::dir::PinDir;
use crate::error::{Cause, Error, Operation, Result};
use crate::map::{Map, MapFields, MapInfo, MapSpec};
use crate::object::pin_at;
use crate::path::Component;
use crate::types::{Identity, Kind};

use retry::{Attempt, retry};

/// The policy of [`PinDir::open_or_create`] for a pinned map that does not fit, and for a missing one.
///
/// Only ENOENT counts as missing. Any other failure to open the name is an error.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::reuse::{MapOutcome, Reuse};
/// use bpf_pin::{MapSpec, MapType, PinDir};
///
/// let dir = PinDir::create("/sys/fs/bpf/app", 0o700)?;
/// let spec = MapSpec::new(MapType::HASH, 4, 8, 4096);
/// // The entries are only a cache, so a map of another size may be thrown away.
/// let cache = dir.open_or_create("cache", &spec, Reuse::Recreate)?;
/// if let MapOutcome::Recreated { old } = cache.outcome {
///     println!("replaced map {}", old.id()?);
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Reuse<'m, 'f> {
    /// Fails if the map does not fit, and leaves it unchanged. Creates a missing map.
    Exact,
    /// Atomically replaces a map that does not fit by a new one. A map that fits is left unchanged;
    /// [`PinDir::replace`] replaces any map. Creates a missing map.
    Recreate,
    /// Atomically replaces a map that does not fit by a new one with its entries. The old map stays
    /// pinned under another name until the [`Migration`] in [`OpenedMap::outcome`] is
    /// [committed](Migration::commit). Creates a missing map.
    Migrate(&'m mut Migrate<'f>),
    /// As [`Exact`](Self::Exact), but a missing map is an error.
    OpenOnly,
    /// Creates a missing map. An existing map is an error even if it fits.
    CreateOnly,
}

/// A map that fits, and the action that [`PinDir::open_or_create`] took to get it.
///
/// A caller that takes only the map out of this never commits a migration: the old map stays pinned, and a
/// later call returns it in [`MapOutcome::Resumed`].
#[derive(Debug)]
#[must_use]
pub struct OpenedMap<M = Map> {
    /// The map that is pinned under the name.
    pub map: M,
    /// The action that the call took.
    pub outcome: MapOutcome,
    /// The fields of the spec that could not be compared with the map that was found. They may differ.
    ///
    /// This can only be the [inner map](MapFields::INNER_MAP) of a map of maps: see
    /// [`MapSpec::compare`](crate::MapSpec::compare).
    pub unverified: MapFields,
}

/// The action that [`PinDir::open_or_create`] took.
#[derive(Debug)]
#[non_exhaustive]
pub enum MapOutcome {
    /// Opened the map that was pinned.
    Found,
    /// Created the map, because none was pinned.
    Created,
    /// Replaced a map that did not fit.
    Recreated {
        /// The replaced map, open with the same access as the new one. It is freed with its last descriptor
        /// and pin.
        old: Map,
    },
    /// Replaced a map that did not fit and copied its entries. The old map stays pinned until this is
    /// [committed](Migration::commit) or [rolled back](Migration::roll_back). A map that was
    /// [frozen](Migrate::freeze) stays frozen.
    Migrated(Migration),
    /// Opened the map that was pinned. An earlier process made it by a migration, and ended without a
    /// [commit](Migration::commit).
    Resumed(Migration),
}

/// Fills a map that was created.
type Fill<'f, E> = &'f mut dyn FnMut(&Map) -> Result<(), E>;

impl PinDir {
    /// Opens the map pinned as `name` if it fits `spec`, and otherwise does what `reuse` says:
    /// `BPF_OBJ_GET`, or `BPF_MAP_CREATE` and `BPF_OBJ_PIN`.
    ///
    /// Requires Linux 4.13, the first kernel that reports the properties of a map.
    ///
    /// [`MapSpec::compare`] says which map fits. A created map gets a number of entries that `compare`
    /// accepts: whole pages and a power of two for a ring buffer; at most the number of CPUs, which also
    /// replaces 0, for a CPU map or perf event array.
    ///
    /// The map is open for reading and writing, or only for one of them with the flag
    /// [`RDONLY`](crate::types::MapFlags::RDONLY) or [`WRONLY`](crate::types::MapFlags::WRONLY) of `spec`,
    /// whether it was pinned before or not. With `RDONLY` the caller needs no permission to write to an
    /// existing pin.
    ///
    /// A pin that replaces another one gets its mode and owner.
    ///
    /// # Races
    ///
    /// Any number of processes can call this at the same time. All get the same map, and exactly one has
    /// created, recreated or migrated it. The others may have created maps that were never visible. A
    /// process that is killed leaves either the old map or the new one under the name.
    ///
    /// A map is pinned under the lock that [`replace_if`](Self::replace_if) takes, so that a concurrent
    /// `replace_if` does not mistake the new map for the one it replaces. In a directory that this user may
    /// write to but not read there is no lock, and this race remains. If a process is killed with the lock or
    /// during a migration, it is free when the process's forked children have ended, too.
    ///
    /// # System calls
    ///
    /// A map that fits takes as many calls as [`get`](Self::get), and one more with [`Migrate`](Reuse::Migrate). A
    /// map of maps takes more, for its inner map: see [`MapSpec::compare`]. A created map takes those of a `get` of a
    /// missing name, of [`MapSpec::create`] and of [`pin`](Self::pin), and six for the lock.
    ///
    /// # Errors
    ///
    /// | Operation | Cause |
    /// |---|---|
    /// | [`Operation::Reuse`] | [`Mismatch`](Cause::Mismatch) with every difference; nothing was changed |
    /// | [`Operation::Open`] | as [`get`](Self::get), such as [`WrongKind`](Cause::WrongKind) |
    /// | [`Operation::CreateMap`] | as [`MapSpec::create`] |
    /// | [`Operation::Pin`] | as [`pin`](Self::pin); [`Exists`](Cause::Exists) with [`CreateOnly`](Reuse::CreateOnly) |
    /// | [`Operation::Pin`] | [`Locked`](Cause::Locked) if another process holds the lock for five seconds |
    /// | [`Operation::Replace`] | as [`replace_if`](Self::replace_if) |
    /// | [`Operation::Replace`] | EPERM if the old pin has another owner and this user may not change the owner of a file |
    /// | [`Operation::Replace`] | [`UnmappedOwner`](Cause::UnmappedOwner) if that owner is not mapped in this thread's user namespace |
    /// | [`Operation::Migrate`] | as [`Migrate`] |
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::reuse::Reuse;
    /// use bpf_pin::{MapSpec, MapType, PinDir};
    ///
    /// let dir = PinDir::create("/sys/fs/bpf/app", 0o700)?;
    /// let spec = MapSpec::new(MapType::HASH, 4, 8, 1024).name("flows");
    /// let flows = dir.open_or_create("flows", &spec, Reuse::Exact)?.map;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn open_or_create(
        &self,
        name: impl AsRef<OsStr>,
        spec: &MapSpec<'_>,
        reuse: Reuse<'_, '_>,
    ) -> Result<OpenedMap> {
        self.open_or_fill(name.as_ref(), spec, reuse, None)
    }

    /// As [`open_or_create`](Self::open_or_create), and fills a created map before it is visible under its
    /// name.
    ///
    /// A map that exists and fits keeps its content, also with [`Recreate`](Reuse::Recreate). In a map that
    /// `spec` asks for with [`RDONLY`](crate::types::MapFlags::RDONLY), `fill` cannot write either.
    ///
    /// `fill` may run in several processes at the same time, and its map may never become visible. So it should
    /// change nothing but this map.
    ///
    /// # Migration
    ///
    /// With [`Migrate`](Reuse::Migrate) the new map is filled before the entries are copied, and `fill` must
    /// not freeze it. A copied entry replaces the one that `fill` put under the same key. If that entry is
    /// deleted from the old map before the copy is done, the one of `fill` returns, except in a map that was
    /// asked for with [`WRONLY`](crate::types::MapFlags::WRONLY).
    ///
    /// # Errors
    ///
    /// As [`open_or_create`](Self::open_or_create), and the errors of `fill`. If `fill` fails, the new map
    /// is dropped and the name is unchanged.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::map::ElemFlags;
    /// use bpf_pin::reuse::Reuse;
    /// use bpf_pin::{Error, MapSpec, MapType, PinDir};
    ///
    /// let dir = PinDir::open("/sys/fs/bpf/app")?;
    /// let spec = MapSpec::new(MapType::ARRAY, 4, 8, 1);
    /// let settings = dir.open_or_create_with("settings", &spec, Reuse::Exact, |map| {
    ///     map.elements::<u32, u64>()?.update(&0, &4096, ElemFlags::ANY)
    /// })?;
    ///
    /// // A closure that ends with `Ok(())` has to name its error type.
    /// let spec = MapSpec::new(MapType::ARRAY, 4, 8, 2);
    /// let limits = dir.open_or_create_with("limits", &spec, Reuse::Exact, |map| -> bpf_pin::Result<()> {
    ///     let limits = map.elements::<u32, u64>()?;
    ///     limits.update(&0, &100, ElemFlags::ANY)?;
    ///     limits.update(&1, &10_000, ElemFlags::ANY)?;
    ///     Ok(())
    /// })?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn open_or_create_with<E: From<Error>>(
        &self,
        name: impl AsRef<OsStr>,
        spec: &MapSpec<'_>,
        reuse: Reuse<'_, '_>,
        mut fill: impl FnMut(&Map) -> Result<(), E>,
    ) -> Result<OpenedMap, E> {
        self.open_or_fill(name.as_ref(), spec, reuse, Some(&mut fill))
    }

    fn open_or_fill<E: From<Error>>(
        &self,
        name: &OsStr,
        spec: &MapSpec<'_>,
        mut reuse: Reuse<'_, '_>,
        mut fill: Option<Fill<'_, E>>,
    ) -> Result<OpenedMap, E> {
        let fail = |cause| Error::new(Operation::Reuse, cause).at(self.path().join(name));
        let name = &Component::new(name).map_err(|error| fail(error.into()))?;
        let access = spec.access()?;
        let is_filled = fill.is_some();
        let mut create = || -> Result<Map, E> {
            let map = spec.create_rounded()?;
            if let Some(fill) = &mut fill {
                fill(&map)?;
            }
            Ok(map)
        };
        retry(|| {
            let found = match reuse {
                Reuse::CreateOnly => None,
                _ => self.find_with_info::<Map>(name, access)?,
            };
            let Some((map, info)) = found else {
                if let Reuse::OpenOnly = reuse {
                    return Err(self.missing_error(name).into());
                }
                let map = create()?;
                return match self.pin_new(&map, name) {
                    Ok(()) => Ok(OpenedMap::done(map, MapOutcome::Created)),
                    Err(error) if lost_race(&error) && !matches!(reuse, Reuse::CreateOnly) => {
                        // BPF_OBJ_GET follows a symbolic link, BPF_OBJ_PIN does not.
                        self.refuse_link(name)?;
                        Ok(Attempt::Retry(error.into()))
                    }
                    Err(error) => Err(error.into()),
                };
            };
            let (mismatches, unverified) = spec.compare_whole(&map, &info);
            if mismatches.is_empty() {
                let opened = match reuse {
                    Reuse::Migrate(_) => self.resume::<E>(name, map, &info, access)?,
                    _ => OpenedMap::done(map, MapOutcome::Found),
                };
                return Ok(opened.with_unverified(unverified));
            }
            let id = info.id;
            let mismatch = fail(Cause::Mismatch { id, mismatches });
            match &mut reuse {
                Reuse::Migrate(migrate) => {
                    let migrated = self.migrate(name, spec, migrate, &mut create, is_filled)?;
                    Ok(migrated.map_or(Attempt::Retry(mismatch.into()), Attempt::Done))
                }
                Reuse::Recreate => {
                    let new = create()?;
                    match self.replace_if_keeping_mode(&new, name.as_os_str(), identity(&info)) {
                        Ok(()) => Ok(OpenedMap::done(new, MapOutcome::Recreated { old: map })),
                        Err(error) if lost_race(&error) => Ok(Attempt::Retry(error.into())),
                        Err(error) => Err(error.into()),
                    }
                }
                Reuse::Exact | Reuse::OpenOnly | Reuse::CreateOnly => Err(mismatch.into()),
            }
        })
    }

    /// Pins under the lock that `replace_if` takes, so that a concurrent one does not mistake this map for
    /// the one it replaces.
    fn pin_new(&self, map: &Map, name: &Component) -> Result<()> {
        let at = self.at_path(name);
        let fail = |reason| Error::new(Operation::Pin, reason).at(at.path());
        let _lock = match self.lock_swap() {
            Ok(lock) => Some(lock),
            Err(reason) if matches!(reason.cause(), Some(Cause::Locked)) => {
                return Err(fail(reason));
            }
            // A directory that may not be read cannot be locked, but can be pinned in.
            Err(_) => None,
        };
        pin_at(&at, map.as_fd()).map_err(fail)
    }
}

impl OpenedMap {
    fn done<E>(map: Map, outcome: MapOutcome) -> Attempt<Self, E> {
        Attempt::Done(Self::new(map, outcome))
    }

    fn new(map: Map, outcome: MapOutcome) -> Self {
        Self {
            map,
            outcome,
            unverified: MapFields::empty(),
        }
    }
}

impl<E> Attempt<OpenedMap, E> {
    fn with_unverified(mut self, unverified: MapFields) -> Self {
        if let Self::Done(opened) = &mut self {
            opened.unverified = unverified;
        }
        self
    }
}

fn identity(info: &MapInfo) -> Identity {
    let (kind, id) = (Kind::Map, info.id);
    Identity { kind, id }
}

/// Returns whether another process changed the name first.
fn lost_race(error: &Error) -> bool {
    if error.during().is_some() || !error.operation().is_of_name() {
        return false;
    }
    match error.cause() {
        Some(Cause::Replaced { .. } | Cause::Missing { .. }) => true,
        // The directory is gone.
        Some(Cause::Removed { .. }) => false,
        _ => error.is(Errno::EXIST) || error.is(Errno::NOENT),
    }
}
