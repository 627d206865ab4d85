//! The elements of a map, in one view for every layout of keys and values.

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
use crate::cause::Cause;
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
        /// `BPF_NOEXIST`: only if there is no such key, else EEXIST.
        const NOEXIST = abi::BPF_NOEXIST;
        /// `BPF_EXIST`: only if there is such a key, else ENOENT.
        const EXIST = abi::BPF_EXIST;
        /// `BPF_F_LOCK`: under the value's spin lock. Linux 5.1.
        ///
        /// Requires a hash or an array whose values have a `struct bpf_spin_lock` by
        /// [`MapSpec::btf`](crate::MapSpec::btf), else EINVAL. The lock's own 4 bytes are neither read
        /// nor written.
        const LOCK = abi::BPF_F_LOCK;
        const _ = !0;
    }
}

impl ElemFlags {
    /// `BPF_ANY`: whether there is such a key or not.
    pub const ANY: Self = Self::empty();
}

/// The elements of a map, with keys `K` and values `V`: see [`Layout`] for what these can be.
///
/// The sizes are read and checked once. `M` is a [`Map`], a [`PinnedMap`](crate::PinnedMap) or a
/// reference to one.
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
/// Bytes, if the sizes are known at run time only:
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
/// Objects: an object goes in and its id comes out.
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
/// # What keeps objects
///
/// A prog array keeps its programs only as long as it has a descriptor or a pin. When the last of
/// these goes, the kernel takes all programs out, even if a loaded program still uses the array; its
/// tail calls then continue with the next instruction. So pin a prog array, or hold it open, for as
/// long as it is used. Maps of maps keep what they hold. A perf event array drops an event with the
/// descriptor of the map that put it there, unless it has
/// [`PRESERVE_ELEMS`](crate::types::MapFlags::PRESERVE_ELEMS).
///
/// Programs are held since Linux 4.2, perf events 4.3, cgroups 4.8, maps 4.12; ids are reported since
/// 4.13. Per-CPU hashes and arrays came with Linux 4.6, the LRU hash 4.10, the storage of cgroups 4.20.
pub struct Elements<K: ?Sized, V: ?Sized, M = Map> {
    raw: RawElements<M>,
    layout: PhantomData<fn(&K, &V)>,
}

impl Map {
    /// A view of the elements with keys `K` and values `V`: see [`Layout`]. One syscall, for the sizes;
    /// for a per-CPU map also one look at /sys in the life of a process, for the number of CPUs.
    ///
    /// # Errors
    ///
    /// [`Operation::Elements`]:
    /// - [`Size`](Cause::Size) if `K` or `V` is not as large as the map's
    /// - [`PerCpu`](Cause::PerCpu) if the map has a value for each CPU and `V` is one value, or the
    ///   other way round
    /// - [`HoldsNo`](Cause::HoldsNo) if maps of this type do not hold such objects
    /// - [`UnknownMapType`](Cause::UnknownMapType) for a type newer than this library
    /// - [`PossibleCpus`](Cause::PossibleCpus) for a per-CPU map if /sys is not mounted
    pub fn elements<K: Key + ?Sized, V: Layout + ?Sized>(&self) -> Result<Elements<K, V, &Self>> {
        Ok(Elements::new(self)?)
    }
}

impl<K: Key + ?Sized, V: Layout + ?Sized, M: AsMap> Elements<K, V, M> {
    /// A view that owns or borrows `map`.
    ///
    /// # Errors
    ///
    /// As [`Map::elements`], with the map.
    pub fn new(map: M) -> Result<Self, Failed<M>> {
        let raw = RawElements::new(map, |map| {
            V::HOLDS.check(map)?;
            K::HOLDS.check_size("key", map.key_len())?;
            V::HOLDS.check_size("value", map.value_size())
        })?;
        let layout = PhantomData;
        Ok(Self { raw, layout })
    }

    /// The map.
    pub fn map(&self) -> &M {
        self.raw.map.map()
    }

