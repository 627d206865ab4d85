//! Directories on a bpffs: pins, replacement, stages, locks, leftovers.

mod dir;
mod dir_create;
mod dir_held;
mod dir_scene;
mod dir_schedules;
mod kill;
mod lock;
mod methods;
mod owner;
mod replace;
mod scene;
mod stage;
mod sweep;
mod walk;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
