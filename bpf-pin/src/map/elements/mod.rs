//! The elements of a map: one view for every layout of keys and values.

mod batch;
mod cursor;
mod explain;
mod iter;
mod layout;
mod one_cpu;
mod raw;

pub use cursor::Cursor;
pub use iter::{Iter, Keys};
pub use layout::{Descriptor, Key, Layout, PerCpu, Plain, Readable};

use std::fmt;
use std::marker::PhantomData;

use bitflags::bitflags;
use bpf_pin_sys as abi;
use rustix::io::Errno;

#[cfg(doc)]
use crate::error::Cause;
use crate::error::{Error, Failed, Operation, Reason, Result};
use crate::map::Map;
use crate::sys::AsMap;
#[cfg(doc)]
use crate::types::MapType;

use batch::Change;
use iter::read_all;
use layout::{bytes_of_all, bytes_of_all_mut, read_units, unpad, write_units};
use raw::RawElements;

bitflags! {
    /// The flags of `BPF_MAP_UPDATE_ELEM` and `BPF_MAP_LOOKUP_ELEM`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct ElemFlags: u64 {
        /// `BPF_NOEXIST`: creates an element, and fails with EEXIST if the key exists.
        const NOEXIST = abi::BPF_NOEXIST;
        /// `BPF_EXIST`: replaces an element, and fails with ENOENT if the key does not exist.
        const EXIST = abi::BPF_EXIST;
        /// `BPF_F_LOCK`: reads or writes under the value's spin lock. Linux 5.1.
        ///
        /// Requires a hash or an array whose values have a `struct bpf_spin_lock` according to
        /// [`MapSpec::btf`](crate::MapSpec::btf), else EINVAL. The 4 bytes of the lock itself are neither read nor
        /// written.
        const LOCK = abi::BPF_F_LOCK;
        const _ = !0;
    }
}

impl ElemFlags {
    /// `BPF_ANY`: creates or replaces an element.
    pub const ANY: Self = Self::empty();
}

/// A view of the elements of a map, with keys `K` and values `V`: see [`Layout`].
///
/// [`Map::elements`] and [`Elements::new`] create a view, and read and check the sizes once. `M` is a
/// [`Map`], a [`PinnedMap`](crate::PinnedMap) or a reference to one.
///
/// # Examples
///
/// Plain data: integers, arrays of them, and structs that derive [`Pod`](crate::bytemuck::Pod), with
/// `bytemuck = { version = "1", features = ["derive"] }`. Reading or writing one element allocates
/// nothing.
///
/// ```no_run
/// use bpf_pin::map::{ElemFlags, Elements};
/// use bpf_pin::PinnedMap;
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
/// let flows: Elements<Flow, u64, _> = Elements::new(PinnedMap::open("/sys/fs/bpf/flows")?)?;
/// let dns = Flow { address: [10, 0, 0, 1], port: 53, padding: 0 };
/// flows.update(&dns, &1, ElemFlags::NOEXIST)?;
/// for entry in flows.iter() {
///     let (flow, count) = entry?;
///     println!("{:?}:{}: {count}", flow.address, flow.port);
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
///
/// A value for each CPU:
///
/// ```no_run
/// use bpf_pin::map::PerCpu;
/// use bpf_pin::Map;
///
/// let map = Map::open("/sys/fs/bpf/counters")?;
/// let counters = map.elements::<u32, PerCpu<u64>>()?;
/// if let Some(each) = counters.lookup(&0)? {
///     println!("{} on {} CPUs", each.iter().sum::<u64>(), each.len());
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
///
/// Bytes, for sizes that are known only at run time:
///
/// ```no_run
/// use bpf_pin::map::ElemFlags;
/// use bpf_pin::Map;
///
/// let map = Map::open("/sys/fs/bpf/flows")?;
/// let elements = map.elements::<[u8], [u8]>()?;
/// let mut value = vec![0; elements.value_len()];
/// for key in elements.keys() {
///     if elements.lookup_into(&key?, &mut value, ElemFlags::ANY)? {
///         println!("{value:x?}");
///     }
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
///
/// Objects: the input is an object, and the output is its id:
///
/// ```no_run
/// use bpf_pin::map::ElemFlags;
/// use bpf_pin::{MapSpec, MapType, Prog};
///
/// let stages = MapSpec::new(MapType::PROG_ARRAY, 4, 4, 8).create()?.pin("/sys/fs/bpf/stages")?;
/// let parse = Prog::open("/sys/fs/bpf/parse")?;
/// let elements = stages.elements::<u32, Prog>()?;
/// elements.update(&0, &parse, ElemFlags::ANY)?;
/// assert_eq!(elements.lookup(&0)?, Some(parse.id()?));
/// # Ok::<(), bpf_pin::Error>(())
/// ```
///
/// # Lifetime of objects in a map
///
/// - A prog array keeps its programs only as long as it has a descriptor or a pin. When the last of these is
///   gone, the kernel removes all programs, even if a loaded program still uses the array. Its tail calls then
///   continue with the next instruction. So pin a prog array or hold it open as long as it is used.
/// - Maps of maps keep their maps.
/// - A perf event array drops an event when the descriptor that inserted it is closed, unless the array has
///   [`PRESERVE_ELEMS`](crate::types::MapFlags::PRESERVE_ELEMS).
///
/// # Older kernels
///
/// Maps hold programs since Linux 4.2, perf events 4.3, cgroups 4.8, maps 4.12. Ids are reported since 4.13.
/// Per-CPU hashes and arrays came with Linux 4.6, the LRU hash 4.10, the storage of cgroups 4.20.
pub struct Elements<K: ?Sized, V: ?Sized, M = Map> {
    raw: RawElements<M>,
    layout: PhantomData<fn(&K, &V)>,
}

