//! Modes, owners and times of a directory and the names in it.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Uid, chmodat, chownat, fchmod, fstat};
use rustix::io::Errno;
use rustix::path::DecInt;

use crate::error::{Cause, Operation, Reason, Result};
use crate::object::identify;
use crate::path::{AtPath, Base, Pathname};
use crate::process::overrides_owners;
use crate::procfs::{self, ids};
use crate::types::Identity;

use super::{EntryType, PinDir, find_reason};

/// `struct stat` of a name in a directory. A symbolic link is not followed.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::PinDir;
///
/// let flows = PinDir::open("/sys/fs/bpf/app")?.metadata("flows")?;
/// println!("{:?} of uid {}, mode {:o}", flows.entry_type(), flows.uid(), flows.mode());
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Metadata(Stat);

impl Metadata {
    /// Returns whether it is a pin, a directory or a symbolic link. The kind of a pinned object is only
    /// known when it is opened.
    pub fn entry_type(&self) -> EntryType {
        EntryType::from_mode(self.0.st_mode)
    }

    /// The permission bits, with set-user-id, set-group-id and sticky.
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

    /// The inode number. Two names with one number are one file. A name that was replaced has another
    /// number.
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

    /// The time of the last read.
    pub fn accessed(&self) -> SystemTime {
        time(self.0.st_atime, self.0.st_atime_nsec)
    }

    /// The time of the last write: of a pin, when it was made; of a directory, when a name was made or
    /// removed in it.
    pub fn modified(&self) -> SystemTime {
        time(self.0.st_mtime, self.0.st_mtime_nsec)
    }

    /// The time of the last change of its mode, owner or name.
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
    let nanoseconds = Duration::from_nanos(nanoseconds.try_into().unwrap_or_default());
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    match seconds {
        0.. => epoch.checked_add(whole),
        _ => epoch.checked_sub(whole),
    }
    .and_then(|time| time.checked_add(nanoseconds))
    .unwrap_or(epoch)
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
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

/// A mode for chmod(2).
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
    /// `fstatat(2)`: returns mode, owner and times of a name. Opens nothing.
    ///
    /// # Errors
    ///
    /// [`Operation::Stat`] with [`Missing`](Cause::Missing) (ENOENT) if nothing has the name, and those of
    /// [names](Self#names) and [access](Self#access).
    pub fn metadata(&self, name: impl AsRef<OsStr>) -> Result<Metadata> {
        self.on_name(Operation::Stat, name.as_ref(), Metadata::at)
    }

    /// `fstat(2)`: returns mode, owner and times of the directory itself.
    ///
    /// # Errors
    ///
    /// [`Operation::Stat`], with the errno of `fstat(2)`.
    pub fn own_metadata(&self) -> Result<Metadata> {
        fstat(&self.fd)
            .map(Metadata)
            .map_err(|errno| self.fail(Operation::Stat, Reason::errno_only(errno)))
    }

