//! Comparing maps with specs: reports all differences, and nothing that the kernel changes itself.

use bpf_pin::map::{MapFields, Mismatch};
use bpf_pin::types::MapFlags;
use bpf_pin::{Map, MapSpec, MapType};
use common::*;

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];

fn spec() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 8, 1024)
}

#[common::test(&[cap::BPF])]
fn every_difference_is_reported() -> Outcome {
    let map = spec().name("flows").create()?;
    let nothing = hash();
    let other = MapSpec::new(MapType::LRU_HASH, 8, 16, 4096)
        .flags(MapFlags::NO_COMMON_LRU)
        .map_extra(3)
        .ifindex(7)
        .btf_vmlinux_value_type_id(11)
        .btf(&nothing, 12, 13)
        .name("other")
        .compare_fields(MapFields::all());
    let mismatches = other.compare(&map)?;
    let fields: MapFields = mismatches.iter().map(Mismatch::field).collect();
    // A hash has no inner map.
    let expected = MapFields::all() - MapFields::INNER_MAP;
    assert_eq!(fields, expected, "{mismatches:?}");
    let texts: Vec<_> = mismatches.iter().map(Mismatch::to_string).collect();
    assert_eq!(
        texts,
        [
            "map_type is hash, not lru_hash",
            "key_size is 4, not 8",
            "value_size is 8, not 16",
            "max_entries is 1024, not 4096",
            "map_flags is 0, not NO_COMMON_LRU",
            "map_extra is 0x0, not 0x3",
            "map_ifindex is 0, not 7",
            "btf_vmlinux_value_type_id is 0, not 11",
            "btf_key_type_id is 0, not 12",
            "btf_value_type_id is 0, not 13",
            "map_name is \"flows\", not \"other\"",
        ]
    );
    Ok(())
}

#[common::test(&[cap::BPF])]
fn each_field_is_compared() -> Outcome {
    let map = spec().create()?;
    assert_eq!(spec().compare(&map)?, []);
    let (expected, found) = (1512, 8);
    assert_eq!(
        MapSpec::new(MapType::HASH, 4, 1512, 1024).compare(&map)?,
        [Mismatch::ValueSize { expected, found }]
    );
    let (expected, found) = (5, 4);
    assert_eq!(
        MapSpec::new(MapType::HASH, 5, 8, 1024).compare(&map)?,
        [Mismatch::KeySize { expected, found }]
    );
    // A type with a similar name, and a newer type.
    for expected in [MapType::ARRAY, MapType(4711)] {
        let found = MapType::HASH;
        assert_eq!(
            MapSpec::new(expected, 4, 8, 1024).compare(&map)?,
            [Mismatch::MapType { expected, found }]
        );
    }
    let (expected, found) = (MapFlags::NO_PREALLOC, MapFlags::empty());
    assert_eq!(
        spec().flags(MapFlags::NO_PREALLOC).compare(&map)?,
        [Mismatch::MapFlags { expected, found }]
    );
    Ok(())
}

#[common::test(&[cap::BPF])]
fn only_the_given_fields_are_compared() -> Outcome {
    let map = spec().name("flows").create()?;
    let larger = MapSpec::new(MapType::HASH, 4, 8, 4096).name("other");
    assert_eq!(larger.compare(&map)?.len(), 1, "a name is not compared");
    let any_size = larger.compare_fields(MapFields::default() - MapFields::MAX_ENTRIES);
    assert_eq!(any_size.compare(&map)?, []);
    assert_eq!(
        any_size
            .compare_fields(MapFields::MAP_NAME)
            .compare(&map)?
            .len(),
        1
    );
    Ok(())
}

#[common::test(&[cap::BPF])]
fn btf_types_are_compared_on_request() -> Outcome {
    const TYPES: MapFields = MapFields::BTF_KEY_TYPE_ID.union(MapFields::BTF_VALUE_TYPE_ID);
    let (btf, again) = (btf_object(), btf_object());
    let fields = |mismatches: Vec<Mismatch>| -> MapFields {
        mismatches.iter().map(Mismatch::field).collect()
    };
    let hash = MapSpec::new(MapType::HASH, 4, 4, 64);
    let plain = hash.create()?;
    let described = hash.clone().btf(&btf, 1, 1);
    let map = described.create()?;
    assert_eq!(map.info()?.btf_id, btf.id()?);
    // By default type ids are not compared, because the BTF objects may differ.
    for (spec, map) in [(&hash, &map), (&described, &plain), (&described, &map)] {
        assert_eq!(spec.compare(map)?, []);
    }
    let with_types = |spec: &MapSpec<'_>, map| -> bpf_pin::Result<MapFields> {
        let all = MapFields::default() | TYPES;
        Ok(fields(spec.clone().compare_fields(all).compare(map)?))
    };
    assert_eq!(with_types(&described, &plain)?, TYPES);
    assert_eq!(with_types(&hash, &map)?, TYPES);
    assert_eq!(with_types(&hash, &plain)?, MapFields::empty());
    assert_eq!(with_types(&described, &map)?, MapFields::empty());
    // The same BTF loaded again has another id.
    assert_ne!(again.id()?, btf.id()?);
    let reloaded = hash.clone().btf(&again, 1, 1);
    assert_eq!(with_types(&reloaded, &map)?, MapFields::empty());
    let key_alone = hash.btf(&btf, 1, 2);
    assert_eq!(with_types(&key_alone, &map)?, MapFields::BTF_VALUE_TYPE_ID);
    // A spec of the map has its sizes, not its types.
    let spec = MapSpec::of(&map)?;
    assert_eq!(spec.compare(&map)?, []);
    assert_eq!(with_types(&spec, &map)?, TYPES);
    assert_eq!(spec.create()?.info()?.btf_id, 0);
    Ok(())
}

