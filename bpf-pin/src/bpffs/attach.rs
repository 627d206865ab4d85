//! Putting a mount in its place, seeing that it is there, and taking it away where it is not right.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, fstat, openat2, readlink, statx,
};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};

use crate::cause::Cause;
use crate::diagnose;
use crate::error::Reason;
use crate::mountinfo::{BPF, Mount};
use crate::mounts::{Directory, MountInfo, magic_link, mount_id, statmount};

use super::options::MountOptions;

/// Attaches a detached mount, and gives the `st_dev` of its files.
pub(crate) fn move_onto(
    mount: BorrowedFd<'_>,
    place: &Directory,
    path: &Path,
    options: &MountOptions,
) -> Result<u64, Reason> {
    // What cannot be looked at, or taken away again, is not begun.
    let attached = MountInfo::own().and_then(|mounts| Ok((mounts, Attached::of(mount)?)));
    let (mounts, attached) = match attached {
        Err(reason) if is_no_proc(&reason) && !options.shows_in_mountinfo() => {
            is_plain(path).then_some(()).ok_or(reason)?;
            let dev = fstat(mount).map_err(Reason::errno_only)?.st_dev;
            return move_mount_onto(mount, place).map(|()| dev);
        }
        attached => attached?,
    };
    move_mount_onto(mount, place)?;
    let seen = match options.shows_in_mountinfo() {
        true => attached.verify(&mounts, options).map(drop),
        false => Ok(()),
    };
    seen.and_then(|()| attached.is_led_to(path, &mounts))
        .inspect_err(|_| {
            // The first reason is the one to tell.
            let _ = attached.take_away(&mounts);
        })
        .map(|()| attached.dev)
}