impl Map {
    /// Returns a view of the elements with keys `K` and values `V`: see [`Layout`].
    ///
    /// One syscall, for the sizes. A per-CPU map also needs the number of CPUs, which is read from /sys once per
    /// process.
    ///
    /// # Errors
    ///
    /// [`Operation::Elements`]:
    /// - [`Size`](Cause::Size) if the size of `K` or `V` differs from the map's
    /// - [`PerCpu`](Cause::PerCpu) if the map has a value for each CPU and `V` is a single value, or the other way
    ///   round
    /// - [`UnsupportedType`](Cause::UnsupportedType) if maps of this type do not hold such objects
    /// - [`UnsupportedType`](Cause::UnsupportedType) for a type newer than this library
    /// - [`PossibleCpus`](Cause::PossibleCpus) for a per-CPU map if /sys is not mounted
    pub fn elements<K: Key + ?Sized, V: Layout + ?Sized>(&self) -> Result<Elements<K, V, &Self>> {
        Ok(Elements::new(self)?)
    }
}

impl<K: Key + ?Sized, V: Layout + ?Sized, M: AsMap> Elements<K, V, M> {
    /// Returns a view that owns or borrows `map`.
    ///
    /// # Errors
    ///
    /// As [`Map::elements`]. The error returns the map.
    pub fn new(map: M) -> Result<Self, Failed<M>> {
        let raw = RawElements::new(map, |map| {
            V::KIND.check(map)?;
            K::KIND.check_size("key", map.key_len())?;
            V::KIND.check_size("value", map.value_size())
        })?;
        let layout = PhantomData;
        Ok(Self { raw, layout })
    }

    /// Returns the map.
    pub fn map(&self) -> &M {
        self.raw.map.map()
    }

    /// Returns the map, and ends the view.
    pub fn into_map(self) -> M {
        self.raw.map.into_map()
    }

    /// The size of a key in bytes; 0 for a queue, a stack or a bloom filter.
    pub fn key_len(&self) -> usize {
        self.raw.key_len()
    }

    /// The size of a value in bytes; for a per-CPU map that of all CPUs, each padded to 8 bytes.
    pub fn value_len(&self) -> usize {
        self.raw.value_len()
    }

    pub(crate) fn is_per_cpu(&self) -> bool {
        self.raw.map.is_per_cpu()
    }

