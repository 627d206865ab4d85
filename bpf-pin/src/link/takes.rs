//! Which types of program are attached in which way.

use std::os::fd::BorrowedFd;

use bpf_pin_sys as abi;

use crate::cause::Cause;
use crate::kind::{self, Kind};
use crate::sys;
use crate::target::LinkTarget;
use crate::types::{AttachType, ProgType};

use super::point::Point;

/// EINVAL of a program for a point: by its type alone it is refused there, whatever else is wrong.
#[cold]
pub(super) fn for_point(
    prog: BorrowedFd<'_>,
    point: &Point<'_>,
    attach_type: AttachType,
) -> Option<Cause> {
    const NAMED: &[ProgType] = &[ProgType::RAW_TRACEPOINT, ProgType::RAW_TRACEPOINT_WRITABLE];
    // BPF_RAW_TRACEPOINT_OPEN asks for no way: one of these is attached by what it was loaded for.
    const LOADED_FOR: &[ProgType] = &[ProgType::TRACING, ProgType::LSM, ProgType::EXT];
    let takes = match point {
        Point::RawTracepoint(_) => NAMED,
        Point::Tracing => LOADED_FOR,
        _ => taken(attach_type)?,
    };
    wrong(prog, attach_type, takes)
}

/// EINVAL of a program for a link: all that it may hold are of other types.
#[cold]
pub(super) fn for_link(prog: BorrowedFd<'_>, target: &LinkTarget) -> Option<Cause> {
    let attach_type = match *target {
        LinkTarget::Xdp { .. } => AttachType::XDP,
        LinkTarget::Iter { .. } => AttachType::TRACE_ITER,
        LinkTarget::Cgroup { attach_type, .. }
        | LinkTarget::Netns { attach_type, .. }
        | LinkTarget::Tcx { attach_type, .. }
        | LinkTarget::Netkit { attach_type, .. }
        | LinkTarget::Sockmap { attach_type, .. } => attach_type,
        _ => return None,
    };
    wrong(prog, attach_type, taken(attach_type)?)
}

fn wrong(
    prog: BorrowedFd<'_>,
    attach_type: AttachType,
    takes: &'static [ProgType],
) -> Option<Cause> {
    // A map has another info.
    let prog_id = kind::identity(prog)
        .ok()
        .filter(|it| it.kind == Kind::Prog)?
        .id;
    let info: abi::bpf_prog_info = sys::info(prog).ok()?;
    let found = ProgType(info.r#type);
    // An extension is attached by what it was loaded for, whatever the way.
    let is_taken = takes.contains(&found) || found == ProgType::EXT;
    (!is_taken).then_some(Cause::WrongProgType {
        prog_id,
        found,
        attach_type,
        takes,
    })
}

/// kernel/bpf/syscall.c: `attach_type_to_prog_type`, `bpf_prog_attach_check_attach_type`. None of ways
/// newer than this library.
fn taken(attach_type: AttachType) -> Option<&'static [ProgType]> {
    type A = AttachType;
    type P = ProgType;
    Some(match attach_type {
        A::XDP => &[P::XDP],
        A::TCX_INGRESS | A::TCX_EGRESS | A::NETKIT_PRIMARY | A::NETKIT_PEER => &[P::SCHED_CLS],
        A::CGROUP_INET_INGRESS | A::CGROUP_INET_EGRESS => &[P::CGROUP_SKB],
        A::CGROUP_INET_SOCK_CREATE
        | A::CGROUP_INET_SOCK_RELEASE
        | A::CGROUP_INET4_POST_BIND
        | A::CGROUP_INET6_POST_BIND => &[P::CGROUP_SOCK],
        A::CGROUP_INET4_BIND
        | A::CGROUP_INET6_BIND
        | A::CGROUP_INET4_CONNECT
        | A::CGROUP_INET6_CONNECT
        | A::CGROUP_INET4_GETPEERNAME
        | A::CGROUP_INET6_GETPEERNAME
        | A::CGROUP_INET4_GETSOCKNAME
        | A::CGROUP_INET6_GETSOCKNAME
        | A::CGROUP_UDP4_SENDMSG
        | A::CGROUP_UDP6_SENDMSG
        | A::CGROUP_UDP4_RECVMSG
        | A::CGROUP_UDP6_RECVMSG
        | A::CGROUP_UNIX_CONNECT
        | A::CGROUP_UNIX_SENDMSG
        | A::CGROUP_UNIX_RECVMSG
        | A::CGROUP_UNIX_GETPEERNAME
        | A::CGROUP_UNIX_GETSOCKNAME => &[P::CGROUP_SOCK_ADDR],
        A::CGROUP_SOCK_OPS => &[P::SOCK_OPS],
        A::CGROUP_DEVICE => &[P::CGROUP_DEVICE],
        A::CGROUP_SYSCTL => &[P::CGROUP_SYSCTL],
        A::CGROUP_GETSOCKOPT | A::CGROUP_SETSOCKOPT => &[P::CGROUP_SOCKOPT],
        A::LSM_CGROUP => &[P::LSM],
        A::FLOW_DISSECTOR => &[P::FLOW_DISSECTOR],
        A::SK_LOOKUP => &[P::SK_LOOKUP],
        A::SK_SKB_STREAM_PARSER | A::SK_SKB_STREAM_VERDICT | A::SK_SKB_VERDICT => &[P::SK_SKB],
        A::SK_MSG_VERDICT => &[P::SK_MSG],
        A::NETFILTER => &[P::NETFILTER],
        A::TRACE_ITER => &[P::TRACING],
        A::PERF_EVENT => &[P::KPROBE, P::TRACEPOINT, P::PERF_EVENT],
        A::TRACE_KPROBE_MULTI
        | A::TRACE_KPROBE_SESSION
        | A::TRACE_UPROBE_MULTI
        | A::TRACE_UPROBE_SESSION => &[P::KPROBE],
        _ => return None,
    })
}
