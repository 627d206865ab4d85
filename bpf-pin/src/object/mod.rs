//! BPF objects: owned descriptors of a proven kind, and their pins.

mod any;
mod ids;
mod info;
mod link;
mod map;
mod open;
mod pinned;
mod prog;
mod typed;

pub use any::Object;
pub use ids::Ids;
pub use info::ObjectInfo;
pub use link::{Link, LinkInfo};
pub use map::{Map, MapInfo};
pub use pinned::{PinnedLink, PinnedMap, PinnedObject, PinnedProg};
pub use prog::{Prog, ProgInfo};
pub use typed::{Pinnable, TypedObject};

pub(crate) use open::{
    OpenFailure, get_error, get_typed, get_typed_with_info, open_error, open_slow, symlink_error,
};
pub(crate) use pinned::{identify, identity_at, open_any_access, pin_at, unlink_if_held_by};
pub(crate) use typed::{info_error, info_of, try_info};
