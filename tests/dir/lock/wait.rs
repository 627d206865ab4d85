//! How long a call waits for a lock, and how the wait ends.

use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::dir::DirLock;
use bpf_pin::{PinDir, Result};
use common::*;
use rustix::thread::gettid;

use crate::lock::{DIRS, SHORT_WAIT, TIME_LIMIT, Take, app, lock_exclusive, waiting_calls};
use common::child_process::{self, ChildProcess};

#[common::test(DIRS)]
fn a_limited_wait_ends_in_time() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    type Within = fn(&PinDir, Duration) -> Result<Option<DirLock>>;
    let (exclusive, shared): (Within, Within) = (
        |dir, time| dir.lock(LockMode::Exclusive, Wait::UpTo(time)),
        |dir, time| dir.lock(LockMode::Shared, Wait::UpTo(time)),
    );
    let times = [0, 1, 15, 120].map(Duration::from_millis);
    let assert_times_out = |within: Within| -> Outcome {
        for time in times {
            let begun = Instant::now();
            assert!(within(&dir, time)?.is_none());
            let waited = begun.elapsed();
            assert!(waited >= time, "{waited:?} of {time:?}");
            assert!(waited < time + TIME_LIMIT, "{waited:?} of {time:?}");
        }
        Ok(())
    };
    let held = lock_exclusive(&dir);
    assert_times_out(exclusive)?;
    assert_times_out(shared)?;
    drop(held);
    drop(lock_exclusive(&dir));
    let _held = dir.lock(LockMode::Shared, Wait::Forever)?;
    assert_times_out(exclusive)?;
    // A free lock is taken immediately, whatever the time limit.
    for time in times.into_iter().chain([Duration::MAX]) {
        assert!(shared(&dir, time)?.is_some());
    }
    Ok(())
}

#[common::test(DIRS)]
fn a_limited_wait_gets_a_lock_that_becomes_free() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let takes: [Take; 4] = [
        |dir| dir.lock(LockMode::Exclusive, Wait::UpTo(TIME_LIMIT)),
        |dir| dir.lock(LockMode::Shared, Wait::UpTo(TIME_LIMIT)),
        |dir| dir.lock(LockMode::Exclusive, Wait::UpTo(Duration::MAX)),
        |dir| dir.lock(LockMode::Shared, Wait::UpTo(Duration::MAX)),
    ];
    for take in takes {
        let held = lock_exclusive(&dir);
        let begun = Instant::now();
        let lock = thread::scope(|scope| {
            let waiter = scope.spawn(|| take(&dir));
            thread::sleep(SHORT_WAIT);
            assert!(!waiter.is_finished());
            drop(held);
            waiter.join().unwrap()
        })?;
        assert!(lock.is_some());
        assert!(begun.elapsed() < TIME_LIMIT / 2, "{:?}", begun.elapsed());
    }
    Ok(())
}

/// Waits until the thread sleeps in the call that it announced.
fn until_asleep(thread: i32) {
    let begun = Instant::now();
    loop {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
        let stat = stat.expect("a thread of this process");
        let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
        if state == Some("S") {
            return;
        }
        assert!(begun.elapsed() < TIME_LIMIT, "{stat}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The id of a thread that is about to wait, shared with another thread.
#[derive(Default)]
pub struct Waiting(AtomicI32);

impl Waiting {
    pub fn announce(&self) {
        self.0.store(gettid().as_raw_nonzero().get(), SeqCst);
    }

    pub fn until_asleep(&self) -> i32 {
        let begun = Instant::now();
        while self.0.load(SeqCst) == 0 {
            assert!(begun.elapsed() < TIME_LIMIT);
            thread::sleep(Duration::from_millis(1));
        }
        let thread = self.0.load(SeqCst);
        until_asleep(thread);
        thread
    }
}

/// Runs in a separate process, because a signal handler is per process.
#[common::test(DIRS)]
fn a_signal_does_not_end_a_wait() -> Outcome {
    let fs = TestFs::new();
    app(&fs)?;
    let mut other = ChildProcess::start_ready(&fs, "signals", [fs.at("app")]);
    assert_eq!(other.read_line(), "done");
    other.finish();
    Ok(())
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_signal(_: libc::c_int) {
    HANDLED.fetch_add(1, SeqCst);
}

pub fn wait_with_signals(dir: &PinDir, path: &Path) {
    const SIGNALS: usize = 30;

    // SAFETY: all zeroes is a valid sigaction, with an empty mask and no flags, so without SA_RESTART.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler is async-signal-safe, and the pointer for the old action may be null.
    let done = unsafe { libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) };
    assert_eq!(done, 0);
    child_process::send_line("ready");
    for take in waiting_calls() {
        let held = lock_exclusive(dir);
        let waiting = Waiting::default();
        let lock = thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let own = PinDir::open(path)?;
                waiting.announce();
                take(&own)
            });
            let thread = waiting.until_asleep();
            for _ in 0..SIGNALS {
                let handled = HANDLED.load(SeqCst);
                // SAFETY: a thread of this process, which is joined later.
                let sent = unsafe {
                    let process = std::process::id() as libc::pid_t;
                    libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGALRM)
                };
                assert_eq!(sent, 0);
                let begun = Instant::now();
                while HANDLED.load(SeqCst) == handled {
                    assert!(begun.elapsed() < TIME_LIMIT, "the signal was not handled");
                    thread::sleep(Duration::from_micros(100));
                }
                until_asleep(thread);
                assert!(!waiter.is_finished(), "the wait has ended");
            }
            drop(held);
            waiter.join().expect("no panic")
        });
        assert!(lock.expect("no error").is_some());
    }
    child_process::send_line("done");
    child_process::wait_for_release();
}
