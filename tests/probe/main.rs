//! The capabilities of a thread and the features of the kernel.

mod capabilities;
mod features;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
