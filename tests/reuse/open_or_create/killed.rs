//! `open_or_create` stopped at each of its syscalls. If it is killed there, it has done everything or nothing,
//! and the next call completes or undoes it. If another process acts there, it takes the change into account.

mod rival;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bpf_pin::error::Cause;
use bpf_pin::map::ElemFlags;
use bpf_pin::reuse::{MapOutcome, Migrate, Migration, OpenedMap, Reuse};
use bpf_pin::{Error, Map, MapSpec, MapType, PinDir};
use common::*;

const NAME: &str = "flows";
const OTHER: &str = "other";

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

common::cases_alone!(
    || CASES.iter().map(|case| (case.name, PINS)).collect(),
    |name| check_every_stop(CASES.iter().find(|case| case.name == name).expect("a case"))
);

struct Case {
    name: &'static str,
    before: fn(&PinDir),
    run: fn(&PinDir) -> bpf_pin::Result<()>,
    /// The states that a reader may see before the end.
    may_be: &'static [Seen],
    /// The state at the end.
    end: Seen,
    /// The actions of another process, one at each stop of a call that then continues.
    rivals: &'static [Rival],
}

/// The state of the pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    /// The old map, with all its entries.
    Old,
    /// A new map, filled, without the old map's entries.
    Empty,
    /// A new map, filled, with all of the old map's entries.
    Migrated,
    /// A matching map of another process.
    Rival,
}

/// An action of another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rival {
    Sweep,
    Unlink,
    Replace,
    Migrate,
    /// Migrates to the old spec.
    OldMigrate,
}

use Rival::{OldMigrate, Replace, Sweep, Unlink};
use Seen::{Empty, Migrated, Nothing, Old};

#[rustfmt::skip]
const CASES: &[Case] = &[
    case("create_is_atomic_at_every_stop", |_| {}, |dir| open_or_create(dir, Reuse::Exact).map(drop),
        &[Nothing], Empty, &[Sweep, Replace, Rival::Migrate]),
    case("open_is_atomic_at_every_stop", pin_new, |dir| open_or_create(dir, Reuse::Exact).map(drop),
        &[Empty], Empty, &[Sweep, Unlink, Replace]),
    case("exact_with_a_mismatch_is_atomic_at_every_stop", pin_old, |dir| may_fail(dir, Reuse::Exact, |cause| matches!(cause, Cause::Mismatch { .. })),
        &[Old], Old, &[Sweep, Unlink, Replace, Rival::Migrate, OldMigrate]),
    case("open_only_is_atomic_at_every_stop", pin_new, |dir| may_fail(dir, Reuse::OpenOnly, |cause| matches!(cause, Cause::Missing { .. })),
        &[Empty], Empty, &[Sweep, Unlink, Replace]),
    case("create_only_is_atomic_at_every_stop", |_| {}, |dir| may_fail(dir, Reuse::CreateOnly, |cause| matches!(cause, Cause::Exists { .. })),
        &[Nothing], Empty, &[Sweep, Replace, Rival::Migrate]),
    case("recreate_without_a_pin_is_atomic_at_every_stop", |_| {}, |dir| open_or_create(dir, Reuse::Recreate).map(drop),
        &[Nothing], Empty, &[Sweep, Unlink, Replace, Rival::Migrate]),
    case("migrate_without_a_pin_is_atomic_at_every_stop", |_| {}, |dir| commit(open_or_create(dir, Reuse::Migrate(&mut grow()))?),
        &[Nothing], Empty, &[Sweep, Unlink, Replace, Rival::Migrate]),
    case("recreate_is_atomic_at_every_stop", pin_old, |dir| open_or_create(dir, Reuse::Recreate).map(drop),
        &[Old], Empty, &[Sweep, Unlink, Replace]),
    case("migrate_is_atomic_at_every_stop", pin_old, |dir| commit(open_or_create(dir, Reuse::Migrate(&mut grow()))?),
        &[Old], Migrated, &[Sweep, Unlink, Replace, Rival::Migrate, OldMigrate]),
    case("migrate_with_freeze_is_atomic_at_every_stop", pin_old, |dir| commit(open_or_create(dir, Reuse::Migrate(&mut grow().freeze()))?),
        &[Old], Migrated, &[Sweep, Unlink, Replace, Rival::Migrate, OldMigrate]),
    case("commit_of_another_process_is_atomic_at_every_stop", leave_uncommitted, |dir| commit(open_or_create(dir, Reuse::Migrate(&mut grow()))?),
        &[Migrated], Migrated, &[Sweep, Rival::Migrate]),
    case("roll_back_is_atomic_at_every_stop", leave_uncommitted, |dir| roll_back(open_or_create(dir, Reuse::Migrate(&mut grow()))?),
        &[Migrated], Old, &[Sweep, Rival::Migrate]),
];

