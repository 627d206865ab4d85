//! What is said of a program of a type that is not attached where it was to be.

use std::fs::File;

use bpf_pin::error::Cause;
use bpf_pin::link::{IterTask, Uprobes, XdpFlags};
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{LinkSpec, MapSpec, MapType, PinDir};
use common::*;

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const TCX: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 6)];
const NETKIT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 7)];

#[common::test(ROOT)]
fn at_each_point() -> Outcome {
    in_mount_namespace(|| in_network_namespace(each_point))
}

#[common::test(ROOT)]
fn at_a_control_group() -> Outcome {
    in_mount_namespace(control_group)
}

#[common::test(TCX)]
fn at_tcx() -> Outcome {
    in_network_namespace(tcx)
}

#[common::test(NETKIT)]
fn at_netkit() -> Outcome {
    in_network_namespace(netkit)
}

#[common::test(TCX)]
fn a_pin_in_whose_place_it_was_to_be() -> Outcome {
    in_network_namespace(pinned)
}

#[common::test(ROOT)]
fn whatever_else_is_wrong() -> Outcome {
    in_network_namespace(also_wrong)
}

/// A socket filter is attached by no link.
fn refused(spec: LinkSpec<'_>, place: &str, attach_type: AttachType, takes: &[ProgType]) {
    let prog = prog();
    let words: Vec<_> = takes.iter().map(ProgType::to_string).collect();
    let words = match &words[..] {
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
        [] => String::new(),
    };
    let why = wrong_prog_type_message(&prog, attach_type, &words);
    let error = spec.create(&prog).expect_err(&why);
    assert_eq!(
        error.to_string(),
        format!("attach a program to {attach_type}{place}: {why}")
    );
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    let cause = Cause::WrongProgType {
        prog_id: prog.id().expect("its id"),
        found: ProgType::SOCKET_FILTER,
        attach_type,
        takes: Vec::leak(takes.to_vec()),
    };
    assert_eq!(error.cause(), Some(&cause));
}

fn each_point() -> Outcome {
    type A = AttachType;
    let device = " of device 1";
    refused(LinkSpec::xdp(LOOPBACK), device, A::XDP, &[ProgType::XDP]);
    let netns = File::open("/proc/thread-self/ns/net")?;
    for (attach_type, takes) in [
        (A::FLOW_DISSECTOR, ProgType::FLOW_DISSECTOR),
        (A::SK_LOOKUP, ProgType::SK_LOOKUP),
    ] {
        let spec = LinkSpec::netns(&netns, attach_type);
        refused(spec, "", attach_type, &[takes]);
    }
    let map = MapSpec::new(MapType::SOCKMAP, 4, 4, 4).create()?;
    for (attach_type, takes) in [
        (A::SK_MSG_VERDICT, ProgType::SK_MSG),
        (A::SK_SKB_STREAM_PARSER, ProgType::SK_SKB),
        (A::SK_SKB_STREAM_VERDICT, ProgType::SK_SKB),
        (A::SK_SKB_VERDICT, ProgType::SK_SKB),
    ] {
        let spec = LinkSpec::sockmap(&map, attach_type);
        refused(spec, "", attach_type, &[takes]);
    }
    let netfilter = &[ProgType::NETFILTER];
    refused(LinkSpec::netfilter(2, 1, 7), "", A::NETFILTER, netfilter);
    for spec in [
        LinkSpec::iter(),
        LinkSpec::iter_map(&map),
        LinkSpec::iter_task(IterTask::Pid(1)),
    ] {
        refused(spec, "", A::TRACE_ITER, &[ProgType::TRACING]);
    }
    let perf = &[ProgType::KPROBE, ProgType::TRACEPOINT, ProgType::PERF_EVENT];
    refused(LinkSpec::perf_event(&netns), "", A::PERF_EVENT, perf);
    let kprobe = &[ProgType::KPROBE];
    let kprobes = LinkSpec::kprobe_multi(&[c"kernel_clone"]);
    refused(kprobes, "", A::TRACE_KPROBE_MULTI, kprobe);
    refused(kprobes.session(), "", A::TRACE_KPROBE_SESSION, kprobe);
    // SAFETY: no program is attached.
    let points = unsafe { Uprobes::new(c"/proc/self/exe", &[64]) };
    let uprobes = LinkSpec::uprobe_multi(points);
    refused(uprobes, "", A::TRACE_UPROBE_MULTI, kprobe);
    refused(uprobes.session(), "", A::TRACE_UPROBE_SESSION, kprobe);
    let raw = &[ProgType::RAW_TRACEPOINT, ProgType::RAW_TRACEPOINT_WRITABLE];
    let named = LinkSpec::raw_tracepoint(c"sched_switch");
    refused(named, "", A::TRACE_RAW_TP, raw);
    let loaded_for = &[ProgType::TRACING, ProgType::LSM, ProgType::EXT];
    for attach_type in [A::TRACE_FENTRY, A::MODIFY_RETURN, A::LSM_MAC] {
        let spec = LinkSpec::tracing(attach_type);
        refused(spec, "", attach_type, loaded_for);
        refused(spec.cookie(7), "", attach_type, loaded_for);
    }
    Ok(())
}

