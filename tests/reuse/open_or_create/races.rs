//! `open_or_create` by many processes at once: one of them creates or replaces the map, and all get the same one.

use bpf_pin::error::Cause;
use bpf_pin::map::ElemFlags;
use bpf_pin::reuse::{MapOutcome, Migrate, OpenedMap, Reuse};
use bpf_pin::{Map, MapSpec, MapType, PinDir};
use common::*;

const NAME: &str = "flows";
/// The processes that call `open_or_create`, and those that read.
const CALLERS: usize = 16;
const READERS: usize = 2;
const ROUNDS: usize = 6;

/// The entry that fills a map before it is pinned.
const FILLED: (u32, u64) = (1000, 4711);
/// The number of entries of the old map.
const OLD_KEYS: u32 = 20;

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

common::cases_alone!(
    || CASES.iter().map(|case| (case.name, PINS)).collect(),
    |name| run(CASES.iter().find(|case| case.name == name).expect("a case"))
);

/// The pin before the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Match,
    Mismatch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Exact,
    Recreate,
    /// Commits at once.
    Migrate,
    /// Drops the migration without committing it.
    MigrateAndLeave,
    OpenOnly,
    CreateOnly,
}

struct Case {
    name: &'static str,
    before: Before,
    /// The policies of the callers, in turn.
    policies: &'static [Policy],
}

use Before::{Match, Mismatch, Nothing};

#[rustfmt::skip]
const CASES: &[Case] = &[
    case("exact_without_a_pin", Nothing, &[Policy::Exact]),
    case("recreate_without_a_pin", Nothing, &[Policy::Recreate]),
    case("migrate_without_a_pin", Nothing, &[Policy::Migrate]),
    case("open_only_without_a_pin", Nothing, &[Policy::OpenOnly]),
    case("create_only_without_a_pin", Nothing, &[Policy::CreateOnly]),
    case("all_policies_without_a_pin", Nothing, ALL),
    case("exact_with_a_match", Match, &[Policy::Exact]),
    case("recreate_with_a_match", Match, &[Policy::Recreate]),
    case("migrate_with_a_match", Match, &[Policy::Migrate]),
    case("open_only_with_a_match", Match, &[Policy::OpenOnly]),
    case("create_only_with_a_match", Match, &[Policy::CreateOnly]),
    case("all_policies_with_a_match", Match, ALL),
    case("exact_with_a_mismatch", Mismatch, &[Policy::Exact]),
    case("recreate_with_a_mismatch", Mismatch, &[Policy::Recreate]),
    case("migrate_with_a_mismatch", Mismatch, &[Policy::Migrate]),
    case("migrate_without_commit_with_a_mismatch", Mismatch, &[Policy::MigrateAndLeave]),
    case("migrate_and_recreate_with_a_mismatch", Mismatch, &[Policy::Migrate, Policy::Recreate]),
    case("open_only_with_a_mismatch", Mismatch, &[Policy::OpenOnly]),
    case("create_only_with_a_mismatch", Mismatch, &[Policy::CreateOnly]),
    case("all_policies_with_a_mismatch", Mismatch, ALL),
];

const ALL: &[Policy] = &[
    Policy::Exact,
    Policy::Recreate,
    Policy::Migrate,
    Policy::OpenOnly,
    Policy::CreateOnly,
];

const fn case(name: &'static str, before: Before, policies: &'static [Policy]) -> Case {
    Case {
        name,
        before,
        policies,
    }
}

fn old_spec() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 8, 64)
}

fn spec() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 16, 64)
}

fn fill(map: &Map) -> bpf_pin::Result<()> {
    let value = [FILLED.1, 0];
    map.elements::<u32, [u64; 2]>()?
        .update(&FILLED.0, &value, ElemFlags::NOEXIST)
}

fn open_or_create(dir: &PinDir, reuse: Reuse<'_, '_>) -> bpf_pin::Result<OpenedMap> {
    dir.open_or_create_with(NAME, &spec(), reuse, fill)
}

