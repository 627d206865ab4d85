//! A look at a bpffs that leaves no times of last access behind.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::capability::is_filtered;
use crate::mountinfo::Mount;
use crate::sys;

/// The same directory through a copy of its mount, attached nowhere, on which no such time is set, nor a
/// symbolic link followed where the kernel knows how; or as it is, where that cannot be had: before
/// Linux 5.12, without `CAP_SYS_ADMIN`, of a mount that is unbindable. What is mounted below it is not in
/// the copy.
pub(crate) fn without_atime(fd: OwnedFd, mount: &Mount) -> OwnedFd {
    let is_so_already = mount.is_read_only() || mount.option("noatime").is_some();
    // A filter that knows mounts as none of this program's business may end it.
    if is_so_already || is_filtered() {
        return fd;
    }
    copy(&fd).unwrap_or(fd)
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    // Before the copy, which it takes a while to be rid of.
    if sys::set_noatime_of_none() == Err(Errno::NOSYS) {
        return Err(Errno::NOSYS);
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let copy = open_tree(fd, c"", flags)?;
    sys::set_noatime(copy.as_fd())?;
    Ok(copy)
}
