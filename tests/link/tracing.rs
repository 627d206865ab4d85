//! Links for tracing: raw tracepoints, functions of the kernel, perf events, kprobes and uprobes.

mod probes;

use std::os::fd::{AsFd, AsRawFd};
use std::thread;

use bpf_pin::abi::Version;
use bpf_pin::error::{Cause, Operation};
use bpf_pin::link::{LinkTarget, Uprobes};
use bpf_pin::map::ElemFlags;
use bpf_pin::prog::Insn;
use bpf_pin::types::{AttachType, LinkType, ProgType};
use bpf_pin::{Link, LinkSpec, Map, MapSpec, MapType, Prog, ProgSpec, abi};
use common::*;

use crate::lifecycle::{assert_invalid, assert_refused, assert_unsupported, wrong_prog_type};

const TRACER: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON];
const COOKIE: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON, kernel(6, 10)];
const FUNCTIONS: &[Need] = &[
    cap::SYS_ADMIN,
    cap::PERFMON,
    Need::Feature(Feature::Trampolines),
];
const PERF: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON, kernel(5, 15)];
const UPROBE_MULTI: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON, kernel(6, 6)];

/// A map in which a program stores the cookie that it saw, and 1 for having run.
fn cookie_map() -> Map {
    MapSpec::new(MapType::ARRAY, 4, 8, 2)
        .create()
        .expect("an array")
}

fn read(map: &Map) -> (u64, bool) {
    let elems = map.elements::<u32, u64>().unwrap();
    let at = |index| elems.lookup(&index).unwrap().unwrap();
    (at(0), at(1) == 1)
}

fn clear(map: &Map) {
    let elems = map.elements::<u32, u64>().unwrap();
    for index in [0, 1] {
        elems.update(&index, &0, ElemFlags::ANY).unwrap();
    }
}

/// Instructions that store the cookie, or 7 if the program has none.
fn store_cookie(map: &Map, has_cookie: bool) -> Vec<Insn> {
    let store = |key: i32| {
        let mut insns = vec![Insn::st_mem(abi::BPF_W, 10, -4, key)];
        insns.extend(Insn::ld_map_fd(1, map.as_fd().as_raw_fd()));
        insns.extend([
            Insn::mov64_reg(2, 10),
            Insn::alu64_imm(abi::BPF_ADD, 2, -4),
            Insn::mov64_reg(3, 10),
            Insn::alu64_imm(abi::BPF_ADD, 3, -16),
            Insn::mov64_imm(4, 0),
            Insn::call(abi::BPF_FUNC_map_update_elem),
        ]);
        insns
    };
    let mut insns = match has_cookie {
        true => vec![Insn::call(abi::BPF_FUNC_get_attach_cookie)],
        false => vec![Insn::mov64_imm(0, 7)],
    };
    insns.push(Insn::stx_mem(abi::BPF_DW, 10, 0, -16));
    insns.extend(store(0));
    insns.push(Insn::st_mem(abi::BPF_DW, 10, -16, 1));
    insns.extend(store(1));
    insns.extend([Insn::mov64_imm(0, 0), Insn::exit()]);
    insns
}

fn load(prog_type: ProgType, attach_type: AttachType, btf_id: u32, insns: &[Insn]) -> Prog {
    ProgSpec::new(prog_type, insns)
        .license(c"GPL")
        .expected_attach_type(attach_type)
        .attach_btf_id(btf_id)
        .load()
        .unwrap_or_else(|error| panic!("{error}"))
}

fn spawn() {
    thread::spawn(|| ()).join().unwrap();
}

/// Asserts that the program runs while the link lives, and no longer.
fn check_runs(map: &Map, link: Link, cookie: u64, act: impl Fn()) -> Outcome {
    clear(map);
    act();
    assert_eq!(read(map), (cookie, true));
    drop(link);
    wait_until("quiet", || {
        clear(map);
        act();
        read(map) == (0, false)
    });
    Ok(())
}

