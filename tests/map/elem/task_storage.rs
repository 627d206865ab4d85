//! Task storage: a value may hold the address of memory that programs write to.

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::ElemFlags;
use bpf_pin::prog::Btf;
use bpf_pin::types::MapFlags;
use bpf_pin::{Error, Map, MapSpec, MapType, abi};
use common::*;
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use rustix::thread::CapabilitySet;

/// A map of `struct value { struct a *p; }`, with a tag at the pointer.
fn storage(tag: &str) -> bpf_pin::Result<Map> {
    let spec = MapSpec::new(MapType::TASK_STORAGE, 4, 8, 0);
    storage_with_tag(spec.flags(MapFlags::NO_PREALLOC), tag)
}

fn storage_with_tag(spec: MapSpec<'_>, tag: &str) -> bpf_pin::Result<Map> {
    let names = format!("\0long\0a\0{tag}\0value\0p\0int\0");
    let name = |name: &str| names.find(&format!("\0{name}\0")).unwrap() as u32 + 1;
    const INT: u32 = 1 << 24;
    const POINTER: u32 = 2 << 24;
    const STRUCT_OF_ONE: u32 = 4 << 24 | 1;
    const TYPE_TAG: u32 = 18 << 24;
    let types = [
        &[name("long"), INT, 8, 64][..],
        &[name("a"), STRUCT_OF_ONE, 8, name("p"), 1, 0],
        &match tag {
            "" => [0, POINTER, 2],
            tag => [name(tag), TYPE_TAG, 2],
        },
        &[0, POINTER, 3],
        &[
            name("value"),
            STRUCT_OF_ONE,
            8,
            name("p"),
            if tag.is_empty() { 1 } else { 4 },
            0,
        ],
        &[name("int"), INT, 4, 1 << 24 | 32],
    ]
    .concat();
    let (types_len, names_len) = (size_of_val(&types[..]) as u32, names.len() as u32);
    let mut blob = 0xeb9f_u16.to_ne_bytes().to_vec();
    blob.extend([1, 0]);
    let header = [24, 0, types_len, types_len, names_len];
    blob.extend(header.into_iter().chain(types).flat_map(u32::to_ne_bytes));
    blob.extend(names.as_bytes());
    let btf = Btf::load(&blob)?;
    spec.btf(&btf, 6, 5).create()
}

fn this_process() -> OwnedFd {
    pidfd_open(getpid(), PidfdFlags::empty()).expect("a descriptor of this process")
}

#[common::test(super::STORAGE)]
fn task_storage_is_read_and_written() -> Outcome {
    let map = storage("")?;
    let elems = map.elements::<i32, u64>()?;
    let this = this_process();
    let key = this.as_raw_fd();
    assert_eq!(elems.lookup(&key)?, None);
    elems.update(&key, &7, ElemFlags::ANY)?;
    assert_eq!(elems.lookup(&key)?, Some(7));
    elems.update_batch(&[key], &[8], ElemFlags::ANY)?;
    assert_eq!(elems.lookup(&key)?, Some(8));
    assert!(elems.delete(&key)?);
    Ok(())
}

/// Programs would write to the address in the value.
#[common::test(super::TAGGED)]
fn task_storage_with_uptrs_rejects_updates() -> Outcome {
    let map = storage("uptr")?;
    let elems = map.elements::<i32, u64>()?;
    let this = this_process();
    let key = this.as_raw_fd();
    let theirs: Box<u64> = Box::new(7);
    let value = ptr::from_ref(&*theirs).addr() as u64;
    let assert_rejected = |error: &Error| {
        assert_eq!(error.cause(), Some(&Cause::Uptr { problem: None }));
        assert_eq!(error.raw_os_error(), None, "it was not tried");
    };
    // The second update is rejected too.
    for _ in 0..2 {
        let error = elems.update(&key, &value, ElemFlags::ANY).unwrap_err();
        assert_rejected(&error);
        assert_eq!(error.operation(), Operation::Update);
        let error = elems.update_batch(&[key], &[value], ElemFlags::ANY);
        let error = error.unwrap_err();
        assert_rejected(&error);
        assert_eq!(error.elements_done(), 0);
    }
    // There is nothing to read or delete.
    assert_eq!(elems.lookup(&key)?, None);
    assert!(!elems.delete(&key)?);

    // The kernel does not follow a pointer with another tag.
    let map = storage("user")?;
    let elems = map.elements::<i32, u64>()?;
    elems.update(&key, &value, ElemFlags::ANY)?;
    assert_eq!(elems.lookup(&key)?, Some(value));
    Ok(())
}

