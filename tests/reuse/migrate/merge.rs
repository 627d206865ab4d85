//! `Migration::commit_with`: merges what was written to the old map after it was copied.

use bpf_pin::error::Cause;
use bpf_pin::map::ElemFlags;
use bpf_pin::reuse::{MapOutcome, Migrate, Migration, Reuse};
use bpf_pin::{Map, MapSpec, MapType, PinDir};
use common::{Need, Outcome, TestFs, assert_cause_matches, cap};

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

fn spec(value_size: u32) -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, value_size, 16)
}

fn grow() -> Migrate<'static> {
    Migrate::new(|key: &u32, value: &u64| Some((*key, [*value, 0])))
}

/// The new map, and the migration if this call began or resumed one.
fn migrate(dir: &PinDir) -> Outcome<(Map, Option<Migration>)> {
    let opened = dir.open_or_create("counts", &spec(16), Reuse::Migrate(&mut grow()))?;
    Ok(match opened.outcome {
        MapOutcome::Migrated(migration) | MapOutcome::Resumed(migration) => {
            (opened.map, Some(migration))
        }
        _ => (opened.map, None),
    })
}

/// Changed, new and deleted entries are passed; unchanged ones are not.
#[common::test(PINS)]
fn each_change_is_passed_to_the_merge_function() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = spec(8).create()?;
    let values = old.elements::<u32, u64>()?;
    for key in 1..5 {
        values.update(&key, &10, ElemFlags::ANY)?;
    }
    dir.pin(&old, "counts")?;
    let (_, migration) = migrate(&dir)?;
    values.update(&1, &11, ElemFlags::ANY)?;
    assert!(values.delete(&2)?);
    values.update(&7, &70, ElemFlags::ANY)?;

    // Sizes are checked before anything is merged, and the error returns the migration.
    let failed = migration
        .unwrap()
        .commit_with(|_: &u32, _: Option<&u32>, _| Ok(()));
    let failed = failed.expect_err("values of 8 bytes");
    assert_cause_matches!(failed.error(), Cause::Size { .. });
    let mut changes = vec![];
    let merge = |key: &u32, copied: Option<&u64>, now: Option<&u64>| {
        changes.push((*key, copied.copied(), now.copied()));
        Ok(())
    };
    failed.into_object().commit_with(merge)?;
    changes.sort_unstable();
    let expected = [
        (1, Some(10), Some(11)),
        (2, Some(10), None),
        (7, None, Some(70)),
    ];
    assert_eq!(changes, expected);
    assert_eq!(fs.names(), ["counts"]);
    Ok(())
}

/// Another process copied the entries, and their copied values are unknown.
#[common::test(PINS)]
fn a_resumed_migration_cannot_be_merged() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    dir.pin(&spec(8).create()?, "counts")?;
    drop(migrate(&dir)?);
    let (_, resumed) = migrate(&dir)?;
    let merge = |_: &u32, _: Option<&u64>, _: Option<&u64>| panic!("the changes are unknown");
    let failed = resumed
        .expect("a migration")
        .commit_with(merge)
        .expect_err("resumed");
    assert_cause_matches!(
        failed.error(),
        Cause::InvalidArgument {
            what: "commit_with",
            ..
        }
    );
    failed.into_object().commit()?;
    assert_eq!(fs.names(), ["counts"]);
    Ok(())
}
