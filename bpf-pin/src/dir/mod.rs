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
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Error, Operation, Reason, Result};
use crate::path::{AtPath, Base, Component, Pathname, with_name};

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

/// How often an operation is repeated that lost a race with another process.
const TRIES: usize = 1000;

/// A directory on a bpffs, held open with `O_PATH` and proven to be on a bpffs by `fstatfs(2)`.
///
/// Names are looked up from the descriptor. A mount over the path, a renamed parent or a symbolic link on
/// the way changes nothing: the descriptor stays that of this directory.
///
/// The descriptor is passed to the kernel with `BPF_F_PATH_FD`, from Linux 6.5 on. An older kernel is
/// reached through /proc/thread-self/fd, with two more system calls that prove the path. Without /proc it
/// cannot be reached: [`NoProc`](crate::error::Cause::NoProc).
///
/// Dropping a `PinDir` closes the descriptor. The directory stays.
///
/// | task | methods |
/// |---|---|
/// | the directory | [`create`](Self::create), [`open`](Self::open), [`Bpffs::dir`](crate::Bpffs::dir); in another one: [`create_dir`](Self::create_dir), [`open_dir`](Self::open_dir) |
/// | a restart | [`open_or_create`](Self::open_or_create), [`open_or_create_with`](Self::open_or_create_with), [`open_or_attach`](Self::open_or_attach) |
/// | pin and open | [`pin`](Self::pin), [`get`](Self::get), [`open_with_info`](Self::open_with_info), [`identity`](Self::identity) |
/// | replace | [`replace`](Self::replace), [`replace_if`](Self::replace_if), [`exchange`](Self::exchange), [`rename`](Self::rename), [`link`](Self::link) |
/// | sets | [`stage`](Self::stage), then [`Stage::publish`]; [`open_dir_shared`](Self::open_dir_shared) |
/// | locks | [`lock`](Self::lock) |
/// | look around | [`entries`](Self::entries), [`walk`](Self::walk) |
/// | clean up | [`unpin`](Self::unpin), [`unlink`](Self::unlink), [`remove_dir_all`](Self::remove_dir_all), [`remove_where`](Self::remove_where), [`remove_leftovers`](Self::remove_leftovers) |
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
///
/// # Names
///
/// A name is one path component of at most 255 bytes. bpffs refuses a '.' in every name: [`escape_name`]
/// replaces it. Each name is checked before the kernel sees it. Every method that takes one can fail with
/// these causes, without a system call and an errno:
///
/// | the name | cause |
/// |---|---|
/// | is empty, or holds a '/' or a NUL byte | [`InvalidPath`](crate::error::Cause::InvalidPath) |
/// | holds a '.' | [`Dot`](crate::error::Cause::Dot) |
/// | is too long | [`TooLong`](crate::error::Cause::TooLong) |
///
/// # Access
///
/// Every method that uses the directory can fail with these causes:
///
/// | condition | cause | errno |
/// |---|---|---|
/// | the directory was removed | [`Removed`](crate::error::Cause::Removed) | ENOENT |
/// | this user may not search it, read it or write to it | [`Blocked`](crate::error::Cause::Blocked) | EACCES |
/// | the bpffs or its mount is read-only, for a method that writes | [`ReadOnlyFileSystem`](crate::error::Cause::ReadOnlyFileSystem) | EROFS |
/// | the sticky bit keeps this user from replacing or removing a name of another user | [`Sticky`](crate::error::Cause::Sticky) | EPERM |
/// | this thread lacks a capability that bpf(2) requires | [`MissingCapability`](crate::error::Cause::MissingCapability) | EPERM |
/// | the kernel lacks `BPF_F_PATH_FD`, and /proc is missing or not genuine | [`NoProc`](crate::error::Cause::NoProc) | |
///
/// # Objects are borrowed
///
/// [`pin`](Self::pin), [`replace`](Self::replace) and the like take `&object`. The caller keeps the object,
/// whether the call succeeds or fails. An object that is made in the call's own arguments is closed after
/// the call: if `dir.pin(&spec.create()?, name)?` fails, the new map is gone.
///
/// # Races
///
/// Any process that may write to the directory can put other objects under its names, between any two
/// system calls. The kernel has no call that checks a name and removes or replaces it in one step, so the
/// check is made right before.
///
/// Such a process can also plant a symbolic link to an object that only this process may open. `BPF_OBJ_GET` follows
/// it. A system call after it finds the link, and the open fails. If the mount had
/// [`nosymfollow`](crate::bpffs::MountOptions::nosymfollow) when the directory was opened, that call is left out: the
/// kernel follows no link there, and opening one fails with ELOOP and
/// [`SymbolicLink`](crate::error::Cause::SymbolicLink). A process with `CAP_SYS_ADMIN` can undo that, by a remount
/// without the option, or by mounting a link from elsewhere over a name.
///
/// A new pin never leaves the directory.
pub struct PinDir {
    fd: OwnedFd,
    path: Pathname,
    /// False if `path` only holds a descriptor's number, which means nothing to other processes.
    has_path: bool,
    /// False if its mount had `nosymfollow` when it was opened.
    follows_links: bool,
    /// Created with the first temporary name.
    temp_names: OnceLock<TempNames>,
}

