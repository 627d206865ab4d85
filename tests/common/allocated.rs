//! Counts the allocations of a call.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator with a counter for each thread. A program that calls [`allocated`] makes it its
/// `#[global_allocator]`.
pub struct Counting;

/// The number of allocations, and the bytes that are allocated now and at the peak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocated {
    /// A reallocation counts as another one, because the trait calls `alloc` for it.
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

/// Counts what `call` allocates in this thread. Cannot be nested.
pub fn allocated<T>(call: impl FnOnce() -> T) -> (T, Allocated) {
    ALLOCATED.set(NOTHING);
    let result = call();
    (result, ALLOCATED.get())
}

fn count(change: impl FnOnce(&mut Allocated)) {
    // A thread that is ending has lost its counter.
    let _ = ALLOCATED.try_with(|cell| {
        let mut allocated = cell.get();
        change(&mut allocated);
        cell.set(allocated);
    });
}

// SAFETY: the system's allocator does the work, and the counter does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|allocated| {
            allocated.pieces += 1;
            allocated.now = allocated.now.saturating_add(layout.size());
            allocated.peak = allocated.peak.max(allocated.now);
        });
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // Memory that another thread allocated is not counted here.
        count(|allocated| allocated.now = allocated.now.saturating_sub(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}
