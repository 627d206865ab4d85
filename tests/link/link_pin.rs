//! How long a link is attached: until its last descriptor is closed and its pin is removed.

use std::fs;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

use bpf_pin::error::Cause;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Kind, Link, LinkSpec, Object, PinnedLink, Prog};
use common::*;

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];

#[common::test(ROOT)]
fn a_pin_keeps_an_xdp_link_attached() -> Outcome {
    in_network_namespace(|| check_pin(LinkSpec::xdp(LOOPBACK), xdp_prog(XDP_DROP)))
}

#[common::test(TCX)]
fn a_pin_keeps_a_tcx_link_attached() -> Outcome {
    let spec = LinkSpec::tcx(LOOPBACK, AttachType::TCX_EGRESS);
    in_network_namespace(|| {
        check_pin(
            spec,
            prog_returning(ProgType::SCHED_CLS, AttachType(0), TCX_DROP),
        )
    })
}

const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const TCX_DROP: i32 = 2;

fn xdp_prog(value: i32) -> Prog {
    prog_returning(ProgType::XDP, AttachType(0), value)
}

/// Two sockets on the loopback device, where a program may drop the packets.
struct Wire {
    sender: UdpSocket,
    receiver: UdpSocket,
    sent: u64,
}

impl Wire {
    fn new() -> std::io::Result<Self> {
        bring_up_loopback()?;
        let any = "127.0.0.1:0";
        let (sender, receiver) = (UdpSocket::bind(any)?, UdpSocket::bind(any)?);
        sender.connect(receiver.local_addr()?)?;
        receiver.set_read_timeout(Some(Duration::from_millis(400)))?;
        let sent = 0;
        Ok(Self {
            sender,
            receiver,
            sent,
        })
    }

    /// True if a packet arrives.
    fn passes(&mut self) -> bool {
        self.sent += 1;
        let packet = self.sent.to_ne_bytes();
        self.sender.send(&packet).expect("a packet");
        let mut received = [0; 8];
        loop {
            match self.receiver.recv(&mut received) {
                Ok(_) if received == packet => return true,
                // An earlier packet that was late.
                Ok(_) => {}
                Err(error) => {
                    let late = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                    assert!(late, "{error}");
                    return false;
                }
            }
        }
    }
}

#[common::test(ROOT)]
fn a_link_is_detached_with_its_last_descriptor() -> Outcome {
    in_network_namespace(|| {
        let mut wire = Wire::new()?;
        assert!(wire.passes());
        let link = LinkSpec::xdp(LOOPBACK).create(&xdp_prog(XDP_DROP))?;
        assert!(!wire.passes());
        let clone = link.try_clone()?;
        drop(link);
        assert!(!wire.passes());
        // Each update takes effect at once.
        clone.update(&xdp_prog(XDP_PASS))?;
        assert!(wire.passes());
        clone.update(&xdp_prog(XDP_DROP))?;
        assert!(!wire.passes());
        drop(clone);
        wait_until("a packet passes", || wire.passes());
        Ok(())
    })
}

fn check_pin(spec: LinkSpec<'_>, prog: Prog) -> Outcome {
    let fs = TestFs::new();
    let mut wire = Wire::new()?;
    let prog_id = prog.id()?;
    let link = spec.create(&prog)?.pin(fs.at("drop"))?;
    let info = link.info()?;
    drop((link, prog));
    assert!(!wire.passes());
    let again = PinnedLink::open(fs.at("drop"))?;
    assert_eq!(again.info()?, info);
    assert_eq!(again.info()?.prog_id, prog_id);
    drop(again);
    // A second name keeps the link when the first is removed.
    fs::hard_link(fs.at("drop"), fs.at("again"))?;
    fs::rename(fs.at("again"), fs.at("other"))?;
    fs::remove_file(fs.at("drop"))?;
    assert!(!wire.passes());
    assert_eq!(Link::from_id(info.id)?.info()?, info);

    fs::remove_file(fs.at("other"))?;
    wait_until("a packet passes", || wire.passes());
    wait_until("gone", || {
        Link::from_id(info.id).is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT))
    });
    assert_eq!(fs.names(), [""; 0]);
    Ok(())
}

#[common::test(ROOT)]
fn unpin_keeps_a_link_attached() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let mut wire = Wire::new()?;
        let link = LinkSpec::xdp(LOOPBACK).create(&xdp_prog(XDP_DROP))?;
        let id = link.id()?;
        let link = link.pin(fs.at("drop"))?.unpin()?;
        assert_eq!(fs.names(), [""; 0]);
        assert_eq!(link.id()?, id);
        assert!(!wire.passes());
        // A failed pin does not detach it.
        let failed = link.pin(fs.at("no.dots")).expect_err("a name with a dot");
        assert_cause_matches!(failed, Cause::Dot { .. });
        let link = failed.into_object();
        assert_eq!(link.id()?, id);
        assert!(!wire.passes());
        drop(link);
        wait_until("a packet passes", || wire.passes());
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_link_that_is_detached_stays_pinned() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let mut wire = Wire::new()?;
        let link = LinkSpec::xdp(LOOPBACK).create(&xdp_prog(XDP_DROP))?;
        let link = link.pin(fs.at("drop"))?;
        assert!(!wire.passes());
        link.detach()?;
        assert!(wire.passes());
        assert_eq!(fs.names(), ["drop"]);
        let again = PinnedLink::open(fs.at("drop"))?;
        assert_eq!(again.id()?, link.id()?);
        let update = again.update(&xdp_prog(XDP_DROP));
        let error = update.expect_err("nothing to update");
        assert_eq!(error.raw_os_error(), Some(libc::ENOLINK));
        assert_eq!(error.cause(), Some(&Cause::Detached));
        assert!(wire.passes());
        assert_eq!(Object::open(fs.at("drop"))?.kind(), Kind::Link);
        again.unpin()?;
        assert_eq!(fs.names(), [""; 0]);
        Ok(())
    })
}
