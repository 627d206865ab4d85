//! The file system: detection, mounts, options.

mod bpffs;
mod inspect;
mod mount;
mod mountinfo;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
