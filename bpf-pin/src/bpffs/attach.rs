//! Putting a mount in its place, seeing that it is there, and taking it away where it is not right.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::readlink;
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};

use crate::cause::Cause;
use crate::diagnose;
use crate::error::Reason;
use crate::mountinfo::{BPF, Mount};
use crate::mounts::{Directory, MountInfo, magic_link, mount_id, statmount};

use super::options::MountOptions;

/// Attaches a detached mount.
pub(crate) fn move_onto(
    mount: BorrowedFd<'_>,
    place: &Directory,
    options: &MountOptions,
) -> Result<(), Reason> {
    // What cannot be read back, or taken away again, is not begun.
    let ready = match options.shows_in_mountinfo() {
        true => Some((MountInfo::own()?, Attached::of(mount)?)),
        false => None,
    };
    move_mount_onto(mount, place)?;
    ready.map_or(Ok(()), |(mounts, attached)| {
        attached
            .verify(&mounts, options)
            .map(drop)
            .inspect_err(|_| {
                // The first reason is the one to tell.
                let _ = attached.take_away(&mounts);
            })
    })
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
    /// The way to its root in a genuine /proc, as long as its descriptor is open.
    link: PathBuf,
}

impl Attached {
    pub(crate) fn of(mount: BorrowedFd<'_>) -> Result<Self, Reason> {
        Ok(Self {
            mount_id: mount_id(mount)?,
            unique_id: statmount::unique_id(mount),
            link: magic_link(mount)?,
        })
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
            if mounts.by_id(self.mount_id)?.is_none() {
                return Ok(());
            }
            // The descriptor itself keeps it busy, and no one else has it.
            match unmount(&self.link, UnmountFlags::DETACH) {
                // Whoever is further below was faster.
                Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
                Err(errno) => return Err(Reason::errno_only(errno)),
            }
        }
        Err(Cause::Overtaken.into())
    }
}

/// mount(2), for kernels that have nothing better: there is no descriptor of what it mounted, so that
/// is found by what is new.
pub(crate) fn mount_onto(place: &Directory, options: &MountOptions) -> Result<OwnedFd, Reason> {
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
            let top = Directory::open(&place.path()?)?;
            if top.mount_id()? != new.mount_id {
                return Err(Cause::Overtaken.into());
            }
            options.verify(top.fd.as_fd())?;
            Ok(top.fd)
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
