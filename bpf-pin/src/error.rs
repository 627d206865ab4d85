//! What went wrong: the operation, what it was done to, the errno, and a cause if one was proven.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::cause::Cause;
use crate::kind::Kind;
use crate::operation::{DirOperation, MountOperation, TokenOperation};
use crate::pathname::InteriorNul;
use crate::place::NO_WAY;
use crate::types::{AttachType, MapType, ProgType};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation.
///
/// Its text names the operation, its operand and the cause, or the errno's name where no
/// cause was proven; its source is the errno in the system's words. A refusal that needed
/// no syscall, or a wrong kind found after all syscalls went well, has no errno.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// `BPF_OBJ_GET`, or the proof of kind that follows it.
    Open {
        /// The pin.
        path: PathBuf,
        /// Why.
        reason: Reason,
    },
    /// `BPF_OBJ_PIN`.
    Pin {
        /// Where it was to be.
        path: PathBuf,
        /// Why.
        reason: Reason,
    },
    /// The identity check before `unlink(2)`, or that call.
    Unpin {
        /// The pin.
        path: PathBuf,
        /// Why.
        reason: Reason,
    },
    /// What is done with a directory on a bpffs and the names in it.
    Directory {
        /// What.
        operation: DirOperation,
        /// The directory, or the name in it.
        path: PathBuf,
        /// The other name, where there are two.
        to: Option<Box<Path>>,
        /// Why.
        reason: Reason,
    },
    /// `statfs(2)`.
    Statfs {
        /// What was looked at.
        path: PathBuf,
        /// Why.
        reason: Reason,
    },
    /// `fstatfs(2)`.
    Fstatfs {
        /// Why.
        reason: Reason,
    },
    /// A descriptor from elsewhere that is not of the kind it was taken for.
    Descriptor {
        /// The kind that was asked for, or None where any would have done.
        expected: Option<Kind>,
        /// Why.
        reason: Reason,
    },
    /// `BPF_*_GET_FD_BY_ID`.
    ById {
        /// The kind that was asked for.
        kind: Kind,
        /// The object's id.
        id: u32,
        /// Why.
        reason: Reason,
    },
    /// `fcntl(F_DUPFD_CLOEXEC)`.
    Clone {
        /// Of what.
        kind: Kind,
        /// Why.
        reason: Reason,
    },
    /// `BPF_OBJ_GET_INFO_BY_FD`.
    Info {
        /// Of what.
        kind: Kind,
        /// Why.
        reason: Reason,
    },
    /// `BPF_MAP_CREATE`.
    CreateMap {
        /// The type asked for.
        map_type: MapType,
        /// The name asked for, or empty.
        name: String,
        /// Why.
        reason: Reason,
    },
    /// `BPF_PROG_LOAD`.
    LoadProg {
        /// The type asked for.
        prog_type: ProgType,
        /// The name asked for, or empty.
        name: String,
        /// What the verifier wrote, or empty where it was never reached.
        log: Box<str>,
        /// Why.
        reason: Reason,
    },
    /// `BPF_LINK_CREATE`.
    CreateLink {
        /// Where the program was to be attached.
        attach_type: AttachType,
        /// Why.
        reason: Reason,
    },
    /// `BPF_LINK_UPDATE`.
    UpdateLink {
        /// Why.
        reason: Reason,
    },
    /// `BPF_LINK_DETACH`.
    DetachLink {
        /// Why.
        reason: Reason,
    },
    /// A view of a map's elements was asked for with types, or of a map, that it cannot be of.
    Elements {
        /// Why.
        reason: Reason,
    },
    /// `BPF_MAP_LOOKUP_ELEM`.
    Lookup {
        /// Why.
        reason: Reason,
    },
    /// `BPF_MAP_UPDATE_ELEM`.
    Update {
        /// Why.
        reason: Reason,
    },
    /// `BPF_MAP_DELETE_ELEM`.
    Delete {
        /// Why.
        reason: Reason,
    },
    /// `BPF_MAP_GET_NEXT_KEY`.
    NextKey {
        /// Why.
        reason: Reason,
    },
    /// A bpffs was looked for, mounted, unmounted or delegated.
    Mount {
        /// Which of these.
        operation: MountOperation,
        /// Where, or empty where there is no place.
        path: PathBuf,
        /// Why.
        reason: Reason,
    },
    /// A BPF token was made or looked at.
    Token {
        /// Which of these.
        operation: TokenOperation,
        /// Why.
        reason: Reason,
    },
}

