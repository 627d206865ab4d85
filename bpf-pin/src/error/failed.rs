//! A failed operation's error, with the object that it took.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use super::{Cause, Error, ErrorKind};

/// An operation that took an object and failed: the object, still alive, and the error.
///
/// `?` works in a function that returns this crate's [`Error`] or a [`std::io::Error`], and drops the
/// object. It works in one that returns a `Box<dyn std::error::Error>`, too: the box holds the `Failed`
/// with its object, or the [`Error`] alone where the object borrows from something
/// (a [`Stage`](crate::dir::Stage), a view of a `&Map`). `.map_err(bpf_pin::Error::from)?` always drops the
/// object and boxes the [`Error`].
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::error::ErrorKind;
/// use bpf_pin::{Map, PinnedMap};
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

    /// The error.
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

/// Implements `AsFd` and the conversion into `OwnedFd` for a type with the descriptor in the field `fd`.
macro_rules! owns_fd {
    ($Type:ty) => {
        impl std::os::fd::AsFd for $Type {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.fd.as_fd()
            }
        }

        impl From<$Type> for std::os::fd::OwnedFd {
            fn from(owner: $Type) -> Self {
                owner.fd
            }
        }

        impl $crate::error::Owned for $Type {}
    };
}
pub(crate) use owns_fd;

impl<T: Owned> StdError for Failed<T> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

/// `?` from a [`Failed`] of an object that borrows to a boxed error.
macro_rules! boxes_error_only {
    ([$($generics:tt)*] $object:ty) => {
        impl<'e, $($generics)*> From<$crate::error::Failed<$object>> for Box<dyn std::error::Error + 'e> {
            fn from(failed: $crate::error::Failed<$object>) -> Self {
                $crate::error::Error::from(failed).into()
            }
        }

        impl<'e, $($generics)*> From<$crate::error::Failed<$object>>
            for Box<dyn std::error::Error + Send + Sync + 'e>
        {
            fn from(failed: $crate::error::Failed<$object>) -> Self {
                $crate::error::Error::from(failed).into()
            }
        }
    };
}
pub(crate) use boxes_error_only;

/// `?` from each kind of [`Failed`] into each error that programs return. That it compiles is the test.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Map, PinDir, PinnedMap};

    type Boxed = Box<dyn StdError>;
    type BoxedSync = Box<dyn StdError + Send + Sync>;

    fn borrowed_to_box(dir: PinDir) -> Result<(), Boxed> {
        dir.stage("set")?.publish()?;
        Ok(())
    }

    fn borrowed_to_sync_box(dir: PinDir) -> Result<(), BoxedSync> {
        dir.stage("set")?.publish()?;
        Ok(())
    }

    fn borrowed_to_error(dir: PinDir) -> Result<(), Error> {
        dir.stage("set")?.publish()?;
        Ok(())
    }

    fn borrowed_to_io(dir: PinDir) -> io::Result<()> {
        dir.stage("set")?.publish()?;
        Ok(())
    }

    fn owned_to_box(map: Map) -> Result<PinnedMap, Boxed> {
        Ok(map.pin("/x")?)
    }

    fn owned_to_sync_box(map: Map) -> Result<Map, BoxedSync> {
        Ok(map.pin("/x")?.unpin()?)
    }

    fn is_error<T: StdError + Send + Sync + 'static>() {}

    #[test]
    fn the_question_mark_works_for_borrowed_and_owned_objects() {
        let _ = (borrowed_to_box, borrowed_to_sync_box);
        let _ = (borrowed_to_error, borrowed_to_io);
        let _ = (owned_to_box, owned_to_sync_box);
        is_error::<Error>();
        is_error::<Failed<Map>>();
        is_error::<Failed<PinnedMap>>();
    }

    #[test]
    fn debug_of_a_failure_is_its_sentence() {
        let cause = Cause::trailing_slash();
        let error = Error::new(super::super::Operation::Pin, cause).at("/x/");
        let failed = Failed::new((), error);
        assert_eq!(format!("{failed:?}"), failed.to_string());
    }
}
