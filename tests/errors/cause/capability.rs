//! A failed creation names the missing capability or the limit.

use std::fs;

use bpf_pin::error::Cause;
use bpf_pin::probe::Capability;
use bpf_pin::prog::Insn;
use bpf_pin::types::{MapFlags, ProgType};
use bpf_pin::{Error, Map, MapSpec, MapType, Object, Prog, ProgSpec, abi};
use common::*;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, UnshareFlags, unshare_unsafe};

use crate::cause::*;

const USERS: &[Need] = &[
    cap::BPF,
    cap::NET_ADMIN,
    cap::PERFMON,
    cap::SYS_ADMIN,
    cap::SETUID,
];
const UNPRIVILEGED: &[Need] = &[without(cap::BPF)];

#[common::test(USERS)]
fn a_user_namespace_is_named() -> Outcome {
    in_a_child("user_namespace")
}

#[common::test(USERS)]
fn the_memory_limit_is_named() -> Outcome {
    in_a_child("memlock")
}

#[common::test(USERS)]
fn a_missing_capability_takes_precedence_over_the_memory_limit() -> Outcome {
    in_a_child("no_memory_no_privilege")
}

#[common::test(&[cap::SYS_ADMIN])]
fn lockdown_is_named() -> Outcome {
    in_mount_namespace(check_lockdown)
}

const MINIMAL: [Insn; 2] = [Insn::mov64_imm(0, 0), Insn::exit()];

fn load(prog_type: ProgType) -> bpf_pin::Result<Prog> {
    ProgSpec::new(prog_type, &MINIMAL).license(c"GPL").load()
}

/// Creates the smallest map of the type that needs no BTF.
fn create(map_type: MapType) -> bpf_pin::Result<Map> {
    let (key, value, entries, flags) = match map_type {
        MapType::LPM_TRIE => (8, 8, 1, MapFlags::NO_PREALLOC),
        MapType::QUEUE | MapType::STACK | MapType::BLOOM_FILTER => (0, 4, 1, MapFlags::empty()),
        MapType::RINGBUF | MapType::USER_RINGBUF => (0, 0, 4096, MapFlags::empty()),
        MapType::ARENA => (0, 0, 1, MapFlags::MMAPABLE),
        MapType::RHASH => (4, 8, 1, MapFlags::NO_PREALLOC),
        MapType::PROG_ARRAY
        | MapType::PERF_EVENT_ARRAY
        | MapType::CGROUP_ARRAY
        | MapType::DEVMAP
        | MapType::DEVMAP_HASH
        | MapType::CPUMAP
        | MapType::SOCKMAP
        | MapType::SOCKHASH
        | MapType::XSKMAP => (4, 4, 1, MapFlags::empty()),
        _ => (4, 8, 1, MapFlags::empty()),
    };
    MapSpec::new(map_type, key, value, entries)
        .flags(flags)
        .create()
}

#[track_caller]
fn assert_lacks(error: &Error, capability: Capability, needed_for: &'static str) {
    let cause = Cause::MissingCapability {
        capability,
        needed_for,
    };
    assert_cause(error, Some(libc::EPERM), Some(cause));
}

#[common::test(USERS)]
fn without_capabilities_cap_bpf_is_named() -> Outcome {
    as_user(CapabilitySet::empty(), || {
        let disabled = !sysctl_is_zero();
        let maps = match disabled {
            true => "creating a map",
            false => "maps of this type",
        };
        let error = create(MapType::LRU_HASH).expect_err("CAP_BPF is needed");
        assert_lacks(&error, Capability::Bpf, maps);
        match create(MapType::ARRAY) {
            Err(error) if disabled => {
                assert_lacks(&error, Capability::Bpf, maps);
            }
            other => drop(other.expect("arrays need no capability")),
        }

        let progs = match disabled {
            true => "loading a program",
            false => "programs of this type",
        };
        let error = load(ProgType::XDP).expect_err("CAP_BPF is needed");
        assert_lacks(&error, Capability::Bpf, progs);
        match load(ProgType::SOCKET_FILTER) {
            Err(error) if disabled => {
                assert_lacks(&error, Capability::Bpf, progs);
            }
            other => drop(other.expect("socket filters need no capability")),
        }
    });
    Ok(())
}

