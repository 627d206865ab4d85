//! Eight publishers replace sets of twenty pins under one name, and readers never see half of a
//! set.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use bpf_pin::error::Cause;
use bpf_pin::{Error, Identity, Map, PinDir};
use common::*;

use crate::helpers::names_at;
use crate::stage::{HIDDEN, PINS, SET, publish};
use crate::stress::{self, PastObjects, Repetitions, Worker, has_exchange};

#[common::test(PINS)]
fn a_set_under_a_shared_lock_is_complete() -> Outcome {
    stress::run("read_with_lock")
}

#[common::test(PINS)]
fn a_set_without_a_lock_has_pins_of_one_generation() -> Outcome {
    stress::run("read_without_lock")
}

#[common::test(PINS)]
fn the_name_of_a_set_always_exists() -> Outcome {
    stress::run("look_up_name")
}

#[common::test(PINS)]
fn remove_leftovers_keeps_stages_of_live_processes() -> Outcome {
    stress::run("work_during_cleanup")
}

#[common::test(PINS)]
fn remove_leftovers_can_run_during_remove_dir_all() -> Outcome {
    stress::run("remove_during_cleanup")
}

const COUNT: usize = 20;

fn pin_name(i: usize) -> String {
    format!("pin-{i:02}")
}

/// The state that publishers and readers share, with the counts for the report.
struct StressState {
    fs: TestFs,
    dir: PinDir,
    past: PastObjects,
    published: AtomicU32,
    rolled_back: AtomicU32,
    gaps: AtomicU32,
}

impl StressState {
    fn new() -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let state = Self {
            fs,
            dir,
            past: PastObjects::default(),
            published: AtomicU32::new(0),
            rolled_back: AtomicU32::new(0),
            gaps: AtomicU32::new(0),
        };
        state.publish(&state.dir, 0)?;
        Ok(state)
    }

    /// Publishes one generation: a single map under twenty names.
    fn publish(&self, dir: &PinDir, count: u32) -> Outcome {
        let map = hash();
        self.past.insert(map.identity()?);
        let stage = dir.stage(SET)?;
        for i in 0..COUNT {
            stage.pin(&map, pin_name(i))?;
        }
        let published = publish(stage)?;
        self.published.fetch_add(1, Relaxed);
        if published.had_gap {
            assert!(!has_exchange() && published.old.is_some());
            self.gaps.fetch_add(1, Relaxed);
        }
        if has_exchange() {
            // The name always exists, so no publication may report a gap.
            assert!(!published.had_gap);
        }
        let Some(old) = published.old else {
            return Ok(());
        };
        match count % 4 {
            0 => old.discard()?,
            // A rollback: the old set replaces the current one.
            1 => {
                let back = publish(old)?;
                assert!(!(back.had_gap && has_exchange()));
                self.rolled_back.fetch_add(1, Relaxed);
                drop(back);
            }
            _ => drop(old),
        }
        Ok(())
    }

    /// Runs eight publishers and eight readers. Returns how often a reader saw a complete set.
    fn publish_and_read(
        &self,
        repetitions: &Repetitions,
        read: impl Fn(&Self, usize) -> u32 + Sync,
    ) -> u32 {
        let publish = |publisher: usize| {
            let own = PinDir::open(self.fs.root()).unwrap();
            let dir = if publisher % 2 == 0 { &self.dir } else { &own };
            let mut count = 0;
            while repetitions.continue_after(count) {
                if let Err(error) = self.publish(dir, count) {
                    panic!("publication {count}: {error}");
                }
                count += 1;
            }
        };
        let (_, read) = stress::write_and_read(8, publish, 8, |reader| read(self, reader));
        read
    }

    /// Checks that the name has one complete generation, and that a cleanup removes all sets that
    /// readers held.
    fn check_and_report(self, what: &str, read: u32) -> Outcome {
        println!(
            "{what}: published {} times, rolled back {}, {} with a gap, read {read} times",
            self.published.into_inner(),
            self.rolled_back.into_inner(),
            self.gaps.into_inner()
        );
        assert!(read > 0);
        let left = self.fs.names();
        let is_hidden = |name: &&String| name.starts_with(HIDDEN);
        let hidden = left.iter().filter(is_hidden).count();
        let report = self.dir.remove_leftovers()?;
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        assert_eq!((report.removed.len(), report.restored.len()), (hidden, 0));
        assert_eq!(self.fs.names(), [SET]);
        let set = self.dir.open_dir(SET)?;
        let seen: Vec<_> = (0..COUNT)
            .map(|i| set.identity(pin_name(i)))
            .collect::<Result<_, _>>()?;
        assert!(seen.iter().all(|id| *id == seen[0]), "{seen:?}");
        self.past.assert_contains(seen[0]);
        assert_eq!(names_at(self.fs.at(SET)).len(), COUNT);
        Ok(())
    }

    /// Opens the set by its parent directory or by its path. The name always exists, except in the
    /// gap on kernels without RENAME_EXCHANGE.
    fn open(&self, reader: usize) -> Option<PinDir> {
        let opened = match reader % 2 {
            0 => self.dir.open_dir(SET),
            _ => PinDir::open(self.fs.at(SET)),
        };
        match opened {
            Ok(set) => Some(set),
            Err(error) if !has_exchange() && error.raw_os_error() == Some(libc::ENOENT) => None,
            Err(error) => panic!("reader {reader}: {error}"),
        }
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(
        error.cause(),
        Some(Cause::Moved { .. } | Cause::Missing { .. } | Cause::Removed { .. })
    )
}

