//! Reads the XDP programs of a network device from rtnetlink(7), which needs no privileges.

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use super::Result;

const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// The bits of an attribute's type that are its number. A higher bit marks nested attributes.
const NLA_TYPE: u16 = 0x3fff;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

/// The ids of a device's XDP programs by their modes, 0 for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct XdpProgs {
    pub(crate) driver: u32,
    pub(crate) generic: u32,
    pub(crate) offloaded: u32,
}

/// `RTM_GETLINK`: the XDP programs of a device in this thread's network namespace. ENODEV if it has no such
/// device.
pub(crate) fn xdp_progs(ifindex: u32) -> Result<XdpProgs> {
    // A reply without statistics takes about 2 KiB.
    let mut buffer = [0; 16 << 10];
    let length = get_link(ifindex, &mut buffer)?;
    parse(buffer.get(..length).unwrap_or_default())
}

/// Returns the length of the reply, which the kernel queues while the request is sent.
fn get_link(ifindex: u32, buffer: &mut [u8]) -> Result<usize> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    // struct nlmsghdr and struct ifinfomsg: 16 bytes each; then an attribute of 8.
    let mut request = [0; 40];
    request[..4].copy_from_slice(&40_u32.to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request[20..24].copy_from_slice(&ifindex.to_ne_bytes());
    request[32..34].copy_from_slice(&8_u16.to_ne_bytes());
    request[34..36].copy_from_slice(&IFLA_EXT_MASK.to_ne_bytes());
    request[36..].copy_from_slice(&RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    send(&socket, &request, SendFlags::empty())?;
    let (length, _) = recv(&socket, buffer, RecvFlags::DONTWAIT)?;
    Ok(length)
}

fn parse(message: &[u8]) -> Result<XdpProgs> {
    if let Some(errno) = errno_of(message) {
        return Err(errno);
    }
    let attributes = body_of_link(message).ok_or(Errno::BADMSG)?;
    let Some(xdp) = Attributes(attributes).find(IFLA_XDP) else {
        return Ok(XdpProgs::default());
    };
    let of_mode = |mode| {
        let id = Attributes(xdp).find(mode);
        id.and_then(<[u8]>::first_chunk)
            .map_or(0, |id| u32::from_ne_bytes(*id))
    };
    Ok(XdpProgs {
        driver: of_mode(IFLA_XDP_DRV_PROG_ID),
        generic: of_mode(IFLA_XDP_SKB_PROG_ID),
        offloaded: of_mode(IFLA_XDP_HW_PROG_ID),
    })
}

/// The errno of a `struct nlmsgerr`, which the kernel sends negated.
fn errno_of(message: &[u8]) -> Option<Errno> {
    if message_type(message)? != NLMSG_ERROR {
        return None;
    }
    let errno = i32::from_ne_bytes(*message.get(16..)?.first_chunk()?);
    Some(Errno::from_raw_os_error(errno.checked_neg()?))
}

fn message_type(message: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(*message.get(4..)?.first_chunk()?))
}

/// The attributes after the two headers.
fn body_of_link(message: &[u8]) -> Option<&[u8]> {
    (message_type(message)? == RTM_NEWLINK).then_some(message.get(32..)?)
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

    fn message(number: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&number.to_ne_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_reply_holds_a_program_for_each_mode_or_an_errno() {
        let ids = [
            attribute(IFLA_XDP_DRV_PROG_ID, &7_u32.to_ne_bytes()),
            attribute(IFLA_XDP_HW_PROG_ID, &9_u32.to_ne_bytes()),
        ];
        let body = [vec![0; 16], attribute(IFLA_XDP, &ids.concat())].concat();
        let progs = XdpProgs {
            driver: 7,
            generic: 0,
            offloaded: 9,
        };
        assert_eq!(parse(&message(RTM_NEWLINK, &body)), Ok(progs));
        let without = message(RTM_NEWLINK, &[0; 16]);
        assert_eq!(parse(&without), Ok(XdpProgs::default()));
        let refused = message(NLMSG_ERROR, &(-libc::ENODEV).to_ne_bytes());
        assert_eq!(parse(&refused), Err(Errno::NODEV));
        for cut in 0..16 {
            assert_eq!(parse(&without[..cut]), Err(Errno::BADMSG));
        }
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
