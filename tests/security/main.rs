//! Attacks by processes that may write to the directory in which the library works, and the memory that the
//! kernel writes to.

mod attack;
mod mounts;
mod planted_names;
mod races;
mod service;
mod soundness;
mod swapped_directories;
mod users;

#[global_allocator]
static ALLOCATOR: soundness::Protected = soundness::Protected;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
