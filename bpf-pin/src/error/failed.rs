//! What a failed operation gives back.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::cause::Cause;

use super::{Error, ErrorKind};

/// An operation that took an object and failed: the object, still alive, and the error.
///
/// `?` works in a function that returns this crate's [`Error`] or a [`std::io::Error`], and drops the
/// object. It works in one that returns a `Box<dyn std::error::Error>`, too: the box holds the `Failed`
/// with its object, or the [`Error`] alone where the object borrows from something
/// (a [`Stage`](crate::Stage), a view of a `&Map`). `.map_err(bpf_pin::Error::from)?` always drops the
/// object and boxes the [`Error`].
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::{ErrorKind, Map, PinnedMap};
///
/// /// Pins the map, or opens the one that another process pinned first.
/// fn pin_or_open(map: Map, path: &str) -> bpf_pin::Result<PinnedMap> {
///     match map.pin(path) {
///         Err(failed) if failed.kind() == ErrorKind::AlreadyExists => PinnedMap::open(path),
///         pinned => Ok(pinned?),
///     }
/// }
/// ```
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

    /// Roughly what went wrong: [`Error::kind`].
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    /// The cause, if one was proven: [`Error::cause`].
    pub fn cause(&self) -> Option<&Cause> {
        self.error.cause()
    }

    /// Returns the object and drops the error.
    pub fn into_object(self) -> T {
        self.object
    }

    /// Returns both.
    pub fn into_parts(self) -> (T, Error) {
        (self.object, self.error)
    }
}

impl<T> From<Failed<T>> for Error {
    fn from(failed: Failed<T>) -> Self {
        failed.error
    }
}

impl<T> From<Failed<T>> for io::Error {
    fn from(failed: Failed<T>) -> Self {
        failed.error.into()
    }
}

impl<T> fmt::Display for Failed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// The sentence, so that a `main` that returns the error shows it.
impl<T> fmt::Debug for Failed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An object without borrows, so that a [`Failed`] of it can be an error of its own. One that
/// borrows is no `dyn Error + 'static`, and only its [`Error`] is boxed, see [`boxes_error_only`].
pub trait Owned {}

impl Owned for std::os::fd::OwnedFd {}

impl<T: Owned> StdError for Failed<T> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

/// `?` from a [`Failed`] of an object that borrows to a boxed error.
macro_rules! boxes_error_only {
    ([$($generics:tt)*] $object:ty) => {
        impl<'e, $($generics)*> From<$crate::Failed<$object>> for Box<dyn std::error::Error + 'e> {
            fn from(failed: $crate::Failed<$object>) -> Self {
                $crate::Error::from(failed).into()
            }
        }

        impl<'e, $($generics)*> From<$crate::Failed<$object>>
            for Box<dyn std::error::Error + Send + Sync + 'e>
        {
            fn from(failed: $crate::Failed<$object>) -> Self {
                $crate::Error::from(failed).into()
            }
        }
    };
}
pub(crate) use boxes_error_only;
