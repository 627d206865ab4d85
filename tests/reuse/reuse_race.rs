//! `open_or_create` by many processes at once: one of them does it, and all get the same map.

use bpf_pin::error::Cause;
use bpf_pin::map::ElemFlags;
use bpf_pin::reuse::{MapOutcome as Done, Migrate, OpenedMap, Reuse};
use bpf_pin::{Map, MapSpec, MapType, PinDir};
use common::*;

const NAME: &str = "flows";
/// How many ask, and how many look on.
const ASKERS: usize = 16;
const READERS: usize = 2;
const ROUNDS: usize = 6;

/// The entry that fills a map before anybody may see it.
const FILLED: (u32, u64) = (1000, 4711);
/// What is in a map that does not fit.
const OLD_KEYS: u32 = 20;

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

common::cases_alone!(
    || CASES.iter().map(|case| (case.name, PINS)).collect(),
    |name| storm(CASES.iter().find(|case| case.name == name).expect("a case"))
);

/// What stands there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Fitting,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Exact,
    Recreate,
    /// Committed at once.
    Migrate,
    /// Dropped instead of committed, by whoever gets it.
    MigrateAndLeave,
    OpenOnly,
    CreateOnly,
}

struct Case {
    name: &'static str,
    before: Before,
    /// By turns.
    policies: &'static [Policy],
}

use Before::{Fitting, Nothing, Other};

