//! Maps: create, compare, read and write their elements, map their memory, freeze them.

mod compare;
mod elements;
mod explain;
mod freeze;
mod inner;
mod mmap;
mod spec;
mod validate;

pub use crate::error::mismatch::{MapFields, Mismatch};
pub use crate::sys::{AsMap, Atom, LoadOnly};
pub use elements::{
    Cursor, Descriptor, ElemFlags, Elements, Iter, Key, Keys, Layout, PerCpu, Plain, Readable,
};
pub use mmap::Mmap;
pub use spec::MapSpec;

pub use crate::object::{Map, MapInfo};
