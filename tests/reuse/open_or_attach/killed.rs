//! SIGKILL before and after each syscall of `open_or_attach`: the next call succeeds, and nothing is left.

use std::fs;

use bpf_pin::reuse::Attachment;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Link, LinkSpec, PinDir, Prog};
use common::*;

use super::{one_link, raw_tracepoint_prog, unshare_network};

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];
const NETFILTER: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 4)];
const TRACER: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON];

/// The pin before the calls.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    Another,
    Detached,
}

#[common::test_alone(ROOT)]
fn attaching_xdp_recovers_from_a_kill() {
    check_every_stop(
        "attaching xdp",
        &LinkSpec::xdp(LOOPBACK),
        xdp_prog,
        Before::Nothing,
    );
}

#[common::test_alone(TCX)]
fn attaching_tcx_recovers_from_a_kill() {
    check_every_stop("attaching tcx", &tcx(), tcx_prog, Before::Nothing);
}

#[common::test_alone(ROOT)]
fn updating_xdp_recovers_from_a_kill() {
    check_every_stop(
        "updating xdp",
        &LinkSpec::xdp(LOOPBACK),
        xdp_prog,
        Before::Another,
    );
}

#[common::test_alone(ROOT)]
fn reattaching_xdp_recovers_from_a_kill() {
    check_every_stop(
        "reattaching xdp",
        &LinkSpec::xdp(LOOPBACK),
        xdp_prog,
        Before::Detached,
    );
}

#[common::test_alone(TCX)]
fn reattaching_tcx_recovers_from_a_kill() {
    check_every_stop("reattaching tcx", &tcx(), tcx_prog, Before::Detached);
}

#[common::test_alone(TRACER)]
fn relinking_a_raw_tracepoint_recovers_from_a_kill() {
    let spec = LinkSpec::raw_tracepoint(c"sched_process_exec");
    check_every_stop(
        "relinking a raw tracepoint",
        &spec,
        raw_tracepoint_prog,
        Before::Another,
    );
}

#[common::test_alone(NETFILTER)]
fn relinking_netfilter_recovers_from_a_kill() {
    let spec = LinkSpec::netfilter(2, 1, -77);
    let make = || prog_returning(ProgType::NETFILTER, AttachType::NETFILTER, 1);
    check_every_stop("relinking netfilter", &spec, make, Before::Another);
}

fn tcx() -> LinkSpec<'static> {
    LinkSpec::tcx(LOOPBACK, AttachType::TCX_EGRESS)
}

/// Kills a call at each of its stops.
fn check_every_stop(name: &str, spec: &LinkSpec<'_>, make: impl Fn() -> Prog, before: Before) {
    unshare_network();
    let fs = TestFs::new();
    let (ours, theirs) = (make(), make());
    // Reads the seed of the standard library's hashes, and probes what the kernel supports, before the fork.
    let _ = std::hash::RandomState::new();
    PinDir::open(fs.root())
        .unwrap()
        .get::<bpf_pin::Object>("nothing")
        .unwrap_err();
    // The stops of a call that is not killed.
    let stops = killed_at(&fs, spec, &ours, &theirs, before, usize::MAX);
    // At least four syscalls, each before and after.
    assert!(stops.len() >= 8, "{stops:?}");
    let changes = |number: usize| changes(&stops[number]);
    at_each_stop(name, stops.len(), changes, |number| {
        let seen = killed_at(&fs, spec, &ours, &theirs, before, number);
        assert_eq!(seen.len(), number + 1, "the same syscalls each time");
    });
}

/// True before and after calls that change a link or a pin, and after calls that change locks.
fn changes(stop: &Stop) -> bool {
    match stop.name().as_str() {
        "LINK_CREATE" | "LINK_UPDATE" | "LINK_DETACH" | "OBJ_PIN" | "renameat2" | "unlink" => true,
        "close" | "fcntl" => !stop.is_entry(),
        _ => false,
    }
}

/// Kills the call at a stop, and returns the stops up to there, or all stops if it ended before.
fn killed_at(
    fs: &TestFs,
    spec: &LinkSpec<'_>,
    ours: &Prog,
    theirs: &Prog,
    before: Before,
    number: usize,
) -> Vec<Stop> {
    let name = number.to_string();
    fs::create_dir(fs.at(&name)).unwrap();
    let dir = PinDir::open(fs.at(&name)).unwrap();
    let both = [ours.id().unwrap(), theirs.id().unwrap()];
    // The link of the last round may be gone from the list of links and still occupy its target.
    let mut free = None;
    wait_until("free", || {
        free = spec.create(theirs).ok();
        links_of_progs(&both).len() == 1 && free.is_some()
    });
    let link = free.unwrap();
    if before == Before::Nothing {
        drop(link);
        wait_until("gone", || {
            links_of_progs(&both).is_empty() && spec.create(theirs).is_ok()
        });
    } else {
        dir.pin(&link, "link").unwrap();
        if before == Before::Detached {
            link.detach().unwrap();
        }
        drop(link);
    }
    let ready = || PinDir::open(fs.at(&name)).unwrap();
    let run = |dir: PinDir| u8::from(dir.open_or_attach("link", spec, ours).is_err());
    let mut tracee = Tracee::fork(ready, run).unwrap();
    let mut stops = vec![];
    while stops.len() <= number {
        match tracee.next().unwrap() {
            Some(stop) => stops.push(stop),
            None => break,
        }
    }
    let is_over = stops.len() <= number;
    let what = format!("killed at {number}: {:?}", stops.last());
    match is_over {
        true => assert_eq!(tracee.finish().unwrap(), 0),
        false => tracee.kill().unwrap(),
    }
    // The pin holds the old link or the new one.
    let seen = dir.get::<Link>("link");
    match before {
        Before::Another => {
            let prog_id = seen.as_ref().unwrap().info().unwrap().prog_id;
            assert!(both.contains(&prog_id), "{what}");
        }
        Before::Detached => drop(seen.as_ref().expect(&what)),
        Before::Nothing => {}
    }
    drop(seen);
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let open = descriptors();
    let again = dir.open_or_attach("link", spec, ours);
    let attachment = again
        .unwrap_or_else(|error| panic!("{what}: {error}"))
        .attachment;
    if is_over {
        assert_eq!(attachment, Attachment::Unchanged);
    }
    // The directory may keep one for its temporary names.
    assert!(descriptors() <= open + 1, "{what}");
    // A detached link may be left under a hidden name, an attached one may not.
    if before == Before::Detached {
        assert!(dir.remove_leftovers().unwrap().removed.len() <= 1, "{what}");
    }
    let names: Vec<_> = fs::read_dir(fs.at(&name))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["link"], "{what}");
    let link = one_link(&dir, &[ours, theirs]);
    assert_eq!(link.info().unwrap().prog_id, both[0], "{what}");
    drop((link, dir));
    fs::remove_dir_all(fs.at(&name)).unwrap();
    stops
}
