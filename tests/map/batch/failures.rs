//! Failing batches: the error reports what was done, and nothing else is changed.

use std::collections::BTreeMap;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::{Cursor, ElemFlags};
use bpf_pin::types::{Command, MapFlags};
use bpf_pin::{Access, Error, Map, MapSpec, MapType};
use common::*;

const BPF: &[Need] = &[cap::BPF];
const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

#[common::test(BPF)]
fn a_wrong_size_is_reported_and_nothing_changed() -> Outcome {
    let map = MapSpec::new(MapType::HASH, 4, 8, 8).create()?;
    let elems = map.elements::<[u8], [u8]>()?;
    let any = ElemFlags::ANY;
    elems.update(&[1; 4], &[1; 8], any)?;
    let size = |what, expected, found| Cause::Size {
        what,
        expected,
        found,
    };
    let assert_rejected = |error: Error, cause: Cause| {
        assert_eq!(error.elements_done(), 0, "{error:?}");
        assert_eq!(error.raw_os_error(), None);
        assert_eq!(error.cause(), Some(&cause), "{error}");
    };
    for (keys, values, cause) in [
        (9, 16, size("key", 4, 1)),
        (8, 15, size("value", 8, 7)),
        (8, 24, Cause::LengthMismatch { keys: 2, values: 3 }),
        (0, 8, Cause::LengthMismatch { keys: 0, values: 1 }),
    ] {
        let (mut keys, mut values) = (vec![7; keys], vec![7; values]);
        let error = elems.update_batch(&keys, &values, any);
        assert_rejected(error.expect_err("update"), cause.clone());
        let mut cursor = Cursor::new();
        let error = elems.lookup_batch(&mut cursor, &mut keys, &mut values, any);
        assert_rejected(error.expect_err("lookup"), cause.clone());
        let error = elems.take_batch(&mut cursor, &mut keys, &mut values, any);
        assert_rejected(error.expect_err("take"), cause);
        assert!(keys.iter().chain(&values).all(|byte| *byte == 7));
        assert!(!cursor.is_end());
    }
    assert_rejected(
        elems
            .update_batch(&[1; 8], &[1; 24], any)
            .expect_err("three"),
        Cause::LengthMismatch { keys: 2, values: 3 },
    );
    assert_rejected(
        elems.delete_batch(&[1; 6]).expect_err("delete"),
        size("key", 4, 2),
    );
    // Empty slices succeed without effect.
    assert_eq!(
        elems.lookup_batch(&mut Cursor::new(), &mut [], &mut [], any)?,
        0
    );
    elems.update_batch(&[], &[], any)?;
    assert_eq!(elems.delete_batch(&[])?, 0);
    assert_eq!(elems.to_vecs()?, (vec![1; 4], vec![1; 8]));
    Ok(())
}

#[common::test(BPF)]
fn flags_of_a_batch_are_checked() -> Outcome {
    let map = MapSpec::new(MapType::HASH, 4, 8, 8).create()?;
    let elems = map.elements::<u32, u64>()?;
    // The kernel has no batch for these flags, so each element takes one call.
    elems.update_batch(&[1, 2], &[1, 2], ElemFlags::NOEXIST)?;
    let error = elems.update_batch(&[3, 2, 4], &[3, 9, 4], ElemFlags::NOEXIST);
    let error = error.expect_err("an existing key");
    assert_eq!(error.elements_done(), 1, "{error:?}");
    assert_eq!(error.cause(), Some(&Cause::KeyExists));
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
    let error = elems.update_batch(&[1, 5], &[10, 5], ElemFlags::EXIST);
    let error = error.expect_err("a missing key");
    assert_eq!(error.elements_done(), 1, "{error:?}");
    assert_eq!(error.cause(), Some(&Cause::KeyMissing));
    let found: BTreeMap<_, _> = elems.iter().collect::<Result<_, _>>()?;
    assert_eq!(found, [(1, 10), (2, 2), (3, 3)].into());
    // The value has no lock.
    let (mut keys, mut values) = ([0; 8], [0; 8]);
    let lock = ElemFlags::LOCK;
    for error in [
        elems.update_batch(&[1], &[1], lock).expect_err("update"),
        elems
            .lookup_batch(&mut Cursor::new(), &mut keys, &mut values, lock)
            .expect_err("lookup"),
        elems
            .take_batch(&mut Cursor::new(), &mut keys, &mut values, lock)
            .expect_err("take"),
    ] {
        assert_eq!(error.elements_done(), 0, "{error:?}");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        assert_cause_matches!(error, Cause::InvalidArgument { what: "flags", .. });
    }
    let error = elems.lookup_into(&1, &mut 0, lock).expect_err("no lock");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    // The batch is still known to exist.
    assert_eq!(elems.to_vecs()?.0.len(), 3);
    Ok(())
}

