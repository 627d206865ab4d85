//! The lock of a directory.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, fstat, stat};
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Operation, Reason, Result};
use crate::sys::FileLock;

use super::PinDir;

/// The lock of a directory, until this is dropped or the process ends.
///
/// It is advisory: it excludes only callers that ask for it. A forked child has the descriptor, too, until
/// it ends or runs another program. The lock is released when it is dropped in the process that took it;
/// dropped in a child, it stays. If that process is killed, the lock stays until its children have ended.
#[derive(Debug)]
#[must_use = "dropped, it is released"]
pub struct DirLock {
    _lock: FileLock,
}

/// Which other locks a lock excludes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockMode {
    /// `LOCK_SH`: any number of shared locks at once, but none beside an exclusive one.
    Shared,
    /// `LOCK_EX`: no other lock.
    Exclusive,
}

/// How long to wait for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wait {
    /// Until it is free. The kernel wakes the caller.
    Forever,
    /// Not at all.
    No,
    /// For so long at most. The kernel has no such wait: this tries every 10 ms or more often.
    UpTo(Duration),
}

/// The longest pause between two tries of a bounded wait.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

impl PinDir {
    /// `flock(2)`: the lock of the directory, or None if another holds it for longer than the wait. With
    /// [`Wait::Forever`] it is never None. A signal does not end the wait.
    ///
    /// Once it is taken, the path is seen to lead to this directory still: otherwise others that come by the
    /// path would take another lock. It is not reentrant: locking twice in one process deadlocks. To
    /// exclude others while a directory is replaced, lock the one around it, which stays.
    ///
    /// A reader that holds it shared on a directory that [`Stage::publish`](super::Stage::publish) replaces
    /// finds all of it until the lock is released.
    ///
    /// # Errors
    ///
    /// Nothing is held: [`Moved`](Cause::Moved) if the path leads elsewhere by now: open it again;
    /// [`Removed`](Cause::Removed) of a directory without a path; [`Blocked`](Cause::Blocked) (EACCES) if the
    /// directory may not be read.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::dir::{LockMode, Wait};
    /// use bpf_pin::PinDir;
    ///
    /// let dir = PinDir::open("/sys/fs/bpf/app")?;
    /// let lock = dir.lock(LockMode::Exclusive, Wait::Forever)?;
    /// // No other process that asks for the lock is here.
    /// drop(lock);
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn lock(&self, mode: LockMode, wait: Wait) -> Result<Option<DirLock>> {
        self.take_lock(mode, wait)
            .map_err(|reason| self.fail(Operation::Lock, reason))
    }

    fn take_lock(&self, mode: LockMode, wait: Wait) -> Result<Option<DirLock>, Reason> {
        let operation = match mode {
            LockMode::Shared => FlockOperation::LockShared,
            LockMode::Exclusive => FlockOperation::LockExclusive,
        };
        let file = self.readable()?;
        // No end is farther away than time goes.
        let end = match wait {
            Wait::Forever => None,
            Wait::No => Some(Instant::now()),
            Wait::UpTo(time) => Instant::now().checked_add(time),
        };
        let lock = match end {
            None => FileLock::take(file, operation).map(Some),
            Some(end) => lock_until(file, operation, end),
        };
        let Some(lock) = lock.map_err(Reason::errno_only)? else {
            return Ok(None);
        };
        self.check_path(lock.file())?;
        Ok(Some(DirLock { _lock: lock }))
    }

    /// Checks that it is still the directory at its path, or, if it has none, that it was not removed.
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

    /// [`open_dir`](Self::open_dir) and a shared [`lock`](Self::lock) of the directory that has the name.
    /// Retries if the directory was replaced in between.
    ///
    /// So a set that [`Stage::publish`](super::Stage::publish) replaces is found whole.
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
    /// let (flows, routes) = (current.get::<Map>("flows")?, current.get::<Map>("routes")?);
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
            let because = |errno| fail(Reason::errno_only(errno));
            let lock = FileLock::take(file, FlockOperation::LockShared).map_err(because)?;
            // From the directory that is held, wherever its path leads.
            let here = fstat(lock.file()).map_err(because)?;
            match self.at_path(&name).lstat() {
                Ok(there) if there.st_ino == here.st_ino => {
                    return Ok((dir, DirLock { _lock: lock }));
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(because(errno)),
            }
        }
    }
}

fn lock_until(
    mut file: OwnedFd,
    operation: FlockOperation,
    end: Instant,
) -> Result<Option<FileLock>, Errno> {
    let mut pause = Duration::from_micros(100);
    loop {
        file = match FileLock::try_take(file, operation)? {
            Ok(lock) => return Ok(Some(lock)),
            Err(file) => file,
        };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        sleep(pause.min(left));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
