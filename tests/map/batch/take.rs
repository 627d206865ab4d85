//! Taking elements: `BPF_MAP_LOOKUP_AND_DELETE_ELEM` and its batch.

use std::collections::BTreeMap;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::{Cursor, ElemFlags};
use bpf_pin::types::{Command, MapFlags};
use bpf_pin::{MapSpec, MapType};
use common::*;

const BPF: &[Need] = &[cap::BPF];

#[common::test(BPF)]
fn queues_and_stacks_are_popped() -> Outcome {
    for (map_type, order) in [(MapType::QUEUE, [1, 2, 3]), (MapType::STACK, [3, 2, 1])] {
        let map = MapSpec::new(map_type, 0, 4, 8).create()?;
        let elems = map.elements::<(), u32>()?;
        let fill = || elems.update_batch(&[(); 3], &[1, 2, 3], ElemFlags::ANY);
        fill()?;
        for value in order {
            assert_eq!(elems.lookup(&())?, Some(value), "{map_type}");
            assert_eq!(elems.take(&())?, Some(value), "{map_type}");
        }
        assert_eq!(elems.take(&())?, None);
        fill()?;
        let values: Vec<_> = elems
            .drain()
            .map(|entry| entry.map(|(_, value)| value))
            .collect::<Result<_, _>>()?;
        assert_eq!(values, order, "{map_type}");
        fill()?;
        let (mut keys, mut values, mut cursor) = ([(); 2], [0; 2], Cursor::new());
        let any = ElemFlags::ANY;
        let mut take = || {
            elems
                .take_batch(&mut cursor, &mut keys, &mut values, any)
                .map(|count| values[..count].to_vec())
        };
        assert_eq!(take()?, order[..2]);
        assert_eq!(take()?, order[2..]);
        assert!(take()?.is_empty());
        fill()?;
        assert_eq!(elems.clear()?, 3);
        assert_eq!(elems.lookup(&())?, None);
        // More elements than fit.
        let error = elems
            .update_batch(&[(); 9], &[7; 9], any)
            .expect_err("a ninth");
        assert_eq!(error.elements_done(), 8, "{error:?}");
        assert_eq!(error.cause(), Some(&Cause::MaxEntries { max_entries: 8 }));
        let error = map
            .elements::<[u8], [u8]>()?
            .take_into(&[], &mut [0; 4], ElemFlags::LOCK);
        assert_eq!(
            error.expect_err("no lock").raw_os_error(),
            Some(libc::EINVAL)
        );
    }
    Ok(())
}

#[common::test(BPF)]
fn an_element_of_a_hash_is_taken() -> Outcome {
    for (map_type, flags) in [
        (MapType::HASH, MapFlags::empty()),
        (MapType::HASH, MapFlags::NO_PREALLOC),
        (MapType::LRU_HASH, MapFlags::empty()),
    ] {
        let map = MapSpec::new(map_type, 4, 8, 64).flags(flags).create()?;
        let elems = map.elements::<u32, u64>()?;
        elems.update(&1, &10, ElemFlags::ANY)?;
        if kernel(5, 14).unmet().is_some() {
            let error = elems.take(&1).expect_err("no such command");
            assert_eq!(error.operation(), Operation::LookupAndDelete, "{error:?}");
            assert_eq!(error.raw_os_error(), Some(524));
            let Some(Cause::Unsupported { since, .. }) = error.cause() else {
                panic!("{error}")
            };
            assert_eq!((since.major, since.minor), (5, 14));
            assert_eq!(elems.lookup(&1)?, Some(10));
            continue;
        }
        assert_eq!(elems.take(&2)?, None);
        assert_eq!(elems.take(&1)?, Some(10));
        assert_eq!(elems.take(&1)?, None);
        assert_eq!(elems.lookup(&1)?, None);
        let (bytes, mut value) = (map.elements::<[u8], [u8]>()?, [0; 8]);
        let locked = bytes.take_into(&[1; 4], &mut value, ElemFlags::LOCK);
        assert_eq!(
            locked.expect_err("no lock").raw_os_error(),
            Some(libc::EINVAL)
        );
        let size = bytes
            .take_into(&[1; 4], &mut [0; 7], ElemFlags::ANY)
            .expect_err("7 bytes");
        assert_cause_matches!(
            size,
            Cause::Size {
                what: "value",
                expected: 8,
                found: 7
            }
        );
    }
    Ok(())
}

#[common::test(BPF)]
fn a_hash_is_taken_in_batches() -> Outcome {
    const COUNT: u32 = 10_000;
    for room in [100, 4096, 10_000, 20_000] {
        let map = MapSpec::new(MapType::HASH, 4, 8, COUNT).create()?;
        let elems = map.elements::<u32, u64>()?;
        let (keys, values) = super::keys_and_values(COUNT);
        elems.update_batch(&keys, &values, ElemFlags::ANY)?;
        let (mut keys, mut values) = (vec![0; room], vec![0; room]);
        let (mut cursor, mut seen) = (Cursor::new(), BTreeMap::new());
        while !cursor.is_end() {
            let any = ElemFlags::ANY;
            let count = elems.take_batch(&mut cursor, &mut keys, &mut values, any)?;
            seen.extend(keys.iter().copied().zip(values.iter().copied()).take(count));
            assert_eq!(elems.lookup(&keys[0])?, None);
        }
        assert_eq!(seen, super::all(COUNT));
        assert!(elems.to_vecs()?.0.is_empty());

        let (keys, values) = super::keys_and_values(COUNT);
        elems.update_batch(&keys, &values, ElemFlags::ANY)?;
        let seen: BTreeMap<_, _> = elems.drain().collect::<Result<_, _>>()?;
        assert_eq!(seen, super::all(COUNT));
        assert!(elems.to_vecs()?.0.is_empty());
    }
    Ok(())
}

#[common::test(BPF)]
fn types_without_take_keep_their_elements() -> Outcome {
    let map = MapSpec::new(MapType::ARRAY, 4, 8, 4).create()?;
    let elems = map.elements::<u32, u64>()?;
    elems.update(&0, &7, ElemFlags::ANY)?;
    let (mut keys, mut values) = ([0; 4], [0; 4]);
    let any = ElemFlags::ANY;
    for error in [
        elems.take(&0).expect_err("an array"),
        elems.drain().next().expect("one").expect_err("an array"),
        elems
            .take_batch(&mut Cursor::new(), &mut keys, &mut values, any)
            .expect_err("an array"),
    ] {
        assert_eq!(error.operation(), Operation::LookupAndDelete, "{error:?}");
        assert_eq!(error.raw_os_error(), Some(524), "{error}");
        let (command, map_type) = (Command::MAP_LOOKUP_AND_DELETE_ELEM, MapType::ARRAY);
        assert_eq!(error.cause(), Some(&Cause::NoCommand { command, map_type }));
    }
    assert_eq!(elems.lookup(&0)?, Some(7));
    Ok(())
}
