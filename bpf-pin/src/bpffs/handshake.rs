//! Delegation: a process in a user namespace opens a bpffs, a privileged one creates it.
//!
//! The kernel creates a bpffs in a user namespace only for those who have `CAP_SYS_ADMIN` in the
//! initial one, and it belongs to the namespace of whoever has opened its context. So the context
//! goes over a socket and back comes a word.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::cmsg_space;
use rustix::io::{Errno, read, retry_on_intr};
use rustix::mount::fsconfig_set_string;
use rustix::net::sockopt::socket_type;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketType, recvmsg, sendmsg,
};

use crate::capability::is_filtered;
use crate::cause::Cause;
use crate::dir::token;
use crate::error::{Reason, Result};
use crate::kind;
use crate::mountinfo::BPF;
use crate::operation::MountOperation;
use crate::sys::Control;

use super::instance::error;
use super::mount::{Detached, create, open_context};
use super::options::{MountOptions, without_mount};

/// With the context, and before a number.
const REQUEST: [u8; 8] = *b"bpffs 1?";
/// Before the request's number and the errno, which is 0 if all went well.
const ANSWER: [u8; 8] = *b"bpffs 1!";
/// Of a request, to know its answer from one that comes late, to a request before.
type Number = [u8; 8];
/// In the place of a request, from who could not make one and waits for no answer.
const NO_REQUEST: [u8; 8] = *b"bpffs 1.";
const GIVEN_UP: &str = "has given up";

