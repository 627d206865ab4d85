//! Readers beside writers: elements that stay are read once, elements are taken once, and all calls end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use bpf_pin::error::Cause;
use bpf_pin::map::ElemFlags;
use bpf_pin::types::MapFlags;
use bpf_pin::{MapSpec, MapType};
use common::*;

const BPF: &[Need] = &[cap::BPF];

const WRITERS: u32 = 8;

/// Keys below this stay.
const STAYING: u32 = 5000;

#[common::test(BPF)]
fn stable_elements_are_read_once_during_writes() -> Outcome {
    for flags in [MapFlags::empty(), MapFlags::NO_PREALLOC] {
        let map = MapSpec::new(MapType::HASH, 4, 8, 16_384)
            .flags(flags)
            .create()?;
        let elems = &map.elements::<u32, u64>()?;
        let (keys, values) = super::keys_and_values(STAYING);
        elems.update_batch(&keys, &values, ElemFlags::ANY)?;
        let (done, rounds) = (&AtomicBool::new(false), &AtomicU64::new(0));
        thread::scope(|scope| -> Outcome {
            let stop = SetOnDrop(done);
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    scope.spawn(move || -> bpf_pin::Result<()> {
                        let from = 10_000 + writer * 500;
                        let keys: Vec<u32> = (from..from + 500).collect();
                        let values: Vec<u64> = keys.iter().copied().map(super::value_of).collect();
                        while !done.load(Ordering::Relaxed) {
                            elems.update_batch(&keys, &values, ElemFlags::ANY)?;
                            // The keys that stay are updated too.
                            elems.update(
                                &(from % STAYING),
                                &super::value_of(from % STAYING),
                                ElemFlags::EXIST,
                            )?;
                            for key in &keys[..250] {
                                elems.delete(key)?;
                            }
                            elems.delete_batch(&keys)?;
                            rounds.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(())
                    })
                })
                .collect();
            let check = |found: &[(u32, u64)]| {
                let mut seen = BTreeMap::new();
                for (key, value) in found {
                    assert_eq!(*value, super::value_of(*key), "{key}");
                    assert_eq!(seen.insert(*key, ()), None, "{key} came twice");
                }
                let staying = seen.range(..STAYING).count();
                assert_eq!(staying, STAYING as usize, "some did not come");
            };
            let mut passes = 0;
            let read = || -> Outcome {
                check(&elems.iter().collect::<Result<Vec<_>, _>>()?);
                let (keys, values) = elems.to_vecs()?;
                check(&keys.into_iter().zip(values).collect::<Vec<_>>());
                Ok(())
            };
            let mut result = Ok(());
            while result.is_ok() && (passes < 8 || rounds.load(Ordering::Relaxed) < 20) {
                if writers.iter().any(|writer| writer.is_finished()) {
                    break;
                }
                result = read();
                passes += 1;
            }
            drop(stop);
            for writer in writers {
                writer.join().expect("a writer that does not panic")?;
            }
            result
        })?;
    }
    Ok(())
}

/// Four threads insert, two take: no element is lost or taken twice.
#[common::test(BPF)]
fn each_element_is_taken_once() -> Outcome {
    const EACH: u32 = 5000;
    let map = MapSpec::new(MapType::HASH, 4, 8, 30_000).create()?;
    let elems = &map.elements::<u32, u64>()?;
    let done = &AtomicBool::new(false);
    let taken = thread::scope(|scope| -> bpf_pin::Result<_> {
        let stop = SetOnDrop(done);
        let takers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || -> bpf_pin::Result<Vec<(u32, u64)>> {
                    let mut taken = vec![];
                    loop {
                        let last = done.load(Ordering::Acquire);
                        for entry in elems.drain() {
                            taken.push(entry?);
                        }
                        if last {
                            return Ok(taken);
                        }
                    }
                })
            })
            .collect();
        let givers: Vec<_> = (0..4)
            .map(|giver| {
                scope.spawn(move || -> bpf_pin::Result<()> {
                    for chunk in (0..EACH).collect::<Vec<_>>().chunks(97) {
                        let keys: Vec<u32> = chunk.iter().map(|n| giver * EACH + n).collect();
                        let values: Vec<u64> = keys.iter().copied().map(super::value_of).collect();
                        elems.update_batch(&keys, &values, ElemFlags::ANY)?;
                    }
                    Ok(())
                })
            })
            .collect();
        let given: Result<Vec<()>, _> = givers
            .into_iter()
            .map(|giver| giver.join().expect("no panic"))
            .collect();
        drop(stop);
        let mut taken = vec![];
        for taker in takers {
            taken.extend(taker.join().expect("no panic")?);
        }
        given?;
        Ok(taken)
    })?;
    assert_eq!(taken.len(), 4 * EACH as usize);
    assert_eq!(
        taken.into_iter().collect::<BTreeMap<_, _>>(),
        super::all(4 * EACH)
    );
    Ok(())
}

#[common::test(BPF)]
fn reading_a_trie_during_writes_ends() -> Outcome {
    let spec = MapSpec::new(MapType::LPM_TRIE, 8, 8, 4096).flags(MapFlags::NO_PREALLOC);
    let map = spec.create()?;
    let elems = &map.elements::<[u32; 2], u64>()?;
    let prefix = |n: u32| [32, n.swap_bytes()];
    let done = &AtomicBool::new(false);
    thread::scope(|scope| -> Outcome {
        let stop = SetOnDrop(done);
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                scope.spawn(move || -> bpf_pin::Result<()> {
                    let keys: Vec<_> = (0..500).map(|n| prefix(writer * 500 + n)).collect();
                    while !done.load(Ordering::Relaxed) {
                        elems.update_batch(&keys, &[7; 500], ElemFlags::ANY)?;
                        elems.delete_batch(&keys)?;
                    }
                    Ok(())
                })
            })
            .collect();
        let pass = || -> Outcome {
            for _ in 0..50 {
                let mut count = 0;
                for entry in elems.iter() {
                    match entry {
                        Ok((key, value)) => assert!(key[0] == 32 && value == 7, "{key:?} {value}"),
                        Err(error) if error.cause() == Some(&Cause::IterationAborted) => break,
                        Err(error) => return Err(error.into()),
                    }
                    count += 1;
                }
                assert!(count <= 4096, "{count}");
            }
            Ok(())
        };
        let result = pass();
        drop(stop);
        for writer in writers {
            writer.join().expect("a writer that does not panic")?;
        }
        result
    })
}
