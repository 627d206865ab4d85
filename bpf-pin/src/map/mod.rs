//! Maps: what they are, how they are made, what is in them.

mod alloc_check;
mod batch;
mod compare;
mod cursor;
mod elem;
mod freeze;
mod info;
mod iter;
mod keys;
mod mmap;
mod objects;
mod one_cpu;
mod per_cpu;
mod refused;
mod spec;
mod typed;

pub use cursor::Cursor;
pub use elem::{ElemFlags, Elems};
pub use info::MapInfo;
pub use iter::ElemsIter;
pub use keys::Keys;
pub use mmap::Mmap;
pub use objects::{Element, Objects};
pub use per_cpu::{PerCpu, PerCpuIter};
pub use spec::MapSpec;
pub use typed::{Typed, TypedIter, TypedKeys};

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bpf_pin_sys as abi;
use rustix::io::Errno;

use crate::kind::Kind;
use crate::object::{Handle, ObjectKind, kinds};
use crate::sys::{self, AsMap, sealed::Sealed};

/// An owned descriptor of a map.
///
/// As every [`Handle`] it has [`open`](Handle::open), [`open_with`](Handle::open_with),
/// [`from_id`](Handle::from_id), [`pin`](Handle::pin), [`try_clone`](Handle::try_clone),
/// [`id`](Handle::id) and [`info`](Handle::info); `TryFrom<OwnedFd>`, `AsFd` and `Into<OwnedFd>`.
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
pub type Map = Handle<kinds::MapKind>;

impl Sealed for kinds::MapKind {}

impl ObjectKind for kinds::MapKind {
    const KIND: Kind = Kind::Map;
    type Info = MapInfo;
    type Raw = abi::bpf_map_info;

    fn info(raw: abi::bpf_map_info) -> MapInfo {
        MapInfo::from_raw(raw)
    }

    fn fd_by_id(id: u32) -> Result<OwnedFd, Errno> {
        sys::map_fd_by_id(id, 0)
    }

    fn next_id(after: u32) -> Result<u32, Errno> {
        sys::map_next_id(after)
    }
}

impl AsMap for Map {
    fn map_fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}
