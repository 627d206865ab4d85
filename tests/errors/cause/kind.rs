//! The object at a path or behind a descriptor is not of the expected kind.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use bpf_pin::error::Cause;
use bpf_pin::prog::Insn;
use bpf_pin::types::ProgType;
use bpf_pin::{
    Access, Error, Identity, Kind, Link, Map, MapSpec, MapType, Object, PinnedLink, PinnedMap,
    PinnedProg, Prog, ProgSpec,
};
use common::*;

use crate::cause::*;

const LINKS: &[Need] = &[
    cap::BPF,
    cap::NET_ADMIN,
    cap::SYS_ADMIN,
    Need::Bpffs,
    kernel(5, 9),
];

#[track_caller]
fn assert_is_wrong(error: &Error, expected: Kind, found: Kind) {
    let cause = Cause::WrongKind { expected, found };
    assert_fails(error, Operation::Open, None, Some(cause));
}

#[common::test(&[cap::BPF, Need::Bpffs])]
fn a_pin_of_another_kind_is_rejected() -> Outcome {
    let fs = TestFs::new();
    let (flows, filter) = (fs.at("flows"), fs.at("filter"));
    let map = pin_a_map(&flows);
    let prog = prog().pin(&filter)?.id()?;

    use Kind::{Link as L, Map as M, Prog as P};
    assert_is_wrong(&unwrap_err(Prog::open(&flows), &flows), P, M);
    assert_is_wrong(&unwrap_err(Link::open(&flows), &flows), L, M);
    assert_is_wrong(&unwrap_err(Map::open(&filter), &filter), M, P);
    assert_is_wrong(&unwrap_err(Link::open(&filter), &filter), L, P);
    assert_is_wrong(&unwrap_err(PinnedProg::open(&flows), &flows), P, M);
    assert_is_wrong(&unwrap_err(PinnedLink::open(&flows), &flows), L, M);
    assert_is_wrong(&unwrap_err(PinnedMap::open(&filter), &filter), M, P);
    for access in [Access::ReadOnly, Access::WriteOnly] {
        let error = unwrap_err(Prog::open_with(&flows, access), &flows);
        assert_is_wrong(&error, P, M);
        let error = unwrap_err(Map::open_with(&filter, access), &filter);
        assert_is_wrong(&error, M, P);
    }
    // The pins are unchanged, and an untyped open reports their kinds.
    let identity = |kind, id| Identity { kind, id };
    assert_eq!(Object::open(&flows)?.identity()?, identity(M, map));
    assert_eq!(Object::open(&filter)?.identity()?, identity(P, prog));
    Ok(())
}

#[common::test(LINKS)]
fn the_pin_of_a_link_is_not_a_map_or_program() -> Outcome {
    let fs = TestFs::new();
    let path = fs.at("lookup");
    let id = detached_link().pin(&path)?.id()?;
    let error = unwrap_err(Map::open(&path), &path);
    assert_is_wrong(&error, Kind::Map, Kind::Link);
    let error = unwrap_err(Prog::open(&path), &path);
    assert_is_wrong(&error, Kind::Prog, Kind::Link);
    assert_eq!(Link::open(&path)?.id()?, id);
    Ok(())
}

#[common::test(LINKS)]
fn a_link_cannot_be_opened_with_restricted_access() -> Outcome {
    let fs = TestFs::new();
    let path = fs.at("lookup");
    let id = detached_link().pin(&path)?.id()?;
    for access in [Access::ReadOnly, Access::WriteOnly] {
        for error in [
            unwrap_err(Link::open_with(&path, access), &path),
            unwrap_err(Object::open_with(&path, access), &path),
            unwrap_err(Map::open_with(&path, access), &path),
        ] {
            let cause = Some(Cause::InvalidArgument {
                what: "access",
                problem: "must be ReadWrite for a link".into(),
            });
            assert_fails(&error, Operation::Open, Some(libc::EINVAL), cause);
        }
    }
    assert_eq!(Link::open(&path)?.id()?, id);
    Ok(())
}

