//! A bpffs that is mounted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, UnmountFlags, open_tree, unmount};

use crate::cause::Cause;
use crate::diagnose;
use crate::dir::PinDir;
use crate::error::{Error, Failed, Reason, Result};
use crate::mountinfo::Mount;
use crate::mounts::{Directory, MountInfo, Table, mount_id, mount_of};
use crate::operation::MountOperation;

use super::allowed::Delegation;
use super::noatime::without_atime;

/// Where bpffs is usually mounted.
const USUAL_PLACE: &str = "/sys/fs/bpf";

/// A mounted bpffs: an `O_PATH` descriptor of a directory of it, and the path by which that was found.
///
/// The descriptor keeps the instance alive and reachable, whatever is mounted over the path later;
/// [`still_here`](Self::still_here) tells whether something was. It also keeps the mount busy, so that
/// others cannot unmount it: EBUSY.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::Bpffs;
///
/// let bpffs = Bpffs::default()?;
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
    /// The bpffs that `path`, a directory, is on. Symbolic links are followed.
    ///
    /// # Errors
    ///
    /// [`Error::Mount`]: [`NotBpffs`](Cause::NotBpffs), which names the file system that is there,
    /// and a bpffs that it hides;
    /// [`Missing`](Cause::Missing), [`EmptyPath`](Cause::EmptyPath) (ENOENT);
    /// [`NotADirectory`](Cause::NotADirectory) (ENOTDIR); [`NameTooLong`](Cause::NameTooLong),
    /// [`PathTooLong`](Cause::PathTooLong) (ENAMETOOLONG); [`Blocked`](Cause::Blocked) (EACCES);
    /// ELOOP, with [`SymbolicLink`](Cause::SymbolicLink) on a mount that follows none;
    /// [`InteriorNul`](Cause::InteriorNul), without a syscall. [`inspect`](Self::inspect) tells more.
    pub fn at(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match Self::find(path) {
            Ok(place) => Ok(Self::known(place.fd, path, place.stat.st_dev)),
            Err(reason) => Err(error(MountOperation::Find, path, reason)),
        }
    }

    /// The bpffs at /sys/fs/bpf.
    ///
    /// # Errors
    ///
    /// As [`at`](Self::at).
    #[allow(clippy::should_implement_trait, reason = "it may not be there")]
    pub fn default() -> Result<Self> {
        Self::at(USUAL_PLACE)
    }

    fn find(path: &Path) -> Result<Directory, Reason> {
        Ok(Directory::open(path)?.on_bpffs(path)?)
    }

    pub(crate) fn known(fd: OwnedFd, path: &Path, dev: u64) -> Self {
        let path = path.to_owned();
        Self { fd, path, dev }
    }

    /// The path as it was given; where it was mounted by this crate from the root, if such a path leads
    /// there.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The `st_dev` of all its files: no other living file system has it.
    pub fn dev(&self) -> u64 {
        self.dev
    }

    /// The directory by which it was found, to pin in.
    ///
    /// # Errors
    ///
    /// [`Error::Mount`]: EMFILE where the process has all the descriptors it may have.
    pub fn dir(&self) -> Result<PinDir> {
        let fail = |reason| error(MountOperation::Find, &self.path, reason);
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0)
            .map_err(|errno| fail(Reason::errno_only(errno)))?;
        PinDir::of_bpffs(fd, &self.path).map_err(|nul| fail(nul.into()))
    }

    /// The same, and this no more; what is opened in it keeps its time of last access where that can
    /// be. `mount` must be the one that it was found through.
    pub(crate) fn into_dir_without_atime(self, mount: &Mount) -> Result<PinDir> {
        let Self { fd, path, .. } = self;
        let fd = without_atime(fd, mount);
        PinDir::of_bpffs(fd, &path).map_err(|nul| error(MountOperation::Find, &path, nul.into()))
    }

    /// Whether the path still leads to this instance.
    ///
    /// # Errors
    ///
    /// [`Error::Mount`]: [`AnotherInstance`](Cause::AnotherInstance) where it leads to another bpffs,
    /// because one was mounted over it, say; [`NotBpffs`](Cause::NotBpffs) where it leads to another
    /// file system; [`Missing`](Cause::Missing) (ENOENT) and the like where it leads nowhere.
    pub fn still_here(&self) -> Result<()> {
        match self.look_again() {
            Ok(_) => Ok(()),
            Err(reason) => Err(error(MountOperation::Find, &self.path, reason)),
        }
    }

    fn look_again(&self) -> Result<Directory, Reason> {
        let now = Self::find(&self.path)?;
        let (expected, found) = (self.dev, now.stat.st_dev);
        match expected == found {
            true => Ok(now),
            false => Err(Cause::AnotherInstance { expected, found }.into()),
        }
    }

    /// The mount that it was found through: `statmount(2)`, from Linux 6.13 on, or its line of mountinfo.
    ///
    /// # Errors
    ///
    /// [`Error::Mount`]: [`NotListed`](Cause::NotListed) where mountinfo has it not: it is attached
    /// nowhere, in another mount namespace, or above this process's root;
    /// [`NoProc`](Cause::NoProc).
    pub fn mount(&self) -> Result<Mount> {
        let find = || {
            let fd = self.fd.as_fd();
            match mount_of(fd, &MountInfo::own()?)? {
                Some(mount) => Ok(mount),
                None => Err(Cause::NotListed {
                    mount_id: mount_id(fd)?,
                }
                .into()),
            }
        };
        find().map_err(|reason| error(MountOperation::ReadMounts, &self.path, reason))
    }

    /// What it delegates, as mountinfo shows it: nothing, as a rule. Linux 6.9; before, nothing at all.
    ///
    /// # Errors
    ///
    /// As [`mount`](Self::mount).
    pub fn delegation(&self) -> Result<Delegation> {
        Ok(Delegation::of(&self.mount()?))
    }

    /// The mounts of type bpf in this thread's mount namespace, those included that are covered by
    /// others.
    ///
    /// It is read from `/proc/thread-self/mountinfo`, which leaves out what is mounted outside of this
    /// process's root. The list is that of one moment. Where mounts come and go faster than it can be
    /// read, it is read up to eight times, and then holds at least those that were there all the
    /// time.
    ///
    /// # Errors
    ///
    /// [`Error::Mount`] with [`NoProc`](Cause::NoProc).
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
        MountInfo::own()
            .and_then(|mounts| mounts.select_bpffs(|_| true))
            .map_err(read_error)
    }

    /// Those, and where all others are.
    pub(crate) fn table() -> Result<Table> {
        MountInfo::own()
            .and_then(|mounts| mounts.table())
            .map_err(read_error)
    }

    /// `umount2(2)` of the path, if it leads to the mount that this was found through. Linux 5.2.
    ///
    /// With the last mount all pins are gone. The kernel has no call that checks and unmounts: what
    /// somebody else mounts over the path between the two is unmounted in its stead.
    ///
    /// # Errors
    ///
    /// [`Error::Mount`], with the bpffs, still mounted: [`InUse`](Cause::InUse) (EBUSY);
    /// [`AnotherInstance`](Cause::AnotherInstance), [`NotBpffs`](Cause::NotBpffs) or
    /// [`Missing`](Cause::Missing) where the path leads elsewhere by now, or
    /// [`AnotherMount`](Cause::AnotherMount) of the same instance, as one that was bind-mounted over it;
    /// [`NotTheRoot`](Cause::NotTheRoot) where it is a directory within the bpffs;
    /// [`MissingCapability`](Cause::MissingCapability) (EPERM); [`NoProc`](Cause::NoProc);
    /// [`Unsupported`](Cause::Unsupported) (ENOSYS) where the kernel lacks open_tree(2), by which it is
    /// kept for a failure, and ENOSYS alone where a filter may have said so;
    /// EINVAL where the path is a symbolic link, or the mount came with a mount namespace of less
    /// privilege; EINVAL too where the mount is unbindable.
    pub fn unmount(self) -> Result<(), Failed<Self>> {
        let (copy, mount) = match self.prepare_unmount() {
            Ok(both) => both,
            Err(reason) => {
                let error = error(MountOperation::Unmount, &self.path, reason);
                return Err(Failed::new(self, error));
            }
        };
        let Self { fd, path, dev } = self;
        drop(fd);
        let Err(errno) = unmount(&path, UnmountFlags::NOFOLLOW) else {
            return Ok(());
        };
        // What the path leads to, or else the copy: nothing is lost.
        let same = |place: &Directory| place.mount_id().is_ok_and(|id| id == mount.mount_id);
        let again = Directory::open(&path).ok().filter(same);
        let this = Self {
            fd: again.map_or(copy, |place| place.fd),
            dev,
            path,
        };
        let reason = Reason::new(errno, why_not_unmounted(errno, &mount));
        let error = error(MountOperation::Unmount, &this.path, reason);
        Err(Failed::new(this, error))
    }

    /// A copy of the mount, which keeps the instance alive and the mount not busy, and the mount.
    fn prepare_unmount(&self) -> Result<(OwnedFd, Mount), Reason> {
        let now = self.look_again()?;
        let (expected, found) = (mount_id(self.fd.as_fd())?, now.mount_id()?);
        if expected != found {
            return Err(Cause::AnotherMount { expected, found }.into());
        }
        let mount = now.listed_mount(&MountInfo::own()?)?;
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

#[cold]
fn read_error(reason: Reason) -> Error {
    error(MountOperation::ReadMounts, Path::new(""), reason)
}

/// What keeps a mount busy is told as far as it is a mount.
#[cold]
fn why_not_unmounted(errno: Errno, mount: &Mount) -> Option<Cause> {
    if errno != Errno::BUSY {
        return diagnose::mount_namespace(errno);
    }
    let within = MountInfo::own().and_then(|mounts| {
        mounts.select(|line| line.parent_id == mount.mount_id && line.mount_id != mount.mount_id)
    });
    let mounted = within.unwrap_or_default().pop();
    Some(Cause::InUse {
        mounted: mounted.map(|mount| mount.mount_point),
    })
}

pub(crate) fn error(operation: MountOperation, path: &Path, reason: Reason) -> Error {
    Error::Mount {
        operation,
        path: path.to_owned(),
        reason,
    }
}

impl AsFd for Bpffs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Bpffs> for OwnedFd {
    fn from(bpffs: Bpffs) -> Self {
        bpffs.fd
    }
}
