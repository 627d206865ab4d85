//! Maps: what they are, how they are made, what is in them.

mod alloc_check;
mod batch;
mod compare;
mod cursor;
mod elem;
mod freeze;
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
pub use iter::ElemsIter;
pub use keys::Keys;
pub use mmap::Mmap;
pub use objects::{Element, Objects};
pub use per_cpu::{PerCpu, PerCpuIter};
pub use spec::MapSpec;
pub use typed::{Typed, TypedIter, TypedKeys};

use std::os::fd::{AsFd, BorrowedFd};

use crate::sys::AsMap;

pub use crate::object::{Map, MapInfo};

impl AsMap for Map {
    fn map_fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}
