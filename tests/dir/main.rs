//! Directories on a bpffs: pins, replacement, stages, locks, leftovers.

mod bulk_removal;
mod create;
mod held_directory;
mod gaps;
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
