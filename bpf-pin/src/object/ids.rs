//! Objects by their ids.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Error, Operation, Reason, Result, Subject};
use crate::sys;
use crate::types::{Identity, Kind};

use super::typed::TypedObject;

/// Iterates over the ids of the living objects of a kind, in ascending order: see [`Map::ids`](crate::Map::ids).
///
/// Each step makes one system call. The iterator ends after an error.
///
/// Objects may be created and freed during the iteration. No id is returned twice, and no object that exists
/// throughout is omitted.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::object::Ids;
/// use bpf_pin::Prog;
///
/// let progs: Ids<Prog> = Prog::ids();
/// println!("{} programs", progs.collect::<bpf_pin::Result<Vec<_>>>()?.len());
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[must_use = "iterators are lazy"]
pub struct Ids<T> {
    last: u32,
    is_over: bool,
    kind: PhantomData<fn() -> T>,
}

impl<T> Ids<T> {
    pub(super) fn new() -> Self {
        Self {
            last: 0,
            is_over: false,
            kind: PhantomData,
        }
    }
}

pub(super) fn fd_by_id(kind: Kind, id: u32) -> sys::Result<OwnedFd> {
    match kind {
        Kind::Map => sys::map_fd_by_id(id, 0),
        Kind::Prog => sys::prog_fd_by_id(id),
        Kind::Link => sys::link_fd_by_id(id),
    }
}

fn next_id(kind: Kind, after: u32) -> sys::Result<u32> {
    match kind {
        Kind::Map => sys::map_next_id(after),
        Kind::Prog => sys::prog_next_id(after),
        Kind::Link => sys::link_next_id(after),
    }
}

#[cold]
pub(super) fn by_id_error(kind: Kind, id: u32, errno: Errno) -> Error {
    let cause = match errno {
        Errno::PERM => diagnose::for_id(),
        Errno::NOENT => diagnose::no_such_id(kind.noun()),
        _ => None,
    };
    let reason = Reason::new(errno, cause);
    Error::new(Operation::FromId, reason).of(Subject::Object(Identity { kind, id }))
}

impl<T: TypedObject> Iterator for Ids<T> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        match next_id(T::KIND, self.last) {
            Ok(id) if id > self.last => {
                self.last = id;
                Some(Ok(id))
            }
            // Ids do not descend.
            Ok(_) | Err(Errno::NOENT) => {
                self.is_over = true;
                None
            }
            Err(errno) => {
                self.is_over = true;
                let cause = (errno == Errno::PERM).then(diagnose::for_next_id).flatten();
                Some(Err(Error::new(
                    Operation::NextId,
                    Reason::new(errno, cause),
                )
                .of(Subject::Kind(T::KIND))))
            }
        }
    }
}

impl<T: TypedObject> std::iter::FusedIterator for Ids<T> {}

impl<T> fmt::Debug for Ids<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ids")
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}
