//! Links: where they attach a program, how they change it, and what is left when they are detached.

use crate::life;

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::link::{LinkTarget, XdpFlags};
use bpf_pin::map::ElemFlags;
use bpf_pin::probe::Capability;
use bpf_pin::prog::Insn;
use bpf_pin::types::{AttachType, LinkType, ProgType};
use bpf_pin::{Link, LinkSpec, MapSpec, MapType, ProgSpec, abi};
use common::*;
use rustix::thread::CapabilitySet;

use life::{life, refused};

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];
const OTHERS: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, cap::SETUID];
const LSM: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, Need::Feature(Feature::Lsm)];

#[common::test(ROOT)]
fn network_namespace() -> Outcome {
    in_network_namespace(netns)
}

#[common::test(ROOT)]
fn xdp() -> Outcome {
    in_network_namespace(check_xdp)
}

#[common::test(TCX)]
fn tcx() -> Outcome {
    in_network_namespace(check_tcx)
}

#[common::test(ROOT)]
fn a_second_xdp_link() -> Outcome {
    in_network_namespace(second_xdp)
}

#[common::test(ROOT)]
fn programs_loaded_for_xdp_or_not() -> Outcome {
    in_network_namespace(loaded_for_xdp)
}

#[common::test(TCX)]
fn a_second_tcx_link() -> Outcome {
    in_network_namespace(second_tcx)
}

#[common::test(ROOT)]
fn a_second_flow_dissector() -> Outcome {
    in_network_namespace(second_flow_dissector)
}

#[common::test(ROOT)]
fn what_does_not_fit_is_refused() -> Outcome {
    in_network_namespace(misfits)
}

fn netns_file() -> File {
    File::open("/proc/thread-self/ns/net").expect("this thread's network")
}

fn netns() -> Outcome {
    let netns = netns_file();
    let attach_type = AttachType::SK_LOOKUP;
    let target = LinkTarget::Netns {
        netns_ino: u32::try_from(netns.metadata()?.ino())?,
        attach_type,
    };
    let spec = LinkSpec::netns(&netns, attach_type);
    life(spec, sk_lookup_prog, LinkType::NETNS, target)
}

fn check_xdp() -> Outcome {
    let make = xdp_prog;
    let target = LinkTarget::Xdp { ifindex: LOOPBACK };
    life(LinkSpec::xdp(LOOPBACK), make, LinkType::XDP, target)?;
    // The only one that loopback has.
    let generic = LinkSpec::xdp(LOOPBACK).xdp_flags(XdpFlags::SKB_MODE);
    wait_until("free", || generic.create(&make()).is_ok());
    Ok(())
}

fn check_tcx() -> Outcome {
    for attach_type in [AttachType::TCX_INGRESS, AttachType::TCX_EGRESS] {
        let target = LinkTarget::Tcx {
            ifindex: LOOPBACK,
            attach_type,
        };
        life(
            LinkSpec::tcx(LOOPBACK, attach_type),
            tcx_prog,
            LinkType::TCX,
            target,
        )?;
    }
    Ok(())
}

#[common::test(ROOT)]
fn control_group() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        let attach_type = AttachType::CGROUP_INET_EGRESS;
        let target = LinkTarget::Cgroup {
            cgroup_id: file.metadata()?.ino(),
            attach_type,
        };
        let spec = LinkSpec::cgroup(&file, attach_type);
        life(spec, cgroup_prog, LinkType::CGROUP, target)
    })
}

/// Linux 6.0.
#[common::test(LSM)]
fn a_control_groups_hooks_of_security() -> Outcome {
    let attach_type = AttachType::LSM_CGROUP;
    let insns = [Insn::mov64_imm(0, 1), Insn::exit()];
    let spec = ProgSpec::new(ProgType::LSM, &insns)
        .license(c"GPL")
        .expected_attach_type(attach_type)
        .attach_btf_id(function_btf_id("bpf_lsm_socket_bind")?);
    let loaded = spec.load();
    let is_known = kernel(6, 0).unmet().is_none();
    if let Err(error) = &loaded {
        // Built without such programs, or with a rule that nobody loads one: as those of the old way.
        let of_old = spec.clone().expected_attach_type(AttachType::LSM_MAC);
        let is_old = of_old.load().is_ok();
        assert!(!is_known || !is_old, "{error}");
        return Ok(());
    }
    assert!(is_known);
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        let target = LinkTarget::Cgroup {
            cgroup_id: file.metadata()?.ino(),
            attach_type,
        };
        let make = || spec.load().expect("as the first");
        let at = LinkSpec::cgroup(&file, attach_type);
        life(at, make, LinkType::CGROUP, target)
    })
}

