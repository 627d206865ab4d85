//! What comes over the socket, and does not.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use bpf_pin::MapType;
use bpf_pin::bpffs::{Detached, MountOptions};
use bpf_pin::error::Cause;
use common::*;
use rustix::io::Errno;
use rustix::net::SocketType;

use crate::token::child;
use crate::token::handshake::{GRANT, REQUEST, REQUEST_OF, context, pair, pair_of, refuses, send};
use crate::token::*;

const PIDFDS: &[Need] = &[cap::SYS_ADMIN, kernel(6, 5)];

#[common::test(ROOT)]
fn messages_that_are_no_request() -> Outcome {
    let context = context("bpf");
    let one = [context.as_fd()];
    let handshake = |problem: &'static str| {
        (
            Cause::Handshake {
                problem: problem.into(),
            },
            format!("the other side {problem}"),
        )
    };
    let refused = libc::EOPNOTSUPP;

    let (cause, because) = handshake("sent something else than a request");
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
        refuses(message, &one, cause.clone(), &because, refused);
        refuses(message, &[], cause.clone(), &because, refused);
    }
    let (cause, because) = handshake("sent no descriptor");
    refuses(REQUEST, &[], cause, &because, refused);
    let (cause, because) = handshake("sent more than one descriptor");
    for count in [2, 3, 4, 5, 16] {
        let many = vec![context.as_fd(); count];
        refuses(REQUEST, &many, cause.clone(), &because, refused);
    }
    // None of them was kept.
    let (pipe, writer) = rustix::pipe::pipe()?;
    for count in [1, 2, 5] {
        let (here, there) = pair();
        send(&there, REQUEST, &vec![writer.as_fd(); count]);
        some().grant_delegation(&here).expect_err("pipes");
    }
    drop(writer);
    assert_eq!(rustix::io::read(&pipe, &mut [0])?, 0, "a writer is left");
    Ok(())
}

#[common::test(ROOT)]
fn nobody_at_the_other_end() -> Outcome {
    let (here, there) = pair();
    drop(there);
    let error = some().grant_delegation(&here).expect_err("nobody is there");
    let because = "the other side closed the connection";
    assert_mount_says(&error, GRANT, None, Some(Cause::PeerClosed), because);
    let error = MountOptions::new()
        .request_delegation(&here)
        .expect_err("nobody is there");
    // And no signal.
    let gone = Some(Cause::PeerClosed);
    assert_mount_says(&error, REQUEST_OF, Some(libc::EPIPE), gone, because);

    // Somebody who says nothing.
    let (here, _there) = pair();
    let socket = UnixStream::from(here);
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let error = some()
        .grant_delegation(&socket)
        .expect_err("nothing is said");
    let (again, silent) = (
        Some(libc::EAGAIN),
        Some(Cause::Handshake {
            problem: "did not answer in time".into(),
        }),
    );
    let because = "the other side did not answer in time";
    assert_mount_says(&error, GRANT, again, silent.clone(), because);
    let error = MountOptions::new()
        .request_delegation(&socket)
        .expect_err("nothing is said");
    assert_mount_says(&error, REQUEST_OF, again, silent, because);

    // What is no socket.
    let file = File::open("/proc/self/status")?;
    let error = some().grant_delegation(&file).expect_err("a file");
    assert_mount_says(&error, GRANT, Some(libc::ENOTSOCK), None, "ENOTSOCK");
    Ok(())
}

/// The number of the request that `socket` gets, and the descriptor that comes with it is closed.
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

