//! Where a path leads: which directory, of which file system, through which mount.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, Stat, StatxAttributes, StatxFlags, fstat, fstatfs, openat,
    readlinkat, statx,
};
use rustix::io::Errno;

use crate::cause::Cause;
use crate::error::Reason;
use crate::kind::proc_dir;
use crate::magic::FileSystem;
use crate::mountinfo::Mount;
use crate::pathname::Pathname;

use super::statmount;
use super::table::{MountInfo, genuine_proc};

/// A directory, held by an `O_PATH` descriptor.
pub(crate) struct Directory {
    pub(crate) fd: OwnedFd,
    pub(crate) fs: FileSystem,
    pub(crate) stat: Stat,
}

impl Directory {
    pub(crate) fn hold(path: &Path) -> Result<Self, Reason> {
        let name = Pathname::new(path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, name.as_c_str(), flags, Mode::empty());
        fd.and_then(Self::of).map_err(Reason::errno_only)
    }

    pub(crate) fn of(fd: OwnedFd) -> Result<Self, Errno> {
        let fs = FileSystem::from_stat(&fstatfs(&fd)?);
        let stat = fstat(&fd)?;
        Ok(Self { fd, fs, stat })
    }

    /// Whether both are the same directory, reached through the same mount.
    pub(crate) fn is_same_as(&self, other: &Self) -> Result<bool, Reason> {
        let same = |get: fn(&Stat) -> u64| get(&self.stat) == get(&other.stat);
        Ok(same(|stat| stat.st_dev)
            && same(|stat| stat.st_ino)
            && self.mount_id()? == other.mount_id()?)
    }

    pub(crate) fn mount_id(&self) -> Result<u64, Reason> {
        mount_id(self.fd.as_fd())
    }

    /// The mount that it is in. None: it is not listed, for it begins above this process's root, is
    /// another namespace's, or none's.
    pub(crate) fn mount(&self, mounts: &MountInfo) -> Result<Option<Mount>, Reason> {
        mount_of(self.fd.as_fd(), mounts)
    }

    pub(crate) fn listed_mount(&self, mounts: &MountInfo) -> Result<Mount, Reason> {
        let mount_id = self.mount_id()?;
        let mount = self.mount(mounts)?;
        mount.ok_or_else(|| Cause::NotListed { mount_id }.into())
    }

    /// Whether it is the directory that the mount that it is in, and that may be listed, begins with.
    pub(crate) fn is_mount_root(&self, mount: Option<&Mount>) -> bool {
        // Linux 5.8 has this attribute, and tells so in the mask.
        let found = statx(&self.fd, c"", AtFlags::EMPTY_PATH, StatxFlags::empty());
        let known = found.ok().filter(|stat| {
            let known = stat.stx_attributes_mask;
            known.contains(StatxAttributes::MOUNT_ROOT)
        });
        match known {
            Some(stat) => stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
            None => match mount {
                Some(mount) => self.path().is_some_and(|path| path == mount.mount_point),
                None => self.is_below_another_mount(),
            },
        }
    }

    fn is_below_another_mount(&self) -> bool {
        let parent = parent(self.fd.as_fd()).ok();
        let ids = parent.map(|parent| (mount_id(parent.as_fd()), self.mount_id()));
        matches!(ids, Some((Ok(above), Ok(here))) if above != here)
    }

    /// Whether its mount, which is not listed, is attached nowhere: then the way up ends in it, short of
    /// this process's root. So it does in the root of a mount namespace, which no bpffs is.
    pub(crate) fn is_attached_nowhere(&self) -> bool {
        self.ends_in_itself().unwrap_or(false)
    }

    fn ends_in_itself(&self) -> Result<bool, Reason> {
        /// More directories than a path has room for.
        const MOST: usize = 4096;

        let open = |fd: OwnedFd| Self::of(fd).map_err(Reason::errno_only);
        let mut top = open(parent(self.fd.as_fd()).map_err(Reason::errno_only)?)?;
        for _ in 0..MOST {
            let above = open(parent(top.fd.as_fd()).map_err(Reason::errno_only)?)?;
            if above.is_same_as(&top)? {
                let is_root = Self::hold(Path::new("/"))?.is_same_as(&top)?;
                return Ok(!is_root && top.mount_id()? == self.mount_id()?);
            }
            top = above;
        }
        Ok(false)
    }

