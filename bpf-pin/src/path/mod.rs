//! Paths: a name in a directory, a path on the stack, and a directory that is held open.

pub(crate) mod at;
pub(crate) mod component;
pub(crate) mod inline;
