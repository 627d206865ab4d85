//! Every kind of child ends with the process that started it, even if that process is killed.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::*;
use rustix::thread::{CapabilitySet, UnshareFlags, unshare_unsafe};

use crate::marked;

/// Makes this program a process that starts children of the kind and is killed, or one of its children.
const ROLE: &str = "BPF_PIN_TEST_HARNESS_ROLE";

const NONE: &[Need] = &[];
const SETUID: &[Need] = &[cap::SETUID];
const SYS_ADMIN: &[Need] = &[cap::SYS_ADMIN];

/// How long a child lives that is not killed: longer than a test waits for its end.
const LIFE: Duration = Duration::from_secs(60);

struct Kind {
    name: &'static str,
    needs: &'static [Need],
    /// Starts the children. The last one prints "ready".
    start: fn(),
    /// The number of processes with the one that is killed.
    count: usize,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "an_executed_child_dies_with_its_killed_parent",
        needs: NONE,
        start: || execute("child"),
        count: 2,
    },
    Kind {
        name: "a_grandchild_dies_with_its_killed_grandparent",
        needs: NONE,
        start: || execute("parent"),
        count: 3,
    },
    Kind {
        name: "a_forked_child_dies_with_its_killed_parent",
        needs: NONE,
        start: || fork_child(live),
        count: 2,
    },
    Kind {
        name: "processes_of_a_race_die_with_their_killed_parent",
        needs: NONE,
        start: || drop(run_processes(1, |_| live())),
        count: 2,
    },
    Kind {
        name: "a_traced_child_dies_with_its_killed_tracer",
        needs: NONE,
        start: || drop(Tracee::fork(live, |()| 0)),
        count: 2,
    },
    Kind {
        name: "a_child_that_became_another_user_dies_with_its_killed_parent",
        needs: SETUID,
        start: || {
            fork_child(|| {
                become_user(1234, CapabilitySet::empty());
                live()
            })
        },
        count: 2,
    },
    Kind {
        name: "a_child_in_a_user_namespace_dies_with_its_killed_parent",
        needs: SYS_ADMIN,
        start: || {
            fork_child(|| {
                // SAFETY: without FILES the descriptors stay shared, and this is the only thread.
                unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }.expect("a user namespace");
                live()
            })
        },
        count: 2,
    },
    Kind {
        name: "process_1_of_a_pid_namespace_dies_with_its_killed_parent",
        needs: SYS_ADMIN,
        start: || {
            // SAFETY: without FILES the descriptors stay shared, and this is the only thread.
            unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.expect("a PID namespace");
            fork_child(live)
        },
        count: 2,
    },
];

common::cases_alone!(
    || KINDS.iter().map(|kind| (kind.name, kind.needs)).collect(),
    |name| check(kind(name))
);

fn kind(name: &str) -> &'static Kind {
    KINDS.iter().find(|kind| kind.name == name).expect("a kind")
}

#[common::child]
fn child_role() -> Option<ExitCode> {
    match env::var(ROLE).ok()?.as_str() {
        "child" => live(),
        "parent" => execute("child"),
        name => (kind(name).start)(),
    }
    sleep(LIFE);
    Some(ExitCode::FAILURE)
}

/// In the last child: prints that it is ready, and lives on.
fn live<T>() -> T {
    println!("ready");
    sleep(LIFE);
    std::process::exit(1)
}

fn execute(role: &str) {
    let mut child = command(env::current_exe().expect("this program"));
    drop(child.env(ROLE, role).spawn().expect("a child"));
}

fn fork_child(run: fn()) {
    // SAFETY: this process has one thread.
    match unsafe { fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => run(),
        _ => {}
    }
}

fn check(kind: &Kind) {
    let place = tempfile::tempdir().unwrap();
    let mark = place.path().to_str().unwrap();
    let mut program = command(env::current_exe().unwrap());
    program.env(ROLE, kind.name).env("TMPDIR", mark);
    let mut program = program.stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = BufReader::new(program.stdout.take().unwrap()).lines();
    assert_eq!(ready.next().unwrap().unwrap(), "ready");
    assert_eq!(marked::processes(mark), kind.count);
    program.kill().unwrap();
    program.wait().unwrap();
    wait_until("all ended", || marked::processes(mark) == 0);
}
