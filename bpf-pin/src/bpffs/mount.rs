//! Mounting: fsopen(2), fsconfig(2), fsmount(2) and move_mount(2), or else mount(2).

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, fsconfig_create, fsmount, fsopen};

use crate::diagnose;
use crate::dir::PinDir;
use crate::error::{Error, Failed, Reason, Result};
use crate::mountinfo::BPF;
use crate::mounts::{Directory, from_root};
use crate::operation::MountOperation;

use super::attach;
use super::instance::Bpffs;
use super::options::{MountOptions, needs_mount, without_mount};

impl MountOptions {
    /// Mounts a new bpffs at `path`, over whatever is there: see [`Bpffs::ensure`] for one that
    /// covers nothing.
    ///
    /// The bpffs is made with fsopen(2), fsconfig(2) and fsmount(2) (Linux 5.2), read back, and only
    /// then attached, with move_mount(2); a source and a delegation are read back in mountinfo after
    /// that. Where one of these calls is missing (ENOSYS), or does not know
    /// [`nosymfollow`](Self::nosymfollow) (EINVAL), or a filter says so, mount(2) is used, and all is read
    /// back afterwards. That gives no descriptor of what it mounted, which is found in mountinfo as the one
    /// bpffs that is new on this directory: what others mount there in the same moment is taken away with
    /// it, and the error is [`Overtaken`](crate::Cause::Overtaken).
    ///
    /// # Errors
    ///
    /// [`Error::Mount`], and nothing is mounted:
    /// [`InvalidOption`](crate::Cause::InvalidOption), without a syscall;
    /// [`OptionIgnored`](crate::Cause::OptionIgnored) where the kernel is too old for an option;
    /// [`Missing`](crate::Cause::Missing), [`EmptyPath`](crate::Cause::EmptyPath) (ENOENT);
    /// [`NotADirectory`](crate::Cause::NotADirectory) (ENOTDIR); [`NameTooLong`](crate::Cause::NameTooLong),
    /// [`PathTooLong`](crate::Cause::PathTooLong) (ENAMETOOLONG); [`Blocked`](crate::Cause::Blocked) (EACCES);
    /// ELOOP, with [`SymbolicLink`](crate::Cause::SymbolicLink) on a mount that follows none;
    /// [`MissingCapability`](crate::Cause::MissingCapability), [`NeedsDelegation`](crate::Cause::NeedsDelegation)
    /// or [`ForeignMountNamespace`](crate::Cause::ForeignMountNamespace) (EPERM);
    /// [`MountTableFull`](crate::Cause::MountTableFull) (ENOSPC);
    /// [`LeadsPast`](crate::Cause::LeadsPast) where the path would not lead to what is mounted by it;
    /// [`NoProc`](crate::Cause::NoProc) where mountinfo is needed and is not to be had, as it is for a path with
    /// a symbolic link or ".." in it;
    /// [`InteriorNul`](crate::Cause::InteriorNul).
    ///
    /// # References
    ///
    /// [fsopen(2)](https://man7.org/linux/man-pages/man2/fsopen.2.html),
    /// [move_mount(2)](https://man7.org/linux/man-pages/man2/move_mount.2.html),
    /// kernel/bpf/inode.c: `bpf_parse_param`
    pub fn mount(&self, path: impl AsRef<Path>) -> Result<Bpffs> {
        let path = path.as_ref();
        self.mount_at(&from_root(path))
            .map_err(|reason| Error::Mount {
                operation: MountOperation::Mount,
                path: path.to_owned(),
                reason,
            })
    }

    fn mount_at(&self, path: &Path) -> Result<Bpffs, Reason> {
        self.check()?;
        let place = Directory::open(path)?;
        let moved = self.make().and_then(|fd| {
            let dev = attach::move_onto(fd.as_fd(), &place, path, self)?;
            Ok(Bpffs::known(fd, path, dev))
        });
        match moved {
            Err(reason) if needs_mount(&reason) => {
                let new = attach::mount_onto(&place, path, self)?;
                Ok(Bpffs::known(new.fd, path, new.stat.st_dev))
            }
            moved => moved,
        }
    }

