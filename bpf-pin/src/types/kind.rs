//! The kinds of object that can be pinned, and the identity of an object.

use std::fmt;

/// The kind of a BPF object that can be pinned.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::{Kind, Object};
///
/// let object = Object::open("/sys/fs/bpf/flows")?;
/// if object.kind() == Kind::Link {
///     println!("a program is attached as long as this pin exists");
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Kind {
    /// A map. Linux 3.18; pinned since 4.4.
    Map,
    /// A program. Linux 3.18; pinned since 4.4.
    Prog,
    /// A link, the attachment of a program. Linux 5.7.
    Link,
}

impl Kind {
    /// The word for the kind.
    pub(crate) const fn noun(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Prog => "program",
            Self::Link => "link",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.noun())
    }
}

/// Identifies an object of the running kernel by its kind and its id.
///
/// Each kind numbers its objects separately, from 1 up. The kernel does not reuse an id before it has used
/// all others.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::{Map, PinDir};
///
/// let flows = Map::open("/sys/fs/bpf/app/flows")?;
/// let dir = PinDir::open("/sys/fs/bpf/app")?;
/// assert_eq!(dir.identity("flows")?, flows.identity()?);
/// println!("{}", flows.identity()?); // map 17
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
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
