//! `open_or_create`: when it opens, creates, replaces or migrates a pinned map, and when it fails.

mod access;
mod denied;
mod killed;
mod races;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::{ElemFlags, MapFields, Mismatch};
use bpf_pin::reuse::{MapOutcome, Migrate, Reuse};
use bpf_pin::{Error, Map, MapSpec, MapType, PinDir, PinnedMap};
use common::*;

const ROOT: &[Need] = &[cap::BPF, Need::Bpffs];
const BY_ID: &[Need] = &[cap::SYS_ADMIN, Need::Bpffs];
const USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];

fn spec() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 8, 64)
}

fn larger() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 16, 64)
}

fn grow<'f>() -> Migrate<'f> {
    Migrate::new(|key: &u32, value: &u64| Some((*key, [*value, 1])))
}

fn put(map: &Map, key: u32, value: u64) -> bpf_pin::Result<()> {
    map.elements::<u32, u64>()?
        .update(&key, &value, ElemFlags::ANY)
}

/// A bpffs, its root directory, and a pinned map that matches `spec()`.
fn scene() -> bpf_pin::Result<(TestFs, PinDir, Map)> {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let flows = dir.open_or_create("flows", &spec(), Reuse::Exact)?.map;
    Ok((fs, dir, flows))
}

#[common::test(ROOT)]
fn a_missing_map_is_created_under_every_policy() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    for (name, reuse) in [
        ("exact", Reuse::Exact),
        ("recreate", Reuse::Recreate),
        ("migrate", Reuse::Migrate(&mut grow())),
        ("create", Reuse::CreateOnly),
    ] {
        let filled = |map: &Map| put(map, 7, 8);
        let made = dir.open_or_create_with(name, &spec(), reuse, filled)?;
        assert!(matches!(made.outcome, MapOutcome::Created), "{made:?}");
        let pinned = dir.get::<Map>(name)?;
        assert_eq!(pinned.id()?, made.map.id()?);
        assert_eq!(pinned.elements::<u32, u64>()?.lookup(&7)?, Some(8));
    }
    assert_eq!(fs.names().len(), 4);
    Ok(())
}

#[common::test(ROOT)]
fn a_matching_map_is_opened_under_every_policy() -> Outcome {
    let (fs, dir, flows) = scene()?;
    let id = flows.id()?;
    for reuse in [
        Reuse::Exact,
        Reuse::Recreate,
        Reuse::Migrate(&mut grow()),
        Reuse::OpenOnly,
    ] {
        let again = dir.open_or_create("flows", &spec(), reuse)?;
        assert!(matches!(again.outcome, MapOutcome::Found), "{again:?}");
        assert_eq!(again.map.id()?, id);
    }
    assert_eq!(fs.names(), ["flows"]);
    Ok(())
}

#[common::test(ROOT)]
fn exact_and_open_only_report_mismatches_and_keep_the_pin() -> Outcome {
    let (fs, dir, flows) = scene()?;
    let id = flows.id()?;
    for reuse in [Reuse::Exact, Reuse::OpenOnly] {
        let error = dir.open_or_create("flows", &larger(), reuse).unwrap_err();
        let (expected, found) = (16, 8);
        let mismatches = vec![Mismatch::ValueSize { expected, found }];
        assert_eq!(error.cause(), Some(&Cause::Mismatch { id, mismatches }));
        let path = dir.path().join("flows");
        assert_eq!(error.path(), Some(path.as_path()));
        assert_eq!(error.operation(), Operation::Reuse);
    }
    assert_eq!(dir.get::<Map>("flows")?.id()?, id);
    assert_eq!(fs.names(), ["flows"]);
    Ok(())
}

#[common::test(ROOT)]
fn recreate_replaces_a_map_that_does_not_match() -> Outcome {
    let (fs, dir, flows) = scene()?;
    let id = flows.id()?;
    dir.set_mode("flows", 0o640)?;
    let made = dir.open_or_create("flows", &larger(), Reuse::Recreate)?;
    let MapOutcome::Recreated { old } = &made.outcome else {
        panic!("{made:?}");
    };
    assert_eq!(old.id()?, id);
    assert_eq!(dir.get::<Map>("flows")?.id()?, made.map.id()?);
    assert_eq!(dir.metadata("flows")?.mode(), 0o640);
    assert_eq!(fs.names(), ["flows"]);
    // An object of another kind is not replaced.
    dir.pin(&prog(), "prog")?;
    let error = dir
        .open_or_create("prog", &spec(), Reuse::Recreate)
        .unwrap_err();
    assert_cause_matches!(error, Cause::WrongKind { .. });
    Ok(())
}

