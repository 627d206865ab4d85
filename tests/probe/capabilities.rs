//! What is foretold of a thread is what happens when it tries.

mod child;

use std::fs::{Permissions, set_permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use bpf_pin::error::Cause;
use bpf_pin::probe::{Action, Capabilities, Capability, Limit, Lockdown, Permission};
use bpf_pin::prog::Insn;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Map, MapSpec, MapType, ProgSpec};
use common::*;
use rustix::mount::{FsOpenFlags, fsconfig_create, fsopen};
use rustix::thread::CapabilitySet;

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const USERS: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    if child::was_asked_for() {
        return Some(ExitCode::SUCCESS);
    }
    None
}

/// What happens when it is tried: all that could, some of it, or nothing.
#[derive(Debug, PartialEq)]
enum Tried {
    All,
    Some,
    None,
}

fn tried(attempts: &[bool]) -> Tried {
    match attempts.iter().filter(|&&is_done| is_done).count() {
        0 => Tried::None,
        n if n == attempts.len() => Tried::All,
        _ => Tried::Some,
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

/// A pin that anybody may open, in a directory where anybody may pin.
struct Scene {
    fs: TestFs,
    map: Map,
    id: u32,
}

impl Scene {
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

/// What is larger than the limit, where that is less than a test would take.
fn over_the_limit(limit: Option<u64>, most: u64) -> Option<usize> {
    let limit = limit.filter(|&limit| limit <= most)?;
    Some(limit as usize / 8 + 8)
}

fn attempt(action: Action, scene: Option<&Scene>, thread: &Capabilities) -> Option<Tried> {
    Some(match action {
        Action::CreateMaps => {
            let mut attempts = vec![
                create(MapType::HASH, 8),
                create(MapType::LRU_HASH, 8),
                create(MapType::DEVMAP, 4),
            ];
            if let Some(count) = over_the_limit(thread.memlock, MOST_OF_A_MAP) {
                let large = MapSpec::new(MapType::ARRAY, 4, 8, count as u32);
                attempts.push(large.create().is_ok());
            }
            tried(&attempts)
        }
        Action::LoadProgs => {
            let mut attempts = vec![
                load(ProgType::SOCKET_FILTER),
                load(ProgType::SK_LOOKUP),
                load(ProgType::XDP),
                load(ProgType::RAW_TRACEPOINT),
            ];
            if let Some(length) = over_the_limit(thread.memlock, most_of_a_prog(thread)) {
                attempts.push(load_of_length(ProgType::SOCKET_FILTER, length));
            }
            tried(&attempts)
        }
        Action::Mount => {
            let made = fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC);
            tried(&[made.and_then(|fs| fsconfig_create(fs.as_fd())).is_ok()])
        }
        other => tried(&[scene?.attempt(other)?]),
    })
}

/// Bytes.
const MOST_OF_A_MAP: u64 = 16 << 20;

/// A program may have a million instructions, of 8 bytes each; without CAP_BPF, 4096.
fn most_of_a_prog(thread: &Capabilities) -> u64 {
    match thread.effective.contains(&Capability::Bpf) {
        true => 512 << 10,
        false => 16 << 10,
    }
}

/// What lockdown withholds none of these programs calls; CAP_SYS_ADMIN serves for CAP_NET_ADMIN on newer
/// kernels; and a large limit no map or program goes over.
fn is_not_tried(action: Action, limit: &Limit, thread: &Capabilities) -> bool {
    match limit {
        Limit::Lockdown { .. } | Limit::LockdownUnknown => action == Action::LoadProgs,
        Limit::Types(which) => which.contains("before Linux 6.9"),
        Limit::Memlock { limit } if action == Action::LoadProgs => *limit > most_of_a_prog(thread),
        Limit::Memlock { limit } => *limit > MOST_OF_A_MAP,
        _ => false,
    }
}

/// Whether what was foretold is what happened; with the number of things that were tried.
fn compare(scene: Option<&Scene>) -> Result<usize, String> {
    let thread = Capabilities::of_this_thread();
    let mut count = 0;
    for &action in Action::ALL {
        let Some(happened) = attempt(action, scene, &thread) else {
            continue;
        };
        count += 1;
        let is_right = match (thread.may(action), &happened) {
            (Permission::Granted, Tried::All)
            | (Permission::Partly { .. }, Tried::Some)
            | (Permission::Denied(_), Tried::None) => true,
            (Permission::Partly { limits }, Tried::All) => limits
                .iter()
                .all(|limit| is_not_tried(action, limit, &thread)),
            _ => false,
        };
        if !is_right {
            let foretold = thread.may(action);
            return Err(format!(
                "{action}: {foretold:?}, but {happened:?}: {thread:?}"
            ));
        }
    }
    Ok(count)
}

/// Whoever runs the tests.
#[common::test]
fn what_is_foretold_happens() -> Outcome {
    assert_eq!(compare(None)?, 3);
    Ok(())
}

#[common::test(ROOT)]
fn root_may_do_all() -> Outcome {
    let thread = Capabilities::of_this_thread();
    assert_eq!(thread.in_user_namespace, Some(false));
    assert!(thread.effective.contains(&Capability::SysAdmin));
    assert!(matches!(thread.unprivileged_bpf_disabled, Some(0..=2)));
    for &action in Action::ALL {
        let permission = thread.may(action);
        let is_the_machines = |limit: &Limit| match limit {
            Limit::Lockdown { .. } | Limit::LockdownUnknown => {
                action == Action::LoadProgs && thread.lockdown != Lockdown::Off
            }
            Limit::Memlock { .. } => thread.memlock_is_charged == Some(true),
            _ => false,
        };
        let is_all = match &permission {
            Permission::Granted => true,
            Permission::Partly { limits } => limits.iter().all(is_the_machines),
            _ => false,
        };
        assert!(is_all, "{action}: {permission:?}");
    }
    assert_eq!(compare(Some(&Scene::new()))?, Action::ALL.len());
    Ok(())
}

#[common::test(USERS)]
fn what_is_foretold_to_users_happens() -> Outcome {
    let scene = Scene::new();
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
        let count = as_user(set, || compare(Some(&scene))).map_err(|e| format!("{set:?}: {e}"))?;
        assert_eq!(count, Action::ALL.len());
    }
    Ok(())
}

/// All that bpf(2) is for.
const BY_BPF: [Action; 5] = [
    Action::CreateMaps,
    Action::LoadProgs,
    Action::Pin,
    Action::Open,
    Action::OpenById,
];

/// Where somebody answers in the kernel's stead, nothing is foretold, whatever the answer is.
#[common::test]
fn what_a_filter_leaves_unknown() -> Outcome {
    for errno in [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EINVAL] {
        let thread = with_bpf_errno(None, errno as u32, Capabilities::of_this_thread);
        for action in BY_BPF {
            let permission = thread.may(action);
            assert_eq!(permission, Permission::Unknown, "{action}, {errno}");
        }
        let said = thread.to_string();
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(
            lines[..5],
            [
                "may or may not create maps",
                "may or may not load programs",
                "may or may not pin",
                "may or may not open pins",
                "may or may not open objects by their ids",
            ]
        );
        assert!(with_bpf_errno(None, errno as u32, || thread.is_filtered()));
    }
    Ok(())
}

/// A capability is no promise there; that it is lacking is known all the same.
#[common::test(ROOT)]
fn mounting_behind_a_filter() -> Outcome {
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
    // What it does not answer is as it was.
    let others = with_seccomp_errno(libc::SYS_fsopen, None, libc::EPERM as u32, || {
        Capabilities::of_this_thread().may(Action::OpenById)
    });
    assert_eq!(others, Permission::Granted);
    Ok(())
}

#[common::test(USERS)]
fn what_a_sentence_says() -> Outcome {
    let said = as_user(CapabilitySet::BPF, || {
        Capabilities::of_this_thread().to_string()
    });
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), Action::ALL.len(), "{said}");
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