    /// The map back.
    pub fn into_map(self) -> M {
        self.raw.map.into_map()
    }

    /// The bytes of a key; 0 in a queue, a stack or a bloom filter.
    pub fn key_len(&self) -> usize {
        self.raw.key_len()
    }

    /// The bytes of a value; for a per-CPU map those of all CPUs, each rounded up to 8.
    pub fn value_len(&self) -> usize {
        self.raw.value_len()
    }

    pub(crate) fn is_per_cpu(&self) -> bool {
        self.raw.map.is_per_cpu()
    }

    fn key_bytes<'k>(&self, key: &'k K) -> &'k [u8] {
        bytes_of_all(K::as_units(key))
    }

    /// `BPF_MAP_UPDATE_ELEM`: puts `value` under `key`. A queue or stack, which has no keys, gets it at
    /// the end. Linux 3.18; for a per-CPU map 4.6.
    ///
    /// # Errors
    ///
    /// [`Operation::Update`]:
    /// - [`Size`](Cause::Size) if a slice is not as long as the map's, without a syscall
    /// - [`KeyExists`](Cause::KeyExists) (EEXIST) and [`KeyMissing`](Cause::KeyMissing) (ENOENT), by the
    ///   flags
    /// - [`MaxEntries`](Cause::MaxEntries) (E2BIG, of a trie ENOSPC) if the map is full
    /// - [`IndexBeyond`](Cause::IndexBeyond) (E2BIG) for an array
    /// - [`InvalidField`](Cause::InvalidField) (EINVAL) for [`NOEXIST`](ElemFlags::NOEXIST) together with
    ///   [`EXIST`](ElemFlags::EXIST), and for [`LOCK`](ElemFlags::LOCK) if it is proven that the values
    ///   have no lock; EINVAL alone for other flags that the map does not take, as any flag of an array
    ///   of objects
    /// - [`MapAccess`](Cause::MapAccess) or [`Frozen`](Cause::Frozen) (EPERM)
    /// - EBUSY if the key's bucket is being changed; ENOMEM
    ///
    /// The values of [`TASK_STORAGE`](MapType::TASK_STORAGE) may hold addresses that the kernel follows, so
    /// the map's BTF is read before the first of a view's updates, in four syscalls more:
    /// [`Uptr`](Cause::Uptr) if it has such addresses, and if it cannot be read, as without
    /// `CAP_SYS_ADMIN` (EPERM).
    ///
    /// For objects:
    /// - [`OtherProgType`](Cause::OtherProgType) (EINVAL) for a program if the array is for programs of
    ///   another type
    /// - EINVAL for a program that differs from the first one that met the array in what the kernel does
    ///   not report: an XDP program loaded with [`XDP_HAS_FRAGS`](crate::prog::ProgFlags::XDP_HAS_FRAGS) and
    ///   one without, on newer kernels another
    ///   [`expected_attach_type`](crate::ProgSpec::expected_attach_type), a program that is run by the
    ///   interpreter and one that is not
    /// - EINVAL for a map that is not like the one that the map of maps was created with
    /// - EBADF or EINVAL for what is no cgroup or perf event
    #[inline]
    pub fn update(&self, key: &K, value: &V::Input, flags: ElemFlags) -> Result<()> {
        let key = self.key_bytes(key);
        match V::write(value, self.value_len(), |value| {
            self.raw.put(key, value, flags)
        }) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(self.update_error(value, reason)),
            Err(cause) => Err(Error::new(Operation::Update, cause)),
        }
    }

    #[cold]
    fn update_error(&self, value: &V::Input, reason: Reason) -> Error {
        Error::new(Operation::Update, reason).explained(|errno| match errno {
            Errno::INVAL => V::explain(value, self.map().map_fd()),
            _ => None,
        })
    }

    /// `BPF_MAP_DELETE_ELEM`: removes the element under `key` and returns whether there was one. Linux
    /// 3.18; for a per-CPU map 4.6.
    ///
    /// # Errors
    ///
    /// [`Operation::Delete`] with [`Size`](Cause::Size); [`NoCommand`](Cause::NoCommand) (EINVAL) for an array, a
    /// queue and a stack; [`IndexBeyond`](Cause::IndexBeyond) (E2BIG) for an array
    /// of objects; [`MapAccess`](Cause::MapAccess) or [`Frozen`](Cause::Frozen) (EPERM).
    pub fn delete(&self, key: &K) -> Result<bool> {
        let removed = self.raw.remove(self.key_bytes(key));
        removed.map_err(|reason| Error::new(Operation::Delete, reason))
    }

    /// `BPF_MAP_GET_NEXT_KEY`: copies the key after `key`, or the first, to `next`, and returns whether
    /// there was one. In a hash the first key follows a key that does not exist. Linux 3.18; without a
    /// key 4.12.
    ///
    /// # Errors
    ///
    /// [`Operation::NextKey`] with [`Size`](Cause::Size); [`MapAccess`](Cause::MapAccess) (EPERM);
    /// [`NoCommand`](Cause::NoCommand) (EINVAL, ENOTSUPP, EOPNOTSUPP) for a type without keys, or with
    /// keys that cannot be listed.
    pub fn next_key(&self, key: Option<&K>, next: &mut K) -> Result<bool> {
        let key = key.map(|key| self.key_bytes(key));
        let next = bytes_of_all_mut(K::as_units_mut(next));
        self.raw.next_key(key, next)
    }

    /// All keys, one call each. Linux 4.12.
    ///
    /// The iterator is one key ahead, so the key that it has just yielded may be deleted. If another
    /// process deletes the one ahead, a hash begins again, and keys come twice; after as many as the map
    /// has room for, the iterator ends with [`IterationAborted`](Cause::IterationAborted).
    ///
    /// A key that is yielded was there. A lookup of its value in a trie may still find another's: if the
    /// key is deleted meanwhile, that of the longest prefix that is left.
    ///
    /// # Errors
    ///
    /// Yielded, and then it ends: [`Operation::NextKey`] as [`next_key`](Self::next_key), and with
    /// [`IterationAborted`](Cause::IterationAborted).
    pub fn keys(&self) -> Keys<'_, K, M> {
        Keys::new(&self.raw)
    }

    /// `BPF_MAP_DELETE_BATCH`: removes the elements under these keys and returns how many there were. A
    /// key that does not exist is passed over, for one call more. One by one if the type or the kernel
    /// has no batches. Linux 5.6.
    ///
    /// # Errors
    ///
    /// `Operation::LookupBatch`, which reports how far it came: each of so many keys was removed, or did not
    /// exist, and the next one failed. [`Size`](Cause::Size) for a slice that is not of whole keys,
    /// before any; and as [`delete`](Self::delete).
    pub fn delete_batch(&self, keys: &[K::Unit]) -> Result<usize> {
        self.raw.change(bytes_of_all(keys), Change::Delete)
    }
}

