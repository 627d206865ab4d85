//! Paths as the kernel takes them: a name in a directory, a path on the stack, and a name that is
//! looked up from a directory that is held open.

pub(crate) mod at;
pub(crate) mod component;
pub(crate) mod inline;
