//! The elements of a per-CPU map.

use std::fmt;
use std::marker::PhantomData;

use bytemuck::{Pod, bytes_of, bytes_of_mut, pod_read_unaligned};

use crate::error::{Error, Failed, Operation, Result};
use crate::map::batch::{bytes_of_all, bytes_of_all_mut};
use crate::map::elem::check_size;
use crate::map::iter::{Reader, read_all};
use crate::map::keys::Walk;
use crate::map::typed::check_types;
use crate::map::{Cursor, ElemFlags, Elems, Map, TypedKeys};
use crate::sys::AsMap;

/// The elements of a per-CPU map: under each key a slice of `V`, one for every possible CPU.
///
/// Of the types named `PERCPU`, each since it is there: hash and array on Linux 4.6 and later, the LRU
/// hash on 4.10, the storage of cgroups on 4.20. Every element's lookup, update and delete is as old.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::Map;
///
/// let map = Map::open("/sys/fs/bpf/counters")?;
/// let counters = map.per_cpu::<u32, u64>()?;
/// if let Some(each) = counters.lookup(&0)? {
///     println!("{} on {} CPUs", each.iter().sum::<u64>(), each.len());
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
pub struct PerCpu<K, V, M = Map> {
    elems: Elems<M>,
    types: PhantomData<fn() -> (K, V)>,
}

impl Map {
    /// A view of a per-CPU map's elements as `K` and slices of `V`. One syscall, for the sizes, and
    /// once in a process a look at /sys for the number of CPUs.
    ///
    /// # Errors
    ///
    /// [`Operation::Elements`](crate::Operation::Elements): [`Size`](crate::Cause::Size) where `K`, or `V` for one CPU, is not as large
    /// as the map's; [`PerCpu`](crate::Cause::PerCpu) where the map has one value for all CPUs; and as
    /// [`Map::elems`].
    pub fn per_cpu<K: Pod, V: Pod>(&self) -> Result<PerCpu<K, V, &Self>> {
        Ok(PerCpu::new(self)?)
    }
}

