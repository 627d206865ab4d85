//! Errors: their causes and their sentences.

mod cause;
mod mistakes;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
