//! Batches: each element exactly once, for every type and kernel, and errors that report how many elements
//! were done.

mod failures;
mod fallback;
mod lock;
mod race;
mod take;
mod uncounted;

use std::collections::BTreeMap;
use std::fs;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::{Cursor, ElemFlags, Elements, PerCpu};
use bpf_pin::types::{Command, MapFlags};
use bpf_pin::{Map, MapSpec, MapType};
use common::*;

const BPF: &[Need] = &[cap::BPF];

#[common::test(BPF)]
fn a_hash_is_read_and_changed_in_batches() -> Outcome {
    for flags in [MapFlags::empty(), MapFlags::NO_PREALLOC] {
        check_batches(MapSpec::new(MapType::HASH, 4, 8, 3000).flags(flags))?;
    }
    Ok(())
}

fn value_of(key: u32) -> u64 {
    u64::from(key) << 32 | 0x5eed
}

/// Keys from 0 on, with their values.
fn keys_and_values(count: u32) -> (Vec<u32>, Vec<u64>) {
    (0..count).map(|key| (key, value_of(key))).unzip()
}

fn all(count: u32) -> BTreeMap<u32, u64> {
    (0..count).map(|key| (key, value_of(key))).collect()
}

/// Inserts 2000 elements and reads them in several ways, each exactly once.
fn check_batches(spec: MapSpec<'_>) -> Outcome {
    const COUNT: u32 = 2000;
    let map = spec.create()?;
    let elems = map.elements::<u32, u64>()?;
    let (keys, values) = keys_and_values(COUNT);
    elems.update_batch(&keys, &values, ElemFlags::ANY)?;
    assert_eq!(elems.lookup(&1999)?, Some(value_of(1999)));

    for room in [64, 100, 1999, 2000, 2001, 5000] {
        let (mut keys, mut values) = (vec![0; room], vec![0; room]);
        let (mut cursor, mut seen) = (Cursor::new(), BTreeMap::new());
        while !cursor.is_end() {
            let any = ElemFlags::ANY;
            let count = elems.lookup_batch(&mut cursor, &mut keys, &mut values, any)?;
            for at in 0..count {
                assert_eq!(
                    seen.insert(keys[at], values[at]),
                    None,
                    "twice: {}",
                    keys[at]
                );
            }
        }
        assert_eq!(seen, all(COUNT), "in batches of {room}");
        // At the end nothing follows, without a call.
        let any = ElemFlags::ANY;
        assert_eq!(
            elems.lookup_batch(&mut cursor, &mut keys, &mut values, any)?,
            0
        );
        assert!(format!("{cursor:?}").contains("End"));
    }
    let (keys, values) = elems.to_vecs()?;
    assert_eq!((keys.len(), values.len()), (2000, 2000));
    assert_eq!(
        keys.into_iter().zip(values).collect::<BTreeMap<_, _>>(),
        all(COUNT)
    );
    let mut seen = elems.iter().collect::<Result<Vec<_>, _>>()?;
    seen.sort_unstable();
    assert!(seen.into_iter().eq(all(COUNT)));

    // As borrowed bytes.
    let bytes = map.elements::<[u8], [u8]>()?;
    let (mut iter, mut seen) = (bytes.iter(), BTreeMap::new());
    while let Some(entry) = iter.next_ref() {
        let (key, value) = entry?;
        let key = u32::from_ne_bytes(key.try_into()?);
        assert_eq!(
            seen.insert(key, u64::from_ne_bytes(value.try_into()?)),
            None
        );
    }
    assert_eq!(seen, all(COUNT));
    assert!(iter.next().is_none() && iter.next().is_none());

    let gone: Vec<u32> = (0..COUNT).step_by(2).collect();
    assert_eq!(elems.delete_batch(&gone)?, 1000);
    assert_eq!(elems.delete_batch(&gone)?, 0);
    let mut left = elems.iter().collect::<Result<Vec<_>, _>>()?;
    left.sort_unstable();
    assert!(
        left.into_iter()
            .eq(all(COUNT).into_iter().filter(|(key, _)| key % 2 == 1))
    );
    assert_eq!(elems.clear()?, 1000);
    assert_eq!(elems.clear()?, 0);
    assert_eq!(elems.to_vecs()?, (vec![], vec![]));
    Ok(())
}

#[common::test(BPF)]
fn an_lru_hash_is_read_and_changed_in_batches() -> Outcome {
    check_batches(MapSpec::new(MapType::LRU_HASH, 4, 8, 1 << 16))
}

/// Linux 7.2.
#[common::test(BPF)]
fn a_resizable_hash_is_read_and_changed_in_batches() -> Outcome {
    let spec = MapSpec::new(MapType::RHASH, 4, 8, 3000).flags(MapFlags::NO_PREALLOC);
    if kernel(7, 2).unmet().is_some() {
        let error = spec.create().expect_err("an unknown type");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        return Ok(());
    }
    check_batches(spec)
}

