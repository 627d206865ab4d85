//! The exit code of an example: 0, 1 after an error, or 2 after wrong arguments.

use std::error::Error;
use std::fmt::{self, Display};
use std::io::{Write, stderr};
use std::process::ExitCode;

use bpf_pin::error::Cause;

/// The result of an example or of one of its steps.
pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Wrong arguments: the line that says which ones there are.
#[derive(Debug)]
pub struct Usage(pub &'static str);

impl Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "usage: {}", self.0)
    }
}

impl Error for Usage {}

/// Prints an error to standard error, as `name: sentence`, and returns the exit code.
pub fn exit_code(name: &str, outcome: Outcome) -> ExitCode {
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    // Standard error may be closed, so the results of these writes are ignored.
    if error.is::<Usage>() {
        let _ = writeln!(stderr(), "{error}");
        return ExitCode::from(2);
    }
    let _ = writeln!(stderr(), "{name}: {error}");
    let cause = error
        .downcast_ref::<bpf_pin::Error>()
        .and_then(|error| error.cause());
    if let Some(Cause::MissingCapability { capability, .. }) = cause {
        let _ = writeln!(stderr(), "Run it as root, or give it {capability}.");
    }
    ExitCode::FAILURE
}
