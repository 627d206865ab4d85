//! An allocator that ends each allocation at a page without permissions.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};

/// The system's allocator, except for a thread that calls [`protected`].
///
/// There, the first byte after an allocation is on a page without permissions, up to the padding for its
/// alignment. If the kernel writes there, the system call fails with EFAULT. If this process does, it is
/// killed. The bytes before the allocation and the padding are checked when it is freed.
pub struct Protected;

thread_local! {
    static IS_ON: Cell<bool> = const { Cell::new(false) };
}

/// The addresses of all protected allocations.
static ARENA: OnceLock<Range<usize>> = OnceLock::new();
/// The offset of the first page that was not used yet.
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// The number of allocations that are not freed yet.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Address space only: pages of it are used while they are allocated. A machine with many CPUs needs more.
const SIZE: usize = (256 << 20) << if usize::BITS == 64 { 6 } else { 0 };
const CANARY: u8 = 0xa5;

/// Calls `run` on this thread and protects its allocations. One thread at a time.
pub fn protected<T>(run: impl FnOnce() -> T) -> T {
    static TURN: Mutex<()> = Mutex::new(());

    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            IS_ON.set(false);
        }
    }

    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // If something outlives its call, its pages are not used again.
    if LIVE.load(Relaxed) == 0 {
        NEXT.store(0, Relaxed);
    }
    let _off = Off;
    IS_ON.set(true);
    run()
}

/// The size of a page in bytes.
pub fn page() -> usize {
    // SAFETY: sysconf takes a number and returns one.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

fn map_arena() -> Range<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let start = unsafe { libc::mmap(ptr::null_mut(), SIZE, libc::PROT_NONE, flags, -1, 0) };
    match start == libc::MAP_FAILED {
        true => 0..0,
        false => start as usize..start as usize + SIZE,
    }
}

/// The pages of an allocation, and where it begins. One page without permissions follows.
fn place(start: usize, layout: Layout) -> (Range<usize>, usize) {
    let end = start + layout.size().next_multiple_of(page());
    (start..end, (end - layout.size()) & !(layout.align() - 1))
}

// SAFETY: the system's allocator does the work, or the arena: its pages are used for one allocation at a
// time, which is aligned and within its pages. Nothing here allocates.
unsafe impl GlobalAlloc for Protected {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // The report of a panic takes much memory.
        let is_on = IS_ON.try_with(Cell::get).unwrap_or(false) && !std::thread::panicking();
        if !is_on || layout.size() == 0 || layout.align() > page() {
            // SAFETY: as the caller promises.
            return unsafe { System.alloc(layout) };
        }
        let arena = ARENA.get_or_init(map_arena);
        let len = layout.size().next_multiple_of(page());
        let offset = NEXT.fetch_add(len + page(), Relaxed);
        if offset + len + page() > arena.len() {
            return ptr::null_mut();
        }
        let (pages, at) = place(arena.start + offset, layout);
        let (start, writable) = (pages.start as *mut u8, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: these pages of the arena are used for nothing else.
        unsafe {
            if libc::mprotect(start.cast(), pages.len(), writable) != 0 {
                return ptr::null_mut();
            }
            ptr::write_bytes(start, CANARY, pages.len());
        }
        LIVE.fetch_add(1, Relaxed);
        at as *mut u8
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        let address = at as usize;
        if !ARENA.get().is_some_and(|arena| arena.contains(&address)) {
            // SAFETY: as the caller promises.
            return unsafe { System.dealloc(at, layout) };
        }
        let (pages, _) = place(address & !(page() - 1), layout);
        let is_kept = |bytes: Range<usize>| {
            // SAFETY: bytes of the pages of this allocation, which only this function reads.
            bytes
                .into_iter()
                .all(|byte| unsafe { *(byte as *const u8) } == CANARY)
        };
        if !is_kept(pages.start..address) || !is_kept(address + layout.size()..pages.end) {
            // A panic in an allocator is not allowed.
            let text = b"bytes beside an allocation were written\n";
            // SAFETY: the text has this length, and abort takes nothing.
            unsafe {
                libc::write(2, text.as_ptr().cast(), text.len());
                libc::abort();
            }
        }
        let start = pages.start as *mut libc::c_void;
        // SAFETY: the whole allocation, which is no longer used.
        unsafe {
            libc::madvise(start, pages.len(), libc::MADV_DONTNEED);
            libc::mprotect(start, pages.len(), libc::PROT_NONE);
        }
        LIVE.fetch_sub(1, Relaxed);
    }
}

/// The kernel cannot write past an allocation, and the bytes of one can be used.
#[common::test]
fn an_allocation_ends_at_a_page_without_permissions() -> common::Outcome {
    let zero = std::fs::File::open("/dev/zero")?;
    for len in [1, 2, 7, 8, 100, 4095, 4096, 4097] {
        protected(|| {
            let mut bytes = vec![1u8; len];
            let at = bytes.as_mut_ptr().addr();
            assert_eq!((at + len) % page(), 0);
            assert_eq!(rustix::io::read(&zero, &mut bytes[..]), Ok(len));
            // SAFETY: the kernel writes no more than the bytes that this process may write to. The last
            // one is on the page without permissions.
            let beyond = unsafe {
                use std::os::fd::AsRawFd;
                libc::read(zero.as_raw_fd(), (at + len) as *mut libc::c_void, 1)
            };
            assert_eq!(beyond, -1);
        });
    }
    Ok(())
}
