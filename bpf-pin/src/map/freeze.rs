//! `BPF_MAP_FREEZE`: makes a map read-only for system calls.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Error, Operation, Reason, Result};
use crate::map::Map;
use crate::map::explain::{denied_access, is_frozen};
use crate::process::{Capability, lacks};
use crate::sys;
use crate::types::Access;

impl Map {
    /// `BPF_MAP_FREEZE`: makes the elements read-only for system calls, forever. Linux 5.2.
    ///
    /// Programs may still change elements. Reading is not affected.
    ///
    /// # Errors
    ///
    /// [`Operation::Freeze`](crate::error::Operation::Freeze):
    /// - [`Frozen`](Cause::Frozen) if it is frozen already (EBUSY, on newer kernels EPERM)
    /// - [`BeingWritten`](Cause::BeingWritten) (EBUSY) if its values are mapped for writing or being written
    /// - [`MapAccess`](Cause::MapAccess) (EPERM) for a map opened for reading only
    /// - [`MissingCapability`](Cause::MissingCapability) (EPERM) without `CAP_BPF`, on a kernel that requires
    ///   it instead of a writable descriptor; [`FreezeDenied`](Cause::FreezeDenied) (EPERM) if both are missing
    /// - ENOTSUPP for a type that cannot be frozen
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::map::ElemFlags;
    /// use bpf_pin::types::MapFlags;
    /// use bpf_pin::{MapSpec, MapType};
    ///
    /// // The verifier treats the values of such a map as constants.
    /// let spec = MapSpec::new(MapType::ARRAY, 4, 8, 1).flags(MapFlags::RDONLY_PROG);
    /// let limits = spec.create()?;
    /// limits.elements::<u32, u64>()?.update(&0, &1500, ElemFlags::ANY)?;
    /// limits.freeze()?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn freeze(&self) -> Result<()> {
        sys::map_freeze(self.as_fd()).map_err(|errno| {
            let cause = freeze_cause(self.as_fd(), errno);
            Error::new(Operation::Freeze, Reason::new(errno, cause)).of_map(self.as_fd())
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
    // Some kernels require the capability, others a writable descriptor.
    let denied = denied_access(fd, Access::WriteOnly);
    match (denied, lacks(Capability::Bpf)?) {
        (Some(_), true) => Some(Cause::FreezeDenied),
        (Some(denied), false) => Some(denied),
        (None, true) => diagnose::missing(Capability::Bpf, "freezing a map"),
        _ => None,
    }
}
