//! Every pin of every bpffs.

mod inventory;
mod pin_tree;

fn main() -> std::process::ExitCode {
    common::run_tests()
}
