//! The bare syscalls, written by hand and as tight as possible: the reference of every measurement.

use std::ffi::CStr;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use bpf_pin::abi::{self, bpf, bpf_attr_batch, bpf_attr_info, bpf_attr_map_elem, bpf_attr_obj};

#[cold]
fn failed(what: &str) -> ! {
    panic!("{what}: {}", io::Error::last_os_error())
}

/// # Safety
///
/// As for [`bpf`]: every address in `attr` is valid for `cmd`.
unsafe fn call<A>(cmd: abi::bpf_cmd, attr: &mut A, size: usize) -> i32 {
    // SAFETY: guaranteed by the caller.
    unsafe { bpf(cmd, (&raw mut *attr).cast(), size as u32) as i32 }
}

/// # Safety
///
/// `fd` is a new descriptor or -1.
unsafe fn owned(fd: i32, what: &str) -> OwnedFd {
    if fd < 0 {
        failed(what);
    }
    // SAFETY: guaranteed by the caller.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn done(result: i32, what: &str) {
    if result < 0 {
        failed(what);
    }
}

pub fn get(path: &CStr) -> OwnedFd {
    try_get(path).unwrap_or_else(|| failed("BPF_OBJ_GET"))
}

/// Returns None on failure.
pub fn try_get(path: &CStr) -> Option<OwnedFd> {
    let mut attr = bpf_attr_obj {
        pathname: path.as_ptr() as u64,
        ..bpf_attr_obj::zeroed()
    };
    // SAFETY: the path ends with a NUL.
    let fd = unsafe {
        call(
            abi::BPF_OBJ_GET,
            &mut attr,
            offset_of!(bpf_attr_obj, path_fd),
        )
    };
    // SAFETY: OBJ_GET returns a new descriptor.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn try_get_at(dir: BorrowedFd<'_>, name: &CStr) -> Option<OwnedFd> {
    let mut attr = bpf_attr_obj {
        pathname: name.as_ptr() as u64,
        file_flags: abi::BPF_F_PATH_FD,
        path_fd: dir.as_raw_fd(),
        ..bpf_attr_obj::zeroed()
    };
    // SAFETY: the name ends with a NUL.
    let fd = unsafe { call(abi::BPF_OBJ_GET, &mut attr, size_of::<bpf_attr_obj>()) };
    // SAFETY: OBJ_GET returns a new descriptor.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn get_at(dir: BorrowedFd<'_>, name: &CStr) -> OwnedFd {
    try_get_at(dir, name).unwrap_or_else(|| failed("BPF_OBJ_GET"))
}

pub fn pin(fd: BorrowedFd<'_>, path: &CStr) {
    let mut attr = bpf_attr_obj {
        pathname: path.as_ptr() as u64,
        bpf_fd: fd.as_raw_fd() as u32,
        ..bpf_attr_obj::zeroed()
    };
    // SAFETY: the path ends with a NUL.
    let result = unsafe {
        call(
            abi::BPF_OBJ_PIN,
            &mut attr,
            offset_of!(bpf_attr_obj, path_fd),
        )
    };
    done(result, "BPF_OBJ_PIN");
}

pub fn pin_at(dir: BorrowedFd<'_>, name: &CStr, fd: BorrowedFd<'_>) {
    let mut attr = bpf_attr_obj {
        pathname: name.as_ptr() as u64,
        bpf_fd: fd.as_raw_fd() as u32,
        file_flags: abi::BPF_F_PATH_FD,
        path_fd: dir.as_raw_fd(),
        ..bpf_attr_obj::zeroed()
    };
    // SAFETY: the name ends with a NUL.
    let result = unsafe { call(abi::BPF_OBJ_PIN, &mut attr, size_of::<bpf_attr_obj>()) };
    done(result, "BPF_OBJ_PIN");
}

pub fn unlink(path: &CStr) {
    // SAFETY: the path ends with a NUL.
    done(unsafe { libc::unlink(path.as_ptr()) }, "unlink");
}

pub fn unlink_at(dir: BorrowedFd<'_>, name: &CStr) {
    // SAFETY: the name ends with a NUL.
    let result = unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) };
    done(result, "unlinkat");
}

