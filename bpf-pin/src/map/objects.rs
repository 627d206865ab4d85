//! The elements of maps that hold objects: a descriptor going in, an id coming out.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use bytemuck::{Pod, bytes_of};
use rustix::io::Errno;

use crate::cause::Cause;
use crate::error::{Failed, Result};
use crate::map::elem::check_size;
use crate::map::{ElemFlags, Elems, Map};
use crate::object::{Prog, TypedObject};
use crate::procfs;
use crate::sys::{AsMap, sealed::Sealed};
use crate::types::{MapType, ProgType};

/// What a map of objects can hold: a [`Prog`] in a prog array; a [`Map`] in an array
/// or a hash of maps; of what has no type here, a cgroup's directory and a perf event, the
/// [`OwnedFd`]. Sealed.
pub trait Element: AsFd + Sealed {
    #[doc(hidden)]
    const NAMES: &'static str;
    #[doc(hidden)]
    const MAPS: &'static [MapType];
    /// Why the map did not take it (EINVAL).
    #[doc(hidden)]
    fn misfit(&self, _map: &impl AsMap) -> Option<Cause> {
        None
    }
}

impl Element for Prog {
    const NAMES: &'static str = "programs";
    const MAPS: &'static [MapType] = &[MapType::PROG_ARRAY];

    /// A prog array is of the type of the first program that met it; fdinfo tells of which.
    fn misfit(&self, map: &impl AsMap) -> Option<Cause> {
        let fdinfo = procfs::fdinfo(map.map_fd()).ok()?;
        let owner = ProgType(fdinfo.get("owner_prog_type")?.parse().ok()?);
        let found = self.info().ok()?.prog_type;
        (owner != found).then_some(Cause::OtherProgType { owner, found })
    }
}

impl Element for Map {
    const NAMES: &'static str = "maps";
    const MAPS: &'static [MapType] = &[MapType::ARRAY_OF_MAPS, MapType::HASH_OF_MAPS];
}

impl Sealed for OwnedFd {}

impl Element for OwnedFd {
    const NAMES: &'static str = "cgroups or perf events";
    const MAPS: &'static [MapType] = &[MapType::CGROUP_ARRAY, MapType::PERF_EVENT_ARRAY];
}

/// The elements of a map that holds objects `O` under keys `K`, which is `u32` but in a hash.
///
/// To go through all keys and the ids of what they hold, of programs and of maps, there is
/// [`Map::typed`]: the kernel reads ids out as it reads any `u32`.
///
/// Programs are held on Linux 4.2 and later, perf events on 4.3, cgroups on 4.8, maps on 4.12; the ids
/// are told from 4.13 on.
///
/// # What keeps the elements
///
/// A prog array keeps its programs only while somebody holds the array: when its last descriptor is
/// closed and its last pin is gone, the kernel takes all programs out of it, also where a loaded
/// program still uses it, whose tail calls then go on to the next instruction instead. So a prog
/// array is to be pinned, or held open, for as long as it is to be of use. Maps of maps keep what
/// they hold; a perf event array gives up an event with the descriptor of the map that put it there
/// unless it has [`PRESERVE_ELEMS`](crate::MapFlags::PRESERVE_ELEMS).
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::{ElemFlags, MapSpec, MapType, Prog};
///
/// let stages = MapSpec::new(MapType::PROG_ARRAY, 4, 4, 8).create()?.pin("/sys/fs/bpf/stages")?;
/// let parse = Prog::open("/sys/fs/bpf/parse")?;
/// let elems = stages.objects::<u32, Prog>()?;
/// elems.update(&0, &parse, ElemFlags::ANY)?;
/// assert_eq!(elems.lookup(&0)?, Some(parse.id()?));
/// for entry in stages.typed::<u32, u32>()?.iter() {
///     let (stage, id) = entry?;
///     println!("{stage}: program {id}");
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
pub struct Objects<K, O, M = Map> {
    elems: Elems<M>,
    types: PhantomData<fn() -> (K, O)>,
}

