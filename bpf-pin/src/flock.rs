//! `flock(2)`, and who lets go of it.

use std::os::fd::OwnedFd;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, getpid};

/// Which process has taken a lock whose value another may drop, as one that was forked meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder(Option<Pid>);

impl Holder {
    /// No code of others runs until the lock is dropped: a process that is forked meanwhile never
    /// drops it.
    pub(crate) const BRIEF: Self = Self(None);

    /// For as long as the lock's owner likes: what a forked process drops is its parent's.
    pub(crate) fn this_process() -> Self {
        Self(Some(getpid()))
    }

    /// Whether another process has taken it.
    pub(crate) fn is_another(self) -> bool {
        self.0.is_some_and(|process| process != getpid())
    }
}

/// An open file with a flock(2), released when dropped. Closing would not do while another process has
/// a copy of the descriptor, as one that was forked meanwhile.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) file: OwnedFd,
    holder: Holder,
}

impl Held {
    /// `file` is locked, while no code of others runs.
    pub(crate) fn briefly(file: OwnedFd) -> Self {
        let holder = Holder::BRIEF;
        Self { file, holder }
    }

    /// `file` is locked for as long as its owner likes.
    pub(crate) fn new(file: OwnedFd) -> Self {
        Self::briefly(file).by_this_process()
    }

    /// From now on for as long as its owner likes.
    pub(crate) fn by_this_process(mut self) -> Self {
        self.holder = Holder::this_process();
        self
    }

    /// Whether another process has taken it.
    pub(crate) fn is_inherited(&self) -> bool {
        self.holder.is_another()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_inherited() {
            let _ = flock(&self.file, FlockOperation::Unlock);
        }
    }
}

/// A signal is no reason to stop waiting.
pub(crate) fn lock_file(file: &OwnedFd, operation: FlockOperation) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| flock(file, operation))
}

/// Whether it was had at once.
pub(crate) fn try_lock_file(file: &OwnedFd, operation: FlockOperation) -> Result<bool, Errno> {
    let at_once = match operation {
        FlockOperation::LockShared => FlockOperation::NonBlockingLockShared,
        _ => FlockOperation::NonBlockingLockExclusive,
    };
    match lock_file(file, at_once) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno),
    }
}
