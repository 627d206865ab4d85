//! `Reuse::Migrate` while others write, wait and die.

use common::child_process;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bpf_pin::error::Cause;
use bpf_pin::map::{ElemFlags, Elements};
use bpf_pin::reuse::{MapOutcome as Done, Migrate, Migration, Reuse};
use bpf_pin::{Map, MapSpec, MapType, PinDir};
use common::*;

use common::child_process::ChildProcess;

const NAME: &str = "flows";

const ALONE: &[(&str, fn())] = &[
    ("no_count_is_lost_to_a_freeze", counted),
    ("what_was_counted_before_the_second_pass", counted_before),
    ("beside_one_that_deletes_and_adds", churned),
    ("two_versions_that_undo_each_other", two_versions),
    ("many_that_commit_it_at_once", many_commit),
    ("some_commit_it_and_some_roll_it_back", many_end),
];

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

#[common::child]
fn child_role() -> Option<ExitCode> {
    Some(child(&child_process::task()?))
}

common::cases_alone!(
    || ALONE.iter().map(|&(name, _)| (name, PINS)).collect(),
    |name| {
        let (_, run) = ALONE
            .iter()
            .find(|(known, _)| *known == name)
            .expect("a case");
        run();
    }
);

fn spec(value_size: u32) -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, value_size, 64)
}

/// From any size to any other: the count stands first.
fn resize<'f>() -> Migrate<'f> {
    Migrate::bytes(|key, value, new_key, new_value| {
        new_key.copy_from_slice(key);
        new_value[..8].copy_from_slice(&value[..8]);
        true
    })
}

fn count(elems: &Elements<[u8], [u8], Map>, key: u32) -> u64 {
    let mut value = vec![0; elems.value_len()];
    elems
        .lookup_into(&key.to_ne_bytes(), &mut value, ElemFlags::ANY)
        .unwrap();
    u64::from_ne_bytes(value[..8].try_into().unwrap())
}

/// All of them; each key comes once.
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

fn open(dir: &PinDir) -> Elements<[u8], [u8], Map> {
    Elements::<[u8], [u8], _>::new(dir.get(NAME).unwrap()).unwrap()
}

fn keys(elems: &Elements<[u8], [u8], Map>) -> Vec<Vec<u8>> {
    let mut keys: Vec<_> = elems.keys().map(Result::unwrap).collect();
    keys.sort();
    keys
}

const WRITERS: usize = 4;
const DONE: u32 = 1;

/// Adds to its own count until all is done, and opens the name anew where the map is frozen.
fn write(fs: &TestFs, process: Process<'_>) -> ProcessResult {
    let dir = PinDir::open(fs.root()).unwrap();
    let key = process.number as u32;
    let mut elems = open(&dir);
    let (mut written, mut times) = (0, 0);
    while process.flag() < DONE {
        let count = count(&elems, key);
        assert_eq!(count, written, "writer {key}: a count is lost");
        match set(&elems, key, count + 1) {
            Ok(()) => written += 1,
            Err(error) => {
                assert_eq!(error.cause(), Some(&Cause::Frozen), "{error}");
                elems = open(&dir);
                times += 1;
            }
        }
    }
    [written, times, 0, 0]
}

/// Reads by the name: no count goes back.
///
/// In a batch, under the lock of the bucket: a lookup beside a writer may come with the value of
/// another key, whose element the kernel has made of the one that was found.
fn read(fs: &TestFs, process: Process<'_>) -> ProcessResult {
    let dir = PinDir::open(fs.root()).unwrap();
    let (mut last, mut times) = (0, 0);
    while process.flag() < DONE {
        let count = counts(&open(&dir)).remove(&0).unwrap_or(0);
        assert!(count >= last, "{count} after {last}");
        last = count;
        times += 1;
    }
    [last, times, 0, 0]
}

fn counted() {
    const MIGRATIONS: u32 = 20;

    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    drop(dir.open_or_create(NAME, &spec(8), Reuse::Exact).unwrap());
    let said = run_processes(WRITERS + 2, |process| match process.number {
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
                let Done::Migrated(migration) = made.outcome else {
                    panic!("{made:?}");
                };
                migration.commit().unwrap();
            }
            process.raise_flag(DONE);
            [0; 4]
        }
    });
    let elems = open(&dir);
    for (key, [written, ..]) in (0..).zip(&said[..WRITERS]) {
        assert!(*written > 0);
        assert_eq!(count(&elems, key), *written);
    }
    println!("{said:?}");
    assert_eq!(fs.names(), [NAME]);
}