    fn key_bytes<'k>(&self, key: &'k K) -> &'k [u8] {
        bytes_of_all(K::as_units(key))
    }

    /// `BPF_MAP_UPDATE_ELEM`: sets the value under `key`. Linux 3.18; for a per-CPU map 4.6.
    ///
    /// A queue or stack has no keys, and gets the value at its end.
    ///
    /// # Task storage
    ///
    /// The values of [`TASK_STORAGE`](MapType::TASK_STORAGE) may hold addresses that the kernel follows. Before the
    /// first update through a view, four more syscalls read the map's BTF to rule that out. The update fails with
    /// [`Uptr`](Cause::Uptr) if there are such addresses, or if the BTF cannot be read, for example without
    /// `CAP_SYS_ADMIN` (EPERM).
    ///
    /// # Errors
    ///
    /// [`Operation::Update`]:
    /// - [`Size`](Cause::Size) if the length of a slice differs from the map's, without a syscall
    /// - [`KeyExists`](Cause::KeyExists) (EEXIST) and [`KeyMissing`](Cause::KeyMissing) (ENOENT), depending on the
    ///   flags
    /// - [`MaxEntries`](Cause::MaxEntries) (E2BIG, for a trie ENOSPC) if the map is full
    /// - [`IndexOutOfRange`](Cause::IndexOutOfRange) (E2BIG) for an array
    /// - [`InvalidArgument`](Cause::InvalidArgument) (EINVAL) for [`NOEXIST`](ElemFlags::NOEXIST) together with
    ///   [`EXIST`](ElemFlags::EXIST), and for [`LOCK`](ElemFlags::LOCK) if the values provably have no lock
    /// - EINVAL for other flags that the map does not accept, for example any flag of an array of objects
    /// - [`MapAccess`](Cause::MapAccess) or [`Frozen`](Cause::Frozen) (EPERM)
    /// - [`Uptr`](Cause::Uptr), see above
    /// - EBUSY if the key's bucket is being changed; ENOMEM
    ///
    /// For objects:
    /// - [`OtherProgType`](Cause::OtherProgType) (EINVAL) for a program if the array is for programs of another type
    /// - EINVAL for a program that differs from the first one used with the array in a property that the kernel does
    ///   not report: an XDP program loaded with [`XDP_HAS_FRAGS`](crate::prog::ProgFlags::XDP_HAS_FRAGS) and one
    ///   without; on newer kernels another [`expected_attach_type`](crate::ProgSpec::expected_attach_type); a
    ///   program run by the interpreter and one compiled by the JIT
    /// - EINVAL for a map that differs from the inner map that the map of maps was created with
    /// - EBADF or EINVAL for a descriptor that is not a cgroup or perf event
    #[inline]
    pub fn update(&self, key: &K, value: &V::Input, flags: ElemFlags) -> Result<()> {
        let key = self.key_bytes(key);
        match V::write(value, self.value_len(), |value| {
            self.raw.update(key, value, flags)
        }) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(self.update_error(value, reason)),
            Err(cause) => Err(self.raw.error(Operation::Update, cause)),
        }
    }

    #[cold]
    fn update_error(&self, value: &V::Input, reason: Reason) -> Error {
        self.raw
            .error(Operation::Update, reason)
            .explained(|errno| match errno {
                Errno::INVAL => V::explain(value, self.map().map_fd()),
                _ => None,
            })
    }

    /// `BPF_MAP_DELETE_ELEM`: removes the element under `key`. Returns whether it existed. Linux 3.18; for a per-CPU
    /// map 4.6.
    ///
    /// # Errors
    ///
    /// [`Operation::Delete`]:
    /// - [`Size`](Cause::Size) if the length of a slice differs from the map's, without a syscall
    /// - [`NoCommand`](Cause::NoCommand) (EINVAL) for an array, a queue and a stack
    /// - [`IndexOutOfRange`](Cause::IndexOutOfRange) (E2BIG) for an array of objects
    /// - [`MapAccess`](Cause::MapAccess) or [`Frozen`](Cause::Frozen) (EPERM)
    pub fn delete(&self, key: &K) -> Result<bool> {
        let removed = self.raw.delete(self.key_bytes(key));
        removed.map_err(|reason| self.raw.error(Operation::Delete, reason))
    }

    /// `BPF_MAP_GET_NEXT_KEY`: copies the key after `key`, or the first key, to `next`. Returns whether there was
    /// one. Linux 3.18; without a key 4.12.
    ///
    /// In a hash the first key follows a key that does not exist.
    ///
    /// # Errors
    ///
    /// [`Operation::NextKey`]:
    /// - [`Size`](Cause::Size) if the length of a slice differs from the map's, without a syscall
    /// - [`MapAccess`](Cause::MapAccess) (EPERM)
    /// - [`NoCommand`](Cause::NoCommand) (EINVAL, ENOTSUPP, EOPNOTSUPP) for a type without keys, or with keys that
    ///   cannot be listed
    pub fn next_key(&self, key: Option<&K>, next: &mut K) -> Result<bool> {
        let key = key.map(|key| self.key_bytes(key));
        let next = bytes_of_all_mut(K::as_units_mut(next));
        self.raw.next_key(key, next)
    }

    /// Iterates over all keys, with one call per key. Linux 4.12.
    ///
    /// The iterator reads one key ahead, so the key that it has just yielded may be deleted.
    ///
    /// # Races
    ///
    /// If another process deletes the key that was read ahead, a hash restarts and keys are repeated. After as many
    /// keys as the map has room for, the iterator ends with [`IterationAborted`](Cause::IterationAborted).
    ///
    /// A trie may return the value of another key for a yielded key: if that key was deleted in between, a lookup
    /// returns the value of its longest remaining prefix.
    ///
    /// # Errors
    ///
    /// The iterator yields an error and ends: [`Operation::NextKey`] as [`next_key`](Self::next_key), or with
    /// [`IterationAborted`](Cause::IterationAborted).
    pub fn keys(&self) -> Keys<'_, K, M> {
        Keys::new(&self.raw)
    }

    /// `BPF_MAP_DELETE_BATCH`: removes the elements under these keys. Returns how many existed. Linux 5.6.
    ///
    /// A key that does not exist is skipped, for one more call. If the type or the kernel has no batches, each key
    /// takes one call.
    ///
    /// # Errors
    ///
    /// [`Operation::DeleteBatch`], as [`delete`](Self::delete). The error reports the number of keys before the one that
    /// failed: each of these was removed or did not exist. [`Size`](Cause::Size) if the slice does not hold whole
    /// keys, before any change.
    pub fn delete_batch(&self, keys: &[K::Unit]) -> Result<usize> {
        self.raw.change(bytes_of_all(keys), Change::Delete)
    }
}

