//! The elements of a per-CPU map.

use std::fmt;
use std::marker::PhantomData;

use bytemuck::{Pod, bytes_of, bytes_of_mut};

use crate::error::{Error, Failed, Result};
use crate::map::elem::{Walk, check_size};
use crate::map::typed::check_types;
use crate::map::{ElemFlags, Elems, Map, TypedKeys};
use crate::sys::AsMap;

/// The elements of a per-CPU map: under each key a slice of `V`, one for every possible CPU.
///
/// Of the hash and array types named `PERCPU`, on Linux 4.6 and later.
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
    /// [`Error::Elements`]: [`Size`](crate::Cause::Size) where `K`, or `V` for one CPU, is not as large
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
        let elems = Elems::new(map)?;
        match check_types::<K, V, M>(&elems, true) {
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
        self.check(values).map_err(|cause| Error::Lookup {
            reason: cause.into(),
        })?;
        if size_of::<V>() == Self::STRIDE {
            let bytes = bytemuck::cast_slice_mut(values);
            return self.elems.lookup(bytes_of(key), bytes);
        }
        let mut bytes = vec![0; self.elems.value_len()];
        let found = self.elems.lookup(bytes_of(key), &mut bytes)?;
        if !found {
            return Ok(false);
        }
        for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(Self::STRIDE)) {
            bytes_of_mut(value).copy_from_slice(&bytes[..size_of::<V>()]);
        }
        Ok(true)
    }

    /// `BPF_MAP_UPDATE_ELEM`: puts `values`, one for every possible CPU, under `key`.
    ///
    /// # Errors
    ///
    /// As [`Elems::update`]; [`Size`](crate::Cause::Size) for a slice of another length.
    pub fn update(&self, key: &K, values: &[V], flags: ElemFlags) -> Result<()> {
        self.check(values).map_err(|cause| Error::Update {
            reason: cause.into(),
        })?;
        if size_of::<V>() == Self::STRIDE {
            let bytes = bytemuck::cast_slice(values);
            return self.elems.update(bytes_of(key), bytes, flags);
        }
        let mut bytes = vec![0; self.elems.value_len()];
        for (value, bytes) in values.iter().zip(bytes.chunks_exact_mut(Self::STRIDE)) {
            bytes[..size_of::<V>()].copy_from_slice(bytes_of(value));
        }
        self.elems.update(bytes_of(key), &bytes, flags)
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

    fn check(&self, values: &[V]) -> Result<(), crate::Cause> {
        check_size("number of values", self.cpus(), values.len())
    }
}

impl<K, V, M: AsMap> fmt::Debug for PerCpu<K, V, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PerCpu").field(&self.elems).finish()
    }
}
