//! A mapping has the atomics of the values, each once, and no others.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use bpf_pin::map::{Atom, ElemFlags, LoadOnly, Mmap};
use bpf_pin::types::MapFlags;
use bpf_pin::{Map, MapSpec, MapType};
use common::*;

const BPF: &[Need] = &[cap::BPF];

/// Sizes of values beside those of words and pages.
const VALUES: [u32; 20] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 24, 31, 40, 100, 511, 1000, 4095, 4096, 4104,
];
/// Numbers of entries, the larger ones for small values.
const ENTRIES: [u32; 6] = [1, 2, 3, 9, 512, 513];

fn array(value_size: u32, entries: u32) -> bpf_pin::Result<Map> {
    MapSpec::new(MapType::ARRAY, 4, value_size, entries)
        .flags(MapFlags::MMAPABLE)
        .create()
}

/// Stores to every atomic, and checks that the map has changed everywhere.
fn check<T: Atom>(map: &Map, value_size: u32, entries: u32, fill: impl Fn(&T)) -> Outcome<u32> {
    if value_size as usize % size_of::<T>() != 0 {
        assert!(map.mmap::<T>().is_err());
        return Ok(0);
    }
    let mapped: Mmap<T> = map.mmap()?;
    let atoms = value_size as usize / size_of::<T>();
    assert_eq!(mapped.len(), entries as usize);
    let mut end = 0;
    for (index, value) in mapped.values().enumerate() {
        assert_eq!(value.len(), atoms);
        assert!(
            end <= value.as_ptr().addr(),
            "two values have the same memory"
        );
        end = value.as_ptr_range().end.addr();
        assert_eq!(
            mapped.get(index).map(<[T]>::as_ptr_range),
            Some(value.as_ptr_range())
        );
        value.iter().for_each(&fill);
    }
    for beyond in [
        entries as usize,
        entries as usize + 1,
        usize::MAX / 2,
        usize::MAX,
    ] {
        assert!(mapped.get(beyond).is_none());
    }
    drop(mapped);
    let elements = map.elements::<[u8], [u8]>()?;
    for index in 0..entries {
        let key = index.to_ne_bytes();
        assert_eq!(
            elements.lookup(&key)?,
            Some(vec![0xa5; value_size as usize])
        );
        elements.update(&key, &vec![0; value_size as usize], ElemFlags::ANY)?;
    }
    Ok(1)
}

/// Reads every atomic of a read-only mapping.
fn read<T: Atom>(map: &Map, value_size: u32, load: impl Fn(&T) -> u64) -> Outcome<u32> {
    if value_size as usize % size_of::<T>() != 0 {
        return Ok(0);
    }
    let mapped: Mmap<T> = map.mmap()?;
    assert!(mapped.values().flatten().all(|atom| load(atom) == 0));
    Ok(1)
}

#[common::test(BPF)]
fn mappings_of_odd_sizes_have_the_values_and_no_more() -> Outcome {
    let mut mappings = 0;
    for value_size in VALUES {
        let of_small = |entries: &u32| *entries < 10 || value_size <= 16;
        for entries in ENTRIES.into_iter().filter(of_small) {
            let map = &array(value_size, entries)?;
            let (size, fill) = (value_size, 0xa5a5_a5a5_a5a5_a5a5_u64);
            mappings +=
                check::<AtomicU8>(map, size, entries, |atom| atom.store(fill as u8, Relaxed))?;
            mappings +=
                check::<AtomicU16>(map, size, entries, |atom| atom.store(fill as u16, Relaxed))?;
            mappings +=
                check::<AtomicU32>(map, size, entries, |atom| atom.store(fill as u32, Relaxed))?;
            mappings += check::<AtomicU64>(map, size, entries, |atom| atom.store(fill, Relaxed))?;
            mappings += read::<LoadOnly<AtomicU8>>(map, size, |atom| atom.load().into())?;
            mappings += read::<LoadOnly<AtomicU16>>(map, size, |atom| atom.load().into())?;
            mappings += read::<LoadOnly<AtomicU32>>(map, size, |atom| atom.load().into())?;
        }
    }
    assert!(mappings > 300, "{mappings}");
    Ok(())
}