    /// A new bpffs that is mounted nowhere: it is gone with its descriptor, unless it is
    /// [attached](Detached::attach). Linux 5.2.
    ///
    /// Pins can be made in it, by paths that begin with [`Detached::path`].
    ///
    /// Mode, owner and flags are read back. That a delegation took effect shows only once the mount
    /// is attached; until then it is known from the kernel's refusal of a bad value of the same
    /// option, which it would ignore if it did not know it.
    ///
    /// # Errors
    ///
    /// [`Error::Mount`] as [`mount`](Self::mount);
    /// [`Unsupported`](crate::Cause::Unsupported) (ENOSYS) where the kernel lacks fsopen(2), or (EINVAL) before
    /// Linux 5.14 with [`nosymfollow`](Self::nosymfollow); the errno alone where a filter may have said so.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{MapSpec, MapType, MountOptions};
    ///
    /// // Others see it when all is in place.
    /// let bpffs = MountOptions::new().mode(0o700).detached()?;
    /// MapSpec::new(MapType::HASH, 4, 8, 1024).create()?.pin(bpffs.path().join("flows"))?;
    /// bpffs.attach("/run/app/bpffs")?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn detached(&self) -> Result<Detached> {
        let made = self
            .check()
            .map_err(Reason::from)
            .and_then(|()| self.make());
        match made {
            Ok(fd) => Ok(Detached::new(fd, self.clone())),
            Err(reason) => Err(Error::Mount {
                operation: MountOperation::Make,
                path: PathBuf::new(),
                reason: without_mount(reason),
            }),
        }
    }

    pub(crate) fn make(&self) -> Result<OwnedFd, Reason> {
        let context = open_context()?;
        self.configure(context.as_fd())?;
        create(context.as_fd())?;
        self.take_mount(context.as_fd())
    }

    /// The mount of what was created from a context, read back.
    pub(crate) fn take_mount(&self, context: BorrowedFd<'_>) -> Result<OwnedFd, Reason> {
        let fsmount = |attributes| fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes);
        let mount = fsmount(self.attributes()).map_err(|errno| {
            let cause = self
                .refused_attribute(errno, fsmount)
                .or_else(|| diagnose::mount_namespace(errno));
            Reason::new(errno, cause)
        })?;
        self.verify(mount.as_fd())?;
        Ok(mount)
    }
}

pub(crate) fn open_context() -> Result<OwnedFd, Reason> {
    fsopen(BPF, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| {
        let cause = match errno {
            Errno::NOSYS => diagnose::missing_call("fsopen(2)"),
            _ => diagnose::mount_namespace(errno),
        };
        Reason::new(errno, cause)
    })
}

pub(crate) fn create(context: BorrowedFd<'_>) -> Result<(), Reason> {
    fsconfig_create(context).map_err(|errno| Reason::new(errno, diagnose::mount(errno)))
}

/// A bpffs that is mounted nowhere, see [`MountOptions::detached`]. Dropped, it is unmounted.
pub struct Detached {
    fd: OwnedFd,
    options: Box<MountOptions>,
}

impl Detached {
    pub(crate) fn new(fd: OwnedFd, options: MountOptions) -> Self {
        let options = Box::new(options);
        Self { fd, options }
    }

    /// `move_mount(2)`: attaches it at `path`, over whatever is there. Linux 5.2.
    ///
    /// The path must be in this process's mount namespace. What was pinned before is there.
    ///
    /// # Errors
    ///
    /// [`Error::Mount`] as [`MountOptions::mount`], with the bpffs, attached nowhere. It can be
    /// attached elsewhere, unless it was attached and taken off again: because mountinfo showed
    /// another source or delegation than was asked for, or for [`LeadsPast`](crate::Cause::LeadsPast).
    pub fn attach(self, path: impl AsRef<Path>) -> Result<Bpffs, Failed<Self>> {
        let path = path.as_ref();
        let from_root = from_root(path);
        let attached = Directory::open(&from_root).and_then(|place| {
            attach::move_onto(self.fd.as_fd(), &place, &from_root, &self.options)
        });
        match attached {
            Ok(dev) => Ok(Bpffs::known(self.fd, &from_root, dev)),
            Err(reason) => {
                let error = Error::Mount {
                    operation: MountOperation::Attach,
                    path: path.to_owned(),
                    reason,
                };
                Err(Failed::new(self, error))
            }
        }
    }

    /// Its root, to pin in.
    ///
    /// # Errors
    ///
    /// [`Error::Mount`]: EMFILE where the process has all the descriptors it may have.
    pub fn dir(&self) -> Result<PinDir> {
        let fail = |reason| Error::Mount {
            operation: MountOperation::Make,
            path: PathBuf::new(),
            reason,
        };
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0)
            .map_err(|errno| fail(Reason::errno_only(errno)))?;
        PinDir::from_fd(fd).map_err(|failed| failed.into())
    }

    /// A path to its root for this process, as long as this is not dropped: /proc/self/fd/N.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd()).into()
    }
}

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The mount lives as long as the descriptor, or until it is attached.
impl From<Detached> for OwnedFd {
    fn from(detached: Detached) -> Self {
        detached.fd
    }
}

impl fmt::Debug for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached")
            .field("fd", &self.fd.as_raw_fd())
            .finish_non_exhaustive()
    }
}
