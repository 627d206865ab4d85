//! A file of another process that could not get its name back: the error says where it is, and it stays there.

use std::path::Path;

use bpf_pin::error::Cause;
use bpf_pin::{Map, PinDir};
use common::{Need, Stop, TestFs, Tracee, become_user, cap, hash, kernel};
use rustix::thread::CapabilitySet;

const BPF_USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID, kernel(5, 17)];

/// A directory of a user who cannot bypass its mode.
fn own_dir(fs: &TestFs) -> PinDir {
    become_user(1234, CapabilitySet::BPF);
    let root = PinDir::open(fs.root()).unwrap();
    root.create_dir("app", 0o700).unwrap()
}

/// Stops the process after it has moved an entry, forbids it to move another, and continues it.
fn forbid_the_way_back(dir: &PinDir, mut tracee: Tracee, moved: impl Fn(&Stop) -> bool) {
    tracee.run_to(moved);
    dir.chmod(0o500).unwrap();
    assert_eq!(tracee.finish().unwrap(), 0);
    dir.chmod(0o700).unwrap();
}

/// Checks the cause, and that the file is a pin.
fn assert_displaced(dir: &PinDir, cause: Option<&Cause>, name: &str) -> u8 {
    match cause {
        Some(Cause::Displaced { path, now_at }) => {
            assert_eq!(path, &dir.path().join(name));
            assert_eq!(now_at.parent(), Some(dir.path()));
            dir.get::<Map>(Path::new(now_at.file_name().unwrap()))
                .unwrap();
            0
        }
        other => panic!("{other:?}"),
    }
}

/// The pins in the directory, by their ids.
fn ids(dir: &PinDir) -> Vec<u32> {
    let entries = dir.entries().unwrap().map(Result::unwrap);
    let maps = entries.filter_map(|entry| entry.get::<Map>().ok());
    maps.map(|map| map.id().unwrap()).collect()
}

#[common::test_alone(BPF_USER)]
fn publish_reports_a_pin_that_could_not_get_its_name_back() {
    let fs = TestFs::detached("1777");
    let (dir, map) = (own_dir(&fs), hash());
    dir.create_dir("set", 0o700).unwrap();
    let run = |dir: PinDir| {
        let failed = dir.stage("set").unwrap().publish().unwrap_err();
        assert_displaced(&dir, failed.cause(), "set")
    };
    let mut publishes = Tracee::fork(|| PinDir::open(fs.at("app")).unwrap(), run).unwrap();
    let exchange = u64::from(libc::RENAME_EXCHANGE);
    publishes.run_to(|stop| stop.is_entry_of("renameat2") && stop.args[4] == exchange);
    dir.remove_dir("set").unwrap();
    dir.pin(&map, "set").unwrap();
    forbid_the_way_back(&dir, publishes, |stop| {
        stop.is_success_of("renameat2") && stop.args[4] == exchange
    });
    assert_eq!(ids(&dir), [map.id().unwrap()]);
    // A later removal of leftovers reports it as well.
    let report = dir.remove_leftovers().unwrap();
    assert_eq!((report.removed.len(), report.failed.len()), (0, 1));
}

#[common::test_alone(BPF_USER)]
fn remove_dir_all_reports_a_pin_that_could_not_get_its_name_back() {
    let fs = TestFs::detached("1777");
    let (dir, map) = (own_dir(&fs), hash());
    dir.create_dir("dir", 0o700).unwrap();
    dir.pin(&map, "pin").unwrap();
    let run = |dir: PinDir| {
        let error = dir.remove_dir_all("dir").unwrap_err();
        assert_displaced(&dir, error.cause(), "dir")
    };
    let mut removes = Tracee::fork(|| PinDir::open(fs.at("app")).unwrap(), run).unwrap();
    removes.run_to(|stop| stop.is_entry_of("renameat2"));
    dir.exchange("dir", "pin").unwrap();
    forbid_the_way_back(&dir, removes, |stop| stop.is_success_of("renameat2"));
    assert_eq!(ids(&dir), [map.id().unwrap()]);
    dir.open_dir("pin").unwrap();
}
