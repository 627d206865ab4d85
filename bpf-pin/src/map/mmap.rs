//! `mmap(2)` of an array's values.

use std::fmt;
use std::mem::size_of;
use std::os::fd::AsFd;

use bpf_pin_sys as abi;
use rustix::io::Errno;

use crate::cause::Cause;
use crate::error::{Error, Operation, Reason, Result};
use crate::map::explain::{Needs, is_frozen, not_granted};
use crate::map::{Map, MapInfo};
use crate::sys::{self, Atom, Mapping};
use crate::types::MapFlags;
use crate::types::MapType;

/// The values of an array in this process's memory, as atomics: what a program writes is seen at
/// once, and the other way round, without a system call.
///
/// `T` is an `AtomicU8`, `AtomicU16`, `AtomicU32` or `AtomicU64` of `std::sync::atomic`, or
/// [`LoadOnly`](crate::map::LoadOnly) of one, which is mapped for reading only, as a frozen map must be. A
/// value is one or several of them. An array is mapped as a whole.
///
/// It keeps the map alive, whatever becomes of the descriptor and the pin; and for as long as it can
/// be written to, the map cannot be frozen. A process forked meanwhile has it too.
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
/// For reading only, as of a map that is frozen:
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
    /// How many atoms a value has.
    atoms: usize,
    /// How many there are from one value to the next.
    stride: usize,
}

impl Map {
    /// `mmap(2)`: the values of an array that was made with
    /// [`MapFlags::MMAPABLE`]. Linux 5.5. Two syscalls: one for the sizes, one for the mapping.
    ///
    /// # Errors
    ///
    /// [`Operation::Mmap`](crate::error::Operation::Mmap): [`NotMmapable`](Cause::NotMmapable) for any other map, and
    /// [`NoMultiple`](Cause::NoMultiple) for values that are not made of `T`s, both without mmap(2);
    /// [`MapAccess`](Cause::MapAccess) (EACCES or EINVAL) for a map opened for writing only, or for
    /// reading only, whatever `T` is; where it writes [`Frozen`](Cause::Frozen) (EPERM) and
    /// [`ReadOnlyForProgs`](Cause::ReadOnlyForProgs) (EACCES); ENOTSUPP for values with a spin lock or
    /// a timer; ENOMEM.
    ///
    /// # References
    ///
    /// [mmap(2)](https://man7.org/linux/man-pages/man2/mmap.2.html), kernel/bpf/arraymap.c: `array_map_mmap`
    pub fn mmap<T: Atom>(&self) -> Result<Mmap<T>> {
        let fail = |reason| Error::new(Operation::Mmap, reason);
        let info: abi::bpf_map_info =
            sys::info(self.as_fd()).map_err(|errno| fail(Reason::errno_only(errno)))?;
        let info = MapInfo::from_raw(info);
        let (map_type, atomic) = (info.map_type, size_of::<T>());
        if map_type != MapType::ARRAY || !info.flags.contains(MapFlags::MMAPABLE) {
            return Err(fail(Cause::NotMmapable { map_type }.into()));
        }
        let value_size = info.value_size;
        if value_size as usize % atomic != 0 {
            return Err(fail(Cause::NoMultiple { value_size, atomic }.into()));
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
            Err(errno) => Err(fail(Reason::new(
                errno,
                self.mmap_cause(errno, T::WRITES, info.flags),
            ))),
        }
    }

    #[cold]
    fn mmap_cause(&self, errno: Errno, writes: bool, flags: MapFlags) -> Option<Cause> {
        let fd = self.as_fd();
        match errno {
            // Memory of a file that is not open for writing is never shared to the kernel, and that of
            // a map always is.
            Errno::ACCESS | Errno::INVAL => not_granted(fd, Needs::BOTH).or_else(|| {
                let refused = writes && errno == Errno::ACCESS;
                (refused && flags.contains(MapFlags::RDONLY_PROG))
                    .then_some(Cause::ReadOnlyForProgs)
            }),
            Errno::PERM => (writes && is_frozen(fd)?).then_some(Cause::Frozen),
            _ => None,
        }
    }
}

impl<T: Atom> Mmap<T> {
    /// How many values there are: the map's `max_entries`.
    pub fn len(&self) -> usize {
        self.mapping.atoms().len() / self.stride
    }

    /// Never: no array is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at `index`, as its atomics; None beyond the last.
    pub fn get(&self, index: usize) -> Option<&[T]> {
        let value = self.mapping.atoms().chunks_exact(self.stride).nth(index)?;
        Some(&value[..self.atoms])
    }

    /// All values, each as its atomics.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &[T]> + DoubleEndedIterator {
        let all = self.mapping.atoms().chunks_exact(self.stride);
        all.map(|value| &value[..self.atoms])
    }

    /// All values' atomics in a row; None where a value is no multiple of 8 bytes, and so there is
    /// padding between them: see [`values`](Self::values).
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
