//! Features of the running kernel, and permissions of this thread.

mod capabilities;
mod features;

pub use crate::process::{Capability, Lockdown};
pub use capabilities::{Action, Capabilities, Limit, Permission};
pub use features::Features;
