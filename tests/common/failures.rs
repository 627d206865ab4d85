//! Expected causes of errors. The messages are tested in tests/errors.

use std::path::PathBuf;

use bpf_pin::Error;
use bpf_pin::bpffs::FileSystem;
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

/// Asserts that the error has a cause of this pattern.
#[macro_export]
macro_rules! assert_cause_matches {
    ($error:expr, $pattern:pat $(if $guard:expr)?) => {{
        let error = &$error;
        assert!(
            matches!(error.cause(), Some($pattern) $(if $guard)?),
            "{error}"
        );
    }};
}

/// The cause for a path on another file system. `missing` is the first missing component below it.
pub fn not_bpffs(path: impl Into<PathBuf>, missing: Option<PathBuf>) -> Cause {
    let path = path.into();
    Cause::NotBpffs {
        found: FileSystem::at(&path).expect("an existing path"),
        path,
        missing,
        hidden: None,
    }
}

/// Returns true for an expected cause.
pub type IsCause = fn(&Cause) -> bool;

/// Names that no pin can have, each with a predicate for its cause.
pub fn invalid_names() -> Vec<(String, IsCause)> {
    fn is_path(cause: &Cause) -> bool {
        matches!(cause, Cause::InvalidPath { .. })
    }
    fn is_dot(cause: &Cause) -> bool {
        matches!(cause, Cause::Dot { .. })
    }
    fn is_too_long(cause: &Cause) -> bool {
        let (what, length, limit) = ("name", 256, 255);
        *cause
            == Cause::TooLong {
                what,
                length,
                limit,
            }
    }
    vec![
        ("".into(), is_path),
        (".".into(), is_dot),
        ("..".into(), is_dot),
        ("a.b".into(), is_dot),
        ("a/b".into(), is_path),
        ("a\0".into(), is_path),
        ("n".repeat(256), is_too_long),
    ]
}
