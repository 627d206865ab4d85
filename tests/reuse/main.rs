//! Maps and links that outlive a restart.

mod attached;
mod migrate;
mod old_map;
mod open_or_attach;
mod open_or_create;
mod schedules;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
