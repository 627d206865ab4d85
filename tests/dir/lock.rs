//! The lock of a directory: which lockers it excludes, how long they wait, and when it is released.

mod forked;
mod mutual_exclusion;
mod release;
use common::child_process;
mod moved;
mod set;
mod wait;

use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::dir::DirLock;
use bpf_pin::error::{Cause, Operation};
use bpf_pin::{PinDir, Result};
use common::*;
use rustix::fs::{Mode, chmod};
use rustix::thread::CapabilitySet;

use common::child_process::ChildProcess;

/// An upper limit for waits that end early on every machine. A test fails only after this time.
const TIME_LIMIT: Duration = Duration::from_secs(40);
/// A short wait.
const SHORT_WAIT: Duration = Duration::from_millis(60);

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const DIRS: &[Need] = &[Need::Bpffs];
const USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];
const MOUNT: &[Need] = &[cap::SYS_ADMIN];

#[common::child]
fn child_role() -> Option<ExitCode> {
    const TASKS: &[&str] = &["lock", "fork", "lock_shared", "count", "signals"];
    let task = child_process::task()?;
    TASKS.contains(&task.as_str()).then(|| child(&task))
}

fn child(task: &str) -> ExitCode {
    let path = std::env::args_os().nth(1).expect("a path");
    let dir = PinDir::open(&path).expect("the directory");
    match task {
        "lock" => {
            let _lock = dir
                .lock(LockMode::Exclusive, Wait::Forever)
                .expect("the lock");
            child_process::send_line("ready");
            child_process::wait_for_release();
        }
        "fork" => {
            release::fork_and_release(&dir).expect("a lock that is released");
            child_process::send_line("ready");
            child_process::wait_for_release();
        }
        "lock_shared" => {
            let _lock = dir.lock(LockMode::Shared, Wait::Forever).expect("the lock");
            child_process::send_line("ready");
            child_process::wait_for_release();
        }
        "count" => {
            child_process::send_line("ready");
            child_process::wait_for_release();
            child_process::send_line(mutual_exclusion::count(&dir, Duration::from_millis(300)));
        }
        "signals" => wait::wait_with_signals(&dir, Path::new(&path)),
        other => panic!("{other}"),
    }
    ExitCode::SUCCESS
}

fn app(fs: &TestFs) -> Result<PinDir> {
    PinDir::create(fs.at("app"), 0o700)
}

type Take = fn(&PinDir) -> Result<Option<DirLock>>;

const EXCLUSIVE: [Take; 3] = [
    |dir| dir.lock(LockMode::Exclusive, Wait::Forever),
    |dir| dir.lock(LockMode::Exclusive, Wait::UpTo(TIME_LIMIT)),
    |dir| dir.lock(LockMode::Exclusive, Wait::No),
];

const SHARED: [Take; 3] = [
    |dir| dir.lock(LockMode::Shared, Wait::Forever),
    |dir| dir.lock(LockMode::Shared, Wait::UpTo(TIME_LIMIT)),
    |dir| dir.lock(LockMode::Shared, Wait::No),
];

fn all_calls() -> impl Iterator<Item = Take> {
    EXCLUSIVE.into_iter().chain(SHARED)
}

/// The calls that wait.
fn waiting_calls() -> impl Iterator<Item = Take> {
    EXCLUSIVE
        .into_iter()
        .take(2)
        .chain(SHARED.into_iter().take(2))
}

fn is_free(dir: &PinDir) -> bool {
    dir.lock(LockMode::Exclusive, Wait::No)
        .expect("a lock or none")
        .is_some()
}

fn is_free_for_readers(dir: &PinDir) -> bool {
    dir.lock(LockMode::Shared, Wait::No)
        .expect("a lock or none")
        .is_some()
}

/// Takes the lock once it is free. A process that is starting holds a copy of a released lock for a moment.
fn lock_exclusive(dir: &PinDir) -> DirLock {
    dir.lock(LockMode::Exclusive, Wait::UpTo(TIME_LIMIT))
        .expect("the lock")
        .expect("a free lock")
}