impl<K: Key + ?Sized, V: Readable + ?Sized, M: AsMap> Elements<K, V, M> {
    /// `BPF_MAP_LOOKUP_ELEM`: returns the value under `key`, if the key exists. Linux 3.18; for a per-CPU map 4.6.
    ///
    /// - A map of objects returns the object's id. [`from_id`](Map::from_id) opens it, which requires
    ///   `CAP_SYS_ADMIN`.
    /// - A queue or stack has no keys, and returns its next value without removing it.
    /// - A bloom filter takes the value as input: use [`lookup_into`](Self::lookup_into).
    ///
    /// # Races
    ///
    /// While another process or a program sets or deletes `key` in a hash, the returned value may belong to another
    /// key: the kernel reuses elements without waiting for a reader. Batches, which [`iter`](Self::iter) uses, are
    /// copied under the bucket's lock.
    ///
    /// # Errors
    ///
    /// [`Operation::Lookup`]:
    /// - [`Size`](Cause::Size) if the length of a slice differs from the map's, without a syscall
    /// - [`MapAccess`](Cause::MapAccess) (EPERM) for a map opened for writing only
    /// - [`NoCommand`](Cause::NoCommand) (ENOTSUPP, EOPNOTSUPP) for a type without lookups
    #[inline]
    pub fn lookup(&self, key: &K) -> Result<Option<V::Owned>> {
        let mut value = V::zeroed(self.value_len());
        let found = self.lookup_units(key, V::units(&mut value), ElemFlags::ANY)?;
        Ok(found.then_some(value))
    }

