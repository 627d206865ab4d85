//! Pins by path: opened, created and removed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bpf_pin::prog::Insn;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Link, LinkSpec, Map, Prog, ProgSpec, abi};

use crate::Failure;
use crate::bench::Bench;
use crate::pairs::{Contender, Goal, Notes, goal};
use crate::place::{aligned, c_path, hash};
use crate::{peers, raw};

pub fn rows(bench: &mut Bench) -> Result<(), Failure> {
    let map = hash(8)?;
    raw::update(map.as_fd(), &1, &1);
    let at = |name: &str| aligned(&bench.place.at(name));
    let (map_path, prog_path, link_path) = (at("map"), at("prog"), at("link"));
    map.try_clone()?.pin(map_path)?;
    prog()?.pin(prog_path)?;
    link()?.pin(link_path)?;
    open_map(bench, map_path);
    open_prog(bench, prog_path);
    open_link(bench, link_path);
    pin(bench, map);
    for path in [map_path, prog_path, link_path] {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// As fast as the bare calls, and faster than the libraries without a proof.
pub fn goals(most: f64) -> Vec<Goal> {
    let mut goals = vec![goal("bpf-pin", "raw", most)];
    goals.extend(peers::NAMES.iter().map(|peer| goal("bpf-pin", peer, 1.0)));
    goals
}

fn open_map(bench: &mut Bench, path: &Path) {
    let raw_path = c_path(path);
    let mut contenders = vec![
        Contender::new("raw", || assert_is_hash(&raw::get(&raw_path))),
        Contender::new("raw, batch", || {
            assert!(raw::answers_as_map(raw::get(&raw_path).as_fd()));
        }),
        Contender::new("bpf-pin", || drop(Map::open(path).expect("a map"))),
    ];
    contenders.extend(peers::open_map(path));
    let name = "open a map, prove its kind, close";
    let mut goals = goals(1.02);
    goals.push(goal("bpf-pin", "raw, batch", 1.02));
    let notes = Notes {
        raw: "BPF_OBJ_GET, info with a check of its type, close. The batch variant replaces the info with an empty \
              batch, which only a map accepts, as bpf-pin does",
        why: "",
    };
    bench.call(name, contenders, goals, notes);
}

fn open_prog(bench: &mut Bench, path: &Path) {
    let raw_path = c_path(path);
    let mut contenders = vec![
        Contender::new("raw", || {
            let info = raw::prog_info(raw::get(&raw_path).as_fd());
            assert_eq!(info.r#type, abi::BPF_PROG_TYPE_SOCKET_FILTER);
        }),
        Contender::new("bpf-pin", || drop(Prog::open(path).expect("a program"))),
    ];
    contenders.extend(peers::open_prog(path));
    let name = "open a program, prove its kind, close";
    let notes = Notes {
        raw: "BPF_OBJ_GET, info with a check of its type, close",
        why: "About 60 instructions: bpf-pin copies the path to append a NUL, where raw has a C string, and checks \
              the info for the kind.",
    };
    bench.call(name, contenders, goals(1.02), notes);
}

fn open_link(bench: &mut Bench, path: &Path) {
    let raw_path = c_path(path);
    let mut contenders = vec![
        Contender::new("raw", || {
            let info = raw::link_info(raw::get(&raw_path).as_fd());
            assert_eq!(info.r#type, abi::BPF_LINK_TYPE_NETNS);
        }),
        Contender::new("bpf-pin", || drop(Link::open(path).expect("a link"))),
    ];
    contenders.extend(peers::open_link(path));
    let name = "open a link, prove its kind, close";
    let notes = Notes {
        raw: "BPF_OBJ_GET, info with a check of its type, close",
        why: "aya and libbpf-rs open a link with only BPF_OBJ_GET and close, without a proof of its kind. Compared \
              with raw it is about 90 instructions, for the path and the check of the info.",
    };
    bench.call(name, contenders, goals(1.02), notes);
}

pub fn assert_is_hash(fd: &OwnedFd) {
    assert_eq!(raw::map_info(fd.as_fd()).r#type, abi::BPF_MAP_TYPE_HASH);
}

/// The calls by which `unpin` checks which object a pin holds.
pub fn is_pin_of(
    fd: BorrowedFd<'_>,
    dir: i32,
    name: &std::ffi::CStr,
    get: impl Fn() -> OwnedFd,
) -> OwnedFd {
    let id = raw::map_info(fd).id;
    assert!(!raw::is_link_at(dir, name));
    let pin = get();
    assert_eq!(raw::map_info(pin.as_fd()).id, id);
    pin
}

fn pin(bench: &mut Bench, map: Map) {
    let path = aligned(&bench.place.at("pin"));
    let raw_path = c_path(path);
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
            let pinned = held.take().expect("a map").pin(path).expect("a pin");
            held = Some(pinned.unpin().expect("our pin"));
        }),
    ];
    contenders.extend(peers::pin(&peer, path));
    let goals = vec![
        goal("bpf-pin", "raw", 1.02),
        goal("bpf-pin", "raw with the check", 1.02),
    ];
    let notes = Notes {
        raw: "BPF_OBJ_PIN, unlink. The variant with the check makes info, readlink, BPF_OBJ_GET, info and close \
              between them",
        why: "The check that the pin holds this object takes these five syscalls. No peer makes it.",
    };
    bench.call("pin a map, unpin it", contenders, goals, notes);
}

/// A socket filter that drops every packet.
pub fn prog() -> Result<Prog, Failure> {
    let insns = [Insn::mov64_imm(0, 0), Insn::exit()];
    Ok(ProgSpec::new(ProgType::SOCKET_FILTER, &insns).load()?)
}

/// A link in the bench's network namespace.
pub fn link() -> Result<Link, Failure> {
    let insns = [Insn::mov64_imm(0, 1), Insn::exit()];
    let prog = ProgSpec::new(ProgType::SK_LOOKUP, &insns)
        .expected_attach_type(AttachType::SK_LOOKUP)
        .load()?;
    let netns = std::fs::File::open("/proc/self/ns/net")?;
    Ok(LinkSpec::netns(&netns, AttachType::SK_LOOKUP).create(&prog)?)
}
