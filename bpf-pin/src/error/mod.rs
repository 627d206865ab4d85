//! Errors: the operation and its object, the errno, and a cause if one was proven.

pub(crate) mod cause;
mod construct;
mod errno;
pub(crate) mod escaped;
mod failed;
mod kind;
pub(crate) mod mismatch;
mod object_type;
mod operation;
mod reason;
pub(crate) mod sentence;
mod subject;
mod words;

pub use cause::Cause;
pub use failed::Failed;
pub(crate) use failed::{Owned, boxes_error_only, owns_fd};
pub use kind::ErrorKind;
use mismatch::{LinkMismatch, Mismatch};
pub use object_type::ObjectType;
pub use operation::Operation;
pub(crate) use reason::Reason;
pub(crate) use subject::Subject;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::types::{Identity, Kind};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation: every fallible call of this crate returns it.
///
/// Its text has the form `operation object: cause`, such as
/// `open /sys/fs/bpf/flows: it is a program, not a map`. If no cause was proven, the errno's name takes its
/// place. Debug prints the same text, so a `main` that returns the error shows it.
///
/// A program branches on [`kind`](Self::kind), or on [`cause`](Self::cause) for the details.
/// [`is_missing`](Self::is_missing) says that nothing has the name or the id.
///
/// The [`source`](std::error::Error::source) is the errno in the system's words. An error that was found
/// without a system call has no errno, and neither has a wrong kind.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::error::ErrorKind;
/// use bpf_pin::PinnedMap;
///
/// match PinnedMap::open("/sys/fs/bpf/flows") {
///     Ok(flows) => println!("map {}", flows.id()?),
///     Err(error) if error.is_missing() => println!("not pinned yet"),
///     Err(error) if error.kind() == ErrorKind::WrongKind => println!("{error}"),
///     Err(error) => return Err(error),
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    operation: Operation,
    subject: Subject,
    reason: Reason,
    log: Box<str>,
    elements_done: usize,
    during: Option<(Operation, PathBuf)>,
}

impl Error {
    #[cold]
    pub(crate) fn new(operation: Operation, reason: impl Into<Reason>) -> Self {
        let reason = reason.into().explained(|errno| {
            let command = operation.command()?;
            Cause::filtered(command, errno)
        });
        Self(Box::new(Inner {
            operation,
            subject: Subject::None,
            reason,
            log: Box::default(),
            elements_done: 0,
            during: None,
        }))
    }

    #[cold]
    pub(crate) fn of(mut self, subject: Subject) -> Self {
        self.0.subject = subject;
        self
    }

    /// An empty path names nothing.
    #[cold]
    pub(crate) fn at(self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        match path.as_os_str().is_empty() {
            true => self,
            false => self.of(Subject::Path(path)),
        }
    }

    /// Names this map, unless the error names an object already.
    #[cold]
    pub(crate) fn of_map(self, map: BorrowedFd<'_>) -> Self {
        match self.0.subject {
            Subject::None => self.of(Subject::map(map)),
            _ => self,
        }
    }

    #[cold]
    pub(crate) fn with_log(mut self, log: String) -> Self {
        self.0.log = log.into();
        self
    }

    #[cold]
    pub(crate) fn after_elements(mut self, done: usize) -> Self {
        self.0.elements_done = done;
        self
    }

    /// As a step of a larger operation at this path.
    #[cold]
    pub(crate) fn while_doing(mut self, operation: Operation, path: PathBuf) -> Self {
        self.0.during = Some((operation, path));
        self
    }

    /// With a cause, if it has none yet.
    #[cold]
    pub(crate) fn explained(mut self, explain: impl FnOnce(Errno) -> Option<Cause>) -> Self {
        self.0.reason = self.0.reason.explained(explain);
        self
    }

    /// With this cause instead of the one that it has.
    #[cold]
    pub(crate) fn because(mut self, cause: Cause) -> Self {
        self.0.reason.set_cause(cause);
        self
    }

    /// Names the path by which the object was opened, for an error without one.
    #[cold]
    pub(crate) fn of_opened(mut self, path: PathBuf) -> Self {
        if self.operation() == Operation::Info {
            self.0.operation = Operation::Open;
            self.0.subject = Subject::Path(path);
        }
        self
    }

    pub(crate) fn is(&self, errno: Errno) -> bool {
        self.0.reason.is(errno)
    }

    pub(crate) fn subject(&self) -> &Subject {
        &self.0.subject
    }

