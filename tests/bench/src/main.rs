//! What bpf-pin costs, beside the bare syscalls and its peers.

mod bench;
mod count;
mod pairs;
mod peers;
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

fn run() -> Result<(), Failure> {
    let mut options = Options::default();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--record" => options.record = true,
            "--builds" => options.builds = true,
            "--check" => options.check = true,
            "--bench" => {}
            flag if flag.starts_with('-') => return Err(format!("{flag} is not known").into()),
            part => options.only.push(part.into()),
        }
    }
    let mut bench = Bench::new(options)?;
    rows::all(&mut bench)?;
    Ok(())
}
