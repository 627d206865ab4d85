//! Map types: each can be created if the kernel knows it and the user has the capability, and only then.

mod commands;
mod rules;

use std::collections::BTreeSet;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::{MapFields, MapInfo};
use bpf_pin::probe::Capability;
use bpf_pin::types::MapFlags;
use bpf_pin::{Map, MapSpec, MapType, abi};
use common::*;
use rustix::thread::CapabilitySet;

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const SWITCH_USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];
const NO_BPF: &[Need] = &[without(cap::BPF)];
const KERNELS_BTF: &[Need] = &[
    cap::SYS_ADMIN,
    cap::NET_ADMIN,
    Need::Feature(Feature::StructOps),
];

#[common::test(SWITCH_USER)]
fn each_type_requires_its_capability() -> Outcome {
    as_user(CapabilitySet::BPF, with_cap_bpf)?;
    as_user(
        CapabilitySet::empty(),
        each_type_requires_its_capability_of_this_user,
    )
}

/// The capability that creating maps of a type requires.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Requires {
    Nothing,
    Bpf,
    NetAdmin,
}

/// A type with sizes that are valid for it.
#[derive(Clone)]
struct Row {
    map_type: MapType,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: MapFlags,
    /// The flags that the kernel adds.
    added: MapFlags,
    extra: u64,
    since: (u32, u32),
    capability: Requires,
}

/// All types that a stock kernel creates without BTF.
fn rows() -> Vec<Row> {
    use Requires::{Bpf, NetAdmin, Nothing};

    // SAFETY: sysconf takes a number and returns one.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u32;
    let row = |map_type, [key_size, value_size, max_entries]: [u32; 3], since, capability| Row {
        map_type,
        key_size,
        value_size,
        max_entries,
        flags: MapFlags::empty(),
        added: MapFlags::empty(),
        extra: 0,
        since,
        capability,
    };
    let flagged = |flags, row| Row { flags, ..row };
    let for_reading = |row| Row {
        added: MapFlags::RDONLY_PROG,
        ..row
    };
    vec![
        row(MapType::HASH, [3, 8, 4], (3, 19), Nothing),
        row(MapType::ARRAY, [4, 8, 4], (3, 19), Nothing),
        row(MapType::PROG_ARRAY, [4, 4, 4], (4, 2), Nothing),
        row(MapType::PERF_EVENT_ARRAY, [4, 4, 2], (4, 3), Nothing),
        row(MapType::PERCPU_HASH, [4, 12, 4], (4, 6), Nothing),
        row(MapType::PERCPU_ARRAY, [4, 12, 4], (4, 6), Nothing),
        row(MapType::STACK_TRACE, [4, 16, 4], (4, 6), Bpf),
        row(MapType::CGROUP_ARRAY, [4, 4, 4], (4, 8), Nothing),
        row(MapType::LRU_HASH, [4, 8, 4], (4, 10), Bpf),
        row(MapType::LRU_PERCPU_HASH, [4, 8, 4], (4, 10), Bpf),
        flagged(
            MapFlags::NO_PREALLOC,
            row(MapType::LPM_TRIE, [8, 4, 4], (4, 11), Bpf),
        ),
        row(MapType::ARRAY_OF_MAPS, [4, 4, 4], (4, 12), Nothing),
        row(MapType::HASH_OF_MAPS, [4, 4, 4], (4, 12), Nothing),
        for_reading(row(MapType::DEVMAP, [4, 4, 4], (4, 14), NetAdmin)),
        row(MapType::SOCKMAP, [4, 4, 4], (4, 14), NetAdmin),
        row(MapType::CPUMAP, [4, 4, 1], (4, 15), Bpf),
        row(MapType::XSKMAP, [4, 4, 4], (4, 18), NetAdmin),
        row(MapType::SOCKHASH, [4, 4, 4], (4, 18), NetAdmin),
        row(MapType::CGROUP_STORAGE, [16, 8, 0], (4, 19), Nothing),
        row(MapType::REUSEPORT_SOCKARRAY, [4, 8, 4], (4, 19), Bpf),
        row(MapType::PERCPU_CGROUP_STORAGE, [16, 8, 0], (4, 20), Nothing),
        row(MapType::QUEUE, [0, 8, 4], (4, 20), Bpf),
        row(MapType::STACK, [0, 8, 4], (4, 20), Bpf),
        for_reading(row(MapType::DEVMAP_HASH, [4, 4, 4], (5, 4), NetAdmin)),
        row(MapType::RINGBUF, [0, 0, page], (5, 8), Nothing),
        Row {
            extra: 3,
            ..row(MapType::BLOOM_FILTER, [0, 8, 4], (5, 16), Bpf)
        },
        row(MapType::USER_RINGBUF, [0, 0, page], (6, 1), Nothing),
        flagged(
            MapFlags::MMAPABLE,
            row(MapType::ARENA, [0, 0, 4], (6, 9), Bpf),
        ),
        for_reading(row(MapType::INSN_ARRAY, [4, 16, 4], (6, 19), Bpf)),
        flagged(
            MapFlags::NO_PREALLOC,
            row(MapType::RHASH, [4, 8, 4], (7, 2), Nothing),
        ),
    ]
}

