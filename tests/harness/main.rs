//! A test program leaves nothing behind, even if it is killed.

mod children;
mod cleanup;
mod killed;
mod marked;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