#[common::test(BPF)]
fn to_vecs_returns_the_whole_map() -> Outcome {
    for count in [0, 1, 2, 4095, 4096, 4097, 10_000] {
        let map = MapSpec::new(MapType::HASH, 4, 8, 10_000).create()?;
        let elems = map.elements::<u32, u64>()?;
        let (keys, values) = keys_and_values(count);
        elems.update_batch(&keys, &values, ElemFlags::ANY)?;
        let (keys, values) = elems.to_vecs()?;
        assert!(keys.len() == count as usize && values.len() == keys.len());
        assert_eq!(
            keys.into_iter().zip(values).collect::<BTreeMap<_, _>>(),
            all(count)
        );
        assert_eq!(elems.iter().count(), count as usize);
    }
    Ok(())
}

/// The resident memory of this process, in bytes.
fn resident() -> usize {
    let text = fs::read_to_string("/proc/thread-self/statm").expect("/proc");
    let pages = text.split_whitespace().nth(1).expect("a number");
    pages.parse::<usize>().expect("a number") * 4096
}

/// The limit of a map does not determine the memory for its elements.
#[common::test(BPF)]
fn reading_a_large_nearly_empty_map_takes_little_memory() -> Outcome {
    for (map_type, key_size, max_entries) in [
        (MapType::HASH, 8, 4_000_000),
        // Elements are allocated on insertion. Some kernels reject more than four gigabytes.
        (MapType::LPM_TRIE, 8, 20_000_000),
    ] {
        let spec = MapSpec::new(map_type, key_size, 64, max_entries);
        let map = spec.flags(MapFlags::NO_PREALLOC).create()?;
        let elems = map.elements::<[u8], [u8]>()?;
        // A key of a trie is a length and that many bits.
        let keys = [[0, 0], [8, 0], [32, 7_u32]];
        let (keys, values) = (bytemuck::cast_slice(&keys), [7; 3 * 64]);
        elems.update_batch(keys, &values, ElemFlags::ANY)?;
        let before = resident();
        let (found, found_values) = elems.to_vecs()?;
        let grown = resident().saturating_sub(before);
        assert!(
            grown < 16 << 20,
            "{map_type}: {grown} bytes for three elements"
        );
        assert!(found.capacity() < 1000 && found_values.capacity() < 1000);
        assert_eq!(
            (found.len(), &found_values[..]),
            (3 * 8, &values[..]),
            "{map_type}"
        );
        assert_eq!(elems.clear()?, 3);
    }
    Ok(())
}

#[common::test(BPF)]
fn an_array_is_read_and_updated_in_batches() -> Outcome {
    let map = MapSpec::new(MapType::ARRAY, 4, 8, 10_000).create()?;
    let elems = map.elements::<u32, u64>()?;
    let (keys, values) = keys_and_values(10_000);
    elems.update_batch(&keys, &values, ElemFlags::ANY)?;
    assert_eq!(elems.to_vecs()?, (keys, values));
    assert!(elems.iter().map(Result::unwrap).eq(all(10_000)));
    for room in [1, 2, 3, 9_999, 10_000, 10_001] {
        let (mut keys, mut values) = (vec![0; room], vec![0; room]);
        let (mut cursor, mut next) = (Cursor::new(), 0);
        while !cursor.is_end() && next < 100_000 {
            let any = ElemFlags::ANY;
            let count = elems.lookup_batch(&mut cursor, &mut keys, &mut values, any)?;
            for at in 0..count {
                assert_eq!((keys[at], values[at]), (next, value_of(next)));
                next += 1;
            }
        }
        assert_eq!(next, 10_000, "in batches of {room}");
    }
    // An index out of range, and the number of elements before it.
    let error = elems.update_batch(&[1, 2, 10_000, 3], &[0; 4], ElemFlags::ANY);
    let error = error.expect_err("an index that is not below 10000");
    assert!(error.operation() == Operation::UpdateBatch && error.elements_done() == 2);
    assert_eq!(
        error.cause(),
        Some(&Cause::IndexOutOfRange {
            index: 10_000,
            max_entries: 10_000
        })
    );
    assert_eq!(
        [1, 2, 3].map(|key| elems.lookup(&key).unwrap()),
        [Some(0), Some(0), Some(value_of(3))]
    );
    // An array has no delete.
    for error in [
        elems.delete_batch(&[0, 1]).expect_err("a delete"),
        elems.clear().expect_err("a delete of all"),
    ] {
        assert_eq!(error.elements_done(), 0, "{error:?}");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        let (command, map_type) = (Command::MAP_DELETE_ELEM, MapType::ARRAY);
        assert_eq!(error.cause(), Some(&Cause::NoCommand { command, map_type }));
    }
    assert_eq!(elems.lookup(&0)?, Some(value_of(0)));
    Ok(())
}

