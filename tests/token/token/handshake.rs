//! The grantor trusts nothing that it receives, and neither side hangs or leaks descriptors.

use std::fs::{self, File};
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bpf_pin::abi::Version;
use bpf_pin::bpffs::MountOptions;
use bpf_pin::error::{Cause, Operation};
use bpf_pin::probe::Capability;
use bpf_pin::token::Allowed;
use common::*;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, fspick,
};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use rustix::thread::CapabilitySet;

use crate::token::child;
use crate::token::*;

const USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];

pub const REQUEST: &[u8] = b"bpffs 1?12345678";
pub const GRANT: Operation = Operation::GrantDelegation;
pub const REQUEST_OF: Operation = Operation::RequestDelegation;

fn is_too_old() -> bool {
    kernel(6, 9).unmet().is_some()
}

pub fn pair() -> (OwnedFd, OwnedFd) {
    pair_of(SocketType::STREAM)
}

pub fn pair_of(socket_type: SocketType) -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, socket_type, flags, None).expect("two sockets")
}

pub fn send(socket: &OwnedFd, message: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let parts = [IoSlice::new(message)];
    sendmsg(socket, &parts, &mut control, SendFlags::empty()).expect("a message sent");
}

/// Returns the errno of the answer, and checks that there is only one.
#[track_caller]
fn answer(socket: OwnedFd) -> i32 {
    let mut text = vec![];
    UnixStream::from(socket)
        .read_to_end(&mut text)
        .expect("an answer");
    let text = text.strip_prefix(b"bpffs 1!").expect("an answer");
    let (number, errno) = text.split_at(8);
    // The number of the request, if it was one.
    assert!(number == &REQUEST[8..] || *number == [0; 8], "{number:?}");
    i32::from_ne_bytes(errno.try_into().expect("an errno and no more"))
}

pub fn context(of: &str) -> OwnedFd {
    fsopen(of, FsOpenFlags::FSOPEN_CLOEXEC).expect("a context")
}