fn read_pin(set: &PinDir, i: usize) -> Result<Identity, Error> {
    match i % 2 {
        0 => set.get::<Map>(pin_name(i))?.identity(),
        _ => set.get::<bpf_pin::Object>(pin_name(i))?.identity(),
    }
}

/// Readers that hold the lock see all twenty pins, of one generation.
pub fn read_with_lock() -> Outcome {
    let state = StressState::new()?;
    let repetitions = Repetitions::new(20, 1_500, Duration::from_millis(2500));
    let retries = AtomicU32::new(0);
    let read = state.publish_and_read(&repetitions, |state, reader| {
        let Some(set) = state.open(reader) else {
            return 0;
        };
        if reader >= 4 {
            // Gives publishers time to replace the set before the lock.
            thread::yield_now();
        }
        let lock = match set.lock(LockMode::Shared, Wait::Forever) {
            Ok(lock) => lock,
            Err(error) if is_gone(&error) => {
                retries.fetch_add(1, Relaxed);
                return 0;
            }
            Err(error) => panic!("reader {reader}: {error}"),
        };
        let mut seen = Vec::new();
        for i in 0..COUNT {
            let pin = read_pin(&set, i);
            seen.push(pin.unwrap_or_else(|error| panic!("reader {reader}: {error}")));
            if i == COUNT / 2 {
                // Gives publishers time to replace the set.
                thread::yield_now();
            }
        }
        drop(lock);
        assert!(seen.iter().all(|id| *id == seen[0]), "{seen:?}");
        state.past.assert_contains(seen[0]);
        1
    });
    println!("{} retries", retries.into_inner());
    state.check_and_report("under the lock", read)
}

/// Readers without the lock see pins of one generation only, but some may be gone already.
pub fn read_without_lock() -> Outcome {
    let state = StressState::new()?;
    let repetitions = Repetitions::new(20, 500, Duration::from_millis(1000));
    let (complete, partial) = (AtomicU32::new(0), AtomicU32::new(0));
    let read = state.publish_and_read(&repetitions, |state, reader| {
        let Some(set) = state.open(reader) else {
            return 0;
        };
        let mut seen = Vec::new();
        for i in 0..COUNT {
            match read_pin(&set, i) {
                Ok(identity) => seen.push(identity),
                Err(error) if is_gone(&error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
                }
                Err(error) => panic!("reader {reader}: {error:?}"),
            }
        }
        assert!(seen.iter().all(|id| *id == seen[0]), "{seen:?}");
        seen.iter()
            .take(1)
            .for_each(|id| state.past.assert_contains(*id));
        let count = if seen.len() == COUNT {
            &complete
        } else {
            &partial
        };
        count.fetch_add(1, Relaxed);
        u32::from(seen.len() == COUNT)
    });
    println!(
        "{} sets complete, {} emptied meanwhile",
        complete.into_inner(),
        partial.into_inner()
    );
    state.check_and_report("without a lock", read)
}

