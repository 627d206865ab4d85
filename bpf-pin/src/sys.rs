//! The syscalls: an attr in, an owned descriptor or an errno out.
//!
//! The only file with `unsafe`. Its functions are safe to call because each builds
//! its own attr from references whose lengths it has checked.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use bpf_pin_sys as abi;
use rustix::io::Errno;

pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// The kernel's own "not supported", which leaks out of some commands.
pub(crate) const ENOTSUPP: Errno = Errno::from_raw_os_error(524);

/// # Safety
///
/// Every address in `attr` is valid for what `cmd` reads or writes there.
#[inline]
unsafe fn bpf<A>(cmd: abi::bpf_cmd, attr: &mut A) -> Result<i32> {
    // SAFETY: the caller's; all of attr is initialised.
    unsafe { bpf_sized(cmd, attr, size_of::<A>()) }
}

/// As [`bpf`], of which the kernel is shown no more than `size` bytes.
///
/// # Safety
///
/// As [`bpf`].
#[inline]
unsafe fn bpf_sized<A>(cmd: abi::bpf_cmd, attr: &mut A, size: usize) -> Result<i32> {
    debug_assert!(size <= size_of::<A>());
    // SAFETY: the caller's; the kernel reads and writes no more of attr than size bytes.
    let result = unsafe { abi::bpf(cmd, ptr::from_mut(attr).cast(), size as u32) };
    if result < 0 {
        return Err(last_errno());
    }
    Ok(result as i32)
}

#[cold]
fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// # Safety
///
/// `result` is what a command that makes a descriptor has returned.
#[inline]
unsafe fn new_fd(result: Result<i32>) -> Result<OwnedFd> {
    // SAFETY: the kernel has just made it, for us alone.
    result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

fn address<T: ?Sized>(of: &T) -> u64 {
    ptr::from_ref(of).cast::<()>() as u64
}

fn address_mut<T: ?Sized>(of: &mut T) -> u64 {
    ptr::from_mut(of).cast::<()>() as u64
}

/// A descriptor for a field of an attr where 0 stands for none.
pub(crate) enum NonZeroFd<'fd> {
    None,
    Given(BorrowedFd<'fd>),
    /// Of what is open as 0.
    Copy(OwnedFd),
}

impl<'fd> NonZeroFd<'fd> {
    pub(crate) fn new(fd: Option<BorrowedFd<'fd>>) -> Result<Self> {
        match fd {
            None => Ok(Self::None),
            Some(fd) if fd.as_raw_fd() != 0 => Ok(Self::Given(fd)),
            Some(zero) => rustix::io::fcntl_dupfd_cloexec(zero, 1).map(Self::Copy),
        }
    }

    pub(crate) fn number(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Given(fd) => raw(*fd),
            Self::Copy(fd) => raw(fd.as_fd()),
        }
    }
}

/// Up to `file_flags`: what a kernel before 6.5 knows of the arm.
const OBJ_SIZE: usize = offset_of!(abi::bpf_attr_obj, path_fd);

pub(crate) fn obj_pin(fd: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    let mut attr = abi::bpf_attr_obj {
        pathname: path.as_ptr() as u64,
        bpf_fd: raw(fd),
        ..abi::bpf_attr_obj::zeroed()
    };
    // SAFETY: pathname is NUL-terminated and outlives the call.
    unsafe { bpf_sized(abi::BPF_OBJ_PIN, &mut attr, OBJ_SIZE) }.map(drop)
}

pub(crate) fn obj_get(path: &CStr, file_flags: u32) -> Result<OwnedFd> {
    let mut attr = abi::bpf_attr_obj {
        pathname: path.as_ptr() as u64,
        file_flags,
        ..abi::bpf_attr_obj::zeroed()
    };
    // SAFETY: pathname is NUL-terminated and outlives the call; OBJ_GET returns a descriptor.
    unsafe { new_fd(bpf_sized(abi::BPF_OBJ_GET, &mut attr, OBJ_SIZE)) }
}