/// Losing the link in a failed pin would detach it.
#[common::test(LINKS)]
fn a_link_whose_pin_fails_stays_attached() -> Outcome {
    let fs = TestFs::new();
    let path = fs.at("lookup");
    let held = pin_a_map(&path);
    in_network_namespace(|| {
        let made = NetnsLink::new();
        let before = made.link.info().unwrap();
        let (link, error) = unwrap_err(made.link.pin(&path), &path).into_parts();
        let sentence = format!("pin {}: map {held} is pinned there already", path.display());
        assert_eq!(error.to_string(), sentence);
        assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
        // It is still attached, and can be updated.
        assert_eq!(link.info().unwrap(), before);
        link.update(&sk_lookup_prog()).expect("an attached link");
    });
    assert_eq!(Map::open(&path)?.id()?, held);
    Ok(())
}

#[common::test(&[cap::BPF])]
fn a_descriptor_of_another_kind_is_rejected_and_returned() -> Outcome {
    let map = hash();
    let id = map.id()?;
    let failed = Prog::try_from(OwnedFd::from(map)).expect_err("a map");
    let cause = Cause::WrongKind {
        expected: Kind::Prog,
        found: Kind::Map,
    };
    assert_fails(failed.error(), Operation::FromFd, None, Some(cause));
    // The descriptor is returned and still works.
    let failed = Link::try_from(failed.into_object()).expect_err("a map");
    let sentence = "use a descriptor as a link: it is a map, not a link";
    assert_eq!(failed.error().to_string(), sentence);
    assert_is_usable(&Map::try_from(failed.into_object())?, id);

    let prog = prog();
    let id = prog.id()?;
    let failed = Map::try_from(OwnedFd::from(prog)).expect_err("a program");
    let sentence = "use a descriptor as a map: it is a program, not a map";
    assert_eq!(failed.error().to_string(), sentence);
    assert_eq!(Prog::try_from(failed.into_object())?.id()?, id);
    Ok(())
}

/// Asserts that each type rejects the descriptor and returns it.
#[track_caller]
fn assert_is_not_bpf(fd: OwnedFd, found: &str) -> OwnedFd {
    let cause = Cause::WrongDescriptor {
        expected: "a map, program or link",
        found: Some(found.to_owned()),
    };
    let check = |error: &Error| {
        assert_fails(error, Operation::FromFd, None, Some(cause.clone()));
    };
    let failed = Map::try_from(fd).expect_err("no map");
    check(failed.error());
    let failed = Prog::try_from(failed.into_object()).expect_err("no program");
    check(failed.error());
    let failed = Link::try_from(failed.into_object()).expect_err("no link");
    check(failed.error());
    let failed = Object::try_from(failed.into_object()).expect_err("no object");
    assert_eq!(failed.error().cause(), Some(&cause));
    failed.into_object()
}

fn name_in_proc(fd: &impl AsRawFd) -> std::io::Result<String> {
    let name = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    Ok(name.to_string_lossy().into_owned())
}

#[common::test]
fn a_descriptor_of_a_file_is_rejected_and_returned() -> Outcome {
    use std::io::{Read, Seek, Write};
    let file = tempfile::NamedTempFile::new()?;
    let name = file.path().to_str().ok_or("a path of plain letters")?;
    let back = assert_is_not_bpf(file.reopen()?.into(), name);
    let mut back = File::from(back);
    back.write_all(b"alive")?;
    back.rewind()?;
    let mut text = String::new();
    back.read_to_string(&mut text)?;
    assert_eq!(text, "alive");

    assert_is_not_bpf(File::open("/proc")?.into(), "/proc");
    let (reader, _writer) = rustix::pipe::pipe()?;
    let process = rustix::process::pidfd_open(
        rustix::process::getpid(),
        rustix::process::PidfdFlags::empty(),
    )?;
    for fd in [reader, process] {
        let name = name_in_proc(&fd)?;
        assert_is_not_bpf(fd, &name);
    }
    Ok(())
}

