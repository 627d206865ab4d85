//! What a link is attached to.

use std::fmt;
use std::mem::{offset_of, size_of};

use bpf_pin_sys as abi;

use crate::types::{AttachType, CgroupIterOrder, LinkType};

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
        /// In which way.
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
        /// The map. Linux 6.4.
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
    pub(crate) fn new(link_type: LinkType, details: &Details) -> Self {
        match link_type {
            LinkType::RAW_TRACEPOINT => {
                type Arm = abi::bpf_link_info_raw_tracepoint;
                Self::RawTracepoint {
                    cookie: details.long(offset_of!(Arm, cookie)),
                }
            }
            LinkType::TRACING => {
                type Arm = abi::bpf_link_info_tracing;
                Self::Tracing {
                    attach_type: details.attach_type(offset_of!(Arm, attach_type)),
                    obj_id: details.word(offset_of!(Arm, target_obj_id)),
                    btf_id: details.word(offset_of!(Arm, target_btf_id)),
                    cookie: details.long(offset_of!(Arm, cookie)),
                }
            }
            LinkType::CGROUP => {
                type Arm = abi::bpf_link_info_cgroup;
                Self::Cgroup {
                    cgroup_id: details.long(offset_of!(Arm, cgroup_id)),
                    attach_type: details.attach_type(offset_of!(Arm, attach_type)),
                }
            }
            LinkType::ITER => Self::iter(details),
            LinkType::NETNS => {
                type Arm = abi::bpf_link_info_netns;
                Self::Netns {
                    netns_ino: details.word(offset_of!(Arm, netns_ino)),
                    attach_type: details.attach_type(offset_of!(Arm, attach_type)),
                }
            }
            LinkType::XDP => Self::Xdp {
                ifindex: details.word(offset_of!(abi::bpf_link_info_xdp, ifindex)),
            },
            LinkType::PERF_EVENT => Self::perf_event(details),
            LinkType::KPROBE_MULTI => {
                type Arm = abi::bpf_link_info_kprobe_multi;
                Self::KprobeMulti {
                    count: details.word(offset_of!(Arm, count)),
                    flags: details.word(offset_of!(Arm, flags)),
                }
            }
            LinkType::STRUCT_OPS => Self::StructOps {
                map_id: details.word(offset_of!(abi::bpf_link_info_struct_ops, map_id)),
            },
            LinkType::NETFILTER => {
                type Arm = abi::bpf_link_info_netfilter;
                Self::Netfilter {
                    pf: details.word(offset_of!(Arm, pf)),
                    hooknum: details.word(offset_of!(Arm, hooknum)),
                    priority: details.word(offset_of!(Arm, priority)) as i32,
                    flags: details.word(offset_of!(Arm, flags)),
                }
            }
            LinkType::TCX => {
                type Arm = abi::bpf_link_info_tcx;
                Self::Tcx {
                    ifindex: details.word(offset_of!(Arm, ifindex)),
                    attach_type: details.attach_type(offset_of!(Arm, attach_type)),
                }
            }
            LinkType::UPROBE_MULTI => {
                type Arm = abi::bpf_link_info_uprobe_multi;
                Self::UprobeMulti {
                    count: details.word(offset_of!(Arm, count)),
                    flags: details.word(offset_of!(Arm, flags)),
                    pid: details.word(offset_of!(Arm, pid)),
                }
            }
            LinkType::NETKIT => {
                type Arm = abi::bpf_link_info_netkit;
                Self::Netkit {
                    ifindex: details.word(offset_of!(Arm, ifindex)),
                    attach_type: details.attach_type(offset_of!(Arm, attach_type)),
                }
            }
            LinkType::SOCKMAP => {
                type Arm = abi::bpf_link_info_sockmap;
                Self::Sockmap {
                    map_id: details.word(offset_of!(Arm, map_id)),
                    attach_type: details.attach_type(offset_of!(Arm, attach_type)),
                }
            }
            _ => Self::Other,
        }
    }

    /// What it goes through is told by a name; but only of control groups it has an order.
    fn iter(details: &Details) -> Self {
        type Arm = abi::bpf_link_info_iter;
        type Cgroup = abi::bpf_link_info_iter_cgroup;
        type Task = abi::bpf_link_info_iter_task;
        const ARM: usize = offset_of!(Arm, details);

        let order = CgroupIterOrder(details.word(ARM + offset_of!(Cgroup, order)));
        let map_id = details.word(offset_of!(Arm, map));
        let (mut cgroup_id, mut tid, mut pid) = (0, 0, 0);
        if order == CgroupIterOrder::UNSPEC {
            tid = details.word(ARM + offset_of!(Task, tid));
            pid = details.word(ARM + offset_of!(Task, pid));
        } else {
            cgroup_id = details.long(ARM + offset_of!(Cgroup, cgroup_id));
        }
        Self::Iter {
            map_id,
            cgroup_id,
            order,
            tid,
            pid,
        }
    }

    fn perf_event(details: &Details) -> Self {
        type Arm = abi::bpf_link_info_perf_event;
        const ARM: usize = offset_of!(Arm, details);

        let event_type = details.word(offset_of!(Arm, r#type));
        let cookie = match event_type {
            abi::BPF_PERF_EVENT_UPROBE | abi::BPF_PERF_EVENT_URETPROBE => {
                details.long(ARM + offset_of!(abi::bpf_link_info_perf_event_uprobe, cookie))
            }
            abi::BPF_PERF_EVENT_KPROBE | abi::BPF_PERF_EVENT_KRETPROBE => {
                details.long(ARM + offset_of!(abi::bpf_link_info_perf_event_kprobe, cookie))
            }
            abi::BPF_PERF_EVENT_TRACEPOINT => {
                details.long(ARM + offset_of!(abi::bpf_link_info_perf_event_tracepoint, cookie))
            }
            abi::BPF_PERF_EVENT_EVENT => {
                details.long(ARM + offset_of!(abi::bpf_link_info_perf_event_event, cookie))
            }
            _ => 0,
        };
        Self::PerfEvent { event_type, cookie }
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
            Self::Sockmap { map_id, .. } => map_id == 0,
            _ => false,
        }
    }

    /// Whether it is what `self` says, as far as both say anything: 0 says nothing, but what was asked
    /// for has no cookie and all processes where that is 0.
    pub(crate) fn agrees(&self, found: &Self) -> bool {
        let told = |a: u64, found: u64| found == 0 || a == found;
        let same = |a: u64, b: u64| a == 0 || b == 0 || a == b;
        let word = |a: u32, b: u32| same(a.into(), b.into());
        match (*self, *found) {
            (
                Self::Tracing {
                    attach_type: a,
                    obj_id,
                    btf_id,
                    cookie,
                },
                Self::Tracing {
                    attach_type: b,
                    obj_id: found_obj,
                    btf_id: found_btf,
                    cookie: found_cookie,
                },
            ) => {
                a == b
                    && word(obj_id, found_obj)
                    && word(btf_id, found_btf)
                    && told(cookie, found_cookie)
            }
            (
                Self::Cgroup {
                    cgroup_id,
                    attach_type: a,
                },
                Self::Cgroup {
                    cgroup_id: found,
                    attach_type: b,
                },
            ) => a == b && same(cgroup_id, found),
            (
                Self::Netns {
                    netns_ino,
                    attach_type: a,
                },
                Self::Netns {
                    netns_ino: found,
                    attach_type: b,
                },
            ) => a == b && word(netns_ino, found),
            (Self::Xdp { ifindex }, Self::Xdp { ifindex: found }) => word(ifindex, found),
            (
                Self::Tcx {
                    ifindex,
                    attach_type: a,
                },
                Self::Tcx {
                    ifindex: found,
                    attach_type: b,
                },
            )
            | (
                Self::Netkit {
                    ifindex,
                    attach_type: a,
                },
                Self::Netkit {
                    ifindex: found,
                    attach_type: b,
                },
            )
            | (
                Self::Sockmap {
                    map_id: ifindex,
                    attach_type: a,
                },
                Self::Sockmap {
                    map_id: found,
                    attach_type: b,
                },
            ) => a == b && word(ifindex, found),
            (
                Self::Iter {
                    map_id,
                    cgroup_id,
                    order,
                    tid,
                    pid,
                },
                Self::Iter {
                    map_id: found_map,
                    cgroup_id: found_cgroup,
                    order: found_order,
                    tid: found_tid,
                    pid: found_pid,
                },
            ) => {
                // One that goes through all is another than one that goes through some; but no
                // control group is the root.
                [map_id, order.0, tid, pid] == [found_map, found_order.0, found_tid, found_pid]
                    && same(cgroup_id, found_cgroup)
            }
            (Self::Netfilter { .. }, _) => self == found,
            (Self::RawTracepoint { cookie }, Self::RawTracepoint { cookie: found })
            | (Self::PerfEvent { cookie, .. }, Self::PerfEvent { cookie: found, .. }) => {
                told(cookie, found)
            }
            // Without a count the kernel tells nothing of them.
            (Self::KprobeMulti { .. }, Self::KprobeMulti { count: 0, .. })
            | (Self::UprobeMulti { .. }, Self::UprobeMulti { count: 0, .. }) => true,
            (Self::KprobeMulti { .. }, Self::KprobeMulti { .. }) => self == found,
            (
                Self::UprobeMulti { count, flags, pid },
                Self::UprobeMulti {
                    count: found_count,
                    flags: found_flags,
                    pid: found_pid,
                },
            ) => {
                // A process that is gone has no number any more.
                (count, flags) == (found_count, found_flags) && told(pid.into(), found_pid.into())
            }
            _ => false,
        }
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

/// The part of `struct bpf_link_info` that depends on the type, by offsets in an arm.
pub(crate) struct Details(pub(crate) [u32; size_of::<abi::bpf_link_info_details>() / 4]);

impl Details {
    fn word(&self, offset: usize) -> u32 {
        self.0[offset / 4]
    }

    fn long(&self, offset: usize) -> u64 {
        let halves = [
            self.0[offset / 4].to_ne_bytes(),
            self.0[offset / 4 + 1].to_ne_bytes(),
        ];
        let mut bytes = [0; 8];
        bytes.copy_from_slice(halves.as_flattened());
        u64::from_ne_bytes(bytes)
    }

    fn attach_type(&self, offset: usize) -> AttachType {
        AttachType(self.word(offset))
    }
}
