//! Targets as a spec asks for them, and the comparison with those of a link.

use std::mem::discriminant;

use crate::types::{AttachType, CgroupIterOrder, LinkTarget};

impl LinkTarget {
    /// An iterator without restrictions.
    pub(super) const ITER_ALL: Self = Self::iter(0, CgroupIterOrder::UNSPEC, 0, 0);

    pub(super) const fn iter(cgroup_id: u64, order: CgroupIterOrder, tid: u32, pid: u32) -> Self {
        Self::Iter {
            map_id: 0,
            cgroup_id,
            order,
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

    /// The attach type for this target. `AttachType(0)` if the kernel has none.
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

    /// The index of the network device, or 0.
    pub(super) fn ifindex(&self) -> u32 {
        match *self {
            Self::Xdp { ifindex } | Self::Tcx { ifindex, .. } | Self::Netkit { ifindex, .. } => {
                ifindex
            }
            _ => 0,
        }
    }

    /// Returns whether the target has several programs in an order.
    pub(super) fn is_ordered(&self) -> bool {
        matches!(
            self,
            Self::Cgroup { .. } | Self::Tcx { .. } | Self::Netkit { .. }
        )
    }

    /// Returns whether a link that reports `found` has the target that `self` asks for. Numbers that the
    /// kernel does not report are 0 in `found` and match any.
    pub(crate) fn matches(&self, found: &Self) -> bool {
        if discriminant(self) != discriminant(found) {
            return false;
        }
        // An older kernel reports nothing about these.
        if let Self::KprobeMulti { count: 0, .. } | Self::UprobeMulti { count: 0, .. } = found {
            return true;
        }
        let (asked, found) = (self.numbers(), found.numbers());
        let mut ids = asked.ids.into_iter().zip(found.ids);
        asked.exact == found.exact
            && ids.all(|(asked, found)| asked == found || asked == 0 || found == 0)
            && (asked.reported == found.reported || found.reported == 0)
    }

    fn numbers(&self) -> Numbers {
        let (exact, ids, reported): ([u64; 4], [u64; 2], u64) = match *self {
            Self::RawTracepoint { cookie } | Self::PerfEvent { cookie, .. } => {
                ([0; 4], [0; 2], cookie)
            }
            Self::Tracing {
                attach_type,
                obj_id,
                btf_id,
                cookie,
            } => {
                let exact = [attach_type.0.into(), 0, 0, 0];
                (exact, [obj_id.into(), btf_id.into()], cookie)
            }
            // No cgroup means the root, so it matches any.
            Self::Iter {
                map_id,
                cgroup_id,
                order,
                tid,
                pid,
            } => {
                let exact = [map_id.into(), order.0.into(), tid.into(), pid.into()];
                (exact, [cgroup_id, 0], 0)
            }
            Self::Cgroup {
                cgroup_id,
                attach_type,
            } => ([attach_type.0.into(), 0, 0, 0], [cgroup_id, 0], 0),
            Self::Netns {
                netns_ino: id,
                attach_type,
            }
            | Self::Tcx {
                ifindex: id,
                attach_type,
            }
            | Self::Netkit {
                ifindex: id,
                attach_type,
            }
            | Self::Sockmap {
                map_id: id,
                attach_type,
            } => ([attach_type.0.into(), 0, 0, 0], [id.into(), 0], 0),
            Self::Xdp { ifindex } => ([0; 4], [ifindex.into(), 0], 0),
            Self::KprobeMulti { count, flags } => ([count.into(), flags.into(), 0, 0], [0; 2], 0),
            // A process that has ended has no id any more.
            Self::UprobeMulti { count, flags, pid } => {
                ([count.into(), flags.into(), 0, 0], [0; 2], pid.into())
            }
            Self::StructOps { map_id } => ([map_id.into(), 0, 0, 0], [0; 2], 0),
            Self::Netfilter {
                pf,
                hooknum,
                priority,
                flags,
            } => {
                let exact = [pf.into(), hooknum.into(), priority as u64, flags.into()];
                (exact, [0; 2], 0)
            }
            Self::Other => ([0; 4], [0; 2], 0),
        };
        Numbers {
            exact,
            ids,
            reported,
        }
    }

    /// The name of the target in messages.
    pub(super) fn description(&self) -> &'static str {
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

/// The numbers of a target by how they are compared.
struct Numbers {
    exact: [u64; 4],
    /// Match if either is unknown, which is 0.
    ids: [u64; 2],
    /// Matches if the link reports 0. Asked for, 0 is a value.
    reported: u64,
}
