//! The cost of creating, filling, listing and removing directories.

use std::mem::forget;

use bpf_pin::dir::Stage;
use bpf_pin::{PinDir, Prog};

use super::{Fixture, Measured};

fn list_all(dir: &PinDir) {
    let names = dir.entries().unwrap().map(|entry| entry.unwrap());
    assert!(names.count() >= 4);
}

/// A leaked directory, and a stage in it.
fn staged(fixture: &Fixture) -> Stage<'static> {
    let dir: &'static PinDir = Box::leak(Box::new(fixture.dir()));
    dir.stage("set").expect("a stage")
}

/// A directory is created under a hidden name and then renamed.
const MAKE: &[&str] = &[
    "open",
    "getrandom",
    "fcntl",
    "mkdirat",
    "openat2",
    "fstat",
    "geteuid",
    "getegid",
    "fstat",
    "renameat2",
    "close",
];

const fn all<const LEN: usize>(parts: [&[&'static str]; 3]) -> [&'static str; LEN] {
    let mut all = [""; LEN];
    let (mut part, mut at) = (0, 0);
    while part < parts.len() {
        let mut call = 0;
        while call < parts[part].len() {
            all[at] = parts[part][call];
            (at, call) = (at + 1, call + 1);
        }
        part += 1;
    }
    assert!(at == LEN);
    all
}

const DIR_CREATE_DIR: &[&str] = &all::<13>([&["openat2", "fstat"], MAKE, &[]]);

const LOOK_FOR_PARENT: &[&str] = &[
    "open", "fstatfs", "open", "fstatfs", "close", "open", "fstatfs", "close", "open", "fstatfs",
    "close", "open", "fstatfs", "close", "open", "fstat",
];

const DIR_CREATE: &[&str] = &all::<29>([LOOK_FOR_PARENT, MAKE, &["close", "close"]]);

/// The first call in a directory. Later ones omit the three calls after lstat.
const DIR_REMOVE_DIR_ALL: &[&str] = &[
    "lstat",
    "open",
    "getrandom",
    "fcntl",
    "renameat2",
    "openat2",
    "open",
    "getdents64",
    "getdents64",
    "rmdir",
    "close",
    "close",
];

const DIR_STAGE: &[&str] = &[
    "open",
    "getrandom",
    "fcntl",
    "mkdirat",
    "openat2",
    "fstat",
    "geteuid",
];

const DIR_WALK: &[&str] = &[
    "fcntl",
    "open",
    "getdents64",
    "openat2",
    "open",
    "getdents64",
    "getdents64",
    "close",
    "close",
    "getdents64",
    "close",
    "close",
];

/// These allocate nothing.
pub(super) const MEASURED: &[Measured] = measured! {
    dir_set_owner => &["openat2", "fchownat", "close"],
        |fixture| { fixture.dir() }
        |dir: PinDir| { dir.set_owner("map", Some(1), Some(1)).unwrap(); forget(dir) };
    dir_chmod => &["open", "fchmod", "close"],
        |fixture| { fixture.dir() }
        |dir: PinDir| { dir.chmod(0o750).unwrap(); forget(dir) };
    dir_chown => &["fchownat"],
        |fixture| { fixture.dir() }
        |dir: PinDir| { dir.chown(Some(1), None).unwrap(); forget(dir) };
    dir_exists_already => &["openat2", "close"],
        |fixture| { fixture.dir() }
        |dir: PinDir| { drop(dir.create_dir("sub", 0o700).unwrap()); forget(dir) };
    dir_create_dir => DIR_CREATE_DIR, |fixture| { fixture.dir() }
        |dir: PinDir| { drop(dir.create_dir("new", 0o700).unwrap()); forget(dir) };
    dir_copy_to => &["readlink", "OBJ_GET_AT", "OBJ_PIN_AT", "close"],
        |fixture| { (fixture.dir(), fixture.dir().create_dir("new", 0o700).unwrap()) }
        |(dir, other): (PinDir, PinDir)| { dir.copy_to("map", &other).unwrap(); forget((dir, other)) };
    dir_stage => DIR_STAGE, |fixture| { fixture.dir() }
        |dir: PinDir| { forget(dir.stage("set").unwrap()); forget(dir) };
    stage_pin => &["OBJ_PIN_AT"], |fixture| { (staged(fixture), &fixture.prog) }
        |(stage, prog): (Stage<'_>, &Prog)| { stage.pin(prog, "prog").unwrap(); forget(stage) };
    stage_publish => &["renameat2"],
        |fixture| { staged(fixture) }
        |stage: Stage<'_>| forget(stage.publish().unwrap());
};

/// These allocate a buffer for what they list, of a fixed size, or a path.
pub(super) const WITH_ROOM: &[Measured] = measured! {
    dir_set_mode => &["openat2", "fstat", "open", "fstatfs", "fchmodat", "close", "close"],
        |fixture| { fixture.dir() }
        |dir: PinDir| { dir.set_mode("map", 0o640).unwrap(); forget(dir) };
    dir_entries => &["open", "getdents64", "getdents64", "close"],
        |fixture| { fixture.dir() } |dir: PinDir| { list_all(&dir); forget(dir) };
    dir_walk => DIR_WALK, |fixture| { fixture.dir() }
        |dir: PinDir| { assert!(dir.walk().unwrap().count() >= 4); forget(dir) };
    dir_create => DIR_CREATE, |fixture| { fixture.fs.at("new") }
        |path: std::path::PathBuf| { drop(PinDir::create(&path, 0o700).unwrap()); forget(path) };
    dir_remove_dir_all => DIR_REMOVE_DIR_ALL, |fixture| { fixture.dir() }
        |dir: PinDir| { dir.remove_dir_all("sub").unwrap(); forget(dir) };
};
