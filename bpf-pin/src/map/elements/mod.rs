//! The elements of a map: one view for every layout of keys and values.

mod batch;
mod bulk;
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

use layout::{bytes_of_all, bytes_of_all_mut, read_units};
use raw::RawElements;

bitflags! {
    /// The flags of `BPF_MAP_UPDATE_ELEM` and `BPF_MAP_LOOKUP_ELEM`.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::map::ElemFlags;
    /// use bpf_pin::PinnedMap;
    ///
    /// let flows = PinnedMap::open("/sys/fs/bpf/flows")?;
    /// // Fails if the key exists.
    /// flows.elements::<u32, u64>()?.update(&7, &1, ElemFlags::NOEXIST)?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct ElemFlags: u64 {
        /// `BPF_NOEXIST`: creates an element, and fails with EEXIST if the key exists.
        const NOEXIST = abi::BPF_NOEXIST;
        /// `BPF_EXIST`: replaces an element, and fails with ENOENT if the key does not exist.
        const EXIST = abi::BPF_EXIST;
        /// `BPF_F_LOCK`: reads or writes under the value's spin lock. Linux 5.1.
        ///
        /// Requires a hash or an array with a `struct bpf_spin_lock` in its values, described by
        /// [`MapSpec::btf`](crate::MapSpec::btf), else EINVAL. The 4 bytes of the lock itself are neither
        /// read nor written.
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
/// Plain data: integers, arrays of them, and structs that derive
/// [`Pod`](https://docs.rs/bytemuck/latest/bytemuck/trait.Pod.html), with
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
/// The layouts `Map`, `Prog` and [`Descriptor`] borrow the descriptor that they write. With `[u8]` and `u32`
/// an element is the number of a descriptor, which the kernel looks up in the call: keep it open, or another
/// object that has the number by then is stored.
///
/// # Lifetime of objects in a map
///
/// - A prog array keeps its programs only as long as it has a descriptor or a pin. When the last of these is
///   gone, the kernel removes all programs, even if a loaded program still uses the array. Its tail calls
///   then continue with the next instruction. So pin a prog array or hold it open as long as it is used.
/// - Maps of maps keep their maps.
/// - A perf event array drops an event when the descriptor that inserted it is closed, unless the array has
///   [`PRESERVE_ELEMS`](crate::types::MapFlags::PRESERVE_ELEMS).
///
/// # 32-bit kernels
///
/// In an array of maps an update can succeed and a lookup of the same index fail with ENOENT: the kernel stores
/// pointers 4 bytes apart and looks them up 8 bytes apart. A hash of maps is not affected.
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
    /// One syscall, for the sizes. A per-CPU map also needs the number of CPUs, which is read from /sys once
    /// per process.
    ///
    /// # Errors
    ///
    /// [`Operation::Elements`]:
    /// - [`Size`](Cause::Size) if the size of `K` or `V` differs from the map's
    /// - [`PerCpu`](Cause::PerCpu) if the map has a value for each CPU and `V` is a single value, or the
    ///   other way round
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
    /// The values of [`TASK_STORAGE`](MapType::TASK_STORAGE) may hold addresses that the kernel follows.
    /// Before the first update through a view, four more syscalls read the map's BTF to rule that out. The
    /// update fails with [`Uptr`](Cause::Uptr) if there are such addresses, or if the BTF cannot be read, for
    /// example without `CAP_SYS_ADMIN` (EPERM).
    ///
    /// # Errors
    ///
    /// [`Operation::Update`]:
    /// - [`Size`](Cause::Size) if the length of a slice differs from the map's, without a syscall
    /// - [`KeyExists`](Cause::KeyExists) (EEXIST) and [`KeyMissing`](Cause::KeyMissing) (ENOENT), depending
    ///   on the flags
    /// - [`MaxEntries`](Cause::MaxEntries) (E2BIG, for a trie ENOSPC) if the map is full
    /// - [`IndexOutOfRange`](Cause::IndexOutOfRange) (E2BIG) for an array
    /// - [`InvalidArgument`](Cause::InvalidArgument) (EINVAL) for [`NOEXIST`](ElemFlags::NOEXIST) together
    ///   with [`EXIST`](ElemFlags::EXIST), and for [`LOCK`](ElemFlags::LOCK) if the values provably have no
    ///   lock
    /// - EINVAL for other flags that the map does not accept, for example any flag of an array of objects
    /// - [`MapAccess`](Cause::MapAccess) or [`Frozen`](Cause::Frozen) (EPERM)
    /// - [`Uptr`](Cause::Uptr), see above
    /// - EBUSY if the key's bucket is being changed; ENOMEM
    ///
    /// For objects:
    /// - [`OtherProgType`](Cause::OtherProgType) (EINVAL) for a program if the array is for programs of
    ///   another type
    /// - [`IncompatibleProg`](Cause::IncompatibleProg) (EINVAL) for a program that differs from those of the array
    ///   in a property that the kernel does not report: an XDP program loaded with
    ///   [`XDP_HAS_FRAGS`](crate::prog::ProgFlags::XDP_HAS_FRAGS) and one without; on newer kernels another
    ///   [`expected_attach_type`](crate::ProgSpec::expected_attach_type); a program run by the interpreter
    ///   and one compiled by the JIT. EINVAL without a cause if no program of the array can be opened
    ///   (`CAP_SYS_ADMIN`).
    /// - [`OtherInnerMap`](Cause::OtherInnerMap) (EINVAL) for a map that differs from the inner map that the
    ///   map of maps was created with. The fields are known if a map in it can be opened (`CAP_SYS_ADMIN`).
    ///   Otherwise programs that are loaded and dropped show only the sizes of key and value (`CAP_BPF`).
    ///   EINVAL without a cause if neither shows a difference.
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

    /// `BPF_MAP_DELETE_ELEM`: removes the element under `key`. Returns whether it existed. Linux 3.18; for a
    /// per-CPU map 4.6.
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

    /// `BPF_MAP_GET_NEXT_KEY`: copies the key after `key`, or the first key, to `next`. Returns whether there
    /// was one. Linux 3.18; without a key 4.12.
    ///
    /// In a hash the first key follows a key that does not exist.
    ///
    /// # Errors
    ///
    /// [`Operation::NextKey`]:
    /// - [`Size`](Cause::Size) if the length of a slice differs from the map's, without a syscall
    /// - [`MapAccess`](Cause::MapAccess) (EPERM)
    /// - [`NoCommand`](Cause::NoCommand) (EINVAL, ENOTSUPP, EOPNOTSUPP) for a type without keys, or with keys
    ///   that cannot be listed
    pub fn next_key(&self, key: Option<&K>, next: &mut K) -> Result<bool> {
        let key = key.map(|key| self.key_bytes(key));
        let next = bytes_of_all_mut(K::as_units_mut(next));
        self.raw.next_key(key, next)
    }
}