/// The outcome of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
enum Got {
    Found,
    Created,
    Recreated,
    Migrated,
    Resumed,
    Missing,
    Exists,
    Mismatch,
    Reader,
}

const GOT: &[Got] = &[
    Got::Found,
    Got::Created,
    Got::Recreated,
    Got::Migrated,
    Got::Resumed,
    Got::Missing,
    Got::Exists,
    Got::Mismatch,
    Got::Reader,
];

/// Calls `open_or_create` in a forked process.
fn call(fs: &TestFs, policy: Policy) -> (Got, u64) {
    let dir = PinDir::open(fs.root()).unwrap();
    let mut migrate = Migrate::new(|key: &u32, value: &u64| Some((*key, [*value, 1])));
    let reuse = match policy {
        Policy::Exact => Reuse::Exact,
        Policy::Recreate => Reuse::Recreate,
        Policy::Migrate | Policy::MigrateAndLeave => Reuse::Migrate(&mut migrate),
        Policy::OpenOnly => Reuse::OpenOnly,
        Policy::CreateOnly => Reuse::CreateOnly,
    };
    let reused = match open_or_create(&dir, reuse) {
        Ok(reused) => reused,
        Err(error) => {
            // The pin may have changed before the cause is diagnosed, so the errno decides.
            let got = match (error.cause(), error.raw_os_error()) {
                (Some(Cause::Mismatch { .. }), None) => Got::Mismatch,
                (_, Some(libc::ENOENT)) => Got::Missing,
                (_, Some(libc::EEXIST)) => Got::Exists,
                _ => panic!("{policy:?}: {error}"),
            };
            return (got, 0);
        }
    };
    let id = u64::from(reused.map.id().unwrap());
    assert_complete(&reused.map);
    let (got, migration) = match reused.outcome {
        MapOutcome::Found => (Got::Found, None),
        MapOutcome::Created => (Got::Created, None),
        MapOutcome::Recreated { old } => {
            assert_complete(&old);
            (Got::Recreated, None)
        }
        MapOutcome::Migrated(migration) => (Got::Migrated, Some(migration)),
        MapOutcome::Resumed(migration) => (Got::Resumed, Some(migration)),
        other => panic!("{other:?}"),
    };
    if let Some(migration) = migration {
        assert_complete(migration.old());
        if policy == Policy::Migrate {
            migration.commit().unwrap();
        }
    }
    (got, id)
}

/// Asserts that the map is filled, and that it has all entries of the old map or none.
fn assert_complete(map: &Map) {
    if map.info().unwrap().value_size == 8 {
        let old = map.elements::<u32, u64>().unwrap();
        for key in 0..OLD_KEYS {
            assert_eq!(old.lookup(&key).unwrap(), Some(u64::from(key) * 3));
        }
        return;
    }
    let new = map.elements::<u32, [u64; 2]>().unwrap();
    assert_eq!(new.lookup(&FILLED.0).unwrap(), Some([FILLED.1, 0]));
    let first = new.lookup(&0).unwrap();
    for key in 0..OLD_KEYS {
        let value = first.map(|_| [u64::from(key) * 3, 1]);
        assert_eq!(new.lookup(&key).unwrap(), value, "key {key}");
    }
}

/// Opens the pin until all callers are done, and asserts that each map is complete.
fn read(fs: &TestFs, case: &Case, process: Process<'_>) {
    let dir = PinDir::open(fs.root()).unwrap();
    let mut is_there = case.before != Nothing;
    while process.finished() < CALLERS {
        match dir.get::<Map>(NAME) {
            Ok(map) => {
                assert_complete(&map);
                is_there = true;
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
                assert!(!is_there, "the pin was missing: {error}");
            }
        }
    }
}

