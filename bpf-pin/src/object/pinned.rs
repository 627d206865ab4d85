//! An object together with its pin.

use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Error, Failed, Operation, Reason, Result};
use crate::path::Pathname;
use crate::path::{AtPath, with_path};
use crate::sys::{self, AsMap, sealed::Sealed};
use crate::types::Access;
use crate::types::Identity;

use super::any::Object;
use super::open::open_path;
use super::typed::Pinnable;
use super::{Link, Map, Prog};
use crate::proof;

/// The common implementation of [`PinnedMap`], [`PinnedProg`], [`PinnedLink`] and [`PinnedObject`].
pub(super) struct Pinned<T> {
    object: T,
    path: Pathname,
}

impl<T: Pinnable> Pinned<T> {
    fn open(path: &Path, access: Access) -> Result<Self> {
        let object = open_path(path, access)?;
        let path = Pathname::known(path);
        Ok(Self { object, path })
    }

    pub(super) fn pin(object: T, path: &Path) -> Result<Self, Failed<T>> {
        let pinned = with_path(path, |at| pin_at(at, object.as_fd()));
        match pinned.unwrap_or_else(|nul| Err(nul.into())) {
            Ok(()) => Ok(Self {
                object,
                path: Pathname::known(path),
            }),
            Err(reason) => Err(Failed::new(
                object,
                Error::new(Operation::Pin, reason).at(path),
            )),
        }
    }

    fn unlink(&self) -> Result<(), Error> {
        let unlinked = identity_of(&self.object)
            .and_then(|identity| unlink_if_held_by(&self.path.at_path(), identity));
        unlinked.map_err(|reason| Error::new(Operation::Unpin, reason).at(self.path.as_path()))
    }
}

macro_rules! pinned_object {
    ($(#[$type:meta])* $Pinned:ident, $Type:ident, $noun:literal, $example:literal) => {
        $(#[$type])*
        ///
        #[doc = concat!("All methods of [`", stringify!($Type), "`] that take `&self` can be called on it.")]
        #[doc = concat!("Dropping it closes the descriptor and leaves the pin, so the ", $noun, " lives on.")]
        ///
        /// A path of up to 255 bytes is stored inline, so the value is some 300 bytes large.
        ///
        /// # Examples
        ///
        /// ```no_run
        #[doc = concat!("use bpf_pin::object::", stringify!($Pinned), ";")]
        ///
        #[doc = concat!("let ", $example, " = ", stringify!($Pinned), "::open(\"/sys/fs/bpf/", $example, "\")?;")]
        #[doc = concat!("println!(\"{} is at {}\", ", $example, ".identity()?, ", $example, ".path().display());")]
        #[doc = concat!("let ", $example, " = ", $example, ".unpin()?;")]
        /// # Ok::<(), bpf_pin::Error>(())
        /// ```
        pub struct $Pinned(pub(super) Pinned<$Type>);

        impl $crate::error::Owned for $Pinned {}

        $crate::error::boxes_error_only!(['b] &'b $Pinned);

        impl $Pinned {
            #[doc = concat!("`BPF_OBJ_GET`: opens the ", $noun, " pinned at `path`, for reading and writing.")]
            ///
            /// A relative path is kept as it is. It refers to another file after the process has changed its
            /// working directory.
            ///
            /// # Errors
            ///
            #[doc = concat!("As [`", stringify!($Type), "::open`].")]
            pub fn open(path: impl AsRef<Path>) -> Result<Self> {
                Pinned::open(path.as_ref(), Access::ReadWrite).map(Self)
            }

            #[doc = concat!("`BPF_OBJ_GET` with `BPF_F_RDONLY` or `BPF_F_WRONLY`: opens the ", $noun, " pinned at `path` for `access`.")]
            ///
            /// # Errors
            ///
            #[doc = concat!("As [`", stringify!($Type), "::open_with`].")]
            pub fn open_with(path: impl AsRef<Path>, access: Access) -> Result<Self> {
                Pinned::open(path.as_ref(), access).map(Self)
            }

            /// The path that it was opened or pinned with.
            pub fn path(&self) -> &Path {
                self.0.path.as_path()
            }

            #[doc = concat!("The ", $noun, " without its path. The pin stays.")]
            pub fn into_inner(self) -> $Type {
                self.0.object
            }

            #[doc = concat!("`unlink(2)`: removes the pin if it still holds this ", $noun, ", and returns the ", $noun, ".")]
            ///
            #[doc = concat!("The ", $noun, " is freed with its last descriptor, unless it has another pin or is in use.")]
            /// Freeing a link detaches it.
            ///
            /// A prog array is emptied when its last pin and descriptor are gone, even while programs tail-call into
            /// it: [`Prog::ids_using`](crate::Prog::ids_using) lists them. The returned descriptor keeps it filled.
            ///
            /// # Races
            ///
            /// The pin's kind and id are compared right before the removal, because the kernel has no call that
            /// does both. If another process replaces the pin between the two, its pin is removed.
            ///
            /// # Errors
            ///
            #[doc = concat!("The error returns the pinned ", $noun, ", and nothing was removed.")]
            ///
            /// | condition | cause | errno |
            /// |---|---|---|
            /// | the pin holds another object now | [`Replaced`](Cause::Replaced) | |
            /// | nothing has the name | [`Missing`](Cause::Missing) | ENOENT |
            /// | the path is a symbolic link | [`SymbolicLink`](Cause::SymbolicLink) | |
            /// | a mode denies every access mode, so the pin cannot be compared (a link opens for reading and writing only) | [`Blocked`](Cause::Blocked) | EACCES |
            /// | a mode denies the removal | [`Blocked`](Cause::Blocked) | EACCES |
            /// | the directory is sticky, and this user owns neither it nor the pin | [`Sticky`](Cause::Sticky) | EPERM |
            /// | the bpffs is mounted read-only | [`ReadOnlyFileSystem`](Cause::ReadOnlyFileSystem) | EROFS |
            /// | the pin's kind or id could not be proven | [`Unproven`](Cause::Unproven) | of `BPF_OBJ_GET_INFO_BY_FD` |
            #[allow(
                clippy::result_large_err,
                reason = "the error returns the object and its path"
            )]
            pub fn unpin(self) -> Result<$Type, Failed<Self>> {
                match self.0.unlink() {
                    Ok(()) => Ok(self.0.object),
                    Err(error) => Err(Failed::new(self, error)),
                }
            }
        }

        impl Deref for $Pinned {
            type Target = $Type;

            fn deref(&self) -> &$Type {
                &self.0.object
            }
        }

        impl AsFd for $Pinned {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.object.as_fd()
            }
        }

        impl Sealed for $Pinned {}

        impl fmt::Debug for $Pinned {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($Pinned))
                    .field("object", &self.0.object)
                    .field("path", &self.0.path)
                    .finish()
            }
        }
    };
}

