//! The messages of the handshake: invalid, late, missing and combined ones.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use bpf_pin::MapType;
use bpf_pin::bpffs::{Detached, MountOptions};
use bpf_pin::error::Cause;
use common::*;
use rustix::io::Errno;
use rustix::net::SocketType;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::token::child;
use crate::token::handshake::{
    GRANT, REQUEST, REQUEST_OF, assert_rejected, context, pair, pair_of, send,
};
use crate::token::*;

const PIDFDS: &[Need] = &[cap::SYS_ADMIN, kernel(6, 5)];

#[common::test(ROOT)]
fn messages_that_are_not_requests_are_rejected() -> Outcome {
    let context = context("bpf");
    let one = [context.as_fd()];
    let handshake = |problem: &'static str| Cause::Handshake {
        problem: problem.into(),
    };
    let refused = libc::EOPNOTSUPP;

    let cause = handshake("sent something else than a request");
    for message in [
        &b"x"[..],
        b"bpffs 1",
        b"bpffs 1?",
        b"bpffs 1?1234567",
        b"bpffs 1?123456789",
        b"bpffs 2?12345678",
        b"bpffs 1!12345678",
        &[0; 17],
    ] {
        assert_rejected(message, &one, cause.clone(), refused);
        assert_rejected(message, &[], cause.clone(), refused);
    }
    let cause = handshake("sent no descriptor");
    assert_rejected(REQUEST, &[], cause, refused);
    let cause = handshake("sent more than one descriptor");
    for count in [2, 3, 4, 5, 16] {
        let many = vec![context.as_fd(); count];
        assert_rejected(REQUEST, &many, cause.clone(), refused);
    }
    // No descriptor was kept.
    let (pipe, writer) = rustix::pipe::pipe()?;
    for count in [1, 2, 5] {
        let (here, there) = pair();
        send(&there, REQUEST, &vec![writer.as_fd(); count]);
        delegating_options()
            .grant_delegation(&here)
            .expect_err("pipes");
    }
    drop(writer);
    assert_eq!(rustix::io::read(&pipe, &mut [0])?, 0, "a writer is left");
    Ok(())
}

#[common::test(ROOT)]
fn a_closed_or_silent_peer_is_reported() -> Outcome {
    let (here, there) = pair();
    drop(there);
    let error = delegating_options()
        .grant_delegation(&here)
        .expect_err("no peer");
    assert_fails(&error, GRANT, None, Some(Cause::PeerClosed));
    let error = MountOptions::new()
        .request_delegation(&here)
        .expect_err("no peer");
    // And no signal.
    let gone = Some(Cause::PeerClosed);
    assert_fails(&error, REQUEST_OF, Some(libc::EPIPE), gone);

    // A peer that sends nothing.
    let (here, _there) = pair();
    let socket = UnixStream::from(here);
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let error = delegating_options()
        .grant_delegation(&socket)
        .expect_err("no answer");
    let (again, silent) = (
        Some(libc::EAGAIN),
        Some(Cause::Handshake {
            problem: "did not answer in time".into(),
        }),
    );
    assert_fails(&error, GRANT, again, silent.clone());
    let error = MountOptions::new()
        .request_delegation(&socket)
        .expect_err("no answer");
    assert_fails(&error, REQUEST_OF, again, silent);

    // A descriptor that is not a socket.
    let file = File::open("/proc/self/status")?;
    let error = delegating_options()
        .grant_delegation(&file)
        .expect_err("a file");
    assert_fails(&error, GRANT, Some(libc::ENOTSOCK), None);
    Ok(())
}

/// Receives a request from `socket`, closes its descriptor, and returns its number.
fn number_of_request(socket: &OwnedFd) -> [u8; 8] {
    let mut message = [0; 16];
    let mut socket = UnixStream::from(socket.try_clone().expect("a socket"));
    socket.read_exact(&mut message).expect("a request");
    let (request, number) = message.split_at(8);
    assert_eq!(request, b"bpffs 1?");
    number.try_into().expect("a number")
}

