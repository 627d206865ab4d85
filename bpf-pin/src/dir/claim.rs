//! What tells the names of living processes from those of dead ones.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags, openat};

use crate::diagnose;
use crate::error::Reason;
use crate::filename::Filename;
use crate::sys;

use super::PinDir;
use super::names::{self, Left};

/// A lock on one byte of the directory at the offset of a random token, held as long as this lives:
/// the kernel lets go of it however the process ends, and knows no pid that could be another's.
#[derive(Debug)]
pub(super) struct Claim {
    _file: OwnedFd,
    token: u64,
    count: AtomicU64,
}

impl Claim {
    fn new(dir: &PinDir) -> Result<Self, Reason> {
        let file = dir.readable()?;
        let token = names::token();
        sys::hold_byte(file.as_fd(), token).map_err(|errno| Reason::new(errno, None))?;
        Ok(Self {
            _file: file,
            token,
            count: AtomicU64::new(0),
        })
    }

    /// The next name for a pin on its way.
    pub(super) fn next(&self) -> Filename {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        names::passing(self.token, number, Left::Unfinished)
    }

    pub(super) fn token(&self) -> u64 {
        self.token
    }
}

impl PinDir {
    pub(super) fn claim(&self) -> Result<&Claim, Reason> {
        if let Some(claim) = self.claim.get() {
            return Ok(claim);
        }
        // Whoever is faster has its claim kept.
        let claim = Claim::new(self)?;
        Ok(self.claim.get_or_init(|| claim))
    }

    /// The claim, where one was made.
    pub(super) fn claimed(&self) -> Option<&Claim> {
        self.claim.get()
    }

    /// The directory, opened to be read or locked: an `O_PATH` descriptor is good for neither.
    pub(super) fn readable(&self) -> Result<OwnedFd, Reason> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.fd, c".", flags, Mode::empty())
            .map_err(|errno| Reason::new(errno, diagnose::list(self.base(), errno)))
    }
}
