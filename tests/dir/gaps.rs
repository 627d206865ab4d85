//! Interleavings of `publish` on a kernel without `RENAME_EXCHANGE`, in which nothing has the name for a moment.
//! A set that an earlier gap has left never replaces a newer one.

use std::thread;

use bpf_pin::error::Cause;
use bpf_pin::{Error, Map, PinDir};
use common::{Need, Stop, TestFs, Tracee, cap, hash, set_seccomp_errno};

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

fn open(fs: &TestFs) -> PinDir {
    PinDir::open(fs.root()).unwrap()
}

/// A process that publishes a set with this map. To it, the kernel has no `RENAME_EXCHANGE`.
fn publishes(fs: &TestFs, map: &Map) -> Tracee {
    let run = |dir: PinDir| {
        let set = dir.stage("set").unwrap();
        set.pin(map, "map").unwrap();
        let published = set.publish().unwrap();
        u8::from(!published.had_gap)
    };
    Tracee::fork(|| without_exchange(fs), run).unwrap()
}

fn without_exchange(fs: &TestFs) -> PinDir {
    let exchange = Some((4, libc::RENAME_EXCHANGE));
    set_seccomp_errno(libc::SYS_renameat2, exchange, libc::EINVAL as u32);
    open(fs)
}

fn has_set(fs: &TestFs) -> bool {
    fs.names().contains(&"set".to_owned())
}

/// True at the stop after which nothing has the name.
fn is_in_gap(fs: &TestFs) -> impl Fn(&Stop) -> bool {
    |stop| stop.is_success_of("renameat2") && !has_set(fs)
}

/// Publishes a set with this map under a free name.
fn publish(dir: &PinDir, map: &Map) {
    let set = dir.stage("set").unwrap();
    set.pin(map, "map").unwrap();
    assert!(set.publish().unwrap().old.is_none());
}

/// A directory in which a process was killed in its gap. A set with the first map is left there, and one with
/// the second has the name.
fn with_a_leftover(fs: &TestFs, [first, second]: [&Map; 2]) -> PinDir {
    let dir = open(fs);
    publish(&dir, first);
    let mut killed = publishes(fs, second);
    killed.run_to(is_in_gap(fs));
    killed.kill().unwrap();
    publish(&dir, second);
    dir
}

#[track_caller]
fn assert_published(fs: &TestFs, dir: &PinDir, map: &Map) {
    let set = dir.open_dir("set").unwrap();
    let found: Map = set.get("map").unwrap();
    assert!(found.is_same_object(map).unwrap());
    assert_eq!(fs.names(), ["set"]);
}

#[common::test_alone(PINS)]
fn a_set_that_an_earlier_gap_left_does_not_come_back_in_a_later_one() {
    let (fs, maps) = (TestFs::new(), [(); 3].map(|()| hash()));
    let [first, second, third] = &maps;
    let dir = with_a_leftover(&fs, [first, second]);
    let mut later = publishes(&fs, third);
    later.run_to(is_in_gap(&fs));
    let report = dir.remove_leftovers().unwrap();
    assert!(report.restored.is_empty(), "{:?}", report.restored);
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert_eq!(later.finish().unwrap(), 0);
    assert_published(&fs, &dir, third);
}

#[common::test_alone(PINS)]
fn a_gap_waits_for_the_return_of_an_earlier_set() {
    let (fs, maps) = (TestFs::new(), [(); 3].map(|()| hash()));
    let [first, second, third] = &maps;
    let dir = with_a_leftover(&fs, [first, second]);
    let run = |dir: PinDir| u8::from(!dir.remove_leftovers().unwrap().restored.is_empty());
    let mut removes = Tracee::fork(|| open(&fs), run).unwrap();
    removes.run_to(|stop| stop.is_entry_of("renameat2"));
    let mut later = publishes(&fs, third);
    later.run_to(|stop| stop.is_sleep() || is_in_gap(&fs)(stop));
    assert!(has_set(&fs), "it has a gap");
    assert_eq!(removes.finish().unwrap(), 0);
    assert_eq!(later.finish().unwrap(), 0);
    assert_published(&fs, &dir, third);
}

/// If two processes were killed in their gaps, the newer set comes back.
#[common::test_alone(PINS)]
fn of_two_gaps_the_later_set_comes_back() {
    let (fs, maps) = (TestFs::new(), [(); 3].map(|()| hash()));
    let [first, second, third] = &maps;
    let dir = with_a_leftover(&fs, [first, second]);
    let mut later = publishes(&fs, third);
    later.run_to(is_in_gap(&fs));
    // Only the sets of living processes are left beside the gap.
    assert_eq!(fs.names().len(), 2, "{:?}", fs.names());
    later.kill().unwrap();
    let report = dir.remove_leftovers().unwrap();
    assert_eq!(report.restored, ["set"]);
    assert_published(&fs, &dir, second);
}

fn is_locked(error: &Error) -> bool {
    matches!(error.cause(), Some(Cause::Locked))
}

/// A stopped process delays the others for five seconds.
#[common::test_alone(PINS)]
fn the_lock_of_a_stopped_process_is_reported_by_each_call_that_takes_it() {
    let fs = TestFs::new();
    let (dir, map) = (open(&fs), hash());
    publish(&dir, &map);
    let mut killed = publishes(&fs, &map);
    killed.run_to(is_in_gap(&fs));
    killed.kill().unwrap();
    dir.create_dir("other", 0o755).unwrap();
    dir.pin(&map, "pin").unwrap();
    let seen = dir.identity("pin").unwrap();
    let replace = |dir: PinDir| dir.replace_if(&map, "pin", seen);

    let run = |dir: PinDir| u8::from(replace(dir).is_err());
    let mut owner = Tracee::fork(|| open(&fs), run).unwrap();
    owner.run_to(|stop| stop.is_entry_of("OBJ_PIN"));
    let run = |dir: PinDir| {
        let set = dir.stage("other").unwrap();
        let failed = set.publish().unwrap_err();
        u8::from(!is_locked(failed.error()))
    };
    let published = Tracee::fork(|| without_exchange(&fs), run).unwrap();
    thread::scope(|scope| {
        let replaced = scope.spawn(|| replace(open(&fs)));
        let removed = scope.spawn(|| open(&fs).remove_leftovers());
        assert_eq!(published.finish().unwrap(), 0);
        assert!(is_locked(&replaced.join().unwrap().unwrap_err()));
        let report = removed.join().unwrap().unwrap();
        assert!(report.restored.is_empty(), "{:?}", report.restored);
        assert!(report.failed.iter().all(is_locked), "{:?}", report.failed);
        assert_eq!(report.failed.len(), 1);
    });
    assert_eq!(owner.finish().unwrap(), 0);
    assert_eq!(dir.remove_leftovers().unwrap().restored, ["set"]);
    assert_eq!(fs.names(), ["other", "pin", "set"]);
}
