//! Programs: what loads has the requested properties, and a rejected program comes with the verifier's log.

use std::mem::MaybeUninit;
use std::time::Duration;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::probe::Capability;
use bpf_pin::prog::{Insn, ProgFlags};
use bpf_pin::types::{AttachType, LogLevel, ProgType};
use bpf_pin::{Error, Prog, ProgSpec, abi};
use common::*;
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::process::geteuid;
use rustix::thread::CapabilitySet;

const BPF: &[Need] = &[cap::BPF];
const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, cap::PERFMON];
const SWITCH_USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];
const NO_BPF: &[Need] = &[without(cap::BPF)];

#[common::test(SWITCH_USER)]
fn each_type_requires_its_capability() -> Outcome {
    as_user(CapabilitySet::BPF, with_cap_bpf)?;
    as_user(
        CapabilitySet::empty(),
        each_type_requires_its_capability_of_this_user,
    )
}

const ZERO: [Insn; 2] = [Insn::mov64_imm(0, 0), Insn::exit()];

/// A type, a valid return value, its requirements, and the first kernel with it.
type Row = (ProgType, i32, AttachType, ProgFlags, (u32, u32));

/// The types of a stock kernel that a program without BTF can have.
const TYPES: &[Row] = {
    const NONE: ProgFlags = ProgFlags::empty();
    const ANY: AttachType = AttachType(0);
    &[
        (ProgType::SOCKET_FILTER, 0, ANY, NONE, (3, 19)),
        (ProgType::KPROBE, 0, ANY, NONE, (4, 1)),
        (ProgType::SCHED_CLS, 0, ANY, NONE, (4, 1)),
        (ProgType::SCHED_ACT, 0, ANY, NONE, (4, 1)),
        (ProgType::TRACEPOINT, 0, ANY, NONE, (4, 7)),
        (ProgType::XDP, 2, ANY, NONE, (4, 8)),
        (ProgType::PERF_EVENT, 0, ANY, NONE, (4, 9)),
        (
            ProgType::CGROUP_SKB,
            1,
            AttachType::CGROUP_INET_EGRESS,
            NONE,
            (4, 10),
        ),
        (
            ProgType::CGROUP_SOCK,
            1,
            AttachType::CGROUP_INET_SOCK_CREATE,
            NONE,
            (4, 10),
        ),
        (ProgType::LWT_IN, 0, ANY, NONE, (4, 10)),
        (ProgType::LWT_OUT, 0, ANY, NONE, (4, 10)),
        (ProgType::LWT_XMIT, 0, ANY, NONE, (4, 10)),
        (ProgType::SOCK_OPS, 1, ANY, NONE, (4, 13)),
        (ProgType::SK_SKB, 1, ANY, NONE, (4, 14)),
        (ProgType::CGROUP_DEVICE, 1, ANY, NONE, (4, 15)),
        (ProgType::SK_MSG, 1, ANY, NONE, (4, 17)),
        (ProgType::RAW_TRACEPOINT, 0, ANY, NONE, (4, 17)),
        (
            ProgType::CGROUP_SOCK_ADDR,
            1,
            AttachType::CGROUP_INET4_BIND,
            NONE,
            (4, 17),
        ),
        (ProgType::LWT_SEG6LOCAL, 0, ANY, NONE, (4, 18)),
        (ProgType::SK_REUSEPORT, 1, ANY, NONE, (4, 19)),
        (ProgType::FLOW_DISSECTOR, 0, ANY, NONE, (4, 20)),
        (ProgType::CGROUP_SYSCTL, 1, ANY, NONE, (5, 2)),
        (ProgType::RAW_TRACEPOINT_WRITABLE, 0, ANY, NONE, (5, 2)),
        (
            ProgType::CGROUP_SOCKOPT,
            1,
            AttachType::CGROUP_GETSOCKOPT,
            NONE,
            (5, 3),
        ),
        (ProgType::SK_LOOKUP, 1, AttachType::SK_LOOKUP, NONE, (5, 9)),
        (ProgType::SYSCALL, 0, ANY, ProgFlags::SLEEPABLE, (5, 14)),
        (ProgType::NETFILTER, 1, AttachType::NETFILTER, NONE, (6, 4)),
    ]
};

