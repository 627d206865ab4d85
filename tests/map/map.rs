//! Creating maps: a map has the properties of its spec, and a failure names its cause.

mod fields;

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::ElemFlags;
use bpf_pin::probe::Capability;
use bpf_pin::types::MapFlags;
use bpf_pin::{Access, Map, MapSpec, MapType};
use common::*;
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::thread::CapabilitySet;

const BPF: &[Need] = &[cap::BPF];
const ADMIN: &[Need] = &[cap::SYS_ADMIN];
const STRUCT_OPS: &[Need] = &[
    cap::BPF,
    cap::NET_ADMIN,
    cap::PERFMON,
    Need::Feature(Feature::StructOps),
];
const SWITCH_USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];
const NO_ADMIN: &[Need] = &[without(cap::SYS_ADMIN)];

#[common::test(SWITCH_USER)]
fn opening_by_id_requires_a_capability() -> Outcome {
    as_user(CapabilitySet::BPF, opening_by_id_as_a_user_fails)
}

fn array() -> MapSpec<'static> {
    MapSpec::new(MapType::ARRAY, 4, 8, 1)
}

#[common::test(BPF)]
fn valid_names_are_reported_by_info() -> Outcome {
    assert_eq!(array().create()?.info()?.name, "");
    for name in ["a", "flows_4.rodata", "exactly_fifteen", "..", "0"] {
        let info = array().name(name).create()?.info()?;
        assert_eq!(info.name, name);
        assert_eq!(format!("[{:>16}]", info.name), format!("[{name:>16}]"));
    }
    Ok(())
}

#[common::test]
fn invalid_names_are_rejected_without_a_syscall() -> Outcome {
    for bad in ["sixteen_is_a_lot", "a-b", "a b", "a\0b", "\u{e4}", "a/b"] {
        let error = array().name(bad).create().expect_err("an invalid name");
        assert_cause_matches!(
            error,
            Cause::InvalidArgument {
                what: "the name",
                ..
            }
        );
        assert_eq!(error.operation(), Operation::CreateMap);
        assert_eq!(error.raw_os_error(), None);
    }
    Ok(())
}

#[common::test(BPF)]
fn flags_are_reported_by_info() -> Outcome {
    let hash = || MapSpec::new(MapType::HASH, 4, 8, 4);
    for (spec, flags) in [
        (hash(), MapFlags::NO_PREALLOC),
        (hash(), MapFlags::RDONLY_PROG),
        (hash(), MapFlags::WRONLY_PROG),
        (hash(), MapFlags::NO_PREALLOC | MapFlags::RDONLY_PROG),
        (array(), MapFlags::MMAPABLE),
        (array(), MapFlags::INNER_MAP),
        (
            MapSpec::new(MapType::LRU_HASH, 4, 8, 64),
            MapFlags::NO_COMMON_LRU,
        ),
        (
            MapSpec::new(MapType::STACK_TRACE, 4, 32, 4),
            MapFlags::STACK_BUILD_ID,
        ),
        (
            MapSpec::new(MapType::PERF_EVENT_ARRAY, 4, 4, 1),
            MapFlags::PRESERVE_ELEMS,
        ),
    ] {
        assert_eq!(spec.flags(flags).create()?.info()?.flags, flags);
    }
    // Several at once.
    let both = hash()
        .flags(MapFlags::RDONLY)
        // The last call counts.
        .flags(MapFlags::NO_PREALLOC | MapFlags::WRONLY_PROG)
        .create()?;
    assert_eq!(
        both.info()?.flags,
        MapFlags::NO_PREALLOC | MapFlags::WRONLY_PROG
    );
    // An unknown bit reaches the kernel, which rejects it.
    let unknown = MapFlags::from_bits_retain(1 << 31);
    let error = hash().flags(unknown).create().expect_err("an unknown flag");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert_fails(&error, Operation::CreateMap, libc::EINVAL, None);
    Ok(())
}

/// A known seed lets a user choose keys that collide, so it requires root.
#[common::test(SWITCH_USER)]
fn a_zero_seed_requires_root() -> Outcome {
    let spec = MapSpec::new(MapType::HASH, 4, 8, 4).flags(MapFlags::ZERO_SEED);
    assert_eq!(spec.create()?.info()?.flags, MapFlags::ZERO_SEED);
    as_user(CapabilitySet::BPF, || {
        let error = spec.create().expect_err("a seed of the user's choice");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
    });
    Ok(())
}

#[common::test(BPF)]
fn per_cpu_lru_lists_round_entries_up() -> Outcome {
    let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = possible.trim().rsplit(['-', ',']).next();
    let cpus: u32 = last.expect("a number").parse::<u32>()? + 1;
    let entries = 64 * cpus - (cpus - 1);
    let spec = MapSpec::new(MapType::LRU_HASH, 4, 8, entries).flags(MapFlags::NO_COMMON_LRU);
    assert_eq!(spec.create()?.info()?.max_entries, 64 * cpus);
    let spec = MapSpec::new(MapType::LRU_HASH, 4, 8, entries);
    assert_eq!(spec.create()?.info()?.max_entries, entries);
    Ok(())
}

