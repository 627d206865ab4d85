//! Stops a process at chosen system calls while another process changes the entry under the same
//! name. Nothing of the other process may be lost.

use bpf_pin::dir::{LockMode, Wait};
use bpf_pin::error::Cause;
use bpf_pin::{Map, PinDir};
use common::{Need, Stop, TestFs, Tracee, assert_cause_matches, become_user, cap, hash, kernel};
use rustix::thread::CapabilitySet;

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const EXCHANGE: &[Need] = &[cap::BPF, Need::Bpffs, kernel(5, 17)];
const USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID, Need::Bpffs];
const BPF_USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID, kernel(5, 17)];
const PID_NAMESPACE: &[Need] = &[cap::SYS_ADMIN, Need::Bpffs];

fn has_exchanged(stop: &Stop) -> bool {
    stop.is_success_of("renameat2") && stop.args[4] == u64::from(libc::RENAME_EXCHANGE)
}

fn is_about_to_exchange(stop: &Stop) -> bool {
    stop.is_entry_of("renameat2") && stop.args[4] == u64::from(libc::RENAME_EXCHANGE)
}

fn open(fs: &TestFs) -> PinDir {
    PinDir::open(fs.root()).unwrap()
}

/// The temporary names in the root directory.
fn hidden(fs: &TestFs) -> Vec<String> {
    let mut names = fs.names();
    names.retain(|name| name.starts_with("_bpf-pin-"));
    names
}

fn assert_cleanup_changes_nothing(dir: &PinDir) {
    let report = dir.remove_leftovers().unwrap();
    assert!(report.removed.is_empty(), "{:?}", report.removed);
    assert!(report.restored.is_empty(), "{:?}", report.restored);
}

fn id_of(dir: &PinDir, name: &str) -> u32 {
    dir.get::<Map>(name).unwrap().id().unwrap()
}

/// A process that replaces the pin "name", stopped right before the exchange. Meanwhile "name"
/// becomes a directory with a pin in it.
fn stopped_replace_over_a_directory(fs: &TestFs) -> Tracee {
    let dir = open(fs);
    dir.pin(&hash(), "name").unwrap();
    let seen = dir.identity("name").unwrap();
    let run = move |dir: PinDir| match dir.replace_if(&hash(), "name", seen) {
        Err(error) if matches!(error.cause(), Some(Cause::NotAnObject { .. })) => 0,
        Err(error) => panic!("{error}"),
        Ok(()) => 1,
    };
    let mut replaces = Tracee::fork(|| open(fs), run).unwrap();
    replaces.run_to(is_about_to_exchange);
    dir.unlink("name").unwrap();
    let inner = dir.create_dir("name", 0o755).unwrap();
    inner.pin(&hash(), "inner").unwrap();
    replaces
}

#[common::test_alone(EXCHANGE)]
fn replace_if_restores_a_directory_that_it_displaced() {
    let fs = TestFs::new();
    let mut replaces = stopped_replace_over_a_directory(&fs);
    replaces.run_to(has_exchanged);
    let dir = open(&fs);
    // The temporary name belongs to a living process, so any entry under it stays.
    assert_cleanup_changes_nothing(&dir);
    assert_eq!(replaces.finish().unwrap(), 0);
    assert_eq!(fs.names(), ["name"]);
    id_of(&dir.open_dir("name").unwrap(), "inner");
}

#[common::test_alone(EXCHANGE)]
fn remove_leftovers_reports_a_directory_that_a_killed_replace_if_displaced() {
    let fs = TestFs::new();
    let mut replaces = stopped_replace_over_a_directory(&fs);
    replaces.run_to(has_exchanged);
    replaces.kill().unwrap();
    let dir = open(&fs);
    let report = dir.remove_leftovers().unwrap();
    assert!(report.removed.is_empty(), "{:?}", report.removed);
    let [error] = &report.failed[..] else {
        panic!("{:?}", report.failed)
    };
    assert_cause_matches!(error, Cause::NotAnObject { .. });
    let names = hidden(&fs);
    id_of(&dir.open_dir(&names[0]).unwrap(), "inner");
}

