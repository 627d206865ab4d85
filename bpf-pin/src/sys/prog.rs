//! Programs.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use bpf_pin_sys as abi;
use rustix::io::Errno;

use super::{Result, address, address_mut, bpf, new_fd};

/// `BPF_PROG_LOAD`, the rest of the arm as in `attr`, whose addresses must be zero.
pub(crate) fn prog_load(
    attr: abi::bpf_attr_prog_load,
    insns: &[abi::bpf_insn],
    license: &CStr,
    log: Option<&mut [u8]>,
) -> Result<OwnedFd> {
    let other_addresses = [
        attr.func_info,
        attr.line_info,
        attr.fd_array,
        attr.core_relos,
        attr.signature,
    ];
    assert_eq!(other_addresses, [0; 5], "addresses that nobody vouches for");
    let log = log.unwrap_or_default();
    let mut attr = abi::bpf_attr_prog_load {
        insns: address(insns),
        insn_cnt: u32::try_from(insns.len()).map_err(|_| Errno::TOOBIG)?,
        license: license.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).map_err(|_| Errno::TOOBIG)?,
        log_buf: if log.is_empty() { 0 } else { address_mut(log) },
        ..attr
    };
    // SAFETY: insns, license and log are as long as said and outlive the call; the
    // others were just seen to be zero; PROG_LOAD returns a descriptor.
    unsafe { new_fd(bpf(abi::BPF_PROG_LOAD, &mut attr)) }
}
