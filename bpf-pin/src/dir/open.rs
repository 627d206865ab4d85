//! How a directory is opened, and proven to be on a bpffs.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, open, openat, openat2};
use rustix::io::Errno;

use bpf_pin_sys::Version;

use crate::diagnose;
use crate::error::{Cause, Error, Failed, Operation, Reason, Result};
use crate::path::Component;
use crate::path::{InteriorNul, Pathname};
use crate::process::is_filtered;
use crate::types::FileSystem;

use super::PinDir;

pub(super) const HELD: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl PinDir {
    /// `open(2)` with `O_PATH`, `fstatfs(2)`: the directory at `path`, which must be on a bpffs.
    ///
    /// Symbolic links in the path are followed, once, here.
    ///
    /// # Errors
    ///
    /// [`Operation::OpenDir`], with one of these causes where it was proven:
    /// [`NotBpffs`](Cause::NotBpffs), without an errno or with ENOENT;
    /// [`Missing`](Cause::Missing) (ENOENT); [`NotADirectory`](Cause::NotADirectory) (ENOTDIR);
    /// [`Blocked`](Cause::Blocked) (EACCES); [`Dot`](Cause::Dot) (EPERM);
    /// [`SymbolicLink`](Cause::SymbolicLink) (ELOOP) on a mount that follows none;
    /// [`TooLong`](Cause::TooLong) (ENAMETOOLONG);
    /// [`InvalidPath`](Cause::InvalidPath), without a syscall.
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
        Self::open_path(path).map_err(|reason| fail(path, reason))
    }

    pub(crate) fn open_path(path: &Path) -> Result<Self, Reason> {
        let pathname = Pathname::new(path)?;
        let fd = open(pathname.as_c_str(), HELD, Mode::empty())
            .map_err(|errno| Reason::new(errno, diagnose::directory(path, errno)))?;
        let follows_links = prove(&fd, path)?;
        Ok(Self::from_proven_fd(fd, pathname, follows_links))
    }

    /// A directory from elsewhere, such as that of `fsmount(2)`: opened with `O_PATH` or for reading.
    ///
    /// # Errors
    ///
    /// [`Operation::DirFromFd`], with the descriptor: [`NotBpffs`](Cause::NotBpffs) or
    /// [`NotADirectory`](Cause::NotADirectory), without an errno.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Failed<OwnedFd>> {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let path = Path::new(&path);
        // It holds no NUL.
        let taken = Pathname::new(path)
            .map_err(Reason::from)
            .and_then(|pathname| Ok((pathname, prove_directory(&fd, path)?)));
        match taken {
            Ok((pathname, follows_links)) => Ok(Self {
                has_path: false,
                ..Self::from_proven_fd(fd, pathname, follows_links)
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

    /// `openat2(2)`: a directory in this one. Linux 5.6.
    ///
    /// # Errors
    ///
    /// [`Operation::OpenDir`], with one of these causes where it was proven:
    /// [`Missing`](Cause::Missing) or [`Removed`](Cause::Removed) (ENOENT);
    /// [`SymbolicLink`](Cause::SymbolicLink) (ENOTDIR), which is not followed;
    /// [`MountPoint`](Cause::MountPoint) (EXDEV), which is not crossed: open that by its path;
    /// [`NotADirectory`](Cause::NotADirectory) (ENOTDIR); [`Blocked`](Cause::Blocked) (EACCES);
    /// what is wrong with a name, without a syscall: [`Dot`](Cause::Dot), [`InvalidPath`](Cause::InvalidPath) or [`TooLong`](Cause::TooLong).
    pub fn open_dir(&self, name: impl AsRef<OsStr>) -> Result<Self> {
        let name = self.name(Operation::OpenDir, name.as_ref())?;
        self.open_dir_named(&name)
            .map_err(|reason| self.fail_at(Operation::OpenDir, name.as_os_str(), reason))
    }

    pub(super) fn open_dir_named(&self, name: &Component) -> Result<Self, Reason> {
        match self.descend(name) {
            // Within one mount the file system is one, too.
            Ok(fd) => Ok(self.child(fd, name)),
            Err(errno) => Err(self.not_opened(name, errno)),
        }
    }

    /// As [`open_dir_named`](Self::open_dir_named), where that nothing has the name is no failure.
    pub(super) fn find_dir_named(&self, name: &Component) -> Result<Option<Self>, Reason> {
        match self.descend(name) {
            Ok(fd) => Ok(Some(self.child(fd, name))),
            Err(Errno::NOENT) if !self.is_removed() => Ok(None),
            Err(errno) => Err(self.not_opened(name, errno)),
        }
    }

    #[cold]
    fn not_opened(&self, name: &Component, errno: Errno) -> Reason {
        let cause = match errno {
            // A filter may say so, too.
            Errno::NOSYS => (!is_filtered()).then_some(Cause::Unsupported {
                what: "openat2",
                since: Version::new(5, 6),
            }),
            _ => diagnose::open_dir(&self.at_path(name), errno),
        };
        Reason::new(errno, cause)
    }

    /// A directory, reached by no link and across no mount.
    pub(super) fn descend(&self, name: &Component) -> Result<OwnedFd, Errno> {
        self.hold(name, HELD, ResolveFlags::NO_SYMLINKS)
    }

    /// Whatever has the name, a link included, across no mount.
    pub(super) fn hold_any(&self, name: &impl AsRef<CStr>) -> Result<OwnedFd, Errno> {
        self.hold(name, OFlags::PATH | OFlags::CLOEXEC, ResolveFlags::empty())
    }

    /// The directory, opened to be listed without a new time of last access, if this user may do that.
    pub(super) fn listable(&self) -> Result<OwnedFd, Reason> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOATIME;
        openat(&self.fd, c".", flags, Mode::empty()).or_else(|_| self.readable())
    }

    /// The directory, opened to be read or locked: an `O_PATH` descriptor serves neither.
    pub(super) fn readable(&self) -> Result<OwnedFd, Reason> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.fd, c".", flags, Mode::empty())
            .map_err(|errno| Reason::new(errno, diagnose::list(self.base(), errno)))
    }

    fn hold(
        &self,
        name: &impl AsRef<CStr>,
        flags: OFlags,
        how: ResolveFlags,
    ) -> Result<OwnedFd, Errno> {
        let how = how | ResolveFlags::NO_XDEV | ResolveFlags::BENEATH;
        // The kernel asks for another try where a rename came between.
        retry_on_again(|| {
            openat2(
                &self.fd,
                name.as_ref(),
                flags | OFlags::NOFOLLOW,
                Mode::empty(),
                how,
            )
        })
    }
}

