//! Paths for the kernel: a checked name, a path stored inline, and a name in a directory that is held open.

mod at;
mod component;
mod inline;

pub(crate) use at::{AtError, AtPath, Base, with_path};
pub(crate) use component::{Component, InvalidComponent, NAME_MAX, PATH_MAX, with_name};
pub use component::{escape_name, unescape_name};
pub(crate) use inline::{InteriorNul, Pathname};
