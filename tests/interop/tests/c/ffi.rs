//! A map crosses to C and back, each side with its own library.

use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bpf_pin::map::ElemFlags;
use bpf_pin::{Kind, Map, PinnedMap};
use common::*;

// c/ffi.c, and Debian's libbpf, which it uses.
#[link(name = "peer", kind = "static")]
#[link(name = "bpf")]
unsafe extern "C" {
    fn peer_lookup(path: *const c_char, key: u32) -> i64;
    fn peer_gives(path: *const c_char, key: u32, value: u64) -> c_int;
    /// C guarantees that it is a map.
    safe fn peer_map(key: u32, value: u64) -> Option<Map>;
    safe fn peer_no_map() -> Option<Map>;
    /// Returns a negative errno on failure, so it is not an Option<OwnedFd>.
    fn bpf_obj_get(path: *const c_char) -> c_int;
}

fn path(path: *const c_char) -> &'static Path {
    // SAFETY: C passes on the path that it was called with, which outlives that call.
    let path = unsafe { CStr::from_ptr(path) };
    OsStr::from_bytes(path.to_bytes()).as_ref()
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

#[unsafe(no_mangle)]
#[deny(improper_ctypes_definitions)]
extern "C" fn flows_open(at: *const c_char) -> Option<Map> {
    Map::open(path(at)).ok()
}

#[unsafe(no_mangle)]
#[deny(improper_ctypes_definitions)]
extern "C" fn flows_adopt(map: Option<Map>, at: *const c_char) -> c_int {
    match map.map(|map| map.pin(path(at))) {
        Some(Ok(_)) => 0,
        Some(Err(_)) => 1,
        None => 2,
    }
}

pub fn c_calls() -> Outcome {
    let fs = TestFs::new();
    let map = hash().pin(fs.at("flows"))?;
    map.elements::<u32, u64>()?
        .update(&3_u32, &9_u64, ElemFlags::ANY)?;
    let at = c_path(map.path());
    // SAFETY: a path that ends with NUL.
    assert_eq!(unsafe { peer_lookup(at.as_ptr(), 3) }, 9);
    // SAFETY: as above.
    assert_eq!(unsafe { peer_lookup(at.as_ptr(), 4) }, -2);
    let none = c_path(&fs.at("none"));
    // SAFETY: as above. None is -1, and C returns it.
    assert_eq!(unsafe { peer_lookup(none.as_ptr(), 3) }, -1);
    Ok(())
}

pub fn rust_calls() -> Outcome {
    let fs = TestFs::new();
    let map = peer_map(5, 25).ok_or("C has made none")?;
    let info = map.info()?;
    assert_eq!(info.name.to_string(), "peer");
    drop(map.pin(fs.at("peer"))?);
    let map = PinnedMap::open(fs.at("peer"))?;
    assert_eq!(map.info()?, info);
    assert_eq!(map.elements::<u32, u64>()?.lookup(&5)?, Some(25));
    assert!(peer_no_map().is_none());
    Ok(())
}

pub fn c_gives() -> Outcome {
    let fs = TestFs::new();
    let at = c_path(&fs.at("given"));
    // SAFETY: a path that ends with NUL.
    assert_eq!(unsafe { peer_gives(at.as_ptr(), 6, 36) }, 0);
    let map = PinnedMap::open(fs.at("given"))?;
    assert_eq!(map.elements::<u32, u64>()?.lookup(&6)?, Some(36));
    // The name is taken: our error drops C's map, and C sees it.
    // SAFETY: as above.
    assert_eq!(unsafe { peer_gives(at.as_ptr(), 6, 37) }, 1);
    assert_eq!(map.elements::<u32, u64>()?.lookup(&6)?, Some(36));
    Ok(())
}

/// A descriptor of unknown kind: the kernel proves it.
pub fn looked_at() -> Outcome {
    let fs = TestFs::new();
    let map = hash().pin(fs.at("map"))?;
    let prog = prog().pin(fs.at("prog"))?;
    let get = |pin: &Path| {
        // SAFETY: a path that ends with NUL.
        let fd = unsafe { bpf_obj_get(c_path(pin).as_ptr()) };
        assert!(fd >= 0, "errno {}", -fd);
        // SAFETY: it is a new descriptor that only we own.
        unsafe { OwnedFd::from_raw_fd(fd) }
    };
    assert_eq!(Map::try_from(get(map.path()))?.id()?, map.id()?);
    let failed = Map::try_from(get(prog.path())).expect_err("a program");
    let back = failed.into_object();
    let object = bpf_pin::Object::try_from(back)?;
    assert_eq!((object.kind(), object.id()?), (Kind::Prog, prog.id()?));
    Ok(())
}
