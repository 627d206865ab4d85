//! Mounting with fsopen(2), fsconfig(2), fsmount(2) and move_mount(2), or else with mount(2).

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, fsconfig_create, fsmount, fsopen};

use crate::diagnose;
use crate::error::{Failed, Operation, Reason, Result};
use crate::process::is_filtered;
use crate::procfs::{BPF, Directory, from_root};

use super::attach::attach;
use super::fallback;
use super::instance::{Bpffs, error};
use super::options::{MountOptions, lacks_nosymfollow, needs_mount};

impl MountOptions {
    /// Mounts a new bpffs at `path`, over whatever is there. [`Bpffs::ensure`] mounts one only if none is
    /// there.
    ///
    /// Creates the bpffs with fsopen(2), fsconfig(2) and fsmount(2) (Linux 5.2), reads its options back,
    /// and only then attaches it with move_mount(2). A source and a delegation are read back in mountinfo
    /// after that.
    ///
    /// # Older kernels
    ///
    /// If one of these calls is missing (ENOSYS, also from a seccomp filter), or does not know
    /// [`nosymfollow`](Self::nosymfollow) (EINVAL), mount(2) is used and all options are read back
    /// afterwards. mount(2) returns no descriptor, so the new mount is found in mountinfo: the only bpffs
    /// that was mounted on the directory during the call. If others mount there at the same moment, all
    /// bpffs that were mounted on it are removed and the error is
    /// [`LostRace`](crate::error::Cause::LostRace).
    ///
    /// # Errors
    ///
    /// [`Operation::MountBpffs`](crate::error::Operation::MountBpffs), and nothing is mounted:
    /// - [`InvalidArgument`](crate::error::Cause::InvalidArgument), without a syscall
    /// - [`OptionIgnored`](crate::error::Cause::OptionIgnored) if the kernel is too old for an option
    /// - [`Missing`](crate::error::Cause::Missing), [`InvalidPath`](crate::error::Cause::InvalidPath) (ENOENT)
    /// - [`NotADirectory`](crate::error::Cause::NotADirectory) (ENOTDIR)
    /// - [`TooLong`](crate::error::Cause::TooLong)
    ///   (ENAMETOOLONG)
    /// - [`Blocked`](crate::error::Cause::Blocked) (EACCES)
    /// - ELOOP, with [`SymbolicLink`](crate::error::Cause::SymbolicLink) on a mount that follows none
    /// - [`MissingCapability`](crate::error::Cause::MissingCapability),
    ///   [`NeedsDelegation`](crate::error::Cause::NeedsDelegation) or
    ///   [`ForeignUserNamespace`](crate::error::Cause::ForeignUserNamespace) (EPERM)
    /// - [`MountTableFull`](crate::error::Cause::MountTableFull) (ENOSPC)
    /// - [`PathBypassesMount`](crate::error::Cause::PathBypassesMount) if the path would bypass the mount
    /// - [`NoProc`](crate::error::Cause::NoProc) if mountinfo is needed, as it is for a path with a symbolic link
    ///   or ".." in it
    /// - [`InvalidPath`](crate::error::Cause::InvalidPath)
    ///
    /// # References
    ///
    /// [fsopen(2)](https://man7.org/linux/man-pages/man2/fsopen.2.html),
    /// [move_mount(2)](https://man7.org/linux/man-pages/man2/move_mount.2.html),
    /// kernel/bpf/inode.c: `bpf_parse_param`
    pub fn mount(&self, path: impl AsRef<Path>) -> Result<Bpffs> {
        let path = path.as_ref();
        self.mount_at(&from_root(path))
            .map_err(|reason| error(Operation::MountBpffs, path, reason))
    }

    fn mount_at(&self, path: &Path) -> Result<Bpffs, Reason> {
        self.check()?;
        self.mount_on(&Directory::open(path)?, path, None)
    }

    /// Mounts a new bpffs on `target`. For `path` and `parent` see [`attach`].
    pub(super) fn mount_on(
        &self,
        target: &Directory,
        path: &Path,
        parent: Option<u64>,
    ) -> Result<Bpffs, Reason> {
        let attached = self.create_mount().and_then(|fd| {
            let dev = attach(fd.as_fd(), target, path, self, parent)?;
            Ok(Bpffs::known(fd, path, dev))
        });
        match attached {
            Err(reason) if needs_mount(&reason) => {
                let new = fallback::mount(target, path, self)?;
                Ok(Bpffs::known(new.fd, path, new.stat.st_dev))
            }
            attached => attached,
        }
    }

