//! A kind is proven before a typed value exists.

use common::*;

fn main() -> std::process::ExitCode {
    Suite::new().run()
}
