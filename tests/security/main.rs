//! What others who may write to a directory can do.

mod attack;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
