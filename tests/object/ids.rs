//! Finding and opening objects by their ids, and comparing objects.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::ElemFlags;
use bpf_pin::probe::Capability;
use bpf_pin::{Access, Error, Link, Map, Object, PinnedMap, Prog, abi};
use common::*;
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::thread::CapabilitySet;

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const BPF: &[Need] = &[cap::BPF];
const SWITCH_USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];
const NO_BPF: &[Need] = &[without(cap::BPF)];

#[common::test(SWITCH_USER)]
fn ids_need_more_than_cap_bpf() -> Outcome {
    as_user(CapabilitySet::BPF, ids_and_from_id_need_cap_sys_admin)
}

#[common::test(ROOT)]
fn ids_contain_living_objects_of_each_kind() -> Outcome {
    let (map, prog, link) = (hash(), prog(), detached_link());
    let maps = Map::ids().collect::<Result<Vec<_>, _>>()?;
    let progs = Prog::ids().collect::<Result<Vec<_>, _>>()?;
    let links = Link::ids().collect::<Result<Vec<_>, _>>()?;
    assert!(maps.contains(&map.id()?));
    assert!(progs.contains(&prog.id()?));
    assert!(links.contains(&link.id()?));
    // The id of a freed link is not returned.
    let id = link.id()?;
    drop(link);
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while Link::ids().any(|other| other.is_ok_and(|other| other == id)) {
        assert!(
            std::time::Instant::now() < patience,
            "the link was not freed"
        );
        thread::sleep(std::time::Duration::from_millis(10));
    }
    Ok(())
}

#[common::test(ROOT)]
fn ids_ascend_and_end() -> Outcome {
    let _maps: Vec<Map> = (0..20).map(|_| hash()).collect();
    let mut ids = Map::ids();
    let mut last = 0;
    for id in ids.by_ref() {
        let id = id?;
        assert!(id > last, "{id} after {last}");
        last = id;
    }
    // The iterator stays at its end, even if objects are created.
    let _more: Vec<Map> = (0..3).map(|_| hash()).collect();
    assert!(ids.next().is_none());
    assert!(ids.next().is_none());
    assert!(format!("{ids:?}").contains(&last.to_string()));
    Ok(())
}

#[common::test(ROOT)]
fn ids_omit_no_living_object_while_others_change() -> Outcome {
    let held: Vec<Map> = (0..20).map(|_| hash()).collect();
    let held = held
        .iter()
        .map(Map::id)
        .collect::<Result<BTreeSet<_>, _>>()?;
    let kept: Vec<Map> = held
        .iter()
        .map(|id| Map::from_id(*id))
        .collect::<Result<_, _>>()?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| -> Outcome {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    drop((hash(), hash()));
                }
            });
        }
        let checked = (0..50).try_for_each(|_| -> Outcome {
            let seen = Map::ids().collect::<Result<Vec<_>, _>>()?;
            assert!(seen.is_sorted());
            let once: BTreeSet<_> = seen.iter().copied().collect();
            assert_eq!(once.len(), seen.len(), "an id is returned twice");
            let missed: Vec<_> = held.difference(&once).collect();
            assert!(missed.is_empty(), "{missed:?} are alive but not returned");
            Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        checked
    })?;
    drop(kept);
    Ok(())
}

#[common::test(NO_BPF)]
fn ids_and_from_id_need_cap_sys_admin() -> Outcome {
    fn assert_privilege_is_missing(error: &Error) {
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        assert_eq!(error.operation(), Operation::NextId);
        assert_cause_matches!(
            error,
            Cause::MissingCapability {
                capability: Capability::SysAdmin,
                ..
            }
        );
    }
    let mut maps = Map::ids();
    assert_privilege_is_missing(&maps.next().ok_or("no item")?.unwrap_err());
    assert!(maps.next().is_none(), "it ends");
    let next = Prog::ids().next().ok_or("no item")?;
    assert_privilege_is_missing(&next.unwrap_err());
    let next = Link::ids().next().ok_or("no item")?;
    assert_privilege_is_missing(&next.unwrap_err());
    let error = Map::from_id_with(1, Access::ReadOnly).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
    assert_cause_matches!(error, Cause::MissingCapability { .. });
    Ok(())
}

