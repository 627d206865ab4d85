//! Programs at work: on a packet of the test's own, on a device that is up, and the wait for their end.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::abi;

/// `BPF_PROG_TEST_RUN`: runs `prog` on a packet of zeroes, and what it returned.
pub fn test_run(prog: impl AsFd, repeat: u32) -> io::Result<u32> {
    let packet = [0u8; 64];
    let mut attr = abi::bpf_attr_test {
        prog_fd: prog.as_fd().as_raw_fd() as u32,
        data_size_in: packet.len() as u32,
        data_in: packet.as_ptr() as u64,
        repeat,
        ..abi::bpf_attr_test::zeroed()
    };
    let size = size_of_val(&attr) as u32;
    // SAFETY: the packet is as long as is said and only read; no room is offered for another.
    let done = unsafe { abi::bpf(abi::BPF_PROG_TEST_RUN, (&raw mut attr).cast(), size) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(attr.retval)
}

/// `ip link set lo up`, in this thread's network.
pub fn lo_up() -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: ifreq is integers and a union of such; all zeroes is one of its values.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request takes the address of an ifreq, which outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Asks again until it is so.
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < patience, "not {what} after 30 s");
        thread::sleep(Duration::from_millis(10));
    }
}