/// Local storage with values described by BTF, and its first kernel.
const STORAGES: [(MapType, (u32, u32)); 4] = [
    (MapType::SK_STORAGE, (5, 2)),
    (MapType::INODE_STORAGE, (5, 10)),
    (MapType::TASK_STORAGE, (5, 11)),
    (MapType::CGRP_STORAGE, (6, 2)),
];

/// The types without a row: no type, and the type for `struct_ops`.
const OTHERS: [&str; 2] = ["UNSPEC", "STRUCT_OPS"];

#[common::test]
fn every_type_has_a_row() -> Outcome {
    let tested = rows().into_iter().map(|row| row.map_type);
    let storages = STORAGES.iter().map(|(map_type, _)| *map_type);
    let tested: BTreeSet<_> = tested.chain(storages).map(|map_type| map_type.0).collect();
    for known in abi::BPF_MAP_TYPES {
        let name = known.name.trim_start_matches("BPF_MAP_TYPE_");
        let is_tested = tested.contains(&(known.value as u32));
        assert_ne!(is_tested, OTHERS.contains(&name), "{name}");
    }
    Ok(())
}

/// Checks that a map fits its spec and the spec derived from it. That spec creates an equal map, together with
/// what a map does not report.
fn assert_specs_fit(
    spec: &MapSpec<'_>,
    map: &Map,
    given: impl FnOnce(MapSpec<'static>) -> bpf_pin::Result<Map>,
) -> Outcome {
    let all = MapFields::default() | MapFields::MAP_NAME;
    let spec = spec.clone().compare_fields(all);
    assert_eq!(spec.compare(map)?, [], "{spec:?}");
    let derived = MapSpec::of(map)?.compare_fields(all);
    assert_eq!(derived.compare(map)?, [], "{derived:?}");
    let copy = given(derived.clone())?;
    assert_eq!(derived.compare(&copy)?, [], "{derived:?}");
    let mut info = copy.info()?;
    info.id = map.id()?;
    assert_eq!(info, map.info()?);
    Ok(())
}

/// A struct_ops map, described by the kernel's BTF.
fn struct_ops() -> Outcome<Row> {
    Ok(Row {
        map_type: MapType::STRUCT_OPS,
        key_size: 4,
        value_size: CongestionOps::new()?.value_size,
        max_entries: 1,
        flags: MapFlags::empty(),
        added: MapFlags::empty(),
        extra: 0,
        since: (5, 6),
        capability: Requires::Bpf,
    })
}

impl Row {
    fn is_of_maps(&self) -> bool {
        matches!(
            self.map_type,
            MapType::ARRAY_OF_MAPS | MapType::HASH_OF_MAPS
        )
    }

    fn spec(&self) -> MapSpec<'static> {
        let spec = MapSpec::new(
            self.map_type,
            self.key_size,
            self.value_size,
            self.max_entries,
        );
        spec.flags(self.flags).map_extra(self.extra).name("row")
    }

    fn create(&self) -> bpf_pin::Result<Map> {
        self.create_as(self.spec())
    }

    /// Adds what a map of maps, or a struct_ops map, requires.
    fn create_as(&self, spec: MapSpec<'_>) -> bpf_pin::Result<Map> {
        if self.map_type == MapType::STRUCT_OPS {
            let ops = CongestionOps::new().expect("the kernel's BTF");
            let spec = spec.btf_vmlinux_value_type_id(ops.value_type);
            return spec.btf(&btf_object(), 0, 0).create();
        }
        if !self.is_of_maps() {
            return spec.create();
        }
        let inner = MapSpec::new(MapType::ARRAY, 4, 4, 1).create()?;
        spec.inner_map(&inner).create()
    }

    fn is_known(&self) -> bool {
        kernel(self.since.0, self.since.1).unmet().is_none()
    }

    fn assert_lacks(&self, result: bpf_pin::Result<Map>, capability: Capability) {
        let Err(error) = result else {
            panic!("a user without {capability} made a {} map", self.map_type)
        };
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        assert!(
            matches!(error.cause(), Some(Cause::MissingCapability { capability: c, .. }) if *c == capability),
            "{capability} for {error}"
        );
    }
}

