//! The syscalls of `open_or_attach`.

use std::mem::forget;

use bpf_pin::link::Position;
use bpf_pin::reuse::Attachment;
use bpf_pin::types::AttachType;
use bpf_pin::{LinkSpec, PinDir, Prog};
use common::*;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::unshare_network;

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];

/// The request to rtnetlink verifies that the program is at a device of this network namespace.
const UNCHANGED: &[&str] = &[
    "OBJ_GET_INFO_BY_FD",
    "OBJ_GET_AT",
    "OBJ_GET_INFO_BY_FD",
    "readlink",
    "socket",
    "send",
    "recv",
    "close",
];
const UPDATED: &[&str] = &[
    "OBJ_GET_INFO_BY_FD",
    "OBJ_GET_AT",
    "OBJ_GET_INFO_BY_FD",
    "readlink",
    "socket",
    "send",
    "recv",
    "close",
    "LINK_UPDATE",
];
/// One query verifies that the link is listed in this network namespace.
const TCX_UNCHANGED: &[&str] = &[
    "OBJ_GET_INFO_BY_FD",
    "OBJ_GET_AT",
    "OBJ_GET_INFO_BY_FD",
    "readlink",
    "PROG_QUERY",
];
/// A control group's id is an inode number on 64-bit kernels. The query shows the program at the position.
const AT_A_POSITION: &[&str] = &[
    "OBJ_GET_INFO_BY_FD",
    "OBJ_GET_AT",
    "OBJ_GET_INFO_BY_FD",
    "readlink",
    "fstat",
    "PROG_QUERY",
];
/// Under the lock for exchanges: a file that is opened, checked, locked and checked again.
const ATTACHED: &[&str] = &[
    "OBJ_GET_INFO_BY_FD",
    "OBJ_GET_AT",
    "open",
    "fcntl",
    "fcntl",
    "fcntl",
    "OBJ_GET_AT",
    "readlink",
    "LINK_CREATE",
    "OBJ_PIN_AT",
    "fcntl",
    "close",
];

/// The query shows that the program is not attached yet.
const CGROUP_ATTACHED: &[&str] = &[
    "OBJ_GET_INFO_BY_FD",
    "OBJ_GET_AT",
    "open",
    "fcntl",
    "fcntl",
    "fcntl",
    "OBJ_GET_AT",
    "readlink",
    "PROG_QUERY",
    "LINK_CREATE",
    "OBJ_PIN_AT",
    "fcntl",
    "close",
];

#[common::test_alone(ROOT)]
fn each_outcome_takes_the_documented_syscalls() {
    unshare_network();
    unshare_mounts();
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    // Probes what the kernel supports before the fork, so that no child does.
    dir.get::<bpf_pin::Object>("nothing").unwrap_err();
    let _ = std::hash::RandomState::new();
    let (first, second) = (xdp_prog(), xdp_prog());
    let count =
        |spec: &LinkSpec<'_>, prog: &Prog, expected: &[&'static str], attachment: Attachment| {
            let ready = || PinDir::open(fs.root()).unwrap();
            let run = |dir: PinDir| {
                let attached = dir.open_or_attach("link", spec, prog).unwrap();
                let code = u8::from(attached.attachment != attachment);
                forget((attached, dir));
                code
            };
            let mut tracee = Tracee::fork(ready, run).unwrap();
            let mut seen = vec![];
            while let Some(stop) = tracee.next().unwrap() {
                if stop.is_entry() {
                    seen.push(stop.name());
                }
            }
            assert_eq!(tracee.finish().unwrap(), 0, "{attachment:?}");
            assert_eq!(seen, through_proc(expected), "{attachment:?}");
        };
    let old_prog_id = first.id().unwrap();
    let xdp = LinkSpec::xdp(LOOPBACK);
    count(&xdp, &first, ATTACHED, Attachment::Attached);
    count(&xdp, &first, UNCHANGED, Attachment::Unchanged);
    count(&xdp, &second, UPDATED, Attachment::Updated { old_prog_id });
    if kernel(6, 6).unmet().is_none() {
        let (tcx, prog) = (LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS), tcx_prog());
        dir.unlink("link").unwrap();
        count(&tcx, &prog, ATTACHED, Attachment::Attached);
        count(&tcx, &prog, TCX_UNCHANGED, Attachment::Unchanged);
    }
    let (cgroup, prog) = (Cgroup::new(), cgroup_prog());
    let file = cgroup.open();
    let group = LinkSpec::cgroup(&file, AttachType::CGROUP_INET_EGRESS);
    dir.unlink("link").unwrap();
    count(&group, &prog, CGROUP_ATTACHED, Attachment::Attached);
    if cfg!(target_pointer_width = "64") {
        let position = group.position(Position::First);
        let (unchanged, _) = AT_A_POSITION.split_at(5);
        count(&group, &prog, unchanged, Attachment::Unchanged);
        count(&position, &prog, AT_A_POSITION, Attachment::Unchanged);
    }
}

fn unshare_mounts() {
    // SAFETY: the process has one thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("mounts of its own");
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).expect("private mounts");
}

/// Before Linux 6.5 the calls go through /proc, which is proven genuine each time.
fn through_proc(expected: &[&'static str]) -> Vec<&'static str> {
    let has_path_fd = kernel(6, 5).unmet().is_none();
    let each = |&call: &&'static str| match (call.strip_suffix("_AT"), has_path_fd) {
        (None, _) => vec![call],
        (Some(bare), true) => vec![bare],
        (Some(bare), false) => vec!["stat", "fstat", bare],
    };
    expected.iter().flat_map(each).collect()
}