/// A fresh link is refused it; an update was not, as the kernel compares the types alone.
#[common::test(OTHERS)]
fn a_program_for_another_way() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        let attach_type = AttachType::CGROUP_INET4_CONNECT;
        let spec = LinkSpec::cgroup(&file, attach_type);
        let make = |way| prog_returning(ProgType::CGROUP_SOCK_ADDR, way, 1);
        let (first, second) = (make(attach_type), make(attach_type));
        let bind = make(AttachType::CGROUP_INET4_BIND);
        let text = "attach a program to cgroup_inet4_connect: the program was not loaded for \
                    cgroup_inet4_connect";
        let error = refused(spec.create(&bind), libc::EINVAL, text);
        assert_eq!(error.cause(), Some(&Cause::NotLoadedFor { attach_type }));
        let link = spec.create(&first)?;
        let id = link.id()?;
        let text = format!("update link {id}: the program was not loaded for cgroup_inet4_connect");
        for update in [link.update(&bind), link.update_from(&bind, &first)] {
            let error = refused(update, libc::EINVAL, &text);
            assert_eq!(error.cause(), Some(&Cause::NotLoadedFor { attach_type }));
        }
        assert_eq!(link.info()?.prog_id, first.id()?);
        link.update_from(&second, &first)?;
        assert_eq!(link.info()?.prog_id, second.id()?);

        // Of the other type it is what it returns that counts, to a fresh link and to this.
        let (ingress, egress) = (
            AttachType::CGROUP_INET_INGRESS,
            AttachType::CGROUP_INET_EGRESS,
        );
        let spec = LinkSpec::cgroup(&file, ingress);
        let make = |way, value| prog_returning(ProgType::CGROUP_SKB, way, value);
        let link = spec.create(&make(ingress, 1))?;
        let congested = make(egress, 2);
        spec.create(&congested)
            .expect_err("what ingress does not know");
        let error = link.update(&congested).expect_err("likewise");
        assert!(
            matches!(error.cause(), Some(Cause::NotLoadedFor { .. })),
            "{error}"
        );
        let plain = make(egress, 1);
        spec.create(&plain)?;
        link.update(&plain)?;
        // Whoever may not attach it may update the link: what was not proven is no refusal.
        let another = make(ingress, 1);
        as_user(CapabilitySet::BPF, || link.update(&another))?;
        assert_eq!(link.info()?.prog_id, another.id()?);
        Ok(())
    })
}

/// As those that aya and libbpf load are.
fn loaded_for_xdp() -> Outcome {
    let (plain, named) = (
        xdp_prog(),
        prog_returning(ProgType::XDP, AttachType::XDP, 2),
    );
    for (first, second) in [(&plain, &named), (&named, &plain)] {
        let link = LinkSpec::xdp(LOOPBACK).create(first)?;
        let text = format!("update link {}: EINVAL", link.id()?);
        refused(link.update(second), libc::EINVAL, &text);
        assert_eq!(link.info()?.prog_id, first.id()?);
        link.detach()?;
    }
    Ok(())
}

fn second_xdp() -> Outcome {
    let (first, second) = (xdp_prog(), xdp_prog());
    let spec = LinkSpec::xdp(LOOPBACK);
    let link = spec.create(&first)?;
    for prog in [&first, &second] {
        let prog_id = first.id()?;
        let text = format!(
            "attach a program to xdp of device 1: device 1 has XDP program {prog_id} already"
        );
        let error = refused(spec.create(prog), libc::EBUSY, &text);
        let ifindex = LOOPBACK;
        let cause = Cause::XdpAttached { ifindex, prog_id };
        assert_eq!(error.cause(), Some(&cause));
        assert_eq!(error.operation(), Operation::CreateLink);
    }
    assert_eq!(link.info()?.prog_id, first.id()?);
    drop(link);
    wait_until("free", || spec.create(&second).is_ok());
    Ok(())
}

fn second_tcx() -> Outcome {
    let (first, second) = (tcx_prog(), tcx_prog());
    let spec = LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS);
    let links = [spec.create(&first)?, spec.create(&second)?];
    assert_ne!(links[0].id()?, links[1].id()?);
    for link in &links {
        assert!(matches!(
            link.info()?.target,
            LinkTarget::Tcx {
                ifindex: LOOPBACK,
                ..
            }
        ));
    }
    // The same program twice.
    let text = "attach a program to tcx_ingress of device 1: EEXIST";
    refused(spec.create(&first), libc::EEXIST, text);
    let text = format!("update link {}: EEXIST", links[0].id()?);
    refused(links[0].update(&second), libc::EEXIST, &text);
    assert_eq!(links[0].info()?.prog_id, first.id()?);
    links[0].detach()?;
    assert_eq!(links[1].info()?.prog_id, second.id()?);
    Ok(())
}

