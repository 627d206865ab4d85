//! What the host and the guest's init share: the plan that goes in and the records that come out.

pub mod phase;
pub mod plan;
pub mod wire;
