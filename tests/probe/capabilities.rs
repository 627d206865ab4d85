//! `Capabilities` predicts what this thread may do. The tests attempt each action and compare.

mod child;

use std::fs::{Permissions, set_permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use bpf_pin::error::Cause;
use bpf_pin::probe::{Action, Capabilities, Capability, Limit, Lockdown, Permission};
use bpf_pin::prog::Insn;
use bpf_pin::types::{AttachType, Command, ProgType};
use bpf_pin::{Map, MapSpec, MapType, ProgSpec};
use common::*;
use rustix::mount::{FsOpenFlags, fsconfig_create, fsopen};
use rustix::thread::CapabilitySet;

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const USERS: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    if child::run_if_requested() {
        return Some(ExitCode::SUCCESS);
    }
    None
}

/// The outcome of the attempts at an action: all succeeded, some, or none.
#[derive(Debug, PartialEq)]
enum Attempts {
    All,
    Some,
    None,
}

fn summarize(attempts: &[bool]) -> Attempts {
    match attempts.iter().filter(|&&is_done| is_done).count() {
        0 => Attempts::None,
        n if n == attempts.len() => Attempts::All,
        _ => Attempts::Some,
    }
}

fn create(map_type: MapType, value_size: u32) -> bool {
    MapSpec::new(map_type, 4, value_size, 4).create().is_ok()
}

fn load(prog_type: ProgType) -> bool {
    load_of_length(prog_type, 2)
}

fn load_of_length(prog_type: ProgType, length: usize) -> bool {
    let mut insns = vec![Insn::mov64_imm(0, 1); length - 1];
    insns.push(Insn::exit());
    let spec = ProgSpec::new(prog_type, &insns);
    let spec = match prog_type {
        ProgType::SK_LOOKUP => spec.expected_attach_type(AttachType::SK_LOOKUP),
        _ => spec,
    };
    spec.load().is_ok()
}

/// A pin that every user may open, in a directory where every user may pin.
struct SharedPin {
    fs: TestFs,
    map: Map,
    id: u32,
}

impl SharedPin {
    fn new() -> Self {
        let fs = TestFs::detached("1777");
        let map = hash();
        let id = map.id().unwrap();
        map.try_clone().unwrap().pin(fs.at("map")).unwrap();
        set_permissions(fs.at("map"), Permissions::from_mode(0o666)).unwrap();
        Self { fs, map, id }
    }

    fn attempt(&self, action: Action) -> Option<bool> {
        match action {
            Action::Pin => {
                let pinned = self.map.try_clone().unwrap().pin(self.fs.at("tried"));
                let is_done = pinned.is_ok();
                if is_done {
                    std::fs::remove_file(self.fs.at("tried")).unwrap();
                }
                Some(is_done)
            }
            Action::Open => Some(Map::open(self.fs.at("map")).is_ok()),
            Action::OpenById => Some(Map::from_id(self.id).is_ok()),
            _ => None,
        }
    }
}

/// A size above the limit, or `None` if that would be larger than `largest`.
fn size_above(limit: Option<u64>, largest: u64) -> Option<usize> {
    let limit = limit.filter(|&limit| limit <= largest)?;
    Some(limit as usize / 8 + 8)
}

fn attempt(action: Action, shared: Option<&SharedPin>, thread: &Capabilities) -> Option<Attempts> {
    Some(match action {
        Action::CreateMaps => {
            let mut attempts = vec![
                create(MapType::HASH, 8),
                create(MapType::LRU_HASH, 8),
                create(MapType::DEVMAP, 4),
            ];
            if let Some(count) = size_above(thread.memlock, MAX_TESTED_MAP) {
                let large = MapSpec::new(MapType::ARRAY, 4, 8, count as u32);
                attempts.push(large.create().is_ok());
            }
            summarize(&attempts)
        }
        Action::LoadProgs => {
            let mut attempts = vec![
                load(ProgType::SOCKET_FILTER),
                load(ProgType::SK_LOOKUP),
                load(ProgType::XDP),
                load(ProgType::RAW_TRACEPOINT),
            ];
            if let Some(length) = size_above(thread.memlock, max_prog_bytes(thread)) {
                attempts.push(load_of_length(ProgType::SOCKET_FILTER, length));
            }
            summarize(&attempts)
        }
        Action::Mount => {
            let made = fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC);
            summarize(&[made.and_then(|fs| fsconfig_create(fs.as_fd())).is_ok()])
        }
        other => summarize(&[shared?.attempt(other)?]),
    })
}

