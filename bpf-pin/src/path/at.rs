//! A path, or a name in a directory that is held open.

use std::ffi::{CStr, OsStr};
use std::fmt::Write;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bpf_pin_sys as abi;
use rustix::fs::{
    AtFlags, CWD, FileType, Stat, StatxAttributes, StatxFlags, fstat, readlinkat_raw, stat, statat,
    statx, unlinkat,
};
use rustix::io::Errno;
use rustix::path::Arg;

use super::inline::{InlineCStr, InteriorNul, Pathname};
use crate::process::is_filtered;
use crate::sys;

/// A path, or a name in a directory that is held open.
#[derive(Clone, Copy)]
pub(crate) struct AtPath<'a> {
    /// `None` for a path: its lookup begins at the working directory or at the root.
    pub(crate) base: Option<Base<'a>>,
    pub(crate) name: &'a CStr,
}

/// A directory on a bpffs that is held open.
#[derive(Clone, Copy)]
pub(crate) struct Base<'a> {
    pub(crate) fd: BorrowedFd<'a>,
    /// The path that it was opened by, for messages.
    pub(crate) pathname: &'a Pathname,
    /// False if its mount has `nosymfollow`.
    pub(crate) follows_links: bool,
}

impl<'a> Base<'a> {
    pub(crate) fn path(&self) -> &'a Path {
        self.pathname.as_path()
    }
}

/// Why a bpf(2) call on a name failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtError {
    Errno(Errno),
    /// The kernel lacks `BPF_F_PATH_FD`, and /proc is not there or not genuine.
    NeedsProc,
}

impl From<Errno> for AtError {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

type Result<T, E = AtError> = std::result::Result<T, E>;

impl<'a> AtPath<'a> {
    /// The path for messages.
    pub(crate) fn path(&self) -> PathBuf {
        match self.base {
            Some(base) => base.path().join(self.relative()),
            None => self.relative().to_owned(),
        }
    }

    /// The path from where the lookup begins.
    pub(crate) fn relative(&self) -> &'a Path {
        Path::new(OsStr::from_bytes(self.name.to_bytes()))
    }

    /// The directory where the lookup of a relative path begins.
    pub(crate) fn begin(&self) -> BorrowedFd<'a> {
        self.base.map_or(CWD, |base| base.fd)
    }

    /// `BPF_OBJ_PIN`.
    #[inline]
    pub(crate) fn pin(&self, object: BorrowedFd<'_>) -> Result<()> {
        match self.base {
            None => Ok(sys::obj_pin(object, self.name)?),
            Some(base) => path_fd_or_proc(
                || sys::obj_pin_at(base.fd, self.name, object),
                || Ok(sys::obj_pin(object, self.proc_path(base)?.as_c_str())?),
            ),
        }
    }

    /// `BPF_OBJ_GET`. Follows a symbolic link.
    #[inline]
    pub(crate) fn get(&self, file_flags: u32) -> Result<OwnedFd> {
        match self.base {
            None => Ok(sys::obj_get(self.name, file_flags)?),
            Some(base) => path_fd_or_proc(
                || sys::obj_get_at(base.fd, self.name, file_flags),
                || Ok(sys::obj_get(self.proc_path(base)?.as_c_str(), file_flags)?),
            ),
        }
    }

    /// As [`get`](Self::get), with any access that is granted.
    pub(crate) fn get_any_access(&self) -> Result<OwnedFd> {
        self.get(0).or_else(|error| match error {
            AtError::Errno(Errno::ACCESS | Errno::ROFS) => self
                .get(abi::BPF_F_RDONLY)
                .or_else(|_| self.get(abi::BPF_F_WRONLY))
                .map_err(|_| error),
            _ => Err(error),
        })
    }

    /// `fstatat(2)` of the name itself.
    pub(crate) fn lstat(&self) -> Result<Stat, Errno> {
        statat(self.begin(), self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// True for a symbolic link that `BPF_OBJ_GET` follows. The call has no flag to prevent that, but the mount
    /// may have one.
    #[inline]
    pub(crate) fn is_followed(&self) -> Result<bool, Errno> {
        match self.base {
            Some(base) if !base.follows_links => Ok(false),
            _ => self.is_symbolic_link(),
        }
    }

    /// `readlinkat(2)`, the cheapest call for this: EINVAL if the name is not a symbolic link.
    #[inline]
    pub(crate) fn is_symbolic_link(&self) -> Result<bool, Errno> {
        match readlinkat_raw(self.begin(), self.name, &mut [0]) {
            Ok(_) => Ok(true),
            Err(Errno::INVAL) => Ok(false),
            Err(Errno::NOENT) => Err(Errno::NOENT),
            Err(_) => self.is_symbolic_link_by_stat(),
        }
    }

    /// For a seccomp filter that rejects readlinkat(2).
    #[cold]
    fn is_symbolic_link_by_stat(&self) -> Result<bool, Errno> {
        let stat = self.lstat()?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
    }

    /// True if something is mounted there; `None` if the kernel does not report that.
    pub(crate) fn is_mount_point(&self) -> Option<bool> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let found = statx(self.begin(), self.name, flags, StatxFlags::TYPE).ok()?;
        let root = StatxAttributes::MOUNT_ROOT;
        let is_known = found.stx_attributes_mask.contains(root);
        is_known.then(|| found.stx_attributes.contains(root))
    }

    /// `unlink(2)`.
    pub(crate) fn unlink(&self) -> Result<(), Errno> {
        unlinkat(self.begin(), self.name, AtFlags::empty())
    }

    /// "/proc/thread-self/fd/N/name": a thread need not share the process's descriptors. Checks that the
    /// link leads to the directory, because another file system may be mounted on /proc.
    #[cold]
    fn proc_path(&self, base: Base<'_>) -> Result<Pathname> {
        let mut text = InlineCStr::default();
        write!(text, "/proc/thread-self/fd/{}", base.fd.as_raw_fd()).map_err(|_| Errno::BADF)?;
        let there = stat(text.as_c_str()).map_err(|errno| match errno {
            // This errno does not depend on /proc.
            Errno::NOMEM => AtError::Errno(errno),
            _ => AtError::NeedsProc,
        })?;
        let here = fstat(base.fd)?;
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino) {
            return Err(AtError::NeedsProc);
        }
        Ok(Pathname::Inline(text).join(self.name))
    }
}

