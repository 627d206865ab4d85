//! Programs: what they are, how they are loaded, how they are tried.

mod info;
mod load;
mod run;
mod spec;

pub use info::ProgInfo;
pub use run::{TestRun, TestRunFlags, TestRunResult};
pub use spec::{ProgFlags, ProgSpec};

use std::os::fd::{AsFd, OwnedFd};

use bpf_pin_sys as abi;
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Error, Reason, Result};
use crate::kind::Kind;
use crate::object::{Handle, ObjectKind, kinds};
use crate::sys::{self, AsMap, sealed::Sealed};

#[doc(no_inline)]
pub use bpf_pin_sys::bpf_insn as Insn;

/// An owned descriptor of a program.
///
/// As every [`Handle`] it has [`open`](Handle::open), [`open_with`](Handle::open_with),
/// [`from_id`](Handle::from_id), [`pin`](Handle::pin), [`try_clone`](Handle::try_clone),
/// [`id`](Handle::id) and [`info`](Handle::info); `TryFrom<OwnedFd>`, `AsFd` and `Into<OwnedFd>`.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::{Insn, ProgSpec, ProgType};
///
/// // Lets every packet through.
/// let insns = [Insn::mov64_imm(0, -1), Insn::exit()];
/// let prog = ProgSpec::new(ProgType::SOCKET_FILTER, &insns).license(c"GPL").load()?;
/// let prog = prog.pin("/sys/fs/bpf/accept")?;
/// # Ok::<(), bpf_pin::Error>(())
/// ```
pub type Prog = Handle<kinds::ProgKind>;

impl Sealed for kinds::ProgKind {}

impl ObjectKind for kinds::ProgKind {
    const KIND: Kind = Kind::Prog;
    type Info = ProgInfo;
    type Raw = abi::bpf_prog_info;

    fn info(raw: abi::bpf_prog_info) -> ProgInfo {
        ProgInfo::from_raw(raw)
    }

    fn fd_by_id(id: u32) -> Result<OwnedFd, Errno> {
        sys::prog_fd_by_id(id)
    }

    fn next_id(after: u32) -> Result<u32, Errno> {
        sys::prog_next_id(after)
    }
}

impl Prog {
    /// `bpf_prog_info.map_ids`: the ids of the maps that the program holds, those that
    /// its instructions name and those that were [bound](Self::bind_map). Linux 4.15.
    ///
    /// Two syscalls, for their number and for them.
    ///
    /// # Errors
    ///
    /// [`Error::Info`], as [`info`](Handle::info).
    pub fn map_ids(&self) -> Result<Vec<u32>> {
        let fail = |errno| Self::info_error(errno);
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
    /// [`Error::BindMap`]: ENOMEM; EPERM as [`info`](Handle::info).
    pub fn bind_map(&self, map: &impl AsMap) -> Result<()> {
        sys::prog_bind_map(self.as_fd(), map.map_fd()).map_err(|errno| {
            let cause = (errno == Errno::PERM).then(diagnose::for_bpf).flatten();
            Error::BindMap {
                reason: Reason::new(errno, cause),
            }
        })
    }
}