/// Checks that a message is rejected with this cause, and answered with this errno.
#[track_caller]
pub fn assert_rejected(message: &[u8], fds: &[BorrowedFd<'_>], cause: Cause, errno: i32) {
    let (here, there) = pair();
    send(&there, message, fds);
    let error = delegating_options()
        .grant_delegation(&here)
        .expect_err("rejected");
    drop(here);
    assert_fails(&error, GRANT, None, Some(cause));
    assert_eq!(answer(there), errno);
}

#[common::test(ROOT)]
fn every_socket_type_works() -> Outcome {
    for socket_type in [SocketType::STREAM, SocketType::DGRAM, SocketType::SEQPACKET] {
        let (here, there) = pair_of(socket_type);
        thread::scope(|scope| -> Outcome {
            let other = scope.spawn(|| MountOptions::new().mode(0o711).request_delegation(&there));
            MountOptions::new().grant_delegation(&here)?;
            let bpffs = other.join().expect("no panic")?;
            assert!(bpf_pin::bpffs::FileSystem::of(&bpffs)?.is_bpffs());
            hash().pin(bpffs.path().join("map"))?;
            Ok(())
        })?;
        // A second request over the same socket.
        thread::scope(|scope| -> Outcome {
            let other = scope.spawn(|| MountOptions::new().request_delegation(&there));
            MountOptions::new().mode(0o700).grant_delegation(&here)?;
            use std::os::unix::fs::MetadataExt;
            let bpffs = other.join().expect("no panic")?;
            assert_eq!(fs::metadata(bpffs.path())?.mode() & 0o7777, 0o1700);
            Ok(())
        })?;
    }
    Ok(())
}

#[common::test(ROOT)]
fn a_kernel_without_delegation_is_reported() -> Outcome {
    child::run("too_old_for_delegation", |socket| {
        let granted = delegating_options().grant_delegation(&socket);
        if !is_too_old() {
            return Ok(granted?);
        }
        let error = granted.expect_err("it is too old");
        let cause = Cause::OptionIgnored {
            option: "delegate_cmds",
            since: Some(Version::new(6, 9)),
        };
        assert_fails(&error, GRANT, None, Some(cause));
        Ok(())
    })
}

pub fn too_old_for_delegation() {
    let granted = MountOptions::new().request_delegation(child::socket());
    if !is_too_old() {
        granted.unwrap().attach(child::mount_point()).unwrap();
        return;
    }
    let error = granted.expect_err("it is too old");
    let errno = libc::EOPNOTSUPP;
    assert_fails(&error, REQUEST_OF, None, Some(Cause::PeerRefused { errno }));
}

#[common::test(ROOT)]
fn descriptors_that_are_not_contexts_are_rejected() -> Outcome {
    let (pipe, _writer) = rustix::pipe::pipe()?;
    let file = File::open("/proc/self/status")?;
    let dir = tempfile::tempdir()?;
    let forged = dir.path().join("anon_inode:[fscontext]");
    fs::write(&forged, "e bpf: Bad value for 'mode'\n")?;
    let forged_file = File::open(&forged)?;
    let detached = MountOptions::new().detached()?;
    let (socket, _) = pair();
    let map = hash();
    for (fd, found) in [
        (pipe.as_fd(), None),
        (file.as_fd(), None),
        (forged_file.as_fd(), Some(forged.display().to_string())),
        (detached.as_fd(), Some("/".to_owned())),
        (socket.as_fd(), None),
        (map.as_fd(), Some("anon_inode:bpf-map".to_owned())),
    ] {
        let number = std::os::fd::AsRawFd::as_raw_fd(&fd);
        let name = fs::read_link(format!("/proc/self/fd/{number}"))?;
        let name = name.display().to_string();
        assert!(found.is_none_or(|found| found == name), "{name}");
        // The status path contains the number of this process.
        let name = name.replace("/self/", &format!("/{}/", std::process::id()));
        let sentence = format!("the other side sent {name}, not the context of a bpffs");
        let problem = sentence
            .trim_start_matches("the other side ")
            .to_owned()
            .into();
        let cause = Cause::Handshake { problem };
        assert_rejected(REQUEST, &[fd], cause, libc::EOPNOTSUPP);
    }
    Ok(())
}

/// File systems that a privileged process must never create for another.
#[common::test(ROOT)]
fn contexts_of_other_file_systems_are_rejected() -> Outcome {
    for name in ["tmpfs", "proc", "ramfs", "sysfs", "cgroup2", "devpts"] {
        let context = context(name);
        assert_context_is_rejected(&context, name);
        // It was not created, because that works only once. Some report a bad option only then.
        let created = fsconfig_create(&context);
        assert!(created.is_ok() || name == "devpts", "{name}: {created:?}");
        // Whatever its log contains.
        let full = self::context(name);
        for _ in 0..20 {
            let _ = fsconfig_set_string(&full, "e bpf: x", "e bpf: Bad value for 'mode'");
            let _ = fsconfig_set_string(&full, "bpf: ", "e bpf: ");
        }
        assert_context_is_rejected(&full, name);
    }
    Ok(())
}

#[track_caller]
fn assert_context_is_rejected(context: &OwnedFd, name: &str) {
    let (here, there) = pair();
    send(&there, REQUEST, &[context.as_fd()]);
    let error = delegating_options()
        .grant_delegation(&here)
        .expect_err("no bpffs");
    drop(here);
    // Older kernels log nothing for some.
    let logs_nothing = name == "devpts" && kernel(6, 15).unmet().is_some();
    let found = match error.cause() {
        Some(Cause::Handshake { problem }) if logs_nothing && problem.contains("else") => None,
        _ => Some(name.to_owned()),
    };
    let sentence = match &found {
        Some(name) => format!("the other side sent {name}, not the context of a bpffs"),
        None => "the other side sent something else than the context of a bpffs".to_owned(),
    };
    assert_fails(
        &error,
        GRANT,
        None,
        Some(Cause::Handshake {
            problem: sentence
                .trim_start_matches("the other side ")
                .to_owned()
                .into(),
        }),
    );
    assert_eq!(answer(there), libc::EOPNOTSUPP);
}

#[common::test(ROOT)]
fn a_used_context_is_rejected() -> Outcome {
    let used = context("bpf");
    fsconfig_create(&used)?;
    let mounted = context("bpf");
    fsconfig_create(&mounted)?;
    let mount = fsmount(
        &mounted,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    let flags = FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC;
    let picked = fspick(&mount, c"", flags)?;
    for context in [used, mounted, picked] {
        let (here, there) = pair();
        send(&there, REQUEST, &[context.as_fd()]);
        let error = MountOptions::new()
            .grant_delegation(&here)
            .expect_err("it was used");
        drop(here);
        let cause = Some(Cause::Handshake {
            problem: "sent a context that was used before".into(),
        });
        assert_fails(&error, GRANT, Some(libc::EBUSY), cause);
        assert_eq!(answer(there), libc::EBUSY);
    }
    // Its earlier delegation is unchanged.
    let stat = rustix::fs::fstat(&mount)?;
    assert_eq!(stat.st_mode & 0o7777, 0o1777);
    Ok(())
}

/// The requester holds the same context, and reads its log at the same time.
#[common::test(ROOT)]
fn the_log_may_be_read_by_the_requester_at_the_same_time() -> Outcome {
    let mut granted = 0;
    for name in ["bpf", "tmpfs"] {
        for _ in 0..50 {
            let context = context(name);
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut line = [0; 256];
                    while !done.load(Ordering::Relaxed) {
                        let _ = rustix::io::read(&context, &mut line);
                    }
                });
                let (here, there) = pair();
                send(&there, REQUEST, &[context.as_fd()]);
                let result = MountOptions::new().grant_delegation(&here);
                done.store(true, Ordering::Relaxed);
                match result {
                    Ok(()) => {
                        assert_eq!(name, "bpf");
                        granted += 1;
                    }
                    Err(error) => {
                        let cause = error.cause();
                        assert!(matches!(cause, Some(Cause::Handshake { .. })), "{error}");
                    }
                }
            });
        }
    }
    println!("granted {granted} of 50 while the requester read the log");
    Ok(())
}

