//! The programs and links at a target, and the programs that use a map.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};

use bpf_pin::error::{Cause, Operation};
use bpf_pin::link::{AttachedProgs, Position, XdpFlags};
use bpf_pin::map::ElemFlags;
use bpf_pin::prog::Insn;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Link, LinkSpec, Map, MapSpec, MapType, Prog, ProgSpec, abi};
use common::*;
use rustix::thread::CapabilitySet;

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];
const SOCKMAP: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 10)];
const NETFILTER: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 4)];
const TRACER: &[Need] = &[cap::SYS_ADMIN, cap::PERFMON];
const LSM_CGROUP: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 0)];
const USER: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, cap::SETUID];

const EGRESS: AttachType = AttachType::CGROUP_INET_EGRESS;

fn prog_ids(found: &AttachedProgs) -> Vec<u32> {
    found.entries().iter().map(|it| it.prog_id).collect()
}

#[common::test(TCX)]
fn a_query_of_tcx_lists_programs_and_links_in_their_order() -> Outcome {
    in_network_namespace(|| {
        let spec = LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS);
        assert_eq!(spec.query()?.entries(), []);
        let (first, second) = (tcx_prog(), tcx_prog());
        let last = spec.create(&second)?;
        let before = spec.query()?.revision().ok_or("no revision")?;
        let link = spec.position(Position::First).create(&first)?;
        let found = spec.query()?;
        assert_eq!(prog_ids(&found), [first.id()?, second.id()?]);
        let link_ids: Vec<_> = found.entries().iter().map(|it| it.link_id).collect();
        assert_eq!(link_ids, [Some(link.id()?), Some(last.id()?)]);
        assert!(found.has_link(last.id()?) && !found.has_link(u32::MAX));
        assert!(found.has_prog(first.id()?) && !found.has_prog(u32::MAX));
        assert!(found.revision() > Some(before));
        // The revision of the query is that of expected_revision.
        let revision = found.revision().ok_or("no revision")?;
        spec.expected_revision(revision).create(&tcx_prog())?;
        // Neither the other direction nor the device of another network.
        let egress = LinkSpec::tcx(LOOPBACK, AttachType::TCX_EGRESS);
        assert_eq!(egress.query()?.entries(), []);
        let elsewhere = in_network_namespace(|| spec.query())?;
        assert_eq!(elsewhere.entries(), []);
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_query_of_a_control_group_lists_programs_and_flags() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        let spec = LinkSpec::cgroup(&file, EGRESS);
        let none = spec.query()?;
        assert_eq!((none.entries(), none.flags()), (&[][..], 0));
        let (first, second) = (cgroup_prog(), cgroup_prog());
        let _links = [spec.create(&first)?, spec.create(&second)?];
        let found = spec.query()?;
        assert_eq!(prog_ids(&found), [first.id()?, second.id()?]);
        assert_eq!(found.flags(), abi::BPF_F_ALLOW_MULTI);
        for it in found.entries() {
            assert_eq!(it.flags, abi::BPF_F_ALLOW_MULTI);
            assert_eq!((it.link_id, it.mode), (None, None));
        }
        Ok(())
    })
}

/// More than the first call has room for.
#[common::test(ROOT)]
fn an_effective_query_lists_the_programs_of_ancestors() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let child = cgroup.path.join("child");
        fs::create_dir(&child)?;
        let (parent, file) = (cgroup.open(), File::open(&child)?);
        let spec = LinkSpec::cgroup(&file, EGRESS);
        let of_parent = LinkSpec::cgroup(&parent, EGRESS);
        let prog = cgroup_prog();
        let inherited = of_parent.create(&prog)?;
        assert_eq!(spec.query()?.entries(), []);
        assert_eq!(prog_ids(&spec.query_effective()?), [prog.id()?]);
        let mut links = vec![inherited];
        for _ in 1..50 {
            links.push(of_parent.create(&prog)?);
        }
        for _ in 0..50 {
            links.push(spec.create(&prog)?);
        }
        assert_eq!(prog_ids(&spec.query_effective()?), [prog.id()?; 100]);
        assert_eq!(spec.query()?.entries().len(), 50);
        drop(links);
        fs::remove_dir(child)?;
        Ok(())
    })
}

/// The kernel requires a buffer for flags that other attach types do not have on older kernels.
#[common::test(LSM_CGROUP)]
fn the_lsm_hooks_of_a_control_group_can_be_queried() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        let spec = LinkSpec::cgroup(&file, AttachType::LSM_CGROUP);
        assert_eq!(spec.query()?.entries(), []);
        assert_eq!(spec.query_effective()?.entries(), []);
        Ok(())
    })
}

#[common::test(USER)]
fn a_query_of_xdp_shows_program_and_mode() -> Outcome {
    in_network_namespace(|| {
        let spec = LinkSpec::xdp(LOOPBACK);
        assert_eq!(spec.query()?.entries(), []);
        let prog = xdp_prog();
        let _link = spec.create(&prog)?;
        let found = spec.query()?;
        assert_eq!(prog_ids(&found), [prog.id()?]);
        assert_eq!(found.entries()[0].mode, Some(XdpFlags::SKB_MODE));
        assert_eq!(found.revision(), None);
        // Any user may ask.
        let nobody = without_privileges(|| spec.query())?;
        assert_eq!(nobody, found);
        Ok(())
    })
}

