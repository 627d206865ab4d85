//! Tests that need a process of their own: with another memory limit, or in another user namespace.

use std::env;
use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, getegid, geteuid, setrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use bpf_pin::bpffs::MountOptions;

use crate::capabilities::*;

const CHILD: &str = "BPF_PIN_TEST_CAPABILITIES";

/// The functions that a child can run.
const CHILDREN: &[(&str, fn())] = &[
    ("zero_memlock", zero_memlock),
    ("small_memlock", small_memlock),
    ("locked_down", locked_down),
    ("user_namespace", in_a_user_namespace),
];

const USERS: &[Need] = &[
    cap::SYS_ADMIN,
    cap::NET_ADMIN,
    cap::SETUID,
    Need::File(SECURITY),
];

#[common::test(USERS)]
fn predictions_match_with_a_memlock_limit_of_zero() -> Outcome {
    run("zero_memlock")
}

#[common::test(USERS)]
fn predictions_match_with_a_small_memlock_limit() -> Outcome {
    run("small_memlock")
}

#[common::test(USERS)]
fn predictions_match_under_lockdown() -> Outcome {
    run("locked_down")
}

#[common::test(USERS)]
fn predictions_match_in_a_user_namespace() -> Outcome {
    run("user_namespace")
}

/// Runs the function that the environment names, and returns whether there was one.
pub fn run_if_requested() -> bool {
    let Some(name) = env::var_os(CHILD) else {
        return false;
    };
    let child = CHILDREN.iter().find(|(child, _)| name == *child);
    child.expect("a child of that name").1();
    true
}

fn run(name: &str) -> Outcome {
    let output = common::command(env::current_exe()?)
        .env(CHILD, name)
        .output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name}: {}\n{stderr}", output.status).into());
    }
    Ok(())
}

fn limit_memory(bytes: u64) {
    let limit = Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    setrlimit(Resource::Memlock, limit).expect("a lower limit");
}

const SECURITY: &str = "/sys/kernel/security";

/// Runs `test` with this content in the kernel's lockdown file, or without the file.
fn with_lockdown<T: Send>(text: Option<&str>, test: impl FnOnce() -> T + Send) -> T {
    in_mount_namespace(|| {
        mount("tmpfs", SECURITY, "tmpfs", MountFlags::empty(), None).expect("a tmpfs");
        if let Some(text) = text {
            fs::write(Path::new(SECURITY).join("lockdown"), text).expect("a file");
        }
        test()
    })
}

const NOT_LOCKED_DOWN: Option<&str> = Some("[none] integrity confidentiality\n");

/// Runs with a user id of its own, to which the memory of other tests is not charged, and with the capabilities of
/// the actions.
fn as_a_fresh_user(test: impl FnOnce() + Send) {
    with_lockdown(NOT_LOCKED_DOWN, || {
        let all = CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::PERFMON;
        become_user(4322, all);
        test();
    });
}

fn lines(thread: &Capabilities) -> Vec<String> {
    thread.to_string().lines().map(str::to_owned).collect()
}

fn memlock_words(limit: u64) -> String {
    format!(
        "as much as RLIMIT_MEMLOCK, which is {limit} bytes and charged before Linux 5.11, has room \
         for"
    )
}

/// Creating a map shows whether memory is charged, because no privilege is missing.
fn zero_memlock() {
    limit_memory(0);
    as_a_fresh_user(|| {
        let is_charged = !create(MapType::ARRAY, 8);
        assert!(!is_charged || kernel(5, 11).unmet().is_some());
        let thread = Capabilities::of_this_thread();
        assert_eq!(thread.memlock, Some(0));
        assert_eq!(thread.memlock_is_charged, Some(is_charged));
        for action in [Action::CreateMaps, Action::LoadProgs] {
            let expected = match is_charged {
                true => Permission::Denied(Cause::Memlock { limit: 0 }),
                false => Permission::Granted,
            };
            assert_eq!(thread.may(action), expected, "{action}");
        }
        let because = "it exceeds RLIMIT_MEMLOCK (0 bytes), which kernels before Linux 5.11 charge: raise the limit";
        let expected = match is_charged {
            true => [
                format!("may not create maps: {because}"),
                format!("may not load programs: {because}"),
            ],
            false => ["may create maps".into(), "may load programs".into()],
        };
        assert_eq!(lines(&thread)[..2], expected);
        assert_eq!(compare(None), Ok(3));
        // Behind a filter the errno may be the filter's, so nothing is known.
        let behind_filter = with_seccomp_errno(libc::SYS_fsopen, None, libc::EPERM as u32, || {
            Capabilities::of_this_thread().memlock_is_charged
        });
        assert_eq!(behind_filter, None);
    });
}