#[common::test(ROOT)]
fn open_only_never_creates_and_create_only_never_opens() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let error = dir
        .open_or_create("flows", &spec(), Reuse::OpenOnly)
        .unwrap_err();
    assert_cause_matches!(error, Cause::Missing { .. });
    assert!(fs.names().is_empty());
    let _ = dir.open_or_create("flows", &spec(), Reuse::CreateOnly)?;
    let error = dir
        .open_or_create("flows", &spec(), Reuse::CreateOnly)
        .unwrap_err();
    assert_eq!(error.operation(), Operation::Pin, "{error}");
    assert_cause_matches!(error, Cause::Exists { .. });
    for (name, is_expected) in invalid_names() {
        let error = dir.open_or_create(name, &spec(), Reuse::Exact).unwrap_err();
        assert!(error.cause().is_some_and(is_expected), "{error}");
        assert_eq!(error.raw_os_error(), None, "{error}");
    }
    assert_eq!(fs.names(), ["flows"]);
    Ok(())
}

#[common::test(ROOT)]
fn an_error_of_the_fill_function_is_returned_and_nothing_is_pinned() -> Outcome {
    #[derive(Debug)]
    enum Failure {
        #[allow(dead_code, reason = "for Debug")]
        Bpf(Error),
        Own(&'static str),
    }
    impl From<Error> for Failure {
        fn from(error: Error) -> Self {
            Self::Bpf(error)
        }
    }

    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let fill = |_: &Map| Err(Failure::Own("no"));
    let failed = dir.open_or_create_with("flows", &spec(), Reuse::Exact, fill);
    assert!(matches!(failed, Err(Failure::Own("no"))), "{failed:?}");
    assert!(fs.names().is_empty());
    let id = dir
        .open_or_create("flows", &spec(), Reuse::Exact)?
        .map
        .id()?;
    for reuse in [Reuse::Recreate, Reuse::Migrate(&mut grow())] {
        let failed = dir.open_or_create_with("flows", &larger(), reuse, fill);
        assert!(matches!(failed, Err(Failure::Own("no"))), "{failed:?}");
        assert_eq!(dir.get::<Map>("flows")?.id()?, id);
    }
    let failed = dir.open_or_create_with("flows", &larger(), Reuse::Exact, fill);
    assert!(matches!(failed, Err(Failure::Bpf(_))), "{failed:?}");
    assert_eq!(fs.names(), ["flows"]);
    Ok(())
}

#[common::test(ROOT)]
fn migrate_copies_the_entries_that_the_function_keeps() -> Outcome {
    let (fs, dir, old) = scene()?;
    for key in 0..50 {
        put(&old, key, u64::from(key) * 3)?;
    }
    let mut seen = 0;
    let mut grow = Migrate::new(|key: &u32, value: &u64| {
        seen += 1;
        (*key != 13).then_some((*key, [*value, 1]))
    });
    let made = dir.open_or_create("flows", &larger(), Reuse::Migrate(&mut grow))?;
    let MapOutcome::Migrated(migration) = made.outcome else {
        panic!("{made:?}");
    };
    drop(grow);
    assert_eq!(seen, 100, "both passes see every entry");
    assert_eq!(migration.old().id()?, old.id()?);
    assert_eq!(
        migration.kept_as(),
        backup_name("flows", made.map.id()?).as_str()
    );
    let flows = made.map.elements::<u32, [u64; 2]>()?;
    for key in 0..50 {
        let expected = (key != 13).then_some([u64::from(key) * 3, 1]);
        assert_eq!(flows.lookup(&key)?, expected);
    }
    assert_eq!(fs.names().len(), 2);
    assert_eq!(migration.commit()?.id()?, old.id()?);
    assert_eq!(fs.names(), ["flows"]);
    assert_eq!(dir.get::<Map>("flows")?.id()?, made.map.id()?);
    Ok(())
}

#[common::test(ROOT)]
fn pinned_map_opens_or_creates_by_path() -> Outcome {
    let fs = TestFs::new();
    let ask =
        |name: &str, reuse: Reuse<'_, '_>| PinnedMap::open_or_create(fs.at(name), &spec(), reuse);
    let made = ask("flows", Reuse::Exact)?;
    assert!(matches!(made.outcome, MapOutcome::Created), "{made:?}");
    assert_eq!(made.map.path(), fs.at("flows"));
    let again = ask("flows", Reuse::OpenOnly)?;
    assert!(matches!(again.outcome, MapOutcome::Found), "{again:?}");
    assert_eq!(again.map.id()?, made.map.id()?);
    let error = PinnedMap::open_or_create(fs.at("flows"), &larger(), Reuse::Exact).unwrap_err();
    assert_cause_matches!(error, Cause::Mismatch { .. });
    let error = ask("missing", Reuse::OpenOnly).unwrap_err();
    assert_cause_matches!(error, Cause::Missing { .. });
    let error = ask("no/flows", Reuse::Exact).unwrap_err();
    assert_cause_matches!(error, Cause::Missing { .. });
    for name in ["flows/", "a.b"] {
        assert_eq!(ask(name, Reuse::Exact).unwrap_err().raw_os_error(), None);
    }
    for path in ["", "/", "flows\0"] {
        let error = PinnedMap::open_or_create(path, &spec(), Reuse::Exact).unwrap_err();
        assert_eq!(error.raw_os_error(), None, "{error}");
    }
    // unpin works as for any other pin.
    drop(made);
    assert_eq!(again.map.unpin()?.info()?.max_entries, 64);
    assert_eq!(fs.names(), [""; 0]);
    Ok(())
}

/// A map of maps with or without an element. The values of the inner map have 8 bytes.
fn map_of_maps(dir: &PinDir, is_filled: bool) -> bpf_pin::Result<Map> {
    let inner = MapSpec::new(MapType::HASH, 4, 8, 8).create()?;
    let spec = MapSpec::new(MapType::HASH_OF_MAPS, 4, 4, 8).inner_map(&inner);
    let map = dir.open_or_create("maps", &spec, Reuse::CreateOnly)?.map;
    if is_filled {
        let maps = map.elements::<u32, Map>()?;
        maps.update(&1, &inner, ElemFlags::ANY)?;
    }
    Ok(map)
}

#[common::test(ROOT)]
fn a_map_of_maps_for_other_maps_does_not_fit() -> Outcome {
    for is_filled in [false, true] {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let old = map_of_maps(&dir, is_filled)?;
        let inner = MapSpec::new(MapType::HASH, 4, 16, 8).create()?;
        let spec = MapSpec::new(MapType::HASH_OF_MAPS, 4, 4, 8).inner_map(&inner);
        let error = dir.open_or_create("maps", &spec, Reuse::Exact).unwrap_err();
        let (id, expected, found) = (old.id()?, 16, 8);
        let mismatches = vec![Mismatch::InnerValueSize { expected, found }];
        assert_eq!(error.cause(), Some(&Cause::Mismatch { id, mismatches }));
        // Its entries cannot be copied.
        let mut how = Migrate::bytes(|_, _, _, _| true);
        let error = dir
            .open_or_create("maps", &spec, Reuse::Migrate(&mut how))
            .unwrap_err();
        assert!(
            matches!(error.cause(), Some(Cause::UnsupportedType { .. })),
            "{error}"
        );
        let recreated = dir.open_or_create("maps", &spec, Reuse::Recreate)?;
        assert!(matches!(recreated.outcome, MapOutcome::Recreated { .. }));
        recreated
            .map
            .elements::<u32, Map>()?
            .update(&1, &inner, ElemFlags::ANY)?;
    }
    Ok(())
}

#[common::test(BY_ID)]
fn an_inner_map_that_was_not_compared_is_reported() -> Outcome {
    for (is_filled, unverified) in [(true, MapFields::empty()), (false, MapFields::INNER_MAP)] {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        drop(map_of_maps(&dir, is_filled)?);
        let inner = MapSpec::new(MapType::HASH, 4, 8, 8).create()?;
        let spec = MapSpec::new(MapType::HASH_OF_MAPS, 4, 4, 8).inner_map(&inner);
        let found = dir.open_or_create("maps", &spec, Reuse::Exact)?;
        assert!(matches!(found.outcome, MapOutcome::Found));
        assert_eq!(found.unverified, unverified);
        let any = spec.compare_fields(MapFields::default() - MapFields::INNER_MAP);
        assert_eq!(
            dir.open_or_create("maps", &any, Reuse::Exact)?.unverified,
            MapFields::empty()
        );
    }
    Ok(())
}
