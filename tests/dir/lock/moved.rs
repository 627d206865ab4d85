//! Locking fails with an error if the path of the directory no longer leads to it.

use std::path::Path;
use std::thread;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Error, PinDir, Result};
use common::*;
use rustix::fs::Mode;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::lock::wait::Waiting;
use crate::lock::{DIRS, MOUNT, all_calls, app, clean_up_until, lock_exclusive, waiting_calls};

pub fn assert_moved(error: &Error, path: &Path) {
    let cause = Cause::Moved { path: path.into() };
    assert_eq!(error.cause(), Some(&cause), "{error}");
    assert_eq!(error.raw_os_error(), None);
    assert_eq!(error.operation(), Operation::Lock);
    assert_eq!((error.path(), error.second_path()), (Some(path), None));
}

#[common::test(DIRS)]
fn a_wait_fails_if_the_directory_is_replaced() -> Outcome {
    let fs = TestFs::new();
    let parent = app(&fs)?;
    parent.stage("set")?.publish().map_err(Error::from)?;
    let path = fs.at("app/set");
    for take in waiting_calls() {
        let set = PinDir::open(&path)?;
        let held = lock_exclusive(&set);
        let waiting = Waiting::default();
        let waited = thread::scope(|scope| -> Result<_> {
            let waiter = scope.spawn(|| {
                let set = PinDir::open(&path)?;
                waiting.announce();
                take(&set)
            });
            waiting.until_asleep();
            let published = parent.stage("set")?.publish().map_err(Error::from)?;
            assert_eq!(published.dir.path(), path);
            // The owner of the set's lock keeps the replaced directory alive.
            drop(published);
            assert!(set.own_metadata()?.links() > 0);
            drop(held);
            waiter.join().unwrap().map(|lock| lock.is_some())
        });
        let error = waited.expect_err("a lock of a directory that left its path");
        assert_moved(&error, &path);
        // A lock through the path succeeds. A late call on the old value fails immediately.
        drop(lock_exclusive(&PinDir::open(&path)?));
        for take in all_calls() {
            assert_moved(&take(&set).unwrap_err(), &path);
        }
        clean_up_until(&parent, &["set"])?;
    }
    Ok(())
}

#[common::test(DIRS)]
fn lock_fails_if_the_directory_was_renamed() -> Outcome {
    let fs = TestFs::new();
    let parent = app(&fs)?;
    let path = fs.at("app/set");

    let set = parent.create_dir("set", 0o700)?;
    parent.rename("set", "elsewhere")?;
    let elsewhere = PinDir::open(fs.at("app/elsewhere"))?;
    for take in all_calls() {
        assert_moved(&take(&set).unwrap_err(), &path);
        // The failed calls hold no lock.
        drop(lock_exclusive(&elsewhere));
    }
    // A new directory with the same name is a different directory.
    let other = parent.create_dir("set", 0o700)?;
    for take in all_calls() {
        assert_moved(&take(&set).unwrap_err(), &path);
        assert!(take(&other)?.is_some());
        drop(lock_exclusive(&other));
    }
    parent.remove_dir("set")?;
    for take in all_calls() {
        assert_moved(&take(&other).unwrap_err(), &path);
    }
    // These symlinks do not lead to the directory. The one after the loop does.
    for target in ["gone", "elsewhere/..", "."] {
        rustix::fs::symlink(target, &path)?;
        assert_moved(
            &set.lock(LockMode::Exclusive, Wait::Forever).unwrap_err(),
            &path,
        );
        parent.unlink("set")?;
    }
    rustix::fs::symlink("elsewhere", &path)?;
    drop(set.lock(LockMode::Exclusive, Wait::Forever)?);
    parent.unlink("set")?;
    // The directory returns to its path.
    parent.rename("elsewhere", "set")?;
    for take in all_calls() {
        assert!(take(&set)?.is_some());
        drop(lock_exclusive(&set));
    }
    Ok(())
}

#[common::test(MOUNT)]
fn lock_fails_if_a_mount_covers_the_path() -> Outcome {
    with_mounted_bpffs(|root| -> Outcome {
        let path = root.join("app");
        let dir = PinDir::create(&path, 0o700)?;
        drop(lock_exclusive(&dir));
        mount("bpf", &path, "bpf", MountFlags::empty(), None)?;
        assert_moved(
            &dir.lock(LockMode::Exclusive, Wait::Forever).unwrap_err(),
            &path,
        );
        assert_moved(&dir.lock(LockMode::Shared, Wait::No).unwrap_err(), &path);
        drop(PinDir::open(&path)?.lock(LockMode::Exclusive, Wait::Forever)?);
        unmount(&path, UnmountFlags::empty())?;
        drop(lock_exclusive(&dir));
        Ok(())
    })
}

/// A directory that was opened from a descriptor has no path that it could be moved from. The same is true
/// below it.
#[common::test(DIRS)]
fn a_directory_without_a_path_can_be_locked() -> Outcome {
    let fs = TestFs::new();
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    let root = rustix::fs::open(fs.root(), flags, Mode::empty())?;
    let inner = PinDir::from_fd(root)
        .map_err(Error::from)?
        .create_dir("inner", 0o700)?;
    // The root's descriptor is closed, and its number may be reused.
    drop(inner.lock(LockMode::Exclusive, Wait::Forever)?);
    drop(inner.try_clone()?.lock(LockMode::Shared, Wait::Forever)?);
    PinDir::open(fs.root())?.remove_dir("inner")?;
    let error = inner.lock(LockMode::Exclusive, Wait::Forever).unwrap_err();
    assert_cause_matches!(error, Cause::Removed { .. });
    Ok(())
}