/// In bytes.
const MAX_TESTED_MAP: u64 = 16 << 20;

/// The largest program in bytes: a million instructions of 8 bytes each, or 4096 without CAP_BPF.
fn max_prog_bytes(thread: &Capabilities) -> u64 {
    match thread.effective.contains(&Capability::Bpf) {
        true => 512 << 10,
        false => 16 << 10,
    }
}

/// True if no attempt reaches this limit: the programs call no helper that lockdown withholds, newer kernels accept
/// CAP_SYS_ADMIN in place of CAP_NET_ADMIN, and no map or program exceeds a large limit.
fn is_not_attempted(action: Action, limit: &Limit, thread: &Capabilities) -> bool {
    match limit {
        Limit::Lockdown { .. } | Limit::LockdownUnknown => action == Action::LoadProgs,
        Limit::Types(which) => which.contains("before Linux 6.9"),
        Limit::Memlock { limit } if action == Action::LoadProgs => *limit > max_prog_bytes(thread),
        Limit::Memlock { limit } => *limit > MAX_TESTED_MAP,
        _ => false,
    }
}

/// Compares each prediction with the outcome, and returns the number of actions.
fn compare(shared: Option<&SharedPin>) -> Result<usize, String> {
    let thread = Capabilities::of_this_thread();
    let mut count = 0;
    for &action in Action::ALL {
        let Some(outcome) = attempt(action, shared, &thread) else {
            continue;
        };
        count += 1;
        let is_expected = match (thread.may(action), &outcome) {
            (Permission::Granted, Attempts::All)
            | (Permission::Partly { .. }, Attempts::Some)
            | (Permission::Denied(_), Attempts::None) => true,
            (Permission::Partly { limits }, Attempts::All) => limits
                .iter()
                .all(|limit| is_not_attempted(action, limit, &thread)),
            _ => false,
        };
        if !is_expected {
            let predicted = thread.may(action);
            return Err(format!(
                "{action}: {predicted:?}, but {outcome:?}: {thread:?}"
            ));
        }
    }
    Ok(count)
}

/// Runs as the user of the test program.
#[common::test]
fn predictions_match_the_outcomes() -> Outcome {
    assert_eq!(compare(None)?, 3);
    Ok(())
}

#[common::test(ROOT)]
fn root_may_do_everything() -> Outcome {
    let thread = Capabilities::of_this_thread();
    assert_eq!(thread.in_user_namespace, Some(false));
    assert!(thread.effective.contains(&Capability::SysAdmin));
    assert!(matches!(thread.unprivileged_bpf_disabled, Some(0..=2)));
    for &action in Action::ALL {
        let permission = thread.may(action);
        let is_of_the_machine = |limit: &Limit| match limit {
            Limit::Lockdown { .. } | Limit::LockdownUnknown => {
                action == Action::LoadProgs && thread.lockdown != Lockdown::Off
            }
            Limit::Memlock { .. } => thread.memlock_is_charged == Some(true),
            _ => false,
        };
        let is_all = match &permission {
            Permission::Granted => true,
            Permission::Partly { limits } => limits.iter().all(is_of_the_machine),
            _ => false,
        };
        assert!(is_all, "{action}: {permission:?}");
    }
    assert_eq!(compare(Some(&SharedPin::new()))?, Action::ALL.len());
    Ok(())
}

#[common::test(USERS)]
fn predictions_for_users_match_the_outcomes() -> Outcome {
    let shared = SharedPin::new();
    let sets = [
        CapabilitySet::empty(),
        CapabilitySet::BPF,
        CapabilitySet::BPF | CapabilitySet::NET_ADMIN,
        CapabilitySet::BPF | CapabilitySet::PERFMON,
        CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::NET_ADMIN,
        CapabilitySet::NET_ADMIN,
        CapabilitySet::SYS_ADMIN,
    ];
    for set in sets {
        let count = as_user(set, || compare(Some(&shared))).map_err(|e| format!("{set:?}: {e}"))?;
        assert_eq!(count, Action::ALL.len());
    }
    Ok(())
}

/// The actions that use bpf(2).
const BY_BPF: [Action; 5] = [
    Action::CreateMaps,
    Action::LoadProgs,
    Action::Pin,
    Action::Open,
    Action::OpenById,
];