/// Also for maps that this machine cannot create, from constructed info.
#[common::test(&[cap::BPF])]
fn spec_of_info_has_every_field() -> Outcome {
    let types = MapFields::BTF_KEY_TYPE_ID | MapFields::BTF_VALUE_TYPE_ID;
    let all = MapFields::all() - types - MapFields::INNER_MAP;
    let plain = spec().create()?.info()?;
    let mut info = plain.clone();
    info.map_type = MapType::LRU_HASH;
    (info.key_size, info.value_size, info.max_entries) = (5, 6, 7);
    (info.map_extra, info.ifindex, info.btf_vmlinux_value_type_id) = (8, 9, 10);
    info.flags = MapFlags::NO_COMMON_LRU | MapFlags::ZERO_SEED;
    info.name = spec().name("flows").create()?.info()?.name;
    let spec = MapSpec::of_info(&info).compare_fields(all);
    assert_eq!(spec.compare_info(&info), []);
    let fields: MapFields = spec
        .compare_info(&plain)
        .iter()
        .map(Mismatch::field)
        .collect();
    assert_eq!(fields, all);
    Ok(())
}

/// Specs of maps that report other fields than requested.
fn changed() -> Vec<MapSpec<'static>> {
    let with = |map_type, flags| MapSpec::new(map_type, 4, 8, 5).flags(flags);
    vec![
        MapSpec::new(MapType::DEVMAP, 4, 4, 5),
        MapSpec::new(MapType::DEVMAP_HASH, 4, 4, 5),
        with(MapType::HASH, MapFlags::RDONLY),
        with(MapType::ARRAY, MapFlags::WRONLY),
        with(MapType::HASH, MapFlags::empty()).numa_node(0),
        with(MapType::LRU_HASH, MapFlags::NO_COMMON_LRU),
        with(MapType::LRU_PERCPU_HASH, MapFlags::NO_COMMON_LRU),
        MapSpec::new(MapType::LRU_HASH, 4, 8, 1001).flags(MapFlags::NO_COMMON_LRU),
        MapSpec::new(MapType::LRU_HASH, 4, 8, 1).flags(MapFlags::NO_COMMON_LRU),
    ]
}

#[common::test(ROOT)]
fn a_map_fits_the_spec_that_created_it() -> Outcome {
    for spec in changed() {
        assert_eq!(spec.compare(&spec.create()?)?, [], "{spec:?}");
    }
    Ok(())
}

#[common::test(ROOT)]
fn a_map_fits_its_own_spec() -> Outcome {
    for spec in changed() {
        let map = spec.name("flows").create()?;
        let spec = MapSpec::of(&map)?;
        assert_eq!(spec.compare(&map)?, [], "{spec:?}");
        let copy = spec.create()?;
        assert_eq!(spec.compare(&copy)?, [], "{spec:?}");
        assert_eq!(copy.info()?.name, map.info()?.name);
    }
    Ok(())
}

#[common::test(ROOT)]
fn fields_that_loaders_round_fit() -> Outcome {
    // SAFETY: sysconf takes a number and returns one.
    let (page, cpus) = unsafe {
        (
            libc::sysconf(libc::_SC_PAGESIZE) as u32,
            libc::sysconf(libc::_SC_NPROCESSORS_CONF) as u32,
        )
    };
    let differs = |spec: MapSpec<'_>, map: &Map| -> bpf_pin::Result<bool> {
        Ok(!spec.compare(map)?.is_empty())
    };
    let ring = MapSpec::new(MapType::RINGBUF, 0, 0, 4 * page).create()?;
    for (bytes, is_other) in [(2 * page + 1, false), (4 * page, false), (2 * page, true)] {
        let spec = MapSpec::new(MapType::RINGBUF, 0, 0, bytes);
        assert_eq!(differs(spec, &ring)?, is_other, "{bytes}");
    }
    for map_type in [MapType::CPUMAP, MapType::PERF_EVENT_ARRAY] {
        let map = MapSpec::new(map_type, 4, 4, cpus).create()?;
        for (entries, is_other) in [(0, false), (cpus, false), (cpus + 7, false)] {
            let spec = MapSpec::new(map_type, 4, 4, entries);
            assert_eq!(differs(spec, &map)?, is_other, "{map_type}: {entries}");
        }
        if cpus > 1 {
            assert!(differs(MapSpec::new(map_type, 4, 4, cpus - 1), &map)?);
        }
    }
    Ok(())
}