/// Asserts that the link is detached only with its last descriptor, and cannot be updated.
fn assert_cannot_be_detached_or_updated(link: &Link, other: &Prog, link_type: LinkType) -> Outcome {
    let info = link.info()?;
    assert_unsupported(
        link.detach(),
        Operation::DetachLink,
        libc::EOPNOTSUPP,
        link_type,
    );
    assert_unsupported(
        link.update(other),
        Operation::UpdateLink,
        libc::EINVAL,
        link_type,
    );
    assert_eq!(link.info()?, info);
    Ok(())
}

#[common::test(TRACER)]
fn a_raw_tracepoint_program_runs_until_its_link_is_dropped() -> Outcome {
    let map = cookie_map();
    let insns = store_cookie(&map, false);
    let prog = load(ProgType::RAW_TRACEPOINT, AttachType(0), 0, &insns);
    let link = LinkSpec::raw_tracepoint(c"sched_process_fork").create(&prog)?;
    let info = link.info()?;
    assert_eq!(info.link_type, LinkType::RAW_TRACEPOINT);
    assert_eq!(info.prog_id, prog.id()?);
    assert!(matches!(
        info.target,
        LinkTarget::RawTracepoint { cookie: 0, .. }
    ));
    assert_eq!(link.target_name()?.as_deref(), Some("sched_process_fork"));
    assert!(!info.target.is_gone());
    let other = prog_returning(ProgType::RAW_TRACEPOINT, AttachType(0), 0);
    assert_cannot_be_detached_or_updated(&link, &other, LinkType::RAW_TRACEPOINT)?;
    check_runs(&map, link, 7, spawn)?;

    let nowhere = LinkSpec::raw_tracepoint(c"no_such_tracepoint").create(&prog);
    let no_target = Cause::NoTarget {
        what: "tracepoint no_such_tracepoint".to_owned(),
    };
    assert_refused(nowhere, Operation::CreateLink, libc::ENOENT, no_target);
    let filter = common::prog();
    let takes = &[ProgType::RAW_TRACEPOINT, ProgType::RAW_TRACEPOINT_WRITABLE];
    let cause = wrong_prog_type(&filter, AttachType::TRACE_RAW_TP, takes);
    let made = LinkSpec::raw_tracepoint(c"sched_process_fork").create(&filter);
    assert_refused(made, Operation::CreateLink, libc::EINVAL, cause);
    // Links of other types have no target name.
    assert_eq!(common::detached_link().target_name()?, None);
    Ok(())
}

#[common::test(TRACER)]
fn raw_tracepoint_cookies_need_linux_6_10() -> Outcome {
    let spec = LinkSpec::raw_tracepoint(c"sched_process_fork").cookie(4711);
    let prog = prog_returning(ProgType::RAW_TRACEPOINT, AttachType(0), 0);
    if kernel(6, 10).unmet().is_none() {
        spec.create(&prog)?;
        return Ok(());
    }
    let unsupported = Cause::Unsupported {
        what: "raw_tracepoint.cookie",
        since: Version::new(6, 10),
    };
    let made = spec.create(&prog);
    assert_refused(made, Operation::CreateLink, libc::EINVAL, unsupported);
    Ok(())
}

#[common::test(COOKIE)]
fn a_raw_tracepoint_program_sees_its_cookie() -> Outcome {
    let map = cookie_map();
    let insns = store_cookie(&map, true);
    let prog = load(ProgType::RAW_TRACEPOINT, AttachType(0), 0, &insns);
    let spec = LinkSpec::raw_tracepoint(c"sched_process_fork").cookie(u64::MAX - 1);
    let link = spec.create(&prog)?;
    let reported = match kernel(6, 17).unmet() {
        None => u64::MAX - 1,
        Some(_) => 0,
    };
    assert!(matches!(
        link.info()?.target,
        LinkTarget::RawTracepoint { cookie, .. } if cookie == reported
    ));
    check_runs(&map, link, u64::MAX - 1, spawn)
}

