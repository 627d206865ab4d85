//! BPF tokens and delegation over a socket.

mod token;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
