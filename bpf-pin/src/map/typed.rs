//! The elements of one map as plain old data.

use std::fmt;
use std::marker::PhantomData;

use bytemuck::{Pod, bytes_of, bytes_of_mut};

use crate::cause::Cause;
use crate::error::{Error, Failed, Result};
use crate::map::elem::{Walk, check_size};
use crate::map::{ElemFlags, Elems, Map};
use crate::sys::AsMap;

/// The elements of a map whose keys are `K` and whose values are `V`, the sizes checked once.
///
/// Both are [`Pod`](crate::bytemuck::Pod): integers, arrays of them, and structs that derive it,
/// which have no padding but what they name. Nothing is allocated. For values that differ by CPU
/// there is [`PerCpu`](crate::PerCpu).
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::{ElemFlags, PinnedMap, Typed};
///
/// let flows: Typed<u32, u64, _> = Typed::new(PinnedMap::open("/sys/fs/bpf/flows")?)?;
/// flows.update(&7, &1, ElemFlags::NOEXIST)?;
/// for entry in flows.iter() {
///     let (key, value) = entry?;
///     println!("{key}: {value}");
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
///
/// A key of one's own, with `bytemuck = { version = "1", features = ["derive"] }`:
///
/// ```no_run
/// use bytemuck::{Pod, Zeroable};
///
/// #[derive(Clone, Copy, Pod, Zeroable)]
/// #[repr(C)]
/// struct Flow {
///     address: [u8; 4],
///     port: u16,
///     padding: u16,
/// }
///
/// let map = bpf_pin::Map::open("/sys/fs/bpf/flows")?;
/// for key in map.typed::<Flow, u64>()?.keys() {
///     let key = key?;
///     println!("{:?}:{}", key.address, key.port);
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
pub struct Typed<K, V, M = Map> {
    elems: Elems<M>,
    types: PhantomData<fn() -> (K, V)>,
}

impl Map {
    /// A view of the elements as `K` and `V`. One syscall, for the sizes.
    ///
    /// # Errors
    ///
    /// [`Error::Elements`]: [`Size`](Cause::Size) where `K` or `V` is not as large as the map's;
    /// [`PerCpu`](Cause::PerCpu) where the map has a value for each CPU; and as [`Map::elems`].
    pub fn typed<K: Pod, V: Pod>(&self) -> Result<Typed<K, V, &Self>> {
        Ok(Typed::new(self)?)
    }
}

impl<K: Pod, V: Pod, M: AsMap> Typed<K, V, M> {
    /// A view that owns or borrows `map`.
    ///
    /// # Errors
    ///
    /// As [`Map::typed`], with the map.
    pub fn new(map: M) -> Result<Self, Failed<M>> {
        let elems = Elems::new(map)?;
        let fits = check_types::<K, V, M>(&elems, false);
        match fits {
            Ok(()) => Ok(Self {
                elems,
                types: PhantomData,
            }),
            Err(cause) => {
                let reason = cause.into();
                Err(Failed::new(elems.into_map(), Error::Elements { reason }))
            }
        }
    }

    /// The map.
    pub fn map(&self) -> &M {
        self.elems.map()
    }

    /// The map back.
    pub fn into_map(self) -> M {
        self.elems.into_map()
    }

    /// `BPF_MAP_LOOKUP_ELEM`: the value under `key`, if there is one. A bloom filter is asked about
    /// the value that goes in, and so through [`Elems::lookup`].
    ///
    /// # Errors
    ///
    /// As [`Elems::lookup`].
    pub fn lookup(&self, key: &K) -> Result<Option<V>> {
        let mut value = V::zeroed();
        let found = self.elems.lookup(bytes_of(key), bytes_of_mut(&mut value))?;
        Ok(found.then_some(value))
    }

    /// `BPF_MAP_UPDATE_ELEM`: puts `value` under `key`.
    ///
    /// # Errors
    ///
    /// As [`Elems::update`].
    pub fn update(&self, key: &K, value: &V, flags: ElemFlags) -> Result<()> {
        self.elems.update(bytes_of(key), bytes_of(value), flags)
    }

    /// `BPF_MAP_DELETE_ELEM`: removes the element under `key` and says whether there was one.
    ///
    /// # Errors
    ///
    /// As [`Elems::delete`].
    pub fn delete(&self, key: &K) -> Result<bool> {
        self.elems.delete(bytes_of(key))
    }

    /// All keys. A key may be deleted as soon as it was yielded; for deletes by others see
    /// [`Elems::keys`].
    pub fn keys(&self) -> TypedKeys<'_, K, M> {
        TypedKeys {
            elems: &self.elems,
            walk: Walk::new(),
        }
    }

    /// All entries: of each key, as from [`keys`](Self::keys), its value at the time. An element
    /// that is gone by then is left out.
    pub fn iter(&self) -> TypedIter<'_, K, V, M> {
        TypedIter {
            keys: self.keys(),
            value: PhantomData,
        }
    }
}

pub(crate) fn check_types<K, V, M: AsMap>(elems: &Elems<M>, per_cpu: bool) -> Result<(), Cause> {
    let cells = elems.cells();
    let is_per_cpu = cells.is_per_cpu();
    if is_per_cpu != per_cpu {
        return Err(Cause::PerCpu { is_per_cpu });
    }
    let value_size = if per_cpu {
        cells.value_size()
    } else {
        cells.value_len()
    };
    check_size("key", cells.key_len(), size_of::<K>())?;
    check_size("value", value_size, size_of::<V>())
}

/// The keys of a map, from [`Typed::keys`] and [`PerCpu::keys`](crate::PerCpu::keys).
pub struct TypedKeys<'a, K, M> {
    pub(crate) elems: &'a Elems<M>,
    pub(crate) walk: Walk<K>,
}

impl<K: Pod, M: AsMap> Iterator for TypedKeys<'_, K, M> {
    type Item = Result<K>;

    fn next(&mut self) -> Option<Self::Item> {
        let elems = self.elems;
        self.walk.step(elems, |last| {
            let mut next = K::zeroed();
            let found = elems.next_key(last.map(bytes_of), bytes_of_mut(&mut next))?;
            Ok(found.then_some(next))
        })
    }
}

/// The entries of a map, from [`Typed::iter`].
pub struct TypedIter<'a, K, V, M> {
    keys: TypedKeys<'a, K, M>,
    value: PhantomData<fn() -> V>,
}

impl<K: Pod, V: Pod, M: AsMap> Iterator for TypedIter<'_, K, V, M> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let key = match self.keys.next()? {
                Ok(key) => key,
                Err(error) => return Some(Err(error)),
            };
            let mut value = V::zeroed();
            let found = self
                .keys
                .elems
                .lookup(bytes_of(&key), bytes_of_mut(&mut value));
            match found {
                Ok(true) => return Some(Ok((key, value))),
                Ok(false) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl<'a, K: Pod, V: Pod, M: AsMap> IntoIterator for &'a Typed<K, V, M> {
    type Item = Result<(K, V)>;
    type IntoIter = TypedIter<'a, K, V, M>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K, V, M: AsMap> fmt::Debug for Typed<K, V, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Typed").field(&self.elems).finish()
    }
}

impl<K, M> fmt::Debug for TypedKeys<'_, K, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedKeys").finish_non_exhaustive()
    }
}

impl<K, V, M: AsMap> fmt::Debug for TypedIter<'_, K, V, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedIter").finish_non_exhaustive()
    }
}
