//! Maps and links that outlive a restart.

mod migrate;
mod migrate_fails;
mod migrate_live;
mod migrate_program;
mod migrate_types;
mod migration;
mod open_or_attach;
mod outgrown;
mod reuse;
mod reuse_denied;
mod reuse_kill;
mod reuse_race;
mod reuse_schedules;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
