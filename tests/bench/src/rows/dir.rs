//! Names in an open directory.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd};

use bpf_pin::{Map, PinDir};

use crate::bench::Bench;
use crate::pairs::{Contender, Notes, goal};
use crate::place::{aligned, c_path, hash};
use crate::{Failure, peers, raw};

use super::object::{assert_is_hash, is_pin_of};

const NAME: &str = "flows";
const C_NAME: &CStr = c"flows";
const DEEP: &str = "one/two/three/four/five/six";

pub fn rows(bench: &mut Bench) -> Result<(), Failure> {
    let deep = bench.place.dir(DEEP)?;
    let dir = PinDir::open(&deep)?;
    let map = hash(8)?;
    pin(bench, &dir, &map);
    dir.pin(&map, NAME)?;
    open(bench, &dir);
    replace(bench, &dir, &map)?;
    dir.unlink(NAME)?;
    std::fs::remove_dir_all(bench.place.at("one"))?;

    let other = bench.place.nosymfollow()?;
    let dir = PinDir::create(other.path.join(DEEP), 0o700)?;
    dir.pin(&map, NAME)?;
    open_nosymfollow(bench, &dir);
    Ok(())
}

fn pin(bench: &mut Bench, dir: &PinDir, map: &Map) {
    let (fd, at) = (map.as_fd(), dir.as_fd());
    let contenders = vec![
        Contender::new("raw", || {
            raw::pin_at(at, C_NAME, fd);
            raw::unlink_at(at, C_NAME);
        }),
        Contender::new("raw with the check", || {
            raw::pin_at(at, C_NAME, fd);
            let _pin = is_pin_of(fd, at.as_raw_fd(), C_NAME, || raw::get_at(at, C_NAME));
            raw::unlink_at(at, C_NAME);
        }),
        Contender::new("bpf-pin, no check", || {
            dir.pin(map, NAME).expect("a pin");
            dir.unlink(NAME).expect("a pin that was there");
        }),
        Contender::new("bpf-pin", || {
            dir.pin(map, NAME).expect("a pin");
            dir.unpin(map, NAME).expect("our pin");
        }),
    ];
    let goals = vec![
        goal("bpf-pin", "raw", 1.02),
        goal("bpf-pin", "raw with the check", 1.02),
        goal("bpf-pin, no check", "raw", 1.02),
    ];
    let notes = Notes {
        raw: "BPF_OBJ_PIN, unlinkat. The variant with the check makes info, readlink, BPF_OBJ_GET, info and close \
              between them",
        why: "The check that the pin holds this object takes these five syscalls. PinDir::unlink omits it.",
    };
    bench.call("PinDir::pin, unpin", contenders, goals, notes);
}

fn open(bench: &mut Bench, dir: &PinDir) {
    let path = aligned(&dir.path().join(NAME));
    let raw_path = c_path(path);
    let at = dir.as_fd();
    let mut contenders = vec![
        Contender::new("raw", || assert_is_hash(&raw::get_at(at, C_NAME))),
        Contender::new("raw, symlink check", || {
            let fd = raw::get_at(at, C_NAME);
            assert!(!raw::is_link_at(at.as_raw_fd(), C_NAME));
            assert_is_hash(&fd);
        }),
        Contender::new("raw by path", || assert_is_hash(&raw::get(&raw_path))),
        Contender::new("bpf-pin by path", || drop(Map::open(path).expect("a map"))),
        Contender::new("bpf-pin", || drop(dir.get::<Map>(NAME).expect("a map"))),
    ];
    contenders.extend(peers::open_map(path));
    let goals = vec![
        goal("bpf-pin", "raw, symlink check", 1.02),
        goal("bpf-pin", "bpf-pin by path", 1.0),
    ];
    let notes = Notes {
        raw: "BPF_OBJ_GET from the directory, info, close. The symlink check adds readlink. By path, as in all \
              peers, there is no directory",
        why: "bpf(2) follows symbolic links, and no flag prevents it, so a fourth syscall, readlink, checks \
              whether the name is one. It takes slightly longer than the lookup of the six directories.",
    };
    let name = "PinDir::get, in a directory six deep";
    bench.call(name, contenders, goals, notes);
}

fn open_nosymfollow(bench: &mut Bench, dir: &PinDir) {
    let path = aligned(&dir.path().join(NAME));
    let at = dir.as_fd();
    let mut contenders = vec![
        Contender::new("raw", || assert_is_hash(&raw::get_at(at, C_NAME))),
        Contender::new("bpf-pin by path", || drop(Map::open(path).expect("a map"))),
        Contender::new("bpf-pin", || drop(dir.get::<Map>(NAME).expect("a map"))),
    ];
    contenders.extend(peers::open_map(path));
    let goals = vec![
        goal("bpf-pin", "raw", 1.02),
        goal("bpf-pin", "bpf-pin by path", 1.0),
        goal("bpf-pin", "aya", 1.0),
    ];
    let notes = Notes {
        raw: "BPF_OBJ_GET from the directory, info, close. Peers open by path",
        why: "About 150 instructions: bpf-pin checks the name for a slash and a dot, and copies it to append a NUL.",
    };
    let name = "PinDir::get, on a nosymfollow mount";
    bench.call(name, contenders, goals, notes);
}

fn replace(bench: &mut Bench, dir: &PinDir, map: &Map) -> Result<(), Failure> {
    // As long as the library's temporary names.
    let temp_name = CString::new(format!("_passing-{:016x}-0", 1))?;
    let (fd, at) = (map.as_fd(), dir.as_fd());
    let contenders = vec![
        Contender::new("raw", || {
            raw::pin_at(at, &temp_name, fd);
            raw::rename_at(at, &temp_name, C_NAME);
        }),
        Contender::new("bpf-pin", || dir.replace(map, NAME).expect("a replacement")),
    ];
    let goals = vec![goal("bpf-pin", "raw", 1.05)];
    let notes = Notes {
        raw: "BPF_OBJ_PIN with a temporary name as long as the library's, renameat2",
        why: "About 300 instructions: bpf-pin copies the name, and acquires and releases a temporary name.",
    };
    bench.call("PinDir::replace", contenders, goals, notes);
    Ok(())
}