#[common::test(ROOT)]
fn from_id_with_restricts_access() -> Outcome {
    let map = hash();
    map.elements::<u32, u64>()?.update(&1, &7, ElemFlags::ANY)?;
    let id = map.id()?;
    for (access, reads, writes) in [
        (Access::ReadWrite, true, true),
        (Access::ReadOnly, true, false),
        (Access::WriteOnly, false, true),
    ] {
        let opened = Map::from_id_with(id, access)?;
        assert!(fcntl_getfd(&opened)?.contains(FdFlags::CLOEXEC));
        assert!(opened.is_same_object(&map)?);
        let elems = opened.elements::<u32, u64>()?;
        let cause = Cause::MapAccess { opened: access };
        match elems.lookup(&1) {
            Ok(value) => assert_eq!((value, reads), (Some(7), true)),
            Err(error) => assert_eq!((error.cause(), reads), (Some(&cause), false)),
        }
        match elems.update(&1, &7, ElemFlags::ANY) {
            Ok(()) => assert!(writes),
            Err(error) => assert_eq!((error.cause(), writes), (Some(&cause), false)),
        }
    }
    let error = Map::from_id_with(u32::MAX, Access::ReadOnly).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    assert_eq!(error.operation(), Operation::FromId);
    Ok(())
}

/// Checks what the docs of `Map::from_id_with` say about the kernel, with the bare command.
#[common::test(ROOT)]
fn only_maps_have_open_flags_by_id() -> Outcome {
    let (map, prog, link) = (hash(), prog(), detached_link());
    let open = |cmd, id| {
        let mut attr = abi::bpf_attr_get_id {
            start_id: id,
            open_flags: abi::BPF_F_RDONLY,
            ..abi::bpf_attr_get_id::zeroed()
        };
        let size = size_of_val(&attr) as u32;
        // SAFETY: the arm holds no address.
        let fd = unsafe { abi::bpf(cmd, std::ptr::from_mut(&mut attr).cast(), size) };
        match fd {
            ..0 => std::io::Error::last_os_error().raw_os_error(),
            fd => {
                // SAFETY: the command has just made it.
                drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
                None
            }
        }
    };
    assert_eq!(open(abi::BPF_MAP_GET_FD_BY_ID, map.id()?), None);
    let einval = Some(libc::EINVAL);
    assert_eq!(open(abi::BPF_PROG_GET_FD_BY_ID, prog.id()?), einval);
    assert_eq!(open(abi::BPF_LINK_GET_FD_BY_ID, link.id()?), einval);
    Ok(())
}

#[common::test(PINS)]
fn is_same_object_compares_kind_and_id() -> Outcome {
    let fs = TestFs::new();
    let (map, other, prog) = (hash(), hash(), prog());
    assert!(map.is_same_object(&map)?);
    assert!(map.is_same_object(map.try_clone()?)?);
    assert!(!map.is_same_object(&other)?);
    assert!(!map.is_same_object(&prog)?);
    assert!(!prog.is_same_object(&map)?);
    let pinned: PinnedMap = map.try_clone()?.pin(fs.at("map"))?;
    assert!(map.is_same_object(&*pinned)?);
    assert!(map.is_same_object(Object::open(fs.at("map"))?)?);
    let writer = Map::open_with(fs.at("map"), Access::WriteOnly)?;
    assert!(map.is_same_object(&writer)? && writer.is_same_object(&map)?);
    // A plain descriptor.
    let fd: OwnedFd = map.try_clone()?.into();
    assert!(pinned.is_same_object(fd.as_fd())?);
    // The same number in two kinds is not the same object.
    let progs: Vec<Prog> = (0..4).map(|_| common::prog()).collect();
    for prog in &progs {
        assert!(!map.is_same_object(prog)?);
    }
    Ok(())
}

#[common::test(BPF)]
fn is_same_object_rejects_other_descriptors() -> Outcome {
    let map = hash();
    let file = File::open("/dev/null")?;
    let error = map.is_same_object(&file).expect_err("no object");
    assert_cause_matches!(error, Cause::WrongDescriptor { .. });
    assert_eq!(error.operation(), Operation::FromFd);
    let error = map.is_same_object(btf_fd()).expect_err("BTF");
    assert_cause_matches!(error, Cause::WrongDescriptor { .. });
    Ok(())
}
