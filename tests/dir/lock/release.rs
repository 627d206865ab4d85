//! Dropping the lock or ending its process releases it. Dropping a `PinDir` or ending a child does not.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use bpf_pin::PinDir;
use common::*;

use crate::lock::{DIRS, SHORT_WAIT, all_calls, app, is_free, lock_exclusive};
use common::child_process::ChildProcess;

#[common::test(DIRS)]
fn dropping_the_lock_releases_it() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    for take in all_calls() {
        drop(lock_exclusive(&dir));
        let lock = take(&dir)?.expect("a free lock");
        // The lock does not depend on other values of the directory.
        let other = PinDir::open(fs.at("app"))?;
        drop(PinDir::open(fs.at("app"))?);
        assert!(!is_free(&other));
        drop(lock);
    }
    let lock = dir.lock(LockMode::Exclusive, Wait::Forever)?;
    let other = PinDir::open(fs.at("app"))?;
    drop(dir);
    assert!(!is_free(&other), "the directory's value is not the lock");
    drop(lock);
    drop(lock_exclusive(&other));
    Ok(())
}

#[common::test(DIRS)]
fn the_end_of_the_process_releases_the_lock() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    for task in ["lock", "lock_shared"] {
        let other = ChildProcess::start_ready(&fs, task, [fs.at("app")]);
        assert!(!is_free(&dir));
        let got = AtomicBool::new(false);
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let lock = dir.lock(LockMode::Exclusive, Wait::Forever);
                got.store(true, SeqCst);
                lock
            });
            thread::sleep(SHORT_WAIT);
            assert!(!got.load(SeqCst), "it is held");
            other.kill();
            waiter.join().unwrap().map(drop)
        })?;
        drop(lock_exclusive(&dir));
    }
    Ok(())
}

/// Runs in a separate process, so that the child inherits no descriptors of other tests.
#[common::test(DIRS)]
fn a_lock_is_released_although_a_child_inherited_it() -> Outcome {
    let fs = TestFs::new();
    drop(PinDir::create(fs.at("app"), 0o700)?);
    ChildProcess::start_ready(&fs, "fork", [fs.at("app")]).finish();
    Ok(())
}

/// The child inherits every descriptor. It uses none of them until the parent lets it end.
pub fn fork_and_release(dir: &PinDir) -> Outcome {
    let lock = dir.lock(LockMode::Exclusive, Wait::Forever)?;
    let (reader, writer) = rustix::pipe::pipe()?;
    // SAFETY: the child calls nothing but read and _exit.
    let child = unsafe { common::fork() };
    if child == 0 {
        let mut byte = 0u8;
        // SAFETY: the pipe is open; byte is one writable byte.
        unsafe {
            libc::close(std::os::fd::AsRawFd::as_raw_fd(&writer));
            libc::read(
                std::os::fd::AsRawFd::as_raw_fd(&reader),
                (&raw mut byte).cast(),
                1,
            );
            libc::_exit(0);
        }
    }
    assert!(child > 0);
    drop(lock);
    let taken = dir.lock(LockMode::Exclusive, Wait::No);
    drop(writer);
    let mut status = 0;
    // SAFETY: status is writable; the child is ours.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    assert!(taken?.is_some(), "the child has kept it");
    Ok(())
}