const fn case(
    name: &'static str,
    before: fn(&PinDir),
    run: fn(&PinDir) -> bpf_pin::Result<()>,
    may_be: &'static [Seen],
    end: Seen,
    rivals: &'static [Rival],
) -> Case {
    Case {
        name,
        before,
        run,
        may_be,
        end,
        rivals,
    }
}

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

fn open_or_create(dir: &PinDir, reuse: Reuse<'_, '_>) -> bpf_pin::Result<OpenedMap> {
    dir.open_or_create_with(NAME, &spec(), reuse, |map| put(map, FILLED))
}

/// Accepts success, and the failure that the policy allows.
fn may_fail(
    dir: &PinDir,
    reuse: Reuse<'_, '_>,
    is_allowed: fn(&Cause) -> bool,
) -> bpf_pin::Result<()> {
    match open_or_create(dir, reuse) {
        Err(error) if error.cause().is_some_and(is_allowed) => Ok(()),
        other => other.map(drop),
    }
}

fn pin_new(dir: &PinDir) {
    drop(open_or_create(dir, Reuse::Exact).unwrap());
}

/// Pins a map that does not match.
fn pin_old(dir: &PinDir) {
    let map = old_spec().create().unwrap();
    for (key, value) in OLD {
        let elems = map.elements::<u32, u64>().unwrap();
        elems.update(&key, &value, ElemFlags::ANY).unwrap();
    }
    dir.pin(&map, NAME).unwrap();
}

/// Leaves an uncommitted migration.
fn leave_uncommitted(dir: &PinDir) {
    pin_old(dir);
    let reused = open_or_create(dir, Reuse::Migrate(&mut grow())).unwrap();
    assert!(
        matches!(reused.outcome, MapOutcome::Migrated(_)),
        "{reused:?}"
    );
}