#[common::test(BPF)]
fn flags_restrict_the_new_descriptor() -> Outcome {
    let mode = |map: &Map| fcntl_getfl(map).map(|flags| flags & OFlags::ACCMODE);
    let spec = array();
    assert_eq!(mode(&spec.create()?)?, OFlags::RDWR);

    let reader = spec.clone().flags(MapFlags::RDONLY).create()?;
    assert_eq!(mode(&reader)?, OFlags::RDONLY);
    assert_eq!(reader.info()?.flags, MapFlags::empty());
    let elems = reader.elements::<u32, u64>()?;
    assert_eq!(elems.lookup(&0)?, Some(0));
    let error = elems
        .update(&0, &1, ElemFlags::ANY)
        .expect_err("a write through a reader");
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    let opened = Access::ReadOnly;
    assert_eq!(error.cause(), Some(&Cause::MapAccess { opened }));

    let writer = spec.flags(MapFlags::WRONLY).create()?;
    assert_eq!(mode(&writer)?, OFlags::WRONLY);
    assert_eq!(writer.info()?.flags, MapFlags::empty());
    let elems = writer.elements::<u32, u64>()?;
    elems.update(&0, &1, ElemFlags::ANY)?;
    let error = elems.lookup(&0).expect_err("a look through a writer");
    let opened = Access::WriteOnly;
    assert_eq!(error.cause(), Some(&Cause::MapAccess { opened }));

    let neither = array().flags(MapFlags::RDONLY | MapFlags::WRONLY);
    let error = neither.create().expect_err("no access");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert_eq!(error.operation(), Operation::CreateMap);
    Ok(())
}

#[common::test(BPF)]
fn a_map_of_maps_has_an_inner_map() -> Outcome {
    for outer in [MapType::ARRAY_OF_MAPS, MapType::HASH_OF_MAPS] {
        let spec = MapSpec::new(outer, 4, 4, 2).name("outer");
        let map = {
            let inner = MapSpec::new(MapType::HASH, 4, 8, 4).create()?;
            spec.clone().inner_map(&inner).create()?
        };
        // The template may be closed: only its shape counts.
        let (fits, other) = (
            MapSpec::new(MapType::HASH, 4, 8, 4).create()?,
            MapSpec::new(MapType::HASH, 4, 16, 4).create()?,
        );
        let elems = map.elements::<u32, u32>()?;
        let fd = |map: &Map| std::os::fd::AsRawFd::as_raw_fd(&map.as_fd()) as u32;
        elems.update(&0, &fd(&fits), ElemFlags::ANY)?;
        assert_eq!(elems.lookup(&0)?, Some(fits.id()?));
        let error = elems
            .update(&1, &fd(&other), ElemFlags::ANY)
            .expect_err("an inner map of another shape");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));

        // A map of maps cannot be the inner map.
        let error = spec.clone().inner_map(&map).create();
        let error = error.expect_err("a third level");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        assert_eq!(error.operation(), Operation::CreateMap);
        let error = spec.create().expect_err("no template");
        let what = "inner_map";
        assert_cause_matches!(error, Cause::InvalidArgument { what: found, .. } if *found == what);
    }
    Ok(())
}

#[common::test(BPF)]
fn a_map_is_created_on_a_numa_node() -> Outcome {
    let spec = MapSpec::new(MapType::HASH, 4, 8, 4).numa_node(0);
    assert_eq!(spec.create()?.info()?.flags, MapFlags::NUMA_NODE);
    let error = array().numa_node(1 << 20).create();
    let error = error.expect_err("a node that no machine has");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    Ok(())
}

#[common::test(BPF)]
fn map_extra_is_passed_to_the_kernel() -> Outcome {
    // Not for this type, and before Linux 5.16 for no type.
    let error = array().map_extra(1).create();
    let error = error.expect_err("an unsupported field");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert_eq!(array().map_extra(0).create()?.info()?.map_extra, 0);
    // A bloom filter uses the low four bits, and rejects others.
    let spec = MapSpec::new(MapType::BLOOM_FILTER, 0, 8, 4).map_extra(1 << 4);
    let error = spec.create().expect_err("17 hash functions");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    Ok(())
}

#[common::test(ADMIN)]
fn a_device_without_offload_is_rejected() -> Outcome {
    // Loopback, and a device that does not exist.
    for ifindex in [1, 4711] {
        let error = array().ifindex(ifindex).create();
        let error = error.expect_err("no device for maps");
        assert!(
            matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)),
            "{error}"
        );
    }
    Ok(())
}

