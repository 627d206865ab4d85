//! The privileged side trusts the other in nothing, and neither hangs nor leaks.

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

/// The errno in the answer, and that there is just one.
#[track_caller]
fn answer(socket: OwnedFd) -> i32 {
    let mut text = vec![];
    UnixStream::from(socket)
        .read_to_end(&mut text)
        .expect("an answer");
    let text = text.strip_prefix(b"bpffs 1!").expect("an answer");
    let (number, errno) = text.split_at(8);
    // Of the request, where it was one.
    assert!(number == &REQUEST[8..] || *number == [0; 8], "{number:?}");
    i32::from_ne_bytes(errno.try_into().expect("an errno and no more"))
}

pub fn context(of: &str) -> OwnedFd {
    fsopen(of, FsOpenFlags::FSOPEN_CLOEXEC).expect("a context")
}

/// What is sent is refused, with this cause, and the sender told this errno.
#[track_caller]
pub fn refuses(message: &[u8], fds: &[BorrowedFd<'_>], cause: Cause, because: &str, errno: i32) {
    let (here, there) = pair();
    send(&there, message, fds);
    let error = some().grant_delegation(&here).expect_err(because);
    drop(here);
    assert_mount_says(&error, GRANT, None, Some(cause), because);
    assert_eq!(answer(there), errno);
}

#[common::test(ROOT)]
fn any_type_of_socket() -> Outcome {
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
        // And again over the same.
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
fn a_kernel_without_delegation() -> Outcome {
    child::run("refused_in_time", |socket| {
        let granted = some().grant_delegation(&socket);
        if !is_too_old() {
            return Ok(granted?);
        }
        let error = granted.expect_err("it is too old");
        let cause = Cause::OptionIgnored {
            option: "delegate_cmds",
            since: Some(Version::new(6, 9)),
        };
        let because = "the kernel ignored the option delegate_cmds (Linux 6.9)";
        assert_mount_says(&error, GRANT, None, Some(cause), because);
        Ok(())
    })
}

pub fn too_old_for_delegation() {
    let granted = MountOptions::new().request_delegation(child::socket());
    if !is_too_old() {
        granted.unwrap().attach(child::place()).unwrap();
        return;
    }
    let error = granted.expect_err("it is too old");
    let errno = libc::EOPNOTSUPP;
    let because = "the other side refused: EOPNOTSUPP";
    assert_mount_says(
        &error,
        REQUEST_OF,
        None,
        Some(Cause::PeerRefused { errno }),
        because,
    );
}

#[common::test(ROOT)]
fn descriptors_that_are_no_context() -> Outcome {
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
        // The process's own number in the path of its status.
        let name = name.replace("/self/", &format!("/{}/", std::process::id()));
        let because = format!("the other side sent {name}, not the context of a bpffs");
        let problem = because
            .trim_start_matches("the other side ")
            .to_owned()
            .into();
        let cause = Cause::Handshake { problem };
        refuses(REQUEST, &[fd], cause, &because, libc::EOPNOTSUPP);
    }
    Ok(())
}

/// What a privileged process must never create for another.
#[common::test(ROOT)]
fn contexts_of_other_file_systems() -> Outcome {
    for name in ["tmpfs", "proc", "ramfs", "sysfs", "cgroup2", "devpts"] {
        let context = context(name);
        refuses_context(&context, name);
        // Nor was it created: that can be done once. Some keep a bad option until then.
        let created = fsconfig_create(&context);
        assert!(created.is_ok() || name == "devpts", "{name}: {created:?}");
        // Whatever its log holds.
        let full = self::context(name);
        for _ in 0..20 {
            let _ = fsconfig_set_string(&full, "e bpf: x", "e bpf: Bad value for 'mode'");
            let _ = fsconfig_set_string(&full, "bpf: ", "e bpf: ");
        }
        refuses_context(&full, name);
    }
    Ok(())
}

#[track_caller]
fn refuses_context(context: &OwnedFd, name: &str) {
    let (here, there) = pair();
    send(&there, REQUEST, &[context.as_fd()]);
    let error = some().grant_delegation(&here).expect_err("no bpffs");
    drop(here);
    // Older kernels say nothing for some.
    let says_nothing = name == "devpts" && kernel(6, 15).unmet().is_some();
    let found = match error.cause() {
        Some(Cause::Handshake { problem }) if says_nothing && problem.contains("else") => None,
        _ => Some(name.to_owned()),
    };
    let because = match &found {
        Some(name) => format!("the other side sent {name}, not the context of a bpffs"),
        None => "the other side sent something else than the context of a bpffs".to_owned(),
    };
    assert_mount_says(
        &error,
        GRANT,
        None,
        Some(Cause::Handshake {
            problem: because
                .trim_start_matches("the other side ")
                .to_owned()
                .into(),
        }),
        &because,
    );
    assert_eq!(answer(there), libc::EOPNOTSUPP);
}

#[common::test(ROOT)]
fn a_context_that_was_used_before() -> Outcome {
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
        let because = "the other side sent a context that was used before";
        let cause = Some(Cause::Handshake {
            problem: "sent a context that was used before".into(),
        });
        assert_mount_says(&error, GRANT, Some(libc::EBUSY), cause, because);
        assert_eq!(answer(there), libc::EBUSY);
    }
    // What it delegated before is as it was.
    let stat = rustix::fs::fstat(&mount)?;
    assert_eq!(stat.st_mode & 0o7777, 0o1777);
    Ok(())
}

/// The other side holds the same context, and reads what the kernel says of it.
#[common::test(ROOT)]
fn a_log_that_is_read_meanwhile() -> Outcome {
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
    println!("granted {granted} of 50 whose log was read by the other side meanwhile");
    Ok(())
}

/// Opened by one who may, granted by one who may not.
#[common::test(USER)]
fn granting_without_the_capability() -> Outcome {
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
    let because = "this thread lacks CAP_SYS_ADMIN, needed for mounting";
    assert_mount_says(&error, GRANT, Some(libc::EPERM), Some(cause), because);
    assert_eq!(answer(there), libc::EPERM);
    Ok(())
}

/// One who is root there only cannot grant.
#[common::test(ROOT)]
fn granting_within_a_user_namespace() -> Outcome {
    child::run("granting", |_| Ok(()))
}

pub fn that_grants() {
    let (here, there) = pair();
    let (granted, error) = thread::scope(|scope| {
        let other = scope.spawn(|| MountOptions::new().request_delegation(&there));
        let granted = MountOptions::new().grant_delegation(&here);
        (
            granted,
            other.join().unwrap().expect_err("nothing was granted"),
        )
    });
    let because = "creating a bpffs requires CAP_SYS_ADMIN in the initial user namespace, and this \
                   thread is in another; from Linux 6.9 a process that has it can delegate one";
    let (eperm, cause) = (libc::EPERM, Some(Cause::NeedsDelegation));
    let granted = granted.expect_err("nothing was granted");
    assert_mount_says(&granted, GRANT, Some(eperm), cause.clone(), because);
    let refused = Some(Cause::PeerRefused { errno: eperm });
    assert_mount_says(
        &error,
        REQUEST_OF,
        None,
        refused,
        "the other side refused: EPERM",
    );
    if is_too_old() {
        return;
    }
    // Nor delegate what it was not delegated.
    let (here, there) = pair();
    send(&there, REQUEST, &[context("bpf").as_fd()]);
    let options = MountOptions::new().delegate_maps(Allowed::any());
    let error = options
        .grant_delegation(&here)
        .expect_err("nothing was granted");
    assert_mount_says(&error, GRANT, Some(eperm), cause, because);
}
