//! What bpf-pin costs, beside the bare syscalls and its peers.

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
  --quick   fewer rounds and smaller numbers: that all of it works
  --check   fails where a call takes more allocations, syscalls or instructions than it did
  --builds  builds each library alone, from nothing
  --record  writes BENCHMARKS.md and benchmarks.svg anew, from a run with all that there is";

fn run() -> Result<(), Failure> {
    let mut options = Options::default();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--check" => options.check = true,
            "--builds" => options.builds = true,
            "--record" => options.record = true,
            // What cargo says to every bench.
            "--bench" => {}
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            flag if flag.starts_with('-') => {
                return Err(format!("{flag} is no option\n\n{USAGE}").into());
            }
            part => options.only.push(part.into()),
        }
    }
    if options.record {
        options.is_whole()?;
    }
    // Before anything is built.
    place::may_be_made()?;
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
