//! A life that outlasts the process: a name on bpffs, and the object that has it.

use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;

use crate::access::Access;
use crate::cause::Cause;
use crate::diagnose;
use crate::error::{Error, Failed, Reason, Result};
use crate::kind::{self, Identity};
use crate::object::{self, Handle, Object, ObjectKind, Pinnable};
use crate::pathname::Pathname;
use crate::place::{Place, with_place};
use crate::sys::{self, AsMap, sealed::Sealed};
use crate::{Link, Map, Prog};

/// A map and its pin.
pub type PinnedMap = Pinned<Map>;
/// A program and its pin.
pub type PinnedProg = Pinned<Prog>;
/// A link and its pin.
pub type PinnedLink = Pinned<Link>;

/// An object and the path under which it is pinned: a [`PinnedMap`], [`PinnedProg`] or
/// [`PinnedLink`], or a `Pinned<Object>` of any kind.
///
/// Dropped, it closes the descriptor and leaves the pin: that is what pins are for.
/// A path of up to 255 bytes is kept in place, so this is some 300 bytes large.
pub struct Pinned<T> {
    object: T,
    name: Pathname,
}

impl<T: Pinnable> Pinned<T> {
    /// `BPF_OBJ_GET`: the object pinned at `path`, for reading and writing.
    ///
    /// A relative path is kept as it is: it means another file after the process has changed its
    /// working directory.
    ///
    /// # Errors
    ///
    /// As [`Handle::open`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::PinnedMap;
    ///
    /// let flows = PinnedMap::open("/sys/fs/bpf/flows")?;
    /// let map = flows.unpin()?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_path(path.as_ref(), Access::ReadWrite)
    }

    /// `BPF_OBJ_GET` with `BPF_F_RDONLY` or `BPF_F_WRONLY`.
    ///
    /// # Errors
    ///
    /// As [`Handle::open_with`].
    pub fn open_with(path: impl AsRef<Path>, access: Access) -> Result<Self> {
        Self::open_path(path.as_ref(), access)
    }

    fn open_path(path: &Path, access: Access) -> Result<Self> {
        let object = object::open_path(path, access)?;
        Ok(Self {
            object,
            name: Pathname::known(path),
        })
    }

    fn pin_path(object: T, path: &Path) -> Result<Self, Failed<T>> {
        let pinned = with_place(path, |place| pin_place(place, object.as_fd()));
        let Err(reason) = pinned.unwrap_or_else(|nul| Err(nul.into())) else {
            return Ok(Self {
                object,
                name: Pathname::known(path),
            });
        };
        let path = path.to_owned();
        Err(Failed::new(object, Error::Pin { path, reason }))
    }

    /// `object` must have been seen to be pinned there.
    pub(crate) fn from_parts(object: T, name: Pathname) -> Self {
        Self { object, name }
    }

    /// The path as it was given.
    pub fn path(&self) -> &Path {
        self.name.as_path()
    }

    /// The object alone; the pin stays.
    pub fn into_inner(self) -> T {
        self.object
    }

    /// `unlink(2)`: removes the pin, if it is still this object's, and gives the object back alive.
    ///
    /// The object dies with its last descriptor, unless it is pinned elsewhere or in use; a link is
    /// detached then.
    ///
    /// That the path leads to this very object is checked right before, by its kind and id. The
    /// kernel has no call that does both, so an object that somebody else puts under the name
    /// between the two is removed in its stead.
    ///
    /// # Errors
    ///
    /// [`Error::Unpin`], with the pinned object, and nothing was removed:
    /// [`Replaced`](Cause::Replaced) where another object has the name by now;
    /// [`Missing`](Cause::Missing) where none has (ENOENT);
    /// [`SymbolicLink`](Cause::SymbolicLink) where the path is one, and so no pin itself;
    /// [`Blocked`](Cause::Blocked) where the pin may not be opened in any way, to see whose it is:
    /// a link only for reading and writing;
    /// [`Sticky`](Cause::Sticky) (EPERM) or [`Blocked`](Cause::Blocked) (EACCES) where the user
    /// may not; [`ReadOnlyFileSystem`](Cause::ReadOnlyFileSystem) (EROFS).
    #[allow(
        clippy::result_large_err,
        reason = "nothing is lost, the path included"
    )]
    pub fn unpin(self) -> Result<T, Failed<Self>> {
        match self.remove() {
            Ok(()) => Ok(self.object),
            Err(reason) => {
                let path = self.path().to_owned();
                Err(Failed::new(self, Error::Unpin { path, reason }))
            }
        }
    }

    fn remove(&self) -> Result<(), Reason> {
        unlink_own(&self.name.place(), identity_of(&self.object)?)
    }
}

/// Which object this is: of a known kind, its id says it.
fn identity_of<T: Pinnable>(object: &T) -> Result<Identity, Reason> {
    let fd = object.as_fd();
    match T::EXPECTED.zip(sys::object_id(fd).ok()) {
        Some((kind, id)) => Ok(Identity { kind, id }),
        None => identify(fd),
    }
}

/// `BPF_OBJ_PIN`.
pub(crate) fn pin_place(place: &Place<'_>, object: BorrowedFd<'_>) -> Result<(), Reason> {
    place
        .pin(object)
        .map_err(|errno| Reason::new(errno, diagnose::pin(place, object, errno)))
}

