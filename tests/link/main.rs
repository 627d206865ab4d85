//! Links: every attach point, updates, pins.

mod attach_points;
mod cause_prog_type;
mod freplace;
mod iter;
mod life;
mod link;
mod link_pin;
mod query;
mod struct_ops;
mod tracing;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
