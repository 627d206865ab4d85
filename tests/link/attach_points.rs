//! The options of attach points: order, revision and XDP modes; and links of netkit, netfilter and sockmaps.

use std::fs::File;
use std::os::fd::AsRawFd;

use bpf_pin::abi::Version;
use bpf_pin::error::{Cause, Operation};
use bpf_pin::link::{Anchor, LinkTarget, Position, XdpFlags};
use bpf_pin::reuse::Attachment;
use bpf_pin::types::{AttachType, LinkType, ProgType};
use bpf_pin::{Link, LinkSpec, MapSpec, MapType, PinDir, Prog, abi};
use common::*;

use crate::lifecycle::{
    assert_invalid, assert_refused, assert_unsupported, check_lifecycle, wrong_prog_type,
};

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const VETH: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, Need::Feature(Feature::Veth)];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];

#[common::test(TCX)]
fn tcx_links_are_ordered_by_position() -> Outcome {
    in_network_namespace(|| {
        let at = AttachType::TCX_EGRESS;
        check_order(
            &LinkSpec::tcx(LOOPBACK, at),
            || attached_progs(LOOPBACK, at),
            tcx_prog,
        )
    })
}

fn check_order(
    spec: &LinkSpec<'_>,
    seen: impl Fn() -> (Vec<u32>, u64),
    make: impl Fn() -> Prog,
) -> Outcome {
    let progs: Vec<_> = (0..7).map(|_| make()).collect();
    let ids: Vec<_> = progs.iter().map(Prog::id).collect::<Result<_, _>>()?;
    let see = || -> Vec<usize> {
        let place = |id: &u32| ids.iter().position(|known| known == id);
        seen().0.iter().map(|id| place(id).expect("ours")).collect()
    };
    let mut links = vec![spec.create(&progs[0])?];
    assert_eq!(see(), [0]);
    links.push(spec.position(Position::Last).create(&progs[1])?);
    links.push(spec.position(Position::First).create(&progs[2])?);
    assert_eq!(see(), [2, 0, 1]);
    let before = Position::Before(Anchor::Link(&links[0]));
    let made = spec.position(before).create(&progs[3])?;
    let after = Position::After(Anchor::LinkId(links[0].id()?));
    let other = spec.position(after).create(&progs[4])?;
    assert_eq!(see(), [2, 3, 0, 4, 1]);
    links.extend([made, other]);
    // A cgroup link is placed relative to links only, not to programs.
    let at_cgroup = links[0].info()?.link_type == LinkType::CGROUP;
    let (second, first) = (Anchor::Prog(&progs[1]), Anchor::ProgId(ids[2]));
    let (second, first) = match at_cgroup {
        true => {
            for anchor in [first, second] {
                let error = spec.position(Position::Before(anchor)).create(&make());
                let error = error.expect_err("a program");
                assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
            }
            (Anchor::Link(&links[1]), Anchor::LinkId(links[2].id()?))
        }
        false => (second, first),
    };
    let before = spec.position(Position::Before(second)).create(&progs[5])?;
    let after = spec.position(Position::After(first)).create(&progs[6])?;
    links.extend([before, after]);
    assert_eq!(see(), [2, 6, 3, 0, 4, 5, 1]);

    // An anchor that does not exist, and a stale revision.
    let error = spec
        .position(Position::Before(Anchor::LinkId(u32::MAX)))
        .create(&make())
        .expect_err("no such link");
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
    let revision = seen().1;
    assert!(revision > 0);
    let stale = spec.expected_revision(revision - 1).create(&make());
    let error = stale.expect_err("another revision");
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
    assert_cause(&error, libc::ESTALE, None);
    let at_this = spec.expected_revision(revision).create(&make())?;
    assert!(seen().1 > revision);
    drop(at_this);
    assert_eq!(seen().0.len(), 7);
    // An update keeps the position.
    links[0].update(&progs[0])?;
    assert_eq!(see(), [2, 6, 3, 0, 4, 5, 1]);
    Ok(())
}

