//! Sixteen at once: one attaches, and the others get its link.

use std::os::unix::fs::OpenOptionsExt;
use std::thread;

use bpf_pin::reuse::Attachment;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{LinkSpec, PinDir, Prog};
use common::*;

use crate::open_or_attach::{netns, one_link};

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];
const TRACER: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON];

pub const CASES: &[(&str, &[Need])] = &[
    ("sixteen_processes_at_xdp", ROOT),
    ("sixteen_processes_at_tcx", TCX),
    ("sixteen_processes_at_a_network_namespace", ROOT),
    ("sixteen_processes_at_a_control_group", ROOT),
    ("sixteen_processes_at_a_raw_tracepoint", TRACER),
    ("sixteen_threads_at_xdp", ROOT),
];

const RACERS: usize = 16;
const ROUNDS: usize = 3;

pub fn run(name: &str) -> bool {
    let what = name.rsplit_once("_at_").map_or("", |(_, what)| what);
    if name == "sixteen_threads_at_xdp" {
        threads();
        return true;
    }
    if !name.starts_with("sixteen_processes") {
        return false;
    }
    match what {
        "xdp" => race(&LinkSpec::xdp(LOOPBACK), xdp_prog, true),
        "tcx" => race(
            &LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS),
            tcx_prog,
            true,
        ),
        "a_network_namespace" => {
            let netns = netns();
            let spec = LinkSpec::netns(&netns, AttachType::SK_LOOKUP);
            race(&spec, sk_lookup_prog, true);
        }
        "a_control_group" => in_mount_namespace(|| {
            let cgroup = Cgroup::new();
            let file = cgroup.open();
            let spec = LinkSpec::cgroup(&file, AttachType::CGROUP_INET_EGRESS);
            // Forked from a thread, of which alone the children are copies.
            race(&spec, cgroup_prog, true);
        }),
        "a_raw_tracepoint" => {
            let make = || prog_returning(ProgType::RAW_TRACEPOINT, AttachType(0), 0);
            race(
                &LinkSpec::raw_tracepoint(c"sched_process_exec"),
                make,
                false,
            );
        }
        _ => return false,
    }
    true
}

fn race(spec: &LinkSpec<'_>, make: impl Fn() -> Prog, has_updates: bool) {
    let fs = TestFs::new();
    let mine: Vec<_> = (0..RACERS).map(|_| make()).collect();
    let same: Vec<_> = (0..RACERS).map(|_| mine[0].try_clone().unwrap()).collect();
    for round in 0..ROUNDS {
        for progs in [&mine, &same] {
            let all: Vec<_> = progs.iter().collect();
            let is_same = std::ptr::eq(progs, &same);
            // Nothing is there.
            let codes = go(&fs, spec, progs);
            assert_eq!(count(&codes, ATTACHED), 1, "{round}: {codes:?}");
            let rest = match (is_same, has_updates) {
                (true, _) => UNCHANGED,
                (false, true) => UPDATED,
                (false, false) => RELINKED,
            };
            assert_eq!(count(&codes, rest), RACERS - 1, "{round}: {codes:?}");
            assert_eq!(fs.names(), ["link"]);
            let dir = PinDir::open(fs.root()).unwrap();
            let link = one_link(&dir, &all);

            // A defunct one is there.
            if has_updates {
                link.detach().unwrap();
                let codes = go(&fs, spec, progs);
                assert_eq!(count(&codes, REATTACHED), 1, "{round}: {codes:?}");
                assert_eq!(count(&codes, rest), RACERS - 1, "{round}: {codes:?}");
                assert_eq!(fs.names(), ["link"]);
                one_link(&dir, &all).detach().unwrap();
            }
            drop(link);
            dir.unlink("link").unwrap();
            let ids: Vec<_> = progs.iter().map(|prog| prog.id().unwrap()).collect();
            wait_until("gone", || links_of_progs(&ids).is_empty());
        }
    }
}

const ATTACHED: i32 = 1;
const UPDATED: i32 = 2;
const UNCHANGED: i32 = 3;
const REATTACHED: i32 = 4;
const RELINKED: i32 = 5;

fn count(codes: &[i32], code: i32) -> usize {
    codes.iter().filter(|&&found| found == code).count()
}

fn code_of(attachment: Attachment) -> i32 {
    match attachment {
        Attachment::Attached => ATTACHED,
        Attachment::Updated { .. } => UPDATED,
        Attachment::Unchanged => UNCHANGED,
        Attachment::Reattached => REATTACHED,
        Attachment::Relinked { .. } => RELINKED,
        other => panic!("{other:?}"),
    }
}

/// A process for each program, which all begin at once; what each says it has done.
fn go(fs: &TestFs, spec: &LinkSpec<'_>, progs: &[Prog]) -> Vec<i32> {
    // Who opens the one end waits for whoever opens the other.
    let gate = tempfile::tempdir().unwrap();
    let gate = gate.path().join("gate");
    rustix::fs::mkfifoat(rustix::fs::CWD, &gate, 0o600.into()).unwrap();
    let pids: Vec<_> = progs
        .iter()
        .map(|prog| {
            // SAFETY: the child calls what this thread could call, and ends without destructors; no
            // other thread holds a lock that it would wait for.
            match unsafe { libc::fork() } {
                0 => {
                    let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        let dir = PinDir::open(fs.root()).unwrap();
                        drop(std::fs::File::open(&gate).unwrap());
                        match dir.open_or_attach("link", spec, prog) {
                            Ok(attached) => code_of(attached.attachment),
                            Err(error) => {
                                eprintln!("{error}");
                                100
                            }
                        }
                    }));
                    // SAFETY: the parent's buffers and destructors are the parent's.
                    unsafe { libc::_exit(code.unwrap_or(101)) }
                }
                pid => pid,
            }
        })
        .collect();
    // All that wait are let go when it closes; who comes later is opened for again.
    let mut codes = vec![];
    for pid in pids {
        loop {
            let open = std::fs::OpenOptions::new()
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(&gate);
            drop(open);
            let mut status = 0;
            // SAFETY: status is writable; our child.
            let done = unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) };
            assert!(done >= 0);
            if done == pid {
                assert!(libc::WIFEXITED(status), "status {status}");
                codes.push(libc::WEXITSTATUS(status));
                break;
            }
            thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    codes
}

fn threads() {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    let spec = LinkSpec::xdp(LOOPBACK);
    let progs: Vec<_> = (0..RACERS).map(|_| xdp_prog()).collect();
    let all: Vec<_> = progs.iter().collect();
    for _ in 0..ROUNDS {
        let codes: Vec<_> = thread::scope(|scope| {
            let go = |prog| {
                let (dir, spec) = (&dir, &spec);
                scope.spawn(move || {
                    code_of(dir.open_or_attach("link", spec, prog).unwrap().attachment)
                })
            };
            let threads: Vec<_> = progs.iter().map(go).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(count(&codes, ATTACHED), 1, "{codes:?}");
        assert_eq!(count(&codes, UPDATED), RACERS - 1, "{codes:?}");
        assert_eq!(fs.names(), ["link"]);
        one_link(&dir, &all).detach().unwrap();
        dir.unlink("link").unwrap();
    }
}