    /// `openat2(2)`, `chmod(2)`: sets the mode of a pin or directory in this one. Linux 5.6.
    ///
    /// Requires /proc, because a pin's file cannot be opened. Follows no symbolic link and crosses no mount.
    ///
    /// # Errors
    ///
    /// [`Operation::Chmod`], with these causes and those of [names](Self#names) and [access](Self#access):
    ///
    /// | condition | cause | errno |
    /// |---|---|---|
    /// | nothing has the name | [`Missing`](Cause::Missing) | ENOENT |
    /// | it is a symbolic link | [`SymbolicLink`](Cause::SymbolicLink) | |
    /// | the mode is above 0o7777 | [`InvalidArgument`](Cause::InvalidArgument) | |
    /// | it is another user's | [`NotOwner`](Cause::NotOwner) | EPERM |
    /// | something is mounted on it | [`MountPoint`](Cause::MountPoint) | EXDEV |
    /// | /proc is missing or not genuine | [`NoProc`](Cause::NoProc) | |
    pub fn set_mode(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<()> {
        self.on_name(Operation::Chmod, name.as_ref(), |at| {
            let mode = checked_mode(mode)?;
            let explain = |errno| find_reason(at, errno);
            let file = self.open_any_type(at.name).map_err(explain)?;
            let stat = fstat(&file).map_err(explain)?;
            reject_symlink(at, &stat)?;
            chmod_file(file.as_fd(), mode, || at.path())
        })
    }

    /// `chmod(2)`: sets the mode of the directory itself.
    ///
    /// # Errors
    ///
    /// As [`set_mode`](Self::set_mode). [`NoProc`](Cause::NoProc) only if this user may not read the
    /// directory.
    pub fn chmod(&self, mode: u32) -> Result<()> {
        checked_mode(mode)
            .map_err(Reason::from)
            .and_then(|mode| self.chmod_self(mode))
            .map_err(|reason| self.fail(Operation::Chmod, reason))
    }

    pub(super) fn chmod_self(&self, mode: Mode) -> Result<(), Reason> {
        let path = || self.path().to_owned();
        match self.open_to_read() {
            Ok(file) => fchmod(&file, mode).map_err(|errno| chmod_reason(&file, path(), errno)),
            Err(_) => chmod_file(self.fd.as_fd(), mode, path),
        }
    }

    /// `openat2(2)`, `fchownat(2)`: sets owner and group of a pin or directory in this one. `None` leaves
    /// one unchanged. Linux 5.6.
    ///
    /// Changes a symbolic link itself. Crosses no mount.
    ///
    /// # Errors
    ///
    /// [`Operation::Chown`], with these causes and those of [names](Self#names) and [access](Self#access):
    ///
    /// | condition | cause | errno |
    /// |---|---|---|
    /// | nothing has the name | [`Missing`](Cause::Missing) | ENOENT |
    /// | this thread lacks `CAP_CHOWN` | | EPERM |
    /// | something is mounted on it | [`MountPoint`](Cause::MountPoint) | EXDEV |
    /// | an id is 2³² - 1, which the kernel takes for none | [`InvalidArgument`](Cause::InvalidArgument) | |
    pub fn set_owner(
        &self,
        name: impl AsRef<OsStr>,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<()> {
        self.on_name(Operation::Chown, name.as_ref(), |at| {
            let file = self.open_any_type(at.name);
            let file = file.map_err(|errno| find_reason(at, errno))?;
            chown_file(file.as_fd(), uid, gid)
        })
    }

    /// `fchownat(2)`: sets owner and group of the directory itself. `None` leaves one unchanged.
    ///
    /// # Errors
    ///
    /// As [`set_owner`](Self::set_owner).
    pub fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        chown_file(self.as_fd(), uid, gid).map_err(|reason| self.fail(Operation::Chown, reason))
    }

    /// Gives `name`, which is a pin of `object`, the mode and owner of the file `like`.
    pub(super) fn copy_mode(
        &self,
        like: &AtPath<'_>,
        name: &impl AsRef<CStr>,
        object: BorrowedFd<'_>,
    ) -> Result<(), Reason> {
        let old = like.lstat().map_err(|errno| find_reason(like, errno))?;
        reject_symlink(like, &old)?;
        let at = self.at_path(name);
        let new = at.lstat().map_err(Reason::errno_only)?;
        let uid = (old.st_uid != new.st_uid).then_some(old.st_uid);
        let gid = (old.st_gid != new.st_gid).then_some(old.st_gid);
        let (sets_owner, sets_mode) = (
            uid.or(gid).is_some(),
            permissions(&old) != permissions(&new),
        );
        if !sets_owner && !sets_mode {
            return Ok(());
        }
        if sets_owner {
            ids::check_mapped(uid, gid).map_err(Cause::from)?;
        }
        let file = self.open_any_type(at.name).map_err(Reason::errno_only)?;
        // Another process's pin may have the name: that is not given away.
        let (expected, found) = (identify(object)?, identify_pin(file.as_fd())?);
        if expected != found {
            return Err(Cause::Replaced { expected, found }.into());
        }
        if sets_owner {
            chown_file(file.as_fd(), uid, gid)?;
        }
        // After the owner, because a change of owner clears bits.
        if sets_mode {
            chmod_file(file.as_fd(), permissions(&old), || at.path())?;
        }
        Ok(())
    }
}

impl Metadata {
    pub(super) fn at(at: &AtPath<'_>) -> Result<Self, Reason> {
        at.lstat().map(Self).map_err(|errno| find_reason(at, errno))
    }
}

fn reject_symlink(at: &AtPath<'_>, stat: &Stat) -> Result<(), Cause> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => Err(Cause::SymbolicLink { path: at.path() }),
        _ => Ok(()),
    }
}

/// Which object's pin an `O_PATH` descriptor is.
fn identify_pin(file: BorrowedFd<'_>) -> Result<Identity, Reason> {
    let descriptors = procfs::fd_dir()?;
    let base = Base {
        fd: descriptors.as_fd(),
        pathname: &Pathname::known(Path::new("/proc/self/fd")),
        follows_links: true,
    };
    let number = DecInt::from_fd(file);
    let at = AtPath {
        base: Some(base),
        name: number.as_c_str(),
    };
    let object = at.get_any_access();
    identify(object.map_err(|error| Reason::new(error, None))?.as_fd())
}

pub(super) fn chown_file(
    file: BorrowedFd<'_>,
    uid: Option<u32>,
    gid: Option<u32>,
) -> Result<(), Reason> {
    if let Some(id) = [uid, gid].into_iter().flatten().find(|&id| id == u32::MAX) {
        let problem = format!("is {id}, which means \"no change\"");
        return Err(Cause::invalid("the user or group id", problem).into());
    }
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    chownat(file, c"", uid, gid, AtFlags::EMPTY_PATH).map_err(Reason::errno_only)
}

/// Changes the mode of an `O_PATH` descriptor's file, through its link in /proc.
fn chmod_file(
    file: BorrowedFd<'_>,
    mode: Mode,
    path: impl FnOnce() -> PathBuf,
) -> Result<(), Reason> {
    let number = DecInt::from_fd(file);
    chmodat(procfs::fd_dir()?, number.as_c_str(), mode, AtFlags::empty())
        .map_err(|errno| chmod_reason(file, path(), errno))
}

#[cold]
fn chmod_reason(file: impl AsFd, path: PathBuf, errno: Errno) -> Reason {
    let owner = || fstat(file).ok().map(|stat| stat.st_uid);
    let cause = (errno == Errno::PERM && !overrides_owners())
        .then(owner)
        .flatten()
        .filter(|&uid| uid != rustix::process::geteuid().as_raw())
        .map(|uid| Cause::NotOwner { path, uid });
    Reason::new(errno, cause)
}