impl PinDir {
    /// `fd` must be a directory on a bpffs.
    fn from_proven_fd(fd: OwnedFd, path: Pathname, follows_links: bool) -> Self {
        Self {
            fd,
            path,
            has_path: true,
            follows_links,
            temp_names: OnceLock::new(),
        }
    }

    /// `fd` must be the directory `name` in this one, on the same mount.
    fn child(&self, fd: OwnedFd, name: &(impl AsRef<CStr> + ?Sized)) -> Self {
        Self {
            has_path: self.has_path,
            ..Self::from_proven_fd(fd, self.path.join(name), self.follows_links)
        }
    }

    /// The path that the directory was opened by. It may lead elsewhere now, or nowhere.
    ///
    /// After [`from_fd`](Self::from_fd) it is "/proc/self/fd/" and the descriptor's number, which means
    /// nothing once that descriptor is closed.
    pub fn path(&self) -> &Path {
        self.path.as_path()
    }

    /// `fcntl(F_DUPFD_CLOEXEC)`: another descriptor of the same directory.
    ///
    /// # Errors
    ///
    /// [`Operation::CloneDir`] with EMFILE if the process has no descriptor left.
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

    /// Checks the name and calls `call` with its path. An error names the operation and the path.
    #[inline]
    fn on_name<T>(
        &self,
        operation: Operation,
        name: &OsStr,
        call: impl FnOnce(&AtPath<'_>) -> Result<T, Reason>,
    ) -> Result<T> {
        with_name(name, |name| call(&self.at_path(name)))
            .unwrap_or_else(|bad| Err(bad.into()))
            .map_err(|reason| self.fail_at(operation, name, reason))
    }

    /// A checked name to keep.
    fn name(&self, operation: Operation, name: &OsStr) -> Result<Component> {
        Component::new(name).map_err(|cause| self.fail_at(operation, name, cause))
    }

    /// An error of the directory itself.
    #[cold]
    fn fail(&self, operation: Operation, reason: Reason) -> Error {
        Error::new(operation, reason).at(self.path())
    }

    /// An error of a name in the directory.
    #[cold]
    pub(crate) fn fail_at(
        &self,
        operation: Operation,
        name: &OsStr,
        reason: impl Into<Reason>,
    ) -> Error {
        Error::new(operation, reason).at(self.path().join(name))
    }
}

/// Why a name could not be found.
#[cold]
fn find_reason(at: &AtPath<'_>, errno: Errno) -> Reason {
    Reason::new(errno, diagnose::find(at, errno))
}

/// Why a name could not be renamed or removed.
#[cold]
fn unlink_reason(at: &AtPath<'_>, errno: Errno) -> Reason {
    Reason::new(errno, diagnose::unpin(at, errno))
}

crate::error::owns_fd!(PinDir);

impl fmt::Debug for PinDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinDir")
            .field("fd", &self.fd)
            .field("path", &self.path)
            .finish()
    }
}
