//! A directory on a bpffs, held by its descriptor.

mod bpffs;
mod byte_lock;
mod create;
mod entries;
mod info;
mod leftovers;
mod lock;
mod metadata;
mod open;
mod pins;
mod remove;
mod replace;
mod stage;
mod temp_names;
mod walk;

use std::ffi::{CStr, OsStr};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use crate::error::{Error, Operation, Reason, Result, Subject};
use crate::path::Pathname;
use crate::path::{AtPath, Base};
use crate::path::{Component, ComponentError, with_name};

use temp_names::TempNames;

pub use crate::path::{escape_name, unescape_name};
pub(crate) use byte_lock::ByteLock;
pub use entries::{Entries, Entry, EntryType};
pub use leftovers::RemovalReport;
pub use lock::{DirLock, LockMode, Wait};
pub use metadata::Metadata;
pub use stage::{Published, Stage};
pub(crate) use temp_names::backup_name;
pub use walk::Walk;

/// A directory on a bpffs, held by an `O_PATH` descriptor and proven to be one by `fstatfs(2)`.
///
/// Names are looked up from the descriptor, so a mount over the path, a renamed parent or a
/// symbolic link planted on the way changes nothing: it stays this directory. A name is one
/// component without a '.', which bpffs allows in none: see [`escape_name`].
/// It is checked before the kernel sees it.
///
/// `BPF_F_PATH_FD` is how the kernel takes the descriptor, from Linux 6.5 on; a kernel that denies
/// to know it is asked through /proc/thread-self/fd instead, which takes two more syscalls that
/// prove the way. Where /proc is missing, too: [`Cause::NoProc`](crate::error::Cause::NoProc).
///
/// Dropped, it closes the descriptor and leaves the directory.
///
/// | task | methods |
/// |---|---|
/// | the directory | [`create`](Self::create), [`open`](Self::open), [`Bpffs::dir`](crate::Bpffs::dir); [`create_dir`](Self::create_dir), [`open_dir`](Self::open_dir) of one in it |
/// | a restart | [`open_or_create`](Self::open_or_create), [`open_or_create_with`](Self::open_or_create_with), [`open_or_attach`](Self::open_or_attach) |
/// | pin and open | [`pin`](Self::pin), [`get`](Self::get), [`open_with_info`](Self::open_with_info), [`identity`](Self::identity) |
/// | replace | [`replace`](Self::replace), [`replace_if`](Self::replace_if), [`exchange`](Self::exchange), [`rename`](Self::rename), [`link`](Self::link) |
/// | sets | [`stage`](Self::stage), then [`Stage::publish`]; [`open_dir_shared`](Self::open_dir_shared) |
/// | locks | [`lock`](Self::lock) |
/// | look around | [`entries`](Self::entries), [`walk`](Self::walk) |
/// | clean up | [`unpin`](Self::unpin), [`unlink`](Self::unlink), [`remove_dir_all`](Self::remove_dir_all), [`remove_where`](Self::remove_where), [`remove_leftovers`](Self::remove_leftovers) |
///
/// # Objects are borrowed
///
/// [`pin`](Self::pin), [`replace`](Self::replace) and the like take `&object`: it stays the caller's, whether
/// the call succeeds or fails. Only an object that is made in the call's own arguments, as in
/// `dir.pin(&spec.create()?, name)?`, is closed after it: if the call fails, it is gone.
///
/// # Other writers of the directory
///
/// Whoever may write to the directory can put other objects under its names, between any two system calls.
/// A symbolic link can lead to what only this process may open: it is looked for in a system call after
/// `BPF_OBJ_GET`, which has followed it by then. If the directory's mount was
/// [`nosymfollow`](crate::bpffs::MountOptions::nosymfollow) when it was opened, nothing is looked for: the kernel
/// follows no link in it, and opening a pin fails with ELOOP and [`SymbolicLink`](crate::error::Cause::SymbolicLink).
/// A process with `CAP_SYS_ADMIN` can undo that: by a remount without it, or by a link from elsewhere that
/// is mounted over a name.
///
/// What is pinned never leaves the directory, and what is removed or replaced was seen right before to be
/// what the caller named; the kernel has no call that does both in one step.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::{Map, MapSpec, MapType, PinDir};
///
/// let dir = PinDir::create("/sys/fs/bpf/app", 0o700)?;
/// let map = MapSpec::new(MapType::HASH, 4, 8, 1024).create()?;
/// dir.replace(&map, "flows")?;
///
/// let flows = dir.get::<Map>("flows")?;
/// assert_eq!(flows.id()?, map.id()?);
/// dir.unpin(&flows, "flows")?;
/// # Ok::<(), bpf_pin::Error>(())
/// ```
pub struct PinDir {
    fd: OwnedFd,
    path: Pathname,
    /// Whether the path means the directory to others, too, and not a descriptor's number.
    has_path: bool,
    /// Whether its mount let symbolic links be followed when it was opened.
    follows_links: bool,
    /// Created with the first temporary name.
    temp_names: OnceLock<TempNames>,
}

