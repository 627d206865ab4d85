//! `Reuse::Migrate` while other processes write, wait and are killed.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bpf_pin::error::Cause;
use bpf_pin::map::{ElemFlags, Elements};
use bpf_pin::reuse::{MapOutcome, Migrate, Migration, Reuse};
use bpf_pin::{Map, MapSpec, MapType, PinDir};
use common::child_process::{ChildProcess, send_line, task, wait_for_release};
use common::*;

const NAME: &str = "flows";

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

#[common::child]
fn child_role() -> Option<ExitCode> {
    Some(migrate_in_steps(&task()?))
}

fn spec(value_size: u32) -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, value_size, 64)
}

/// Migrates from any value size to any other. The first 8 bytes are a count.
fn resize<'f>() -> Migrate<'f> {
    Migrate::bytes(|key, value, new_key, new_value| {
        new_key.copy_from_slice(key);
        new_value[..8].copy_from_slice(&value[..8]);
        true
    })
}

/// The count of a key.
fn count(elems: &Elements<[u8], [u8], Map>, key: u32) -> u64 {
    let mut value = vec![0; elems.value_len()];
    elems
        .lookup_into(&key.to_ne_bytes(), &mut value, ElemFlags::ANY)
        .unwrap();
    u64::from_ne_bytes(value[..8].try_into().unwrap())
}

/// All counts. Panics if a key occurs twice.
fn counts(elems: &Elements<[u8], [u8], Map>) -> BTreeMap<u32, u64> {
    let mut counts = BTreeMap::new();
    let mut all = elems.iter();
    while let Some(entry) = all.next_ref() {
        let (key, value) = entry.unwrap();
        let key = u32::from_ne_bytes(key.try_into().unwrap());
        let count = u64::from_ne_bytes(value[..8].try_into().unwrap());
        assert_eq!(counts.insert(key, count), None);
    }
    counts
}

fn set(elems: &Elements<[u8], [u8], Map>, key: u32, count: u64) -> bpf_pin::Result<()> {
    let mut value = vec![0; elems.value_len()];
    value[..8].copy_from_slice(&count.to_ne_bytes());
    elems.update(&key.to_ne_bytes(), &value, ElemFlags::ANY)
}

fn open_elements(dir: &PinDir) -> Elements<[u8], [u8], Map> {
    Elements::<[u8], [u8], _>::new(dir.get(NAME).unwrap()).unwrap()
}

fn keys(elems: &Elements<[u8], [u8], Map>) -> Vec<Vec<u8>> {
    let mut keys: Vec<_> = elems.keys().map(Result::unwrap).collect();
    keys.sort();
    keys
}

const WRITERS: usize = 4;
const DONE: u32 = 1;

/// Increments its own count until the test ends, and opens the pin again if the map is frozen.
fn write(fs: &TestFs, process: Process<'_>) -> ProcessResult {
    let dir = PinDir::open(fs.root()).unwrap();
    let key = process.number as u32;
    let mut elems = open_elements(&dir);
    let (mut written, mut times) = (0, 0);
    while process.flag() < DONE {
        let count = count(&elems, key);
        assert_eq!(count, written, "writer {key} lost a count");
        match set(&elems, key, count + 1) {
            Ok(()) => written += 1,
            Err(error) => {
                assert_eq!(error.cause(), Some(&Cause::Frozen), "{error}");
                elems = open_elements(&dir);
                times += 1;
            }
        }
    }
    [written, times, 0, 0]
}

/// Opens the pin and reads a count until the test ends. The count never decreases.
///
/// It reads in batches, under the lock of the bucket: a lookup beside a writer may return the value of another
/// key, because the kernel may reuse the found element for it.
fn read(fs: &TestFs, process: Process<'_>) -> ProcessResult {
    let dir = PinDir::open(fs.root()).unwrap();
    let (mut last, mut times) = (0, 0);
    while process.flag() < DONE {
        let count = counts(&open_elements(&dir)).remove(&0).unwrap_or(0);
        assert!(count >= last, "{count} after {last}");
        last = count;
        times += 1;
    }
    [last, times, 0, 0]
}

