//! The common implementation of `Map`, `Prog` and `Link`: owned descriptors of a proven kind.

// The expansion of `typed_object` needs these names, so its callers import all of this module.
pub(super) use std::fmt;
pub(super) use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
pub(super) use std::path::Path;

pub(super) use bpf_pin_sys as abi;
use rustix::io::Errno;

use crate::diagnose;
pub(super) use crate::error::{Error, Failed, Result};
use crate::error::{Operation, Reason, Subject};
pub(super) use crate::sys::{self, sealed::Sealed};
pub(super) use crate::types::{Access, Identity, Kind};

pub(super) use super::ids::{self, Ids};
pub(super) use super::open::{from_fd, is_same_object, open_path};
pub(super) use super::pinned::Pinned;
pub(super) use crate::proof::Proven;

/// A type that a pin can be opened as: [`Map`](crate::Map), [`Prog`](crate::Prog), [`Link`](crate::Link), or
/// [`Object`](crate::Object) for any kind. Sealed.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::object::Pinnable;
/// use bpf_pin::PinDir;
///
/// /// Opens `name`, or `fallback` if nothing has that name.
/// fn either<T: Pinnable>(dir: &PinDir, name: &str, fallback: &str) -> bpf_pin::Result<T> {
///     match dir.get(name) {
///         Err(error) if error.is_missing() => dir.get(fallback),
///         opened => opened,
///     }
/// }
/// ```
pub trait Pinnable: AsFd + Sealed + Sized {
    /// The kind, or `None` for any.
    #[doc(hidden)]
    const EXPECTED: Option<Kind>;
    /// `proven` is of the expected kind.
    #[doc(hidden)]
    fn from_proven(proven: Proven) -> Self;
}

/// An object of one kind: [`Map`](crate::Map), [`Prog`](crate::Prog) or [`Link`](crate::Link). Sealed.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::object::{Ids, TypedObject};
/// use bpf_pin::{Link, Map, Prog};
///
/// fn count<T: TypedObject>(ids: Ids<T>) -> bpf_pin::Result<()> {
///     let ids = ids.collect::<bpf_pin::Result<Vec<_>>>()?;
///     println!("{} {}s", ids.len(), T::KIND);
///     Ok(())
/// }
///
/// count(Map::ids()).and_then(|()| count(Prog::ids())).and_then(|()| count(Link::ids()))?;
/// # Ok::<(), bpf_pin::Error>(())
/// ```
pub trait TypedObject: Pinnable {
    /// The kind.
    const KIND: Kind;
    /// The kernel's description of an object of this kind.
    type Info;
    #[doc(hidden)]
    type RawInfo: sys::Info;
    #[doc(hidden)]
    fn info_from_raw(raw: Self::RawInfo) -> Self::Info;
}

#[cold]
pub(crate) fn info_error(kind: Kind, errno: Errno) -> Error {
    let cause = (errno == Errno::PERM).then(diagnose::for_bpf).flatten();
    let reason = Reason::new(errno, cause);
    Error::new(Operation::Info, reason).of(Subject::Kind(kind))
}

#[inline]
pub(crate) fn try_info<T: TypedObject>(object: &T) -> sys::Result<T::Info> {
    sys::info(object.as_fd()).map(T::info_from_raw)
}

#[inline]
pub(crate) fn info_of<T: TypedObject>(object: &T) -> Result<T::Info> {
    try_info(object).map_err(|errno| info_error(T::KIND, errno))
}

pub(super) fn clone_fd(kind: Kind, fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 0).map_err(|errno| {
        Error::new(Operation::Clone, Reason::errno_only(errno)).of(Subject::Kind(kind))
    })
}