fn answer_to(number: [u8; 8], errno: i32) -> Vec<u8> {
    [&b"bpffs 1!"[..], &number, &errno.to_ne_bytes()].concat()
}

/// Requests a delegation from a peer that sends this.
fn request_answered_with(
    answer: impl Fn([u8; 8]) -> Vec<u8> + Sync,
    hang_up: bool,
) -> bpf_pin::Result<Detached> {
    let (here, there) = pair();
    thread::scope(|scope| {
        scope.spawn(|| {
            let answer = answer(number_of_request(&there));
            let mut there = UnixStream::from(there.try_clone().expect("a socket"));
            there.write_all(&answer).expect("it is sent");
            if hang_up {
                there.shutdown(Shutdown::Write).expect("no more");
            }
        });
        MountOptions::new().request_delegation(&here)
    })
}

#[common::test(ROOT)]
fn messages_that_are_not_answers_are_rejected() -> Outcome {
    let begin_and = |begin: &'static [u8], end: &'static [u8]| {
        move |number: [u8; 8]| [begin, &number, end].concat()
    };
    let no_answer = |answer: &(dyn Fn([u8; 8]) -> Vec<u8> + Sync), hang_up, problem| {
        let error = request_answered_with(answer, hang_up).expect_err(problem);
        let cause = match problem {
            "closed the connection" => Cause::PeerClosed,
            problem => Cause::Handshake {
                problem: problem.into(),
            },
        };
        assert_fails(&error, REQUEST_OF, None, Some(cause));
    };
    let other = "sent something else than an answer";
    no_answer(&|_| vec![], true, "closed the connection");
    no_answer(&|_| b"bpffs 1!".to_vec(), true, other);
    no_answer(&begin_and(b"bpffs 1!", b""), true, other);
    no_answer(&begin_and(b"bpffs 1!", b"\0\0\0"), true, other);
    // Rejected as soon as it cannot be an answer.
    for hang_up in [false, true] {
        no_answer(&|_| b"x".to_vec(), hang_up, other);
        no_answer(&begin_and(b"bpffs 2!", b"\0\0\0\0"), hang_up, other);
        no_answer(&begin_and(b"bpffs 1?", b"\0\0\0\0"), hang_up, other);
    }
    // A valid answer that is false: nothing was created.
    let error =
        request_answered_with(|number| answer_to(number, 0), false).expect_err("not created");
    assert_eq!(
        error.raw_os_error(),
        Some(Errno::INVAL.raw_os_error()),
        "{error}"
    );
    // An errno, known or unknown.
    for errno in [libc::EACCES, 4000, -1] {
        let error =
            request_answered_with(|number| answer_to(number, errno), false).expect_err("refused");
        assert_fails(&error, REQUEST_OF, None, Some(Cause::PeerRefused { errno }));
    }
    Ok(())
}

/// Bytes after the answer belong to the caller, in whatever parts they arrive.
#[common::test(ROOT)]
fn bytes_after_an_answer_stay_in_the_socket() -> Outcome {
    let (here, there) = pair();
    thread::scope(|scope| -> Outcome {
        scope.spawn(|| {
            let message = [
                answer_to(number_of_request(&there), libc::EACCES),
                b"hello".to_vec(),
            ];
            let mut there = UnixStream::from(there.try_clone().expect("a socket"));
            let message = message.concat();
            for part in [
                &message[..3],
                &message[3..11],
                &message[11..19],
                &message[19..],
            ] {
                there.write_all(part).expect("it is sent");
                thread::sleep(Duration::from_millis(5));
            }
            there.shutdown(Shutdown::Write).expect("no more");
        });
        let error = MountOptions::new().request_delegation(&here);
        let cause = Cause::PeerRefused {
            errno: libc::EACCES,
        };
        assert_eq!(error.unwrap_err().cause(), Some(&cause));
        let mut text = vec![];
        UnixStream::from(here.try_clone()?).read_to_end(&mut text)?;
        assert_eq!(text, b"hello");
        Ok(())
    })?;
    // On a socket with message boundaries, a message that is too long is rejected.
    for socket_type in [SocketType::DGRAM, SocketType::SEQPACKET] {
        let (here, there) = pair_of(socket_type);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut answer = answer_to(number_of_request(&there), 0);
                answer.push(0);
                send(&there, &answer, &[]);
            });
            let error = MountOptions::new().request_delegation(&here).unwrap_err();
            let problem = "sent something else than an answer";
            assert_eq!(
                error.cause(),
                Some(&Cause::Handshake {
                    problem: problem.into()
                })
            );
        });
    }
    Ok(())
}

