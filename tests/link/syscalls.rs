//! The syscalls of updates and queries.

use std::fs::File;
use std::mem::forget;
use std::os::fd::{AsFd, AsRawFd};

use bpf_pin::prog::Insn;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Link, LinkSpec, MapSpec, MapType, Prog, ProgSpec};
use common::*;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];

/// The syscalls of a call in a child, without those for memory.
fn syscalls<T>(call: impl Fn() -> bpf_pin::Result<T>) -> Vec<String> {
    let run = |()| match call() {
        Ok(done) => {
            forget(done);
            0
        }
        Err(_) => 1,
    };
    let mut tracee = Tracee::fork(|| (), run).expect("a traced child");
    let mut seen = vec![];
    while let Some(stop) = tracee.next().expect("a stop") {
        if stop.is_entry() {
            seen.push(stop.name());
        }
    }
    assert_eq!(tracee.finish().expect("an end"), 0, "{seen:?}");
    seen.retain(|call| !call.starts_with("syscall"));
    seen
}

/// Mounts and a network of its own for this process.
fn unshare() {
    // SAFETY: the process has one thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET) }.expect("namespaces");
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).expect("private mounts");
}

#[common::test_alone(ROOT)]
fn an_update_takes_two_syscalls_and_three_for_a_control_group() {
    unshare();
    let (first, second) = (xdp_prog(), xdp_prog());
    let link = LinkSpec::xdp(LOOPBACK).create(&first).unwrap();
    let update = syscalls(|| link.update(&second));
    assert_eq!(update, ["OBJ_GET_INFO_BY_FD", "LINK_UPDATE"]);

    let (cgroup, first, second) = (Cgroup::new(), cgroup_prog(), cgroup_prog());
    let file = cgroup.open();
    let spec = LinkSpec::cgroup(&file, AttachType::CGROUP_INET_EGRESS);
    let link = spec.create(&first).unwrap();
    let update = syscalls(|| link.update(&second));
    let expected = ["OBJ_GET_INFO_BY_FD", "LINK_CREATE", "LINK_UPDATE"];
    assert_eq!(update, expected);
}

#[common::test_alone(ROOT)]
fn a_query_of_64_programs_takes_one_syscall_and_one_of_xdp_four() {
    unshare();
    let netns = File::open("/proc/self/ns/net").unwrap();
    let (spec, prog) = (
        LinkSpec::netns(&netns, AttachType::SK_LOOKUP),
        sk_lookup_prog(),
    );
    let links: Vec<Link> = (0..64).map(|_| spec.create(&prog).unwrap()).collect();
    assert_eq!(spec.query().unwrap().entries().len(), links.len());
    assert_eq!(syscalls(|| spec.query()), ["PROG_QUERY"]);

    let spec = LinkSpec::xdp(LOOPBACK);
    let _link = spec.create(&xdp_prog()).unwrap();
    assert_eq!(spec.query().unwrap().entries().len(), 1);
    let expected = ["socket", "send", "recv", "close"];
    assert_eq!(syscalls(|| spec.query()), expected);
}

/// Asserts that the syscalls after each `next` are among `expected`, unless the object was freed or is not ready.
/// Returns which of them were seen.
fn seen_for_each(seen: &[String], next: &str, expected: &[&[&str]]) -> Vec<bool> {
    let mut found = vec![false; expected.len()];
    for calls in seen.split(|call| *call == next).skip(1) {
        if calls.iter().any(|call| call == "OBJ_GET_INFO_BY_FD") {
            let at = expected.iter().position(|one| calls == *one);
            found[at.unwrap_or_else(|| panic!("{calls:?}"))] = true;
        }
    }
    found
}

#[common::test_alone(ROOT)]
fn links_and_users_of_a_map_take_four_syscalls_each() {
    unshare();
    let netns = File::open("/proc/self/ns/net").unwrap();
    let spec = LinkSpec::netns(&netns, AttachType::SK_LOOKUP);
    let link = spec.create(&sk_lookup_prog()).unwrap();
    assert_eq!(spec.links().unwrap(), [link.info().unwrap()]);
    let seen = syscalls(|| spec.links());
    let each = ["LINK_GET_FD_BY_ID", "OBJ_GET_INFO_BY_FD", "close"];
    assert_eq!(seen_for_each(&seen, "LINK_GET_NEXT_ID", &[&each]), [true]);

    let map = MapSpec::new(MapType::HASH, 4, 8, 1).create().unwrap();
    let [low, high] = Insn::ld_map_fd(2, map.as_fd().as_raw_fd());
    let insns = [low, high, Insn::mov64_imm(0, 0), Insn::exit()];
    let user = ProgSpec::new(ProgType::SOCKET_FILTER, &insns);
    let user = user.load().unwrap();
    assert_eq!(Prog::ids_using(&map).unwrap(), [user.id().unwrap()]);
    let seen = syscalls(|| Prog::ids_using(&map));
    let without = ["PROG_GET_FD_BY_ID", "OBJ_GET_INFO_BY_FD", "close"];
    let with = [
        "PROG_GET_FD_BY_ID",
        "OBJ_GET_INFO_BY_FD",
        "OBJ_GET_INFO_BY_FD",
        "close",
    ];
    let found = seen_for_each(&seen, "PROG_GET_NEXT_ID", &[&without, &with]);
    assert_eq!(found, [true, true]);
    assert_eq!(syscalls(|| user.map_ids()), ["OBJ_GET_INFO_BY_FD"; 2]);
}
