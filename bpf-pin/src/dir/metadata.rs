//! Modes, owners and times of what is in a directory.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Uid, chmodat, chownat, fchmod, fstat};
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Operation, Reason, Result};
use crate::object::identify;
use crate::path::Component;
use crate::path::Pathname;
use crate::path::{AtPath, Base};
use crate::process::owns_all;
use crate::procfs;
use crate::procfs::ids;
use crate::types::Identity;

use super::{EntryType, PinDir};

/// `struct stat` of a name in a directory: that of the name itself, never of where a link leads.
#[derive(Clone, Copy)]
pub struct Metadata(Stat);

impl Metadata {
    /// A pin, a directory, a symbolic link. Which kind of object a pin is the file system does not
    /// tell: that takes opening it.
    pub fn entry_type(&self) -> EntryType {
        EntryType::of(self.0.st_mode)
    }

    /// The permission bits, set-user-id, set-group-id and sticky included.
    pub fn mode(&self) -> u32 {
        permissions(&self.0).bits()
    }

    /// The owner.
    pub fn uid(&self) -> u32 {
        self.0.st_uid
    }

    /// The group.
    pub fn gid(&self) -> u32 {
        self.0.st_gid
    }

    /// The inode's number: two names with one number are one file, and a name that was replaced has
    /// another.
    pub fn inode(&self) -> u64 {
        self.0.st_ino
    }

    /// The number of names that the file has.
    pub fn links(&self) -> u64 {
        #[allow(
            clippy::useless_conversion,
            reason = "st_nlink's type differs by target"
        )]
        self.0.st_nlink.into()
    }

    /// When it was last read.
    pub fn accessed(&self) -> SystemTime {
        time(self.0.st_atime, self.0.st_atime_nsec)
    }

    /// When it was last written: for a pin when it was made, for a directory when a name was made
    /// or taken away in it.
    pub fn modified(&self) -> SystemTime {
        time(self.0.st_mtime, self.0.st_mtime_nsec)
    }

    /// When its mode, owner or name last changed.
    pub fn changed(&self) -> SystemTime {
        time(self.0.st_ctime, self.0.st_ctime_nsec)
    }
}

#[allow(
    clippy::unnecessary_cast,
    reason = "the fields' types differ by target"
)]
fn time<S: TryInto<i64>, N: TryInto<u64>>(seconds: S, nanoseconds: N) -> SystemTime {
    let seconds: i64 = seconds.try_into().unwrap_or_default();
    let nanoseconds: u64 = nanoseconds.try_into().unwrap_or_default();
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    base.and_then(|base| base.checked_add(Duration::from_nanos(nanoseconds)))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

impl std::fmt::Debug for Metadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metadata")
            .field("entry_type", &self.entry_type())
            .field("mode", &format_args!("{:#o}", self.mode()))
            .field("uid", &self.uid())
            .field("gid", &self.gid())
            .field("inode", &self.inode())
            .finish_non_exhaustive()
    }
}

pub(super) fn permissions(stat: &Stat) -> Mode {
    const ALL: Mode = Mode::RWXU
        .union(Mode::RWXG)
        .union(Mode::RWXO)
        .union(Mode::SUID)
        .union(Mode::SGID)
        .union(Mode::SVTX);
    Mode::from_raw_mode(stat.st_mode) & ALL
}

/// A mode as chmod(2) takes it.
pub(super) fn checked_mode(mode: u32) -> Result<Mode, Cause> {
    match mode {
        0..=0o7777 => Ok(Mode::from_raw_mode(mode)),
        _ => {
            let problem = format!("is {mode:#o}, and the limit is 0o7777");
            Err(Cause::invalid("mode", problem))
        }
    }
}

impl PinDir {
    /// `fstatat(2)`: mode, owner and times of a name. Opens nothing.
    ///
    /// # Errors
    ///
    /// [`Operation::Stat`] with [`Missing`](Cause::Missing) or
    /// [`Removed`](Cause::Removed) (ENOENT), [`Blocked`](Cause::Blocked) (EACCES);
    /// what is wrong with a name, as [`open_dir`](Self::open_dir).
    pub fn metadata(&self, name: impl AsRef<OsStr>) -> Result<Metadata> {
        let name = self.name(Operation::Stat, name.as_ref())?;
        self.metadata_named(name.as_c_str())
    }