    /// Creates a bpffs without attaching it anywhere: dropping the descriptor frees it, unless it was
    /// [attached](Detached::attach). Linux 5.2.
    ///
    /// Objects can be pinned in it, by paths that begin with [`Detached::path`].
    ///
    /// Mode, owner and flags are read back. A delegation is visible only once the mount is attached. Until
    /// then the proof is that the kernel rejects a bad value of the same option: it ignores options that it
    /// does not know.
    ///
    /// # Errors
    ///
    /// [`Operation::CreateBpffs`](crate::error::Operation::CreateBpffs) as [`mount`](Self::mount), and
    /// [`Unsupported`](crate::error::Cause::Unsupported) if the kernel lacks fsopen(2) (ENOSYS), or with
    /// [`nosymfollow`](Self::nosymfollow) before Linux 5.14 (EINVAL). If a seccomp filter may have answered:
    /// the errno alone.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::bpffs::MountOptions;
    /// use bpf_pin::{MapSpec, MapType};
    ///
    /// // Other processes see the bpffs only when it is complete.
    /// let bpffs = MountOptions::new().detached()?;
    /// MapSpec::new(MapType::HASH, 4, 8, 1024).create()?.pin(bpffs.path().join("flows"))?;
    /// bpffs.attach("/run/app/bpffs")?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn detached(&self) -> Result<Detached> {
        let checked = self.check().map_err(Reason::from);
        match checked.and_then(|()| self.create_mount()) {
            Ok(fd) => Ok(Detached::new(fd, self.clone())),
            Err(mut reason) => {
                // A seccomp filter may have answered instead of the kernel.
                if lacks_nosymfollow(&reason) && is_filtered() {
                    reason = Reason::errno_only(Errno::INVAL);
                }
                Err(error(Operation::CreateBpffs, Path::new(""), reason))
            }
        }
    }

    fn create_mount(&self) -> Result<OwnedFd, Reason> {
        let context = open_context()?;
        self.configure(context.as_fd())?;
        create(context.as_fd())?;
        let mount = self
            .take_mount(context.as_fd())
            .map_err(|reason| self.explain_fsmount(reason))?;
        self.verify_owner(mount.as_fd())?;
        Ok(mount)
    }

    /// Returns the mount of the bpffs that was created from a context, and checks its flags.
    pub(super) fn take_mount(&self, context: BorrowedFd<'_>) -> Result<OwnedFd, Reason> {
        let mount = fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, self.flags())
            .map_err(|errno| Reason::new(errno, diagnose::mount_namespace(errno)))?;
        self.verify_flags(mount.as_fd())?;
        Ok(mount)
    }
}

pub(super) fn open_context() -> Result<OwnedFd, Reason> {
    fsopen(BPF, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| {
        let cause = match errno {
            Errno::NOSYS => diagnose::missing_call("fsopen(2)"),
            _ => diagnose::mount_namespace(errno),
        };
        Reason::new(errno, cause)
    })
}

pub(super) fn create(context: BorrowedFd<'_>) -> Result<(), Reason> {
    fsconfig_create(context).map_err(|errno| Reason::new(errno, diagnose::mount(errno)))
}

/// A bpffs that is not attached anywhere, from [`MountOptions::detached`].
///
/// The mount lives as long as its descriptor, or until it is attached. Dropping it frees it.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::bpffs::MountOptions;
///
/// let detached = MountOptions::new().mode(0o750).detached()?;
/// let bpffs = detached.attach("/run/app/bpffs")?;
/// println!("attached at {}", bpffs.path().display());
/// # Ok::<(), bpf_pin::Error>(())
/// ```
pub struct Detached {
    fd: OwnedFd,
    options: Box<MountOptions>,
}

impl Detached {
    pub(super) fn new(fd: OwnedFd, options: MountOptions) -> Self {
        let options = Box::new(options);
        Self { fd, options }
    }

    /// `move_mount(2)`: attaches the bpffs at `path`, over whatever is there. Linux 5.2.
    ///
    /// The path must be in this thread's mount namespace. Pins made before are kept.
    ///
    /// # Errors
    ///
    /// [`Operation::AttachBpffs`](crate::error::Operation::AttachBpffs) with the causes of
    /// [`MountOptions::mount`]. The error returns the detached bpffs. It can be attached elsewhere, unless
    /// this call attached it and detached it again: that happens if mountinfo shows another source or
    /// delegation, and with [`PathBypassesMount`](crate::error::Cause::PathBypassesMount).
    pub fn attach(self, path: impl AsRef<Path>) -> Result<Bpffs, Failed<Self>> {
        let path = path.as_ref();
        let from_root = from_root(path);
        let attached = Directory::open(&from_root)
            .and_then(|target| attach(self.fd.as_fd(), &target, &from_root, &self.options, None));
        match attached {
            Ok(dev) => Ok(Bpffs::known(self.fd, &from_root, dev)),
            Err(reason) => {
                let error = error(Operation::AttachBpffs, path, reason);
                Err(Failed::new(self, error))
            }
        }
    }

    /// Returns a path of the root, /proc/self/fd/N. It is valid for this process until this is dropped.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd()).into()
    }
}

crate::error::owns_fd!(Detached);

impl fmt::Debug for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached")
            .field("fd", &self.fd.as_raw_fd())
            .finish_non_exhaustive()
    }
}
