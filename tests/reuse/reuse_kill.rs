//! `open_or_create` stopped at each of its syscalls: killed there, it has done all or nothing, and
//! the next one finishes or undoes it; overtaken there, it heeds what was done meanwhile.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bpf_pin::error::Cause;
use bpf_pin::map::ElemFlags;
use bpf_pin::reuse::{MapOutcome as Done, Migrate, Migration, OpenedMap, Reuse};
use bpf_pin::{Error, Map, MapSpec, MapType, PinDir};
use common::*;

const NAME: &str = "flows";
const OTHER: &str = "other";

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

common::cases_alone!(
    || CASES.iter().map(|case| (case.name, PINS)).collect(),
    |name| stop_everywhere(CASES.iter().find(|case| case.name == name).expect("a case"))
);

struct Case {
    name: &'static str,
    before: fn(&PinDir),
    run: fn(&PinDir) -> bpf_pin::Result<()>,
    /// What may be seen of the name until it is done.
    may_be: &'static [Seen],
    /// What is seen in the end.
    end: Seen,
    /// What somebody does at each stop of one that lives on.
    rivals: &'static [Rival],
}

/// What has the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    /// With all its entries.
    Old,
    /// Filled, without the old one's entries.
    Empty,
    /// Filled, with all of the old one's entries.
    Migrated,
    /// Somebody else's that fits.
    Rival,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rival {
    Sweep,
    Unlink,
    Replace,
    Migrate,
    /// Whoever wants the old one.
    OldMigrate,
}

use Rival::{OldMigrate, Replace, Sweep, Unlink};
use Seen::{Empty, Migrated, Nothing, Old};

const CASES: &[Case] = &[
    Case {
        name: "stopped_amid_create",
        before: |_| {},
        run: |dir| ask(dir, Reuse::Exact).map(drop),
        may_be: &[Nothing],
        end: Empty,
        rivals: &[Sweep, Replace, Rival::Migrate],
    },
    Case {
        name: "stopped_amid_open",
        before: |dir| drop(ask(dir, Reuse::Exact).unwrap()),
        run: |dir| ask(dir, Reuse::Exact).map(drop),
        may_be: &[Empty],
        end: Empty,
        rivals: &[Sweep, Unlink, Replace],
    },
    Case {
        name: "stopped_amid_exact_of_a_misfit",
        before: old,
        run: |dir| {
            refused(ask(dir, Reuse::Exact), |cause| {
                matches!(cause, Cause::Mismatch { .. })
            })
        },
        may_be: &[Old],
        end: Old,
        rivals: &[Sweep, Unlink, Replace, Rival::Migrate, OldMigrate],
    },
    Case {
        name: "stopped_amid_open_only",
        before: |dir| drop(ask(dir, Reuse::Exact).unwrap()),
        run: |dir| {
            refused(ask(dir, Reuse::OpenOnly), |cause| {
                matches!(cause, Cause::Missing { .. })
            })
        },
        may_be: &[Empty],
        end: Empty,
        rivals: &[Sweep, Unlink, Replace],
    },
    Case {
        name: "stopped_amid_create_only",
        before: |_| {},
        run: |dir| {
            refused(ask(dir, Reuse::CreateOnly), |cause| {
                matches!(cause, Cause::Exists { .. })
            })
        },
        may_be: &[Nothing],
        end: Empty,
        rivals: &[Sweep, Replace, Rival::Migrate],
    },
    Case {
        name: "stopped_amid_recreate_of_nothing",
        before: |_| {},
        run: |dir| ask(dir, Reuse::Recreate).map(drop),
        may_be: &[Nothing],
        end: Empty,
        rivals: &[Sweep, Unlink, Replace, Rival::Migrate],
    },
    Case {
        name: "stopped_amid_migrate_of_nothing",
        before: |_| {},
        run: |dir| commit(ask(dir, Reuse::Migrate(&mut grow()))?),
        may_be: &[Nothing],
        end: Empty,
        rivals: &[Sweep, Unlink, Replace, Rival::Migrate],
    },
    Case {
        name: "stopped_amid_recreate",
        before: old,
        run: |dir| ask(dir, Reuse::Recreate).map(drop),
        may_be: &[Old],
        end: Empty,
        rivals: &[Sweep, Unlink, Replace],
    },
    Case {
        name: "stopped_amid_migrate",
        before: old,
        run: |dir| commit(ask(dir, Reuse::Migrate(&mut grow()))?),
        may_be: &[Old],
        end: Migrated,
        rivals: &[Sweep, Unlink, Replace, Rival::Migrate, OldMigrate],
    },
    Case {
        name: "stopped_amid_migrate_with_freeze",
        before: old,
        run: |dir| commit(ask(dir, Reuse::Migrate(&mut grow().freeze()))?),
        may_be: &[Old],
        end: Migrated,
        rivals: &[Sweep, Unlink, Replace, Rival::Migrate, OldMigrate],
    },
    Case {
        name: "stopped_amid_commit_of_anothers",
        before: uncommitted,
        run: |dir| commit(ask(dir, Reuse::Migrate(&mut grow()))?),
        may_be: &[Migrated],
        end: Migrated,
        rivals: &[Sweep, Rival::Migrate],
    },
    Case {
        name: "stopped_amid_roll_back",
        before: uncommitted,
        run: |dir| roll_back(ask(dir, Reuse::Migrate(&mut grow()))?),
        may_be: &[Migrated],
        end: Old,
        rivals: &[Sweep, Rival::Migrate],
    },
];

