//! Mutual exclusion between processes, with locks on single bytes of a directory.

use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::{Cause, Reason};
use crate::path::Component;
use crate::sys::random::random;
use crate::sys::{self, LockOwner};

use super::PinDir;
use super::temp_names::hash_name;

/// An exclusive lock on a byte, released on drop.
///
/// A directory cannot be opened for writing, so the kernel grants only shared locks on its bytes. A
/// process takes one and then checks for others. If there is none, it has the lock. If two processes do this
/// at once, at least one sees the other and releases its own. A waiting process holds nothing, so it blocks
/// nothing if it is stopped.
#[derive(Debug)]
pub(crate) struct ByteLock {
    file: OwnedFd,
    byte: u64,
    /// A second byte that only an owner locks, in a migration.
    owner_byte: Option<u64>,
    /// `None` if no code of the caller runs while the lock is held. Then a forked process never drops it.
    owner: Option<LockOwner>,
}

/// The byte that excludes swaps of names. No token and no hash of a name is 0.
const SWAP: u64 = 0;
/// The bit that differs between the byte of a name and its owner byte.
const OWNER_BIT: u64 = 1 << 62;
/// How long to wait for an owner that needs the lock for some microseconds.
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_PAUSE: Duration = Duration::from_millis(50);

impl ByteLock {
    fn new(file: OwnedFd, byte: u64) -> Self {
        Self {
            file,
            byte,
            owner_byte: None,
            owner: None,
        }
    }

    /// Returns whether the lock was taken.
    fn try_take(&self) -> sys::Result<bool> {
        if self.is_held(self.byte)? {
            return Ok(false);
        }
        sys::hold_byte(self.file.as_fd(), self.byte)?;
        if !self.is_held(self.byte)? {
            return Ok(true);
        }
        sys::release_byte(self.file.as_fd(), self.byte).map(|()| false)
    }

    /// Returns whether another process holds the byte.
    fn is_held(&self, byte: u64) -> sys::Result<bool> {
        sys::is_byte_held(self.file.as_fd(), byte)
    }

    /// Retries until the lock is taken, or until `gives_up` returns true for the time waited.
    fn take(&self, gives_up: impl Fn(Duration) -> sys::Result<bool>) -> sys::Result<bool> {
        let start = Instant::now();
        let mut pause = Duration::from_micros(256);
        loop {
            if self.try_take()? {
                return Ok(true);
            }
            if gives_up(start.elapsed())? {
                return Ok(false);
            }
            // A random part of the pause, so that two processes do not stay in step.
            sleep(pause.mul_f64((random() % 256) as f64 / 256.0));
            pause = (pause * 5 / 4).min(MAX_PAUSE);
        }
    }

    /// Returns whether this process is a forked child of the owner.
    pub(crate) fn is_inherited(&self) -> bool {
        self.owner.is_some_and(LockOwner::is_another)
    }
}

/// Closing the file is not enough, because a forked child may have a copy of the descriptor. A drop in that
/// child must not release its parent's lock.
impl Drop for ByteLock {
    fn drop(&mut self) {
        if !self.is_inherited() {
            for byte in self.owner_byte.into_iter().chain([self.byte]) {
                let _ = sys::release_byte(self.file.as_fd(), byte);
            }
        }
    }
}

impl PinDir {
    /// Takes the lock that excludes other swaps of names in this directory.
    pub(crate) fn lock_swap(&self) -> Result<ByteLock, Reason> {
        self.lock_swap_for(TIMEOUT)
    }

    /// As [`lock_swap`](Self::lock_swap), with another limit to the wait.
    pub(crate) fn lock_swap_for(&self, timeout: Duration) -> Result<ByteLock, Reason> {
        let lock = ByteLock::new(self.open_to_read()?, SWAP);
        match lock.take(|waited| Ok(waited > timeout)) {
            Ok(true) => Ok(lock),
            Ok(false) => Err(Cause::Locked.into()),
            Err(errno) => Err(Reason::errno_only(errno)),
        }
    }

    /// Takes the lock that excludes other migrations of this name. `None` if another process owns it for
    /// longer than `timeout`.
    ///
    /// The owner also locks a second byte. While that byte is free, the other processes are only trying, and
    /// one of them will succeed. Then the wait goes on, unless one of them was stopped.
    pub(crate) fn lock_migration(
        &self,
        name: &Component,
        timeout: Duration,
    ) -> Result<Option<ByteLock>, Reason> {
        let byte = hash_name(name.as_bytes());
        let owner_byte = byte ^ OWNER_BIT;
        let mut lock = ByteLock::new(self.open_to_read()?, byte);
        let is_taken = lock.take(|waited| {
            Ok(waited >= timeout && (lock.is_held(owner_byte)? || waited > TIMEOUT))
        });
        if !is_taken.map_err(Reason::errno_only)? {
            return Ok(None);
        }
        sys::hold_byte(lock.file.as_fd(), owner_byte).map_err(Reason::errno_only)?;
        lock.owner_byte = Some(owner_byte);
        lock.owner = Some(LockOwner::this_process());
        Ok(Some(lock))
    }
}
