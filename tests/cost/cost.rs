//! The exact cost of a call in system calls, allocations and descriptors.

use std::fs;
use std::mem::forget;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use bpf_pin::dir::DirLock;
use bpf_pin::map::{ElemFlags, Elements};
use bpf_pin::object::Ids;
use bpf_pin::prog::{Btf, TestRun};
use bpf_pin::{
    Access, Identity, Link, Map, MapSpec, Object, PinDir, PinnedLink, PinnedMap, PinnedProg, Prog,
};
use common::*;

const CHILD: &str = "BPF_PIN_TEST_COST";

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const NOSYMFOLLOW: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(5, 14)];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    match std::env::var(CHILD).as_deref() {
        Ok("descriptors") => return Some(descriptors::no_descriptor_leaks()),
        Ok("syscalls") => return Some(syscalls()),
        Ok(_) => return Some(syscalls_without_links()),
        Err(_) => {}
    }
    None
}

#[common::test(ROOT)]
fn every_successful_call_makes_its_documented_syscalls() -> Outcome {
    run_in_own_process(CHILD, "syscalls")
}

#[common::test(NOSYMFOLLOW)]
fn a_nosymfollow_mount_saves_the_readlink() -> Outcome {
    run_in_own_process(CHILD, "syscalls_without_links")
}

#[common::test(ROOT)]
fn failing_calls_leak_no_descriptor() -> Outcome {
    run_in_own_process(CHILD, "descriptors")
}

/// The objects of the measured calls.
struct Fixture {
    fs: TestFs,
    map: Map,
    prog: Prog,
}

impl Fixture {
    fn new() -> Self {
        Self::on(TestFs::new())
    }

    fn on(fs: TestFs) -> Self {
        let (map, prog) = (hash(), prog());
        map.elements::<u32, u64>()
            .and_then(|elems| elems.update(&1, &1, ElemFlags::ANY))
            .expect("an element");
        map.try_clone().unwrap().pin(fs.at("map")).expect("a pin");
        prog.try_clone().unwrap().pin(fs.at("prog")).expect("a pin");
        detached_link().pin(fs.at("link")).expect("a pin");
        fs::create_dir(fs.at("sub")).expect("a directory");
        let this = Self { fs, map, prog };
        // Prepares what a process does once to detect a fork.
        let lock = this.first_dir().lock(LockMode::Exclusive, Wait::Forever);
        drop(lock.expect("the lock"));
        this
    }

    /// The root, in a process that has already tested the kernel's support for descriptors.
    fn dir(&self) -> PinDir {
        let dir = self.first_dir();
        dir.identity("map").expect("the map's");
        dir
    }

    fn first_dir(&self) -> PinDir {
        PinDir::open(self.fs.root()).expect("the root")
    }

    /// A directory with an earlier replacement.
    fn replaced_before(&self) -> PinDir {
        let dir = self.dir();
        dir.replace(&self.map, "map").expect("a replacement");
        dir
    }

    fn locked(&self) -> (DirLock, PinDir) {
        let dir = self.dir();
        (
            dir.lock(LockMode::Exclusive, Wait::Forever)
                .expect("the lock")
                .expect("a free lock"),
            dir,
        )
    }
}

/// A prepared call and its expected system calls.
struct Measured {
    name: &'static str,
    expected: &'static [&'static str],
    prepare: fn(&Fixture) -> Box<dyn FnOnce() + '_>,
}

impl Measured {
    /// The system calls for a name in a directory. Before Linux 6.5 they go through /proc, which is checked each
    /// time. The first such call of a process fails, and the failure is verified.
    fn syscalls(&self, has_path_fd: bool, follows_links: bool) -> Vec<&'static str> {
        // A path does not show the flags of its mount.
        let is_by_path = self.name.starts_with("unpin");
        let looks_for_links = follows_links || is_by_path;
        let expected = self.expected.iter();
        let expected = expected.filter(|call| looks_for_links || **call != "readlink");
        let each = expected.flat_map(|&call| {
            let (is_first, call) = match call.strip_prefix("first ") {
                Some(call) => (true, call),
                None => (false, call),
            };
            let Some(bare) = call.strip_suffix("_AT") else {
                return vec![call];
            };
            match (has_path_fd, is_first) {
                (true, _) => vec![bare],
                (false, true) => vec![bare, "OBJ_GET", "prctl", "stat", "fstat", bare],
                (false, false) => vec!["stat", "fstat", bare],
            }
        });
        each.collect()
    }
}