    #[inline]
    fn lookup_units(&self, key: &K, value: &mut [V::Unit], flags: ElemFlags) -> Result<bool> {
        let key = self.key_bytes(key);
        read_units::<V, _>(value, self.value_len(), |value| {
            self.raw.lookup(key, value, flags)
        })
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`: removes the element under `key` and returns its value, if it exists. Linux
    /// 4.20; for hashes 5.14.
    ///
    /// A queue or stack has the key `()` and returns its next value: this is `pop`.
    ///
    /// # Errors
    ///
    /// [`Operation::LookupAndDelete`]:
    /// - [`Size`](Cause::Size) if the length of a slice differs from the map's, without a syscall
    /// - [`MapAccess`](Cause::MapAccess) or [`Frozen`](Cause::Frozen) (EPERM)
    /// - [`NoCommand`](Cause::NoCommand) (ENOTSUPP) for a type without this command, for example an array
    /// - [`Unsupported`](Cause::Unsupported) for a hash on a kernel that has the command for other types only
    pub fn take(&self, key: &K) -> Result<Option<V::Owned>> {
        let mut value = V::zeroed(self.value_len());
        let found = self.take_units(key, V::units(&mut value), ElemFlags::ANY)?;
        Ok(found.then_some(value))
    }

    fn take_units(&self, key: &K, value: &mut [V::Unit], flags: ElemFlags) -> Result<bool> {
        let key = self.key_bytes(key);
        read_units::<V, _>(value, self.value_len(), |value| {
            self.raw.take(key, value, flags)
        })
    }

    /// `BPF_MAP_LOOKUP_BATCH`: copies elements from the position of `cursor`, as many as fit. Returns their number.
    /// Linux 5.6; for arrays of per-CPU values 5.13.
    ///
    /// `keys` and `values` hold one element after the other. With [`PerCpu`], `values` holds all values of one key,
    /// then those of the next. All elements were read when the cursor is at its [end](Cursor::is_end); a short batch
    /// is not the end. If the type or the kernel has no batches, each element is read on its own.
    ///
    /// # Races
    ///
    /// A hash returns whole buckets, so an element that stays is returned exactly once, whatever else is inserted
    /// or deleted in between. Other types continue from the last key, and may restart if that key was deleted. After
    /// as many keys as the map has room for, the call fails with [`IterationAborted`](Cause::IterationAborted).
    ///
    /// A trie may return the value of another key: the kernel looks up the value by its longest prefix, and returns
    /// that of a shorter prefix if the key is deleted in between.
    ///
    /// A value is copied while programs write to it. A value that they change in place, as in an array, may be half
    /// old and half new. With [`ElemFlags::LOCK`], for values with a `bpf_spin_lock`, it is copied as a whole. Locks,
    /// timers, kptrs and other fields that belong to the kernel are returned as zeroes.
    ///
    /// # Errors
    ///
    /// [`Operation::LookupBatch`]:
    /// - [`Size`](Cause::Size) if a slice does not hold whole elements
    /// - [`LengthMismatch`](Cause::LengthMismatch) if the slices hold different numbers of elements
    /// - [`BufferTooSmall`](Cause::BufferTooSmall) (ENOSPC) if the slices are too short for a bucket; the cursor stays
    /// - [`MapAccess`](Cause::MapAccess) (EPERM)
    /// - [`IterationAborted`](Cause::IterationAborted), see above
    /// - EINVAL for a flag other than [`ElemFlags::LOCK`]
    ///
    /// Without batches: [`Operation::NextKey`] and [`Operation::Lookup`]. A queue, stack or bloom filter has no keys
    /// and fails with [`NoCommand`](Cause::NoCommand).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::map::{Cursor, ElemFlags};
    /// use bpf_pin::Map;
    ///
    /// let map = Map::open("/sys/fs/bpf/flows")?;
    /// let flows = map.elements::<u32, u64>()?;
    /// let (mut keys, mut values, mut cursor) = ([0; 256], [0; 256], Cursor::new());
    /// while !cursor.is_end() {
    ///     let count = flows.lookup_batch(&mut cursor, &mut keys, &mut values, ElemFlags::ANY)?;
    ///     println!("{:?}", &keys[..count]);
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn lookup_batch(
        &self,
        cursor: &mut Cursor,
        keys: &mut [K::Unit],
        values: &mut [V::Unit],
        flags: ElemFlags,
    ) -> Result<usize> {
        self.read_batch(false, cursor, keys, values, flags)
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_BATCH`: as [`lookup_batch`](Self::lookup_batch), and removes the elements.
    /// Linux 5.6.
    ///
    /// For hashes. A queue or stack takes one call per element. Elements removed before a failure are returned first,
    /// and the next call reports the failure.
    ///
    /// # Errors
    ///
    /// As [`lookup_batch`](Self::lookup_batch), and as [`take`](Self::take) for a type without batches.
    pub fn take_batch(
        &self,
        cursor: &mut Cursor,
        keys: &mut [K::Unit],
        values: &mut [V::Unit],
        flags: ElemFlags,
    ) -> Result<usize> {
        self.read_batch(true, cursor, keys, values, flags)
    }

    fn read_batch(
        &self,
        takes: bool,
        cursor: &mut Cursor,
        keys: &mut [K::Unit],
        values: &mut [V::Unit],
        flags: ElemFlags,
    ) -> Result<usize> {
        let keys = bytes_of_all_mut(keys);
        read_units::<V, _>(values, self.value_len(), |values| {
            self.raw.read_batch(takes, cursor, keys, values, flags)
        })
    }

    /// Iterates over all elements, read in batches into one buffer. An element is as it was when its batch was read.
    ///
    /// A yielded key may be deleted. Values with a spin lock or a timer are read without [`ElemFlags::LOCK`]. For
    /// races see [`lookup_batch`](Self::lookup_batch): an element of a hash that stays is yielded exactly once, on a
    /// kernel with batches.
    ///
    /// # Errors
    ///
    /// Yielded after the elements that were read before it, as those of [`lookup_batch`](Self::lookup_batch). The
    /// buffer grows for a larger bucket.
    pub fn iter(&self) -> Iter<'_, K, V, M> {
        Iter::new(&self.raw, false)
    }

