//! Maps: specs, elements, batches, mappings.

mod batch;
mod compare;
mod elem;
mod freeze;
mod inner;
mod map;
mod map_type;
mod mmap;
mod per_cpu;
mod prog_array;
mod typed;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
