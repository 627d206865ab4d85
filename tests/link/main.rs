//! Links: every attach point, updates, pins.

mod attach_points;
mod freplace;
mod iter;
mod lifecycle;
mod link;
mod link_pin;
mod query;
mod refusals;
mod struct_ops;
mod syscalls;
mod tracing;
mod wrong_prog_type;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