/// Defines an object's type. The docs of an invocation hold the differences between the kinds. They are inserted
/// after the first sentence of a method's docs and before its errors.
macro_rules! typed_object {
    (
        $(#[$type:meta])*
        $Type:ident, $Pinned:ident, $noun:literal, $example:literal, $Info:ident, $raw:ident;
        $(#[$open:meta])* open;
        $(#[$open_with:meta])* open_with;
        $(#[$from_id:meta])* from_id;
        $(#[$ids:meta])* ids;
        $(#[$info:meta])* info;
        $(#[$pin:meta])* pin;
    ) => {
        $(#[$type])*
        #[repr(transparent)]
        pub struct $Type {
            fd: OwnedFd,
        }

        impl $Type {
            #[doc = concat!("`BPF_OBJ_GET`: opens the ", $noun, " pinned at `path`, for reading and writing.")]
            ///
            $(#[$open])*
            ///
            /// Follows symbolic links. Makes two system calls: the second proves the kind. Allocates
            /// nothing if the path is shorter than 256 bytes.
            ///
            /// # Errors
            ///
            /// | condition | cause | errno |
            /// |---|---|---|
            /// | an object of another kind is pinned there | [`WrongKind`](crate::error::Cause::WrongKind) | |
            /// | nothing has the name | [`Missing`](crate::error::Cause::Missing) | ENOENT |
            /// | nothing has the name, and the path is not on a bpffs | [`NotBpffs`](crate::error::Cause::NotBpffs) | ENOENT |
            /// | the path is a directory, or a file of another file system | [`NotAnObject`](crate::error::Cause::NotAnObject) | EACCES |
            /// | a mode denies it | [`Blocked`](crate::error::Cause::Blocked) | EACCES |
            /// | a name holds a '.', which bpffs rejects | [`Dot`](crate::error::Cause::Dot) | EPERM |
            /// | this thread lacks `CAP_BPF` | [`MissingCapability`](crate::error::Cause::MissingCapability) | EPERM |
            /// | a name on the way is not a directory | [`NotADirectory`](crate::error::Cause::NotADirectory) | ENOTDIR |
            /// | the path has a symbolic link, on a mount that follows none | [`SymbolicLink`](crate::error::Cause::SymbolicLink) | ELOOP |
            /// | a name or the path is too long | [`TooLong`](crate::error::Cause::TooLong) | ENAMETOOLONG |
            /// | the bpffs is mounted read-only | [`ReadOnlyFileSystem`](crate::error::Cause::ReadOnlyFileSystem) | EROFS |
            /// | a NUL in the path | [`InvalidPath`](crate::error::Cause::InvalidPath), without a system call | |
            /// | the kind could not be proven | [`Unproven`](crate::error::Cause::Unproven) | of `BPF_OBJ_GET_INFO_BY_FD` |
            ///
            /// # References
            ///
            /// [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html), kernel/bpf/inode.c:
            /// `bpf_obj_get_user`
            ///
            /// # Examples
            ///
            /// ```no_run
            #[doc = concat!("use bpf_pin::", stringify!($Type), ";")]
            ///
            #[doc = concat!("let ", $example, " = ", stringify!($Type), "::open(\"/sys/fs/bpf/", $example, "\")?;")]
            #[doc = concat!("println!(\"{}: {:?}\", ", $example, ".identity()?, ", $example, ".info()?);")]
            /// # Ok::<(), bpf_pin::Error>(())
            /// ```
            pub fn open(path: impl AsRef<Path>) -> Result<Self> {
                open_path(path.as_ref(), Access::ReadWrite)
            }

            #[doc = concat!("`BPF_OBJ_GET` with `BPF_F_RDONLY` or `BPF_F_WRONLY`: opens the ", $noun, " pinned at `path` for `access`.")]
            ///
            $(#[$open_with])*
            pub fn open_with(path: impl AsRef<Path>, access: Access) -> Result<Self> {
                open_path(path.as_ref(), access)
            }

            #[doc = concat!("Opens the living ", $noun, " that has this id.")]
            ///
            $(#[$from_id])*
            ///
            /// # Errors
            ///
            /// | condition | cause | errno |
            /// |---|---|---|
            #[doc = concat!("| no living ", $noun, " has the id: [`is_missing`](Error::is_missing) | [`NoSuchId`](crate::error::Cause::NoSuchId) | ENOENT |")]
            /// | this thread lacks `CAP_SYS_ADMIN` | [`MissingCapability`](crate::error::Cause::MissingCapability) | EPERM |
            pub fn from_id(id: u32) -> Result<Self> {
                ids::open_by_id(Kind::$Type, id, 0).map(Self::from_proven_fd)
            }

            #[doc = concat!("The ids of all living ", $noun, "s, in ascending order.")]
            ///
            $(#[$ids])*
            ///
            #[doc = concat!("A ", $noun, " may be freed before [`from_id`](Self::from_id) opens it. Then the error's")]
            /// [`is_missing`](Error::is_missing) returns `true`.
            ///
            /// # Errors
            ///
            /// A step fails if:
            ///
            /// | condition | cause | errno |
            /// |---|---|---|
            /// | this thread lacks `CAP_SYS_ADMIN` | [`MissingCapability`](crate::error::Cause::MissingCapability) | EPERM |
            ///
            /// # Examples
            ///
            /// ```no_run
            #[doc = concat!("use bpf_pin::", stringify!($Type), ";")]
            ///
            #[doc = concat!("for id in ", stringify!($Type), "::ids() {")]
            #[doc = concat!("    match ", stringify!($Type), "::from_id(id?) {")]
            #[doc = concat!("        Ok(", $example, ") => println!(\"{:?}\", ", $example, ".info()?),")]
            ///         Err(error) if error.is_missing() => {}
            ///         Err(error) => return Err(error),
            ///     }
            /// }
            /// # Ok::<(), bpf_pin::Error>(())
            /// ```
            pub fn ids() -> Ids<Self> {
                Ids::new()
            }

            #[doc = concat!("`BPF_OBJ_PIN`: pins the ", $noun, " at `path`, so that it outlives this process.")]
            ///
            $(#[$pin])*
            ///
            /// Makes one system call. An object can have any number of pins. The new file has mode 0600 without
            /// the bits of the umask. To keep another descriptor, call [`try_clone`](Self::try_clone) first.
            ///
            /// # Errors
            ///
            #[doc = concat!("The error returns the ", $noun, ", and nothing was pinned.")]
            ///
            /// | condition | cause | errno |
            /// |---|---|---|
            /// | the name is taken | [`Exists`](crate::error::Cause::Exists) | EEXIST |
            /// | a directory of the path is missing | [`Missing`](crate::error::Cause::Missing) | ENOENT |
            /// | the path ends with a slash | [`InvalidPath`](crate::error::Cause::InvalidPath) | ENOENT |
            /// | the path leads to another file system | [`NotBpffs`](crate::error::Cause::NotBpffs) | ENOENT, EPERM |
            /// | the name holds a '.', which bpffs rejects | [`Dot`](crate::error::Cause::Dot) | EPERM |
            /// | this thread lacks `CAP_BPF` | [`MissingCapability`](crate::error::Cause::MissingCapability) | EPERM |
            /// | a mode denies it | [`Blocked`](crate::error::Cause::Blocked) | EACCES |
            /// | a name on the way is not a directory | [`NotADirectory`](crate::error::Cause::NotADirectory) | ENOTDIR |
            /// | the path has a symbolic link, on a mount that follows none | [`SymbolicLink`](crate::error::Cause::SymbolicLink) | ELOOP |
            /// | a name or the path is too long | [`TooLong`](crate::error::Cause::TooLong) | ENAMETOOLONG |
            /// | the bpffs is mounted read-only | [`ReadOnlyFileSystem`](crate::error::Cause::ReadOnlyFileSystem) | EROFS |
            /// | a NUL in the path | [`InvalidPath`](crate::error::Cause::InvalidPath), without a system call | |
            ///
            /// # References
            ///
            /// [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html), kernel/bpf/inode.c:
            /// `bpf_obj_pin_user`
            ///
            /// # Examples
            ///
            /// ```no_run
            /// use bpf_pin::error::ErrorKind;
            #[doc = concat!("use bpf_pin::{", stringify!($Type), ", ", stringify!($Pinned), "};")]
            ///
            #[doc = concat!("/// Pins the ", $noun, ", or opens the one that is pinned already.")]
            #[doc = concat!("fn pin_or_open(", $example, ": ", stringify!($Type), ", path: &str) -> bpf_pin::Result<", stringify!($Pinned), "> {")]
            #[doc = concat!("    match ", $example, ".pin(path) {")]
            ///         Err(failed) if failed.error().kind() == ErrorKind::AlreadyExists => {
            #[doc = concat!("            ", stringify!($Pinned), "::open(path)")]
            ///         }
            ///         pinned => Ok(pinned?),
            ///     }
            /// }
            /// ```
            pub fn pin(self, path: impl AsRef<Path>) -> Result<$Pinned, Failed<Self>> {
                Pinned::pin(self, path.as_ref()).map($Pinned)
            }

            #[doc = concat!("`fcntl(F_DUPFD_CLOEXEC)`: returns another descriptor of the same ", $noun, ".")]
            ///
            /// # Errors
            ///
            /// EMFILE if the process has reached its limit of descriptors.
            pub fn try_clone(&self) -> Result<Self> {
                clone_fd(Kind::$Type, self.as_fd()).map(Self::from_proven_fd)
            }

            #[doc = concat!("The ", $noun, "'s id, unique among living ", $noun, "s. Makes one system call.")]
            ///
            /// # Errors
            ///
            /// As [`info`](Self::info).
            pub fn id(&self) -> Result<u32> {
                sys::object_id(self.as_fd()).map_err(|errno| info_error(Kind::$Type, errno))
            }

            #[doc = concat!("The ", $noun, "'s kind and id. Makes one system call.")]
            ///
            /// # Errors
            ///
            /// As [`info`](Self::info).
            pub fn identity(&self) -> Result<Identity> {
                let (kind, id) = (Kind::$Type, self.id()?);
                Ok(Identity { kind, id })
            }

            #[doc = concat!("`BPF_OBJ_GET_INFO_BY_FD`: the kernel's description of the ", $noun, ".")]
            ///
            $(#[$info])*
            ///
            /// # Errors
            ///
            /// | condition | cause | errno |
            /// |---|---|---|
            /// | before Linux 5.19: `kernel.unprivileged_bpf_disabled` is not 0 and this thread lacks `CAP_BPF` | [`MissingCapability`](crate::error::Cause::MissingCapability) | EPERM |
            pub fn info(&self) -> Result<$Info> {
                info_of(self)
            }

            #[doc = concat!("Returns `true` if `other` is a descriptor of the same ", $noun, ": it has the same kind and id.")]
            ///
            /// Makes two system calls.
            ///
            /// # Errors
            ///
            /// As [`info`](Self::info), and of `other`:
            ///
            /// | condition | cause | errno |
            /// |---|---|---|
            /// | it is not a descriptor of a map, program or link | [`WrongDescriptor`](crate::error::Cause::WrongDescriptor) | |
            /// | its kind or id could not be proven | [`Unproven`](crate::error::Cause::Unproven) | of `BPF_OBJ_GET_INFO_BY_FD` |
            pub fn is_same_object(&self, other: impl AsFd) -> Result<bool> {
                is_same_object(self.identity()?, other)
            }

            /// `fd` must be of the kind.
            pub(crate) fn from_proven_fd(fd: OwnedFd) -> Self {
                Self { fd }
            }
        }

        impl Sealed for $Type {}

        impl Pinnable for $Type {
            const EXPECTED: Option<Kind> = Some(Kind::$Type);

            fn from_proven(proven: Proven) -> Self {
                Self::from_proven_fd(proven.into_fd())
            }
        }

        impl TypedObject for $Type {
            const KIND: Kind = Kind::$Type;
            type Info = $Info;
            type RawInfo = abi::$raw;

            fn info_from_raw(raw: abi::$raw) -> $Info {
                $Info::from_raw(raw)
            }
        }

        $crate::error::owns_fd!($Type);

        $crate::error::boxes_error_only!(['b] &'b $Type);

        /// Proves the kind of a descriptor that comes from elsewhere; the error returns the descriptor.
        impl TryFrom<OwnedFd> for $Type {
            type Error = Failed<OwnedFd>;

            fn try_from(fd: OwnedFd) -> Result<Self, Failed<OwnedFd>> {
                from_fd(fd)
            }
        }

        impl fmt::Debug for $Type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($Type))
                    .field("fd", &self.fd.as_raw_fd())
                    .finish()
            }
        }
    };
}

pub(super) use typed_object;