/// A late answer to an earlier request does not answer the next one.
#[common::test(ROOT)]
fn a_late_answer_is_skipped() -> Outcome {
    for socket_type in [SocketType::STREAM, SocketType::DGRAM, SocketType::SEQPACKET] {
        let (here, there) = pair_of(socket_type);
        let socket = UnixStream::from(here);
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        for _ in 0..2 {
            let error = MountOptions::new().request_delegation(&socket).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}");
        }
        socket.set_read_timeout(None)?;
        // No request waits for these.
        MountOptions::new().grant_delegation(&there)?;
        let refusal = answer_to(number_of_request(&there), libc::EACCES);
        send(&there, &refusal, &[]);
        thread::scope(|scope| -> Outcome {
            let request = scope.spawn(|| MountOptions::new().request_delegation(&socket));
            MountOptions::new().grant_delegation(&there)?;
            let bpffs = request.join().expect("no panic")?;
            assert!(bpf_pin::bpffs::FileSystem::of(&bpffs)?.is_bpffs());
            Ok(())
        })?;
    }
    Ok(())
}

const SO_PASSPIDFD: libc::c_int = 76;

fn set_option(socket: &OwnedFd, option: libc::c_int) {
    let on: libc::c_int = 1;
    // SAFETY: the option is an int, and the size is that of an int.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// The open descriptors of this process, and what they refer to.
fn descriptors() -> BTreeMap<u32, PathBuf> {
    let listed = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let numbers: Vec<u32> = listed
        .map(|fd| fd.file_name().to_str().unwrap().parse().unwrap())
        .collect();
    // The descriptor of the listing is closed now.
    let link = |fd: u32| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok();
    numbers
        .into_iter()
        .filter_map(|fd| Some((fd, link(fd)?)))
        .collect()
}

/// Limits the descriptors of this process, so that `count` more can be opened.
fn leave_room_for(count: u64) {
    let open = descriptors();
    let is_free = |fd: &u64| !open.contains_key(&(*fd as u32));
    let limit = (0..).filter(is_free).nth(count as usize);
    let limits = Rlimit {
        current: limit,
        ..getrlimit(Resource::Nofile)
    };
    setrlimit(Resource::Nofile, limits).unwrap();
}

/// Sockets with these options receive credentials and pidfds beside the descriptors of a message. All of
/// these descriptors are closed, also if some do not fit. Other descriptors stay open.
#[common::test_alone(ROOT)]
fn the_descriptors_of_a_message_are_closed() {
    let has_pidfds = kernel(6, 5).unmet().is_none();
    let context = context("bpf");
    let all = getrlimit(Resource::Nofile);
    let options = [libc::SO_PASSCRED, SO_PASSPIDFD, libc::SO_PASSCRED];
    for options in [&options[..0], &options[..1], &options[1..2], &options[1..]] {
        if options.contains(&SO_PASSPIDFD) && !has_pidfds {
            continue;
        }
        for socket_type in [SocketType::STREAM, SocketType::DGRAM, SocketType::SEQPACKET] {
            let (here, there) = pair_of(socket_type);
            options.iter().for_each(|option| set_option(&here, *option));
            let before = descriptors();
            for (message, count, room, problem) in [
                (REQUEST, 0, 64, "sent no descriptor"),
                (REQUEST, 2, 64, "sent more than one descriptor"),
                (REQUEST, 60, 64, "sent more than one descriptor"),
                (REQUEST, 5, 2, "sent more than one descriptor"),
                (REQUEST, 5, 1, "sent more than one descriptor"),
                (REQUEST, 5, 0, "sent a descriptor that could not be taken"),
                (REQUEST, 1, 0, "sent a descriptor that could not be taken"),
                (b"bpffs 1.", 3, 64, "has given up"),
                (b"x", 1, 64, "sent something else than a request"),
                (b"x", 3, 2, "sent something else than a request"),
            ] {
                send(&there, message, &vec![context.as_fd(); count]);
                leave_room_for(room);
                let error = delegating_options().grant_delegation(&here).unwrap_err();
                setrlimit(Resource::Nofile, all).unwrap();
                let cause = Cause::Handshake {
                    problem: problem.into(),
                };
                let what = format!("{options:?} {socket_type:?}: {count} with room for {room}");
                assert_eq!(error.cause(), Some(&cause), "{what}");
                assert_eq!(descriptors(), before, "{what}");
                // The answer.
                if problem != "has given up" {
                    rustix::io::read(&there, &mut [0; 64]).unwrap();
                }
            }
        }
    }
}

/// Pidfds that a socket with SO_PASSPIDFD receives are closed, and the request succeeds.
#[common::test(PIDFDS)]
fn pidfds_of_a_message_are_closed() -> Outcome {
    let (here, there) = pair();
    for socket in [&here, &there] {
        set_option(socket, SO_PASSPIDFD);
        set_option(socket, libc::SO_PASSCRED);
    }
    for _ in 0..5 {
        thread::scope(|scope| -> Outcome {
            let request = scope.spawn(|| MountOptions::new().request_delegation(&there));
            MountOptions::new().grant_delegation(&here)?;
            let bpffs = request.join().expect("no panic")?;
            assert!(bpf_pin::bpffs::FileSystem::of(&bpffs)?.is_bpffs());
            Ok(())
        })?;
        // The same with a message that is not a request.
        send(&there, b"x", &[]);
        delegating_options()
            .grant_delegation(&here)
            .expect_err("no request");
        rustix::io::read(&there, &mut [0; 64])?;
    }
    // Only this test creates pidfds.
    let descriptors = std::fs::read_dir("/proc/self/fd")?;
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let left: Vec<_> = links
        .filter(|link| link.to_string_lossy().contains("pidfd"))
        .collect();
    assert_eq!(left, [""; 0].map(PathBuf::from));
    Ok(())
}

#[common::test]
fn a_request_with_delegations_is_rejected() -> Outcome {
    let (here, there) = pair();
    let error = MountOptions::new()
        .delegate_maps([MapType::HASH])
        .request_delegation(&here)
        .expect_err("a grant");
    let cause = Cause::InvalidArgument {
        what: "delegate_maps",
        problem: "can only be set by the other side".into(),
    };
    assert_fails(&error, REQUEST_OF, None, Some(cause));
    let error = MountOptions::new().mode(0o10000).request_delegation(&here);
    assert_cause_matches!(error.unwrap_err(), Cause::InvalidArgument { .. });
    // Nothing was requested.
    drop(here);
    let mut text = vec![];
    UnixStream::from(there).read_to_end(&mut text)?;
    assert_eq!(text, b"bpffs 1.bpffs 1.");
    Ok(())
}

/// The grantor does not wait, and sends no answer to a requester that does not wait for one.
#[common::test(ROOT)]
fn a_requester_that_gives_up_sends_a_message() -> Outcome {
    let (here, there) = pair();
    MountOptions::new()
        .mode(0o10000)
        .request_delegation(&there)
        .expect_err("no mode");
    let error = delegating_options()
        .grant_delegation(&here)
        .expect_err("no request");
    let problem = "has given up";
    let cause = Some(Cause::Handshake {
        problem: problem.into(),
    });
    assert_fails(&error, GRANT, None, cause);
    // The bytes after it are not part of the message.
    send(&there, b"bpffs 1.", &[]);
    send(&there, REQUEST, &[context("bpf").as_fd()]);
    let error = delegating_options()
        .grant_delegation(&here)
        .expect_err("no request");
    assert_eq!(
        error.cause(),
        Some(&Cause::Handshake {
            problem: problem.into()
        })
    );
    MountOptions::new().grant_delegation(&here)?;
    drop(here);
    let mut text = vec![];
    UnixStream::from(there).read_to_end(&mut text)?;
    assert_eq!(text, b"bpffs 1!12345678\0\0\0\0");
    Ok(())
}

/// Credentials that a socket with SO_PASSCRED receives with every message are ignored.
#[common::test(ROOT)]
fn credentials_of_a_message_are_ignored() -> Outcome {
    let (here, there) = pair();
    for socket in [&here, &there] {
        rustix::net::sockopt::set_socket_passcred(socket, true)?;
    }
    for _ in 0..2 {
        std::thread::scope(|scope| -> Outcome {
            let other = scope.spawn(|| MountOptions::new().request_delegation(&there));
            MountOptions::new().grant_delegation(&here)?;
            let bpffs = other.join().expect("no panic")?;
            assert!(bpf_pin::bpffs::FileSystem::of(&bpffs)?.is_bpffs());
            Ok(())
        })?;
    }
    // They do not count as descriptors.
    send(&there, REQUEST, &[]);
    let error = delegating_options()
        .grant_delegation(&here)
        .expect_err("no descriptor");
    let problem = "sent no descriptor";
    assert_eq!(
        error.cause(),
        Some(&Cause::Handshake {
            problem: problem.into()
        })
    );
    Ok(())
}

/// A socket that blocks on close, until its unread data is read.
fn lingering() -> Result<(TcpStream, TcpStream), std::io::Error> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut socket = TcpStream::connect(listener.local_addr()?)?;
    let (reader, _) = listener.accept()?;
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::from_secs(60)))?;
    socket.set_nonblocking(true)?;
    let mut idle = 0;
    // The other end's buffer takes some of the data.
    while idle < 5 {
        match socket.write(&[0; 1 << 16]) {
            Ok(_) => idle = 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                idle += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error),
        }
    }
    socket.set_nonblocking(false)?;
    Ok((socket, reader))
}

