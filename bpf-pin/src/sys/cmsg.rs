//! `recvmsg(2)`, with the descriptors in its control messages.

use std::mem::{offset_of, size_of, size_of_val, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{Result, last_errno};

/// A message that was received.
#[derive(Debug)]
pub(crate) struct Received {
    /// The length of the message in bytes.
    pub(crate) len: usize,
    /// Control messages did not fit (`MSG_CTRUNC`). The kernel opened no descriptors for that part.
    pub(crate) is_cut: bool,
    /// The descriptors that the sender passed (`SCM_RIGHTS`).
    pub(crate) fds: Vec<OwnedFd>,
}

/// `recvmsg(2)`: receives a message, and the control messages that fit into `control`.
///
/// The kernel opens descriptors for two kinds of control messages (net/core/scm.c): `SCM_RIGHTS`, and
/// `SCM_PIDFD` on a socket with `SO_PASSPIDFD`. The result has those of the first kind. A pidfd is closed.
/// Other control messages, such as credentials, are skipped.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    message: &mut [u8],
    control: &mut [u64],
    peeks: bool,
) -> Result<Received> {
    // A filter may answer instead of the kernel. Then the control messages are zeroes, which hold none.
    control.fill(0);
    let mut part = libc::iovec {
        iov_base: message.as_mut_ptr().cast(),
        iov_len: message.len(),
    };
    // SAFETY: zeroes are a valid value: integers, and null pointers of length zero.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(control) as _;
    let peek = if peeks { libc::MSG_PEEK } else { 0 };
    let flags = libc::MSG_CMSG_CLOEXEC | peek;
    // SAFETY: the header has the addresses and lengths of two writable buffers, which outlive the call.
    let result = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    let len = usize::try_from(result).map_err(|_| last_errno())?;
    let written = header.msg_controllen as usize;
    let bytes = bytemuck::cast_slice(control);
    let opened = opened_for(bytes.get(..written).unwrap_or(bytes));
    let own = |fd| {
        // SAFETY: the kernel has opened it for this message and put it into one control message, which
        // was zero before the call. Nothing else owns it.
        unsafe { OwnedFd::from_raw_fd(fd) }
    };
    opened.pidfds.into_iter().map(own).for_each(drop);
    Ok(Received {
        len: len.min(message.len()),
        is_cut: header.msg_flags & libc::MSG_CTRUNC != 0,
        fds: opened.rights.into_iter().map(own).collect(),
    })
}

/// The descriptors that the kernel has opened for a message.
#[derive(Debug, Default, PartialEq)]
struct Opened {
    rights: Vec<RawFd>,
    pidfds: Vec<RawFd>,
}

/// Finds the descriptors in control messages as the kernel writes them: a length of all, a level and a type;
/// the data; and padding up to the next multiple of a word.
fn opened_for(bytes: &[u8]) -> Opened {
    /// This number is the same on every architecture.
    const SCM_PIDFD: i32 = 4;
    const WORD: usize = size_of::<usize>();
    const HEADER: usize = WORD + 2 * size_of::<i32>();
    const {
        assert!(offset_of!(libc::cmsghdr, cmsg_level) == WORD);
        assert!(size_of::<libc::cmsghdr>() == HEADER);
    }

    let mut opened = Opened::default();
    let mut rest = bytes;
    while let Some((length, _)) = rest.split_first_chunk() {
        let length = usize::from_ne_bytes(*length);
        // Zeroes end the loop, as does a length beyond the end.
        let Some(data) = rest.get(HEADER..length) else {
            break;
        };
        if word(rest, WORD) == Some(libc::SOL_SOCKET) {
            let fds = data.chunks_exact(size_of::<RawFd>());
            // A pidfd is negative if the kernel could not open one.
            let fds = fds.filter_map(|fd| word(fd, 0)).filter(|&fd| fd >= 0);
            match word(rest, WORD + size_of::<i32>()) {
                Some(libc::SCM_RIGHTS) => opened.rights.extend(fds),
                Some(SCM_PIDFD) => opened.pidfds.extend(fds),
                _ => {}
            }
        }
        rest = rest
            .get(length.next_multiple_of(WORD)..)
            .unwrap_or_default();
    }
    opened
}

fn word(bytes: &[u8], offset: usize) -> Option<i32> {
    let word = bytes.get(offset..)?.first_chunk()?;
    Some(i32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHTS: i32 = 1;
    const CREDENTIALS: i32 = 2;
    const PIDFD: i32 = 4;

    fn message(level: i32, kind: i32, data: &[i32]) -> Vec<u8> {
        let length = size_of::<libc::cmsghdr>() + size_of_val(data);
        let mut bytes = length.to_ne_bytes().to_vec();
        for word in [level, kind].iter().chain(data) {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.resize(length.next_multiple_of(size_of::<usize>()), 0);
        bytes
    }

    fn of_socket(kind: i32, data: &[i32]) -> Vec<u8> {
        message(libc::SOL_SOCKET, kind, data)
    }

    fn opened(rights: &[i32], pidfds: &[i32]) -> Opened {
        Opened {
            rights: rights.to_vec(),
            pidfds: pidfds.to_vec(),
        }
    }

    #[test]
    fn descriptors_are_found_at_any_position() {
        let rights = of_socket(RIGHTS, &[5, 6, 7]);
        let credentials = of_socket(CREDENTIALS, &[1, 2, 3]);
        let pidfd = of_socket(PIDFD, &[9]);
        for (parts, expected) in [
            (vec![], opened(&[], &[])),
            (vec![&credentials], opened(&[], &[])),
            (vec![&pidfd], opened(&[], &[9])),
            (vec![&rights], opened(&[5, 6, 7], &[])),
            (vec![&rights, &pidfd], opened(&[5, 6, 7], &[9])),
            (vec![&pidfd, &rights], opened(&[5, 6, 7], &[9])),
            (
                vec![&credentials, &pidfd, &rights],
                opened(&[5, 6, 7], &[9]),
            ),
            (
                vec![&credentials, &rights, &pidfd],
                opened(&[5, 6, 7], &[9]),
            ),
        ] {
            let mut bytes: Vec<u8> = parts.into_iter().flatten().copied().collect();
            assert_eq!(opened_for(&bytes), expected);
            bytes.resize(bytes.len() + 64, 0);
            assert_eq!(opened_for(&bytes), expected);
        }
        // Without the padding after the last one.
        assert_eq!(
            opened_for(&rights[..size_of::<libc::cmsghdr>() + 12]),
            opened(&[5, 6, 7], &[])
        );
    }

    #[test]
    fn other_messages_and_malformed_ones_hold_no_descriptor() {
        for bytes in [&[][..], &[0; 64], &[0xff; 64], &[1; 7], &[1; 64]] {
            assert_eq!(opened_for(bytes), Opened::default());
        }
        for bytes in [
            of_socket(PIDFD, &[-9]),
            of_socket(PIDFD, &[]),
            of_socket(RIGHTS, &[]),
            of_socket(CREDENTIALS, &[4, 5, 6]),
            of_socket(3, &[4]),
            of_socket(5, &[4]),
            message(libc::SOL_SOCKET + 1, RIGHTS, &[4]),
            message(0, PIDFD, &[4]),
        ] {
            assert_eq!(opened_for(&bytes), Opened::default());
        }
    }

    #[test]
    fn a_message_that_was_cut_holds_none_beyond_its_end() {
        let whole = of_socket(RIGHTS, &[5, 6, 7]);
        for length in 0..size_of::<libc::cmsghdr>() + 12 {
            assert_eq!(opened_for(&whole[..length]), Opened::default(), "{length}");
        }
    }
}