/// What a request comes to where this is sent.
fn requested(
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
fn answers_that_are_none() -> Outcome {
    let begin_and = |begin: &'static [u8], end: &'static [u8]| {
        move |number: [u8; 8]| [begin, &number, end].concat()
    };
    let no_answer = |answer: &(dyn Fn([u8; 8]) -> Vec<u8> + Sync), hang_up, problem| {
        let error = requested(answer, hang_up).expect_err(problem);
        let because = format!("the other side {problem}");
        let cause = match problem {
            "closed the connection" => Cause::PeerClosed,
            problem => Cause::Handshake {
                problem: problem.into(),
            },
        };
        assert_mount_says(&error, REQUEST_OF, None, Some(cause), &because);
    };
    let other = "sent something else than an answer";
    no_answer(&|_| vec![], true, "closed the connection");
    no_answer(&|_| b"bpffs 1!".to_vec(), true, other);
    no_answer(&begin_and(b"bpffs 1!", b""), true, other);
    no_answer(&begin_and(b"bpffs 1!", b"\0\0\0"), true, other);
    // As soon as it can be none any more.
    for hang_up in [false, true] {
        no_answer(&|_| b"x".to_vec(), hang_up, other);
        no_answer(&begin_and(b"bpffs 2!", b"\0\0\0\0"), hang_up, other);
        no_answer(&begin_and(b"bpffs 1?", b"\0\0\0\0"), hang_up, other);
    }
    // Well-formed, and a lie: nothing was created.
    let error = requested(|number| answer_to(number, 0), false).expect_err("not created");
    assert_eq!(
        error.raw_os_error(),
        Some(Errno::INVAL.raw_os_error()),
        "{error}"
    );
    // An errno, known or not.
    for (errno, because) in [
        (libc::EACCES, "the other side refused: EACCES"),
        (4000, "the other side refused: errno 4000"),
        (-1, "the other side refused: errno -1"),
    ] {
        let error = requested(|number| answer_to(number, errno), false).expect_err("refused");
        assert_mount_says(
            &error,
            REQUEST_OF,
            None,
            Some(Cause::PeerRefused { errno }),
            because,
        );
    }
    Ok(())
}

/// What one side writes behind the answer is the other's to read, in whatever parts it comes.
#[common::test(ROOT)]
fn what_follows_an_answer() -> Outcome {
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
    // Where messages have ends, one that is too long is none.
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

/// The answer to a request that was not waited for is not the next one's.
#[common::test(ROOT)]
fn an_answer_that_comes_late() -> Outcome {
    for socket_type in [SocketType::STREAM, SocketType::DGRAM, SocketType::SEQPACKET] {
        let (here, there) = pair_of(socket_type);
        let socket = UnixStream::from(here);
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        for _ in 0..2 {
            let error = MountOptions::new().request_delegation(&socket).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}");
        }
        socket.set_read_timeout(None)?;
        // Nobody waits for these.
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

/// What a socket with SO_PASSPIDFD is told is closed.
#[common::test(PIDFDS)]
fn pidfds_beside_a_message() -> Outcome {
    const SO_PASSPIDFD: libc::c_int = 76;

    let (here, there) = pair();
    for socket in [&here, &there] {
        let on: libc::c_int = 1;
        // SAFETY: the option is an int, and of its size.
        let done = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_PASSPIDFD,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
    for _ in 0..5 {
        thread::scope(|scope| -> Outcome {
            let request = scope.spawn(|| MountOptions::new().request_delegation(&there));
            MountOptions::new().grant_delegation(&here)?;
            let bpffs = request.join().expect("no panic")?;
            assert!(bpf_pin::bpffs::FileSystem::of(&bpffs)?.is_bpffs());
            Ok(())
        })?;
        // Of what is no request, too.
        send(&there, b"x", &[]);
        some().grant_delegation(&here).expect_err("no request");
        rustix::io::read(&there, &mut [0; 64])?;
    }
    // No other test has any.
    let descriptors = std::fs::read_dir("/proc/self/fd")?;
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let left: Vec<_> = links
        .filter(|link| link.to_string_lossy().contains("pidfd"))
        .collect();
    assert_eq!(left, [""; 0].map(std::path::PathBuf::from));
    Ok(())
}

#[common::test]
fn a_request_that_delegates() -> Outcome {
    let (here, there) = pair();
    let error = MountOptions::new()
        .delegate_maps([MapType::HASH])
        .request_delegation(&here)
        .expect_err("that is the other side's");
    let cause = Cause::InvalidArgument {
        what: "delegate_maps",
        problem: "can only be set by the other side".into(),
    };
    let because = "delegate_maps can only be set by the other side";
    assert_mount_says(&error, REQUEST_OF, None, Some(cause), because);
    let error = MountOptions::new().mode(0o10000).request_delegation(&here);
    assert!(matches!(
        error.unwrap_err().cause(),
        Some(Cause::InvalidArgument { .. })
    ));
    // Nothing was asked for.
    drop(here);
    let mut text = vec![];
    UnixStream::from(there).read_to_end(&mut text)?;
    assert_eq!(text, b"bpffs 1.bpffs 1.");
    Ok(())
}

/// The other side does not wait, and gives no answer to who waits for none.
#[common::test(ROOT)]
fn who_has_no_request_says_so() -> Outcome {
    let (here, there) = pair();
    MountOptions::new()
        .mode(0o10000)
        .request_delegation(&there)
        .expect_err("no mode");
    let error = some().grant_delegation(&here).expect_err("no request");
    let problem = "has given up";
    let cause = Some(Cause::Handshake {
        problem: problem.into(),
    });
    assert_mount_says(&error, GRANT, None, cause, "the other side has given up");
    // What follows is not taken for a part of it.
    send(&there, b"bpffs 1.", &[]);
    send(&there, REQUEST, &[context("bpf").as_fd()]);
    let error = some().grant_delegation(&here).expect_err("no request");
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

/// What a socket with SO_PASSCRED has been asked to tell, of every message.
#[common::test(ROOT)]
fn credentials_beside_a_message() -> Outcome {
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
    // Nor do they count as descriptors.
    send(&there, REQUEST, &[]);
    let error = some().grant_delegation(&here).expect_err("no descriptor");
    let problem = "sent no descriptor";
    assert_eq!(
        error.cause(),
        Some(&Cause::Handshake {
            problem: problem.into()
        })
    );
    Ok(())
}

/// A socket that, when it is closed, waits for data to be taken that nobody takes.
fn lingering() -> Result<(TcpStream, TcpStream), std::io::Error> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut socket = TcpStream::connect(listener.local_addr()?)?;
    let (reader, _) = listener.accept()?;
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::from_secs(60)))?;
    socket.set_nonblocking(true)?;
    let mut idle = 0;
    // What was taken by the other end's buffer makes room.
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
fn an_answer_before_what_was_sent_is_closed() -> Outcome {
    const TRIES: usize = 50;

    // In the place of a context, beside others, and with what is no request.
    for (message, count) in [(REQUEST, 1), (REQUEST, 5), (REQUEST, 253), (b"x", 1)] {
        // A child of another test has a copy until it executes another program, and it is not closed then.
        let mut tries = 0;
        while !is_held_up_after_the_answer(message, count)? {
            tries += 1;
            assert!(tries < TRIES, "it was never held up");
        }
    }
    Ok(())
}

fn is_held_up_after_the_answer(message: &[u8], count: usize) -> Outcome<bool> {
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
        let granted = scope.spawn(|| some().grant_delegation(&here));
        let mut answer = [0; 20];
        let answered = there.read_exact(&mut answer);
        // What is not held up ends right after it.
        std::thread::sleep(Duration::from_millis(20));
        let is_closing = !granted.is_finished();
        // Nobody is left to take anything.
        drop(reader);
        granted.join().expect("no panic").expect_err("no context");
        answered.expect("an answer at once");
        assert_eq!(answer[..8], *b"bpffs 1!");
        Ok(is_closing)
    })
}

#[common::test(ROOT)]
fn the_other_side_in_a_user_namespace_is_refused() -> Outcome {
    child::run("bad_grants", |socket| {
        drop(socket);
        Ok(())
    })
}

pub fn that_gets_no_answer() {
    let error = MountOptions::new()
        .request_delegation(child::socket())
        .expect_err("nobody");
    let is_expected = matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET))
        || matches!(error.cause(), Some(Cause::Handshake { .. }));
    assert!(is_expected, "{error}");
}