const OLD: [(u32, u64); 3] = [(1, 10), (2, 20), (3, 30)];
const FILLED: (u32, [u64; 2]) = (1000, [4711, 0]);
const RIVAL: (u32, [u64; 2]) = (2000, [4712, 0]);

fn old_spec() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 8, 16)
}

fn spec() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 16, 16)
}

fn grow<'f>() -> Migrate<'f> {
    Migrate::new(|key: &u32, value: &u64| Some((*key, [*value, 1]))).patience(Duration::ZERO)
}

fn put(map: &Map, (key, value): (u32, [u64; 2])) -> bpf_pin::Result<()> {
    map.elements::<u32, [u64; 2]>()?
        .update(&key, &value, ElemFlags::ANY)
}

fn ask(dir: &PinDir, reuse: Reuse<'_, '_>) -> bpf_pin::Result<OpenedMap> {
    dir.open_or_create_with(NAME, &spec(), reuse, |map| put(map, FILLED))
}

/// What is there, or is not, may stand in the way, as the policy has it.
fn refused(asked: bpf_pin::Result<OpenedMap>, is_its: fn(&Cause) -> bool) -> bpf_pin::Result<()> {
    match asked {
        Err(error) if error.cause().is_some_and(is_its) => Ok(()),
        other => other.map(drop),
    }
}

/// A map that does not fit, and one that is none of anybody's business.
fn old(dir: &PinDir) {
    let map = old_spec().create().unwrap();
    for (key, value) in OLD {
        let elems = map.elements::<u32, u64>().unwrap();
        elems.update(&key, &value, ElemFlags::ANY).unwrap();
    }
    dir.pin(&map, NAME).unwrap();
}

/// One that has migrated and died.
fn uncommitted(dir: &PinDir) {
    old(dir);
    let reused = ask(dir, Reuse::Migrate(&mut grow())).unwrap();
    assert!(matches!(reused.outcome, Done::Migrated(_)), "{reused:?}");
}

fn migration(reused: OpenedMap) -> Option<Migration> {
    match reused.outcome {
        Done::Migrated(migration) | Done::Resumed(migration) => Some(migration),
        Done::Found | Done::Created => None,
        other => panic!("{other:?}"),
    }
}

fn commit(reused: OpenedMap) -> bpf_pin::Result<()> {
    if let Some(migration) = migration(reused) {
        let old = migration.commit().map_err(Error::from)?;
        assert!(is_old(&old));
    }
    Ok(())
}

fn roll_back(reused: OpenedMap) -> bpf_pin::Result<()> {
    if let Some(migration) = migration(reused) {
        let old = migration.roll_back().map_err(Error::from)?;
        assert!(is_old(&old));
    }
    Ok(())
}

fn is_old(map: &Map) -> bool {
    let elems = map.elements::<u32, u64>().unwrap();
    OLD.iter()
        .all(|(key, value)| elems.lookup(key).unwrap() == Some(*value))
}

/// As a reader.
fn see(dir: &PinDir) -> Seen {
    let map = match dir.get::<Map>(NAME) {
        Ok(map) => map,
        Err(error) => {
            let is_missing = matches!(error.cause(), Some(Cause::Missing { .. }));
            assert!(is_missing, "{error}");
            return Nothing;
        }
    };
    if map.info().unwrap().value_size == 8 {
        assert!(is_old(&map), "an entry is lost");
        return Old;
    }
    let elems = map.elements::<u32, [u64; 2]>().unwrap();
    if elems.lookup(&RIVAL.0).unwrap() == Some(RIVAL.1) {
        return Seen::Rival;
    }
    let filled = elems.lookup(&FILLED.0).unwrap();
    assert_eq!(filled, Some(FILLED.1), "it is not filled");
    let count = elems.keys().count();
    let has = |(key, value): &(u32, u64)| elems.lookup(key).unwrap() == Some([*value, 1]);
    match count {
        1 => Empty,
        4 if OLD.iter().all(has) => Migrated,
        _ => panic!("half of it is there: {count} entries"),
    }
}

