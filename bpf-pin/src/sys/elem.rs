//! The elements of a map.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use bpf_pin_sys as abi;
use rustix::io::Errno;

use super::btf::btf_data;
use super::object::{ById, info};
use super::{address, address_mut, bpf, raw, sealed};

/// Why the sizes of a map's elements could not be determined.
#[derive(Debug)]
pub(crate) enum SizeError {
    Info(Errno),
    /// The type is newer than this library, or the info is not a map's: it is zero if a seccomp filter
    /// answered instead of the kernel.
    UnknownType(u32),
    PossibleCpus(io::Error),
}

/// Why a command on one element failed.
#[derive(Debug)]
pub(crate) enum ElemError {
    Errno(Errno),
    /// A slice has another length than the map's keys or values. No syscall was made.
    Size,
    /// [`SizedMap::make_writable`] was not called first. No syscall was made.
    NotWritable,
}

/// Why a map's elements may not be written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The BTF of its values could not be read.
    Btf(Errno),
    /// The kernel would interpret bytes of a value as an address.
    Uptr,
}

/// An owner or borrower of one map: a `Map`, a `PinnedMap`, or a reference to either.
///
/// Sealed: every implementation refers to the same map for as long as it lives.
pub trait AsMap: sealed::Sealed {
    #[doc(hidden)]
    fn map_fd(&self) -> BorrowedFd<'_>;
}

impl<T: AsMap> AsMap for &T {
    fn map_fd(&self) -> BorrowedFd<'_> {
        T::map_fd(self)
    }
}

/// A map and the sizes of its keys and values.
///
/// The sizes were read from this map and never change. So the kernel stays within every slice that was
/// checked against them.
pub(crate) struct SizedMap<M> {
    map: M,
    map_type: u32,
    btf_id: u32,
    /// Set once it is proven that the kernel follows no address in a value.
    is_plain: AtomicBool,
    per_cpu: bool,
    max_entries: u32,
    key_len: usize,
    value_size: usize,
    value_len: usize,
}

/// The last type for which the kernel's value sizes are known: Linux 7.3.
pub(crate) const LAST_MAP_TYPE: u32 = abi::BPF_MAP_TYPE_RHASH;

/// True if the kernel copies values of this type without following an address in them.
///
/// The BTF of every other type is checked before the first write. Only task storage supports such
/// addresses: the kernel refuses to create any other map with one in its BTF.
fn copies_values(map_type: u32) -> bool {
    matches!(
        map_type,
        abi::BPF_MAP_TYPE_HASH..=abi::BPF_MAP_TYPE_INODE_STORAGE
            | abi::BPF_MAP_TYPE_BLOOM_FILTER..=abi::BPF_MAP_TYPE_RHASH
    )
}

/// True if elements of this type have keys, which are never 0 bytes long.
fn has_keys(map_type: u32) -> bool {
    !matches!(
        map_type,
        abi::BPF_MAP_TYPE_QUEUE
            | abi::BPF_MAP_TYPE_STACK
            | abi::BPF_MAP_TYPE_RINGBUF
            | abi::BPF_MAP_TYPE_BLOOM_FILTER
            | abi::BPF_MAP_TYPE_USER_RINGBUF
            | abi::BPF_MAP_TYPE_ARENA
    )
}

impl<M: AsMap> SizedMap<M> {
    pub(crate) fn new(map: M) -> Result<Self, (M, SizeError)> {
        let info: abi::bpf_map_info = match info(map.map_fd()) {
            Ok(info) => info,
            Err(errno) => return Err((map, SizeError::Info(errno))),
        };
        let map_type = info.r#type;
        let is_known = (1..=LAST_MAP_TYPE).contains(&map_type);
        if !is_known || (has_keys(map_type) && info.key_size == 0) {
            return Err((map, SizeError::UnknownType(map_type)));
        }
        let value_size = info.value_size as usize;
        let per_cpu = matches!(
            map_type,
            abi::BPF_MAP_TYPE_PERCPU_HASH
                | abi::BPF_MAP_TYPE_PERCPU_ARRAY
                | abi::BPF_MAP_TYPE_LRU_PERCPU_HASH
                | abi::BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE
        );
        let value_len = match map_type {
            _ if per_cpu => match crate::sys::cpu::possible() {
                Ok(cpus) => value_size.next_multiple_of(8) * cpus,
                Err(error) => return Err((map, SizeError::PossibleCpus(error))),
            },
            // The caller writes a descriptor and reads an id.
            abi::BPF_MAP_TYPE_PROG_ARRAY
            | abi::BPF_MAP_TYPE_PERF_EVENT_ARRAY
            | abi::BPF_MAP_TYPE_CGROUP_ARRAY
            | abi::BPF_MAP_TYPE_ARRAY_OF_MAPS
            | abi::BPF_MAP_TYPE_HASH_OF_MAPS => size_of::<u32>(),
            _ => value_size,
        };
        Ok(Self {
            map,
            map_type,
            btf_id: info.btf_id,
            is_plain: AtomicBool::new(copies_values(map_type)),
            per_cpu,
            max_entries: info.max_entries,
            key_len: info.key_size as usize,
            value_size,
            value_len,
        })
    }