/// Some map types need another capability beside CAP_BPF.
#[common::test(USERS)]
fn the_capability_that_a_map_type_needs_is_named() -> Outcome {
    let words = "maps of this type";
    as_user(CapabilitySet::BPF, || {
        for map_type in [MapType::DEVMAP, MapType::DEVMAP_HASH] {
            let error = create(map_type).expect_err("CAP_NET_ADMIN is needed");
            assert_lacks(&error, Capability::NetAdmin, words);
        }
        for map_type in [
            MapType::HASH,
            MapType::LRU_HASH,
            MapType::LPM_TRIE,
            MapType::STACK_TRACE,
            MapType::QUEUE,
            MapType::CPUMAP,
            MapType::RINGBUF,
        ] {
            create(map_type).unwrap_or_else(|error| panic!("{error}"));
        }
    });
    as_user(CapabilitySet::BPF | CapabilitySet::NET_ADMIN, || {
        create(MapType::DEVMAP).expect("both capabilities suffice");
    });
    // Before Linux 6.9 CAP_SYS_ADMIN does not replace CAP_NET_ADMIN here. The error may name only the latter.
    as_user(CapabilitySet::SYS_ADMIN, || {
        let Err(error) = create(MapType::DEVMAP) else {
            return;
        };
        assert!(kernel(6, 9).unmet().is_some(), "{error}");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        let net_admin = Cause::MissingCapability {
            capability: Capability::NetAdmin,
            needed_for: words,
        };
        assert!(
            error.cause().is_none_or(|cause| *cause == net_admin),
            "{error}"
        );
    });
    Ok(())
}

#[common::test(USERS)]
fn the_capability_that_a_program_type_needs_is_named() -> Outcome {
    let words = "programs of this type";
    as_user(CapabilitySet::BPF, || {
        load(ProgType::SOCKET_FILTER).expect("CAP_BPF suffices");
        let error = load(ProgType::XDP).expect_err("CAP_NET_ADMIN is needed");
        assert_lacks(&error, Capability::NetAdmin, words);
        let error = load(ProgType::SCHED_CLS).expect_err("CAP_NET_ADMIN is needed");
        assert_lacks(&error, Capability::NetAdmin, words);
        let error = load(ProgType::TRACEPOINT).expect_err("CAP_PERFMON is needed");
        assert_lacks(&error, Capability::Perfmon, words);
    });
    as_user(CapabilitySet::BPF | CapabilitySet::NET_ADMIN, || {
        load(ProgType::XDP).expect("both capabilities suffice");
    });
    Ok(())
}

fn is_eperm<T>(made: bpf_pin::Result<T>) -> bool {
    made.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
}

/// Grants each capability that an error names until no more is named. Then checks that each of them is necessary.
fn grant_named_capabilities<T: Send>(
    make: impl Fn() -> bpf_pin::Result<T> + Sync,
) -> Result<CapabilitySet, String> {
    let mut given = CapabilitySet::empty();
    while let Err(error) = as_user(given, &make) {
        let named = match (error.raw_os_error(), error.cause()) {
            (Some(libc::EPERM), Some(Cause::MissingCapability { capability, .. })) => capability,
            // This machine denies it with all capabilities, so none is named.
            (Some(libc::EPERM), None) if is_eperm(make()) => break,
            (Some(libc::EPERM), _) => return Err(format!("with {given:?}: {error}")),
            // The kernel does not know the type, or the arguments are invalid.
            (_, None | Some(Cause::InvalidArgument { .. })) => break,
            (_, Some(_)) => return Err(format!("with {given:?}: {error:?}")),
        };
        let named = match named {
            Capability::Bpf => CapabilitySet::BPF,
            Capability::NetAdmin => CapabilitySet::NET_ADMIN,
            Capability::Perfmon => CapabilitySet::PERFMON,
            other => return Err(format!("with {given:?}: {other}")),
        };
        if given.contains(named) {
            return Err(format!("with {given:?}: {error}"));
        }
        given |= named;
    }
    for one in given.iter() {
        if !is_eperm(as_user(given - one, &make)) {
            return Err(format!("{one:?} was named but is not needed"));
        }
    }
    Ok(given)
}

