//! `Reuse::Migrate` between all map types that support copying, and the error for the other types.

use std::cell::Cell;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::ElemFlags;
use bpf_pin::reuse::Migrate;
use bpf_pin::types::MapFlags;
use bpf_pin::{Map, MapSpec, MapType, PinDir};
use common::*;

use super::scene::{NAME, create_pinned, entries, hash_spec, migrate, put, scene};

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const NET: &[Need] = &[cap::BPF, cap::NET_ADMIN, Need::Bpffs];

#[common::test(PINS)]
fn a_hash_migrates_to_an_array() -> Outcome {
    let (_fs, dir, old) = scene((10..18).map(|n| (n, n.into())))?;
    let seen = Cell::new(0);
    let how = Migrate::new(|key: &u32, value: &u64| {
        seen.set(seen.get() + 1);
        if seen.get() == 8 {
            old.elements::<u32, u64>().unwrap().delete(&12).unwrap();
        }
        Some((*key - 10, *value))
    });
    let array = MapSpec::new(MapType::ARRAY, 4, 8, 10);
    let map = migrate(&dir, &array, how)?;
    let expected = [10, 11, 0, 13, 14, 15, 16, 17, 0, 0];
    let expected: Vec<(u32, u64)> = (0..).zip(expected).collect();
    assert_eq!(entries::<u32, u64>(&map)?, expected);
    Ok(())
}

#[common::test(PINS)]
fn an_array_migrates_to_a_larger_one() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let array = |value_size, entries| MapSpec::new(MapType::ARRAY, 4, value_size, entries);
    put(
        &create_pinned(&dir, &array(8, 5))?,
        (0..5).map(|n| (n, u64::from(n) + 1)),
    )?;
    let how = Migrate::new(|key: &u32, value: &u64| Some((*key, [*value as u32; 3])));
    let map = migrate(&dir, &array(12, 7), how.freeze())?;
    let expected: Vec<(u32, [u32; 3])> = (0..7)
        .map(|n| (n, [if n < 5 { n + 1 } else { 0 }; 3]))
        .collect();
    assert_eq!(entries::<u32, [u32; 3]>(&map)?, expected);
    Ok(())
}

#[common::test(PINS)]
fn an_array_migrates_to_a_hash() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let array = MapSpec::new(MapType::ARRAY, 4, 8, 9).flags(MapFlags::MMAPABLE);
    put(&create_pinned(&dir, &array)?, [(3, 33), (8, 88)])?;
    let how = Migrate::new(|key: &u32, value: &u64| (*value != 0).then_some((*key, *value)));
    let map = migrate(&dir, &hash_spec(4, 8), how)?;
    assert_eq!(entries::<u32, u64>(&map)?, [(3, 33), (8, 88)]);
    Ok(())
}

#[common::test(PINS)]
fn per_cpu_maps_migrate_the_values_of_all_cpus() -> Outcome {
    let kinds = [
        MapType::PERCPU_HASH,
        MapType::PERCPU_ARRAY,
        MapType::LRU_PERCPU_HASH,
    ];
    for (from, to) in kinds
        .into_iter()
        .flat_map(|from| kinds.map(|to| (from, to)))
    {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        // Values of 5 bytes take 8 for each CPU, and those of 12 take 16.
        let old = create_pinned(&dir, &MapSpec::new(from, 4, 5, 200))?;
        let elems = old.elements::<[u8], [u8]>()?;
        let cpus = elems.value_len() / 8;
        for key in 0..3_u32 {
            let value: Vec<u8> = (0..elems.value_len())
                .map(|at| {
                    if at % 8 < 5 {
                        10 * key as u8 + (at / 8) as u8
                    } else {
                        0
                    }
                })
                .collect();
            elems.update(&key.to_ne_bytes(), &value, ElemFlags::ANY)?;
        }
        let how = Migrate::bytes(|key, value, new_key, new_value| {
            assert_eq!((value.len(), new_value.len()), (8 * cpus, 16 * cpus));
            new_key.copy_from_slice(key);
            for (old, new) in value.chunks(8).zip(new_value.chunks_mut(16)) {
                new[..5].copy_from_slice(&old[..5]);
                new[11] = 1;
            }
            u32::from_ne_bytes(key.try_into().unwrap()) < 3
        });
        let map = migrate(&dir, &MapSpec::new(to, 4, 12, 200), how)?;
        let elems = map.elements::<[u8], [u8]>()?;
        let mut value = vec![0; elems.value_len()];
        for key in 0..3_u32 {
            assert!(
                elems.lookup_into(&key.to_ne_bytes(), &mut value, ElemFlags::ANY)?,
                "{from} {to}"
            );
            for (cpu, value) in value.chunks(16).enumerate() {
                let was = 10 * key as u8 + cpu as u8;
                let expected = [was, was, was, was, was, 0, 0, 0, 0, 0, 0, 1];
                assert_eq!(value[..12], expected, "{from} {to}");
            }
        }
        // A typed function has one value for all CPUs.
        let typed = Migrate::new(|key: &u32, value: &[u8; 12]| Some((*key, *value)));
        let error = migrate(&dir, &MapSpec::new(to, 4, 13, 200), typed).unwrap_err();
        assert_eq!(error.cause(), Some(&Cause::PerCpu { is_per_cpu: true }));
        assert_eq!(fs.names(), [NAME]);
    }
    Ok(())
}

