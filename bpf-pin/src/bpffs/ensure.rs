//! Mounts a bpffs at a path only if none is there, once for all callers.

use std::os::fd::AsFd;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::error::{Cause, Operation, Reason, Result};
use crate::procfs::{Directory, Mount, MountInfo, MountTable, ShadowedBpffs, from_root, statmount};
use crate::sys::FileLock;

use super::instance::{Bpffs, error};
use super::options::MountOptions;

/// The result of [`Bpffs::ensure`]: the bpffs, and how it came about.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::bpffs::MountOptions;
/// use bpf_pin::Bpffs;
///
/// let outcome = Bpffs::ensure("/sys/fs/bpf", &MountOptions::new())?;
/// println!("new: {}, device {}", outcome.is_new(), outcome.bpffs().dev());
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug)]
pub struct MountOutcome {
    bpffs: Bpffs,
    is_new: bool,
    in_process_1: Option<Box<Mount>>,
}

impl MountOutcome {
    /// Returns the bpffs.
    pub fn bpffs(&self) -> &Bpffs {
        &self.bpffs
    }

    /// Returns the bpffs.
    pub fn into_bpffs(self) -> Bpffs {
        self.bpffs
    }

    /// Returns true if this call mounted it, with the options. Otherwise it existed, with any options.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Returns another bpffs, which process 1 has at this path in its mount namespace and this thread does
    /// not see.
    ///
    /// `ip netns exec` and `unshare -m` create such namespaces. Processes outside of this mount namespace do
    /// not see the pins in [`bpffs`](Self::bpffs), and with its last process they are lost.
    /// [`MountOptions::refuse_second_bpffs`] makes it an error.
    ///
    /// None if this thread may not read the mounts of process 1.
    pub fn in_process_1(&self) -> Option<&Mount> {
        self.in_process_1.as_deref()
    }
}

/// How often to retry if other processes mount and unmount there.
const TRIES: usize = 64;
/// How often to retry if the path seems to bypass the new mount. It may only seem so while others mount.
const BYPASS_RETRIES: usize = 2;
const PAUSE: Duration = Duration::from_millis(2);
/// How long to wait for the lock: there may be many callers on a busy machine.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a mount that covers another may exist before it is removed again.
const SETTLE_TIME: Duration = Duration::from_secs(5);

