//! Commands on objects of any kind: pins, ids, info, and probes of the kind.

use std::ffi::CStr;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use bpf_pin_sys as abi;
use rustix::io::Errno;

use super::{Result, address, address_mut, bpf, bpf_sized, new_fd, raw};

/// The size up to `file_flags`, where the arm ends on kernels before 6.5.
const OBJ_SIZE: usize = offset_of!(abi::bpf_attr_obj, path_fd);

#[inline]
pub(crate) fn obj_pin(fd: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    let mut attr = abi::bpf_attr_obj {
        pathname: path.as_ptr() as u64,
        bpf_fd: raw(fd),
        ..abi::bpf_attr_obj::zeroed()
    };
    // SAFETY: pathname is NUL-terminated and outlives the call.
    unsafe { bpf_sized(abi::BPF_OBJ_PIN, &mut attr, OBJ_SIZE) }.map(drop)
}

#[inline]
pub(crate) fn obj_get(path: &CStr, file_flags: u32) -> Result<OwnedFd> {
    let mut attr = abi::bpf_attr_obj {
        pathname: path.as_ptr() as u64,
        file_flags,
        ..abi::bpf_attr_obj::zeroed()
    };
    // SAFETY: pathname is NUL-terminated and outlives the call; OBJ_GET returns a descriptor.
    unsafe { new_fd(bpf_sized(abi::BPF_OBJ_GET, &mut attr, OBJ_SIZE)) }
}

/// [`obj_pin`] with `BPF_F_PATH_FD`: `path` is relative to `dir`. Linux 6.5.
#[inline]
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

/// [`obj_get`] with `BPF_F_PATH_FD`: `path` is relative to `dir`. Linux 6.5.
#[inline]
pub(crate) fn obj_get_at(dir: BorrowedFd<'_>, path: &CStr, file_flags: u32) -> Result<OwnedFd> {
    get_at(dir.as_raw_fd(), path, file_flags)
}

#[inline]
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

/// `BPF_OBJ_GET` with an invalid directory: EBADF if the kernel has `BPF_F_PATH_FD`.
pub(crate) fn probe_path_fd() -> Errno {
    get_at(-1, c"x", 0).err().unwrap_or(Errno::INVAL)
}

/// The commands that find the objects of a kind by their ids.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ById {
    pub(crate) get_fd: abi::bpf_cmd,
    pub(crate) get_next: abi::bpf_cmd,
}

impl ById {
    pub(crate) const MAP: Self = Self {
        get_fd: abi::BPF_MAP_GET_FD_BY_ID,
        get_next: abi::BPF_MAP_GET_NEXT_ID,
    };
    pub(crate) const PROG: Self = Self {
        get_fd: abi::BPF_PROG_GET_FD_BY_ID,
        get_next: abi::BPF_PROG_GET_NEXT_ID,
    };
    pub(crate) const LINK: Self = Self {
        get_fd: abi::BPF_LINK_GET_FD_BY_ID,
        get_next: abi::BPF_LINK_GET_NEXT_ID,
    };
    pub(crate) const BTF: Self = Self {
        get_fd: abi::BPF_BTF_GET_FD_BY_ID,
        get_next: abi::BPF_BTF_GET_NEXT_ID,
    };

    /// `BPF_*_GET_FD_BY_ID`. Only maps have `open_flags`.
    pub(crate) fn fd(self, id: u32, open_flags: u32) -> Result<OwnedFd> {
        let mut attr = abi::bpf_attr_get_id {
            start_id: id,
            open_flags,
            ..abi::bpf_attr_get_id::zeroed()
        };
        // SAFETY: the arm holds no address; the command returns a descriptor.
        unsafe { new_fd(bpf(self.get_fd, &mut attr)) }
    }

    /// `BPF_BTF_GET_FD_BY_ID` with a token and its flag.
    pub(crate) fn fd_with_token(self, id: u32, (token_fd, flag): (i32, u32)) -> Result<OwnedFd> {
        let mut attr = abi::bpf_attr_get_id {
            start_id: id,
            open_flags: flag,
            fd_by_id_token_fd: token_fd,
            ..abi::bpf_attr_get_id::zeroed()
        };
        // SAFETY: the arm holds no address; the command returns a descriptor.
        unsafe { new_fd(bpf(self.get_fd, &mut attr)) }
    }

    /// `BPF_*_GET_NEXT_ID`.
    pub(crate) fn next_id(self, after: u32) -> Result<u32> {
        let mut attr = abi::bpf_attr_get_id {
            start_id: after,
            ..abi::bpf_attr_get_id::zeroed()
        };
        // SAFETY: the arm holds no address.
        unsafe { bpf(self.get_next, &mut attr) }?;
        Ok(attr.next_id)
    }
}

