//! How keys and values lie in memory.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::slice;

use bytemuck::{Pod, Zeroable, bytes_of, cast_slice, cast_slice_mut, pod_read_unaligned};

use crate::cause::Cause;
use crate::error::Result;
use crate::map::Map;
use crate::object::Prog;
use crate::procfs;
use crate::sys::{AsMap, SizedMap};
use crate::types::{MapType, ProgType};

/// How the values of a map are laid out, and so what goes in and comes out of them.
///
/// | layout | in | out | maps |
/// |---|---|---|---|
/// | `T`, plain data ([`Pod`](crate::bytemuck::Pod)) | `&T` | `T` | with one value per key |
/// | `[u8]` | `&[u8]` | `Vec<u8>` | all; the size is read at run time |
/// | [`PerCpu<T>`](PerCpu) | `&[T]` | `Vec<T>` | per CPU |
/// | [`Prog`] | `&Prog` | the program's id | prog arrays |
/// | [`Map`] | `&Map` | the map's id | arrays and hashes of maps |
/// | [`Descriptor`] | `&dyn AsFd` | nothing | arrays of cgroups or perf events |
///
/// Sealed.
pub trait Layout: sealed::Sealed {
    /// The type that [`update`](crate::map::Elements::update) takes by reference.
    type Input: ?Sized;

    #[doc(hidden)]
    const HOLDS: Holds;

    /// Calls `write` with the bytes that the kernel reads.
    #[doc(hidden)]
    fn write<R>(
        input: &Self::Input,
        value_len: usize,
        write: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Cause>;

    /// Why the map did not take this value (EINVAL).
    #[doc(hidden)]
    fn explain(_input: &Self::Input, _map: BorrowedFd<'_>) -> Option<Cause> {
        None
    }
}

/// A [`Layout`] that can be read: all but [`Descriptor`]. Sealed.
pub trait Readable: Layout {
    /// Batches take slices of it.
    type Unit: Pod;
    /// A whole key or value.
    type Owned;
    /// The borrowed form that [`Iter::next_ref`](crate::map::Iter::next_ref) yields.
    type Ref<'a>;

    /// True if the kernel aligns each unit to 8 bytes.
    #[doc(hidden)]
    const PADDED: bool = false;

    #[doc(hidden)]
    fn zeroed(len: usize) -> Self::Owned;

    #[doc(hidden)]
    fn units(owned: &mut Self::Owned) -> &mut [Self::Unit];

    #[doc(hidden)]
    fn read(bytes: &[u8]) -> Self::Owned;

