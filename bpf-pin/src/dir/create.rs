//! Creates directories: each has its mode and owner before it has its name.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{self, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, Stat, StatFs, fstat, fstatfs, mkdirat, openat,
    unlinkat,
};
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Error, Operation, Reason, Result};
use crate::path::Component;
use crate::path::Pathname;
use crate::procfs::ids::{is_own_uid, own_gid};
use crate::types::FileSystem;

use super::PinDir;
use super::metadata::{checked_mode, permissions};
use super::open::HELD;
use super::temp_names::TempKind;

/// How often a name that another takes meanwhile is tried again.
const TRIES: usize = 100;

/// What a new directory is to be.
#[derive(Clone, Copy)]
struct New {
    mode: Mode,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl PinDir {
    /// `mkdir(2)`: creates the directory at `path`, which must lead to a bpffs, and its parents there.
    ///
    /// A directory that exists is opened as it is. A new one has exactly this mode, whatever the umask and
    /// the parent's set-group-id bit, before it has its name. Where the bpffs begins, symbolic links are no
    /// longer followed. Nothing is created on another file system.
    ///
    /// If a directory cannot be created, its new parents stay, as with `mkdir -p`. If the process is killed,
    /// a hidden directory may remain in the parent: see [`remove_leftovers`](Self::remove_leftovers).
    ///
    /// # Errors
    ///
    /// [`NotBpffs`](Cause::NotBpffs), without an errno or with ENOENT;
    /// [`Missing`](Cause::Missing) (ENOENT) on the way to the bpffs;
    /// [`SymbolicLink`](Cause::SymbolicLink) or [`NotADirectory`](Cause::NotADirectory) (ENOTDIR; a link on the
    /// way to the bpffs whose mount does not follow links ELOOP);
    /// [`Dot`](Cause::Dot), without a system call on that name; [`Blocked`](Cause::Blocked) (EACCES);
    /// [`ReadOnlyFileSystem`](Cause::ReadOnlyFileSystem) (EROFS);
    /// [`InvalidArgument`](Cause::InvalidArgument) above 0o7777; [`InvalidPath`](Cause::InvalidPath).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::PinDir;
    ///
    /// let dir = PinDir::create("/sys/fs/bpf/app/v1", 0o750)?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn create(path: impl AsRef<Path>, mode: u32) -> Result<Self> {
        Self::create_path(path.as_ref(), mode, None, None)
    }

