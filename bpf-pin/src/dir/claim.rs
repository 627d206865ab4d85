//! What tells the names of living processes from those of dead ones.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags, openat};

use crate::diagnose;
use crate::error::Reason;
use crate::filename::Filename;
use crate::sys;

use super::PinDir;
use super::names;

/// A lock on one byte of the directory at the offset of a random token, held as long as this lives:
/// the kernel lets go of it however the process ends, and knows no pid that could be another's.
#[derive(Debug)]
pub(super) struct Claim {
    _file: OwnedFd,
    token: u64,
    /// What its names begin with.
    stem: LentName,
    /// Which of the first numbers are in use: a name that was used before is one that the kernel's
    /// cache has room for.
    in_use: AtomicU64,
    /// The next number above them.
    count: AtomicU64,
}

/// A name of a stem and a number: 43 bytes at most.
pub(super) type LentName = Filename<64>;

/// A name that this process alone uses until it is dropped, and what to give back then.
pub(super) struct Lent<'c> {
    pub(super) name: LentName,
    bit: u64,
    claim: &'c Claim,
}

impl Lent<'_> {
    /// It is not lent again: something is left under the name.
    pub(super) fn keep(&mut self) {
        self.bit = 0;
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.claim.in_use.fetch_and(!self.bit, Ordering::Release);
    }
}

impl Claim {
    fn new(dir: &PinDir) -> Result<Self, Reason> {
        let file = dir.readable()?;
        let token = names::token();
        sys::hold_byte(file.as_fd(), token).map_err(Reason::errno_only)?;
        Ok(Self {
            _file: file,
            token,
            stem: names::stem(token),
            in_use: AtomicU64::new(0),
            count: AtomicU64::new(u64::BITS.into()),
        })
    }

    /// A name for a pin on its way: one that was used before, if there is one.
    pub(super) fn lend(&self) -> Lent<'_> {
        let taken = self
            .in_use
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |in_use| {
                // Sets the lowest bit that is not set; fails where all are.
                (in_use != u64::MAX).then(|| in_use | (in_use + 1))
            });
        match taken {
            Ok(in_use) => {
                let bit = !in_use & (in_use + 1);
                self.lent(bit.trailing_zeros().into(), bit)
            }
            Err(_) => self.lend_new(),
        }
    }

    /// A name that was never used before, at least by this process and those before it.
    pub(super) fn lend_new(&self) -> Lent<'_> {
        self.lent(self.count.fetch_add(1, Ordering::Relaxed), 0)
    }

    fn lent(&self, number: u64, bit: u64) -> Lent<'_> {
        Lent {
            name: self.stem.with_number(number),
            bit,
            claim: self,
        }
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

    /// The directory, opened to be listed without a trace, where that is this user's right.
    pub(super) fn listable(&self) -> Result<OwnedFd, Reason> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOATIME;
        openat(&self.fd, c".", flags, Mode::empty()).or_else(|_| self.readable())
    }

    /// The directory, opened to be read or locked: an `O_PATH` descriptor is good for neither.
    pub(super) fn readable(&self) -> Result<OwnedFd, Reason> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.fd, c".", flags, Mode::empty())
            .map_err(|errno| Reason::new(errno, diagnose::list(self.base(), errno)))
    }
}
