//! What comes with a message, beside what rustix knows of it.

use std::mem::{MaybeUninit, offset_of, size_of};
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::net::RecvAncillaryBuffer;

/// Room for the control messages of one recvmsg(2).
#[repr(align(8))]
pub(crate) struct Control<const N: usize>([MaybeUninit<u8>; N]);

impl<const N: usize> Control<N> {
    pub(crate) fn new() -> Self {
        Self([MaybeUninit::new(0); N])
    }

    pub(crate) fn buffer(&mut self) -> RecvAncillaryBuffer<'_> {
        RecvAncillaryBuffer::new(&mut self.0)
    }

    /// The pidfds of who has sent the message, which a socket with `SO_PASSPIDFD` is told, and which
    /// rustix passes over and leaves open.
    pub(crate) fn into_pidfds(self) -> Vec<OwnedFd> {
        // SAFETY: all was written when it was made, and since then by the kernel alone.
        let bytes = unsafe { self.0.map(|byte| byte.assume_init()) };
        let pidfd = |fd| {
            // SAFETY: the kernel has opened it for this message, and nobody else knows of it.
            unsafe { OwnedFd::from_raw_fd(fd) }
        };
        pidfds(&bytes).into_iter().map(pidfd).collect()
    }
}

fn pidfds(bytes: &[u8]) -> Vec<i32> {
    /// The same on every architecture.
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
        // What the kernel has not written is zero.
        let (HEADER.., Some(level), Some(what), Some(next)) = (
            length,
            word(after, 0),
            word(after, 4),
            length.checked_next_multiple_of(size_of::<usize>()),
        ) else {
            break;
        };
        if (level, what) == (libc::SOL_SOCKET, SCM_PIDFD) {
            // Negative where there was none to be had.
            found.extend(word(after, 8).filter(|&fd| fd >= 0));
        }
        rest = rest.get(next..).unwrap_or_default();
    }
    found
}

fn word(bytes: &[u8], at: usize) -> Option<i32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(i32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(what: i32, data: &[i32]) -> Vec<u8> {
        let length = size_of::<libc::cmsghdr>() + size_of_val(data);
        let mut bytes = length.to_ne_bytes().to_vec();
        for word in [libc::SOL_SOCKET, what].iter().chain(data) {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.resize(length.next_multiple_of(size_of::<usize>()), 0);
        bytes
    }

    #[test]
    fn pidfds_are_found_wherever_they_stand() {
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
    fn what_is_no_pidfd_is_left_alone() {
        for bytes in [&[][..], &[0; 64], &[0xff; 64], &[1; 7]] {
            assert_eq!(pidfds(bytes), []);
        }
        assert_eq!(pidfds(&message(4, &[-9])), []);
        assert_eq!(pidfds(&message(4, &[])), []);
        assert_eq!(pidfds(&message(1, &[4])), []);
    }
}
