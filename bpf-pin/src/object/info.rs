//! The kernel's description of an object of any kind.

use std::fmt;

use crate::sys::AnyInfo;
use crate::types::ObjName;
use crate::types::{Identity, Kind};

use super::typed::TypedObject;
use super::{Link, LinkInfo, Map, MapInfo, Prog, ProgInfo};

/// The kernel's description of a map, a program or a link.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::object::ObjectInfo;
/// use bpf_pin::Object;
///
/// let info = Object::open("/sys/fs/bpf/flows")?.info()?;
/// println!("{}: {info}", info.identity());
/// if let ObjectInfo::Map(map) = info {
///     println!("{} entries", map.max_entries);
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(tag = "kind", rename_all = "snake_case"))]
pub enum ObjectInfo {
    /// The description of a map.
    Map(MapInfo),
    /// The description of a program.
    Prog(ProgInfo),
    /// The description of a link.
    Link(LinkInfo),
}

impl ObjectInfo {
    /// The object's kind and id.
    pub fn identity(&self) -> Identity {
        let (kind, id) = match self {
            Self::Map(info) => (Kind::Map, info.id),
            Self::Prog(info) => (Kind::Prog, info.id),
            Self::Link(info) => (Kind::Link, info.id),
        };
        Identity { kind, id }
    }

    /// The name that the object was created with. Links have none.
    pub fn name(&self) -> Option<&ObjName> {
        match self {
            Self::Map(info) => Some(&info.name),
            Self::Prog(info) => Some(&info.name),
            Self::Link(_) => None,
        }
    }
}

/// Writes the type and the sizes in bytes.
impl fmt::Display for ObjectInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(info) => write!(
                f,
                "{} map, {} to {} bytes, room for {}",
                info.map_type, info.key_size, info.value_size, info.max_entries
            ),
            Self::Prog(info) => write!(
                f,
                "{} program, {} bytes",
                info.prog_type, info.xlated_prog_len
            ),
            Self::Link(info) => write!(f, "{} link of program {}", info.link_type, info.prog_id),
        }
    }
}

impl ObjectInfo {
    /// `info` must be that of an object of this kind.
    pub(crate) fn from_raw(kind: Kind, info: &AnyInfo) -> Self {
        match kind {
            Kind::Map => Self::Map(Map::info_from_raw(info.to())),
            Kind::Prog => Self::Prog(Prog::info_from_raw(info.to())),
            Kind::Link => Self::Link(Link::info_from_raw(info.to())),
        }
    }
}