impl<K: Key + ?Sized, V: Readable + ?Sized, M: AsMap> Elements<K, V, M> {
    /// `BPF_MAP_LOOKUP_ELEM`: returns the value under `key`, if the key exists. Linux 3.18; for a per-CPU map
    /// 4.6.
    ///
    /// - A map of objects returns the object's id. [`from_id`](Map::from_id) opens it, which requires
    ///   `CAP_SYS_ADMIN`.
    /// - A queue or stack has no keys, and returns its next value without removing it.
    /// - A bloom filter takes the value as input: use [`lookup_into`](Self::lookup_into).
    ///
    /// # Races
    ///
    /// While another process or a program sets or deletes `key` in a hash, the returned value may belong to
    /// another key: the kernel reuses elements without waiting for a reader. Batches, which
    /// [`iter`](Self::iter) uses, are copied under the bucket's lock.
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

    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`: removes the element under `key` and returns its value, if it exists.
    /// Linux 4.20; for hashes 5.14.
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
}

impl<K: Key + ?Sized, V: Plain + ?Sized, M: AsMap> Elements<K, V, M> {
    /// As [`lookup`](Self::lookup), with flags, into the caller's memory. Returns whether the key exists.
    /// Flags: Linux 5.1.
    ///
    /// With [`PerCpu`] it takes a slice with one value per CPU, and allocates nothing if the size of `T` is a
    /// multiple of 8. A bloom filter returns whether it holds the given value.
    ///
    /// # Errors
    ///
    /// As [`lookup`](Self::lookup), and:
    /// - [`Size`](Cause::Size) for a slice of another length
    /// - EINVAL for a flag that the map does not accept, for example [`LOCK`](ElemFlags::LOCK) without a
    ///   lock; [`InvalidArgument`](Cause::InvalidArgument) if that is proven
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
}

impl<K: ?Sized, V: ?Sized, M: AsMap> fmt::Debug for Elements<K, V, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elements")
            .field("key_len", &self.raw.key_len())
            .field("value_len", &self.raw.value_len())
            .finish_non_exhaustive()
    }
}