impl<K: Pod, V: Pod, M: AsMap> PerCpu<K, V, M> {
    /// A view that owns or borrows `map`.
    ///
    /// # Errors
    ///
    /// As [`Map::per_cpu`], with the map.
    pub fn new(map: M) -> Result<Self, Failed<M>> {
        let check = |elems: &Elems<M>| check_types::<K, V, M>(elems, true);
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

    pub(super) fn elems(&self) -> &Elems<M> {
        &self.elems
    }

    /// The number of possible CPUs, and so of values under a key.
    pub fn cpus(&self) -> usize {
        self.elems.value_len() / Self::STRIDE
    }

    /// From one CPU's value to the next: the kernel aligns each to 8 bytes.
    const STRIDE: usize = size_of::<V>().next_multiple_of(8);

    /// `BPF_MAP_LOOKUP_ELEM`: the values under `key`, if there are any, in the order of
    /// the possible CPUs' numbers.
    ///
    /// # Errors
    ///
    /// As [`Elems::lookup`].
    pub fn lookup(&self, key: &K) -> Result<Option<Vec<V>>> {
        let mut values = vec![V::zeroed(); self.cpus()];
        let found = self.lookup_into(key, &mut values)?;
        Ok(found.then_some(values))
    }

    /// As [`lookup`](Self::lookup), into a slice of as many values as there are CPUs. Where `V` is
    /// a multiple of 8 bytes nothing is allocated.
    ///
    /// # Errors
    ///
    /// As [`Elems::lookup`]; [`Size`](crate::Cause::Size) for a slice of another length.
    pub fn lookup_into(&self, key: &K, values: &mut [V]) -> Result<bool> {
        self.check(values)
            .map_err(|cause| Error::new(Operation::Lookup, cause))?;
        let found = self.unpadded(values, |bytes| {
            self.elems.lookup(bytes_of(key), bytes).map(usize::from)
        });
        found.map(|found| found > 0)
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`: takes the values under `key` out, if there are any. Linux 4.20;
    /// of hashes, which these are, 5.14.
    ///
    /// # Errors
    ///
    /// As [`Elems::lookup_and_delete`]; of an array, whose elements stay,
    /// [`NoCommand`](crate::Cause::NoCommand) (ENOTSUPP).
    pub fn lookup_and_delete(&self, key: &K) -> Result<Option<Vec<V>>> {
        let mut values = vec![V::zeroed(); self.cpus()];
        let found = self.unpadded(&mut values, |bytes| {
            let found = self.elems.lookup_and_delete(bytes_of(key), bytes);
            found.map(usize::from)
        });
        Ok((found? > 0).then_some(values))
    }

    /// `BPF_MAP_UPDATE_ELEM`: puts `values`, one for every possible CPU, under `key`.
    ///
    /// # Errors
    ///
    /// As [`Elems::update`]; [`Size`](crate::Cause::Size) for a slice of another length.
    pub fn update(&self, key: &K, values: &[V], flags: ElemFlags) -> Result<()> {
        self.check(values)
            .map_err(|cause| Error::new(Operation::Update, cause))?;
        self.padded(values, |bytes| {
            self.elems.update(bytes_of(key), bytes, flags)
        })
    }

    /// `BPF_MAP_LOOKUP_BATCH`: copies elements from where `cursor` is, to `values` those of a key after
    /// those of another, and says how many keys, as [`Elems::lookup_batch`]. Linux 5.6; of arrays 5.13.
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
        self.read_batch(false, cursor, keys, values, flags)
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_BATCH`: as [`lookup_batch`](Self::lookup_batch), and takes the
    /// elements out. Linux 5.6.
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
        self.read_batch(true, cursor, keys, values, flags)
    }

    fn read_batch(
        &self,
        takes: bool,
        cursor: &mut Cursor,
        keys: &mut [K],
        values: &mut [V],
        flags: ElemFlags,
    ) -> Result<usize> {
        let keys = bytes_of_all_mut(keys);
        self.unpadded(values, |values| {
            self.elems.read_batch(takes, cursor, keys, values, flags)
        })
    }

    /// `BPF_MAP_UPDATE_BATCH`: puts under each key its values, one for every possible CPU. Linux 5.6; of
    /// arrays 5.13.
    ///
    /// # Errors
    ///
    /// As [`Elems::update_batch`].
    pub fn update_batch(&self, keys: &[K], values: &[V], flags: ElemFlags) -> Result<()> {
        let keys = bytes_of_all(keys);
        self.padded(values, |values| {
            self.elems.update_batch(keys, values, flags)
        })
    }

    /// `BPF_MAP_DELETE_BATCH`: removes the elements under these keys and says how many there were.
    /// Linux 5.6.
    ///
    /// # Errors
    ///
    /// As [`Elems::delete_batch`].
    pub fn delete_batch(&self, keys: &[K]) -> Result<usize> {
        self.elems.delete_batch(bytes_of_all(keys))
    }

    /// Has the kernel's layout of these values written to, and takes them from there: of so many
    /// elements as that says.
    fn unpadded(
        &self,
        values: &mut [V],
        read: impl FnOnce(&mut [u8]) -> Result<usize>,
    ) -> Result<usize> {
        if size_of::<V>() == Self::STRIDE {
            return read(bytes_of_all_mut(values));
        }
        let mut bytes = vec![0; values.len() * Self::STRIDE];
        let count = read(&mut bytes)?;
        let all = bytes.chunks_exact(Self::STRIDE);
        for (value, bytes) in values.iter_mut().zip(all).take(count * self.cpus()) {
            bytes_of_mut(value).copy_from_slice(&bytes[..size_of::<V>()]);
        }
        Ok(count)
    }

    /// Has the kernel's layout of these values read from.
    fn padded<T>(&self, values: &[V], write: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        if size_of::<V>() == Self::STRIDE {
            return write(bytes_of_all(values));
        }
        let mut bytes = vec![0; values.len() * Self::STRIDE];
        for (value, bytes) in values.iter().zip(bytes.chunks_exact_mut(Self::STRIDE)) {
            bytes[..size_of::<V>()].copy_from_slice(bytes_of(value));
        }
        write(&bytes)
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

    /// All entries, in batches, through one buffer, as [`Elems::iter`]: as they were when their batch
    /// was read. A key that was yielded may be deleted.
    ///
    /// # Errors
    ///
    /// Yielded, as by [`Elems::iter`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// let map = bpf_pin::Map::open("/sys/fs/bpf/counters")?;
    /// let counters = map.per_cpu::<u32, u64>()?;
    /// let mut all = counters.iter();
    /// while let Some(entry) = all.next() {
    ///     let (key, each) = entry?;
    ///     println!("{key}: {}", each.iter().sum::<u64>());
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn iter(&self) -> PerCpuIter<'_, K, V, M> {
        PerCpuIter::new(&self.elems, false, self.cpus())
    }

    /// As [`iter`](Self::iter), and takes the entries out, as [`Elems::drain`]: what was taken out
    /// and not yielded when it is dropped is lost.
    ///
    /// # Errors
    ///
    /// Yielded, as by [`Elems::drain`].
    pub fn drain(&self) -> PerCpuIter<'_, K, V, M> {
        PerCpuIter::new(&self.elems, true, self.cpus())
    }