fn control_group() -> Outcome {
    type A = AttachType;
    let cgroup = Cgroup::new();
    let file = cgroup.open();
    for (takes, ways) in [
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
        for &attach_type in ways {
            let spec = LinkSpec::cgroup(&file, attach_type);
            refused(spec, "", attach_type, &[takes]);
        }
    }
    Ok(())
}

fn tcx() -> Outcome {
    for attach_type in [AttachType::TCX_INGRESS, AttachType::TCX_EGRESS] {
        let spec = LinkSpec::tcx(LOOPBACK, attach_type);
        refused(spec, " of device 1", attach_type, &[ProgType::SCHED_CLS]);
    }
    Ok(())
}

fn netkit() -> Outcome {
    for attach_type in [AttachType::NETKIT_PRIMARY, AttachType::NETKIT_PEER] {
        let spec = LinkSpec::netkit(LOOPBACK, attach_type);
        // A kernel that was built without it does not know the way either.
        let error = spec.create(&prog()).expect_err("a socket filter");
        if matches!(error.cause(), Some(Cause::Unsupported { .. })) {
            continue;
        }
        refused(spec, " of device 1", attach_type, &[ProgType::SCHED_CLS]);
    }
    Ok(())
}

/// What is for one point, given to another.
fn pinned() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (xdp, tcx) = (xdp_prog(), tcx_prog());
    for (spec, prog, takes) in [
        (LinkSpec::xdp(LOOPBACK), &tcx, "xdp"),
        (
            LinkSpec::tcx(LOOPBACK, AttachType::TCX_INGRESS),
            &xdp,
            "sched_cls",
        ),
    ] {
        let attach_type = match takes {
            "xdp" => AttachType::XDP,
            _ => AttachType::TCX_INGRESS,
        };
        let why = wrong_prog_type_message(prog, attach_type, takes);
        let error = dir.open_or_attach("link", &spec, prog).expect_err(&why);
        assert_eq!(
            error.to_string(),
            format!(
                "open or attach {}: attach a program to {attach_type} of device 1: {why}",
                fs.at("link").display()
            )
        );
        assert_eq!(fs.names(), [""; 0]);
    }
    Ok(())
}

/// The type is looked at before the device, and where the type is right the device counts.
fn also_wrong() -> Outcome {
    let spec = LinkSpec::xdp(4711);
    refused(spec, " of device 4711", AttachType::XDP, &[ProgType::XDP]);
    let error = spec.create(&xdp_prog()).expect_err("no device");
    assert!(matches!(error.cause(), Some(Cause::NoTarget { .. })));
    let flags = XdpFlags::SKB_MODE | XdpFlags::DRV_MODE;
    let error = LinkSpec::xdp(LOOPBACK).xdp_flags(flags).create(&xdp_prog());
    let error = error.expect_err("two modes");
    assert_eq!(error.cause(), None, "{error}");
    Ok(())
}
