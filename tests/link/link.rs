//! Links: attaching, updating and detaching a program, and links after the end of their target.

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

use crate::lifecycle::{assert_invalid, assert_refused, check_lifecycle};

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];
const OTHERS: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, cap::SETUID];
const LSM: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, Need::Feature(Feature::Lsm)];

fn netns_file() -> File {
    File::open("/proc/thread-self/ns/net").expect("this thread's network")
}

#[common::test(ROOT)]
fn netns_links_are_created_updated_and_detached() -> Outcome {
    in_network_namespace(|| {
        let netns = netns_file();
        let attach_type = AttachType::SK_LOOKUP;
        let target = LinkTarget::Netns {
            netns_ino: u32::try_from(netns.metadata()?.ino())?,
            attach_type,
        };
        let spec = LinkSpec::netns(&netns, attach_type);
        check_lifecycle(spec, sk_lookup_prog, LinkType::NETNS, target)
    })
}

#[common::test(ROOT)]
fn xdp_links_are_created_updated_and_detached() -> Outcome {
    in_network_namespace(|| {
        let make = xdp_prog;
        let target = LinkTarget::Xdp { ifindex: LOOPBACK };
        check_lifecycle(LinkSpec::xdp(LOOPBACK), make, LinkType::XDP, target)?;
        // The only mode that loopback supports.
        let generic = LinkSpec::xdp(LOOPBACK).xdp_flags(XdpFlags::SKB_MODE);
        wait_until("free", || generic.create(&make()).is_ok());
        Ok(())
    })
}

#[common::test(TCX)]
fn tcx_links_are_created_updated_and_detached() -> Outcome {
    in_network_namespace(|| {
        for attach_type in [AttachType::TCX_INGRESS, AttachType::TCX_EGRESS] {
            let target = LinkTarget::Tcx {
                ifindex: LOOPBACK,
                attach_type,
            };
            check_lifecycle(
                LinkSpec::tcx(LOOPBACK, attach_type),
                tcx_prog,
                LinkType::TCX,
                target,
            )?;
        }
        Ok(())
    })
}

#[common::test(ROOT)]
fn cgroup_links_are_created_updated_and_detached() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        let attach_type = AttachType::CGROUP_INET_EGRESS;
        let target = LinkTarget::Cgroup {
            cgroup_id: cgroup_id(&file),
            attach_type,
        };
        let spec = LinkSpec::cgroup(&file, attach_type);
        check_lifecycle(spec, cgroup_prog, LinkType::CGROUP, target)
    })
}

/// Since Linux 6.0.
#[common::test(LSM)]
fn lsm_cgroup_links_are_created_updated_and_detached() -> Outcome {
    let attach_type = AttachType::LSM_CGROUP;
    let insns = [Insn::mov64_imm(0, 1), Insn::exit()];
    let spec = ProgSpec::new(ProgType::LSM, &insns)
        .license(c"GPL")
        .expected_attach_type(attach_type)
        .attach_btf_id(function_btf_id("bpf_lsm_socket_bind")?);
    let loaded = spec.load();
    let is_known = kernel(6, 0).unmet().is_none();
    if let Err(error) = &loaded {
        // The kernel was built without BPF LSM, or a policy forbids its programs. Then LSM_MAC fails too.
        let lsm_mac = spec.clone().expected_attach_type(AttachType::LSM_MAC);
        let loads_lsm_mac = lsm_mac.load().is_ok();
        assert!(!is_known || !loads_lsm_mac, "{error}");
        return Ok(());
    }
    assert!(is_known);
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        let target = LinkTarget::Cgroup {
            cgroup_id: cgroup_id(&file),
            attach_type,
        };
        let make = || spec.load().expect("the same program again");
        let at = LinkSpec::cgroup(&file, attach_type);
        check_lifecycle(at, make, LinkType::CGROUP, target)
    })
}

/// For an update the kernel compares the program types only, so the library compares the attach types.
#[common::test(OTHERS)]
fn a_program_for_another_attach_type_is_rejected() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        let attach_type = AttachType::CGROUP_INET4_CONNECT;
        let spec = LinkSpec::cgroup(&file, attach_type);
        let make = |attach_type| prog_returning(ProgType::CGROUP_SOCK_ADDR, attach_type, 1);
        let (first, second) = (make(attach_type), make(attach_type));
        let bind = make(AttachType::CGROUP_INET4_BIND);
        let not_loaded_for = Cause::NotLoadedFor { attach_type };
        assert_refused(
            spec.create(&bind),
            Operation::CreateLink,
            libc::EINVAL,
            not_loaded_for.clone(),
        );
        let link = spec.create(&first)?;
        for update in [link.update(&bind), link.update_from(&bind, &first)] {
            let cause = not_loaded_for.clone();
            assert_refused(update, Operation::UpdateLink, libc::EINVAL, cause);
        }
        assert_eq!(link.info()?.prog_id, first.id()?);
        link.update_from(&second, &first)?;
        assert_eq!(link.info()?.prog_id, second.id()?);

        // For CGROUP_SKB the kernel checks the values that the program may return.
        let (ingress, egress) = (
            AttachType::CGROUP_INET_INGRESS,
            AttachType::CGROUP_INET_EGRESS,
        );
        let spec = LinkSpec::cgroup(&file, ingress);
        let make = |attach_type, value| prog_returning(ProgType::CGROUP_SKB, attach_type, value);
        let link = spec.create(&make(ingress, 1))?;
        let congested = make(egress, 2);
        spec.create(&congested)
            .expect_err("a value that ingress does not allow");
        let error = link.update(&congested).expect_err("the same value");
        assert_cause_matches!(error, Cause::NotLoadedFor { .. });
        let plain = make(egress, 1);
        spec.create(&plain)?;
        link.update(&plain)?;
        // A user that may not attach the program may update the link: without a proof it is not refused.
        let another = make(ingress, 1);
        as_user(CapabilitySet::BPF, || link.update(&another))?;
        assert_eq!(link.info()?.prog_id, another.id()?);
        Ok(())
    })
}