fn migration(reused: OpenedMap) -> Option<Migration> {
    match reused.outcome {
        MapOutcome::Migrated(migration) | MapOutcome::Resumed(migration) => Some(migration),
        MapOutcome::Found | MapOutcome::Created => None,
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

/// The state of the pin, as a reader sees it. Panics if a map is incomplete.
fn see(dir: &PinDir) -> Seen {
    let map = match dir.get::<Map>(NAME) {
        Ok(map) => map,
        Err(error) => {
            assert_cause_matches!(error, Cause::Missing { .. });
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
    assert_eq!(filled, Some(FILLED.1), "the map is not filled");
    let count = elems.keys().count();
    let has = |(key, value): &(u32, u64)| elems.lookup(key).unwrap() == Some([*value, 1]);
    match count {
        1 => Empty,
        4 if OLD.iter().all(has) => Migrated,
        _ => panic!("an incomplete map: {count} entries"),
    }
}

/// The names in the directory without hidden ones.
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

/// The continuation after a stop.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// Another process acts, and the call continues.
    Race(Rival),
    /// The process is killed, and the call is repeated.
    Again { is_swept: bool },
    /// The process is killed, and its migration is rolled back, if there is one.
    Undo { is_swept: bool },
}

fn check_every_stop(case: &Case) {
    let fs = TestFs::new();
    // Reads the seed of the standard library's hashes before the fork, so that no child reads it.
    let _ = std::hash::RandomState::new();
    // Probes what the kernel supports before the fork, so that no child does.
    let root = PinDir::open(fs.root()).unwrap();
    root.get::<bpf_pin::Object>("nothing").unwrap_err();
    let stops = all_stops(case, &fs);
    let mut thens: Vec<Then> = case.rivals.iter().copied().map(Then::Race).collect();
    for is_swept in [true, false] {
        thens.push(Then::Again { is_swept });
        if case.end == Migrated {
            thens.push(Then::Undo { is_swept });
        }
    }
    // A call that has returned and the entry of the next one are the same to other processes. The last number is the
    // end.
    let numbers: Vec<_> = (0..=stops.len())
        .filter(|&number| number == 0 || stops.get(number).is_none_or(|stop| !stop.is_entry()))
        .collect();
    let changes = |at: usize| {
        let number = numbers[at];
        (number..stops.len().min(number + 2)).any(|number| changes(&stops[number]))
            || number == stops.len()
    };
    at_each_stop(case.name, numbers.len(), changes, |at| {
        let number = numbers[at];
        for &then in &thens {
            let dir = root.create_dir(format!("{number}"), 0o700).unwrap();
            run_to_stop(case, &dir, number, then);
            let swept = dir.remove_leftovers().unwrap();
            assert!(swept.failed.is_empty(), "{swept:?}");
            root.remove_dir_all(format!("{number}")).unwrap();
        }
    });
    for name in fs.names() {
        fs::remove_dir_all(fs.at(&name)).unwrap();
    }
}

fn all_stops(case: &Case, fs: &TestFs) -> Vec<Stop> {
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
        // Another process holds the lock.
        Err(error) if matches!(error.cause(), Some(Cause::Locked | Cause::Migrating)) => 2,
        Err(error) => {
            eprintln!("{}: {error}", case.name);
            1
        }
    };
    Tracee::fork(ready, run).unwrap()
}

/// True if the call changes a map, a name or a lock.
fn changes(stop: &Stop) -> bool {
    match stop.name().as_str() {
        "OBJ_PIN" | "renameat2" | "unlink" => true,
        "MAP_FREEZE" | "MAP_UPDATE_ELEM" | "fchmodat" | "fchownat" | "fcntl" => !stop.is_entry(),
        _ => false,
    }
}

/// Runs the case up to a stop, and checks what follows.
fn run_to_stop(case: &Case, dir: &PinDir, number: usize, then: Then) {
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
        Then::Race(rival) => {
            // After some seconds the other process accepts a map that matches. This is tested once for each lock.
            let takes_lock =
                |stop: Stop| stop.nr == syscalls::FCNTL && stop.args[1] == libc::F_OFD_SETLK as u64;
            let may_wait = seen == Migrated && case.end == Old && stop.is_some_and(takes_lock);
            race(case, dir, tracee, rival, may_wait, &what)
        }
        Then::Again { is_swept } => {
            kill(dir, tracee, seen, is_swept, &what);
            (case.run)(dir).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(see(dir), case.end, "{what}");
        }
        Then::Undo { is_swept } => {
            kill(dir, tracee, seen, is_swept, &what);
            let again = open_or_create(dir, Reuse::Migrate(&mut grow()))
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            let is_undone = match again.outcome {
                MapOutcome::Migrated(_) => {
                    assert_eq!(seen, Old, "{what}");
                    true
                }
                MapOutcome::Resumed(_) => {
                    assert_eq!(seen, Migrated, "{what}");
                    true
                }
                // Already committed.
                MapOutcome::Found => false,
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

/// Kills the process. The pin stays as it was seen, and a sweep leaves at most the backup besides it.
fn kill(dir: &PinDir, tracee: Tracee, seen: Seen, is_swept: bool, what: &str) {
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

/// Another process acts at the stop; then the call continues.
fn race(case: &Case, dir: &PinDir, tracee: Tracee, rival: Rival, may_wait: bool, what: &str) {
    let before = see(dir);
    let mut has_resumed = false;
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
        Rival::Migrate => match rival::migrate(dir, may_wait, what) {
            rival::Outcome::Resumed => has_resumed = true,
            rival::Outcome::Other | rival::Outcome::Waited => {}
            rival::Outcome::Excluded => {
                assert!(matches!(before, Old | Nothing), "{what}: {before:?}")
            }
        },
        OldMigrate => {
            let same = Migrate::new(|key: &u32, value: &u64| Some((*key, *value)));
            let old = old_spec();
            let mut same = same.patience(Duration::ZERO);
            if before == Old {
                let found = dir.open_or_create(NAME, &old, Reuse::Migrate(&mut same));
                let found = found.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(
                    matches!(found.outcome, MapOutcome::Found),
                    "{what}: {found:?}"
                );
            }
        }
    }
    let then = see(dir);
    assert_eq!(tracee.finish().unwrap(), 0, "{what}: continues");
    let end = see(dir);
    let has_exchange = kernel(5, 17).unmet().is_none();
    match rival {
        Sweep | OldMigrate => assert_eq!(end, case.end, "{what}"),
        // Any map that is opened or created later matches.
        Unlink => assert!([Nothing, Empty, Migrated].contains(&end), "{what}: {end:?}"),
        // Before Linux 5.17 a map pinned between the check and the rename is lost.
        Replace if end != Seen::Rival => assert!(!has_exchange, "{what}: {end:?}"),
        Replace => {}
        Rival::Migrate if has_resumed && case.end == Old => assert_eq!(end, then, "{what}"),
        Rival::Migrate => assert_eq!(end, case.end, "{what}"),
    }
}
