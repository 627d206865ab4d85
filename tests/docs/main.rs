//! What the docs claim of releases and layers.

mod layers;
mod since;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
