//! The rows: the measured work and its goals.

mod dir;
mod elem;
mod mounts;
mod object;
mod restart;
mod rights;
mod walk;
mod whole;

#[cfg(feature = "libbpf-rs")]
pub use whole::BATCH;

use crate::Failure;
use crate::bench::Bench;

pub fn all(bench: &mut Bench) -> Result<(), Failure> {
    object::rows(bench)?;
    dir::rows(bench)?;
    elem::rows(bench)?;
    whole::rows(bench)?;
    restart::rows(bench)?;
    walk::rows(bench)?;
    rights::rows(bench)?;
    mounts::rows(bench)
}
