//! Where a pin is: a path, or a name in a directory that is held open.

use std::ffi::CStr;
use std::io::Write;
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

use crate::pathname::{InteriorNul, Pathname};
use crate::process::is_filtered;
use crate::sys::{self, Result, with_c_str};

/// A name, and where the walk along it begins.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// None for where the kernel would begin: the working directory, or the root.
    pub(crate) base: Option<Base<'a>>,
    pub(crate) name: &'a CStr,
}

/// A directory that is held open.
#[derive(Clone, Copy)]
pub(crate) struct Base<'a> {
    pub(crate) fd: BorrowedFd<'a>,
    /// As it was opened, for what a person reads.
    pub(crate) pathname: &'a Pathname,
    /// Whether its mount lets a symbolic link be followed.
    pub(crate) follows_links: bool,
}

impl<'a> Base<'a> {
    pub(crate) fn path(&self) -> &'a Path {
        self.pathname.as_path()
    }
}

impl<'a> Place<'a> {
    /// As a person reads it.
    pub(crate) fn path(&self) -> PathBuf {
        let name = self.name.to_bytes();
        let name = Path::new(std::ffi::OsStr::from_bytes(name));
        match self.base {
            Some(base) => base.path().join(name),
            None => name.to_owned(),
        }
    }

    pub(crate) fn begin(&self) -> BorrowedFd<'a> {
        self.base.map_or(CWD, |base| base.fd)
    }

    /// `BPF_OBJ_PIN`.
    #[inline]
    pub(crate) fn pin(&self, object: BorrowedFd<'_>) -> Result<()> {
        let Some(base) = self.base else {
            return sys::obj_pin(object, self.name);
        };
        on_either_way(
            || sys::obj_pin_at(base.fd, self.name, object),
            || through_proc(base.fd, self.name, |path| sys::obj_pin(object, path)),
        )
    }

    /// `BPF_OBJ_GET`. Follows a symbolic link.
    #[inline]
    pub(crate) fn get(&self, file_flags: u32) -> Result<OwnedFd> {
        let Some(base) = self.base else {
            return sys::obj_get(self.name, file_flags);
        };
        on_either_way(
            || sys::obj_get_at(base.fd, self.name, file_flags),
            || through_proc(base.fd, self.name, |path| sys::obj_get(path, file_flags)),
        )
    }

    /// As [`get`](Self::get), with whatever access is granted.
    pub(crate) fn get_somehow(&self) -> Result<OwnedFd> {
        self.get(0).or_else(|errno| match errno {
            Errno::ACCESS | Errno::ROFS => self
                .get(abi::BPF_F_RDONLY)
                .or_else(|_| self.get(abi::BPF_F_WRONLY))
                .map_err(|_| errno),
            _ => Err(errno),
        })
    }

    /// `fstatat(2)` of the name itself.
    pub(crate) fn lstat(&self) -> Result<Stat> {
        statat(self.begin(), self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Whether `BPF_OBJ_GET` would follow the name to elsewhere, or may have done so: it knows no flag
    /// against that, but a mount may have one.
    #[inline]
    pub(crate) fn is_followed(&self) -> Result<bool> {
        match self.base {
            Some(base) if !base.follows_links => Ok(false),
            _ => self.is_symbolic_link(),
        }
    }

    /// `readlinkat(2)`, which is the cheapest call that tells: EINVAL of what is no link.
    #[inline]
    pub(crate) fn is_symbolic_link(&self) -> Result<bool> {
        let mut byte = [0];
        match readlinkat_raw(self.begin(), self.name, &mut byte) {
            Ok(_) => Ok(true),
            Err(Errno::INVAL) => Ok(false),
            Err(Errno::NOENT) => Err(Errno::NOENT),
            Err(_) => self.is_symbolic_link_by_stat(),
        }
    }

    /// A filter may know the one call and not the other.
    #[cold]
    fn is_symbolic_link_by_stat(&self) -> Result<bool> {
        let stat = self.lstat()?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
    }

    /// Whether something is mounted on it; None where the kernel does not tell.
    pub(crate) fn is_mount_point(&self) -> Option<bool> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let found = statx(self.begin(), self.name, flags, StatxFlags::TYPE).ok()?;
        let root = StatxAttributes::MOUNT_ROOT;
        let is_told = found.stx_attributes_mask.contains(root);
        is_told.then(|| found.stx_attributes.contains(root))
    }

    /// `unlink(2)`.
    pub(crate) fn unlink(&self) -> Result<()> {
        unlinkat(self.begin(), self.name, AtFlags::empty())
    }
}

