//! A bpffs at a path, mounted only where there is none, once however many ask for it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, Mode, OFlags, Stat, openat};
use rustix::io::Errno;

use crate::cause::Cause;
use crate::error::{Reason, Result};
use crate::flock::{Held, try_lock_file};
use crate::mountinfo::Mount;
use crate::mounts::{Directory, MountInfo, from_root, statmount};
use crate::operation::MountOperation;

use super::attach::{self, Attached};
use super::instance::{Bpffs, error};
use super::options::{MountOptions, needs_mount};

/// What [`Bpffs::ensure`] did.
#[derive(Debug)]
pub enum Ensured {
    /// It mounted a new bpffs, with the options.
    Mounted(Bpffs),
    /// A bpffs was mounted there already, with whatever options.
    Found(Bpffs),
}

impl Ensured {
    /// The bpffs.
    pub fn into_bpffs(self) -> Bpffs {
        match self {
            Self::Mounted(bpffs) | Self::Found(bpffs) => bpffs,
        }
    }

    /// Whether it is new.
    pub fn is_new(&self) -> bool {
        matches!(self, Self::Mounted(_))
    }
}

/// How often it is looked again, where others mount and unmount there meanwhile.
const TRIES: usize = 64;
/// How often more a path seems to lead past what is mounted by it, before that is said.
const PAST: usize = 2;
const PAUSE: Duration = Duration::from_millis(2);
/// How long others are waited for: many, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a mount that covers another may take to be taken away again.
const SETTLED: Duration = Duration::from_secs(5);

impl Bpffs {
    /// Mounts a bpffs at `path`, a directory that must be there, unless one is mounted exactly there.
    ///
    /// It is mounted there and nowhere else, on a directory that is there, also one whose own mount
    /// begins above this process's root, as after chroot(2); over nothing that is mounted there; and
    /// once, even when many processes ask for it at the same moment: they take turns, by flock(2) of
    /// the directory. Where somebody else holds that lock for more than ten seconds, or the directory
    /// may not be read, it is done without; a mount that then turns out to cover another is taken away
    /// again, with whatever was mounted on top of it in that moment.
    ///
    /// A new bpffs that covers another may be one that somebody is about to take away, so it is
    /// given only when it has been there for five seconds.
    ///
    /// Of a bpffs that is found, options are not compared: see [`mount`](Self::mount) and
    /// [`inspect`](Self::inspect).
    ///
    /// # Errors
    ///
    /// [`Error::Mount`](crate::Error::Mount), and nothing was mounted:
    /// [`Occupied`](Cause::Occupied) where another file system is mounted exactly there;
    /// [`NotTheRoot`](Cause::NotTheRoot) where the path is a directory within a bpffs;
    /// [`LeadsPast`](Cause::LeadsPast) where the path would not lead to what is mounted by it;
    /// [`Overtaken`](Cause::Overtaken) where others mount and unmount there all the while;
    /// [`NotListed`](Cause::NotListed) where the path leads to a mount that is attached nowhere, and
    /// EINVAL where it leads into another mount namespace; [`Missing`](Cause::Missing) where the
    /// directory is yet to be made;
    /// [`NoProc`](Cause::NoProc); the rest as [`MountOptions::mount`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{Bpffs, Ensured, MountOptions};
    ///
    /// // The kernel makes the usual place, /sys/fs/bpf; any other is to be made first.
    /// std::fs::create_dir_all("/run/app/bpf")?;
    /// let options = MountOptions::new().mode(0o700);
    /// match Bpffs::ensure("/run/app/bpf", &options)? {
    ///     Ensured::Mounted(bpffs) => println!("mounted {}", bpffs.path().display()),
    ///     Ensured::Found(bpffs) => println!("found device {}", bpffs.dev()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ensure(path: impl AsRef<Path>, options: &MountOptions) -> Result<Ensured> {
        let path = path.as_ref();
        ensure(&from_root(path), options)
            .map_err(|reason| error(MountOperation::Mount, path, reason))
    }
}

fn ensure(path: &Path, options: &MountOptions) -> Result<Ensured, Reason> {
    options.check()?;
    let begin = Instant::now();
    let mut stacked = None;
    let mut last = Reason::from(Cause::Overtaken);
    let (mut tries, mut past) = (0, 0);
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
                let found = Bpffs::known(place.fd, path, place.stat.st_dev);
                return Ok(Ensured::Found(found));
            }
            // Unmounted since it was found.
            Err(reason) if is_not_listed(&reason) => {
                last = reason;
                sleep(PAUSE);
                continue;
            }
            Err(reason) => return Err(reason),
        }
        let lock = lock(&place, begin + PATIENCE);
        // Whoever had the lock before may have mounted it.
        if !Directory::open(path)?.is_same_as(&place)? {
            continue;
        }
        match mount_on(&place, path, &mounts, options) {
            Ok((mount, dev)) => {
                drop(lock);
                return Ok(Ensured::Mounted(Bpffs::known(mount, path, dev)));
            }
            // Where others mount and unmount there, it may only seem so.
            Err(Without::MountYet(reason)) if leads_past(&reason) && past == PAST => {
                return Err(reason);
            }
            Err(Without::MountYet(reason)) => {
                past += usize::from(leads_past(&reason));
                last = reason;
                sleep(PAUSE);
            }
            Err(Without::Mount(reason)) => return Err(reason),
        }
    }
    Err(last)
}

