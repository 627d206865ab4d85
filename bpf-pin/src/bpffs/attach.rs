//! Attaches a new mount to a directory, checks it there, and detaches it again if a check fails.

use std::os::fd::BorrowedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, fstat, openat2, statx};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};

use crate::diagnose;
use crate::error::{Cause, Reason};
use crate::procfs::{self, Directory, Mount, MountInfo, ProcError, statmount};

use super::options::MountOptions;

/// How often to detach a mount if others mount something on top of it in between.
pub(super) const DETACH_TRIES: usize = 100;

/// Attaches a detached mount to `target`, the directory at `path`, and returns the `st_dev` of its files.
/// If `parent` is given, fails unless that is the mount directly below it.
pub(super) fn attach(
    mount: BorrowedFd<'_>,
    target: &Directory,
    path: &Path,
    options: &MountOptions,
    parent: Option<u64>,
) -> Result<u64, Reason> {
    // Prepare everything that the checks and detaching need before anything is attached.
    let needs_mountinfo = parent.is_some() || options.needs_mountinfo();
    let prepared = MountInfo::own().and_then(|mounts| Ok((mounts, NewMount::of(mount)?)));
    let (mounts, new) = match prepared {
        Err(ProcError::NotMounted) if !needs_mountinfo && is_plain(path) => {
            let dev = fstat(mount).map_err(Reason::errno_only)?.st_dev;
            return move_onto(mount, target).map(|()| dev);
        }
        prepared => prepared?,
    };
    move_onto(mount, target)?;
    let check = || {
        if needs_mountinfo {
            match new.listed(&mounts)? {
                Some(found) if parent.is_none_or(|parent| parent == found.parent_id) => {
                    options.verify_mountinfo(&found)?;
                }
                None if parent.is_none() => {
                    let mount_id = new.mount_id;
                    return Err(Cause::NotListed { mount_id }.into());
                }
                // Another process mounted there first, or unmounted its mount and this one with it.
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

/// Returns true if the path has no symbolic link and no "..".
fn is_plain(path: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let how = ResolveFlags::NO_SYMLINKS;
    let is_down = |each: Component<'_>| matches!(each, Component::RootDir | Component::Normal(_));
    path.file_name().is_some()
        && path.components().all(is_down)
        && openat2(CWD, path, flags, Mode::empty(), how).is_ok()
}

fn move_onto(mount: BorrowedFd<'_>, target: &Directory) -> Result<(), Reason> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", &target.fd, c"", flags)
        .map_err(|errno| Reason::new(errno, diagnose::attach(errno)))
}

/// A mount before and after it is attached, with everything needed to find and detach it. Opens no further
/// descriptors.
struct NewMount {
    mount_id: u64,
    unique_id: Option<u64>,
    /// The inode of its root.
    inode: u64,
    /// The `st_dev` of its files.
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
    /// Passes if the path leads to a mount on top of it.
    fn is_reachable_by(&self, path: &Path, mounts: &MountInfo) -> Result<(), Reason> {
        /// Other processes may mount and unmount there.
        const TRIES: usize = 100;

        let mut before = None;
        for _ in 0..TRIES {
            let found = mount_and_inode(path)?;
            let is_below = |(mount_id, _)| self.is_below(mount_id, mounts);
            if found == Some((self.mount_id, self.inode)) || found.map_or(Ok(false), is_below)? {
                return Ok(());
            }
            if before.replace(found) == Some(found) {
                break;
            }
        }
        // It may have been unmounted, and then the path is not to blame.
        match mounts.by_id(self.mount_id)? {
            Some(_) => Err(Cause::PathBypassesMount.into()),
            None => Err(Cause::LostRace.into()),
        }
    }

    /// Returns true if the mount with this id is on top of this one, at the same path.
    fn is_below(&self, mount_id: u64, mounts: &MountInfo) -> procfs::Result<bool> {
        let table = mounts.read()?;
        let this = table.by_id(self.mount_id);
        Ok(this.is_some_and(|this| table.is_on_top(mount_id, this.mount_id, &this.mount_point)))
    }

    /// Unmounts it, and first any mount on top of it: the kernel follows the descriptor up to the topmost
    /// mount, but never down.
    fn detach(&self, mounts: &MountInfo) -> Result<(), Reason> {
        for _ in 0..DETACH_TRIES {
            // It may be attached above this process's root and so not be listed. Only this descriptor keeps
            // it busy.
            match unmount(&self.link, UnmountFlags::DETACH) {
                Ok(()) => {}
                // It is not attached any more, or another process unmounted the topmost mount first.
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

/// The mount and the inode that the path leads to. None if it leads nowhere.
fn mount_and_inode(path: &Path) -> Result<Option<(u64, u64)>, Reason> {
    // Needs no descriptor, but Linux 5.8.
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