const CASES: &[Case] = &[
    case("exact_where_nothing_is", Nothing, &[Policy::Exact]),
    case("recreate_where_nothing_is", Nothing, &[Policy::Recreate]),
    case("migrate_where_nothing_is", Nothing, &[Policy::Migrate]),
    case("only_open_where_nothing_is", Nothing, &[Policy::OpenOnly]),
    case(
        "only_create_where_nothing_is",
        Nothing,
        &[Policy::CreateOnly],
    ),
    case("all_ways_where_nothing_is", Nothing, ALL),
    case("exact_where_it_fits", Fitting, &[Policy::Exact]),
    case("recreate_where_it_fits", Fitting, &[Policy::Recreate]),
    case("migrate_where_it_fits", Fitting, &[Policy::Migrate]),
    case("only_open_where_it_fits", Fitting, &[Policy::OpenOnly]),
    case("only_create_where_it_fits", Fitting, &[Policy::CreateOnly]),
    case("all_ways_where_it_fits", Fitting, ALL),
    case("exact_where_another_is", Other, &[Policy::Exact]),
    case("recreate_where_another_is", Other, &[Policy::Recreate]),
    case("migrate_where_another_is", Other, &[Policy::Migrate]),
    case(
        "migrate_where_another_is_and_leave_it_uncommitted",
        Other,
        &[Policy::MigrateAndLeave],
    ),
    case(
        "migrate_and_recreate_where_another_is",
        Other,
        &[Policy::Migrate, Policy::Recreate],
    ),
    case("only_open_where_another_is", Other, &[Policy::OpenOnly]),
    case("only_create_where_another_is", Other, &[Policy::CreateOnly]),
    case("all_ways_where_another_is", Other, ALL),
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

fn ask(dir: &PinDir, reuse: Reuse<'_, '_>) -> bpf_pin::Result<OpenedMap> {
    dir.open_or_create_with(NAME, &spec(), reuse, fill)
}

/// What one has got.
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

/// In a process of its own.
fn one(fs: &TestFs, policy: Policy) -> (Got, u64) {
    let dir = PinDir::open(fs.root()).unwrap();
    let mut migrate = Migrate::new(|key: &u32, value: &u64| Some((*key, [*value, 1])));
    let reuse = match policy {
        Policy::Exact => Reuse::Exact,
        Policy::Recreate => Reuse::Recreate,
        Policy::Migrate | Policy::MigrateAndLeave => Reuse::Migrate(&mut migrate),
        Policy::OpenOnly => Reuse::OpenOnly,
        Policy::CreateOnly => Reuse::CreateOnly,
    };
    let reused = match ask(&dir, reuse) {
        Ok(reused) => reused,
        Err(error) => {
            // By the time that the cause is looked for it may be gone.
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
    assert_whole(&reused.map);
    let (got, migration) = match reused.outcome {
        Done::Found => (Got::Found, None),
        Done::Created => (Got::Created, None),
        Done::Recreated { old } => {
            assert_whole(&old);
            (Got::Recreated, None)
        }
        Done::Migrated(migration) => (Got::Migrated, Some(migration)),
        Done::Resumed(migration) => (Got::Resumed, Some(migration)),
        other => panic!("{other:?}"),
    };
    if let Some(migration) = migration {
        assert_whole(migration.old());
        if policy == Policy::Migrate {
            migration.commit().unwrap();
        }
    }
    (got, id)
}

/// It is filled, and has what the old one has where it has anything of it.
fn assert_whole(map: &Map) {
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

/// Until all have got something: whoever opens the name gets a whole map.
fn read(fs: &TestFs, case: &Case, process: Process<'_>) {
    let dir = PinDir::open(fs.root()).unwrap();
    let mut is_there = case.before != Nothing;
    while process.finished() < ASKERS {
        match dir.get::<Map>(NAME) {
            Ok(map) => {
                assert_whole(&map);
                is_there = true;
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
                assert!(!is_there, "a gap: {error}");
            }
        }
    }
}

fn storm(case: &Case) {
    let mut counts = std::collections::BTreeMap::new();
    for round in 0..ROUNDS {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root()).unwrap();
        let before = match case.before {
            Nothing => None,
            Fitting => Some(ask(&dir, Reuse::Exact).unwrap().map),
            Other => {
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
        let said = run_processes(ASKERS + READERS, |process| {
            if process.number >= ASKERS {
                read(&fs, case, process);
                return [Got::Reader as u64, 0, 0, 0];
            }
            let policy = case.policies[(process.number + round) % case.policies.len()];
            let (got, id) = one(&fs, policy);
            [got as u64, id, 0, 0]
        });
        let got: Vec<(Got, u64)> = said
            .iter()
            .map(|said| (GOT[said[0] as usize], said[1]))
            .filter(|(got, _)| *got != Got::Reader)
            .collect();
        for (got, _) in &got {
            *counts.entry(*got).or_insert(0) += 1;
        }
        judge(case, &fs, before, &got);
    }
    println!("{}: {counts:?}", case.name);
}

fn judge(case: &Case, fs: &TestFs, before: Option<u64>, got: &[(Got, u64)]) {
    let count = |wanted: Got| got.iter().filter(|(got, _)| *got == wanted).count();
    let has = |policy| case.policies.contains(&policy);
    let makes = case.policies != [Policy::OpenOnly];
    let replaces = has(Policy::Recreate) || has(Policy::Migrate) || has(Policy::MigrateAndLeave);
    let (created, replaced) = (
        count(Got::Created),
        count(Got::Recreated) + count(Got::Migrated),
    );
    assert_eq!(created, usize::from(case.before == Nothing && makes));
    assert_eq!(replaced, usize::from(case.before == Other && replaces));
    if case.before == Fitting {
        assert_eq!(count(Got::Mismatch), 0);
    }
    if !has(Policy::CreateOnly) {
        assert_eq!(count(Got::Exists), 0);
    }
    if !has(Policy::OpenOnly) {
        assert_eq!(count(Got::Missing), 0);
    }

    // All that have a map have the same.
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

    // Nothing stays but what nobody has committed, and that is whole.
    let is_left = has(Policy::MigrateAndLeave);
    if is_left {
        assert_eq!(fs.names(), [backup_name(NAME, now as u32).as_str(), NAME]);
        let mut migrate = Migrate::new(|key: &u32, value: &u64| Some((*key, [*value, 1])));
        let again = ask(&dir, Reuse::Migrate(&mut migrate)).unwrap();
        let Done::Resumed(migration) = again.outcome else {
            panic!("{again:?}");
        };
        assert_eq!(Some(u64::from(migration.old().id().unwrap())), before);
        migration.commit().unwrap();
    }
    assert_eq!(fs.names(), [NAME]);
    let swept = dir.remove_leftovers().unwrap();
    assert!(swept.removed.is_empty() && swept.failed.is_empty());
}