/// Opened by a privileged process, granted by an unprivileged one.
#[common::test(USER)]
fn granting_requires_cap_sys_admin() -> Outcome {
    let context = context("bpf");
    let (here, there) = pair();
    send(&there, REQUEST, &[context.as_fd()]);
    let error = as_user(CapabilitySet::empty(), || {
        MountOptions::new()
            .grant_delegation(&here)
            .expect_err("CAP_SYS_ADMIN is missing")
    });
    drop(here);
    let cause = Cause::MissingCapability {
        capability: Capability::SysAdmin,
        needed_for: "mounting",
    };
    assert_fails(&error, GRANT, Some(libc::EPERM), Some(cause));
    assert_eq!(answer(there), libc::EPERM);
    Ok(())
}

/// Root of a user namespace cannot grant.
#[common::test(ROOT)]
fn root_of_a_user_namespace_cannot_grant() -> Outcome {
    child::run("granting", |_| Ok(()))
}

pub fn grant_in_user_namespace() {
    let (here, there) = pair();
    let (granted, error) = thread::scope(|scope| {
        let other = scope.spawn(|| MountOptions::new().request_delegation(&there));
        let granted = MountOptions::new().grant_delegation(&here);
        (
            granted,
            other.join().unwrap().expect_err("nothing was granted"),
        )
    });
    let (eperm, cause) = (libc::EPERM, Some(Cause::NeedsDelegation));
    let granted = granted.expect_err("nothing was granted");
    assert_fails(&granted, GRANT, Some(eperm), cause.clone());
    let refused = Some(Cause::PeerRefused { errno: eperm });
    assert_fails(&error, REQUEST_OF, None, refused);
    if is_too_old() {
        return;
    }
    // It cannot delegate either.
    let (here, there) = pair();
    send(&there, REQUEST, &[context("bpf").as_fd()]);
    let options = MountOptions::new().delegate_maps(Allowed::any());
    let error = options
        .grant_delegation(&here)
        .expect_err("nothing was granted");
    assert_fails(&error, GRANT, Some(eperm), cause);
}