fn second_flow_dissector() -> Outcome {
    let netns = netns_file();
    let prog = prog_returning(ProgType::FLOW_DISSECTOR, AttachType::FLOW_DISSECTOR, 0);
    let spec = LinkSpec::netns(&netns, AttachType::FLOW_DISSECTOR);
    let link = spec.create(&prog)?;
    assert!(matches!(
        link.info()?.target,
        LinkTarget::Netns {
            attach_type: AttachType::FLOW_DISSECTOR,
            ..
        }
    ));
    let text = "attach a program to flow_dissector: E2BIG";
    refused(spec.create(&prog), libc::E2BIG, text);
    Ok(())
}

fn misfits() -> Outcome {
    let (lookup, xdp) = (sk_lookup_prog(), xdp_prog());
    let (netns, other) = (netns_file(), File::open("/proc/self/status")?);
    let lookups = AttachType::SK_LOOKUP;
    let to_lookups = "attach a program to sk_lookup: EINVAL";
    for (spec, prog) in [
        (LinkSpec::netns(&netns, lookups).flags(1), &lookup),
        (LinkSpec::netns(&other, lookups), &lookup),
    ] {
        let error = refused(spec.create(prog), libc::EINVAL, to_lookups);
        assert!(error.cause().is_none());
    }
    let text = "attach a program to xdp of device 1: EINVAL";
    for (spec, prog) in [
        (LinkSpec::xdp(LOOPBACK).flags(1 << 31), &xdp),
        // A driver of its own loopback has not.
        (
            LinkSpec::xdp(LOOPBACK).xdp_flags(XdpFlags::SKB_MODE | XdpFlags::DRV_MODE),
            &xdp,
        ),
    ] {
        refused(spec.create(prog), libc::EINVAL, text);
    }
    let text =
        "attach a program to cgroup_inet_egress: it is a file on proc, not a cgroup2 directory";
    let spec = LinkSpec::cgroup(&other, AttachType::CGROUP_INET_EGRESS);
    let error = refused(spec.create(&cgroup_prog()), libc::EBADF, text);
    assert!(matches!(error.cause(), Some(Cause::WrongDescriptor { .. })));

    // A device's index and a descriptor are one word to the kernel, so neither passes for the other.
    for (spec, text) in [
        (
            LinkSpec::netns(&netns, AttachType(4711)),
            "type 4711: attach_type type 4711 cannot be used with a network namespace",
        ),
        (
            LinkSpec::netns(&netns, AttachType::XDP),
            "xdp: attach_type xdp cannot be used with a network namespace",
        ),
        (
            LinkSpec::cgroup(&netns, AttachType::TCX_EGRESS),
            "tcx_egress: attach_type tcx_egress cannot be used with a cgroup",
        ),
        (
            LinkSpec::tcx(LOOPBACK, AttachType::CGROUP_INET_EGRESS),
            "cgroup_inet_egress of device 1: attach_type cgroup_inet_egress cannot be used with a tcx device",
        ),
        (
            LinkSpec::tcx(LOOPBACK, AttachType::XDP),
            "xdp of device 1: attach_type xdp cannot be used with a tcx device",
        ),
        (
            LinkSpec::tcx(LOOPBACK, AttachType::NETKIT_PEER),
            "netkit_peer of device 1: attach_type netkit_peer cannot be used with a tcx device",
        ),
        (
            LinkSpec::netkit(LOOPBACK, AttachType::TCX_EGRESS),
            "tcx_egress of device 1: attach_type tcx_egress cannot be used with a netkit device",
        ),
        (
            LinkSpec::netkit(LOOPBACK, AttachType::XDP),
            "xdp of device 1: attach_type xdp cannot be used with a netkit device",
        ),
    ] {
        let error = spec.create(&lookup).expect_err(text);
        assert_eq!(error.operation(), Operation::CreateLink);
        assert_eq!(error.raw_os_error(), None);
        assert!(matches!(error.cause(), Some(Cause::InvalidArgument { .. })));
    }

    // A device that is not there.
    let nowhere = LinkSpec::xdp(4711).create(&xdp);
    let no_device = "there is no network device 4711 in this thread's network namespace";
    let text = format!("attach a program to xdp of device 4711: {no_device}");
    let error = refused(nowhere, libc::EINVAL, &text);
    assert!(matches!(error.cause(), Some(Cause::NoTarget { .. })));
    if kernel(6, 6).unmet().is_none() {
        let spec = LinkSpec::tcx(4711, AttachType::TCX_INGRESS);
        let text = format!("attach a program to tcx_ingress of device 4711: {no_device}");
        let error = refused(spec.create(&tcx_prog()), libc::ENODEV, &text);
        assert!(matches!(error.cause(), Some(Cause::NoTarget { .. })));
    }
    // None of these has left anything behind.
    LinkSpec::xdp(LOOPBACK).create(&xdp)?;
    Ok(())
}

