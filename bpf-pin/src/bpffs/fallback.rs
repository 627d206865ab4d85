//! mount(2), for kernels without fsopen(2). It returns no descriptor, so the new mount is found in mountinfo.

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
    target: &Directory,
    path: &Path,
    options: &MountOptions,
) -> Result<Directory, Reason> {
    // Prepare everything that the checks and unmounting need before anything is mounted.
    let point = MountPoint {
        mount_id: target.mount_id()?,
        link: magic_link(target.fd.as_fd())?,
        mounts: MountInfo::own()?,
    };
    // Every bpffs that is mounted there later is new.
    if !point.stack()?.is_empty() {
        return Err(Cause::LostRace.into());
    }
    let (source, data) = (options.source_or_default(), options.to_data());
    let flags = options.mount_flags();
    rustix::mount::mount(source, &point.link, BPF, flags, &*data).map_err(|errno| {
        let cause = diagnose::mount(errno).or_else(|| diagnose::attach(errno));
        Reason::new(errno, cause)
    })?;
    point.check(path, options).inspect_err(|_| {
        // The first error is the one to report.
        let _ = point.unmount_all();
    })
}

/// A directory with nothing mounted on it, which is the target of mount(2).
struct MountPoint {
    /// The mount that the directory is in.
    mount_id: u64,
    /// Its path in a genuine /proc, which leads below any mount on it.
    link: PathBuf,
    mounts: MountInfo,
}

impl MountPoint {
    fn check(&self, path: &Path, options: &MountOptions) -> Result<Directory, Reason> {
        let stack = self.stack()?;
        let new = match &stack[..] {
            [new] if new.is_bpffs() => new,
            _ => return Err(Cause::LostRace.into()),
        };
        options.verify_mountinfo(new)?;
        let root = match Directory::hold(path) {
            Ok(root) if new.mount_id == root.mount_id()? && root.is_mount_root(Some(new)) => root,
            Err(errno @ (Errno::MFILE | Errno::NFILE)) => return Err(Reason::errno_only(errno)),
            _ if self.stack()?.len() > 1 => return Err(Cause::LostRace.into()),
            _ => return Err(Cause::PathBypassesMount.into()),
        };
        options.verify_owner(root.fd.as_fd())?;
        options.verify_flags(root.fd.as_fd())?;
        Ok(root)
    }

    /// The mounts on the directory, from the bottom to the top. Opens no descriptor.
    fn stack(&self) -> Result<Vec<Mount>, Reason> {
        // The kernel returns the current path, even if a directory on the way was renamed.
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

    /// Unmounts from the top until no bpffs is left on the directory.
    fn unmount_all(&self) -> Result<(), Reason> {
        for _ in 0..DETACH_TRIES {
            if !self.stack()?.iter().any(Mount::is_bpffs) {
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
