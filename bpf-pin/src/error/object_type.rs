//! The type of an object of any kind.

use std::fmt;

use crate::types::{LinkType, MapType, ProgType};

/// The type of a map, program or link, as in "links of type iter".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ObjectType {
    /// A map type.
    Map(MapType),
    /// A program type.
    Prog(ProgType),
    /// A link type.
    Link(LinkType),
}

impl fmt::Display for ObjectType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(map_type) => write!(f, "maps of type {map_type}"),
            Self::Prog(prog_type) => write!(f, "programs of type {prog_type}"),
            Self::Link(link_type) => write!(f, "links of type {link_type}"),
        }
    }
}
