//! What the host and the guest's init have to agree on: the plan that goes in, the records that come out.

pub mod phase;
pub mod plan;
pub mod wire;
