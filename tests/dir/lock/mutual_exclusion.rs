//! A process that takes the lock never observes the state between the two steps of a change.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::map::ElemFlags;
use bpf_pin::{Map, PinDir, Result};
use common::*;

use crate::lock::{PINS, SHARED, app};
use common::child_process::ChildProcess;

/// Counts in a map for the given time. Each count is two steps, which only the lock makes atomic.
pub fn count(dir: &PinDir, time: Duration) -> u64 {
    let map = dir.get::<Map>("counter").expect("the counter");
    let counter = map.elements::<u32, u64>().expect("its elements");
    let end = Instant::now() + time;
    let mut counted = 0;
    while Instant::now() < end {
        let _lock = dir
            .lock(LockMode::Exclusive, Wait::Forever)
            .expect("the lock");
        let before = counter.lookup(&0).expect("a look-up").unwrap_or(0);
        thread::yield_now();
        let after = before + 1;
        counter
            .update(&0, &after, ElemFlags::ANY)
            .expect("an update");
        counted += 1;
    }
    counted
}

fn counted(dir: &PinDir) -> Result<u64> {
    let map = dir.get::<Map>("counter")?;
    Ok(map.elements::<u32, u64>()?.lookup(&0)?.unwrap_or(0))
}

#[common::test(PINS)]
fn the_lock_excludes_other_threads() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    dir.pin(&hash(), "counter")?;
    let start = Barrier::new(8);
    let sum: u64 = thread::scope(|scope| {
        let counters: Vec<_> = (0..8)
            .map(|number| {
                let (dir, start, fs) = (&dir, &start, &fs);
                scope.spawn(move || {
                    let own = PinDir::open(fs.at("app")).expect("the directory");
                    start.wait();
                    let dir = if number % 2 == 0 { dir } else { &own };
                    count(dir, Duration::from_millis(300))
                })
            })
            .collect();
        counters.into_iter().map(|c| c.join().unwrap()).sum()
    });
    assert_eq!(counted(&dir)?, sum);
    assert!(sum > 8, "{sum}");
    Ok(())
}

#[common::test(PINS)]
fn the_lock_excludes_other_processes() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    dir.pin(&hash(), "counter")?;
    let mut others: Vec<_> = (0..4)
        .map(|_| ChildProcess::start_ready(&fs, "count", [fs.at("app")]))
        .collect();
    for other in &mut others {
        other.release();
    }
    let mut sum = count(&dir, Duration::from_millis(300));
    for mut other in others {
        sum += other.read_line().parse::<u64>()?;
        other.finish();
    }
    assert_eq!(counted(&dir)?, sum);
    assert!(sum > 5, "{sum}");
    Ok(())
}

/// Two elements that are equal except while a writer holds the exclusive lock.
#[common::test(PINS)]
fn readers_never_see_a_partial_change() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let map = hash();
    let both = map.elements::<u32, u64>()?;
    both.update(&0, &0, ElemFlags::ANY)?;
    both.update(&1, &0, ElemFlags::ANY)?;
    let (looks, written) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let end = Instant::now() + Duration::from_millis(300);
    thread::scope(|scope| {
        scope.spawn(|| {
            for value in 1.. {
                let _lock = dir.lock(LockMode::Exclusive, Wait::Forever).unwrap();
                both.update(&0, &value, ElemFlags::ANY).unwrap();
                thread::yield_now();
                both.update(&1, &value, ElemFlags::ANY).unwrap();
                written.fetch_add(1, SeqCst);
                if Instant::now() >= end {
                    break;
                }
            }
        });
        for take in SHARED {
            let (both, dir, looks) = (&both, &dir, &looks);
            scope.spawn(move || {
                while Instant::now() < end {
                    let Some(_lock) = take(dir).unwrap() else {
                        continue;
                    };
                    let first = both.lookup(&0).unwrap();
                    thread::yield_now();
                    assert_eq!(first, both.lookup(&1).unwrap());
                    looks.fetch_add(1, SeqCst);
                }
            });
        }
    });
    let (looks, written) = (looks.into_inner(), written.into_inner());
    assert!(looks > 0 && written > 0, "{looks}, {written}");
    Ok(())
}
