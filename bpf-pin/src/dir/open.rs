//! Opens directories and proves that they are on a bpffs.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, open, openat, openat2};
use rustix::io::Errno;

use bpf_pin_sys::Version;

use crate::diagnose;
use crate::error::{Cause, Error, Failed, Operation, Reason, Result};
use crate::path::{InteriorNul, Pathname};
use crate::process::is_filtered;
use crate::types::FileSystem;

use super::{PinDir, TRIES};

/// For a directory that names are looked up in.
pub(super) const DIR_PATH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl PinDir {
    /// `open(2)` with `O_PATH`, `fstatfs(2)`: opens the directory at `path`, which must be on a bpffs.
    ///
    /// Symbolic links in the path are followed once, by this call.
    ///
    /// # Errors
    ///
    /// [`Operation::OpenDir`]:
    ///
    /// | condition | cause | errno |
    /// |---|---|---|
    /// | the path leads to another file system | [`NotBpffs`](Cause::NotBpffs) | none or ENOENT |
    /// | a component does not exist | [`Missing`](Cause::Missing) | ENOENT |
    /// | a component is not a directory | [`NotADirectory`](Cause::NotADirectory) | ENOTDIR |
    /// | a mode or owner denies it | [`Blocked`](Cause::Blocked) | EACCES |
    /// | a component holds a '.' | [`Dot`](Cause::Dot) | EPERM |
    /// | a symbolic link on a mount that follows none | [`SymbolicLink`](Cause::SymbolicLink) | ELOOP |
    /// | a component or the path is too long | [`TooLong`](Cause::TooLong) | ENAMETOOLONG |
    /// | the path holds a NUL byte; no system call is made | [`InvalidPath`](Cause::InvalidPath) | |
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{Map, PinDir};
    ///
    /// let dir = PinDir::open("/sys/fs/bpf/app")?;
    /// let flows = dir.get::<Map>("flows")?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::open_path(path).map_err(|reason| Error::new(Operation::OpenDir, reason).at(path))
    }

    pub(crate) fn open_path(path: &Path) -> Result<Self, Reason> {
        let pathname = Pathname::new(path)?;
        let fd = open(pathname.as_c_str(), DIR_PATH, Mode::empty())
            .map_err(|errno| Reason::new(errno, diagnose::directory(path, errno)))?;
        let follows_links = prove_bpffs(&fd, path)?;
        Ok(Self::from_proven_fd(fd, pathname, follows_links))
    }

    /// Takes a descriptor of a directory, opened with `O_PATH` or for reading, such as that of `fsmount(2)`.
    ///
    /// # Errors
    ///
    /// [`Operation::DirFromFd`]. The error returns the descriptor.
    ///
    /// | condition | cause |
    /// |---|---|
    /// | it is on another file system | [`NotBpffs`](Cause::NotBpffs) |
    /// | it is not a directory | [`NotADirectory`](Cause::NotADirectory) |
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Failed<OwnedFd>> {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let path = Path::new(&path);
        match prove_directory(&fd, path) {
            Ok(follows_links) => Ok(Self {
                has_path: false,
                ..Self::from_proven_fd(fd, Pathname::known(path), follows_links)
            }),
            Err(reason) => {
                let error = Error::new(Operation::DirFromFd, reason).at(path);
                Err(Failed::new(fd, error))
            }
        }
    }

    /// `fd` must be a directory on a bpffs, opened by `path`.
    pub(crate) fn of_bpffs(fd: OwnedFd, path: &Path) -> Result<Self, InteriorNul> {
        let follows_links = fstatfs(&fd).map_or(true, |stat| FileSystem::follows_links(&stat));
        let path = Pathname::new(path)?;
        Ok(Self::from_proven_fd(fd, path, follows_links))
    }

    /// `openat2(2)`: opens a directory in this one. Linux 5.6.
    ///
    /// # Errors
    ///
    /// [`Operation::OpenDir`], with these causes and those of [names](Self#names) and
    /// [access](Self#access):
    ///
    /// | condition | cause | errno |
    /// |---|---|---|
    /// | nothing has the name | [`Missing`](Cause::Missing) | ENOENT |
    /// | it is a symbolic link, which is not followed | [`SymbolicLink`](Cause::SymbolicLink) | ENOTDIR |
    /// | it is not a directory | [`NotADirectory`](Cause::NotADirectory) | ENOTDIR |
    /// | something is mounted on it: open that by its path | [`MountPoint`](Cause::MountPoint) | EXDEV |
    pub fn open_dir(&self, name: impl AsRef<OsStr>) -> Result<Self> {
        self.on_name(Operation::OpenDir, name.as_ref(), |at| {
            self.open_dir_named(at.name)
        })
    }

    pub(super) fn open_dir_named(
        &self,
        name: &(impl AsRef<CStr> + ?Sized),
    ) -> Result<Self, Reason> {
        match self.descend(name) {
            // The same mount has the same file system.
            Ok(fd) => Ok(self.child(fd, name)),
            Err(errno) => Err(self.open_dir_reason(name, errno)),
        }
    }

    /// As [`open_dir_named`](Self::open_dir_named). `None` if nothing has the name.
    pub(super) fn find_dir_named(&self, name: &CStr) -> Result<Option<Self>, Reason> {
        match self.descend(name) {
            Ok(fd) => Ok(Some(self.child(fd, name))),
            Err(Errno::NOENT) if !self.is_removed() => Ok(None),
            Err(errno) => Err(self.open_dir_reason(name, errno)),
        }
    }

    #[cold]
    fn open_dir_reason(&self, name: &(impl AsRef<CStr> + ?Sized), errno: Errno) -> Reason {
        let cause = match errno {
            // A seccomp filter may answer ENOSYS, too.
            Errno::NOSYS => (!is_filtered()).then_some(Cause::Unsupported {
                what: "openat2",
                since: Version::new(5, 6),
            }),
            _ => diagnose::open_dir(&self.at_path(name), errno),
        };
        Reason::new(errno, cause)
    }

    /// Opens a directory. Follows no link and crosses no mount.
    fn descend(&self, name: &(impl AsRef<CStr> + ?Sized)) -> Result<OwnedFd, Errno> {
        self.open_beneath(name.as_ref(), DIR_PATH, ResolveFlags::NO_SYMLINKS)
    }

    /// Opens any file with `O_PATH`. A link is opened itself, and no mount is crossed.
    pub(super) fn open_any_type(&self, name: &CStr) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        self.open_beneath(name, flags, ResolveFlags::empty())
    }

    /// Opens the directory for reading, without an update of its access time if this user may do that.
    pub(super) fn open_to_list(&self) -> Result<OwnedFd, Reason> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOATIME;
        openat(&self.fd, c".", flags, Mode::empty()).or_else(|_| self.open_to_read())
    }

    /// Opens the directory for reading or locking, which an `O_PATH` descriptor does not allow.
    pub(super) fn open_to_read(&self) -> Result<OwnedFd, Reason> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.fd, c".", flags, Mode::empty())
            .map_err(|errno| Reason::new(errno, diagnose::list(self.base(), errno)))
    }

    fn open_beneath(
        &self,
        name: &CStr,
        flags: OFlags,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW;
        let resolve = resolve | ResolveFlags::NO_XDEV | ResolveFlags::BENEATH;
        let open = || openat2(&self.fd, name, flags, Mode::empty(), resolve);
        // EAGAIN: a rename elsewhere raced with the lookup.
        for _ in 1..TRIES {
            match open() {
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        }
        open()
    }
}

/// Returns whether the mount follows symbolic links.
fn prove_bpffs(fd: &OwnedFd, path: &Path) -> Result<bool, Reason> {
    let stat = fstatfs(fd).map_err(Reason::errno_only)?;
    match FileSystem::from_stat(&stat) {
        FileSystem::BPF => Ok(FileSystem::follows_links(&stat)),
        found => Err(diagnose::not_bpffs(path, found).into()),
    }
}

fn prove_directory(fd: &OwnedFd, path: &Path) -> Result<bool, Reason> {
    let follows_links = prove_bpffs(fd, path)?;
    let stat = fstat(fd).map_err(Reason::errno_only)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        let path = path.to_owned();
        return Err(Cause::NotADirectory { path }.into());
    }
    Ok(follows_links)
}

/// See [`PinDir::from_fd`].
impl TryFrom<OwnedFd> for PinDir {
    type Error = Failed<OwnedFd>;

    fn try_from(fd: OwnedFd) -> Result<Self, Failed<OwnedFd>> {
        Self::from_fd(fd)
    }
}
