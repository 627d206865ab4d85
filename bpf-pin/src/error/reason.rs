//! Why an operation failed.

use std::fmt;
use std::io;

use rustix::io::Errno;

use crate::path::{AtError, InteriorNul, InvalidComponent};
use crate::procfs::ProcError;
use crate::types::InvalidName;

use super::{Cause, errno};

/// Why an operation failed: the errno, and the cause if one was proven. Without the operation, which the
/// caller knows.
#[derive(Debug)]
pub(crate) struct Reason {
    source: Option<io::Error>,
    cause: Option<Box<Cause>>,
}

impl Reason {
    pub(crate) fn new(error: impl Into<AtError>, cause: Option<Cause>) -> Self {
        Self::of(error.into(), cause.map(Box::new))
    }

    fn of(error: AtError, cause: Option<Box<Cause>>) -> Self {
        let errno = match error {
            AtError::Errno(errno) => errno.raw_os_error(),
            AtError::NeedsProc => {
                let needed_for =
                    "reaching a name in an open directory without BPF_F_PATH_FD (Linux 6.5)";
                return Cause::NoProc { needed_for }.into();
            }
        };
        let source = Some(io::Error::from_raw_os_error(errno));
        Self { source, cause }
    }

    pub(crate) fn is(&self, errno: Errno) -> bool {
        self.raw_os_error() == Some(errno.raw_os_error())
    }

    /// With a cause, if it has none yet.
    #[cold]
    pub(crate) fn explained(mut self, explain: impl FnOnce(Errno) -> Option<Cause>) -> Self {
        if let (None, Some(errno)) = (&self.cause, self.raw_os_error()) {
            self.cause = explain(Errno::from_raw_os_error(errno)).map(Box::new);
        }
        self
    }

    /// Instead of the one that it has.
    #[cold]
    pub(crate) fn set_cause(&mut self, cause: Cause) {
        self.cause = Some(Box::new(cause));
    }

    pub(crate) fn errno_only(errno: Errno) -> Self {
        Self::new(errno, None)
    }

    pub(super) fn source(&self) -> Option<&io::Error> {
        self.source.as_ref()
    }

    /// The cause, where one was proven.
    pub(crate) fn cause(&self) -> Option<&Cause> {
        self.cause.as_deref()
    }

    /// The errno, where a syscall failed.
    pub(crate) fn raw_os_error(&self) -> Option<i32> {
        self.source.as_ref()?.raw_os_error()
    }
}

/// A refusal before, or after, all syscalls.
impl From<Cause> for Reason {
    fn from(cause: Cause) -> Self {
        Self {
            source: None,
            cause: Some(Box::new(cause)),
        }
    }
}

impl From<InteriorNul> for Reason {
    fn from(nul: InteriorNul) -> Self {
        Cause::from(nul).into()
    }
}

impl From<ProcError> for Reason {
    fn from(error: ProcError) -> Self {
        match error {
            ProcError::NotMounted => Cause::no_proc().into(),
            ProcError::Errno(errno) => Self::errno_only(errno),
        }
    }
}

impl From<InvalidComponent> for Reason {
    #[cold]
    fn from(invalid: InvalidComponent) -> Self {
        Cause::from(invalid).into()
    }
}

impl From<InvalidName> for Reason {
    fn from(invalid: InvalidName) -> Self {
        Cause::invalid_name(&invalid.name).into()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.cause, self.raw_os_error()) {
            (Some(cause), _) => cause.fmt(f),
            (None, Some(errno)) => errno::Name(errno).fmt(f),
            (None, None) => f.write_str("no reason is known"),
        }
    }
}
