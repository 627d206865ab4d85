//! A directory that is held open, with its file system, mount and path.

use std::borrow::Cow;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, Stat, StatxAttributes, StatxFlags, fstat, fstatfs, openat, statx,
};
use rustix::io::Errno;

use crate::path::Pathname;
use crate::types::FileSystem;

use super::{Mount, MountInfo, Result, fdinfo, path_of, statmount};

/// A directory, held by an `O_PATH` descriptor.
pub(crate) struct Directory {
    pub(crate) fd: OwnedFd,
    pub(crate) fs: FileSystem,
    pub(crate) stat: Stat,
}

impl Directory {
    pub(crate) fn hold(path: &Path) -> Result<Self, Errno> {
        Self::of(open_at(CWD, Pathname::known(path).as_c_str())?)
    }

    fn of(fd: OwnedFd) -> Result<Self, Errno> {
        let fs = FileSystem::from_stat(&fstatfs(&fd)?);
        let stat = fstat(&fd)?;
        Ok(Self { fd, fs, stat })
    }

    fn parent(&self) -> Result<Self, Errno> {
        Self::of(open_at(self.fd.as_fd(), c"..")?)
    }

    /// True if both are the same directory, reached through the same mount.
    pub(crate) fn is_same_as(&self, other: &Self) -> Result<bool> {
        let (a, b) = (&self.stat, &other.stat);
        let is_same_file = (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
        Ok(is_same_file && self.mount_id()? == other.mount_id()?)
    }

    pub(crate) fn mount_id(&self) -> Result<u64> {
        mount_id(self.fd.as_fd())
    }

    /// The mount that it is in. `None` if mountinfo does not list the mount: its root is outside this
    /// process's root, or it is in another namespace or detached.
    pub(crate) fn mount(&self, mounts: &MountInfo) -> Result<Option<Mount>> {
        mount_of(self.fd.as_fd(), mounts)
    }

    /// True if it is the root of its mount. `mount` is that mount, if mountinfo lists it.
    pub(crate) fn is_mount_root(&self, mount: Option<&Mount>) -> bool {
        // Linux 5.8 has this attribute, and reports that in the mask.
        let root = StatxAttributes::MOUNT_ROOT;
        let found = statx(&self.fd, c"", AtFlags::EMPTY_PATH, StatxFlags::empty());
        match found {
            Ok(stat) if stat.stx_attributes_mask.contains(root) => {
                return stat.stx_attributes.contains(root);
            }
            _ => {}
        }
        match mount {
            Some(mount) => self.path().is_some_and(|path| path == mount.mount_point),
            None => {
                let above = self.parent().map(|parent| parent.mount_id());
                matches!((above, self.mount_id()), (Ok(Ok(above)), Ok(here)) if above != here)
            }
        }
    }

    /// True if its mount, which is not listed, is detached. Then ".." leads up to the root of that mount, and
    /// not to this process's root. The same holds for the root of a mount namespace, which is never a bpffs.
    pub(crate) fn is_detached(&self) -> bool {
        self.is_below_own_root().unwrap_or(false)
    }

    fn is_below_own_root(&self) -> Result<bool> {
        /// More directories than a path can have.
        const MAX_DEPTH: usize = 4096;

        let mut top = self.parent()?;
        for _ in 0..MAX_DEPTH {
            let above = top.parent()?;
            if above.is_same_as(&top)? {
                let is_root = Self::hold(Path::new("/"))?.is_same_as(&top)?;
                return Ok(!is_root && top.mount_id()? == self.mount_id()?);
            }
            top = above;
        }
        Ok(false)
    }

    /// Its path without symbolic links, from this process's root.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        path_of(self.fd.as_fd())
    }

    /// As [`path`](Self::path), if that path leads to this directory. If the mount is not listed, the directory
    /// is outside this process's root, and the path that the kernel reports may lead to another directory.
    pub(crate) fn reachable_path(&self, is_listed: bool) -> Option<PathBuf> {
        let leads_here = |path: &PathBuf| {
            let found = Self::hold(path).ok();
            found.is_some_and(|found| found.is_same_as(self) == Ok(true))
        };
        self.path().filter(|path| is_listed || leads_here(path))
    }
}

fn open_at(dir: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(dir, path, flags, Mode::empty())
}

/// The path from the root: from "." the kernel would not see a mount on top of it, and mountinfo has no "./"
/// and no "//". A path that would lead to another file from the root is returned as it is.
pub(crate) fn from_root(path: &Path) -> Cow<'_, Path> {
    match std::path::absolute(path) {
        Ok(absolute) if path.is_absolute() || is_cwd_reachable() == Some(true) => absolute.into(),
        // The path is empty, or the working directory was removed or is below a mount.
        _ => {
            let directory = Directory::hold(path).ok();
            let path_from_root = directory.and_then(|directory| directory.reachable_path(false));
            path_from_root.map_or(path.into(), Cow::Owned)
        }
    }
}

/// True if the path of the working directory leads to it, or to a mount on top of it.
fn is_cwd_reachable() -> Option<bool> {
    let path = std::env::current_dir().ok()?;
    let current = Directory::hold(Path::new(".")).ok()?;
    let found = Directory::hold(&path).ok()?;
    if found.is_same_as(&current).ok()? {
        return Some(true);
    }
    let (above, below) = (found.mount_id().ok()?, current.mount_id().ok()?);
    let mounts = MountInfo::own().ok()?.read().ok()?;
    Some(mounts.is_on_top(above, below, &path))
}

/// The mount that `fd` was opened through, if it is listed. Tries `statmount(2)` first, to avoid reading all
/// mounts.
pub(crate) fn mount_of(fd: BorrowedFd<'_>, mounts: &MountInfo) -> Result<Option<Mount>> {
    match statmount::unique_id(fd).and_then(statmount::by_unique_id) {
        Some(mount) => Ok(Some(mount)),
        None => mounts.by_id(mount_id(fd)?),
    }
}

/// The mount id, as in mountinfo, of the mount that `fd` was opened through.
pub(crate) fn mount_id(fd: BorrowedFd<'_>) -> Result<u64> {
    // Linux 5.8.
    match statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) {
        Ok(stat) if stat.stx_mask & StatxFlags::MNT_ID.bits() != 0 => Ok(stat.stx_mnt_id),
        _ => {
            let info = fdinfo(fd)?;
            let id = info.get("mnt_id").and_then(|id| id.parse().ok());
            Ok(id.ok_or(Errno::NOSYS)?)
        }
    }
}
