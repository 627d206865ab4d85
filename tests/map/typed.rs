//! Typed views: matching types are accepted, others rejected, and iterations end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::{ElemFlags, Elements, PerCpu};
use bpf_pin::types::MapFlags;
use bpf_pin::{Error, Map, MapSpec, MapType, PinnedMap};
use bytemuck::{Pod, Zeroable};
use common::*;

const BPF: &[Need] = &[cap::BPF];
const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

#[common::test(BPF)]
fn a_hash_without_preallocation_has_typed_elements() -> Outcome {
    check_typed_elements(MapSpec::new(MapType::HASH, 4, 8, 64).flags(MapFlags::NO_PREALLOC))
}

fn create(map_type: MapType, key_size: u32, value_size: u32, max_entries: u32) -> Map {
    let spec = MapSpec::new(map_type, key_size, value_size, max_entries);
    let map = spec.name("typed").create();
    map.unwrap_or_else(|error| panic!("{error}"))
}

#[common::test(BPF)]
fn a_hash_has_typed_elements() -> Outcome {
    check_typed_elements(MapSpec::new(MapType::HASH, 4, 8, 64))
}

/// Linux 7.2.
#[common::test(BPF)]
fn a_resizable_hash_has_typed_elements() -> Outcome {
    let spec = MapSpec::new(MapType::RHASH, 4, 8, 64).flags(MapFlags::NO_PREALLOC);
    if kernel(7, 2).unmet().is_some() {
        let error = spec.create().expect_err("an unknown type");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        return Ok(());
    }
    check_typed_elements(spec)
}

fn check_typed_elements(spec: MapSpec<'_>) -> Outcome {
    let map = spec.create()?;
    let elems = map.elements::<u32, u64>()?;
    assert_eq!(elems.lookup(&1)?, None);
    let expected: BTreeMap<u32, u64> = (0..64).map(|key| (key, u64::from(key) << 33)).collect();
    for (key, value) in &expected {
        elems.update(key, value, ElemFlags::NOEXIST)?;
    }
    for (key, value) in &expected {
        assert_eq!(elems.lookup(key)?, Some(*value));
    }
    assert_eq!(elems.lookup(&64)?, None);
    // A resizable hash moves keys to a larger table in the background. Until then an iteration may repeat some.
    wait_until("iterated without repeated keys", || {
        elems.keys().filter(Result::is_ok).count() == 64
    });
    assert_eq!(
        elems.iter().collect::<Result<BTreeMap<_, _>, _>>()?,
        expected
    );
    let mut keys: Vec<u32> = elems.keys().collect::<Result<_, _>>()?;
    keys.sort_unstable();
    assert!(keys.iter().eq(expected.keys()), "each key once: {keys:?}");
    let mut seen = 0;
    for entry in &elems {
        let (key, value) = entry?;
        assert_eq!(value, expected[&key]);
        seen += 1;
    }
    assert_eq!(seen, 64);
    assert!(elems.delete(&7)?);
    assert!(!elems.delete(&7)?);
    assert_eq!(elems.lookup(&7)?, None);
    assert_eq!(elems.keys().count(), 63);
    Ok(())
}

#[common::test(BPF)]
fn types_of_another_size_are_rejected() -> Outcome {
    let map = create(MapType::HASH, 4, 8, 4);
    let sizes = |what, expected, found| Cause::Size {
        what,
        expected,
        found,
    };
    let error = map.elements::<u64, u64>().expect_err("keys of 8 bytes");
    assert_eq!(error.cause(), Some(&sizes("key", 4, 8)));
    assert_eq!(error.raw_os_error(), None);
    let error = map
        .elements::<u32, [u8; 7]>()
        .expect_err("values of 7 bytes");
    assert_eq!(error.cause(), Some(&sizes("value", 8, 7)));
    let error = map
        .elements::<u32, PerCpu<u64>>()
        .expect_err("one value for all");
    assert_eq!(error.cause(), Some(&Cause::PerCpu { is_per_cpu: false }));
    Ok(())
}