fn small_memlock() {
    const LIMIT: u64 = 256 << 10;
    limit_memory(LIMIT);
    as_a_fresh_user(|| {
        assert!(create(MapType::ARRAY, 8));
        let large = MapSpec::new(MapType::ARRAY, 4, 8, 100_000);
        let is_charged = large.create().is_err();
        let thread = Capabilities::of_this_thread();
        assert_eq!(thread.memlock, Some(LIMIT));
        assert_eq!(thread.memlock_is_charged, Some(is_charged));
        for action in [Action::CreateMaps, Action::LoadProgs] {
            let expected = match is_charged {
                true => Permission::Partly {
                    limits: vec![Limit::Memlock { limit: LIMIT }],
                },
                false => Permission::Granted,
            };
            assert_eq!(thread.may(action), expected, "{action}");
        }
        let limits = match is_charged {
            true => format!(": {}", memlock_words(262_144)),
            false => String::new(),
        };
        let expected = [
            format!("may create maps{limits}"),
            format!("may load programs{limits}"),
        ];
        assert_eq!(lines(&thread)[..2], expected);
        assert_eq!(compare(None), Ok(3));
    });
}

/// A kernel is locked down, not locked down, or does not report it.
fn locked_down() {
    let on = |level: &str| Lockdown::On {
        level: level.to_owned(),
    };
    let withheld = |level: &str| Limit::Lockdown {
        level: level.to_owned(),
    };
    let words =
        |level: &str| format!("those that call no helper that lockdown ({level}) withholds");
    let unknown = "those that call no helper that lockdown withholds, if the kernel is locked down, \
                   which cannot be read";
    for (text, lockdown, limit, words) in [
        (NOT_LOCKED_DOWN, Lockdown::Off, None, String::new()),
        (
            Some("none [integrity] confidentiality\n"),
            on("integrity"),
            Some(withheld("integrity")),
            words("integrity"),
        ),
        (
            Some("none integrity [confidentiality]\n"),
            on("confidentiality"),
            Some(withheld("confidentiality")),
            words("confidentiality"),
        ),
        (
            Some("unexpected text"),
            Lockdown::Unknown,
            Some(Limit::LockdownUnknown),
            unknown.to_owned(),
        ),
        // No file, as if securityfs were not mounted.
        (
            None,
            Lockdown::Unknown,
            Some(Limit::LockdownUnknown),
            unknown.to_owned(),
        ),
    ] {
        let loading = || {
            let thread = Capabilities::of_this_thread();
            assert_eq!(thread.lockdown, lockdown);
            (thread.may(Action::LoadProgs), lines(&thread)[1].clone())
        };
        let assert_permission =
            |found: (Permission, String), mut limits: Vec<Limit>, words: &[&str]| {
                let mut words = words.to_vec();
                // The memory limit of this machine comes last.
                let charged = Capabilities::of_this_thread();
                let memlock = charged.memlock.unwrap_or_default();
                let room = memlock_words(memlock);
                if charged.memlock_is_charged == Some(true) {
                    limits.push(Limit::Memlock { limit: memlock });
                    words.push(&room);
                }
                let expected = match limits.is_empty() {
                    true => Permission::Granted,
                    false => Permission::Partly { limits },
                };
                let sentence = match words.is_empty() {
                    true => "may load programs".to_owned(),
                    false => format!("may load programs: {}", words.join("; ")),
                };
                assert_eq!(found, (expected, sentence));
            };
        with_lockdown(text, || {
            let some: &[&str] = match limit {
                Some(_) => &[&words],
                None => &[],
            };
            assert_permission(loading(), limit.iter().cloned().collect(), some);
            assert_eq!(compare(None), Ok(3));
            // A thread that may not load tracing programs loses nothing by lockdown.
            let (bpf, perfmon) = (CapabilitySet::BPF, CapabilitySet::PERFMON);
            let types = "those for networking take CAP_NET_ADMIN and those for tracing CAP_PERFMON";
            let both = [&[types], some].concat();
            let limits = |of: Option<Limit>| [Some(Limit::Types(types)), of].into_iter().flatten();
            let partly = as_user(bpf | perfmon, loading);
            assert_permission(partly, limits(limit.clone()).collect(), &both);
            assert_permission(as_user(bpf, loading), limits(None).collect(), &[types]);
        });
    }
    // On securityfs the state is known, even if the file does not exist.
    in_mount_namespace(|| {
        mount(
            "securityfs",
            SECURITY,
            "securityfs",
            MountFlags::empty(),
            None,
        )
        .ok();
        let text = fs::read_to_string(Path::new(SECURITY).join("lockdown"));
        let level = text.ok().and_then(|text| {
            let level = text.split(['[', ']']).nth(1)?;
            (level != "none").then(|| level.to_owned())
        });
        let expected = level.map_or(Lockdown::Off, |level| Lockdown::On { level });
        assert_eq!(Capabilities::of_this_thread().lockdown, expected);
    });
}