/// Program types, attach types and functions, and whether the start of a thread runs the program.
fn attach_cases() -> Outcome<Vec<(ProgType, AttachType, u32, bool)>> {
    let fork = function_btf_id("kernel_clone")?;
    Ok(vec![
        (ProgType::TRACING, AttachType::TRACE_FENTRY, fork, true),
        (ProgType::TRACING, AttachType::TRACE_FEXIT, fork, true),
        (
            ProgType::TRACING,
            AttachType::TRACE_RAW_TP,
            tracepoint_btf_id("sched_process_fork")?,
            true,
        ),
        (
            ProgType::TRACING,
            AttachType::MODIFY_RETURN,
            function_btf_id("security_task_getpgid")?,
            false,
        ),
        (
            ProgType::LSM,
            AttachType::LSM_MAC,
            function_btf_id("bpf_lsm_task_getpgid")?,
            false,
        ),
    ])
}

/// A kernel built without kprobes, of any release, cannot trace its functions.
fn has_kprobes() -> bool {
    Need::File(KPROBES).unmet().is_none()
}

fn check_tracing_is_refused() -> Outcome {
    let insns = [Insn::mov64_imm(0, 0), Insn::exit()];
    let attach_type = AttachType::TRACE_FENTRY;
    let made = ProgSpec::new(ProgType::TRACING, &insns)
        .license(c"GPL")
        .expected_attach_type(attach_type)
        .attach_btf_id(function_btf_id("kernel_clone")?)
        .load()
        .and_then(|prog| LinkSpec::tracing(attach_type).create(&prog));
    let error = made.expect_err("a kernel without kprobes");
    assert!(error.cause().is_none(), "{error}");
    Ok(())
}

#[common::test(FUNCTIONS)]
fn functions_of_the_kernel_are_traced_and_relinked() -> Outcome {
    if !has_kprobes() {
        return check_tracing_is_refused();
    }
    for (prog_type, attach_type, btf_id, runs_here) in attach_cases()? {
        let map = cookie_map();
        let insns = store_cookie(&map, false);
        let make = || load(prog_type, attach_type, btf_id, &insns);
        let (first, second) = (make(), make());
        let spec = LinkSpec::tracing(attach_type);
        let link = spec.create(&first)?;
        let info = link.info()?;
        assert_eq!(info.prog_id, first.id()?);
        if attach_type == AttachType::TRACE_RAW_TP {
            assert_eq!(info.link_type, LinkType::RAW_TRACEPOINT);
            assert_eq!(link.target_name()?.as_deref(), Some("sched_process_fork"));
        } else {
            assert_eq!(info.link_type, LinkType::TRACING, "{attach_type}");
            let LinkTarget::Tracing {
                attach_type: found,
                obj_id,
                btf_id: found_id,
                ..
            } = info.target
            else {
                panic!("{:?}", info.target);
            };
            assert_eq!(found, attach_type);
            let is_reported = kernel(5, 13).unmet().is_none();
            assert_eq!(obj_id > 0, is_reported, "{attach_type}");
            assert_eq!(found_id, if is_reported { btf_id } else { 0 });
            // The same program cannot be attached twice, another can.
            assert!(spec.create(&first).is_err());
        }
        assert_cannot_be_detached_or_updated(&link, &second, info.link_type)?;
        let both = spec.create(&second)?;
        assert_ne!(both.id()?, info.id);
        drop(both);
        if runs_here {
            check_runs(&map, link, 7, spawn)?;
        }
        // open_or_attach opens the link, or replaces it by one of another program.
        let fs = TestFs::new();
        let dir = bpf_pin::PinDir::open(fs.root())?;
        let third = make();
        let made = dir.open_or_attach("link", &spec, &third)?;
        assert_eq!(made.attachment, bpf_pin::reuse::Attachment::Attached);
        let same = dir.open_or_attach("link", &spec, &third)?;
        assert_eq!(same.attachment, bpf_pin::reuse::Attachment::Unchanged);
        let old_prog_id = third.id()?;
        let other = dir.open_or_attach("link", &spec, &make())?;
        assert_eq!(
            other.attachment,
            bpf_pin::reuse::Attachment::Relinked { old_prog_id },
            "{attach_type}"
        );
    }
    // The same function with another attach type is another target.
    let btf_id = function_btf_id("kernel_clone")?;
    let insns = [Insn::mov64_imm(0, 0), Insn::exit()];
    let prog = load(ProgType::TRACING, AttachType::TRACE_FENTRY, btf_id, &insns);
    let made = LinkSpec::tracing(AttachType::TRACE_FENTRY).create(&prog)?;
    let fs = TestFs::new();
    let made = made.pin(fs.at("link")).map_err(bpf_pin::Error::from)?;
    let dir = bpf_pin::PinDir::open(fs.root())?;
    let other = load(ProgType::TRACING, AttachType::TRACE_FEXIT, btf_id, &insns);
    let spec = LinkSpec::tracing(AttachType::TRACE_FEXIT);
    let error = dir
        .open_or_attach("link", &spec, &other)
        .expect_err("fexit");
    assert_cause_matches!(error, Cause::AttachedElsewhere { .. });
    assert_eq!(made.info()?.prog_id, prog.id()?);
    Ok(())
}

