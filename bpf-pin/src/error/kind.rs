//! Coarse kinds of errors, for programs to branch on.

use std::io;

use rustix::io::Errno;

use crate::sys::ENOTSUPP;

use super::{Cause, Reason};

/// Roughly what went wrong, as [`Error::kind`](crate::Error::kind) returns it. The details are in the
/// [`Cause`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A path, id, key, device or directory does not exist.
    /// [`Error::is_missing`](crate::Error::is_missing) returns whether that is the requested name itself.
    NotFound,
    /// The name, key or place is taken.
    AlreadyExists,
    /// This thread, descriptor or mount may not do that.
    PermissionDenied,
    /// The object or file is of another kind than requested.
    WrongKind,
    /// The object is of the right kind, but differs from the requested one.
    Mismatch,
    /// Another process changed the object or file meanwhile, or the call found another one than expected.
    /// Reading again may help.
    Changed,
    /// The path leads to another file system than bpffs.
    NotBpffs,
    /// An argument is not valid, for any kernel or for this object.
    InvalidInput,
    /// This kernel, or this type of object, does not have the operation.
    Unsupported,
    /// The object or file is locked or in use. Trying again later may help.
    Busy,
    /// A limit was reached: the map, the buffer, the mount table, memory or the descriptors are full.
    Full,
    /// A signal interrupted the call.
    Interrupted,
    /// The other side of a handshake refused, left, or did not answer as it should.
    Peer,
    /// None of these.
    Other,
}

impl ErrorKind {
    pub(super) fn of(reason: &Reason) -> Self {
        match (reason.cause(), reason.raw_os_error()) {
            (Some(cause), _) => Self::of_cause(cause),
            (None, Some(errno)) => Self::of_errno(Errno::from_raw_os_error(errno)),
            (None, None) => Self::Other,
        }
    }

