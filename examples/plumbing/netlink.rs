//! A socket of rtnetlink(7).

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// A socket of rtnetlink. It acts on the network namespace in which it was opened.
pub struct Netlink(pub File);

impl Netlink {
    pub fn open() -> io::Result<Self> {
        let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
        // The default protocol is 0, NETLINK_ROUTE.
        let socket = socket_with(family, SocketType::RAW, flags, None)?;
        Ok(Self(socket.into()))
    }

    /// `ip link set DEVICE up`
    pub fn up(&self, index: u32) -> io::Result<()> {
        self.request(RTM_NEWLINK, 0, &ifinfomsg(index, IFF_UP))
    }

    pub fn request(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        // struct nlmsghdr: length, type, flags, number, sender.
        let mut message = Vec::from((16 + body.len() as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        (&self.0).write_all(&message)?;
        // NLMSG_ERROR: struct nlmsghdr, and 0 or a negative errno.
        let mut answer = [0; 4096];
        let length = (&self.0).read(&mut answer)?;
        match answer[..length].get(16..20) {
            Some(&[0, 0, 0, 0]) => Ok(()),
            Some(&[a, b, c, d]) => {
                let errno = -i32::from_ne_bytes([a, b, c, d]);
                Err(io::Error::from_raw_os_error(errno))
            }
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// `struct ifinfomsg`: family, type, index of the device, flags, and the mask of flags to change.
pub fn ifinfomsg(index: u32, flags: u32) -> Vec<u8> {
    [0, index, flags, flags].map(u32::to_ne_bytes).concat()
}

pub const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const IFF_UP: u32 = 1;