fn is_no_proc(reason: &Reason) -> bool {
    matches!(reason.cause(), Some(Cause::NoProc))
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

pub(crate) fn move_mount_onto(mount: BorrowedFd<'_>, place: &Directory) -> Result<(), Reason> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", &place.fd, c"", flags)
        .map_err(|errno| Reason::new(errno, diagnose::attach(errno)))
}

/// A mount that is, or is about to be, attached; by all that it takes to find it and take it away
/// without a descriptor more.
pub(crate) struct Attached {
    mount_id: u64,
    unique_id: Option<u64>,
    /// Of its root.
    inode: u64,
    /// Of all its files.
    pub(crate) dev: u64,
    /// The way to its root in a genuine /proc, as long as its descriptor is open.
    link: PathBuf,
}

impl Attached {
    pub(crate) fn of(mount: BorrowedFd<'_>) -> Result<Self, Reason> {
        let root = fstat(mount).map_err(Reason::errno_only)?;
        Ok(Self {
            mount_id: mount_id(mount)?,
            unique_id: statmount::unique_id(mount),
            inode: root.st_ino,
            dev: root.st_dev,
            link: magic_link(mount)?,
        })
    }

    /// An error where the path goes on from the directory that it is mounted on, or begins there, and so
    /// leads past it. What others have put on top of it meanwhile is as good.
    pub(crate) fn is_led_to(&self, path: &Path, mounts: &MountInfo) -> Result<(), Reason> {
        /// Others may mount and unmount there.
        const TRIES: usize = 100;

        let mut before = None;
        for _ in 0..TRIES {
            let there = root_at(path)?;
            let is_below = |(mount_id, _)| self.is_below(mount_id, mounts);
            if there == Some((self.mount_id, self.inode)) || there.map_or(Ok(false), is_below)? {
                return Ok(());
            }
            if before.replace(there) == Some(there) {
                break;
            }
        }
        // Where nothing leads, as others have unmounted it, no path leads past it.
        match mounts.by_id(self.mount_id)? {
            Some(_) => Err(Cause::LeadsPast.into()),
            None => Err(Cause::Overtaken.into()),
        }
    }

    /// Whether that mount is on top of this one, at the same place.
    fn is_below(&self, mount_id: u64, mounts: &MountInfo) -> Result<bool, Reason> {
        let Some(this) = mounts.by_id(self.mount_id)? else {
            return Ok(false);
        };
        mounts.is_on_top(mount_id, this.mount_id, &this.mount_point)
    }

    /// Sees in mountinfo that the mount is attached, and as it was to be.
    pub(crate) fn verify(
        &self,
        mounts: &MountInfo,
        options: &MountOptions,
    ) -> Result<Mount, Reason> {
        let mount_id = self.mount_id;
        let found = match self.unique_id.and_then(statmount::by_unique_id) {
            Some(found) => found,
            None => mounts
                .by_id(mount_id)?
                .ok_or(Cause::NotListed { mount_id })?,
        };
        options.verify_shown(&found)?;
        Ok(found)
    }

    /// Unmounts this mount, and before it what is on top of it: the kernel goes there from the
    /// descriptor, too, but never to what is below.
    pub(crate) fn take_away(&self, mounts: &MountInfo) -> Result<(), Reason> {
        /// Others may put more on top of it meanwhile.
        const TRIES: usize = 100;

        for _ in 0..TRIES {
            // The descriptor itself keeps it busy, and no one else has it. It may be attached and not
            // listed, above this process's root.
            match unmount(&self.link, UnmountFlags::DETACH) {
                Ok(()) => {}
                // It is not attached, or whoever is further below was faster.
                Err(Errno::INVAL | Errno::NOENT) => {
                    if mounts.by_id(self.mount_id)?.is_none() {
                        return Ok(());
                    }
                }
                Err(errno) => return Err(Reason::errno_only(errno)),
            }
        }
        Err(Cause::Overtaken.into())
    }
}

/// The mount and the inode that the path leads to, if it does so at all.
fn root_at(path: &Path) -> Result<Option<(u64, u64)>, Reason> {
    let wanted = StatxFlags::MNT_ID | StatxFlags::INO;
    // Linux 5.8, and takes no descriptor.
    match statx(CWD, path, AtFlags::empty(), wanted) {
        Ok(stat) if stat.stx_mask & StatxFlags::MNT_ID.bits() != 0 => {
            return Ok(Some((stat.stx_mnt_id, stat.stx_ino)));
        }
        _ => {}
    }
    match Directory::open(path) {
        Ok(there) => Ok(Some((there.mount_id()?, there.stat.st_ino))),
        Err(reason) if is_out_of_descriptors(&reason) => Err(reason),
        Err(_) => Ok(None),
    }
}

fn is_out_of_descriptors(reason: &Reason) -> bool {
    reason.is(Errno::MFILE) || reason.is(Errno::NFILE)
}

/// mount(2), for kernels that have nothing better: there is no descriptor of what it mounted, so that
/// is found by what is new.
pub(crate) fn mount_onto(
    place: &Directory,
    path: &Path,
    options: &MountOptions,
) -> Result<Directory, Reason> {
    // All that can fail is got ready before: afterwards the way back must be open.
    let mounts = MountInfo::own()?;
    let place = Place {
        mount_id: place.mount_id()?,
        // Of the place itself, wherever the path leads by now.
        link: magic_link(place.fd.as_fd())?,
    };
    let (source, data) = (options.source_string(), options.to_data());
    let before = mounts.select_bpffs(|_| true)?;
    rustix::mount::mount(
        source.as_c_str(),
        &place.link,
        BPF,
        options.flags(),
        data.as_c_str(),
    )
    .map_err(|errno| {
        Reason::new(
            errno,
            diagnose::mount(errno).or_else(|| diagnose::attach(errno)),
        )
    })?;
    place
        .the_only_new(&mounts, &before)
        .and_then(|new| {
            options.verify_shown(&new)?;
            let top = match Directory::open(path) {
                Ok(top) if new.mount_id == top.mount_id()? && top.is_mount_root(Some(&new)) => top,
                Err(reason) if is_out_of_descriptors(&reason) => return Err(reason),
                _ if place.stack(&mounts)?.len() > 1 => return Err(Cause::Overtaken.into()),
                _ => return Err(Cause::LeadsPast.into()),
            };
            options.verify(top.fd.as_fd())?;
            Ok(top)
        })
        .inspect_err(|_| {
            // The first reason is the one to tell.
            let _ = place.take_new_away(&mounts, &before);
        })
}

/// A directory that mount(2) was called on.
struct Place {
    /// Of the mount that it is in.
    mount_id: u64,
    /// The way to it in a genuine /proc, past all that is mounted over it.
    link: PathBuf,
}

impl Place {
    /// As the kernel has it, whoever is renaming what. Takes no descriptor.
    fn path(&self) -> Result<PathBuf, Reason> {
        let path = readlink(&self.link, Vec::new()).map_err(Reason::errno_only)?;
        Ok(OsString::from_vec(path.into_bytes()).into())
    }

    /// What is mounted on it, from the bottom to the top.
    fn stack(&self, mounts: &MountInfo) -> Result<Vec<Mount>, Reason> {
        let path = self.path()?;
        let here = mounts.select(|line| line.is_mounted_at(&path))?;
        let mut stack: Vec<Mount> = Vec::new();
        let mut below = self.mount_id;
        while let Some(next) = here.iter().find(|mount| mount.parent_id == below) {
            if stack.len() == here.len() {
                break;
            }
            below = next.mount_id;
            stack.push(next.clone());
        }
        Ok(stack)
    }

    /// Directly on the directory.
    fn the_only_new(&self, mounts: &MountInfo, before: &[Mount]) -> Result<Mount, Reason> {
        let mut stack = self.stack(mounts)?.into_iter();
        match (stack.next(), stack.next()) {
            (Some(new), None) if is_new(&new, before) => Ok(new),
            _ => Err(Cause::Overtaken.into()),
        }
    }

    /// Unmounts from the top until nothing new is there.
    fn take_new_away(&self, mounts: &MountInfo, before: &[Mount]) -> Result<(), Reason> {
        /// Others may put more on top of it meanwhile.
        const TRIES: usize = 100;

        for _ in 0..TRIES {
            let stack = self.stack(mounts)?;
            if !stack.iter().any(|mount| is_new(mount, before)) {
                return Ok(());
            }
            match unmount(&self.link, UnmountFlags::DETACH) {
                Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
                Err(errno) => return Err(Reason::errno_only(errno)),
            }
        }
        Err(Cause::Overtaken.into())
    }
}

/// An id alone may be that of one that has gone meanwhile.
fn is_new(mount: &Mount, before: &[Mount]) -> bool {
    mount.is_bpffs() && !before.contains(mount)
}
