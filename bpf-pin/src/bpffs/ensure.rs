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

/// What [`Bpffs::ensure`] did.
#[derive(Debug)]
pub struct MountOutcome {
    bpffs: Bpffs,
    is_new: bool,
    in_process_1: Option<Box<Mount>>,
}

impl MountOutcome {
    /// The bpffs.
    pub fn bpffs(&self) -> &Bpffs {
        &self.bpffs
    }

    /// The bpffs.
    pub fn into_bpffs(self) -> Bpffs {
        self.bpffs
    }

    /// Whether it was mounted by this call, with the options. Otherwise it was there, with any options.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Another bpffs, which process 1 has at this path in its mount namespace and this thread does not see.
    ///
    /// `ip netns exec` and `unshare -m` create such namespaces. What is pinned in [`bpffs`](Self::bpffs) is
    /// then invisible to the rest of the system, and is lost when the last process of this mount namespace
    /// ends. [`MountOptions::refuse_second_bpffs`] makes it an error.
    ///
    /// None if this thread may not read the mounts of process 1.
    pub fn in_process_1(&self) -> Option<&Mount> {
        self.in_process_1.as_deref()
    }
}

/// How often to retry if others mount and unmount there.
const TRIES: usize = 64;
/// How often a path may seem to bypass the new mount, because others mount there, before that is an error.
const BYPASS_RETRIES: usize = 2;
const PAUSE: Duration = Duration::from_millis(2);
/// How long to wait for the lock: there may be many callers on a busy machine.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a mount that covers another may exist before it is removed again.
const SETTLED: Duration = Duration::from_secs(5);

impl Bpffs {
    /// Mounts a bpffs at `path`, an existing directory, unless one is mounted exactly there.
    ///
    /// It never covers another mount, and it mounts once even if many processes call it at the same
    /// moment: they take turns with flock(2) on the directory. If the lock is held elsewhere for more than
    /// ten seconds, or the directory may not be read, it mounts without the lock. A mount that then turns
    /// out to cover another is removed again, with whatever was mounted on top of it in that moment. The
    /// path may lead into a mount that begins above this process's root, as after chroot(2).
    ///
    /// A bpffs that covers another may be about to be removed that way, so it is returned only once it
    /// has existed for five seconds.
    ///
    /// The options of a bpffs that is found are not compared: see [`mount`](Self::mount) and
    /// [`inspect`](Self::inspect).
    ///
    /// In a mount namespace of its own, as under `ip netns exec` or `unshare -m`, this mounts a bpffs that
    /// only this namespace sees: check [`MountOutcome::in_process_1`], or set
    /// [`MountOptions::refuse_second_bpffs`].
    ///
    /// # Errors
    ///
    /// [`Operation::MountBpffs`](crate::error::Operation::MountBpffs), and nothing is mounted:
    /// - [`Occupied`](Cause::Occupied) if another file system is mounted exactly there
    /// - [`NotTheRoot`](Cause::NotTheRoot) if the path is a directory within a bpffs
    /// - [`PathBypassesMount`](Cause::PathBypassesMount) if the path would bypass the mount
    /// - [`LostRace`](Cause::LostRace) if others keep mounting and unmounting there
    /// - [`NotListed`](Cause::NotListed) if the path leads to a mount that is attached nowhere, and EINVAL
    ///   if it leads into another mount namespace
    /// - [`Missing`](Cause::Missing) if the directory does not exist
    /// - [`Shadowed`](Cause::Shadowed) as [`MountOptions::refuse_second_bpffs`] asks
    /// - [`NoProc`](Cause::NoProc), and those of [`MountOptions::mount`]
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
    let mut stacked = None;
    let mut last = Reason::from(Cause::LostRace);
    let (mut tries, mut bypasses) = (0, 0);
    while tries < TRIES {
        tries += 1;
        let mounts = MountInfo::own()?;
        let place = Directory::open(path)?;
        match mounted_there(&place, path, &mounts) {
            Ok(There::Nothing) => {}
            Ok(There::Stacked) if !is_settled(&place, &mut stacked) => {
                sleep(PAUSE);
                tries -= 1;
                continue;
            }
            Ok(There::Bpffs | There::Stacked) => {
                let in_process_1 = second_bpffs(&place, Some(place.stat.st_dev), options)?;
                let bpffs = Bpffs::known(place.fd, path, place.stat.st_dev);
                let is_new = false;
                return Ok(MountOutcome {
                    bpffs,
                    is_new,
                    in_process_1,
                });
            }
            // Unmounted since it was found.
            Err(reason) if matches!(reason.cause(), Some(Cause::NotListed { .. })) => {
                last = reason;
                sleep(PAUSE);
                continue;
            }
            Err(reason) => return Err(reason),
        }
        let in_process_1 = second_bpffs(&place, None, options)?;
        let lock = lock(&place, lock_deadline);
        // The last holder of the lock may have mounted it.
        if !Directory::open(path)?.is_same_as(&place)? {
            continue;
        }
        let mounted = options.mount_on(&place, path, Some(place.mount_id()?));
        drop(lock);
        match mounted {
            Ok(bpffs) => {
                let is_new = true;
                return Ok(MountOutcome {
                    bpffs,
                    is_new,
                    in_process_1,
                });
            }
            Err(reason) => {
                // It may only seem so while others mount and unmount there.
                let is_bypassed = matches!(reason.cause(), Some(Cause::PathBypassesMount));
                bypasses += usize::from(is_bypassed);
                if bypasses > BYPASS_RETRIES || !(is_bypassed || is_lost_race(&reason)) {
                    return Err(reason);
                }
                last = reason;
                sleep(PAUSE);
            }
        }
    }
    Err(last)
}

