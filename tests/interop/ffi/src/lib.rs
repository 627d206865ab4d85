//! A C library around a pinned map of counters. Its header is `../c/flows.h`.

#![deny(improper_ctypes_definitions)]

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;

use bpf_pin::{Error, Map};

/// `int flows_open(const char *path);` returns a descriptor that the caller must close, or -1 with errno set.
///
/// # Safety
///
/// `path` points to a string that ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flows_open(path: *const c_char) -> Option<Map> {
    // SAFETY: the caller guarantees it.
    let path = unsafe { CStr::from_ptr(path) };
    match Map::open(OsStr::from_bytes(path.to_bytes())) {
        Ok(map) => Some(map),
        Err(error) => {
            set_errno(&error);
            None
        }
    }
}

/// `int flows_lookup(const int *map, uint32_t key, uint64_t *value);` returns 0, or -1 with errno set.
#[unsafe(no_mangle)]
pub extern "C" fn flows_lookup(map: Option<&Map>, key: u32, value: Option<&mut u64>) -> c_int {
    let (Some(map), Some(value)) = (map, value) else {
        return fail(libc::EINVAL);
    };
    let flows = map.elements::<u32, u64>();
    match flows.and_then(|flows| flows.lookup(&key)) {
        Ok(Some(found)) => {
            *value = found;
            0
        }
        Ok(None) => fail(libc::ENOENT),
        Err(error) => {
            set_errno(&error);
            -1
        }
    }
}

/// `void flows_close(int map);` takes the descriptor, and ignores -1.
#[unsafe(no_mangle)]
pub extern "C" fn flows_close(map: Option<Map>) {
    drop(map);
}

fn fail(errno: c_int) -> c_int {
    // SAFETY: the address of this thread's errno is valid as long as the thread runs.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// Stores the errno of an error, or EINVAL if it has none: a pin of the wrong kind, or a map of other sizes.
fn set_errno(error: &Error) {
    fail(error.raw_os_error().unwrap_or(libc::EINVAL));
}
