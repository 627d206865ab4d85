//! What a link is asked to be attached to, and whether it is.

use crate::types::{AttachType, CgroupIterOrder, LinkTarget};

use super::position::IterTask;

impl LinkTarget {
    /// An iterator without restrictions.
    pub(super) const ITER_ALL: Self = Self::Iter {
        map_id: 0,
        cgroup_id: 0,
        order: CgroupIterOrder::UNSPEC,
        tid: 0,
        pid: 0,
    };

    pub(super) fn iter_cgroup(cgroup_id: u64, order: CgroupIterOrder) -> Self {
        Self::Iter {
            map_id: 0,
            cgroup_id,
            order,
            tid: 0,
            pid: 0,
        }
    }

    pub(super) fn iter_task(task: IterTask) -> Self {
        let (tid, pid) = match task {
            IterTask::Tid(tid) => (tid, 0),
            IterTask::Pid(pid) => (0, pid),
        };
        Self::Iter {
            map_id: 0,
            cgroup_id: 0,
            order: CgroupIterOrder::UNSPEC,
            tid,
            pid,
        }
    }

    pub(super) fn tracing(attach_type: AttachType, btf_id: u32) -> Self {
        Self::Tracing {
            attach_type,
            obj_id: 0,
            btf_id,
            cookie: 0,
        }
    }

    /// How a program is attached here. `AttachType(0)` if the kernel has none for it.
    pub(super) fn attach_type(&self) -> AttachType {
        match *self {
            Self::RawTracepoint { .. } => AttachType::TRACE_RAW_TP,
            Self::Tracing { attach_type, .. }
            | Self::Cgroup { attach_type, .. }
            | Self::Netns { attach_type, .. }
            | Self::Tcx { attach_type, .. }
            | Self::Netkit { attach_type, .. }
            | Self::Sockmap { attach_type, .. } => attach_type,
            Self::Iter { .. } => AttachType::TRACE_ITER,
            Self::Xdp { .. } => AttachType::XDP,
            Self::PerfEvent { .. } => AttachType::PERF_EVENT,
            Self::KprobeMulti { .. } => AttachType::TRACE_KPROBE_MULTI,
            Self::StructOps { .. } => AttachType::STRUCT_OPS,
            Self::Netfilter { .. } => AttachType::NETFILTER,
            Self::UprobeMulti { .. } => AttachType::TRACE_UPROBE_MULTI,
            Self::Other => AttachType(0),
        }
    }

    /// The device, or 0.
    pub(super) fn ifindex(&self) -> u32 {
        match *self {
            Self::Xdp { ifindex } | Self::Tcx { ifindex, .. } | Self::Netkit { ifindex, .. } => {
                ifindex
            }
            _ => 0,
        }
    }

    /// Whether several programs are attached in an order.
    pub(super) fn is_ordered(&self) -> bool {
        matches!(
            self,
            Self::Cgroup { .. } | Self::Tcx { .. } | Self::Netkit { .. }
        )
    }

    /// Whether a link that reports `found` has the target that `self` asks for, as far as both say
    /// anything: a number that the kernel does not report is 0.
    pub(crate) fn matches(&self, found: &Self) -> bool {
        let mut asked = *self;
        match (&mut asked, *found) {
            (Self::RawTracepoint { cookie }, Self::RawTracepoint { cookie: found }) => {
                ignore_if_unreported(cookie, found);
            }
            (
                Self::PerfEvent { event_type, cookie },
                Self::PerfEvent {
                    event_type: found,
                    cookie: found_cookie,
                },
            ) => {
                *event_type = found;
                ignore_if_unreported(cookie, found_cookie);
            }
            (
                Self::Tracing {
                    obj_id,
                    btf_id,
                    cookie,
                    ..
                },
                Self::Tracing {
                    obj_id: found_obj,
                    btf_id: found_btf,
                    cookie: found_cookie,
                    ..
                },
            ) => {
                ignore_if_unknown(obj_id, found_obj);
                ignore_if_unknown(btf_id, found_btf);
                ignore_if_unreported(cookie, found_cookie);
            }
            // An iterator over everything differs from one over a part, except that no control group
            // means the root.
            (
                Self::Cgroup { cgroup_id: id, .. } | Self::Iter { cgroup_id: id, .. },
                Self::Cgroup {
                    cgroup_id: found, ..
                }
                | Self::Iter {
                    cgroup_id: found, ..
                },
            ) => ignore_if_unknown(id, found),
            (
                Self::Netns { netns_ino: id, .. }
                | Self::Xdp { ifindex: id }
                | Self::Tcx { ifindex: id, .. }
                | Self::Netkit { ifindex: id, .. }
                | Self::Sockmap { map_id: id, .. },
                Self::Netns {
                    netns_ino: found, ..
                }
                | Self::Xdp { ifindex: found }
                | Self::Tcx { ifindex: found, .. }
                | Self::Netkit { ifindex: found, .. }
                | Self::Sockmap { map_id: found, .. },
            ) => ignore_if_unknown(id, found),
            // Without a count the kernel reports nothing about them.
            (Self::KprobeMulti { .. }, Self::KprobeMulti { count: 0, .. })
            | (Self::UprobeMulti { .. }, Self::UprobeMulti { count: 0, .. }) => return true,
            // A process that has ended has no number any more.
            (Self::UprobeMulti { pid, .. }, Self::UprobeMulti { pid: found, .. }) => {
                ignore_if_unreported(pid, found);
            }
            _ => {}
        }
        asked == *found
    }

    /// What a person calls it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Cgroup { .. } => "cgroup",
            Self::Netns { .. } => "network namespace",
            Self::Xdp { .. } => "network device",
            Self::Tcx { .. } => "tcx device",
            Self::Netkit { .. } => "netkit device",
            Self::Sockmap { .. } => "sockmap",
            Self::Tracing { .. } => "function",
            Self::RawTracepoint { .. } => "raw tracepoint",
            Self::Iter { .. } => "iterator",
            Self::PerfEvent { .. } => "perf event",
            Self::KprobeMulti { .. } => "set of kprobes",
            Self::UprobeMulti { .. } => "set of uprobes",
            Self::Netfilter { .. } => "netfilter hook",
            Self::StructOps { .. } => "struct_ops map",
            Self::Other => "target of an unknown type",
        }
    }
}

/// What is asked for no longer counts if the kernel reports nothing. 0 asked for is a value.
fn ignore_if_unreported<N: PartialEq + Default>(asked: &mut N, found: N) {
    if found == N::default() {
        *asked = found;
    }
}

/// What is asked for no longer counts if either number is unknown.
fn ignore_if_unknown<N: Copy + PartialEq + Default>(asked: &mut N, found: N) {
    if *asked == N::default() || found == N::default() {
        *asked = found;
    }
}