/// If the name cannot be given back, the error says where the displaced directory is, and it stays
/// there.
#[common::test_alone(BPF_USER)]
fn replace_if_reports_a_displaced_directory_that_cannot_be_restored() {
    let fs = TestFs::detached("1777");
    become_user(1234, CapabilitySet::BPF);
    let dir = open(&fs).create_dir("app", 0o700).unwrap();
    dir.pin(&hash(), "name").unwrap();
    let seen = dir.identity("name").unwrap();
    let run = |dir: PinDir| match dir.replace_if(&hash(), "name", seen).unwrap_err().cause() {
        Some(Cause::Displaced { path, now_at }) => {
            assert_eq!(path, &dir.path().join("name"));
            dir.open_dir(now_at.file_name().unwrap()).unwrap();
            0
        }
        other => panic!("{other:?}"),
    };
    let mut replaces = Tracee::fork(|| PinDir::open(fs.at("app")).unwrap(), run).unwrap();
    replaces.run_to(is_about_to_exchange);
    dir.unlink("name").unwrap();
    dir.create_dir("name", 0o755).unwrap();
    replaces.run_to(has_exchanged);
    dir.chmod(0o500).unwrap();
    assert_eq!(replaces.finish().unwrap(), 0);
    assert_eq!(dir.entries().unwrap().count(), 2);
}

/// A process that publishes "set" over a directory, stopped right before the exchange. Meanwhile
/// "set" becomes a pin.
fn stopped_publish_over_a_pin(fs: &TestFs) -> (Tracee, u32) {
    let dir = open(fs);
    dir.create_dir("set", 0o755).unwrap();
    let run = |dir: PinDir| {
        let set = dir.stage("set").unwrap();
        set.pin(&hash(), "map").unwrap();
        let failed = set.publish().unwrap_err();
        match failed.cause() {
            Some(Cause::NotADirectory { path }) if path.ends_with("set") => 0,
            other => panic!("{other:?}"),
        }
    };
    let mut publishes = Tracee::fork(|| open(fs), run).unwrap();
    publishes.run_to(is_about_to_exchange);
    dir.remove_dir("set").unwrap();
    let map = hash();
    dir.pin(&map, "set").unwrap();
    publishes.run_to(has_exchanged);
    (publishes, map.id().unwrap())
}

#[common::test_alone(EXCHANGE)]
fn publish_restores_a_pin_that_it_displaced() {
    let fs = TestFs::new();
    let (publishes, id) = stopped_publish_over_a_pin(&fs);
    let dir = open(&fs);
    assert_cleanup_changes_nothing(&dir);
    assert_eq!(publishes.finish().unwrap(), 0);
    assert_eq!(fs.names(), ["set"]);
    assert_eq!(id_of(&dir, "set"), id);
}

#[common::test_alone(EXCHANGE)]
fn remove_leftovers_reports_a_pin_that_a_killed_publish_displaced() {
    let fs = TestFs::new();
    let (publishes, id) = stopped_publish_over_a_pin(&fs);
    publishes.kill().unwrap();
    let dir = open(&fs);
    let report = dir.remove_leftovers().unwrap();
    assert!(report.removed.is_empty(), "{:?}", report.removed);
    let [error] = &report.failed[..] else {
        panic!("{:?}", report.failed)
    };
    assert_cause_matches!(error, Cause::NotADirectory { .. });
    assert_eq!(id_of(&dir, &hidden(&fs)[0]), id);
}