#[common::test(ROOT)]
fn the_answer_is_sent_before_received_descriptors_are_closed() -> Outcome {
    const TRIES: usize = 50;

    // As the context, among other descriptors, and with a message that is not a request.
    for (message, count) in [(REQUEST, 1), (REQUEST, 5), (REQUEST, 253), (b"x", 1)] {
        // A child of another test holds a copy until it executes another program. Then closing does not block.
        let mut tries = 0;
        while !close_blocks_after_the_answer(message, count)? {
            tries += 1;
            assert!(tries < TRIES, "it was never held up");
        }
    }
    Ok(())
}

fn close_blocks_after_the_answer(message: &[u8], count: usize) -> Outcome<bool> {
    let (socket, reader) = lingering()?;
    let (here, there) = pair();
    {
        let mut all = vec![there.as_fd(); count - 1];
        all.push(socket.as_fd());
        send(&there, message, &all);
    }
    drop(socket);
    let mut there = UnixStream::from(there);
    there.set_read_timeout(Some(Duration::from_secs(20)))?;
    std::thread::scope(|scope| {
        let granted = scope.spawn(|| delegating_options().grant_delegation(&here));
        let mut answer = [0; 20];
        let answered = there.read_exact(&mut answer);
        // If closing does not block, the thread ends right after the answer.
        std::thread::sleep(Duration::from_millis(20));
        let is_closing = !granted.is_finished();
        // No reader is left.
        drop(reader);
        granted.join().expect("no panic").expect_err("no context");
        answered.expect("an answer at once");
        assert_eq!(answer[..8], *b"bpffs 1!");
        Ok(is_closing)
    })
}

#[common::test(ROOT)]
fn a_grantor_in_a_user_namespace_is_rejected() -> Outcome {
    child::run("request_without_answer", |socket| {
        drop(socket);
        Ok(())
    })
}

pub fn request_without_answer() {
    let error = MountOptions::new()
        .request_delegation(child::socket())
        .expect_err("no capability");
    assert!(
        matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET))
            || matches!(error.cause(), Some(Cause::Handshake { .. }))
    );
}
