//! The target of a link.

use std::fmt;

use bpf_pin_sys as abi;

use crate::sys::link_arm;
#[cfg(feature = "serde")]
use crate::types::serialize::is_zero;
use crate::types::{AttachType, CgroupIterOrder, LinkType};

/// The target that a link is attached to, by the kernel's numbers.
///
/// Numbers that the kernel does not report are 0. For the name of a target call
/// [`Link::target_name`](crate::Link::target_name).
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::types::LinkTarget;
/// use bpf_pin::Link;
///
/// match Link::open("/sys/fs/bpf/firewall")?.info()?.target {
///     LinkTarget::Xdp { ifindex } => println!("attached to device {ifindex}"),
///     other => println!("{other}"),
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum LinkTarget {
    /// A tracepoint of the kernel. Linux 5.8.
    #[non_exhaustive]
    RawTracepoint {
        /// The cookie that it was attached with. Linux 6.17.
        cookie: u64,
    },
    /// A function of the kernel or of a program. Linux 5.8.
    #[non_exhaustive]
    Tracing {
        /// The attach type; 0 for an extension.
        #[cfg_attr(feature = "serde", serde(skip_serializing_if = "is_zero"))]
        attach_type: AttachType,
        /// The id of the BTF object, or of the program. Linux 5.13.
        #[cfg_attr(feature = "serde", serde(rename = "target_obj_id"))]
        obj_id: u32,
        /// The id of the function's type in it. Linux 5.13.
        #[cfg_attr(feature = "serde", serde(rename = "target_btf_id"))]
        btf_id: u32,
        /// The cookie that it was attached with. Linux 6.17.
        cookie: u64,
    },
    /// A control group. Linux 5.8.
    Cgroup {
        /// Its id. On a 64-bit kernel it is the inode number of its directory, on a 32-bit kernel the lower half
        /// is; name_to_handle_at(2) returns the whole id. 0 once it is removed or the link detached.
        cgroup_id: u64,
        /// The attach type.
        attach_type: AttachType,
    },
    /// An iterator over everything that matches these numbers. Linux 5.8.
    #[non_exhaustive]
    Iter {
        /// The map that it iterates over, or 0. Linux 5.10.
        map_id: u32,
        /// The control group that it begins at, or 0. Linux 6.1.
        cgroup_id: u64,
        /// The order in which it visits control groups. Linux 6.1.
        order: CgroupIterOrder,
        /// The thread that it visits, or 0 for all. Linux 6.1.
        tid: u32,
        /// The process that it visits, or 0 for all. Linux 6.1.
        pid: u32,
    },
    /// A network namespace. Linux 5.8.
    Netns {
        /// Its inode number. 0 once it is freed or the link detached.
        netns_ino: u32,
        /// The attach type.
        attach_type: AttachType,
    },
    /// XDP of a network device. Linux 5.9.
    Xdp {
        /// The device. 0 once it is removed or the link detached.
        ifindex: u32,
    },
    /// `BPF_LINK_TYPE_PERF_EVENT`: a perf event. Linux 5.15.
    #[non_exhaustive]
    PerfEvent {
        /// `enum bpf_perf_event_type`, such as `BPF_PERF_EVENT_KPROBE`. Linux 6.6.
        #[cfg_attr(feature = "serde", serde(rename = "type"))]
        event_type: u32,
        /// The cookie that it was attached with. Linux 6.9.
        cookie: u64,
    },
    /// `BPF_LINK_TYPE_KPROBE_MULTI`: functions of the kernel. Linux 5.18.
    #[non_exhaustive]
    KprobeMulti {
        /// The number of functions. Linux 6.6.
        count: u32,
        /// 1 if the program runs when they return. Linux 6.6.
        flags: u32,
    },
    /// `BPF_LINK_TYPE_STRUCT_OPS`: functions of the kernel that a map replaces by programs. Linux 5.19.
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
        /// The priority: lower ones run first.
        priority: i32,
        /// `BPF_F_NETFILTER_IP_DEFRAG` or 0.
        flags: u32,
    },
    /// A network device's traffic control. Linux 6.6.
    Tcx {
        /// The device. 0 once it is removed or the link detached.
        ifindex: u32,
        /// The attach type, which is the direction.
        attach_type: AttachType,
    },
    /// `BPF_LINK_TYPE_UPROBE_MULTI`: probe points in an executable. Linux 6.6.
    #[non_exhaustive]
    UprobeMulti {
        /// The number of probe points. Linux 6.8.
        count: u32,
        /// 1 if the program runs when the functions return. Linux 6.8.
        flags: u32,
        /// The only process that is probed, or 0 for all. Linux 6.8.
        pid: u32,
    },
    /// A netkit device. Linux 6.7.
    Netkit {
        /// The device that it is attached to. 0 once it is removed or the link detached.
        ifindex: u32,
        /// The attach type, which is the side.
        attach_type: AttachType,
    },
    /// A map of sockets. Linux 6.10.
    Sockmap {
        /// The map. 0 once the link is detached.
        map_id: u32,
        /// The attach type.
        attach_type: AttachType,
    },
    /// A type that this library does not know.
    Other,
}

