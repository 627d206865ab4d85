//! Creates directories. Each has its mode and owner before it has its name.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{self, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, Stat, fstat, fstatfs, mkdirat, openat, unlinkat,
};
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Error, Operation, Reason, Result};
use crate::path::{Component, Pathname};
use crate::procfs::ids::{is_own_uid, own_gid};
use crate::types::FileSystem;

use super::metadata::{checked_mode, chown_file, permissions};
use super::open::DIR_PATH;
use super::temp_names::{TempKind, is_taken};
use super::{PinDir, TRIES, find_reason};

/// Mode and owner of a new directory.
#[derive(Clone, Copy)]
struct Attributes {
    mode: Mode,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl PinDir {
    /// `mkdir(2)`: creates the directory at `path` and its missing parents, all on a bpffs.
    ///
    /// A directory that exists is opened and not changed. A new one has exactly this mode before it has its
    /// name, whatever the umask and the parent's set-group-id bit.
    ///
    /// Nothing is created on another file system. Symbolic links are followed up to the bpffs, not on it.
    /// If a directory cannot be created, its new parents stay, as with `mkdir -p`.
    ///
    /// If the process is killed, a hidden directory may remain in the parent: see
    /// [`remove_leftovers`](Self::remove_leftovers).
    ///
    /// # Errors
    ///
    /// [`Operation::CreateDir`], with these causes and those of [names](Self#names) and
    /// [access](Self#access):
    ///
    /// | condition | cause | errno |
    /// |---|---|---|
    /// | the path does not lead to a bpffs | [`NotBpffs`](Cause::NotBpffs) | none or ENOENT |
    /// | a directory before the bpffs does not exist | [`Missing`](Cause::Missing) | ENOENT |
    /// | a component is not a directory | [`NotADirectory`](Cause::NotADirectory) | ENOTDIR |
    /// | a component on the bpffs is a symbolic link | [`SymbolicLink`](Cause::SymbolicLink) | ENOTDIR |
    /// | a symbolic link before the bpffs is on a mount that follows none | [`SymbolicLink`](Cause::SymbolicLink) | ELOOP |
    /// | the mode is above 0o7777 | [`InvalidArgument`](Cause::InvalidArgument) | |
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

    /// As [`create`](Self::create), and `chown(2)`: new directories belong to this user and group. `None`
    /// is that of this process.
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
    /// As [`create`](Self::create).
    pub fn create_dir(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<Self> {
        self.on_name(Operation::CreateDir, name.as_ref(), |at| {
            let (mode, uid, gid) = (checked_mode(mode)?, None, None);
            let existing = || self.find_dir_named(at.name);
            self.create_named(at.name, Attributes { mode, uid, gid }, existing)
        })
    }

    fn create_path(path: &Path, mode: u32, uid: Option<u32>, gid: Option<u32>) -> Result<Self> {
        checked_mode(mode)
            .map_err(Reason::from)
            .and_then(|mode| create_all(path, Attributes { mode, uid, gid }))
            .map_err(|reason| Error::new(Operation::CreateDir, reason).at(path))
    }

    fn create_named(
        &self,
        name: &CStr,
        attributes: Attributes,
        existing: impl Fn() -> Result<Option<Self>, Reason>,
    ) -> Result<Self, Reason> {
        for _ in 0..TRIES {
            if let Some(dir) = existing()? {
                return Ok(dir);
            }
            let hidden = self.create_hidden(TempKind::Directory)?;
            let named = hidden.set_attributes(attributes).and_then(|()| {
                self.rename_named(&hidden.name, name, RenameFlags::NOREPLACE)
                    .map_err(Reason::errno_only)
            });
            let Err(reason) = named else {
                return Ok(self.child(hidden.dir.fd, name));
            };
            let _ = unlinkat(&self.fd, hidden.name.as_c_str(), AtFlags::REMOVEDIR);
            // EEXIST: another process created it meanwhile.
            if !reason.is(Errno::EXIST) {
                return Err(reason.explained(|errno| diagnose::make(&self.at_path(name), errno)));
            }
        }
        Err(Reason::errno_only(Errno::EXIST))
    }

    pub(super) fn is_removed(&self) -> bool {
        fstat(&self.fd).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Opens the directory that has the name, if one has. Crosses a mount, because that is part of the path.
    fn find_dir_across_mounts(&self, name: &CStr) -> Result<Option<Self>, Reason> {
        let fd = match openat(&self.fd, name, DIR_PATH | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) if !self.is_removed() => return Ok(None),
            Err(errno) => return Err(find_reason(&self.at_path(name), errno)),
        };
        let stat = fstatfs(&fd).map_err(Reason::errno_only)?;
        match FileSystem::from_stat(&stat) {
            FileSystem::BPF => Ok(Some(Self {
                follows_links: FileSystem::follows_links(&stat),
                ..self.child(fd, name)
            })),
            found => Err(diagnose::not_bpffs(self.path.join(name).as_path(), found).into()),
        }
    }

    /// Creates a directory of mode 0700 with a hidden name.
    pub(super) fn create_hidden(&self, kind: TempKind) -> Result<HiddenDir, Reason> {
        let (name, (dir, stat)) = self.with_temp_name(kind, |name: &Component| {
            mkdirat(&self.fd, name.as_c_str(), Mode::RWXU).map_err(|errno| match errno {
                Errno::EXIST => Reason::errno_only(errno),
                _ => Reason::new(errno, diagnose::make(&self.at_path(name), errno)),
            })?;
            self.open_hidden(name).inspect_err(|reason| {
                // Another user's directory in its place is not ours to remove.
                if !is_taken(reason) {
                    let _ = unlinkat(&self.fd, name.as_c_str(), AtFlags::REMOVEDIR);
                }
            })
        })?;
        Ok(HiddenDir { dir, name, stat })
    }

    fn open_hidden(&self, name: &Component) -> Result<(Self, Stat), Reason> {
        let dir = self.open_dir_named(name)?;
        let stat = fstat(&dir.fd).map_err(Reason::errno_only)?;
        if !is_own_uid(stat.st_uid) {
            let (path, uid) = (dir.path().to_owned(), stat.st_uid);
            return Err(Cause::NotOwner { path, uid }.into());
        }
        // The umask may have cleared bits.
        if permissions(&stat) != Mode::RWXU {
            dir.chmod_self(Mode::RWXU)?;
        }
        Ok((dir, stat))
    }
}

/// A new directory with a hidden name.
pub(super) struct HiddenDir {
    pub(super) dir: PinDir,
    pub(super) name: Component,
    /// From right after it was created.
    pub(super) stat: Stat,
}

impl HiddenDir {
    fn set_attributes(&self, new: Attributes) -> Result<(), Reason> {
        let chown = |uid, gid| chown_file(self.dir.as_fd(), uid, gid);
        // A set-group-id parent passes on its group. With another group chmod(2) may clear that bit of the
        // new mode.
        let group = own_gid(self.stat.st_gid);
        if self.stat.st_gid != group {
            chown(None, Some(group))?;
        }
        // The mode comes before the owner: afterwards the directory may be another user's.
        let set_mode = || match fstat(&self.dir.fd).map_err(Reason::errno_only)? {
            stat if permissions(&stat) == new.mode => Ok(()),
            _ => self.dir.chmod_self(new.mode),
        };
        set_mode()?;
        if new.uid.or(new.gid).is_some() {
            chown(new.uid, new.gid)?;
            set_mode()?;
        }
        Ok(())
    }
}

/// Walks from the root or the working directory to the last component, and creates what is missing.
fn create_all(path: &Path, attributes: Attributes) -> Result<PinDir, Reason> {
    let pathname = Pathname::new(path)?;
    if path.as_os_str().is_empty() {
        return Err(Reason::new(Errno::NOENT, Some(Cause::empty_path())));
    }
    let open = |from: BorrowedFd<'_>, name: &OsStr| {
        openat(from, name, DIR_PATH, Mode::empty())
            .map_err(|errno| Reason::new(errno, diagnose::directory(path, errno)))
    };
    let start = if path.is_absolute() { "/" } else { "." };
    let mut walked = PathBuf::new();
    let mut position = Position::new(open(CWD, OsStr::new(start))?, &walked)?;
    let mut rest = path.components();
    while let Some(component) = rest.next() {
        let name = component.as_os_str();
        walked.push(name);
        position = match (position, component) {
            (position, path::Component::RootDir | path::Component::CurDir) => position,
            (Position::Elsewhere(fd, _), _) => Position::new(open(fd.as_fd(), name)?, &walked)?,
            (Position::Bpffs(parent), _) => {
                let name = Component::new(name)?;
                // All names are checked before the first directory is created.
                let mut rest = rest.clone();
                rest.try_for_each(|name| Component::new(name.as_os_str()).map(drop))?;
                let name = name.as_c_str();
                let existing = || parent.find_dir_across_mounts(name);
                Position::Bpffs(Box::new(parent.create_named(name, attributes, existing)?))
            }
        };
    }
    match position {
        Position::Bpffs(mut dir) => {
            dir.path = pathname;
            Ok(*dir)
        }
        Position::Elsewhere(_, found) => Err(diagnose::not_bpffs(path, found).into()),
    }
}

/// Where the walk is.
enum Position {
    Elsewhere(OwnedFd, FileSystem),
    Bpffs(Box<PinDir>),
}

impl Position {
    fn new(fd: OwnedFd, walked: &Path) -> Result<Self, Reason> {
        let stat = fstatfs(&fd).map_err(Reason::errno_only)?;
        let found = FileSystem::from_stat(&stat);
        if !found.is_bpffs() {
            return Ok(Self::Elsewhere(fd, found));
        }
        let is_empty = walked.as_os_str().is_empty();
        let path = Pathname::new(if is_empty { Path::new(".") } else { walked })?;
        let dir = PinDir::from_proven_fd(fd, path, FileSystem::follows_links(&stat));
        Ok(Self::Bpffs(Box::new(dir)))
    }
}