    fn of_errno(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::SRCH | Errno::NOLINK => {
                Self::NotFound
            }
            Errno::EXIST | Errno::NOTEMPTY => Self::AlreadyExists,
            Errno::PERM | Errno::ACCESS | Errno::ROFS => Self::PermissionDenied,
            Errno::NOTDIR | Errno::ISDIR | Errno::NOTSOCK => Self::WrongKind,
            Errno::STALE => Self::Changed,
            Errno::INVAL | Errno::BADF | Errno::FAULT | Errno::LOOP | Errno::NAMETOOLONG => {
                Self::InvalidInput
            }
            Errno::RANGE | Errno::XDEV | Errno::OVERFLOW => Self::InvalidInput,
            Errno::NOSYS | Errno::OPNOTSUPP | ENOTSUPP => Self::Unsupported,
            Errno::BUSY | Errno::AGAIN | Errno::TXTBSY => Self::Busy,
            Errno::TOOBIG | Errno::NOSPC | Errno::NOMEM | Errno::MFILE | Errno::NFILE => Self::Full,
            Errno::DQUOT | Errno::MLINK => Self::Full,
            Errno::INTR => Self::Interrupted,
            Errno::PIPE | Errno::CONNRESET => Self::Peer,
            _ => Self::Other,
        }
    }

    fn of_cause(cause: &Cause) -> Self {
        match cause {
            Cause::Missing { .. }
            | Cause::KeyMissing
            | Cause::NoSuchId { .. }
            | Cause::NoTarget { .. }
            | Cause::Removed { .. }
            | Cause::NothingDelegated
            | Cause::NotListed { .. }
            | Cause::Detached => Self::NotFound,

            Cause::Exists { .. }
            | Cause::KeyExists
            | Cause::NotEmpty { .. }
            | Cause::XdpAttached { .. }
            | Cause::AlreadyAttached { .. }
            | Cause::AttachedExclusively { .. }
            | Cause::Occupied { .. }
            | Cause::Shadowed(_) => Self::AlreadyExists,

            Cause::Blocked { .. }
            | Cause::Sticky { .. }
            | Cause::NotOwner { .. }
            | Cause::UnmappedOwner { .. }
            | Cause::ReadOnlyFileSystem { .. }
            | Cause::MapAccess { .. }
            | Cause::Frozen
            | Cause::FreezeDenied
            | Cause::ReadOnlyForProgs
            | Cause::MissingCapability { .. }
            | Cause::UserNamespace
            | Cause::Filtered { .. }
            | Cause::Lockdown { .. }
            | Cause::NotDelegated { .. }
            | Cause::NeedsDelegation
            | Cause::ForeignUserNamespace { .. }
            | Cause::Uptr { .. } => Self::PermissionDenied,

            Cause::WrongKind { .. }
            | Cause::WrongDescriptor { .. }
            | Cause::NotAnObject { .. }
            | Cause::NotADirectory { .. }
            | Cause::SymbolicLink { .. }
            | Cause::NotTheRoot { .. } => Self::WrongKind,

            Cause::Mismatch { .. }
            | Cause::AttachedElsewhere { .. }
            | Cause::OtherNetns { .. }
            | Cause::LinkMismatch { .. }
            | Cause::OtherProgType { .. }
            | Cause::IncompatibleProg { .. }
            | Cause::OtherInnerMap { .. } => Self::Mismatch,

            Cause::Replaced { .. }
            | Cause::Displaced { .. }
            | Cause::Moved { .. }
            | Cause::UnexpectedProgram { .. }
            | Cause::UnexpectedMap { .. }
            | Cause::AnotherInstance { .. }
            | Cause::AnotherMount { .. }
            | Cause::Covered { .. }
            | Cause::LostRace
            | Cause::IterationAborted
            | Cause::RestoreFailed { .. } => Self::Changed,

            Cause::NotBpffs { .. } => Self::NotBpffs,

            Cause::Dot { .. }
            | Cause::InvalidPath { .. }
            | Cause::TooLong { .. }
            | Cause::MountPoint { .. }
            | Cause::PathBypassesMount
            | Cause::InvalidArgument { .. }
            | Cause::IndexOutOfRange { .. }
            | Cause::LengthMismatch { .. }
            | Cause::Size { .. }
            | Cause::NotLoadedFor { .. }
            | Cause::ExpectedAttachType { .. }
            | Cause::WrongProgType { .. }
            | Cause::PerCpu { .. }
            | Cause::NotMmapable { .. } => Self::InvalidInput,

            Cause::Unsupported { .. }
            | Cause::UnsupportedType { .. }
            | Cause::NoCommand { .. }
            | Cause::OptionIgnored { .. }
            | Cause::NoProc { .. }
            | Cause::Unproven { .. }
            | Cause::InitialUserNamespace => Self::Unsupported,

            Cause::Locked | Cause::Migrating | Cause::BeingWritten | Cause::InUse { .. } => {
                Self::Busy
            }

            Cause::MaxEntries { .. }
            | Cause::BufferTooSmall { .. }
            | Cause::TargetFull { .. }
            | Cause::Memlock { .. }
            | Cause::MountTableFull { .. } => Self::Full,

            Cause::PeerClosed | Cause::PeerRefused { .. } | Cause::Handshake { .. } => Self::Peer,

            Cause::PossibleCpus { .. } => Self::Other,
        }
    }
}

impl From<ErrorKind> for io::ErrorKind {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::AlreadyExists => Self::AlreadyExists,
            ErrorKind::PermissionDenied => Self::PermissionDenied,
            ErrorKind::WrongKind | ErrorKind::Mismatch => Self::InvalidInput,
            ErrorKind::NotBpffs | ErrorKind::InvalidInput => Self::InvalidInput,
            ErrorKind::Unsupported => Self::Unsupported,
            ErrorKind::Busy => Self::ResourceBusy,
            ErrorKind::Full => Self::StorageFull,
            ErrorKind::Interrupted => Self::Interrupted,
            ErrorKind::Changed | ErrorKind::Peer | ErrorKind::Other => Self::Other,
        }
    }
}
