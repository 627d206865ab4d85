//! A mounted bpffs.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
#[cfg(feature = "mount")]
use rustix::mount::{OpenTreeFlags, UnmountFlags, open_tree, unmount};

use crate::diagnose;
use crate::error::{Cause, Error, Failed, Operation, Reason, Result};
use crate::procfs::{Directory, Mount, MountInfo, MountTable, mount_id};
use crate::token::Delegation;

use super::directory::listed_mount;

/// Where bpffs is usually mounted.
const SYSTEM_PATH: &str = "/sys/fs/bpf";

/// A mounted bpffs: an `O_PATH` descriptor of one of its directories, and the directory's path.
///
/// The descriptor keeps the instance alive and reachable even if something is mounted over the path later,
/// which [`still_here`](Self::still_here) detects. It also keeps the mount busy: others cannot unmount it
/// (EBUSY).
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::Bpffs;
///
/// let bpffs = Bpffs::system()?;
/// println!("{} is device {}", bpffs.path().display(), bpffs.dev());
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug)]
pub struct Bpffs {
    fd: OwnedFd,
    path: PathBuf,
    dev: u64,
}

impl Bpffs {
    /// Opens the bpffs that the directory `path` is on. Follows symbolic links.
    ///
    /// # Errors
    ///
    /// [`Operation::FindBpffs`](crate::error::Operation::FindBpffs). [`inspect`](Self::inspect) returns more
    /// details:
    /// - [`NotBpffs`](Cause::NotBpffs) with the file system that is there, and a bpffs that it shadows
    /// - [`Missing`](Cause::Missing), [`InvalidPath`](Cause::InvalidPath) (ENOENT)
    /// - [`NotADirectory`](Cause::NotADirectory) (ENOTDIR)
    /// - [`TooLong`](Cause::TooLong) (ENAMETOOLONG)
    /// - [`Blocked`](Cause::Blocked) (EACCES)
    /// - ELOOP, with [`SymbolicLink`](Cause::SymbolicLink) on a mount that follows none
    /// - [`InvalidPath`](Cause::InvalidPath), without a syscall
    pub fn at(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match Self::find(path) {
            Ok(root) => Ok(Self::known(root.fd, path, root.stat.st_dev)),
            Err(reason) => Err(error(Operation::FindBpffs, path, reason)),
        }
    }

    /// Opens the bpffs at /sys/fs/bpf, where it is usually mounted.
    ///
    /// # Errors
    ///
    /// As [`at`](Self::at).
    pub fn system() -> Result<Self> {
        Self::at(SYSTEM_PATH)
    }

    fn find(path: &Path) -> Result<Directory, Reason> {
        Ok(Directory::open(path)?.on_bpffs(path)?)
    }

    pub(crate) fn known(fd: OwnedFd, path: &Path, dev: u64) -> Self {
        let path = path.to_owned();
        Self { fd, path, dev }
    }

    /// Returns the path that the caller passed. For a bpffs that this library mounted, it is the path from the
    /// root, if there is one.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the `st_dev` that all its files share. It is unique among the file systems that exist.
    pub fn dev(&self) -> u64 {
        self.dev
    }

    /// Checks that the path still leads to this instance.
    ///
    /// # Errors
    ///
    /// [`Operation::FindBpffs`](crate::error::Operation::FindBpffs):
    /// - [`AnotherInstance`](Cause::AnotherInstance) if it leads to another bpffs, as after a mount over it
    /// - [`NotBpffs`](Cause::NotBpffs) if it leads to another file system
    /// - [`Missing`](Cause::Missing) (ENOENT) and the other causes of [`at`](Self::at) if it leads nowhere
    pub fn still_here(&self) -> Result<()> {
        let reopened = self.reopen().map(drop);
        reopened.map_err(|reason| error(Operation::FindBpffs, &self.path, reason))
    }

    fn reopen(&self) -> Result<Directory, Reason> {
        let now = Self::find(&self.path)?;
        let (expected, found) = (self.dev, now.stat.st_dev);
        if expected != found {
            return Err(Cause::AnotherInstance { expected, found }.into());
        }
        Ok(now)
    }

    /// Returns the mount that it was opened through: `statmount(2)`, Linux 6.13, or a line of mountinfo.
    ///
    /// # Errors
    ///
    /// [`Operation::ReadMounts`](crate::error::Operation::ReadMounts):
    /// - [`NotListed`](Cause::NotListed) if mountinfo does not list it: it is attached nowhere, in another
    ///   mount namespace, or above this process's root
    /// - [`NoProc`](Cause::NoProc)
    pub fn mount(&self) -> Result<Mount> {
        let find = || listed_mount(self.fd.as_fd(), &MountInfo::own()?);
        find().map_err(|reason: Reason| error(Operation::ReadMounts, &self.path, reason))
    }

    /// Returns the delegation from its mount options, usually nothing. Linux 6.9; before, always nothing.
    ///
    /// # Errors
    ///
    /// As [`mount`](Self::mount).
    pub fn delegation(&self) -> Result<Delegation> {
        Ok(Delegation::of(&self.mount()?))
    }

