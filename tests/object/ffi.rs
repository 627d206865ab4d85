//! Maps in C signatures: a map is a descriptor, and `None` is -1.

use std::ffi::c_int;
use std::mem::{align_of, size_of, transmute};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use bpf_pin::error::Cause;
use bpf_pin::map::ElemFlags;
use bpf_pin::{Link, Map, MapSpec, MapType, Prog};
use common::*;

const CHILD: &str = "BPF_PIN_TEST_ZERO";

#[common::child]
fn run_child() -> Option<std::process::ExitCode> {
    match std::env::var(CHILD).as_deref() {
        Ok("map") => return Some(use_stdin_as_inner_map()),
        Ok(_) => return Some(use_stdin_as_btf()),
        Err(_) => {}
    }
    None
}

#[deny(improper_ctypes_definitions)]
extern "C" fn keep_or_drop(map: Option<Map>, keep: c_int) -> Option<Map> {
    map.filter(|_| keep != 0)
}

/// `keep_or_drop` with the signature that C declares.
fn as_declared_in_c() -> extern "C" fn(c_int, c_int) -> c_int {
    let rust: extern "C" fn(Option<Map>, c_int) -> Option<Map> = keep_or_drop;
    // SAFETY: Option<Map> has the layout of an int: Map is transparent over OwnedFd, and its niche is -1.
    unsafe { transmute(rust) }
}

#[common::test]
fn an_optional_map_has_the_layout_of_an_int() -> Outcome {
    assert_eq!(size_of::<Map>(), size_of::<c_int>());
    assert_eq!(size_of::<Option<Map>>(), size_of::<c_int>());
    assert_eq!(size_of::<Option<Prog>>(), size_of::<c_int>());
    assert_eq!(size_of::<Option<Link>>(), size_of::<c_int>());
    assert_eq!(align_of::<Option<Map>>(), align_of::<c_int>());
    Ok(())
}

#[common::test]
fn none_is_minus_one_in_c() -> Outcome {
    assert_eq!(as_declared_in_c()(-1, 1), -1);
    Ok(())
}

#[common::test(&[cap::BPF])]
fn a_map_passes_through_c_and_back() -> Outcome {
    let map = hash();
    let id = map.id()?;
    let number: RawFd = OwnedFd::from(map.try_clone()?).into_raw();
    // C passes the descriptor and receives the same number.
    assert_eq!(as_declared_in_c()(number, 1), number);
    // SAFETY: keep_or_drop has given its ownership back.
    let again = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(number) };
    let again = Map::try_from(again).map_err(|failed| failed.to_string())?;
    assert_eq!(again.id()?, id);
    // Dropping it in Rust closes it. The other descriptor keeps the map alive.
    let number = OwnedFd::from(again).into_raw();
    assert_eq!(as_declared_in_c()(number, 0), -1);
    assert_eq!(map.id()?, id);
    Ok(())
}

trait IntoRaw {
    fn into_raw(self) -> RawFd;
}

impl IntoRaw for OwnedFd {
    fn into_raw(self) -> RawFd {
        let number = self.as_raw_fd();
        std::mem::forget(self);
        number
    }
}

#[common::test(&[cap::BPF])]
fn descriptor_0_can_be_an_inner_map_or_a_btf_object() -> Outcome {
    for what in ["map", "btf"] {
        let status = common::command(std::env::current_exe()?)
            .env(CHILD, what)
            .status()?;
        assert!(status.success(), "{what}");
    }
    Ok(())
}

/// Uses descriptor 0 as the template of a map of maps.
fn use_stdin_as_inner_map() -> std::process::ExitCode {
    let spec = MapSpec::new(MapType::ARRAY, 4, 4, 1);
    rustix::stdio::dup2_stdin(spec.create().unwrap()).unwrap();
    // SAFETY: it was just duplicated to stdin, which nothing else uses.
    let zero = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(0) };
    let inner = Map::try_from(zero).unwrap();
    assert_eq!(inner.as_fd().as_raw_fd(), 0);
    let outer = MapSpec::new(MapType::ARRAY_OF_MAPS, 4, 4, 1)
        .inner_map(&inner)
        .create()
        .unwrap();
    let elems = outer.elements::<u32, u32>().unwrap();
    let like_it = spec.create().unwrap();
    let number = like_it.as_fd().as_raw_fd() as u32;
    elems.update(&0, &number, ElemFlags::ANY).unwrap();
    assert_eq!(elems.lookup(&0).unwrap(), Some(like_it.id().unwrap()));
    std::process::ExitCode::SUCCESS
}

/// Uses descriptor 0 as BTF object. A struct_ops map takes it only if it is passed explicitly.
fn use_stdin_as_btf() -> std::process::ExitCode {
    let btf = btf_object();
    let id = btf.id().unwrap();
    rustix::stdio::dup2_stdin(&btf).unwrap();
    drop(btf);
    let of_kernel = MapSpec::new(MapType::STRUCT_OPS, 4, 4, 1).btf_vmlinux_value_type_id(1);
    let error = of_kernel.create().expect_err("no BTF");
    let what = "btf";
    assert_cause_matches!(error, Cause::InvalidArgument { what: found, .. } if *found == what);
    assert_eq!(error.raw_os_error(), None);
    // If it is passed, the kernel rejects the type, which is not a struct_ops type.
    let zero = std::io::stdin();
    let error = of_kernel.btf(&zero, 0, 0).create();
    let error = error.expect_err("a type of something else");
    assert!(error.raw_os_error().is_some(), "{error}");
    let described = MapSpec::new(MapType::HASH, 4, 4, 1).btf(&zero, 1, 1);
    assert_eq!(described.create().unwrap().info().unwrap().btf_id, id);
    std::process::ExitCode::SUCCESS
}