/// Readers that look up the name always find a directory.
pub fn look_up_name() -> Outcome {
    let state = StressState::new()?;
    let repetitions = Repetitions::new(20, 150, Duration::from_millis(700));
    let missed = AtomicU32::new(0);
    let read = state.publish_and_read(&repetitions, |state, reader| {
        let found = match reader % 4 {
            0 | 1 => state.open(reader).is_some(),
            2 => std::fs::symlink_metadata(state.fs.at(SET)).is_ok(),
            _ => state.dir.metadata(SET).is_ok(),
        };
        assert!(found || !has_exchange(), "reader {reader}");
        missed.fetch_add(u32::from(!found), Relaxed);
        u32::from(found)
    });
    println!("{} times in a gap", missed.into_inner());
    state.check_and_report("by name", read)
}

/// Runs every operation that uses a hidden name, while three cleanups run.
pub fn work_during_cleanup() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let cleaners = [
        Worker::start("cleaner", &fs)?,
        Worker::start("cleaner", &fs)?,
    ];
    let repetitions = Repetitions::new(40, 2_000, Duration::from_millis(1200));
    let write = |worker: usize| {
        let own = PinDir::open(fs.root()).unwrap();
        let dir = if worker % 2 == 0 { &dir } else { &own };
        let mut count = 0;
        while repetitions.continue_after(count) {
            work(&fs, dir, worker, count).unwrap();
            count += 1;
        }
        count
    };
    let (rounds, _) = stress::write_and_read(4, write, 1, |_| {
        let report = dir.remove_leftovers().unwrap();
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        1
    });
    for cleaner in cleaners {
        println!("report {} times", cleaner.finish()?.trim());
    }
    println!("{rounds:?} rounds during cleanups");
    assert!(dir.remove_leftovers()?.failed.is_empty());
    let mut left: Vec<_> = (0..4)
        .flat_map(|w| [format!("set-{w}"), format!("made-{w}"), format!("pin-{w}")])
        .collect();
    left.sort();
    assert_eq!(fs.names(), left);
    Ok(())
}

/// One round of all operations that use a hidden name, with names of this worker.
fn work(fs: &TestFs, dir: &PinDir, worker: usize, count: u32) -> Outcome {
    let map = hash();
    let (set, made) = (format!("set-{worker}"), format!("made-{worker}"));
    dir.replace(&map, format!("pin-{worker}"))?;
    let stage = dir.stage(&set)?;
    for i in 0..3 {
        stage.pin(&map, pin_name(i))?;
    }
    if count % 5 == 4 {
        // The stage is complete before it is discarded: no cleanup may have touched it.
        assert_eq!(names_at(stage.path()).len(), 3);
        stage.discard()?;
    } else {
        let published = publish(stage)?;
        for i in 0..3 {
            assert_eq!(published.dir.identity(pin_name(i))?, map.identity()?);
        }
        assert_eq!(names_at(fs.at(&set)).len(), 3);
    }
    // Creates a directory with parents at a new path each round, and a pin in it.
    let deep = format!("{made}/{count}/deep");
    let made = PinDir::create(fs.at(&deep), 0o750)?;
    made.replace(&map, "flows")?;
    assert_eq!(made.identity("flows")?, map.identity()?);
    assert_eq!(made.own_metadata()?.mode(), 0o750);
    Ok(())
}

/// A cleanup may meet a directory that is being removed.
pub fn remove_during_cleanup() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let cleaners = [
        Worker::start("cleaner", &fs)?,
        Worker::start("cleaner", &fs)?,
    ];
    let repetitions = Repetitions::new(100, 5_000, Duration::from_millis(500));
    let mut count = 0;
    while repetitions.continue_after(count) {
        let map = hash();
        let made = dir.create_dir("made", 0o700)?;
        for i in 0..COUNT {
            made.pin(&map, pin_name(i))?;
        }
        dir.remove_dir_all("made")?;
        count += 1;
    }
    println!("removed {count} directories during cleanups");
    for cleaner in cleaners {
        cleaner.finish()?;
    }
    // Each removal that began was also completed.
    assert!(fs.names().is_empty());
    Ok(())
}

pub fn cleaner() -> Outcome {
    let dir = PinDir::open(stress::worker_root())?;
    let mut count = 0;
    stress::repeat_until_released(|| {
        let report = dir.remove_leftovers()?;
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        assert!(report.restored.is_empty(), "{:?}", report.restored);
        count += 1;
        Ok(())
    })?;
    println!("{count}");
    Ok(())
}
