//! `BPF_MAP_*_ELEM`: the elements of one map, as bytes.

use std::fmt;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use bitflags::bitflags;
use bpf_pin_sys as abi;
use rustix::fs::{Mode, OFlags, fcntl_getfl};
use rustix::io::Errno;

use crate::access::Access;
use crate::cause::Cause;
use crate::error::{Error, Failed, Reason, Result};
use crate::kind;
use crate::map::Map;
use crate::sys::{AsMap, Cells, CellsError};

bitflags! {
    /// The flags of `BPF_MAP_UPDATE_ELEM` and `BPF_MAP_LOOKUP_ELEM`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct ElemFlags: u64 {
        /// `BPF_NOEXIST`: only if there is no such key, else EEXIST.
        const NOEXIST = abi::BPF_NOEXIST;
        /// `BPF_EXIST`: only if there is such a key, else ENOENT.
        const EXIST = abi::BPF_EXIST;
        /// `BPF_F_LOCK`: under the value's spin lock. Linux 5.1.
        const LOCK = abi::BPF_F_LOCK;
        const _ = !0;
    }
}

impl ElemFlags {
    /// `BPF_ANY`: whether there is such a key or not.
    pub const ANY: Self = Self::empty();
}

/// The elements of a map as bytes, with the sizes read once and every slice checked against them.
///
/// `M` is a [`Map`], a [`PinnedMap`](crate::PinnedMap) or a reference to one.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::{ElemFlags, Map};
///
/// let map = Map::open("/sys/fs/bpf/flows")?;
/// let elems = map.elems()?;
/// let mut value = vec![0; elems.value_len()];
/// for key in elems.keys() {
///     if elems.lookup(&key?, &mut value)? {
///         println!("{value:?}");
///     }
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
pub struct Elems<M = Map> {
    cells: Cells<M>,
}

impl Map {
    /// A view of the elements as bytes. One syscall, for the sizes.
    ///
    /// # Errors
    ///
    /// [`Error::Elements`]: [`UnknownMapType`](Cause::UnknownMapType) for a type newer than this
    /// library; [`PossibleCpus`](Cause::PossibleCpus) for a per-CPU map where /sys is not mounted.
    pub fn elems(&self) -> Result<Elems<&Self>> {
        Ok(Elems::new(self)?)
    }
}

impl<M: AsMap> Elems<M> {
    /// A view that owns or borrows `map`.
    ///
    /// # Errors
    ///
    /// As [`Map::elems`], with the map.
    pub fn new(map: M) -> Result<Self, Failed<M>> {
        match Cells::new(map) {
            Ok(cells) => Ok(Self { cells }),
            Err((map, error)) => {
                let reason = match error {
                    CellsError::Info(errno) => Reason::errno_only(errno),
                    CellsError::UnknownType(map_type) => Cause::UnknownMapType { map_type }.into(),
                    CellsError::PossibleCpus(error) => Cause::PossibleCpus {
                        problem: error.to_string(),
                    }
                    .into(),
                };
                Err(Failed::new(map, Error::Elements { reason }))
            }
        }
    }

    /// The bytes of a key; 0 in a queue, a stack or a bloom filter.
    pub fn key_len(&self) -> usize {
        self.cells.key_len()
    }

    /// The bytes of a value: of a per-CPU map those of all CPUs, each rounded up to 8.
    pub fn value_len(&self) -> usize {
        self.cells.value_len()
    }

    pub(crate) fn cells(&self) -> &Cells<M> {
        &self.cells
    }

    /// The map.
    pub fn map(&self) -> &M {
        self.cells.map()
    }

    /// The map back.
    pub fn into_map(self) -> M {
        self.cells.into_map()
    }

    /// `BPF_MAP_LOOKUP_ELEM`: copies the value under `key` and says whether there was one. Of a
    /// queue or stack the next one, which stays.
    ///
    /// # Errors
    ///
    /// [`Error::Lookup`]: [`Size`](Cause::Size) where a slice is not as long as the map's, without
    /// a syscall; [`MapAccess`](Cause::MapAccess) (EPERM) on a map opened for writing only;
    /// ENOTSUPP or EOPNOTSUPP on a type without lookups.
    pub fn lookup(&self, key: &[u8], value: &mut [u8]) -> Result<bool> {
        self.lookup_with(key, value, ElemFlags::ANY)
    }