#[common::test_alone(EXCHANGE)]
fn remove_dir_all_keeps_a_pin_that_took_the_name() {
    let fs = TestFs::new();
    let dir = open(&fs);
    dir.create_dir("dir", 0o755).unwrap();
    dir.pin(&hash(), "pin").unwrap();
    let run = |dir: PinDir| match dir.remove_dir_all("dir").unwrap_err().cause() {
        Some(Cause::NotADirectory { path }) if path.ends_with("dir") => 0,
        other => panic!("{other:?}"),
    };
    let mut removes = Tracee::fork(|| open(&fs), run).unwrap();
    removes.run_to(|stop| stop.is_entry_of("renameat2"));
    dir.exchange("dir", "pin").unwrap();
    removes.run_to(|stop| stop.is_success_of("renameat2"));
    assert_cleanup_changes_nothing(&dir);
    assert_eq!(removes.finish().unwrap(), 0);
    assert_eq!(fs.names(), ["dir", "pin"]);
    id_of(&dir, "dir");
    dir.open_dir("pin").unwrap();
}

/// The kernel cannot check what it exchanges.
#[common::test_alone(EXCHANGE)]
fn publish_returns_a_directory_that_took_the_name_as_the_old_set() {
    let fs = TestFs::new();
    let dir = open(&fs);
    dir.create_dir("set", 0o755).unwrap();
    let run = |dir: PinDir| {
        let published = dir.stage("set").unwrap().publish().unwrap();
        let old = published.old.expect("an old set");
        assert_eq!(id_of(&old, "taken"), id_of(&dir, "other"));
        old.discard().unwrap();
        0
    };
    let mut publishes = Tracee::fork(|| open(&fs), run).unwrap();
    publishes.run_to(is_about_to_exchange);
    dir.rename("set", "moved").unwrap();
    let map = hash();
    dir.pin(&map, "other").unwrap();
    let taken = dir.create_dir("set", 0o755).unwrap();
    taken.pin(&map, "taken").unwrap();
    assert_eq!(publishes.finish().unwrap(), 0);
    assert_eq!(fs.names(), ["moved", "other", "set"]);
    assert_eq!(dir.open_dir("set").unwrap().entries().unwrap().count(), 0);
}

/// The kernel cannot check what it renames.
#[common::test_alone(PINS)]
fn remove_dir_all_removes_a_directory_that_took_the_name() {
    let fs = TestFs::new();
    let dir = open(&fs);
    dir.create_dir("dir", 0o755).unwrap();
    let run = |dir: PinDir| u8::from(dir.remove_dir_all("dir").is_err());
    let mut removes = Tracee::fork(|| open(&fs), run).unwrap();
    removes.run_to(|stop| stop.is_entry_of("renameat2"));
    dir.rename("dir", "moved").unwrap();
    let taken = dir.create_dir("dir", 0o755).unwrap();
    taken.pin(&hash(), "pin").unwrap();
    assert_eq!(removes.finish().unwrap(), 0);
    assert_eq!(fs.names(), ["moved"]);
}

/// As with `mkdir -p`, the parent stays: another process may use it already.
#[common::test_alone(USER)]
fn create_keeps_a_new_parent_if_the_rest_fails() {
    let fs = TestFs::detached("1777");
    become_user(1234, CapabilitySet::BPF);
    let path = fs.at("n/m");
    let run = |_| u8::from(PinDir::create(&path, 0o700).is_ok());
    let mut creates = Tracee::fork(|| (), run).unwrap();
    for _parent_and_child in 0..2 {
        creates.run_to(|stop| stop.is_entry_of("mkdirat"));
    }
    let other = PinDir::create(fs.at("n"), 0o700).unwrap();
    other.chmod(0o500).unwrap();
    assert_eq!(creates.finish().unwrap(), 0);
    other.chmod(0o700).unwrap();
    assert_eq!(fs.names(), ["n"]);
    other.pin(&hash(), "map").unwrap();
    id_of(&open(&fs).open_dir("n").unwrap(), "map");
}