/// As long as the BTF cannot be read, every update is rejected.
#[common::test(super::STORAGE)]
fn task_storage_with_unreadable_btf_rejects_updates() -> Outcome {
    let map = storage("")?;
    let elems = map.elements::<i32, u64>()?;
    let this = this_process();
    let key = this.as_raw_fd();
    let assert_rejected_with = |why: &str| {
        let error = elems.update(&key, &7, ElemFlags::ANY).unwrap_err();
        let problem = Some(why.to_owned());
        assert_eq!(error.cause(), Some(&Cause::Uptr { problem }), "{error}");
        error
    };
    with_bpf_errno(Some(abi::BPF_BTF_GET_FD_BY_ID), libc::ENOMEM as u32, || {
        let error = assert_rejected_with("ENOMEM");
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
    });
    // A filter that answers with zeroes gives no BTF.
    with_bpf_errno(Some(abi::BPF_OBJ_GET_INFO_BY_FD), 0, || {
        assert_rejected_with("EINVAL")
    });
    as_user(CapabilitySet::BPF, || {
        let error = assert_rejected_with(
            "this thread lacks CAP_SYS_ADMIN, needed for opening an object by its id",
        );
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        assert_eq!(elems.lookup(&key).unwrap(), None);
    });
    elems.update(&key, &7, ElemFlags::ANY)?;
    // The BTF is read once per view.
    as_user(CapabilitySet::BPF, || {
        elems.update(&key, &8, ElemFlags::ANY).unwrap();
    });
    assert_eq!(elems.lookup(&key)?, Some(8));
    Ok(())
}

/// The kernel follows addresses only in task storage. A newer kernel that creates such a map shows that the list
/// of types with plain values is wrong.
#[common::test(super::UPTR)]
fn only_task_storage_can_have_uptrs() -> Outcome {
    let storages = [
        MapType::SK_STORAGE,
        MapType::INODE_STORAGE,
        MapType::CGRP_STORAGE,
    ];
    let storages =
        storages.map(|map_type| MapSpec::new(map_type, 4, 8, 0).flags(MapFlags::NO_PREALLOC));
    let others = [
        MapType::HASH,
        MapType::ARRAY,
        MapType::LRU_HASH,
        MapType::PERCPU_HASH,
        MapType::PERCPU_ARRAY,
        MapType::LRU_PERCPU_HASH,
    ];
    let others = others.map(|map_type| MapSpec::new(map_type, 4, 8, 4));
    for spec in storages.into_iter().chain(others) {
        storage_with_tag(spec.clone(), "user")?;
        let error =
            storage_with_tag(spec.clone(), "uptr").expect_err("an address that is followed");
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "{spec:?}");
    }
    Ok(())
}

/// An answer of zeroes, as from a seccomp filter, is no BTF without tags.
#[common::test(super::TAGGED)]
fn forged_btf_is_rejected() -> Outcome {
    let map = storage("uptr")?;
    let elems = map.elements::<i32, u64>()?;
    let this = this_process();
    let error = with_bpf_errno(Some(abi::BPF_OBJ_GET_INFO_BY_FD), 0, || {
        let updated = elems.update(&this.as_raw_fd(), &7, ElemFlags::ANY);
        updated.expect_err("no BTF")
    });
    let problem = Some("EINVAL".to_owned());
    assert_eq!(error.cause(), Some(&Cause::Uptr { problem }), "{error}");
    Ok(())
}
