//! How long a link holds on: with its last descriptor it lets go, under a pin it does not.

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
fn a_link_lets_go_with_its_last_descriptor() -> Outcome {
    in_network_namespace(last_descriptor)
}

#[common::test(ROOT)]
fn a_pin_keeps_xdp_in_place() -> Outcome {
    in_network_namespace(|| pinned(LinkSpec::xdp(LOOPBACK), xdp_prog(XDP_DROP)))
}

#[common::test(TCX)]
fn a_pin_keeps_tcx_in_place() -> Outcome {
    let spec = LinkSpec::tcx(LOOPBACK, AttachType::TCX_EGRESS);
    in_network_namespace(|| {
        pinned(
            spec,
            prog_returning(ProgType::SCHED_CLS, AttachType(0), TCX_DROP),
        )
    })
}

#[common::test(ROOT)]
fn unpinned_and_still_in_place() -> Outcome {
    in_network_namespace(unpinned)
}

#[common::test(ROOT)]
fn detached_under_its_pin() -> Outcome {
    in_network_namespace(detached_under_pin)
}

const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const TCX_DROP: i32 = 2;

fn xdp_prog(value: i32) -> Prog {
    prog_returning(ProgType::XDP, AttachType(0), value)
}

/// Two ends of a network that a program may cut.
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

    /// Whether a packet gets through.
    fn open(&mut self) -> bool {
        self.sent += 1;
        let packet = self.sent.to_ne_bytes();
        self.sender.send(&packet).expect("a packet");
        let mut received = [0; 8];
        loop {
            match self.receiver.recv(&mut received) {
                Ok(_) if received == packet => return true,
                // One that was sent before, and late.
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

fn last_descriptor() -> Outcome {
    let mut wire = Wire::new()?;
    assert!(wire.open());
    let link = LinkSpec::xdp(LOOPBACK).create(&xdp_prog(XDP_DROP))?;
    assert!(!wire.open());
    let clone = link.try_clone()?;
    drop(link);
    assert!(!wire.open());
    // In an instant the other way round, and back.
    clone.update(&xdp_prog(XDP_PASS))?;
    assert!(wire.open());
    clone.update(&xdp_prog(XDP_DROP))?;
    assert!(!wire.open());
    drop(clone);
    wait_until("open", || wire.open());
    Ok(())
}

fn pinned(spec: LinkSpec<'_>, prog: Prog) -> Outcome {
    let fs = TestFs::new();
    let mut wire = Wire::new()?;
    let prog_id = prog.id()?;
    let link = spec.create(&prog)?.pin(fs.at("cut"))?;
    let info = link.info()?;
    drop((link, prog));
    assert!(!wire.open());
    let again = PinnedLink::open(fs.at("cut"))?;
    assert_eq!(again.info()?, info);
    assert_eq!(again.info()?.prog_id, prog_id);
    drop(again);
    // Another name is the same link; the first may go.
    fs::hard_link(fs.at("cut"), fs.at("again"))?;
    fs::rename(fs.at("again"), fs.at("other"))?;
    fs::remove_file(fs.at("cut"))?;
    assert!(!wire.open());
    assert_eq!(Link::from_id(info.id)?.info()?, info);

    fs::remove_file(fs.at("other"))?;
    wait_until("open", || wire.open());
    wait_until("gone", || {
        Link::from_id(info.id).is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT))
    });
    assert_eq!(fs.names(), [""; 0]);
    Ok(())
}

fn unpinned() -> Outcome {
    let fs = TestFs::new();
    let mut wire = Wire::new()?;
    let link = LinkSpec::xdp(LOOPBACK).create(&xdp_prog(XDP_DROP))?;
    let id = link.id()?;
    let link = link.pin(fs.at("cut"))?.unpin()?;
    assert_eq!(fs.names(), [""; 0]);
    assert_eq!(link.id()?, id);
    assert!(!wire.open());
    // A pin that fails does not let go either.
    let failed = link.pin(fs.at("no.dots")).expect_err("a name with a dot");
    assert!(matches!(failed.cause(), Some(Cause::Dot { .. })));
    let link = failed.into_object();
    assert_eq!(link.id()?, id);
    assert!(!wire.open());
    drop(link);
    wait_until("open", || wire.open());
    Ok(())
}

fn detached_under_pin() -> Outcome {
    let fs = TestFs::new();
    let mut wire = Wire::new()?;
    let link = LinkSpec::xdp(LOOPBACK).create(&xdp_prog(XDP_DROP))?;
    let link = link.pin(fs.at("cut"))?;
    assert!(!wire.open());
    link.detach()?;
    assert!(wire.open());
    assert_eq!(fs.names(), ["cut"]);
    let again = PinnedLink::open(fs.at("cut"))?;
    assert_eq!(again.id()?, link.id()?);
    let update = again.update(&xdp_prog(XDP_DROP));
    let error = update.expect_err("nothing to update");
    assert_eq!(error.raw_os_error(), Some(libc::ENOLINK));
    assert_eq!(error.cause(), Some(&Cause::Detached));
    assert!(wire.open());
    assert_eq!(Object::open(fs.at("cut"))?.kind(), Kind::Link);
    again.unpin()?;
    assert_eq!(fs.names(), [""; 0]);
    Ok(())
}
