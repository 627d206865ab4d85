//! Tells a process from those that were forked from it.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The process that took a lock. A forked child has a copy of it, and must not release what its parent
/// holds.
///
/// A pid does not tell them apart: both can be 1, each in its own pid namespace. So each process has a
/// number in a page that the kernel clears in a forked child, which then takes one that none of its
/// ancestors has. It is read without a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LockOwner(u32);

impl LockOwner {
    pub(crate) fn this_process() -> Self {
        /// The highest number of this process and its ancestors.
        static LAST: AtomicU32 = AtomicU32::new(0);
        static OWN: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();

        let Some(own) = OWN.get_or_init(map_wiped_page) else {
            return Self(std::process::id());
        };
        match own.load(Ordering::Relaxed) {
            0 => {
                let new = LAST.fetch_add(1, Ordering::Relaxed) + 1;
                let taken = own.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed);
                // Another thread may have been faster.
                Self(taken.map_or_else(|now| now, |_| new))
            }
            number => Self(number),
        }
    }

    /// Whether it is another process, of which this one has a copy.
    pub(crate) fn is_another(self) -> bool {
        self != Self::this_process()
    }
}

/// A number in a page of its own, for good; it is 0 in a forked child. None if the kernel does not clear
/// pages so.
#[cold]
fn map_wiped_page() -> Option<&'static AtomicU32> {
    let len = super::page_size();
    let (access, how) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let page = unsafe { libc::mmap(ptr::null_mut(), len, access, how, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: it is that mapping, which nobody else knows.
    if unsafe { libc::madvise(page, len, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: as before, and it is not used any more.
        unsafe { libc::munmap(page, len) };
        return None;
    }
    // SAFETY: readable, writable, aligned, never unmapped, and accessed by nothing but this atomic.
    Some(unsafe { AtomicU32::from_ptr(page.cast()) })
}

#[cfg(test)]
mod tests {
    use super::LockOwner;

    #[test]
    fn a_process_stays_the_same() {
        let owner = LockOwner::this_process();
        assert_eq!(owner, LockOwner::this_process());
        assert!(!owner.is_another());
    }
}
