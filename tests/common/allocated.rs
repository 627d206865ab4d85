//! What a call allocates, in a program whose allocator counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, which counts for each thread by itself: a program that asks for what
/// is [`allocated`] makes it its `#[global_allocator]`.
pub struct Counting;

/// In how many pieces, and how many bytes: now, and at most at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocated {
    /// What grows is one more, and what comes zeroed one as any: the trait leaves both to `alloc`.
    pub pieces: u64,
    pub now: usize,
    pub peak: usize,
}

const NOTHING: Allocated = Allocated {
    pieces: 0,
    now: 0,
    peak: 0,
};

thread_local! {
    static ALLOCATED: Cell<Allocated> = const { Cell::new(NOTHING) };
}

/// What a call has this thread allocate, beyond what was there before; not within another such call.
pub fn allocated<T>(call: impl FnOnce() -> T) -> (T, Allocated) {
    ALLOCATED.set(NOTHING);
    let result = call();
    (result, ALLOCATED.get())
}

fn count(change: impl FnOnce(&mut Allocated)) {
    // A thread that is ending has no counter any more.
    let _ = ALLOCATED.try_with(|cell| {
        let mut allocated = cell.get();
        change(&mut allocated);
        cell.set(allocated);
    });
}

// SAFETY: all is left to the system's allocator; the counter is in place, so to count allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|allocated| {
            allocated.pieces += 1;
            allocated.now = allocated.now.saturating_add(layout.size());
            allocated.peak = allocated.peak.max(allocated.now);
        });
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // What another thread allocated was never counted here.
        count(|allocated| allocated.now = allocated.now.saturating_sub(layout.size()));
        // SAFETY: the caller's.
        unsafe { System.dealloc(at, layout) }
    }
}