#[common::test(ROOT)]
fn every_type_of_the_kernel_can_be_created() -> Outcome {
    for row in rows() {
        let made = row.create();
        if !row.is_known() {
            let error = made.expect_err("an unknown type");
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
            assert!(error.cause().is_none(), "{error}");
            continue;
        }
        let map = made?;
        let info = map.info()?;
        let MapInfo {
            map_type,
            id,
            key_size,
            value_size,
            max_entries,
            flags,
            name,
            ifindex,
            netns_dev,
            netns_ino,
            btf_id,
            btf_key_type_id,
            btf_value_type_id,
            btf_vmlinux_value_type_id,
            map_extra,
            ..
        } = info;
        assert_eq!(map_type, row.map_type);
        assert!(id > 0);
        assert_eq!(id, map.id()?, "{map_type}");
        let sizes = [key_size, value_size, max_entries];
        let expected = [row.key_size, row.value_size, row.max_entries];
        assert_eq!(sizes, expected, "{map_type}");
        assert_eq!(flags, row.flags | row.added, "{map_type}");
        assert_eq!(name, "row");
        assert_eq!((ifindex, netns_dev, netns_ino), (0, 0, 0), "{map_type}");
        assert_eq!([btf_id, btf_key_type_id, btf_value_type_id], [0; 3]);
        assert_eq!(btf_vmlinux_value_type_id, 0, "{map_type}");
        assert_eq!(map_extra, row.extra, "{map_type}");
        assert_specs_fit(&row.spec(), &map, |derived| {
            if row.is_of_maps() {
                let error = derived.create().expect_err("no inner map");
                let what = "inner_map";
                assert_cause_matches!(error, Cause::InvalidArgument { what: found, .. } if *found == what);
            }
            row.create_as(derived)
        })?;
    }
    Ok(())
}

#[common::test(KERNELS_BTF)]
fn types_with_btf_can_be_created() -> Outcome {
    let btf = btf_fd();
    for (map_type, (major, minor)) in STORAGES {
        let spec = MapSpec::new(map_type, 4, 4, 0)
            .flags(MapFlags::NO_PREALLOC)
            .name("row");
        let error = spec.create().expect_err("values that nothing describes");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        assert_fails(&error, Operation::CreateMap, libc::EINVAL, None);
        let spec = spec.btf(&btf, 1, 1);
        let made = spec.create();
        if kernel(major, minor).unmet().is_some() {
            let error = made.expect_err("an unknown type");
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
            continue;
        }
        let map = made?;
        let info = map.info()?;
        assert_eq!((info.map_type, info.max_entries), (map_type, 0));
        assert_eq!((info.key_size, info.value_size), (4, 4));
        assert!(info.btf_id > 0, "{map_type}");
        assert_eq!((info.btf_key_type_id, info.btf_value_type_id), (1, 1));
        assert_specs_fit(&spec, &map, |derived| {
            assert!(derived.create().is_err(), "{map_type} without BTF");
            derived.btf(&btf, 1, 1).create()
        })?;
    }
    let info = struct_ops()?.create()?.info()?;
    assert_eq!((info.map_type, info.max_entries), (MapType::STRUCT_OPS, 1));
    let ops = CongestionOps::new()?;
    assert_eq!((info.key_size, info.value_size), (4, ops.value_size));
    assert_eq!(info.btf_vmlinux_value_type_id, ops.value_type);
    // struct_ops requires a type of the kernel's BTF, which this is not.
    let spec = MapSpec::new(MapType::STRUCT_OPS, 4, 4, 1);
    for id in [0, u32::MAX] {
        let spec = spec.clone().btf_vmlinux_value_type_id(id);
        assert!(spec.create().is_err(), "{id}");
    }
    Ok(())
}

fn with_cap_bpf() -> Outcome {
    for row in rows().iter().filter(|row| row.is_known()) {
        match row.capability {
            Requires::NetAdmin => row.assert_lacks(row.create(), Capability::NetAdmin),
            Requires::Nothing | Requires::Bpf => drop(row.create()?),
        }
    }
    Ok(())
}

#[common::test(NO_BPF)]
fn each_type_requires_its_capability_of_this_user() -> Outcome {
    let sysctl = std::fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled")?;
    let disabled = sysctl.trim() != "0";
    for row in rows().iter().filter(|row| row.is_known()) {
        match row.capability {
            _ if disabled => row.assert_lacks(row.create(), Capability::Bpf),
            Requires::Bpf => row.assert_lacks(row.create(), Capability::Bpf),
            Requires::NetAdmin => row.assert_lacks(row.create(), Capability::NetAdmin),
            Requires::Nothing => drop(row.create()?),
        }
    }
    Ok(())
}
