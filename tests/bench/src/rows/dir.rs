//! Names in a directory that is held open.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd};

use bpf_pin::{Map, PinDir};

use crate::bench::Bench;
use crate::pairs::{Contender, goal};
use crate::place::{c_path, hash};
use crate::{Failure, peers, raw};

use super::object::is_pin_of;

const NAME: &str = "flows";
const C_NAME: &CStr = c"flows";

pub fn rows(bench: &mut Bench) -> Result<(), Failure> {
    const DEEP: &str = "one/two/three/four/five/six";
    let deep = bench.place.dir(DEEP)?;
    let dir = PinDir::open(&deep)?;
    let other = bench.place.nosymfollow()?;
    let without_links = PinDir::create(other.path.join(DEEP), 0o700)?;
    let map = hash(8)?;
    pin(bench, &dir, &map);
    dir.pin(&map, NAME)?;
    without_links.pin(&map, NAME)?;
    open(bench, &dir, &without_links);
    replace(bench, &dir, &map)?;
    dir.unlink(NAME)?;
    std::fs::remove_dir_all(bench.place.at("one"))?;
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
            dir.remove(map, NAME).expect("our pin");
        }),
    ];
    let goals = vec![
        goal("bpf-pin", "raw", 1.02),
        goal("bpf-pin", "raw with the check", 1.02),
        goal("bpf-pin, no check", "raw", 1.02),
    ];
    bench.call(
        "PinDir::pin, remove",
        contenders,
        goals,
        "The check whose pin it is takes five syscalls beside pin and unlink: info, readlink, get, info, close; \
         PinDir::unlink does without. Each call is some 150 instructions: the name is searched for a slash \
         and a dot, and copied, up to a NUL.",
    );
}

fn open(bench: &mut Bench, dir: &PinDir, without_links: &PinDir) {
    let path = dir.path().join(NAME);
    let raw_path = c_path(&path);
    let at = dir.as_fd();
    let mut contenders = vec![
        Contender::new("raw", || {
            let fd = raw::get(&raw_path);
            assert_ne!(raw::map_info(fd.as_fd()).id, 0);
        }),
        Contender::new("raw by directory", || {
            let fd = raw::get_at(at, C_NAME);
            assert_ne!(raw::map_info(fd.as_fd()).id, 0);
        }),
        Contender::new("bpf-pin by path", || drop(Map::open(&path).expect("a map"))),
        Contender::new("bpf-pin", || drop(dir.open_as::<Map>(NAME).expect("a map"))),
        Contender::new("bpf-pin, nosymfollow", || {
            drop(without_links.open_as::<Map>(NAME).expect("a map"));
        }),
    ];
    contenders.extend(peers::open_map(&path));
    let goals = vec![
        goal("bpf-pin", "raw", 1.0),
        goal("bpf-pin", "bpf-pin by path", 1.0),
        goal("bpf-pin, nosymfollow", "raw", 1.0),
        goal("bpf-pin, nosymfollow", "bpf-pin by path", 1.0),
    ];
    bench.call(
        "PinDir::open_as, against a path six directories deep",
        contenders,
        goals,
        "bpf(2) follows symbolic links and has no flag against it, so a fourth syscall, readlink, finds out \
         whether the name is one. On a mount that is nosymfollow the kernel follows none, and the six directories \
         are saved.",
    );
}

fn replace(bench: &mut Bench, dir: &PinDir, map: &Map) -> Result<(), Failure> {
    // As long as the name that the library takes on the way.
    let passing = CString::new(format!("_passing-{:016x}-0", 1))?;
    let (fd, at) = (map.as_fd(), dir.as_fd());
    let contenders = vec![
        Contender::new("raw", || {
            raw::pin_at(at, &passing, fd);
            raw::rename_at(at, &passing, C_NAME);
        }),
        Contender::new("bpf-pin", || dir.replace(map, NAME).expect("a replacement")),
    ];
    let goals = vec![goal("bpf-pin", "raw", 1.05)];
    bench.call(
        "PinDir::replace",
        contenders,
        goals,
        "Some 330 instructions: a name is copied, another is lent and given back.",
    );
    Ok(())
}