    /// Its path as the kernel has it: without symbolic links, from this process's root.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        path_of(self.fd.as_fd())
    }

    /// That path, where it leads here. Of what is not below this process's root, which no list of mounts
    /// has, the kernel names a path that leads elsewhere.
    pub(crate) fn path_that_leads_here(&self, is_listed: bool) -> Option<PathBuf> {
        let leads_here = |path: &PathBuf| {
            let there = Self::hold(path).and_then(|there| there.is_same_as(self));
            there.unwrap_or(false)
        };
        self.path().filter(|path| is_listed || leads_here(path))
    }
}

fn parent(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(fd, c"..", flags, Mode::empty())
}

/// From the root: "." itself is below what is mounted there, and "./" and "//" are in no mountinfo. A
/// path that from the root would lead elsewhere stays as it is.
pub(crate) fn from_root(path: &Path) -> Cow<'_, Path> {
    match std::path::absolute(path) {
        Ok(absolute) if path.is_absolute() || is_here() == Some(true) => absolute.into(),
        // Empty, or nobody knows where this is, as it was removed, or something was mounted over it.
        _ => resolved(path).map_or(path.into(), Cow::Owned),
    }
}

/// Whether the working directory is still what its path leads to, but for what is mounted on itself.
fn is_here() -> Option<bool> {
    let path = std::env::current_dir().ok()?;
    let here = Directory::hold(Path::new(".")).ok()?;
    let there = Directory::hold(&path).ok()?;
    if there.is_same_as(&here).ok()? {
        return Some(true);
    }
    let (above, below) = (there.mount_id().ok()?, here.mount_id().ok()?);
    MountInfo::own().ok()?.is_on_top(above, below, &path).ok()
}

/// The path of the directory that it leads to, if that leads there.
fn resolved(path: &Path) -> Option<PathBuf> {
    let place = Directory::hold(path).ok()?;
    let path = place.path()?;
    let is_same = Directory::hold(&path).ok()?.is_same_as(&place);
    is_same.is_ok_and(|is_same| is_same).then_some(path)
}

pub(crate) fn path_of(fd: BorrowedFd<'_>) -> Option<PathBuf> {
    let name = readlinkat(proc_dir("fd")?, fd.as_raw_fd().to_string(), Vec::new()).ok()?;
    let path = PathBuf::from(std::ffi::OsString::from_vec(name.into_bytes()));
    path.is_absolute().then_some(path)
}

/// The path that leads to `fd` itself, past all that is mounted over it.
pub(crate) fn magic_link(fd: BorrowedFd<'_>) -> Result<PathBuf, Reason> {
    genuine_proc("fd")?;
    Ok(format!("/proc/thread-self/fd/{}", fd.as_raw_fd()).into())
}

/// The mount that `fd` was opened through, if it is listed. Others are not read of where the kernel tells
/// of one alone.
pub(crate) fn mount_of(fd: BorrowedFd<'_>, mounts: &MountInfo) -> Result<Option<Mount>, Reason> {
    match statmount::unique_id(fd).and_then(statmount::by_unique_id) {
        Some(mount) => Ok(Some(mount)),
        None => mounts.by_id(mount_id(fd)?),
    }
}

/// The id of the mount that `fd` was opened through, as mountinfo has it.
pub(crate) fn mount_id(fd: BorrowedFd<'_>) -> Result<u64, Reason> {
    // Linux 5.8.
    match statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) {
        Ok(stat) if stat.stx_mask & StatxFlags::MNT_ID.bits() != 0 => Ok(stat.stx_mnt_id),
        _ => mount_id_by_proc(fd),
    }
}

fn mount_id_by_proc(fd: BorrowedFd<'_>) -> Result<u64, Reason> {
    let text = fdinfo(fd)?;
    let mut lines = text.lines();
    let id = lines.find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| Reason::errno_only(Errno::NOSYS))
}

/// What /proc tells of a descriptor.
pub(crate) fn fdinfo(fd: BorrowedFd<'_>) -> Result<String, Reason> {
    let directory = genuine_proc("fdinfo")?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat(directory, fd.as_raw_fd().to_string(), flags, Mode::empty());
    let mut file = File::from(file.map_err(Reason::errno_only)?);
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(Reason::from_io)?;
    Ok(text)
}
