//! A map that is pinned already, if it fits, or a new one in its place.

mod attach;
mod copy;
mod migrate;
mod path;

pub use attach::{Attached, Attachment};
pub use migrate::{Migrate, Migration};

use std::ffi::OsStr;
use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::dir::PinDir;
use crate::error::{Cause, Error, Operation, Result};
use crate::map::{Map, MapInfo, MapSpec};
use crate::object::pin_at;
use crate::path::Component;
use crate::types::{Identity, Kind};

/// What [`PinDir::open_or_create`] does where a map is pinned that does not fit, or none is.
///
/// That none is there takes ENOENT: whatever else stands in the way is an error.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reuse<'m, 'f> {
    /// A map that does not fit is an error, and left as it is.
    Exact,
    /// A map that does not fit is replaced by a new one, in one step; one that fits is left as it is. To
    /// replace whatever is there: [`PinDir::replace`].
    Recreate,
    /// A map that does not fit is replaced by a new one with its entries, in one step, and kept: it stays
    /// pinned, under another name, until somebody [commits](Migration::commit) what is in
    /// [`OpenedMap::outcome`].
    Migrate(&'m mut Migrate<'f>),
    /// As [`Exact`](Self::Exact), and none is created.
    OpenOnly,
    /// A map that is there is an error, whether it fits or not.
    CreateOnly,
}

/// A map that fits, and how it came to be there.
///
/// Who takes the map alone never commits a migration: the old map stays pinned until somebody does, who
/// gets it as [`MapOutcome::Resumed`].
#[derive(Debug)]
#[must_use]
pub struct OpenedMap<M = Map> {
    /// What the name is of.
    pub map: M,
    /// What was done.
    pub outcome: MapOutcome,
}

/// What [`PinDir::open_or_create`] has done.
#[derive(Debug)]
#[non_exhaustive]
pub enum MapOutcome {
    /// It was there.
    Found,
    /// None was there.
    Created,
    /// The one that was there did not fit.
    Recreated {
        /// The one that had the name before, which dies with its last descriptor and pin; open for what
        /// the new one is open for.
        old: Map,
    },
    /// The one that was there did not fit, and its entries were copied. It is pinned still, until this is
    /// [committed](Migration::commit) or [rolled back](Migration::roll_back); if it was
    /// [frozen](Migrate::freeze), it is so for good.
    Migrated(Migration),
    /// It was there, and so is the one that it was migrated from, which nobody has
    /// [committed](Migration::commit) and nobody is at any more.
    Resumed(Migration),
}

/// What fills a map that was created.
type Fill<'f, E> = &'f mut dyn FnMut(&Map) -> Result<(), E>;

/// How often what others undo is done again.
const TRIES: usize = 100;

impl PinDir {
    /// `BPF_OBJ_GET`, or `BPF_MAP_CREATE` and `BPF_OBJ_PIN`: the map that is pinned as `name`, if it
    /// is what `spec` asks for; else what `reuse` says.
    ///
    /// Any number of processes may do this at the same time: all get the same map, and exactly one
    /// of them has created, recreated or migrated it. Others may have created one in vain, which
    /// nobody has seen. A process that is killed leaves the old map in its place, or the new one.
    ///
    /// The map is open for reading and writing, or for what the flag
    /// [`RDONLY`](crate::types::MapFlags::RDONLY) or [`WRONLY`](crate::types::MapFlags::WRONLY) of `spec` says,
    /// whether it was there or not: who asks for the first needs no right to write to what is there. A map
    /// that is created has as many entries as [`MapSpec::compare`] takes for fitting: of a ring buffer
    /// whole pages and a power of two, of a CPU map or perf event array no more than there are CPUs, and
    /// as many for 0.
    ///
    /// A map that fits takes as many calls as [`get`](Self::get), with
    /// [`Migrate`](Reuse::Migrate) one more; one that is created those of a name that is missing, of
    /// [`MapSpec::create`] and of [`pin`](Self::pin), and six for the lock under which it is pinned. What
    /// fits: [`MapSpec::compare`]. A new pin that replaces another has its mode and owner. Linux 4.13.
    ///
    /// A map is pinned under the lock of those that [replace](Self::replace_if) a pin that they have seen:
    /// otherwise one of them could take the new map for the one that it replaces. In a directory that this
    /// user may write to but not read there is no lock, and so this race.
    ///
    /// # Errors
    ///
    /// [`Operation::Reuse`] with [`Mismatch`](Cause::Mismatch), all that differs, and nothing was changed;
    /// [`Operation::Open`] as [`get`](Self::get), [`WrongKind`](Cause::WrongKind) above all;
    /// [`Operation::CreateMap`] as [`MapSpec::create`]; [`Operation::Pin`] as [`pin`](Self::pin),
    /// [`Exists`](Cause::Exists) where one was only to be created, [`Locked`](Cause::Locked) if another
    /// process holds the lock for five seconds;
    /// [`Operation::Replace`] as [`replace_if`](Self::replace_if), and, where the old pin's owner is another,
    /// EPERM if this user may not give files away, [`UnmappedOwner`](Cause::UnmappedOwner) if it is not
    /// mapped in this thread's user namespace; [`Operation::Migrate`] as [`Migrate`] has it.
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

