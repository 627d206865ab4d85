//! Processes stopped at named system calls: schedules in which an object could be lost, or processes could wait
//! forever.

use std::thread::sleep;
use std::time::Duration;

use bpf_pin::error::Cause;
use bpf_pin::map::ElemFlags;
use bpf_pin::reuse::{Attachment, MapOutcome, Migrate, Reuse};
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Identity, Link, LinkSpec, Map, MapSpec, MapType, PinDir};
use common::{Need, Stop, TestFs, Tracee, assert_cause_matches, cap, kernel, prog_returning};

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const EXCHANGE: &[Need] = &[cap::BPF, Need::Bpffs, kernel(5, 17)];
const TRACER: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON, kernel(5, 17)];

fn spec() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 16, 8)
}

/// Pins a map of another value size.
fn pin_old(dir: &PinDir) {
    let old = MapSpec::new(MapType::HASH, 4, 8, 8).create().unwrap();
    dir.pin(&old, "flows").unwrap();
}

fn grow() -> Migrate<'static> {
    Migrate::new(|key: &u32, value: &u64| Some((*key, [*value, 0])))
}

/// Puts the process's number into the map.
fn put(map: &Map, number: u32) {
    let elems = map.elements::<u32, [u64; 2]>().unwrap();
    elems.update(&number, &[1, 1], ElemFlags::ANY).unwrap();
}

/// A map created during another process's replacement is not taken for the old map: the lock excludes a creation
/// between the check and the exchange.
#[common::test_alone(EXCHANGE)]
fn a_creation_waits_for_a_replacement() {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    pin_old(&dir);
    let ask = |number: u32, reuse: fn() -> Reuse<'static, 'static>| {
        let ready = || PinDir::open(fs.root()).unwrap();
        let run = move |dir: PinDir| {
            let reused = dir.open_or_create("flows", &spec(), reuse()).unwrap();
            put(&reused.map, number);
            u8::from(matches!(reused.outcome, MapOutcome::Created))
        };
        Tracee::fork(ready, run).unwrap()
    };
    let mut replaces = ask(1, || Reuse::Recreate);
    replaces.run_to(|stop| stop.is_entry_of("renameat2"));
    dir.unlink("flows").unwrap();
    let mut creates = ask(2, || Reuse::Exact);
    creates.run_to(Stop::is_sleep);
    let missing = dir.get::<Map>("flows").expect_err("nothing is pinned");
    assert_cause_matches!(missing, Cause::Missing { .. });
    let created = [replaces.finish().unwrap(), creates.finish().unwrap()];
    assert_eq!(
        created.iter().sum::<u8>(),
        1,
        "one process has created the map"
    );
    let map = dir.get::<Map>("flows").unwrap();
    let mut keys: Vec<u32> = map
        .elements::<u32, [u64; 2]>()
        .unwrap()
        .keys()
        .map(Result::unwrap)
        .collect();
    keys.sort_unstable();
    assert_eq!(keys, [1, 2], "both have written to the pinned map");
}

/// Another process replaces the pin between the new link and the rename.
#[common::test_alone(TRACER)]
fn a_link_pinned_during_relinking_is_kept() {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    let make = || prog_returning(ProgType::RAW_TRACEPOINT, AttachType(0), 0);
    let (ours, theirs) = (make(), make());
    let spec = LinkSpec::raw_tracepoint(c"sched_process_exec");
    dir.open_or_attach("link", &spec, &theirs).unwrap();
    let ready = || PinDir::open(fs.root()).unwrap();
    let run = |dir: PinDir| {
        let attached = dir.open_or_attach("link", &spec, &ours).unwrap();
        u8::from(attached.attachment == Attachment::Unchanged)
    };
    let mut relinks = Tracee::fork(ready, run).unwrap();
    relinks.run_to(|stop| stop.is_entry_of("renameat2"));
    let other = spec.create(&ours).unwrap();
    dir.replace(&other, "link").unwrap();
    assert_eq!(
        relinks.finish().unwrap(),
        1,
        "the link of the other process was opened"
    );
    let found = dir.get::<Link>("link").unwrap();
    assert_eq!(found.id().unwrap(), other.id().unwrap());
    let names: Vec<_> = fs
        .names()
        .into_iter()
        .filter(|name| name != "link")
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

/// A waiter holds no lock while it waits, at any stop.
#[common::test_alone(EXCHANGE)]
fn a_stopped_waiter_does_not_block_others() {
    for stops in 0..16 {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root()).unwrap();
        pin_old(&dir);
        let replace = |seen: Identity| {
            let ready = || (PinDir::open(fs.root()).unwrap(), spec().create().unwrap());
            let run = move |(dir, map): (PinDir, Map)| {
                u8::from(dir.replace_if(&map, "flows", seen).is_err())
            };
            Tracee::fork(ready, run).unwrap()
        };
        let seen = dir.identity("flows").unwrap();
        let mut owner = replace(seen);
        owner.run_to(|stop| stop.is_entry_of("renameat2"));
        let mut waiter = replace(seen);
        for _ in 0..stops {
            waiter.next().unwrap();
        }
        assert_eq!(owner.finish().unwrap(), 0);
        let third = spec().create().unwrap();
        let seen = dir.identity("flows").unwrap();
        let done = dir.replace_if(&third, "flows", seen);
        done.unwrap_or_else(|error| panic!("at stop {stops}: {error}"));
        assert_eq!(
            waiter.finish().unwrap(),
            1,
            "at stop {stops}: the pin has changed"
        );
    }
}

#[common::test_alone(PINS)]
fn one_of_two_processes_resumes_a_migration() {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    pin_old(&dir);
    let migrate = |dir: &PinDir| {
        let reused = dir.open_or_create("flows", &spec(), Reuse::Migrate(&mut grow()));
        reused.unwrap().outcome
    };
    // Left uncommitted.
    assert!(matches!(migrate(&dir), MapOutcome::Migrated(_)));
    let resume = || {
        let run = |dir: PinDir| match migrate(&dir) {
            MapOutcome::Resumed(migration) => migration.commit().map(|_| 1).unwrap(),
            MapOutcome::Found => 0,
            other => panic!("{other:?}"),
        };
        Tracee::fork(|| PinDir::open(fs.root()).unwrap(), run).unwrap()
    };
    let locks =
        |stop: &Stop| stop.is_success_of("fcntl") && stop.args[1] == libc::F_OFD_SETLK as u64;
    let looks =
        |stop: &Stop| stop.is_success_of("fcntl") && stop.args[1] == libc::F_OFD_GETLK as u64;
    let mut tracees = [resume(), resume()];
    for step in [&looks as &dyn Fn(&Stop) -> bool, &locks, &looks, &locks] {
        tracees.iter_mut().for_each(|tracee| tracee.run_to(step));
    }
    // Each has seen the other's lock and released its own. If retries had a short limit, both would give up in this pause.
    sleep(Duration::from_millis(50));
    let resumed: u8 = tracees.map(|tracee| tracee.finish().unwrap()).iter().sum();
    assert_eq!(resumed, 1);
}
