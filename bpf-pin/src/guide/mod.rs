//! Pages about one task each, with code that is compiled.
//!
//! - [`mounting`]: find a bpffs, mount one, and see what is wrong with a path
//! - [`restarting`]: a loader that finds what its last run left, as a service too
//! - [`sharing`]: pins for other users, over a socket, and in a user namespace
//! - [`other_loaders`]: beside aya, libbpf-rs and C

#[doc = include_str!("mounting.md")]
pub mod mounting {}

#[doc = include_str!("other_loaders.md")]
pub mod other_loaders {}

#[doc = include_str!("restarting.md")]
pub mod restarting {}

#[doc = include_str!("sharing.md")]
pub mod sharing {}