    #[doc(hidden)]
    fn lend<'a>(bytes: &'a [u8], room: &'a mut Vec<Self::Unit>) -> Self::Ref<'a>;
}

/// A [`Readable`] layout that is the same in both directions: plain data, `[u8]` and [`PerCpu`]. Sealed.
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

/// The layout of a per-CPU map: each value is one `T` for every possible CPU, in the order of their
/// numbers.
pub struct PerCpu<T>(PhantomData<T>);

/// The layout of a map of cgroups or perf events: a value is the descriptor of one. The kernel does
/// not report what such a map holds.
#[derive(Debug)]
pub struct Descriptor(());

/// The values that a map must have.
#[doc(hidden)]
#[derive(Debug)]
pub enum Holds {
    /// One value of so many bytes.
    One(usize),
    /// One value of so many bytes for each CPU.
    EachCpu(usize),
    Bytes,
    Objects(&'static [MapType], &'static str),
}

impl Holds {
    pub(super) fn check<M: AsMap>(&self, map: &SizedMap<M>) -> Result<(), Cause> {
        let map_type = MapType(map.map_type());
        let is_per_cpu = map.is_per_cpu();
        match *self {
            Self::One(_) if is_per_cpu => Err(Cause::PerCpu { is_per_cpu }),
            Self::EachCpu(_) if !is_per_cpu => Err(Cause::PerCpu { is_per_cpu }),
            Self::Objects(held_by, what) if !held_by.contains(&map_type) => {
                Err(Cause::HoldsNo { map_type, what })
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

/// A value that is one unit.
macro_rules! one {
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
        fn lend<'a>(bytes: &'a [u8], _room: &'a mut Vec<$unit>) -> $unit {
            pod_read_unaligned(bytes)
        }
    };
}

impl<T: Pod> Layout for T {
    type Input = T;
    const HOLDS: Holds = Holds::One(size_of::<T>());

    #[inline]
    fn write<R>(input: &T, _: usize, write: impl FnOnce(&[u8]) -> R) -> Result<R, Cause> {
        Ok(write(bytes_of(input)))
    }
}

impl<T: Pod> Readable for T {
    one!(T);
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
    const HOLDS: Holds = Holds::Bytes;

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

    fn lend<'a>(bytes: &'a [u8], _room: &'a mut Vec<u8>) -> &'a [u8] {
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
    /// From one CPU's value to the next: the kernel aligns each to 8 bytes.
    pub(super) const STRIDE: usize = stride::<T>();
}

impl<T: Pod> Layout for PerCpu<T> {
    type Input = [T];
    const HOLDS: Holds = Holds::EachCpu(size_of::<T>());

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

    fn lend<'a>(bytes: &'a [u8], room: &'a mut Vec<T>) -> &'a [T] {
        room.clear();
        room.extend(unpadded::<T>(bytes));
        room
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

impl<T> fmt::Debug for PerCpu<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PerCpu")
    }
}

impl Layout for Prog {
    type Input = Self;
    const HOLDS: Holds = Holds::Objects(&[MapType::PROG_ARRAY], "programs");

    fn write<R>(prog: &Self, _: usize, write: impl FnOnce(&[u8]) -> R) -> Result<R, Cause> {
        write_number(prog, write)
    }

    fn explain(prog: &Self, map: BorrowedFd<'_>) -> Option<Cause> {
        other_type(prog, map)
    }
}

impl Readable for Prog {
    one!(u32);
}

impl Layout for Map {
    type Input = Self;
    const HOLDS: Holds = Holds::Objects(&[MapType::ARRAY_OF_MAPS, MapType::HASH_OF_MAPS], "maps");

    fn write<R>(map: &Self, _: usize, write: impl FnOnce(&[u8]) -> R) -> Result<R, Cause> {
        write_number(map, write)
    }
}

impl Readable for Map {
    one!(u32);
}

impl Layout for Descriptor {
    type Input = dyn AsFd;
    const HOLDS: Holds = Holds::Objects(
        &[MapType::CGROUP_ARRAY, MapType::PERF_EVENT_ARRAY],
        "cgroups or perf events",
    );

    fn write<R>(fd: &Self::Input, _: usize, write: impl FnOnce(&[u8]) -> R) -> Result<R, Cause> {
        write_number(fd, write)
    }
}

fn write_number<R>(fd: &dyn AsFd, write: impl FnOnce(&[u8]) -> R) -> Result<R, Cause> {
    Ok(write(&fd.as_fd().as_raw_fd().to_ne_bytes()))
}

/// A prog array is for programs of the type of the first one that it met, which its fdinfo names.
#[cold]
fn other_type(prog: &Prog, map: BorrowedFd<'_>) -> Option<Cause> {
    let fdinfo = procfs::fdinfo(map).ok()?;
    let owner = ProgType(fdinfo.get("owner_prog_type")?.parse().ok()?);
    let found = prog.info().ok()?.prog_type;
    (owner != found).then_some(Cause::OtherProgType { owner, found })
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

/// Reads into these units, and removes the padding of as many elements as `read` returns.
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

/// Writes from these units, with padding if the layout has it.
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
    for (unit, room) in units.iter().zip(bytes.chunks_exact_mut(stride)) {
        room[..size_of::<V::Unit>()].copy_from_slice(bytes_of(unit));
    }
    write(&bytes)
}

/// As [`Readable::read`], of all values of a map.
pub(super) fn unpad<V: Readable + ?Sized>(bytes: &[u8]) -> Vec<V::Unit> {
    unpadded(bytes).collect()
}

/// The bytes of plain data, which has none if its type has no size.
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