#[common::test(PINS)]
fn lru_maps_migrate_and_drop_what_does_not_fit() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let spec = |value_size| MapSpec::new(MapType::LRU_HASH, 4, value_size, 4000);
    put(
        &create_pinned(&dir, &spec(8))?,
        (0..100).map(|n| (n, n.into())),
    )?;
    let how = Migrate::new(|key: &u32, value: &u64| Some((*key, [*value; 2])));
    let map = migrate(&dir, &spec(16), how)?;
    let expected: Vec<(u32, [u64; 2])> = (0..100).map(|n| (n, [n.into(); 2])).collect();
    assert_eq!(entries::<u32, [u64; 2]>(&map)?, expected);
    // An LRU map that is too small evicts entries, as always.
    let how = Migrate::new(|key: &u32, value: &[u64; 2]| Some((*key, value[0])));
    let small = migrate(&dir, &MapSpec::new(MapType::LRU_HASH, 4, 8, 50), how)?;
    let kept = entries::<u32, u64>(&small)?;
    assert!(!kept.is_empty() && kept.len() <= 50, "{}", kept.len());
    assert!(kept.iter().all(|(key, value)| u64::from(*key) == *value));
    Ok(())
}

/// A key of an LPM trie: the length of the prefix, and an IPv4 address.
fn prefix(bits: u32, address: [u8; 4]) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&bits.to_ne_bytes());
    key[4..].copy_from_slice(&address);
    key
}

fn trie_spec(value_size: u32) -> MapSpec<'static> {
    MapSpec::new(MapType::LPM_TRIE, 8, value_size, 20).flags(MapFlags::NO_PREALLOC)
}

#[common::test(PINS)]
fn an_lpm_trie_migrates() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = create_pinned(&dir, &trie_spec(4))?;
    let elems = old.elements::<[u8; 8], u32>()?;
    let keys = [
        prefix(0, [0; 4]),
        prefix(8, [10, 0, 0, 0]),
        prefix(16, [10, 1, 0, 0]),
        prefix(32, [10, 1, 2, 3]),
    ];
    for (key, value) in keys.iter().zip(1..) {
        elems.update(key, &value, ElemFlags::ANY)?;
    }
    let seen = Cell::new(0);
    let how = Migrate::new(|key: &[u8; 8], value: &u32| {
        seen.set(seen.get() + 1);
        if seen.get() == 4 {
            elems.delete(&keys[2]).unwrap();
        }
        Some((*key, u64::from(*value)))
    });
    let map = migrate(&dir, &trie_spec(8), how)?;
    let new = map.elements::<[u8; 8], u64>()?;
    for (address, found) in [
        ([10, 1, 2, 3], 4),
        ([10, 1, 2, 4], 2),
        ([10, 9, 9, 9], 2),
        ([11, 1, 1, 1], 1),
    ] {
        assert_eq!(new.lookup(&prefix(32, address))?, Some(found));
    }
    assert_eq!(new.keys().count(), 3);
    Ok(())
}

