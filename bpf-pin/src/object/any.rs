//! An object of any kind.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::error::{Failed, Result};
use crate::sys::sealed::Sealed;
use crate::types::Access;
use crate::types::{Identity, Kind};

use super::info::ObjectInfo;
use super::open::{from_fd, is_same_object, open_path};
use super::pinned::{Pinned, PinnedObject};
use super::typed::Pinnable;
use super::{Link, Map, Prog};
use crate::proof::Proven;

/// A map, a program or a link: for pins and descriptors of unknown kind.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::Object;
///
/// match Object::open("/sys/fs/bpf/flows")? {
///     Object::Map(map) => println!("a map of {} entries", map.info()?.max_entries),
///     other => println!("{}: {}", other.identity()?, other.info()?),
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug)]
pub enum Object {
    /// A map.
    Map(Map),
    /// A program.
    Prog(Prog),
    /// A link.
    Link(Link),
}

/// Evaluates an expression for the object, whatever its kind.
macro_rules! each {
    ($object:expr, $name:ident => $then:expr) => {
        match $object {
            Object::Map($name) => $then,
            Object::Prog($name) => $then,
            Object::Link($name) => $then,
        }
    };
}

impl Object {
    /// `BPF_OBJ_GET`: opens the object pinned at `path`, whatever its kind, for reading and writing.
    ///
    /// # Errors
    ///
    /// As [`Map::open`], without [`WrongKind`](crate::error::Cause::WrongKind).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        open_path(path.as_ref(), Access::ReadWrite)
    }

    /// `BPF_OBJ_GET` with `BPF_F_RDONLY` or `BPF_F_WRONLY`: opens the object pinned at `path` for `access`.
    ///
    /// # Errors
    ///
    /// As [`Link::open_with`], without [`WrongKind`](crate::error::Cause::WrongKind).
    pub fn open_with(path: impl AsRef<Path>, access: Access) -> Result<Self> {
        open_path(path.as_ref(), access)
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Map(_) => Kind::Map,
            Self::Prog(_) => Kind::Prog,
            Self::Link(_) => Kind::Link,
        }
    }

    /// The object's id, unique among the living objects of its kind.
    ///
    /// # Errors
    ///
    /// As [`Map::info`].
    pub fn id(&self) -> Result<u32> {
        each!(self, object => object.id())
    }

    /// The object's kind and id.
    ///
    /// # Errors
    ///
    /// As [`Map::info`].
    pub fn identity(&self) -> Result<Identity> {
        each!(self, object => object.identity())
    }

    /// `BPF_OBJ_GET_INFO_BY_FD`: the kernel's description of the object. Linux 4.13; links 5.8.
    ///
    /// # Errors
    ///
    /// As [`Map::info`].
    pub fn info(&self) -> Result<ObjectInfo> {
        Ok(match self {
            Self::Map(map) => ObjectInfo::Map(map.info()?),
            Self::Prog(prog) => ObjectInfo::Prog(prog.info()?),
            Self::Link(link) => ObjectInfo::Link(link.info()?),
        })
    }

    /// Returns `true` if `other` is a descriptor of the same object. Makes two system calls.
    ///
    /// # Errors
    ///
    /// As [`Map::is_same_object`].
    pub fn is_same_object(&self, other: impl AsFd) -> Result<bool> {
        is_same_object(self.identity()?, other)
    }

    /// `fcntl(F_DUPFD_CLOEXEC)`: returns another descriptor of the same object.
    ///
    /// # Errors
    ///
    /// As [`Map::try_clone`].
    pub fn try_clone(&self) -> Result<Self> {
        each!(self, object => object.try_clone().map(Self::from))
    }

    /// `BPF_OBJ_PIN`: pins the object at `path`, so that it outlives this process.
    ///
    /// # Errors
    ///
    /// As [`Map::pin`]. The error returns the object.
    pub fn pin(self, path: impl AsRef<Path>) -> Result<PinnedObject, Failed<Self>> {
        Pinned::pin(self, path.as_ref()).map(PinnedObject)
    }
}

impl Sealed for Object {}

impl Pinnable for Object {
    const EXPECTED: Option<Kind> = None;

    fn from_proven(proven: Proven) -> Self {
        let kind = proven.kind();
        let fd = proven.into_fd();
        match kind {
            Kind::Map => Self::Map(Map::from_proven_fd(fd)),
            Kind::Prog => Self::Prog(Prog::from_proven_fd(fd)),
            Kind::Link => Self::Link(Link::from_proven_fd(fd)),
        }
    }
}

impl AsFd for Object {
    fn as_fd(&self) -> BorrowedFd<'_> {
        each!(self, object => object.as_fd())
    }
}

impl From<Object> for OwnedFd {
    fn from(object: Object) -> Self {
        each!(object, object => object.into())
    }
}

/// Proves the kind of a descriptor that comes from elsewhere; the error returns the descriptor.
impl TryFrom<OwnedFd> for Object {
    type Error = Failed<OwnedFd>;

    fn try_from(fd: OwnedFd) -> Result<Self, Failed<OwnedFd>> {
        from_fd(fd)
    }
}

impl From<Map> for Object {
    fn from(map: Map) -> Self {
        Self::Map(map)
    }
}

impl From<Prog> for Object {
    fn from(prog: Prog) -> Self {
        Self::Prog(prog)
    }
}

impl From<Link> for Object {
    fn from(link: Link) -> Self {
        Self::Link(link)
    }
}

impl crate::error::Owned for Object {}