/// Copies fields of an arm of the info to a variant with fields of the same names.
macro_rules! copy {
    ($info:ident, $arm:ident, $Variant:ident { $($field:ident $(as $Type:ident)?),* }) => {{
        let arm: abi::$arm = link_arm($info);
        Self::$Variant { $($field: $($Type)? (arm.$field)),* }
    }};
}

impl LinkTarget {
    pub(crate) fn from_info(info: &abi::bpf_link_info) -> Self {
        match LinkType(info.r#type) {
            LinkType::RAW_TRACEPOINT => {
                copy!(info, bpf_link_info_raw_tracepoint, RawTracepoint { cookie })
            }
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
                copy!(info, bpf_link_info_cgroup, Cgroup { cgroup_id, attach_type as AttachType })
            }
            LinkType::ITER => Self::iter_from_info(info),
            LinkType::NETNS => {
                copy!(info, bpf_link_info_netns, Netns { netns_ino, attach_type as AttachType })
            }
            LinkType::XDP => copy!(info, bpf_link_info_xdp, Xdp { ifindex }),
            LinkType::PERF_EVENT => Self::perf_event_from_info(info),
            LinkType::KPROBE_MULTI => copy!(
                info,
                bpf_link_info_kprobe_multi,
                KprobeMulti { count, flags }
            ),
            LinkType::STRUCT_OPS => copy!(info, bpf_link_info_struct_ops, StructOps { map_id }),
            LinkType::NETFILTER => copy!(
                info,
                bpf_link_info_netfilter,
                Netfilter {
                    pf,
                    hooknum,
                    priority,
                    flags
                }
            ),
            LinkType::TCX => {
                copy!(info, bpf_link_info_tcx, Tcx { ifindex, attach_type as AttachType })
            }
            LinkType::UPROBE_MULTI => copy!(
                info,
                bpf_link_info_uprobe_multi,
                UprobeMulti { count, flags, pid }
            ),
            LinkType::NETKIT => {
                copy!(info, bpf_link_info_netkit, Netkit { ifindex, attach_type as AttachType })
            }
            LinkType::SOCKMAP => {
                copy!(info, bpf_link_info_sockmap, Sockmap { map_id, attach_type as AttachType })
            }
            _ => Self::Other,
        }
    }

    /// The target's name decides which arm of the info is valid, but only a control group has an order.
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

    /// Returns `true` if the kernel reports that the link is detached or its target removed.
    ///
    /// Returns `false` for types for which the kernel does not report this.
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
}

/// Writes a phrase for messages: "xdp of device 3".
impl fmt::Display for LinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RawTracepoint { cookie } => {
                f.write_str("a raw tracepoint")?;
                with_cookie(f, *cookie)
            }
            // An extension has no attach type.
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
            Self::UprobeMulti { count: 0, .. } => f.write_str("probe points in an executable"),
            Self::UprobeMulti { count, flags, pid } => {
                write!(
                    f,
                    "{count} probe points in an executable with flags {flags:#x}"
                )?;
                match pid {
                    0 => Ok(()),
                    _ => write!(f, ", of process {pid}"),
                }
            }
            Self::Sockmap {
                map_id,
                attach_type,
            } => write!(f, "{attach_type} of map {map_id}"),
            Self::Other => f.write_str("a target of unknown type"),
        }
    }
}

fn with_cookie(f: &mut fmt::Formatter<'_>, cookie: u64) -> fmt::Result {
    match cookie {
        0 => Ok(()),
        _ => write!(f, " with cookie {cookie}"),
    }
}