#[common::test(BPF)]
fn zero_sized_types_fit_maps_without_keys_or_values() -> Outcome {
    let hash = create(MapType::HASH, 4, 8, 4);
    assert!(hash.elements::<(), u64>().is_err());
    assert!(hash.elements::<u32, ()>().is_err());
    assert!(hash.elements::<u32, [u64; 0]>().is_err());
    let queue = create(MapType::QUEUE, 0, 8, 4);
    assert!(queue.elements::<u32, u64>().is_err());
    let numbers = queue.elements::<[u64; 0], u64>()?;
    numbers.update(&[], &7, ElemFlags::ANY)?;
    assert_eq!(numbers.lookup(&[])?, Some(7));

    /// The kernel's ENOTSUPP.
    const ENOTSUPP: i32 = 524;
    // No keys, no values, and no elements.
    // SAFETY: sysconf takes a number and returns one.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u32;
    let ring = create(MapType::RINGBUF, 0, 0, page);
    let nothing = ring.elements::<(), ()>()?;
    for error in [
        nothing.lookup(&()).expect_err("no look-ups"),
        nothing
            .update(&(), &(), ElemFlags::ANY)
            .expect_err("no updates"),
        nothing.delete(&()).expect_err("no deletes"),
    ] {
        assert_eq!(error.raw_os_error(), Some(ENOTSUPP), "{error}");
    }
    let entries: Vec<_> = nothing.iter().collect();
    let [Err(error)] = &entries[..] else {
        panic!("{entries:?}")
    };
    assert_eq!(error.operation(), Operation::NextKey);
    Ok(())
}

#[common::test(BPF)]
fn structs_that_derive_pod_are_accepted() -> Outcome {
    #[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
    #[repr(C)]
    struct Flow {
        from: [u8; 4],
        to: [u8; 4],
        ports: [u16; 2],
        protocol: u32,
    }
    #[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
    #[repr(C)]
    struct Counts {
        packets: u64,
        bytes: u64,
        rate: f64,
    }
    let map = create(MapType::HASH, 16, 24, 4);
    let flows = map.elements::<Flow, Counts>()?;
    let flow = Flow {
        from: [127, 0, 0, 1],
        to: [10, 0, 0, 1],
        ports: [4711, 53],
        protocol: 17,
    };
    let counts = Counts {
        packets: 3,
        bytes: 180,
        rate: 0.5,
    };
    flows.update(&flow, &counts, ElemFlags::ANY)?;
    assert_eq!(flows.lookup(&flow)?, Some(counts));
    let other = Flow {
        protocol: 6,
        ..flow
    };
    assert_eq!(flows.lookup(&other)?, None);
    let all: Vec<_> = flows.iter().collect::<Result<_, _>>()?;
    assert_eq!(all, [(flow, counts)]);
    Ok(())
}

#[common::test(PINS)]
fn a_view_can_own_its_map() -> Outcome {
    let fs = TestFs::new();
    let flows: Elements<u32, u64, PinnedMap> = Elements::new(hash().pin(fs.at("flows"))?)?;
    flows.update(&7, &42, ElemFlags::ANY)?;
    let pinned = flows.into_map();
    assert_eq!(pinned.path(), fs.at("flows"));
    let bytes: Elements<[u8], [u8], PinnedMap> = Elements::<[u8], [u8], _>::new(pinned)?;
    assert_eq!(bytes.keys().count(), 1);
    assert_eq!(bytes.map().path(), fs.at("flows"));
    let map = bytes.into_map().unpin()?;
    assert_eq!(fs.names(), [""; 0]);

    // Views of a reference, of an owned map, and of a reference to a pinned map.
    let view = Elements::<u32, u64, _>::new(&map).map_err(Error::from)?;
    assert_eq!(view.lookup(&7)?, Some(42));
    let view = Elements::<u32, u64, Map>::new(map)?;
    assert_eq!(view.lookup(&7)?, Some(42));
    let pinned = view.into_map().pin(fs.at("again"))?;
    let view = Elements::<u32, u64, _>::new(&pinned).map_err(Error::from)?;
    assert_eq!(view.lookup(&7)?, Some(42));
    assert_eq!(fs.names(), ["again"]);
    Ok(())
}

