//! Eight publishers replace sets of twenty pins under one name, and readers never see half of a
//! set.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use bpf_pin::error::Cause;
use bpf_pin::{Error, Identity, Map, PinDir};
use common::*;

use crate::stage::scene::{self, Actor, Ever, Often, has_exchange};
use crate::stage::{HIDDEN, PINS, SET, names, publish};

#[common::test(PINS)]
fn under_a_shared_lock_a_set_is_whole() -> Outcome {
    scene::play("locking")
}

#[common::test(PINS)]
fn without_a_lock_sets_are_never_mixed() -> Outcome {
    scene::play("holding")
}

#[common::test(PINS)]
fn the_sets_name_is_always_there() -> Outcome {
    scene::play("by_name")
}

#[common::test(PINS)]
fn a_sweep_takes_no_set_from_the_living() -> Outcome {
    scene::play("beside_sweeps")
}

#[common::test(PINS)]
fn a_sweep_and_a_removal_meet() -> Outcome {
    scene::play("removals")
}

const COUNT: usize = 20;

fn pin_name(i: usize) -> String {
    format!("pin-{i:02}")
}

/// The state that publishers and readers share, with the counts for the report.
struct Storm {
    fs: TestFs,
    dir: PinDir,
    ever: Ever,
    published: AtomicU32,
    rolled_back: AtomicU32,
    gaps: AtomicU32,
}