#[common::test(ROOT)]
fn every_type_without_btf_loads() -> Outcome {
    for &(prog_type, value, attach_type, flags, (major, minor)) in TYPES {
        let insns = [Insn::mov64_imm(0, value), Insn::exit()];
        let spec = ProgSpec::new(prog_type, &insns)
            .license(c"GPL")
            .expected_attach_type(attach_type)
            .flags(flags);
        let loaded = spec.load();
        if kernel(major, minor).unmet().is_some() {
            let error = loaded.expect_err("an unknown type");
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
            assert!(error.cause().is_none(), "{error}");
            continue;
        }
        let info = loaded?.info()?;
        assert_eq!(info.prog_type, prog_type);
        assert!(info.gpl_compatible, "{prog_type}");
    }
    Ok(())
}

/// The time since boot, which the kernel records for programs.
fn boottime() -> Duration {
    let mut now = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the call writes a timespec, for which there is room.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, now.as_mut_ptr()) };
    assert_eq!(done, 0);
    // SAFETY: the call succeeded and has written it.
    let now = unsafe { now.assume_init() };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[common::test(BPF)]
fn info_describes_the_program() -> Outcome {
    let before = boottime();
    let prog = ProgSpec::new(ProgType::SOCKET_FILTER, &ZERO)
        .name("info")
        .load()?;
    let after = boottime();
    let info = prog.info()?;
    assert_eq!(info.prog_type, ProgType::SOCKET_FILTER);
    assert!(info.id > 0);
    assert_eq!(info.id, prog.id()?);
    assert_ne!(info.tag, [0; 8]);
    assert_eq!(info.name, "info");
    assert_eq!(info.xlated_prog_len as usize, size_of_val(&ZERO));
    if std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").is_ok_and(|it| it != "0\n") {
        assert!(info.jited_prog_len > 0);
    }
    assert!(
        (before..=after).contains(&info.load_time),
        "{:?} is not between {before:?} and {after:?}",
        info.load_time
    );
    assert_eq!(info.created_by_uid, geteuid().as_raw());
    assert_eq!((info.nr_map_ids, info.gpl_compatible), (0, false));
    assert_eq!((info.ifindex, info.btf_id), (0, 0));
    assert_eq!((info.run_time, info.run_cnt), (Duration::ZERO, 0));
    assert_eq!(info.recursion_misses, 0);
    let counted = kernel(5, 16).unmet().is_none();
    assert_eq!(info.verified_insns, if counted { 2 } else { 0 });
    assert_eq!((info.attach_btf_obj_id, info.attach_btf_id), (0, 0));
    Ok(())
}

#[common::test(BPF)]
fn the_tag_depends_on_the_instructions_only() -> Outcome {
    let tag = |value| -> bpf_pin::Result<[u8; 8]> {
        let insns = [Insn::mov64_imm(0, value), Insn::exit()];
        let prog = ProgSpec::new(ProgType::SOCKET_FILTER, &insns).load()?;
        Ok(prog.info()?.tag)
    };
    assert_eq!(tag(0)?, tag(0)?);
    assert_ne!(tag(0)?, tag(1)?);
    Ok(())
}

#[common::test(ROOT)]
fn gpl_helpers_require_a_gpl_license() -> Outcome {
    // bpf_probe_read_kernel(fp - 8, 8, NULL), which is GPL-only.
    let insns = [
        Insn::mov64_reg(1, 10),
        Insn::alu64_imm(abi::BPF_ADD, 1, -8),
        Insn::mov64_imm(2, 8),
        Insn::mov64_imm(3, 0),
        Insn::call(abi::BPF_FUNC_probe_read_kernel),
        Insn::mov64_imm(0, 0),
        Insn::exit(),
    ];
    let spec = ProgSpec::new(ProgType::KPROBE, &insns);
    for licence in [c"", c"Proprietary"] {
        let error = spec.clone().license(licence).load();
        let error = error.expect_err("a helper that is for the GPL alone");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        assert!(log(&error).contains("GPL"), "{error}");
    }
    for licence in [c"GPL", c"Dual MIT/GPL"] {
        let prog = spec.clone().license(licence).load()?;
        assert!(prog.info()?.gpl_compatible);
    }
    Ok(())
}

