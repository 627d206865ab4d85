//! Types and kernels without batches: the same results, with one call per element.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd};

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::{Cursor, ElemFlags};
use bpf_pin::types::{Command, MapFlags};
use bpf_pin::{MapSpec, MapType, abi};
use common::*;

const BPF: &[Need] = &[cap::BPF];

/// The kernel's ENOTSUPP.
const ENOTSUPP: u32 = 524;

const BATCHES: [u32; 4] = [
    abi::BPF_MAP_LOOKUP_BATCH,
    abi::BPF_MAP_LOOKUP_AND_DELETE_BATCH,
    abi::BPF_MAP_UPDATE_BATCH,
    abi::BPF_MAP_DELETE_BATCH,
];

/// Runs `test` with a filter that makes all batches fail as unsupported.
fn without_batches<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let [lookup, take, update, delete] = BATCHES;
    with_bpf_errno(Some(lookup), ENOTSUPP, || {
        with_bpf_errno(Some(take), ENOTSUPP, || {
            with_bpf_errno(Some(update), ENOTSUPP, || {
                with_bpf_errno(Some(delete), ENOTSUPP, test)
            })
        })
    })
}

#[common::test(BPF)]
fn results_without_batches_are_the_same() -> Outcome {
    without_batches(|| {
        super::check_batches(MapSpec::new(MapType::HASH, 4, 8, 3000))?;
        super::an_array_is_read_and_updated_in_batches()?;
        super::failures::a_full_map_accepts_the_elements_that_fit()?;
        super::failures::missing_keys_are_skipped()?;
        if kernel(5, 14).unmet().is_none() {
            super::per_cpu_values_are_read_and_changed_in_batches()?;
        }
        Ok(())
    })
}

#[common::test(BPF)]
fn einval_of_a_filter_does_not_mean_missing_batches() -> Outcome {
    for cmd in BATCHES {
        with_bpf_errno(Some(cmd), libc::EINVAL as u32, || -> Outcome {
            let map = MapSpec::new(MapType::HASH, 4, 8, 8).create()?;
            let elems = map.elements::<u32, u64>()?;
            elems.update(&1, &1, ElemFlags::ANY)?;
            let (mut keys, mut values, mut cursor) = ([0; 4], [0; 4], Cursor::new());
            let any = ElemFlags::ANY;
            let error = match cmd {
                abi::BPF_MAP_LOOKUP_BATCH => elems.to_vecs().expect_err("a filter"),
                abi::BPF_MAP_LOOKUP_AND_DELETE_BATCH => elems
                    .take_batch(&mut cursor, &mut keys, &mut values, any)
                    .expect_err("a filter"),
                abi::BPF_MAP_UPDATE_BATCH => {
                    elems.update_batch(&[2], &[2], any).expect_err("a filter")
                }
                _ => elems.delete_batch(&[1]).expect_err("a filter"),
            };
            let operation = match cmd {
                abi::BPF_MAP_LOOKUP_BATCH => Operation::LookupBatch,
                abi::BPF_MAP_LOOKUP_AND_DELETE_BATCH => Operation::LookupAndDeleteBatch,
                abi::BPF_MAP_UPDATE_BATCH => Operation::UpdateBatch,
                _ => Operation::DeleteBatch,
            };
            assert_eq!(error.operation(), operation);
            assert_eq!(error.elements_done(), 0);
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
            let command = Command(cmd);
            assert_eq!(error.cause(), Some(&Cause::Filtered { command }));
            assert_eq!(elems.keys().count(), 1);
            Ok(())
        })?;
    }
    Ok(())
}

type Prefix = [u32; 2];

fn prefix(n: u32) -> Prefix {
    [32, n.swap_bytes()]
}

#[common::test(BPF)]
fn a_trie_is_read_and_cleared() -> Outcome {
    let spec = MapSpec::new(MapType::LPM_TRIE, 8, 8, 6000).flags(MapFlags::NO_PREALLOC);
    let map = spec.create()?;
    let elems = map.elements::<Prefix, u64>()?;
    let (keys, values): (Vec<_>, Vec<_>) = (0..5000).map(|n| (prefix(n), u64::from(n))).unzip();
    elems.update_batch(&keys, &values, ElemFlags::ANY)?;
    let expected: BTreeMap<_, _> = keys.iter().copied().zip(values).collect();
    let (found, found_values) = elems.to_vecs()?;
    assert_eq!(found.len(), 5000);
    assert_eq!(
        found
            .into_iter()
            .zip(found_values)
            .collect::<BTreeMap<_, _>>(),
        expected
    );
    let mut seen = BTreeSet::new();
    for entry in elems.iter() {
        let (key, value) = entry?;
        assert_eq!(expected[&key], value);
        assert!(seen.insert(key), "twice: {key:?}");
    }
    assert_eq!(seen.len(), 5000);
    assert_eq!(elems.delete_batch(&keys[..10])?, 10);
    // The kernel cannot take elements out of a trie. A lookup and a delete would lose a value that is written in
    // between.
    let error = elems.drain().next().expect("one").expect_err("a take");
    assert_eq!(error.operation(), Operation::LookupAndDelete, "{error:?}");
    assert_eq!(error.raw_os_error(), Some(ENOTSUPP as i32));
    let (command, map_type) = (Command::MAP_LOOKUP_AND_DELETE_ELEM, MapType::LPM_TRIE);
    assert_eq!(error.cause(), Some(&Cause::NoCommand { command, map_type }));
    assert_eq!(elems.clear()?, 4990);
    assert!(elems.to_vecs()?.0.is_empty());
    Ok(())
}

