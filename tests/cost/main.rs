//! The cost of calls: system calls, allocations, descriptors.

mod cost;
mod scale;

/// Counts what each thread allocates.
#[global_allocator]
static ALLOCATOR: common::CountingAllocator = common::CountingAllocator;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
