//! Forked processes share the locks of a directory: what they mean until the last of these processes has ended.

use std::cell::Cell;
use std::os::fd::RawFd;

use bpf_pin::{Identity, Map, PinDir};
use common::{Need, Stop, TestFs, Tracee, cap, hash, kernel};

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const COPIES: &[Need] = &[cap::BPF, Need::Bpffs, kernel(5, 6)];

fn open(fs: &TestFs) -> PinDir {
    PinDir::open(fs.root()).unwrap()
}

/// Continues to the rename of a temporary pin. Returns the descriptor of the first lock on a byte.
fn run_to_rename(tracee: &mut Tracee) -> RawFd {
    let lock = Cell::new(None);
    let is_lock =
        |stop: &Stop| stop.is_success_of("fcntl") && stop.args[1] == libc::F_OFD_SETLK as u64;
    tracee.run_to(|stop| {
        if is_lock(stop) && lock.get().is_none() {
            lock.set(Some(stop.args[0] as RawFd));
        }
        stop.is_entry_of("renameat2")
    });
    lock.get().expect("a lock")
}

fn removed(dir: &PinDir) -> usize {
    let report = dir.remove_leftovers().unwrap();
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    report.removed.len()
}

/// As documented for `replace_if`: the lock of a killed process is held by its forked children.
#[common::test_alone(COPIES)]
fn swaps_wait_for_the_children_of_a_killed_process() {
    let fs = TestFs::new();
    let dir = open(&fs);
    dir.pin(&hash(), "name").unwrap();
    let seen = dir.identity("name").unwrap();
    let replaces = |seen: Identity| {
        let run = move |dir: PinDir| u8::from(dir.replace_if(&hash(), "name", seen).is_err());
        Tracee::fork(|| open(&fs), run).unwrap()
    };
    let mut killed = replaces(seen);
    // Forked first, so that it has no copy itself.
    let mut waits = replaces(seen);
    let lock = run_to_rename(&mut killed);
    let child = killed.duplicate(lock).unwrap();
    killed.kill().unwrap();
    waits.run_to(Stop::is_sleep);
    drop(child);
    assert_eq!(waits.finish().unwrap(), 0);
    assert_eq!(removed(&dir), 1, "the pin of the killed process");
    assert_eq!(fs.names(), ["name"]);
}

/// As documented for `remove_leftovers`.
#[common::test_alone(COPIES)]
fn the_names_of_a_killed_process_are_leftovers_once_its_children_have_ended() {
    let fs = TestFs::new();
    let dir = open(&fs);
    let run = |dir: PinDir| u8::from(dir.replace(&hash(), "name").is_err());
    let mut killed = Tracee::fork(|| open(&fs), run).unwrap();
    let lock = run_to_rename(&mut killed);
    let child = killed.duplicate(lock).unwrap();
    killed.kill().unwrap();
    assert_eq!(removed(&dir), 0);
    assert_eq!(fs.names().len(), 1);
    drop(child);
    assert_eq!(removed(&dir), 1);
    assert!(fs.names().is_empty());
}

/// As documented for `remove_leftovers`.
#[common::test_alone(PINS)]
fn the_names_of_a_killed_child_are_leftovers_once_its_parent_has_closed_the_directory() {
    let fs = TestFs::new();
    let (dir, parent) = (open(&fs), open(&fs));
    parent.replace(&hash(), "name").unwrap();
    let run = |()| u8::from(parent.replace(&hash(), "name").is_err());
    let mut child = Tracee::fork(|| (), run).unwrap();
    child.run_to(|stop| stop.is_entry_of("renameat2"));
    child.kill().unwrap();
    assert_eq!(removed(&dir), 0);
    assert_eq!(fs.names().len(), 2);
    drop(parent);
    assert_eq!(removed(&dir), 1);
    assert_eq!(fs.names(), ["name"]);
    dir.get::<Map>("name").unwrap();
}

/// As documented for `remove_leftovers`.
#[common::test_alone(PINS)]
fn the_names_of_a_killed_child_that_opened_the_directory_are_leftovers_at_once() {
    let fs = TestFs::new();
    let (dir, parent) = (open(&fs), open(&fs));
    parent.replace(&hash(), "name").unwrap();
    let run = |dir: PinDir| u8::from(dir.replace(&hash(), "name").is_err());
    let mut child = Tracee::fork(|| open(&fs), run).unwrap();
    child.run_to(|stop| stop.is_entry_of("renameat2"));
    child.kill().unwrap();
    assert_eq!(removed(&dir), 1);
    assert_eq!(fs.names(), ["name"]);
    parent.replace(&hash(), "name").unwrap();
}
