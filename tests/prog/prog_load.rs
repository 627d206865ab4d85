//! The fields of `BPF_PROG_LOAD`: each reaches the kernel, or the error names it.

mod log;
mod records;

use std::os::fd::{AsFd, BorrowedFd};

use bpf_pin::error::{Cause, Operation};
use bpf_pin::prog::{Btf, Insn, ProgFlags, TestRun};
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Error, Map, MapSpec, MapType, Prog, ProgSpec, abi};
use bpf_pin_sys::Version;
use common::*;

const CHILD: &str = "BPF_PIN_TEST_PROG_LOAD";

const BPF: &[Need] = &[cap::BPF];

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const TRACER: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON, Need::File(VMLINUX)];
const NO_BPF: &[Need] = &[without(cap::BPF)];
const NET: &[Need] = &[cap::BPF, cap::NET_ADMIN, cap::SYS_ADMIN];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    if std::env::var_os(CHILD).is_some() {
        return Some(log::syscalls());
    }
    None
}

pub const ZERO: [Insn; 2] = [Insn::mov64_imm(0, 0), Insn::exit()];

pub fn log_of(error: &Error) -> &str {
    assert!(matches!(
        error.operation(),
        Operation::LoadProg | Operation::LoadBtf
    ));
    error.log().unwrap_or_default()
}

/// Runs a filter on a packet of zeroes and returns its result.
pub fn run(prog: &Prog) -> bpf_pin::Result<u32> {
    Ok(prog.test_run(TestRun::new().data_in(&[0; 64]))?.retval)
}

/// Checks that a field works since a kernel, and that the error names it before.
#[track_caller]
pub fn assert_since<T>(
    loaded: bpf_pin::Result<T>,
    what: &'static str,
    (major, minor): (u8, u8),
) -> Option<T> {
    if kernel(major.into(), minor.into()).unmet().is_none() {
        return Some(loaded.unwrap_or_else(|error| panic!("{what}: {error}")));
    }
    let error = loaded.err().expect(what);
    let since = Version::new(major, minor);
    let unsupported = Cause::Unsupported { what, since };
    assert_eq!(error.cause(), Some(&unsupported), "{error}");
    let errno = error.raw_os_error();
    assert!(
        matches!(errno, Some(libc::EINVAL | libc::E2BIG)),
        "{errno:?}"
    );
    None
}

fn one_word() -> bpf_pin::Result<Map> {
    MapSpec::new(MapType::ARRAY, 4, 8, 1).create()
}

/// Returns the first bytes of the value in the map at this index of the array.
fn reader_of(index: i32) -> [Insn; 4] {
    let load = abi::BPF_LD | abi::BPF_IMM | abi::BPF_DW;
    [
        Insn::new(load, 1, abi::BPF_PSEUDO_MAP_IDX_VALUE, 0, index),
        Insn::new(0, 0, 0, 0, 0),
        Insn::ldx_mem(abi::BPF_W, 0, 1, 0),
        Insn::exit(),
    ]
}

#[common::test(BPF)]
fn instructions_refer_to_maps_by_array_index() -> Outcome {
    let maps = [one_word()?, one_word()?];
    for (map, value) in maps.iter().zip([5u64, 7]) {
        map.elements::<u32, u64>()?
            .update(&0, &value, Default::default())?;
    }
    let descriptors = maps.each_ref().map(|map| map.as_fd());
    for (index, expected) in [(0, 5), (1, 7)] {
        let insns = reader_of(index);
        let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &insns).fd_array(&descriptors);
        let Some(prog) = assert_since(spec.load(), "fd_array", (5, 14)) else {
            return Ok(());
        };
        if cfg!(target_endian = "little") {
            assert_eq!(run(&prog)?, expected);
        }
        // Only the maps that an instruction refers to.
        assert_eq!(prog.map_ids()?, [maps[index as usize].id()?]);
    }
    Ok(())
}

