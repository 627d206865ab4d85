//! `Reuse::Migrate`: the entries of the new map, and how long the old map is kept.

mod adding;
mod concurrent;
mod failures;
mod merge;
mod scene;
mod types;

use std::cell::Cell;

use bpf_pin::error::Cause;
use bpf_pin::map::ElemFlags;
use bpf_pin::reuse::{MapOutcome, Migrate, Reuse};
use bpf_pin::types::MapFlags;
use bpf_pin::{Error, Map, MapSpec, MapType, PinDir};
use common::*;

use scene::{NAME, begin, create_pinned, entries, hash_spec, migrate, put, scene};

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

#[common::test(PINS)]
fn the_function_changes_keys_and_drops_entries() -> Outcome {
    let (fs, dir, _) = scene((0..40).map(|n| (n, 7)))?;
    let how = Migrate::new(|key: &u32, value: &u64| {
        (key % 2 == 0).then_some((u64::from(*key) << 32, [*value as u8; 5]))
    });
    let map = migrate(&dir, &hash_spec(8, 5), how)?;
    let expected: Vec<_> = (0..20).map(|n| (n << 33, [7; 5])).collect();
    assert_eq!(entries::<u64, [u8; 5]>(&map)?, expected);
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

#[common::test(PINS)]
fn a_key_merged_from_two_stays_while_one_of_them_exists() -> Outcome {
    let (_fs, dir, old) = scene((0..10).map(|n| (n, 1)))?;
    // Old keys 2 and 3 become 1, and 4 and 5 become 2. Key 2 is deleted, and both 4 and 5.
    let seen = Cell::new(0);
    let how = Migrate::new(|key: &u32, value: &u64| {
        seen.set(seen.get() + 1);
        if seen.get() == 10 {
            let old = old.elements::<u32, u64>().unwrap();
            for key in [2, 4, 5] {
                assert!(old.delete(&key).unwrap());
            }
        }
        Some((*key / 2, [*value, 0]))
    });
    let map = migrate(&dir, &hash_spec(4, 16), how)?;
    let expected: Vec<_> = [0, 1, 3, 4].map(|key| (key, [1, 0])).into();
    assert_eq!(entries::<u32, [u64; 2]>(&map)?, expected);
    Ok(())
}

#[common::test(PINS)]
fn changes_during_the_first_pass_are_copied_by_the_second() -> Outcome {
    for freezes in [false, true] {
        let (fs, dir, old) = scene((0..10).map(|n| (n, 1)))?;
        let seen = Cell::new(0);
        let how = Migrate::new(|key: &u32, value: &u64| {
            seen.set(seen.get() + 1);
            if seen.get() == 10 {
                // The pin still holds the old map.
                assert_eq!(
                    dir.get::<Map>(NAME).unwrap().id().unwrap(),
                    old.id().unwrap()
                );
                assert_eq!(fs.names(), [NAME]);
                put(&old, [(3, 30), (100, 100)]).unwrap();
                old.elements::<u32, u64>().unwrap().delete(&4).unwrap();
                // Deleted and created again.
                old.elements::<u32, u64>().unwrap().delete(&5).unwrap();
                put(&old, [(5, 50)]).unwrap();
            }
            Some((*key, [*value, 0]))
        });
        let how = if freezes { how.freeze() } else { how };
        let map = migrate(&dir, &hash_spec(4, 16), how)?;
        let value = |key| match key {
            3 => 30,
            5 => 50,
            100 => 100,
            _ => 1,
        };
        let keys = [0, 1, 2, 3, 5, 6, 7, 8, 9, 100];
        assert_eq!(
            entries::<u32, [u64; 2]>(&map)?,
            keys.map(|key| (key, [value(key), 0]))
        );
        let written = put(&old, [(1, 1)]);
        match freezes {
            false => written?,
            true => assert_eq!(written.unwrap_err().cause(), Some(&Cause::Frozen)),
        }
        // The new map is not frozen.
        map.elements::<u32, [u64; 2]>()?
            .update(&1, &[1, 1], ElemFlags::ANY)?;
        assert_eq!(fs.names(), [NAME]);
    }
    Ok(())
}

/// The second pass deletes before it adds, so the new map never exceeds its size.
#[common::test(PINS)]
fn deletions_make_room_for_additions_in_a_full_map() -> Outcome {
    let tries = |value_size| {
        MapSpec::new(MapType::LPM_TRIE, 4 + 4, value_size, 10).flags(MapFlags::NO_PREALLOC)
    };
    let hash = |value_size| MapSpec::new(MapType::HASH, 8, value_size, 10);
    let specs: [(MapSpec<'_>, MapSpec<'_>); 2] = [(hash(8), hash(16)), (tries(8), tries(16))];
    for (old_spec, spec) in &specs {
        for freezes in [false, true] {
            let fs = TestFs::new();
            let dir = PinDir::open(fs.root())?;
            let old = create_pinned(&dir, old_spec)?;
            let elems = old.elements::<[u32; 2], u64>()?;
            let put = |key: u32, value: u64| elems.update(&[32, key], &value, ElemFlags::ANY);
            (0..10).try_for_each(|key| put(key, 1))?;
            let seen = Cell::new(0);
            let how = Migrate::new(|key: &[u32; 2], value: &u64| {
                seen.set(seen.get() + 1);
                if seen.get() == 10 {
                    for gone in [0, 4, 9] {
                        assert!(elems.delete(&[32, gone]).unwrap());
                    }
                    [100, 101, 102].iter().for_each(|&key| put(key, 2).unwrap());
                }
                Some((*key, [*value, 0]))
            });
            let how = if freezes { how.freeze() } else { how };
            let map = migrate(&dir, spec, how)?;
            let mut found = entries::<[u32; 2], [u64; 2]>(&map)?;
            found.sort();
            let keys = [1, 2, 3, 5, 6, 7, 8, 100, 101, 102];
            let expected = keys.map(|key| ([32, key], [1 + u64::from(key >= 100), 0]));
            assert_eq!(found, expected, "{spec:?}");
        }
    }
    Ok(())
}

/// The new map has the same size as the old one, which is full, and the copy takes many batches.
#[common::test(PINS)]
fn a_full_map_of_many_batches_is_migrated() -> Outcome {
    const COUNT: u32 = 40_000;
    const GONE: u32 = 500;

    for freezes in [false, true] {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let of_size = |size| MapSpec::new(MapType::HASH, 4, size, COUNT);
        let old = create_pinned(&dir, &of_size(8))?;
        put(&old, (0..COUNT).map(|key| (key, 1)))?;
        let elems = old.elements::<u32, u64>()?;
        let seen = Cell::new(0);
        let how = Migrate::new(|key: &u32, value: &u64| {
            seen.set(seen.get() + 1);
            if seen.get() == COUNT {
                for key in 0..GONE {
                    assert!(elems.delete(&(key * 80)).unwrap());
                }
                put(&old, (COUNT..COUNT + GONE).map(|key| (key, 2))).unwrap();
            }
            Some((*key, [*value, 0]))
        });
        let how = if freezes { how.freeze() } else { how };
        let map = migrate(&dir, &of_size(16), how)?;
        let found = entries::<u32, [u64; 2]>(&map)?;
        let expected: Vec<(u32, [u64; 2])> = (0..COUNT + GONE)
            .filter(|key| key % 80 != 0 || *key >= GONE * 80)
            .map(|key| (key, [1 + u64::from(key >= COUNT), 0]))
            .collect();
        assert_eq!(found.len(), COUNT as usize);
        assert!(found == expected);
    }
    Ok(())
}

#[common::test(PINS)]
fn entries_of_the_fill_function_stay_unless_copied_over() -> Outcome {
    let (_fs, dir, _) = scene([(1, 1), (2, 2)])?;
    // Copied entries replace filled ones. A dropped entry changes nothing.
    let fill = |map: &Map| {
        let elems = map.elements::<u32, [u64; 2]>()?;
        [1, 2, 3]
            .iter()
            .try_for_each(|key| elems.update(key, &[9, 9], ElemFlags::NOEXIST))
    };
    let mut how =
        Migrate::new(|key: &u32, value: &u64| (*key != 2).then_some((*key, [*value, *value])));
    let reuse = Reuse::Migrate(&mut how);
    let made = dir.open_or_create_with::<Error>(NAME, &hash_spec(4, 16), reuse, fill)?;
    assert_eq!(
        entries::<u32, [u64; 2]>(&made.map)?,
        [(1, [1, 1]), (2, [9, 9]), (3, [9, 9])]
    );
    Ok(())
}

/// An entry was copied over a filled one, and is deleted before the second pass.
#[common::test(PINS)]
fn a_filled_entry_comes_back_if_the_copied_one_is_deleted() -> Outcome {
    for (map_type, flags) in [
        (MapType::HASH, MapFlags::empty()),
        (MapType::HASH, MapFlags::WRONLY),
        (MapType::ARRAY, MapFlags::empty()),
    ] {
        let (_fs, dir, old) = scene([(1, 11), (2, 12), (4, 14)])?;
        let elems = old.elements::<u32, u64>()?;
        let fill = |map: &Map| {
            let elems = map.elements::<u32, [u64; 2]>()?;
            [1, 2, 3]
                .iter()
                .try_for_each(|key| elems.update(key, &[77, 77], ElemFlags::ANY))
        };
        let mut how = Migrate::new(|key: &u32, value: &u64| {
            for gone in [1, 4] {
                elems.delete(&gone).expect("a deletion");
            }
            Some((*key, [*value, 0]))
        });
        let reuse = Reuse::Migrate(&mut how);
        let spec = MapSpec::new(map_type, 4, 16, 5).flags(flags);
        let made = dir.open_or_create_with::<Error>(NAME, &spec, reuse, fill)?;
        assert!(matches!(made.outcome, MapOutcome::Migrated(_)));
        let found = entries::<u32, [u64; 2]>(&dir.get(NAME)?)?;
        let expected = match (map_type, flags) {
            (MapType::ARRAY, _) => vec![
                (0, [0, 0]),
                (1, [77, 77]),
                (2, [12, 0]),
                (3, [77, 77]),
                (4, [0, 0]),
            ],
            // A write-only map cannot be read, so its filled entry does not come back.
            (_, MapFlags::WRONLY) => vec![(2, [12, 0]), (3, [77, 77])],
            _ => vec![(1, [77, 77]), (2, [12, 0]), (3, [77, 77])],
        };
        assert_eq!(found, expected, "{map_type} {flags:?}");
    }
    Ok(())
}

#[common::test(PINS)]
fn one_function_migrates_values_of_several_sizes() -> Outcome {
    for old_size in [4, 8] {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let old = create_pinned(&dir, &hash_spec(4, old_size))?;
        let value = [1; 8];
        old.elements::<[u8], [u8]>()?.update(
            &[5; 4],
            &value[..old_size as usize],
            ElemFlags::ANY,
        )?;
        let how = Migrate::bytes(|key, value, new_key, new_value| {
            assert!(new_key.iter().chain(&*new_value).all(|&byte| byte == 0));
            new_key.copy_from_slice(key);
            new_value[..value.len()].copy_from_slice(value);
            new_value[15] = value.len() as u8;
            true
        });
        let map = migrate(&dir, &hash_spec(4, 16), how)?;
        let mut expected = [0; 16];
        expected[..old_size as usize].fill(1);
        expected[15] = old_size as u8;
        assert_eq!(entries::<[u8; 4], [u8; 16]>(&map)?, [([5; 4], expected)]);
    }
    Ok(())
}

fn grow<'f>() -> Migrate<'f> {
    Migrate::new(|key: &u32, value: &u64| Some((*key, [*value, 1])))
}

#[common::test(PINS)]
fn an_uncommitted_migration_is_resumed() -> Outcome {
    let (fs, dir, old) = scene([(1, 1)])?;
    let (map, migration) = begin(&dir, &hash_spec(4, 16), &mut grow())?;
    let mut how = grow();
    let mut again = || dir.open_or_create(NAME, &hash_spec(4, 16), Reuse::Migrate(&mut how));
    // The migration is held, so the map is opened like any other.
    let found = again()?;
    assert!(matches!(found.outcome, MapOutcome::Found), "{found:?}");
    drop(migration);
    for reuse in [Reuse::Exact, Reuse::Recreate, Reuse::OpenOnly] {
        let found = dir.open_or_create(NAME, &hash_spec(4, 16), reuse)?;
        assert!(matches!(found.outcome, MapOutcome::Found), "{found:?}");
    }
    for _ in 0..3 {
        let found = again()?;
        let MapOutcome::Resumed(migration) = found.outcome else {
            panic!("{found:?}");
        };
        assert_eq!(found.map.id()?, map.id()?);
        assert_eq!(migration.old().id()?, old.id()?);
        assert_eq!(migration.kept_as(), backup_name(NAME, map.id()?).as_str());
    }
    let MapOutcome::Resumed(migration) = again()?.outcome else {
        panic!();
    };
    migration.commit()?;
    assert!(matches!(again()?.outcome, MapOutcome::Found));
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

#[common::test(PINS)]
fn roll_back_restores_the_old_map_unless_the_pin_was_replaced() -> Outcome {
    let (fs, dir, old) = scene([(1, 1)])?;
    dir.set_mode(NAME, 0o640)?;
    let (_, migration) = begin(&dir, &hash_spec(4, 16), &mut grow())?;
    assert_eq!(migration.roll_back()?.id()?, old.id()?);
    assert_eq!(dir.get::<Map>(NAME)?.id()?, old.id()?);
    assert_eq!(dir.metadata(NAME)?.mode(), 0o640);
    assert_eq!(fs.names(), [NAME]);
    // A pin that was replaced is kept.
    let (map, migration) = begin(&dir, &hash_spec(4, 16), &mut grow())?;
    let other = hash();
    dir.replace(&other, NAME)?;
    let failed = migration.roll_back().unwrap_err();
    let (expected, found) = (map.identity()?, other.identity()?);
    assert_eq!(
        failed.error().cause(),
        Some(&Cause::Replaced { expected, found })
    );
    assert_eq!(fs.names(), [backup_name(NAME, map.id()?).as_str(), NAME]);
    failed.into_object().commit()?;
    assert_eq!(dir.get::<Map>(NAME)?.id()?, other.id()?);
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

/// A killed migration may have frozen it.
#[common::test(PINS)]
fn a_frozen_map_is_migrated() -> Outcome {
    let (fs, dir, old) = scene([(1, 1)])?;
    old.freeze()?;
    let map = migrate(&dir, &hash_spec(4, 16), grow())?;
    assert_eq!(entries::<u32, [u64; 2]>(&map)?, [(1, [1, 1])]);
    map.freeze()?;
    let how = Migrate::new(|key: &u32, value: &[u64; 2]| Some((*key, value[0])));
    let map = migrate(&dir, &hash_spec(4, 8), how.freeze())?;
    assert_eq!(entries::<u32, u64>(&map)?, [(1, 1)]);
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

/// The old map of the third version is the map of the uncommitted second one.
#[common::test(PINS)]
fn an_uncommitted_migration_is_superseded_by_the_next_version() -> Outcome {
    let (fs, dir, _) = scene([(1, 1)])?;
    let (second, migration) = begin(&dir, &hash_spec(4, 16), &mut grow())?;
    drop(migration);
    let mut how = Migrate::new(|key: &u32, value: &[u64; 2]| Some((*key, [value[0], 1, 2])));
    let (third, migration) = begin(&dir, &hash_spec(4, 24), &mut how)?;
    assert_eq!(migration.old().id()?, second.id()?);
    let kept = backup_name(NAME, third.id()?);
    assert_eq!(fs.names(), [kept.as_str(), NAME]);
    assert_eq!(dir.get::<Map>(&kept)?.id()?, second.id()?);
    assert_eq!(entries::<u32, [u64; 3]>(&third)?, [(1, [1, 1, 2])]);
    assert_eq!(migration.roll_back()?.id()?, second.id()?);
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

#[common::test(PINS)]
fn an_uncommitted_migration_survives_the_failure_of_the_next() -> Outcome {
    let (fs, dir, first) = scene([(1, 1), (2, 2)])?;
    let (second, migration) = begin(&dir, &hash_spec(4, 16), &mut grow())?;
    drop(migration);
    let small = MapSpec::new(MapType::HASH, 4, 24, 2);
    let mut seen = 0;
    let mut how = Migrate::new(|key: &u32, value: &[u64; 2]| {
        seen += 1;
        if seen == 2 {
            let elems = second.elements::<u32, [u64; 2]>().unwrap();
            elems.update(&3, &[3, 3], ElemFlags::ANY).unwrap();
        }
        Some((*key, [value[0], 1, 2]))
    });
    let failed = dir.open_or_create(NAME, &small, Reuse::Migrate(&mut how));
    let error = failed.unwrap_err();
    assert_cause_matches!(error, Cause::MaxEntries { .. });
    assert_eq!(fs.names(), [backup_name(NAME, second.id()?).as_str(), NAME]);
    let mut how = grow();
    let again = dir.open_or_create(NAME, &hash_spec(4, 16), Reuse::Migrate(&mut how))?;
    let MapOutcome::Resumed(migration) = again.outcome else {
        panic!("{again:?}");
    };
    assert_eq!(migration.roll_back()?.id()?, first.id()?);
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

#[common::test(PINS)]
fn a_backup_is_a_leftover_once_its_new_map_is_no_longer_pinned() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let spec = hash_spec(4, 16);
    for way in 0..3 {
        put(&create_pinned(&dir, &hash_spec(4, 8))?, [(1, 1)])?;
        let (second, migration) = begin(&dir, &spec, &mut grow())?;
        let kept = migration.kept_as().to_owned();
        assert_eq!(
            dir.remove_leftovers()?.removed.len(),
            0,
            "the migration is held"
        );
        drop(migration);
        assert_eq!(
            dir.remove_leftovers()?.removed.len(),
            0,
            "the migration can be resumed"
        );
        match way {
            0 => dir.unlink(NAME)?,
            1 => dir.replace(&spec.create()?, NAME)?,
            _ => {
                let other = MapSpec::new(MapType::HASH, 4, 32, 7);
                let _ = dir.open_or_create(NAME, &other, Reuse::Recreate)?;
                let _ = dir.open_or_create(NAME, &spec, Reuse::Recreate)?;
            }
        }
        let mut how = grow();
        let again = dir.open_or_create(NAME, &spec, Reuse::Migrate(&mut how))?;
        assert!(
            matches!(again.outcome, MapOutcome::Created | MapOutcome::Found),
            "{again:?}"
        );
        assert_ne!(again.map.id()?, second.id()?);
        assert_eq!(dir.remove_leftovers()?.removed, [kept]);
        assert_eq!(fs.names(), [NAME]);
        dir.unlink(NAME)?;
    }
    Ok(())
}

/// The child has a copy of the descriptor, and the commit in the parent releases the lock all the same.
#[common::test(PINS)]
fn a_forked_child_does_not_keep_the_migration_lock() -> Outcome {
    let (_fs, dir, _) = scene([(1, 1)])?;
    let (_, migration) = begin(&dir, &hash_spec(4, 16), &mut grow())?;
    // SAFETY: the child only makes system calls, which wait for no lock of another thread.
    let child = unsafe { common::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            libc::pause();
            libc::_exit(0);
        }
    }
    assert!(child > 0);
    migration.commit()?;
    let how = Migrate::new(|key: &u32, value: &[u64; 2]| Some((*key, value[0])));
    let mut how = how.patience(std::time::Duration::from_secs(5));
    let again = dir.open_or_create(NAME, &hash_spec(4, 8), Reuse::Migrate(&mut how));
    // SAFETY: the child was started here, and is waited for here.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    let MapOutcome::Migrated(migration) = again?.outcome else {
        panic!();
    };
    migration.commit()?;
    Ok(())
}

#[common::test(PINS)]
fn commit_accepts_a_missing_backup_and_keeps_a_replaced_one() -> Outcome {
    let (_fs, dir, _) = scene([(1, 1)])?;
    let (_, migration) = begin(&dir, &hash_spec(4, 16), &mut grow())?;
    dir.unlink(migration.kept_as())?;
    migration.commit()?;
    let how = Migrate::new(|key: &u32, value: &[u64; 2]| Some((*key, value[0])));
    let (_, migration) = begin(&dir, &hash_spec(4, 8), &mut { how })?;
    // Another map under the backup's name is not removed.
    let other = hash();
    let kept = migration.kept_as().to_owned();
    dir.replace(&other, &kept)?;
    let failed = migration.commit().unwrap_err();
    let is_replaced = matches!(failed.error().cause(), Some(Cause::Replaced { .. }));
    assert!(is_replaced, "{}", failed.error());
    assert_eq!(dir.get::<Map>(&kept)?.id()?, other.id()?);
    Ok(())
}
