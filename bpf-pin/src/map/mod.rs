//! Maps: what they are, how they are made, what is in them.

mod elem;
mod info;
mod per_cpu;
mod spec;
mod typed;

pub use elem::{ElemFlags, Elems, Keys};
pub use info::MapInfo;
pub use per_cpu::PerCpu;
pub use spec::{MapFlags, MapSpec};
pub use typed::{Typed, TypedIter, TypedKeys};

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::kind::Kind;
use crate::object::{Handle, ObjectKind, kinds};
use crate::sys::{self, AsMap, sealed::Sealed};

/// An owned descriptor of a map. See [`Handle`] for what all kinds have.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::{ElemFlags, MapSpec, MapType};
///
/// let map = MapSpec::new(MapType::HASH, 4, 8, 1024).name("flows")?.create()?;
/// let flows = map.typed::<u32, u64>()?;
/// flows.update(&7, &1, ElemFlags::ANY)?;
/// assert_eq!(flows.lookup(&7)?, Some(1));
/// # Ok::<(), bpf_pin::Error>(())
/// ```
pub type Map = Handle<kinds::Map>;

impl Sealed for kinds::Map {}

impl ObjectKind for kinds::Map {
    const KIND: Kind = Kind::Map;
    type Info = MapInfo;

    fn info(fd: BorrowedFd<'_>) -> Result<MapInfo, Errno> {
        sys::info(fd).map(MapInfo::from_raw)
    }

    fn fd_by_id(id: u32) -> Result<OwnedFd, Errno> {
        sys::map_fd_by_id(id)
    }
}

impl AsMap for Map {
    fn map_fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}
