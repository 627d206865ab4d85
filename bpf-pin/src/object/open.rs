//! `BPF_OBJ_GET` and the proof of kind that follows it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::diagnose;
use crate::error::{Cause, Error, Failed, Operation, Reason, Result, Subject};
use crate::path::Pathname;
use crate::path::{AtError, AtPath, with_path};
use crate::sys::InfoBuf;
use crate::types::Access;

use super::typed::Pinnable;
use crate::proof;

/// Why an open failed; diagnosed lazily.
#[derive(Debug)]
pub(crate) enum OpenFailure {
    /// `BPF_OBJ_GET` failed.
    Get(AtError),
    /// One system call did not prove the expected kind.
    Unproven(OwnedFd),
    /// The name is a symbolic link, which is not followed.
    Symlink,
}

/// Opens the pin at `path` and proves its kind.
pub(crate) fn open_path<T: Pinnable>(path: &Path, access: Access) -> Result<T> {
    match with_path(path, |at| get_typed(at, access)) {
        Ok(Ok(object)) => Ok(object),
        Ok(Err(failure)) => open_path_slow(path, access, failure),
        Err(nul) => Err(open_error(path, nul.into())),
    }
}

#[cold]
fn open_path_slow<T: Pinnable>(path: &Path, access: Access, failure: OpenFailure) -> Result<T> {
    let name = Pathname::new(path).map_err(|nul| open_error(path, nul.into()))?;
    open_slow(&name.at_path(), access, failure)
}

/// `BPF_OBJ_GET` and the proof of kind, nothing else.
#[inline]
pub(crate) fn get_typed<T: Pinnable>(
    at: &AtPath<'_>,
    access: Access,
) -> std::result::Result<T, OpenFailure> {
    let fd = at.get(access.flags()).map_err(OpenFailure::Get)?;
    let proven = proof::prove_fast(fd, T::EXPECTED);
    proven.map(T::from_proven).map_err(OpenFailure::Unproven)
}

/// As [`get_typed`], with the object's info, which proves the kind as well.
#[inline]
pub(crate) fn get_typed_with_info<T: Pinnable, const WORDS: usize>(
    at: &AtPath<'_>,
    access: Access,
    info: &mut InfoBuf<WORDS>,
) -> std::result::Result<T, OpenFailure> {
    let fd = at.get(access.flags()).map_err(OpenFailure::Get)?;
    let proven = proof::prove_with_info(fd, T::EXPECTED, info);
    proven.map(T::from_proven).map_err(OpenFailure::Unproven)
}

/// Continues an open that failed: proves the kind with more system calls, or finds the cause.
#[cold]
pub(crate) fn open_slow<T: Pinnable>(
    at: &AtPath<'_>,
    access: Access,
    failure: OpenFailure,
) -> Result<T> {
    match failure {
        OpenFailure::Get(errno) => Err(get_error(at, access, errno)),
        OpenFailure::Unproven(fd) => proof::prove_slow(fd, T::EXPECTED)
            .map(T::from_proven)
            .map_err(|(_, error)| open_error(&at.path(), error.into_reason(T::EXPECTED))),
        OpenFailure::Symlink => Err(symlink_error(at)),
    }
}

#[cold]
pub(crate) fn symlink_error(at: &AtPath<'_>) -> Error {
    let path = at.path();
    let cause = Cause::SymbolicLink { path: path.clone() };
    open_error(&path, cause.into())
}

#[cold]
pub(crate) fn get_error(at: &AtPath<'_>, access: Access, error: AtError) -> Error {
    let cause = diagnose::open(at, access, error);
    open_error(&at.path(), Reason::new(error, cause))
}

#[cold]
pub(crate) fn open_error(path: &Path, reason: Reason) -> Error {
    let path = path.to_owned();
    Error::new(Operation::Open, reason).at(path)
}

/// Proves the kind of a descriptor that comes from elsewhere; the error returns it.
pub(super) fn from_fd<T: Pinnable>(fd: OwnedFd) -> std::result::Result<T, Failed<OwnedFd>> {
    let expected = T::EXPECTED;
    let proven = proof::prove(fd, expected).map(T::from_proven);
    proven.map_err(|(fd, error)| {
        let subject = expected.map_or(Subject::None, Subject::Kind);
        let error = Error::new(Operation::FromFd, error.into_reason(expected)).of(subject);
        Failed::new(fd, error)
    })
}

/// True if `fd` is a descriptor of the object that `identity` identifies.
pub(super) fn is_same_object(identity: proof::Identity, fd: impl AsFd) -> Result<bool> {
    let other = proof::identity(fd.as_fd());
    other
        .map(|other| other == identity)
        .map_err(|error| Error::new(Operation::FromFd, error.into_reason(None)))
}
