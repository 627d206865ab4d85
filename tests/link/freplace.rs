//! Functions of programs: extensions that replace them, and programs that trace their entry.

use std::os::fd::{AsFd, AsRawFd};

use bpf_pin::error::{Cause, Operation};
use bpf_pin::link::LinkTarget;
use bpf_pin::prog::{Btf, Insn, TestRun};
use bpf_pin::reuse::Attachment;
use bpf_pin::types::{AttachType, LinkType, ProgType};
use bpf_pin::{Link, LinkSpec, Map, MapSpec, MapType, PinDir, Prog, ProgSpec, abi};
use common::*;

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, Need::Feature(Feature::Jit)];

const NAMES: &str = "\0int\0main\0get\0";

/// The types of the BTF object, in order: an int, a prototype `int ()`, the static function "main", and the global
/// function "get", which can be replaced.
const MAIN: u32 = 3;
const GET: u32 = 4;

fn btf() -> Btf {
    const INT: u32 = 1 << 24;
    const FUNC: u32 = 12 << 24;
    const FUNC_PROTO: u32 = 13 << 24;
    const GLOBAL: u32 = 1;
    let name = |text: &str| NAMES.find(text).expect("a name") as u32;
    let types = [
        &[name("int"), INT, 4, 32][..],
        &[0, FUNC_PROTO, 1],
        &[name("main"), FUNC, 2],
        &[name("get"), FUNC | GLOBAL, 2],
    ];
    Btf::load(&btf_blob(&types.concat(), NAMES.as_bytes())).expect("a BTF object")
}