/// Runs the case several times.
fn run(case: &Case) {
    let mut counts = std::collections::BTreeMap::new();
    for round in 0..ROUNDS {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root()).unwrap();
        let before = match case.before {
            Nothing => None,
            Match => Some(open_or_create(&dir, Reuse::Exact).unwrap().map),
            Mismatch => {
                let map = old_spec().create().unwrap();
                let elems = map.elements::<u32, u64>().unwrap();
                for key in 0..OLD_KEYS {
                    let value = u64::from(key) * 3;
                    elems.update(&key, &value, ElemFlags::ANY).unwrap();
                }
                dir.pin(&map, NAME).unwrap();
                Some(map)
            }
        };
        let before = before.map(|map| u64::from(map.id().unwrap()));
        let results = run_processes(CALLERS + READERS, |process| {
            if process.number >= CALLERS {
                read(&fs, case, process);
                return [Got::Reader as u64, 0, 0, 0];
            }
            let policy = case.policies[(process.number + round) % case.policies.len()];
            let (got, id) = call(&fs, policy);
            [got as u64, id, 0, 0]
        });
        let got: Vec<(Got, u64)> = results
            .iter()
            .map(|[got, id, ..]| (GOT[*got as usize], *id))
            .filter(|(got, _)| *got != Got::Reader)
            .collect();
        for (got, _) in &got {
            *counts.entry(*got).or_insert(0) += 1;
        }
        check(case, &fs, before, &got);
    }
    println!("{}: {counts:?}", case.name);
}

/// Asserts how many processes created or replaced the map, and what is left.
fn check(case: &Case, fs: &TestFs, before: Option<u64>, got: &[(Got, u64)]) {
    let count = |wanted: Got| got.iter().filter(|(got, _)| *got == wanted).count();
    let has = |policy| case.policies.contains(&policy);
    let makes = case.policies != [Policy::OpenOnly];
    let replaces = has(Policy::Recreate) || has(Policy::Migrate) || has(Policy::MigrateAndLeave);
    let (created, replaced) = (
        count(Got::Created),
        count(Got::Recreated) + count(Got::Migrated),
    );
    assert_eq!(created, usize::from(case.before == Nothing && makes));
    assert_eq!(replaced, usize::from(case.before == Mismatch && replaces));
    if case.before == Match {
        assert_eq!(count(Got::Mismatch), 0);
    }
    if !has(Policy::CreateOnly) {
        assert_eq!(count(Got::Exists), 0);
    }
    if !has(Policy::OpenOnly) {
        assert_eq!(count(Got::Missing), 0);
    }

    // All processes have the same map.
    let mut ids: Vec<u64> = got
        .iter()
        .map(|(_, id)| *id)
        .filter(|id| *id != 0)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let dir = PinDir::open(fs.root()).unwrap();
    if ids.is_empty() {
        assert_eq!(fs.names().len(), usize::from(before.is_some()));
        return;
    }
    let now = u64::from(dir.get::<Map>(NAME).unwrap().id().unwrap());
    assert_eq!(ids, [now]);
    assert_eq!(Some(now) == before, created + replaced == 0);

    // Only the backup of an uncommitted migration stays.
    let is_left = has(Policy::MigrateAndLeave);
    if is_left {
        assert_eq!(fs.names(), [backup_name(NAME, now as u32).as_str(), NAME]);
        let mut migrate = Migrate::new(|key: &u32, value: &u64| Some((*key, [*value, 1])));
        let again = open_or_create(&dir, Reuse::Migrate(&mut migrate)).unwrap();
        let MapOutcome::Resumed(migration) = again.outcome else {
            panic!("{again:?}");
        };
        assert_eq!(Some(u64::from(migration.old().id().unwrap())), before);
        migration.commit().unwrap();
    }
    assert_eq!(fs.names(), [NAME]);
    let swept = dir.remove_leftovers().unwrap();
    assert!(swept.removed.is_empty() && swept.failed.is_empty());
}