/// Calls `call` with the place that the path is of, for what keeps no path.
#[inline]
pub(crate) fn with_place<T>(
    path: &Path,
    call: impl FnOnce(&Place<'_>) -> T,
) -> std::result::Result<T, InteriorNul> {
    with_c_str(path.as_os_str().as_bytes(), |name| {
        call(&Place { base: None, name })
    })
    .map_err(|position| InteriorNul { position })
}

impl Pathname {
    pub(crate) fn place(&self) -> Place<'_> {
        Place {
            base: None,
            name: self.as_c_str(),
        }
    }
}

/// The kernel has denied to know `BPF_F_PATH_FD`.
static LACKS_PATH_FD: AtomicBool = AtomicBool::new(false);

/// By `BPF_F_PATH_FD`, or by /proc on a kernel that was found to lack it.
#[inline]
fn on_either_way<T>(
    by_fd: impl FnOnce() -> Result<T>,
    by_proc: impl FnOnce() -> Result<T>,
) -> Result<T> {
    if !LACKS_PATH_FD.load(Ordering::Relaxed) {
        let result = by_fd();
        if !matches!(result, Err(Errno::INVAL)) || !lacks_path_fd() {
            return result;
        }
    }
    by_proc()
}

/// Whether that was EINVAL for the flag: else it is for another fault, which the kernel sees first.
#[cold]
fn lacks_path_fd() -> bool {
    let lacks = sys::probe_path_fd() == Errno::INVAL;
    // What a filter says to this thread is not so for others.
    if lacks && !is_filtered() {
        LACKS_PATH_FD.store(true, Ordering::Relaxed);
    }
    lacks
}

/// Not to be had in the frame of what is asked for by descriptor.
#[cold]
fn through_proc<T>(
    dir: BorrowedFd<'_>,
    name: &CStr,
    call: impl FnOnce(&CStr) -> Result<T>,
) -> Result<T> {
    call(ProcPath::new(dir, name)?.as_c_str())
}

/// What no call on a name gives here: neither way to a held directory's names is to be had.
pub(crate) const NO_WAY: Errno = Errno::NOTNAM;

/// "/proc/thread-self/fd/N/name": the descriptors are this thread's, which need not be the process's.
struct ProcPath {
    bytes: [u8; PROC_PATH_MAX],
    name_at: usize,
}

const PROC_PATH_MAX: usize = "/proc/thread-self/fd/".len() + 10 + 1 + 255 + 1;

impl ProcPath {
    /// Proves that the way leads to the directory: whatever is mounted on /proc may be forged.
    fn new(dir: BorrowedFd<'_>, name: &CStr) -> Result<Self> {
        let mut bytes = [0; PROC_PATH_MAX];
        let mut rest = &mut bytes[..PROC_PATH_MAX - 1];
        write!(rest, "/proc/thread-self/fd/{}", dir.as_raw_fd()).map_err(|_| Errno::BADF)?;
        let name_at = PROC_PATH_MAX - 1 - rest.len();
        let this = Self { bytes, name_at };
        let there = stat(this.as_c_str()).map_err(|errno| match errno {
            // It says nothing of /proc.
            Errno::NOMEM => errno,
            _ => NO_WAY,
        })?;
        let here = fstat(dir)?;
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino) {
            return Err(NO_WAY);
        }
        this.with(name)
    }

    fn with(mut self, name: &CStr) -> Result<Self> {
        let mut rest = &mut self.bytes[self.name_at..PROC_PATH_MAX - 1];
        let written = rest
            .write_all(b"/")
            .and_then(|()| rest.write_all(name.to_bytes()));
        written.map_err(|_| Errno::NAMETOOLONG)?;
        Ok(self)
    }

    fn as_c_str(&self) -> &CStr {
        // The last byte is never written, so there is always a NUL.
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags, open};
    use std::os::fd::AsFd;

    #[test]
    fn the_way_through_proc_is_proven() {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = open("/", flags, Mode::empty()).unwrap();
        let path = ProcPath::new(dir.as_fd(), c"x").unwrap();
        let expected = format!("/proc/thread-self/fd/{}/x", dir.as_raw_fd());
        assert_eq!(path.as_c_str().to_str().unwrap(), expected);
        let longest = std::ffi::CString::new([b'n'; 255]).unwrap();
        assert!(ProcPath::new(dir.as_fd(), &longest).is_ok());
    }
}