    /// Checks that values may be written; call this before the first write.
    ///
    /// A pointer in a value of task storage may have the BTF tag "uptr". The kernel then lets programs read
    /// and write the page of this process that it points to. The names of a BTF object include its tags, so
    /// a BTF object without this name has no such tag. The BTF is read once for each map.
    pub(crate) fn make_writable(&self) -> Result<(), WriteError> {
        if self.is_plain() {
            return Ok(());
        }
        const TAG: &[u8] = b"uptr\0";
        let btf = ById::BTF.fd(self.btf_id, 0).map_err(WriteError::Btf)?;
        let data = btf_data(btf.as_fd()).map_err(WriteError::Btf)?;
        if data.windows(TAG.len()).any(|name| name == TAG) {
            return Err(WriteError::Uptr);
        }
        self.is_plain.store(true, Ordering::Relaxed);
        Ok(())
    }

    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.is_plain.load(Ordering::Relaxed)
    }

    /// # Safety
    ///
    /// `key` and `value` are 0, or valid addresses of `key_len` and `value_len` bytes for what `cmd` does
    /// with them.
    #[inline]
    unsafe fn call(
        &self,
        cmd: abi::bpf_cmd,
        key: u64,
        value: u64,
        flags: u64,
    ) -> Result<(), ElemError> {
        let mut attr = abi::bpf_attr_map_elem {
            map_fd: raw(self.map.map_fd()),
            key,
            value,
            flags,
            ..abi::bpf_attr_map_elem::zeroed()
        };
        // SAFETY: as the caller promises.
        unsafe { bpf(cmd, &mut attr) }
            .map(drop)
            .map_err(ElemError::Errno)
    }

    /// The address of a key, or 0 for a map without keys.
    #[inline]
    fn key(&self, key: &[u8]) -> Result<u64, ElemError> {
        check_len(key, self.key_len)?;
        Ok(address(key))
    }

    #[inline]
    pub(crate) fn lookup(&self, key: &[u8], value: &mut [u8], flags: u64) -> Result<(), ElemError> {
        check_len(value, self.value_len)?;
        let (key, value) = (self.key(key)?, address_mut(value));
        // SAFETY: both are as long as the map's.
        unsafe { self.call(abi::BPF_MAP_LOOKUP_ELEM, key, value, flags) }
    }

    /// Looks up one CPU's value; `flags` must contain `BPF_F_CPU`.
    pub(crate) fn lookup_on(
        &self,
        key: &[u8],
        value: &mut [u8],
        flags: u64,
    ) -> Result<(), ElemError> {
        assert_eq!(value.len(), self.value_size);
        assert!(self.per_cpu && flags & abi::BPF_F_CPU != 0);
        let key = self.key(key)?;
        // SAFETY: the key is as long as the map's, the value as long as one CPU's. A kernel without this
        // flag would write more, but rejects the flag first.
        unsafe { self.call(abi::BPF_MAP_LOOKUP_ELEM, key, address_mut(value), flags) }
    }

    #[inline]
    pub(crate) fn update(&self, key: &[u8], value: &[u8], flags: u64) -> Result<(), ElemError> {
        check_len(value, self.value_len)?;
        let (key, value) = (self.key(key)?, address(value));
        if !self.is_plain() {
            return Err(ElemError::NotWritable);
        }
        // SAFETY: both are as long as the map's, and only read; the kernel follows no address in them.
        unsafe { self.call(abi::BPF_MAP_UPDATE_ELEM, key, value, flags) }
    }

    #[inline]
    pub(crate) fn lookup_and_delete(
        &self,
        key: &[u8],
        value: &mut [u8],
        flags: u64,
    ) -> Result<(), ElemError> {
        check_len(value, self.value_len)?;
        let (key, value) = (self.key(key)?, address_mut(value));
        // SAFETY: both are as long as the map's.
        unsafe { self.call(abi::BPF_MAP_LOOKUP_AND_DELETE_ELEM, key, value, flags) }
    }

    #[inline]
    pub(crate) fn delete(&self, key: &[u8]) -> Result<(), ElemError> {
        let key = self.key(key)?;
        // SAFETY: it is as long as the map's, and only read.
        unsafe { self.call(abi::BPF_MAP_DELETE_ELEM, key, 0, 0) }
    }

    #[inline]
    pub(crate) fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> Result<(), ElemError> {
        check_len(next, self.key_len)?;
        let key = key.map_or(Ok(0), |key| self.key(key))?;
        // SAFETY: both are as long as the map's.
        unsafe { self.call(abi::BPF_MAP_GET_NEXT_KEY, key, address_mut(next), 0) }
    }

    pub(crate) fn map(&self) -> &M {
        &self.map
    }

    pub(crate) fn into_map(self) -> M {
        self.map
    }

    pub(crate) fn map_type(&self) -> u32 {
        self.map_type
    }

    pub(crate) fn is_per_cpu(&self) -> bool {
        self.per_cpu
    }

    /// 0 for local storage, which has one element for each object that it belongs to.
    pub(crate) fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// The most keys that an iteration returns. With more of them, so many are repeated that it might not end.
    ///
    /// A resizable hash repeats the keys that move to its new table during the iteration.
    pub(crate) fn most_keys(&self) -> u32 {
        match (self.max_entries, self.map_type) {
            (0, _) => u32::MAX,
            (max_entries, abi::BPF_MAP_TYPE_RHASH) => max_entries.saturating_mul(2),
            (max_entries, _) => max_entries,
        }
    }

    pub(crate) fn key_len(&self) -> usize {
        self.key_len
    }

    /// The value size that the map was created with.
    pub(crate) fn value_size(&self) -> usize {
        self.value_size
    }

    /// The length of a whole value: for a per-CPU map, of the values of all CPUs.
    pub(crate) fn value_len(&self) -> usize {
        self.value_len
    }
}

#[inline]
fn check_len(slice: &[u8], expected: usize) -> Result<(), ElemError> {
    if slice.len() != expected {
        return Err(ElemError::Size);
    }
    Ok(())
}
