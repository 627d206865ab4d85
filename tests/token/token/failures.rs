//! Failures of creating a token, with their causes.

use std::fs;
use std::os::fd::AsFd;

use bpf_pin::abi::Version;
use bpf_pin::bpffs::{FileSystem, MountOptions};
use bpf_pin::error::Cause;
use bpf_pin::probe::Capability;
use bpf_pin::token::Token;
use common::*;
use rustix::fs::{Mode, OFlags, openat};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::token::child;
use crate::token::*;

fn is_too_old() -> bool {
    kernel(6, 9).unmet().is_some()
}

fn unsupported() -> (Option<i32>, Option<Cause>) {
    let cause = Cause::Unsupported {
        what: "BPF tokens",
        since: Version::new(6, 9),
    };
    (Some(libc::EINVAL), Some(cause))
}

#[common::test(ROOT)]
fn a_token_requires_a_user_namespace() -> Outcome {
    let options = if is_too_old() {
        MountOptions::new()
    } else {
        delegating_options()
    };
    let error = Token::create(options.detached()?).expect_err("the initial namespace");
    let (errno, cause) = match is_too_old() {
        true => unsupported(),
        false => (Some(libc::EOPNOTSUPP), Some(Cause::InitialUserNamespace)),
    };
    assert_fails(&error, Operation::CreateToken, errno, cause);
    Ok(())
}

#[common::test(ROOT)]
fn a_token_requires_the_root_of_a_bpffs() -> Outcome {
    let bpffs = MountOptions::new().detached()?;
    fs::create_dir(bpffs.path().join("sub"))?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let sub = openat(&bpffs, "sub", flags, Mode::empty())?;
    let proc = fs::File::open("/proc")?;
    let einval = Some(libc::EINVAL);
    let errors = [
        Token::create(sub).expect_err("a subdirectory"),
        Token::create(&proc).expect_err("no bpffs"),
    ];
    if is_too_old() {
        for error in &errors {
            let (errno, cause) = unsupported();
            assert_fails(error, Operation::CreateToken, errno, cause);
        }
        return Ok(());
    }
    // A path in a detached mount starts at the root of the mount.
    let cause = Cause::NotTheRoot {
        path: Some("/sub".into()),
        mount_point: None,
    };
    assert_fails(&errors[0], Operation::CreateToken, einval, Some(cause));
    let cause = Cause::NotBpffs {
        path: "/proc".into(),
        found: FileSystem::of(&proc)?,
        missing: None,
        hidden: None,
    };
    assert_fails(&errors[1], Operation::CreateToken, einval, Some(cause));
    // Before any bpf(2) call.
    let file = fs::File::open("/proc/self/status")?;
    let error = Token::create(&file).expect_err("a file");
    assert_fails(&error, Operation::CreateToken, Some(libc::ENOTDIR), None);
    Ok(())
}

#[common::test(TOKENS)]
fn a_token_requires_a_delegation() -> Outcome {
    child::run("request_without_delegation", |socket| {
        Ok(MountOptions::new().grant_delegation(&socket)?)
    })
}

pub fn request_without_delegation() {
    let bpffs = child::granted(&MountOptions::new()).unwrap();
    assert!(bpffs.delegation().unwrap().is_empty());
    let error = Token::create(&bpffs).expect_err("nothing is delegated");
    assert_fails(
        &error,
        Operation::CreateToken,
        Some(libc::ENOENT),
        Some(Cause::NothingDelegated),
    );
}

/// A bpffs with a delegation, created for the initial user namespace.
#[common::test(TOKENS)]
fn a_bpffs_of_another_user_namespace_creates_no_token() -> Outcome {
    child::run("use_foreign_bpffs", |socket| {
        let bpffs = delegating_options().detached()?;
        let fds = [bpffs.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let words = [std::io::IoSlice::new(b"x")];
        sendmsg(&socket, &words, &mut control, SendFlags::empty())?;
        Ok(())
    })
}

pub fn use_foreign_bpffs() {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0];
    let mut words = [std::io::IoSliceMut::new(&mut word)];
    recvmsg(
        child::socket(),
        &mut words,
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    let Some(RecvAncillaryMessage::ScmRights(mut fds)) = control.drain().next() else {
        panic!("no descriptor");
    };
    let error = Token::create(fds.next().unwrap()).expect_err("a use_foreign_bpffs bpffs");
    assert_fails(
        &error,
        Operation::CreateToken,
        Some(libc::EPERM),
        Some(Cause::ForeignUserNamespace { what: "bpffs" }),
    );
}

#[common::test(TOKENS)]
fn a_token_requires_cap_bpf() -> Outcome {
    child::run("grant_without_cap_bpf", |socket| {
        Ok(delegating_options().grant_delegation(&socket)?)
    })
}

pub fn grant_without_cap_bpf() {
    let bpffs = child::granted(&MountOptions::new().mode(0o755)).unwrap();
    let mut sets = capabilities(None).unwrap();
    sets.effective -= CapabilitySet::BPF | CapabilitySet::SYS_ADMIN;
    set_capabilities(None, sets).unwrap();
    let error = Token::create(&bpffs).expect_err("CAP_BPF is missing");
    let cause = Cause::MissingCapability {
        capability: Capability::Bpf,
        needed_for: "creating a token",
    };
    assert_fails(
        &error,
        Operation::CreateToken,
        Some(libc::EPERM),
        Some(cause),
    );
}
