//! BTF objects.

use std::os::fd::{BorrowedFd, OwnedFd};

use bpf_pin_sys as abi;
use rustix::io::Errno;

use super::object::{fd_by_id, info_into};
use super::{Result, address, address_mut, bpf, new_fd, raw};

/// `BPF_BTF_LOAD`, with a log if there is room for one. Also what `btf_log_true_size` came out as.
pub(crate) fn btf_load(btf: &[u8], log: &mut [u8]) -> (Result<OwnedFd>, u32) {
    let sizes = (u32::try_from(btf.len()), u32::try_from(log.len()));
    let (Ok(btf_size), Ok(btf_log_size)) = sizes else {
        return (Err(Errno::TOOBIG), 0);
    };
    let mut attr = abi::bpf_attr_btf_load {
        btf: address(btf),
        btf_size,
        btf_log_buf: if log.is_empty() { 0 } else { address_mut(log) },
        btf_log_size,
        btf_log_level: u32::from(!log.is_empty()),
        ..abi::bpf_attr_btf_load::zeroed()
    };
    // SAFETY: both addresses are of as many bytes as said, which outlive the call; BTF_LOAD returns
    // a descriptor.
    let result = unsafe { new_fd(bpf(abi::BPF_BTF_LOAD, &mut attr)) };
    (result, attr.btf_log_true_size)
}

pub(crate) fn btf_fd_by_id(id: u32) -> Result<OwnedFd> {
    fd_by_id(abi::BPF_BTF_GET_FD_BY_ID, id, 0)
}

/// The first two bytes of any BTF.
const MAGIC: u16 = 0xeb9f;

/// All of the BTF, as it was loaded. `fd` must be a BTF object's. EINVAL if that is no BTF, as when a
/// seccomp filter has answered.
pub(super) fn btf_data(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let mut info = abi::bpf_btf_info {
            btf: if data.is_empty() {
                0
            } else {
                address_mut(&mut data[..])
            },
            btf_size: data.len() as u32,
            ..abi::bpf_btf_info::zeroed()
        };
        // SAFETY: btf is of btf_size writable bytes, every other address is zero.
        unsafe { info_into(raw(fd), &mut info) }?;
        let size = info.btf_size as usize;
        if size <= data.len() {
            data.truncate(size);
            return match data.starts_with(&MAGIC.to_ne_bytes()) {
                true => Ok(data),
                false => Err(Errno::INVAL),
            };
        }
        data.resize(size, 0);
    }
}

/// The id of `fd`, which must be a BTF object's.
pub(crate) fn btf_id(fd: BorrowedFd<'_>) -> Result<u32> {
    let mut info = abi::bpf_btf_info::zeroed();
    // SAFETY: no address is set.
    unsafe { info_into(raw(fd), &mut info) }?;
    Ok(info.id)
}
