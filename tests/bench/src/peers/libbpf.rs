//! libbpf's C functions.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::time::Instant;

use bpf_pin::{Kind, Map, abi};
use libbpf_sys as sys;

use crate::pairs::Contender;
use crate::place::c_path;
use crate::rows::BATCH;

const NAME: &str = "libbpf";

/// # Safety
///
/// `T` is an info struct of the kernel.
unsafe fn open<T: Default>(path: &CStr) {
    let mut info = T::default();
    let mut len = size_of::<T>() as u32;
    // SAFETY: the path ends with a NUL, info has the size that is passed, and the descriptor is ours.
    unsafe {
        let fd = sys::bpf_obj_get(path.as_ptr());
        assert!(fd >= 0);
        let result = sys::bpf_obj_get_info_by_fd(fd, (&raw mut info).cast(), &mut len);
        assert_eq!(result, 0);
        libc::close(fd);
    }
}

pub fn open_map<'s>(path: &'s Path) -> Contender<'s> {
    let path = c_path(path);
    // SAFETY: it is an info struct.
    Contender::new(NAME, move || unsafe { open::<abi::bpf_map_info>(&path) })
}

pub fn open_prog<'s>(path: &'s Path) -> Contender<'s> {
    let path = c_path(path);
    // SAFETY: it is an info struct.
    Contender::new(NAME, move || unsafe { open::<abi::bpf_prog_info>(&path) })
}

pub fn open_link<'s>(path: &'s Path) -> Contender<'s> {
    let path = c_path(path);
    // SAFETY: it is an info struct.
    Contender::new(NAME, move || unsafe { open::<abi::bpf_link_info>(&path) })
}

pub fn pin<'s>(map: &Map, path: &'s Path) -> Contender<'s> {
    let map = map.try_clone().expect("a descriptor");
    let path = c_path(path);
    Contender::new(NAME, move || {
        // SAFETY: the path ends with a NUL.
        unsafe {
            assert_eq!(sys::bpf_obj_pin(map.as_fd().as_raw_fd(), path.as_ptr()), 0);
            assert_eq!(libc::unlink(path.as_ptr()), 0);
        }
    })
}

pub fn lookup<'s>(map: &'s Map, key: u32) -> Contender<'s> {
    let fd = map.as_fd().as_raw_fd();
    Contender::new(NAME, move || {
        let mut value = 0u64;
        // SAFETY: key and value have the sizes of the map.
        let found = unsafe {
            sys::bpf_map_lookup_elem(fd, (&raw const key).cast(), (&raw mut value).cast())
        };
        assert_eq!((found, value), (0, u64::from(key)));
    })
}

pub fn update<'s>(map: &'s Map, key: u32) -> Contender<'s> {
    let fd = map.as_fd().as_raw_fd();
    Contender::new(NAME, move || {
        let value = u64::from(key);
        // SAFETY: key and value have the sizes of the map.
        let updated = unsafe {
            sys::bpf_map_update_elem(fd, (&raw const key).cast(), (&raw const value).cast(), 0)
        };
        assert_eq!(updated, 0);
    })
}

pub fn read<'s>(map: &'s Map, sum: u64) -> Contender<'s> {
    let fd = map.as_fd().as_raw_fd();
    Contender::new(NAME, move || {
        let (mut keys, mut values) = (vec![0u32; BATCH], vec![0u64; BATCH]);
        let (mut from, mut cursor) = (0u32, 0u32);
        let mut seen = 0;
        let mut begun = false;
        loop {
            let mut count = BATCH as u32;
            // SAFETY: keys and values have space for count elements, and the cursors for the position in a hash map.
            let result = unsafe {
                sys::bpf_map_lookup_batch(
                    fd,
                    if begun {
                        (&raw mut from).cast()
                    } else {
                        null_mut()
                    },
                    (&raw mut cursor).cast(),
                    keys.as_mut_ptr().cast(),
                    values.as_mut_ptr().cast(),
                    &mut count,
                    null(),
                )
            };
            assert!(result == 0 || result == -libc::ENOENT);
            seen += values[..count as usize].iter().sum::<u64>();
            if result != 0 {
                break;
            }
            (from, begun) = (cursor, true);
        }
        assert_eq!(seen, sum);
    })
}

pub fn fill<'s>(map: &'s Map, keys: &'s [u32], values: &'s [u64]) -> Contender<'s> {
    let fd = map.as_fd().as_raw_fd();
    Contender::new(NAME, move || {
        for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
            let mut count = keys.len() as u32;
            // SAFETY: keys and values hold count elements.
            let updated = unsafe {
                sys::bpf_map_update_batch(
                    fd,
                    keys.as_ptr().cast(),
                    values.as_ptr().cast(),
                    &mut count,
                    null(),
                )
            };
            assert_eq!(updated, 0);
        }
    })
}

pub fn open_all<'s>(pins: &'s [(Kind, PathBuf)]) -> Contender<'s> {
    let pins = pins.iter().map(|(kind, path)| (*kind, c_path(path)));
    let pins: Vec<_> = pins.collect();
    Contender::new(NAME, move || {
        for (kind, path) in &pins {
            match kind {
                // SAFETY: it is an info struct.
                Kind::Link => unsafe { open::<abi::bpf_link_info>(path) },
                // SAFETY: it is an info struct.
                _ => unsafe { open::<abi::bpf_map_info>(path) },
            }
        }
    })
}

pub fn make_all<'s>(paths: &'s [PathBuf], undo: &'s dyn Fn()) -> Contender<'s> {
    let paths: Vec<_> = paths.iter().map(|path| c_path(path)).collect();
    Contender::timed(NAME, move || {
        let begun = Instant::now();
        for path in &paths {
            // SAFETY: the path ends with a NUL, the name and the options are null, and the descriptor is ours.
            unsafe {
                assert!(sys::bpf_obj_get(path.as_ptr()) < 0);
                let fd = sys::bpf_map_create(sys::BPF_MAP_TYPE_HASH, null(), 4, 8, 8, null());
                assert!(fd >= 0);
                assert_eq!(sys::bpf_obj_pin(fd, path.as_ptr()), 0);
                libc::close(fd);
            }
        }
        let took = begun.elapsed();
        undo();
        took
    })
}
