//! BTF objects.

use std::os::fd::{BorrowedFd, OwnedFd};

use bpf_pin_sys as abi;
use rustix::io::Errno;

use super::object::info_into;
use super::{Result, address, address_mut, bpf, new_fd, raw};

/// `BPF_BTF_LOAD`, with a log unless `log` is empty, and with a token's descriptor and flag unless they are 0.
/// Returns `btf_log_true_size` as well.
pub(crate) fn btf_load(
    btf: &[u8],
    (btf_token_fd, btf_flags): (i32, u32),
    log: &mut [u8],
) -> (Result<OwnedFd>, u32) {
    let sizes = (u32::try_from(btf.len()), u32::try_from(log.len()));
    let (Ok(btf_size), Ok(btf_log_size)) = sizes else {
        return (Err(Errno::TOOBIG), 0);
    };
    let mut attr = abi::bpf_attr_btf_load {
        btf: address(btf),
        btf_size,
        btf_log_buf: address_mut(log),
        btf_log_size,
        btf_log_level: u32::from(!log.is_empty()),
        btf_flags,
        btf_token_fd,
        ..abi::bpf_attr_btf_load::zeroed()
    };
    // SAFETY: both buffers have the given sizes and outlive the call; BTF_LOAD returns a descriptor.
    let result = unsafe { new_fd(bpf(abi::BPF_BTF_LOAD, &mut attr)) };
    (result, attr.btf_log_true_size)
}

/// The first two bytes of any BTF data.
const MAGIC: u16 = 0xeb9f;

/// The data of the BTF object `fd`, as it was loaded. EINVAL if it is not BTF: a seccomp filter may have
/// answered instead of the kernel.
pub(super) fn btf_data(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let mut info = abi::bpf_btf_info {
            btf: address_mut(&mut data[..]),
            btf_size: data.len() as u32,
            ..abi::bpf_btf_info::zeroed()
        };
        // SAFETY: btf is the address of btf_size writable bytes, every other address is zero.
        unsafe { info_into(raw(fd), &mut info) }?;
        let size = info.btf_size as usize;
        if size <= data.len() {
            data.truncate(size);
            let is_btf = data.starts_with(&MAGIC.to_ne_bytes());
            return if is_btf { Ok(data) } else { Err(Errno::INVAL) };
        }
        data.resize(size, 0);
    }
}

/// The id of the BTF object `fd`.
pub(crate) fn btf_id(fd: BorrowedFd<'_>) -> Result<u32> {
    let mut info = abi::bpf_btf_info::zeroed();
    // SAFETY: no address is set.
    unsafe { info_into(raw(fd), &mut info) }?;
    Ok(info.id)
}
