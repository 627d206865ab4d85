//! Mutual exclusion among processes, by locks on bytes of a directory.

use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::{Cause, Reason};
use crate::path::Component;
use crate::sys::random::random;
use crate::sys::{self, LockOwner};

use super::PinDir;
use super::temp_names;

/// An exclusive lock on a byte, until it is dropped.
///
/// A directory cannot be opened for writing, so the kernel grants only shared locks on its bytes. A
/// process that takes one and then sees no other is alone: of two, at least one sees the other and
/// releases its own. A process that waits holds nothing, so that it is in nobody's way if it is stopped.
#[derive(Debug)]
pub(crate) struct ByteLock {
    file: OwnedFd,
    byte: u64,
    /// The second byte, if the owner has one.
    mark: Option<u64>,
    /// None if no code of the caller runs until it is dropped: a process that is forked meanwhile never
    /// drops it.
    owner: Option<LockOwner>,
}

/// The byte of the lock among those that swap a name. No token is 0.
const SWAP: u64 = 0;
/// What the byte and its mark differ in.
const MARK: u64 = 1 << 62;
/// How long to wait for an owner that needs the lock for some microseconds.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

impl ByteLock {
    fn new(file: OwnedFd, byte: u64) -> Self {
        Self {
            file,
            byte,
            mark: None,
            owner: None,
        }
    }

    /// Whether it was taken.
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

    /// Whether another holds the byte.
    fn is_held(&self, byte: u64) -> sys::Result<bool> {
        sys::is_byte_held(self.file.as_fd(), byte)
    }

    /// Tries until it is taken, or until `give_up` says so after a wait of that long.
    fn take(&self, give_up: impl Fn(Duration) -> sys::Result<bool>) -> sys::Result<bool> {
        let start = Instant::now();
        let mut pause = Duration::from_micros(256);
        loop {
            if self.try_take()? {
                return Ok(true);
            }
            if give_up(start.elapsed())? {
                return Ok(false);
            }
            // A random part of the pause, so that two do not stay in step.
            sleep(pause.mul_f64((random() % 256) as f64 / 256.0));
            pause = (pause * 5 / 4).min(LONGEST_PAUSE);
        }
    }

    /// Whether another process has taken it, and this one has a copy.
    pub(crate) fn is_inherited(&self) -> bool {
        self.owner.is_some_and(LockOwner::is_another)
    }
}

/// To close the file would not do: a forked process has the descriptor, too, and would keep the lock.
/// And what that process drops is its parent's lock.
impl Drop for ByteLock {
    fn drop(&mut self) {
        if !self.is_inherited() {
            for byte in self.mark.into_iter().chain([self.byte]) {
                let _ = sys::release_byte(self.file.as_fd(), byte);
            }
        }
    }
}

impl PinDir {
    /// The lock among those that swap names in this directory.
    pub(crate) fn lock_swap(&self) -> Result<ByteLock, Reason> {
        self.lock_swap_for(PATIENCE)
    }

    /// As [`lock_swap`](Self::lock_swap), with another limit to the wait.
    pub(crate) fn lock_swap_for(&self, patience: Duration) -> Result<ByteLock, Reason> {
        let lock = ByteLock::new(self.readable()?, SWAP);
        match lock.take(|waited| Ok(waited > patience)) {
            Ok(true) => Ok(lock),
            Ok(false) => Err(Cause::Locked.into()),
            Err(errno) => Err(Reason::errno_only(errno)),
        }
    }

    /// The lock among those that migrate this name. None if another owns it for longer than `patience`.
    ///
    /// The owner holds a second byte as its mark. While nobody holds that, the others are only trying, and
    /// one of them will succeed: then the wait goes on, unless one of them was stopped.
    pub(crate) fn lock_migration(
        &self,
        name: &Component,
        patience: Duration,
    ) -> Result<Option<ByteLock>, Reason> {
        let byte = temp_names::hash_name(name.as_bytes());
        let mut lock = ByteLock::new(self.readable()?, byte);
        let mark = byte ^ MARK;
        let is_taken = lock
            .take(|waited| Ok(waited >= patience && (lock.is_held(mark)? || waited > PATIENCE)));
        if !is_taken.map_err(Reason::errno_only)? {
            return Ok(None);
        }
        sys::hold_byte(lock.file.as_fd(), mark).map_err(Reason::errno_only)?;
        lock.mark = Some(mark);
        lock.owner = Some(LockOwner::this_process());
        Ok(Some(lock))
    }
}