/// `unlink(2)`, if it is still this object's pin.
pub(crate) fn unlink_own(place: &Place<'_>, expected: Identity) -> Result<(), Reason> {
    // Nothing stands between the check and the removal, not even a close.
    let pin = open_pin(place)?;
    if !kind::is_object(pin.as_fd(), expected) {
        let found = identify(pin.as_fd())?;
        if found != expected {
            return Err(Cause::Replaced { expected, found }.into());
        }
    }
    let removed = place.unlink();
    removed.map_err(|errno| Reason::new(errno, diagnose::unpin(place, errno)))
}

/// Which object has the name.
pub(crate) fn holder(place: &Place<'_>) -> Result<Identity, Reason> {
    identify(open_pin(place)?.as_fd())
}

/// The object that has the name, whatever access is granted: what counts for removing a pin is the
/// directory's mode, not its own.
pub(crate) fn open_pin(place: &Place<'_>) -> Result<OwnedFd, Reason> {
    // BPF_OBJ_GET follows symbolic links and unlink(2) does not.
    refuse_link(place, place.is_followed())?;
    place.get_somehow().or_else(|errno| {
        // Who may not call it learns all the same whether there is a pin.
        if errno == Errno::PERM {
            refuse_link(place, place.is_symbolic_link())?;
        }
        let cause = diagnose::open(place, Access::ReadWrite, errno);
        Err(Reason::new(errno, cause))
    })
}

#[inline]
fn refuse_link(place: &Place<'_>, is_link: sys::Result<bool>) -> Result<(), Reason> {
    match is_link {
        Ok(false) => Ok(()),
        Ok(true) => Err(Cause::SymbolicLink { path: place.path() }.into()),
        Err(errno) => Err(Reason::new(errno, diagnose::find(place, errno))),
    }
}

pub(crate) fn identify(fd: BorrowedFd<'_>) -> Result<Identity, Reason> {
    kind::identity(fd).map_err(|verdict| match sys::gate() {
        Errno::PERM => Reason::new(Errno::PERM, diagnose::for_bpf()),
        _ => Cause::from(verdict).into(),
    })
}

impl<K: ObjectKind> Handle<K> {
    /// `BPF_OBJ_PIN`: gives the object a name on bpffs, so that it outlives this process. Linux 4.4;
    /// links 5.7.
    ///
    /// One syscall. An object may be pinned any number of times; the new file has mode 0600 less
    /// the umask. To keep a handle beside the pinned one, [`try_clone`](Self::try_clone) it first.
    ///
    /// # Errors
    ///
    /// [`Error::Pin`], with the object, and nothing was made. With one of these causes where it
    /// was proven:
    /// [`Exists`](Cause::Exists) where the name is taken (EEXIST);
    /// [`Missing`](Cause::Missing), [`NotBpffs`](Cause::NotBpffs) or
    /// [`TrailingSlash`](Cause::TrailingSlash) (ENOENT);
    /// [`Dot`](Cause::Dot), [`NotBpffs`](Cause::NotBpffs) or
    /// [`MissingCapability`](Cause::MissingCapability) (EPERM);
    /// [`Blocked`](Cause::Blocked) (EACCES); [`NotADirectory`](Cause::NotADirectory) (ENOTDIR);
    /// [`SymbolicLink`](Cause::SymbolicLink) (ELOOP) on the way, on a mount that follows none;
    /// [`NameTooLong`](Cause::NameTooLong), [`PathTooLong`](Cause::PathTooLong) (ENAMETOOLONG);
    /// [`ReadOnlyFileSystem`](Cause::ReadOnlyFileSystem) (EROFS);
    /// [`InteriorNul`](Cause::InteriorNul), without a syscall.
    ///
    /// # References
    ///
    /// [bpf(2)](https://man7.org/linux/man-pages/man2/bpf.2.html), kernel/bpf/inode.c: `bpf_obj_pin_user`
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{MapSpec, MapType};
    ///
    /// let map = MapSpec::new(MapType::HASH, 4, 8, 1024).create()?;
    /// let flows = map.pin("/sys/fs/bpf/flows")?;
    /// println!("{} outlives process {}", flows.path().display(), std::process::id());
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn pin(self, path: impl AsRef<Path>) -> Result<Pinned<Self>, Failed<Self>> {
        Pinned::pin_path(self, path.as_ref())
    }
}

impl Object {
    /// `BPF_OBJ_PIN`: gives the object a name on bpffs.
    ///
    /// # Errors
    ///
    /// As [`Handle::pin`].
    pub fn pin(self, path: impl AsRef<Path>) -> Result<Pinned<Self>, Failed<Self>> {
        Pinned::pin_path(self, path.as_ref())
    }
}

impl<T> Deref for Pinned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.object
    }
}

impl<T: AsFd> AsFd for Pinned<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.object.as_fd()
    }
}

impl<T: Sealed> Sealed for Pinned<T> {}

impl AsMap for PinnedMap {
    fn map_fd(&self) -> BorrowedFd<'_> {
        self.object.map_fd()
    }
}

impl<T: fmt::Debug> fmt::Debug for Pinned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned")
            .field("object", &self.object)
            .field("path", &self.name)
            .finish()
    }
}
