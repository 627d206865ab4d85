//! Owned descriptors of a proven kind.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;

use crate::access::Access;
use crate::cause::Cause;
use crate::diagnose;
use crate::error::{Error, Failed, Reason, Result};
use crate::kind::{self, Identity, Kind, Proven, Verdict};
use crate::pathname::Pathname;
use crate::place::{Place, with_place};
use crate::sys::{self, InfoRoom, sealed::Sealed};

/// One of the kinds as a type: [`kinds::MapKind`], [`kinds::ProgKind`] or [`kinds::LinkKind`]. Sealed.
pub trait ObjectKind: Sealed + Sized {
    /// The kind.
    const KIND: Kind;
    /// What the kernel tells of an object of this kind.
    type Info;
    #[doc(hidden)]
    type Raw: sys::Info;
    #[doc(hidden)]
    fn info(raw: Self::Raw) -> Self::Info;
    #[doc(hidden)]
    fn fd_by_id(id: u32) -> std::result::Result<OwnedFd, Errno>;
    #[doc(hidden)]
    fn next_id(after: u32) -> std::result::Result<u32, Errno>;
}

/// The kinds as types, for [`Handle`].
pub mod kinds {
    /// A map.
    #[derive(Debug)]
    pub enum MapKind {}
    /// A program.
    #[derive(Debug)]
    pub enum ProgKind {}
    /// A link.
    #[derive(Debug)]
    pub enum LinkKind {}
}

/// What a pin can be opened as: [`Map`](crate::Map), [`Prog`](crate::Prog),
/// [`Link`](crate::Link), or [`Object`] for whatever it is. Sealed.
pub trait Pinnable: AsFd + Sealed + Sized {
    /// The kind, or None where any will do.
    #[doc(hidden)]
    const EXPECTED: Option<Kind>;
    /// Of the kind that was expected.
    #[doc(hidden)]
    fn from_proven(proven: Proven) -> Self;
}

/// An owned descriptor of a proven kind: what [`Map`](crate::Map), [`Prog`](crate::Prog) and
/// [`Link`](crate::Link) are.
///
/// The same in memory as an [`OwnedFd`], so an `Option` of it may stand in a C signature, where it
/// is an `int` and None is -1. It is closed when dropped, and the object dies with its last
/// descriptor unless it is pinned, attached or in use.
///
/// C must hand over what it was given, or -1: nobody looks whether an int is a map.
///
/// ```
/// use bpf_pin::Map;
///
/// /// int first_of(int map, int other): what C hands over is owned here, and what it gets is its own.
/// extern "C" fn first_of(map: Option<Map>, other: Option<Map>) -> Option<Map> {
///     map.or(other)
/// }
/// ```
#[repr(transparent)]
pub struct Handle<K> {
    fd: OwnedFd,
    kind: PhantomData<K>,
}

impl<K: ObjectKind> Handle<K> {
    /// `fd` must be of the kind.
    pub(crate) fn from_proven_fd(fd: OwnedFd) -> Self {
        let kind = PhantomData;
        Self { fd, kind }
    }