/// 10.1.2.3/8 and 10.0.0.0/8 are the same key to the kernel, which keeps the host bits of the last update.
#[common::test(PINS)]
fn prefixes_that_differ_in_host_bits_are_one_key() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = create_pinned(&dir, &trie_spec(4))?;
    let elems = old.elements::<[u8; 8], u32>()?;
    let entries = [
        (8, [10, 1, 2, 3], [10, 3, 2, 1]),
        (9, [11, 127, 0, 0], [11, 0, 0, 127]),
        (0, [1, 2, 3, 4], [4, 3, 2, 1]),
        (24, [12, 0, 0, 1], [12, 0, 0, 2]),
    ];
    for (bits, address, _) in entries {
        elems.update(&prefix(bits, address), &bits, ElemFlags::ANY)?;
    }
    let seen = Cell::new(0);
    let how = Migrate::new(|key: &[u8; 8], value: &u32| {
        seen.set(seen.get() + 1);
        if seen.get() == entries.len() {
            for (bits, _, address) in entries {
                elems.delete(&prefix(bits, address)).unwrap();
                elems
                    .update(&prefix(bits, address), &(bits + 100), ElemFlags::ANY)
                    .unwrap();
            }
        }
        Some((*key, u64::from(*value)))
    });
    let map = migrate(&dir, &trie_spec(8), how)?;
    let new = map.elements::<[u8; 8], u64>()?;
    for (bits, address, _) in entries {
        let found = new.lookup(&prefix(32, address))?;
        assert_eq!(found, Some(u64::from(bits) + 100), "/{bits}");
    }
    assert_eq!(new.keys().count(), entries.len());
    Ok(())
}

#[common::test(PINS)]
fn an_empty_map_migrates_to_another_type() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    drop(create_pinned(&dir, &hash_spec(4, 8))?);
    let how =
        Migrate::new(|_: &u32, _: &u64| -> Option<(u32, u64)> { panic!("there is no entry") });
    let map = migrate(&dir, &MapSpec::new(MapType::LRU_HASH, 4, 8, 64), how)?;
    assert_eq!(entries::<u32, u64>(&map)?, []);
    Ok(())
}

#[common::test(NET)]
fn types_that_cannot_be_copied_are_rejected() -> Outcome {
    let plain = hash_spec(4, 8);
    let with = |map_type, key, value| MapSpec::new(map_type, key, value, 4);
    let inner = hash();
    let others = [
        with(MapType::QUEUE, 0, 8),
        with(MapType::STACK, 0, 8),
        with(MapType::PROG_ARRAY, 4, 4),
        with(MapType::PERF_EVENT_ARRAY, 4, 4),
        with(MapType::CGROUP_ARRAY, 4, 4),
        with(MapType::STACK_TRACE, 4, 8),
        with(MapType::ARRAY_OF_MAPS, 4, 4).inner_map(&inner),
        with(MapType::HASH_OF_MAPS, 4, 4).inner_map(&inner),
        with(MapType::CPUMAP, 4, 4),
        with(MapType::DEVMAP, 4, 4),
        with(MapType::DEVMAP_HASH, 4, 4),
        with(MapType::XSKMAP, 4, 4),
        with(MapType::SOCKMAP, 4, 4),
        with(MapType::SOCKHASH, 4, 4),
        MapSpec::new(MapType::RINGBUF, 0, 0, 65536),
    ];
    for other in &others {
        for (from, to) in [(other, &plain), (&plain, other)] {
            let fs = TestFs::new();
            let dir = PinDir::open(fs.root())?;
            let old = create_pinned(&dir, from)?;
            let how = Migrate::bytes(|_, _, _, _| panic!("an entry of {from:?}"));
            let error = migrate(&dir, to, how.freeze()).unwrap_err();
            let cause = error.cause();
            assert!(
                matches!(cause, Some(Cause::UnsupportedType { .. })),
                "{error}"
            );
            assert_eq!(error.during(), Some(Operation::Migrate), "{error:?}");
            assert_eq!(dir.get::<Map>(NAME)?.id()?, old.id()?);
            assert_eq!(fs.names(), [NAME]);
        }
    }
    Ok(())
}