/// A hash returns a bucket as a whole, so a buffer may be too short. A larger buffer works, and continues after
/// the elements that were read before.
#[common::test(BPF)]
fn a_bucket_larger_than_the_buffer_is_an_error() -> Outcome {
    const COUNT: u32 = 1000;
    let map = MapSpec::new(MapType::HASH, 4, 8, 1024).create()?;
    let elems = map.elements::<u32, u64>()?;
    let (keys, values) = keys_and_values(COUNT);
    elems.update_batch(&keys, &values, ElemFlags::ANY)?;
    let (mut cursor, mut seen, mut room, mut grown) = (Cursor::new(), BTreeMap::new(), 1, 0);
    while !cursor.is_end() {
        let (mut keys, mut values) = (vec![0; room], vec![0; room]);
        match elems.lookup_batch(&mut cursor, &mut keys, &mut values, ElemFlags::ANY) {
            Ok(count) => {
                for at in 0..count {
                    assert_eq!(seen.insert(keys[at], values[at]), None, "twice");
                }
            }
            Err(error) => {
                assert_eq!(
                    error.cause(),
                    Some(&Cause::BufferTooSmall {
                        what: "batch",
                        room,
                        needed: None
                    })
                );
                assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
                (room, grown) = (room + 1, grown + 1);
            }
        }
    }
    assert!(grown > 0, "a thousand keys in as many buckets");
    assert_eq!(seen, all(COUNT));
    Ok(())
}

/// Values so large that a buffer holds two, in a hash with larger buckets.
#[common::test(BPF)]
fn buffers_grow_for_a_larger_bucket() -> Outcome {
    const COUNT: u32 = 64;
    const SIZE: usize = 1 << 17;
    let fill = |elems: &Elements<[u8], [u8], Map>| -> bpf_pin::Result<()> {
        for key in 0..COUNT {
            elems.update(&key.to_ne_bytes(), &[key as u8; SIZE], ElemFlags::ANY)?;
        }
        Ok(())
    };
    // Each map has its own hash seed. One in two hundred has no bucket with three keys.
    let mut made = (0..8).map(|_| -> bpf_pin::Result<_> {
        let map = MapSpec::new(MapType::HASH, 4, SIZE as u32, COUNT).create()?;
        let elems = Elements::<[u8], [u8], _>::new(map)?;
        fill(&elems)?;
        let (mut keys, mut values) = (vec![0; 2 * 4], vec![0; 2 * SIZE]);
        let mut cursor = Cursor::new();
        while !cursor.is_end() {
            let any = ElemFlags::ANY;
            if let Err(error) = elems.lookup_batch(&mut cursor, &mut keys, &mut values, any) {
                assert_eq!(
                    error.cause(),
                    Some(&Cause::BufferTooSmall {
                        what: "batch",
                        room: 2,
                        needed: None
                    })
                );
                return Ok(Some(elems));
            }
        }
        Ok(None)
    });
    let elems = made
        .find_map(Result::transpose)
        .expect("a bucket of three")?;

    let check = |entries: Vec<(Vec<u8>, Vec<u8>)>| -> Outcome {
        let mut seen = std::collections::BTreeSet::new();
        for (key, value) in entries {
            let key = u32::from_ne_bytes(key[..].try_into()?);
            assert!(value.iter().all(|byte| *byte == key as u8), "{key}");
            assert!(seen.insert(key), "twice: {key}");
        }
        assert_eq!(seen, (0..COUNT).collect());
        Ok(())
    };
    let (keys, values) = elems.to_vecs()?;
    let pairs = keys.chunks(4).zip(values.chunks(SIZE));
    check(
        pairs
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect(),
    )?;
    for mut all in [elems.iter(), elems.drain()] {
        let mut entries = vec![];
        while let Some(entry) = all.next_ref() {
            let (key, value) = entry?;
            entries.push((key.to_vec(), value.to_vec()));
        }
        check(entries)?;
    }
    assert_eq!(elems.keys().count(), 0);
    fill(&elems)?;
    assert_eq!(elems.clear()?, 64);
    Ok(())
}