#[common::test]
fn an_index_beyond_the_array_is_rejected() -> Outcome {
    let file = std::fs::File::open("/dev/null")?;
    let descriptors = [file.as_fd(); 2];
    for (index, names) in [
        (2, 2),
        (i32::MAX, i32::MAX as usize),
        (-1, u32::MAX as usize),
    ] {
        let insns = reader_of(index);
        let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &insns).fd_array(&descriptors);
        // Rejected with and without a log, before a syscall.
        for error in [
            spec.load().expect_err("a place beyond the end"),
            spec.load_with_log(bpf_pin::types::LogLevel::LEVEL1)
                .expect_err("a place beyond the end"),
        ] {
            let cause = Some(Cause::InvalidArgument {
                what: "fd_array",
                problem: format!("has 2 descriptors, and instruction 0 uses index {names}").into(),
            });
            assert_eq!(error.cause(), cause.as_ref());
            assert_eq!(error.raw_os_error(), None);
        }
    }
    Ok(())
}

#[common::test(BPF)]
fn a_program_can_keep_all_maps_of_the_array() -> Outcome {
    let maps = [one_word()?, one_word()?];
    let descriptors: [BorrowedFd<'_>; 2] = maps.each_ref().map(|map| map.as_fd());
    let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &ZERO).fd_array(&descriptors);
    let Some(prog) = assert_since(spec.clone().keep_fd_array().load(), "fd_array_cnt", (6, 14))
    else {
        return Ok(());
    };
    let mut ids = prog.map_ids()?;
    ids.sort_unstable();
    assert_eq!(ids, [maps[0].id()?, maps[1].id()?]);
    assert_eq!(spec.load()?.map_ids()?, []);
    Ok(())
}

#[common::test(BPF)]
fn an_invalid_signature_is_rejected() -> Outcome {
    let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &ZERO).signature(b"invalid", 0);
    let loaded = spec.load();
    if kernel(6, 18).unmet().is_some() {
        assert_since(loaded, "signature", (6, 18));
        return Ok(());
    }
    // With the kernel's own keys the kernel parses the signature, unless it was built without support for it.
    let error = loaded.expect_err("no signature");
    assert!(error.cause().is_none(), "{error}");
    let errno = error.raw_os_error();
    assert!(
        matches!(errno, Some(libc::EBADMSG | libc::EOPNOTSUPP)),
        "{error}"
    );
    // An unknown keyring is reported only after that.
    let error = spec.signature(b"invalid", i32::MAX).load();
    let error = error.expect_err("no keyring");
    assert!(error.cause().is_none(), "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    Ok(())
}

/// The loopback device supports no offload, and the other device does not exist.
#[common::test(NET)]
fn a_device_without_offload_is_rejected() -> Outcome {
    in_network_namespace(|| {
        let insns = [Insn::mov64_imm(0, 2), Insn::exit()];
        let spec = ProgSpec::new(ProgType::XDP, &insns);
        spec.load()?;
        for (ifindex, expected) in [(1, libc::EOPNOTSUPP), (i32::MAX as u32, libc::EINVAL)] {
            let error = spec.clone().ifindex(ifindex).load();
            let error = error.expect_err("no device to offload to");
            assert_eq!(error.raw_os_error(), Some(expected), "{ifindex}: {error}");
        }
        let bound = spec.flags(ProgFlags::XDP_DEV_BOUND_ONLY);
        let error = bound.ifindex(i32::MAX as u32).load();
        let error = error.expect_err("no device to be bound to");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        Ok(())
    })
}

/// Since Linux 5.0 the kernel ignores the version, so this shows only that any version is accepted.
#[common::test(TRACER)]
fn any_kern_version_is_accepted() -> Outcome {
    let spec = ProgSpec::new(ProgType::KPROBE, &ZERO).kern_version(0x0005_0a00);
    assert_eq!(spec.load()?.info()?.prog_type, ProgType::KPROBE);
    Ok(())
}

#[common::test(BPF)]
fn flags_for_verifier_tests_are_accepted() -> Outcome {
    let load = |flags| {
        ProgSpec::new(ProgType::SOCKET_FILTER, &ZERO)
            .flags(flags)
            .load()
    };
    load(ProgFlags::TEST_RND_HI32 | ProgFlags::TEST_STATE_FREQ)?;
    let loaded = load(ProgFlags::TEST_REG_INVARIANTS);
    match kernel(6, 8).unmet() {
        None => drop(loaded?),
        Some(_) => {
            let error = loaded.expect_err("an unknown flag");
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        }
    }
    Ok(())
}