/// Without a freeze: whoever has the old one open goes on with it.
fn counted_before() {
    for _ in 0..10 {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root()).unwrap();
        drop(dir.open_or_create(NAME, &spec(8), Reuse::Exact).unwrap());
        {
            let elems = open(&dir);
            (0..WRITERS as u32).for_each(|key| set(&elems, key, 0).unwrap());
        }
        let said = run_processes(WRITERS + 1, |process| {
            if process.number < WRITERS {
                return write(&fs, process);
            }
            let dir = PinDir::open(fs.root()).unwrap();
            let old = open(&dir);
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
            let Done::Migrated(migration) = made.outcome else {
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
        let (new, sampled) = (open(&dir), said[WRITERS]);
        for (key, [written, ..]) in said[..WRITERS].iter().enumerate() {
            let copied = count(&new, key as u32);
            assert!(sampled[key] <= copied && copied <= *written);
        }
        assert_eq!(fs.names(), [NAME]);
    }
}

/// Whatever it makes of the walk: what stays is there, or nothing is done.
fn churned() {
    const STAY: u32 = 40;

    let (mut migrated, mut unsettled) = (0, 0);
    for round in 0..20 {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root()).unwrap();
        let old = dir
            .open_or_create(NAME, &spec(8), Reuse::Exact)
            .unwrap()
            .map;
        let elems = Elements::<[u8], [u8], _>::new(old.try_clone().unwrap()).unwrap();
        (0..STAY).for_each(|key| set(&elems, key, u64::from(key) + 1).unwrap());
        let said = run_processes(2, |process| {
            let dir = PinDir::open(fs.root()).unwrap();
            if process.number == 0 {
                let elems = open(&dir);
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
            // No larger than needed: there is one more at any time.
            let entries = if round % 4 < 2 { 64 } else { STAY + 1 };
            let spec = MapSpec::new(MapType::HASH, 4, 16, entries);
            let made = dir.open_or_create(NAME, &spec, Reuse::Migrate(&mut how));
            process.raise_flag(DONE);
            match made {
                Ok(made) => {
                    let Done::Migrated(migration) = made.outcome else {
                        panic!("{made:?}");
                    };
                    let old = migration.commit().unwrap();
                    let new = Elements::<[u8], [u8], _>::new(made.map).unwrap();
                    if round % 2 == 1 {
                        // Nor does anything come back that was deleted.
                        assert_eq!(
                            keys(&new),
                            keys(&Elements::<[u8], [u8], _>::new(old).unwrap())
                        );
                    }
                    (0..STAY).for_each(|key| assert_eq!(count(&new, key), u64::from(key) + 1));
                    [0; 4]
                }
                Err(error) => {
                    let is_known = matches!(
                        error.cause(),
                        Some(Cause::IterationAborted | Cause::MaxEntries { .. })
                    );
                    assert!(is_known, "{error}");
                    let now = dir.identity(NAME).unwrap();
                    assert_eq!(now, old.identity().unwrap());
                    [1, 0, 0, 0]
                }
            }
        });
        match said[1][0] {
            0 => migrated += 1,
            _ => unsettled += 1,
        }
        assert_eq!(fs.names(), [NAME], "{said:?}");
    }
    println!("migrated {migrated} times, {unsettled} times it came to no end");
    assert!(migrated > unsettled);
}

/// Each finds the other's map, and makes its own of it, by turns: no entry is lost on the way.
fn two_versions() {
    const OF_EACH: usize = 4;
    const TIMES: usize = 10;

    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    {
        drop(dir.open_or_create(NAME, &spec(8), Reuse::Exact).unwrap());
        let elems = open(&dir);
        (0..20).for_each(|key| set(&elems, key, u64::from(key) + 1).unwrap());
    }
    let said = run_processes(2 * OF_EACH, |process| {
        let dir = PinDir::open(fs.root()).unwrap();
        let size = 8 * (1 + process.number as u32 % 2);
        let (mut migrated, mut found) = (0, 0);
        for time in 0..TIMES {
            std::thread::sleep(Duration::from_millis(1));
            let (map, outcome) = ask(&dir, size, Duration::from_secs(100)).unwrap();
            let elems = Elements::<[u8], [u8], _>::new(map).unwrap();
            assert_eq!(elems.value_len(), size as usize);
            (0..20).for_each(|key| assert_eq!(count(&elems, key), u64::from(key) + 1));
            match outcome {
                Done::Migrated(migration) | Done::Resumed(migration) => {
                    migrated += 1;
                    // Some leave that to the next.
                    if (time + process.number) % 5 != 0 {
                        migration.commit().unwrap();
                    }
                }
                Done::Found => found += 1,
                other => panic!("{other:?}"),
            }
        }
        [migrated, found, 0, 0]
    });
    println!("{said:?}");
    // More than once, unless all of one version were done before the other's first came.
    assert!(said.iter().map(|said| said[0]).sum::<u64>() > 0);
    if let Done::Resumed(migration) = ask(&dir, open(&dir).value_len() as u32, Duration::ZERO)
        .unwrap()
        .1
    {
        migration.commit().unwrap();
    }
    assert_eq!(fs.names(), [NAME]);
}

/// A migration that each of a crowd has, as forked processes have it; and whether each has ended it.
fn ended_by(how: impl Fn(usize, Migration) -> bool) -> (TestFs, Vec<bool>) {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    drop(dir.open_or_create(NAME, &spec(8), Reuse::Exact).unwrap());
    set(&open(&dir), 1, 7).unwrap();
    let (_, outcome) = ask(&dir, 16, Duration::ZERO).unwrap();
    let Done::Migrated(migration) = outcome else {
        panic!("{outcome:?}");
    };
    let migration = Cell::new(Some(migration));
    let said = run_processes(8, |process| {
        let migration = migration.take().expect("a copy of its own");
        [u64::from(how(process.number, migration)), 0, 0, 0]
    });
    assert_eq!(count(&open(&dir), 1), 7);
    assert_eq!(fs.names(), [NAME]);
    (fs, said.iter().map(|said| said[0] == 1).collect())
}

fn many_commit() {
    for _ in 0..20 {
        let (fs, done) = ended_by(|_, migration| migration.commit().is_ok());
        // That it was done already is fine.
        assert!(done.iter().all(|&done| done), "{done:?}");
        assert_eq!(open(&PinDir::open(fs.root()).unwrap()).value_len(), 16);
    }
}

/// One that has the name is what they leave, whoever is last.
fn many_end() {
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
        assert_eq!(open(&PinDir::open(fs.root()).unwrap()).value_len(), 8);
    }
}

/// In another process: migrates, and waits amid it until it is told to go on.
fn child(task: &str) -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let dir = PinDir::open(args.next().expect("a directory")).expect("a directory");
    assert_eq!(task, "migrate");
    let mut is_told = false;
    let how = Migrate::new(|key: &u32, value: &u64| {
        if !is_told {
            child_process::send_line("ready");
            child_process::wait_for_release();
            is_told = true;
        }
        Some((*key, [*value, 1]))
    });
    let made = dir.open_or_create(NAME, &spec(16), Reuse::Migrate(&mut how.freeze()));
    match made.expect("a map").outcome {
        Done::Migrated(migration) => drop(migration.commit().expect("a commit")),
        other => panic!("{other:?}"),
    }
    ExitCode::SUCCESS
}

