//! Reads this thread's descriptors, mounts and ids from a genuine /proc.
//!
//! A process that may mount can put other files at /proc. So each file or directory is checked with
//! `fstatfs(2)` before it is read.

mod directory;
pub(crate) mod ids;
mod mountinfo;
mod mounts;
mod shadowed;
pub(crate) mod statmount;

use std::ffi::{CStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, fstatfs, open, openat, readlinkat};
use rustix::io::Errno;
use rustix::path::DecInt;

use crate::sys;
use crate::types::FileSystem;

pub(crate) use directory::{Directory, from_root, mount_id, mount_of};
pub(crate) use mountinfo::{BPF, Line};
pub use mountinfo::{Mount, Propagation};
pub(crate) use mounts::{MountInfo, MountTable};
pub use shadowed::ShadowedBpffs;

/// Why /proc could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcError {
    /// /proc does not exist, or is not a proc file system.
    NotMounted,
    /// Any other failure.
    Errno(Errno),
}

pub(crate) type Result<T, E = ProcError> = std::result::Result<T, E>;

impl From<Errno> for ProcError {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// The directories of this thread in /proc. A thread may have other descriptors than its process.
const THREAD: &CStr = c"/proc/thread-self";
const FDS: &CStr = c"/proc/thread-self/fd";
const FDINFO: &CStr = c"/proc/thread-self/fdinfo";

fn open_dir(path: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    check_proc(open(path, flags, Mode::empty()))
}

/// Opens the directory of this thread's descriptors in /proc.
pub(crate) fn fd_dir() -> Result<OwnedFd> {
    open_dir(FDS)
}

/// Checks that the file is on a proc file system.
fn check_proc(opened: rustix::io::Result<OwnedFd>) -> Result<OwnedFd> {
    let file = opened.map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => ProcError::NotMounted,
        errno => errno.into(),
    })?;
    match FileSystem::from_stat(&fstatfs(&file)?) {
        FileSystem::PROC => Ok(file),
        _ => Err(ProcError::NotMounted),
    }
}

/// The name of a descriptor in /proc: a path, or "anon_inode:…".
pub(crate) fn fd_name(fd: BorrowedFd<'_>) -> Result<OsString> {
    let name = readlinkat(fd_dir()?, DecInt::from_fd(fd).as_c_str(), Vec::new())?;
    Ok(OsString::from_vec(name.into_bytes()))
}

/// The path of an open file, if it has one.
pub(crate) fn path_of(fd: BorrowedFd<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(fd_name(fd).ok()?);
    path.is_absolute().then_some(path)
}

/// A path that leads to `fd` itself, even if something is mounted on top of it.
pub(crate) fn magic_link(fd: BorrowedFd<'_>) -> Result<PathBuf> {
    fd_dir()?;
    Ok(format!("/proc/thread-self/fd/{}", fd.as_raw_fd()).into())
}

/// The text of `/proc/thread-self/fdinfo/N`.
pub(crate) struct FdInfo(String);

impl FdInfo {
    /// The value of the line that begins with `key` and a colon.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let mut lines = self.0.split('\n');
        let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        value.map(str::trim_ascii)
    }
}

pub(crate) fn fdinfo(fd: BorrowedFd<'_>) -> Result<FdInfo> {
    read_file(open_dir(FDINFO)?, DecInt::from_fd(fd).as_c_str()).map(FdInfo)
}

fn read_file(dir: OwnedFd, name: &CStr) -> Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::empty())?;
    Ok(sys::read_to_string(file.as_fd())?)
}
