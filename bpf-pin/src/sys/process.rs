//! The owner of a lock: distinguishes a process from its forked children.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The process that took a lock. A forked child inherits a copy of the lock, and must not release it.
///
/// Pids cannot distinguish the two: both can be 1, each in its own pid namespace. So each process has a
/// number in a page that the kernel clears in a forked child. The child then takes a number that none of its
/// ancestors has. Reading the number takes no system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LockOwner(u32);

impl LockOwner {
    pub(crate) fn this_process() -> Self {
        /// The last number that this process or an ancestor has taken.
        static LAST: AtomicU32 = AtomicU32::new(0);
        static OWN: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();

        let Some(own) = OWN.get_or_init(map_wiped_page) else {
            return Self(std::process::id());
        };
        match own.load(Ordering::Relaxed) {
            0 => {
                let new = LAST.fetch_add(1, Ordering::Relaxed) + 1;
                let taken = own.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed);
                // Another thread may have set a number first.
                Self(taken.map_or_else(|other| other, |_| new))
            }
            number => Self(number),
        }
    }

    /// True if the owner is another process, such as the parent of this one.
    pub(crate) fn is_another(self) -> bool {
        self != Self::this_process()
    }
}

/// Maps a page for a number that becomes 0 in a forked child. The page is never unmapped. `None` if the
/// kernel does not support `MADV_WIPEONFORK`.
#[cold]
fn map_wiped_page() -> Option<&'static AtomicU32> {
    let len = page_size();
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let page = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: it is the whole of that mapping, which nothing else uses yet.
    if unsafe { libc::madvise(page, len, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: as before, and it is not used afterwards.
        unsafe { libc::munmap(page, len) };
        return None;
    }
    // SAFETY: readable, writable, aligned, never unmapped, and accessed through this atomic only.
    Some(unsafe { AtomicU32::from_ptr(page.cast()) })
}

/// The size of a page in bytes. The C library has it from the auxiliary vector, so this needs no /proc.
pub(crate) fn page_size() -> usize {
    // SAFETY: sysconf has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::LockOwner;

    #[test]
    fn the_owner_of_a_process_does_not_change() {
        let owner = LockOwner::this_process();
        assert_eq!(owner, LockOwner::this_process());
        assert!(!owner.is_another());
    }
}
