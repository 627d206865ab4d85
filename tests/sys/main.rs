//! The mirror of the kernel's ABI in bpf-pin-sys.

mod abi;
mod backports;
mod header;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
