//! All elements of a map.

use std::hint::black_box;
use std::os::fd::AsFd;

use bpf_pin::ElemFlags;

use crate::bench::Bench;
use crate::pairs::{Contender, goal};
use crate::place::hash;
use crate::{Failure, peers, raw};

/// Elements in one syscall.
pub const BATCH: usize = 8192;

pub fn rows(bench: &mut Bench) -> Result<(), Failure> {
    let count = bench.size(1_000_000, 50_000);
    let (read, fill) = (
        format!("read {count} elements"),
        format!("fill a map with {count} elements"),
    );
    if !bench.wants(&read) && !bench.wants(&fill) {
        return Ok(());
    }
    let map = hash(count as u32)?;
    let fd = map.as_fd();
    let keys: Vec<u32> = (0..count as u32).collect();
    let values: Vec<u64> = keys.iter().map(|&key| key.into()).collect();
    for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
        raw::update_batch(fd, keys, values);
    }
    let sum: u64 = values.iter().sum();
    let typed = map.typed::<u32, u64>()?;
    let mut contenders = vec![
        Contender::new("raw", || {
            let mut seen = 0;
            raw::read_by_batch(fd, BATCH, |keys, values| {
                assert_eq!(keys.len(), values.len());
                seen += values.iter().sum::<u64>();
            });
            assert_eq!(seen, sum);
        }),
        Contender::new("bpf-pin", || {
            let seen: u64 = typed.iter().map(|entry| entry.expect("an entry").1).sum();
            assert_eq!(seen, sum);
        }),
    ];
    contenders.extend(peers::read(&map, sum));
    let goals = vec![goal("bpf-pin", "raw", 1.05), goal("bpf-pin", "aya", 0.25)];
    bench.work(&read, contenders, goals, "");

    // The same keys again: every element is replaced.
    let mut contenders = vec![
        Contender::new("raw", || {
            for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
                raw::update_batch(fd, keys, values);
            }
        }),
        Contender::new("bpf-pin", || {
            for (key, value) in keys.iter().zip(&values) {
                typed.update(key, value, ElemFlags::ANY).expect("an update");
            }
        }),
    ];
    contenders.extend(peers::fill(&map, &keys, &values));
    let goals = vec![goal("bpf-pin", "raw", 1.05), goal("bpf-pin", "aya", 1.0)];
    bench.work(&fill, contenders, goals, "");
    black_box(typed);
    Ok(())
}