#[common::test(FUNCTIONS)]
fn a_program_for_a_function_sees_its_cookie() -> Outcome {
    if !has_kprobes() {
        return check_tracing_is_refused();
    }
    let map = cookie_map();
    let has_cookie = kernel(5, 19).unmet().is_none();
    let insns = store_cookie(&map, has_cookie);
    let attach_type = AttachType::TRACE_FENTRY;
    let prog = load(
        ProgType::TRACING,
        attach_type,
        function_btf_id("kernel_clone")?,
        &insns,
    );
    let spec = LinkSpec::tracing(attach_type).cookie(99);
    if !has_cookie {
        let made = spec.create(&prog);
        assert_refused(made, Operation::CreateLink, libc::EINVAL, None);
        return Ok(());
    }
    let link = spec.create(&prog)?;
    assert_eq!(link.info()?.link_type, LinkType::TRACING);
    check_runs(&map, link, 99, spawn)
}

/// The kernel would take these for something else, or ignore them.
#[common::test(TRACER)]
fn options_that_a_target_does_not_have_are_rejected() -> Outcome {
    let prog = prog();
    let offsets = [1, 2];
    // SAFETY: no program is attached.
    let points = unsafe { Uprobes::new(c"/proc/self/exe", &offsets) };
    // SAFETY: no program is attached.
    let counted = unsafe { points.ref_ctr_offsets(&[1, 2, 3]) };
    let multi = LinkSpec::uprobe_multi(points);
    let names = [c"do_exit"];
    let fentry = LinkSpec::tracing(AttachType::TRACE_FENTRY);
    for (spec, argument) in [
        (LinkSpec::tracing(AttachType::XDP), "attach_type"),
        (fentry.flags(1), "flags"),
        (fentry.cookies(&[1]), "cookies"),
        (multi.cookie(1), "cookie"),
        (multi.cookies(&[1]), "cookies"),
        (LinkSpec::uprobe_multi(counted), "ref_ctr_offsets"),
        (
            multi.flags(abi::BPF_F_UPROBE_MULTI_PATH_FD),
            "BPF_F_UPROBE_MULTI_PATH_FD",
        ),
        (LinkSpec::kprobe_multi(&names).cookies(&[1, 2]), "cookies"),
        (LinkSpec::iter().session(), "session"),
    ] {
        assert_invalid(spec.create(&prog), argument);
    }
    Ok(())
}
