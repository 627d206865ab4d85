//! No failing call leaves a descriptor open.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::process::ExitCode;
use std::time::Duration;

use bpf_pin::dir::*;
use bpf_pin::error::*;
use bpf_pin::link::*;
use bpf_pin::map::*;
use bpf_pin::object::*;
use bpf_pin::reuse::*;
use bpf_pin::types::*;
use common::*;

use super::Fixture;

fn spec() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 8, 8)
}

/// Runs in a child with one thread: after every failing call there are as many descriptors as before.
pub fn no_descriptor_leaks() -> ExitCode {
    let fixture = Fixture::new();
    let at = |name| fixture.fs.at(name);
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for _ in 0..50 {
        Map::open(at("prog")).unwrap_err();
        Prog::open(at("link")).unwrap_err();
        Link::open(at("map")).unwrap_err();
        Object::open(at("nothing")).unwrap_err();
        Object::open("/dev/null").unwrap_err();
        PinnedMap::open_or_create(at("prog"), &spec(), Reuse::Exact).unwrap_err();
        PinnedMap::open_or_create(at("map/x"), &spec(), Reuse::Exact).unwrap_err();
        Link::open_with(at("link"), Access::ReadOnly).unwrap_err();
        PinnedLink::open(at("prog")).unwrap_err();
        Map::try_from(fixture.prog.as_fd().try_clone_to_owned().unwrap()).unwrap_err();
        Prog::from_id(u32::MAX).unwrap_err();
        hash().pin(at("map")).unwrap_err();
        hash().pin(at("a.b")).unwrap_err();
        hash().pin("/proc/self/map").unwrap_err();
        hash().elements::<u8, u8>().unwrap_err();
        let ours = hash().pin(at("ours")).unwrap();
        fs::remove_file(at("ours")).unwrap();
        let ours = ours.unpin().unwrap_err().into_object();
        let theirs = hash().pin(at("ours")).unwrap();
        ours.unpin().unwrap_err();
        theirs.unpin().unwrap();
        PinnedObject::open(at("map")).unwrap();
    }
    assert_eq!(open(), before);
    failing_dir_calls(&fixture);
    assert_eq!(open(), before);
    ExitCode::SUCCESS
}

/// Every call on a directory, made to fail.
fn failing_dir_calls(fixture: &Fixture) {
    let root = fixture.fs.root();
    let (map, prog) = (&fixture.map, &fixture.prog);
    symlink("map", fixture.fs.at("symlink")).unwrap();
    fs::create_dir(fixture.fs.at("full")).unwrap();
    prog.try_clone()
        .unwrap()
        .pin(fixture.fs.at("full/prog"))
        .unwrap();
    for name in [
        "", "a.b", "a/b", "a\0b", "nothing", "symlink", "map", "sub", "full",
    ] {
        failing_by_name(fixture, OsStr::new(name));
    }
    for _ in 0..20 {
        PinDir::open("/dev/null").unwrap_err();
        PinDir::open("/proc").unwrap_err();
        PinDir::open(fixture.fs.at("nothing")).unwrap_err();
        PinDir::from_fd(fs::File::open("/dev/null").unwrap().into()).unwrap_err();
        PinDir::from_fd(map.as_fd().try_clone_to_owned().unwrap()).unwrap_err();
        PinDir::create("/proc/nothing/here", 0o700).unwrap_err();
        PinDir::create(root.join("made/made/a.b"), 0o700).unwrap_err();
        PinDir::create(root.join("map/x"), 0o700).unwrap_err();
        PinDir::create(root.join("symlink/x"), 0o700).unwrap_err();
        PinDir::create(root.join("made"), 0o10000).unwrap_err();
        PinDir::create_owned(root.join("made"), 0o700, Some(u32::MAX), None).unwrap_err();
        let dir = fixture.dir();
        let held = dir.lock(LockMode::Exclusive, Wait::Forever).unwrap();
        assert!(dir.lock(LockMode::Exclusive, Wait::No).unwrap().is_none());
        assert!(
            dir.lock(LockMode::Exclusive, Wait::UpTo(Duration::from_millis(1)))
                .unwrap()
                .is_none()
        );
        drop(held);
        // Not a directory that was removed.
        let gone = dir.create_dir("gone", 0o700).unwrap();
        gone.replace(map, "map").unwrap();
        let set = gone.stage("set").unwrap();
        dir.remove_dir_all("gone").unwrap();
        gone.lock(LockMode::Exclusive, Wait::Forever).unwrap_err();
        gone.pin(map, "map").unwrap_err();
        gone.replace(map, "map").unwrap_err();
        gone.stage("set").unwrap_err();
        gone.create_dir("dir", 0o700).unwrap_err();
        gone.entries().unwrap().next().unwrap().unwrap_err();
        assert_eq!(gone.remove_leftovers().unwrap().failed.len(), 1);
        drop(set.publish().unwrap_err());
        let other = dir.identity("prog").unwrap();
        let error = dir.replace_if(map, "map", other).unwrap_err();
        assert_cause_matches!(error, Cause::Replaced { .. });
        dir.unpin(prog, "map").unwrap_err();
    }
    let names = ["full", "link", "map", "prog", "sub", "symlink"];
    assert_eq!(fixture.fs.names(), names);
}

/// Calls that fail for this name: that of a pin, a directory, a link, a missing entry, or an invalid name.
fn failing_by_name(fixture: &Fixture, name: &OsStr) {
    let (map, is) = (&fixture.map, |other: &str| name == other);
    let is_dir = is("sub") || is("full");
    for _ in 0..20 {
        let dir = fixture.dir();
        let seen = dir.identity("prog").unwrap();
        if !is_dir {
            dir.open_dir(name).unwrap_err();
            dir.remove_dir(name).unwrap_err();
            dir.remove_dir_all(name).unwrap_err();
        }
        if !is("nothing") {
            dir.pin(map, name).unwrap_err();
            dir.rename("prog", name).unwrap_err();
            dir.link("prog", name).unwrap_err();
        }
        if !is("nothing") && !is_dir {
            dir.create_dir(name, 0o700).unwrap_err();
            dir.stage(name)
                .map(|set| drop(set.publish().unwrap_err()))
                .ok();
        }
        if !is("map") {
            dir.get::<Map>(name).unwrap_err();
            dir.open_with_info(name).unwrap_err();
            dir.get::<bpf_pin::Object>(name).unwrap_err();
            dir.identity(name).unwrap_err();
            dir.unpin(map, name).unwrap_err();
            dir.copy_to(name, &dir).unwrap_err();
        }
        if is_dir || name.is_empty() || name.to_string_lossy().contains(['.', '/', '\0']) {
            dir.unlink(name).unwrap_err();
            dir.replace(map, name).unwrap_err();
            dir.replace_keeping_mode(map, name).unwrap_err();
            dir.link(name, "new").unwrap_err();
        }
        dir.get::<Prog>(name).unwrap_err();
        dir.get::<Link>(name).unwrap_err();
        dir.replace_if(map, name, seen).unwrap_err();
        dir.rename("nothing", name).unwrap_err();
        dir.exchange("nothing", name).unwrap_err();
        dir.set_mode(name, 0o10000).unwrap_err();
        dir.set_owner(name, Some(u32::MAX), None).unwrap_err();
    }
}