impl Error {
    /// The errno and the cause.
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Open { reason, .. }
            | Self::Pin { reason, .. }
            | Self::Unpin { reason, .. }
            | Self::Directory { reason, .. }
            | Self::Statfs { reason, .. }
            | Self::Fstatfs { reason }
            | Self::Descriptor { reason, .. }
            | Self::ById { reason, .. }
            | Self::Clone { reason, .. }
            | Self::Info { reason, .. }
            | Self::CreateMap { reason, .. }
            | Self::LoadProg { reason, .. }
            | Self::CreateLink { reason, .. }
            | Self::UpdateLink { reason }
            | Self::DetachLink { reason }
            | Self::Elements { reason }
            | Self::Lookup { reason }
            | Self::Update { reason }
            | Self::Delete { reason }
            | Self::NextKey { reason }
            | Self::Mount { reason, .. }
            | Self::Token { reason, .. } => reason,
        }
    }

    /// The cause, where one was proven.
    pub fn cause(&self) -> Option<&Cause> {
        self.reason().cause()
    }

    /// The errno as the kernel gave it, where a syscall failed.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.reason().raw_os_error()
    }

    /// The path that was operated on, where there was one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Open { path, .. }
            | Self::Pin { path, .. }
            | Self::Unpin { path, .. }
            | Self::Directory { path, .. }
            | Self::Statfs { path, .. } => Some(path),
            Self::Mount { path, .. } if !path.as_os_str().is_empty() => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { path, .. } => write!(f, "open {}", path.display()),
            Self::Pin { path, .. } => write!(f, "pin {}", path.display()),
            Self::Unpin { path, .. } => write!(f, "unpin {}", path.display()),
            Self::Directory {
                operation,
                path,
                to,
                ..
            } => operation.write(f, path, to.as_deref()),
            Self::Statfs { path, .. } => write!(f, "statfs {}", path.display()),
            Self::Fstatfs { .. } => f.write_str("fstatfs"),
            Self::Descriptor {
                expected: Some(kind),
                ..
            } => write!(f, "take a descriptor for a {kind}"),
            Self::Descriptor { expected: None, .. } => {
                f.write_str("take a descriptor for an object")
            }
            Self::ById { kind, id, .. } => write!(f, "open {kind} {id}"),
            Self::Clone { kind, .. } => write!(f, "clone the descriptor of a {kind}"),
            Self::Info { kind, .. } => write!(f, "read the info of a {kind}"),
            Self::CreateMap { map_type, name, .. } => named(f, "create", map_type, "map", name),
            Self::LoadProg {
                prog_type, name, ..
            } => named(f, "load", prog_type, "program", name),
            Self::CreateLink { attach_type, .. } => write!(f, "attach a program to {attach_type}"),
            Self::UpdateLink { .. } => f.write_str("update a link"),
            Self::DetachLink { .. } => f.write_str("detach a link"),
            Self::Elements { .. } => f.write_str("reach the elements of a map"),
            Self::Lookup { .. } => f.write_str("look up an element"),
            Self::Update { .. } => f.write_str("update an element"),
            Self::Delete { .. } => f.write_str("delete an element"),
            Self::NextKey { .. } => f.write_str("find the next key"),
            Self::Mount {
                operation, path, ..
            } => match path.as_os_str().is_empty() {
                true => operation.fmt(f),
                false => write!(f, "{operation} {}", path.display()),
            },
            Self::Token { operation, .. } => operation.fmt(f),
        }?;
        write!(f, ": {}", self.reason())?;
        match self {
            Self::LoadProg { log, .. } if !log.is_empty() => {
                write!(f, "; the verifier's last words:\n{}", last_lines(log, 24))
            }
            Self::Mount {
                operation: MountOperation::Mount | MountOperation::Attach,
                reason,
                ..
            } if matches!(reason.cause(), Some(Cause::Missing { .. })) => {
                f.write_str("; the directory must be made first")
            }
            _ => Ok(()),
        }
    }
}

fn named(
    f: &mut fmt::Formatter<'_>,
    verb: &str,
    of_type: &dyn fmt::Display,
    kind: &str,
    name: &str,
) -> fmt::Result {
    write!(f, "{verb} {of_type} {kind}")?;
    if !name.is_empty() {
        write!(f, " {name:?}")?;
    }
    Ok(())
}

fn last_lines(text: &str, count: usize) -> &str {
    let text = text.trim_end();
    let cut = text.rmatch_indices('\n').nth(count - 1);
    cut.map_or(text, |(at, _)| &text[at + 1..])
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let errno = self.reason().source.as_ref()?;
        Some(errno)
    }
}

/// Why an operation failed: what the kernel said, and what was then found to be behind it.
#[derive(Debug)]
pub struct Reason {
    source: Option<io::Error>,
    cause: Option<Box<Cause>>,
}

impl Reason {
    pub(crate) fn new(errno: Errno, cause: Option<Cause>) -> Self {
        if errno == NO_WAY {
            return Cause::NeedsProc.into();
        }
        Self {
            source: Some(io::Error::from_raw_os_error(errno.raw_os_error())),
            cause: cause.map(Box::new),
        }
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

    pub(crate) fn errno_only(errno: Errno) -> Self {
        Self::new(errno, None)
    }

    pub(crate) fn from_io(error: io::Error) -> Self {
        Self {
            source: Some(error),
            cause: None,
        }
    }

    /// The cause, where one was proven.
    pub fn cause(&self) -> Option<&Cause> {
        self.cause.as_deref()
    }

    /// The errno, where a syscall failed.
    pub fn raw_os_error(&self) -> Option<i32> {
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
        Cause::InteriorNul {
            position: nul.position,
        }
        .into()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.cause, self.raw_os_error()) {
            (Some(cause), _) => cause.fmt(f),
            (None, Some(errno)) => match errno_name(errno) {
                Some(name) => f.write_str(name),
                None => write!(f, "errno {errno}"),
            },
            (None, None) => f.write_str("no reason is known"),
        }
    }
}

