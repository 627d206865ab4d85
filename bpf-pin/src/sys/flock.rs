//! `flock(2)`.

use std::os::fd::OwnedFd;

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

    /// Takes the lock, or returns the file if another holds it.
    pub(crate) fn try_take(
        file: OwnedFd,
        operation: FlockOperation,
    ) -> Result<Result<Self, OwnedFd>, Errno> {
        let at_once = match operation {
            FlockOperation::LockShared => FlockOperation::NonBlockingLockShared,
            _ => FlockOperation::NonBlockingLockExclusive,
        };
        match rustix::io::retry_on_intr(|| flock(&file, at_once)) {
            Ok(()) => Ok(Ok(Self::new(file))),
            Err(Errno::WOULDBLOCK) => Ok(Err(file)),
            Err(errno) => Err(errno),
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
