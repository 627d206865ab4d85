//! Opening pins, and making and removing them, by path.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use bpf_pin::{AttachType, Insn, Link, LinkSpec, Map, Prog, ProgSpec, ProgType};

use crate::Failure;
use crate::bench::Bench;
use crate::pairs::{Contender, Goal, goal};
use crate::place::{c_path, hash};
use crate::{peers, raw};

pub fn rows(bench: &mut Bench) -> Result<(), Failure> {
    let map = hash(8)?;
    raw::update(map.as_fd(), &1, &1);
    let (map_path, prog_path, link_path) = (
        bench.place.at("map"),
        bench.place.at("prog"),
        bench.place.at("link"),
    );
    map.try_clone()?.pin(&map_path)?;
    prog()?.pin(&prog_path)?;
    link()?.pin(&link_path)?;
    open_map(bench, &map_path);
    open_prog(bench, &prog_path);
    open_link(bench, &link_path);
    pin(bench, map);
    for path in [map_path, prog_path, link_path] {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// As cheap as the bare calls, and cheaper than those who prove nothing.
pub fn goals(most: f64) -> Vec<Goal> {
    let mut goals = vec![goal("bpf-pin", "raw", most)];
    goals.extend(peers::NAMES.iter().map(|peer| goal("bpf-pin", peer, 1.0)));
    goals
}

fn open_map(bench: &mut Bench, path: &Path) {
    let raw_path = c_path(path);
    let mut contenders = vec![
        Contender::new("raw", || {
            let fd = raw::get(&raw_path);
            assert_ne!(raw::map_info(fd.as_fd()).id, 0);
        }),
        Contender::new("bpf-pin", || drop(Map::open(path).expect("a map"))),
    ];
    contenders.extend(peers::open_map(path));
    let name = "open a map, prove its kind, close";
    bench.call(name, contenders, goals(1.02), "");
}

fn open_prog(bench: &mut Bench, path: &Path) {
    let raw_path = c_path(path);
    let mut contenders = vec![
        Contender::new("raw", || {
            let fd = raw::get(&raw_path);
            assert_ne!(raw::prog_info(fd.as_fd()).id, 0);
        }),
        Contender::new("bpf-pin", || drop(Prog::open(path).expect("a program"))),
    ];
    contenders.extend(peers::open_prog(path));
    let name = "open a program, prove its kind, close";
    let why = "Some 90 instructions: the path is copied, up to a NUL, which raw gets ready made, and the info is \
         looked through for the kind.";
    bench.call(name, contenders, goals(1.02), why);
}

fn open_link(bench: &mut Bench, path: &Path) {
    let raw_path = c_path(path);
    let mut contenders = vec![
        Contender::new("raw", || {
            let fd = raw::get(&raw_path);
            assert_ne!(raw::link_info(fd.as_fd()).id, 0);
        }),
        Contender::new("bpf-pin", || drop(Link::open(path).expect("a link"))),
    ];
    contenders.extend(peers::open_link(path));
    let name = "open a link, prove its kind, close";
    bench.call(
        name,
        contenders,
        goals(1.02),
        "aya and libbpf-rs open a link with get and close alone: they ask for no info and prove no kind. \
         Beside raw it is some 110 instructions, and a room of 72 bytes for the info, by which a longer \
         struct is told from a link's: the kernel looks whether what is beyond its own is zero.",
    );
}

/// The calls with which `unpin` finds out whose pin it is.
pub fn is_pin_of(
    fd: BorrowedFd<'_>,
    dir: i32,
    name: &std::ffi::CStr,
    get: impl Fn() -> std::os::fd::OwnedFd,
) -> std::os::fd::OwnedFd {
    let id = raw::map_info(fd).id;
    assert!(!raw::is_link_at(dir, name));
    let pin = get();
    assert_eq!(raw::map_info(pin.as_fd()).id, id);
    pin
}

fn pin(bench: &mut Bench, map: Map) {
    let path = bench.place.at("pin");
    let raw_path = c_path(&path);
    let fd = map.try_clone().expect("a descriptor");
    let fd = fd.as_fd();
    let peer = map.try_clone().expect("a descriptor");
    let mut held = Some(map);
    let mut contenders = vec![
        Contender::new("raw", || {
            raw::pin(fd, &raw_path);
            raw::unlink(&raw_path);
        }),
        Contender::new("raw with the check", || {
            raw::pin(fd, &raw_path);
            let _pin = is_pin_of(fd, libc::AT_FDCWD, &raw_path, || raw::get(&raw_path));
            raw::unlink(&raw_path);
        }),
        Contender::new("bpf-pin", || {
            let pinned = held.take().expect("a map").pin(&path).expect("a pin");
            held = Some(pinned.unpin().expect("our pin"));
        }),
    ];
    contenders.extend(peers::pin(&peer, &path));
    let goals = vec![
        goal("bpf-pin", "raw", 1.02),
        goal("bpf-pin", "raw with the check", 1.02),
    ];
    bench.call(
        "pin a map, unpin it",
        contenders,
        goals,
        "The check whose pin it is takes five syscalls beside pin and unlink: info, readlink, get, info, close. \
         Nobody else makes it. Beside the same calls by hand it is some 470 instructions, the most of \
         them to copy the path and to look through the info of what is there for its kind.",
    );
}

/// A socket filter that takes no packet.
pub fn prog() -> Result<Prog, Failure> {
    let insns = [Insn::mov64_imm(0, 0), Insn::exit()];
    Ok(ProgSpec::new(ProgType::SOCKET_FILTER, &insns).load()?)
}

/// A link to the bench's own network namespace.
pub fn link() -> Result<Link, Failure> {
    let insns = [Insn::mov64_imm(0, 1), Insn::exit()];
    let prog = ProgSpec::new(ProgType::SK_LOOKUP, &insns)
        .expected_attach_type(AttachType::SK_LOOKUP)
        .load()?;
    let netns = std::fs::File::open("/proc/self/ns/net")?;
    Ok(LinkSpec::netns(&netns, AttachType::SK_LOOKUP).create(&prog)?)
}
