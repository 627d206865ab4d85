//! Maps, programs and links as owned descriptors: kinds, pins, ids.

mod ffi;
mod ids;
mod kind;
mod pin;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