/// Removes leftovers until only these names are left. A process that is starting may hold a copy of a lock for a moment.
fn clean_up_until(dir: &PinDir, expected: &[&str]) -> Outcome {
    let begun = Instant::now();
    loop {
        let report = dir.remove_leftovers()?;
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        let names: Vec<_> = dir.entries()?.collect::<Result<_>>()?;
        let mut names: Vec<_> = names.iter().map(|entry| entry.name()).collect();
        names.sort();
        if names == expected {
            return Ok(());
        }
        assert!(begun.elapsed() < TIME_LIMIT, "{names:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[common::test(DIRS)]
fn an_exclusive_lock_excludes_all_and_shared_locks_exclude_writers() -> Outcome {
    let fs = TestFs::new();
    let (ours, theirs) = (app(&fs)?, PinDir::open(fs.at("app"))?);
    for take in EXCLUSIVE {
        drop(lock_exclusive(&ours));
        let lock = take(&ours)?.expect("a free lock");
        // Each call is a separate owner, even on the same value.
        for dir in [&ours, &theirs, &ours.try_clone()?] {
            assert!(!is_free(dir) && !is_free_for_readers(dir));
        }
        drop(lock);
    }
    for take in SHARED {
        drop(lock_exclusive(&ours));
        let first = take(&ours)?.expect("a free lock");
        assert!(!is_free(&ours) && !is_free(&theirs));
        for take in SHARED {
            assert!(take(&theirs)?.is_some(), "a shared lock");
        }
        let second = take(&theirs)?.expect("a shared lock");
        drop(first);
        assert!(!is_free(&ours), "the lock is still held");
        drop(second);
    }
    // A lock covers the directory and not its subdirectories.
    let inner = ours.create_dir("inner", 0o700)?;
    let _outer = lock_exclusive(&ours);
    drop(lock_exclusive(&inner));
    Ok(())
}

#[common::test(DIRS)]
fn locks_exclude_other_processes() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let other = ChildProcess::start_ready(&fs, "lock", [fs.at("app")]);
    assert!(!is_free(&dir) && !is_free_for_readers(&dir));
    assert!(
        dir.lock(LockMode::Exclusive, Wait::UpTo(SHORT_WAIT))?
            .is_none()
    );
    assert!(
        dir.lock(LockMode::Shared, Wait::UpTo(SHORT_WAIT))?
            .is_none()
    );
    other.finish();
    drop(lock_exclusive(&dir));

    let other = ChildProcess::start_ready(&fs, "lock_shared", [fs.at("app")]);
    assert!(is_free_for_readers(&dir));
    assert!(!is_free(&dir));
    assert!(
        dir.lock(LockMode::Exclusive, Wait::UpTo(SHORT_WAIT))?
            .is_none()
    );
    other.finish();
    drop(lock_exclusive(&dir));
    Ok(())
}

#[common::test(USER)]
fn lock_needs_read_permission() -> Outcome {
    let fs = TestFs::detached("755");
    let dir = app(&fs)?;
    let path = fs.at("app");
    for (mode, wanted) in [(0o711, "read"), (0o733, "read"), (0o700, "search")] {
        chmod(&path, Mode::from_raw_mode(mode))?;
        as_user(CapabilitySet::empty(), || {
            for take in all_calls() {
                let error = take(&dir).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
                let cause = Cause::Blocked {
                    path: path.clone(),
                    mode,
                    uid: 0,
                    wanted,
                    read_only_would_do: false,
                };
                assert_eq!(error.cause(), Some(&cause));
                assert_eq!(error.operation(), Operation::Lock);
            }
        });
        drop(lock_exclusive(&dir));
    }
    // Read permission is enough. The lock needs no write permission.
    chmod(&path, Mode::from_raw_mode(0o755))?;
    as_user(CapabilitySet::empty(), || {
        dir.lock(LockMode::Exclusive, Wait::Forever).map(drop)
    })?;
    Ok(())
}