    pub(super) fn metadata_named(&self, name: &CStr) -> Result<Metadata> {
        let at = self.at_path(name);
        at.lstat().map(Metadata).map_err(|errno| {
            let reason = Reason::new(errno, diagnose::find(&at, errno));
            self.fail_at(Operation::Stat, OsStr::from_bytes(name.to_bytes()), reason)
        })
    }

    /// `fstat(2)`: mode, owner and times of the directory itself.
    ///
    /// # Errors
    ///
    /// [`Operation::Stat`], with the errno of `fstat(2)`.
    pub fn own_metadata(&self) -> Result<Metadata> {
        fstat(&self.fd)
            .map(Metadata)
            .map_err(|errno| self.fail(Operation::Stat, Reason::errno_only(errno)))
    }

    /// `openat2(2)`, `chmod(2)`: the mode of a pin or directory in this one.
    ///
    /// A pin's own file cannot be opened, so this takes /proc. A symbolic link is not followed and a
    /// mount is not crossed. Linux 5.6.
    ///
    /// # Errors
    ///
    /// [`Operation::Chmod`] with [`SymbolicLink`](Cause::SymbolicLink);
    /// [`Missing`](Cause::Missing) or [`Removed`](Cause::Removed) (ENOENT);
    /// [`InvalidArgument`](Cause::InvalidArgument) above 0o7777; [`NotOwner`](Cause::NotOwner) (EPERM);
    /// [`MountPoint`](Cause::MountPoint) (EXDEV); [`NoProc`](Cause::NoProc);
    /// what is wrong with a name, as [`open_dir`](Self::open_dir).
    pub fn set_mode(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<()> {
        let name = self.name(Operation::Chmod, name.as_ref())?;
        checked_mode(mode)
            .map_err(Reason::from)
            .and_then(|mode| self.chmod_named(&name, mode))
            .map_err(|reason| self.fail_at(Operation::Chmod, name.as_os_str(), reason))
    }

    fn chmod_named(&self, name: &Component, mode: Mode) -> Result<(), Reason> {
        let at = self.at_path(name);
        let explain = |errno| Reason::new(errno, diagnose::find(&at, errno));
        // What is looked at and what is changed are one inode.
        let file = self.hold_any(name).map_err(explain)?;
        let stat = fstat(&file).map_err(explain)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Err(Cause::SymbolicLink { path: at.path() }.into());
        }
        chmod_held(file.as_fd(), mode, || self.path().join(name))
    }

    /// `chmod(2)`: the mode of the directory itself.
    ///
    /// # Errors
    ///
    /// As [`set_mode`](Self::set_mode); [`NoProc`](Cause::NoProc) only where the directory may not be read.
    pub fn chmod(&self, mode: u32) -> Result<()> {
        checked_mode(mode)
            .map_err(Reason::from)
            .and_then(|mode| self.chmod_self(mode))
            .map_err(|reason| self.fail(Operation::Chmod, reason))
    }

    pub(super) fn chmod_self(&self, mode: Mode) -> Result<(), Reason> {
        let Ok(file) = self.readable() else {
            return chmod_held(self.fd.as_fd(), mode, || self.path().to_owned());
        };
        fchmod(&file, mode).map_err(|errno| not_owner(&file, self.path().to_owned(), errno))
    }

