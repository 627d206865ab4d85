//! A name switches to another object without a gap, even under contention, and a failure leaves
//! nothing behind.

mod failures;
mod replace_if;
use crate::stress;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use bpf_pin::error::Cause;
use bpf_pin::{Identity, Kind, Map, Object, PinDir, Prog};
use common::*;
use rustix::thread::CapabilitySet;

use crate::stress::{PastObjects, Repetitions, StressTest, Worker};

const NAME: &str = "flows";
const DECOY: &str = "decoy";

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const USERS: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];

const STRESS_TESTS: &[StressTest] = &[
    ("threads", threads),
    ("kinds", kinds),
    ("processes", processes),
    ("writer", writer),
    ("keeping_mode", keeping_mode),
    ("few_descriptors", failures::few_descriptors),
    ("fork", fork),
    ("replace_during_cleanup", replace_during_cleanup),
    ("cleaner", cleaner),
    ("swap_concurrently", replace_if::swap_concurrently),
    ("swap_during_replace", replace_if::swap_during_replace),
];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    if let Some(played) = stress::run_requested(STRESS_TESTS) {
        return Some(played);
    }
    None
}

#[common::test(PINS)]
fn readers_always_find_a_pin_while_threads_replace_it() -> Outcome {
    stress::run("threads")
}

#[common::test(PINS)]
fn readers_always_find_a_pin_while_processes_replace_it() -> Outcome {
    stress::run("processes")
}

#[common::test(PINS)]
fn readers_always_find_a_map_or_a_program_under_one_name() -> Outcome {
    stress::run("kinds")
}

#[common::test(USERS)]
fn replace_keeping_mode_never_denies_access_to_readers() -> Outcome {
    stress::run("keeping_mode")
}

#[common::test(PINS)]
fn a_forked_process_and_its_parent_can_both_replace() -> Outcome {
    stress::run("fork")
}

#[common::test(PINS)]
fn remove_leftovers_keeps_temporary_names_of_live_processes() -> Outcome {
    stress::run("replace_during_cleanup")
}

/// Opens the pin in one of three ways: in the held directory, by path, or as an object of any kind.
fn read_once(fs: &TestFs, dir: &PinDir, way: usize, past: &PastObjects) -> u32 {
    let identity = match way % 3 {
        0 => dir.get::<Map>(NAME).and_then(|map| map.identity()),
        1 => Map::open(fs.at(NAME)).and_then(|map| map.identity()),
        _ => dir
            .get::<bpf_pin::Object>(NAME)
            .and_then(|object| object.identity()),
    };
    past.assert_contains(identity.unwrap_or_else(|error| panic!("reader {way}: {error}")));
    1
}

fn threads() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    hash().pin(fs.at(DECOY))?;
    let make = || Object::from(hash());
    let past = PastObjects::default();
    let first = make();
    past.insert(first.identity()?);
    dir.replace(&first, NAME)?;
    let repetitions = Repetitions::new(300, 10_000, Duration::from_secs(3));
    let write = |writer: usize| {
        // Half of the writers share one descriptor, the others use their own.
        let own = PinDir::open(fs.root()).unwrap();
        let dir = if writer % 2 == 0 { &dir } else { &own };
        let mut object = make();
        let mut count = 0;
        while repetitions.continue_after(count) {
            if count % 50 == 0 {
                object = make();
                past.insert(object.identity().unwrap());
            }
            dir.replace(&object, NAME)
                .unwrap_or_else(|error| panic!("replacement {count}: {error}"));
            count += 1;
        }
        (count, object.identity().unwrap())
    };
    let (written, read) =
        stress::write_and_read(8, write, 8, |way| read_once(&fs, &dir, way, &past));
    let (written, last): (Vec<_>, Vec<_>) = written.into_iter().unzip();
    println!("replaced {written:?} times, read {read} times");
    let holder = dir.identity(NAME)?;
    assert!(last.contains(&holder), "{holder} was not the last of any");
    assert_eq!(fs.names(), [DECOY, NAME]);
    Ok(())
}