pub fn rename_at(dir: BorrowedFd<'_>, from: &CStr, to: &CStr) {
    let dir = dir.as_raw_fd();
    // SAFETY: both names end with a NUL.
    let result = unsafe { libc::renameat2(dir, from.as_ptr(), dir, to.as_ptr(), 0) };
    done(result, "renameat2");
}

/// `readlinkat(2)`: returns whether it is a symbolic link.
pub fn is_link_at(dir: i32, name: &CStr) -> bool {
    let mut byte = 0;
    // SAFETY: the name ends with a NUL, and the buffer has one byte.
    let read = unsafe { libc::readlinkat(dir, name.as_ptr(), &mut byte, 1) };
    match read {
        -1 if io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) => false,
        -1 => failed("readlinkat"),
        _ => true,
    }
}

/// # Safety
///
/// `T` is an info struct of the kernel. Any bytes are valid for it, and its default has only null addresses.
unsafe fn info<T: Default>(fd: BorrowedFd<'_>) -> T {
    let mut info = T::default();
    let mut attr = bpf_attr_info {
        bpf_fd: fd.as_raw_fd() as u32,
        info_len: size_of::<T>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: info has the size that is passed.
    let result = unsafe {
        call(
            abi::BPF_OBJ_GET_INFO_BY_FD,
            &mut attr,
            size_of::<bpf_attr_info>(),
        )
    };
    done(result, "BPF_OBJ_GET_INFO_BY_FD");
    info
}

/// An empty batch fails with ENOTSUPP for a map of a type without batches, and with EINVAL for other objects.
pub fn answers_as_map(fd: BorrowedFd<'_>) -> bool {
    let mut attr = bpf_attr_batch {
        map_fd: fd.as_raw_fd() as u32,
        ..bpf_attr_batch::zeroed()
    };
    let size = size_of::<bpf_attr_batch>();
    // SAFETY: an empty batch has no addresses.
    let result = unsafe { call(abi::BPF_MAP_LOOKUP_BATCH, &mut attr, size) };
    result == 0 || io::Error::last_os_error().raw_os_error() == Some(524)
}

pub fn map_info(fd: BorrowedFd<'_>) -> abi::bpf_map_info {
    // SAFETY: it is an info struct.
    unsafe { info(fd) }
}

pub fn prog_info(fd: BorrowedFd<'_>) -> abi::bpf_prog_info {
    // SAFETY: it is an info struct.
    unsafe { info(fd) }
}

pub fn link_info(fd: BorrowedFd<'_>) -> abi::bpf_link_info {
    // SAFETY: it is an info struct.
    unsafe { info(fd) }
}

pub fn create_map(attr: &abi::bpf_attr_map_create) -> OwnedFd {
    let mut attr = *attr;
    // SAFETY: the callers set no address. MAP_CREATE returns a new descriptor.
    unsafe {
        let fd = call(
            abi::BPF_MAP_CREATE,
            &mut attr,
            size_of::<abi::bpf_attr_map_create>(),
        );
        owned(fd, "BPF_MAP_CREATE")
    }
}

/// For a map from u32 to u64.
pub fn lookup(map: BorrowedFd<'_>, key: &u32) -> Option<u64> {
    let mut value = 0u64;
    let mut attr = bpf_attr_map_elem {
        map_fd: map.as_raw_fd() as u32,
        key: &raw const *key as u64,
        value: &raw mut value as u64,
        ..bpf_attr_map_elem::zeroed()
    };
    // SAFETY: key and value have the sizes of the map.
    let result = unsafe {
        call(
            abi::BPF_MAP_LOOKUP_ELEM,
            &mut attr,
            size_of::<bpf_attr_map_elem>(),
        )
    };
    (result >= 0).then_some(value)
}

/// For a map from u32 to u64.
pub fn update(map: BorrowedFd<'_>, key: &u32, value: &u64) {
    let mut attr = bpf_attr_map_elem {
        map_fd: map.as_raw_fd() as u32,
        key: &raw const *key as u64,
        value: &raw const *value as u64,
        ..bpf_attr_map_elem::zeroed()
    };
    // SAFETY: key and value have the sizes of the map.
    let result = unsafe {
        call(
            abi::BPF_MAP_UPDATE_ELEM,
            &mut attr,
            size_of::<bpf_attr_map_elem>(),
        )
    };
    done(result, "BPF_MAP_UPDATE_ELEM");
}

/// Reads all elements of a hash map from u32 to u64, `room` elements at a time.
pub fn read_by_batch(map: BorrowedFd<'_>, room: usize, mut each: impl FnMut(&[u32], &[u64])) {
    let (mut keys, mut values) = (vec![0u32; room], vec![0u64; room]);
    let (mut from, mut cursor, mut begun) = (0u32, 0u32, false);
    loop {
        let mut attr = bpf_attr_batch {
            in_batch: if begun { &raw mut from as u64 } else { 0 },
            out_batch: &raw mut cursor as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: room as u32,
            map_fd: map.as_raw_fd() as u32,
            ..bpf_attr_batch::zeroed()
        };
        // SAFETY: keys and values have space for count elements, and the cursors for the position in a hash map.
        let result = unsafe {
            call(
                abi::BPF_MAP_LOOKUP_BATCH,
                &mut attr,
                size_of::<bpf_attr_batch>(),
            )
        };
        let is_last = result < 0;
        if is_last && io::Error::last_os_error().raw_os_error() != Some(libc::ENOENT) {
            failed("BPF_MAP_LOOKUP_BATCH");
        }
        let count = attr.count as usize;
        each(&keys[..count], &values[..count]);
        if is_last {
            return;
        }
        (from, begun) = (cursor, true);
    }
}

/// Updates elements of a map from u32 to u64.
pub fn update_batch(map: BorrowedFd<'_>, keys: &[u32], values: &[u64]) {
    assert_eq!(keys.len(), values.len());
    let mut attr = bpf_attr_batch {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: keys.len() as u32,
        map_fd: map.as_raw_fd() as u32,
        ..bpf_attr_batch::zeroed()
    };
    // SAFETY: keys and values hold count elements.
    let result = unsafe {
        call(
            abi::BPF_MAP_UPDATE_BATCH,
            &mut attr,
            size_of::<bpf_attr_batch>(),
        )
    };
    done(result, "BPF_MAP_UPDATE_BATCH");
}

/// Deletes existing elements of a map with u32 keys.
pub fn delete_batch(map: BorrowedFd<'_>, keys: &[u32]) {
    let mut attr = bpf_attr_batch {
        keys: keys.as_ptr() as u64,
        count: keys.len() as u32,
        map_fd: map.as_raw_fd() as u32,
        ..bpf_attr_batch::zeroed()
    };
    // SAFETY: keys holds count elements.
    let result = unsafe {
        call(
            abi::BPF_MAP_DELETE_BATCH,
            &mut attr,
            size_of::<bpf_attr_batch>(),
        )
    };
    done(result, "BPF_MAP_DELETE_BATCH");
}

/// Reads a directory to its end with `getdents64(2)`, into the buffer `room`.
pub fn each_name(dir: BorrowedFd<'_>, room: &mut [u8], mut each: impl FnMut(&CStr, u8)) {
    // ino64, off64 and reclen: u16, type: u8, then the name.
    const RECLEN: usize = offset_of!(libc::dirent64, d_reclen);
    const TYPE: usize = offset_of!(libc::dirent64, d_type);
    const NAME: usize = offset_of!(libc::dirent64, d_name);
    loop {
        // SAFETY: the buffer has the length that is passed.
        let len = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                dir.as_raw_fd(),
                room.as_mut_ptr(),
                room.len(),
            )
        };
        done(len as i32, "getdents64");
        if len == 0 {
            return;
        }
        let mut rest = &room[..len as usize];
        while !rest.is_empty() {
            let reclen = u16::from_ne_bytes([rest[RECLEN], rest[RECLEN + 1]]);
            let (entry, after) = rest.split_at(reclen.into());
            rest = after;
            let name = CStr::from_bytes_until_nul(&entry[NAME..]).expect("a name that ends");
            if name != c"." && name != c".." {
                each(name, entry[TYPE]);
            }
        }
    }
}