/// Calls `call` with a copy of `path` on the stack, or on the heap if it is long.
#[inline]
pub(crate) fn with_path<T>(
    path: &Path,
    call: impl FnOnce(&AtPath<'_>) -> T,
) -> Result<T, InteriorNul> {
    path.into_with_c_str(|name| Ok(call(&AtPath { base: None, name })))
        .map_err(|_| InteriorNul::of(path.as_os_str().as_bytes()))
}

impl Pathname {
    pub(crate) fn at_path(&self) -> AtPath<'_> {
        AtPath {
            base: None,
            name: self.as_c_str(),
        }
    }
}

/// Set once the kernel is known to lack `BPF_F_PATH_FD`.
static LACKS_PATH_FD: AtomicBool = AtomicBool::new(false);

/// Calls `by_path_fd`, which uses `BPF_F_PATH_FD`, or `by_proc` on a kernel that lacks the flag.
#[inline]
fn path_fd_or_proc<T>(
    by_path_fd: impl FnOnce() -> sys::Result<T>,
    by_proc: impl FnOnce() -> Result<T>,
) -> Result<T> {
    if !LACKS_PATH_FD.load(Ordering::Relaxed) {
        match by_path_fd() {
            Err(Errno::INVAL) if lacks_path_fd() => {}
            result => return Ok(result?),
        }
    }
    by_proc()
}

/// True if the flag was the reason for EINVAL. A kernel that has the flag fails the probe with EBADF.
#[cold]
fn lacks_path_fd() -> bool {
    let lacks = sys::probe_path_fd() == Errno::INVAL;
    // The answer of a seccomp filter holds for this thread only.
    if lacks && !is_filtered() {
        LACKS_PATH_FD.store(true, Ordering::Relaxed);
    }
    lacks
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags, open};
    use std::os::fd::AsFd;

    #[test]
    fn the_path_through_proc_is_proven() {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = open("/", flags, Mode::empty()).unwrap();
        let longest = std::ffi::CString::new([b'n'; 255]).unwrap();
        for name in [c"x", &longest] {
            let base = Base {
                fd: dir.as_fd(),
                pathname: &Pathname::known(Path::new("/")),
                follows_links: true,
            };
            let at = AtPath {
                base: Some(base),
                name,
            };
            let path = at.proc_path(base).unwrap();
            let expected = format!(
                "/proc/thread-self/fd/{}/{}",
                dir.as_raw_fd(),
                name.to_str().unwrap()
            );
            assert_eq!(path.as_path(), Path::new(&expected));
        }
    }
}
