//! The layouts of keys and values.

use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::slice;

use bytemuck::{Pod, Zeroable, bytes_of, cast_slice, cast_slice_mut, pod_read_unaligned};

use crate::error::Result;
use crate::error::{Cause, ObjectType};
use crate::map::Map;
use crate::map::inner::other_inner_map;
use crate::object::Prog;
use crate::procfs;
use crate::sys::{self, AsMap, SizedMap};
use crate::types::{MapType, ProgType};

/// The layout of a map's values: which type goes in and which comes out.
///
/// | layout | input | output | maps |
/// |---|---|---|---|
/// | `T`, plain data ([`Pod`](https://docs.rs/bytemuck/latest/bytemuck/trait.Pod.html)) | `&T` | `T` | all with one value per key |
/// | `[u8]` | `&[u8]` | `Vec<u8>` | all; the size is read at run time |
/// | [`PerCpu<T>`](PerCpu) | `&[T]` | `Vec<T>` | per-CPU maps |
/// | [`Prog`] | `&Prog` | the program's id | prog arrays |
/// | [`Map`] | `&Map` | the map's id | arrays and hashes of maps |
/// | [`Descriptor`] | `&dyn AsFd` | none | arrays of cgroups or perf events |
///
/// Sealed.
pub trait Layout: sealed::Sealed {
    /// The type of the value that [`update`](crate::map::Elements::update) takes by reference.
    type Input: ?Sized;

    #[doc(hidden)]
    const KIND: ValueKind;

    /// Calls `write` with the bytes that the kernel reads.
    #[doc(hidden)]
    fn write<R>(
        input: &Self::Input,
        value_len: usize,
        write: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Cause>;

    /// Explains why the map rejected this value with EINVAL.
    #[doc(hidden)]
    fn explain(_input: &Self::Input, _map: BorrowedFd<'_>) -> Option<Cause> {
        None
    }
}

/// A [`Layout`] that can be read: all except [`Descriptor`]. Sealed.
pub trait Readable: Layout {
    /// The item of the slices that batches use.
    type Unit: Pod;
    /// An owned key or value.
    type Owned;
    /// A borrowed key or value, from [`Iter::next_ref`](crate::map::Iter::next_ref).
    type Ref<'a>;

    /// True if the kernel pads each unit to 8 bytes.
    #[doc(hidden)]
    const PADDED: bool = false;

    #[doc(hidden)]
    fn zeroed(len: usize) -> Self::Owned;

    #[doc(hidden)]
    fn units(owned: &mut Self::Owned) -> &mut [Self::Unit];

    #[doc(hidden)]
    fn read(bytes: &[u8]) -> Self::Owned;

    #[doc(hidden)]
    fn borrow<'a>(bytes: &'a [u8], buffer: &'a mut Vec<Self::Unit>) -> Self::Ref<'a>;
}

/// A [`Readable`] layout with the same type as input and output: plain data, `[u8]` and [`PerCpu`]. Sealed.
pub trait Plain: Readable {
    #[doc(hidden)]
    fn as_units(input: &Self::Input) -> &[Self::Unit];

    #[doc(hidden)]
    fn as_units_mut(input: &mut Self::Input) -> &mut [Self::Unit];

    #[doc(hidden)]
    fn check_units(_units: usize, _value_len: usize) -> Result<(), Cause> {
        Ok(())
    }
}

/// The layout of a key: plain data or `[u8]`. Sealed.
pub trait Key: Plain + Layout<Input = Self> {}

/// The layout of a per-CPU map: each value has one `T` for every possible CPU, in the order of CPU numbers.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::map::PerCpu;
/// use bpf_pin::PinnedMap;
///
/// let packets = PinnedMap::open("/sys/fs/bpf/packets")?;
/// if let Some(counts) = packets.elements::<u32, PerCpu<u64>>()?.lookup(&0)? {
///     println!("{} on {} CPUs", counts.iter().sum::<u64>(), counts.len());
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug)]
pub struct PerCpu<T>(PhantomData<T>);