#[common::test(ROOT)]
fn tcx_needs_linux_6_6() -> Outcome {
    in_network_namespace(|| {
        let spec = LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS);
        let made = spec.create(&tcx_prog());
        if kernel(6, 6).unmet().is_none() {
            made?;
            return Ok(());
        }
        let unsupported = Cause::Unsupported {
            what: "BPF_TCX_INGRESS",
            since: Version::new(6, 6),
        };
        assert_refused(made, Operation::CreateLink, libc::EINVAL, unsupported);
        Ok(())
    })
}

#[common::test(ROOT)]
fn cgroup_links_are_ordered_by_position_since_linux_6_17() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        let attach_type = AttachType::CGROUP_INET_EGRESS;
        let spec = LinkSpec::cgroup(&file, attach_type);
        let seen = || attached_progs(file.as_raw_fd() as u32, attach_type);
        let first = spec.position(Position::First).create(&cgroup_prog());
        // Older releases may have a backport.
        if kernel(6, 17).unmet().is_none() || first.is_ok() {
            drop(first?);
            return check_order(&spec, seen, cgroup_prog);
        }
        let error = first.expect_err("a position");
        assert!(matches!(error.cause(), Some(Cause::Unsupported { .. })));
        // Several links can be attached without positions.
        let _links = [spec.create(&cgroup_prog())?, spec.create(&cgroup_prog())?];
        assert_eq!(seen().0.len(), 2);
        Ok(())
    })
}

#[common::test(ROOT)]
fn netkit_links_last_as_long_as_their_device() -> Outcome {
    in_network_namespace(|| {
        const DEVICE: u32 = 77;
        let attach_type = AttachType::NETKIT_PRIMARY;
        let spec = LinkSpec::netkit(DEVICE, attach_type);
        let made = spec.create(&tcx_prog());
        let error = made.expect_err("no such device");
        if error.raw_os_error() == Some(libc::EINVAL) {
            // Before Linux 6.7, or a kernel built without netkit.
            assert_eq!(error.operation(), Operation::CreateLink);
            let error = add_device(DEVICE, "netkit").expect_err("a kernel without netkit");
            assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
            return Ok(());
        }
        assert_cause_matches!(error, Cause::NoTarget { .. });
        add_device(DEVICE, "netkit")?;
        let ifindex = DEVICE;
        let target = LinkTarget::Netkit {
            ifindex,
            attach_type,
        };
        check_lifecycle(spec, tcx_prog, LinkType::NETKIT, target)?;
        check_order(&spec, || attached_progs(DEVICE, attach_type), tcx_prog)?;
        let error = LinkSpec::netkit(LOOPBACK, attach_type).create(&tcx_prog());
        let error = error.expect_err("another kind of device");
        assert_eq!(error.raw_os_error(), Some(libc::ENXIO), "{error}");

        // The link is detached with its device, and attached again to the next device with the same index.
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let prog = tcx_prog();
        let peer = LinkSpec::netkit(DEVICE, AttachType::NETKIT_PEER);
        for (each, attach_type) in [
            (&spec, attach_type),
            (&peer, AttachType::NETKIT_PEER),
            (
                &LinkSpec::tcx(DEVICE, AttachType::TCX_INGRESS),
                AttachType::TCX_INGRESS,
            ),
        ] {
            let made = dir.open_or_attach("link", each, &prog)?;
            assert_eq!(made.attachment, Attachment::Attached);
            let same = dir.open_or_attach("link", each, &prog)?;
            assert_eq!(same.attachment, Attachment::Unchanged, "{attach_type}");
            let info = made.link.info()?;
            assert!(!info.target.is_gone());
            remove_device(DEVICE)?;
            wait_until("gone", || {
                made.link.info().is_ok_and(|info| info.target.is_gone())
            });
            let error = dir
                .open_or_attach("link", each, &prog)
                .expect_err("no device");
            assert_cause_matches!(error, Cause::NoTarget { .. });
            assert_eq!(dir.identity("link")?.id, info.id);
            add_device(DEVICE, "netkit")?;
            let anew = dir.open_or_attach("link", each, &prog)?;
            assert_eq!(anew.attachment, Attachment::Reattached, "{attach_type}");
            let target = anew.link.info()?.target;
            // The peer has a new index each time.
            match attach_type {
                AttachType::NETKIT_PEER => assert!(!target.is_gone()),
                _ => assert_eq!(target, info.target),
            }
            dir.unlink("link")?;
        }
        Ok(())
    })
}

