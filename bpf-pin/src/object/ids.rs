//! Objects by their ids.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Error, Operation, Reason, Result, Subject};
use crate::sys::ById;
use crate::types::{Command, Identity, Kind};

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

fn commands(kind: Kind) -> ById {
    match kind {
        Kind::Map => ById::MAP,
        Kind::Prog => ById::PROG,
        Kind::Link => ById::LINK,
    }
}

/// Opens the object of this kind and id.
pub(super) fn open_by_id(kind: Kind, id: u32, open_flags: u32) -> Result<OwnedFd> {
    let fd = commands(kind).fd(id, open_flags);
    fd.map_err(|errno| by_id_error(kind, id, errno))
}

#[cold]
fn by_id_error(kind: Kind, id: u32, errno: Errno) -> Error {
    let cause = match errno {
        Errno::PERM => diagnose::for_id(),
        Errno::NOENT => diagnose::no_such_id(kind.noun()),
        _ => None,
    };
    let cause = cause.or_else(|| Cause::filtered(Command(commands(kind).get_fd), errno));
    let reason = Reason::new(errno, cause);
    Error::new(Operation::FromId, reason).of(Subject::Object(Identity { kind, id }))
}

impl<T: TypedObject> Iterator for Ids<T> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        match commands(T::KIND).next_id(self.last) {
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
                let command = Command(commands(T::KIND).get_next);
                let cause = (errno == Errno::PERM).then(diagnose::for_next_id).flatten();
                let cause = cause.or_else(|| Cause::filtered(command, errno));
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