/// The names of the errnos that bpf(2) and the calls around it give.
pub(crate) fn errno_name(errno: i32) -> Option<&'static str> {
    const NAMES: &[(Errno, &str)] = &[
        (Errno::PERM, "EPERM"),
        (Errno::NOENT, "ENOENT"),
        (Errno::INTR, "EINTR"),
        (Errno::IO, "EIO"),
        (Errno::TOOBIG, "E2BIG"),
        (Errno::BADF, "EBADF"),
        (Errno::AGAIN, "EAGAIN"),
        (Errno::NOMEM, "ENOMEM"),
        (Errno::ACCESS, "EACCES"),
        (Errno::FAULT, "EFAULT"),
        (Errno::BUSY, "EBUSY"),
        (Errno::EXIST, "EEXIST"),
        (Errno::XDEV, "EXDEV"),
        (Errno::NODEV, "ENODEV"),
        (Errno::MLINK, "EMLINK"),
        (Errno::NOTEMPTY, "ENOTEMPTY"),
        (Errno::NOTDIR, "ENOTDIR"),
        (Errno::ISDIR, "EISDIR"),
        (Errno::INVAL, "EINVAL"),
        (Errno::NFILE, "ENFILE"),
        (Errno::MFILE, "EMFILE"),
        (Errno::NOSPC, "ENOSPC"),
        (Errno::ROFS, "EROFS"),
        (Errno::PIPE, "EPIPE"),
        (Errno::RANGE, "ERANGE"),
        (Errno::NAMETOOLONG, "ENAMETOOLONG"),
        (Errno::NOSYS, "ENOSYS"),
        (Errno::LOOP, "ELOOP"),
        (Errno::NOLINK, "ENOLINK"),
        (Errno::OVERFLOW, "EOVERFLOW"),
        (Errno::BADFD, "EBADFD"),
        (Errno::NOTSOCK, "ENOTSOCK"),
        (Errno::OPNOTSUPP, "EOPNOTSUPP"),
        (Errno::CONNRESET, "ECONNRESET"),
        (Errno::STALE, "ESTALE"),
        (Errno::DQUOT, "EDQUOT"),
        (crate::sys::ENOTSUPP, "ENOTSUPP"),
    ];
    let known = NAMES
        .iter()
        .find(|(known, _)| known.raw_os_error() == errno);
    known.map(|(_, name)| *name)
}

/// An operation that took an object and failed: the object, alive, and the error.
///
/// In a function that returns this crate's [`Error`], `?` makes it that and drops the object. In one
/// that returns a `Box<dyn std::error::Error>` the box would keep this whole, object included: there
/// `.map_err(bpf_pin::Error::from)?` drops it.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::{Cause, Map, PinnedMap};
///
/// /// Pins the map, or opens the one that somebody else was faster to pin.
/// fn pin_or_open(map: Map, path: &str) -> bpf_pin::Result<PinnedMap> {
///     match map.pin(path) {
///         Err(failed) if matches!(failed.cause(), Some(Cause::Exists { .. })) => {
///             PinnedMap::open(path)
///         }
///         pinned => Ok(pinned?),
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Failed<T> {
    object: T,
    error: Error,
}

impl<T> Failed<T> {
    #[cold]
    pub(crate) fn new(object: T, error: Error) -> Self {
        Self { object, error }
    }

    /// What went wrong.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The cause, where one was proven.
    pub fn cause(&self) -> Option<&Cause> {
        self.error.cause()
    }

    /// The object back, and the error dropped.
    pub fn into_object(self) -> T {
        self.object
    }

    /// Both.
    pub fn into_parts(self) -> (T, Error) {
        (self.object, self.error)
    }
}

impl<T> From<Failed<T>> for Error {
    fn from(failed: Failed<T>) -> Self {
        failed.error
    }
}

impl<T> fmt::Display for Failed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T: fmt::Debug> std::error::Error for Failed<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn an_errno_without_a_cause_is_named_and_explained_once() {
        let error = Error::Pin {
            path: "/x".into(),
            reason: Reason::new(Errno::NOSPC, None),
        };
        assert_eq!(error.to_string(), "pin /x: ENOSPC");
        let source = error.source().unwrap().to_string();
        assert_eq!(source, "No space left on device (os error 28)");
    }

    #[test]
    fn the_kernels_own_errno_and_unknown_ones_have_text() {
        let show = |errno| Reason::new(Errno::from_raw_os_error(errno), None).to_string();
        assert_eq!(show(524), "ENOTSUPP");
        assert_eq!(show(4000), "errno 4000");
    }

    #[test]
    fn the_last_lines_of_a_log() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("a\nb\n", 2), "a\nb");
        assert_eq!(last_lines("a", 2), "a");
        assert_eq!(last_lines("", 2), "");
    }

    #[test]
    fn an_error_is_small_enough_to_return() {
        assert!(size_of::<Error>() <= 72, "{}", size_of::<Error>());
    }
}
