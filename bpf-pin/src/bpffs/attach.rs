//! Putting a mount in its place, seeing that it is there, and taking it away where it is not right.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};

use crate::cause::Cause;
use crate::diagnose;
use crate::error::Reason;

use super::directory::{Directory, magic_link, mount_id};
use super::mountinfo::{BPF, Mount};
use super::options::MountOptions;
use super::table::MountInfo;

/// Attaches a detached mount.
pub(crate) fn move_onto(
    mount: BorrowedFd<'_>,
    place: &Directory,
    options: &MountOptions,
) -> Result<(), Reason> {
    // What cannot be read back is not begun.
    let mounts = match options.shows_in_mountinfo() {
        true => Some(MountInfo::own()?),
        false => None,
    };
    move_mount_onto(mount, place)?;
    mounts.map_or(Ok(()), |mounts| {
        verify(mount, &mounts, options).map(drop).inspect_err(|_| {
            // The first reason is the one to tell.
            let _ = take_away(mount, &mounts);
        })
    })
}

pub(crate) fn move_mount_onto(mount: BorrowedFd<'_>, place: &Directory) -> Result<(), Reason> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", &place.fd, c"", flags)
        .map_err(|errno| Reason::new(errno, diagnose::attach(errno)))
}

/// Sees in mountinfo that the mount is attached, and as it was to be.
pub(crate) fn verify(
    mount: BorrowedFd<'_>,
    mounts: &MountInfo,
    options: &MountOptions,
) -> Result<Mount, Reason> {
    let mount_id = mount_id(mount)?;
    let found = mounts.by_id(mount_id)?;
    let found = found.ok_or(Cause::NotListed { mount_id })?;
    options.verify_shown(&found)?;
    Ok(found)
}

/// Unmounts this mount, and before it what is on top of it: the kernel goes there from the
/// descriptor, too, but never to what is below.
pub(crate) fn take_away(mount: BorrowedFd<'_>, mounts: &MountInfo) -> Result<(), Reason> {
    /// Others may put more on top of it meanwhile.
    const TRIES: usize = 100;

    let (path, mount_id) = (magic_link(mount)?, mount_id(mount)?);
    for _ in 0..TRIES {
        if mounts.by_id(mount_id)?.is_none() {
            return Ok(());
        }
        // The descriptor itself keeps it busy, and no one else has it.
        match unmount(&path, UnmountFlags::DETACH) {
            // Whoever is further below was faster.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(Reason::errno_only(errno)),
        }
    }
    Err(Cause::Overtaken.into())
}

/// mount(2), for kernels that have nothing better: there is no descriptor of what it mounted, so that
/// is found by what is new.
pub(crate) fn mount_onto(
    path: &Path,
    place: &Directory,
    options: &MountOptions,
) -> Result<OwnedFd, Reason> {
    let mounts = MountInfo::own()?;
    let before = mounts.select(|line| line.is_bpffs())?;
    let (source, data) = (options.source_string(), options.to_data());
    // Of the place itself, wherever the path leads by now.
    let target = magic_link(place.fd.as_fd())?;
    rustix::mount::mount(
        source.as_c_str(),
        target,
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
    let top = Directory::open(path)?;
    let mount_id = top.mount_id()?;
    let is_new = before.iter().all(|mount| mount.mount_id != mount_id);
    if !(is_new && top.fs.is_bpffs()) {
        return Err(Cause::Overtaken.into());
    }
    let verified = options.verify(top.fd.as_fd());
    let verified = verified.and_then(|()| verify(top.fd.as_fd(), &mounts, options));
    match verified {
        Ok(_) => Ok(top.fd),
        Err(reason) => {
            let _ = take_away(top.fd.as_fd(), &mounts);
            Err(reason)
        }
    }
}