#[common::test(ROOT)]
fn netfilter_links_have_no_updates() -> Outcome {
    in_network_namespace(|| {
        const NFPROTO_IPV4: u32 = 2;
        const NF_INET_LOCAL_IN: u32 = 1;
        let spec = LinkSpec::netfilter(NFPROTO_IPV4, NF_INET_LOCAL_IN, -7);
        if kernel(6, 4).unmet().is_some() {
            let prog = prog();
            let made = spec.create(&prog);
            let cause = wrong_prog_type(&prog, AttachType::NETFILTER, &[ProgType::NETFILTER]);
            assert_refused(made, Operation::CreateLink, libc::EINVAL, cause);
            return Ok(());
        }
        let make = || prog_returning(ProgType::NETFILTER, AttachType::NETFILTER, 1);
        let (first, second) = (make(), make());
        let link = spec.create(&first)?;
        let info = link.info()?;
        assert_eq!(info.link_type, LinkType::NETFILTER);
        assert!(matches!(
            info.target,
            LinkTarget::Netfilter {
                pf: NFPROTO_IPV4,
                hooknum: NF_INET_LOCAL_IN,
                priority: -7,
                flags: 0,
                ..
            }
        ));
        let second_link = spec.create(&second);
        assert_refused(second_link, Operation::CreateLink, libc::EBUSY, None);
        assert_unsupported(
            link.update(&second),
            Operation::UpdateLink,
            libc::EOPNOTSUPP,
            LinkType::NETFILTER,
        );
        link.detach()?;
        let again = spec.create(&second)?;
        assert_eq!(again.info()?.prog_id, second.id()?);
        let unknown_family = LinkSpec::netfilter(4711, 1, 1).create(&first);
        assert_refused(
            unknown_family,
            Operation::CreateLink,
            libc::EAFNOSUPPORT,
            None,
        );
        Ok(())
    })
}

#[common::test(ROOT)]
fn sockmap_links_are_updated_and_reattached() -> Outcome {
    let map = MapSpec::new(MapType::SOCKMAP, 4, 4, 4).create()?;
    let attach_type = AttachType::SK_MSG_VERDICT;
    let spec = LinkSpec::sockmap(&map, attach_type);
    let make = || prog_returning(ProgType::SK_MSG, attach_type, 1);
    let (first, second) = (make(), make());
    let made = spec.create(&first);
    if kernel(6, 10).unmet().is_some() {
        assert_refused(made, Operation::CreateLink, libc::EINVAL, None);
        return Ok(());
    }
    let link = made?;
    let info = link.info()?;
    let map_id = map.id()?;
    let target = LinkTarget::Sockmap {
        map_id,
        attach_type,
    };
    assert_eq!((info.link_type, info.target), (LinkType::SOCKMAP, target));
    let second_link = spec.create(&second);
    assert_refused(second_link, Operation::CreateLink, libc::EBUSY, None);
    drop(link);
    check_lifecycle(spec, make, LinkType::SOCKMAP, target)?;

    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let made = dir.open_or_attach("link", &spec, &first)?;
    assert_eq!(made.attachment, Attachment::Attached);
    made.link.detach()?;
    let again = dir.open_or_attach("link", &spec, &second)?;
    assert_eq!(again.attachment, Attachment::Reattached);
    let other = MapSpec::new(MapType::SOCKMAP, 4, 4, 4).create()?;
    let elsewhere = LinkSpec::sockmap(&other, attach_type);
    let error = dir
        .open_or_attach("link", &elsewhere, &second)
        .expect_err("another map");
    assert_cause_matches!(error, Cause::AttachedElsewhere { found, .. } if *found == target.to_string());
    let hash = hash();
    let error = LinkSpec::sockmap(&hash, attach_type).create(&first);
    let error = error.expect_err("another map");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    Ok(())
}