    /// As [`create`](Self::create), and `chown(2)`: what is made belongs to this user and group,
    /// where None means this process's.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); EPERM without `CAP_CHOWN`; [`InvalidArgument`](Cause::InvalidArgument).
    pub fn create_owned(
        path: impl AsRef<Path>,
        mode: u32,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<Self> {
        Self::create_path(path.as_ref(), mode, uid, gid)
    }

    /// As [`create`](Self::create), of a directory in this one.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); [`Removed`](Cause::Removed) (ENOENT);
    /// what is wrong with a name, as [`open_dir`](Self::open_dir).
    pub fn create_dir(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<Self> {
        let name = self.name(Operation::CreateDir, name.as_ref())?;
        let made = checked_mode(mode).map_err(Reason::from).and_then(|mode| {
            let (uid, gid) = (None, None);
            let opens = |name: &Component| self.find_dir_named(name);
            self.create_named(&name, New { mode, uid, gid }, opens)
        });
        made.map_err(|reason| self.fail_at(Operation::CreateDir, name.as_os_str(), reason))
    }

    fn create_path(path: &Path, mode: u32, uid: Option<u32>, gid: Option<u32>) -> Result<Self> {
        checked_mode(mode)
            .map_err(Reason::from)
            .and_then(|mode| walk(path, New { mode, uid, gid }))
            .map_err(|reason| Error::new(Operation::CreateDir, reason).at(path))
    }

    fn create_named(
        &self,
        name: &Component,
        new: New,
        existing: impl Fn(&Component) -> Result<Option<Self>, Reason>,
    ) -> Result<Self, Reason> {
        for _ in 0..TRIES {
            if let Some(dir) = existing(name)? {
                return Ok(dir);
            }
            let hidden = self.create_hidden(TempKind::Directory)?;
            let named = hidden.dir.finish(&hidden.stat, new).and_then(|()| {
                self.rename_named(&hidden.name, name, RenameFlags::NOREPLACE)
                    .map_err(Reason::errno_only)
            });
            let Err(reason) = named else {
                return Ok(self.child(hidden.dir.fd, name));
            };
            let _ = unlinkat(&self.fd, hidden.name.as_c_str(), AtFlags::REMOVEDIR);
            // EEXIST: another process was faster.
            if !reason.is(Errno::EXIST) {
                return Err(reason.explained(|errno| diagnose::make(&self.at_path(name), errno)));
            }
        }
        Err(Reason::errno_only(Errno::EXIST))
    }

    pub(super) fn is_removed(&self) -> bool {
        fstat(&self.fd).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// The directory that has the name, if one has. A mount on it is crossed: it is part of the path.
    fn existing(&self, name: &Component) -> Result<Option<Self>, Reason> {
        match openat(
            &self.fd,
            name.as_c_str(),
            HELD | OFlags::NOFOLLOW,
            Mode::empty(),
        ) {
            Ok(fd) => {
                let stat = statfs_of(&fd)?;
                match FileSystem::from_stat(&stat) {
                    FileSystem::BPF => Ok(Some(Self {
                        // It may be another mount's.
                        follows_links: FileSystem::follows_links(&stat),
                        ..self.child(fd, name)
                    })),
                    found => Err(diagnose::not_bpffs(self.path.join(name).as_path(), found).into()),
                }
            }
            Err(Errno::NOENT) if !self.is_removed() => Ok(None),
            Err(errno) => Err(Reason::new(
                errno,
                diagnose::find(&self.at_path(name), errno),
            )),
        }
    }

    /// A new directory of mode 0700 under a hidden name.
    pub(super) fn create_hidden(&self, kind: TempKind) -> Result<Hidden, Reason> {
        let names = self.temp_names()?;
        let mut last = Reason::errno_only(Errno::EXIST);
        for _ in 0..TRIES {
            let name = names.acquire(kind);
            match mkdirat(&self.fd, name.as_c_str(), Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(errno) => {
                    let cause = diagnose::make(&self.at_path(&name), errno);
                    return Err(Reason::new(errno, cause));
                }
            }
            match self.open_hidden(&name) {
                Ok((dir, stat)) => return Ok(Hidden { dir, name, stat }),
                // Another user has put a directory of its own in its place.
                Err(reason) if matches!(reason.cause(), Some(Cause::NotOwner { .. })) => {
                    last = reason;
                }
                Err(reason) => {
                    let _ = unlinkat(&self.fd, name.as_c_str(), AtFlags::REMOVEDIR);
                    return Err(reason);
                }
            }
        }
        Err(last)
    }

    fn open_hidden(&self, name: &Component) -> Result<(Self, Stat), Reason> {
        let dir = self.open_dir_named(name)?;
        let stat = fstat(&dir.fd).map_err(Reason::errno_only)?;
        if !is_own_uid(stat.st_uid) {
            let (path, uid) = (dir.path().to_owned(), stat.st_uid);
            return Err(Cause::NotOwner { path, uid }.into());
        }
        // The umask may have taken too much.
        if permissions(&stat) != Mode::RWXU {
            dir.chmod_self(Mode::RWXU)?;
        }
        Ok((dir, stat))
    }

    /// Sets owner and mode. `stat` is of the new directory.
    fn finish(&self, stat: &Stat, new: New) -> Result<(), Reason> {
        // A parent may hand down its group, and then the mode may not keep its set-group-id bit.
        let group = own_gid(stat.st_gid);
        if stat.st_gid != group {
            self.chown_self(None, Some(group))?;
        }
        // The mode before the owner: afterwards it may be another user's.
        let set_mode = || match fstat(&self.fd).map_err(Reason::errno_only)? {
            stat if permissions(&stat) == new.mode => Ok(()),
            _ => self.chmod_self(new.mode),
        };
        set_mode()?;
        if new.uid.or(new.gid).is_some() {
            self.chown_self(new.uid, new.gid)?;
            set_mode()?;
        }
        Ok(())
    }
}

/// A directory under a hidden name.
pub(super) struct Hidden {
    pub(super) dir: PinDir,
    pub(super) name: Component,
    /// From when it was created.
    pub(super) stat: Stat,
}

fn statfs_of(fd: &OwnedFd) -> Result<StatFs, Reason> {
    fstatfs(fd).map_err(Reason::errno_only)
}

/// From the root, or from where the process is, to the last component.
fn walk(path: &Path, new: New) -> Result<PinDir, Reason> {
    // A NUL anywhere is refused before anything is made.
    Pathname::new(path)?;
    if path.as_os_str().is_empty() {
        return Err(Reason::new(Errno::NOENT, Some(Cause::empty_path())));
    }
    let open = |from: BorrowedFd<'_>, name: &OsStr| {
        openat(from, name, HELD, Mode::empty())
            .map_err(|errno| Reason::new(errno, diagnose::directory(path, errno)))
    };
    let start = if path.is_absolute() { "/" } else { "." };
    let mut walked = PathBuf::new();
    let mut at = At::new(open(CWD, OsStr::new(start))?, &walked)?;
    let mut rest = path.components();
    while let Some(component) = rest.next() {
        let name = component.as_os_str();
        walked.push(name);
        at = match (at, component) {
            (at, path::Component::RootDir | path::Component::CurDir) => at,
            (At::Elsewhere(fd), _) => At::new(open(fd.as_fd(), name)?, &walked)?,
            (At::Bpffs(parent), _) => {
                let filename = Component::new(name)?;
                // Before anything is created, each name is checked.
                let mut rest = rest.clone();
                rest.try_for_each(|name| Component::new(name.as_os_str()).map(drop))?;
                let existing = |name: &Component| parent.existing(name);
                let dir = parent.create_named(&filename, new, existing)?;
                At::Bpffs(Box::new(dir))
            }
        };
    }
    match at {
        At::Bpffs(dir) => Ok(PinDir {
            path: Pathname::new(path)?,
            ..*dir
        }),
        At::Elsewhere(fd) => {
            let found = FileSystem::from_stat(&statfs_of(&fd)?);
            Err(diagnose::not_bpffs(path, found).into())
        }
    }
}

/// How far the walk has come.
enum At {
    Elsewhere(OwnedFd),
    Bpffs(Box<PinDir>),
}

impl At {
    fn new(fd: OwnedFd, walked: &Path) -> Result<Self, Reason> {
        let stat = statfs_of(&fd)?;
        Ok(if FileSystem::from_stat(&stat).is_bpffs() {
            let walked = match walked.as_os_str().is_empty() {
                true => Path::new("."),
                false => walked,
            };
            let path = Pathname::new(walked)?;
            let dir = PinDir::from_proven_fd(fd, path, FileSystem::follows_links(&stat));
            Self::Bpffs(Box::new(dir))
        } else {
            Self::Elsewhere(fd)
        })
    }
}
