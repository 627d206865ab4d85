//! Processes that are stopped at named system calls: schedules in which an object could be lost, or
//! everyone kept waiting.

use std::thread::sleep;
use std::time::Duration;

use bpf_pin::error::Cause;
use bpf_pin::map::ElemFlags;
use bpf_pin::reuse::{Attachment, MapOutcome, Migrate, Reuse};
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Identity, Link, LinkSpec, Map, MapSpec, MapType, PinDir};
use common::{Need, Stop, TestFs, Tracee, cap, kernel, prog_returning};

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const EXCHANGE: &[Need] = &[cap::BPF, Need::Bpffs, kernel(5, 17)];
const TRACER: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON, kernel(5, 17)];

fn spec() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 16, 8)
}

/// A map of another value size under the name.
fn outgrown(dir: &PinDir) {
    let old = MapSpec::new(MapType::HASH, 4, 8, 8).create().unwrap();
    dir.pin(&old, "flows").unwrap();
}

fn grow() -> Migrate<'static> {
    Migrate::new(|key: &u32, value: &u64| Some((*key, [*value, 0])))
}

/// Goes on to the first such stop.
fn until(tracee: &mut Tracee, is_it: impl Fn(&Stop) -> bool) {
    while let Some(stop) = tracee.next().unwrap() {
        if is_it(&stop) {
            return;
        }
    }
    panic!("it ended without that stop");
}

fn is_entry(name: &'static str) -> impl Fn(&Stop) -> bool {
    move |stop| stop.is_entry() && stop.name() == name
}

fn is_asleep(stop: &Stop) -> bool {
    [libc::SYS_nanosleep, libc::SYS_clock_nanosleep].contains(&stop.nr)
}

/// What a process has done, with a map that it has put its number into.
fn put(map: &Map, number: u32) {
    let elems = map.elements::<u32, [u64; 2]>().unwrap();
    elems.update(&number, &[1, 1], ElemFlags::ANY).unwrap();
}

/// A map that is created while another process recreates one is not taken for the old one: between
/// the check and the exchange nobody creates.
#[common::test_alone(EXCHANGE)]
fn a_creation_waits_for_a_replacement() {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    outgrown(&dir);
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
    until(&mut replaces, is_entry("renameat2"));
    dir.unlink("flows").unwrap();
    let mut creates = ask(2, || Reuse::Exact);
    until(&mut creates, is_asleep);
    let missing = dir.get::<Map>("flows").expect_err("nothing is pinned");
    assert!(
        matches!(missing.cause(), Some(Cause::Missing { .. })),
        "{missing}"
    );
    let created = [replaces.finish().unwrap(), creates.finish().unwrap()];
    assert_eq!(created.iter().sum::<u8>(), 1, "one has created it");
    let map = dir.get::<Map>("flows").unwrap();
    let mut keys: Vec<u32> = map
        .elements::<u32, [u64; 2]>()
        .unwrap()
        .keys()
        .map(Result::unwrap)
        .collect();
    keys.sort_unstable();
    assert_eq!(keys, [1, 2], "both have written to the map that is pinned");
}

/// A link that is put under the name while a program is attached by a link of its own is not lost.
#[common::test_alone(TRACER)]
fn a_link_that_was_replaced_amid_relinking_stays() {
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
    until(&mut relinks, is_entry("renameat2"));
    let other = spec.create(&ours).unwrap();
    dir.replace(&other, "link").unwrap();
    assert_eq!(relinks.finish().unwrap(), 1, "theirs was taken");
    let found = dir.get::<Link>("link").unwrap();
    assert_eq!(found.id().unwrap(), other.id().unwrap());
    let names: Vec<_> = fs
        .names()
        .into_iter()
        .filter(|name| name != "link")
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

/// A process that waits for the lock holds nothing, wherever it is stopped.
#[common::test_alone(EXCHANGE)]
fn a_stopped_waiter_blocks_nobody() {
    for stops in 0..16 {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root()).unwrap();
        outgrown(&dir);
        let replace = |seen: Identity| {
            let ready = || (PinDir::open(fs.root()).unwrap(), spec().create().unwrap());
            let run = move |(dir, map): (PinDir, Map)| {
                u8::from(dir.replace_if(&map, "flows", seen).is_err())
            };
            Tracee::fork(ready, run).unwrap()
        };
        let seen = dir.identity("flows").unwrap();
        let mut owner = replace(seen);
        until(&mut owner, is_entry("renameat2"));
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
            "at stop {stops}: the name has changed hands"
        );
    }
}

/// Of two that try at the same time to finish a migration, one does.
#[common::test_alone(PINS)]
fn one_of_two_resumes_a_migration() {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    outgrown(&dir);
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
    let mut both = [resume(), resume()];
    for step in [&looks as &dyn Fn(&Stop) -> bool, &locks, &looks, &locks] {
        both.iter_mut().for_each(|tracee| until(tracee, step));
    }
    // Both have seen each other and let go. Longer than a wait that would be given up.
    sleep(Duration::from_millis(50));
    let resumed: u8 = both.map(|tracee| tracee.finish().unwrap()).iter().sum();
    assert_eq!(resumed, 1);
}