/// The calls of every kernel, and those that depend on RENAME_EXCHANGE.
fn measured() -> impl Iterator<Item = &'static Measured> {
    let has_exchange = kernel(5, 17).unmet().is_none();
    let more = match has_exchange {
        true => WITH_EXCHANGE,
        false => WITHOUT_EXCHANGE,
    };
    let more = MEASURED.iter().chain(more).chain(elements::MEASURED);
    more.chain(reuse::MEASURED).chain(dirs::MEASURED)
}

const OPEN: &[&str] = &["OBJ_GET", "MAP_LOOKUP_BATCH", "close"];
const OPEN_BY_INFO: &[&str] = &["OBJ_GET", "OBJ_GET_INFO_BY_FD", "close"];
const UNPIN: &[&str] = &[
    "OBJ_GET_INFO_BY_FD",
    "readlink",
    "OBJ_GET",
    "OBJ_GET_INFO_BY_FD",
    "unlink",
    "close",
];

macro_rules! measured {
    ($($name:ident => $expected:expr, |$fixture:ident| $prepare:block $call:expr;)*) => {
        &[$(Measured {
            name: stringify!($name),
            expected: $expected,
            prepare: |$fixture| {
                #[allow(clippy::let_unit_value)]
                let ready = $prepare;
                let call = $call;
                Box::new(move || call(ready))
            },
        },)*]
    };
}

mod descriptors;
mod dirs;
mod elements;
mod mounts;
mod reuse;