#[common::test(BPF)]
fn valid_names_are_reported_by_info() -> Outcome {
    let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &ZERO);
    assert_eq!(spec.load()?.info()?.name, "");
    for name in ["a", "filter_4.x", "exactly_fifteen"] {
        assert_eq!(spec.clone().name(name).load()?.info()?.name, name);
    }
    Ok(())
}

#[common::test]
fn invalid_names_are_rejected_without_a_syscall() -> Outcome {
    for bad in ["sixteen_is_a_lot", "a-b", "a b", "a\0b", "\u{e4}", "a/b"] {
        let error = ProgSpec::new(ProgType::XDP, &ZERO).name(bad).load();
        let error = error.expect_err("an invalid name");
        assert_cause_matches!(
            error,
            Cause::InvalidArgument {
                what: "the name",
                ..
            }
        );
        assert_eq!(error.raw_os_error(), None);
        assert_eq!(error.operation(), Operation::LoadProg);
    }
    Ok(())
}

fn log(error: &Error) -> &str {
    assert_eq!(error.operation(), Operation::LoadProg, "{error}");
    error.log().unwrap_or_default()
}

#[common::test(BPF)]
fn a_rejected_program_has_the_verifiers_log() -> Outcome {
    let filter = |insns: &[Insn]| {
        let spec = ProgSpec::new(ProgType::SOCKET_FILTER, insns).name("refused");
        spec.load().expect_err("no program")
    };
    // The return value is not set.
    let error = filter(&[Insn::exit()]);
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    assert!(error.cause().is_none());
    assert!(log(&error).contains("R0 !read_ok"), "{}", log(&error));
    assert!(!log(&error).contains('\0'));
    let text = error.to_string();
    assert!(text.contains("R0 !read_ok"), "{text}");
    let source = std::error::Error::source(&error).expect("the errno");
    assert_eq!(source.to_string(), "Permission denied (os error 13)");

    // A jump out of the program, and an invalid address.
    let error = filter(&[
        Insn::mov64_imm(0, 0),
        Insn::jmp_imm(abi::BPF_JEQ, 0, 0, 100),
        Insn::exit(),
    ]);
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert!(log(&error).contains("jump out of range"), "{error}");
    let error = filter(&[
        Insn::mov64_imm(1, 0),
        Insn::ldx_mem(abi::BPF_W, 0, 1, 0),
        Insn::exit(),
    ]);
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    assert!(log(&error).contains("invalid mem access"), "{error}");
    Ok(())
}

#[common::test(BPF)]
fn a_log_of_more_than_64_kib_is_complete() -> Outcome {
    // Each instruction is a line of at least 40 letters. The last one returns an unset register.
    let mut insns = vec![Insn::st_mem(abi::BPF_DW, 10, -8, 1_234_567_890); 3000];
    insns.push(Insn::exit());
    let error = ProgSpec::new(ProgType::SOCKET_FILTER, &insns).load();
    let error = error.expect_err("a program that returns nothing");
    assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
    let log = log(&error);
    assert!(log.len() > 64 << 10, "{} bytes", log.len());
    // Complete, from the first instruction to the verdict.
    assert!(log.contains("\n0: (7a) ") || log.starts_with("0: (7a) "));
    for number in [1, 1500, 2999] {
        assert!(log.contains(&format!("\n{number}: (7a) ")), "{number}");
    }
    assert!(log.contains("\n3000: (95) exit\nR0 !read_ok\n"));
    // The text of the error contains only the end of the log.
    let text = error.to_string();
    assert!(text.contains("R0 !read_ok") && !text.contains("\n1500: "));
    assert!(text.lines().count() < 40, "{text}");
    Ok(())
}

/// The kernel returns E2BIG for it, as for too many instructions.
#[common::test(BPF)]
fn an_empty_program_is_rejected_without_a_syscall() -> Outcome {
    let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &[]);
    for error in [
        spec.load().expect_err("nothing to run"),
        spec.load_with_log(LogLevel::LEVEL1).expect_err("the same"),
    ] {
        assert_eq!(error.raw_os_error(), None);
        assert_eq!(log(&error), "");
        assert_cause_matches!(error, Cause::InvalidArgument { what: "insns", .. });
        assert_eq!(error.operation(), Operation::LoadProg);
    }
    Ok(())
}

