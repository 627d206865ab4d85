//! `BPF_MAP_FREEZE`.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use crate::cause::Cause;
use crate::diagnose;
use crate::error::{Error, Operation, Reason, Result};
use crate::map::Map;
use crate::map::explain::{Needs, is_frozen, not_granted};
use crate::process::{Capability, lacks};
use crate::sys;

impl Map {
    /// `BPF_MAP_FREEZE`: from now on, and for good, no system call changes an element; programs
    /// still may, and all may read. Linux 5.2.
    ///
    /// # Errors
    ///
    /// [`Operation::Freeze`](crate::error::Operation::Freeze): [`Frozen`](Cause::Frozen) where it is already, and
    /// [`BeingWritten`](Cause::BeingWritten) where its values are mapped for writing (both EBUSY, or
    /// EPERM on a newer kernel); [`MapAccess`](Cause::MapAccess) (EPERM) for a map opened for reading
    /// only; [`MissingCapability`](Cause::MissingCapability) (EPERM), of `CAP_BPF`, on a kernel that
    /// asks for it in place of a descriptor that may write; ENOTSUPP on a type that is never frozen.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::map::ElemFlags;
    /// use bpf_pin::types::MapFlags;
    /// use bpf_pin::{MapSpec, MapType};
    ///
    /// // The verifier takes what such a map holds for constants.
    /// let spec = MapSpec::new(MapType::ARRAY, 4, 8, 1).flags(MapFlags::RDONLY_PROG);
    /// let limits = spec.create()?;
    /// limits.elements::<u32, u64>()?.update(&0, &1500, ElemFlags::ANY)?;
    /// limits.freeze()?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn freeze(&self) -> Result<()> {
        sys::map_freeze(self.as_fd()).map_err(|errno| {
            Error::new(
                Operation::Freeze,
                Reason::new(errno, freeze_cause(self.as_fd(), errno)),
            )
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
