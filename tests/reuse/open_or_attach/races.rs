//! Sixteen calls of `open_or_attach` at once: one attaches, and the others get its link.

use std::os::unix::fs::OpenOptionsExt;
use std::thread;

use bpf_pin::reuse::Attachment;
use bpf_pin::types::AttachType;
use bpf_pin::{LinkSpec, PinDir, Prog};
use common::*;

use super::{netns, one_link, raw_tracepoint_prog, unshare_network};

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];
const TRACER: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON];

const RACERS: usize = 16;
const ROUNDS: usize = 3;

#[common::test_alone(ROOT)]
fn sixteen_processes_share_one_xdp_link() {
    race(&LinkSpec::xdp(LOOPBACK), xdp_prog, true);
}

#[common::test_alone(TCX)]
fn sixteen_processes_share_one_tcx_link() {
    race(
        &LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS),
        tcx_prog,
        true,
    );
}

#[common::test_alone(ROOT)]
fn sixteen_processes_share_one_netns_link() {
    let netns = netns();
    race(
        &LinkSpec::netns(&netns, AttachType::SK_LOOKUP),
        sk_lookup_prog,
        true,
    );
}

#[common::test_alone(ROOT)]
fn sixteen_processes_share_one_cgroup_link() {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        let spec = LinkSpec::cgroup(&file, AttachType::CGROUP_INET_EGRESS);
        // Forked from a second thread; the children are copies of that thread only.
        race(&spec, cgroup_prog, true);
    });
}

#[common::test_alone(TRACER)]
fn sixteen_processes_share_one_raw_tracepoint_link() {
    let spec = LinkSpec::raw_tracepoint(c"sched_process_exec");
    race(&spec, raw_tracepoint_prog, false);
}

/// Attaches at the same time with a program each, and with one program; before, nothing or a detached link is pinned.
fn race(spec: &LinkSpec<'_>, make: impl Fn() -> Prog, has_updates: bool) {
    unshare_network();
    let fs = TestFs::new();
    let mine: Vec<_> = (0..RACERS).map(|_| make()).collect();
    let same: Vec<_> = (0..RACERS).map(|_| mine[0].try_clone().unwrap()).collect();
    for round in 0..ROUNDS {
        for progs in [&mine, &same] {
            let all: Vec<_> = progs.iter().collect();
            let is_same = std::ptr::eq(progs, &same);
            // Nothing is pinned.
            let codes = attach_all(&fs, spec, progs);
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

            // A detached link is pinned.
            if has_updates {
                link.detach().unwrap();
                let codes = attach_all(&fs, spec, progs);
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

/// Forks a process for each program, starts them together, and returns their exit codes.
fn attach_all(fs: &TestFs, spec: &LinkSpec<'_>, progs: &[Prog]) -> Vec<i32> {
    // A process that opens the FIFO for reading waits until it is opened for writing.
    let gate = tempfile::tempdir().unwrap();
    let gate = gate.path().join("gate");
    rustix::fs::mkfifoat(rustix::fs::CWD, &gate, 0o600.into()).unwrap();
    let pids: Vec<_> = progs
        .iter()
        .map(|prog| {
            // SAFETY: the child waits for no lock of another thread, and it runs no destructors
            // of the parent.
            match unsafe { common::fork() } {
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
                    // SAFETY: _exit runs no destructors and flushes no buffers of the parent.
                    unsafe { libc::_exit(code.unwrap_or(101)) }
                }
                pid => pid,
            }
        })
        .collect();
    // Each open releases the processes that wait. It is repeated for those that come later.
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

#[common::test_alone(ROOT)]
fn sixteen_threads_share_one_xdp_link() {
    unshare_network();
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
