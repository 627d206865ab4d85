//! Programs: load them, run them for a test, read their info, and load BTF.

mod btf;
mod load;
pub(crate) mod log;
mod run;
mod spec;

pub use btf::Btf;
pub use run::{TestRun, TestRunFlags, TestRunResult};
pub use spec::{ProgFlags, ProgSpec};

use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Error, Operation, Reason, Result};
use crate::object::info_error;
use crate::sys::{self, AsMap};
use crate::types::Kind;

pub use crate::object::{Prog, ProgInfo};

#[doc(no_inline)]
pub use bpf_pin_sys::bpf_insn as Insn;

impl Prog {
    /// `bpf_prog_info.map_ids`: returns the ids of the maps that the program uses. Linux 4.15.
    ///
    /// These are the maps that its instructions refer to and those [bound](Self::bind_map) to it. Two
    /// syscalls: one for their number, one for the ids.
    ///
    /// # Errors
    ///
    /// [`Operation::Info`](crate::error::Operation::Info), as [`info`](Self::info).
    pub fn map_ids(&self) -> Result<Vec<u32>> {
        let fail = |errno| info_error(Kind::Prog, errno);
        let mut ids = Vec::new();
        loop {
            let count = sys::prog_map_ids(self.as_fd(), &mut ids).map_err(fail)?;
            // Repeat if another process has bound more maps in between.
            if count <= ids.len() {
                ids.truncate(count);
                return Ok(ids);
            }
            ids.resize(count, 0);
        }
    }

    /// `BPF_PROG_BIND_MAP`: keeps `map` alive as long as the program, without an instruction that refers to
    /// it. Linux 5.10.
    ///
    /// Binding a map twice has no effect.
    ///
    /// # Errors
    ///
    /// [`Operation::BindMap`](crate::error::Operation::BindMap): ENOMEM; EPERM as [`info`](Self::info).
    pub fn bind_map(&self, map: &impl AsMap) -> Result<()> {
        sys::prog_bind_map(self.as_fd(), map.map_fd()).map_err(|errno| {
            let cause = (errno == Errno::PERM).then(diagnose::for_bpf).flatten();
            Error::new(Operation::BindMap, Reason::new(errno, cause))
        })
    }
}