#[common::test_alone(PINS)]
fn freezing_loses_no_count() {
    const MIGRATIONS: u32 = 20;

    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    drop(dir.open_or_create(NAME, &spec(8), Reuse::Exact).unwrap());
    let results = run_processes(WRITERS + 2, |process| match process.number {
        ..WRITERS => write(&fs, process),
        WRITERS => read(&fs, process),
        _ => {
            let dir = PinDir::open(fs.root()).unwrap();
            for number in 0..MIGRATIONS {
                std::thread::sleep(Duration::from_millis(10));
                let spec = spec(8 * (2 + number % 2));
                let mut how = resize().freeze();
                let made = dir
                    .open_or_create(NAME, &spec, Reuse::Migrate(&mut how))
                    .unwrap_or_else(|error| panic!("{error}"));
                let MapOutcome::Migrated(migration) = made.outcome else {
                    panic!("{made:?}");
                };
                migration.commit().unwrap();
            }
            process.raise_flag(DONE);
            [0; 4]
        }
    });
    let elems = open_elements(&dir);
    for (key, [written, ..]) in (0..).zip(&results[..WRITERS]) {
        assert!(*written > 0);
        assert_eq!(count(&elems, key), *written);
    }
    println!("{results:?}");
    assert_eq!(fs.names(), [NAME]);
}

/// Without a freeze, writers that have the old map open continue to write to it.
#[common::test_alone(PINS)]
fn counts_made_before_the_second_pass_are_copied() {
    for _ in 0..10 {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root()).unwrap();
        drop(dir.open_or_create(NAME, &spec(8), Reuse::Exact).unwrap());
        {
            let elems = open_elements(&dir);
            (0..WRITERS as u32).for_each(|key| set(&elems, key, 0).unwrap());
        }
        let results = run_processes(WRITERS + 1, |process| {
            if process.number < WRITERS {
                return write(&fs, process);
            }
            let dir = PinDir::open(fs.root()).unwrap();
            let old = open_elements(&dir);
            let (seen, sampled) = (Cell::new(0), Cell::new([0; WRITERS]));
            let mut how = Migrate::bytes(|key, value, new_key, new_value| {
                new_key.copy_from_slice(key);
                new_value[..8].copy_from_slice(value);
                seen.set(seen.get() + 1);
                if seen.get() == WRITERS {
                    std::thread::sleep(Duration::from_millis(2));
                    let keys: [usize; WRITERS] = std::array::from_fn(|key| key);
                    sampled.set(keys.map(|key| count(&old, key as u32)));
                }
                true
            });
            let made = dir
                .open_or_create(NAME, &spec(16), Reuse::Migrate(&mut how))
                .unwrap();
            let MapOutcome::Migrated(migration) = made.outcome else {
                panic!("{made:?}");
            };
            std::thread::sleep(Duration::from_millis(2));
            process.raise_flag(DONE);
            let new = Elements::<[u8], [u8], _>::new(made.map).unwrap();
            for (key, before) in sampled.get().into_iter().enumerate() {
                assert!(count(&new, key as u32) >= before);
            }
            migration.commit().unwrap();
            sampled.get()
        });
        let (new, sampled) = (open_elements(&dir), results[WRITERS]);
        for (key, [written, ..]) in results[..WRITERS].iter().enumerate() {
            let copied = count(&new, key as u32);
            assert!(sampled[key] <= copied && copied <= *written);
        }
        assert_eq!(fs.names(), [NAME]);
    }
}