/// An O_PATH descriptor of a pin refers to the file, not to the object.
#[common::test(&[cap::BPF, Need::Bpffs])]
fn an_o_path_descriptor_of_a_pin_is_rejected() -> Outcome {
    let fs = TestFs::new();
    let path = fs.at("flows");
    let id = pin_a_map(&path);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(&path)?;
    let name = name_in_proc(&file)?;
    let back = assert_is_not_bpf(file.into(), &name);
    assert!(bpf_pin::bpffs::FileSystem::of(back.as_fd())?.is_bpffs());
    assert_eq!(Map::open(&path)?.id()?, id);
    Ok(())
}

#[common::test]
fn an_invalid_object_name_is_rejected() -> Outcome {
    let insns = [Insn::mov64_imm(0, 0), Insn::exit()];
    for name in ["sixteen_is_a_lot", "a-b", "a b", "a/b", "nul\0", "naïve"] {
        let problem =
            format!("{name:?} is not valid: it may have up to 15 letters, digits, '_' and '.'");
        let cause = Cause::InvalidArgument {
            what: "the name",
            problem: problem.into(),
        };
        let error = MapSpec::new(MapType::HASH, 4, 8, 8)
            .name(name)
            .create()
            .expect_err("an invalid name");
        assert_fails(&error, Operation::CreateMap, None, Some(cause.clone()));
        let error = ProgSpec::new(ProgType::XDP, &insns)
            .name(name)
            .load()
            .expect_err("an invalid name");
        assert_fails(&error, Operation::LoadProg, None, Some(cause));
    }
    Ok(())
}

/// An error of the kernel without a known cause keeps its errno and names no cause.
#[common::test(&[cap::BPF])]
fn an_error_without_a_known_cause_keeps_its_errno() -> Outcome {
    let create = |spec: MapSpec<'_>| spec.create().expect_err("an invalid map");
    let error = create(MapSpec::new(MapType::HASH, 0, 8, 8).name("keyless"));
    let (what, problem) = ("key_size", "must be more than 0".into());
    let cause = Cause::InvalidArgument { what, problem };
    assert_fails(
        &error,
        Operation::CreateMap,
        Some(libc::EINVAL),
        Some(cause),
    );
    let error = create(MapSpec::new(MapType(9999), 4, 8, 8));
    assert_fails(&error, Operation::CreateMap, Some(libc::EINVAL), None);

    // The program has no exit instruction.
    let insns = [Insn::mov64_imm(0, 0)];
    let error = ProgSpec::new(ProgType::SOCKET_FILTER, &insns)
        .name("endless")
        .load()
        .expect_err("no exit");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    assert_eq!(error.cause(), None, "{error}");
    let sentence = "load socket_filter program \"endless\": EINVAL; the verifier's log ends:\n";
    assert!(error.to_string().starts_with(sentence), "{error}");
    assert!(error.to_string().len() > sentence.len(), "{error}");

    // Reading an uninitialized register fails with EACCES, which has nothing to do with a mode or an owner.
    let insns = [Insn::mov64_reg(0, 2), Insn::exit()];
    let error = ProgSpec::new(ProgType::SOCKET_FILTER, &insns)
        .load()
        .expect_err("an uninitialized register");
    assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
    assert_eq!(error.cause(), None, "{error}");

    let error = ProgSpec::new(ProgType::SOCKET_FILTER, &[])
        .load()
        .expect_err("no instructions");
    let (what, problem) = ("insns", "is empty".into());
    let cause = Cause::InvalidArgument { what, problem };
    assert_fails(&error, Operation::LoadProg, None, Some(cause));
    Ok(())
}
