//! Network devices, by rtnetlink(7).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;

/// Sends a request to rtnetlink(7).
fn rtnetlink(message_type: u16, body: &[u8]) -> io::Result<()> {
    // SAFETY: the call takes no address.
    let socket = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it, and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // struct nlmsghdr: length, type and flags (request, create, acknowledge), number, sender.
    let mut message = (16 + body.len() as u32).to_ne_bytes().to_vec();
    message.extend(message_type.to_ne_bytes());
    message.extend((1u16 | 4 | 0x400).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    rustix::io::write(&socket, &message)?;
    let mut answer = [0; 4096];
    rustix::io::read(&socket, &mut answer)?;
    let errno = i32::from_ne_bytes(answer[16..20].try_into().expect("4 bytes"));
    match errno {
        0 => Ok(()),
        _ => Err(io::Error::from_raw_os_error(-errno)),
    }
}

fn attribute(attribute_type: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(attribute_type.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// `ip link add index 77 type netkit`: adds a network device to this thread's network namespace. EOPNOTSUPP on
/// kernels without the kind.
pub fn add_device(ifindex: u32, kind: &str) -> io::Result<()> {
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;

    let mut body = device(ifindex);
    body.extend(attribute(
        IFLA_LINKINFO,
        &attribute(IFLA_INFO_KIND, kind.as_bytes()),
    ));
    rtnetlink(RTM_NEWLINK, &body)
}

/// `ip link del`: removes a network device of this thread's network namespace.
pub fn remove_device(ifindex: u32) -> io::Result<()> {
    rtnetlink(RTM_DELLINK, &device(ifindex))
}

/// struct ifinfomsg
fn device(ifindex: u32) -> Vec<u8> {
    let words = [0, ifindex, 0, 0];
    words.into_iter().flat_map(u32::to_ne_bytes).collect()
}
