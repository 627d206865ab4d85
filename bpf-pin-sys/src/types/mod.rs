//! The types of maps, programs, hooks and links.

mod attach;
mod event;
mod iter;
mod link;
mod map;
mod prog;
mod stats;

pub use attach::*;
pub use event::*;
pub use iter::*;
pub use link::*;
pub use map::*;
pub use prog::*;
pub use stats::*;
