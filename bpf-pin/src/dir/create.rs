//! Directories are made: each whole before it has its name.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags, StatFs, fstat, fstatfs, mkdirat,
    openat, unlinkat,
};
use rustix::io::Errno;

use crate::cause::Cause;
use crate::diagnose;
use crate::error::{Error, Operation, Reason, Result};
use crate::filename::Filename;
use crate::flock::{Held, lock_file};
use crate::pathname::Pathname;
use crate::procfs::ids::{is_own_uid, own_gid};
use crate::types::FileSystem;

use super::PinDir;
use super::metadata::{checked_mode, permissions};
use super::names::{self, Left};
use super::open::HELD;

/// How often what somebody else sweeps away is made again.
const TRIES: usize = 100;

/// What it takes of a directory's owner to open it.
const READABLE: Mode = Mode::RUSR.union(Mode::XUSR);

/// What a new directory is to be.
#[derive(Clone, Copy)]
struct New {
    mode: Mode,
    uid: Option<u32>,
    gid: Option<u32>,
}

/// A directory that was made, to be taken back if what follows fails.
struct Made {
    parent: PinDir,
    name: Filename,
}

impl PinDir {
    /// `mkdir(2)`: the directory at `path`, which must lead to a bpffs, and its parents there.
    ///
    /// What exists is opened as it is. What does not gets exactly this mode, whatever the umask and
    /// the parent's set-group-id bit, and gets it before it gets its name. From where the bpffs
    /// begins no symbolic link is followed. Nothing is made on another file system. If the process is
    /// killed amid it, what it leaves is in the parent: [`sweep_stale`](Self::sweep_stale) that.
    ///
    /// # Errors
    ///
    /// [`Operation::CreateDir`](crate::Operation::CreateDir), and what was made is removed again. With one of these causes where it
    /// was proven: [`NotBpffs`](Cause::NotBpffs), without an errno or with ENOENT;
    /// [`Missing`](Cause::Missing) (ENOENT) on the way to the bpffs;
    /// [`SymbolicLink`](Cause::SymbolicLink) or [`NotADirectory`](Cause::NotADirectory) (ENOTDIR; a link on the
    /// way to the bpffs that its mount lets nobody follow ELOOP);
    /// [`Dot`](Cause::Dot), without a syscall on that name; [`Blocked`](Cause::Blocked) (EACCES);
    /// [`ReadOnlyFileSystem`](Cause::ReadOnlyFileSystem) (EROFS);
    /// [`InvalidMode`](Cause::InvalidMode) above 0o7777; [`InteriorNul`](Cause::InteriorNul).
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
    /// As [`create`](Self::create); EPERM without `CAP_CHOWN`; [`InvalidId`](Cause::InvalidId).
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
            let opens = |name: &Filename| self.find_dir_named(name);
            self.create_named(&name, New { mode, uid, gid }, opens)
        });
        match made {
            Ok((dir, _)) => Ok(dir),
            Err(reason) => Err(self.fail_at(Operation::CreateDir, name.as_os_str(), reason)),
        }
    }

    fn create_path(path: &Path, mode: u32, uid: Option<u32>, gid: Option<u32>) -> Result<Self> {
        let create = |mode| {
            let mut tries = 0;
            loop {
                tries += 1;
                match walk_or_nothing(path, New { mode, uid, gid }) {
                    // Somebody else took back a parent that they had made.
                    Err(reason) if is_removed(&reason) && tries < TRIES => {}
                    other => return other,
                }
            }
        };
        checked_mode(mode)
            .map_err(Reason::from)
            .and_then(create)
            .map_err(|reason| Error::new(Operation::CreateDir, reason).at(path))
    }

    /// The directory, and whether it was made here.
    fn create_named(
        &self,
        name: &Filename,
        new: New,
        existing: impl Fn(&Filename) -> Result<Option<Self>, Reason>,
    ) -> Result<(Self, bool), Reason> {
        for _ in 0..TRIES {
            if let Some(dir) = existing(name)? {
                return Ok((dir, false));
            }
            let hidden = self.hidden(Left::Unfinished)?;
            let finished = hidden.dir.finish(new).and_then(|()| {
                self.rename_named(&hidden.name, name, RenameFlags::NOREPLACE)
                    .map_err(Reason::errno_only)
            });
            match finished {
                Ok(()) => {
                    let fd = hidden.dir.fd;
                    return Ok((self.child(fd, name), true));
                }
                Err(reason) => {
                    let _ = unlinkat(&self.fd, hidden.name.as_c_str(), AtFlags::REMOVEDIR);
                    // Somebody made it first, or swept ours away.
                    let again =
                        reason.is(Errno::EXIST) || reason.is(Errno::NOENT) && !self.is_removed();
                    if !again {
                        return Err(
                            reason.explained(|errno| diagnose::make(&self.place(name), errno))
                        );
                    }
                }
            }
        }
        Err(Reason::errno_only(Errno::EXIST))
    }

    pub(super) fn is_removed(&self) -> bool {
        fstat(&self.fd).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// The directory that has the name, if one has. A mount on it is crossed: it is part of the path.
    fn existing(&self, name: &Filename) -> Result<Option<Self>, Reason> {
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
            Err(errno) => Err(Reason::new(errno, diagnose::find(&self.place(name), errno))),
        }
    }

    /// A directory of mode 0700 under a name that nobody looks at, locked so that no sweep takes it.
    pub(super) fn hidden(&self, left: Left) -> Result<Hidden, Reason> {
        let mut last = Reason::errno_only(Errno::EXIST);
        for _ in 0..TRIES {
            let name = names::passing(names::token(), 0, left);
            match mkdirat(&self.fd, name.as_c_str(), Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(errno) => {
                    return Err(Reason::new(
                        errno,
                        diagnose::make(&self.place(&name), errno),
                    ));
                }
            }
            match self.prepared(&name) {
                Ok(Ok((dir, lock))) => return Ok(Hidden { dir, name, lock }),
                other => {
                    let _ = unlinkat(&self.fd, name.as_c_str(), AtFlags::REMOVEDIR);
                    last = match other? {
                        Ok(_) => last,
                        Err(reason) => reason,
                    };
                }
            }
        }
        Err(last)
    }

    /// As [`readable`](Self::readable), of what this user may have made with too little of a mode: that
    /// is what it had, where it was changed.
    pub(super) fn readable_whatever_its_mode(&self) -> Result<(OwnedFd, Option<Mode>), Reason> {
        let reason = match self.readable() {
            Ok(file) => return Ok((file, None)),
            Err(reason) => reason,
        };
        let stat = fstat(&self.fd).map_err(Reason::errno_only)?;
        if !reason.is(Errno::ACCESS) || !is_own_uid(stat.st_uid) {
            return Err(reason);
        }
        let mode = permissions(&stat);
        self.chmod_self(mode | READABLE)?;
        match self.readable() {
            Ok(file) => Ok((file, Some(mode))),
            Err(reason) => {
                self.give_back(Some(mode));
                Err(reason)
            }
        }
    }

    /// The mode that it had, unless it has been given another since.
    pub(super) fn give_back(&self, mode: Option<Mode>) {
        let Some(mode) = mode else { return };
        if fstat(&self.fd).is_ok_and(|stat| permissions(&stat) == mode | READABLE) {
            // Whoever lives in it may have made it unreadable again.
            let _ = self.chmod_self(mode);
        }
    }

    /// Why to try again, where somebody has swept it away, or put another in its place, before it was
    /// locked.
    fn prepared(&self, name: &Filename) -> Result<Result<(Self, Held), Reason>, Reason> {
        let errno = Reason::errno_only;
        let is_swept = || Ok(Err(errno(Errno::NOENT)));
        let dir = match self.open_dir_named(name) {
            Err(reason) if reason.is(Errno::NOENT) => return is_swept(),
            other => other?,
        };
        let stat = fstat(&dir.fd).map_err(errno)?;
        // Who shows as the same id, and is another, is kept out by the kernel: of a directory of
        // mode 0700 that is not this user's there is no lock to be had.
        if !is_own_uid(stat.st_uid) {
            let (path, uid) = (dir.path().to_owned(), stat.st_uid);
            return Ok(Err(Cause::NotOwner { path, uid }.into()));
        }
        // The umask may have taken too much.
        if permissions(&stat) != Mode::RWXU {
            dir.chmod_self(Mode::RWXU)?;
        }
        let lock = match dir.readable() {
            Err(_) if dir.is_removed() => return is_swept(),
            other => other?,
        };
        lock_file(&lock, FlockOperation::LockShared).map_err(errno)?;
        let lock = Held::briefly(lock);
        // A sweep may have come before the lock.
        match dir.is_removed() {
            true => is_swept(),
            false => Ok(Ok((dir, lock))),
        }
    }

    /// Owner and mode, of what is held.
    fn finish(&self, new: New) -> Result<(), Reason> {
        let look = || fstat(&self.fd).map_err(Reason::errno_only);
        // A parent may hand down its group, and then the mode may not keep its set-group-id bit.
        let found = look()?.st_gid;
        let group = own_gid(found);
        if found != group {
            self.chown_self(None, Some(group))?;
        }
        // The mode before the owner: afterwards it may be another user's.
        let set_mode = || match permissions(&look()?) == new.mode {
            true => Ok(()),
            false => self.chmod_self(new.mode),
        };
        set_mode()?;
        if new.uid.or(new.gid).is_some() {
            self.chown_self(new.uid, new.gid)?;
            set_mode()?;
        }
        Ok(())
    }
}