    /// Returns the bpffs mounts of this thread's mount namespace, including those under other mounts.
    ///
    /// Reads `/proc/thread-self/mountinfo`, which lacks mounts outside of this process's root.
    ///
    /// # Races
    ///
    /// The list is a snapshot of one moment. If mounts come and go faster than it can be read, it is read up
    /// to eight times. It then holds at least the mounts that existed during the whole reading.
    ///
    /// # Errors
    ///
    /// [`Operation::ReadMounts`](crate::error::Operation::ReadMounts) with [`NoProc`](Cause::NoProc).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::Bpffs;
    ///
    /// for mount in Bpffs::mounts()? {
    ///     println!("{} (mount {})", mount.mount_point.display(), mount.mount_id);
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn mounts() -> Result<Vec<Mount>> {
        Ok(Self::mount_table()?.bpffs())
    }

    pub(crate) fn mount_table() -> Result<MountTable> {
        let table = MountInfo::own().and_then(|mounts| mounts.read());
        table.map_err(|reason| error(Operation::ReadMounts, Path::new(""), reason))
    }

    /// `umount2(2)`: unmounts the path, if it leads to the mount that this was opened through. Linux 5.2.
    ///
    /// Unmounting the last mount of the bpffs frees all its pins.
    ///
    /// # Races
    ///
    /// The kernel cannot check and unmount in one step. If another process mounts something over the path in
    /// between, that mount is unmounted instead.
    ///
    /// # Errors
    ///
    /// [`Operation::UnmountBpffs`](crate::error::Operation::UnmountBpffs). The error returns the bpffs, which
    /// is still mounted:
    /// - [`InUse`](Cause::InUse) (EBUSY)
    /// - [`AnotherInstance`](Cause::AnotherInstance), [`NotBpffs`](Cause::NotBpffs) or
    ///   [`Missing`](Cause::Missing) if the path now leads elsewhere
    /// - [`AnotherMount`](Cause::AnotherMount) if it leads to another mount of the same instance, as after a
    ///   bind mount over it
    /// - [`NotTheRoot`](Cause::NotTheRoot) if it is a directory within the bpffs
    /// - [`MissingCapability`](Cause::MissingCapability) (EPERM)
    /// - [`NoProc`](Cause::NoProc)
    /// - [`Unsupported`](Cause::Unsupported) if the kernel lacks open_tree(2) (ENOSYS), which preserves the
    ///   instance in case of a failure. Only the errno if a seccomp filter may have answered
    /// - EINVAL if the path is a symbolic link, if the mount is unbindable, or if it was inherited from a
    ///   more privileged mount namespace
    #[cfg(feature = "mount")]
    pub fn unmount(self) -> Result<(), Failed<Self>> {
        let (copy, mount) = match self.prepare_unmount() {
            Ok(both) => both,
            Err(reason) => {
                let error = error(Operation::UnmountBpffs, &self.path, reason);
                return Err(Failed::new(self, error));
            }
        };
        let Self { fd, path, dev } = self;
        drop(fd);
        let Err(errno) = unmount(&path, UnmountFlags::NOFOLLOW) else {
            return Ok(());
        };
        // If the path leads elsewhere now, the copy keeps the instance.
        let same = |now: &Directory| now.mount_id().is_ok_and(|id| id == mount.mount_id);
        let reopened = Directory::open(&path).ok().filter(same);
        let this = Self {
            fd: reopened.map_or(copy, |now| now.fd),
            dev,
            path,
        };
        let reason = Reason::new(errno, explain_unmount(errno, &mount));
        let error = error(Operation::UnmountBpffs, &this.path, reason);
        Err(Failed::new(this, error))
    }

    /// Returns a copy of the mount, and the mount. The copy keeps the instance alive without keeping the mount
    /// busy.
    #[cfg(feature = "mount")]
    fn prepare_unmount(&self) -> Result<(OwnedFd, Mount), Reason> {
        let now = self.reopen()?;
        let (expected, found) = (mount_id(self.fd.as_fd())?, now.mount_id()?);
        if expected != found {
            return Err(Cause::AnotherMount { expected, found }.into());
        }
        let mount = listed_mount(now.fd.as_fd(), &MountInfo::own()?)?;
        if !now.is_mount_root(Some(&mount)) {
            let cause = Cause::NotTheRoot {
                path: Some(self.path.clone()),
                mount_point: Some(mount.mount_point),
            };
            return Err(cause.into());
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let copy = open_tree(&now.fd, c"", flags).map_err(|errno| {
            let cause = match errno {
                Errno::NOSYS => diagnose::missing_call("open_tree(2)"),
                _ => diagnose::mount_namespace(errno),
            };
            Reason::new(errno, cause)
        })?;
        Ok((copy, mount))
    }
}

/// A mount can be busy for many reasons. This only finds mounts in it.
#[cold]
#[cfg(feature = "mount")]
fn explain_unmount(errno: Errno, mount: &Mount) -> Option<Cause> {
    if errno != Errno::BUSY {
        return diagnose::mount_namespace(errno);
    }
    let table = MountInfo::own().and_then(|mounts| mounts.read());
    let within = table
        .unwrap_or_default()
        .select(|line| line.parent_id == mount.mount_id && line.mount_id != mount.mount_id);
    let mounted = within.into_iter().next_back();
    Some(Cause::InUse {
        mounted: mounted.map(|mount| mount.mount_point),
    })
}

#[cold]
pub(crate) fn error(operation: Operation, path: &Path, reason: impl Into<Reason>) -> Error {
    Error::new(operation, reason.into()).at(path)
}

crate::error::owns_fd!(Bpffs);