#[common::test(ROOT)]
fn a_struct_ops_link_needs_a_struct_ops_map() -> Outcome {
    let map = hash();
    let error = Link::of_struct_ops(&map).expect_err("a hash");
    assert_fails(&error, Operation::CreateLink, libc::EINVAL, None);
    let link = detached_link();
    let error = link.update_map(&map).expect_err("a link of a program");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    Ok(())
}

#[common::test(ROOT)]
fn loopback_has_only_generic_xdp() -> Outcome {
    in_network_namespace(|| {
        let prog = xdp_prog();
        let spec = LinkSpec::xdp(LOOPBACK);
        drop(spec.xdp_flags(XdpFlags::SKB_MODE).create(&prog)?);
        // Loopback has neither native nor offloaded XDP, and the modes exclude each other.
        for (flags, errno) in [
            (XdpFlags::DRV_MODE, libc::EOPNOTSUPP),
            (XdpFlags::SKB_MODE | XdpFlags::DRV_MODE, libc::EINVAL),
            (XdpFlags::from_bits_retain(1 << 4), libc::EINVAL),
            (XdpFlags::from_bits_retain(1 << 20), libc::EINVAL),
        ] {
            let error = spec.xdp_flags(flags).create(&prog).expect_err("a mode");
            assert_eq!(error.raw_os_error(), Some(errno), "{flags:?}: {error}");
            assert_eq!(error.cause().is_some(), errno == libc::EINVAL, "{error}");
        }
        wait_until("free", || spec.create(&prog).is_ok());
        Ok(())
    })
}

#[common::test(ROOT)]
fn loopback_has_no_native_xdp() -> Outcome {
    in_network_namespace(|| {
        let spec = LinkSpec::xdp(LOOPBACK).xdp_flags(XdpFlags::DRV_MODE);
        spec.create(&xdp_prog()).expect_err("no such mode");
        Ok(())
    })
}

#[common::test(VETH)]
fn native_and_generic_xdp_exclude_each_other() -> Outcome {
    in_network_namespace(|| {
        const DEVICE: u32 = 78;
        let (first, second) = (xdp_prog(), xdp_prog());
        add_device(DEVICE, "veth")?;
        let spec = LinkSpec::xdp(DEVICE);
        let modes = [XdpFlags::SKB_MODE, XdpFlags::DRV_MODE];
        for (has, wants) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let link = spec.xdp_flags(modes[has]).create(&first)?;
            let errno = if has == wants {
                libc::EBUSY
            } else {
                libc::EEXIST
            };
            let prog_id = first.id()?;
            let ifindex = DEVICE;
            let cause = Cause::XdpAttached { ifindex, prog_id };
            let made = spec.xdp_flags(modes[wants]).create(&second);
            assert_refused(made, Operation::CreateLink, errno, cause);
            link.detach()?;
        }
        Ok(())
    })
}

#[common::test(ROOT)]
fn options_that_a_target_does_not_have_are_rejected() -> Outcome {
    let (prog, map) = (prog(), hash());
    let file = File::open("/proc/self/status")?;
    let xdp = LinkSpec::xdp(LOOPBACK);
    let tcx = LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS);
    let netns = LinkSpec::netns(&file, AttachType::SK_LOOKUP);
    for (spec, option) in [
        (xdp.position(Position::First), "position"),
        (xdp.expected_revision(1), "expected_revision"),
        (netns.position(Position::Last), "position"),
        (netns.cookie(1), "cookie"),
        (tcx.flags(abi::BPF_F_LINK | abi::BPF_F_BEFORE), "BPF_F_LINK"),
        (tcx.flags(abi::BPF_F_REPLACE), "BPF_F_REPLACE"),
        (tcx.flags(abi::BPF_F_ID), "flags"),
        // The same bit is BPF_F_BEFORE for TCX.
        (tcx.xdp_flags(XdpFlags::HW_MODE), "xdp_flags"),
        (LinkSpec::sockmap(&map, AttachType::XDP), "attach_type"),
        (
            LinkSpec::netkit(LOOPBACK, AttachType::SK_LOOKUP),
            "attach_type",
        ),
    ] {
        assert_invalid(spec.create(&prog), option);
    }
    Ok(())
}