    /// `BPF_OBJ_GET`: the object pinned at `path`, for reading and writing. Linux 4.4.
    ///
    /// Symbolic links are followed. Takes two syscalls, the second of which proves the kind, and
    /// allocates nothing for a path below 256 bytes. A map is one that answers a batch of no elements,
    /// with success or ENOTSUPP; so whatever has a seccomp filter that gives this answer to
    /// `BPF_MAP_LOOKUP_BATCH` passes for a map, and the kernel then refuses what is done with it.
    ///
    /// # Errors
    ///
    /// [`Error::Open`], with one of these causes where it was proven:
    /// [`WrongKind`](Cause::WrongKind) where another kind of object is pinned there;
    /// [`Missing`](Cause::Missing) or [`NotBpffs`](Cause::NotBpffs) (ENOENT);
    /// [`NotAnObject`](Cause::NotAnObject) or [`Blocked`](Cause::Blocked) (EACCES);
    /// [`Dot`](Cause::Dot) or [`MissingCapability`](Cause::MissingCapability) (EPERM);
    /// [`NotADirectory`](Cause::NotADirectory) (ENOTDIR);
    /// [`SymbolicLink`](Cause::SymbolicLink) (ELOOP) on a mount that follows none;
    /// [`NameTooLong`](Cause::NameTooLong), [`PathTooLong`](Cause::PathTooLong) (ENAMETOOLONG);
    /// [`ReadOnlyFileSystem`](Cause::ReadOnlyFileSystem) (EROFS);
    /// [`InteriorNul`](Cause::InteriorNul), without a syscall.
    ///
    /// # References
    ///
    /// [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html), kernel/bpf/inode.c: `bpf_obj_get_user`
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::Map;
    ///
    /// let flows = Map::open("/sys/fs/bpf/flows")?;
    /// println!("{} has id {}", flows.info()?.name, flows.id()?);
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        open_path(path.as_ref(), Access::ReadWrite)
    }

    /// `BPF_OBJ_GET` with `BPF_F_RDONLY` or `BPF_F_WRONLY`. Linux 4.15.
    ///
    /// Of a program only the permission check depends on `access`. A map opened for writing only
    /// takes one more syscall to be proven one.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`LinkAccess`](Cause::LinkAccess) (EINVAL) for a link, which
    /// only [`Access::ReadWrite`] opens.
    pub fn open_with(path: impl AsRef<Path>, access: Access) -> Result<Self> {
        open_path(path.as_ref(), access)
    }

    /// `BPF_MAP_GET_FD_BY_ID`, `BPF_PROG_GET_FD_BY_ID` (Linux 4.13) or `BPF_LINK_GET_FD_BY_ID`
    /// (Linux 5.8): the living object with this id.
    ///
    /// # Errors
    ///
    /// [`Error::ById`]: [`NoSuchId`](Cause::NoSuchId) (ENOENT) where no object of the kind has the id;
    /// [`MissingCapability`](Cause::MissingCapability) (EPERM) without `CAP_SYS_ADMIN`.
    pub fn from_id(id: u32) -> Result<Self> {
        match K::fd_by_id(id) {
            Ok(fd) => Ok(Self::from_proven_fd(fd)),
            Err(errno) => Err(by_id_error::<K>(id, errno)),
        }
    }

    /// `fcntl(F_DUPFD_CLOEXEC)`: another descriptor of the same object.
    ///
    /// # Errors
    ///
    /// [`Error::Clone`]: EMFILE where the process has all the descriptors it may have.
    pub fn try_clone(&self) -> Result<Self> {
        match rustix::io::fcntl_dupfd_cloexec(&self.fd, 0) {
            Ok(fd) => Ok(Self::from_proven_fd(fd)),
            Err(errno) => Err(Error::Clone {
                kind: K::KIND,
                reason: Reason::errno_only(errno),
            }),
        }
    }

    /// The object's id, unique among the living objects of its kind. Linux 4.13.
    ///
    /// # Errors
    ///
    /// [`Error::Info`] as [`info`](Self::info).
    pub fn id(&self) -> Result<u32> {
        sys::object_id(self.fd.as_fd()).map_err(Self::info_error)
    }

    /// Which object it is: kind and id.
    ///
    /// # Errors
    ///
    /// [`Error::Info`] as [`info`](Self::info).
    pub fn identity(&self) -> Result<Identity> {
        let (kind, id) = (K::KIND, self.id()?);
        Ok(Identity { kind, id })
    }

    /// `BPF_OBJ_GET_INFO_BY_FD`: what the kernel tells of the object. Linux 4.13, links 5.8.
    ///
    /// # Errors
    ///
    /// [`Error::Info`]: [`MissingCapability`](Cause::MissingCapability) (EPERM) before Linux 5.19,
    /// where `kernel.unprivileged_bpf_disabled` is not 0 and `CAP_BPF` is missing.
    pub fn info(&self) -> Result<K::Info> {
        self.try_info().map_err(Self::info_error)
    }

    #[inline]
    pub(crate) fn try_info(&self) -> std::result::Result<K::Info, Errno> {
        sys::info(self.fd.as_fd()).map(K::info)
    }

    #[cold]
    pub(crate) fn info_error(errno: Errno) -> Error {
        Error::Info {
            kind: K::KIND,
            reason: Reason::new(
                errno,
                (errno == Errno::PERM).then(diagnose::for_bpf).flatten(),
            ),
        }
    }
}