#[common::test(USERS)]
fn each_map_type_names_exactly_the_capabilities_it_needs() -> Outcome {
    let mut wrong = vec![];
    for number in 1..=MapType::RHASH.0 + 1 {
        let map_type = MapType(number);
        match grant_named_capabilities(|| create(map_type)) {
            Err(what) => wrong.push(format!("{map_type} {what}")),
            Ok(given) if map_type == MapType::DEVMAP => {
                let expected = match sysctl_is_zero() {
                    true => CapabilitySet::NET_ADMIN,
                    false => CapabilitySet::BPF | CapabilitySet::NET_ADMIN,
                };
                assert_eq!(given, expected);
            }
            Ok(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[common::test(USERS)]
fn each_program_type_names_exactly_the_capabilities_it_needs() -> Outcome {
    let mut wrong = vec![];
    for number in 1..=ProgType::NETFILTER.0 + 1 {
        let prog_type = ProgType(number);
        match (prog_type, grant_named_capabilities(|| load(prog_type))) {
            (_, Err(what)) => wrong.push(format!("{prog_type} {what}")),
            (ProgType::XDP, Ok(given)) => {
                assert_eq!(given, CapabilitySet::BPF | CapabilitySet::NET_ADMIN);
            }
            (ProgType::TRACEPOINT, Ok(given)) => {
                assert_eq!(given, CapabilitySet::BPF | CapabilitySet::PERFMON);
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[common::test(USERS)]
fn from_id_names_cap_sys_admin() -> Outcome {
    let map = hash();
    let id = map.id()?;
    as_user(CapabilitySet::BPF, || {
        let error = Map::from_id(id).expect_err("CAP_SYS_ADMIN is needed");
        let words = "opening an object by its id";
        assert_lacks(&error, Capability::SysAdmin, words);
    });
    assert_eq!(Map::from_id(id)?.id()?, id);
    Ok(())
}

/// BPF_F_ZERO_SEED needs CAP_SYS_ADMIN. The library does not know that, so no cause is named.
#[common::test(USERS)]
fn an_unknown_requirement_names_no_capability() -> Outcome {
    let zero_seed = || {
        MapSpec::new(MapType::HASH, 4, 8, 8)
            .flags(MapFlags::ZERO_SEED)
            .create()
    };
    as_user(CapabilitySet::BPF, || {
        let error = zero_seed().expect_err("CAP_SYS_ADMIN is needed");
        assert_fails(&error, Operation::CreateMap, Some(libc::EPERM), None);
    });
    zero_seed()?;
    Ok(())
}

/// If the sysctl is 0, the verifier itself denies privileged features with EPERM.
#[common::test(UNPRIVILEGED)]
fn eperm_of_the_verifier_is_not_a_memory_limit() -> Outcome {
    let call = Insn::new(abi::BPF_JMP | abi::BPF_CALL, 0, abi::BPF_PSEUDO_CALL, 0, 1);
    let insns = [call, Insn::exit(), MINIMAL[0], MINIMAL[1]];
    let error = ProgSpec::new(ProgType::SOCKET_FILTER, &insns)
        .load()
        .expect_err("functions need CAP_BPF");
    if !sysctl_is_zero() {
        assert_lacks(&error, Capability::Bpf, "loading a program");
        return Ok(());
    }
    load(ProgType::SOCKET_FILTER)?;
    assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
    let claim = error.cause();
    assert!(!matches!(claim, Some(Cause::Memlock { .. })), "{error}");
    let sentence = "load socket_filter program: EPERM; the verifier's log ends:\n";
    assert!(error.to_string().starts_with(sentence), "{error}");
    Ok(())
}

/// The thread has all capabilities, but bpf(2) ignores those of a user namespace. The process has one thread.
pub fn in_a_user_namespace() {
    let fs = TestFs::detached("755");
    let path = fs.at("flows");
    let id = pin_a_map(&path);
    // SAFETY: without FILES the descriptors stay shared, and this is the only thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }.expect("a user namespace");
    let capabilities = rustix::thread::capabilities(None).unwrap().effective;
    assert!(capabilities.contains(CapabilitySet::BPF | CapabilitySet::NET_ADMIN));

    let eperm = Some(libc::EPERM);
    let error = create(MapType::LRU_HASH).expect_err("the initial namespace's CAP_BPF is needed");
    assert_fails(
        &error,
        Operation::CreateMap,
        eperm,
        Some(Cause::UserNamespace),
    );
    let error = load(ProgType::XDP).expect_err("the initial namespace's CAP_BPF is needed");
    assert_fails(
        &error,
        Operation::LoadProg,
        eperm,
        Some(Cause::UserNamespace),
    );
    // A token does not help to open an object by its id.
    let error = Map::from_id(id).expect_err("the initial namespace's CAP_SYS_ADMIN is needed");
    assert_fails(&error, Operation::FromId, eperm, Some(Cause::UserNamespace));

    // The pin belongs to this user, which suffices unless the sysctl denies all of bpf(2).
    if sysctl_closes_all() {
        assert_fails(
            &open_fails(&path),
            Operation::Open,
            eperm,
            Some(Cause::UserNamespace),
        );
    } else {
        assert_eq!(Object::open(&path).unwrap().id().unwrap(), id);
    }
}

fn limit_memory(bytes: u64) {
    let limit = Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    setrlimit(Resource::Memlock, limit).expect("a lower limit");
}

/// A user id of this test alone. The memory of other tests is not charged to it.
const USER: u32 = 4321;

/// Before Linux 5.11 an object above the limit fails and the error names the limit. Later it is created.
pub fn under_a_memory_limit() {
    const LIMIT: u64 = 256 << 10;
    limit_memory(LIMIT);
    become_user(USER, CapabilitySet::BPF);
    let is_charged = kernel(5, 11).unmet().is_some();
    #[track_caller]
    fn check<T>(made: bpf_pin::Result<T>, is_charged: bool) {
        match made {
            Err(error) if is_charged => {
                let cause = Cause::Memlock { limit: LIMIT };
                assert_cause(&error, libc::EPERM, cause);
            }
            made => {
                drop(made.unwrap_or_else(|error| panic!("{error}")));
                assert!(!is_charged, "created in spite of the limit");
            }
        }
    }

    let many = MapSpec::new(MapType::ARRAY, 4, 8, 100_000);
    check(many.name("many").create(), is_charged);
    create(MapType::ARRAY).expect("a small one is below the limit");

    let mut insns = vec![Insn::mov64_imm(0, 0); 60_000];
    insns.push(Insn::exit());
    // A program for SO_REUSEPORT needs CAP_BPF only.
    for prog_type in [ProgType::SOCKET_FILTER, ProgType::SK_REUSEPORT] {
        let made = ProgSpec::new(prog_type, &insns).license(c"GPL").load();
        check(made, is_charged);
        load(prog_type).expect("a small one is below the limit");
    }

    // If a capability is missing too, the error names the capability.
    let large = MapSpec::new(MapType::DEVMAP, 4, 4, 100_000).create();
    let words = "maps of this type";
    assert_lacks(
        &large.map(drop).expect_err("CAP_NET_ADMIN is needed"),
        Capability::NetAdmin,
        words,
    );
}

/// Advice about the limit would be wrong if a capability is missing.
pub fn without_memory_or_privilege() {
    limit_memory(0);
    become_user(USER, CapabilitySet::empty());
    let words = match sysctl_is_zero() {
        true => ["maps of this type", "programs of this type"],
        false => ["creating a map", "loading a program"],
    };
    let error = create(MapType::LRU_HASH).expect_err("CAP_BPF is needed");
    assert_lacks(&error, Capability::Bpf, words[0]);
    let error = load(ProgType::XDP).expect_err("CAP_BPF is needed");
    assert_lacks(&error, Capability::Bpf, words[1]);
}

/// Each level withholds one more helper. A program without a withheld helper loads.
fn check_lockdown() -> Outcome {
    const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
    if !fs::exists("/sys/kernel/security/lsm")? {
        let (at, none) = ("/sys/kernel/security", MountFlags::empty());
        mount("securityfs", at, "securityfs", none, None)?;
    }
    // The file is absent if the kernel has no lockdown or it is not enabled.
    let text = match fs::exists(LOCKDOWN)? {
        true => fs::read_to_string(LOCKDOWN)?,
        false => "[none]".to_owned(),
    };
    let level = text
        .split(['[', ']'])
        .nth(1)
        .ok_or("no level in brackets")?;
    // Passes a pointer to 8 bytes of stack, and their number.
    let call = |helper, pointer, number, address| {
        let insns = [
            Insn::st_mem(abi::BPF_DW, 10, -8, 0),
            Insn::mov64_reg(pointer, 10),
            Insn::alu64_imm(abi::BPF_ADD, pointer, -8),
            Insn::mov64_imm(number, 8),
            Insn::mov64_imm(address, 0),
            Insn::call(helper),
            MINIMAL[0],
            MINIMAL[1],
        ];
        let spec = ProgSpec::new(ProgType::TRACEPOINT, &insns).license(c"GPL");
        spec.load()
    };
    let read = || call(abi::BPF_FUNC_probe_read_kernel, 1, 2, 3);
    let write = || call(abi::BPF_FUNC_probe_write_user, 2, 3, 1);

    let assert_is_withheld = |error: Error| {
        let cause = Cause::Lockdown {
            level: level.to_owned(),
        };
        assert_eq!(error.cause(), Some(&cause), "{error}");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        let sentence = format!(
            "load tracepoint program: the kernel is locked down ({level}) and withholds a helper \
             that the program calls; the verifier's log ends:\n"
        );
        assert!(error.to_string().starts_with(&sentence), "{error}");
    };
    match read() {
        Err(error) if level == "confidentiality" => assert_is_withheld(error),
        made => {
            made?;
            assert_ne!(level, "confidentiality");
        }
    }
    match write() {
        Err(error) if level != "none" => assert_is_withheld(error),
        made => {
            made?;
            let is_withheld = level != "none" && kernel(5, 14).unmet().is_none();
            assert!(!is_withheld, "loaded in spite of {level}");
        }
    }
    // Programs of this type may never call this helper.
    let error = call(abi::BPF_FUNC_skb_store_bytes, 1, 2, 3).expect_err("no such helper");
    assert_eq!(error.cause(), None, "{error}");
    Ok(())
}
