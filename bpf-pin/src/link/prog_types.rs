//! The program types that each attach type accepts.

use std::os::fd::BorrowedFd;

use bpf_pin_sys as abi;

use crate::error::Cause;
use crate::proof;
use crate::sys;
use crate::types::{AttachType, Kind, ProgType};

use super::LinkSpec;
use crate::types::LinkTarget;

/// Explains EINVAL of a new link: the target accepts no program of this type.
#[cold]
pub(super) fn check_new_link(prog: BorrowedFd<'_>, spec: &LinkSpec<'_>) -> Option<Cause> {
    let attach_type = spec.attach_type();
    let takes: &[ProgType] = match spec.target {
        LinkTarget::RawTracepoint { .. } => {
            &[ProgType::RAW_TRACEPOINT, ProgType::RAW_TRACEPOINT_WRITABLE]
        }
        // BPF_RAW_TRACEPOINT_OPEN has no attach type: the program was loaded for its target.
        LinkTarget::Tracing { .. } => &[ProgType::TRACING, ProgType::LSM, ProgType::EXT],
        _ => prog_types(attach_type)?,
    };
    check_prog(prog, attach_type, takes)
}

/// Explains EINVAL of an update: links to this target hold no program of this type.
#[cold]
pub(super) fn check_update(prog: BorrowedFd<'_>, target: &LinkTarget) -> Option<Cause> {
    let has_one_type = matches!(
        target,
        LinkTarget::Xdp { .. }
            | LinkTarget::Iter { .. }
            | LinkTarget::Cgroup { .. }
            | LinkTarget::Netns { .. }
            | LinkTarget::Tcx { .. }
            | LinkTarget::Netkit { .. }
            | LinkTarget::Sockmap { .. }
    );
    if !has_one_type {
        return None;
    }
    let attach_type = target.attach_type();
    check_prog(prog, attach_type, prog_types(attach_type)?)
}

fn check_prog(
    prog: BorrowedFd<'_>,
    attach_type: AttachType,
    takes: &'static [ProgType],
) -> Option<Cause> {
    // The info of a map has another layout.
    let prog_id = proof::identity(prog)
        .ok()
        .filter(|it| it.kind == Kind::Prog)?
        .id;
    let info: abi::bpf_prog_info = sys::info(prog).ok()?;
    let found = ProgType(info.r#type);
    // An extension is attached to the program it was loaded for, with any attach type.
    let is_taken = takes.contains(&found) || found == ProgType::EXT;
    (!is_taken).then_some(Cause::WrongProgType {
        prog_id,
        found,
        attach_type,
        takes,
    })
}

/// kernel/bpf/syscall.c: `attach_type_to_prog_type`, `bpf_prog_attach_check_attach_type`. None for an
/// attach type newer than this library.
fn prog_types(attach_type: AttachType) -> Option<&'static [ProgType]> {
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
