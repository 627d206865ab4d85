//! Two connected network devices, each in a network namespace of its own, created by rtnetlink(7).

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use bpf_pin::bpffs::MountOptions;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::net::netdevice::name_to_index;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::exit::Outcome;
use netlink::{Netlink, RTM_NEWLINK, ifinfomsg};

#[path = "netlink.rs"]
mod netlink;

/// The device at this end, and the address of its socket.
pub const NEAR: &str = "near";
const NEAR_ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9000);
/// The device at the other end, and the address of its socket.
const FAR: &str = "far";
const FAR_ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 9000);

/// Moves this process to new namespaces with a private bpffs on /sys/fs/bpf and the near device. Returns a
/// socket at the far end.
///
/// Child processes inherit the namespaces, which other processes do not see and which disappear with the
/// last of these processes.
pub fn own_namespaces() -> Outcome<OwnedFd> {
    unshare(UnshareFlags::NEWNS | UnshareFlags::NEWNET)?;
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private)?;
    MountOptions::new().mount("/sys/fs/bpf")?;

    let (far, netns) = (Netlink::open()?, File::open("/proc/thread-self/ns/net")?);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, FAR_ADDRESS.port()))?;
    unshare(UnshareFlags::NEWNET)?;
    let near = Netlink::open()?;
    near.add_veth(NEAR, FAR, &netns)
        .map_err(|error| format!("create a pair of veth devices (kernel module veth): {error}"))?;
    near.set_up(NEAR, NEAR_ADDRESS)?;
    far.set_up(FAR, FAR_ADDRESS)?;
    Ok(socket.into())
}

fn unshare(namespaces: UnshareFlags) -> Outcome {
    // SAFETY: without FILES, all threads keep the same table of descriptors.
    match unsafe { unshare_unsafe(namespaces) } {
        Err(Errno::PERM) => {
            Err("new namespaces require CAP_SYS_ADMIN: run this example as root".into())
        }
        unshared => Ok(unshared?),
    }
}

/// The index of a device.
pub fn index(device: &str) -> io::Result<u32> {
    Ok(name_to_index(Netlink::open()?.0, device)?)
}

/// A socket at this end.
pub fn near_socket() -> Outcome<UdpSocket> {
    let bound = UdpSocket::bind(NEAR_ADDRESS);
    Ok(bound.map_err(|error| format!("bind a socket to {NEAR_ADDRESS}: {error}"))?)
}

/// Sends packets from the far end to this one and then back, and waits for each of them. Takes, for each
/// direction, the number of packets and the bytes of their payload.
pub fn traffic([far, near]: [&UdpSocket; 2], [incoming, outgoing]: [(u64, u64); 2]) -> Outcome {
    let directions = [
        (far, NEAR_ADDRESS, near, incoming),
        (near, FAR_ADDRESS, far, outgoing),
    ];
    for (from, address, to, (packets, bytes)) in directions {
        to.set_read_timeout(Some(Duration::from_secs(10)))?;
        let packet = vec![b'x'; bytes as usize];
        for _ in 0..packets {
            from.send_to(&packet, address)?;
            let received = to.recv(&mut [0; 2000]);
            received.map_err(|error| format!("receive a packet at {address}: {error}"))?;
        }
    }
    Ok(())
}

impl Netlink {
    /// `ip link add NAME type veth peer name PEER netns NETNS`
    fn add_veth(&self, name: &str, peer: &str, netns: &File) -> io::Result<()> {
        let peer = [
            ifinfomsg(0, 0),
            attribute(IFLA_IFNAME, peer.as_bytes()),
            attribute(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes()),
        ];
        let info = [
            attribute(IFLA_INFO_KIND, b"veth"),
            attribute(IFLA_INFO_DATA, &attribute(VETH_INFO_PEER, &peer.concat())),
        ];
        let link = [
            ifinfomsg(0, 0),
            attribute(IFLA_IFNAME, name.as_bytes()),
            attribute(IFLA_LINKINFO, &info.concat()),
        ];
        self.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link.concat())
    }

    /// `ip address add ADDRESS/24 dev NAME`, `ip link set NAME up`
    fn set_up(&self, name: &str, address: SocketAddrV4) -> io::Result<()> {
        let index = name_to_index(&self.0, name)?;
        // struct ifaddrmsg: family, prefix length, flags, scope, index of the device.
        let mut message = vec![AF_INET, 24, 0, 0];
        message.extend(index.to_ne_bytes());
        message.extend(attribute(IFA_LOCAL, &address.ip().octets()));
        self.request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &message)?;
        self.up(index)
    }
}

/// `struct rtattr`: length, type, and the value, padded to a multiple of 4 bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = [length as u16, kind].map(u16::to_ne_bytes).concat();
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

const AF_INET: u8 = 2;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const RTM_NEWADDR: u16 = 20;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_LOCAL: u16 = 2;