impl MountOptions {
    /// The side of the user namespace: opens a bpffs, has it created by
    /// [`grant_delegation`](Self::grant_delegation) at the other end of `socket`, and mounts it
    /// nowhere. Linux 6.9.
    ///
    /// `socket` is a connected Unix socket of any type. The thread needs `CAP_SYS_ADMIN` in its user
    /// namespace, and a mount namespace that belongs to it. Mode, owner, source and flags are this
    /// side's to ask for, what is delegated is the other's; owners are ids of this user namespace.
    /// [`Bpffs::delegation`](crate::Bpffs::delegation) tells it once the bpffs is attached.
    ///
    /// It waits for the answer as long as the socket does: see `SO_RCVTIMEO`. The answer to a request
    /// that was not waited for so long is passed over. Both sides must have the same version of this
    /// library. Where it has nothing to
    /// ask for, since the bpffs cannot be opened, it says so, and the other side does not wait.
    ///
    /// # Errors
    ///
    /// [`Error::Mount`](crate::Error::Mount): [`Refused`](Cause::Refused) with the other side's errno;
    /// [`Handshake`](Cause::Handshake) where the answer is none; [`HungUp`](Cause::HungUp) (EPIPE,
    /// ECONNRESET) where the other side is gone; [`NoAnswer`](Cause::NoAnswer) (EAGAIN) where the socket's
    /// time was over;
    /// [`ForeignMountNamespace`](Cause::ForeignMountNamespace),
    /// [`MissingCapability`](Cause::MissingCapability) (EPERM);
    /// [`InvalidOption`](Cause::InvalidOption), also for a delegation among these options, and (EINVAL)
    /// for an owner who is not mapped in this user namespace; [`OptionIgnored`](Cause::OptionIgnored)
    /// for an owner where the kernel is too old for that; the rest as [`detached`](Self::detached); the
    /// errnos of sendmsg(2) and recvmsg(2).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::os::unix::net::UnixStream;
    ///
    /// use bpf_pin::{MountOptions, Token};
    ///
    /// // In a user and mount namespace of its own.
    /// let socket = UnixStream::connect("/run/app/delegate")?;
    /// let bpffs = MountOptions::new().mode(0o700).request_delegation(&socket)?;
    /// let token = Token::create(&bpffs)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn request_delegation(&self, socket: impl AsFd) -> Result<Detached> {
        match self.request(socket.as_fd()) {
            Ok(mount) => Ok(Detached::new(mount, self.clone())),
            Err(reason) => {
                let operation = MountOperation::RequestDelegation;
                Err(error(operation, &PathBuf::new(), reason))
            }
        }
    }

    fn request(&self, socket: BorrowedFd<'_>) -> Result<OwnedFd, Reason> {
        let context = self.open_own().inspect_err(|_| {
            // The first reason is the one to tell.
            let _ = send(socket, &NO_REQUEST, &mut SendAncillaryBuffer::default());
        })?;
        let number = token().to_ne_bytes();
        send_context(socket, number, context.as_fd())?;
        match receive_answer(socket, number)? {
            // The other side's mode and owner take precedence, and a kernel that delegates ignores
            // neither.
            0 => {
                let mount = self.without_owner().take_mount(context.as_fd());
                mount.map_err(without_mount)
            }
            errno => Err(Cause::Refused { errno }.into()),
        }
    }

    fn open_own(&self) -> Result<OwnedFd, Reason> {
        self.check()?;
        if let Some(option) = self.first_delegated() {
            let problem = "is the other side's to grant".to_owned();
            return Err(Cause::InvalidOption { option, problem }.into());
        }
        let context = open_context()?;
        self.prove_owner_options(context.as_fd())?;
        self.configure(context.as_fd())?;
        Ok(context)
    }

    /// The privileged side: takes one request from `socket`, creates the bpffs that was opened with
    /// these options, and answers. Linux 6.9. Who is to serve another request, from the same socket or
    /// the next one, calls it again.
    ///
    /// Mode and owner in these options take precedence over those that the other side asked for;
    /// flags and source are left to it. Who the other side is must be settled before: it gets
    /// whatever these options delegate.
    ///
    /// What it sends is trusted in nothing. It must be the context of a bpffs, and none else: with
    /// another file system's a privileged process could be brought to mount what the other side may
    /// not. It is proven by the descriptor's name in /proc, and by the name of the file system in what
    /// the kernel says of a wrong option. While this runs, the other side can still set options of
    /// the same context, of which the kernel checks by its own privileges what it may delegate.
    ///
    /// It waits for the request, and to be rid of the answer, as long as the socket does: see
    /// `SO_RCVTIMEO` and `SO_SNDTIMEO`. What was sent is closed after the answer, which may take as long
    /// as the other side wants, as with a socket that lingers: who must not be held up calls this on a
    /// thread of its own. (Of more descriptors than this process may have, the kernel closes those that
    /// are too many at once.) This side's owners are ids of its own user namespace, and must be mapped
    /// in the other's.
    ///
    /// # Errors
    ///
    /// [`Error::Mount`](crate::Error::Mount), and the other side was told, where it can be:
    /// [`NotABpfContext`](Cause::NotABpfContext); [`UsedContext`](Cause::UsedContext) (EBUSY) where the
    /// context was used before; [`Handshake`](Cause::Handshake) where the request is none, with no
    /// descriptor or several, and where the other side has given up, to whom then nothing is answered;
    /// [`HungUp`](Cause::HungUp) (EPIPE, ECONNRESET) and [`NoAnswer`](Cause::NoAnswer) (EAGAIN) as there;
    /// [`OptionIgnored`](Cause::OptionIgnored) before Linux 6.9;
    /// [`InvalidOption`](Cause::InvalidOption) (EINVAL) for an owner who is not mapped in the other
    /// side's user namespace; [`MissingCapability`](Cause::MissingCapability) or
    /// [`NeedsDelegation`](Cause::NeedsDelegation) (EPERM) where this thread is not privileged either;
    /// [`NoProc`](Cause::NoProc); the errnos of recvmsg(2) and sendmsg(2).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::os::unix::net::UnixListener;
    ///
    /// use bpf_pin::{Allowed, Command, MapType, MountOptions};
    ///
    /// let listener = UnixListener::bind("/run/app/delegate")?;
    /// let (socket, _) = listener.accept()?;
    /// MountOptions::new()
    ///     .delegate_cmds([Command::MAP_CREATE])
    ///     .delegate_maps([MapType::HASH, MapType::ARRAY])
    ///     .grant_delegation(&socket)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn grant_delegation(&self, socket: impl AsFd) -> Result<()> {
        let socket = socket.as_fd();
        let mut received = Received::default();
        let granted = self.grant(socket, &mut received);
        let number = received.number;
        let answered = match granted.as_ref().err() {
            Some(reason) if has_given_up(reason) => Ok(()),
            Some(reason) => {
                let unsupported = Errno::OPNOTSUPP.raw_os_error();
                send_answer(socket, number, reason.raw_os_error().unwrap_or(unsupported))
            }
            None => send_answer(socket, number, 0),
        };
        // To close it may take long.
        drop(received);
        granted
            .and(answered.map_err(of_socket))
            .map_err(|reason| error(MountOperation::GrantDelegation, &PathBuf::new(), reason))
    }

    /// All that came is left in `received`.
    fn grant(&self, socket: BorrowedFd<'_>, received: &mut Received) -> Result<(), Reason> {
        self.check()?;
        let context = receive_context(socket, received)?;
        prove_bpf_context(context)?;
        self.prove_owner_options(context)
            .and_then(|()| self.configure_own(context))
            .and_then(|()| self.configure_delegation(context))
            .and_then(|()| create(context))
            // The other side may use it at any time.
            .map_err(|reason| reason.explained(used_before))
    }
}

