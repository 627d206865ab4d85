//! Reads the XDP program of a network device from rtnetlink(7), which needs no privileges.

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

const NLM_F_REQUEST: u16 = 1;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// The bits of an attribute's type that are its number. A higher bit marks nested attributes.
const NLA_TYPE: u16 = 0x3fff;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;

/// The XDP program of a device in this thread's network namespace: that of the driver, else the generic one,
/// else the offloaded one.
pub(super) fn xdp_prog_id(ifindex: u32) -> Option<u32> {
    let mut buffer = vec![0; 32 << 10];
    let length = get_link(ifindex, &mut buffer)?;
    let attributes = Attributes(body_of_link(buffer.get(..length)?)?);
    let xdp = attributes.find(IFLA_XDP)?;
    let modes = [
        IFLA_XDP_DRV_PROG_ID,
        IFLA_XDP_SKB_PROG_ID,
        IFLA_XDP_HW_PROG_ID,
    ];
    let of_mode = |mode| {
        let id = Attributes(xdp).find(mode)?;
        Some(u32::from_ne_bytes(*id.first_chunk()?))
    };
    modes.into_iter().find_map(of_mode).filter(|id| *id != 0)
}

/// `RTM_GETLINK`: returns the length of the reply, which the kernel queues while the request is sent.
fn get_link(ifindex: u32, buffer: &mut [u8]) -> Option<usize> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None).ok()?;
    // struct nlmsghdr and struct ifinfomsg: 16 bytes each.
    let mut request = [0; 32];
    request[..4].copy_from_slice(&32_u32.to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request[20..24].copy_from_slice(&ifindex.to_ne_bytes());
    send(&socket, &request, SendFlags::empty()).ok()?;
    let (length, _) = recv(&socket, buffer, RecvFlags::DONTWAIT).ok()?;
    Some(length)
}

/// The attributes after the two headers.
fn body_of_link(message: &[u8]) -> Option<&[u8]> {
    let message_type = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
    (message_type == RTM_NEWLINK).then_some(message.get(32..)?)
}

/// An array of `struct nlattr` with their payloads, each padded to four bytes.
struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    fn find(self, wanted: u16) -> Option<&'a [u8]> {
        let mut rest = self.0;
        loop {
            let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
            let found = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
            let payload = rest.get(4..length)?;
            if found & NLA_TYPE == wanted {
                return Some(payload);
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(number: u16, payload: &[u8]) -> Vec<u8> {
        let length = 4 + payload.len();
        let mut bytes = (length as u16).to_ne_bytes().to_vec();
        bytes.extend(number.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(length.next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn an_attribute_is_found_after_others() {
        let bytes = [attribute(1, b"lo\0"), attribute(0x8002, b"four")].concat();
        assert_eq!(Attributes(&bytes).find(2), Some(&b"four"[..]));
        assert_eq!(Attributes(&bytes).find(1), Some(&b"lo\0"[..]));
        assert_eq!(Attributes(&bytes).find(3), None);
    }

    #[test]
    fn truncated_and_empty_attributes_end_the_search() {
        let bytes = attribute(7, b"four");
        for cut in 0..bytes.len() {
            assert_eq!(Attributes(&bytes[..cut]).find(7), None);
        }
        assert_eq!(Attributes(&[0; 64]).find(7), None);
        assert_eq!(Attributes(&[3, 0, 7, 0, 9, 9]).find(7), None);
    }
}
