//! Values of an array in this process's memory.

use std::fmt;
use std::mem::{align_of, size_of};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::elem::AsMap;
use super::{Result, sealed::Sealed};

/// What the kernel and other processes may change at any time.
///
/// # Safety
///
/// Any bytes of its size are one, its alignment is its size and that divides 8, and shared access is
/// sound whoever else writes. Unless it `WRITES`, its methods work on memory that is read-only.
pub unsafe trait Atom: Sealed {
    #[doc(hidden)]
    const WRITES: bool;
}

/// An atomic in memory that is read-only.
#[repr(transparent)]
pub struct LoadOnly<T>(T);

macro_rules! atoms {
    ($($atomic:ty,)*) => {$(
        impl Sealed for $atomic {}
        // SAFETY: integers, changed by nothing but atomic instructions here.
        unsafe impl Atom for $atomic {
            const WRITES: bool = true;
        }
    )*};
}
atoms!(AtomicU8, AtomicU16, AtomicU32, AtomicU64,);

macro_rules! loads {
    ($($atomic:ty => $value:ty,)*) => {$(
        impl Sealed for LoadOnly<$atomic> {}
        // SAFETY: as above, and it is only ever loaded, relaxed, by an instruction that does no more.
        unsafe impl Atom for LoadOnly<$atomic> {
            const WRITES: bool = false;
        }

        impl LoadOnly<$atomic> {
            /// What it is now, as `load(Ordering::Relaxed)` gives it: memory that is read-only may be
            /// loaded in no other order.
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
// Elsewhere such a load may be made of a store.
#[cfg(target_pointer_width = "64")]
loads! {
    AtomicU64 => u64,
}

/// The first `count` atoms of a file, shared with whoever else has them.
pub(crate) struct Mapping<T> {
    start: NonNull<T>,
    count: usize,
}

// SAFETY: it is its own, and an atom may be shared.
unsafe impl<T: Atom + Send> Send for Mapping<T> {}
// SAFETY: as above.
unsafe impl<T: Atom + Sync> Sync for Mapping<T> {}

impl<T: Atom> Mapping<T> {
    const ALIGNED: () = assert!(align_of::<T>() == size_of::<T>() && 8 % size_of::<T>() == 0);

    /// `mmap(2)` of the values of an array: the kernel refuses more bytes than they have, rounded up
    /// to pages, and they are there for as long as the mapping is, whoever lets go of the map.
    pub(crate) fn new(array: &impl AsMap, count: usize) -> Result<Self> {
        let () = Self::ALIGNED;
        let length = Self::length(count).ok_or(Errno::OVERFLOW)?;
        let prot = match T::WRITES {
            true => ProtFlags::READ | ProtFlags::WRITE,
            false => ProtFlags::READ,
        };
        // SAFETY: a new mapping, wherever the kernel likes.
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

    /// In bytes; None where no memory is as large.
    fn length(count: usize) -> Option<usize> {
        let length = count.checked_mul(size_of::<T>())?;
        isize::try_from(length).ok().map(|_| length)
    }

    #[inline]
    pub(crate) fn atoms(&self) -> &[T] {
        // SAFETY: so many of them are mapped, from the start of a page on, until this is dropped, in
        // memory that may be read and, if T writes, written; whoever else writes, T is atomic.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        let length = self.count * size_of::<T>();
        // SAFETY: it was mapped like this, and what was borrowed from it is given back. It cannot
        // fail but where the kernel has no memory to split a mapping, which a whole one needs not.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), length) };
    }
}

/// The bytes of a page. The C library had it from the kernel when the process began: it takes no /proc.
pub(crate) fn page_size() -> usize {
    // SAFETY: it takes a number and gives one.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}
