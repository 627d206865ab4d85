//! `mmap(2)` of the values of an array.

use std::fmt;
use std::mem::size_of;
use std::os::fd::AsFd;

use bpf_pin_sys as abi;
use rustix::io::Errno;

use crate::error::{Cause, Error, Operation, Reason, Result};
use crate::map::explain::{denied_access, is_frozen};
use crate::map::{Map, MapInfo};
use crate::sys::{self, Atom, Mapping};
use crate::types::{Access, MapFlags, MapType};

/// The values of an array, mapped into this process's memory as atomics.
///
/// A change by a program is visible to this process at once, and the other way round, without a system
/// call.
///
/// `T` is an `AtomicU8`, `AtomicU16`, `AtomicU32` or `AtomicU64` of `std::sync::atomic`, or
/// [`LoadOnly`](crate::map::LoadOnly) of one. `LoadOnly` maps for reading only, which is required for a
/// frozen map. A value consists of one or several atomics. The array is always mapped as a whole.
///
/// The mapping keeps the map alive without the descriptor and the pin. As long as a writable mapping exists,
/// the map cannot be frozen. A forked child inherits the mapping.
///
/// # Examples
///
/// ```no_run
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use bpf_pin::types::MapFlags;
/// use bpf_pin::{MapSpec, MapType};
///
/// let spec = MapSpec::new(MapType::ARRAY, 4, 8, 256).flags(MapFlags::MMAPABLE);
/// let packets = spec.create()?.mmap::<AtomicU64>()?;
/// if let Some(value) = packets.get(17) {
///     value[0].fetch_add(1, Ordering::Relaxed);
/// }
/// let sum: u64 = packets.values().map(|value| value[0].load(Ordering::Relaxed)).sum();
/// # Ok::<(), bpf_pin::Error>(())
/// ```
///
/// A read-only mapping, for example of a frozen map:
///
/// ```no_run
/// use std::sync::atomic::AtomicU32;
///
/// use bpf_pin::map::LoadOnly;
/// use bpf_pin::Map;
///
/// let limits = Map::open("/sys/fs/bpf/limits")?.mmap::<LoadOnly<AtomicU32>>()?;
/// for value in limits.values() {
///     println!("from {} to {}", value[0].load(), value[1].load());
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
pub struct Mmap<T> {
    mapping: Mapping<T>,
    /// Atoms per value.
    atoms: usize,
    /// Atoms from the start of one value to the start of the next.
    stride: usize,
}

impl Map {
    /// `mmap(2)`: maps the values of an array created with [`MapFlags::MMAPABLE`]. Linux 5.5.
    ///
    /// Two syscalls: one for the sizes, one for the mapping.
    ///
    /// # Errors
    ///
    /// [`Operation::Mmap`](crate::error::Operation::Mmap):
    /// - [`NotMmapable`](Cause::NotMmapable), without mmap(2), for a map that is not an array with
    ///   [`MapFlags::MMAPABLE`]
    /// - [`InvalidArgument`](Cause::InvalidArgument), without mmap(2), if the value size is not a multiple of
    ///   the size of `T`
    /// - [`MapAccess`](Cause::MapAccess) (EACCES, EINVAL) for a map opened for reading only or writing only,
    ///   for any `T`
    /// - [`Frozen`](Cause::Frozen) (EPERM) if `T` writes
    /// - [`ReadOnlyForProgs`](Cause::ReadOnlyForProgs) (EACCES) if `T` writes
    /// - ENOTSUPP for values with a spin lock or a timer
    /// - ENOMEM
    ///
    /// # References
    ///
    /// [mmap(2)](https://man7.org/linux/man-pages/man2/mmap.2.html), kernel/bpf/arraymap.c: `array_map_mmap`
    pub fn mmap<T: Atom>(&self) -> Result<Mmap<T>> {
        let fail = |reason| Error::new(Operation::Mmap, reason).of_map(self.as_fd());
        let info: abi::bpf_map_info =
            sys::info(self.as_fd()).map_err(|errno| fail(Reason::errno_only(errno)))?;
        let info = MapInfo::from_raw(info);
        let (map_type, atomic) = (info.map_type, size_of::<T>());
        if map_type != MapType::ARRAY || !info.flags.contains(MapFlags::MMAPABLE) {
            return Err(fail(Cause::NotMmapable { map_type }.into()));
        }
        let value_size = info.value_size;
        if value_size as usize % atomic != 0 {
            let problem = format!("is {value_size}, not a multiple of {atomic}, the atomic's size");
            return Err(fail(Cause::invalid("value_size", problem).into()));
        }
        let atoms = value_size as usize / atomic;
        // The kernel aligns each value to 8 bytes.
        let stride = (value_size as usize).next_multiple_of(8) / atomic;
        let count = stride.checked_mul(info.max_entries as usize);
        match Mapping::new(self, count.unwrap_or(usize::MAX)) {
            Ok(mapping) => Ok(Mmap {
                mapping,
                atoms,
                stride,
            }),
            Err(errno) => {
                let cause = self.mmap_cause(errno, T::WRITES, info.flags);
                Err(fail(Reason::new(errno, cause)))
            }
        }
    }

    #[cold]
    fn mmap_cause(&self, errno: Errno, writes: bool, flags: MapFlags) -> Option<Cause> {
        let fd = self.as_fd();
        match errno {
            // The mapping is shared, and mmap(2) maps a file shared only if it is open for reading and
            // writing.
            Errno::ACCESS | Errno::INVAL => denied_access(fd, Access::ReadWrite).or_else(|| {
                let is_read_only = writes && flags.contains(MapFlags::RDONLY_PROG);
                (is_read_only && errno == Errno::ACCESS).then_some(Cause::ReadOnlyForProgs)
            }),
            Errno::PERM => (writes && is_frozen(fd)?).then_some(Cause::Frozen),
            _ => None,
        }
    }
}

impl<T: Atom> Mmap<T> {
    /// The number of values: the map's `max_entries`.
    pub fn len(&self) -> usize {
        self.mapping.atoms().len() / self.stride
    }

    /// Always false: every array has values.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Returns the atomics of the value at `index`, or `None` if the index is out of range.
    pub fn get(&self, index: usize) -> Option<&[T]> {
        let value = self.mapping.atoms().chunks_exact(self.stride).nth(index)?;
        Some(&value[..self.atoms])
    }

    /// Iterates over the values, each as its atomics.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &[T]> + DoubleEndedIterator {
        let all = self.mapping.atoms().chunks_exact(self.stride);
        all.map(|value| &value[..self.atoms])
    }

    /// Returns the atomics of all values in one slice. `None` if values are not a multiple of 8 bytes and so
    /// have padding between them: use [`values`](Self::values).
    pub fn as_slice(&self) -> Option<&[T]> {
        (self.atoms == self.stride).then(|| self.mapping.atoms())
    }
}

impl<T: Atom> fmt::Debug for Mmap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mmap")
            .field("len", &self.len())
            .field("atomics_per_value", &self.atoms)
            .finish_non_exhaustive()
    }
}