/// What came with a request.
#[derive(Default)]
struct Received {
    /// Zeroes, which no request has, where it was none.
    number: Number,
    fds: Vec<OwnedFd>,
}

fn has_given_up(reason: &Reason) -> bool {
    matches!(reason.cause(), Some(Cause::Handshake { problem: GIVEN_UP }))
}

/// A context takes options until it is created from; what has become a mount takes them to change
/// that, and cannot be created from.
fn used_before(errno: Errno) -> Option<Cause> {
    (errno == Errno::BUSY && !is_filtered()).then_some(Cause::UsedContext)
}

/// Proves that it is the context of a bpffs.
fn prove_bpf_context(context: BorrowedFd<'_>) -> Result<(), Reason> {
    let name = kind::proc_name(context).map_err(Reason::errno_only)?;
    match name.ok_or(Cause::NoProc)? {
        name if name == "anon_inode:[fscontext]" => {}
        other => return Err(Cause::NotABpfContext { found: Some(other) }.into()),
    }
    match file_system_of(context)? {
        Some(name) if name == BPF => Ok(()),
        found => Err(Cause::NotABpfContext { found }.into()),
    }
}

/// The name that the kernel puts before what it says of a wrong option.
fn file_system_of(context: BorrowedFd<'_>) -> Result<Option<String>, Reason> {
    /// The other side may read them before us, or have others written.
    const TRIES: usize = 16;

    let mut line = [0; 256];
    for _ in 0..TRIES {
        // Whatever is said, of this or an earlier option, is said of the same file system.
        if fsconfig_set_string(context, c"mode", c"none") == Err(Errno::BUSY) {
            return Err(Reason::new(Errno::BUSY, used_before(Errno::BUSY)));
        }
        if let Ok(length) = read(context, &mut line) {
            return Ok(name_in(&line[..length]));
        }
    }
    Ok(None)
}

fn name_in(line: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(line).ok()?;
    // A letter for error, warning or notice.
    let (name, _) = text.get(2..)?.split_once(": ")?;
    Some(name.to_owned())
}

fn send_context(
    socket: BorrowedFd<'_>,
    number: Number,
    context: BorrowedFd<'_>,
) -> Result<(), Reason> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let contexts = [context];
    // There is room for one.
    control.push(SendAncillaryMessage::ScmRights(&contexts));
    let message = [REQUEST, number].concat();
    send(socket, &message, &mut control).map_err(of_socket)
}

fn send_answer(socket: BorrowedFd<'_>, number: Number, errno: i32) -> Result<(), Errno> {
    let message = [&ANSWER[..], &number, &errno.to_ne_bytes()].concat();
    send(socket, &message, &mut SendAncillaryBuffer::default())
}

fn send(
    socket: BorrowedFd<'_>,
    message: &[u8],
    control: &mut SendAncillaryBuffer<'_, '_, '_>,
) -> Result<(), Errno> {
    let parts = [IoSlice::new(message)];
    retry_on_intr(|| sendmsg(socket, &parts, control, SendFlags::NOSIGNAL)).map(drop)
}

