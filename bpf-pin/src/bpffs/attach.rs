//! Attaches a new mount to a directory, checks it there, and detaches it again if it is not right.

use std::os::fd::BorrowedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, fstat, openat2, statx};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};

use crate::diagnose;
use crate::error::{Cause, Reason};
use crate::procfs::{self, Directory, Mount, MountInfo, ProcError, statmount};

use super::options::MountOptions;

/// How often a mount is detached, if others put more on top of it meanwhile.
pub(super) const DETACH_TRIES: usize = 100;

/// Attaches a detached mount to `place`, which `path` leads to, and returns the `st_dev` of its files. If
/// `parent` is given, it must end up directly on that mount.
pub(super) fn attach(
    mount: BorrowedFd<'_>,
    place: &Directory,
    path: &Path,
    options: &MountOptions,
    parent: Option<u64>,
) -> Result<u64, Reason> {
    // Nothing is attached that could not be checked, or detached again.
    let needs_mountinfo = parent.is_some() || options.needs_mountinfo();
    let prepared = MountInfo::own().and_then(|mounts| Ok((mounts, NewMount::of(mount)?)));
    let (mounts, new) = match prepared {
        Err(ProcError::NotMounted) if !needs_mountinfo && is_plain(path) => {
            let dev = fstat(mount).map_err(Reason::errno_only)?.st_dev;
            return move_onto(mount, place).map(|()| dev);
        }
        prepared => prepared?,
    };
    move_onto(mount, place)?;
    let check = || {
        if needs_mountinfo {
            match new.listed(&mounts)? {
                Some(found) if parent.is_none_or(|parent| parent == found.parent_id) => {
                    options.verify_shown(&found)?;
                }
                None if parent.is_none() => {
                    let mount_id = new.mount_id;
                    return Err(Cause::NotListed { mount_id }.into());
                }
                // Others mounted there first, or unmounted theirs and with it this one.
                _ => return Err(Cause::LostRace.into()),
            }
        }
        new.is_reachable_by(path, &mounts)
    };
    check().inspect_err(|_| {
        // The first error is the one to report.
        let _ = new.detach(&mounts);
    })?;
    Ok(new.dev)
}

/// Whether each component of the path is a directory in the one before.
fn is_plain(path: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let how = ResolveFlags::NO_SYMLINKS;
    let is_down = |each: Component<'_>| matches!(each, Component::RootDir | Component::Normal(_));
    path.file_name().is_some()
        && path.components().all(is_down)
        && openat2(CWD, path, flags, Mode::empty(), how).is_ok()
}

fn move_onto(mount: BorrowedFd<'_>, place: &Directory) -> Result<(), Reason> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", &place.fd, c"", flags)
        .map_err(|errno| Reason::new(errno, diagnose::attach(errno)))
}

/// A mount before and after it is attached: all that it takes to find and detach it without opening
/// another descriptor.
struct NewMount {
    mount_id: u64,
    unique_id: Option<u64>,
    /// Of its root.
    inode: u64,
    /// Of all its files.
    dev: u64,
    /// The path of its root in a genuine /proc, while the descriptor is open.
    link: PathBuf,
}

impl NewMount {
    fn of(mount: BorrowedFd<'_>) -> procfs::Result<Self> {
        let root = fstat(mount)?;
        Ok(Self {
            mount_id: procfs::mount_id(mount)?,
            unique_id: statmount::unique_id(mount),
            inode: root.st_ino,
            dev: root.st_dev,
            link: procfs::magic_link(mount)?,
        })
    }

    fn listed(&self, mounts: &MountInfo) -> procfs::Result<Option<Mount>> {
        match self.unique_id.and_then(statmount::by_unique_id) {
            Some(mount) => Ok(Some(mount)),
            None => mounts.by_id(self.mount_id),
        }
    }

    /// Fails if the path bypasses the mount: it continues from the directory below it, or starts there.
    /// Mounts that others put on top of it do not count.
    fn is_reachable_by(&self, path: &Path, mounts: &MountInfo) -> Result<(), Reason> {
        /// Others may mount and unmount there.
        const TRIES: usize = 100;

        let mut before = None;
        for _ in 0..TRIES {
            let found = root_at(path)?;
            let is_below = |(mount_id, _)| self.is_below(mount_id, mounts);
            if found == Some((self.mount_id, self.inode)) || found.map_or(Ok(false), is_below)? {
                return Ok(());
            }
            if before.replace(found) == Some(found) {
                break;
            }
        }
        // If others unmounted it, that is no property of the path.
        match mounts.by_id(self.mount_id)? {
            Some(_) => Err(Cause::PathBypassesMount.into()),
            None => Err(Cause::LostRace.into()),
        }
    }

    /// Whether the mount of this id is on top of this one, at the same path.
    fn is_below(&self, mount_id: u64, mounts: &MountInfo) -> procfs::Result<bool> {
        let table = mounts.read()?;
        let this = table.by_id(self.mount_id);
        Ok(this.is_some_and(|this| table.is_on_top(mount_id, this.mount_id, &this.mount_point)))
    }

    /// Unmounts it, after what is on top of it: the kernel follows the descriptor up to the topmost mount,
    /// but never down.
    fn detach(&self, mounts: &MountInfo) -> Result<(), Reason> {
        for _ in 0..DETACH_TRIES {
            // Only this descriptor keeps it busy. It may be attached without being listed, above this
            // process's root.
            match unmount(&self.link, UnmountFlags::DETACH) {
                Ok(()) => {}
                // It is not attached any more, or others unmounted first.
                Err(Errno::INVAL | Errno::NOENT) => {
                    if mounts.by_id(self.mount_id)?.is_none() {
                        return Ok(());
                    }
                }
                Err(errno) => return Err(Reason::errno_only(errno)),
            }
        }
        Err(Cause::LostRace.into())
    }
}

/// The mount and the inode that the path leads to, if it leads anywhere.
fn root_at(path: &Path) -> Result<Option<(u64, u64)>, Reason> {
    // Linux 5.8, and needs no descriptor.
    let wanted = StatxFlags::MNT_ID | StatxFlags::INO;
    match statx(CWD, path, AtFlags::empty(), wanted) {
        Ok(stat) if stat.stx_mask & StatxFlags::MNT_ID.bits() != 0 => {
            return Ok(Some((stat.stx_mnt_id, stat.stx_ino)));
        }
        _ => {}
    }
    match Directory::hold(path) {
        Ok(there) => Ok(Some((there.mount_id()?, there.stat.st_ino))),
        Err(errno @ (Errno::MFILE | Errno::NFILE)) => Err(Reason::errno_only(errno)),
        Err(_) => Ok(None),
    }
}
