//! All elements of a map.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use bpf_pin::map::ElemFlags;
use bpf_pin::types::MapFlags;
use bpf_pin::{MapSpec, MapType};

use crate::bench::Bench;
use crate::pairs::{Contender, Notes, goal};
use crate::place::hash;
use crate::{Failure, peers, raw};

/// Elements in one syscall.
pub const BATCH: usize = 8192;

pub fn rows(bench: &mut Bench) -> Result<(), Failure> {
    let count = bench.size(1_000_000, 50_000);
    let map = hash(count as u32)?;
    let fd = map.as_fd();
    let keys: Vec<u32> = (0..count as u32).collect();
    let values: Vec<u64> = keys.iter().map(|&key| key.into()).collect();
    let fill = || {
        for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
            raw::update_batch(fd, keys, values);
        }
    };
    fill();
    let sum: u64 = values.iter().sum();
    let typed = map.elements::<u32, u64>()?;
    let mut contenders = vec![
        // Collects the elements, as libbpf-rs does. aya and libbpf only read them.
        Contender::new("raw", || {
            let (mut keys, mut values) = (Vec::with_capacity(count), Vec::with_capacity(count));
            raw::read_by_batch(fd, BATCH, |some_keys, some_values| {
                keys.extend_from_slice(some_keys);
                values.extend_from_slice(some_values);
            });
            assert_eq!(keys.len(), count);
            assert_eq!(values.iter().sum::<u64>(), sum);
        }),
        Contender::new("raw, in place", || {
            let mut seen = 0;
            raw::read_by_batch(fd, BATCH, |_, values| seen += values.iter().sum::<u64>());
            assert_eq!(seen, sum);
        }),
        Contender::new("bpf-pin", || {
            let (keys, values) = typed.to_vecs().expect("the entries");
            assert_eq!(keys.len(), count);
            assert_eq!(values.iter().sum::<u64>(), sum);
        }),
        Contender::new("bpf-pin, iter", || {
            let seen: u64 = typed.iter().map(|entry| entry.expect("an entry").1).sum();
            assert_eq!(seen, sum);
        }),
    ];
    contenders.extend(peers::read(&map, sum));
    let goals = vec![
        goal("bpf-pin", "raw", 1.05),
        goal("bpf-pin, iter", "raw, in place", 1.05),
        goal("bpf-pin", "aya", 0.25),
        goal("bpf-pin, iter", "aya", 0.25),
    ];
    let notes = Notes {
        raw: "BPF_MAP_LOOKUP_BATCH, 8192 elements at a time, collected in memory. The variant in place reads each \
              batch without collecting it, as aya and libbpf do",
        why: "The raw batches alone take as large a share of aya's time.",
    };
    let name = format!("read a hash map of {count} elements");
    bench.work(&name, contenders, goals, notes);

    // Each run fills an empty map.
    let clear = || {
        for keys in keys.chunks(BATCH) {
            raw::delete_batch(fd, keys);
        }
    };
    let mut contenders = vec![
        Contender::new("raw", fill),
        Contender::new("bpf-pin", || {
            typed
                .update_batch(&keys, &values, ElemFlags::ANY)
                .expect("an update");
        }),
    ];
    contenders.extend(peers::fill(&map, &keys, &values));
    let contenders = contenders.into_iter().map(|one| one.with_ready(clear));
    let contenders = contenders.collect();
    let goals = vec![goal("bpf-pin", "raw", 1.05), goal("bpf-pin", "aya", 1.0)];
    let notes = Notes {
        raw: "BPF_MAP_UPDATE_BATCH, 8192 elements at a time, into an empty map",
        why: "",
    };
    let name = format!("fill a hash map with {count} elements");
    bench.work(&name, contenders, goals, notes);
    mmap(bench)
}

fn mmap(bench: &mut Bench) -> Result<(), Failure> {
    const VALUES: u32 = 4096;

    let map = MapSpec::new(MapType::ARRAY, 4, 8, VALUES)
        .flags(MapFlags::MMAPABLE)
        .create()?;
    let typed = map.elements::<u32, u64>()?;
    for key in 0..VALUES {
        typed.update(&key, &key.into(), ElemFlags::ANY)?;
    }
    let sum = u64::from(VALUES) * u64::from(VALUES - 1) / 2;
    let fd = map.as_fd();
    let mapped = map.mmap::<AtomicU64>()?;
    let contenders = vec![
        Contender::new("raw", || {
            let values = (0..VALUES).map(|key| raw::lookup(fd, &key).expect("a value"));
            assert_eq!(values.sum::<u64>(), sum);
        }),
        Contender::new("bpf-pin", || {
            let atoms = mapped.as_slice().expect("values of 8 bytes");
            let atoms = atoms.iter();
            let seen: u64 = atoms.map(|atom| atom.load(Ordering::Relaxed)).sum();
            assert_eq!(seen, sum);
        }),
    ];
    let goals = vec![goal("bpf-pin", "raw", 0.05)];
    let notes = Notes {
        raw: "BPF_MAP_LOOKUP_ELEM, one by one",
        why: "",
    };
    let name = format!("read a memory-mapped array of {VALUES} elements");
    bench.call(&name, contenders, goals, notes);
    Ok(())
}
