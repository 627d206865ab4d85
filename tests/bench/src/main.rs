//! Measures bpf-pin, the bare syscalls and other libraries.

#![allow(clippy::disallowed_methods, reason = "not a test")]

mod bench;
mod builds;
mod check;
mod count;
mod machine;
mod pairs;
mod peers;
mod picture;
mod place;
mod raw;
mod report;
mod rows;

use std::process::ExitCode;

use bench::{Bench, Options};

/// Why a part of the bench could not run.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

const USAGE: &str =
    "cargo bench -p bpf-pin-bench [--features libbpf-rs] -- [part of a row's name]...
  --quick   runs fewer rounds with smaller sizes, to check that everything works
  --check   fails if a call takes more allocations, syscalls or instructions than its bound
  --builds  measures the build of each library alone, from scratch
  --record  rewrites BENCHMARKS.md and benchmarks.svg, from a run with every row and library";

fn run() -> Result<(), Failure> {
    let mut options = Options::default();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--check" => options.check = true,
            "--builds" => options.builds = true,
            "--record" => options.record = true,
            // cargo passes it to every bench.
            "--bench" => {}
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            flag if flag.starts_with('-') => {
                return Err(format!("unknown option {flag}\n\n{USAGE}").into());
            }
            part => options.only.push(part.into()),
        }
    }
    if options.record {
        options.is_whole()?;
    }
    // Fail before the builds.
    place::check_privilege()?;
    report::head();
    let built = match options.builds {
        true => builds::all()?,
        false => Vec::new(),
    };
    let mut bench = Bench::new(options)?;
    bench.facts = built;
    rows::all(&mut bench)?;
    bench.has_all()?;
    report::finish(&bench)?;
    match bench.options.check {
        true => check::bounds(&bench),
        false => Ok(()),
    }
}
