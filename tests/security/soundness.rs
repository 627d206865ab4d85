//! Safe code cannot make the kernel write outside of the buffers that it passes.
//!
//! The tests forbid unsafe code, as a user of the library may. Only the allocator that protects their memory
//! has some.

mod buffers;
mod forged;
mod mappings;
mod protected;

pub use protected::Protected;