/// The writers alternate between maps and programs. A reader of one kind gets `WrongKind` for the
/// other.
fn kinds() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let objects: Vec<Object> = (0..16)
        .map(|i| match i % 2 {
            0 => hash().into(),
            _ => prog().into(),
        })
        .collect();
    let past = PastObjects::default();
    for object in &objects {
        past.insert(object.identity()?);
    }
    dir.replace(&objects[0], NAME)?;
    let repetitions = Repetitions::new(300, 10_000, Duration::from_millis(700));
    let (maps, progs) = (AtomicU32::new(0), AtomicU32::new(0));
    let seen = |identity: Identity| {
        past.assert_contains(identity);
        let count = match identity.kind {
            Kind::Map => &maps,
            _ => &progs,
        };
        count.fetch_add(1, Relaxed);
    };
    let other = |error: bpf_pin::Error, expected, found| {
        let cause = Cause::WrongKind { expected, found };
        assert_eq!(error.cause(), Some(&cause), "{error}");
        assert_eq!(error.raw_os_error(), None, "{error}");
    };
    let read = |way: usize| {
        match way % 4 {
            0 => seen(
                dir.get::<bpf_pin::Object>(NAME)
                    .unwrap()
                    .identity()
                    .unwrap(),
            ),
            1 => seen(Object::open(fs.at(NAME)).unwrap().identity().unwrap()),
            2 => match dir.get::<Map>(NAME) {
                Ok(map) => seen(map.identity().unwrap()),
                Err(error) => other(error, Kind::Map, Kind::Prog),
            },
            _ => match Prog::open(fs.at(NAME)) {
                Ok(prog) => seen(prog.identity().unwrap()),
                Err(error) => other(error, Kind::Prog, Kind::Map),
            },
        }
        1
    };
    let write = |writer: usize| {
        let mut count = 0;
        while repetitions.continue_after(count) {
            let object = &objects[(writer + count as usize) % objects.len()];
            dir.replace(object, NAME).unwrap();
            count += 1;
        }
    };
    stress::write_and_read(8, write, 8, read);
    let (maps, progs) = (maps.into_inner(), progs.into_inner());
    println!("read a map {maps} times, a program {progs} times");
    assert!(maps > 0 && progs > 0);
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

const POOL: usize = 16;

fn in_pool(writer: usize, i: usize) -> String {
    format!("{writer}-{i}")
}

/// Each writer takes its maps from a pool. Every second map in the pool never gets the name.
fn processes() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let pool = dir.create_dir("pool", 0o700)?;
    let past = PastObjects::default();
    for writer in 0..8 {
        for i in 0..POOL {
            let map = hash();
            if i % 2 == 0 {
                past.insert(map.identity()?);
            }
            pool.pin(&map, in_pool(writer, i))?;
        }
    }
    dir.replace(&pool.get::<Map>(in_pool(0, 0))?, NAME)?;
    let actors: Vec<_> = (0..8)
        .map(|_| Worker::start("writer", &fs))
        .collect::<Result<_, _>>()?;
    let finish = || -> Vec<_> {
        for writer in 0..8 {
            // The first process to remove this name takes its number and starts.
            dir.pin(&hash(), format!("start-{writer}")).unwrap();
        }
        actors.into_iter().map(Worker::finish).collect()
    };
    let (outputs, read) = stress::read_during(finish, 8, |way| read_once(&fs, &dir, way, &past));
    let outputs: Vec<_> = outputs.into_iter().collect::<Result<_, _>>()?;
    let counts: Vec<u32> = outputs.iter().map(|s| s.trim().parse().unwrap()).collect();
    println!("replaced {counts:?} times by processes, read {read} times");
    assert_eq!(fs.names(), [NAME, "pool"]);
    Ok(())
}

