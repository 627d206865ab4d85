//! SIGKILL before and after each syscall: the next call finishes, and nothing is left over.

use std::fs;

use bpf_pin::reuse::Attachment;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Link, LinkSpec, PinDir, Prog};
use common::*;

use crate::open_or_attach::one_link;

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];
const NETFILTER: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 4)];
const TRACER: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON];

pub const CASES: &[(&str, &[Need])] = &[
    ("killed_amid_attaching_xdp", ROOT),
    ("killed_amid_attaching_tcx", TCX),
    ("killed_amid_updating_xdp", ROOT),
    ("killed_amid_reattaching_xdp", ROOT),
    ("killed_amid_reattaching_tcx", TCX),
    ("killed_amid_relinking_a_raw_tracepoint", TRACER),
    ("killed_amid_relinking_netfilter", NETFILTER),
];

/// What is there before.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    Another,
    Defunct,
}

pub fn run(name: &str) -> bool {
    let xdp = LinkSpec::xdp(LOOPBACK);
    let tcx = LinkSpec::tcx(LOOPBACK, AttachType::TCX_EGRESS);
    let tracepoint = LinkSpec::raw_tracepoint(c"sched_process_exec");
    let traces = || prog_returning(ProgType::RAW_TRACEPOINT, AttachType(0), 0);
    match name {
        "killed_amid_attaching_xdp" => everywhere(name, &xdp, xdp_prog, Before::Nothing),
        "killed_amid_attaching_tcx" => everywhere(name, &tcx, tcx_prog, Before::Nothing),
        "killed_amid_updating_xdp" => everywhere(name, &xdp, xdp_prog, Before::Another),
        "killed_amid_reattaching_xdp" => everywhere(name, &xdp, xdp_prog, Before::Defunct),
        "killed_amid_reattaching_tcx" => everywhere(name, &tcx, tcx_prog, Before::Defunct),
        "killed_amid_relinking_a_raw_tracepoint" => {
            everywhere(name, &tracepoint, traces, Before::Another)
        }
        "killed_amid_relinking_netfilter" => {
            let netfilter = LinkSpec::netfilter(2, 1, -77);
            let filters = || prog_returning(ProgType::NETFILTER, AttachType::NETFILTER, 1);
            everywhere(name, &netfilter, filters, Before::Another);
        }
        _ => return false,
    }
    true
}

fn everywhere(name: &str, spec: &LinkSpec<'_>, make: impl Fn() -> Prog, before: Before) {
    let fs = TestFs::new();
    let (ours, theirs) = (make(), make());
    // The standard library's seed of hashes comes from the kernel once, for all children.
    let _ = std::hash::RandomState::new();
    PinDir::open(fs.root())
        .unwrap()
        .get::<bpf_pin::Object>("nothing")
        .unwrap_err();
    // Of one that is left alone.
    let stops = killed_at(&fs, spec, &ours, &theirs, before, usize::MAX);
    // A pin or an update at the least, both before and after.
    assert!(stops.len() >= 8, "{stops:?}");
    let changes = |number: usize| changes(&stops[number]);
    at_each_stop(name, stops.len(), changes, |number| {
        let seen = killed_at(&fs, spec, &ours, &theirs, before, number);
        assert_eq!(seen.len(), number + 1, "the same syscalls each time");
    });
}

/// Before and after what changes a link or a pin, and after what changes locks.
fn changes(stop: &Stop) -> bool {
    match stop.name().as_str() {
        "LINK_CREATE" | "LINK_UPDATE" | "LINK_DETACH" | "OBJ_PIN" | "renameat2" | "unlink" => true,
        "close" | "fcntl" => !stop.is_entry(),
        _ => false,
    }
}

/// The stops up to the one where it was killed, or all where it was done before.
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
    // Of the last round's link nobody sees any more than that there is no room beside it.
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
        if before == Before::Defunct {
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
    // What was there is there, or what is to be.
    let seen = dir.get::<Link>("link");
    match before {
        Before::Another => {
            let prog_id = seen.as_ref().unwrap().info().unwrap().prog_id;
            assert!(both.contains(&prog_id), "{what}");
        }
        Before::Defunct => drop(seen.as_ref().expect(&what)),
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
    // The directory may keep one for its claim.
    assert!(descriptors() <= open + 1, "{what}");
    // The defunct link may be left under a hidden name; one that is attached may not.
    if before == Before::Defunct {
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
