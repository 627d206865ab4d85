//! The lines that the processes of an example print.

use std::fmt::Display;
use std::io::{self, Write, stdout};
use std::process::id as pid;

/// Prints a line that begins with the id of this process.
pub fn say(what: impl Display) -> io::Result<()> {
    writeln!(stdout(), "process {}: {what}", pid())
}