    /// Roughly what went wrong, for a program to branch on: by the cause where one was proven, otherwise
    /// by the errno.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::of(&self.0.reason)
    }

    /// The call that failed.
    pub fn operation(&self) -> Operation {
        self.0.operation
    }

    /// The larger operation that the call was a step of: [`Operation::Migrate`] or [`Operation::Attach`].
    pub fn during(&self) -> Option<Operation> {
        self.0.during.as_ref().map(|(operation, _)| *operation)
    }

    /// The cause, if one was proven.
    pub fn cause(&self) -> Option<&Cause> {
        self.0.reason.cause()
    }

    /// Returns true if nothing has the name, or the id, that was asked for (ENOENT), as was then seen to
    /// be so. It is for what is opened if it is there. It is false of a directory on the way that does
    /// not exist, of a symbolic link that leads nowhere, and of a bpffs that is not mounted.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::PinnedMap;
    ///
    /// match PinnedMap::open("/sys/fs/bpf/flows") {
    ///     Ok(flows) => println!("map {}", flows.id()?),
    ///     Err(error) if error.is_missing() => println!("no flows yet"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn is_missing(&self) -> bool {
        match self.cause() {
            Some(Cause::Missing { path }) => self.path() == Some(path),
            Some(Cause::NoSuchId { .. }) => true,
            _ => false,
        }
    }

    /// The errno as the kernel returned it, if a system call failed.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.0.reason.raw_os_error()
    }

    /// The path that was operated on, if there is one.
    pub fn path(&self) -> Option<&Path> {
        match (&self.0.during, &self.0.subject) {
            (Some((_, path)), _) => Some(path),
            (None, Subject::Path(path) | Subject::Paths(path, _)) => Some(path),
            _ => None,
        }
    }

    /// The second path, of [`Operation::Rename`], [`Exchange`](Operation::Exchange) and
    /// [`HardLink`](Operation::HardLink).
    pub fn second_path(&self) -> Option<&Path> {
        match &self.0.subject {
            Subject::Paths(_, second) => Some(second),
            _ => None,
        }
    }

    /// The object that was operated on, if it has no path and its id is known.
    pub fn object(&self) -> Option<Identity> {
        match self.0.subject {
            Subject::Object(identity) => Some(identity),
            Subject::ExistingMap { id, .. } => Some(Identity {
                kind: Kind::Map,
                id,
            }),
            _ => None,
        }
    }

    /// The verifier's log, for [`Operation::LoadProg`] and [`Operation::LoadBtf`], if the kernel got
    /// that far. The error's text ends with its last lines.
    pub fn log(&self) -> Option<&str> {
        Some(&*self.0.log).filter(|log| !log.is_empty())
    }

    /// How many elements were done before a batch failed, from the first one on: a caller can go on
    /// with those after them. 0 of every other operation.
    pub fn elements_done(&self) -> usize {
        self.0.elements_done
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let errno = self.0.reason.source()?;
        Some(errno)
    }
}

/// The kind is the errno's, or else that of [`Error::kind`]; the text stays, and the error is what
/// [`get_ref`](io::Error::get_ref) returns.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.raw_os_error() {
            Some(errno) => io::Error::from_raw_os_error(errno).kind(),
            None => error.kind().into(),
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    fn errno(errno: i32) -> Reason {
        Reason::errno_only(Errno::from_raw_os_error(errno))
    }

    #[test]
    fn an_errno_without_a_cause_is_named_and_explained_once() {
        let error = Error::new(Operation::Pin, errno(libc::ENOSPC)).at("/x");
        assert_eq!(error.to_string(), "pin /x: ENOSPC");
        assert_eq!(format!("{error:?}"), "pin /x: ENOSPC");
        let source = error.source().unwrap().to_string();
        assert_eq!(source, "No space left on device (os error 28)");
    }

    #[test]
    fn the_kernels_own_errno_and_unknown_ones_have_text() {
        assert_eq!(errno(524).to_string(), "ENOTSUPP");
        assert_eq!(errno(4000).to_string(), "errno 4000");
    }

    #[test]
    fn an_error_is_a_pointer() {
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }

    #[test]
    fn an_io_error_keeps_kind_text_and_error() {
        let error = Error::new(Operation::Pin, errno(libc::EEXIST)).at("/x");
        let io = io::Error::from(error);
        assert_eq!(io.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(io.to_string(), "pin /x: EEXIST");
        assert!(io.get_ref().unwrap().is::<Error>());
        let error = Error::new(Operation::Pin, Cause::trailing_slash());
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);
    }
}