/// What is mounted exactly there.
enum There {
    Nothing,
    Bpffs,
    /// A bpffs on top of another: one of two may be about to be taken away again.
    Stacked,
}

/// An error where no bpffs may be mounted.
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
        // Only what begins above this process's root is not listed and can be mounted on.
        (is_root, None) if is_root || place.is_attached_nowhere() => {
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

/// Whether the bpffs is too old to be taken away again, or was waited for as long.
fn is_settled(place: &Directory, first_seen: &mut Option<(u64, Instant)>) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // Its root is made with it, and of these each is renewed by something else: by a list, by a pin,
    // by both and a change of mode. Where clocks have been set, waiting will do.
    let Stat {
        st_atime,
        st_mtime,
        st_ctime,
        ..
    } = place.stat;
    let oldest = st_atime.min(st_mtime).min(st_ctime);
    let made = Duration::from_secs(u64::try_from(oldest).unwrap_or(0));
    if now.is_ok_and(|now| now > made + 2 * SETTLED) {
        return true;
    }
    let (dev, since) = first_seen.get_or_insert((place.stat.st_dev, Instant::now()));
    if *dev != place.stat.st_dev {
        (*dev, *since) = (place.stat.st_dev, Instant::now());
    }
    since.elapsed() > SETTLED
}

fn is_not_listed(reason: &Reason) -> bool {
    matches!(reason.cause(), Some(Cause::NotListed { .. }))
}

fn leads_past(reason: &Reason) -> bool {
    matches!(reason.cause(), Some(Cause::LeadsPast))
}

fn covers_a_bpffs(place: &Directory, mount: &Mount, mounts: &MountInfo) -> Result<bool, Reason> {
    if let Some(covers) = statmount::covers_a_bpffs(place.fd.as_fd()) {
        return Ok(covers);
    }
    // Both of one moment, or what it covers may be gone, and take it along, in between.
    let here = mounts.select(|line| line.is_mounted_at(&mount.mount_point))?;
    let find = |id| here.iter().find(|mount| mount.mount_id == id);
    let mount_id = mount.mount_id;
    let again = find(mount_id).ok_or(Cause::NotListed { mount_id })?;
    Ok(find(again.parent_id).is_some_and(Mount::is_bpffs))
}

/// The right to mount there, among those who ask. Anybody who may read the directory can hold the lock,
/// and must not stop us for good.
fn lock(place: &Directory, end: Instant) -> Option<Held> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(&place.fd, c".", flags, Mode::empty()).ok()?;
    loop {
        match try_lock_file(&directory, FlockOperation::LockExclusive) {
            Ok(true) => return Some(Held::briefly(directory)),
            Ok(false) if Instant::now() < end => sleep(PAUSE),
            _ => return None,
        }
    }
}

/// Why there is no new mount, and whether to look again.
enum Without {
    Mount(Reason),
    MountYet(Reason),
}

impl Without {
    fn of_mounting(reason: Reason) -> Self {
        let is_overtaken = matches!(reason.cause(), Some(Cause::Overtaken | Cause::LeadsPast));
        match reason.raw_os_error().map(Errno::from_raw_os_error) {
            // What was on top there was unmounted under our hands.
            Some(Errno::INVAL | Errno::NOENT) => Self::MountYet(reason),
            _ if is_overtaken => Self::MountYet(reason),
            _ => Self::Mount(reason),
        }
    }
}

impl From<Reason> for Without {
    fn from(reason: Reason) -> Self {
        Self::Mount(reason)
    }
}

fn mount_on(
    place: &Directory,
    path: &Path,
    mounts: &MountInfo,
    options: &MountOptions,
) -> Result<(OwnedFd, u64), Without> {
    // After it is attached nothing but the look at it may fail.
    let place_id = place.mount_id()?;
    let moved = options.make().map_err(Without::Mount).and_then(|mount| {
        let attached = Attached::of(mount.as_fd())?;
        attach::move_mount_onto(mount.as_fd(), place).map_err(Without::of_mounting)?;
        Ok((mount, attached))
    });
    let (mount, attached) = match moved {
        Err(Without::Mount(reason)) if needs_mount(&reason) => {
            let new = attach::mount_onto(place, path, options).map_err(Without::of_mounting)?;
            return Ok((new.fd, new.stat.st_dev));
        }
        moved => moved?,
    };
    let overtaken = || Err(Without::MountYet(Cause::Overtaken.into()));
    match attached.verify(mounts, options) {
        // On the directory itself, not on what somebody mounted there a moment ago.
        Ok(found) if found.parent_id == place_id => {
            let is_led_to = attached.is_led_to(path, mounts).inspect_err(|_| {
                // The first reason is the one to tell.
                let _ = attached.take_away(mounts);
            });
            is_led_to.map_err(Without::of_mounting)?;
            Ok((mount, attached.dev))
        }
        // Somebody who was there before took theirs away, and with it what was on top of it.
        Err(reason) if is_not_listed(&reason) => overtaken(),
        Ok(_) => {
            attached.take_away(mounts)?;
            overtaken()
        }
        Err(reason) => {
            let _ = attached.take_away(mounts);
            Err(reason.into())
        }
    }
}
