//! Creating maps and loading programs with a token.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use bpf_pin::bpffs::MountOptions;
use bpf_pin::error::{Cause, Operation};
use bpf_pin::probe::Capability;
use bpf_pin::prog::{Btf, Insn};
use bpf_pin::token::{Allowed, Token};
use bpf_pin::types::{AttachType, Command, ProgType};
use bpf_pin::{Error, Map, MapSpec, MapType, Prog, ProgSpec, Result, abi};
use common::*;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::token::child;
use crate::token::*;

#[common::test(TOKENS)]
fn a_token_allows_what_is_delegated() -> Outcome {
    child::run("delegated", |socket| {
        Ok(delegating_options().grant_delegation(&socket)?)
    })
}

fn map_spec<'fd>(map_type: MapType) -> MapSpec<'fd> {
    MapSpec::new(map_type, 4, 8, 16)
}

fn load(prog_type: ProgType, attach_type: AttachType, token: Option<&Token>) -> Result<Prog> {
    let insns = [Insn::mov64_imm(0, 2), Insn::exit()];
    let spec = ProgSpec::new(prog_type, &insns).expected_attach_type(attach_type);
    match token {
        Some(token) => spec.token(token).load(),
        None => spec.load(),
    }
}

#[track_caller]
fn assert_not_delegated<T: std::fmt::Debug>(result: Result<T>, what: &str) {
    let error = result.expect_err(what);
    let cause = Cause::NotDelegated {
        what: what.to_owned(),
    };
    assert_eq!(error.cause(), Some(&cause), "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
}

/// Runs in the user namespace.
pub fn delegated() {
    // Without a token it fails.
    let lru = map_spec(MapType::LRU_HASH);
    assert_eq!(
        lru.create().unwrap_err().cause(),
        Some(&Cause::UserNamespace)
    );

    let options = MountOptions::new()
        .mode(0o750)
        .uid(0)
        .gid(0)
        .nosuid(true)
        .source("granted");
    let bpffs = child::granted(&options).unwrap();
    bpffs.still_here().unwrap();
    let mount = bpffs.mount().unwrap();
    assert_eq!(mount.source, "granted");
    assert!(mount.option("nosuid").is_some());
    let root = std::fs::metadata(bpffs.path()).unwrap();
    assert_eq!(
        (root.mode() & 0o7777, root.uid(), root.gid()),
        (0o1750, 0, 0)
    );
    let granted = bpffs.delegation().unwrap();
    let asked = Allowed::from([Command::MAP_CREATE, Command::PROG_LOAD]);
    assert_eq!(granted.cmds, asked);
    assert_eq!(
        granted.maps,
        Allowed::from([MapType::LRU_HASH, MapType::ARRAY])
    );
    assert_eq!(
        granted.progs,
        Allowed::from([ProgType::XDP, ProgType::SOCKET_FILTER])
    );
    assert_eq!(
        granted.attachs,
        Allowed::from([AttachType(0), AttachType::XDP])
    );

    let token = Token::create(&bpffs).unwrap();
    assert_eq!(token.info().unwrap(), granted);
    // The same from fdinfo, as on a kernel before Linux 6.17.
    let by_proc = with_bpf_errno(
        Some(abi::BPF_OBJ_GET_INFO_BY_FD),
        libc::EINVAL as u32,
        || token.info().unwrap(),
    );
    assert_eq!(by_proc, granted);

    let map = lru.clone().token(&token).create().unwrap();
    assert!(map.id().unwrap() > 0);
    // The map does not report the flag.
    assert_eq!(map.info().unwrap().flags.bits() & abi::BPF_F_TOKEN_FD, 0);
    let map = map.pin(bpffs.path().join("map")).unwrap();
    assert_eq!(
        Map::open(map.path()).unwrap().id().unwrap(),
        map.id().unwrap()
    );
    map_spec(MapType::LPM_TRIE)
        .flags(bpf_pin::types::MapFlags::NO_PREALLOC)
        .create()
        .expect_err("no token");
    let lpm = map_spec(MapType::LPM_TRIE).flags(bpf_pin::types::MapFlags::NO_PREALLOC);
    assert_not_delegated(lpm.token(&token).create(), "maps of type lpm_trie");

    let (xdp, other) = (AttachType::XDP, AttachType::XDP_DEVMAP);
    let error = load(ProgType::XDP, xdp, None).expect_err("no token");
    assert_eq!(error.cause(), Some(&Cause::UserNamespace));
    load(ProgType::XDP, xdp, Some(&token)).unwrap();
    load(ProgType::SOCKET_FILTER, AttachType(0), Some(&token)).unwrap();
    let wrong = load(ProgType::SCHED_CLS, AttachType(0), Some(&token));
    assert_not_delegated(wrong, "programs of type sched_cls");
    let wrong = load(ProgType::XDP, other, Some(&token));
    assert_not_delegated(wrong, "programs for xdp_devmap");

    // BTF is not delegated.
    let blob = btf_blob(&[1, 1 << 24, 4, 32], b"\0int\0");
    assert_not_delegated(Btf::load_with_token(&blob, &token), "btf_load");
    if kernel(6, 15).unmet().is_none() {
        let opened = Btf::from_id_with_token(1, &token);
        assert_not_delegated(opened, "btf_get_fd_by_id");
    }

    // A token outlives its bpffs, and its descriptor is recognized.
    bpffs
        .unmount()
        .map_err(Error::from)
        .map_err(|e| e.to_string())
        .unwrap_err();
    let token = Token::try_from(OwnedFd::from(token)).unwrap();
    lru.token(&token).create().unwrap();
    assert!(format!("{token:?}").starts_with("Token"));
}

#[common::test(TOKENS)]
fn a_token_allows_loading_btf() -> Outcome {
    let options = MountOptions::new()
        .delegate_cmds([Command::BTF_LOAD, Command::BTF_GET_FD_BY_ID])
        .delegate_maps([MapType::ARRAY]);
    child::run("delegated_btf", |socket| {
        Ok(options.grant_delegation(&socket)?)
    })
}

pub fn delegated_btf() {
    let blob = btf_blob(&[1, 1 << 24, 4, 32], b"\0int\0");
    let error = Btf::load(&blob).unwrap_err();
    assert_eq!(error.cause(), Some(&Cause::UserNamespace), "{error}");
    let bpffs = child::granted(&MountOptions::new().mode(0o755)).unwrap();
    let token = Token::create(&bpffs).unwrap();
    let btf = Btf::load_with_token(&blob, &token).unwrap();
    let id = btf.id().unwrap();
    let error = Btf::from_id(id).unwrap_err();
    assert_eq!(error.cause(), Some(&Cause::UserNamespace), "{error}");
    match Btf::from_id_with_token(id, &token) {
        Ok(same) => assert_eq!(same.id().unwrap(), id),
        Err(error) => {
            assert!(kernel(6, 15).unmet().is_some(), "{error}");
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        }
    }
    // The log is fetched with the token too.
    let error = Btf::load_with_token(&blob[1..], &token).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    assert!(error.log().is_some(), "{error}");
    // The token allows no maps of this type.
    let array = map_spec(MapType::ARRAY).token(&token).create();
    assert_not_delegated(array, "map_create");
}

/// A token does not replace the capability in its user namespace.
#[common::test(TOKENS)]
fn a_token_needs_the_capability() -> Outcome {
    let options = delegating_options().delegate_cmds([
        Command::MAP_CREATE,
        Command::PROG_LOAD,
        Command::BTF_LOAD,
        Command::BTF_GET_FD_BY_ID,
    ]);
    child::run("without_capabilities", |socket| {
        Ok(options.grant_delegation(&socket)?)
    })
}

pub fn without_capabilities() {
    let bpffs = child::granted(&MountOptions::new().mode(0o755)).unwrap();
    let token = Token::create(&bpffs).unwrap();
    let mut sets = capabilities(None).unwrap();
    sets.effective -= CapabilitySet::BPF | CapabilitySet::SYS_ADMIN;
    set_capabilities(None, sets).unwrap();
    let blob = btf_blob(&[1, 1 << 24, 4, 32], b"\0int\0");
    let xdp = load(ProgType::XDP, AttachType::XDP, Some(&token));
    let btf = Btf::load_with_token(&blob, &token);
    for error in [
        map_spec(MapType::LRU_HASH)
            .token(&token)
            .create()
            .unwrap_err(),
        xdp.unwrap_err(),
        btf.unwrap_err(),
    ] {
        let capability = Capability::Bpf;
        let is_named = matches!(error.cause(), Some(Cause::MissingCapability { capability: found, .. }) if *found == capability);
        assert!(is_named, "{error}");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }
    if kernel(6, 15).unmet().is_none() {
        let error = Btf::from_id_with_token(1, &token).unwrap_err();
        let capability = Capability::SysAdmin;
        let is_named = matches!(error.cause(), Some(Cause::MissingCapability { capability: found, .. }) if *found == capability);
        assert!(is_named, "{error}");
    }
}

/// Descriptor 0 is valid here, although 0 means none in other fields.
#[common::test(TOKENS)]
fn descriptor_0_can_be_a_token() -> Outcome {
    child::run("standard_input", |socket| {
        Ok(delegating_options().grant_delegation(&socket)?)
    })
}

pub fn as_standard_input() {
    let bpffs = child::granted(&MountOptions::new()).unwrap();
    let token = Token::create(bpffs.as_fd()).unwrap();
    rustix::stdio::dup2_stdin(&token).unwrap();
    drop(token);
    // SAFETY: only this code uses it from here on.
    let zero = unsafe { OwnedFd::from_raw_fd(0) };
    let token = Token::try_from(zero).unwrap();
    assert_eq!(token.as_fd().as_raw_fd(), 0);
    map_spec(MapType::LRU_HASH).token(&token).create().unwrap();
    load(ProgType::XDP, AttachType::XDP, Some(&token)).unwrap();
    assert_eq!(token.info().unwrap(), bpffs.delegation().unwrap());
}

#[common::test(&[cap::BPF])]
fn descriptors_that_are_not_tokens_are_rejected() -> Outcome {
    let map = hash();
    let id = map.id()?;
    let failed = Token::try_from(OwnedFd::from(map)).expect_err("a map");
    let cause = Cause::WrongDescriptor {
        expected: "a token",
        found: Some("anon_inode:bpf-map".to_owned()),
    };
    assert_fails(failed.error(), Operation::TokenFromFd, None, cause);
    assert_eq!(Map::try_from(failed.into_object())?.id()?, id);
    // A file with the name of a token.
    let dir = tempfile::tempdir()?;
    let forged = dir.path().join("bpf-token");
    let file = std::fs::File::create(&forged)?;
    std::fs::remove_file(&forged)?;
    let failed = Token::try_from(OwnedFd::from(file)).expect_err("a file");
    assert_cause_matches!(failed, Cause::WrongDescriptor { .. });
    let (reader, _writer) = rustix::pipe::pipe()?;
    let failed = Token::try_from(reader).expect_err("a pipe");
    assert_cause_matches!(failed, Cause::WrongDescriptor { found: Some(found), .. } if found.starts_with("pipe:"));
    Ok(())
}

#[common::test]
fn the_token_flag_requires_a_token() -> Outcome {
    let flags = bpf_pin::types::MapFlags::from_bits_retain(abi::BPF_F_TOKEN_FD);
    let error = map_spec(MapType::HASH)
        .flags(flags)
        .create()
        .expect_err("no token");
    let what = "BPF_F_TOKEN_FD";
    assert_cause_matches!(error, Cause::InvalidArgument { what: found, .. } if *found == what);
    let flags = bpf_pin::prog::ProgFlags::from_bits_retain(abi::BPF_F_TOKEN_FD);
    let insns = [Insn::mov64_imm(0, 0), Insn::exit()];
    let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &insns).flags(flags);
    let error = spec.load().expect_err("no token");
    assert_cause_matches!(error, Cause::InvalidArgument { what: found, .. } if *found == what);
    Ok(())
}
