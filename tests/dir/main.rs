//! Directories on a bpffs: pins, replacement, stages, locks, leftovers.

mod bulk_removal;
mod create;
mod displaced;
mod forked_names;
mod gaps;
mod held_directory;
mod helpers;
mod interleavings;
mod kill;
mod lock;
mod methods;
mod owner;
mod pin_dir;
mod replace;
mod stage;
mod stress;
mod walk;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