/// The bpffs that process 1 has at the path of `place`, if it is another than the one that was found
/// there.
fn second_bpffs(
    place: &Directory,
    found: Option<u64>,
    options: &MountOptions,
) -> Result<Option<Box<Mount>>, Reason> {
    let find = || {
        let table = MountTable::of_process_1()?;
        let path = place.path()?;
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

/// What is mounted exactly there.
enum There {
    Nothing,
    Bpffs,
    /// A bpffs on top of another, which may be about to be removed again.
    Stacked,
}

/// Fails if no bpffs may be mounted there.
fn mounted_there(place: &Directory, path: &Path, mounts: &MountInfo) -> Result<There, Reason> {
    let mount = place.mount(mounts)?;
    match (place.is_mount_root(mount.as_ref()), mount) {
        (true, Some(mount)) if place.fs.is_bpffs() => {
            Ok(match covers_a_bpffs(place, &mount, mounts)? {
                true => There::Stacked,
                false => There::Bpffs,
            })
        }
        (true, Some(mount)) => Err(Cause::Occupied {
            found: place.fs,
            mount_id: mount.mount_id,
        }
        .into()),
        // Of the mounts that are not listed, only one that begins above this process's root can be
        // mounted on.
        (is_root, None) if is_root || place.is_detached() => {
            let mount_id = place.mount_id()?;
            Err(Cause::NotListed { mount_id }.into())
        }
        (_, mount) if place.fs.is_bpffs() => Err(Cause::NotTheRoot {
            path: Some(path.to_owned()),
            mount_point: mount.map(|mount| mount.mount_point),
        }
        .into()),
        _ => Ok(There::Nothing),
    }
}

fn covers_a_bpffs(place: &Directory, mount: &Mount, mounts: &MountInfo) -> Result<bool, Reason> {
    if let Some(covers) = statmount::covers_a_bpffs(place.fd.as_fd()) {
        return Ok(covers);
    }
    // Both from one reading: what it covers may be unmounted in between, and this mount with it.
    let here = mounts.read()?.mounted_at(&mount.mount_point);
    let find = |id| here.iter().find(|mount| mount.mount_id == id);
    let mount_id = mount.mount_id;
    let again = find(mount_id).ok_or(Cause::NotListed { mount_id })?;
    Ok(find(again.parent_id).is_some_and(Mount::is_bpffs))
}

/// Whether the bpffs is too old to be removed again, or was waited for long enough.
fn is_settled(place: &Directory, first_seen: &mut Option<(u64, Instant)>) -> bool {
    // Its root was created with it. Each time is updated by something else: by a listing, by a pin, by both
    // and by chmod(2). If a clock was set, waiting is enough.
    let stat = &place.stat;
    let oldest = stat.st_atime.min(stat.st_mtime).min(stat.st_ctime);
    let created = Duration::from_secs(u64::try_from(oldest).unwrap_or(0));
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    if now.is_ok_and(|now| now > created + 2 * SETTLED) {
        return true;
    }
    let (dev, since) = first_seen.get_or_insert((stat.st_dev, Instant::now()));
    if *dev != stat.st_dev {
        (*dev, *since) = (stat.st_dev, Instant::now());
    }
    since.elapsed() > SETTLED
}

/// The lock of callers that mount there. Anyone who may read the directory can hold it, so it is waited
/// for until the deadline only.
fn lock(place: &Directory, deadline: Instant) -> Option<FileLock> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = openat(&place.fd, c".", flags, Mode::empty()).ok()?;
    loop {
        directory = match FileLock::try_take(directory, FlockOperation::LockExclusive).ok()? {
            Ok(lock) => return Some(lock),
            Err(directory) if Instant::now() < deadline => directory,
            Err(_) => return None,
        };
        sleep(PAUSE);
    }
}

fn is_lost_race(reason: &Reason) -> bool {
    match reason.cause() {
        Some(cause) => matches!(cause, Cause::LostRace),
        // The mount on top, which was to be mounted on, was unmounted.
        None => reason.is(Errno::INVAL) || reason.is(Errno::NOENT),
    }
}
