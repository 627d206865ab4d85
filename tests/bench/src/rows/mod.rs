//! The rows: what is measured, and what each is to show.

mod dir;
mod elem;
mod object;
mod whole;

pub use whole::BATCH;

use crate::Failure;
use crate::bench::Bench;

pub fn all(bench: &mut Bench) -> Result<(), Failure> {
    object::rows(bench)?;
    dir::rows(bench)?;
    elem::rows(bench)?;
    whole::rows(bench)?;
    Ok(())
}
