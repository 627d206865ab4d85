//! mount(2), for kernels without fsopen(2). It returns no descriptor, so the new mount is found by
//! comparing the mounts before and after.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::readlink;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::diagnose;
use crate::error::{Cause, Reason};
use crate::procfs::{BPF, Directory, Mount, MountInfo, magic_link};

use super::attach::DETACH_TRIES;
use super::options::MountOptions;

pub(super) fn mount(
    place: &Directory,
    path: &Path,
    options: &MountOptions,
) -> Result<Directory, Reason> {
    // Nothing is mounted that could not be checked, or unmounted again.
    let mounts = MountInfo::own()?;
    let point = MountPoint {
        mount_id: place.mount_id()?,
        link: magic_link(place.fd.as_fd())?,
        before: mounts.read()?.bpffs(),
        mounts,
    };
    let (source, data) = (options.source_string(), options.to_data());
    let flags = options.mount_flags();
    rustix::mount::mount(&*source, &point.link, BPF, flags, &*data).map_err(|errno| {
        let cause = diagnose::mount(errno).or_else(|| diagnose::attach(errno));
        Reason::new(errno, cause)
    })?;
    point.check(path, options).inspect_err(|_| {
        // The first error is the one to report.
        let _ = point.unmount_new();
    })
}

/// A directory that mount(2) was called on.
struct MountPoint {
    /// Of the mount that it is in.
    mount_id: u64,
    /// Its path in a genuine /proc, below all that is mounted over it.
    link: PathBuf,
    mounts: MountInfo,
    /// The bpffs mounts before the call.
    before: Vec<Mount>,
}

impl MountPoint {
    fn check(&self, path: &Path, options: &MountOptions) -> Result<Directory, Reason> {
        let stack = self.stack()?;
        let [new] = &stack[..] else {
            return Err(Cause::LostRace.into());
        };
        if !self.is_new(new) {
            return Err(Cause::LostRace.into());
        }
        options.verify_shown(new)?;
        let top = match Directory::hold(path) {
            Ok(top) if new.mount_id == top.mount_id()? && top.is_mount_root(Some(new)) => top,
            Err(errno @ (Errno::MFILE | Errno::NFILE)) => return Err(Reason::errno_only(errno)),
            _ if self.stack()?.len() > 1 => return Err(Cause::LostRace.into()),
            _ => return Err(Cause::PathBypassesMount.into()),
        };
        options.verify_owner(top.fd.as_fd())?;
        options.verify_flags(top.fd.as_fd())?;
        Ok(top)
    }

    /// The mounts on the directory, from the bottom to the top. Opens no descriptor.
    fn stack(&self) -> Result<Vec<Mount>, Reason> {
        // The kernel's path for it, even if a directory on the way was renamed.
        let path = readlink(&self.link, Vec::new()).map_err(Reason::errno_only)?;
        let path = OsString::from_vec(path.into_bytes());
        let here = self.mounts.read()?.mounted_at(path.as_ref());
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

    /// The whole mount is compared, because the kernel reuses ids.
    fn is_new(&self, mount: &Mount) -> bool {
        mount.is_bpffs() && !self.before.contains(mount)
    }

    /// Unmounts from the top until no new mount is there.
    fn unmount_new(&self) -> Result<(), Reason> {
        for _ in 0..DETACH_TRIES {
            if !self.stack()?.iter().any(|mount| self.is_new(mount)) {
                return Ok(());
            }
            match unmount(&self.link, UnmountFlags::DETACH) {
                Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
                Err(errno) => return Err(Reason::errno_only(errno)),
            }
        }
        Err(Cause::LostRace.into())
    }
}
