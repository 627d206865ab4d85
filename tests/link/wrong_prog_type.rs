//! The error cause if the target does not accept the program's type.

use std::fs::File;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::link::{IterTask, Uprobes, XdpFlags};
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{LinkSpec, MapSpec, MapType, PinDir};
use common::*;

use crate::lifecycle::{assert_refused, wrong_prog_type};

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];
const NETKIT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 7)];

#[common::test(ROOT)]
fn every_target_reports_the_program_types_it_takes() -> Outcome {
    in_mount_namespace(|| in_network_namespace(each_point))
}

/// Asserts that a socket filter is rejected: no link accepts one.
fn assert_rejected(spec: LinkSpec<'_>, attach_type: AttachType, takes: &[ProgType]) {
    let filter = prog();
    let cause = wrong_prog_type(&filter, attach_type, Vec::leak(takes.to_vec()));
    let made = spec.create(&filter);
    assert_refused(made, Operation::CreateLink, libc::EINVAL, cause);
}

fn each_point() -> Outcome {
    type A = AttachType;
    assert_rejected(LinkSpec::xdp(LOOPBACK), A::XDP, &[ProgType::XDP]);
    let netns = File::open("/proc/thread-self/ns/net")?;
    for (attach_type, takes) in [
        (A::FLOW_DISSECTOR, ProgType::FLOW_DISSECTOR),
        (A::SK_LOOKUP, ProgType::SK_LOOKUP),
    ] {
        let spec = LinkSpec::netns(&netns, attach_type);
        assert_rejected(spec, attach_type, &[takes]);
    }
    let map = MapSpec::new(MapType::SOCKMAP, 4, 4, 4).create()?;
    for (attach_type, takes) in [
        (A::SK_MSG_VERDICT, ProgType::SK_MSG),
        (A::SK_SKB_STREAM_PARSER, ProgType::SK_SKB),
        (A::SK_SKB_STREAM_VERDICT, ProgType::SK_SKB),
        (A::SK_SKB_VERDICT, ProgType::SK_SKB),
    ] {
        let spec = LinkSpec::sockmap(&map, attach_type);
        assert_rejected(spec, attach_type, &[takes]);
    }
    let netfilter = &[ProgType::NETFILTER];
    assert_rejected(LinkSpec::netfilter(2, 1, 7), A::NETFILTER, netfilter);
    for spec in [
        LinkSpec::iter(),
        LinkSpec::iter_map(&map),
        LinkSpec::iter_task(IterTask::Pid(1)),
    ] {
        assert_rejected(spec, A::TRACE_ITER, &[ProgType::TRACING]);
    }
    let perf = &[ProgType::KPROBE, ProgType::TRACEPOINT, ProgType::PERF_EVENT];
    assert_rejected(LinkSpec::perf_event(&netns), A::PERF_EVENT, perf);
    let kprobe = &[ProgType::KPROBE];
    let kprobes = LinkSpec::kprobe_multi(&[c"kernel_clone"]);
    assert_rejected(kprobes, A::TRACE_KPROBE_MULTI, kprobe);
    assert_rejected(kprobes.session(), A::TRACE_KPROBE_SESSION, kprobe);
    // SAFETY: no program is attached.
    let points = unsafe { Uprobes::new(c"/proc/self/exe", &[64]) };
    let uprobes = LinkSpec::uprobe_multi(points);
    assert_rejected(uprobes, A::TRACE_UPROBE_MULTI, kprobe);
    assert_rejected(uprobes.session(), A::TRACE_UPROBE_SESSION, kprobe);
    let raw = &[ProgType::RAW_TRACEPOINT, ProgType::RAW_TRACEPOINT_WRITABLE];
    let named = LinkSpec::raw_tracepoint(c"sched_switch");
    assert_rejected(named, A::TRACE_RAW_TP, raw);
    let loaded_for = &[ProgType::TRACING, ProgType::LSM, ProgType::EXT];
    for attach_type in [A::TRACE_FENTRY, A::MODIFY_RETURN, A::LSM_MAC] {
        let spec = LinkSpec::tracing(attach_type);
        assert_rejected(spec, attach_type, loaded_for);
        assert_rejected(spec.cookie(7), attach_type, loaded_for);
    }
    Ok(())
}

