//! Processes that run the same function at the same time.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::thread::yield_now;

/// The result of a member of a crowd.
pub type Said = [u64; 4];

const MOST: usize = 32;

/// Memory that all members share.
struct Board {
    come: AtomicU32,
    done: AtomicU32,
    flag: AtomicU32,
    said: [[AtomicU64; 4]; MOST],
}

/// A member of a crowd.
#[derive(Clone, Copy)]
pub struct Member<'b> {
    pub number: usize,
    board: &'b Board,
}

impl Member<'_> {
    /// The number of members that have finished.
    pub fn done(&self) -> usize {
        self.board.done.load(SeqCst) as usize
    }

    /// Raises a flag that other members wait for.
    pub fn raise(&self, flag: u32) {
        self.board.flag.fetch_max(flag, SeqCst);
    }

    /// The highest flag that was raised.
    pub fn raised(&self) -> u32 {
        self.board.flag.load(SeqCst)
    }

    pub fn wait_for(&self, flag: u32) {
        while self.raised() < flag {
            yield_now();
        }
    }
}

/// Forks `count` processes, starts them together, and returns their results.
///
/// The process must have one thread. A child runs no destructors but those in `run`. If a child panics, this
/// function panics after all children have ended.
pub fn crowd(count: usize, run: impl Fn(Member<'_>) -> Said) -> Vec<Said> {
    assert!(count <= MOST);
    crate::trace::wait_until_alone();
    let board = share();
    let mut pids = vec![];
    for number in 0..count {
        // SAFETY: this is the only thread, so the child waits for no lock.
        match unsafe { libc::fork() } {
            0 => {
                let code = catch_unwind(AssertUnwindSafe(|| {
                    // The child ends if the test is killed.
                    // SAFETY: the call takes no address.
                    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                    board.come.fetch_add(1, SeqCst);
                    while (board.come.load(SeqCst) as usize) < count {
                        yield_now();
                    }
                    let said = run(Member { number, board });
                    for (slot, word) in board.said[number].iter().zip(said) {
                        slot.store(word, SeqCst);
                    }
                }));
                board.done.fetch_add(1, SeqCst);
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
    let said = board.said[..count].iter().map(words).collect();
    // SAFETY: nothing refers to the mapping afterwards.
    unsafe { libc::munmap(ptr::from_ref(board).cast_mut().cast(), size_of::<Board>()) };
    said
}

fn share() -> &'static Board {
    // SAFETY: a new mapping.
    let at = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size_of::<Board>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(at, libc::MAP_FAILED, "{}", io::Error::last_os_error());
    // SAFETY: the mapping is large enough and aligned to a page, and zeroes are a valid Board.
    unsafe { &*at.cast::<Board>() }
}

fn wait(pid: libc::pid_t) -> libc::c_int {
    let mut status = 0;
    // SAFETY: status is writable.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(waited, pid, "waitpid: {}", io::Error::last_os_error());
    status
}
