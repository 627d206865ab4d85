//! The messages that a process in a user namespace and a privileged process exchange to create a bpffs.
//!
//! The kernel creates a bpffs in a user namespace only for a thread with `CAP_SYS_ADMIN` in the initial
//! user namespace. The bpffs belongs to the namespace of the thread that opened its context. So the requester
//! sends the context over a socket, and receives an errno.

use std::io::IoSlice;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::socket_type;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType, sendmsg};

use crate::error::{Cause, Reason};
use crate::process::is_filtered;
use crate::sys::random::random;
use crate::sys::{self, Received};

/// Starts a request; the number and the context follow.
const REQUEST: [u8; 8] = *b"bpffs 1?";
/// Starts an answer; the number of the request and an errno follow, 0 for success.
const ANSWER: [u8; 8] = *b"bpffs 1!";
/// Sent instead of a request by a requester that failed to make one and waits for no answer.
const NO_REQUEST: [u8; 8] = *b"bpffs 1.";
const ANSWER_LEN: usize = ANSWER.len() + size_of::<Number>() + size_of::<i32>();

const GIVEN_UP: &str = "has given up";

/// The number of a request. A late answer to an earlier request has another number.
pub(crate) type Number = [u8; 8];

/// Sends the context of a bpffs. Returns the number of the request.
pub(crate) fn send_request(
    socket: BorrowedFd<'_>,
    context: BorrowedFd<'_>,
) -> Result<Number, Reason> {
    let number = random().to_ne_bytes();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let contexts = [context];
    // The buffer has room for one.
    control.push(SendAncillaryMessage::ScmRights(&contexts));
    send(socket, &[REQUEST, number].concat(), &mut control)?;
    Ok(number)
}

pub(crate) fn send_no_request(socket: BorrowedFd<'_>) -> Result<(), Reason> {
    send(socket, &NO_REQUEST, &mut SendAncillaryBuffer::default())
}

pub(crate) fn send_answer(
    socket: BorrowedFd<'_>,
    number: Number,
    errno: i32,
) -> Result<(), Reason> {
    let message = [&ANSWER[..], &number, &errno.to_ne_bytes()].concat();
    send(socket, &message, &mut SendAncillaryBuffer::default())
}

fn send(
    socket: BorrowedFd<'_>,
    message: &[u8],
    control: &mut SendAncillaryBuffer<'_, '_, '_>,
) -> Result<(), Reason> {
    let parts = [IoSlice::new(message)];
    retry_on_intr(|| sendmsg(socket, &parts, control, SendFlags::NOSIGNAL))
        .map(drop)
        .map_err(socket_error)
}

/// A received message and its descriptors.
#[derive(Default)]
pub(crate) struct Request {
    /// Zeroes if the message was not a request.
    pub(crate) number: Number,
    fds: Vec<OwnedFd>,
}

impl Request {
    /// Receives a request, and returns its context. The request keeps all received descriptors, because
    /// closing them may take long.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> Result<BorrowedFd<'_>, Reason> {
        /// The most descriptors in one message. The kernel closes those that do not fit.
        const MAX_FDS: usize = 253;
        /// For other control messages, for example those of `SO_PASSCRED`.
        const OTHERS: usize = 512;
        const HEADER: usize = 16;

        let mut control = [0; (OTHERS + HEADER + MAX_FDS * size_of::<i32>()).div_ceil(8)];
        // One byte more than a request, to detect longer messages.
        let mut message = [0; REQUEST.len() + size_of::<Number>() + 1];
        let len = match starts_with_no_request(socket)? {
            // On a stream, the bytes after it belong to the next message.
            true => NO_REQUEST.len(),
            false => message.len(),
        };
        let received = receive(socket, &mut message[..len], &mut control)?;
        self.fds = received.fds;
        let (message, is_cut) = (&message[..received.len], received.is_cut);
        let number = message.strip_prefix(&REQUEST);
        let number = number.and_then(|number| Number::try_from(number).ok());
        self.number = number.unwrap_or_default();
        let problem = match (message, &self.fds[..]) {
            ([], _) => return Err(Cause::PeerClosed.into()),
            (message, _) if *message == NO_REQUEST => GIVEN_UP,
            _ if number.is_none() => "sent something else than a request",
            (_, []) if is_cut => "sent a descriptor that could not be taken",
            (_, []) => "sent no descriptor",
            (_, [context]) if !is_cut => return Ok(context.as_fd()),
            _ => "sent more than one descriptor",
        };
        Err(Cause::handshake(problem).into())
    }
}

/// Returns whether the requester sent that it makes no request.
pub(crate) fn has_given_up(reason: &Reason) -> bool {
    matches!(reason.cause(), Some(Cause::Handshake { problem }) if problem == GIVEN_UP)
}

fn starts_with_no_request(socket: BorrowedFd<'_>) -> Result<bool, Reason> {
    let mut start = [0; NO_REQUEST.len()];
    let peek = retry_on_intr(|| sys::receive(socket, &mut start, &mut [], true));
    let len = peek.map_err(socket_error)?.len;
    Ok(start[..len] == NO_REQUEST)
}

/// Receives the answer to the request with this number: an errno, or 0.
pub(crate) fn receive_answer(socket: BorrowedFd<'_>, number: Number) -> Result<i32, Reason> {
    /// The most answers to earlier requests to skip.
    const MAX_LATE: usize = 1000;

    let is_stream = socket_type(socket) == Ok(SocketType::STREAM);
    // One byte more than an answer, to detect longer messages.
    let mut message = [0; ANSWER_LEN + 1];
    for _ in 0..MAX_LATE {
        let len = match is_stream {
            // On a stream, the bytes after the answer do not belong to this call.
            true => receive_all(socket, &mut message[..ANSWER_LEN])?,
            false => receive(socket, &mut message, &mut [])?.len,
        };
        match parse_answer(&message[..len]) {
            Some((to, errno)) if to == number => return Ok(errno),
            Some(_) => continue,
            None if len == 0 => return Err(Cause::PeerClosed.into()),
            None => break,
        }
    }
    let problem = "sent something else than an answer";
    Err(Cause::handshake(problem).into())
}

fn parse_answer(message: &[u8]) -> Option<(Number, i32)> {
    let (number, errno) = message.strip_prefix(&ANSWER)?.split_first_chunk()?;
    Some((*number, i32::from_ne_bytes(errno.try_into().ok()?)))
}

/// Receives from a stream, where a message may arrive in parts. Ends when the buffer is full or the bytes
/// cannot be an answer.
fn receive_all(socket: BorrowedFd<'_>, message: &mut [u8]) -> Result<usize, Reason> {
    let mut len = 0;
    while len < message.len() {
        let more = receive(socket, &mut message[len..], &mut [])?.len;
        len += more;
        let start = ANSWER.len().min(len);
        if more == 0 || message[..start] != ANSWER[..start] {
            break;
        }
    }
    Ok(len)
}

/// Receives a message. With an empty `control` the kernel opens no descriptors for it.
fn receive(
    socket: BorrowedFd<'_>,
    message: &mut [u8],
    control: &mut [u64],
) -> Result<Received, Reason> {
    retry_on_intr(|| sys::receive(socket, message, control, false)).map_err(socket_error)
}

#[cold]
fn socket_error(errno: Errno) -> Reason {
    let cause = match errno {
        Errno::PIPE | Errno::CONNRESET => Some(Cause::PeerClosed),
        Errno::AGAIN => Some(Cause::handshake("did not answer in time")),
        _ => None,
    };
    Reason::new(errno, cause.filter(|_| !is_filtered()))
}
