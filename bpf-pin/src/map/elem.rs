//! `BPF_MAP_*_ELEM`: the elements of one map, as bytes.

use std::fmt;

use bitflags::bitflags;
use bpf_pin_sys as abi;
use bpf_pin_sys::Version;
use rustix::io::Errno;

use crate::cause::Cause;
use crate::error::{Error, Failed, Operation, Reason, Result};
use crate::map::Map;
use crate::map::refused::{Lacking, Needs, frozen, no_command, not_granted, not_writable};
use crate::process::is_filtered;
use crate::sys::{self, AsMap, Cells, CellsError, ElemError};
use crate::types::{Command, MapType};

bitflags! {
    /// The flags of `BPF_MAP_UPDATE_ELEM` and `BPF_MAP_LOOKUP_ELEM`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct ElemFlags: u64 {
        /// `BPF_NOEXIST`: only if there is no such key, else EEXIST.
        const NOEXIST = abi::BPF_NOEXIST;
        /// `BPF_EXIST`: only if there is such a key, else ENOENT.
        const EXIST = abi::BPF_EXIST;
        /// `BPF_F_LOCK`: under the value's spin lock. Linux 5.1.
        ///
        /// It takes a hash or an array whose values have a `struct bpf_spin_lock` by
        /// [`MapSpec::btf`](crate::MapSpec::btf), else EINVAL. The lock's own 4 bytes are neither read
        /// nor written.
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
    /// Which batches the map's type or the kernel is known to lack.
    lacking: Lacking,
}

