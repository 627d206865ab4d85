//! The inner map that a map of maps was created with: compared, and named when an insertion is rejected.

use bpf_pin::error::{Cause, ErrorKind};
use bpf_pin::map::{ElemFlags, MapFields, Mismatch};
use bpf_pin::types::MapFlags;
use bpf_pin::{Map, MapSpec, MapType};
use common::*;
use rustix::thread::CapabilitySet;

const BPF: &[Need] = &[cap::BPF];
const BY_ID: &[Need] = &[cap::SYS_ADMIN];
const OUTER: [MapType; 2] = [MapType::ARRAY_OF_MAPS, MapType::HASH_OF_MAPS];

fn outer(map_type: MapType, inner: &Map) -> MapSpec<'_> {
    MapSpec::new(map_type, 4, 4, 8).inner_map(inner)
}

fn hash_of(key_size: u32, value_size: u32) -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, key_size, value_size, 8)
}

fn texts(mismatches: &[Mismatch]) -> Vec<String> {
    mismatches.iter().map(Mismatch::to_string).collect()
}

#[common::test(BY_ID)]
fn a_map_in_it_is_compared() -> Outcome {
    let array = |entries| MapSpec::new(MapType::ARRAY, 4, 8, entries);
    let no_prealloc = || hash_of(4, 8).flags(MapFlags::NO_PREALLOC);
    for map_type in OUTER {
        for (created, expected, differences) in [
            (hash_of(4, 8), hash_of(4, 8), &[][..]),
            (
                hash_of(4, 8),
                hash_of(4, 16),
                &["the inner map's value_size is 8, not 16"],
            ),
            (
                hash_of(4, 8),
                hash_of(8, 8),
                &["the inner map's key_size is 4, not 8"],
            ),
            (
                hash_of(4, 8),
                no_prealloc(),
                &["the inner map's map_flags is 0, not NO_PREALLOC"],
            ),
            (
                array(8),
                hash_of(4, 8),
                &["the inner map's map_type is array, not hash"],
            ),
            // The kernel compares the entries of arrays, and not those of hashes.
            (
                array(8),
                array(9),
                &["the inner map's max_entries is 8, not 9"],
            ),
            (MapSpec::new(MapType::HASH, 4, 8, 9), hash_of(4, 8), &[]),
        ] {
            let (created, expected) = (created.create()?, expected.create()?);
            let map = outer(map_type, &created).create()?;
            map.elements::<u32, Map>()?
                .update(&5, &created, ElemFlags::ANY)?;
            let found = outer(map_type, &expected).compare(&map)?;
            assert_eq!(texts(&found), differences, "{map_type}");
            assert!(
                found
                    .iter()
                    .all(|found| found.field() == MapFields::INNER_MAP)
            );
            // The differences are those for which the kernel rejects an insertion.
            let inserted = map
                .elements::<u32, Map>()?
                .update(&6, &expected, ElemFlags::ANY);
            assert_eq!(inserted.is_ok(), found.is_empty(), "{map_type}: {found:?}");
            let sizes_only = MapFields::default() - MapFields::INNER_MAP;
            let other = outer(map_type, &expected).compare_fields(sizes_only);
            assert_eq!(other.compare(&map)?, []);
        }
    }
    Ok(())
}

/// Programs can look up elements of such maps.
fn types(key_size: u32, value_size: u32) -> Vec<MapSpec<'static>> {
    let all = [
        MapType::HASH,
        MapType::ARRAY,
        MapType::PERCPU_HASH,
        MapType::PERCPU_ARRAY,
        MapType::LRU_HASH,
        MapType::LRU_PERCPU_HASH,
        MapType::LPM_TRIE,
    ];
    let is_valid = |map_type: &MapType| match *map_type {
        MapType::ARRAY | MapType::PERCPU_ARRAY => key_size == 4,
        MapType::LPM_TRIE => (5..=260).contains(&key_size),
        _ => true,
    };
    let spec = |map_type| match map_type {
        MapType::LPM_TRIE => {
            MapSpec::new(map_type, key_size, value_size, 1).flags(MapFlags::NO_PREALLOC)
        }
        _ => MapSpec::new(map_type, key_size, value_size, 1),
    };
    all.into_iter().filter(is_valid).map(spec).collect()
}

#[common::test(BPF)]
fn the_sizes_of_an_empty_one_are_compared() -> Outcome {
    let sizes = [
        (1, 1),
        (4, 8),
        (5, 7),
        (8, 16),
        (260, 1),
        (512, 4096),
        (4, 30_000),
    ];
    for map_type in OUTER {
        for (key_size, value_size) in sizes {
            for spec in types(key_size, value_size) {
                let inner = spec.create()?;
                let map = outer(map_type, &inner).create()?;
                assert_eq!(outer(map_type, &inner).compare(&map)?, []);
                let other = hash_of(9, 9).create()?;
                let found = outer(map_type, &other).compare(&map)?;
                let expected = 9;
                let (key, value) = (key_size, value_size);
                let mismatches = [
                    Mismatch::InnerKeySize {
                        expected,
                        found: key,
                    },
                    Mismatch::InnerValueSize {
                        expected,
                        found: value,
                    },
                ];
                assert_eq!(found, mismatches, "{:?}", inner.info()?.map_type);
                // Nothing was put in and taken out again.
                assert_eq!(
                    map.elements::<u32, Map>()?.keys().count(),
                    if map_type == OUTER[0] { 8 } else { 0 }
                );
            }
        }
    }
    Ok(())
}

#[common::test(BY_ID)]
fn without_the_right_to_open_a_map_its_sizes_are_compared() -> Outcome {
    let (inner, other) = (hash_of(4, 8).create()?, hash_of(4, 16).create()?);
    let map = outer(MapType::HASH_OF_MAPS, &inner).create()?;
    map.elements::<u32, Map>()?
        .update(&1, &inner, ElemFlags::ANY)?;
    as_user(CapabilitySet::BPF, || {
        let found = outer(MapType::HASH_OF_MAPS, &other).compare(&map)?;
        let (expected, found_size) = (16, 8);
        let mismatch = Mismatch::InnerValueSize {
            expected,
            found: found_size,
        };
        assert_eq!(found, [mismatch]);
        assert_eq!(outer(MapType::HASH_OF_MAPS, &inner).compare(&map)?, []);
        Ok(())
    })
}

#[common::test(BPF)]
fn a_rejected_insertion_names_the_field() -> Outcome {
    for map_type in OUTER {
        let (inner, other) = (hash_of(4, 8).create()?, hash_of(4, 16).create()?);
        let map = outer(map_type, &inner).create()?;
        let maps = map.elements::<u32, Map>()?;
        let error = maps.update(&1, &other, ElemFlags::ANY).unwrap_err();
        let (expected, found) = (8, 16);
        let mismatches = vec![Mismatch::ValueSize { expected, found }];
        assert_eq!(
            error.cause(),
            Some(&Cause::OtherInnerMap { mismatches }),
            "{error}"
        );
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        // A map that equals the inner map is rejected for its flags.
        let error = maps
            .update(&1, &inner, ElemFlags::NOEXIST | ElemFlags::LOCK)
            .unwrap_err();
        assert!(
            !matches!(error.cause(), Some(Cause::OtherInnerMap { .. })),
            "{error}"
        );
    }
    Ok(())
}