#[common::test(BPF)]
fn invalid_sizes_are_rejected() -> Outcome {
    for (map_type, sizes, errno) in [
        (MapType::UNSPEC, [4, 8, 1], libc::EINVAL),
        (MapType(4711), [4, 8, 1], libc::EINVAL),
        (MapType(u32::MAX), [4, 8, 1], libc::EINVAL),
        // A stack with values of less than 8 bytes.
        (MapType::STACK_TRACE, [4, 7, 1], libc::EINVAL),
        (MapType::HASH, [u32::MAX, 8, 1], libc::E2BIG),
        (MapType::ARRAY, [4, u32::MAX, 1], libc::E2BIG),
    ] {
        let [key_size, value_size, max_entries] = sizes;
        let spec = MapSpec::new(map_type, key_size, value_size, max_entries);
        let error = spec.create().expect_err("sizes that do not fit");
        assert_eq!(error.raw_os_error(), Some(errno), "{error} {sizes:?}");
        assert!(error.cause().is_none(), "{error}");
        assert_eq!(error.operation(), Operation::CreateMap);
    }
    Ok(())
}

/// E2BIG, or ENOMEM without a cause, but never without the field if the number alone is to blame.
#[common::test(BPF)]
fn too_many_entries_are_named() -> Outcome {
    let mut named = 0;
    for map_type in [
        MapType::HASH,
        MapType::ARRAY,
        MapType::PROG_ARRAY,
        MapType::PERCPU_HASH,
        MapType::PERCPU_ARRAY,
        MapType::LRU_HASH,
        MapType::QUEUE,
        MapType::STACK,
        MapType::STACK_TRACE,
    ] {
        let (key, value) = match map_type {
            MapType::QUEUE | MapType::STACK => (0, 8),
            MapType::PROG_ARRAY => (4, 4),
            _ => (4, 8),
        };
        let Err(error) = MapSpec::new(map_type, key, value, u32::MAX).create() else {
            continue;
        };
        if error.raw_os_error() == Some(libc::E2BIG) {
            let what = "max_entries";
            let is_named = matches!(error.cause(), Some(Cause::InvalidArgument { what: found, .. }) if *found == what);
            assert!(is_named, "{map_type}: {error}");
            named += 1;
        }
    }
    assert!(named > 0);
    Ok(())
}

#[common::test(BPF)]
fn a_spec_creates_any_number_of_maps() -> Outcome {
    let spec = array().name("many");
    let (one, other) = (spec.create()?, spec.create()?);
    assert_ne!(one.id()?, other.id()?);
    one.elements::<u32, u64>()?.update(&0, &1, ElemFlags::ANY)?;
    assert_eq!(other.elements::<u32, u64>()?.lookup(&0)?, Some(0));
    assert!(fcntl_getfd(&one)?.contains(FdFlags::CLOEXEC));
    Ok(())
}

#[common::test(BPF)]
fn clones_refer_to_the_same_map() -> Outcome {
    let map = array().create()?;
    let clone = map.try_clone()?;
    assert_eq!(map.id()?, clone.id()?);
    assert!(fcntl_getfd(&clone)?.contains(FdFlags::CLOEXEC));
    map.elements::<u32, u64>()?.update(&0, &7, ElemFlags::ANY)?;
    drop(map);
    assert_eq!(clone.elements::<u32, u64>()?.lookup(&0)?, Some(7));
    Ok(())
}

#[common::test(ADMIN)]
fn a_map_is_opened_by_id() -> Outcome {
    let map = array().name("by_id").create()?;
    let id = map.id()?;
    let same = Map::from_id(id)?;
    assert_eq!(same.info()?, map.info()?);
    assert!(fcntl_getfd(&same)?.contains(FdFlags::CLOEXEC));
    map.elements::<u32, u64>()?.update(&0, &7, ElemFlags::ANY)?;
    drop(map);
    assert_eq!(same.elements::<u32, u64>()?.lookup(&0)?, Some(7));

    for unknown in [0, u32::MAX] {
        let error = Map::from_id(unknown).expect_err("an unknown id");
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        assert_eq!(error.cause(), Some(&Cause::NoSuchId { what: "map" }));
        assert!(error.is_missing());
        assert_eq!(error.operation(), Operation::FromId);
    }
    Ok(())
}

#[common::test(ADMIN)]
fn the_id_of_a_closed_map_is_unknown() -> Outcome {
    let map = array().create()?;
    let id = map.id()?;
    drop(map);
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        match Map::from_id(id) {
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
                return Ok(());
            }
            Ok(_) if Instant::now() > patience => return Err("a map that does not die".into()),
            Ok(map) => drop(map),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[common::test(NO_ADMIN)]
fn opening_by_id_as_a_user_fails() -> Outcome {
    let error = Map::from_id(1).expect_err("a missing capability");
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    assert_cause_matches!(
        error,
        Cause::MissingCapability {
            capability: Capability::SysAdmin,
            ..
        }
    );
    assert_eq!(error.operation(), Operation::FromId);
    Ok(())
}
