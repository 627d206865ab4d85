//! Objects by their ids: which there are, and which of two descriptors are of one.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::access::Access;
use crate::cause::Cause;
use crate::diagnose;
use crate::error::{Error, Reason, Result};
use crate::kind;
use crate::object::{Handle, ObjectKind, by_id_error, kinds};
use crate::sys;

/// The ids of the living objects of a kind, in ascending order, from [`Handle::ids`].
///
/// One syscall for each. Objects may come and go meanwhile: no id comes twice, one that lives all
/// the while is not left out, and it ends. It ends after an error, too.
pub struct Ids<K> {
    last: u32,
    is_over: bool,
    kind: PhantomData<fn() -> K>,
}

impl<K: ObjectKind> Handle<K> {
    /// `BPF_MAP_GET_NEXT_ID`, `BPF_PROG_GET_NEXT_ID` (Linux 4.13) or `BPF_LINK_GET_NEXT_ID`
    /// (Linux 5.8): the ids of all living objects of the kind, whoever's they are.
    ///
    /// An object may be gone by the time that [`from_id`](Self::from_id) asks for it: ENOENT then.
    ///
    /// # Errors
    ///
    /// Each step: [`Error::NextId`] with [`MissingCapability`](Cause::MissingCapability) (EPERM)
    /// without `CAP_SYS_ADMIN`.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::Map;
    ///
    /// const ENOENT: i32 = 2;
    ///
    /// for id in Map::ids() {
    ///     match Map::from_id(id?) {
    ///         Ok(map) => println!("{}", map.info()?.name),
    ///         Err(error) if error.raw_os_error() == Some(ENOENT) => {}
    ///         Err(error) => return Err(error),
    ///     }
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn ids() -> Ids<K> {
        Ids {
            last: 0,
            is_over: false,
            kind: PhantomData,
        }
    }

    /// Whether `other` is a descriptor of the same object: of the same kind and id. Two syscalls.
    ///
    /// # Errors
    ///
    /// [`Error::Info`] as [`id`](Self::id); [`Error::Descriptor`] with [`NotBpf`](Cause::NotBpf)
    /// where `other` is of no object.
    pub fn is_same_object(&self, other: impl AsFd) -> Result<bool> {
        let own = self.identity()?;
        match kind::identity(other.as_fd()) {
            Ok(identity) => Ok(identity == own),
            Err(verdict) => Err(Error::Descriptor {
                expected: None,
                reason: Cause::from(verdict).into(),
            }),
        }
    }
}

impl Handle<kinds::MapKind> {
    /// As [`from_id`](Self::from_id), with `BPF_F_RDONLY` or `BPF_F_WRONLY` in `open_flags`.
    /// Linux 4.15.
    ///
    /// # Errors
    ///
    /// As [`from_id`](Self::from_id).
    pub fn from_id_with(id: u32, access: Access) -> Result<Self> {
        match sys::map_fd_by_id(id, access.flags()) {
            Ok(fd) => Ok(Self::from_proven_fd(fd)),
            Err(errno) => Err(by_id_error::<kinds::MapKind>(id, errno)),
        }
    }
}

impl<K: ObjectKind> Iterator for Ids<K> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        match K::next_id(self.last) {
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
                Some(Err(Error::NextId {
                    kind: K::KIND,
                    reason: Reason::new(errno, cause),
                }))
            }
        }
    }
}

impl<K: ObjectKind> std::iter::FusedIterator for Ids<K> {}

impl<K> fmt::Debug for Ids<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ids")
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}
