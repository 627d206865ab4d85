//! Tokens.

use std::os::fd::{BorrowedFd, OwnedFd};

use bpf_pin_sys as abi;
use rustix::io::Errno;

use super::{Result, bpf, new_fd, raw};

fn token_create_of(bpffs_fd: u32) -> Result<OwnedFd> {
    let mut attr = abi::bpf_attr_token_create { flags: 0, bpffs_fd };
    // SAFETY: the arm holds no address; TOKEN_CREATE returns a descriptor.
    unsafe { new_fd(bpf(abi::BPF_TOKEN_CREATE, &mut attr)) }
}

/// `BPF_TOKEN_CREATE`. `root` must not be `O_PATH`.
pub(crate) fn token_create(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    token_create_of(raw(root))
}

/// `BPF_TOKEN_CREATE` without a bpffs: EBADF if the kernel has the command.
pub(crate) fn probe_token_create() -> Errno {
    token_create_of(u32::MAX).err().unwrap_or(Errno::INVAL)
}