/// The layout of a map of cgroups or perf events: each value is a descriptor. The kernel does not report what
/// such a map holds.
///
/// # Examples
///
/// ```no_run
/// use std::fs::File;
///
/// use bpf_pin::map::{Descriptor, ElemFlags};
/// use bpf_pin::PinnedMap;
///
/// let groups = PinnedMap::open("/sys/fs/bpf/groups")?;
/// let group = File::open("/sys/fs/cgroup/app")?;
/// groups.elements::<u32, Descriptor>()?.update(&0, &group, ElemFlags::ANY)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Descriptor(());

/// The values that a layout needs.
#[doc(hidden)]
#[derive(Debug)]
pub enum ValueKind {
    /// One value of this size.
    One(usize),
    /// One value of this size for each CPU.
    EachCpu(usize),
    Bytes,
    Objects(&'static [MapType], &'static str),
}

impl ValueKind {
    pub(super) fn check<M: AsMap>(&self, map: &SizedMap<M>) -> Result<(), Cause> {
        let map_type = MapType(map.map_type());
        let is_per_cpu = map.is_per_cpu();
        match *self {
            Self::One(_) if is_per_cpu => Err(Cause::PerCpu { is_per_cpu }),
            Self::EachCpu(_) if !is_per_cpu => Err(Cause::PerCpu { is_per_cpu }),
            Self::Objects(map_types, what) if !map_types.contains(&map_type) => {
                Err(Cause::unsupported(ObjectType::Map(map_type), what))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn check_size(&self, what: &'static str, expected: usize) -> Result<(), Cause> {
        match *self {
            Self::One(size) | Self::EachCpu(size) => check_size(what, expected, size),
            Self::Bytes | Self::Objects(..) => Ok(()),
        }
    }
}

mod sealed {
    pub trait Sealed {}
    impl<T: bytemuck::Pod> Sealed for T {}
    impl Sealed for [u8] {}
    impl<T: bytemuck::Pod> Sealed for super::PerCpu<T> {}
    impl Sealed for super::Prog {}
    impl Sealed for super::Map {}
    impl Sealed for super::Descriptor {}
}

/// Implements [`Readable`] for values of one unit.
macro_rules! single_unit {
    ($unit:ty) => {
        type Unit = $unit;
        type Owned = $unit;
        type Ref<'a> = $unit;

        #[inline]
        fn zeroed(_len: usize) -> $unit {
            Zeroable::zeroed()
        }

        #[inline]
        fn units(owned: &mut $unit) -> &mut [$unit] {
            slice::from_mut(owned)
        }

        #[inline]
        fn read(bytes: &[u8]) -> $unit {
            pod_read_unaligned(bytes)
        }

        #[inline]
        fn borrow<'a>(bytes: &'a [u8], _buffer: &'a mut Vec<$unit>) -> $unit {
            pod_read_unaligned(bytes)
        }
    };
}

impl<T: Pod> Layout for T {
    type Input = T;
    const KIND: ValueKind = ValueKind::One(size_of::<T>());

    #[inline]
    fn write<R>(input: &T, _: usize, write: impl FnOnce(&[u8]) -> R) -> Result<R, Cause> {
        Ok(write(bytes_of(input)))
    }
}

impl<T: Pod> Readable for T {
    single_unit!(T);
}

impl<T: Pod> Plain for T {
    #[inline]
    fn as_units(input: &T) -> &[T] {
        slice::from_ref(input)
    }

    #[inline]
    fn as_units_mut(input: &mut T) -> &mut [T] {
        slice::from_mut(input)
    }
}

impl<T: Pod> Key for T {}

impl Layout for [u8] {
    type Input = [u8];
    const KIND: ValueKind = ValueKind::Bytes;

    #[inline]
    fn write<R>(input: &[u8], _: usize, write: impl FnOnce(&[u8]) -> R) -> Result<R, Cause> {
        Ok(write(input))
    }
}

impl Readable for [u8] {
    type Unit = u8;
    type Owned = Vec<u8>;
    type Ref<'a> = &'a [u8];

    fn zeroed(len: usize) -> Vec<u8> {
        vec![0; len]
    }

    fn units(owned: &mut Vec<u8>) -> &mut [u8] {
        owned
    }

    fn read(bytes: &[u8]) -> Vec<u8> {
        bytes.to_vec()
    }

    fn borrow<'a>(bytes: &'a [u8], _buffer: &'a mut Vec<u8>) -> &'a [u8] {
        bytes
    }
}

impl Plain for [u8] {
    fn as_units(input: &[u8]) -> &[u8] {
        input
    }

    fn as_units_mut(input: &mut [u8]) -> &mut [u8] {
        input
    }
}

impl Key for [u8] {}

impl<T: Pod> PerCpu<T> {
    /// The distance between the values of two CPUs: the kernel pads each to 8 bytes.
    pub(super) const STRIDE: usize = stride::<T>();
}

impl<T: Pod> Layout for PerCpu<T> {
    type Input = [T];
    const KIND: ValueKind = ValueKind::EachCpu(size_of::<T>());

    fn write<R>(input: &[T], len: usize, write: impl FnOnce(&[u8]) -> R) -> Result<R, Cause> {
        Self::check_units(input.len(), len)?;
        Ok(write_units::<Self, R>(input, write))
    }
}

impl<T: Pod> Readable for PerCpu<T> {
    type Unit = T;
    type Owned = Vec<T>;
    type Ref<'a> = &'a [T];

    const PADDED: bool = size_of::<T>() != Self::STRIDE;

    fn zeroed(len: usize) -> Vec<T> {
        vec![T::zeroed(); len / Self::STRIDE]
    }

    fn units(owned: &mut Vec<T>) -> &mut [T] {
        owned
    }

    fn read(bytes: &[u8]) -> Vec<T> {
        unpadded(bytes).collect()
    }

    fn borrow<'a>(bytes: &'a [u8], buffer: &'a mut Vec<T>) -> &'a [T] {
        buffer.clear();
        buffer.extend(unpadded::<T>(bytes));
        buffer
    }
}

impl<T: Pod> Plain for PerCpu<T> {
    fn as_units(input: &[T]) -> &[T] {
        input
    }

    fn as_units_mut(input: &mut [T]) -> &mut [T] {
        input
    }

    fn check_units(units: usize, value_len: usize) -> Result<(), Cause> {
        check_size("number of values", value_len / Self::STRIDE, units)
    }
}

impl Layout for Prog {
    type Input = Self;
    const KIND: ValueKind = ValueKind::Objects(&[MapType::PROG_ARRAY], "do not hold programs");

    fn write<R>(prog: &Self, _: usize, write: impl FnOnce(&[u8]) -> R) -> Result<R, Cause> {
        write_number(prog, write)
    }

    fn explain(prog: &Self, map: BorrowedFd<'_>) -> Option<Cause> {
        incompatible_prog(prog, map)
    }
}

impl Readable for Prog {
    single_unit!(u32);
}

impl Layout for Map {
    type Input = Self;
    const KIND: ValueKind = ValueKind::Objects(
        &[MapType::ARRAY_OF_MAPS, MapType::HASH_OF_MAPS],
        "do not hold maps",
    );

    fn write<R>(map: &Self, _: usize, write: impl FnOnce(&[u8]) -> R) -> Result<R, Cause> {
        write_number(map, write)
    }

    fn explain(map: &Self, outer: BorrowedFd<'_>) -> Option<Cause> {
        other_inner_map(map, outer)
    }
}

impl Readable for Map {
    single_unit!(u32);
}

impl Layout for Descriptor {
    type Input = dyn AsFd;
    const KIND: ValueKind = ValueKind::Objects(
        &[MapType::CGROUP_ARRAY, MapType::PERF_EVENT_ARRAY],
        "do not hold cgroups or perf events",
    );

    fn write<R>(fd: &Self::Input, _: usize, write: impl FnOnce(&[u8]) -> R) -> Result<R, Cause> {
        write_number(fd, write)
    }
}

fn write_number<R>(fd: &dyn AsFd, write: impl FnOnce(&[u8]) -> R) -> Result<R, Cause> {
    Ok(write(&fd.as_fd().as_raw_fd().to_ne_bytes()))
}

/// A prog array accepts programs that have the type of the first one used with it, which fdinfo shows, and that
/// equal it in properties that the kernel does not report. These are compared with a program in the array.
#[cold]
fn incompatible_prog(prog: &Prog, map: BorrowedFd<'_>) -> Option<Cause> {
    let fdinfo = procfs::fdinfo(map).ok()?;
    let owner = ProgType(fdinfo.get("owner_prog_type")?.parse().ok()?);
    let found = prog.info().ok()?.prog_type;
    if owner != found {
        return Some(Cause::OtherProgType { owner, found });
    }
    let map = Map::from_proven_fd(map.try_clone_to_owned().ok()?);
    let progs = map.elements::<u32, Prog>().ok()?;
    let opened = progs.iter().find_map(|entry| {
        let (_, prog_id) = entry.ok()?;
        Some((prog_id, Prog::from_id(prog_id).ok()?))
    });
    let (prog_id, other) = opened?;
    let is_accepted = sys::share_prog_array(other.as_fd(), prog.as_fd()).ok()?;
    (!is_accepted).then_some(Cause::IncompatibleProg { prog_id })
}

pub(super) fn check_size(what: &'static str, expected: usize, found: usize) -> Result<(), Cause> {
    if expected == found {
        return Ok(());
    }
    Err(Cause::Size {
        what,
        expected,
        found,
    })
}

const fn stride<T>() -> usize {
    size_of::<T>().next_multiple_of(8)
}

fn unpadded<T: Pod>(bytes: &[u8]) -> impl Iterator<Item = T> {
    let all = bytes.chunks_exact(stride::<T>());
    all.map(|bytes| pod_read_unaligned(&bytes[..size_of::<T>()]))
}

/// Reads into these units. Removes the padding of as many elements as `read` returns.
#[inline]
pub(super) fn read_units<V: Readable + ?Sized, R: Copy + Into<usize>>(
    units: &mut [V::Unit],
    value_len: usize,
    read: impl FnOnce(&mut [u8]) -> Result<R>,
) -> Result<R> {
    if !V::PADDED {
        return read(bytes_of_all_mut(units));
    }
    let stride = stride::<V::Unit>();
    let mut bytes = vec![0; units.len() * stride];
    let count = read(&mut bytes)?;
    let filled = bytes.len().min(count.into() * value_len);
    for (unit, read) in units.iter_mut().zip(unpadded(&bytes[..filled])) {
        *unit = read;
    }
    Ok(count)
}

/// Writes these units, with padding if the layout has it.
#[inline]
pub(super) fn write_units<V: Readable + ?Sized, R>(
    units: &[V::Unit],
    write: impl FnOnce(&[u8]) -> R,
) -> R {
    if !V::PADDED {
        return write(bytes_of_all(units));
    }
    let stride = stride::<V::Unit>();
    let mut bytes = vec![0; units.len() * stride];
    for (unit, padded) in units.iter().zip(bytes.chunks_exact_mut(stride)) {
        padded[..size_of::<V::Unit>()].copy_from_slice(bytes_of(unit));
    }
    write(&bytes)
}

/// Removes the padding of all values of a map.
pub(super) fn unpad<V: Readable + ?Sized>(bytes: &[u8]) -> Vec<V::Unit> {
    unpadded(bytes).collect()
}

/// The bytes of plain data. Types without a size have none.
#[inline]
pub(super) fn bytes_of_all<T: Pod>(all: &[T]) -> &[u8] {
    match size_of::<T>() {
        0 => &[],
        _ => cast_slice(all),
    }
}

#[inline]
pub(super) fn bytes_of_all_mut<T: Pod>(all: &mut [T]) -> &mut [u8] {
    match size_of::<T>() {
        0 => &mut [],
        _ => cast_slice_mut(all),
    }
}
