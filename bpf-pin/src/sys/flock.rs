//! `flock(2)`.

use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::LockOwner;

/// An open file with a flock(2), which is released on drop. Closing the file is not enough if a forked child
/// has a copy of the descriptor.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: OwnedFd,
    owner: LockOwner,
}

impl FileLock {
    /// Waits for the lock. A signal does not end the wait.
    pub(crate) fn take(file: OwnedFd, operation: FlockOperation) -> Result<Self, Errno> {
        rustix::io::retry_on_intr(|| flock(&file, operation))?;
        Ok(Self::new(file))
    }

    /// Takes the lock, trying at least once. `None` if another process still holds it after `limit`.
    pub(crate) fn take_within(
        file: OwnedFd,
        operation: FlockOperation,
        limit: Duration,
    ) -> Result<Option<Self>, Errno> {
        /// The longest pause between two tries.
        const MAX_PAUSE: Duration = Duration::from_millis(10);

        let at_once = match operation {
            FlockOperation::LockShared => FlockOperation::NonBlockingLockShared,
            _ => FlockOperation::NonBlockingLockExclusive,
        };
        let start = Instant::now();
        let mut pause = Duration::from_micros(100);
        loop {
            match rustix::io::retry_on_intr(|| flock(&file, at_once)) {
                Ok(()) => return Ok(Some(Self::new(file))),
                Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(errno),
            }
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            sleep(pause.min(left));
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    fn new(file: OwnedFd) -> Self {
        let owner = LockOwner::this_process();
        Self { file, owner }
    }

    pub(crate) fn file(&self) -> &OwnedFd {
        &self.file
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if !self.owner.is_another() {
            let _ = flock(&self.file, FlockOperation::Unlock);
        }
    }
}