impl Map {
    /// A view of the elements as objects. One syscall, for the sizes.
    ///
    /// # Errors
    ///
    /// [`Operation::Elements`](crate::Operation::Elements): [`HoldsNo`](Cause::HoldsNo) where the map's type is not of maps that
    /// hold such; [`Size`](Cause::Size) where `K` is not as large as the map's.
    pub fn objects<K: Pod, O: Element>(&self) -> Result<Objects<K, O, &Self>> {
        Ok(Objects::new(self)?)
    }
}

impl<K: Pod, O: Element, M: AsMap> Objects<K, O, M> {
    /// A view that owns or borrows `map`.
    ///
    /// # Errors
    ///
    /// As [`Map::objects`], with the map.
    pub fn new(map: M) -> Result<Self, Failed<M>> {
        let check = |elems: &Elems<M>| {
            let map_type = MapType(elems.cells().map_type());
            match O::MAPS.contains(&map_type) {
                true => check_size("key", elems.key_len(), size_of::<K>()),
                false => Err(Cause::HoldsNo {
                    map_type,
                    what: O::NAMES,
                }),
            }
        };
        Elems::checked(map, check).map(|elems| Self {
            elems,
            types: PhantomData,
        })
    }

    /// The map.
    pub fn map(&self) -> &M {
        self.elems.map()
    }

    /// The map back.
    pub fn into_map(self) -> M {
        self.elems.into_map()
    }

    /// `BPF_MAP_UPDATE_ELEM`: puts `object` under `key`. Arrays take no flags.
    ///
    /// # Errors
    ///
    /// [`Operation::Update`](crate::Operation::Update) as [`Elems::update`]; [`OtherProgType`](Cause::OtherProgType) (EINVAL) of a
    /// program where the array is for programs of another type; EINVAL also where that type is the same
    /// and the first program that met the array differs in what the kernel does not tell of it: an XDP
    /// program loaded with [`XDP_HAS_FRAGS`](crate::ProgFlags::XDP_HAS_FRAGS) and one without, on newer
    /// kernels another [`expected_attach_type`](crate::ProgSpec::expected_attach_type), a program that
    /// is run by the interpreter and one that is not; EINVAL of a map that is not like the
    /// one that the map of maps was made with; EBADF or EINVAL of what is no cgroup or perf event.
    pub fn update(&self, key: &K, object: &O, flags: ElemFlags) -> Result<()> {
        let number = object.as_fd().as_raw_fd();
        let updated = self.elems.update(bytes_of(key), bytes_of(&number), flags);
        let explain = |errno| match errno {
            Errno::INVAL => object.misfit(self.elems.map()),
            _ => None,
        };
        updated.map_err(|error| error.explained(explain))
    }

    /// `BPF_MAP_DELETE_ELEM`: takes out the object under `key` and says whether there was one.
    ///
    /// # Errors
    ///
    /// [`Operation::Delete`](crate::Operation::Delete) as [`Elems::delete`]; E2BIG for an index that the array does not have.
    pub fn delete(&self, key: &K) -> Result<bool> {
        self.elems.delete(bytes_of(key))
    }
}

impl<K: Pod, O: Element + TypedObject, M: AsMap> Objects<K, O, M> {
    /// `BPF_MAP_LOOKUP_ELEM`: the id of the object under `key`, if there is one. Of cgroups and perf
    /// events the kernel tells none.
    ///
    /// `from_id` opens it, which takes `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    ///
    /// [`Operation::Lookup`](crate::Operation::Lookup) as [`Elems::lookup`].
    pub fn lookup(&self, key: &K) -> Result<Option<u32>> {
        let mut id = [0; size_of::<u32>()];
        let found = self.elems.lookup(bytes_of(key), &mut id)?;
        Ok(found.then_some(u32::from_ne_bytes(id)))
    }
}

impl<K, O, M: AsMap> fmt::Debug for Objects<K, O, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Objects").field(&self.elems).finish()
    }
}