/// A program for the entry of a function that the kernel has for such tests.
#[common::test(TRACER)]
fn a_program_attaches_to_a_function_in_a_btf_object() -> Outcome {
    let kernels = btf_rs::Btf::from_file("/sys/kernel/btf/vmlinux")?;
    let is_function =
        |id: &u32| matches!(kernels.resolve_type_by_id(*id), Ok(btf_rs::Type::Func(_)));
    let ids = kernels.resolve_ids_by_name("bpf_fentry_test1")?;
    let function = ids.into_iter().find(is_function).ok_or("no function")?;
    let spec = ProgSpec::new(ProgType::TRACING, &ZERO)
        .license(c"GPL")
        .expected_attach_type(AttachType::TRACE_FENTRY)
        .attach_btf_id(function);
    let kprobes = Need::File("/sys/bus/event_source/devices/kprobe");
    if kprobes.unmet().is_some() {
        // A kernel without kprobes has no tracing programs.
        spec.load()
            .expect_err("a program for tracing without kprobes");
        return Ok(());
    }
    spec.load()?;

    // A BTF object of other types; or a BTF object in the field for a program.
    let own = btf_fd();
    let error = spec.clone().attach_btf_obj(&own).load();
    let error = error.expect_err("BTF that is not the kernel's");
    assert!(
        matches!(
            error.raw_os_error(),
            Some(libc::EINVAL | libc::EOPNOTSUPP | 524)
        ),
        "{error}"
    );
    // The first BTF object is the kernel's own.
    let vmlinux = match Btf::from_id(1) {
        Ok(vmlinux) if kernel(5, 11).unmet().is_none() => vmlinux,
        Err(error) if kernel(5, 11).unmet().is_none() => return Err(error.into()),
        _ => return Ok(()),
    };
    let info = spec.clone().attach_btf_obj(&vmlinux).load()?.info()?;
    if kernel(6, 0).unmet().is_none() {
        assert_eq!((info.attach_btf_obj_id, info.attach_btf_id), (1, function));
    }
    // The last setter of the field counts, in both orders.
    let other = prog();
    let error = spec
        .clone()
        .attach_btf_obj(&vmlinux)
        .attach_prog(&other)
        .load();
    error.expect_err("a program without such a function");
    spec.attach_prog(&other).attach_btf_obj(&vmlinux).load()?;
    Ok(())
}

#[common::test(BPF)]
fn two_loads_of_one_blob_are_two_objects() -> Outcome {
    let blob = records::blob();
    let (one, other) = (Btf::load(&blob)?, Btf::load(&blob)?);
    assert_ne!(one.id()?, other.id()?);
    assert!(one.id()? > 0);
    let spec = MapSpec::new(MapType::ARRAY, 4, 4, 1).btf(&one, 1, 1);
    let info = spec.create()?.info()?;
    assert_eq!(info.btf_id, one.id()?);
    let fd: std::os::fd::OwnedFd = one.into();
    let flags = rustix::io::fcntl_getfd(&fd)?;
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    Ok(())
}

#[common::test(BPF)]
fn invalid_btf_is_rejected_with_its_log() -> Outcome {
    let error = Btf::load(&[]).expect_err("no BTF");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    let blob = records::blob();
    let mut other = blob.clone();
    other[..2].copy_from_slice(b"no");
    let error = Btf::load(&other).expect_err("no BTF");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    assert!(error.cause().is_none());
    assert!(log_of(&error).contains("Invalid magic"), "{error}");
    // Truncated within the types.
    let error = Btf::load(&blob[..blob.len() - 1]).expect_err("truncated BTF");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    Ok(())
}

#[common::test(&[cap::SYS_ADMIN])]
fn btf_is_opened_by_id() -> Outcome {
    let btf = Btf::load(&records::blob())?;
    let id = btf.id()?;
    let again = Btf::from_id(id)?;
    assert_eq!(again.id()?, id);
    drop(btf);
    assert_eq!(Btf::from_id(id)?.id()?, id);
    let error = Btf::from_id(u32::MAX).expect_err("an unknown id");
    let cause = Cause::NoSuchId { what: "BTF object" };
    assert_fails(&error, Operation::BtfFromId, libc::ENOENT, cause);
    Ok(())
}

#[common::test(NO_BPF)]
fn loading_btf_requires_cap_bpf() -> Outcome {
    for error in [
        Btf::load(&records::blob()).expect_err("no capability"),
        Btf::from_id(1).expect_err("BTF by its id"),
    ] {
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        assert_cause_matches!(error, Cause::MissingCapability { .. });
    }
    Ok(())
}