#[common::test(BPF)]
pub fn a_full_map_accepts_the_elements_that_fit() -> Outcome {
    for flags in [MapFlags::empty(), MapFlags::NO_PREALLOC] {
        let map = MapSpec::new(MapType::HASH, 4, 8, 100)
            .flags(flags)
            .create()?;
        let elems = map.elements::<u32, u64>()?;
        let (keys, values) = super::keys_and_values(150);
        let error = elems.update_batch(&keys, &values, ElemFlags::ANY);
        let error = error.expect_err("more than fits");
        assert_eq!(error.operation(), Operation::UpdateBatch);
        assert_eq!(error.elements_done(), 100);
        assert_eq!(error.cause(), Some(&Cause::MaxEntries { max_entries: 100 }));
        assert_eq!(error.raw_os_error(), Some(libc::E2BIG));
        let found: BTreeMap<_, _> = elems.iter().collect::<Result<_, _>>()?;
        assert_eq!(found, super::all(100));
    }
    Ok(())
}

/// Deleting makes room, so ENOSPC does not mean that the map is full.
#[common::test(BPF)]
pub fn enospc_of_a_deletion_is_not_a_full_map() -> Outcome {
    let map = MapSpec::new(MapType::HASH, 4, 8, 100).create()?;
    let elems = map.elements::<u32, u64>()?;
    for (command, errno) in [
        (Command::MAP_DELETE_BATCH, libc::ENOSPC),
        (Command::MAP_DELETE_ELEM, libc::E2BIG),
    ] {
        let error = with_bpf_errno(Some(command.0), errno as u32, || match command {
            Command::MAP_DELETE_BATCH => elems.delete_batch(&[1, 2]).unwrap_err(),
            _ => elems.delete(&1).unwrap_err(),
        });
        assert_eq!(error.raw_os_error(), Some(errno));
        assert_eq!(error.cause(), Some(&Cause::Filtered { command }));
    }
    Ok(())
}

#[common::test(BPF)]
pub fn missing_keys_are_skipped() -> Outcome {
    let map = MapSpec::new(MapType::HASH, 4, 8, 100).create()?;
    let elems = map.elements::<u32, u64>()?;
    let (keys, values) = super::keys_and_values(10);
    elems.update_batch(&keys, &values, ElemFlags::ANY)?;
    assert_eq!(elems.delete_batch(&[100, 0, 101, 102, 1, 2, 2, 103])?, 3);
    assert_eq!(elems.delete_batch(&[100, 101])?, 0);
    assert_eq!(elems.to_vecs()?.0.len(), 7);
    Ok(())
}