fn without_privileges<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    as_user(CapabilitySet::empty(), test)
}

#[common::test(ROOT)]
fn a_query_of_a_network_namespace_lists_its_programs() -> Outcome {
    in_network_namespace(|| {
        let netns = File::open("/proc/thread-self/ns/net")?;
        let spec = LinkSpec::netns(&netns, AttachType::SK_LOOKUP);
        let prog = sk_lookup_prog();
        let _link = spec.create(&prog)?;
        assert_eq!(prog_ids(&spec.query()?), [prog.id()?]);
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_query_without_a_target_names_it() -> Outcome {
    in_network_namespace(|| {
        let error = LinkSpec::xdp(4711).query().expect_err("no device");
        assert_eq!(error.operation(), Operation::Query);
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert_cause_matches!(error, Cause::NoTarget { .. });
        let error = LinkSpec::raw_tracepoint(c"sched_switch").query();
        let error = error.expect_err("no query");
        assert_eq!(error.raw_os_error(), None);
        assert_cause_matches!(error, Cause::InvalidArgument { .. });
        let error = LinkSpec::xdp(LOOPBACK)
            .query_effective()
            .expect_err("no group");
        assert_cause_matches!(error, Cause::InvalidArgument { .. });
        let error = LinkSpec::perf_event(&hash()).links().expect_err("an event");
        assert_cause_matches!(error, Cause::InvalidArgument { .. });
        Ok(())
    })
}

#[common::test(TCX)]
fn a_query_of_no_device_and_of_no_netkit_device_fails() -> Outcome {
    in_network_namespace(|| {
        let error = LinkSpec::tcx(4711, AttachType::TCX_INGRESS).query();
        let error = error.expect_err("no device");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert_cause_matches!(error, Cause::NoTarget { .. });
        if kernel(6, 7).unmet().is_none() {
            let error = LinkSpec::netkit(LOOPBACK, AttachType::NETKIT_PRIMARY).query();
            let error = error.expect_err("another device");
            // A kernel may be built without such devices.
            let expected = match add_device(81, "netkit") {
                Ok(()) => libc::ENXIO,
                Err(_) => libc::EINVAL,
            };
            assert_eq!(error.raw_os_error(), Some(expected));
        }
        Ok(())
    })
}

#[common::test(SOCKMAP)]
fn a_query_of_a_sockmap_lists_its_programs() -> Outcome {
    let map = MapSpec::new(MapType::SOCKMAP, 4, 4, 4).create()?;
    let attach_type = AttachType::SK_MSG_VERDICT;
    let spec = LinkSpec::sockmap(&map, attach_type);
    assert_eq!(spec.query()?.entries(), []);
    let prog = prog_returning(ProgType::SK_MSG, attach_type, 1);
    let link = spec.create(&prog)?;
    assert_eq!(prog_ids(&spec.query()?), [prog.id()?]);
    assert_eq!(spec.links()?, [link.info()?]);
    Ok(())
}

#[common::test(ROOT)]
fn a_query_of_no_control_group_names_what_it_is() -> Outcome {
    in_mount_namespace(|| {
        let cgroup = Cgroup::new();
        let procs = File::open(cgroup.path.join("cgroup.procs"))?;
        let error = LinkSpec::cgroup(&procs, EGRESS)
            .query()
            .expect_err("a file");
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        assert_cause_matches!(error, Cause::WrongDescriptor { .. });
        let file = cgroup.open();
        fs::remove_dir(&cgroup.path)?;
        let error = LinkSpec::cgroup(&file, EGRESS).query().expect_err("gone");
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        assert_cause_matches!(error, Cause::NoTarget { .. });
        Ok(())
    })
}

#[common::test(USER)]
fn a_query_without_privileges_names_the_capability() -> Outcome {
    in_network_namespace(|| {
        let netns = File::open("/proc/thread-self/ns/net")?;
        let spec = LinkSpec::netns(&netns, AttachType::SK_LOOKUP);
        let error = without_privileges(|| spec.query()).expect_err("no capability");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        assert_cause_matches!(error, Cause::MissingCapability { .. });
        Ok(())
    })
}

fn ids_of(spec: &LinkSpec<'_>) -> Outcome<Vec<u32>> {
    Ok(spec.links()?.iter().map(|info| info.id).collect())
}

#[common::test(ROOT)]
fn links_at_a_target_are_found_whether_pinned_or_not() -> Outcome {
    in_mount_namespace(|| {
        let (cgroup, other) = (Cgroup::new(), Cgroup::new());
        let (file, elsewhere) = (cgroup.open(), other.open());
        let spec = LinkSpec::cgroup(&file, EGRESS);
        let prog = cgroup_prog();
        let fs = TestFs::new();
        let pinned = spec.create(&prog)?.pin(fs.at("link"))?;
        let link = spec.create(&prog)?;
        let _other = LinkSpec::cgroup(&elsewhere, EGRESS).create(&prog)?;
        let detached = spec.create(&prog)?;
        detached.detach()?;
        assert_eq!(ids_of(&spec)?, [pinned.id()?, link.id()?]);
        Ok(())
    })
}

#[common::test(ROOT)]
fn links_of_a_device_are_those_of_this_network() -> Outcome {
    let specs = [
        (LinkSpec::xdp(LOOPBACK), xdp_prog as fn() -> Prog),
        (LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS), tcx_prog),
    ];
    let has_tcx = kernel(6, 6).unmet().is_none();
    for (spec, make) in &specs[..1 + usize::from(has_tcx)] {
        in_network_namespace(|| -> Outcome {
            let link = spec.create(&make())?;
            in_network_namespace(|| -> Outcome {
                assert_eq!(ids_of(spec)?, [0; 0]);
                let here = spec.create(&make())?;
                assert_eq!(ids_of(spec)?, [here.id()?]);
                Ok(())
            })?;
            assert_eq!(ids_of(spec)?, [link.id()?]);
            Ok(())
        })?;
    }
    Ok(())
}

/// Neither they nor a query report it.
#[common::test(NETFILTER)]
fn links_of_netfilter_are_those_of_all_networks() -> Outcome {
    const NFPROTO_IPV4: u32 = 2;
    const NF_INET_LOCAL_IN: u32 = 1;
    // Of this test alone.
    let spec = LinkSpec::netfilter(NFPROTO_IPV4, NF_INET_LOCAL_IN, -4712);
    let make = || prog_returning(ProgType::NETFILTER, AttachType::NETFILTER, 1);
    in_network_namespace(|| {
        let here = spec.create(&make())?;
        in_network_namespace(|| {
            let there = spec.create(&make())?;
            assert_eq!(ids_of(&spec)?, [here.id()?, there.id()?]);
            Ok(())
        })
    })
}

#[common::test(TRACER)]
fn links_of_a_tracepoint_are_found_by_its_name() -> Outcome {
    let prog = prog_returning(ProgType::RAW_TRACEPOINT, AttachType(0), 0);
    let spec = LinkSpec::raw_tracepoint(c"sched_process_exec");
    let link: Link = spec.create(&prog)?;
    let _other = LinkSpec::raw_tracepoint(c"sched_process_exit").create(&prog)?;
    let of_prog = |info: &bpf_pin::link::LinkInfo| info.prog_id == prog.id().unwrap();
    let found: Vec<_> = spec.links()?.into_iter().filter(of_prog).collect();
    assert_eq!(found, [link.info()?]);
    Ok(())
}

#[common::test(ROOT)]
fn programs_that_use_a_map_are_found() -> Outcome {
    let tails = MapSpec::new(MapType::PROG_ARRAY, 4, 4, 1).create()?;
    assert_eq!(Prog::ids_using(&tails)?, [0; 0]);
    let [low, high] = Insn::ld_map_fd(2, tails.as_fd().as_raw_fd());
    let insns = [low, high, Insn::mov64_imm(0, 0), Insn::exit()];
    let load = || ProgSpec::new(ProgType::SOCKET_FILTER, &insns).load();
    let (first, second) = (load()?, load()?);
    let _other = prog();
    let mut using = [first.id()?, second.id()?];
    using.sort_unstable();
    assert_eq!(Prog::ids_using(&tails)?, using);
    drop(first);
    let left = second.id()?;
    wait_until("freed", || {
        Prog::ids_using(&tails).is_ok_and(|ids| ids == [left])
    });
    Ok(())
}

#[common::test(ROOT)]
fn a_program_that_reaches_a_map_through_another_does_not_use_it() -> Outcome {
    let inner = hash();
    let outer = MapSpec::new(MapType::ARRAY_OF_MAPS, 4, 4, 1).inner_map(&inner);
    let outer = outer.create()?;
    outer
        .elements::<u32, Map>()?
        .update(&0, &inner, ElemFlags::ANY)?;
    let [low, high] = Insn::ld_map_fd(2, outer.as_fd().as_raw_fd());
    let insns = [low, high, Insn::mov64_imm(0, 0), Insn::exit()];
    let user = ProgSpec::new(ProgType::SOCKET_FILTER, &insns).load()?;
    assert_eq!(Prog::ids_using(&outer)?, [user.id()?]);
    assert_eq!(Prog::ids_using(&inner)?, [0; 0]);
    Ok(())
}

#[common::test(USER)]
fn programs_that_use_a_map_need_a_capability() -> Outcome {
    let map = hash();
    let error = as_user(CapabilitySet::BPF, || Prog::ids_using(&map)).expect_err("no right");
    assert_eq!(error.operation(), Operation::NextId);
    assert_cause_matches!(error, Cause::MissingCapability { .. });
    Ok(())
}
