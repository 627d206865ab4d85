//! What a link is attached to.

use std::fmt;

use bpf_pin_sys as abi;

use crate::sys::link_arm;
use crate::types::{AttachType, CgroupIterOrder, LinkType};

use super::position::IterTask;

/// What a link is attached to, as far as numbers tell; those that the kernel does not know are 0.
/// Names: [`Link::target_name`](crate::Link::target_name).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkTarget {
    /// A tracepoint of the kernel. Linux 5.8.
    #[non_exhaustive]
    RawTracepoint {
        /// The number given when it was attached. Linux 6.17.
        cookie: u64,
    },
    /// A function of the kernel or of a program. Linux 5.8.
    #[non_exhaustive]
    Tracing {
        /// In which way; 0 of an extension.
        attach_type: AttachType,
        /// The BTF object, or the program. Linux 5.13.
        obj_id: u32,
        /// The type there. Linux 5.13.
        btf_id: u32,
        /// The number given when it was attached. Linux 6.17.
        cookie: u64,
    },
    /// A control group. Linux 5.8.
    Cgroup {
        /// Its id, the inode number of its directory. 0 once it is gone or the link detached.
        cgroup_id: u64,
        /// In which way.
        attach_type: AttachType,
    },
    /// An iterator, which goes through whatever these numbers do not narrow down. Linux 5.8.
    #[non_exhaustive]
    Iter {
        /// The map whose elements it goes through, or 0. Linux 5.10.
        map_id: u32,
        /// The control group that it begins at, or 0. Linux 6.1.
        cgroup_id: u64,
        /// Which way it walks from there. Linux 6.1.
        order: CgroupIterOrder,
        /// The thread whose resources it goes through, or 0. Linux 6.1.
        tid: u32,
        /// The process, or 0. Linux 6.1.
        pid: u32,
    },
    /// A network namespace. Linux 5.8.
    Netns {
        /// Its inode number. 0 once it is gone or the link detached.
        netns_ino: u32,
        /// In which way.
        attach_type: AttachType,
    },
    /// A network device's driver. Linux 5.9.
    Xdp {
        /// The device. 0 once it is gone or the link detached.
        ifindex: u32,
    },
    /// `BPF_LINK_TYPE_PERF_EVENT`: a perf event. Linux 5.15.
    #[non_exhaustive]
    PerfEvent {
        /// `enum bpf_perf_event_type`, such as `BPF_PERF_EVENT_KPROBE`. Linux 6.6.
        event_type: u32,
        /// The number given when it was attached. Linux 6.9.
        cookie: u64,
    },
    /// `BPF_LINK_TYPE_KPROBE_MULTI`: functions of the kernel. Linux 5.18.
    #[non_exhaustive]
    KprobeMulti {
        /// How many. Linux 6.6.
        count: u32,
        /// 1 where they run at the return. Linux 6.6.
        flags: u32,
    },
    /// `BPF_LINK_TYPE_STRUCT_OPS`: functions of the kernel, in the place of which a map puts programs.
    /// Linux 5.19.
    #[non_exhaustive]
    StructOps {
        /// The map. 0 once the link is detached. Linux 6.4.
        map_id: u32,
    },
    /// A hook of netfilter. Linux 6.4.
    #[non_exhaustive]
    Netfilter {
        /// The protocol family, `NFPROTO_*`.
        pf: u32,
        /// The hook, `NF_INET_*`.
        hooknum: u32,
        /// Where among the functions there: the lower, the earlier.
        priority: i32,
        /// `BPF_F_NETFILTER_IP_DEFRAG` or 0.
        flags: u32,
    },
    /// A network device's traffic control. Linux 6.6.
    Tcx {
        /// The device. 0 once it is gone or the link detached.
        ifindex: u32,
        /// In which direction.
        attach_type: AttachType,
    },
    /// `BPF_LINK_TYPE_UPROBE_MULTI`: places in an executable. Linux 6.6.
    #[non_exhaustive]
    UprobeMulti {
        /// How many. Linux 6.8.
        count: u32,
        /// 1 where they run at the return. Linux 6.8.
        flags: u32,
        /// The one process, or 0. Linux 6.8.
        pid: u32,
    },
    /// A netkit device. Linux 6.7.
    Netkit {
        /// The end that it is attached to. 0 once it is gone or the link detached.
        ifindex: u32,
        /// On which side.
        attach_type: AttachType,
    },
    /// A map of sockets. Linux 6.10.
    Sockmap {
        /// The map. 0 once the link is detached.
        map_id: u32,
        /// In which way.
        attach_type: AttachType,
    },
    /// What is not known here.
    Other,
}

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

    pub(crate) fn from_info(info: &abi::bpf_link_info) -> Self {
        match LinkType(info.r#type) {
            LinkType::RAW_TRACEPOINT => Self::RawTracepoint {
                cookie: link_arm::<abi::bpf_link_info_raw_tracepoint>(info).cookie,
            },
            LinkType::TRACING => {
                let arm: abi::bpf_link_info_tracing = link_arm(info);
                Self::Tracing {
                    attach_type: AttachType(arm.attach_type),
                    obj_id: arm.target_obj_id,
                    btf_id: arm.target_btf_id,
                    cookie: arm.cookie,
                }
            }
            LinkType::CGROUP => {
                let arm: abi::bpf_link_info_cgroup = link_arm(info);
                Self::Cgroup {
                    cgroup_id: arm.cgroup_id,
                    attach_type: AttachType(arm.attach_type),
                }
            }
            LinkType::ITER => Self::iter_from_info(info),
            LinkType::NETNS => {
                let arm: abi::bpf_link_info_netns = link_arm(info);
                Self::Netns {
                    netns_ino: arm.netns_ino,
                    attach_type: AttachType(arm.attach_type),
                }
            }
            LinkType::XDP => Self::Xdp {
                ifindex: link_arm::<abi::bpf_link_info_xdp>(info).ifindex,
            },
            LinkType::PERF_EVENT => Self::perf_event_from_info(info),
            LinkType::KPROBE_MULTI => {
                let arm: abi::bpf_link_info_kprobe_multi = link_arm(info);
                Self::KprobeMulti {
                    count: arm.count,
                    flags: arm.flags,
                }
            }
            LinkType::STRUCT_OPS => Self::StructOps {
                map_id: link_arm::<abi::bpf_link_info_struct_ops>(info).map_id,
            },
            LinkType::NETFILTER => {
                let arm: abi::bpf_link_info_netfilter = link_arm(info);
                Self::Netfilter {
                    pf: arm.pf,
                    hooknum: arm.hooknum,
                    priority: arm.priority,
                    flags: arm.flags,
                }
            }
            LinkType::TCX => {
                let arm: abi::bpf_link_info_tcx = link_arm(info);
                Self::Tcx {
                    ifindex: arm.ifindex,
                    attach_type: AttachType(arm.attach_type),
                }
            }
            LinkType::UPROBE_MULTI => {
                let arm: abi::bpf_link_info_uprobe_multi = link_arm(info);
                Self::UprobeMulti {
                    count: arm.count,
                    flags: arm.flags,
                    pid: arm.pid,
                }
            }
            LinkType::NETKIT => {
                let arm: abi::bpf_link_info_netkit = link_arm(info);
                Self::Netkit {
                    ifindex: arm.ifindex,
                    attach_type: AttachType(arm.attach_type),
                }
            }
            LinkType::SOCKMAP => {
                let arm: abi::bpf_link_info_sockmap = link_arm(info);
                Self::Sockmap {
                    map_id: arm.map_id,
                    attach_type: AttachType(arm.attach_type),
                }
            }
            _ => Self::Other,
        }
    }

    /// Which arm of the info is in use depends on the target's name, but only a control group has an
    /// order.
    fn iter_from_info(info: &abi::bpf_link_info) -> Self {
        let cgroup: abi::bpf_link_info_iter_cgroup = link_arm(info);
        let task: abi::bpf_link_info_iter_task = link_arm(info);
        let order = CgroupIterOrder(cgroup.order);
        let (cgroup_id, tid, pid) = match order {
            CgroupIterOrder::UNSPEC => (0, task.tid, task.pid),
            _ => (cgroup.cgroup_id, 0, 0),
        };
        Self::Iter {
            map_id: link_arm::<abi::bpf_link_info_iter_map>(info).map_id,
            cgroup_id,
            order,
            tid,
            pid,
        }
    }

    fn perf_event_from_info(info: &abi::bpf_link_info) -> Self {
        let event_type = link_arm::<abi::bpf_link_info_perf_event>(info).r#type;
        let cookie = match event_type {
            abi::BPF_PERF_EVENT_UPROBE | abi::BPF_PERF_EVENT_URETPROBE => {
                link_arm::<abi::bpf_link_info_perf_event_uprobe>(info).cookie
            }
            abi::BPF_PERF_EVENT_KPROBE | abi::BPF_PERF_EVENT_KRETPROBE => {
                link_arm::<abi::bpf_link_info_perf_event_kprobe>(info).cookie
            }
            abi::BPF_PERF_EVENT_TRACEPOINT => {
                link_arm::<abi::bpf_link_info_perf_event_tracepoint>(info).cookie
            }
            abi::BPF_PERF_EVENT_EVENT => {
                link_arm::<abi::bpf_link_info_perf_event_event>(info).cookie
            }
            _ => 0,
        };
        Self::PerfEvent { event_type, cookie }
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

    /// Whether the kernel says that nothing is there any more: it was detached, or what it was
    /// attached to is gone. Of types that the kernel does not say it of, false.
    pub fn is_gone(&self) -> bool {
        match *self {
            Self::Cgroup { cgroup_id, .. } => cgroup_id == 0,
            Self::Netns { netns_ino, .. } => netns_ino == 0,
            Self::Xdp { ifindex } | Self::Tcx { ifindex, .. } | Self::Netkit { ifindex, .. } => {
                ifindex == 0
            }
            Self::Sockmap { map_id, .. } | Self::StructOps { map_id } => map_id == 0,
            _ => false,
        }
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
            Self::Netns { .. } => "netns",
            Self::Xdp { .. } => "device",
            Self::Tcx { .. } => "device's traffic control",
            Self::Netkit { .. } => "netkit device",
            Self::Sockmap { .. } => "map of sockets",
            Self::Tracing { .. } => "function",
            Self::RawTracepoint { .. } => "raw tracepoint",
            Self::Iter { .. } => "BPF iterator",
            Self::PerfEvent { .. } => "perf event",
            Self::KprobeMulti { .. } => "set of functions",
            Self::UprobeMulti { .. } => "set of places in an executable",
            Self::Netfilter { .. } => "netfilter hook",
            Self::StructOps { .. } => "struct_ops map",
            Self::Other => "target of an unknown type",
        }
    }
}

