//! The set that a publication replaces: rollback, discard and drop.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use bpf_pin::PinDir;
use common::*;

use crate::helpers::names_at;
use crate::stage::{HIDDEN, PINS, SET, publish, staged};
use crate::stress::has_exchange;

#[common::test(PINS)]
fn roll_back_restores_the_replaced_set() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (one, two) = (hash(), hash());
    publish(staged(&dir, &one, &["a", "b"]))?;
    let inode = dir.metadata(SET)?.inode();
    let mut published = publish(staged(&dir, &two, &["c"]))?;
    // Publishes the two sets in turn.
    for (id, inner) in [(&one, &["a", "b"][..]), (&two, &["c"]), (&one, &["a", "b"])] {
        let old = published.old.take().expect("the other entry");
        assert_eq!(names_at(old.path()), inner);
        published = publish(old)?;
        assert_eq!(published.had_gap, !has_exchange());
        assert_eq!(published.dir.path(), fs.at(SET));
        assert_eq!(names_at(fs.at(SET)), inner);
        assert_eq!(dir.open_dir(SET)?.identity(inner[0])?, id.identity()?);
        assert_eq!(fs.names().len(), 2);
        drop(published.dir.lock(LockMode::Exclusive, Wait::Forever)?);
    }
    assert_eq!(dir.metadata(SET)?.inode(), inode);
    drop(published);
    assert_eq!(fs.names(), [SET]);
    assert_eq!(names_at(fs.at(SET)), ["a", "b"]);
    Ok(())
}

/// Longer than the removal of a set takes.
const REMOVAL_TIME: Duration = Duration::from_millis(150);

#[common::test(PINS)]
fn discard_waits_for_readers() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (one, two) = (hash(), hash());
    publish(staged(&dir, &one, &["a", "b"]))?;
    let reader = dir.open_dir(SET)?;
    let (first, second) = (
        reader.lock(LockMode::Shared, Wait::Forever)?,
        dir.open_dir(SET)?.lock(LockMode::Shared, Wait::Forever)?,
    );
    let old = publish(staged(&dir, &two, &["a", "b"]))?.old.unwrap();
    let is_discarded = AtomicBool::new(false);
    thread::scope(|scope| {
        let discarding = scope.spawn(|| {
            let discarded = old.discard();
            is_discarded.store(true, Relaxed);
            discarded
        });
        for lock in [first, second] {
            thread::sleep(REMOVAL_TIME);
            assert!(!is_discarded.load(Relaxed));
            for name in ["a", "b"] {
                assert_eq!(reader.identity(name).unwrap(), one.identity().unwrap());
            }
            drop(lock);
        }
        discarding.join().unwrap()
    })?;
    assert_eq!(fs.names(), [SET]);
    assert!(reader.get::<bpf_pin::Object>("a").is_err());
    // Without a reader, `discard` returns at once.
    let published = publish(staged(&dir, &one, &["a"]))?;
    published.old.unwrap().discard()?;
    assert_eq!(fs.names(), [SET]);
    Ok(())
}

#[common::test(PINS)]
fn drop_keeps_a_set_with_a_reader() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (one, two) = (hash(), hash());
    publish(staged(&dir, &one, &["a", "b"]))?;
    let reader = PinDir::open(fs.at(SET))?;
    let lock = reader.lock(LockMode::Shared, Wait::Forever)?;
    drop(publish(staged(&dir, &two, &["a"]))?);
    for _ in 0..2 {
        assert_eq!(fs.names().len(), 2);
        for name in ["a", "b"] {
            assert_eq!(reader.identity(name)?, one.identity()?);
        }
        // A cleanup leaves the set alone, even through another descriptor.
        for dir in [&dir, &PinDir::open(fs.root())?] {
            let report = dir.remove_leftovers()?;
            assert!(report.removed.is_empty(), "{:?}", report.removed);
            assert!(report.failed.is_empty(), "{:?}", report.failed);
        }
    }
    drop(lock);
    let hidden = fs.names().remove(1);
    let (hidden, set) = match hidden.as_str() {
        SET => (fs.names().remove(0), hidden),
        _ => (hidden, fs.names().remove(0)),
    };
    assert!(hidden.starts_with(HIDDEN) && set == SET);
    let report = dir.remove_leftovers()?;
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert_eq!(report.removed, [hidden.as_str()]);
    assert_eq!(fs.names(), [SET]);
    assert!(dir.remove_leftovers()?.removed.is_empty());
    assert_eq!(dir.open_dir(SET)?.identity("a")?, two.identity()?);
    Ok(())
}

/// An exclusive lock counts as a reader, too. The set can be rolled back after its release.
#[common::test(PINS)]
fn an_exclusive_lock_keeps_the_replaced_set() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (one, two) = (hash(), hash());
    publish(staged(&dir, &one, &["a"]))?;
    let reader = dir.open_dir(SET)?;
    let lock = reader.lock(LockMode::Exclusive, Wait::Forever)?;
    let old = publish(staged(&dir, &two, &["a"]))?.old.unwrap();
    assert_eq!(names_at(old.path()), ["a"]);
    drop(old);
    assert_eq!(reader.identity("a")?, one.identity()?);
    assert!(dir.remove_leftovers()?.removed.is_empty());
    drop(lock);
    assert_eq!(dir.remove_leftovers()?.removed.len(), 1);
    assert_eq!(fs.names(), [SET]);
    // The lock is released before the rollback.
    let lock = dir
        .open_dir(SET)?
        .lock(LockMode::Exclusive, Wait::Forever)?;
    let old = publish(staged(&dir, &one, &["b"]))?.old.unwrap();
    drop(lock);
    let published = publish(old)?;
    assert_eq!(names_at(fs.at(SET)), ["a"]);
    published.old.unwrap().discard()?;
    assert_eq!(fs.names(), [SET]);
    Ok(())
}

/// Another process removed the old set without asking for its lock.
#[common::test(PINS)]
fn a_replaced_set_that_is_already_removed_is_not_a_failure() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (one, two) = (hash(), hash());
    publish(staged(&dir, &one, &["a"]))?;
    for is_discarded in [true, false] {
        let old = publish(staged(&dir, &two, &["b"]))?.old.unwrap();
        std::fs::remove_dir_all(old.path())?;
        assert_eq!(fs.names(), [SET]);
        match is_discarded {
            true => old.discard()?,
            false => drop(old),
        }
        assert_eq!(fs.names(), [SET]);
    }
    assert_eq!(names_at(fs.at(SET)), ["b"]);
    Ok(())
}
