//! The kinds of object, and which object of a kind.

use std::fmt;

/// What a BPF object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A map. Linux 3.18; pinned since 4.4.
    Map,
    /// A program. Linux 3.18; pinned since 4.4.
    Prog,
    /// A link, the attachment of a program. Linux 5.7.
    Link,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Map => "map",
            Self::Prog => "program",
            Self::Link => "link",
        })
    }
}

/// Which object: kinds number their objects each for itself, from 1 up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The kind.
    pub kind: Kind,
    /// The id, unique among the living objects of the kind.
    pub id: u32,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}