#[common::test(OTHERS)]
fn without_the_right_to_attach() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let (file, prog) = (cgroup.open(), cgroup_prog());
        let spec = LinkSpec::cgroup(&file, AttachType::CGROUP_INET_EGRESS);
        as_user(CapabilitySet::BPF, || {
            let error = refused(
                spec.create(&prog),
                libc::EPERM,
                "attach a program to cgroup_inet_egress: this thread lacks CAP_NET_ADMIN, \
                 needed for programs of this type",
            );
            assert!(matches!(
                error.cause(),
                Some(Cause::MissingCapability {
                    capability: Capability::NetAdmin,
                    ..
                })
            ));
        });
        spec.create(&prog)?;
        Ok(())
    })
}

#[common::test(ROOT)]
fn what_it_was_attached_to_is_gone() -> Outcome {
    let lookups = in_network_namespace(NetnsLink::new);
    let device = in_network_namespace(|| LinkSpec::xdp(LOOPBACK).create(&xdp_prog()))?;
    wait_until("gone", || {
        matches!(
            lookups.link.info().map(|info| info.target),
            Ok(LinkTarget::Netns { netns_ino: 0, .. })
        )
    });
    let detached =
        |link: &Link| format!("update link {}: the link is detached", link.id().unwrap());
    let text = detached(&lookups.link);
    refused(lookups.link.update(&lookups.prog), libc::ENOLINK, &text);
    wait_until("gone", || {
        matches!(
            device.info().map(|info| info.target),
            Ok(LinkTarget::Xdp { ifindex: 0 })
        )
    });
    let text = detached(&device);
    refused(device.update(&xdp_prog()), libc::ENOLINK, &text);
    // Defunct as they are, they can be pinned and opened.
    let fs = TestFs::new();
    let device = device.pin(fs.at("defunct"))?;
    assert_eq!(Link::open(fs.at("defunct"))?.id()?, device.id()?);
    Ok(())
}

#[common::test(ROOT)]
fn a_control_group_that_is_removed() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let (file, prog) = (cgroup.open(), cgroup_prog());
        let spec = LinkSpec::cgroup(&file, AttachType::CGROUP_INET_EGRESS);
        let link = spec.create(&prog)?;
        drop(file);
        fs::remove_dir(&cgroup.path)?;
        wait_until("gone", || {
            matches!(
                link.info().map(|info| info.target),
                Ok(LinkTarget::Cgroup { cgroup_id: 0, .. })
            )
        });
        let text = format!("update link {}: the link is detached", link.id()?);
        refused(link.update(&cgroup_prog()), libc::ENOLINK, &text);
        Ok(())
    })
}

/// Such a map is made for no number of entries, and has one for each group it is attached to.
#[common::test(ROOT)]
fn keys_of_a_control_groups_storage() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        let map = MapSpec::new(MapType::CGROUP_STORAGE, 16, 8, 0).create()?;
        let mut insns = vec![Insn::mov64_imm(2, 0)];
        insns.extend(Insn::ld_map_fd(1, map.as_fd().as_raw_fd()));
        insns.extend([
            Insn::call(abi::BPF_FUNC_get_local_storage),
            Insn::mov64_imm(0, 1),
            Insn::exit(),
        ]);
        let attach_type = AttachType::CGROUP_INET_EGRESS;
        let prog = ProgSpec::new(ProgType::CGROUP_SKB, &insns)
            .expected_attach_type(attach_type)
            .load()?;
        let storage = map.elements::<[u64; 2], u64>()?;
        assert_eq!(storage.keys().count(), 0);
        let _link = LinkSpec::cgroup(&file, attach_type).create(&prog)?;

        let mut next = [0; 16];
        assert!(map.elements::<[u8], [u8]>()?.next_key(None, &mut next)?);
        let key: [u64; 2] = bytemuck::cast(next);
        assert_eq!(key[0], file.metadata()?.ino());
        storage.update(&key, &7, ElemFlags::EXIST)?;
        assert_eq!(storage.lookup(&key)?, Some(7));
        let all: Vec<_> = storage.iter().collect::<Result<_, _>>()?;
        assert_eq!(all, [(key, 7)]);
        Ok(())
    })
}

#[common::test(ROOT)]
fn by_id() -> Outcome {
    for nobody in [0, u32::MAX] {
        let text = format!("open link {nobody}: no link has this id");
        refused(Link::from_id(nobody), libc::ENOENT, &text);
    }
    let link = detached_link();
    let id = link.id()?;
    let same = Link::from_id(id)?;
    drop(link);
    assert_eq!(same.id()?, id);
    drop(same);
    wait_until("gone", || Link::from_id(id).is_err());
    Ok(())
}