/// Deletions and additions may disturb the walk. Every entry that stays is copied, or the migration fails.
#[common::test_alone(PINS)]
fn entries_that_stay_are_copied_beside_a_process_that_deletes_and_adds() {
    const STAY: u32 = 40;

    let (mut migrated, mut failed) = (0, 0);
    for round in 0..20 {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root()).unwrap();
        let old = dir
            .open_or_create(NAME, &spec(8), Reuse::Exact)
            .unwrap()
            .map;
        let elems = Elements::<[u8], [u8], _>::new(old.try_clone().unwrap()).unwrap();
        (0..STAY).for_each(|key| set(&elems, key, u64::from(key) + 1).unwrap());
        let results = run_processes(2, |process| {
            let dir = PinDir::open(fs.root()).unwrap();
            if process.number == 0 {
                let elems = open_elements(&dir);
                let (mut key, mut times) = (0, 0);
                while process.flag() < DONE {
                    let now = STAY + key % 20;
                    match set(&elems, now, 1).and_then(|()| elems.delete(&now.to_ne_bytes())) {
                        Ok(_) => times += 1,
                        Err(error) => assert_eq!(error.cause(), Some(&Cause::Frozen), "{error}"),
                    }
                    key += 1;
                }
                return [times, 0, 0, 0];
            }
            std::thread::sleep(Duration::from_millis(1));
            let how = resize();
            let mut how = if round % 2 == 0 { how } else { how.freeze() };
            // STAY + 1 is the exact need: at most one other entry exists at any time.
            let entries = if round % 4 < 2 { 64 } else { STAY + 1 };
            let spec = MapSpec::new(MapType::HASH, 4, 16, entries);
            let made = dir.open_or_create(NAME, &spec, Reuse::Migrate(&mut how));
            process.raise_flag(DONE);
            match made {
                Ok(made) => {
                    let MapOutcome::Migrated(migration) = made.outcome else {
                        panic!("{made:?}");
                    };
                    let old = migration.commit().unwrap();
                    let new = Elements::<[u8], [u8], _>::new(made.map).unwrap();
                    if round % 2 == 1 {
                        // Deleted entries do not come back.
                        assert_eq!(
                            keys(&new),
                            keys(&Elements::<[u8], [u8], _>::new(old).unwrap())
                        );
                    }
                    (0..STAY).for_each(|key| assert_eq!(count(&new, key), u64::from(key) + 1));
                    [0; 4]
                }
                Err(error) => {
                    assert_cause_matches!(
                        error,
                        Cause::IterationAborted | Cause::MaxEntries { .. }
                    );
                    let now = dir.identity(NAME).unwrap();
                    assert_eq!(now, old.identity().unwrap());
                    [1, 0, 0, 0]
                }
            }
        });
        match results[1][0] {
            0 => migrated += 1,
            _ => failed += 1,
        }
        assert_eq!(fs.names(), [NAME], "{results:?}");
    }
    println!("migrated: {migrated}, failed: {failed}");
    assert!(migrated > failed);
}

/// Processes of two versions migrate the map to their own version in turn.
#[common::test_alone(PINS)]
fn two_versions_that_migrate_back_and_forth_lose_no_entry() {
    const OF_EACH: usize = 4;
    const TIMES: usize = 10;

    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    {
        drop(dir.open_or_create(NAME, &spec(8), Reuse::Exact).unwrap());
        let elems = open_elements(&dir);
        (0..20).for_each(|key| set(&elems, key, u64::from(key) + 1).unwrap());
    }
    let results = run_processes(2 * OF_EACH, |process| {
        let dir = PinDir::open(fs.root()).unwrap();
        let size = 8 * (1 + process.number as u32 % 2);
        let (mut migrated, mut found) = (0, 0);
        for time in 0..TIMES {
            std::thread::sleep(Duration::from_millis(1));
            let (map, outcome) = open_or_migrate(&dir, size, Duration::from_secs(100)).unwrap();
            let elems = Elements::<[u8], [u8], _>::new(map).unwrap();
            assert_eq!(elems.value_len(), size as usize);
            (0..20).for_each(|key| assert_eq!(count(&elems, key), u64::from(key) + 1));
            match outcome {
                MapOutcome::Migrated(migration) | MapOutcome::Resumed(migration) => {
                    migrated += 1;
                    // Some leave the commit to the next process.
                    if (time + process.number) % 5 != 0 {
                        migration.commit().unwrap();
                    }
                }
                MapOutcome::Found => found += 1,
                other => panic!("{other:?}"),
            }
        }
        [migrated, found, 0, 0]
    });
    println!("{results:?}");
    // It may be a single migration, if one version was done before the other began.
    assert!(results.iter().map(|result| result[0]).sum::<u64>() > 0);
    if let MapOutcome::Resumed(migration) =
        open_or_migrate(&dir, open_elements(&dir).value_len() as u32, Duration::ZERO)
            .unwrap()
            .1
    {
        migration.commit().unwrap();
    }
    assert_eq!(fs.names(), [NAME]);
}