fn names(dir: &PinDir) -> Vec<String> {
    let mut names: Vec<_> = dir
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().name().to_str().unwrap().to_owned())
        .filter(|name| !name.contains('.'))
        .collect();
    names.sort();
    names
}

/// What is done at a stop.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// It lives on beside another.
    Live(Rival),
    /// It is killed, and the same is done once more.
    Again { is_swept: bool },
    /// It is killed, and what it did is undone, if anything is to be undone.
    Undo { is_swept: bool },
}

fn stop_everywhere(case: &Case) {
    let fs = TestFs::new();
    // The standard library's seed of hashes comes from the kernel once, for all children.
    let _ = std::hash::RandomState::new();
    // As what the kernel knows of descriptors is asked once.
    let root = PinDir::open(fs.root()).unwrap();
    root.get::<bpf_pin::Object>("nothing").unwrap_err();
    let stops = stops_of(case, &fs);
    let mut thens: Vec<Then> = case.rivals.iter().copied().map(Then::Live).collect();
    for is_swept in [true, false] {
        thens.push(Then::Again { is_swept });
        if case.end == Migrated {
            thens.push(Then::Undo { is_swept });
        }
    }
    // And once where it is over.
    let changes = |number| stops.get(number).is_none_or(changes);
    at_each_stop(case.name, stops.len() + 1, changes, |number| {
        for &then in &thens {
            // One stop is enough to see that others wait for the lock, and give up after seconds.
            let waits = matches!(then, Then::Live(Rival::Migrate)) && is_creating(&stops, number);
            if waits && !stops[number].is_entry() {
                continue;
            }
            let dir = root.create_dir(format!("{number}"), 0o700).unwrap();
            go(case, &dir, number, then);
            let swept = dir.remove_leftovers().unwrap();
            assert!(swept.failed.is_empty(), "{swept:?}");
            root.remove_dir_all(format!("{number}")).unwrap();
        }
    });
    for name in fs.names() {
        fs::remove_dir_all(fs.at(&name)).unwrap();
    }
}

/// Whether it stops with the lock under which a map is pinned that was created.
fn is_creating(stops: &[Stop], number: usize) -> bool {
    let replaces = stops.iter().any(|stop| stop.name() == "renameat2");
    let locks = |stops: &[Stop]| {
        stops
            .iter()
            .filter(|stop| stop.is_success_of("fcntl"))
            .count()
    };
    !replaces && number < stops.len() && matches!(locks(&stops[..=number]), 2 | 3)
}

fn stops_of(case: &Case, fs: &TestFs) -> Vec<Stop> {
    let root = PinDir::open(fs.root()).unwrap();
    let dir = root.create_dir("alone", 0o700).unwrap();
    (case.before)(&dir);
    let mut tracee = start(case, fs.at("alone"));
    let mut stops = Vec::new();
    while let Some(stop) = tracee.next().unwrap() {
        stops.push(stop);
    }
    assert_eq!(tracee.finish().unwrap(), 0, "{}", case.name);
    assert_eq!(see(&dir), case.end);
    assert_eq!(names(&dir), [NAME]);
    stops
}

fn start(case: &Case, path: PathBuf) -> Tracee {
    let ready = || PinDir::open(path).unwrap();
    let run = |dir: PinDir| match (case.run)(&dir) {
        Ok(()) => 0,
        // Somebody else has the turn.
        Err(error) if matches!(error.cause(), Some(Cause::Locked | Cause::Migrating)) => 2,
        Err(error) => {
            eprintln!("{}: {error}", case.name);
            1
        }
    };
    Tracee::fork(ready, run).unwrap()
}

/// What leaves traces, or is the end of something.
fn changes(stop: &Stop) -> bool {
    match stop.name().as_str() {
        "OBJ_PIN" | "renameat2" | "unlink" => true,
        "MAP_FREEZE" | "MAP_UPDATE_ELEM" | "fchmodat" | "fchownat" | "fcntl" => !stop.is_entry(),
        _ => false,
    }
}

