//! What a failed operation gives back.

use std::fmt;

use crate::cause::Cause;

use super::Error;

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
