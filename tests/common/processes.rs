//! Processes that run the same function at the same time.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::thread::yield_now;

/// The result of a process, in words that the function chooses.
pub type ProcessResult = [u64; 4];

const MAX_PROCESSES: usize = 32;

/// Memory that all processes share.
struct Shared {
    started: AtomicU32,
    finished: AtomicU32,
    flag: AtomicU32,
    results: [[AtomicU64; 4]; MAX_PROCESSES],
}

/// One of the processes, as the function that it runs sees it.
#[derive(Clone, Copy)]
pub struct Process<'a> {
    pub number: usize,
    shared: &'a Shared,
}

impl Process<'_> {
    /// The number of processes that have finished.
    pub fn finished(&self) -> usize {
        self.shared.finished.load(SeqCst) as usize
    }

    /// Sets the flag that other processes wait for, unless it is higher already.
    pub fn raise_flag(&self, flag: u32) {
        self.shared.flag.fetch_max(flag, SeqCst);
    }

    /// The flag: the highest value that a process has set.
    pub fn flag(&self) -> u32 {
        self.shared.flag.load(SeqCst)
    }
}

/// Forks `count` processes, starts them together, and returns their results.
///
/// The process must have one thread. A child runs no destructors but those in `run`. If a child panics, this
/// function panics after all children have ended.
pub fn run_processes(
    count: usize,
    run: impl Fn(Process<'_>) -> ProcessResult,
) -> Vec<ProcessResult> {
    assert!(count <= MAX_PROCESSES);
    crate::trace::wait_until_alone();
    let shared = share();
    let mut pids = vec![];
    for number in 0..count {
        // SAFETY: this is the only thread, so the child waits for no lock.
        match unsafe { crate::child_process::fork() } {
            0 => {
                let code = catch_unwind(AssertUnwindSafe(|| {
                    shared.started.fetch_add(1, SeqCst);
                    while (shared.started.load(SeqCst) as usize) < count {
                        yield_now();
                    }
                    let result = run(Process { number, shared });
                    for (slot, word) in shared.results[number].iter().zip(result) {
                        slot.store(word, SeqCst);
                    }
                }));
                shared.finished.fetch_add(1, SeqCst);
                // SAFETY: _exit runs no destructors and flushes no buffers of the parent.
                unsafe { libc::_exit(if code.is_ok() { 0 } else { 101 }) }
            }
            -1 => panic!("fork: {}", io::Error::last_os_error()),
            pid => pids.push(pid),
        }
    }
    let codes: Vec<_> = pids.into_iter().map(wait).collect();
    assert!(codes.iter().all(|&code| code == 0), "ended with {codes:?}");
    let words = |slots: &[AtomicU64; 4]| slots.each_ref().map(|slot| slot.load(SeqCst));
    let results = shared.results[..count].iter().map(words).collect();
    // SAFETY: nothing refers to the mapping afterwards.
    unsafe { libc::munmap(ptr::from_ref(shared).cast_mut().cast(), size_of::<Shared>()) };
    results
}

fn share() -> &'static Shared {
    // SAFETY: a new mapping.
    let at = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size_of::<Shared>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(at, libc::MAP_FAILED, "{}", io::Error::last_os_error());
    // SAFETY: the mapping is large enough and aligned to a page, and zeroes are a valid Shared.
    unsafe { &*at.cast::<Shared>() }
}

fn wait(pid: libc::pid_t) -> libc::c_int {
    let mut status = 0;
    // SAFETY: status is writable.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(waited, pid, "waitpid: {}", io::Error::last_os_error());
    status
}
