//! Expected causes of errors. The messages are tested in tests/errors.

use bpf_pin::Error;
use bpf_pin::error::{Cause, Operation};

/// The operation, the errno and the cause.
#[track_caller]
pub fn assert_fails(
    error: &Error,
    operation: Operation,
    errno: impl Into<Option<i32>>,
    cause: impl Into<Option<Cause>>,
) {
    assert_eq!(error.operation(), operation, "{error}");
    assert_cause(error, errno, cause);
}

/// The errno and the cause, for any operation.
#[track_caller]
pub fn assert_cause(error: &Error, errno: impl Into<Option<i32>>, cause: impl Into<Option<Cause>>) {
    let errno = errno.into();
    assert_eq!(error.cause(), cause.into().as_ref(), "{error}");
    assert_eq!(error.raw_os_error(), errno, "{error}");
    assert_eq!(std::error::Error::source(error).is_some(), errno.is_some());
}