impl Bpffs {
    /// Mounts a bpffs at `path`, an existing directory, unless one is mounted exactly there.
    ///
    /// It never covers another mount. The path may lead into a mount that begins above this process's root,
    /// as after chroot(2). The options of an existing bpffs are not compared: see [`mount`](Self::mount) and
    /// [`inspect`](Self::inspect).
    ///
    /// In a mount namespace of its own, as under `ip netns exec` or `unshare -m`, this mounts a bpffs that
    /// only this namespace sees: check [`MountOutcome::in_process_1`], or set
    /// [`MountOptions::refuse_second_bpffs`].
    ///
    /// # Races
    ///
    /// It mounts once even if many processes call it at the same moment: they take turns with flock(2) on
    /// the directory. If another process holds the lock for more than ten seconds, or the directory may not
    /// be read, it mounts without the lock. If the new mount then turns out to cover another, it is removed
    /// again, with any mount that was mounted on top of it in that moment.
    ///
    /// The kernel cannot mount only if nothing is mounted. If the process is killed after it has mounted
    /// without the lock, and before it has removed a mount that covers another, both stay. The upper bpffs
    /// hides the pins of the lower one: [`inspect`](Self::inspect) lists it in `covers`, and
    /// [`unmount`](Self::unmount) of the upper one shows it again.
    ///
    /// An existing bpffs that covers another may be about to be removed that way. It is returned only once it
    /// has existed for five seconds.
    ///
    /// # Errors
    ///
    /// [`Operation::MountBpffs`](crate::error::Operation::MountBpffs), and nothing is mounted:
    /// - [`Occupied`](Cause::Occupied) if another file system is mounted exactly there
    /// - [`NotTheRoot`](Cause::NotTheRoot) if the path is a directory within a bpffs
    /// - [`PathBypassesMount`](Cause::PathBypassesMount) if the path would bypass the mount
    /// - [`LostRace`](Cause::LostRace) if others keep mounting and unmounting there
    /// - [`NotListed`](Cause::NotListed) if the path leads to a mount that is attached nowhere
    /// - EINVAL if the path leads into another mount namespace
    /// - [`Missing`](Cause::Missing) if the directory does not exist
    /// - [`Shadowed`](Cause::Shadowed) with [`MountOptions::refuse_second_bpffs`]
    /// - [`NoProc`](Cause::NoProc), and the causes of [`MountOptions::mount`]
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::bpffs::MountOptions;
    /// use bpf_pin::Bpffs;
    ///
    /// // The kernel provides /sys/fs/bpf. Any other directory must be created first.
    /// std::fs::create_dir_all("/run/app/bpf")?;
    /// let outcome = Bpffs::ensure("/run/app/bpf", &MountOptions::new())?;
    /// if let Some(other) = outcome.in_process_1() {
    ///     eprintln!("pins here are private: the system has mount {}", other.mount_id);
    /// }
    /// let bpffs = outcome.into_bpffs();
    /// println!("device {}", bpffs.dev());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ensure(path: impl AsRef<Path>, options: &MountOptions) -> Result<MountOutcome> {
        let path = path.as_ref();
        ensure(&from_root(path), options)
            .map_err(|reason| error(Operation::MountBpffs, path, reason))
    }
}

fn ensure(path: &Path, options: &MountOptions) -> Result<MountOutcome, Reason> {
    options.check()?;
    let lock_deadline = Instant::now() + LOCK_TIMEOUT;
    let mut bypasses = 0;
    let mut last = Reason::from(Cause::LostRace);
    for _ in 0..TRIES {
        match find_or_mount(path, options, lock_deadline) {
            Ok(Some(outcome)) => return Ok(outcome),
            Ok(None) => continue,
            Err(reason) if is_lost_race(&reason) => last = reason,
            Err(reason)
                if bypasses < BYPASS_RETRIES
                    && matches!(reason.cause(), Some(Cause::PathBypassesMount)) =>
            {
                bypasses += 1;
                last = reason;
            }
            Err(reason) => return Err(reason),
        }
        sleep(PAUSE);
    }
    Err(last)
}

/// One try. None if the path led to another directory in the end.
fn find_or_mount(
    path: &Path,
    options: &MountOptions,
    lock_deadline: Instant,
) -> Result<Option<MountOutcome>, Reason> {
    let mounts = MountInfo::own()?;
    let target = Directory::open(path)?;
    if let Some(mount) = bpffs_at(&target, path, &mounts)? {
        if covers_a_bpffs(&target, &mount, &mounts)? && !wait_until_settled(&target, path)? {
            return Ok(None);
        }
        let dev = target.stat.st_dev;
        return Ok(Some(MountOutcome {
            in_process_1: bpffs_of_process_1(&target, Some(dev), options)?,
            bpffs: Bpffs::known(target.fd, path, dev),
            is_new: false,
        }));
    }
    let in_process_1 = bpffs_of_process_1(&target, None, options)?;
    let _lock = lock(&target, lock_deadline);
    // The previous holder of the lock may have mounted it.
    if !Directory::open(path)?.is_same_as(&target)? {
        return Ok(None);
    }
    Ok(Some(MountOutcome {
        bpffs: options.mount_on(&target, path, Some(target.mount_id()?))?,
        is_new: true,
        in_process_1,
    }))
}

