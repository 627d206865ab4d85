//! Counts the allocations, syscalls and instructions of a call. All three are exact, and the same in every run of one
//! executable, if a path has the same alignment: the C library's copy varies by about 16 instructions with it.

use std::ffi::c_void;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use common::Tracee;

/// The counts of one call.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Heap allocations by Rust and by C.
    pub allocations: u64,
    pub syscalls: Vec<String>,
    /// Instructions in user space. A syscall counts as one.
    pub instructions: u64,
}

static ALLOCATED: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// Returns the number of allocations since the start, and their bytes.
pub fn allocated() -> (u64, u64) {
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    (load(&ALLOCATED), load(&BYTES))
}

/// glibc lets a program define its own malloc, and exports the original under other names. Rust's allocator and libbpf
/// both call these functions.
#[cfg(target_env = "gnu")]
mod heap {
    use super::{ALLOCATED, BYTES, Ordering, c_void};

    unsafe extern "C" {
        fn __libc_malloc(size: usize) -> *mut c_void;
        fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
        fn __libc_realloc(old: *mut c_void, size: usize) -> *mut c_void;
    }

    fn count(bytes: usize) {
        ALLOCATED.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
        count(size);
        // SAFETY: guaranteed by the caller.
        unsafe { __libc_malloc(size) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn calloc(number: usize, size: usize) -> *mut c_void {
        count(number.saturating_mul(size));
        // SAFETY: guaranteed by the caller.
        unsafe { __libc_calloc(number, size) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn realloc(old: *mut c_void, size: usize) -> *mut c_void {
        count(size);
        // SAFETY: guaranteed by the caller.
        unsafe { __libc_realloc(old, size) }
    }
}

/// Counts a call that has been made before, without the instructions of `nothing`.
pub fn of(call: &mut dyn FnMut(), nothing: &mut dyn FnMut()) -> Counts {
    let allocations = allocations(call);
    let syscalls = syscalls(call);
    let instructions = instructions(call) - instructions(nothing);
    Counts {
        allocations,
        syscalls,
        instructions,
    }
}

fn allocations(call: &mut dyn FnMut()) -> u64 {
    let before = allocated().0;
    call();
    allocated().0 - before
}

fn syscalls(call: &mut dyn FnMut()) -> Vec<String> {
    let run = |()| {
        call();
        0
    };
    let mut tracee = Tracee::fork(|| (), run).expect("a traced child");
    let mut names = Vec::new();
    while let Some(stop) = tracee.next().expect("a stop") {
        if stop.is_entry() {
            names.push(stop.name());
        }
    }
    assert_eq!(tracee.finish().expect("an end"), 0, "the call failed");
    names
}

/// Counts instructions by single-stepping a child. callgrind cannot do it: valgrind 3.19 fails BPF_MAP_LOOKUP_BATCH, the
/// command that proves a map, itself.
fn instructions(call: &mut dyn FnMut()) -> u64 {
    let least = (0..3).map(|_| steps(call)).min();
    least.unwrap_or_default()
}

fn steps(call: &mut dyn FnMut()) -> u64 {
    // SAFETY: this process has one thread, so the child finds no lock held.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: no addresses are passed. The child exits without running its parent's destructors.
        unsafe {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            call();
            libc::raise(libc::SIGSTOP);
            call();
            libc::raise(libc::SIGSTOP);
            libc::_exit(0)
        }
    }
    assert!(child > 0, "fork: {}", io::Error::last_os_error());
    let wait = || {
        let mut status = 0;
        // SAFETY: status is writable.
        let waited = unsafe { libc::waitpid(child, &mut status, libc::__WALL) };
        assert_eq!(waited, child, "waitpid: {}", io::Error::last_os_error());
        assert!(libc::WIFSTOPPED(status), "the child has ended: {status:#x}");
        libc::WSTOPSIG(status)
    };
    while wait() != libc::SIGSTOP {
        // SAFETY: our stopped child.
        unsafe { libc::ptrace(libc::PTRACE_CONT, child, 0, 0) };
    }
    let mut steps = 0;
    loop {
        // SAFETY: our stopped child.
        unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, child, 0, 0) };
        if wait() == libc::SIGSTOP {
            break;
        }
        steps += 1;
    }
    // SAFETY: our child, which has not been waited for.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, &mut 0, libc::__WALL);
    }
    steps
}