fn retry_on_again<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    const TRIES: usize = 100;

    for _ in 1..TRIES {
        match call() {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    call()
}

#[cold]
fn fail(path: &Path, reason: Reason) -> Error {
    Error::new(Operation::OpenDir, reason).at(path)
}

/// Whether its mount follows symbolic links.
fn prove(fd: &OwnedFd, path: &Path) -> Result<bool, Reason> {
    let stat = fstatfs(fd).map_err(Reason::errno_only)?;
    match FileSystem::from_stat(&stat) {
        FileSystem::BPF => Ok(FileSystem::follows_links(&stat)),
        found => Err(diagnose::not_bpffs(path, found).into()),
    }
}

fn prove_directory(fd: &OwnedFd, path: &Path) -> Result<bool, Reason> {
    let follows_links = prove(fd, path)?;
    let stat = fstat(fd).map_err(Reason::errno_only)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(follows_links),
        _ => Err(Cause::NotADirectory {
            path: path.to_owned(),
        }
        .into()),
    }
}

/// As [`PinDir::from_fd`].
impl TryFrom<OwnedFd> for PinDir {
    type Error = Failed<OwnedFd>;

    fn try_from(fd: OwnedFd) -> Result<Self, Failed<OwnedFd>> {
        Self::from_fd(fd)
    }
}
