//! What the running kernel has, and what this thread may do with it.

mod capabilities;
mod features;
mod memlock;

pub use crate::process::{Capability, Lockdown};
pub use capabilities::{Action, Capabilities, Limit, Permission};
pub use features::Features;