pinned_object! {
    /// A map and the path of its pin.
    PinnedMap, Map, "map", "flows"
}

pinned_object! {
    /// A program and the path of its pin.
    PinnedProg, Prog, "program", "filter"
}

pinned_object! {
    /// A link and the path of its pin.
    PinnedLink, Link, "link", "egress"
}

pinned_object! {
    /// An object of any kind and the path of its pin.
    PinnedObject, Object, "object", "leftover"
}

impl PinnedMap {
    /// The caller has pinned `object` at `path`, or opened it there.
    pub(crate) fn from_parts(object: Map, path: Pathname) -> Self {
        Self(Pinned { object, path })
    }
}

impl PinnedLink {
    /// The caller has pinned `object` at `path`, or opened it there.
    pub(crate) fn from_parts(object: Link, path: Pathname) -> Self {
        Self(Pinned { object, path })
    }
}

impl AsMap for Map {
    fn map_fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

impl AsMap for PinnedMap {
    fn map_fd(&self) -> BorrowedFd<'_> {
        self.0.object.map_fd()
    }
}

/// The kind and id of an object. If the kind is known, reading the id is enough. An id of 0 is not valid.
fn identity_of<T: Pinnable>(object: &T) -> Result<Identity, Reason> {
    let fd = object.as_fd();
    match T::EXPECTED.zip(sys::object_id(fd).ok()) {
        Some((kind, id @ 1..)) => Ok(Identity { kind, id }),
        _ => identify(fd),
    }
}

/// `BPF_OBJ_PIN`.
pub(crate) fn pin_at(at: &AtPath<'_>, object: BorrowedFd<'_>) -> Result<(), Reason> {
    at.pin(object)
        .map_err(|errno| Reason::new(errno, diagnose::pin(at, object, errno)))
}

/// `unlink(2)`, if the pin still holds the expected object.
pub(crate) fn unlink_if_held_by(at: &AtPath<'_>, expected: Identity) -> Result<(), Reason> {
    // The pin stays open until the end, so that no close(2) comes between the check and the removal.
    let pin = open_any_access(at)?;
    if !proof::is_object(pin.as_fd(), expected) {
        let found = identify(pin.as_fd())?;
        if found != expected {
            return Err(Cause::Replaced { expected, found }.into());
        }
    }
    let removed = at.unlink();
    removed.map_err(|errno| Reason::new(errno, diagnose::unpin(at, errno)))
}

/// The kind and id of the object that is pinned there.
pub(crate) fn identity_at(at: &AtPath<'_>) -> Result<Identity, Reason> {
    identify(open_any_access(at)?.as_fd())
}

/// Opens the object pinned there with any access that is granted. Removing a pin needs permission for the
/// directory, not for the pin.
pub(crate) fn open_any_access(at: &AtPath<'_>) -> Result<OwnedFd, Reason> {
    // BPF_OBJ_GET follows symbolic links and unlink(2) does not.
    reject_symlink(at, at.is_followed())?;
    at.get_any_access().or_else(|error| {
        // Without the privilege for BPF_OBJ_GET, a missing pin or a symbolic link is still reported as such.
        if error == Errno::PERM.into() {
            reject_symlink(at, at.is_symbolic_link())?;
        }
        let cause = diagnose::open(at, Access::ReadWrite, error);
        Err(Reason::new(error, cause))
    })
}

#[inline]
fn reject_symlink(at: &AtPath<'_>, is_link: sys::Result<bool>) -> Result<(), Reason> {
    match is_link {
        Ok(false) => Ok(()),
        Ok(true) => Err(Cause::SymbolicLink { path: at.path() }.into()),
        Err(errno) => Err(Reason::new(errno, diagnose::find(at, errno))),
    }
}

/// The kind and id of the object that `fd` is a descriptor of.
pub(crate) fn identify(fd: BorrowedFd<'_>) -> Result<Identity, Reason> {
    proof::identity(fd).map_err(|error| match sys::probe_bpf_allowed() {
        Errno::PERM => Reason::new(Errno::PERM, diagnose::for_bpf()),
        _ => error.into_reason(None),
    })
}