/// aya and libbpf load XDP programs with an expected attach type.
#[common::test(ROOT)]
fn an_xdp_link_is_not_updated_across_expected_attach_types() -> Outcome {
    in_network_namespace(|| {
        let (plain, named) = (
            xdp_prog(),
            prog_returning(ProgType::XDP, AttachType::XDP, 2),
        );
        let types = [AttachType(0), AttachType::XDP].map(Some);
        for (first, second, [expected, found]) in [
            (&plain, &named, types),
            (&named, &plain, [types[1], types[0]]),
        ] {
            let link = LinkSpec::xdp(LOOPBACK).create(first)?;
            for update in [link.update(second), link.update_from(second, first)] {
                let error = update.expect_err("another expected attach type");
                let proven = Cause::ExpectedAttachType { expected, found };
                let (expected, found) = (None, None);
                let likely = Cause::ExpectedAttachType { expected, found };
                // Older releases may have a backport.
                let is_proven = kernel(6, 18).unmet().is_none() || error.cause() == Some(&proven);
                let cause = if is_proven { proven } else { likely };
                assert_fails(&error, Operation::UpdateLink, libc::EINVAL, cause);
            }
            assert_eq!(link.info()?.prog_id, first.id()?);
            link.detach()?;
        }
        Ok(())
    })
}

