//! Programs: what they are, how they are loaded, how they are tried.

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
    /// `bpf_prog_info.map_ids`: the ids of the maps that the program holds, those that
    /// its instructions name and those that were [bound](Self::bind_map). Linux 4.15.
    ///
    /// Two syscalls, for their number and for them.
    ///
    /// # Errors
    ///
    /// [`Operation::Info`](crate::error::Operation::Info), as [`info`](Self::info).
    pub fn map_ids(&self) -> Result<Vec<u32>> {
        let fail = |errno| info_error(Kind::Prog, errno);
        let mut ids = Vec::new();
        loop {
            let count = sys::prog_map_ids(self.as_fd(), &mut ids).map_err(fail)?;
            // It may have been bound to more of them meanwhile.
            if count <= ids.len() {
                ids.truncate(count);
                return Ok(ids);
            }
            ids.resize(count, 0);
        }
    }

    /// `BPF_PROG_BIND_MAP`: the program holds `map` for as long as it lives, though no instruction
    /// names it. Once more it changes nothing. Linux 5.10.
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