/// Forks processes that all hold the same migration. Returns whether each has ended it.
fn ended_by(how: impl Fn(usize, Migration) -> bool) -> (TestFs, Vec<bool>) {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    drop(dir.open_or_create(NAME, &spec(8), Reuse::Exact).unwrap());
    set(&open_elements(&dir), 1, 7).unwrap();
    let (_, outcome) = open_or_migrate(&dir, 16, Duration::ZERO).unwrap();
    let MapOutcome::Migrated(migration) = outcome else {
        panic!("{outcome:?}");
    };
    let migration = Cell::new(Some(migration));
    let results = run_processes(8, |process| {
        let migration = migration.take().expect("the process's copy");
        [u64::from(how(process.number, migration)), 0, 0, 0]
    });
    assert_eq!(count(&open_elements(&dir), 1), 7);
    assert_eq!(fs.names(), [NAME]);
    (fs, results.iter().map(|results| results[0] == 1).collect())
}

#[common::test_alone(PINS)]
fn concurrent_commits_all_succeed() {
    for _ in 0..20 {
        let (fs, done) = ended_by(|_, migration| migration.commit().is_ok());
        // A commit that finds the backup gone succeeds.
        assert!(done.iter().all(|&done| done), "{done:?}");
        assert_eq!(
            open_elements(&PinDir::open(fs.root()).unwrap()).value_len(),
            16
        );
    }
}

#[common::test_alone(PINS)]
fn one_rollback_succeeds_beside_concurrent_commits() {
    for _ in 0..20 {
        let (fs, done) = ended_by(|number, migration| match number % 2 {
            0 => migration.commit().is_ok(),
            _ => match migration.roll_back() {
                Ok(_) => true,
                Err(failed) => {
                    let is_late = matches!(failed.cause(), Some(Cause::Replaced { .. }));
                    assert!(is_late, "{}", failed.error());
                    false
                }
            },
        });
        let rolled_back = done.iter().skip(1).step_by(2).filter(|&&done| done).count();
        assert_eq!(rolled_back, 1, "{done:?}");
        assert!(done.iter().step_by(2).all(|&done| done), "{done:?}");
        assert_eq!(
            open_elements(&PinDir::open(fs.root()).unwrap()).value_len(),
            8
        );
    }
}

/// The child process: begins a migration, and waits for the parent before it finishes.
fn migrate_in_steps(task: &str) -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let dir = PinDir::open(args.next().expect("a directory")).expect("a directory");
    assert_eq!(task, "migrate");
    let mut has_waited = false;
    let how = Migrate::new(|key: &u32, value: &u64| {
        if !has_waited {
            send_line("ready");
            wait_for_release();
            has_waited = true;
        }
        Some((*key, [*value, 1]))
    });
    let made = dir.open_or_create(NAME, &spec(16), Reuse::Migrate(&mut how.freeze()));
    match made.expect("a map").outcome {
        MapOutcome::Migrated(migration) => drop(migration.commit().expect("a commit")),
        other => panic!("{other:?}"),
    }
    ExitCode::SUCCESS
}