/// An info struct of the kernel.
///
/// # Safety
///
/// Any bytes are a valid value, and from zeroes the kernel takes no address to write to.
pub unsafe trait Info: Default {}
// SAFETY: integers and arrays of them; addresses are zero, and so are their counts.
unsafe impl Info for abi::bpf_map_info {}
// SAFETY: as above.
unsafe impl Info for abi::bpf_prog_info {}
// SAFETY: as above.
unsafe impl Info for abi::bpf_link_info {}
// SAFETY: as above.
unsafe impl Info for abi::bpf_token_info {}

/// `BPF_OBJ_GET_INFO_BY_FD`: returns the length that the kernel reports.
///
/// # Safety
///
/// Every address in `info` is 0, or that of as many writable bytes as the count beside it states.
#[inline]
pub(super) unsafe fn info_into<T>(bpf_fd: u32, info: &mut T) -> Result<u32> {
    let mut attr = abi::bpf_attr_info {
        bpf_fd,
        info_len: size_of::<T>() as u32,
        info: address_mut(info),
    };
    // SAFETY: info is info_len writable bytes; the caller promises the rest.
    unsafe { bpf(abi::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(attr.info_len)
}

/// `BPF_OBJ_GET_INFO_BY_FD`. `fd` must be of the kind that `T` describes.
pub(crate) fn info<T: Info>(fd: BorrowedFd<'_>) -> Result<T> {
    let mut info = T::default();
    // SAFETY: T promises that its zeroes are sound here.
    unsafe { info_into(raw(fd), &mut info) }.map(|_| info)
}

/// Probes whether this thread may call bpf(2) at all: EPERM if not.
pub(crate) fn probe_bpf_allowed() -> Errno {
    // SAFETY: the info has no bytes.
    unsafe { info_into(u32::MAX, &mut [0u8; 0]) }
        .err()
        .unwrap_or(Errno::BADF)
}

/// The command without arguments: the kernel reads them before anything else and fails with EFAULT. Only before
/// that it fails with EPERM if `kernel.unprivileged_bpf_disabled` closes the command to this thread.
pub(crate) fn probe_command(cmd: abi::bpf_cmd) -> Errno {
    // SAFETY: the kernel finds no arguments at address 0, so it reads and writes nothing.
    let result = unsafe { abi::bpf(cmd, ptr::null_mut(), 8) };
    match result < 0 {
        true => super::last_errno(),
        false => Errno::FAULT,
    }
}

/// The part of an object's info that depends on its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InfoHead {
    /// The size of the kernel's struct, or of our buffer if that is smaller.
    pub(crate) len: u32,
    /// The first word: the type, except of BTF and tokens.
    pub(crate) r#type: u32,
    /// The second word: the id, except of BTF and tokens.
    pub(crate) id: u32,
    /// The word at 12 came back untouched: `bpf_link_info` has a hole there,
    /// `bpf_map_info` the value size, `bpf_prog_info` half of the tag.
    pub(crate) hole_kept: bool,
    /// The words at 40 and 44 are zero: in `bpf_map_info` a device and a BTF type, which few maps have; in
    /// `bpf_prog_info` the time of loading.
    pub(crate) middle_is_zero: bool,
    /// The words at the offsets of `bpf_prog_info`'s func_info, line_info and jited_line_info_rec_size.
    pub(crate) record_sizes: [u32; 3],
}

/// The info of any object, in 208 bytes: as long as the shortest struct of a program, which is the longest
/// kind of struct. If the buffer is longer than the kernel's struct, the kernel checks that the rest is zero,
/// so a short one is faster.
#[inline]
pub(crate) fn info_head(fd: BorrowedFd<'_>) -> Result<InfoHead> {
    InfoBuf::<52>::new().fetch(fd)
}

/// [`info_head`] for an object that should be a link: in 72 bytes, enough to see that a struct is longer.
#[inline]
pub(crate) fn link_head(fd: BorrowedFd<'_>) -> Result<InfoHead> {
    InfoBuf::<18>::new().fetch(fd)
}

/// [`info_head`] for an object that should be a map: in 128 bytes, enough to see that a struct is longer.
#[inline]
pub(crate) fn map_head(fd: BorrowedFd<'_>) -> Result<InfoHead> {
    InfoBuf::<32>::new().fetch(fd)
}

/// The id of an object of one of the three kinds: the second word of the info.
#[inline]
pub(crate) fn object_id(fd: BorrowedFd<'_>) -> Result<u32> {
    type_and_id(fd).map(|[_, id]| id)
}

/// The first words of the info of an object of one of the three kinds.
#[inline]
pub(super) fn type_and_id(fd: BorrowedFd<'_>) -> Result<[u32; 2]> {
    let mut words = [0u32; 2];
    // SAFETY: two words hold no address of any kind's struct.
    unsafe { info_into(raw(fd), &mut words) }.map(|_| words)
}

/// A buffer for the info of any kind, with room for some growth.
pub(crate) type AnyInfo = InfoBuf<64>;

/// A buffer for the info of an object of any kind, as words. Aligned for every kind's struct.
#[repr(align(8))]
#[derive(Debug)]
pub(crate) struct InfoBuf<const WORDS: usize> {
    words: [u32; WORDS],
    /// The words may not be zero.
    is_used: bool,
}

impl<const WORDS: usize> InfoBuf<WORDS> {
    const HOLE: usize = offset_of!(abi::bpf_map_info, value_size) / 4;

    /// The hole must be inside the buffer, and 256 bytes are enough for every kind's struct.
    const CHECK_SIZE: () = assert!(WORDS > Self::HOLE && WORDS * 4 <= 256);

    #[inline]
    pub(crate) fn new() -> Self {
        let () = Self::CHECK_SIZE;
        let (words, is_used) = ([0; WORDS], false);
        Self { words, is_used }
    }

    /// `BPF_OBJ_GET_INFO_BY_FD`.
    #[inline]
    pub(crate) fn fetch(&mut self, fd: BorrowedFd<'_>) -> Result<InfoHead> {
        // The kernel rejects a buffer that holds another object's info.
        if self.is_used {
            self.words = [0; WORDS];
        }
        self.is_used = true;
        // No size and no id is that large. The creator of an object, who chose its numbers, cannot guess the
        // address of this stack.
        let mark = (address(&self.words) >> 4) as u32 | 1 << 31;
        self.words[Self::HOLE] = mark;
        // SAFETY: the only word that is not zero is no address and no count in any kind's struct.
        let len = unsafe { info_into(raw(fd), &mut self.words) }?;
        Ok(self.head(len, mark))
    }

    #[inline]
    fn head(&self, len: u32, mark: u32) -> InfoHead {
        type Map = abi::bpf_map_info;
        type Prog = abi::bpf_prog_info;
        let word = |offset: usize| self.words.get(offset / 4).copied().unwrap_or_default();
        InfoHead {
            len,
            r#type: self.words[0],
            id: self.words[1],
            hole_kept: self.words[Self::HOLE] == mark,
            middle_is_zero: word(offset_of!(Map, ifindex)) == 0
                && word(offset_of!(Map, btf_vmlinux_value_type_id)) == 0,
            record_sizes: [
                word(offset_of!(Prog, func_info_rec_size)),
                word(offset_of!(Prog, line_info_rec_size)),
                word(offset_of!(Prog, jited_line_info_rec_size)),
            ],
        }
    }

    /// The info as the struct of the kind that was proven.
    #[inline]
    pub(crate) fn to<T: Info>(&self) -> T {
        const { assert!(size_of::<T>() <= WORDS * 4) };
        // SAFETY: T is valid for any bytes, and the buffer is at least as large.
        unsafe { ptr::from_ref(&self.words).cast::<T>().read_unaligned() }
    }
}

/// `BPF_PROG_BIND_MAP` without a map: EBADF if `fd` is a program.
pub(crate) fn probe_prog(fd: BorrowedFd<'_>) -> Errno {
    let mut attr = abi::bpf_attr_prog_bind_map {
        prog_fd: raw(fd),
        map_fd: u32::MAX,
        flags: 0,
    };
    // SAFETY: the arm holds no address.
    let result = unsafe { bpf(abi::BPF_PROG_BIND_MAP, &mut attr) };
    result.err().unwrap_or(Errno::INVAL)
}

/// `BPF_LINK_UPDATE` without a program: EBADF if `fd` is a link.
pub(crate) fn probe_link(fd: BorrowedFd<'_>) -> Errno {
    let mut attr = abi::bpf_attr_link_update {
        link_fd: raw(fd),
        new_prog_fd: u32::MAX,
        ..abi::bpf_attr_link_update::zeroed()
    };
    // SAFETY: the arm holds no address.
    let result = unsafe { bpf(abi::BPF_LINK_UPDATE, &mut attr) };
    result.err().unwrap_or(Errno::INVAL)
}