#[common::test(ROOT)]
fn an_xdp_program_is_loaded_for_xdp_by_default() -> Outcome {
    in_network_namespace(|| {
        let insns = [Insn::mov64_imm(0, 2), Insn::exit()];
        let default = ProgSpec::new(ProgType::XDP, &insns).load()?;
        let named = prog_returning(ProgType::XDP, AttachType::XDP, 2);
        let link = LinkSpec::xdp(LOOPBACK).create(&named)?;
        link.update(&default)?;
        assert_eq!(link.info()?.prog_id, default.id()?);
        link.update(&named)?;
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_device_has_one_xdp_link() -> Outcome {
    in_network_namespace(|| {
        let (first, second) = (xdp_prog(), xdp_prog());
        let spec = LinkSpec::xdp(LOOPBACK);
        let link = spec.create(&first)?;
        for prog in [&first, &second] {
            let prog_id = first.id()?;
            let ifindex = LOOPBACK;
            let cause = Cause::XdpAttached { ifindex, prog_id };
            let made = spec.create(prog);
            assert_refused(made, Operation::CreateLink, libc::EBUSY, cause);
        }
        assert_eq!(link.info()?.prog_id, first.id()?);
        drop(link);
        wait_until("free", || spec.create(&second).is_ok());
        Ok(())
    })
}

#[common::test(TCX)]
fn a_device_has_many_tcx_links_but_each_program_once() -> Outcome {
    in_network_namespace(|| {
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
        // The same program cannot be attached twice.
        let again = spec.create(&first);
        let (prog_id, link_id) = (first.id()?, Some(links[0].id()?));
        let attached = Cause::AlreadyAttached { prog_id, link_id };
        assert_refused(again, Operation::CreateLink, libc::EEXIST, attached);
        let update = links[0].update(&second);
        assert_refused(update, Operation::UpdateLink, libc::EEXIST, None);
        assert_eq!(links[0].info()?.prog_id, first.id()?);
        links[0].detach()?;
        assert_eq!(links[1].info()?.prog_id, second.id()?);
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_network_namespace_has_one_flow_dissector() -> Outcome {
    in_network_namespace(|| {
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
        let again = spec.create(&prog);
        let full = Cause::TargetFull { count: 1 };
        assert_refused(again, Operation::CreateLink, libc::E2BIG, full);
        Ok(())
    })
}

#[common::test(ROOT)]
fn wrong_targets_flags_and_attach_types_are_rejected() -> Outcome {
    in_network_namespace(|| {
        let (lookup, xdp) = (sk_lookup_prog(), xdp_prog());
        let (netns, other) = (netns_file(), File::open("/proc/self/status")?);
        let lookups = AttachType::SK_LOOKUP;
        let made = LinkSpec::netns(&other, lookups).create(&lookup);
        assert_refused(made, Operation::CreateLink, libc::EINVAL, None);
        let spec = LinkSpec::cgroup(&other, AttachType::CGROUP_INET_EGRESS);
        let not_a_cgroup = Cause::WrongDescriptor {
            expected: "a cgroup2 directory",
            found: Some("a file on proc".to_owned()),
        };
        let made = spec.create(&cgroup_prog());
        assert_refused(made, Operation::CreateLink, libc::EBADF, not_a_cgroup);

        // The kernel keeps a device's index and a descriptor in the same field, so the attach type must fit the target.
        for spec in [
            LinkSpec::netns(&netns, AttachType(4711)),
            LinkSpec::netns(&netns, AttachType::XDP),
            LinkSpec::cgroup(&netns, AttachType::TCX_EGRESS),
            LinkSpec::tcx(LOOPBACK, AttachType::CGROUP_INET_EGRESS),
            LinkSpec::tcx(LOOPBACK, AttachType::XDP),
            LinkSpec::tcx(LOOPBACK, AttachType::NETKIT_PEER),
            LinkSpec::netkit(LOOPBACK, AttachType::TCX_EGRESS),
            LinkSpec::netkit(LOOPBACK, AttachType::XDP),
        ] {
            assert_invalid(spec.create(&lookup), "attach_type");
        }

        // A device that does not exist.
        let no_device = Cause::NoTarget {
            what: "network device 4711 in this thread's network namespace".to_owned(),
        };
        let nowhere = LinkSpec::xdp(4711).create(&xdp);
        assert_refused(
            nowhere,
            Operation::CreateLink,
            libc::EINVAL,
            no_device.clone(),
        );
        if kernel(6, 6).unmet().is_none() {
            let nowhere = LinkSpec::tcx(4711, AttachType::TCX_INGRESS).create(&tcx_prog());
            assert_refused(nowhere, Operation::CreateLink, libc::ENODEV, no_device);
        }
        // Nothing stayed attached.
        LinkSpec::xdp(LOOPBACK).create(&xdp)?;
        Ok(())
    })
}

#[common::test(OTHERS)]
fn attaching_without_cap_net_admin_is_reported() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let (file, prog) = (cgroup.open(), cgroup_prog());
        let spec = LinkSpec::cgroup(&file, AttachType::CGROUP_INET_EGRESS);
        as_user(CapabilitySet::BPF, || {
            let no_capability = Cause::MissingCapability {
                capability: Capability::NetAdmin,
                needed_for: "programs of this type",
            };
            let made = spec.create(&prog);
            assert_refused(made, Operation::CreateLink, libc::EPERM, no_capability);
        });
        spec.create(&prog)?;
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_link_is_detached_when_its_network_is_gone() -> Outcome {
    let lookups = in_network_namespace(NetnsLink::new);
    let device = in_network_namespace(|| LinkSpec::xdp(LOOPBACK).create(&xdp_prog()))?;
    wait_until("gone", || {
        matches!(
            lookups.link.info().map(|info| info.target),
            Ok(LinkTarget::Netns { netns_ino: 0, .. })
        )
    });
    let update = lookups.link.update(&lookups.prog);
    assert_refused(
        update,
        Operation::UpdateLink,
        libc::ENOLINK,
        Cause::Detached,
    );
    wait_until("gone", || {
        matches!(
            device.info().map(|info| info.target),
            Ok(LinkTarget::Xdp { ifindex: 0 })
        )
    });
    let update = device.update(&xdp_prog());
    assert_refused(
        update,
        Operation::UpdateLink,
        libc::ENOLINK,
        Cause::Detached,
    );
    // A detached link can be pinned and opened.
    let fs = TestFs::new();
    let device = device.pin(fs.at("detached"))?;
    assert_eq!(Link::open(fs.at("detached"))?.id()?, device.id()?);
    Ok(())
}

#[common::test(ROOT)]
fn a_link_is_detached_when_its_cgroup_is_removed() -> Outcome {
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
        let update = link.update(&cgroup_prog());
        assert_refused(
            update,
            Operation::UpdateLink,
            libc::ENOLINK,
            Cause::Detached,
        );
        Ok(())
    })
}

/// The map is created with max_entries 0, and gets an entry for each cgroup that it is attached to.
#[common::test(ROOT)]
fn cgroup_storage_has_a_key_for_each_attached_cgroup() -> Outcome {
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
        assert_eq!(key[0], cgroup_id(&file));
        storage.update(&key, &7, ElemFlags::EXIST)?;
        assert_eq!(storage.lookup(&key)?, Some(7));
        let all: Vec<_> = storage.iter().collect::<Result<_, _>>()?;
        assert_eq!(all, [(key, 7)]);
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_link_is_opened_by_id_while_it_lives() -> Outcome {
    for unused in [0, u32::MAX] {
        let cause = Cause::NoSuchId { what: "link" };
        let opened = Link::from_id(unused);
        assert_refused(opened, Operation::FromId, libc::ENOENT, cause);
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