    /// As [`lookup`](Self::lookup), with flags. Linux 5.1.
    ///
    /// # Errors
    ///
    /// As [`lookup`](Self::lookup), and EINVAL for a flag that the map does not take.
    pub fn lookup_with(&self, key: &[u8], value: &mut [u8], flags: ElemFlags) -> Result<bool> {
        let fail = |reason| Error::Lookup { reason };
        self.check(key, value.len()).map_err(|c| fail(c.into()))?;
        match self.cells.lookup(key, value, flags.bits()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(fail(self.reason(errno, false))),
        }
    }

    /// `BPF_MAP_UPDATE_ELEM`: puts `value` under `key`. On a queue or stack, which have no keys, at
    /// the end.
    ///
    /// # Errors
    ///
    /// [`Error::Update`]: [`Size`](Cause::Size) where a slice is not as long as the map's, without a
    /// syscall; EEXIST and ENOENT as the flags have it; [`MaxEntries`](Cause::MaxEntries) (E2BIG, of a
    /// trie ENOSPC);
    /// [`MapAccess`](Cause::MapAccess) or [`Frozen`](Cause::Frozen) (EPERM); EBUSY where the key's
    /// bucket is being changed; ENOMEM.
    pub fn update(&self, key: &[u8], value: &[u8], flags: ElemFlags) -> Result<()> {
        let fail = |reason| Error::Update { reason };
        self.check(key, value.len()).map_err(|c| fail(c.into()))?;
        match self.cells.update(key, value, flags.bits()) {
            Ok(()) => Ok(()),
            Err(errno) => Err(fail(self.reason(errno, true))),
        }
    }

    /// `BPF_MAP_DELETE_ELEM`: removes the element under `key` and says whether there was one.
    ///
    /// # Errors
    ///
    /// [`Error::Delete`]: [`Size`](Cause::Size); EINVAL on an array, whose elements stay;
    /// [`MapAccess`](Cause::MapAccess) or [`Frozen`](Cause::Frozen) (EPERM).
    pub fn delete(&self, key: &[u8]) -> Result<bool> {
        let fail = |reason| Error::Delete { reason };
        self.check(key, self.value_len())
            .map_err(|c| fail(c.into()))?;
        match self.cells.delete(key) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(fail(self.reason(errno, true))),
        }
    }

    /// `BPF_MAP_GET_NEXT_KEY`: copies the key after `key`, or the first, and says whether there was
    /// one. Of a hash the first key follows a key that is not there.
    ///
    /// # Errors
    ///
    /// [`Error::NextKey`]: [`Size`](Cause::Size); [`MapAccess`](Cause::MapAccess) (EPERM); EINVAL,
    /// ENOTSUPP or EOPNOTSUPP on a type without keys.
    pub fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> Result<bool> {
        let fail = |reason| Error::NextKey { reason };
        self.check(next, self.value_len())
            .map_err(|c| fail(c.into()))?;
        if let Some(key) = key {
            self.check(key, self.value_len())
                .map_err(|c| fail(c.into()))?;
        }
        match self.cells.next_key(key, next) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(fail(self.reason(errno, false))),
        }
    }

    /// All keys, each in a `Vec` of its own.
    ///
    /// The iterator is one key ahead, so the key that it has just yielded may be deleted. If
    /// somebody else deletes the one ahead, a hash begins anew, and keys come twice; after as many
    /// as the map has room for it ends with [`Unsettled`](Cause::Unsettled).
    pub fn keys(&self) -> Keys<'_, M> {
        Keys {
            elems: self,
            walk: Walk::new(),
        }
    }

    fn check(&self, key: &[u8], value_len: usize) -> Result<(), Cause> {
        check_size("key", self.key_len(), key.len())?;
        check_size("value", self.value_len(), value_len)
    }

    /// What stands behind an errno of an element's command.
    #[cold]
    pub(crate) fn reason(&self, errno: Errno, writes: bool) -> Reason {
        let fd = self.cells.map().map_fd();
        let cause = match errno {
            Errno::PERM => not_granted(fd, writes).or_else(|| frozen(fd, writes)),
            // The latter is a trie's.
            Errno::TOOBIG | Errno::NOSPC if writes => Some(Cause::MaxEntries {
                max_entries: self.cells.max_entries(),
            }),
            _ => None,
        };
        Reason::new(errno, cause)
    }
}

