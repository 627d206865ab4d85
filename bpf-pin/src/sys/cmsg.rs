//! Control messages that rustix does not parse.

use std::mem::{MaybeUninit, offset_of, size_of};
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::net::RecvAncillaryBuffer;

/// A buffer for the control messages of one recvmsg(2).
#[repr(align(8))]
pub(crate) struct Control<const N: usize>([MaybeUninit<u8>; N]);

impl<const N: usize> Control<N> {
    pub(crate) fn new() -> Self {
        Self([MaybeUninit::new(0); N])
    }

    pub(crate) fn buffer(&mut self) -> RecvAncillaryBuffer<'_> {
        RecvAncillaryBuffer::new(&mut self.0)
    }

    /// Takes the sender's pidfds, which a socket with `SO_PASSPIDFD` receives. rustix skips them and leaves
    /// them open.
    pub(crate) fn into_pidfds(self) -> Vec<OwnedFd> {
        // SAFETY: new() has initialised all bytes, and only the kernel has written since.
        let bytes = unsafe { self.0.map(|byte| byte.assume_init()) };
        let pidfd = |fd| {
            // SAFETY: the kernel has opened it for this message, and nothing else owns it.
            unsafe { OwnedFd::from_raw_fd(fd) }
        };
        pidfds(&bytes).into_iter().map(pidfd).collect()
    }
}

fn pidfds(bytes: &[u8]) -> Vec<i32> {
    /// This number is the same on every architecture.
    const SCM_PIDFD: i32 = 4;
    const HEADER: usize = size_of::<usize>() + 2 * size_of::<i32>();
    const {
        assert!(offset_of!(libc::cmsghdr, cmsg_level) == size_of::<usize>());
        assert!(size_of::<libc::cmsghdr>() == HEADER);
    }

    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::from_ne_bytes(*length);
        // Bytes that the kernel did not write are zero, so the length ends the loop.
        let (HEADER.., Some(level), Some(kind), Some(next)) = (
            length,
            word(after, 0),
            word(after, 4),
            length.checked_next_multiple_of(size_of::<usize>()),
        ) else {
            break;
        };
        if (level, kind) == (libc::SOL_SOCKET, SCM_PIDFD) {
            // Negative if the kernel could not open one.
            found.extend(word(after, 8).filter(|&fd| fd >= 0));
        }
        rest = rest.get(next..).unwrap_or_default();
    }
    found
}

fn word(bytes: &[u8], offset: usize) -> Option<i32> {
    let word = bytes.get(offset..)?.first_chunk()?;
    Some(i32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: i32, data: &[i32]) -> Vec<u8> {
        let length = size_of::<libc::cmsghdr>() + size_of_val(data);
        let mut bytes = length.to_ne_bytes().to_vec();
        for word in [libc::SOL_SOCKET, kind].iter().chain(data) {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.resize(length.next_multiple_of(size_of::<usize>()), 0);
        bytes
    }

    #[test]
    fn pidfds_are_found_at_any_position() {
        let (rights, credentials) = (message(1, &[5, 6, 7]), message(2, &[1, 2, 3]));
        let pidfd = message(4, &[9]);
        for parts in [
            vec![&pidfd],
            vec![&rights, &pidfd],
            vec![&pidfd, &rights],
            vec![&credentials, &pidfd, &rights],
        ] {
            let mut bytes: Vec<u8> = parts.into_iter().flatten().copied().collect();
            bytes.resize(bytes.len() + 64, 0);
            assert_eq!(pidfds(&bytes), [9]);
        }
    }

    #[test]
    fn other_messages_and_malformed_ones_hold_no_pidfd() {
        for bytes in [&[][..], &[0; 64], &[0xff; 64], &[1; 7]] {
            assert_eq!(pidfds(bytes), []);
        }
        assert_eq!(pidfds(&message(4, &[-9])), []);
        assert_eq!(pidfds(&message(4, &[])), []);
        assert_eq!(pidfds(&message(1, &[4])), []);
    }
}