impl PinDir {
    /// `fd` must be a directory on a bpffs, on a mount that follows links or does not.
    fn from_proven_fd(fd: OwnedFd, path: Pathname, follows_links: bool) -> Self {
        Self {
            fd,
            path,
            has_path: true,
            follows_links,
            temp_names: OnceLock::new(),
        }
    }

    /// Of a name in this one, on the same mount.
    fn child(&self, fd: OwnedFd, name: &Component) -> Self {
        Self {
            has_path: self.has_path,
            ..Self::from_proven_fd(fd, self.path.join(name), self.follows_links)
        }
    }

    /// The path that it was opened by. By now that may lead elsewhere, or nowhere.
    ///
    /// Of a descriptor from elsewhere it is "/proc/self/fd/" and the number, which means nothing any
    /// more once that descriptor is closed.
    pub fn path(&self) -> &Path {
        self.path.as_path()
    }

    /// `fcntl(F_DUPFD_CLOEXEC)`: another descriptor of the same directory.
    ///
    /// # Errors
    ///
    /// [`Operation::CloneDir`] with EMFILE where the process has all the descriptors it may have.
    pub fn try_clone(&self) -> Result<Self> {
        match rustix::io::fcntl_dupfd_cloexec(&self.fd, 0) {
            Ok(fd) => Ok(Self {
                has_path: self.has_path,
                ..Self::from_proven_fd(fd, self.path.clone(), self.follows_links)
            }),
            Err(errno) => Err(self.fail(Operation::CloneDir, Reason::errno_only(errno))),
        }
    }

    fn base(&self) -> Base<'_> {
        Base {
            fd: self.fd.as_fd(),
            pathname: &self.path,
            follows_links: self.follows_links,
        }
    }

    pub(crate) fn at_path<'a>(&'a self, name: &'a (impl AsRef<CStr> + ?Sized)) -> AtPath<'a> {
        AtPath {
            base: Some(self.base()),
            name: name.as_ref(),
        }
    }

    /// Calls `call` with the place of a name that is not kept.
    #[inline]
    fn with_path<T>(
        &self,
        name: &OsStr,
        call: impl FnOnce(&AtPath<'_>) -> T,
    ) -> Result<T, ComponentError> {
        with_name(name, |name| call(&self.at_path(name)))
    }

    /// Of the directory itself.
    #[cold]
    fn fail(&self, operation: Operation, reason: Reason) -> Error {
        Error::new(operation, reason).at(self.path())
    }

    /// Of a name in it.
    #[cold]
    pub(crate) fn fail_at(
        &self,
        operation: Operation,
        name: &OsStr,
        reason: impl Into<Reason>,
    ) -> Error {
        Error::new(operation, reason).at(self.path().join(name))
    }

    /// Of two names in it.
    #[cold]
    fn fail_between(
        &self,
        operation: Operation,
        from: &OsStr,
        to: &OsStr,
        reason: impl Into<Reason>,
    ) -> Error {
        Error::new(operation, reason)
            .of(Subject::Paths(self.path().join(from), self.path().join(to)))
    }

    fn name(&self, operation: Operation, name: &OsStr) -> Result<Component> {
        Component::new(name).map_err(|cause| self.fail_at(operation, name, cause))
    }
}

impl AsFd for PinDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<PinDir> for OwnedFd {
    fn from(dir: PinDir) -> Self {
        dir.fd
    }
}

impl fmt::Debug for PinDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinDir")
            .field("fd", &self.fd)
            .field("path", &self.path)
            .finish()
    }
}
