//! Links to what the kernel and its processes do: tracepoints, functions_of_the_kernel, perf events, probes.

mod probes;

use std::os::fd::{AsFd, AsRawFd};
use std::thread;

use bpf_pin::error::Cause;
use bpf_pin::link::{LinkTarget, Uprobes};
use bpf_pin::map::ElemFlags;
use bpf_pin::prog::Insn;
use bpf_pin::types::{AttachType, LinkType, ProgType};
use bpf_pin::{Link, LinkSpec, Map, MapSpec, MapType, Prog, ProgSpec, abi};
use common::*;

const TRACER: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON];
const COOKIE: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON, kernel(6, 10)];
const FUNCTIONS: &[Need] = &[
    cap::SYS_ADMIN,
    cap::PERFMON,
    Need::Feature(Feature::Trampolines),
];
const PERF: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON, kernel(5, 15)];
const UPROBE_MULTI: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON, kernel(6, 6)];

fn refused<T: std::fmt::Debug>(
    result: bpf_pin::Result<T>,
    errno: i32,
    text: &str,
) -> bpf_pin::Error {
    let error = result.expect_err(text);
    assert_eq!(error.to_string(), text);
    assert_eq!(error.raw_os_error(), Some(errno), "{error}");
    error
}

/// Where programs put the last cookie that they saw, and 1 for having run.
fn seen() -> Map {
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

/// Stores the cookie, or 7 where the kernel has none for such a program.
fn spec_insns(map: &Map, asks: bool) -> Vec<Insn> {
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
    let mut insns = match asks {
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

/// That it runs while the link lives, and no longer.
fn runs(map: &Map, link: Link, cookie: u64, act: impl Fn()) -> Outcome {
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

/// Of the kinds that only their last descriptor detaches.
fn is_for_good(link: &Link, other: &Prog, link_type: LinkType) -> Outcome {
    let info = link.info()?;
    let id = info.id;
    let text = format!(
        "detach link {id}: links of type {link_type} are detached only with their last descriptor and pin"
    );
    let error = refused(link.detach(), libc::EOPNOTSUPP, &text);
    assert!(matches!(error.cause(), Some(Cause::UnsupportedType { .. })));
    let text = format!("update link {id}: links of type {link_type} cannot be updated");
    let error = refused(link.update(other), libc::EINVAL, &text);
    assert!(matches!(error.cause(), Some(Cause::UnsupportedType { .. })));
    assert_eq!(link.info()?, info);
    Ok(())
}

#[common::test(TRACER)]
fn raw_tracepoint() -> Outcome {
    let map = seen();
    let insns = spec_insns(&map, false);
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
    is_for_good(&link, &other, LinkType::RAW_TRACEPOINT)?;
    runs(&map, link, 7, spawn)?;

    let nowhere = LinkSpec::raw_tracepoint(c"no_such_tracepoint").create(&prog);
    let text = "attach a program to trace_raw_tp: there is no tracepoint no_such_tracepoint";
    let error = refused(nowhere, libc::ENOENT, text);
    assert!(matches!(
        error.cause(),
        Some(Cause::NoTarget { what }) if what == "tracepoint no_such_tracepoint"
    ));
    let misfit = common::prog();
    let takes = "raw_tracepoint or raw_tracepoint_writable";
    let why = wrong_prog_type_message(&misfit, AttachType::TRACE_RAW_TP, takes);
    let text = format!("attach a program to trace_raw_tp: {why}");
    let made = LinkSpec::raw_tracepoint(c"sched_process_fork").create(&misfit);
    refused(made, libc::EINVAL, &text);
    // Links of another type have no such name.
    assert_eq!(common::detached_link().target_name()?, None);
    Ok(())
}

#[common::test(TRACER)]
fn a_raw_tracepoints_cookie() -> Outcome {
    let spec = LinkSpec::raw_tracepoint(c"sched_process_fork").cookie(4711);
    let prog = prog_returning(ProgType::RAW_TRACEPOINT, AttachType(0), 0);
    if kernel(6, 10).unmet().is_none() {
        spec.create(&prog)?;
        return Ok(());
    }
    let text = "attach a program to trace_raw_tp: this kernel does not support raw_tracepoint.cookie (Linux 6.10)";
    let error = refused(spec.create(&prog), libc::EINVAL, text);
    assert!(matches!(error.cause(), Some(Cause::Unsupported { .. })));
    Ok(())
}

#[common::test(COOKIE)]
fn a_raw_tracepoints_cookie_is_told() -> Outcome {
    let map = seen();
    let insns = spec_insns(&map, true);
    let prog = load(ProgType::RAW_TRACEPOINT, AttachType(0), 0, &insns);
    let spec = LinkSpec::raw_tracepoint(c"sched_process_fork").cookie(u64::MAX - 1);
    let link = spec.create(&prog)?;
    let told = match kernel(6, 17).unmet() {
        None => u64::MAX - 1,
        Some(_) => 0,
    };
    assert!(matches!(
        link.info()?.target,
        LinkTarget::RawTracepoint { cookie, .. } if cookie == told
    ));
    runs(&map, link, u64::MAX - 1, spawn)
}

/// A way, what it is for, and whether to spawn a thread makes it run.
fn ways() -> Outcome<Vec<(ProgType, AttachType, u32, bool)>> {
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

/// Built without kprobes, a kernel has no tracing of its functions, of whatever release it is.
fn has_kprobes() -> bool {
    Need::File(KPROBES).unmet().is_none()
}

fn no_functions() -> Outcome {
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
fn functions_of_the_kernel() -> Outcome {
    if !has_kprobes() {
        return no_functions();
    }
    for (prog_type, attach_type, btf_id, runs_here) in ways()? {
        let map = seen();
        let insns = spec_insns(&map, false);
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
            let told = kernel(5, 13).unmet().is_none();
            assert_eq!(obj_id > 0, told, "{attach_type}");
            assert_eq!(found_id, if told { btf_id } else { 0 });
            // The same once more; another as well.
            assert!(spec.create(&first).is_err());
        }
        is_for_good(&link, &second, info.link_type)?;
        let both = spec.create(&second)?;
        assert_ne!(both.id()?, info.id);
        drop(both);
        if runs_here {
            runs(&map, link, 7, spawn)?;
        }
        // Opened, or another link in its place.
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
    // What it was loaded for is another thing.
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
    assert!(
        matches!(error.cause(), Some(Cause::AttachedElsewhere { .. })),
        "{error}"
    );
    assert_eq!(made.info()?.prog_id, prog.id()?);
    Ok(())
}

#[common::test(FUNCTIONS)]
fn a_functions_cookie() -> Outcome {
    if !has_kprobes() {
        return no_functions();
    }
    let map = seen();
    let knows = kernel(5, 19).unmet().is_none();
    let insns = spec_insns(&map, knows);
    let attach_type = AttachType::TRACE_FENTRY;
    let prog = load(
        ProgType::TRACING,
        attach_type,
        function_btf_id("kernel_clone")?,
        &insns,
    );
    let spec = LinkSpec::tracing(attach_type).cookie(99);
    if !knows {
        let text = "attach a program to trace_fentry: EINVAL";
        refused(spec.create(&prog), libc::EINVAL, text);
        return Ok(());
    }
    let link = spec.create(&prog)?;
    assert_eq!(link.info()?.link_type, LinkType::TRACING);
    runs(&map, link, 99, spawn)
}

/// Without a syscall: the kernel would see something else, or nothing.
#[common::test(TRACER)]
fn what_does_not_fit_is_refused_at_once() -> Outcome {
    let prog = prog();
    let offsets = [1, 2];
    // SAFETY: nothing is attached.
    let points = unsafe { Uprobes::new(c"/proc/self/exe", &offsets) };
    // SAFETY: likewise.
    let counted = unsafe { points.ref_ctr_offsets(&[1, 2, 3]) };
    let multi = LinkSpec::uprobe_multi(points);
    let names = [c"do_exit"];
    for (spec, text) in [
        (
            LinkSpec::tracing(AttachType::XDP),
            "xdp: attach_type xdp cannot be used with a function",
        ),
        (
            LinkSpec::tracing(AttachType::TRACE_FENTRY).flags(1),
            "trace_fentry: flags cannot be set for a function",
        ),
        (
            LinkSpec::tracing(AttachType::TRACE_FENTRY).cookies(&[1]),
            "trace_fentry: cookies cannot be set for a function",
        ),
        (
            multi.cookie(1),
            "trace_uprobe_multi: cookie cannot be set for a set of uprobes",
        ),
        (
            multi.cookies(&[1]),
            "trace_uprobe_multi: cookies has 1 elements, expected 2 or none",
        ),
        (
            LinkSpec::uprobe_multi(counted),
            "trace_uprobe_multi: ref_ctr_offsets has 3 elements, expected 2 or none",
        ),
        (
            multi.flags(abi::BPF_F_UPROBE_MULTI_PATH_FD),
            "trace_uprobe_multi: BPF_F_UPROBE_MULTI_PATH_FD requires a descriptor, and none was given",
        ),
        (
            LinkSpec::kprobe_multi(&names).cookies(&[1, 2]),
            "trace_kprobe_multi: cookies has 2 elements, expected 1 or none",
        ),
        (
            LinkSpec::iter().session(),
            "trace_iter: session cannot be set for a iterator",
        ),
    ] {
        let error = spec.create(&prog).expect_err(text);
        assert_eq!(error.to_string(), format!("attach a program to {text}"));
        assert_eq!(error.raw_os_error(), None);
    }
    Ok(())
}
