//! Attacks by processes that may write to the directory in which the library works.

mod attack;
mod mounts;
mod planted_names;
mod races;
mod swapped_directories;
mod users;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
