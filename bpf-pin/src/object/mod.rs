//! BPF objects: how a kind is proven, owned descriptors of a proven kind, and their pins.

mod any;
mod ids;
mod info;
mod link_info;
mod map_info;
mod open;
mod pinned;
mod prog_info;
pub(crate) mod proof;
mod typed;

pub use any::Object;
pub use ids::Ids;
pub use info::ObjectInfo;
pub use link_info::LinkInfo;
pub use map_info::MapInfo;
pub use pinned::{PinnedLink, PinnedMap, PinnedObject, PinnedProg};
pub use prog_info::ProgInfo;
pub use typed::{Link, Map, Pinnable, Prog, TypedObject};

pub(crate) use open::{
    OpenFailure, get_error, get_typed, get_typed_with_info, open_error, open_slow, symlink_error,
};
pub(crate) use pinned::{identify, identity_at, open_any_access, pin_at, unlink_if_held_by};
pub(crate) use typed::{info_error, info_of, try_info};