    /// As [`open_or_create`](Self::open_or_create), where a map that was created is filled before
    /// anybody can open it by its name.
    ///
    /// What fills it may be called for a map that nobody will see, and in several processes at once:
    /// it should do nothing else. A map that is there and fits keeps what is in it, also with
    /// [`Recreate`](Reuse::Recreate). A map that is migrated to is filled before the entries come in,
    /// and not to be frozen: an entry takes the place of what is there under its key, and if it is gone
    /// before the copy is done, that comes back, where the map was not asked for with
    /// [`WRONLY`](crate::types::MapFlags::WRONLY). One that `spec` asks for with
    /// [`RDONLY`](crate::types::MapFlags::RDONLY) takes nothing, in `fill` either.
    ///
    /// # Errors
    ///
    /// As [`open_or_create`](Self::open_or_create), and what `fill` fails with: the map is gone
    /// then, and the name is whose it was.
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
    /// // What ends with `Ok(())` says with which error it fails, since `?` makes any of its own.
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
        let path = || self.path().join(name);
        let name = &Component::new(name)
            .map_err(|error| Error::new(Operation::Reuse, error).at(path()))?;
        let access = spec.access()?;
        let is_filled = fill.is_some();
        let mut make = || -> Result<Map, E> {
            let map = spec.create_rounded()?;
            if let Some(fill) = &mut fill {
                fill(&map)?;
            }
            Ok(map)
        };
        let mut tries = 0;
        loop {
            tries += 1;
            let found = match reuse {
                Reuse::CreateOnly => None,
                _ => self.find_with_info(name, access)?,
            };
            let Some((map, info)) = found else {
                if let Reuse::OpenOnly = reuse {
                    return Err(self.missing_error(name).into());
                }
                let map = make()?;
                match self.pin_new(&map, name) {
                    Ok(()) => return Ok(OpenedMap::new(map, MapOutcome::Created)),
                    Err(error) if is_overtaken(&error) && tries < TRIES => {
                        if let Reuse::CreateOnly = reuse {
                            return Err(error.into());
                        }
                        // To open it follows one, to pin does not.
                        self.refuse_link(name)?;
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
            };
            let mismatches = spec.compare_info(&info);
            let fits = mismatches.is_empty();
            if fits && !matches!(reuse, Reuse::Migrate(_)) {
                return Ok(OpenedMap::new(map, MapOutcome::Found));
            }
            let outcome = match &mut reuse {
                Reuse::Migrate(_) if fits => {
                    match self.found_or_resumed(name, identity(&info), access)? {
                        // It has lost the name meanwhile.
                        None if tries < TRIES => continue,
                        None => Some(MapOutcome::Found),
                        outcome => outcome,
                    }
                }
                Reuse::Migrate(migrate) => {
                    match self.migrate(name, spec, migrate, &mut make, is_filled)? {
                        Some(migrated) => return Ok(migrated),
                        // Somebody else did.
                        None if tries < TRIES => continue,
                        None => None,
                    }
                }
                Reuse::Recreate => {
                    let new = make()?;
                    match self.replace_if_keeping_mode(&new, name.as_os_str(), identity(&info)) {
                        Ok(()) => {
                            return Ok(OpenedMap::new(new, MapOutcome::Recreated { old: map }));
                        }
                        Err(error) if is_overtaken(&error) && tries < TRIES => continue,
                        Err(error) => return Err(error.into()),
                    }
                }
                Reuse::Exact | Reuse::OpenOnly | Reuse::CreateOnly => None,
            };
            if let Some(outcome) = outcome {
                return Ok(OpenedMap::new(map, outcome));
            }
            let id = info.id;
            let error = Error::new(Operation::Reuse, Cause::Mismatch { id, mismatches }).at(path());
            return Err(error.into());
        }
    }

    /// Pins under the lock of those that swap a name, so that none of them takes this map for the one
    /// that it replaces.
    fn pin_new(&self, map: &Map, name: &Component) -> Result<()> {
        let place = self.at_path(name);
        let fail = |reason| Error::new(Operation::Pin, reason).at(place.path());
        let _lock = match self.lock_swap() {
            Ok(lock) => Some(lock),
            Err(reason) if matches!(reason.cause(), Some(Cause::Locked)) => {
                return Err(fail(reason));
            }
            // A directory that may not be read cannot be locked, but pinned in.
            Err(_) => None,
        };
        pin_at(&place, map.as_fd()).map_err(fail)
    }
}

impl OpenedMap {
    fn new(map: Map, outcome: MapOutcome) -> Self {
        Self { map, outcome }
    }
}

fn identity(info: &MapInfo) -> Identity {
    let (kind, id) = (Kind::Map, info.id);
    Identity { kind, id }
}

/// Whether somebody else was faster with the name.
fn is_overtaken(error: &Error) -> bool {
    if error.during().is_some() || !error.operation().is_of_name() {
        return false;
    }
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    match error.cause() {
        Some(Cause::Replaced { .. } | Cause::Missing { .. }) => true,
        // The directory is gone.
        Some(Cause::Removed { .. }) => false,
        _ => is(Errno::EXIST) || is(Errno::NOENT),
    }
}
