//! The values of an array map, mapped into this process's memory.

use std::fmt;
use std::mem::{align_of, size_of};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::elem::AsMap;
use super::{Result, sealed::Sealed};

/// An atomic integer in memory that the kernel and other processes may change at any time.
///
/// # Safety
///
/// Any bytes are a valid value. The alignment is the size, which divides 8. Shared access is sound while
/// others write. Unless `WRITES` is true, the methods work on read-only memory.
pub unsafe trait Atom: Sealed {
    #[doc(hidden)]
    const WRITES: bool;
}

/// An atomic integer in read-only memory.
#[repr(transparent)]
pub struct LoadOnly<T>(T);

macro_rules! atoms {
    ($($atomic:ty,)*) => {$(
        impl Sealed for $atomic {}
        // SAFETY: integers that this process changes by atomic instructions only.
        unsafe impl Atom for $atomic {
            const WRITES: bool = true;
        }
    )*};
}
atoms!(AtomicU8, AtomicU16, AtomicU32, AtomicU64,);

macro_rules! loads {
    ($($atomic:ty => $value:ty,)*) => {$(
        impl Sealed for LoadOnly<$atomic> {}
        // SAFETY: as above. It is only loaded, with an ordering for which that is a plain load instruction.
        unsafe impl Atom for LoadOnly<$atomic> {
            const WRITES: bool = false;
        }

        impl LoadOnly<$atomic> {
            /// Loads the value with `Ordering::Relaxed`, the only ordering that is allowed for read-only
            /// memory.
            #[inline]
            pub fn load(&self) -> $value {
                self.0.load(Ordering::Relaxed)
            }
        }

        impl fmt::Debug for LoadOnly<$atomic> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.load().fmt(f)
            }
        }
    )*};
}
loads! {
    AtomicU8 => u8,
    AtomicU16 => u16,
    AtomicU32 => u32,
}
// On 32-bit targets a 64-bit atomic load may be implemented with a store.
#[cfg(target_pointer_width = "64")]
loads! {
    AtomicU64 => u64,
}

/// A shared mapping of the first `count` atoms of a file.
pub(crate) struct Mapping<T> {
    start: NonNull<T>,
    count: usize,
}

// SAFETY: it owns the mapping, and an atom may be shared.
unsafe impl<T: Atom + Send> Send for Mapping<T> {}
// SAFETY: as above.
unsafe impl<T: Atom + Sync> Sync for Mapping<T> {}

impl<T: Atom> Mapping<T> {
    const ALIGNED: () = assert!(align_of::<T>() == size_of::<T>() && 8 % size_of::<T>() == 0);

    /// `mmap(2)` of the values of an array. The kernel rejects a length beyond the values, rounded up to
    /// pages. The mapping keeps the map alive.
    pub(crate) fn new(array: &impl AsMap, count: usize) -> Result<Self> {
        let () = Self::ALIGNED;
        let length = Self::length(count).ok_or(Errno::OVERFLOW)?;
        let mut prot = ProtFlags::READ;
        prot.set(ProtFlags::WRITE, T::WRITES);
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                prot,
                MapFlags::SHARED,
                array.map_fd(),
                0,
            )
        }?;
        match NonNull::new(start.cast()) {
            Some(start) => Ok(Self { start, count }),
            None => Err(Errno::NOMEM),
        }
    }

    /// The length in bytes, or `None` if it overflows.
    fn length(count: usize) -> Option<usize> {
        let length = count.checked_mul(size_of::<T>())?;
        isize::try_from(length).ok().map(|_| length)
    }

    #[inline]
    pub(crate) fn atoms(&self) -> &[T] {
        // SAFETY: count atoms are mapped from the start of a page on until this is dropped, readable and,
        // if T writes, writable. T is sound to share while others write.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        let length = self.count * size_of::<T>();
        // SAFETY: it was mapped with this length, and no borrow of it is left. Unmapping a whole mapping
        // does not fail: only splitting one needs memory.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), length) };
    }
}
