//! Verifies statements in the docs about releases and layers.

mod guide;
mod layers;
mod pages;
mod since;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
