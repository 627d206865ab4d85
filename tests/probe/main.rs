//! What this thread may do and what this kernel has.

mod capabilities;
mod features;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