/// A cleanup of leftovers runs during a creation, as a user that may not read the new directory.
#[common::test_alone(USER)]
fn create_dir_keeps_the_mode_during_remove_leftovers() {
    let fs = TestFs::detached("1777");
    become_user(1234, CapabilitySet::empty());
    for mode in [0o300, 0o755] {
        let run = move |dir: PinDir| u8::from(dir.create_dir("new", mode).is_err());
        let mut creates = Tracee::fork(|| open(&fs), run).unwrap();
        let dir = open(&fs);
        while let Some(stop) = creates.next().unwrap() {
            let report = dir.remove_leftovers().unwrap();
            assert!(
                report.removed.is_empty() && report.failed.is_empty(),
                "{stop:?}"
            );
        }
        assert_eq!(creates.finish().unwrap(), 0);
        assert_eq!(dir.metadata("new").unwrap().mode(), mode);
        dir.remove_dir("new").unwrap();
    }
}

/// A set that is published at any moment of a cleanup of leftovers can be locked at once.
#[common::test_alone(PINS)]
fn a_published_set_can_be_locked_during_remove_leftovers() {
    // True if the cleanup had such a stop.
    let published_at = |number: usize| {
        let fs = TestFs::new();
        let dir = open(&fs);
        let mut stage = Some(dir.stage("set").unwrap());
        let run = |dir: PinDir| u8::from(!dir.remove_leftovers().unwrap().removed.is_empty());
        let mut removes = Tracee::fork(|| open(&fs), run).unwrap();
        let (mut set, mut stops) = (None, 0);
        while let Some(stop) = removes.next().unwrap() {
            if stops == number {
                let published = stage.take().unwrap().publish();
                set = Some(
                    published
                        .unwrap_or_else(|error| panic!("{stop:?}: {error}"))
                        .dir,
                );
            }
            stops += 1;
            if let Some(set) = &set {
                let lock = set.lock(LockMode::Shared, Wait::No).unwrap();
                assert!(
                    lock.is_some(),
                    "published at stop {number}, locked at {stop:?}"
                );
            }
        }
        assert_eq!(removes.finish().unwrap(), 0, "published at stop {number}");
        set.is_some()
    };
    let stops = (0..).take_while(|&number| published_at(number)).count();
    assert!(stops > 4, "{stops}");
}

/// A parent that is process 1 of a pid namespace, and a child that is process 1 of another. The
/// child drops its copy of the lock, which must not release the parent's.
#[common::test_alone(PID_NAMESPACE)]
fn a_child_with_the_same_pid_does_not_release_the_lock_of_its_parent() {
    let fs = TestFs::new();
    let is_released = in_a_pid_namespace(|| {
        assert_eq!(std::process::id(), 1);
        let dir = open(&fs);
        let lock = dir.lock(LockMode::Exclusive, Wait::No).unwrap().unwrap();
        let stage = dir.stage("set").unwrap();
        let mut copies = Some((lock, stage));
        let failed = in_a_pid_namespace(|| {
            assert_eq!(std::process::id(), 1);
            drop(copies.take());
            0
        });
        let is_free = open(&fs)
            .lock(LockMode::Shared, Wait::No)
            .unwrap()
            .is_some();
        let is_staged = copies
            .take()
            .is_some_and(|(_, stage)| stage.publish().is_ok());
        failed | u8::from(is_free) | u8::from(!is_staged) << 1
    });
    assert_eq!(is_released, 0);
    assert_eq!(fs.names(), ["set"]);
}

/// Runs `run` in a forked child that is process 1 of a new pid namespace, and returns its exit
/// code.
fn in_a_pid_namespace(run: impl FnOnce() -> u8) -> u8 {
    // SAFETY: this process has one thread, and unshare takes no pointers.
    let child = unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWPID), 0);
        common::fork()
    };
    assert_ne!(child, -1);
    if child == 0 {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        // SAFETY: _exit skips the buffers and destructors, which belong to the parent.
        unsafe { libc::_exit(done.unwrap_or(101).into()) }
    }
    let mut status = 0;
    // SAFETY: `status` is writable, and `child` is a child of this process.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "{status}");
    libc::WEXITSTATUS(status) as u8
}