#[common::test(PINS)]
fn a_failed_view_returns_the_map() -> Outcome {
    let fs = TestFs::new();
    let pinned = hash().pin(fs.at("flows"))?;
    let id = pinned.id()?;
    let failed = Elements::<u64, u64, _>::new(pinned).expect_err("keys of 8 bytes");
    assert_eq!(failed.error().operation(), Operation::Elements);
    assert_eq!(failed.to_string(), failed.error().to_string());
    let (pinned, error) = failed.into_parts();
    assert_cause_matches!(
        error,
        Cause::Size {
            what: "key",
            expected: 4,
            found: 8
        }
    );
    let failed =
        bpf_pin::map::Elements::<u32, PerCpu<u64>, _>::new(pinned).expect_err("one for all");
    let pinned = failed.into_object();
    assert_eq!(
        (pinned.id()?, pinned.path()),
        (id, fs.at("flows").as_path())
    );
    assert_eq!(fs.names(), ["flows"]);
    pinned
        .elements::<u32, u64>()?
        .update(&1, &1, ElemFlags::ANY)?;
    pinned.unpin()?;
    Ok(())
}

#[common::test(BPF)]
fn keys_may_be_deleted_during_iteration() -> Outcome {
    let map = create(MapType::HASH, 4, 8, 64);
    let elems = map.elements::<u32, u64>()?;
    for key in 0..64 {
        elems.update(&key, &0, ElemFlags::ANY)?;
    }
    let mut seen = BTreeSet::new();
    for key in elems.keys() {
        let key = key?;
        assert!(elems.delete(&key)?, "{key} a second time");
        seen.insert(key);
    }
    assert_eq!(seen, (0..64).collect());
    assert_eq!(elems.keys().count(), 0);
    Ok(())
}

/// All keys change at each step, so the iteration restarts with each next key.
#[common::test(BPF)]
fn iteration_ends_while_keys_change() -> Outcome {
    const ROOM: u32 = 64;
    let map = create(MapType::HASH, 4, 8, ROOM);
    let elems = map.elements::<u32, u64>()?;
    let mut fresh = 0..;
    let mut change = || -> bpf_pin::Result<()> {
        let old: Vec<u32> = elems.keys().collect::<Result<_, _>>()?;
        for key in old {
            assert!(elems.delete(&key)?);
        }
        for key in fresh.by_ref().take(ROOM as usize / 2) {
            elems.update(&key, &0, ElemFlags::ANY)?;
        }
        Ok(())
    };
    change()?;
    let mut keys = elems.keys();
    for _ in 0..ROOM {
        keys.next().expect("another key")?;
        change()?;
    }
    let error = keys.next().expect("an end that is no end");
    let error = error.expect_err("as many keys as there is room for");
    assert_eq!(error.cause(), Some(&Cause::IterationAborted));
    assert_eq!(error.raw_os_error(), None);
    assert_eq!(error.operation(), Operation::NextKey);
    assert!(keys.next().is_none() && keys.next().is_none());
    // Without changes it ends normally.
    assert_eq!(elems.keys().count(), ROOM as usize / 2);
    assert_eq!(
        elems.iter().filter(Result::is_ok).count(),
        ROOM as usize / 2
    );
    Ok(())
}