fn ask(
    dir: &PinDir,
    value_size: u32,
    patience: Duration,
) -> bpf_pin::Result<(Map, bpf_pin::reuse::MapOutcome)> {
    let mut how = resize().patience(patience);
    let made = dir.open_or_create(NAME, &spec(value_size), Reuse::Migrate(&mut how))?;
    Ok((made.map, made.outcome))
}

/// A map with one entry, and a process that is amid its migration.
fn amid(fs: &TestFs, dir: &PinDir) -> bpf_pin::Result<(Map, ChildProcess)> {
    let map = dir.open_or_create(NAME, &spec(8), Reuse::Exact)?.map;
    map.elements::<u32, u64>()?.update(&1, &7, ElemFlags::ANY)?;
    Ok((map, ChildProcess::start_ready(fs, "migrate", [fs.root()])))
}

#[common::test(PINS)]
fn another_process_has_the_turn() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (old, other) = amid(&fs, &dir)?;
    for patience in [Duration::ZERO, Duration::from_millis(130)] {
        let begin = Instant::now();
        let error = ask(&dir, 16, patience).unwrap_err();
        assert_eq!(error.cause(), Some(&Cause::Migrating), "{error}");
        assert!(begin.elapsed() >= patience);
        let text = error.to_string();
        assert!(text.contains(NAME), "{text}");
        // Whom the old one fits, waits for nobody.
        let (map, outcome) = ask(&dir, 8, Duration::ZERO)?;
        assert!(matches!(outcome, Done::Found));
        assert_eq!(map.id()?, old.id()?);
    }
    // Neither is another name's turn his.
    dir.pin(&spec(8).create()?, "other")?;
    let mut how = resize().patience(Duration::ZERO);
    let made = dir.open_or_create("other", &spec(16), Reuse::Migrate(&mut how))?;
    assert!(matches!(made.outcome, Done::Migrated(_)));
    let kept = backup_name("other", made.map.id()?);
    drop(made);
    assert_eq!(fs.names(), [kept.as_str(), NAME, "other"]);
    other.finish();
    let (_, outcome) = ask(&dir, 16, Duration::ZERO)?;
    assert!(matches!(outcome, Done::Found), "{outcome:?}");
    assert_eq!(dir.remove_leftovers()?.removed.len(), 0);
    assert_eq!(fs.names(), [kept.as_str(), NAME, "other"]);
    Ok(())
}

/// For no longer than it takes.
#[common::test(PINS)]
fn another_process_is_waited_for() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (old, mut other) = amid(&fs, &dir)?;
    let (map, outcome) = std::thread::scope(|scope| {
        let waits = scope.spawn(|| ask(&dir, 16, Duration::from_secs(600)));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!waits.is_finished());
        other.release();
        waits.join().expect("a thread")
    })?;
    // Right before its commit, or after it.
    assert!(
        matches!(outcome, Done::Found | Done::Resumed(_)),
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
fn another_process_is_killed() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (old, other) = amid(&fs, &dir)?;
    let (map, outcome) = std::thread::scope(|scope| {
        let waits = scope.spawn(|| ask(&dir, 16, Duration::from_secs(600)));
        std::thread::sleep(Duration::from_millis(150));
        assert!(!waits.is_finished());
        other.kill();
        waits.join().expect("a thread")
    })?;
    let Done::Migrated(migration) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(migration.commit()?.id()?, old.id()?);
    assert_eq!(map.elements::<u32, [u64; 2]>()?.lookup(&1)?, Some([7, 0]));
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}