fn receive_context<'r>(
    socket: BorrowedFd<'_>,
    received: &'r mut Received,
) -> Result<BorrowedFd<'r>, Reason> {
    /// All that a message can have: what there is no room for, the kernel closes on the spot.
    const MOST: usize = 253;

    // What else the socket was asked to tell, as by SO_PASSCRED, comes before.
    const OTHERS: usize = 512;

    let mut space = Control::<{ OTHERS + cmsg_space!(ScmRights(MOST)) }>::new();
    let mut control = space.buffer();
    // With room for a byte too many.
    let mut message = [0; REQUEST.len() + size_of::<Number>() + 1];
    let room = match begins_with_no_request(socket)? {
        // What follows is another message.
        true => NO_REQUEST.len(),
        false => message.len(),
    };
    let (length, flags) = receive(
        socket,
        &mut message[..room],
        &mut control,
        RecvFlags::empty(),
    )?;
    for each in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = each {
            received.fds.extend(fds);
        }
    }
    drop(control);
    drop(space.into_pidfds());
    let is_cut = flags.contains(ReturnFlags::CTRUNC);
    let message = &message[..length];
    let number = message.strip_prefix(&REQUEST);
    let number = number.and_then(|number| Number::try_from(number).ok());
    received.number = number.unwrap_or_default();
    let problem = match (message, &received.fds[..]) {
        ([], _) => return Err(Cause::HungUp.into()),
        (message, _) if *message == NO_REQUEST => GIVEN_UP,
        _ if number.is_none() => "sent something else than a request",
        (_, []) if is_cut => "sent a descriptor that could not be taken",
        (_, []) => "sent no descriptor",
        (_, [context]) if !is_cut => return Ok(context.as_fd()),
        _ => "sent more than one descriptor",
    };
    Err(Cause::Handshake { problem }.into())
}

fn begins_with_no_request(socket: BorrowedFd<'_>) -> Result<bool, Reason> {
    let (mut begin, mut control) = ([0; NO_REQUEST.len()], RecvAncillaryBuffer::default());
    let (length, _) = receive(socket, &mut begin, &mut control, RecvFlags::PEEK)?;
    Ok(begin[..length] == NO_REQUEST)
}

/// `ANSWER`, the number, the errno.
const ANSWER_LENGTH: usize = ANSWER.len() + size_of::<Number>() + size_of::<i32>();

fn receive_answer(socket: BorrowedFd<'_>, number: Number) -> Result<i32, Reason> {
    /// As many requests may have been given up before.
    const MOST: usize = 1000;

    let is_stream = socket_type(socket) == Ok(SocketType::STREAM);
    // With room for a byte too many.
    let mut message = [0; ANSWER_LENGTH + 1];
    for _ in 0..MOST {
        let length = match is_stream {
            // What follows is for others to read.
            true => receive_all(socket, &mut message[..ANSWER_LENGTH])?,
            false => {
                let mut control = RecvAncillaryBuffer::default();
                receive(socket, &mut message, &mut control, RecvFlags::empty())?.0
            }
        };
        let problem = match parse_answer(&message[..length]) {
            Some((to, errno)) if to == number => return Ok(errno),
            Some(_) => continue,
            None if length == 0 => return Err(Cause::HungUp.into()),
            None => "sent something else than an answer",
        };
        return Err(Cause::Handshake { problem }.into());
    }
    let problem = "sent something else than an answer";
    Err(Cause::Handshake { problem }.into())
}

/// The number and the errno.
fn parse_answer(message: &[u8]) -> Option<(Number, i32)> {
    let (number, errno) = message.strip_prefix(&ANSWER)?.split_first_chunk()?;
    Some((*number, i32::from_ne_bytes(errno.try_into().ok()?)))
}

/// Of a stream, where a message may come in parts: as long as it can become an answer.
fn receive_all(socket: BorrowedFd<'_>, message: &mut [u8]) -> Result<usize, Reason> {
    let mut length = 0;
    while length < message.len() {
        let mut control = RecvAncillaryBuffer::default();
        let rest = &mut message[length..];
        let (more, _) = receive(socket, rest, &mut control, RecvFlags::empty())?;
        length += more;
        let begin = ANSWER.len().min(length);
        if more == 0 || message[..begin] != ANSWER[..begin] {
            break;
        }
    }
    Ok(length)
}

fn receive(
    socket: BorrowedFd<'_>,
    message: &mut [u8],
    control: &mut RecvAncillaryBuffer<'_>,
    flags: RecvFlags,
) -> Result<(usize, ReturnFlags), Reason> {
    let received = retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(message)];
        recvmsg(socket, &mut parts, control, flags | RecvFlags::CMSG_CLOEXEC)
    });
    let received = received.map_err(of_socket)?;
    Ok((received.bytes, received.flags))
}

/// What the errno of a connected socket says of the other side.
#[cold]
fn of_socket(errno: Errno) -> Reason {
    let cause = match errno {
        Errno::PIPE | Errno::CONNRESET => Some(Cause::HungUp),
        Errno::AGAIN => Some(Cause::NoAnswer),
        _ => None,
    };
    Reason::new(errno, cause.filter(|_| !is_filtered()))
}