/// The bpffs that process 1 has at the path of `target`, unless it is `found`, the bpffs of this thread.
fn bpffs_of_process_1(
    target: &Directory,
    found: Option<u64>,
    options: &MountOptions,
) -> Result<Option<Box<Mount>>, Reason> {
    let find = || {
        let table = MountTable::of_process_1()?;
        let path = target.path()?;
        let topmost = table.mounted_at(&path).pop()?;
        (topmost.is_bpffs() && Some(topmost.dev) != found).then(|| topmost.into())
    };
    match find() {
        Some(bpffs) if options.refuses_second => {
            Err(Cause::Shadowed(ShadowedBpffs::InProcess1 { bpffs }).into())
        }
        bpffs => Ok(bpffs),
    }
}

/// The bpffs that is mounted exactly there. None if nothing is, and fails if no bpffs may be mounted there.
fn bpffs_at(target: &Directory, path: &Path, mounts: &MountInfo) -> Result<Option<Mount>, Reason> {
    let mount = target.mount(mounts)?;
    match (target.is_mount_root(mount.as_ref()), mount) {
        (true, Some(mount)) if target.fs.is_bpffs() => Ok(Some(mount)),
        (true, Some(mount)) => Err(Cause::Occupied {
            found: target.fs,
            mount_id: mount.mount_id,
        }
        .into()),
        // A mount that begins above this process's root is not listed either, but can be mounted on.
        (is_root, None) if is_root || target.is_detached() => {
            let mount_id = target.mount_id()?;
            Err(Cause::NotListed { mount_id }.into())
        }
        (_, mount) if target.fs.is_bpffs() => Err(Cause::NotTheRoot {
            path: Some(path.to_owned()),
            mount_point: mount.map(|mount| mount.mount_point),
        }
        .into()),
        _ => Ok(None),
    }
}

fn covers_a_bpffs(target: &Directory, mount: &Mount, mounts: &MountInfo) -> Result<bool, Reason> {
    if let Some(covers) = statmount::covers_a_bpffs(target.fd.as_fd()) {
        return Ok(covers);
    }
    // Both from one reading: the mount below may be unmounted in between, and this mount with it.
    let here = mounts.read()?.mounted_at(&mount.mount_point);
    let find = |id| here.iter().find(|mount| mount.mount_id == id);
    let mount_id = mount.mount_id;
    let again = find(mount_id).ok_or(Cause::NotListed { mount_id })?;
    Ok(find(again.parent_id).is_some_and(Mount::is_bpffs))
}

/// Waits until the bpffs is too old to be removed again. Returns false if it was removed.
fn wait_until_settled(target: &Directory, path: &Path) -> Result<bool, Reason> {
    // Its root was created with it. Different calls update the times: a listing, a pin, both, or chmod(2).
    let stat = &target.stat;
    let oldest = stat.st_atime.min(stat.st_mtime).min(stat.st_ctime);
    let created = Duration::from_secs(u64::try_from(oldest).unwrap_or(0));
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    if now.is_ok_and(|now| now > created + 2 * SETTLE_TIME) {
        return Ok(true);
    }
    // If the clock was set, this waits too long, but never too short.
    let deadline = Instant::now() + SETTLE_TIME;
    while Instant::now() <= deadline {
        sleep(PAUSE);
        if !Directory::open(path)?.is_same_as(target)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes the lock of all callers that mount there. Any process that may read the directory can hold it, so
/// this waits only until the deadline.
fn lock(target: &Directory, deadline: Instant) -> Option<FileLock> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(&target.fd, c".", flags, Mode::empty()).ok()?;
    let limit = deadline.saturating_duration_since(Instant::now());
    FileLock::take_within(directory, FlockOperation::LockExclusive, limit).ok()?
}

fn is_lost_race(reason: &Reason) -> bool {
    match reason.cause() {
        Some(cause) => matches!(cause, Cause::LostRace | Cause::NotListed { .. }),
        // The mount under the new one was unmounted.
        None => reason.is(Errno::INVAL) || reason.is(Errno::NOENT),
    }
}
