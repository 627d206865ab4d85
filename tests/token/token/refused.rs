//! Where no token is to be had, and why.

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

fn unsupported() -> (Option<i32>, Option<Cause>, &'static str) {
    let cause = Cause::Unsupported {
        what: "BPF tokens",
        since: Version::new(6, 9),
    };
    let because = "this kernel does not support BPF tokens (Linux 6.9)";
    (Some(libc::EINVAL), Some(cause), because)
}

#[common::test(ROOT)]
fn in_the_initial_user_namespace() -> Outcome {
    let options = if is_too_old() {
        MountOptions::new()
    } else {
        some()
    };
    let error = Token::create(options.detached()?).expect_err("the initial namespace");
    let (errno, cause, because) = match is_too_old() {
        true => unsupported(),
        false => (
            Some(libc::EOPNOTSUPP),
            Some(Cause::InitialUserNamespace),
            "this thread is in the initial user namespace, which has no tokens and needs none",
        ),
    };
    assert_token_says(&error, errno, cause, because);
    Ok(())
}

#[common::test(ROOT)]
fn of_what_is_no_root_of_a_bpffs() -> Outcome {
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
            let (errno, cause, because) = unsupported();
            assert_token_says(error, errno, cause, because);
        }
        return Ok(());
    }
    // Of a mount that is attached nowhere, paths begin at its root.
    let cause = Cause::NotTheRoot {
        path: Some("/sub".into()),
        mount_point: None,
    };
    let because = "/sub is a directory within a bpffs, not its root";
    assert_token_says(&errors[0], einval, Some(cause), because);
    let cause = Cause::NotBpffs {
        path: "/proc".into(),
        found: FileSystem::of(&proc)?,
        missing: None,
        hidden: None,
    };
    assert_token_says(
        &errors[1],
        einval,
        Some(cause),
        "/proc is on proc, not on a bpffs",
    );
    // Before anything is asked of bpf(2).
    let file = fs::File::open("/proc/self/status")?;
    let error = Token::create(&file).expect_err("a file");
    assert_token_says(&error, Some(libc::ENOTDIR), None, "ENOTDIR");
    Ok(())
}

#[common::test(TOKENS)]
fn of_a_bpffs_that_delegates_nothing() -> Outcome {
    child::run("nothing_delegated", |socket| {
        Ok(MountOptions::new().grant_delegation(&socket)?)
    })
}

pub fn of_nothing() {
    let bpffs = child::granted(&MountOptions::new()).unwrap();
    assert!(bpffs.delegation().unwrap().is_empty());
    let error = Token::create(&bpffs).expect_err("nothing is delegated");
    let because = "the bpffs delegates nothing: mount it with delegation options";
    assert_token_says(
        &error,
        Some(libc::ENOENT),
        Some(Cause::NothingDelegated),
        because,
    );
}

/// A bpffs with a delegation, but created for the initial user namespace.
#[common::test(TOKENS)]
fn of_another_namespaces_bpffs() -> Outcome {
    child::run("foreign", |socket| {
        let bpffs = some().detached()?;
        let fds = [bpffs.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let words = [std::io::IoSlice::new(b"x")];
        sendmsg(&socket, &words, &mut control, SendFlags::empty())?;
        Ok(())
    })
}

pub fn of_another_namespace() {
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
    let error = Token::create(fds.next().unwrap()).expect_err("it is another's");
    let because = "the bpffs belongs to another user namespace than this thread's";
    assert_token_says(
        &error,
        Some(libc::EPERM),
        Some(Cause::ForeignUserNamespace { what: "bpffs" }),
        because,
    );
}

#[common::test(TOKENS)]
fn without_cap_bpf() -> Outcome {
    child::run("powerless", |socket| Ok(some().grant_delegation(&socket)?))
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
    let because = "this thread lacks CAP_BPF, needed for creating a token";
    assert_token_says(&error, Some(libc::EPERM), Some(cause), because);
}