fn records(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A program that returns the result of its function "get", which is 7.
fn target() -> Prog {
    let call = Insn::new(abi::BPF_JMP | abi::BPF_CALL, 0, abi::BPF_PSEUDO_CALL, 0, 1);
    let insns = [call, Insn::exit(), Insn::mov64_imm(0, 7), Insn::exit()];
    let (btf, functions) = (btf(), records(&[0, MAIN, 2, GET]));
    ProgSpec::new(ProgType::SOCKET_FILTER, &insns)
        .btf(&btf)
        .func_info(&functions, 8)
        .load()
        .expect("a program with a function")
}

/// An extension that returns 42, for a function of the target.
fn extension(target: &Prog, function: u32, btf_id: u32) -> bpf_pin::Result<Prog> {
    let insns = [Insn::mov64_imm(0, 42), Insn::exit()];
    let (btf, functions) = (btf(), records(&[0, function]));
    ProgSpec::new(ProgType::EXT, &insns)
        .license(c"GPL")
        .btf(&btf)
        .func_info(&functions, 8)
        .attach_prog(target)
        .attach_btf_id(btf_id)
        .load()
}

/// False on kernels that do not allow extensions, even to root.
fn may_extend() -> bool {
    let insns = [Insn::mov64_imm(0, 42), Insn::exit()];
    let error = ProgSpec::new(ProgType::EXT, &insns).load();
    let error = error.expect_err("an extension of nothing");
    match error.raw_os_error() {
        Some(libc::EPERM) => {
            // Root lacks no capability, so no cause is named.
            assert!(error.cause().is_none(), "{error}");
            let target = target();
            let error = extension(&target, GET, GET).expect_err("an extension");
            assert_fails(&error, Operation::LoadProg, libc::EPERM, None);
            false
        }
        errno => {
            assert_eq!(errno, Some(libc::EINVAL), "{error}");
            true
        }
    }
}

fn returns(prog: &Prog) -> Outcome<u32> {
    Ok(prog.test_run(TestRun::new().data_in(&[0; 64]))?.retval)
}

fn assert_replaced(link: &Link, extension: &Prog, target: &Prog) -> Outcome {
    let info = link.info()?;
    assert_eq!(info.link_type, LinkType::TRACING);
    assert_eq!(info.prog_id, extension.id()?);
    let LinkTarget::Tracing {
        attach_type,
        obj_id,
        btf_id,
        ..
    } = info.target
    else {
        panic!("{:?}", info.target)
    };
    assert_eq!(attach_type, AttachType(0));
    if kernel(5, 13).unmet().is_none() {
        let target_id = target.id()?;
        assert_eq!((obj_id, btf_id), (target_id, GET));
        let text = format!("function {GET} of program {target_id}");
        assert_eq!(info.target.to_string(), text);
    }
    assert_eq!(returns(target)?, 42);
    Ok(())
}

#[common::test(ROOT)]
fn an_extension_replaces_a_function() -> Outcome {
    if !may_extend() {
        return Ok(());
    }
    let target = target();
    assert_eq!(returns(&target)?, 7);
    let (first, second) = (extension(&target, GET, GET)?, extension(&target, GET, GET)?);
    assert_eq!(returns(&target)?, 7, "loaded, not attached");
    let spec = LinkSpec::freplace(&target, GET);
    assert_eq!(spec.attach_type(), AttachType(0));
    let link = spec.create(&first)?;
    assert_replaced(&link, &first, &target)?;

    let error = spec.create(&second).expect_err("a second extension");
    assert_fails(&error, Operation::ReplaceFunction, libc::EBUSY, None);
    assert_eq!(error.operation(), Operation::ReplaceFunction);
    let error = link.update(&second).expect_err("an update");
    assert_cause_matches!(error, Cause::UnsupportedType { .. });
    let error = link.detach().expect_err("a detach");
    assert_cause_matches!(error, Cause::UnsupportedType { .. });
    assert_replaced(&link, &first, &target)?;

    drop(link);
    let mut free = None;
    wait_until("free", || {
        free = spec.create(&second).ok();
        free.is_some()
    });
    assert_replaced(&free.ok_or("no link")?, &second, &target)?;
    Ok(())
}

/// The second target is not the one that the extension was loaded for.
#[common::test(ROOT)]
fn an_extension_attaches_to_a_second_target() -> Outcome {
    if !may_extend() {
        return Ok(());
    }
    let (one, other) = (target(), target());
    let extension = extension(&one, GET, GET)?;
    let link = LinkSpec::freplace(&one, GET).create(&extension)?;
    assert_replaced(&link, &extension, &one)?;
    assert_eq!(returns(&other)?, 7);
    let both = LinkSpec::freplace(&other, GET).create(&extension)?;
    assert_replaced(&both, &extension, &other)?;
    drop(link);
    wait_until("gone", || returns(&one).unwrap() == 7);
    assert_eq!(returns(&other)?, 42);
    Ok(())
}

#[common::test(ROOT)]
fn open_or_attach_opens_extensions_and_reports_other_targets() -> Outcome {
    if !may_extend() {
        return Ok(());
    }
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (target, other) = (target(), target());
    let spec = LinkSpec::freplace(&target, GET);
    let first = extension(&target, GET, GET)?;
    let made = dir.open_or_attach("link", &spec, &first)?;
    assert_eq!(made.attachment, Attachment::Attached);
    assert_replaced(&made.link, &first, &target)?;
    let same = dir.open_or_attach("link", &spec, &first)?;
    assert_eq!(same.attachment, Attachment::Unchanged);
    if kernel(5, 13).unmet().is_none() {
        let elsewhere = LinkSpec::freplace(&other, GET);
        let error = dir.open_or_attach("link", &elsewhere, &first);
        let error = error.expect_err("another program's function");
        assert_cause_matches!(error, Cause::AttachedElsewhere { .. });
    }
    drop((made, same));
    assert_replaced(&dir.get("link")?, &first, &target)?;
    Ok(())
}

#[common::test(ROOT)]
fn wrong_functions_and_programs_are_rejected() -> Outcome {
    if !may_extend() {
        return Ok(());
    }
    let target = target();
    // A static function in either program, a type that is not a function, and no type.
    for (function, btf_id) in [(GET, MAIN), (MAIN, GET), (GET, 1), (GET, 4711)] {
        let error = extension(&target, function, btf_id).expect_err("no such function");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    }
    let fits = extension(&target, GET, GET)?;
    let filter = prog();
    for (target, btf_id, prog) in [
        (&target, 1, &fits),
        (&target, 4711, &fits),
        (&target, 0, &fits),
        (&target, GET, &filter),
        // A target without BTF.
        (&filter, GET, &fits),
    ] {
        let spec = LinkSpec::freplace(target, btf_id);
        let error = spec.create(prog).expect_err("no such function");
        assert_fails(&error, Operation::ReplaceFunction, libc::EINVAL, None);
    }
    let made = LinkSpec::freplace(&target, GET).cookie(1).create(&fits);
    let error = made.expect_err("a cookie");
    assert_eq!(error.operation(), Operation::ReplaceFunction, "{error}");
    assert_cause_matches!(error, Cause::InvalidArgument { what: "cookie", .. });
    assert_eq!(returns(&target)?, 7);
    Ok(())
}

/// Instructions that add 1 to the first value of the map.
fn count_calls(map: &Map) -> [Insn; 6] {
    let load = abi::BPF_LD | abi::BPF_IMM | abi::BPF_DW;
    let fd = map.as_fd().as_raw_fd();
    [
        Insn::new(load, 1, abi::BPF_PSEUDO_MAP_VALUE, 0, fd),
        Insn::new(0, 0, 0, 0, 0),
        Insn::mov64_imm(2, 1),
        Insn::atomic_add64(1, 2, 0),
        Insn::mov64_imm(0, 0),
        Insn::exit(),
    ]
}

#[common::test(ROOT)]
fn fentry_traces_a_function_of_a_program() -> Outcome {
    let (target, attach_type) = (target(), AttachType::TRACE_FENTRY);
    let map = MapSpec::new(MapType::ARRAY, 4, 8, 1).create()?;
    let insns = count_calls(&map);
    let spec = ProgSpec::new(ProgType::TRACING, &insns)
        .license(c"GPL")
        .expected_attach_type(attach_type)
        .attach_prog(&target)
        .attach_btf_id(GET);
    let loaded = spec.load();
    if Need::File(KPROBES).unmet().is_some() {
        // A kernel built without kprobes has no tracing programs.
        loaded.expect_err("a tracing program on a kernel without kprobes");
        return Ok(());
    }
    let traces = loaded?;
    let count = || -> Outcome<u64> { Ok(map.elements::<u32, u64>()?.lookup(&0)?.unwrap_or(0)) };
    let link = LinkSpec::tracing(attach_type).create(&traces)?;
    let info = link.info()?;
    assert_eq!(info.prog_id, traces.id()?);
    if kernel(5, 13).unmet().is_none() {
        let LinkTarget::Tracing { obj_id, btf_id, .. } = info.target else {
            panic!("{:?}", info.target)
        };
        assert_eq!((obj_id, btf_id), (target.id()?, GET));
    }
    for called in 1..=3 {
        assert_eq!(returns(&target)?, 7);
        assert_eq!(count()?, called);
    }
    drop(link);
    wait_until("detached", || {
        let before = count().unwrap();
        returns(&target).unwrap();
        count().unwrap() == before
    });
    Ok(())
}