fn open_or_migrate(
    dir: &PinDir,
    value_size: u32,
    patience: Duration,
) -> bpf_pin::Result<(Map, MapOutcome)> {
    let mut how = resize().patience(patience);
    let made = dir.open_or_create(NAME, &spec(value_size), Reuse::Migrate(&mut how))?;
    Ok((made.map, made.outcome))
}

/// A map with one entry, and a process that has begun to migrate it.
fn migrating(fs: &TestFs, dir: &PinDir) -> bpf_pin::Result<(Map, ChildProcess)> {
    let map = dir.open_or_create(NAME, &spec(8), Reuse::Exact)?.map;
    map.elements::<u32, u64>()?.update(&1, &7, ElemFlags::ANY)?;
    Ok((map, ChildProcess::start_ready(fs, "migrate", [fs.root()])))
}

#[common::test(PINS)]
fn a_migration_of_another_process_is_reported() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (old, other) = migrating(&fs, &dir)?;
    for patience in [Duration::ZERO, Duration::from_millis(130)] {
        let begin = Instant::now();
        let error = open_or_migrate(&dir, 16, patience).unwrap_err();
        assert_eq!(error.cause(), Some(&Cause::Migrating), "{error}");
        assert!(begin.elapsed() >= patience);
        assert_eq!(error.path(), Some(&*dir.path().join(NAME)));
        // A process that the old map matches does not wait.
        let (map, outcome) = open_or_migrate(&dir, 8, Duration::ZERO)?;
        assert!(matches!(outcome, MapOutcome::Found));
        assert_eq!(map.id()?, old.id()?);
    }
    // Other names are not locked.
    dir.pin(&spec(8).create()?, "other")?;
    let mut how = resize().patience(Duration::ZERO);
    let made = dir.open_or_create("other", &spec(16), Reuse::Migrate(&mut how))?;
    assert!(matches!(made.outcome, MapOutcome::Migrated(_)));
    let kept = backup_name("other", made.map.id()?);
    drop(made);
    assert_eq!(fs.names(), [kept.as_str(), NAME, "other"]);
    other.finish();
    let (_, outcome) = open_or_migrate(&dir, 16, Duration::ZERO)?;
    assert!(matches!(outcome, MapOutcome::Found), "{outcome:?}");
    assert_eq!(dir.remove_leftovers()?.removed.len(), 0);
    assert_eq!(fs.names(), [kept.as_str(), NAME, "other"]);
    Ok(())
}

/// Starts a migration that must wait, then acts, and returns its result.
fn migrate_after(dir: &PinDir, act: impl FnOnce()) -> bpf_pin::Result<(Map, MapOutcome)> {
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| open_or_migrate(dir, 16, Duration::from_secs(600)));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!waits.is_finished());
        act();
        waits.join().expect("a thread")
    })
}

#[common::test(PINS)]
fn the_migration_of_another_process_is_awaited() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (old, mut other) = migrating(&fs, &dir)?;
    let (map, outcome) = migrate_after(&dir, || other.release())?;
    // Just before the other process commits, or after.
    assert!(
        matches!(outcome, MapOutcome::Found | MapOutcome::Resumed(_)),
        "{outcome:?}"
    );
    assert_ne!(map.id()?, old.id()?);
    assert_eq!(map.elements::<u32, [u64; 2]>()?.lookup(&1)?, Some([7, 1]));
    other.finish();
    drop(outcome);
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

#[common::test(PINS)]
fn a_migration_is_repeated_after_its_process_is_killed() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (old, other) = migrating(&fs, &dir)?;
    let (map, outcome) = migrate_after(&dir, || other.kill())?;
    let MapOutcome::Migrated(migration) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(migration.commit()?.id()?, old.id()?);
    assert_eq!(map.elements::<u32, [u64; 2]>()?.lookup(&1)?, Some([7, 0]));
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}