/// What is asked for no longer counts if either number is unknown.
fn ignore_if_unknown<N: Copy + PartialEq + Default>(asked: &mut N, found: N) {
    if *asked == N::default() || found == N::default() {
        *asked = found;
    }
}

/// What is asked for no longer counts if the kernel reports nothing. 0 asked for is a value.
fn ignore_if_unreported<N: PartialEq + Default>(asked: &mut N, found: N) {
    if found == N::default() {
        *asked = found;
    }
}

/// As a sentence has it: "xdp of device 3".
impl fmt::Display for LinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RawTracepoint { cookie } => {
                f.write_str("a raw tracepoint")?;
                with_cookie(f, *cookie)
            }
            // The kernel has no attach type for an extension.
            Self::Tracing {
                attach_type: AttachType(0),
                obj_id,
                btf_id,
                ..
            } => write!(f, "function {btf_id} of program {obj_id}"),
            Self::Tracing {
                attach_type,
                obj_id,
                btf_id,
                cookie,
            } => {
                write!(f, "{attach_type} of type {btf_id} of object {obj_id}")?;
                with_cookie(f, *cookie)
            }
            Self::Cgroup {
                cgroup_id,
                attach_type,
            } => write!(f, "{attach_type} of control group {cgroup_id}"),
            Self::Iter { map_id: 0, .. } => f.write_str("an iterator"),
            Self::Iter { map_id, .. } => write!(f, "an iterator through map {map_id}"),
            Self::Netns {
                netns_ino,
                attach_type,
            } => write!(f, "{attach_type} of network namespace {netns_ino}"),
            Self::Xdp { ifindex } => write!(f, "xdp of device {ifindex}"),
            Self::PerfEvent { cookie, .. } => {
                f.write_str("a perf event")?;
                with_cookie(f, *cookie)
            }
            Self::KprobeMulti { count: 0, .. } => f.write_str("functions of the kernel"),
            Self::KprobeMulti { count, flags } => {
                write!(f, "{count} functions of the kernel with flags {flags:#x}")
            }
            Self::StructOps { map_id } => write!(f, "struct_ops of map {map_id}"),
            Self::Netfilter {
                pf,
                hooknum,
                priority,
                ..
            } => write!(
                f,
                "netfilter of family {pf}, hook {hooknum}, priority {priority}"
            ),
            Self::Tcx {
                ifindex,
                attach_type,
            }
            | Self::Netkit {
                ifindex,
                attach_type,
            } => write!(f, "{attach_type} of device {ifindex}"),
            Self::UprobeMulti { count: 0, .. } => f.write_str("places in an executable"),
            Self::UprobeMulti { count, flags, pid } => {
                write!(f, "{count} places in an executable with flags {flags:#x}")?;
                match pid {
                    0 => Ok(()),
                    _ => write!(f, ", of process {pid}"),
                }
            }
            Self::Sockmap {
                map_id,
                attach_type,
            } => write!(f, "{attach_type} of map {map_id}"),
            Self::Other => f.write_str("something not known here"),
        }
    }
}

fn with_cookie(f: &mut fmt::Formatter<'_>, cookie: u64) -> fmt::Result {
    match cookie {
        0 => Ok(()),
        _ => write!(f, " with cookie {cookie}"),
    }
}
