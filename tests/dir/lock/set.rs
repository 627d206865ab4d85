//! A reader that holds the lock sees a complete set, even if writers publish new sets meanwhile.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::{Map, PinDir, Result};
use common::*;

use crate::lock::moved::assert_moved;
use crate::lock::{PINS, app, clean_up_until};

/// A reader with the shared lock finds all pins of the set, even if writers replace it meanwhile.
#[common::test(PINS)]
fn a_locked_set_stays_complete() -> Outcome {
    let fs = TestFs::new();
    let parent = app(&fs)?;
    let names = ["a", "b", "c", "d"];
    let publish = || -> Result<()> {
        let stage = parent.stage("set")?;
        for name in names {
            stage.pin(&hash(), name)?;
        }
        stage.publish()?;
        Ok(())
    };
    publish()?;
    let path: PathBuf = fs.at("app/set");
    let end = Instant::now() + Duration::from_millis(400);
    let (read, again) = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut read, mut again) = (0, 0);
            while Instant::now() < end || read == 0 {
                let set = match PinDir::open(&path) {
                    Ok(set) => set,
                    // Without RENAME_EXCHANGE the name is missing for a moment.
                    Err(error) if kernel(5, 17).unmet().is_some() => {
                        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
                        again += 1;
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                let _lock = match set.lock(LockMode::Shared, Wait::Forever) {
                    Ok(lock) => lock,
                    Err(error) => {
                        assert_moved(&error, &path);
                        again += 1;
                        continue;
                    }
                };
                for name in names {
                    set.get::<Map>(name).expect("complete");
                    thread::yield_now();
                }
                read += 1;
            }
            (read, again)
        });
        while Instant::now() < end {
            publish().expect("a new set");
        }
        reader.join().unwrap()
    });
    println!("read {read} sets, came {again} times in between");
    clean_up_until(&parent, &["set"])
}

/// Writers publish without a pause. A reader gets no error and no partial set.
#[common::test(PINS)]
fn open_dir_shared_opens_and_locks_a_complete_set() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("app"), 0o700)?;
    let publish = |dir: &PinDir| -> Result<()> {
        let set = dir.stage("set")?;
        let map = hash();
        for name in ["a", "b", "c"] {
            set.pin(&map, name)?;
        }
        match set.publish()?.old {
            Some(old) => old.discard(),
            None => Ok(()),
        }
    };
    publish(&dir)?;
    // Without RENAME_EXCHANGE the name is missing for a moment.
    let has_gaps = kernel(5, 17).unmet().is_some();
    let is_done = AtomicBool::new(false);
    let read = || -> Result<usize> {
        let dir = PinDir::open(fs.at("app"))?;
        let mut count = 0;
        while !is_done.load(SeqCst) {
            let (set, _lock) = match dir.open_dir_shared("set") {
                Err(error) if has_gaps && error.raw_os_error() == Some(libc::ENOENT) => continue,
                opened => opened?,
            };
            let ids: Result<Vec<_>> = ["a", "b", "c"]
                .iter()
                .map(|name| set.get::<Map>(name)?.id())
                .collect();
            let ids = ids?;
            assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
            count += 1;
        }
        Ok(count)
    };
    thread::scope(|scope| -> Result<()> {
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(read)).collect();
        let end = Instant::now() + Duration::from_millis(500);
        let mut published = Ok(());
        while published.is_ok() && Instant::now() < end {
            published = publish(&dir);
        }
        is_done.store(true, SeqCst);
        for reader in readers {
            assert!(reader.join().expect("a reader")? > 0);
        }
        published
    })?;
    assert!(dir.open_dir_shared("nothing").is_err());
    assert_eq!(PinDir::open(fs.at("app"))?.entries()?.count(), 1);
    Ok(())
}
