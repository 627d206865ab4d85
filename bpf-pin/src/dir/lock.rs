//! Locks directories with `flock(2)`.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{FlockOperation, fstat, stat};
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Operation, Reason, Result};
use crate::sys::FileLock;

use super::PinDir;

/// The lock of a directory, held until it is dropped or the process ends: see [`PinDir::lock`].
///
/// The lock is advisory: it excludes only callers that take it, too.
///
/// # Forked processes
///
/// A forked child has the descriptor as well, until it ends or executes another program. Dropping the lock
/// releases it only in the process that took it. If that process is killed, the lock is held until its
/// children have ended.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::dir::{LockMode, Wait};
/// use bpf_pin::PinDir;
///
/// let dir = PinDir::open("/sys/fs/bpf/app")?;
/// let lock = dir.lock(LockMode::Exclusive, Wait::Forever)?;
/// // No other process that takes the lock is here.
/// drop(lock);
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping it releases the lock"]
pub struct DirLock {
    _lock: FileLock,
}

/// A shared or an exclusive lock: see [`PinDir::lock`].
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::dir::{LockMode, Wait};
/// use bpf_pin::PinDir;
///
/// // Readers share the directory, and the process that removes it waits for them.
/// let dir = PinDir::open("/sys/fs/bpf/app")?;
/// let lock = dir.lock(LockMode::Shared, Wait::Forever)?;
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LockMode {
    /// `LOCK_SH`: excludes exclusive locks.
    Shared,
    /// `LOCK_EX`: excludes all other locks.
    Exclusive,
}

/// How long to wait for a lock: see [`PinDir::lock`].
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
///
/// use bpf_pin::dir::{LockMode, Wait};
/// use bpf_pin::PinDir;
///
/// let dir = PinDir::open("/sys/fs/bpf/app")?;
/// if dir.lock(LockMode::Exclusive, Wait::UpTo(Duration::from_secs(2)))?.is_none() {
///     eprintln!("another process holds the lock");
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wait {
    /// Wait until the lock is free. The kernel wakes the caller.
    Forever,
    /// Do not wait.
    No,
    /// Wait at most this long. The kernel has no such call, so this retries every 10 ms or more often.
    UpTo(Duration),
}

impl PinDir {
    /// `flock(2)`: locks the directory. Returns `None` if another process holds the lock for longer than
    /// `wait`, which [`Wait::Forever`] never does. A signal does not end the wait.
    ///
    /// Not reentrant: locking twice in one process deadlocks.
    ///
    /// A reader that holds a shared lock on a directory that [`Stage::publish`](super::Stage::publish)
    /// replaces finds its contents unchanged until it releases the lock. To exclude other processes while a
    /// directory is replaced, lock its parent, which stays.
    ///
    /// # Errors
    ///
    /// [`Operation::Lock`]; no lock is held. With the causes of [access](Self#access), and:
    ///
    /// | condition | cause |
    /// |---|---|
    /// | the path leads to another directory now, which other processes would lock: open it again | [`Moved`](Cause::Moved) |
    /// | the directory was opened [by descriptor](Self::from_fd), and was removed | [`Removed`](Cause::Removed) |
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::dir::{LockMode, Wait};
    /// use bpf_pin::PinDir;
    ///
    /// let dir = PinDir::open("/sys/fs/bpf/app")?;
    /// let lock = dir.lock(LockMode::Exclusive, Wait::Forever)?;
    /// // No other process holds the lock here.
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
        let file = self.open_to_read()?;
        let lock = match wait {
            Wait::Forever => FileLock::take(file, operation).map(Some),
            Wait::No => FileLock::take_within(file, operation, Duration::ZERO),
            Wait::UpTo(time) => FileLock::take_within(file, operation, time),
        };
        let Some(lock) = lock.map_err(Reason::errno_only)? else {
            return Ok(None);
        };
        self.check_path(lock.file())?;
        Ok(Some(DirLock { _lock: lock }))
    }

    /// Checks that the path still leads to this directory. Without a path, that it was not removed.
    fn check_path(&self, file: &OwnedFd) -> Result<(), Reason> {
        let path = || self.path().to_owned();
        let held = fstat(file).map_err(Reason::errno_only)?;
        if !self.has_path {
            return match held.st_nlink {
                0 => Err(Cause::Removed { path: path() }.into()),
                _ => Ok(()),
            };
        }
        match stat(self.path.as_c_str()) {
            Ok(found) if (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino) => Ok(()),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Err(Cause::Moved { path: path() }.into()),
            Err(errno) => Err(Reason::new(errno, diagnose::directory(self.path(), errno))),
        }
    }

    /// Opens a directory in this one, as [`open_dir`](Self::open_dir), and takes a shared
    /// [`lock`](Self::lock) of it. Retries if the directory was replaced in between.
    ///
    /// A set of pins that [`Stage::publish`](super::Stage::publish) replaces is found whole.
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
    /// // Both belong to the same published set.
    /// drop(lock);
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn open_dir_shared(&self, name: impl AsRef<OsStr>) -> Result<(Self, DirLock)> {
        let name = name.as_ref();
        self.on_name(Operation::Lock, name, |at| {
            loop {
                let dir = self.open_dir_named(at.name)?;
                let file = match dir.open_to_read() {
                    Err(reason) if reason.is(Errno::NOENT) => continue,
                    result => result?,
                };
                let lock = FileLock::take(file, FlockOperation::LockShared);
                let lock = lock.map_err(Reason::errno_only)?;
                let locked = fstat(lock.file()).map_err(Reason::errno_only)?;
                match at.lstat() {
                    Ok(found) if found.st_ino == locked.st_ino => {
                        return Ok((dir, DirLock { _lock: lock }));
                    }
                    Ok(_) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(Reason::errno_only(errno)),
                }
            }
        })
    }
}
