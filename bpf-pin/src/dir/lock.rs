//! The lock of a directory.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, fstat, stat};
use rustix::io::Errno;

use crate::cause::Cause;
use crate::diagnose;
use crate::error::{Operation, Reason, Result};
use crate::flock::{Held, lock_file, try_lock_file};

use super::PinDir;

/// The lock of a directory, held until this is dropped or the process ends.
///
/// It is advisory: it keeps out who asks for it, and nobody else. A process that is forked meanwhile
/// has the descriptor, too, until it ends or runs another program: the lock is released all the same
/// when this is dropped in the process that took it, and by no other process.
#[derive(Debug)]
#[must_use = "dropped, it is released"]
pub struct DirLock {
    _held: Held,
}

/// Until when to wait.
enum Wait {
    Forever,
    Until(Option<Instant>),
}

/// The longest nap between two looks at a lock that is waited for with a bound.
const NAP: Duration = Duration::from_millis(10);

impl PinDir {
    /// `flock(2)` with `LOCK_EX`: waits until nobody else holds the directory's lock, and takes it.
    ///
    /// Once it is taken, the directory is seen to be still the one that its path leads to: else
    /// whoever comes by the path would take another lock. Each call is another holder: who holds the
    /// lock and asks for it again, waits for itself. To take turns at replacing a directory, lock the
    /// one around it, which stays.
    ///
    /// # Errors
    ///
    /// [`Operation::Lock`](crate::Operation::Lock), and nothing is held:
    /// [`Moved`](Cause::Moved) where the path leads elsewhere by now: open it anew;
    /// [`Blocked`](Cause::Blocked) (EACCES) where the directory may not be read.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::PinDir;
    ///
    /// let dir = PinDir::open("/sys/fs/bpf/app")?;
    /// let lock = dir.lock()?;
    /// // Nobody else who asks for the lock is here meanwhile.
    /// drop(lock);
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn lock(&self) -> Result<DirLock> {
        self.wait(FlockOperation::LockExclusive)
    }

    /// As [`lock`](Self::lock), with `LOCK_SH`: held by any number at once, but by none beside [`lock`](Self::lock).
    ///
    /// Who holds it on a directory that [`Stage::publish`](super::Stage::publish) replaces finds all of it until
    /// the lock is released.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock).
    pub fn lock_shared(&self) -> Result<DirLock> {
        self.wait(FlockOperation::LockShared)
    }

    /// As [`lock`](Self::lock), or None where somebody else holds it.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock).
    pub fn try_lock(&self) -> Result<Option<DirLock>> {
        self.take(FlockOperation::LockExclusive, Wait::Until(None))
    }

    /// As [`lock_shared`](Self::lock_shared), or None where somebody holds the lock alone.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock).
    pub fn try_lock_shared(&self) -> Result<Option<DirLock>> {
        self.take(FlockOperation::LockShared, Wait::Until(None))
    }

    /// As [`lock`](Self::lock), or None where it could not be had for so long.
    ///
    /// The kernel knows no bound: this looks every 10 ms at most.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock).
    pub fn lock_within(&self, time: Duration) -> Result<Option<DirLock>> {
        self.take(FlockOperation::LockExclusive, until(time))
    }

    /// As [`lock_shared`](Self::lock_shared), or None where it could not be had for so long.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock).
    pub fn lock_shared_within(&self, time: Duration) -> Result<Option<DirLock>> {
        self.take(FlockOperation::LockShared, until(time))
    }

    fn wait(&self, operation: FlockOperation) -> Result<DirLock> {
        let taken = self.take(operation, Wait::Forever)?;
        taken.ok_or_else(|| self.fail(Operation::Lock, Cause::Locked.into()))
    }

    fn take(&self, operation: FlockOperation, wait: Wait) -> Result<Option<DirLock>> {
        self.take_file(operation, wait)
            .map_err(|reason| self.fail(Operation::Lock, reason))
    }

    fn take_file(&self, operation: FlockOperation, wait: Wait) -> Result<Option<DirLock>, Reason> {
        let file = self.readable()?;
        let is_taken = match wait {
            Wait::Forever => lock_file(&file, operation).map(|()| true),
            Wait::Until(end) => lock_until(&file, operation, end),
        };
        if !is_taken.map_err(Reason::errno_only)? {
            return Ok(None);
        }
        let held = Held::new(file);
        self.check_path(&held.file)?;
        Ok(Some(DirLock { _held: held }))
    }

    /// That it is still the directory at its path, or, where it has none, that it was not removed.
    fn check_path(&self, file: &OwnedFd) -> Result<(), Reason> {
        let because = Reason::errno_only;
        let path = || self.path().to_owned();
        let held = fstat(file).map_err(because)?;
        if !self.has_path {
            return match held.st_nlink {
                0 => Err(Cause::Removed { path: path() }.into()),
                _ => Ok(()),
            };
        }
        match stat(self.path.as_c_str()) {
            Ok(there) if (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino) => Ok(()),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Err(Cause::Moved { path: path() }.into()),
            Err(errno) => Err(Reason::new(errno, diagnose::directory(self.path(), errno))),
        }
    }

    /// [`open_dir`](Self::open_dir) and [`lock_shared`](Self::lock_shared) of the directory that has
    /// the name: opened anew as long as another takes the name between the two.
    ///
    /// So a set that [`Stage::publish`](super::Stage::publish) replaces is found whole, whenever that happens.
    ///
    /// # Errors
    ///
    /// As [`open_dir`](Self::open_dir) and [`lock`](Self::lock).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{Map, PinDir};
    ///
    /// let app = PinDir::open("/sys/fs/bpf/app")?;
    /// let (current, lock) = app.open_dir_shared("current")?;
    /// let (flows, routes) = (current.open_as::<Map>("flows")?, current.open_as::<Map>("routes")?);
    /// // Both are of one generation.
    /// drop(lock);
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn open_dir_shared(&self, name: impl AsRef<OsStr>) -> Result<(Self, DirLock)> {
        let name = self.name(Operation::Lock, name.as_ref())?;
        let fail = |reason| self.fail_at(Operation::Lock, name.as_os_str(), reason);
        loop {
            let dir = self.open_dir_named(&name).map_err(fail)?;
            let file = match dir.readable() {
                Err(reason) if reason.is(Errno::NOENT) => continue,
                other => other.map_err(fail)?,
            };
            lock_file(&file, FlockOperation::LockShared)
                .map_err(|errno| fail(Reason::errno_only(errno)))?;
            let held = Held::new(file);
            // From the directory that is held, wherever its path leads.
            let here = fstat(&held.file).map_err(|errno| fail(Reason::errno_only(errno)))?;
            match self.place(&name).lstat() {
                Ok(there) if there.st_ino == here.st_ino => {
                    return Ok((dir, DirLock { _held: held }));
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(fail(Reason::errno_only(errno))),
            }
        }
    }
}

fn until(time: Duration) -> Wait {
    match Instant::now().checked_add(time) {
        Some(end) => Wait::Until(Some(end)),
        // Farther away than time goes.
        None => Wait::Forever,
    }
}

fn lock_until(
    file: &OwnedFd,
    operation: FlockOperation,
    end: Option<Instant>,
) -> Result<bool, Errno> {
    let mut nap = Duration::from_micros(100);
    loop {
        if try_lock_file(file, operation)? {
            return Ok(true);
        }
        let left = end.map_or(Duration::ZERO, |end| {
            end.saturating_duration_since(Instant::now())
        });
        if left.is_zero() {
            return Ok(false);
        }
        sleep(nap.min(left));
        nap = (nap * 2).min(NAP);
    }
}