/// Elements deleted before their batch is read are skipped; those read before are yielded unchanged.
#[common::test(BPF)]
fn deleted_elements_are_skipped() -> Outcome {
    let map = create(MapType::HASH, 4, 8, 8);
    let elems = map.elements::<u32, u64>()?;
    for key in 0..8 {
        elems.update(&key, &u64::from(key), ElemFlags::ANY)?;
    }
    let mut entries = elems.iter();
    let (first, _) = entries.next().expect("the first of eight")?;
    for key in 0..8 {
        assert!(elems.delete(&key)?);
    }
    let rest: BTreeMap<_, _> = entries.collect::<Result<_, _>>()?;
    let expected = (0..8).filter(|key| *key != first);
    assert_eq!(rest, expected.map(|key| (key, u64::from(key))).collect());
    assert_eq!(elems.iter().count(), 0);
    Ok(())
}

#[common::test(BPF)]
fn iteration_never_yields_garbage() -> Outcome {
    const ROOM: u32 = 256;
    /// In the upper half of each value, to recognize values that were never written.
    const MARK: u64 = 0x5eed_0b5e << 32;

    for flags in [MapFlags::empty(), MapFlags::NO_PREALLOC] {
        let spec = MapSpec::new(MapType::HASH, 4, 8, ROOM).flags(flags);
        let map = spec.create()?;
        let elems = map.elements::<u32, u64>()?;
        let put = |key: u32| elems.update(&key, &(MARK | u64::from(key)), ElemFlags::ANY);
        // Half of the keys stay, the others are inserted and deleted.
        for key in (0..ROOM).step_by(2) {
            put(key)?;
        }
        let (elems, put) = (&elems, &put);
        let (done, rounds) = (&AtomicBool::new(false), &AtomicU32::new(0));
        thread::scope(|scope| -> Outcome {
            let stop = SetOnDrop(done);
            let writer = scope.spawn(move || -> bpf_pin::Result<()> {
                while !done.load(Ordering::Relaxed) {
                    for key in (1..ROOM).step_by(2) {
                        put(key)?;
                    }
                    for key in (1..ROOM).step_by(2) {
                        elems.delete(&key)?;
                    }
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
            let pass = || -> Outcome {
                let mut count = 0;
                for entry in elems {
                    let (key, value) = match entry {
                        Ok(entry) => entry,
                        Err(error) if error.cause() == Some(&Cause::IterationAborted) => break,
                        Err(error) => return Err(error.into()),
                    };
                    assert!(key < ROOM, "key {key:#x}");
                    assert_eq!(value & !0xffff_ffff, MARK, "{key}: {value:#x}");
                    assert!((value as u32) < ROOM, "{key}: {value:#x}");
                    count += 1;
                }
                assert!(count <= ROOM, "{count} entries");
                Ok(())
            };
            let mut passes = 0;
            let mut read = Ok(());
            while read.is_ok() && !writer.is_finished() {
                if passes >= 100 && rounds.load(Ordering::Relaxed) >= 10 {
                    break;
                }
                read = pass();
                passes += 1;
            }
            drop(stop);
            writer.join().expect("a writer that does not panic")?;
            read
        })?;
    }
    Ok(())
}

#[common::test(BPF)]
fn threads_share_a_view() -> Outcome {
    let map = create(MapType::HASH, 4, 8, 4096);
    let elems = &map.elements::<u32, u64>()?;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..8u32)
            .map(|worker| {
                scope.spawn(move || -> bpf_pin::Result<()> {
                    for key in worker * 100..(worker + 1) * 100 {
                        elems.update(&key, &u64::from(worker), ElemFlags::NOEXIST)?;
                        assert_eq!(elems.lookup(&key)?, Some(u64::from(worker)));
                        if key % 2 == 1 {
                            assert!(elems.delete(&key)?);
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("no panic"))
    })?;
    let all: BTreeMap<u32, u64> = elems.iter().collect::<Result<_, _>>()?;
    let expected = (0..800u32).step_by(2);
    assert_eq!(
        all,
        expected.map(|key| (key, u64::from(key / 100))).collect()
    );
    Ok(())
}