pub(crate) fn check_size(what: &'static str, expected: usize, found: usize) -> Result<(), Cause> {
    if expected == found {
        return Ok(());
    }
    Err(Cause::Size {
        what,
        expected,
        found,
    })
}

/// The access mode of the descriptor, where it is not the one that was needed.
fn not_granted(fd: BorrowedFd<'_>, writes: bool) -> Option<Cause> {
    let flags = fcntl_getfl(fd).ok()?;
    let opened = match flags & OFlags::ACCMODE {
        OFlags::RDONLY if writes => Access::ReadOnly,
        OFlags::WRONLY if !writes => Access::WriteOnly,
        _ => return None,
    };
    Some(Cause::MapAccess { opened })
}

/// Only fdinfo tells. Linux 5.2.
fn frozen(fd: BorrowedFd<'_>, writes: bool) -> Option<Cause> {
    let dir = kind::proc_dir("fdinfo")?;
    let name = fd.as_raw_fd().to_string();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&dir, name, flags, Mode::empty()).ok()?;
    let text = io::read_to_string(File::from(file)).ok()?;
    let mut words = text.lines().map(|line| line.split_whitespace());
    let frozen = words.any(|mut line| line.next() == Some("frozen:") && line.next() == Some("1"));
    (writes && frozen).then_some(Cause::Frozen)
}

/// How far an iteration has come. It is one key ahead of what it yields, so that a key may be
/// deleted as soon as it was yielded.
pub(crate) struct Walk<K> {
    ahead: Ahead<K>,
    left: Option<u32>,
}

enum Ahead<K> {
    Start,
    Key(K),
    Failure(Error),
    End,
}

impl<K> Walk<K> {
    pub(crate) fn new() -> Self {
        let (ahead, left) = (Ahead::Start, None);
        Self { ahead, left }
    }

    /// The next key. `next_key` gives the one after a key, or the first.
    pub(crate) fn step<M: AsMap>(
        &mut self,
        elems: &Elems<M>,
        next_key: impl Fn(Option<&K>) -> Result<Option<K>>,
    ) -> Option<Result<K>> {
        let key = match mem::replace(&mut self.ahead, Ahead::End) {
            Ahead::Start => next_key(None).transpose()?,
            Ahead::Key(key) => Ok(key),
            Ahead::Failure(error) => Err(error),
            Ahead::End => return None,
        };
        let result = key.and_then(|key| {
            self.count(elems.cells.max_entries())?;
            Ok(key)
        });
        if let Ok(key) = &result {
            self.ahead = match next_key(Some(key)) {
                Ok(Some(next)) => Ahead::Key(next),
                Ok(None) => Ahead::End,
                Err(error) => Ahead::Failure(error),
            };
        }
        Some(result)
    }

    /// After as many keys as the map has room for, some of them have come twice: a map that is
    /// changed all the while may never come to its own end.
    fn count(&mut self, max_entries: u32) -> Result<()> {
        let most = if max_entries == 0 {
            u32::MAX
        } else {
            max_entries
        };
        let left = self.left.unwrap_or(most).checked_sub(1);
        self.left = Some(left.ok_or_else(|| Error::NextKey {
            reason: Cause::Unsettled.into(),
        })?);
        Ok(())
    }
}

/// The keys of a map, from [`Elems::keys`].
pub struct Keys<'a, M> {
    elems: &'a Elems<M>,
    walk: Walk<Vec<u8>>,
}

impl<M: AsMap> Iterator for Keys<'_, M> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let elems = self.elems;
        self.walk.step(elems, |last| {
            let mut next = vec![0; elems.key_len()];
            let found = elems.next_key(last.map(Vec::as_slice), &mut next)?;
            Ok(found.then_some(next))
        })
    }
}

impl<M: AsMap> fmt::Debug for Elems<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elems")
            .field("key_len", &self.cells.key_len())
            .field("value_len", &self.cells.value_len())
            .finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for Keys<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}
