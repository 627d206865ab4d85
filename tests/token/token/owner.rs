//! Mode and owner of a delegated bpffs: set by the requester, the grantor or both.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;

use bpf_pin::abi::Version;
use bpf_pin::bpffs::{Detached, MountOptions};
use bpf_pin::error::Cause;
use common::*;

use crate::token::child;
use crate::token::handshake::{GRANT, REQUEST_OF, pair};
use crate::token::*;

fn new() -> MountOptions {
    MountOptions::new()
}

fn supports_owners() -> bool {
    kernel(6, 8).unmet().is_none()
}

type Result<T> = bpf_pin::Result<T>;

fn request_and_grant(
    child: &MountOptions,
    parent: &MountOptions,
) -> (Result<Detached>, Result<()>) {
    let (here, there) = pair();
    thread::scope(|scope| {
        let other = scope.spawn(|| child.request_delegation(&there));
        let granted = parent.grant_delegation(&here);
        (other.join().expect("no panic"), granted)
    })
}

#[common::test(ROOT)]
fn the_mode_of_the_grantor_takes_precedence() -> Outcome {
    for (child, parent, expected) in [
        (new().mode(0o711), new(), 0o1711),
        (new(), new().mode(0o750), 0o1750),
        (new().mode(0o777), new().mode(0o700), 0o1700),
        (new().mode(0o700), new().mode(0o755), 0o1755),
        (new(), new(), 0o1700),
    ] {
        let (bpffs, granted) = request_and_grant(&child, &parent);
        granted?;
        let root = fs::metadata(bpffs?.path())?;
        assert_eq!(root.mode() & 0o7777, expected, "{child:?} {parent:?}");
    }
    Ok(())
}

#[common::test(ROOT)]
fn the_owner_of_the_grantor_takes_precedence() -> Outcome {
    for (child, parent, expected) in [
        (new().uid(3).gid(4), new(), (3, 4)),
        (new(), new().uid(5).gid(6), (5, 6)),
        (new().uid(3).gid(4), new().uid(5), (5, 4)),
        (new().uid(3).gid(4), new().gid(6), (3, 6)),
        (new().uid(3).gid(4), new().uid(0).gid(0), (0, 0)),
    ] {
        let (bpffs, granted) = request_and_grant(&child, &parent);
        if supports_owners() {
            granted?;
            let root = fs::metadata(bpffs?.path())?;
            assert_eq!((root.uid(), root.gid()), expected);
            continue;
        }
        // Requesting an option that the kernel ignores is an error.
        let is_ignored = |error: &bpf_pin::Error| {
            let since = Some(Version::new(6, 8));
            let option = |option| Cause::OptionIgnored { option, since };
            let cause = error.cause();
            cause == Some(&option("uid")) || cause == Some(&option("gid"))
        };
        let (refused, granted) = (bpffs.unwrap_err(), granted.unwrap_err());
        assert!(
            is_ignored(&refused) || is_ignored(&granted),
            "{refused} {granted}"
        );
        let other = if is_ignored(&refused) {
            granted
        } else {
            refused
        };
        let is_reported = matches!(
            other.cause(),
            Some(Cause::Handshake { .. } | Cause::PeerRefused { .. })
        );
        assert!(is_reported, "{other}");
    }
    Ok(())
}

/// The error for an owner set by either side.
fn unmapped_owner_error() -> (Option<i32>, Cause) {
    let option = "uid";
    if supports_owners() {
        let problem =
            "5 has no mapping in this thread's user namespace, or none in that of the bpffs";
        let cause = Cause::InvalidArgument {
            what: option,
            problem: problem.into(),
        };
        return (Some(libc::EINVAL), cause);
    }
    let since = Some(Version::new(6, 8));
    (None, Cause::OptionIgnored { option, since })
}

#[common::test(ROOT)]
fn an_owner_without_a_mapping_is_rejected() -> Outcome {
    child::run("unmapped", |socket| {
        let error = new().grant_delegation(&socket).expect_err("no request");
        let problem = "has given up";
        let cause = Some(Cause::Handshake {
            problem: problem.into(),
        });
        assert_fails(&error, GRANT, None, cause);

        let granted = new().uid(5).grant_delegation(&socket);
        let error = granted.expect_err("the other side has no such user");
        let (errno, cause) = unmapped_owner_error();
        assert_fails(&error, GRANT, errno, Some(cause));
        // A valid request still succeeds.
        let mapped = if supports_owners() {
            new().uid(0)
        } else {
            new()
        };
        let granted = mapped.grant_delegation(&socket);
        if is_for_user_namespaces() {
            return Ok(granted?);
        }
        let error = granted.expect_err("no bpffs for a user namespace");
        assert_fails(&error, GRANT, Some(libc::EPERM), None);
        Ok(())
    })
}

fn is_for_user_namespaces() -> bool {
    kernel(6, 9).unmet().is_none()
}

pub fn with_one_user() {
    let socket = child::socket();
    let error = new().uid(5).request_delegation(&socket).unwrap_err();
    let (errno, cause) = unmapped_owner_error();
    assert_fails(&error, REQUEST_OF, errno, Some(cause));

    let error = new().request_delegation(&socket).unwrap_err();
    let errno = match supports_owners() {
        true => libc::EINVAL,
        false => libc::EOPNOTSUPP,
    };
    let cause = Some(Cause::PeerRefused { errno });
    assert_fails(&error, REQUEST_OF, None, cause);

    let bpffs = new().request_delegation(&socket);
    if is_for_user_namespaces() {
        assert_eq!(fs::metadata(bpffs.unwrap().path()).unwrap().uid(), 0);
        return;
    }
    let cause = Some(Cause::PeerRefused { errno: libc::EPERM });
    assert_fails(&bpffs.unwrap_err(), REQUEST_OF, None, cause);
}
