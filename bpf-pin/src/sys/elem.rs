//! The elements of a map.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use bpf_pin_sys as abi;
use rustix::io::Errno;

use super::btf::{btf_data, btf_fd_by_id};
use super::object::info;
use super::{address, address_mut, bpf, raw, sealed};

/// Why the sizes of a map's elements are not known.
#[derive(Debug)]
pub(crate) enum SizeError {
    Info(Errno),
    /// A type that is newer than this library, or an answer that is not of a map: zeroes, as a seccomp
    /// filter gives that answers in the kernel's place.
    UnknownType(u32),
    PossibleCpus(io::Error),
}

/// Why a command on one element failed.
#[derive(Debug)]
pub(crate) enum ElemError {
    Errno(Errno),
    /// A slice is not as long as the map's; no syscall was made.
    Size,
    /// [`SizedMap::make_writable`] comes first; no syscall was made.
    NotWritable,
}

/// Why nothing is written to a map's elements.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The types of its values could not be read.
    Btf(Errno),
    /// The kernel would take bytes of a value for an address.
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

/// A map and the number of bytes that the kernel reads and writes for each of its elements.
///
/// The sizes were read from this map and never change, so the kernel stays within every slice that is
/// checked against them.
pub(crate) struct SizedMap<M> {
    map: M,
    map_type: u32,
    btf_id: u32,
    /// True once it is proven that the kernel follows no address in a value.
    is_plain: AtomicBool,
    per_cpu: bool,
    max_entries: u32,
    key_len: usize,
    value_size: usize,
    value_len: usize,
}

/// The types up to which the kernel's value sizes are known: Linux 7.3.
pub(crate) const LAST_MAP_TYPE: u32 = abi::BPF_MAP_TYPE_RHASH;

/// True if the kernel copies values of this type without following an address in them. Every type
/// that is not listed is checked by its BTF before the first write. The kernel knows such addresses in
/// task storage only, and refuses to create any other map with one in its BTF.
fn copies_values(map_type: u32) -> bool {
    matches!(
        map_type,
        abi::BPF_MAP_TYPE_HASH..=abi::BPF_MAP_TYPE_INODE_STORAGE
            | abi::BPF_MAP_TYPE_BLOOM_FILTER..=abi::BPF_MAP_TYPE_RHASH
    )
}

/// True if elements of this type have keys: then the kernel takes no key of 0 bytes.
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
            // Elements are a descriptor going in and an id coming out.
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

    /// To be called before values are written. In a value of task storage a pointer may have the tag
    /// "uptr", and the kernel then has programs read and write the page of this process that it points
    /// to. The names of a BTF object include its tags, so without this name there is no such tag. Read
    /// once for a map.
    pub(crate) fn make_writable(&self) -> Result<(), WriteError> {
        if self.is_plain() {
            return Ok(());
        }
        const TAG: &[u8] = b"uptr\0";
        let btf = btf_fd_by_id(self.btf_id).map_err(WriteError::Btf)?;
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
    /// `key` and `value` are zero, or valid for what `cmd` does with `key_len` and
    /// `value_len` bytes there.
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
        // SAFETY: the caller's.
        unsafe { bpf(cmd, &mut attr) }
            .map(drop)
            .map_err(ElemError::Errno)
    }

    /// The address of a key that is only read. A map without keys wants none.
    #[inline]
    fn key(&self, key: &[u8]) -> Result<u64, ElemError> {
        match key.len() == self.key_len {
            true if key.is_empty() => Ok(0),
            true => Ok(address(key)),
            false => Err(ElemError::Size),
        }
    }

    #[inline]
    fn value(&self, value: &[u8]) -> Result<u64, ElemError> {
        match value.len() == self.value_len {
            true => Ok(address(value)),
            false => Err(ElemError::Size),
        }
    }

    /// The address of a value that the kernel writes.
    #[inline]
    fn value_mut(&self, value: &mut [u8]) -> Result<u64, ElemError> {
        match value.len() == self.value_len {
            true => Ok(address_mut(value)),
            false => Err(ElemError::Size),
        }
    }

    #[inline]
    pub(crate) fn lookup(&self, key: &[u8], value: &mut [u8], flags: u64) -> Result<(), ElemError> {
        let (key, value) = (self.key(key)?, self.value_mut(value)?);
        // SAFETY: both are as long as the map's.
        unsafe { self.call(abi::BPF_MAP_LOOKUP_ELEM, key, value, flags) }
    }

    /// With `BPF_F_CPU`: one CPU's value.
    pub(crate) fn lookup_on(
        &self,
        key: &[u8],
        value: &mut [u8],
        flags: u64,
    ) -> Result<(), ElemError> {
        assert_eq!(value.len(), self.value_size);
        assert!(self.per_cpu && flags & abi::BPF_F_CPU != 0);
        let key = self.key(key)?;
        // SAFETY: the key is as long as the map's, the value as one CPU's; a kernel that does not know
        // the flag, and so would write more, refuses it before.
        unsafe { self.call(abi::BPF_MAP_LOOKUP_ELEM, key, address_mut(value), flags) }
    }

    #[inline]
    pub(crate) fn update(&self, key: &[u8], value: &[u8], flags: u64) -> Result<(), ElemError> {
        let (key, value) = (self.key(key)?, self.value(value)?);
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
        let (key, value) = (self.key(key)?, self.value_mut(value)?);
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
        if next.len() != self.key_len {
            return Err(ElemError::Size);
        }
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

    /// 0 of storage that is bound to other objects, and has an element for each of those.
    pub(crate) fn max_entries(&self) -> u32 {
        self.max_entries
    }

    pub(crate) fn key_len(&self) -> usize {
        self.key_len
    }

    /// The size of one value as the map was created with it.
    pub(crate) fn value_size(&self) -> usize {
        self.value_size
    }

    /// The bytes of a whole element: of all CPUs where the map is per CPU.
    pub(crate) fn value_len(&self) -> usize {
        self.value_len
    }
}