    /// Iterates over all elements and removes them: in batches from a hash, and from a queue or stack until it is
    /// empty.
    ///
    /// Dropping the iterator loses elements that were removed and not yet yielded.
    ///
    /// # Errors
    ///
    /// Yielded after the elements that were removed before it, as those of [`take_batch`](Self::take_batch). Other
    /// types fail with [`NoCommand`](Cause::NoCommand), and nothing is removed.
    pub fn drain(&self) -> Iter<'_, K, V, M> {
        Iter::new(&self.raw, true)
    }

    /// Returns all keys and all values; the value of a key has the same index.
    ///
    /// Contains what [`iter`](Self::iter) yields, with one allocation for keys and one for values, or a few for a
    /// large map. Keys and values are separate because the kernel writes them so, and
    /// [`update_batch`](Self::update_batch) takes them so.
    ///
    /// The layout `[u8]` returns their bytes one after the other. With [`PerCpu`], each key has as many values as there
    /// are CPUs, and one more allocation is made if the size of `T` is not a multiple of 8, to remove the padding.
    ///
    /// # Errors
    ///
    /// As [`lookup_batch`](Self::lookup_batch).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// let map = bpf_pin::Map::open("/sys/fs/bpf/flows")?;
    /// let (keys, values) = map.elements::<u32, u64>()?.to_vecs()?;
    /// for (key, value) in keys.iter().zip(&values) {
    ///     println!("{key}: {value}");
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    #[allow(clippy::type_complexity, reason = "two vectors")]
    pub fn to_vecs(&self) -> Result<(Vec<K::Unit>, Vec<V::Unit>)> {
        if !V::PADDED {
            return read_all(&self.raw);
        }
        let (keys, padded): (_, Vec<u8>) = read_all(&self.raw)?;
        Ok((keys, unpad::<V>(&padded)))
    }

    /// Removes all elements, in batches. Returns their number. Elements that another process inserts during the call
    /// may stay.
    ///
    /// # Errors
    ///
    /// As [`lookup_batch`](Self::lookup_batch) and [`delete_batch`](Self::delete_batch), which counts from the last
    /// batch that was read. [`NoCommand`](Cause::NoCommand) (EINVAL) for an array.
    pub fn clear(&self) -> Result<usize> {
        self.raw.clear()
    }
}