/// A directory under a name that nobody looks at.
pub(super) struct Hidden {
    pub(super) dir: PinDir,
    pub(super) name: Filename,
    /// Shared; held until it has another name.
    pub(super) lock: Held,
}

fn statfs_of(fd: &OwnedFd) -> Result<StatFs, Reason> {
    fstatfs(fd).map_err(Reason::errno_only)
}

fn is_removed(reason: &Reason) -> bool {
    matches!(reason.cause(), Some(Cause::Removed { .. }))
}

/// As [`walk`], and what was made is removed again if it fails.
fn walk_or_nothing(path: &Path, new: New) -> Result<PinDir, Reason> {
    let mut made = Vec::new();
    walk(path, new, &mut made).inspect_err(|_| {
        for Made { parent, name } in made.iter().rev() {
            // What somebody has put something into meanwhile is theirs by now.
            let _ = unlinkat(&parent.fd, name.as_c_str(), AtFlags::REMOVEDIR);
        }
    })
}

/// From the root, or from where the process is, to the last component.
fn walk(path: &Path, new: New, made: &mut Vec<Made>) -> Result<PinDir, Reason> {
    // A NUL anywhere is refused before anything is made.
    Pathname::new(path)?;
    if path.as_os_str().is_empty() {
        return Err(Reason::new(Errno::NOENT, Some(Cause::EmptyPath)));
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
            (at, Component::RootDir | Component::CurDir) => at,
            (At::Elsewhere(fd), _) => At::new(open(fd.as_fd(), name)?, &walked)?,
            (At::Bpffs(parent), _) => {
                let filename = Filename::new(name)?;
                // Before anything is made, all that is to be made has a name that it can have.
                if made.is_empty() {
                    let mut rest = rest.clone();
                    rest.try_for_each(|name| Filename::new(name.as_os_str()).map(drop))?;
                }
                let existing = |name: &Filename| parent.existing(name);
                let (dir, is_new) = parent.create_named(&filename, new, existing)?;
                if is_new {
                    made.push(Made {
                        parent: *parent,
                        name: filename,
                    });
                }
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
