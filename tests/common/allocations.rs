//! Counts the allocations of a call.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator with a counter for each thread. A program that calls [`count_allocations`] makes it its
/// `#[global_allocator]`.
pub struct CountingAllocator;

/// The number of allocations, and the bytes that are allocated now and at the peak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocations {
    /// A reallocation counts as another one, because the trait calls `alloc` for it.
    pub count: u64,
    pub bytes: usize,
    pub peak_bytes: usize,
}

const NOTHING: Allocations = Allocations {
    count: 0,
    bytes: 0,
    peak_bytes: 0,
};

thread_local! {
    static ALLOCATIONS: Cell<Allocations> = const { Cell::new(NOTHING) };
}

/// Counts what `call` allocates in this thread. Cannot be nested.
pub fn count_allocations<T>(call: impl FnOnce() -> T) -> (T, Allocations) {
    ALLOCATIONS.set(NOTHING);
    let result = call();
    (result, ALLOCATIONS.get())
}

fn count(change: impl FnOnce(&mut Allocations)) {
    // A thread that is ending has lost its counter.
    let _ = ALLOCATIONS.try_with(|cell| {
        let mut allocations = cell.get();
        change(&mut allocations);
        cell.set(allocations);
    });
}

// SAFETY: the system's allocator does the work, and the counter does not allocate.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|allocations| {
            allocations.count += 1;
            allocations.bytes = allocations.bytes.saturating_add(layout.size());
            allocations.peak_bytes = allocations.peak_bytes.max(allocations.bytes);
        });
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // Memory that another thread allocated is not counted here.
        count(|allocations| allocations.bytes = allocations.bytes.saturating_sub(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}