const MEASURED: &[Measured] = measured! {
    open_map => OPEN, |fixture| { fixture.fs.at("map") } |path| drop(Map::open(path).unwrap());
    open_prog => OPEN_BY_INFO, |fixture| { fixture.fs.at("prog") } |path| drop(Prog::open(path).unwrap());
    open_link => OPEN_BY_INFO, |fixture| { fixture.fs.at("link") } |path| drop(Link::open(path).unwrap());
    open_map_read_only => OPEN, |fixture| { fixture.fs.at("map") }
        |path| drop(Map::open_with(path, Access::ReadOnly).unwrap());
    open_any_map => OPEN_BY_INFO, |fixture| { fixture.fs.at("map") } |path| drop(Object::open(path).unwrap());
    open_any_prog => OPEN_BY_INFO, |fixture| { fixture.fs.at("prog") } |path| drop(Object::open(path).unwrap());
    open_any_link => OPEN_BY_INFO, |fixture| { fixture.fs.at("link") } |path| drop(Object::open(path).unwrap());
    open_pinned_map => OPEN, |fixture| { fixture.fs.at("map") } |path| drop(PinnedMap::open(path).unwrap());
    open_pinned_prog => OPEN_BY_INFO, |fixture| { fixture.fs.at("prog") }
        |path| drop(PinnedProg::open(path).unwrap());
    open_pinned_link => OPEN_BY_INFO, |fixture| { fixture.fs.at("link") }
        |path| drop(PinnedLink::open(path).unwrap());
    pin => &["OBJ_PIN"], |fixture| { (fixture.map.try_clone().unwrap(), fixture.fs.at("new")) }
        |(map, path): (Map, PathBuf)| forget(map.pin(path).unwrap());
    unpin => UNPIN, |fixture| { PinnedMap::open(fixture.fs.at("map")).unwrap() }
        |pinned: PinnedMap| forget(pinned.unpin().unwrap());
    unpin_link => UNPIN, |fixture| { PinnedLink::open(fixture.fs.at("link")).unwrap() }
        |pinned: PinnedLink| forget(pinned.unpin().unwrap());
    id => &["OBJ_GET_INFO_BY_FD"], |fixture| { &fixture.prog } |prog: &Prog| assert_ne!(prog.id().unwrap(), 0);
    info => &["OBJ_GET_INFO_BY_FD"], |fixture| { &fixture.map } |map: &Map| assert_ne!(map.info().unwrap().id, 0);
    compare => &["OBJ_GET_INFO_BY_FD"], |fixture| { (MapSpec::of(&fixture.map).unwrap(), &fixture.map) }
        |(spec, map): (MapSpec<'_>, &Map)| assert_eq!(spec.compare(map).unwrap(), []);
    lookup => &["MAP_LOOKUP_ELEM"], |fixture| { fixture.map.elements::<u32, u64>().unwrap() }
        |elems: Elements<u32, u64, &Map>| assert_eq!(elems.lookup(&1).unwrap(), Some(1));
    update => &["MAP_UPDATE_ELEM"], |fixture| { fixture.map.elements::<u32, u64>().unwrap() }
        |elems: Elements<u32, u64, &Map>| elems.update(&1, &1, ElemFlags::ANY).unwrap();
    delete => &["MAP_DELETE_ELEM"], |fixture| { fixture.map.elements::<u32, u64>().unwrap() }
        |elems: Elements<u32, u64, &Map>| assert!(elems.delete(&1).unwrap());
    typed => &["OBJ_GET_INFO_BY_FD"], |fixture| { &fixture.map }
        |map: &Map| assert!(map.elements::<u32, u64>().is_ok());
    try_from => &["MAP_LOOKUP_BATCH"], |fixture| { fixture.map.try_clone().unwrap().into() }
        |fd: OwnedFd| forget(Map::try_from(fd).unwrap());
    test_run => &["PROG_TEST_RUN"], |fixture| { &fixture.prog }
        |prog: &Prog| assert_eq!(prog.test_run(TestRun::new().data_in(&[0; 64])).unwrap().retval, 0);
    test_run_with_context => &["OBJ_GET_INFO_BY_FD", "PROG_TEST_RUN"], |fixture| { &fixture.prog }
        |prog: &Prog| {
            let mut context = [0; 8];
            let run = TestRun::new().data_in(&[0; 64]).ctx_in(&mut context);
            assert_eq!(prog.test_run(run).unwrap().retval, 0);
        };
    bind_map => &["PROG_BIND_MAP"], |fixture| { (&fixture.prog, &fixture.map) }
        |(prog, map): (&Prog, &Map)| prog.bind_map(map).unwrap();
    map_ids => &["OBJ_GET_INFO_BY_FD"], |fixture| { &fixture.prog }
        |prog: &Prog| assert!(prog.map_ids().unwrap().is_empty());
    is_same_object => &["OBJ_GET_INFO_BY_FD", "OBJ_GET_INFO_BY_FD"], |fixture| { (&fixture.map, &fixture.prog) }
        |(map, prog): (&Map, &Prog)| assert!(!map.is_same_object(prog).unwrap());
    ids => &["PROG_GET_NEXT_ID"], |_scene| { Prog::ids() }
        |mut ids: Ids<Prog>| assert!(ids.next().unwrap().is_ok());
    by_id => &["MAP_GET_FD_BY_ID", "close"], |fixture| { fixture.map.id().unwrap() }
        |id| drop(Map::from_id_with(id, Access::ReadOnly).unwrap());
    btf_load => &["BTF_LOAD", "close"], |_scene| { btf_blob(&[1, 1 << 24, 4, 32], b"\0int\0") }
        |blob: Vec<u8>| { drop(Btf::load(&blob).unwrap()); forget(blob) };
    btf_id => &["OBJ_GET_INFO_BY_FD"], |_scene| { btf_object() }
        |btf: Btf| { assert_ne!(btf.id().unwrap(), 0); forget(btf) };
    btf_by_id => &["BTF_GET_FD_BY_ID", "close"], |_scene| { leaked_btf_id() }
        |id| drop(Btf::from_id(id).unwrap());

    dir_open => &["open", "fstatfs", "close"], |fixture| { fixture.fs.root() }
        |path| drop(PinDir::open(path).unwrap());
    dir_open_dir => &["openat2", "close"], |fixture| { fixture.dir() }
        |dir: PinDir| { drop(dir.open_dir("sub").unwrap()); forget(dir) };
    dir_pin_first => &["first OBJ_PIN_AT"], |fixture| { (fixture.first_dir(), &fixture.map) }
        |(dir, map): (PinDir, &Map)| { dir.pin(map, "new").unwrap(); forget(dir) };
    dir_pin => &["OBJ_PIN_AT"], |fixture| { (fixture.dir(), &fixture.map) }
        |(dir, map): (PinDir, &Map)| { dir.pin(map, "new").unwrap(); forget(dir) };
    dir_open_first => &["first OBJ_GET_AT", "MAP_LOOKUP_BATCH", "readlink", "close"], |fixture| { fixture.first_dir() }
        |dir: PinDir| { drop(dir.get::<Map>("map").unwrap()); forget(dir) };
    dir_open_map => &["OBJ_GET_AT", "MAP_LOOKUP_BATCH", "readlink", "close"], |fixture| { fixture.dir() }
        |dir: PinDir| { drop(dir.get::<Map>("map").unwrap()); forget(dir) };
    dir_open_map_read_only => &["OBJ_GET_AT", "MAP_LOOKUP_BATCH", "readlink", "close"], |fixture| { fixture.dir() }
        |dir: PinDir| { drop(dir.get_with::<Map>("map", Access::ReadOnly).unwrap()); forget(dir) };
    dir_open_prog => DIR_OPEN_BY_INFO, |fixture| { fixture.dir() }
        |dir: PinDir| { drop(dir.get::<Prog>("prog").unwrap()); forget(dir) };
    dir_open_link => DIR_OPEN_BY_INFO, |fixture| { fixture.dir() }
        |dir: PinDir| { drop(dir.get::<Link>("link").unwrap()); forget(dir) };
    dir_open_any_map => DIR_OPEN_BY_INFO, |fixture| { fixture.dir() }
        |dir: PinDir| { drop(dir.get::<bpf_pin::Object>("map").unwrap()); forget(dir) };
    dir_open_any_prog => DIR_OPEN_BY_INFO, |fixture| { fixture.dir() }
        |dir: PinDir| { drop(dir.get::<bpf_pin::Object>("prog").unwrap()); forget(dir) };
    dir_open_any_link => DIR_OPEN_BY_INFO, |fixture| { fixture.dir() }
        |dir: PinDir| { drop(dir.get::<bpf_pin::Object>("link").unwrap()); forget(dir) };
    dir_open_with_info_map => DIR_OPEN_BY_INFO, |fixture| { fixture.dir() }
        |dir: PinDir| { drop(dir.open_with_info("map").unwrap()); forget(dir) };
    dir_open_with_info_prog => DIR_OPEN_BY_INFO, |fixture| { fixture.dir() }
        |dir: PinDir| { drop(dir.open_with_info("prog").unwrap()); forget(dir) };
    dir_open_with_info_link => DIR_OPEN_BY_INFO, |fixture| { fixture.dir() }
        |dir: PinDir| { drop(dir.open_with_info("link").unwrap()); forget(dir) };
    dir_identity => HOLDER, |fixture| { fixture.dir() }
        |dir: PinDir| { assert_ne!(dir.identity("link").unwrap().id, 0); forget(dir) };
    dir_remove => &["OBJ_GET_INFO_BY_FD", "readlink", "OBJ_GET_AT", "OBJ_GET_INFO_BY_FD", "unlink", "close"],
        |fixture| { (fixture.dir(), &fixture.prog) }
        |(dir, prog): (PinDir, &Prog)| { dir.unpin(prog, "prog").unwrap(); forget(dir) };
    dir_unlink => &["unlink"], |fixture| { fixture.dir() }
        |dir: PinDir| { dir.unlink("link").unwrap(); forget(dir) };
    dir_remove_dir => &["rmdir"], |fixture| { fixture.dir() }
        |dir: PinDir| { dir.remove_dir("sub").unwrap(); forget(dir) };
    dir_link => &["linkat"], |fixture| { fixture.dir() }
        |dir: PinDir| { dir.link("map", "again").unwrap(); forget(dir) };
    dir_rename => &["renameat2"], |fixture| { fixture.dir() }
        |dir: PinDir| { dir.rename("map", "renamed").unwrap(); forget(dir) };
    dir_replace_first => &["open", "getrandom", "fcntl", "OBJ_PIN_AT", "renameat2"], |fixture| { (fixture.dir(), &fixture.prog) }
        |(dir, prog): (PinDir, &Prog)| { dir.replace(prog, "map").unwrap(); forget(dir) };
    dir_replace => &["OBJ_PIN_AT", "renameat2"], |fixture| { (fixture.replaced_before(), &fixture.prog) }
        |(dir, prog): (PinDir, &Prog)| { dir.replace(prog, "map").unwrap(); forget(dir) };
    dir_replace_nothing => &["OBJ_PIN_AT", "renameat2"], |fixture| { (fixture.replaced_before(), &fixture.prog) }
        |(dir, prog): (PinDir, &Prog)| { dir.replace(prog, "new").unwrap(); forget(dir) };
    dir_replace_keeping_mode => &["OBJ_PIN_AT", "lstat", "lstat", "renameat2"],
        |fixture| { (fixture.replaced_before(), &fixture.prog) }
        |(dir, prog): (PinDir, &Prog)| { dir.replace_keeping_mode(prog, "map").unwrap(); forget(dir) };
    dir_metadata => &["lstat"], |fixture| { fixture.dir() }
        |dir: PinDir| { assert_ne!(dir.metadata("map").unwrap().inode(), 0); forget(dir) };
    dir_own_metadata => &["fstat"], |fixture| { fixture.dir() }
        |dir: PinDir| { assert_ne!(dir.own_metadata().unwrap().inode(), 0); forget(dir) };
    dir_lock => &["open", "flock", "fstat", "stat"], |fixture| { fixture.dir() }
        |dir: PinDir| { forget(dir.lock(LockMode::Exclusive, Wait::Forever).unwrap()); forget(dir) };
    dir_lock_held => &["open", "flock", "close"], |fixture| { fixture.locked() }
        |(held, dir): (DirLock, PinDir)| { assert!(dir.lock(LockMode::Shared, Wait::No).unwrap().is_none()); forget((held, dir)) };
    dir_unlock => &["flock", "close"], |fixture| { fixture.locked() }
        |(held, dir): (DirLock, PinDir)| { drop(held); forget(dir) };
    dir_clone => &["fcntl"], |fixture| { fixture.dir() }
        |dir: PinDir| { forget(dir.try_clone().unwrap()); forget(dir) };
    dir_drop => &["close"], |fixture| { fixture.dir() } |dir: PinDir| drop(dir);
    dir_drop_claimed => &["close", "close"], |fixture| { fixture.replaced_before() } |dir: PinDir| drop(dir);
};

const DIR_OPEN_BY_INFO: &[&str] = &["OBJ_GET_AT", "OBJ_GET_INFO_BY_FD", "readlink", "close"];
const HOLDER: &[&str] = &["readlink", "OBJ_GET_AT", "OBJ_GET_INFO_BY_FD", "close"];

/// The id of a BTF object that exists as long as the process.
fn leaked_btf_id() -> u32 {
    let btf = btf_object();
    let id = btf.id().unwrap();
    forget(btf);
    id
}

/// A directory with an earlier replacement, an object, and the identity of the pin "map".
fn replacement(fixture: &Fixture) -> (PinDir, &Prog, Identity) {
    let dir = fixture.replaced_before();
    let seen = dir.identity("map").unwrap();
    (dir, &fixture.prog, seen)
}

const WITH_EXCHANGE: &[Measured] = measured! {
    dir_exchange => &["renameat2"], |fixture| { fixture.dir() }
        |dir: PinDir| { dir.exchange("map", "sub").unwrap(); forget(dir) };
    dir_replace_if => &[
            "open", "fcntl", "fcntl", "fcntl", "readlink", "OBJ_GET_AT", "OBJ_GET_INFO_BY_FD", "close",
            "OBJ_PIN_AT", "renameat2",
            "readlink", "OBJ_GET_AT", "OBJ_GET_INFO_BY_FD", "close", "unlink", "fcntl", "close",
        ],
        |fixture| { replacement(fixture) }
        |(dir, prog, seen): (PinDir, &Prog, Identity)| { dir.replace_if(prog, "map", seen).unwrap(); forget(dir) };
};

const WITHOUT_EXCHANGE: &[Measured] = measured! {
    dir_replace_if => &[
            "open", "fcntl", "fcntl", "fcntl", "readlink", "OBJ_GET_AT", "OBJ_GET_INFO_BY_FD", "close",
            "OBJ_PIN_AT", "renameat2",
            "readlink", "OBJ_GET_AT", "OBJ_GET_INFO_BY_FD", "close", "renameat2", "fcntl", "close",
        ],
        |fixture| { replacement(fixture) }
        |(dir, prog, seen): (PinDir, &Prog, Identity)| { dir.replace_if(prog, "map", seen).unwrap(); forget(dir) };
};

/// The system calls that are counted.
enum CountedCalls {
    Bpf,
    /// Each once, even if it is repeated.
    Named,
}

/// Runs in a child with one thread: each call, and its system calls.
fn syscalls() -> ExitCode {
    let bare = measured().chain(dirs::WITH_ROOM);
    let bare = bare.map(|measured| (measured, None));
    let storage = match kernel(5, 13).unmet() {
        None => elements::TASK_STORAGE,
        Some(_) => &[],
    };
    let buffered = elements::WITH_BUFFERS.iter().chain(storage);
    let buffered = buffered.map(|measured| (measured, Some(CountedCalls::Bpf)));
    let of_one = match kernel(6, 8).unmet() {
        None => mounts::ONE_MOUNT,
        Some(_) => mounts::ONE_MOUNT_BEFORE_6_8,
    };
    let listed = mounts::MEASURED.iter().chain(of_one);
    let listed = listed.map(|measured| (measured, Some(CountedCalls::Named)));
    compare(bare.chain(buffered).chain(listed), true)
}

/// The cost of calls in a directory on a mount with nosymfollow.
fn syscalls_without_links() -> ExitCode {
    let all = measured().chain(dirs::WITH_ROOM);
    compare(all.map(|measured| (measured, None)), false)
}

fn compare(
    all: impl Iterator<Item = (&'static Measured, Option<CountedCalls>)>,
    follows_links: bool,
) -> ExitCode {
    let has_path_fd = kernel(6, 5).unmet().is_none();
    for (measured, counted) in all {
        // The standard library reads its hash seed from the kernel once.
        let _ = std::hash::RandomState::new();
        let ready = || {
            let fs = match follows_links {
                true => TestFs::new(),
                false => TestFs::nosymfollow(),
            };
            let fixture: &'static Fixture = Box::leak(Box::new(Fixture::on(fs)));
            (measured.prepare)(fixture)
        };
        let run = |call: Box<dyn FnOnce()>| {
            call();
            0
        };
        let mut tracee = Tracee::fork(ready, run).expect("a traced child");
        let mut seen = Vec::new();
        while let Some(stop) = tracee.next().expect("a stop") {
            if stop.is_entry() {
                seen.push(stop.name());
            }
        }
        assert_eq!(tracee.finish().expect("an end"), 0, "{}", measured.name);
        match counted {
            None => {}
            Some(CountedCalls::Bpf) => seen.retain(|call| call.starts_with(char::is_uppercase)),
            Some(CountedCalls::Named) => {
                // Calls for memory have no name here.
                seen.retain(|call| !call.starts_with("syscall"));
                seen.dedup();
            }
        }
        let expected = measured.syscalls(has_path_fd, follows_links);
        let name = measured.name;
        assert_eq!(seen, expected, "{name}");
    }
    ExitCode::SUCCESS
}

#[common::test(ROOT)]
fn successful_calls_allocate_nothing() -> Outcome {
    for measured in measured() {
        let fixture = Fixture::new();
        let call = (measured.prepare)(&fixture);
        let _ = std::hash::RandomState::new();
        let ((), used) = count_allocations(call);
        assert_eq!(used.count, 0, "{}", measured.name);
    }
    // The counter works: a path of 256 bytes does not fit on the stack.
    let fs = TestFs::new();
    let long = fs.at(&"n".repeat(255));
    hash().pin(&long)?;
    let (opened, used) = count_allocations(|| Map::open(&long).map(drop));
    opened?;
    assert_eq!(used.count, 1);
    let deep = fs.root().join("x/".repeat(118));
    fs::create_dir_all(&deep)?;
    let (mut deep, mut counts) = (deep.into_os_string(), Vec::new());
    while deep.len() < 256 {
        let dir = PinDir::open(&deep)?;
        let (_, used) = count_allocations(|| dir.get::<bpf_pin::Object>("nothing").unwrap_err());
        assert!(used.count > 0, "the error has a text");
        let (opened, used) = count_allocations(|| PinDir::open(&deep).map(drop));
        opened?;
        counts.push((deep.len(), used.count));
        deep.push("/");
    }
    for (len, count) in counts {
        assert_eq!(count, 0, "a path of {len} bytes");
    }
    let (opened, used) = count_allocations(|| PinDir::open(&deep).map(drop));
    opened?;
    assert_eq!(used.count, 1, "a path of 256 bytes");
    Ok(())
}