impl Map {
    /// A view of the elements as bytes. One syscall, for the sizes.
    ///
    /// # Errors
    ///
    /// [`Operation::Elements`](crate::Operation::Elements): [`UnknownMapType`](Cause::UnknownMapType) for a type newer than this
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
            Ok(cells) => Ok(Self {
                cells,
                lacking: Lacking::default(),
            }),
            Err((map, error)) => {
                let reason = match error {
                    CellsError::Info(errno) => Reason::errno_only(errno),
                    CellsError::UnknownType(map_type) => Cause::UnknownMapType { map_type }.into(),
                    CellsError::PossibleCpus(error) => Cause::PossibleCpus {
                        problem: error.to_string(),
                    }
                    .into(),
                };
                Err(Failed::new(map, Error::new(Operation::Elements, reason)))
            }
        }
    }

    /// A view that owns or borrows `map`, if it is what the caller takes it for.
    pub(crate) fn checked(
        map: M,
        check: impl FnOnce(&Self) -> Result<(), Cause>,
    ) -> Result<Self, Failed<M>> {
        let elems = Self::new(map)?;
        match check(&elems) {
            Ok(()) => Ok(elems),
            Err(cause) => Err(Failed::new(
                elems.into_map(),
                Error::new(Operation::Elements, cause),
            )),
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

    pub(crate) fn lacking(&self) -> &Lacking {
        &self.lacking
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
    /// queue or stack the next one, which stays. Linux 3.18; of a per-CPU map 4.6.
    ///
    /// Of a hash whose `key` another sets or deletes at that moment, it may be the value of another key:
    /// the kernel makes the next element of the one that was found, without waiting for who copies
    /// from it. Batches, as [`iter`](Self::iter) reads, are copied under the lock of the bucket.
    ///
    /// # Errors
    ///
    /// [`Operation::Lookup`](crate::Operation::Lookup): [`Size`](Cause::Size) where a slice is not as long as the map's, without
    /// a syscall; [`MapAccess`](Cause::MapAccess) (EPERM) on a map opened for writing only;
    /// [`NoCommand`](Cause::NoCommand) (ENOTSUPP, EOPNOTSUPP) on a type without lookups.
    pub fn lookup(&self, key: &[u8], value: &mut [u8]) -> Result<bool> {
        self.lookup_with(key, value, ElemFlags::ANY)
    }

    /// As [`lookup`](Self::lookup), with flags. Linux 5.1.
    ///
    /// # Errors
    ///
    /// As [`lookup`](Self::lookup), and EINVAL for a flag that the map does not take, as
    /// [`LOCK`](ElemFlags::LOCK) without a lock: [`InvalidField`](Cause::InvalidField), where that was
    /// proven.
    pub fn lookup_with(&self, key: &[u8], value: &mut [u8], flags: ElemFlags) -> Result<bool> {
        let fail = |reason| Error::new(Operation::Lookup, reason);
        match self.cells.lookup(key, value, flags.bits()) {
            Ok(()) => Ok(true),
            Err(ElemError::Errno(Errno::NOENT)) => Ok(false),
            Err(error) => Err(fail(self.not_found(error, key, value.len(), flags))),
        }
    }

    /// `BPF_MAP_UPDATE_ELEM`: puts `value` under `key`. On a queue or stack, which have no keys, at
    /// the end. Linux 3.18; of a per-CPU map 4.6.
    ///
    /// # Errors
    ///
    /// [`Operation::Update`](crate::Operation::Update): [`Size`](Cause::Size) where a slice is not as long as the map's, without a
    /// syscall; [`KeyExists`](Cause::KeyExists) (EEXIST) and [`KeyMissing`](Cause::KeyMissing)
    /// (ENOENT) as the flags have it; [`MaxEntries`](Cause::MaxEntries) (E2BIG, of a trie ENOSPC);
    /// [`IndexBeyond`](Cause::IndexBeyond) (E2BIG) of an array; EINVAL where flags do not go together, as
    /// [`NOEXIST`](ElemFlags::NOEXIST) and [`EXIST`](ElemFlags::EXIST), or the map does not take them, as
    /// [`LOCK`](ElemFlags::LOCK) without a lock: [`InvalidField`](Cause::InvalidField), where that was
    /// proven;
    /// [`MapAccess`](Cause::MapAccess) or [`Frozen`](Cause::Frozen) (EPERM); EBUSY where the key's
    /// bucket is being changed; ENOMEM.
    ///
    /// Of [`TASK_STORAGE`](MapType::TASK_STORAGE), whose values may hold addresses that the kernel
    /// follows, the map's BTF is read before the first of a view's updates, in four syscalls more:
    /// [`Uptr`](Cause::Uptr) where it speaks of such, and where it is not to be had, as
    /// without `CAP_SYS_ADMIN` (EPERM).
    #[inline]
    pub fn update(&self, key: &[u8], value: &[u8], flags: ElemFlags) -> Result<()> {
        let put = self.put(key, value, flags);
        put.map_err(|reason| Error::new(Operation::Update, reason))
    }

    #[inline]
    pub(crate) fn put(&self, key: &[u8], value: &[u8], flags: ElemFlags) -> Result<(), Reason> {
        let updated = self.cells.update(key, value, flags.bits());
        updated.or_else(|error| self.not_put(error, key, value, flags))
    }

    /// What is told of a failure is no part of the call, so that this stays small.
    #[cold]
    #[inline(never)]
    pub(crate) fn not_put(
        &self,
        error: ElemError,
        key: &[u8],
        value: &[u8],
        flags: ElemFlags,
    ) -> Result<(), Reason> {
        if let ElemError::NotWritable = error {
            self.make_writable()?;
            return self.put(key, value, flags);
        }
        Err(self.reason_with(error, key, value.len(), |errno| {
            self.update_reason(errno, key, flags)
        }))
    }

    /// Nor is this.
    #[cold]
    #[inline(never)]
    fn not_found(
        &self,
        error: ElemError,
        key: &[u8],
        value_len: usize,
        flags: ElemFlags,
    ) -> Reason {
        self.reason_with(error, key, value_len, |errno| {
            let reason = self.lookup_reason(errno);
            reason.explained(|errno| self.no_lock(errno, flags))
        })
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`: takes the value under `key` out and says whether there was
    /// one. Of a queue or stack, which have no keys, the next one: `pop`. Linux 4.20; of hashes 5.14.
    ///
    /// # Errors
    ///
    /// [`Operation::LookupAndDelete`](crate::Operation::LookupAndDelete): [`Size`](Cause::Size); [`MapAccess`](Cause::MapAccess) or
    /// [`Frozen`](Cause::Frozen) (EPERM); [`NoCommand`](Cause::NoCommand) (ENOTSUPP) on a type that
    /// does not know it, and [`Unsupported`](Cause::Unsupported) for a hash on a kernel that knows it
    /// for others only.
    pub fn lookup_and_delete(&self, key: &[u8], value: &mut [u8]) -> Result<bool> {
        self.lookup_and_delete_with(key, value, ElemFlags::ANY)
    }

    /// As [`lookup_and_delete`](Self::lookup_and_delete), with flags: [`ElemFlags::LOCK`] is the only
    /// one, and of hashes.
    ///
    /// # Errors
    ///
    /// As [`lookup_and_delete`](Self::lookup_and_delete), and EINVAL for a flag that the map does not
    /// take.
    pub fn lookup_and_delete_with(
        &self,
        key: &[u8],
        value: &mut [u8],
        flags: ElemFlags,
    ) -> Result<bool> {
        let fail = |reason| Error::new(Operation::LookupAndDelete, reason);
        match self.cells.lookup_and_delete(key, value, flags.bits()) {
            Ok(()) => Ok(true),
            Err(ElemError::Errno(Errno::NOENT)) => Ok(false),
            Err(error) => Err(fail(self.reason_with(error, key, value.len(), |errno| {
                let reason = self.take_reason(errno);
                reason.explained(|errno| self.no_lock(errno, flags))
            }))),
        }
    }

    /// `BPF_MAP_DELETE_ELEM`: removes the element under `key` and says whether there was one. Linux 3.18;
    /// of a per-CPU map 4.6.
    ///
    /// # Errors
    ///
    /// [`Operation::Delete`](crate::Operation::Delete): [`Size`](Cause::Size); [`NoCommand`](Cause::NoCommand) (EINVAL) on an array,
    /// whose elements stay, on a queue and on a stack;
    /// [`MapAccess`](Cause::MapAccess) or [`Frozen`](Cause::Frozen) (EPERM).
    pub fn delete(&self, key: &[u8]) -> Result<bool> {
        let removed = self.remove(key);
        removed.map_err(|reason| Error::new(Operation::Delete, reason))
    }

    pub(crate) fn remove(&self, key: &[u8]) -> Result<bool, Reason> {
        match self.cells.delete(key) {
            Ok(()) => Ok(true),
            Err(ElemError::Errno(Errno::NOENT)) => Ok(false),
            Err(error) => Err(self.reason_with(error, key, self.value_len(), |errno| {
                self.delete_reason(errno, key)
            })),
        }
    }

    /// `BPF_MAP_GET_NEXT_KEY`: copies the key after `key`, or the first, and says whether there was
    /// one. Of a hash the first key follows a key that is not there. Linux 3.18; without a key 4.12.
    ///
    /// # Errors
    ///
    /// [`Operation::NextKey`](crate::Operation::NextKey): [`Size`](Cause::Size); [`MapAccess`](Cause::MapAccess) (EPERM);
    /// [`NoCommand`](Cause::NoCommand) (EINVAL, ENOTSUPP, EOPNOTSUPP) on a type without keys, or
    /// whose keys are not to be listed.
    pub fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> Result<bool> {
        let fail = |reason| Error::new(Operation::NextKey, reason);
        match self.cells.next_key(key, next) {
            Ok(()) => Ok(true),
            Err(ElemError::Errno(Errno::NOENT)) => Ok(false),
            Err(error) => {
                let is_next = next.len() != self.key_len();
                let wrong = if is_next { &*next } else { key.unwrap_or(next) };
                Err(fail(self.reason_with(
                    error,
                    wrong,
                    self.value_len(),
                    |errno| self.key_reason(errno),
                )))
            }
        }
    }

    /// To be called before a batch of values is written.
    pub(crate) fn make_writable(&self) -> Result<(), Reason> {
        self.cells.make_writable().map_err(not_writable)
    }

    /// Why a command on an element of such sizes failed.
    #[cold]
    pub(crate) fn reason_with(
        &self,
        error: ElemError,
        key: &[u8],
        value_len: usize,
        because: impl FnOnce(Errno) -> Reason,
    ) -> Reason {
        match error {
            ElemError::Errno(errno) => because(errno),
            ElemError::NotWritable => unreachable!("an update is what needs this"),
            ElemError::Size => check_size("key", self.key_len(), key.len())
                .and_then(|()| check_size("value", self.value_len(), value_len))
                .expect_err("sizes that are not the map's")
                .into(),
        }
    }

    /// What stands behind an errno of an element's command.
    #[cold]
    pub(crate) fn reason(&self, errno: Errno, needs: Needs) -> Reason {
        let fd = self.cells.map().map_fd();
        let cause = match errno {
            Errno::PERM => not_granted(fd, needs).or_else(|| frozen(fd, needs)),
            // The latter is a trie's.
            Errno::TOOBIG | Errno::NOSPC if needs.writes => Some(Cause::MaxEntries {
                max_entries: self.cells.max_entries(),
            }),
            _ => None,
        };
        Reason::new(errno, cause)
    }

    /// Of a command on one element, which the map's type may not have.
    fn reason_of(&self, command: Command, errno: Errno, needs: Needs) -> Reason {
        let explain = |errno| no_command(command, MapType(self.cells.map_type()), errno);
        self.reason(errno, needs).explained(explain)
    }

    #[cold]
    fn lookup_reason(&self, errno: Errno) -> Reason {
        self.reason_of(Command::MAP_LOOKUP_ELEM, errno, Needs::READ)
    }

    #[cold]
    fn key_reason(&self, errno: Errno) -> Reason {
        self.reason_of(Command::MAP_GET_NEXT_KEY, errno, Needs::READ)
    }

    #[cold]
    pub(crate) fn delete_reason(&self, errno: Errno, key: &[u8]) -> Reason {
        if let Some(cause) = self.index_beyond(errno, key) {
            return Reason::new(errno, Some(cause));
        }
        self.reason_of(Command::MAP_DELETE_ELEM, errno, Needs::WRITE)
    }

    #[cold]
    pub(crate) fn update_reason(&self, errno: Errno, key: &[u8], flags: ElemFlags) -> Reason {
        const BOTH: ElemFlags = ElemFlags::NOEXIST.union(ElemFlags::EXIST);

        if let Some(cause) = self.index_beyond(errno, key) {
            return Reason::new(errno, Some(cause));
        }
        match errno {
            Errno::INVAL if flags.contains(BOTH) => {
                let rule = "cannot hold BPF_NOEXIST and BPF_EXIST at once";
                Reason::new(
                    errno,
                    Some(Cause::InvalidField {
                        field: "flags",
                        rule,
                    }),
                )
            }
            Errno::EXIST if flags.contains(ElemFlags::NOEXIST) => {
                Reason::new(errno, Some(Cause::KeyExists))
            }
            Errno::NOENT if flags.contains(ElemFlags::EXIST) => {
                Reason::new(errno, Some(Cause::KeyMissing))
            }
            _ => self
                .reason(errno, Needs::WRITE)
                .explained(|errno| self.no_lock(errno, flags)),
        }
    }

    /// E2BIG of those whose keys are indices.
    #[cold]
    fn index_beyond(&self, errno: Errno, key: &[u8]) -> Option<Cause> {
        let is_array = matches!(
            MapType(self.cells.map_type()),
            MapType::ARRAY
                | MapType::PERCPU_ARRAY
                | MapType::PROG_ARRAY
                | MapType::PERF_EVENT_ARRAY
                | MapType::CGROUP_ARRAY
                | MapType::ARRAY_OF_MAPS
                | MapType::DEVMAP
                | MapType::CPUMAP
                | MapType::XSKMAP
                | MapType::SOCKMAP
                | MapType::REUSEPORT_SOCKARRAY
        );
        let index = u32::from_ne_bytes(key.try_into().ok()?);
        let max_entries = self.cells.max_entries();
        (errno == Errno::TOOBIG && is_array && index >= max_entries)
            .then_some(Cause::IndexBeyond { index, max_entries })
    }

    /// Where a value's types are not known there is no lock in it.
    #[cold]
    pub(super) fn no_lock(&self, errno: Errno, flags: ElemFlags) -> Option<Cause> {
        if errno != Errno::INVAL || !flags.contains(ElemFlags::LOCK) {
            return None;
        }
        let info: abi::bpf_map_info = sys::info(self.cells.map().map_fd()).ok()?;
        let rule =
            "hold BPF_F_LOCK, and the map's values have no BTF that tells of a bpf_spin_lock";
        let cause = Cause::InvalidField {
            field: "flags",
            rule,
        };
        (info.btf_value_type_id == 0 && info.btf_vmlinux_value_type_id == 0 && !is_filtered())
            .then_some(cause)
    }

    #[cold]
    fn take_reason(&self, errno: Errno) -> Reason {
        const HASHES: Version = Version::new(5, 14);
        let is_of_a_device = || {
            let info: Result<abi::bpf_map_info, _> = sys::info(self.cells.map().map_fd());
            info.map_or(true, |info| info.ifindex != 0)
        };
        let is_hash = matches!(
            MapType(self.cells.map_type()),
            MapType::HASH | MapType::PERCPU_HASH | MapType::LRU_HASH | MapType::LRU_PERCPU_HASH
        );
        if errno == sys::ENOTSUPP && is_hash && !is_filtered() && !is_of_a_device() {
            let what = "BPF_MAP_LOOKUP_AND_DELETE_ELEM of a hash";
            return Reason::new(
                errno,
                Some(Cause::Unsupported {
                    what,
                    since: HASHES,
                }),
            );
        }
        self.reason_of(Command::MAP_LOOKUP_AND_DELETE_ELEM, errno, Needs::BOTH)
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

impl<M: AsMap> fmt::Debug for Elems<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elems")
            .field("key_len", &self.cells.key_len())
            .field("value_len", &self.cells.value_len())
            .finish_non_exhaustive()
    }
}