/// As [`obj_pin`] with `BPF_F_PATH_FD`, of a path that begins at `dir`. Linux 6.5.
pub(crate) fn obj_pin_at(dir: BorrowedFd<'_>, path: &CStr, fd: BorrowedFd<'_>) -> Result<()> {
    let mut attr = abi::bpf_attr_obj {
        pathname: path.as_ptr() as u64,
        bpf_fd: raw(fd),
        file_flags: abi::BPF_F_PATH_FD,
        path_fd: dir.as_raw_fd(),
        ..abi::bpf_attr_obj::zeroed()
    };
    // SAFETY: pathname is NUL-terminated and outlives the call.
    unsafe { bpf(abi::BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// As [`obj_get`] with `BPF_F_PATH_FD`, of a path that begins at `dir`. Linux 6.5.
pub(crate) fn obj_get_at(dir: BorrowedFd<'_>, path: &CStr, file_flags: u32) -> Result<OwnedFd> {
    get_at(dir.as_raw_fd(), path, file_flags)
}

fn get_at(path_fd: i32, path: &CStr, file_flags: u32) -> Result<OwnedFd> {
    let mut attr = abi::bpf_attr_obj {
        pathname: path.as_ptr() as u64,
        file_flags: file_flags | abi::BPF_F_PATH_FD,
        path_fd,
        ..abi::bpf_attr_obj::zeroed()
    };
    // SAFETY: pathname is NUL-terminated and outlives the call; OBJ_GET returns a descriptor.
    unsafe { new_fd(bpf(abi::BPF_OBJ_GET, &mut attr)) }
}

/// `BPF_OBJ_GET` from no directory: EBADF where the kernel knows `BPF_F_PATH_FD`.
pub(crate) fn get_from_nowhere() -> Errno {
    get_at(-1, c"x", 0).err().unwrap_or(Errno::INVAL)
}

/// `BPF_*_GET_FD_BY_ID`. `cmd` must be one of them.
fn fd_by_id(cmd: abi::bpf_cmd, id: u32) -> Result<OwnedFd> {
    let mut attr = abi::bpf_attr_get_id {
        start_id: id,
        ..abi::bpf_attr_get_id::zeroed()
    };
    // SAFETY: the arm holds no address; the callers' commands return a descriptor.
    unsafe { new_fd(bpf_sized(cmd, &mut attr, size_of::<u32>())) }
}

pub(crate) fn map_fd_by_id(id: u32) -> Result<OwnedFd> {
    fd_by_id(abi::BPF_MAP_GET_FD_BY_ID, id)
}

pub(crate) fn prog_fd_by_id(id: u32) -> Result<OwnedFd> {
    fd_by_id(abi::BPF_PROG_GET_FD_BY_ID, id)
}

pub(crate) fn link_fd_by_id(id: u32) -> Result<OwnedFd> {
    fd_by_id(abi::BPF_LINK_GET_FD_BY_ID, id)
}

/// An info struct of the kernel.
///
/// # Safety
///
/// Valid for any bytes, and all zeroes ask the kernel to write through no address.
pub(crate) unsafe trait Info: Default {}
// SAFETY: integers and arrays of them; addresses are zero, and so are their counts.
unsafe impl Info for abi::bpf_map_info {}
// SAFETY: as above.
unsafe impl Info for abi::bpf_prog_info {}
// SAFETY: as above.
unsafe impl Info for abi::bpf_link_info {}
// SAFETY: as above.
unsafe impl Info for abi::bpf_token_info {}

fn info_into<T>(bpf_fd: u32, info: &mut T) -> Result<u32> {
    let mut attr = abi::bpf_attr_info {
        bpf_fd,
        info_len: size_of::<T>() as u32,
        info: address_mut(info),
    };
    // SAFETY: info is info_len writable bytes; the callers keep every address in it zero.
    unsafe { bpf(abi::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(attr.info_len)
}

/// `BPF_OBJ_GET_INFO_BY_FD`. `fd` must be of the kind that `T` describes.
pub(crate) fn info<T: Info>(fd: BorrowedFd<'_>) -> Result<T> {
    let mut info = T::default();
    info_into(raw(fd), &mut info).map(|_| info)
}

/// Whether this thread may call bpf(2) at all: EPERM where it may not.
pub(crate) fn gate() -> Errno {
    info_into(u32::MAX, &mut [0u8; 0])
        .err()
        .unwrap_or(Errno::BADF)
}

/// What the first bytes of any kind's info tell about the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InfoHead {
    /// The size of the kernel's struct, or of our room for it if that is less.
    pub(crate) len: u32,
    /// The first word of every kind's, but for BTF and tokens.
    pub(crate) r#type: u32,
    /// The second word, likewise.
    pub(crate) id: u32,
    /// The word at 12 came back untouched: `bpf_link_info` has a hole there,
    /// `bpf_map_info` the value size, `bpf_prog_info` half of the tag.
    pub(crate) hole_kept: bool,
    /// The words at 40 and 44 are zero: in `bpf_map_info` a device and a BTF type that hardly any
    /// map has, in `bpf_prog_info` the time of loading.
    pub(crate) middle_is_zero: bool,
    /// Where `bpf_prog_info` has func_info, line_info and jited_line_info_rec_size.
    pub(crate) record_sizes: [u32; 3],
}

pub(crate) fn info_head(fd: BorrowedFd<'_>) -> Result<InfoHead> {
    type Map = abi::bpf_map_info;
    type Prog = abi::bpf_prog_info;
    const HOLE: usize = offset_of!(Map, value_size) / 4;
    // Room for the largest struct and some growth; aligned for all of them.
    #[repr(align(8))]
    struct Room([u32; 64]);

    let mut room = Room([0; 64]);
    // No size and no id is that large, and nobody who made up an object's numbers knows where
    // this stack is.
    let mark = (address(&room) >> 4) as u32 | 1 << 31;
    room.0[HOLE] = mark;
    let len = info_into(raw(fd), &mut room)?;
    let word = |offset: usize| room.0[offset / 4];
    Ok(InfoHead {
        len,
        r#type: room.0[0],
        id: room.0[1],
        hole_kept: room.0[HOLE] == mark,
        middle_is_zero: word(offset_of!(Map, ifindex)) == 0
            && word(offset_of!(Map, btf_vmlinux_value_type_id)) == 0,
        record_sizes: [
            word(offset_of!(Prog, func_info_rec_size)),
            word(offset_of!(Prog, line_info_rec_size)),
            word(offset_of!(Prog, jited_line_info_rec_size)),
        ],
    })
}

/// The part of a link's info that depends on its type, as words.
pub(crate) fn link_details(info: &abi::bpf_link_info) -> [u32; DETAILS / 4] {
    // SAFETY: every arm is integers, so any initialised bytes are words; and the kernel, or
    // else zeroed(), has written all of them.
    unsafe {
        ptr::from_ref(&info.details)
            .cast::<[u32; DETAILS / 4]>()
            .read()
    }
}
const DETAILS: usize = size_of::<abi::bpf_link_info_details>();

fn empty_batch(cmd: abi::bpf_cmd, map_fd: u32) -> Result<()> {
    let mut attr = abi::bpf_attr_batch {
        map_fd,
        ..abi::bpf_attr_batch::zeroed()
    };
    // SAFETY: no address is followed for a count of zero.
    unsafe { bpf(cmd, &mut attr) }.map(drop)
}

pub(crate) fn map_lookup_empty_batch(fd: BorrowedFd<'_>) -> Result<()> {
    empty_batch(abi::BPF_MAP_LOOKUP_BATCH, raw(fd))
}

pub(crate) fn map_update_empty_batch(fd: BorrowedFd<'_>) -> Result<()> {
    empty_batch(abi::BPF_MAP_UPDATE_BATCH, raw(fd))
}

/// `BPF_MAP_LOOKUP_BATCH` of no map: EBADF where the kernel knows the command.
pub(crate) fn no_batch() -> Errno {
    empty_batch(abi::BPF_MAP_LOOKUP_BATCH, u32::MAX)
        .err()
        .unwrap_or(Errno::INVAL)
}

/// Binds no map to `fd`: EBADF where it is a program.
pub(crate) fn prog_bind_no_map(fd: BorrowedFd<'_>) -> Errno {
    let mut attr = abi::bpf_attr_prog_bind_map {
        prog_fd: raw(fd),
        map_fd: u32::MAX,
        flags: 0,
    };
    // SAFETY: the arm holds no address.
    let result = unsafe { bpf(abi::BPF_PROG_BIND_MAP, &mut attr) };
    result.err().unwrap_or(Errno::INVAL)
}

/// Updates `fd` to no program: EBADF where it is a link.
pub(crate) fn link_update_no_prog(fd: BorrowedFd<'_>) -> Errno {
    let mut attr = abi::bpf_attr_link_update {
        link_fd: raw(fd),
        new_prog_fd: u32::MAX,
        ..abi::bpf_attr_link_update::zeroed()
    };
    // SAFETY: the arm holds no address.
    let result = unsafe { bpf(abi::BPF_LINK_UPDATE, &mut attr) };
    result.err().unwrap_or(Errno::INVAL)
}

/// `BPF_MAP_CREATE`. The descriptors that `attr` names by number must be open.
pub(crate) fn map_create(mut attr: abi::bpf_attr_map_create) -> Result<OwnedFd> {
    assert_eq!(
        attr.excl_prog_hash, 0,
        "the arm's only address is not ours to follow"
    );
    // SAFETY: so it holds no address; MAP_CREATE returns a descriptor.
    unsafe { new_fd(bpf(abi::BPF_MAP_CREATE, &mut attr)) }
}

/// `BPF_PROG_LOAD`, the rest of the arm as in `attr`, whose addresses must be zero.
pub(crate) fn prog_load(
    attr: abi::bpf_attr_prog_load,
    insns: &[abi::bpf_insn],
    license: &CStr,
    log: Option<&mut [u8]>,
) -> Result<OwnedFd> {
    let other_addresses = [
        attr.func_info,
        attr.line_info,
        attr.fd_array,
        attr.core_relos,
        attr.signature,
    ];
    assert_eq!(other_addresses, [0; 5], "addresses that nobody vouches for");
    let log = log.unwrap_or_default();
    let mut attr = abi::bpf_attr_prog_load {
        insns: address(insns),
        insn_cnt: u32::try_from(insns.len()).map_err(|_| Errno::TOOBIG)?,
        license: license.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).map_err(|_| Errno::TOOBIG)?,
        log_buf: if log.is_empty() { 0 } else { address_mut(log) },
        ..attr
    };
    // SAFETY: insns, license and log are as long as said and outlive the call; the
    // others were just seen to be zero; PROG_LOAD returns a descriptor.
    unsafe { new_fd(bpf(abi::BPF_PROG_LOAD, &mut attr)) }
}

/// `BPF_LINK_CREATE`. The descriptors that the arguments name by number must be open.
pub(crate) fn link_create(
    prog: BorrowedFd<'_>,
    target: u32,
    attach_type: u32,
    flags: u32,
) -> Result<OwnedFd> {
    let mut attr = abi::bpf_attr_link_create {
        prog_fd: raw(prog),
        target_fd: target,
        attach_type,
        flags,
        ..abi::bpf_attr_link_create::zeroed()
    };
    // SAFETY: zeroed options hold no address; LINK_CREATE returns a descriptor.
    unsafe { new_fd(bpf(abi::BPF_LINK_CREATE, &mut attr)) }
}

/// `BPF_LINK_CREATE` of no program: EBADF where the kernel knows the command.
pub(crate) fn no_link_create() -> Errno {
    let mut attr = abi::bpf_attr_link_create {
        prog_fd: u32::MAX,
        ..abi::bpf_attr_link_create::zeroed()
    };
    // SAFETY: zeroed options hold no address; LINK_CREATE returns a descriptor.
    let result = unsafe { new_fd(bpf(abi::BPF_LINK_CREATE, &mut attr)) };
    result.err().unwrap_or(Errno::INVAL)
}

/// `BPF_LINK_UPDATE`, with `BPF_F_REPLACE` where the old program is given.
pub(crate) fn link_update(
    link: BorrowedFd<'_>,
    new: BorrowedFd<'_>,
    old: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let mut attr = abi::bpf_attr_link_update {
        link_fd: raw(link),
        new_prog_fd: raw(new),
        flags: if old.is_some() { abi::BPF_F_REPLACE } else { 0 },
        old_prog_fd: old.map_or(0, raw),
    };
    // SAFETY: the arm holds no address.
    unsafe { bpf(abi::BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

pub(crate) fn link_detach(link: BorrowedFd<'_>) -> Result<()> {
    let mut attr = abi::bpf_attr_link_detach { link_fd: raw(link) };
    // SAFETY: the arm holds no address.
    unsafe { bpf(abi::BPF_LINK_DETACH, &mut attr) }.map(drop)
}

fn token_create_of(bpffs_fd: u32) -> Result<OwnedFd> {
    let mut attr = abi::bpf_attr_token_create { flags: 0, bpffs_fd };
    // SAFETY: the arm holds no address; TOKEN_CREATE returns a descriptor.
    unsafe { new_fd(bpf(abi::BPF_TOKEN_CREATE, &mut attr)) }
}

/// `BPF_TOKEN_CREATE`. `root` must not be `O_PATH`.
pub(crate) fn token_create(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    token_create_of(raw(root))
}

/// `BPF_TOKEN_CREATE` of no bpffs: EBADF where the kernel knows the command.
pub(crate) fn no_token_create() -> Errno {
    token_create_of(u32::MAX).err().unwrap_or(Errno::INVAL)
}

/// Why a map's elements cannot be reached.
#[derive(Debug)]
pub(crate) enum CellsError {
    Info(Errno),
    /// How many bytes the kernel moves for an element of this type is not known here.
    UnknownType(u32),
    PossibleCpus(io::Error),
}

/// What owns or borrows one map: a `Map`, a `PinnedMap`, or a reference to either.
///
/// Sealed: whatever implements it stands for the same map for as long as it lives.
pub trait AsMap: sealed::Sealed {
    #[doc(hidden)]
    fn map_fd(&self) -> BorrowedFd<'_>;
}

pub(crate) mod sealed {
    /// Implemented in this crate only.
    pub trait Sealed {}
    impl<T: Sealed> Sealed for &T {}
}

impl<T: AsMap> AsMap for &T {
    fn map_fd(&self) -> BorrowedFd<'_> {
        T::map_fd(self)
    }
}

/// A map with the sizes that the kernel will read and write for its elements.
///
/// Both were read from this very map, whose sizes never change: so no call can make
/// the kernel go beyond a slice that was checked against them.
pub(crate) struct Cells<M> {
    map: M,
    per_cpu: bool,
    max_entries: u32,
    key_len: usize,
    value_size: usize,
    value_len: usize,
}

/// The types up to which the kernel's value sizes are known: Linux 7.3.
pub(crate) const LAST_MAP_TYPE: u32 = abi::BPF_MAP_TYPE_RHASH;

impl<M: AsMap> Cells<M> {
    pub(crate) fn new(map: M) -> std::result::Result<Self, (M, CellsError)> {
        let info: abi::bpf_map_info = match info(map.map_fd()) {
            Ok(info) => info,
            Err(errno) => return Err((map, CellsError::Info(errno))),
        };
        let value_size = info.value_size as usize;
        let per_cpu = matches!(
            info.r#type,
            abi::BPF_MAP_TYPE_PERCPU_HASH
                | abi::BPF_MAP_TYPE_PERCPU_ARRAY
                | abi::BPF_MAP_TYPE_LRU_PERCPU_HASH
                | abi::BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE
        );
        let value_len = match info.r#type {
            _ if per_cpu => match crate::cpu::possible() {
                Ok(cpus) => value_size.next_multiple_of(8) * cpus,
                Err(error) => return Err((map, CellsError::PossibleCpus(error))),
            },
            // Elements are a descriptor going in and an id coming out.
            abi::BPF_MAP_TYPE_PROG_ARRAY
            | abi::BPF_MAP_TYPE_PERF_EVENT_ARRAY
            | abi::BPF_MAP_TYPE_CGROUP_ARRAY
            | abi::BPF_MAP_TYPE_ARRAY_OF_MAPS
            | abi::BPF_MAP_TYPE_HASH_OF_MAPS => size_of::<u32>(),
            ..=LAST_MAP_TYPE => value_size,
            newer => return Err((map, CellsError::UnknownType(newer))),
        };
        Ok(Self {
            map,
            per_cpu,
            max_entries: info.max_entries,
            key_len: info.key_size as usize,
            value_size,
            value_len,
        })
    }

    /// # Safety
    ///
    /// `key` and `value` are zero, or valid for what `cmd` does with `key_len` and
    /// `value_len` bytes there.
    #[inline]
    unsafe fn call(&self, cmd: abi::bpf_cmd, key: u64, value: u64, flags: u64) -> Result<()> {
        let mut attr = abi::bpf_attr_map_elem {
            map_fd: raw(self.map.map_fd()),
            key,
            value,
            flags,
            ..abi::bpf_attr_map_elem::zeroed()
        };
        // SAFETY: the caller's.
        unsafe { bpf(cmd, &mut attr) }.map(drop)
    }

    /// The address of a key that is only read. A map without keys wants none.
    fn key(&self, key: &[u8]) -> u64 {
        assert_eq!(key.len(), self.key_len);
        if key.is_empty() { 0 } else { address(key) }
    }

    pub(crate) fn lookup(&self, key: &[u8], value: &mut [u8], flags: u64) -> Result<()> {
        assert_eq!(value.len(), self.value_len);
        let key = self.key(key);
        // SAFETY: both are as long as the map's.
        unsafe { self.call(abi::BPF_MAP_LOOKUP_ELEM, key, address_mut(value), flags) }
    }

    pub(crate) fn update(&self, key: &[u8], value: &[u8], flags: u64) -> Result<()> {
        assert_eq!(value.len(), self.value_len);
        let key = self.key(key);
        // SAFETY: both are as long as the map's, and only read.
        unsafe { self.call(abi::BPF_MAP_UPDATE_ELEM, key, address(value), flags) }
    }

    pub(crate) fn delete(&self, key: &[u8]) -> Result<()> {
        let key = self.key(key);
        // SAFETY: it is as long as the map's, and only read.
        unsafe { self.call(abi::BPF_MAP_DELETE_ELEM, key, 0, 0) }
    }

    pub(crate) fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> Result<()> {
        assert_eq!(next.len(), self.key_len);
        let key = key.map_or(0, |key| self.key(key));
        // SAFETY: both are as long as the map's.
        unsafe { self.call(abi::BPF_MAP_GET_NEXT_KEY, key, address_mut(next), 0) }
    }

    pub(crate) fn map(&self) -> &M {
        &self.map
    }

    pub(crate) fn into_map(self) -> M {
        self.map
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

/// A shared lock on one byte of a file, at an offset that stands for whoever holds it: gone with
/// the last descriptor of this open file description, however its process ends.
pub(crate) fn hold_byte(file: BorrowedFd<'_>, offset: u64) -> Result<()> {
    let mut lock = byte_lock(libc::F_RDLCK, offset);
    ofd_lock(file, libc::F_OFD_SETLK, &mut lock)
}

pub(crate) fn release_byte(file: BorrowedFd<'_>, offset: u64) -> Result<()> {
    let mut lock = byte_lock(libc::F_UNLCK, offset);
    ofd_lock(file, libc::F_OFD_SETLK, &mut lock)
}

/// Whether another open file description holds the byte.
pub(crate) fn is_byte_held(file: BorrowedFd<'_>, offset: u64) -> Result<bool> {
    let mut lock = byte_lock(libc::F_WRLCK, offset);
    ofd_lock(file, libc::F_OFD_GETLK, &mut lock)?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// With 64-bit offsets, which these commands take everywhere.
#[cfg(target_env = "gnu")]
type Flock = libc::flock64;
#[cfg(not(target_env = "gnu"))]
type Flock = libc::flock;

fn byte_lock(kind: libc::c_int, offset: u64) -> Flock {
    // SAFETY: integers, for which all zeroes are a value.
    let mut lock: Flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = (offset & i64::MAX as u64) as _;
    lock.l_len = 1;
    lock
}

fn ofd_lock(file: BorrowedFd<'_>, cmd: libc::c_int, lock: &mut Flock) -> Result<()> {
    // SAFETY: both commands read and write one struct flock.
    match unsafe { libc::fcntl(file.as_raw_fd(), cmd, ptr::from_mut(lock)) } {
        -1 => Err(last_errno()),
        _ => Ok(()),
    }
}