#[cold]
pub(crate) fn by_id_error<K: ObjectKind>(id: u32, errno: Errno) -> Error {
    let kind = K::KIND;
    let cause = match errno {
        Errno::PERM => diagnose::for_id(),
        Errno::NOENT => diagnose::no_such_id(match kind {
            Kind::Map => "map",
            Kind::Prog => "program",
            Kind::Link => "link",
        }),
        _ => None,
    };
    let reason = Reason::new(errno, cause);
    Error::ById { kind, id, reason }
}

/// What came in the way of an object, in a word or two: what more there is to say is found out when
/// it is known that somebody will hear it.
#[derive(Debug)]
pub(crate) enum Missed {
    /// `BPF_OBJ_GET` failed.
    Get(Errno),
    /// It is not proven to be of the kind in one syscall.
    Unproven(OwnedFd),
    /// The name is a symbolic link's.
    Link,
}

/// `BPF_OBJ_GET` and the proof of kind.
pub(crate) fn open_path<T: Pinnable>(path: &Path, access: Access) -> Result<T> {
    match with_place(path, |place| look(place, access)) {
        Ok(Ok(object)) => Ok(object),
        Ok(Err(missed)) => explain_path(path, access, missed),
        Err(nul) => Err(open_error(path, nul.into())),
    }
}

#[cold]
fn explain_path<T: Pinnable>(path: &Path, access: Access, missed: Missed) -> Result<T> {
    let name = Pathname::new(path).map_err(|nul| open_error(path, nul.into()))?;
    explain(&name.place(), access, missed)
}

/// `BPF_OBJ_GET` and the proof of kind, and nothing else on the way.
#[inline]
pub(crate) fn look<T: Pinnable>(
    place: &Place<'_>,
    access: Access,
) -> std::result::Result<T, Missed> {
    let fd = place.get(access.flags()).map_err(Missed::Get)?;
    match kind::prove_at_once(fd, T::EXPECTED) {
        Ok(proven) => Ok(T::from_proven(proven)),
        Err(fd) => Err(Missed::Unproven(fd)),
    }
}

/// The same, with what the kernel tells of the object, which is what proves the kind then.
#[inline]
pub(crate) fn look_with_info<T: Pinnable, const WORDS: usize>(
    place: &Place<'_>,
    access: Access,
    info: &mut InfoRoom<WORDS>,
) -> std::result::Result<T, Missed> {
    let fd = place.get(access.flags()).map_err(Missed::Get)?;
    match kind::prove_by_info(fd, T::EXPECTED, info) {
        Ok(proven) => Ok(T::from_proven(proven)),
        Err(fd) => Err(Missed::Unproven(fd)),
    }
}

/// The object after all, where its kind takes more than one syscall, or why there is none.
#[cold]
pub(crate) fn explain<T: Pinnable>(place: &Place<'_>, access: Access, missed: Missed) -> Result<T> {
    match missed {
        Missed::Get(errno) => Err(get_error(place, access, errno)),
        Missed::Unproven(fd) => match kind::prove_at_length(fd, T::EXPECTED) {
            Ok(proven) => Ok(T::from_proven(proven)),
            Err((_, verdict)) => Err(open_error(&place.path(), disproved::<T>(verdict))),
        },
        Missed::Link => Err(linked(place)),
    }
}

#[cold]
pub(crate) fn linked(place: &Place<'_>) -> Error {
    let path = place.path();
    let cause = Cause::SymbolicLink { path: path.clone() };
    open_error(&path, cause.into())
}

#[cold]
pub(crate) fn get_error(place: &Place<'_>, access: Access, errno: Errno) -> Error {
    let cause = diagnose::open(place, access, errno);
    open_error(&place.path(), Reason::new(errno, cause))
}

#[cold]
pub(crate) fn open_error(path: &Path, reason: Reason) -> Error {
    let path = path.to_owned();
    Error::Open { path, reason }
}

#[cold]
fn disproved<T: Pinnable>(verdict: Verdict) -> Reason {
    match (verdict, T::EXPECTED) {
        (Verdict::Is(found), Some(expected)) => Cause::WrongKind { expected, found }.into(),
        (other, _) => Cause::from(other).into(),
    }
}

fn prove_descriptor<T: Pinnable>(fd: OwnedFd) -> std::result::Result<T, Failed<OwnedFd>> {
    match kind::prove(fd, T::EXPECTED) {
        Ok(proven) => Ok(T::from_proven(proven)),
        Err((fd, verdict)) => {
            let expected = T::EXPECTED;
            let reason = disproved::<T>(verdict);
            Err(Failed::new(fd, Error::Descriptor { expected, reason }))
        }
    }
}