    /// `openat2(2)`, `fchownat(2)`: the owner and group of a pin or directory in this one; None keeps what is.
    ///
    /// Of a symbolic link it changes the link; a mount is not crossed. Linux 5.6.
    ///
    /// # Errors
    ///
    /// [`Operation::Chown`] with [`Missing`](Cause::Missing) or
    /// [`Removed`](Cause::Removed) (ENOENT); EPERM without `CAP_CHOWN`;
    /// [`MountPoint`](Cause::MountPoint) (EXDEV);
    /// [`InvalidArgument`](Cause::InvalidArgument) of 2³² - 1, which means none;
    /// what is wrong with a name, as [`open_dir`](Self::open_dir).
    pub fn set_owner(
        &self,
        name: impl AsRef<OsStr>,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<()> {
        let name = self.name(Operation::Chown, name.as_ref())?;
        self.chown_named(&name, uid, gid)
            .map_err(|reason| self.fail_at(Operation::Chown, name.as_os_str(), reason))
    }

    pub(super) fn chown_named(
        &self,
        name: &Component,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<(), Reason> {
        let at = self.at_path(name);
        let file = self
            .hold_any(name)
            .map_err(|errno| Reason::new(errno, diagnose::find(&at, errno)))?;
        chown_held(file.as_fd(), uid, gid)
    }

    /// `fchownat(2)`: the owner and group of the directory itself; None keeps what is.
    ///
    /// # Errors
    ///
    /// As [`set_owner`](Self::set_owner).
    pub fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        self.chown_self(uid, gid)
            .map_err(|reason| self.fail(Operation::Chown, reason))
    }

    pub(super) fn chown_self(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Reason> {
        chown_held(self.fd.as_fd(), uid, gid)
    }

    /// Gives `name`, a pin of `object`, the mode and owner that another file had.
    pub(super) fn copy_mode(
        &self,
        of: &Stat,
        name: &impl AsRef<CStr>,
        object: BorrowedFd<'_>,
    ) -> Result<(), Reason> {
        let because = Reason::errno_only;
        let stat = self.at_path(name).lstat().map_err(because)?;
        let differs = |old: u32, new: u32| (old != new).then_some(old);
        let (uid, gid) = (
            differs(of.st_uid, stat.st_uid),
            differs(of.st_gid, stat.st_gid),
        );
        let is_other_mode = permissions(of) != permissions(&stat);
        if uid.or(gid).is_none() && !is_other_mode {
            return Ok(());
        }
        if uid.or(gid).is_some() {
            ids::check_mapped(uid, gid).map_err(Cause::from)?;
        }
        let file = self.hold_any(name).map_err(because)?;
        // Somebody may have put another's pin under the name: that is not given away.
        let (expected, found) = (identify(object)?, held_identity(file.as_fd())?);
        if expected != found {
            return Err(Cause::Replaced { expected, found }.into());
        }
        if uid.or(gid).is_some() {
            chown_held(file.as_fd(), uid, gid)?;
        }
        // After the owner, for a change of owner takes bits away.
        if is_other_mode {
            chmod_held(file.as_fd(), permissions(of), || self.at_path(name).path())?;
        }
        Ok(())
    }
}

/// Which object's pin an `O_PATH` descriptor is.
fn held_identity(file: BorrowedFd<'_>) -> Result<Identity, Reason> {
    let descriptors = procfs::thread_dir("fd")?;
    let path = Pathname::known(Path::new("/proc/self/fd"));
    let number = file.as_raw_fd().to_string();
    let base = Some(Base {
        fd: descriptors.as_fd(),
        pathname: &path,
        follows_links: true,
    });
    let name = CString::new(number).map_err(|_| Cause::no_proc())?;
    let name = name.as_c_str();
    let object = AtPath { base, name }
        .get_any_access()
        .map_err(|error| Reason::new(error, None))?;
    identify(object.as_fd())
}

fn chown_held(file: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<(), Reason> {
    if let Some(id) = [uid, gid].into_iter().flatten().find(|&id| id == u32::MAX) {
        let problem = format!("is {id}, which means \"no change\"");
        return Err(Cause::invalid("the user or group id", problem).into());
    }
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    chownat(file, c"", uid, gid, AtFlags::EMPTY_PATH).map_err(Reason::errno_only)
}

/// Through /proc, where an `O_PATH` descriptor has a path that leads to exactly its inode.
fn chmod_held(
    file: BorrowedFd<'_>,
    mode: Mode,
    path: impl FnOnce() -> PathBuf,
) -> Result<(), Reason> {
    let descriptors = procfs::thread_dir("fd")?;
    let number = file.as_raw_fd().to_string();
    chmodat(descriptors, number, mode, AtFlags::empty())
        .map_err(|errno| not_owner(file, path(), errno))
}

#[cold]
fn not_owner(file: impl AsFd, path: PathBuf, errno: Errno) -> Reason {
    let uid = match errno {
        Errno::PERM => fstat(file).map(|stat| stat.st_uid).ok(),
        _ => None,
    };
    let is_another = |&uid: &u32| uid != rustix::process::geteuid().as_raw() && !owns_all();
    Reason::new(
        errno,
        uid.filter(is_another)
            .map(|uid| Cause::NotOwner { path, uid }),
    )
}