const COMMANDS: [Command; 5] = [
    Command::MAP_CREATE,
    Command::PROG_LOAD,
    Command::OBJ_PIN,
    Command::OBJ_GET,
    Command::MAP_GET_FD_BY_ID,
];

/// The kernel answers EFAULT to a command without arguments, so another errno is the filter's.
#[common::test(&[cap::BPF])]
fn a_filter_that_rejects_bpf_is_the_cause() -> Outcome {
    for errno in [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EINVAL] {
        let thread = with_bpf_errno(None, errno as u32, Capabilities::of_this_thread);
        for (action, command) in BY_BPF.into_iter().zip(COMMANDS) {
            let expected = Permission::Denied(Cause::Filtered { command });
            assert_eq!(thread.may(action), expected, "{errno}");
        }
        let text = thread.to_string();
        let line = "may not create maps: a seccomp filter of this thread rejects the command map_create of bpf(2)";
        assert_eq!(text.lines().next(), Some(line));
        assert!(with_bpf_errno(None, errno as u32, || thread.is_filtered()));
    }
    Ok(())
}

#[common::test(&[cap::BPF])]
fn a_filter_of_one_command_denies_one_action() -> Outcome {
    for (filtered, command) in BY_BPF.into_iter().zip(COMMANDS) {
        let thread = with_bpf_errno(Some(command.0), libc::EPERM as u32, || {
            Capabilities::of_this_thread()
        });
        let denied = Permission::Denied(Cause::Filtered { command });
        for action in BY_BPF {
            let is_filtered = action == filtered;
            assert_eq!(thread.may(action) == denied, is_filtered, "{action}");
        }
    }
    Ok(())
}

/// The kernel itself may reject a command with EPERM before it reads the arguments.
#[common::test(USERS)]
fn without_privileges_eperm_does_not_prove_a_filter() -> Outcome {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled")?;
    let permission = as_user(CapabilitySet::empty(), || {
        with_bpf_errno(None, libc::EPERM as u32, || {
            Capabilities::of_this_thread().may(Action::CreateMaps)
        })
    });
    let command = Command::MAP_CREATE;
    let filtered = Permission::Denied(Cause::Filtered { command });
    assert_eq!(
        permission == filtered,
        disabled.trim() == "0",
        "{permission:?}"
    );
    Ok(())
}

/// Behind a filter a capability does not prove that the call succeeds. A missing one still proves that it fails.
#[common::test(ROOT)]
fn mounting_behind_a_filter_is_unknown_or_denied() -> Outcome {
    let mount = || Capabilities::of_this_thread().may(Action::Mount);
    for call in [libc::SYS_fsopen, libc::SYS_bpf, libc::SYS_mount] {
        let permission = with_seccomp_errno(call, None, libc::EPERM as u32, mount);
        assert_eq!(permission, Permission::Unknown);
    }
    let without = as_user(CapabilitySet::BPF, || {
        with_seccomp_errno(libc::SYS_fsopen, None, libc::EPERM as u32, mount)
    });
    let expected = Cause::MissingCapability {
        capability: Capability::SysAdmin,
        needed_for: "mounting a bpffs",
    };
    assert_eq!(without, Permission::Denied(expected));
    // The filter does not affect other calls.
    let others = with_seccomp_errno(libc::SYS_fsopen, None, libc::EPERM as u32, || {
        Capabilities::of_this_thread().may(Action::OpenById)
    });
    assert_eq!(others, Permission::Granted);
    Ok(())
}

#[common::test(USERS)]
fn capabilities_are_printed_one_action_a_line() -> Outcome {
    let text = as_user(CapabilitySet::BPF, || {
        Capabilities::of_this_thread().to_string()
    });
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), Action::ALL.len(), "{text}");
    assert_eq!(
        lines[0],
        "may create maps: all but those for sockets and devices, which take CAP_NET_ADMIN"
    );
    assert_eq!(lines[2..4], ["may pin", "may open pins"]);
    assert_eq!(
        lines[5],
        "may not mount a bpffs: this thread lacks CAP_SYS_ADMIN, needed for mounting a bpffs"
    );
    let cause = as_user(CapabilitySet::BPF, || {
        Capabilities::of_this_thread().may(Action::OpenById)
    });
    let expected = Cause::MissingCapability {
        capability: Capability::SysAdmin,
        needed_for: "opening an object by its id",
    };
    assert_eq!(cause, Permission::Denied(expected));
    Ok(())
}