/// More than one batch, and all or some keys are deleted as soon as they are yielded.
#[common::test(BPF)]
fn keys_of_a_trie_may_be_deleted_during_iteration() -> Outcome {
    for keep in [0, 2, 3, 7] {
        let spec = MapSpec::new(MapType::LPM_TRIE, 8, 8, 20_000).flags(MapFlags::NO_PREALLOC);
        let map = spec.create()?;
        let elems = map.elements::<Prefix, u64>()?;
        let (keys, values): (Vec<_>, Vec<_>) =
            (0..20_000).map(|n| (prefix(n), u64::from(n))).unzip();
        elems.update_batch(&keys, &values, ElemFlags::ANY)?;
        let mut seen = BTreeSet::new();
        for entry in elems.iter() {
            let (key, value) = entry?;
            assert!(
                seen.insert(key),
                "twice: {key:?}, where one in {keep} is kept"
            );
            if keep == 0 || value % keep != 0 {
                assert!(elems.delete(&key)?);
            }
        }
        assert_eq!(seen.len(), 20_000);
    }
    Ok(())
}

/// Arrays of objects have empty elements. The batches of some kernels stop at them.
#[common::test(BPF)]
fn empty_elements_of_object_arrays_are_skipped() -> Outcome {
    let inner = MapSpec::new(MapType::ARRAY, 4, 4, 1).create()?;
    let inner_fd = inner.as_fd().as_raw_fd() as u32;
    let prog = prog();
    let prog_fd = prog.as_fd().as_raw_fd() as u32;
    for (map_type, fd, id) in [
        (MapType::ARRAY_OF_MAPS, inner_fd, inner.id()?),
        (MapType::PROG_ARRAY, prog_fd, prog.id()?),
    ] {
        for there in [&[][..], &[0], &[99], &[0, 1, 5, 50, 51, 98, 99]] {
            let spec = MapSpec::new(map_type, 4, 4, 100);
            let map = match map_type {
                MapType::ARRAY_OF_MAPS => spec.inner_map(&inner).create()?,
                _ => spec.create()?,
            };
            let elems = map.elements::<u32, u32>()?;
            elems.update_batch(there, &vec![fd; there.len()], ElemFlags::ANY)?;
            let expected: Vec<_> = there.iter().map(|index| (*index, id)).collect();
            let found: Vec<_> = elems.iter().collect::<Result<_, _>>()?;
            assert_eq!(found, expected, "{map_type}");
            let (keys, ids) = elems.to_vecs()?;
            assert_eq!(keys.into_iter().zip(ids).collect::<Vec<_>>(), expected);
            assert_eq!(elems.delete_batch(there)?, there.len());
        }
    }
    // A hash of maps has only existing elements.
    let spec = MapSpec::new(MapType::HASH_OF_MAPS, 4, 4, 100);
    let map = spec.inner_map(&inner).create()?;
    let elems = map.elements::<u32, u32>()?;
    elems.update_batch(&[7, 8, 9], &[inner_fd; 3], ElemFlags::ANY)?;
    let found: BTreeMap<_, _> = elems.iter().collect::<Result<_, _>>()?;
    assert_eq!(
        found,
        [7, 8, 9].map(|key| (key, inner.id().unwrap())).into()
    );
    assert_eq!(elems.clear()?, 3);
    Ok(())
}

#[common::test(BPF)]
fn types_without_listable_elements_are_rejected() -> Outcome {
    // SAFETY: sysconf takes a number and returns one.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u32;
    let ring = MapSpec::new(MapType::RINGBUF, 0, 0, page).create()?;
    let nothing = ring.elements::<(), ()>()?;
    let mut entries = nothing.iter();
    let error = entries.next().expect("one").expect_err("no keys");
    assert_eq!(error.operation(), Operation::NextKey, "{error:?}");
    assert!(entries.next().is_none());
    assert!(nothing.to_vecs().is_err());
    assert!(nothing.clear().is_err());
    assert!(nothing.drain().next().expect("one").is_err());
    let events = MapSpec::new(MapType::PERF_EVENT_ARRAY, 4, 4, 1).create()?;
    let events = events.elements::<u32, u32>()?;
    let error = events.to_vecs().expect_err("no look-ups");
    assert_eq!(error.operation(), Operation::Lookup, "{error:?}");
    assert_eq!(error.raw_os_error(), Some(ENOTSUPP as i32));
    Ok(())
}

/// All keys change at each step, so the iteration would never end.
#[common::test(BPF)]
fn an_endless_iteration_is_aborted() -> Outcome {
    let spec = MapSpec::new(MapType::LPM_TRIE, 8, 8, 64).flags(MapFlags::NO_PREALLOC);
    let map = spec.create()?;
    let elems = map.elements::<Prefix, u64>()?;
    let mut fresh = (0..).map(prefix);
    let mut change = || -> bpf_pin::Result<()> {
        elems.clear()?;
        let keys: Vec<_> = fresh.by_ref().take(32).collect();
        elems.update_batch(&keys, &[0; 32], ElemFlags::ANY)
    };
    change()?;
    let (mut keys, mut values, mut cursor) = ([[0; 2]; 8], [0; 8], Cursor::new());
    let mut count = 0;
    let error = loop {
        assert!(!cursor.is_end() && count <= 64, "{count}");
        match elems.lookup_batch(&mut cursor, &mut keys, &mut values, ElemFlags::ANY) {
            Ok(more) => count += more,
            Err(error) => break error,
        }
        change()?;
    };
    assert_eq!(error.cause(), Some(&Cause::IterationAborted), "{error}");
    assert_eq!(elems.to_vecs()?.0.len(), 32);
    Ok(())
}
