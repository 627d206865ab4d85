//! Reads an element of a pinned map without std and without an allocator.
//!
//! Usage: `open_pin PIN KEY`, for a map with keys of 4 bytes and values of 8. A release build with `panic = "abort"` is
//! linked with libc alone. Every other build links std for its panic handler.
#![no_std]
#![no_main]

use core::ffi::{CStr, c_char, c_int};
use core::slice;

use bpf_pin_sys::{
    BPF_MAP_LOOKUP_ELEM, BPF_OBJ_GET, bpf, bpf_attr, bpf_attr_map_elem, bpf_attr_obj,
};

#[cfg(not(panic = "abort"))]
extern crate std;

#[cfg(panic = "abort")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: always sound.
    unsafe { libc::abort() }
}

/// Opens the object that is pinned at `path`. Returns its descriptor, which the caller must close, or an errno.
fn open_pin(path: &CStr) -> Result<c_int, c_int> {
    let mut attr = bpf_attr::zeroed();
    attr.obj = bpf_attr_obj {
        pathname: path.as_ptr().expose_provenance() as u64,
        ..bpf_attr_obj::zeroed()
    };
    // SAFETY: `attr` is a whole union, all zero except for the address of a string that outlives the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attr, size_of::<bpf_attr>() as u32) };
    if fd >= 0 {
        Ok(fd as c_int)
    } else {
        Err(errno())
    }
}

/// Reads the value of `key` in a map with values of 8 bytes.
///
/// # Safety
///
/// `map` is the descriptor of a map with keys of 4 bytes and values of 8. The kernel cannot check the sizes.
unsafe fn lookup(map: c_int, key: u32) -> Result<u64, c_int> {
    let mut value = 0_u64;
    let mut attr = bpf_attr::zeroed();
    attr.map_elem = bpf_attr_map_elem {
        map_fd: map as u32,
        key: (&raw const key).expose_provenance() as u64,
        value: (&raw mut value).expose_provenance() as u64,
        ..bpf_attr_map_elem::zeroed()
    };
    // SAFETY: the key and the value are as large as the caller says that the map's are, and outlive the call.
    match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr, size_of::<bpf_attr>() as u32) } {
        0 => Ok(value),
        _ => Err(errno()),
    }
}

/// Why the last libc call on this thread failed.
fn errno() -> c_int {
    // SAFETY: the address of this thread's errno is valid as long as the thread runs.
    unsafe { *libc::__errno_location() }
}

/// The program's entry, which libc calls.
///
/// # Safety
///
/// `argv` points to `argc` strings that end with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: libc passes it so.
    let args = unsafe { slice::from_raw_parts(argv, argc as usize) };
    let &[_, path, key] = args else {
        // SAFETY: a string that ends with NUL.
        unsafe { libc::puts(c"usage: open_pin PIN KEY".as_ptr()) };
        return 2;
    };
    // SAFETY: an argument is a string that ends with NUL.
    let (pin, key) = unsafe { (CStr::from_ptr(path), libc::atoi(key) as u32) };
    // SAFETY: the user says that the map has keys of 4 bytes and values of 8.
    let found = open_pin(pin).and_then(|map| unsafe { lookup(map, key) });
    match found {
        Ok(value) => {
            // SAFETY: the format takes one unsigned long long.
            unsafe { libc::printf(c"%llu\n".as_ptr(), value) };
            0
        }
        Err(errno) => {
            // SAFETY: the format takes two strings, and strerror returns one.
            unsafe { libc::printf(c"%s: %s\n".as_ptr(), path, libc::strerror(errno)) };
            1
        }
    }
}