fn go(case: &Case, dir: &PinDir, number: usize, then: Then) {
    (case.before)(dir);
    dir.pin(&hash(), OTHER).unwrap();
    let other = dir.metadata(OTHER).unwrap().inode();
    let mut tracee = start(case, dir.path().to_owned());
    let mut stop = None;
    for _ in 0..=number {
        stop = tracee.next().unwrap();
        if stop.is_none() {
            break;
        }
    }
    let what = format!("{} at stop {number}, {stop:?}, {then:?}", case.name);
    let seen = see(dir);
    assert_may_be(case, seen, &what);
    match then {
        Then::Live(rival) => live(case, dir, tracee, rival, &what),
        Then::Again { is_swept } => {
            die(dir, tracee, seen, is_swept, &what);
            (case.run)(dir).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(see(dir), case.end, "{what}");
        }
        Then::Undo { is_swept } => {
            die(dir, tracee, seen, is_swept, &what);
            let again = ask(dir, Reuse::Migrate(&mut grow()))
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            let is_undone = match again.outcome {
                Done::Migrated(_) => {
                    assert_eq!(seen, Old, "{what}");
                    true
                }
                Done::Resumed(_) => {
                    assert_eq!(seen, Migrated, "{what}");
                    true
                }
                // It was committed.
                Done::Found => false,
                _ => panic!("{what}: {again:?}"),
            };
            roll_back(again).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(see(dir), if is_undone { Old } else { Migrated }, "{what}");
        }
    }
    let swept = dir.remove_leftovers().unwrap();
    assert!(swept.failed.is_empty(), "{what}: {swept:?}");
    let expected: &[&str] = match see(dir) {
        Nothing => &[OTHER],
        _ => &[NAME, OTHER],
    };
    assert_eq!(names(dir), expected, "{what}");
    assert_eq!(dir.metadata(OTHER).unwrap().inode(), other, "{what}");
}

fn assert_may_be(case: &Case, seen: Seen, what: &str) {
    let is_sound = case.may_be.contains(&seen) || seen == case.end;
    assert!(is_sound, "{what}: {seen:?}");
}

/// SIGKILL: what was seen is what is there, and what a sweep leaves is a name and the old one's.
fn die(dir: &PinDir, tracee: Tracee, seen: Seen, is_swept: bool, what: &str) {
    tracee.kill().unwrap();
    assert_eq!(see(dir), seen, "{what}");
    if is_swept {
        let swept = dir.remove_leftovers().unwrap();
        assert!(swept.failed.is_empty(), "{what}: {swept:?}");
        assert_eq!(see(dir), seen, "{what}");
        let mut left = names(dir);
        left.retain(|name| ![NAME, OTHER].contains(&name.as_str()));
        let kept = left.iter().position(|name| is_backup_name(name));
        let kept = kept.map(|at| left.remove(at));
        assert!(left.is_empty(), "{what}: {left:?}");
        if let Some(kept) = kept {
            assert!(is_old(&dir.get(kept).unwrap()), "{what}");
        }
    }
}

/// Somebody else does something at the stop; then it goes on.
fn live(case: &Case, dir: &PinDir, tracee: Tracee, rival: Rival, what: &str) {
    let before = see(dir);
    let mut is_taken = false;
    match rival {
        Sweep => {
            let before = names(dir);
            let swept = dir.remove_leftovers().unwrap();
            assert!(swept.failed.is_empty(), "{what}: {swept:?}");
            assert!(swept.removed.is_empty(), "{what}: {swept:?}");
            assert_eq!(names(dir), before, "{what}");
        }
        Unlink => drop(dir.unlink(NAME)),
        Replace => {
            let map = spec().create().unwrap();
            put(&map, RIVAL).unwrap();
            dir.replace(&map, NAME).unwrap();
        }
        Rival::Migrate => match ask(dir, Reuse::Migrate(&mut grow())) {
            Ok(reused) => is_taken = migration(reused).map(|m| m.commit().unwrap()).is_some(),
            Err(error) => {
                assert!(
                    matches!(error.cause(), Some(Cause::Locked | Cause::Migrating)),
                    "{what}: {error}"
                );
                assert!(matches!(before, Old | Nothing), "{what}: {before:?}");
            }
        },
        OldMigrate => {
            let same = Migrate::new(|key: &u32, value: &u64| Some((*key, *value)));
            let old = old_spec();
            let mut same = same.patience(Duration::ZERO);
            if before == Old {
                let found = dir.open_or_create(NAME, &old, Reuse::Migrate(&mut same));
                let found = found.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(matches!(found.outcome, Done::Found), "{what}: {found:?}");
            }
        }
    }
    let then = see(dir);
    assert_eq!(tracee.finish().unwrap(), 0, "{what}: goes on");
    let end = see(dir);
    let has_exchange = kernel(5, 17).unmet().is_none();
    match rival {
        Sweep | OldMigrate => assert_eq!(end, case.end, "{what}"),
        // Whatever is seen or created after that fits.
        Unlink => assert!([Nothing, Empty, Migrated].contains(&end), "{what}: {end:?}"),
        // Before Linux 5.17 what is put there between look and swap is lost.
        Replace if end != Seen::Rival => assert!(!has_exchange, "{what}: {end:?}"),
        Replace => {}
        Rival::Migrate if is_taken && case.end == Old => assert_eq!(end, then, "{what}"),
        Rival::Migrate => assert_eq!(end, case.end, "{what}"),
    }
}
