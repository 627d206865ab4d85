//! Whose mode and owner a delegated bpffs has.

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

fn knows_owners() -> bool {
    kernel(6, 8).unmet().is_none()
}

type Result<T> = bpf_pin::Result<T>;

fn both(child: &MountOptions, parent: &MountOptions) -> (Result<Detached>, Result<()>) {
    let (here, there) = pair();
    thread::scope(|scope| {
        let other = scope.spawn(|| child.request_delegation(&there));
        let granted = parent.grant_delegation(&here);
        (other.join().expect("no panic"), granted)
    })
}

#[common::test(ROOT)]
fn the_grantors_mode_comes_first() -> Outcome {
    for (child, parent, expected) in [
        (new().mode(0o711), new(), 0o1711),
        (new(), new().mode(0o750), 0o1750),
        (new().mode(0o777), new().mode(0o700), 0o1700),
        (new().mode(0o700), new().mode(0o755), 0o1755),
        (new(), new(), 0o1700),
    ] {
        let (bpffs, granted) = both(&child, &parent);
        granted?;
        let root = fs::metadata(bpffs?.path())?;
        assert_eq!(root.mode() & 0o7777, expected, "{child:?} {parent:?}");
    }
    Ok(())
}

#[common::test(ROOT)]
fn the_grantors_owner_comes_first() -> Outcome {
    for (child, parent, expected) in [
        (new().uid(3).gid(4), new(), (3, 4)),
        (new(), new().uid(5).gid(6), (5, 6)),
        (new().uid(3).gid(4), new().uid(5), (5, 4)),
        (new().uid(3).gid(4), new().gid(6), (3, 6)),
        (new().uid(3).gid(4), new().uid(0).gid(0), (0, 0)),
    ] {
        let (bpffs, granted) = both(&child, &parent);
        if knows_owners() {
            granted?;
            let root = fs::metadata(bpffs?.path())?;
            assert_eq!((root.uid(), root.gid()), expected);
            continue;
        }
        // Whoever asks for what the kernel ignores is told so.
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
        let is_told = matches!(
            other.cause(),
            Some(Cause::Handshake { .. } | Cause::PeerRefused { .. })
        );
        assert!(is_told, "{other}");
    }
    Ok(())
}

/// Of the owner that was asked for by one side or the other.
fn refused() -> (Option<i32>, Cause, String) {
    let option = "uid";
    if knows_owners() {
        let problem =
            "5 has no mapping in this thread's user namespace, or none in that of the bpffs";
        let because = format!("uid {problem}");
        let cause = Cause::InvalidArgument {
            what: option,
            problem: problem.into(),
        };
        return (Some(libc::EINVAL), cause, because);
    }
    let since = Some(Version::new(6, 8));
    let because = "the kernel ignored the option uid (Linux 6.8)";
    (
        None,
        Cause::OptionIgnored { option, since },
        because.to_owned(),
    )
}

#[common::test(ROOT)]
fn owners_who_are_not_mapped() -> Outcome {
    child::run("unmapped", |socket| {
        let error = new().grant_delegation(&socket).expect_err("no request");
        let problem = "has given up";
        let cause = Some(Cause::Handshake {
            problem: problem.into(),
        });
        assert_mount_says(&error, GRANT, None, cause, "the other side has given up");

        let granted = new().uid(5).grant_delegation(&socket);
        let error = granted.expect_err("the other side has no such user");
        let (errno, cause, because) = refused();
        assert_mount_says(&error, GRANT, errno, Some(cause), &because);
        // Nothing of all that stands in the way.
        let mapped = if knows_owners() { new().uid(0) } else { new() };
        let granted = mapped.grant_delegation(&socket);
        if is_for_user_namespaces() {
            return Ok(granted?);
        }
        let error = granted.expect_err("no bpffs for a user namespace");
        assert_mount_says(&error, GRANT, Some(libc::EPERM), None, "EPERM");
        Ok(())
    })
}

fn is_for_user_namespaces() -> bool {
    kernel(6, 9).unmet().is_none()
}

pub fn with_one_user() {
    let socket = child::socket();
    let error = new().uid(5).request_delegation(&socket).unwrap_err();
    let (errno, cause, because) = refused();
    assert_mount_says(&error, REQUEST_OF, errno, Some(cause), &because);

    let error = new().request_delegation(&socket).unwrap_err();
    let (errno, name) = match knows_owners() {
        true => (libc::EINVAL, "EINVAL"),
        false => (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    };
    let because = format!("the other side refused: {name}");
    let cause = Some(Cause::PeerRefused { errno });
    assert_mount_says(&error, REQUEST_OF, None, cause, &because);

    let bpffs = new().request_delegation(&socket);
    if is_for_user_namespaces() {
        assert_eq!(fs::metadata(bpffs.unwrap().path()).unwrap().uid(), 0);
        return;
    }
    let cause = Some(Cause::PeerRefused { errno: libc::EPERM });
    let because = "the other side refused: EPERM";
    assert_mount_says(&bpffs.unwrap_err(), REQUEST_OF, None, cause, because);
}