#[common::test(ROOT)]
fn cgroup_attach_types_report_the_program_types_they_take() -> Outcome {
    in_mount_namespace(|| {
        type A = AttachType;
        let cgroup = Cgroup::new();
        let file = cgroup.open();
        for (takes, attach_types) in [
            (
                ProgType::CGROUP_SKB,
                &[A::CGROUP_INET_INGRESS, A::CGROUP_INET_EGRESS][..],
            ),
            (
                ProgType::CGROUP_SOCK,
                &[
                    A::CGROUP_INET_SOCK_CREATE,
                    A::CGROUP_INET_SOCK_RELEASE,
                    A::CGROUP_INET4_POST_BIND,
                    A::CGROUP_INET6_POST_BIND,
                ],
            ),
            (
                ProgType::CGROUP_SOCK_ADDR,
                &[
                    A::CGROUP_INET4_BIND,
                    A::CGROUP_INET6_BIND,
                    A::CGROUP_INET4_CONNECT,
                    A::CGROUP_INET6_CONNECT,
                    A::CGROUP_INET4_GETPEERNAME,
                    A::CGROUP_INET6_GETPEERNAME,
                    A::CGROUP_INET4_GETSOCKNAME,
                    A::CGROUP_INET6_GETSOCKNAME,
                    A::CGROUP_UDP4_SENDMSG,
                    A::CGROUP_UDP6_SENDMSG,
                    A::CGROUP_UDP4_RECVMSG,
                    A::CGROUP_UDP6_RECVMSG,
                    A::CGROUP_UNIX_CONNECT,
                    A::CGROUP_UNIX_SENDMSG,
                    A::CGROUP_UNIX_RECVMSG,
                    A::CGROUP_UNIX_GETPEERNAME,
                    A::CGROUP_UNIX_GETSOCKNAME,
                ],
            ),
            (ProgType::SOCK_OPS, &[A::CGROUP_SOCK_OPS]),
            (ProgType::CGROUP_DEVICE, &[A::CGROUP_DEVICE]),
            (ProgType::CGROUP_SYSCTL, &[A::CGROUP_SYSCTL]),
            (
                ProgType::CGROUP_SOCKOPT,
                &[A::CGROUP_GETSOCKOPT, A::CGROUP_SETSOCKOPT],
            ),
            (ProgType::LSM, &[A::LSM_CGROUP]),
        ] {
            for &attach_type in attach_types {
                let spec = LinkSpec::cgroup(&file, attach_type);
                assert_rejected(spec, attach_type, &[takes]);
            }
        }
        Ok(())
    })
}

#[common::test(TCX)]
fn tcx_reports_the_program_type_it_takes() -> Outcome {
    in_network_namespace(|| {
        for attach_type in [AttachType::TCX_INGRESS, AttachType::TCX_EGRESS] {
            let spec = LinkSpec::tcx(LOOPBACK, attach_type);
            assert_rejected(spec, attach_type, &[ProgType::SCHED_CLS]);
        }
        Ok(())
    })
}

#[common::test(NETKIT)]
fn netkit_reports_the_program_type_it_takes() -> Outcome {
    in_network_namespace(|| {
        for attach_type in [AttachType::NETKIT_PRIMARY, AttachType::NETKIT_PEER] {
            let spec = LinkSpec::netkit(LOOPBACK, attach_type);
            // A kernel built without netkit does not support the attach type.
            let error = spec.create(&prog()).expect_err("a socket filter");
            if matches!(error.cause(), Some(Cause::Unsupported { .. })) {
                continue;
            }
            assert_rejected(spec, attach_type, &[ProgType::SCHED_CLS]);
        }
        Ok(())
    })
}

#[common::test(TCX)]
fn open_or_attach_reports_a_wrong_program_type_and_pins_nothing() -> Outcome {
    in_network_namespace(|| {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let (xdp, tcx) = (xdp_prog(), tcx_prog());
        let tcx_point = AttachType::TCX_INGRESS;
        for (spec, prog, attach_type, takes) in [
            (
                LinkSpec::xdp(LOOPBACK),
                &tcx,
                AttachType::XDP,
                &[ProgType::XDP],
            ),
            (
                LinkSpec::tcx(LOOPBACK, tcx_point),
                &xdp,
                tcx_point,
                &[ProgType::SCHED_CLS],
            ),
        ] {
            let error = dir.open_or_attach("link", &spec, prog).unwrap_err();
            let cause = wrong_prog_type(prog, attach_type, takes);
            assert_fails(&error, Operation::CreateLink, libc::EINVAL, cause);
            assert_eq!(error.during(), Some(Operation::Attach));
            assert_eq!(error.path(), Some(&*dir.path().join("link")));
            assert_eq!(fs.names(), [""; 0]);
        }
        Ok(())
    })
}

#[common::test(ROOT)]
fn the_program_type_is_checked_before_the_target_and_the_flags() -> Outcome {
    in_network_namespace(|| {
        let spec = LinkSpec::xdp(4711);
        assert_rejected(spec, AttachType::XDP, &[ProgType::XDP]);
        let error = spec.create(&xdp_prog()).expect_err("no device");
        assert_cause_matches!(error, Cause::NoTarget { .. });
        let flags = XdpFlags::SKB_MODE | XdpFlags::DRV_MODE;
        let error = LinkSpec::xdp(LOOPBACK).xdp_flags(flags).create(&xdp_prog());
        let error = error.expect_err("two modes");
        assert!(
            matches!(error.cause(), Some(Cause::InvalidArgument { .. })),
            "{error}"
        );
        Ok(())
    })
}