/// The thread has all capabilities, but only in its user namespace.
fn in_a_user_namespace() {
    let shared = SharedPin::new();
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    // SAFETY: without FILES the descriptors stay shared, and this is the only thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }
        .expect("a user namespace");
    fs::write("/proc/self/setgroups", "deny").expect("no setgroups");
    fs::write("/proc/self/uid_map", format!("0 {user} 1")).expect("a user");
    fs::write("/proc/self/gid_map", format!("0 {group} 1")).expect("a group");

    assert_eq!(compare(Some(&shared)), Ok(Action::ALL.len()));
    let thread = Capabilities::of_this_thread();
    assert_eq!(thread.in_user_namespace, Some(true));
    assert!(thread.effective.contains(&Capability::SysAdmin));
    let by_id = thread.may(Action::OpenById);
    assert_eq!(by_id, Permission::Denied(Cause::UserNamespace));
    let mounting = thread.may(Action::Mount);
    assert_eq!(mounting, Permission::Denied(Cause::NeedsDelegation));
    // The prediction agrees with the error of the attempt.
    let error = MountOptions::new().detached().expect_err("no bpffs");
    assert_eq!(error.cause(), Some(&Cause::NeedsDelegation));

    let printed = lines(&thread);
    let because = "this thread has its capabilities in a user namespace, where bpf(2) \
         ignores them";
    assert_eq!(
        printed[4],
        format!("may not open objects by their ids: {because}")
    );
    assert_eq!(
        printed[5],
        "may not mount a bpffs: creating a bpffs requires CAP_SYS_ADMIN in the initial user namespace, \
         and this thread is in another; from Linux 6.9 a process that has it can delegate one"
    );
    if thread.unprivileged_bpf_disabled == Some(0) {
        // The limit of memory may follow.
        let progs = "may load programs: socket filters and control groups' packet filters";
        let maps = "may create maps: hashes, arrays and others that take no capability";
        for (printed, expected) in printed.iter().zip([maps, progs]) {
            assert!(
                printed.starts_with(expected) && !printed.contains("lockdown"),
                "{printed}"
            );
        }
    } else {
        assert_eq!(printed[0], format!("may not create maps: {because}"));
        assert_eq!(printed[1], format!("may not load programs: {because}"));
    }
}