impl<K: Key + ?Sized, V: Readable + ?Sized, M: AsMap> Elements<K, V, M> {
    /// `BPF_MAP_LOOKUP_ELEM`: returns the value under `key`, if there is one; of a map of objects the
    /// object's id. Of a queue or stack, which has no keys, the next value, which stays. Linux 3.18; of
    /// a per-CPU map 4.6.
    ///
    /// The id of an object opens it by [`from_id`](Map::from_id), which requires
    /// `CAP_SYS_ADMIN`. A bloom filter is asked about the value that goes in: see
    /// [`lookup_into`](Self::lookup_into).
    ///
    /// If another process or a program sets or deletes the `key` of a hash at that moment, it may be the
    /// value of another key: the kernel reuses an element for the next one without waiting for a reader
    /// that copies from it. Batches, as [`iter`](Self::iter) reads, are copied under the bucket's lock.
    ///
    /// # Errors
    ///
    /// [`Operation::Lookup`]:
    /// - [`Size`](Cause::Size) if a slice is not as long as the map's, without a syscall
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

    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`: takes the value under `key` out and returns it, if there is one.
    /// A queue or stack has the key `()` and returns the next value: `pop`. Linux 4.20; for hashes 5.14.
    ///
    /// # Errors
    ///
    /// [`Operation::LookupAndDelete`]:
    /// - [`Size`](Cause::Size) if a slice is not as long as the map's, without a syscall
    /// - [`MapAccess`](Cause::MapAccess) or [`Frozen`](Cause::Frozen) (EPERM)
    /// - [`NoCommand`](Cause::NoCommand) (ENOTSUPP) for a type without this command, as an array
    /// - [`Unsupported`](Cause::Unsupported) for a hash on a kernel that has the command for other types
    ///   only
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

    /// `BPF_MAP_LOOKUP_BATCH`: copies the elements from where `cursor` is, as many as there is room for,
    /// and returns how many there were; one by one if the type or the kernel has no batches. Linux 5.6;
    /// for arrays of per-CPU values 5.13.
    ///
    /// `keys` and `values` have room for one element after the other; with [`PerCpu`], `values` has those
    /// of a key after those of another. All elements were read when the cursor is at its
    /// [end](Cursor::is_end), not when there were few.
    ///
    /// A hash returns a bucket's elements at once, so what stays comes once, whatever else is put in or
    /// deleted meanwhile. Other types continue from the last key, and may begin again if that was
    /// deleted: after as many keys as the map has room for, this ends with
    /// [`IterationAborted`](Cause::IterationAborted). For a trie the kernel looks a key's value up by its longest
    /// prefix: if the key is deleted between the two, it comes with the value of a shorter prefix.
    ///
    /// A value is copied while programs write to it, so what they change in place, as in an array, may
    /// come half old and half new. With [`ElemFlags::LOCK`], for values that have a `bpf_spin_lock`, it
    /// comes whole. The lock itself comes as zeroes in either case, as do timers, kptrs and whatever else
    /// the kernel keeps for itself in a value.
    ///
    /// # Errors
    ///
    /// `Operation::LookupBatch`:
    /// - [`Size`](Cause::Size) or [`LengthMismatch`](Cause::LengthMismatch) for slices that are not for whole elements,
    ///   or not for as many
    /// - [`LargerBucket`](Cause::LargerBucket) (ENOSPC) if there is too little room; the cursor stays
    /// - [`MapAccess`](Cause::MapAccess) (EPERM)
    /// - EINVAL for a flag that the map does not take, which is any but [`ElemFlags::LOCK`]
    ///
    /// One by one: [`Operation::NextKey`] and [`Operation::Lookup`]; for a queue, stack or bloom filter with
    /// [`NoCommand`](Cause::NoCommand), as they have no keys.
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

    /// `BPF_MAP_LOOKUP_AND_DELETE_BATCH`: as [`lookup_batch`](Self::lookup_batch), and takes the
    /// elements out. For hashes; for a queue or stack one by one. Linux 5.6.
    ///
    /// Elements that were taken out before a failure are returned first, so nothing is lost.
    ///
    /// # Errors
    ///
    /// As [`lookup_batch`](Self::lookup_batch), and as [`take`](Self::take) for a type that has no
    /// batches.
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

    /// All elements, read in batches into one buffer: as they were when their batch was read.
    ///
    /// A key that was yielded may be deleted. From a hash, on a kernel that has batches, what stays comes
    /// once, whatever others put in or delete meanwhile. For the rest see
    /// [`lookup_batch`](Self::lookup_batch), which also describes the key of a trie that comes with
    /// another's value, and values with a spin lock or a timer: they are read without
    /// [`ElemFlags::LOCK`].
    ///
    /// # Errors
    ///
    /// Yielded, after the elements that were read before it: as [`lookup_batch`](Self::lookup_batch). The buffer
    /// grows if a bucket is larger.
    pub fn iter(&self) -> Iter<'_, K, V, M> {
        Iter::new(&self.raw, false)
    }

    /// As [`iter`](Self::iter), and takes the elements out: of a hash, in batches, or of a queue or
    /// stack, until it is empty. Elements that were taken out and not yielded are lost when it is dropped.
    ///
    /// # Errors
    ///
    /// Yielded, after the elements that were taken out before it: as [`take_batch`](Self::take_batch). Other types
    /// have no such command: [`NoCommand`](Cause::NoCommand), and nothing is taken out.
    pub fn drain(&self) -> Iter<'_, K, V, M> {
        Iter::new(&self.raw, true)
    }

    /// All keys and all values, the value of a key at its index: what [`iter`](Self::iter) yields, each
    /// in one allocation, or a few if there is more than fits the first. They are two, not pairs,
    /// because the kernel writes them so, and [`update_batch`](Self::update_batch) takes them so.
    ///
    /// With `[u8]` they are one after the other; with [`PerCpu`] each key has as many values as there are
    /// CPUs, and one allocation more is made if `T` is no multiple of 8 bytes, for what the kernel writes
    /// between them.
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

    /// Removes all elements, in batches, and returns how many there were. Those that another process puts
    /// in meanwhile may stay.
    ///
    /// # Errors
    ///
    /// As [`lookup_batch`](Self::lookup_batch) and [`delete_batch`](Self::delete_batch), which counts
    /// from the last batch that was read: [`NoCommand`](Cause::NoCommand) (EINVAL) for an array.
    pub fn clear(&self) -> Result<usize> {
        self.raw.clear()
    }
}

impl<K: Key + ?Sized, V: Plain + ?Sized, M: AsMap> Elements<K, V, M> {
    /// [`lookup`](Self::lookup) with flags, into the caller's memory: returns whether there was a value.
    /// With [`PerCpu`] it takes a slice with one for each CPU, and allocates nothing if `T` is a multiple of 8
    /// bytes. A bloom filter looks whether the given value was put into it. Flags came with Linux 5.1.
    ///
    /// # Errors
    ///
    /// As [`lookup`](Self::lookup); [`Size`](Cause::Size) for a slice of another length; EINVAL for a flag
    /// that the map does not take, as [`LOCK`](ElemFlags::LOCK) without a lock:
    /// [`InvalidField`](Cause::InvalidField) if that is proven.
    #[inline]
    pub fn lookup_into(&self, key: &K, value: &mut V::Input, flags: ElemFlags) -> Result<bool> {
        let value = V::as_units_mut(value);
        match V::check_units(value.len(), self.value_len()) {
            Ok(()) => self.lookup_units(key, value, flags),
            Err(cause) => Err(Error::new(Operation::Lookup, cause)),
        }
    }

    /// [`take`](Self::take) with flags, into the caller's memory: returns whether there was a value.
    /// The only flag is [`LOCK`](ElemFlags::LOCK), for hashes.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take); [`Size`](Cause::Size) for a slice of another length; EINVAL for a flag that
    /// the map does not take.
    pub fn take_into(&self, key: &K, value: &mut V::Input, flags: ElemFlags) -> Result<bool> {
        let value = V::as_units_mut(value);
        match V::check_units(value.len(), self.value_len()) {
            Ok(()) => self.take_units(key, value, flags),
            Err(cause) => Err(Error::new(Operation::LookupAndDelete, cause)),
        }
    }

    /// `BPF_MAP_UPDATE_BATCH`: puts each of the values under its key, in their order; one by one if the
    /// type or the kernel has no batches, or does not take the flags for one. With [`PerCpu`] each key
    /// has as many values as there are CPUs. Linux 5.6; for arrays of per-CPU values 5.13.
    ///
    /// # Errors
    ///
    /// `Operation::LookupBatch`, which reports how many were done before: [`Size`](Cause::Size) or
    /// [`LengthMismatch`](Cause::LengthMismatch) for slices that are not of whole elements, or not of as many, before
    /// any; and as [`update`](Self::update) for the one that comes next.
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
    ///     // All from this one on are still to be put in.
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
