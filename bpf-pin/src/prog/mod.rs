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

    /// Returns the ids of the living programs that use `map`, in ascending order.
    ///
    /// These are the programs with the map in their [`map_ids`](Self::map_ids). A program that reaches it only
    /// through a map of maps, or through a tail call, is not one of them. Four syscalls for each program of
    /// the system, and one more for each that uses maps. Linux 4.15.
    ///
    /// A prog array is emptied when its last pin and descriptor are gone, even while programs use it, because
    /// they hold no user reference (kernel/bpf/syscall.c: `bpf_map_put_uref`): their tail calls then fall
    /// through. This method shows if there are such programs.
    ///
    /// # Races
    ///
    /// A program that is loaded during the call may be missing, and one that is freed meanwhile may be included.
    ///
    /// # Errors
    ///
    /// As [`ids`](Self::ids), [`from_id`](Self::from_id) and [`map_ids`](Self::map_ids):
    /// [`MissingCapability`](crate::error::Cause::MissingCapability) (EPERM) without `CAP_SYS_ADMIN`. Programs
    /// that are freed meanwhile are skipped.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{PinnedMap, Prog};
    ///
    /// let tails = PinnedMap::open("/sys/fs/bpf/tails")?;
    /// if Prog::ids_using(&tails)?.is_empty() {
    ///     tails.unpin()?;
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn ids_using(map: &impl AsMap) -> Result<Vec<u32>> {
        let map_id = sys::object_id(map.map_fd()).map_err(|errno| info_error(Kind::Map, errno))?;
        let mut using = vec![];
        for id in Self::ids() {
            let id = id?;
            match Self::from_id(id).and_then(|prog| prog.map_ids()) {
                Ok(map_ids) if map_ids.contains(&map_id) => using.push(id),
                Ok(_) => {}
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(using)
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