impl Storm {
    fn new() -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let storm = Self {
            fs,
            dir,
            ever: Ever::default(),
            published: AtomicU32::new(0),
            rolled_back: AtomicU32::new(0),
            gaps: AtomicU32::new(0),
        };
        storm.publish(&storm.dir, 0)?;
        Ok(storm)
    }

    /// Publishes one generation: a single map under twenty names.
    fn publish(&self, dir: &PinDir, count: u32) -> Outcome {
        let map = hash();
        self.ever.insert(map.identity()?);
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
    fn rage(&self, often: &Often, read: impl Fn(&Self, usize) -> u32 + Sync) -> u32 {
        let publish = |publisher: usize| {
            let own = PinDir::open(self.fs.root()).unwrap();
            let dir = if publisher % 2 == 0 { &self.dir } else { &own };
            let mut count = 0;
            while often.goes_on(count) {
                if let Err(error) = self.publish(dir, count) {
                    panic!("publication {count}: {error}");
                }
                count += 1;
            }
        };
        let (_, read) = scene::storm(8, publish, 8, |reader| read(self, reader));
        read
    }

    /// Checks that the name has one complete generation, and that a sweep removes all sets that
    /// readers held.
    fn end(self, what: &str, read: u32) -> Outcome {
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
        let swept = self.dir.remove_leftovers()?;
        assert!(swept.failed.is_empty(), "{:?}", swept.failed);
        assert_eq!((swept.removed.len(), swept.restored.len()), (hidden, 0));
        assert_eq!(self.fs.names(), [SET]);
        let set = self.dir.open_dir(SET)?;
        let seen: Vec<_> = (0..COUNT)
            .map(|i| set.identity(pin_name(i)))
            .collect::<Result<_, _>>()?;
        assert!(seen.iter().all(|id| *id == seen[0]), "{seen:?}");
        self.ever.assert_had(seen[0]);
        assert_eq!(names(self.fs.at(SET)).len(), COUNT);
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
pub fn locking() -> Outcome {
    let storm = Storm::new()?;
    let often = Often::new(20, 1_500, Duration::from_millis(2500));
    let retries = AtomicU32::new(0);
    let read = storm.rage(&often, |storm, reader| {
        let Some(set) = storm.open(reader) else {
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
        storm.ever.assert_had(seen[0]);
        1
    });
    println!("{} retries", retries.into_inner());
    storm.end("under the lock", read)
}

/// Readers without the lock see pins of one generation only, but some may be gone already.
pub fn holding() -> Outcome {
    let storm = Storm::new()?;
    let often = Often::new(20, 500, Duration::from_millis(1000));
    let (whole, cut) = (AtomicU32::new(0), AtomicU32::new(0));
    let read = storm.rage(&often, |storm, reader| {
        let Some(set) = storm.open(reader) else {
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
            .for_each(|id| storm.ever.assert_had(*id));
        let count = if seen.len() == COUNT { &whole } else { &cut };
        count.fetch_add(1, Relaxed);
        u32::from(seen.len() == COUNT)
    });
    println!(
        "{} sets whole, {} emptied meanwhile",
        whole.into_inner(),
        cut.into_inner()
    );
    storm.end("without a lock", read)
}

/// Readers that look up the name always find a directory.
pub fn by_name() -> Outcome {
    let storm = Storm::new()?;
    let often = Often::new(20, 150, Duration::from_millis(700));
    let missed = AtomicU32::new(0);
    let read = storm.rage(&often, |storm, reader| {
        let found = match reader % 4 {
            0 | 1 => storm.open(reader).is_some(),
            2 => std::fs::symlink_metadata(storm.fs.at(SET)).is_ok(),
            _ => storm.dir.metadata(SET).is_ok(),
        };
        assert!(found || !has_exchange(), "reader {reader}");
        missed.fetch_add(u32::from(!found), Relaxed);
        u32::from(found)
    });
    println!("{} times in a gap", missed.into_inner());
    storm.end("by name", read)
}

/// Runs every operation that uses a hidden name, while three sweeps run.
pub fn beside_sweeps() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let sweepers = [Actor::start("sweeper", &fs)?, Actor::start("sweeper", &fs)?];
    let often = Often::new(40, 2_000, Duration::from_millis(1200));
    let write = |worker: usize| {
        let own = PinDir::open(fs.root()).unwrap();
        let dir = if worker % 2 == 0 { &dir } else { &own };
        let mut count = 0;
        while often.goes_on(count) {
            work(&fs, dir, worker, count).unwrap();
            count += 1;
        }
        count
    };
    let (rounds, _) = scene::storm(4, write, 1, |_| {
        let swept = dir.remove_leftovers().unwrap();
        assert!(swept.failed.is_empty(), "{:?}", swept.failed);
        1
    });
    for sweeper in sweepers {
        println!("swept {} times", sweeper.finish()?.trim());
    }
    println!("{rounds:?} rounds beside sweeps");
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
        // The stage is complete before it is discarded: no sweep may have touched it.
        assert_eq!(names(stage.path()).len(), 3);
        stage.discard()?;
    } else {
        let published = publish(stage)?;
        for i in 0..3 {
            assert_eq!(published.dir.identity(pin_name(i))?, map.identity()?);
        }
        assert_eq!(names(fs.at(&set)).len(), 3);
    }
    // Creates a directory with parents at a new path each round, and a pin in it.
    let deep = format!("{made}/{count}/deep");
    let made = PinDir::create(fs.at(&deep), 0o750)?;
    made.replace(&map, "flows")?;
    assert_eq!(made.identity("flows")?, map.identity()?);
    assert_eq!(made.own_metadata()?.mode(), 0o750);
    Ok(())
}

/// A sweep may meet a directory that is being removed.
pub fn removals() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let sweepers = [Actor::start("sweeper", &fs)?, Actor::start("sweeper", &fs)?];
    let often = Often::new(100, 5_000, Duration::from_millis(500));
    let mut count = 0;
    while often.goes_on(count) {
        let map = hash();
        let made = dir.create_dir("made", 0o700)?;
        for i in 0..COUNT {
            made.pin(&map, pin_name(i))?;
        }
        dir.remove_dir_all("made")?;
        count += 1;
    }
    println!("removed {count} directories beside sweeps");
    for sweeper in sweepers {
        sweeper.finish()?;
    }
    // Each removal that began was also completed.
    assert!(fs.names().is_empty());
    Ok(())
}

pub fn sweeper() -> Outcome {
    let dir = PinDir::open(scene::stage_of_actor())?;
    let mut count = 0;
    scene::act_until_let_go(|| {
        let swept = dir.remove_leftovers()?;
        assert!(swept.failed.is_empty(), "{:?}", swept.failed);
        assert!(swept.restored.is_empty(), "{:?}", swept.restored);
        count += 1;
        Ok(())
    })?;
    println!("{count}");
    Ok(())
}