fn writer() -> Outcome {
    let dir = PinDir::open(stress::worker_root())?;
    // The number comes from the first "start-" name that this process removes.
    let writer = (0..8)
        .cycle()
        .find(|n| dir.unlink(format!("start-{n}")).is_ok());
    let writer = writer.expect("a number");
    let pool = dir.open_dir("pool")?;
    let maps: Vec<Map> = (0..POOL)
        .step_by(2)
        .map(|i| pool.get(in_pool(writer, i)))
        .collect::<Result<_, _>>()?;
    let repetitions = Repetitions::new(300, 10_000, Duration::from_secs(3));
    let mut count = 0;
    while repetitions.continue_after(count) {
        dir.replace(&maps[count as usize % maps.len()], NAME)?;
        count += 1;
    }
    println!("{count}");
    Ok(())
}

/// The group can open the pin at any time, and no reader sees another mode or owner.
fn keeping_mode() -> Outcome {
    const GROUP: u32 = 1234;

    let fs = TestFs::detached("755");
    let dir = PinDir::open(fs.root())?;
    let maps: Vec<_> = (0..8).map(|_| hash()).collect();
    dir.pin(&maps[0], NAME)?;
    dir.set_owner(NAME, Some(77), Some(GROUP))?;
    dir.set_mode(NAME, 0o660)?;
    let repetitions = Repetitions::new(300, 5_000, Duration::from_millis(700));
    let (done, read) = (AtomicBool::new(false), AtomicU32::new(0));
    let reader = |way: usize| {
        as_user(CapabilitySet::BPF, || {
            while !done.load(Relaxed) {
                let opened = match way % 2 {
                    0 => dir.get::<Map>(NAME),
                    _ => Map::open(fs.at(NAME)),
                };
                opened.unwrap_or_else(|error| panic!("reader {way}: {error}"));
                read.fetch_add(1, Relaxed);
            }
        });
    };
    thread::scope(|scope| {
        let (dir, repetitions, done, maps, reader) = (&dir, &repetitions, &done, &maps, &reader);
        let mut readers: Vec<_> = (0..4).map(|way| scope.spawn(move || reader(way))).collect();
        readers.push(scope.spawn(move || {
            while !done.load(Relaxed) {
                let found = dir.metadata(NAME).unwrap();
                let found = (found.mode(), found.uid(), found.gid());
                assert_eq!(found, (0o660, 77, GROUP));
            }
        }));
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                scope.spawn(move || {
                    let mut count = 0;
                    while repetitions.continue_after(count) {
                        let map = &maps[(writer + count as usize) % maps.len()];
                        dir.replace_keeping_mode(map, NAME).unwrap();
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let ends: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Relaxed);
        readers.into_iter().for_each(|r| r.join().unwrap());
        let counts: Vec<_> = ends.into_iter().map(Result::unwrap).collect();
        println!("replaced {counts:?} times keeping the mode");
    });
    println!("opened {} times by the group", read.load(Relaxed));
    assert!(read.into_inner() > 0);
    assert_eq!(fs.names(), [NAME]);
    // `replace` does not keep mode and group, so the group loses access.
    dir.replace(&maps[0], NAME)?;
    let found = dir.metadata(NAME)?;
    assert_eq!((found.uid(), found.gid()), (0, 0));
    let error = as_user(CapabilitySet::BPF, || dir.get::<Map>(NAME).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
    assert_cause_matches!(error, Cause::Blocked { .. });
    Ok(())
}

/// Parent and child continue the same sequence of temporary names, under one claim.
fn fork() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let maps: Vec<_> = (0..8).map(|_| hash()).collect();
    let cleaner = Worker::start("cleaner", &fs)?;
    // The first fork happens before the claim exists, the second after.
    for _ in 0..2 {
        // SAFETY: this process has one thread.
        let child = unsafe { common::fork() };
        assert!(child >= 0, "{}", std::io::Error::last_os_error());
        let mine = &maps[if child == 0 { 0..4 } else { 4..8 }];
        let repetitions = Repetitions::new(300, 5_000, Duration::from_millis(300));
        let mut count = 0;
        let mut replace = || {
            while repetitions.continue_after(count) {
                dir.replace(&mine[count as usize % mine.len()], NAME)?;
                // The lock uses a new open file, so it excludes the other process.
                let _lock = dir.lock(LockMode::Exclusive, Wait::Forever)?;
                let seen = dir.identity(NAME)?;
                match dir.replace_if(&mine[0], NAME, seen) {
                    Err(error) if matches!(error.cause(), Some(Cause::Replaced { .. })) => {}
                    swapped => swapped?,
                }
                count += 1;
            }
            Ok(())
        };
        let replaced: bpf_pin::Result<()> = replace();
        if child == 0 {
            if let Err(error) = &replaced {
                eprintln!("the child's replacement {count}: {error}");
            }
            // SAFETY: _exit skips the buffers and destructors, which belong to the parent.
            unsafe { libc::_exit(replaced.is_err().into()) };
        }
        let mut status = 0;
        // SAFETY: `status` is writable, and `child` is a child of this process.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        replaced?;
        assert_eq!(status, 0, "the child failed");
        println!("replaced {count} times by the parent of a fork");
        let ids: Vec<_> = maps.iter().map(Map::identity).collect::<Result<_, _>>()?;
        assert!(ids.contains(&dir.identity(NAME)?));
    }
    cleaner.finish()?;
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

/// Names that resemble temporary names but are not valid ones.
const SIMILAR_NAMES: &[&str] = &[
    "_bpf-pin-",
    "_bpf-pin-0123456789ABCDEF-1",
    "_bpf-pin-0123456789abcdef-01",
];
/// A valid temporary name without a living owner.
const LEFTOVER: &str = "_bpf-pin-0123456789abcdef-1";

fn replace_during_cleanup() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    for name in SIMILAR_NAMES {
        dir.pin(&hash(), name)?;
    }
    let cleaners = [
        Worker::start("cleaner", &fs)?,
        Worker::start("cleaner", &fs)?,
    ];
    let repetitions = Repetitions::new(200, 5_000, Duration::from_millis(800));
    let write = |writer: usize| {
        let own = PinDir::open(fs.root()).unwrap();
        let dir = if writer % 2 == 0 { &dir } else { &own };
        let name = format!("{NAME}-{writer}");
        let maps = [hash(), hash()];
        let mut count = 0;
        dir.replace(&maps[0], &name).unwrap();
        while repetitions.continue_after(count) {
            let map = &maps[count as usize % 2];
            let seen = dir.identity(&name).unwrap();
            match count % 3 {
                0 => dir.replace(map, &name).unwrap(),
                1 => dir.replace_keeping_mode(map, &name).unwrap(),
                _ => dir.replace_if(map, &name, seen).unwrap(),
            }
            assert_eq!(dir.identity(&name).unwrap(), map.identity().unwrap());
            count += 1;
        }
        count
    };
    // Another cleanup runs through the descriptor that half of the writers share.
    let (replaced, _) = stress::write_and_read(4, write, 1, |_| {
        let report = dir.remove_leftovers().unwrap();
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        1
    });
    for cleaner in cleaners {
        println!("report {} times", cleaner.finish()?.trim());
    }
    println!("replaced {replaced:?} times during cleanups");
    // The cleanups left exactly the expected names.
    dir.pin(&hash(), LEFTOVER)?;
    assert_eq!(dir.remove_leftovers()?.removed, [LEFTOVER]);
    let mut expected: Vec<_> = SIMILAR_NAMES.iter().map(|name| name.to_string()).collect();
    expected.extend((0..4).map(|writer| format!("{NAME}-{writer}")));
    expected.sort();
    assert_eq!(fs.names(), expected);
    Ok(())
}

fn cleaner() -> Outcome {
    let dir = PinDir::open(stress::worker_root())?;
    let mut count = 0;
    stress::repeat_until_released(|| {
        let report = dir.remove_leftovers()?;
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        assert!(report.removed.is_empty(), "{:?}", report.removed);
        count += 1;
        Ok(())
    })?;
    println!("{count}");
    Ok(())
}

/// Accepts any type with a descriptor, as `replace` does.
fn identity_of(object: impl AsFd) -> Identity {
    let fd = object.as_fd().try_clone_to_owned().unwrap();
    Object::try_from(fd).unwrap().identity().unwrap()
}