/// A key that is invalid for a trie cannot be deleted. Missing keys count too.
#[common::test(BPF)]
fn a_failed_delete_reports_the_number_of_deleted_keys() -> Outcome {
    let spec = MapSpec::new(MapType::LPM_TRIE, 8, 8, 8).flags(MapFlags::NO_PREALLOC);
    let map = spec.create()?;
    let elems = map.elements::<[u32; 2], u64>()?;
    let prefix = |n: u32| [32, n.swap_bytes()];
    for n in 0..4 {
        elems.update(&prefix(n), &7, ElemFlags::ANY)?;
    }
    let keys = [
        prefix(0),
        prefix(9),
        prefix(1),
        [33, 0],
        prefix(2),
        prefix(8),
    ];
    let error = elems.delete_batch(&keys).expect_err("33 bits of 32");
    assert_eq!(error.operation(), Operation::DeleteBatch);
    let done = error.elements_done();
    assert_eq!(done, 3, "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    // The caller can continue there.
    assert_eq!(elems.delete_batch(&keys[done + 1..])?, 1);
    let (left, _) = elems.to_vecs()?;
    assert_eq!(left, [prefix(3)]);
    Ok(())
}

#[common::test(PINS)]
fn the_access_of_the_descriptor_is_checked() -> Outcome {
    let fs = TestFs::new();
    let pinned = hash().pin(fs.at("flows"))?;
    pinned
        .elements::<u32, u64>()?
        .update(&1, &1, ElemFlags::ANY)?;
    let assert_access_denied = |error: Error, opened| {
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        assert_eq!(error.cause(), Some(&Cause::MapAccess { opened }), "{error}");
    };
    let (mut keys, mut values, any) = ([0; 8], [0; 8], ElemFlags::ANY);
    let mut cursor = Cursor::new();

    let map = Map::open_with(fs.at("flows"), Access::ReadOnly)?;
    let elems = map.elements::<u32, u64>()?;
    assert_eq!(elems.to_vecs()?, (vec![1], vec![1]));
    let took = elems.take_batch(&mut cursor, &mut keys, &mut values, any);
    assert_access_denied(took.expect_err("take"), Access::ReadOnly);
    assert_access_denied(elems.take(&1).expect_err("take"), Access::ReadOnly);
    assert_access_denied(
        elems.update_batch(&[1], &[2], any).expect_err("update"),
        Access::ReadOnly,
    );
    assert_access_denied(
        elems.delete_batch(&[1]).expect_err("delete"),
        Access::ReadOnly,
    );
    assert_access_denied(elems.clear().expect_err("clear"), Access::ReadOnly);
    assert_access_denied(
        elems.drain().next().expect("one").expect_err("take"),
        Access::ReadOnly,
    );

    let map = Map::open_with(fs.at("flows"), Access::WriteOnly)?;
    let elems = map.elements::<u32, u64>()?;
    let looked = elems.lookup_batch(&mut cursor, &mut keys, &mut values, any);
    assert_access_denied(looked.expect_err("lookup"), Access::WriteOnly);
    assert_access_denied(elems.to_vecs().expect_err("lookup"), Access::WriteOnly);
    assert_access_denied(elems.take(&1).expect_err("take"), Access::WriteOnly);
    let mut iter = elems.iter();
    assert_access_denied(
        iter.next().expect("one").expect_err("lookup"),
        Access::WriteOnly,
    );
    assert!(iter.next().is_none());
    elems.update_batch(&[2, 3], &[2, 3], any)?;
    assert_eq!(elems.delete_batch(&[1, 2])?, 2);
    assert_eq!(
        pinned.elements::<u32, u64>()?.to_vecs()?,
        (vec![3], vec![3])
    );
    Ok(())
}

#[common::test(BPF)]
fn a_frozen_map_rejects_batches() -> Outcome {
    let map = MapSpec::new(MapType::HASH, 4, 8, 8).create()?;
    let elems = map.elements::<u32, u64>()?;
    elems.update_batch(&[1, 2], &[1, 2], ElemFlags::ANY)?;
    map.freeze()?;
    for error in [
        elems
            .update_batch(&[1], &[2], ElemFlags::ANY)
            .expect_err("update"),
        elems.delete_batch(&[1]).expect_err("delete"),
        elems.clear().expect_err("clear"),
        elems.take(&1).expect_err("take"),
        elems.drain().next().expect("one").expect_err("take"),
    ] {
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        assert_eq!(error.cause(), Some(&Cause::Frozen), "{error}");
    }
    assert_eq!(elems.to_vecs()?.0.len(), 2);
    Ok(())
}