impl<K: ObjectKind> Sealed for Handle<K> {}

impl<K: ObjectKind> Pinnable for Handle<K> {
    const EXPECTED: Option<Kind> = Some(K::KIND);

    fn from_proven(proven: Proven) -> Self {
        Self::from_proven_fd(proven.into_fd())
    }
}

impl<K> AsFd for Handle<K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<K> From<Handle<K>> for OwnedFd {
    fn from(handle: Handle<K>) -> Self {
        handle.fd
    }
}

/// Proves the kind; the error gives the descriptor back.
impl<K: ObjectKind> TryFrom<OwnedFd> for Handle<K> {
    type Error = Failed<OwnedFd>;

    fn try_from(fd: OwnedFd) -> std::result::Result<Self, Failed<OwnedFd>> {
        prove_descriptor(fd)
    }
}

impl<K: ObjectKind> fmt::Debug for Handle<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{:?}", K::KIND);
        f.debug_struct(&name)
            .field("fd", &self.fd.as_raw_fd())
            .finish()
    }
}

/// A map, a program or a link: whatever a pin turns out to be.
#[derive(Debug)]
pub enum Object {
    /// A map.
    Map(crate::Map),
    /// A program.
    Prog(crate::Prog),
    /// A link.
    Link(crate::Link),
}

impl Object {
    /// `BPF_OBJ_GET`: the object pinned at `path`, whatever it is.
    ///
    /// # Errors
    ///
    /// As [`Handle::open`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::Object;
    ///
    /// match Object::open("/sys/fs/bpf/flows")? {
    ///     Object::Map(map) => println!("map of {} entries", map.info()?.max_entries),
    ///     other => println!("{}", other.kind()),
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        open_path(path.as_ref(), Access::ReadWrite)
    }

    /// `BPF_OBJ_GET` with `BPF_F_RDONLY` or `BPF_F_WRONLY`.
    ///
    /// # Errors
    ///
    /// As [`Handle::open_with`].
    pub fn open_with(path: impl AsRef<Path>, access: Access) -> Result<Self> {
        open_path(path.as_ref(), access)
    }

    /// What it is.
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
    /// As [`Handle::id`].
    pub fn id(&self) -> Result<u32> {
        match self {
            Self::Map(map) => map.id(),
            Self::Prog(prog) => prog.id(),
            Self::Link(link) => link.id(),
        }
    }

    /// Which object it is.
    ///
    /// # Errors
    ///
    /// As [`Handle::id`].
    pub fn identity(&self) -> Result<Identity> {
        let (kind, id) = (self.kind(), self.id()?);
        Ok(Identity { kind, id })
    }
}

impl Sealed for Object {}

impl Pinnable for Object {
    const EXPECTED: Option<Kind> = None;

    fn from_proven(proven: Proven) -> Self {
        let kind = proven.kind();
        let fd = proven.into_fd();
        match kind {
            Kind::Map => Self::Map(Handle::from_proven_fd(fd)),
            Kind::Prog => Self::Prog(Handle::from_proven_fd(fd)),
            Kind::Link => Self::Link(Handle::from_proven_fd(fd)),
        }
    }
}

impl AsFd for Object {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Map(map) => map.as_fd(),
            Self::Prog(prog) => prog.as_fd(),
            Self::Link(link) => link.as_fd(),
        }
    }
}

impl From<Object> for OwnedFd {
    fn from(object: Object) -> Self {
        match object {
            Object::Map(map) => map.into(),
            Object::Prog(prog) => prog.into(),
            Object::Link(link) => link.into(),
        }
    }
}

/// Finds out the kind; the error gives the descriptor back.
impl TryFrom<OwnedFd> for Object {
    type Error = Failed<OwnedFd>;

    fn try_from(fd: OwnedFd) -> std::result::Result<Self, Failed<OwnedFd>> {
        prove_descriptor(fd)
    }
}

impl From<crate::Map> for Object {
    fn from(map: crate::Map) -> Self {
        Self::Map(map)
    }
}

impl From<crate::Prog> for Object {
    fn from(prog: crate::Prog) -> Self {
        Self::Prog(prog)
    }
}

impl From<crate::Link> for Object {
    fn from(link: crate::Link) -> Self {
        Self::Link(link)
    }
}