    /// All keys, and all values, of each key as many as there are CPUs: what [`iter`](Self::iter)
    /// yields, in two allocations, or a few where there is more than fits the first. Where `V` is no
    /// multiple of 8 bytes there is one more, for what the kernel writes between them.
    ///
    /// # Errors
    ///
    /// As [`Elems::lookup_batch`].
    pub fn to_vecs(&self) -> Result<(Vec<K>, Vec<V>)> {
        if size_of::<V>() == Self::STRIDE {
            return read_all(&self.elems);
        }
        let (keys, padded): (Vec<K>, Vec<u8>) = read_all(&self.elems)?;
        let all = padded.chunks_exact(Self::STRIDE);
        let values = all.map(|bytes| pod_read_unaligned(&bytes[..size_of::<V>()]));
        Ok((keys, values.collect()))
    }

    /// Removes all entries and says how many there were, as [`Elems::clear`].
    ///
    /// # Errors
    ///
    /// As [`Elems::clear`].
    pub fn clear(&self) -> Result<usize> {
        self.elems.clear()
    }

    fn check(&self, values: &[V]) -> Result<(), crate::Cause> {
        check_size("number of values", self.cpus(), values.len())
    }
}

impl<K, V, M: AsMap> fmt::Debug for PerCpu<K, V, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PerCpu").field(&self.elems).finish()
    }
}

/// The entries of a per-CPU map, from [`PerCpu::iter`] or [`PerCpu::drain`].
///
/// It lends the values that it yields, so it is no [`Iterator`].
pub struct PerCpuIter<'a, K, V, M> {
    reader: Reader<'a, M>,
    values: Vec<V>,
    key: PhantomData<fn() -> K>,
}

impl<'a, K: Pod, V: Pod, M: AsMap> PerCpuIter<'a, K, V, M> {
    fn new(elems: &'a Elems<M>, takes: bool, cpus: usize) -> Self {
        Self {
            reader: Reader::new(elems, takes),
            values: vec![V::zeroed(); cpus],
            key: PhantomData,
        }
    }

    /// The next key and its values, one for every possible CPU.
    ///
    /// # Errors
    ///
    /// As of [`PerCpu::iter`] or [`PerCpu::drain`], after which there is no more.
    #[allow(clippy::should_implement_trait, reason = "it lends")]
    pub fn next(&mut self) -> Option<Result<(K, &[V])>> {
        let (key, bytes) = match self.reader.next()? {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error)),
        };
        let stride = size_of::<V>().next_multiple_of(8);
        for (value, bytes) in self.values.iter_mut().zip(bytes.chunks_exact(stride)) {
            bytes_of_mut(value).copy_from_slice(&bytes[..size_of::<V>()]);
        }
        Some(Ok((pod_read_unaligned(key), &self.values)))
    }
}

impl<K, V, M> fmt::Debug for PerCpuIter<'_, K, V, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpuIter").finish_non_exhaustive()
    }
}