#[common::test(BPF)]
fn an_unknown_type_is_rejected() -> Outcome {
    for prog_type in [ProgType(4711), ProgType(u32::MAX)] {
        // Not a network type for the kernel, so CAP_BPF is enough to reach the check of the type.
        let error = ProgSpec::new(prog_type, &ZERO).load();
        let error = error.expect_err("an unknown type");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        assert_eq!(log(&error), "");
        assert_fails(&error, Operation::LoadProg, libc::EINVAL, None);
    }
    Ok(())
}

#[common::test(BPF)]
fn unknown_flags_and_unsupported_fields_are_rejected() -> Outcome {
    let other = prog();
    let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &ZERO);
    for spec in [
        spec.clone().flags(ProgFlags::from_bits_retain(1 << 31)),
        spec.clone().attach_btf_id(1),
        spec.clone().attach_prog(&other),
        spec.clone().flags(ProgFlags::SLEEPABLE),
    ] {
        let error = spec.load().expect_err("an unsupported field");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error} {spec:?}");
    }
    assert_eq!(spec.load()?.info()?.prog_type, ProgType::SOCKET_FILTER);
    Ok(())
}

#[common::test(ROOT)]
fn clones_have_the_same_id() -> Outcome {
    let prog = prog();
    let id = prog.id()?;
    let clone = prog.try_clone()?;
    let by_id = Prog::from_id(id)?;
    for other in [&clone, &by_id] {
        assert_eq!(other.info()?, prog.info()?);
        assert!(fcntl_getfd(other)?.contains(FdFlags::CLOEXEC));
    }
    drop((prog, by_id));
    assert_eq!(clone.id()?, id);
    let error = Prog::from_id(u32::MAX).expect_err("an unknown id");
    let cause = Cause::NoSuchId { what: "program" };
    assert_fails(&error, Operation::FromId, libc::ENOENT, cause);
    Ok(())
}

fn assert_capability_missing(prog_type: ProgType, attach_type: AttachType, lacking: Capability) {
    let spec = ProgSpec::new(prog_type, &ZERO).expected_attach_type(attach_type);
    let Err(error) = spec.load() else {
        panic!("{prog_type} loads without {lacking}")
    };
    assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
    assert!(
        matches!(error.cause(), Some(Cause::MissingCapability { capability, .. }) if *capability == lacking),
        "{lacking} for {error}"
    );
    assert_eq!(log(&error), "");
}

fn with_cap_bpf() -> Outcome {
    for &(prog_type, _, attach_type, flags, (major, minor)) in TYPES {
        if kernel(major, minor).unmet().is_some() {
            continue;
        }
        match prog_type {
            ProgType::SOCKET_FILTER
            | ProgType::CGROUP_SKB
            | ProgType::SK_REUSEPORT
            | ProgType::SK_LOOKUP
            | ProgType::SYSCALL => {
                let spec = ProgSpec::new(prog_type, &ZERO).flags(flags);
                spec.expected_attach_type(attach_type).load()?;
            }
            ProgType::KPROBE
            | ProgType::TRACEPOINT
            | ProgType::PERF_EVENT
            | ProgType::RAW_TRACEPOINT
            | ProgType::RAW_TRACEPOINT_WRITABLE => {
                assert_capability_missing(prog_type, attach_type, Capability::Perfmon)
            }
            _ => assert_capability_missing(prog_type, attach_type, Capability::NetAdmin),
        }
    }
    Ok(())
}

#[common::test(NO_BPF)]
fn each_type_requires_its_capability_of_this_user() -> Outcome {
    let sysctl = std::fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled")?;
    let disabled = sysctl.trim() != "0";
    for &(prog_type, _, attach_type, _, (major, minor)) in TYPES {
        if kernel(major, minor).unmet().is_some() {
            continue;
        }
        match prog_type {
            ProgType::SOCKET_FILTER | ProgType::CGROUP_SKB if !disabled => {
                let spec = ProgSpec::new(prog_type, &ZERO);
                spec.expected_attach_type(attach_type).load()?;
            }
            _ => assert_capability_missing(prog_type, attach_type, Capability::Bpf),
        }
    }
    Ok(())
}