#[common::test(BPF)]
fn keys_larger_than_the_inline_cursor_work() -> Outcome {
    for (map_type, flags) in [
        (MapType::HASH, MapFlags::empty()),
        (MapType::LRU_HASH, MapFlags::empty()),
        (MapType::LPM_TRIE, MapFlags::NO_PREALLOC),
    ] {
        let spec = MapSpec::new(map_type, 256, 4, 512).flags(flags);
        let map = spec.create()?;
        let elems = map.elements::<[u32; 64], u32>()?;
        let key = |n: u32| {
            let mut key = [n; 64];
            // The longest prefix of a trie.
            key[0] = 252 * 8;
            key
        };
        let (keys, values): (Vec<_>, Vec<_>) = (0..500).map(|n| (key(n), n)).unzip();
        elems.update_batch(&keys, &values, ElemFlags::ANY)?;
        let mut seen = elems.iter().collect::<Result<Vec<_>, _>>()?;
        seen.sort_unstable_by_key(|(_, n)| *n);
        assert!(
            seen.into_iter().eq(keys.into_iter().zip(values)),
            "{map_type}"
        );
        let (mut keys, mut values) = ([[0; 64]; 100], [0; 100]);
        let (mut cursor, mut count) = (Cursor::new(), 0);
        while !cursor.is_end() {
            count += elems.lookup_batch(&mut cursor, &mut keys, &mut values, ElemFlags::ANY)?;
        }
        assert_eq!(count, 500, "{map_type}");
        assert_eq!(elems.clear()?, 500, "{map_type}");
    }
    Ok(())
}

#[common::test(BPF)]
fn per_cpu_values_are_read_and_changed_in_batches() -> Outcome {
    for map_type in [
        MapType::PERCPU_HASH,
        MapType::PERCPU_ARRAY,
        MapType::LRU_PERCPU_HASH,
    ] {
        check_per_cpu_batches(map_type, |n| n)?;
        check_per_cpu_batches(map_type, u64::from)?;
        check_per_cpu_batches(map_type, |n| [n, !n, n])?;
    }
    Ok(())
}

fn check_per_cpu_batches<V: bytemuck::Pod + PartialEq + std::fmt::Debug>(
    map_type: MapType,
    make: impl Fn(u32) -> V,
) -> Outcome {
    const COUNT: u32 = 200;
    let entries = match map_type {
        MapType::LRU_PERCPU_HASH => 1 << 14,
        _ => COUNT,
    };
    let map = MapSpec::new(map_type, 4, size_of::<V>() as u32, entries).create()?;
    let view = map.elements::<u32, PerCpu<V>>()?;
    let cpus = view.cpus();
    let keys: Vec<u32> = (0..COUNT).collect();
    let each = |key: u32| (0..cpus as u32).map(move |cpu| 1000 * key + cpu).map(&make);
    let values: Vec<V> = keys.iter().flat_map(|key| each(*key)).collect();
    view.update_batch(&keys, &values, ElemFlags::ANY)?;
    for key in [0, 1, COUNT - 1] {
        assert_eq!(view.lookup(&key)?, Some(each(key).collect()), "{map_type}");
    }
    let (mut found, found_values) = view.to_vecs()?;
    assert_eq!(found_values.len(), COUNT as usize * cpus);
    for (key, values) in found.iter().zip(found_values.chunks_exact(cpus)) {
        assert!(values.iter().copied().eq(each(*key)), "{map_type}: {key}");
    }
    found.sort_unstable();
    assert_eq!(found, keys);
    let (mut iter, mut count) = (view.iter(), 0);
    while let Some(entry) = iter.next_ref() {
        let (key, values) = entry?;
        assert!(values.iter().copied().eq(each(key)), "{map_type}: {key}");
        count += 1;
    }
    assert_eq!(count, COUNT);

    let (mut some, mut some_values) = (vec![0; 64], vec![make(0); 64 * cpus]);
    let (mut cursor, mut count) = (Cursor::new(), 0);
    while !cursor.is_end() {
        let any = ElemFlags::ANY;
        let got = view.lookup_batch(&mut cursor, &mut some, &mut some_values, any)?;
        for (key, values) in some.iter().zip(some_values.chunks_exact(cpus)).take(got) {
            assert!(values.iter().copied().eq(each(*key)), "{map_type}: {key}");
        }
        count += got;
    }
    assert_eq!(count, COUNT as usize);
    // One value too few, without a call.
    let error = view.update_batch(&keys, &values[1..], ElemFlags::ANY);
    let error = error.expect_err("a short slice");
    assert_eq!(error.raw_os_error(), None, "{error}");
    if map_type == MapType::PERCPU_ARRAY {
        return Ok(());
    }
    assert_eq!(view.delete_batch(&keys[..50])?, 50);
    let taken = if kernel(5, 14).unmet().is_none() {
        assert_eq!(view.take(&50)?, Some(each(50).collect()));
        assert_eq!(view.take(&50)?, None);
        1
    } else {
        let error = view.take(&50).expect_err("no such command");
        assert_cause_matches!(error, Cause::Unsupported { .. });
        0
    };
    let (mut drain, mut count) = (view.drain(), 0);
    while let Some(entry) = drain.next_ref() {
        let (key, values) = entry?;
        assert!(values.iter().copied().eq(each(key)), "{map_type}: {key}");
        count += 1;
    }
    assert_eq!(count, 150 - taken);
    assert!(view.to_vecs()?.0.is_empty());
    Ok(())
}
