//! The interface between the host and the guest's init: the plan and the records.

pub mod phase;
pub mod plan;
pub mod wire;
