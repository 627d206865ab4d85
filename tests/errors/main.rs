//! Errors: their causes and their sentences.

mod cause;
mod mistakes;
mod operations;
mod sentences;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
