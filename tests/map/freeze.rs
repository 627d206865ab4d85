//! `BPF_MAP_FREEZE`: elements stay readable, system calls cannot write, and failures name their cause.

use std::sync::atomic::{AtomicU32, AtomicU64};

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::{ElemFlags, LoadOnly};
use bpf_pin::probe::Capability;
use bpf_pin::types::{Command, MapFlags};
use bpf_pin::{Access, Map, MapSpec, MapType};
use common::*;
use rustix::thread::CapabilitySet;

const BPF: &[Need] = &[cap::BPF];
const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const SWITCH_USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];

fn array() -> bpf_pin::Result<Map> {
    MapSpec::new(MapType::ARRAY, 4, 8, 4)
        .flags(MapFlags::MMAPABLE)
        .create()
}

fn is_frozen(map: &Map) -> bool {
    let error = map
        .elements::<u32, u64>()
        .and_then(|elems| elems.update(&0, &0, ElemFlags::ANY));
    error.is_err_and(|error| error.cause() == Some(&Cause::Frozen))
}

#[common::test(BPF)]
fn a_frozen_map_stays_readable() -> Outcome {
    for map_type in [MapType::HASH, MapType::ARRAY, MapType::LRU_HASH] {
        let map = MapSpec::new(map_type, 4, 8, 4).create()?;
        let elems = map.elements::<u32, u64>()?;
        elems.update(&1, &7, ElemFlags::ANY)?;
        map.freeze()?;
        assert_eq!(elems.lookup(&1)?, Some(7));
        assert!(elems.iter().any(|entry| entry.unwrap() == (1, 7)));
        assert!(elems.to_vecs()?.1.contains(&7));
        assert!(is_frozen(&map), "{map_type}");
        let error = elems.delete(&1).expect_err("less");
        assert_eq!(error.cause(), Some(&Cause::Frozen));
    }
    Ok(())
}

#[common::test(BPF)]
fn freezing_twice_is_an_error() -> Outcome {
    let map = MapSpec::new(MapType::HASH, 4, 8, 4).create()?;
    map.freeze()?;
    let error = map.freeze().expect_err("a second time");
    assert_eq!(error.operation(), Operation::Freeze);
    assert_eq!(error.cause(), Some(&Cause::Frozen), "{error}");
    let errno = match kernel(6, 8).unmet() {
        None => libc::EPERM,
        Some(_) => libc::EBUSY,
    };
    assert_eq!(error.raw_os_error(), Some(errno));
    Ok(())
}

#[common::test(BPF)]
fn a_writable_mapping_prevents_freezing() -> Outcome {
    let map = array()?;
    let writer = map.mmap::<AtomicU64>()?;
    let error = map.freeze().expect_err("it is mapped for writing");
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    assert_eq!(error.cause(), Some(&Cause::BeingWritten), "{error}");
    assert!(!is_frozen(&map));
    let reader = map.mmap::<LoadOnly<AtomicU32>>()?;
    drop(writer);
    map.freeze()?;
    assert!(is_frozen(&map));
    assert_eq!(reader.len(), 4);
    let error = map.mmap::<AtomicU64>().expect_err("for writing");
    assert_eq!(error.operation(), Operation::Mmap);
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    assert_eq!(error.cause(), Some(&Cause::Frozen), "{error}");
    assert_eq!(map.mmap::<LoadOnly<AtomicU32>>()?.len(), 4);
    Ok(())
}

/// Some kernels require a writable descriptor, others `CAP_BPF`.
#[common::test(PINS)]
fn freezing_a_read_only_map_depends_on_the_kernel() -> Outcome {
    let fs = TestFs::new();
    hash().pin(fs.at("map"))?;
    let map = Map::open_with(fs.at("map"), Access::ReadOnly)?;
    if kernel(6, 8).unmet().is_some() {
        map.freeze()?;
        assert!(is_frozen(&Map::open(fs.at("map"))?));
        return Ok(());
    }
    let error = map.freeze().expect_err("a reader");
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    let opened = Access::ReadOnly;
    assert_eq!(error.cause(), Some(&Cause::MapAccess { opened }), "{error}");
    assert!(!is_frozen(&Map::open(fs.at("map"))?));
    Map::open_with(fs.at("map"), Access::WriteOnly)?.freeze()?;
    assert!(is_frozen(&Map::open(fs.at("map"))?));
    Ok(())
}

#[common::test(SWITCH_USER)]
fn freezing_without_cap_bpf_depends_on_the_kernel() -> Outcome {
    let map = hash();
    as_user(CapabilitySet::empty(), || -> Outcome {
        if kernel(6, 8).unmet().is_none() {
            return Ok(map.freeze()?);
        }
        let error = map.freeze().expect_err("no capability");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        assert_cause_matches!(
            error,
            Cause::MissingCapability {
                capability: Capability::Bpf,
                ..
            }
        );
        Ok(())
    })
}

/// One of the two is required, so both are named.
#[common::test(&[cap::SYS_ADMIN, cap::SETUID, Need::Bpffs])]
fn freezing_a_read_only_map_without_cap_bpf_names_both() -> Outcome {
    let fs = TestFs::new();
    hash().pin(fs.at("map"))?;
    let map = Map::open_with(fs.at("map"), Access::ReadOnly)?;
    let error = as_user(CapabilitySet::empty(), || map.freeze().unwrap_err());
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    assert_eq!(error.cause(), Some(&Cause::FreezeDenied), "{error}");
    assert!(!is_frozen(&Map::open(fs.at("map"))?));
    Ok(())
}

#[common::test(BPF)]
fn a_denied_command_does_not_mean_a_frozen_map() -> Outcome {
    let map = hash();
    with_bpf_errno(
        Some(bpf_pin::abi::BPF_MAP_FREEZE),
        libc::EINVAL as u32,
        || {
            let error = map.freeze().expect_err("a filter");
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
            let command = Command::MAP_FREEZE;
            assert_eq!(error.cause(), Some(&Cause::Filtered { command }));
        },
    );
    assert!(!is_frozen(&map));
    Ok(())
}
