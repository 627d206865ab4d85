//! Programs: loading, the verifier's log, test runs.

mod prog;
mod prog_load;
mod prog_run;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