impl<K: Key + ?Sized, V: Plain + ?Sized, M: AsMap> Elements<K, V, M> {
    /// As [`lookup`](Self::lookup), with flags, into the caller's memory. Returns whether the key exists. Flags:
    /// Linux 5.1.
    ///
    /// With [`PerCpu`] it takes a slice with one value per CPU, and allocates nothing if the size of `T` is a multiple
    /// of 8. A bloom filter returns whether it holds the given value.
    ///
    /// # Errors
    ///
    /// As [`lookup`](Self::lookup), and:
    /// - [`Size`](Cause::Size) for a slice of another length
    /// - EINVAL for a flag that the map does not accept, for example [`LOCK`](ElemFlags::LOCK) without a lock;
    ///   [`InvalidArgument`](Cause::InvalidArgument) if that is proven
    #[inline]
    pub fn lookup_into(&self, key: &K, value: &mut V::Input, flags: ElemFlags) -> Result<bool> {
        let value = V::as_units_mut(value);
        match V::check_units(value.len(), self.value_len()) {
            Ok(()) => self.lookup_units(key, value, flags),
            Err(cause) => Err(self.raw.error(Operation::Lookup, cause)),
        }
    }

    /// As [`take`](Self::take), with flags, into the caller's memory. Returns whether the key existed.
    ///
    /// The only flag is [`LOCK`](ElemFlags::LOCK), for hashes.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take), and:
    /// - [`Size`](Cause::Size) for a slice of another length
    /// - EINVAL for a flag that the map does not accept
    pub fn take_into(&self, key: &K, value: &mut V::Input, flags: ElemFlags) -> Result<bool> {
        let value = V::as_units_mut(value);
        match V::check_units(value.len(), self.value_len()) {
            Ok(()) => self.take_units(key, value, flags),
            Err(cause) => Err(self.raw.error(Operation::LookupAndDelete, cause)),
        }
    }

    /// `BPF_MAP_UPDATE_BATCH`: sets the values under these keys, in order. Linux 5.6; for arrays of per-CPU values
    /// 5.13.
    ///
    /// With [`PerCpu`] each key has as many values as there are CPUs. If the type or the kernel has no batches, or
    /// does not support the flags in a batch, each element takes one call.
    ///
    /// # Errors
    ///
    /// [`Operation::UpdateBatch`], as [`update`](Self::update). The error reports the number of elements before the one
    /// that failed. [`Size`](Cause::Size) or [`LengthMismatch`](Cause::LengthMismatch) if the slices do not hold whole
    /// elements, or different numbers of them, before any change.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::map::ElemFlags;
    /// use bpf_pin::Map;
    ///
    /// let flows = Map::open("/sys/fs/bpf/flows")?;
    /// let (keys, values): (Vec<u32>, Vec<u64>) = (0..10_000).map(|key| (key, 0)).unzip();
    /// if let Err(error) = flows.elements::<u32, u64>()?.update_batch(&keys, &values, ElemFlags::ANY) {
    ///     // This element failed; those after it were not tried.
    ///     println!("{error}: {:?}", keys[error.elements_done()]);
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn update_batch(
        &self,
        keys: &[K::Unit],
        values: &[V::Unit],
        flags: ElemFlags,
    ) -> Result<()> {
        let keys = bytes_of_all(keys);
        write_units::<V, _>(values, |values| {
            self.raw
                .change(keys, Change::Update(values, flags))
                .map(drop)
        })
    }
}

impl<'a, K: Key + ?Sized, V: Readable + ?Sized, M: AsMap> IntoIterator for &'a Elements<K, V, M> {
    type Item = Result<(K::Owned, V::Owned)>;
    type IntoIter = Iter<'a, K, V, M>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: ?Sized, V: ?Sized, M: AsMap> fmt::Debug for Elements<K, V, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elements")
            .field("key_len", &self.raw.key_len())
            .field("value_len", &self.raw.value_len())
            .finish_non_exhaustive()
    }
}
