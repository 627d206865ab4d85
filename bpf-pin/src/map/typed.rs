//! The elements of one map as plain old data.

use std::fmt;
use std::marker::PhantomData;

use bytemuck::{Pod, bytes_of, bytes_of_mut, pod_read_unaligned};

use crate::cause::Cause;
use crate::error::{Failed, Result};
use crate::map::batch::{bytes_of_all, bytes_of_all_mut};
use crate::map::elem::check_size;
use crate::map::iter::{Reader, read_all};
use crate::map::keys::Walk;
use crate::map::{Cursor, ElemFlags, Elems, Map};
use crate::sys::AsMap;

/// The elements of a map whose keys are `K` and whose values are `V`, the sizes checked once.
///
/// Both are [`Pod`](crate::bytemuck::Pod): integers, arrays of them, and structs that derive it,
/// which have no padding but what they name. What goes through one element allocates nothing. For
/// values that differ by CPU there is [`PerCpu`](crate::PerCpu).
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
    /// [`Operation::Elements`](crate::Operation::Elements): [`Size`](Cause::Size) where `K` or `V` is not
    /// as large as the map's; [`PerCpu`](Cause::PerCpu) where the map has a value for each CPU; and
    /// as [`Map::elems`].
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
        let check = |elems: &Elems<M>| check_types::<K, V, M>(elems, false);
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

    /// `BPF_MAP_LOOKUP_ELEM`: the value under `key`, if there is one. A bloom filter is asked about
    /// the value that goes in, and so through [`Elems::lookup`].
    /// What a hash may answer beside a writer is said there, too. Linux 3.18.
    ///
    /// # Errors
    ///
    /// As [`Elems::lookup`].
    pub fn lookup(&self, key: &K) -> Result<Option<V>> {
        let mut value = V::zeroed();
        let found = self.elems.lookup(bytes_of(key), bytes_of_mut(&mut value))?;
        Ok(found.then_some(value))
    }

    /// As [`lookup`](Self::lookup), with flags. Linux 5.1.
    ///
    /// # Errors
    ///
    /// As [`Elems::lookup_with`].
    pub fn lookup_with(&self, key: &K, flags: ElemFlags) -> Result<Option<V>> {
        let mut value = V::zeroed();
        let found = self
            .elems
            .lookup_with(bytes_of(key), bytes_of_mut(&mut value), flags)?;
        Ok(found.then_some(value))
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`: takes the value under `key` out, if there is one. Of a queue
    /// or stack, whose key is `()`, the next one: `pop`. Linux 4.20; of hashes 5.14.
    ///
    /// # Errors
    ///
    /// As [`Elems::lookup_and_delete`].
    pub fn lookup_and_delete(&self, key: &K) -> Result<Option<V>> {
        let mut value = V::zeroed();
        let found = self
            .elems
            .lookup_and_delete(bytes_of(key), bytes_of_mut(&mut value))?;
        Ok(found.then_some(value))
    }

    /// `BPF_MAP_UPDATE_ELEM`: puts `value` under `key`. Linux 3.18.
    ///
    /// # Errors
    ///
    /// As [`Elems::update`].
    pub fn update(&self, key: &K, value: &V, flags: ElemFlags) -> Result<()> {
        self.elems.update(bytes_of(key), bytes_of(value), flags)
    }

    /// `BPF_MAP_DELETE_ELEM`: removes the element under `key` and says whether there was one. Linux 3.18.
    ///
    /// # Errors
    ///
    /// As [`Elems::delete`].
    pub fn delete(&self, key: &K) -> Result<bool> {
        self.elems.delete(bytes_of(key))
    }

    /// All keys. A key may be deleted as soon as it was yielded; for deletes by others see
    /// [`Elems::keys`]. Linux 4.12.
    ///
    /// # Errors
    ///
    /// Yielded, as by [`Elems::keys`].
    pub fn keys(&self) -> TypedKeys<'_, K, M> {
        TypedKeys {
            elems: &self.elems,
            walk: Walk::new(),
        }
    }

    /// `BPF_MAP_LOOKUP_BATCH`: copies elements from where `cursor` is and says how many, as
    /// [`Elems::lookup_batch`]. Linux 5.6.
    ///
    /// # Errors
    ///
    /// As [`Elems::lookup_batch`].
    pub fn lookup_batch(
        &self,
        cursor: &mut Cursor,
        keys: &mut [K],
        values: &mut [V],
        flags: ElemFlags,
    ) -> Result<usize> {
        let (keys, values) = (bytes_of_all_mut(keys), bytes_of_all_mut(values));
        self.elems.lookup_batch(cursor, keys, values, flags)
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_BATCH`: takes elements out and says how many, as
    /// [`Elems::lookup_and_delete_batch`]. Linux 5.6.
    ///
    /// # Errors
    ///
    /// As [`Elems::lookup_and_delete_batch`].
    pub fn lookup_and_delete_batch(
        &self,
        cursor: &mut Cursor,
        keys: &mut [K],
        values: &mut [V],
        flags: ElemFlags,
    ) -> Result<usize> {
        let (keys, values) = (bytes_of_all_mut(keys), bytes_of_all_mut(values));
        self.elems
            .lookup_and_delete_batch(cursor, keys, values, flags)
    }

    /// `BPF_MAP_UPDATE_BATCH`: puts each of the values under its key. Linux 5.6; before, one by one.
    ///
    /// # Errors
    ///
    /// As [`Elems::update_batch`].
    pub fn update_batch(&self, keys: &[K], values: &[V], flags: ElemFlags) -> Result<()> {
        self.elems
            .update_batch(bytes_of_all(keys), bytes_of_all(values), flags)
    }

    /// `BPF_MAP_DELETE_BATCH`: removes the elements under these keys and says how many there were.
    /// Linux 5.6; before, one by one.
    ///
    /// # Errors
    ///
    /// As [`Elems::delete_batch`].
    pub fn delete_batch(&self, keys: &[K]) -> Result<usize> {
        self.elems.delete_batch(bytes_of_all(keys))
    }

    /// All entries, in batches, through one buffer, as [`Elems::iter`]: as they were when their batch
    /// was read. A key that was yielded may be deleted.
    ///
    /// # Errors
    ///
    /// Yielded, as by [`Elems::iter`].
    pub fn iter(&self) -> TypedIter<'_, K, V, M> {
        TypedIter::new(&self.elems, false)
    }

    /// As [`iter`](Self::iter), and takes the entries out, as [`Elems::drain`]: what was taken out
    /// and not yielded when it is dropped is lost.
    ///
    /// # Errors
    ///
    /// Yielded, as by [`Elems::drain`].
    pub fn drain(&self) -> TypedIter<'_, K, V, M> {
        TypedIter::new(&self.elems, true)
    }

    /// All keys and all values, the value of a key at its index: what [`iter`](Self::iter) yields, each
    /// in one allocation, or a few where there is more than fits the first. In two, not as pairs, for so
    /// the kernel writes them, and so [`update_batch`](Self::update_batch) takes them.
    ///
    /// # Errors
    ///
    /// As [`Elems::lookup_batch`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// let map = bpf_pin::Map::open("/sys/fs/bpf/flows")?;
    /// let (keys, values) = map.typed::<u32, u64>()?.to_vecs()?;
    /// for (key, value) in keys.iter().zip(&values) {
    ///     println!("{key}: {value}");
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn to_vecs(&self) -> Result<(Vec<K>, Vec<V>)> {
        read_all(&self.elems)
    }

    /// Removes all entries and says how many there were, as [`Elems::clear`].
    ///
    /// # Errors
    ///
    /// As [`Elems::clear`].
    pub fn clear(&self) -> Result<usize> {
        self.elems.clear()
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

/// The entries of a map, from [`Typed::iter`] or [`Typed::drain`].
pub struct TypedIter<'a, K, V, M> {
    reader: Reader<'a, M>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<'a, K, V, M: AsMap> TypedIter<'a, K, V, M> {
    fn new(elems: &'a Elems<M>, takes: bool) -> Self {
        let (reader, types) = (Reader::new(elems, takes), PhantomData);
        Self { reader, types }
    }
}

impl<K: Pod, V: Pod, M: AsMap> Iterator for TypedIter<'_, K, V, M> {
    type Item = Result<(K, V)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.reader.next()?;
        Some(entry.map(|(key, value)| (pod_read_unaligned(key), pod_read_unaligned(value))))
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

impl<K, V, M> fmt::Debug for TypedIter<'_, K, V, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedIter").finish_non_exhaustive()
    }
}
