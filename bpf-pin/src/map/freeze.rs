//! `BPF_MAP_FREEZE`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::capability::{Capability, lacks};
use crate::cause::Cause;
use crate::diagnose;
use crate::error::{Error, Reason, Result};
use crate::kind;
use crate::map::Map;
use crate::map::elem::{Needs, not_granted};
use crate::sys;

impl Map {
    /// `BPF_MAP_FREEZE`: from now on, and for good, no system call changes an element; programs
    /// still may, and all may read. Linux 5.2.
    ///
    /// # Errors
    ///
    /// [`Error::Freeze`]: [`Frozen`](Cause::Frozen) where it is already, and
    /// [`BeingWritten`](Cause::BeingWritten) where its values are mapped for writing (both EBUSY, or
    /// EPERM on a newer kernel); [`MapAccess`](Cause::MapAccess) (EPERM) for a map opened for reading
    /// only; [`MissingCapability`](Cause::MissingCapability) (EPERM), of `CAP_BPF`, on a kernel that
    /// asks for it in place of a descriptor that may write; ENOTSUPP on a type that is never frozen.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{ElemFlags, MapFlags, MapSpec, MapType};
    ///
    /// // The verifier takes what such a map holds for constants.
    /// let spec = MapSpec::new(MapType::ARRAY, 4, 8, 1).flags(MapFlags::RDONLY_PROG);
    /// let limits = spec.create()?;
    /// limits.typed::<u32, u64>()?.update(&0, &1500, ElemFlags::ANY)?;
    /// limits.freeze()?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn freeze(&self) -> Result<()> {
        sys::map_freeze(self.as_fd()).map_err(|errno| Error::Freeze {
            reason: Reason::new(errno, freeze_cause(self.as_fd(), errno)),
        })
    }
}

#[cold]
fn freeze_cause(fd: BorrowedFd<'_>, errno: Errno) -> Option<Cause> {
    if !matches!(errno, Errno::BUSY | Errno::PERM) {
        return None;
    }
    match is_frozen(fd) {
        Some(true) => return Some(Cause::Frozen),
        Some(false) if errno == Errno::BUSY => return Some(Cause::BeingWritten),
        _ if errno == Errno::BUSY => return None,
        _ => {}
    }
    // Kernels ask for one or for the other: where both are missing, which is not known.
    let denied = not_granted(fd, Needs::WRITE);
    match (denied, lacks(Capability::Bpf)?) {
        (Some(denied), false) => Some(denied),
        (None, true) => diagnose::missing(Capability::Bpf, "freezing a map"),
        _ => None,
    }
}

/// Only fdinfo tells. Linux 5.2.
pub(crate) fn is_frozen(fd: BorrowedFd<'_>) -> Option<bool> {
    let dir = kind::proc_dir("fdinfo")?;
    let name = fd.as_raw_fd().to_string();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&dir, name, flags, Mode::empty()).ok()?;
    let text = io::read_to_string(File::from(file)).ok()?;
    let mut words = text.lines().map(|line| line.split_whitespace());
    words.find_map(|mut line| match (line.next(), line.next()) {
        (Some("frozen:"), Some(frozen)) => Some(frozen == "1"),
        _ => None,
    })
}
