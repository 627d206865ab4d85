//! Where a program is to be attached.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use bitflags::bitflags;
use rustix::fs::fstat;
use rustix::io::Errno;

use bpf_pin_sys as abi;

use crate::prog::Prog;
use crate::sys::{self, Functions, LinkOpts, NonZeroFd};
use crate::types::{AttachType, CgroupIterOrder};

use super::Link;
use crate::target::LinkTarget;

bitflags! {
    /// `XDP_FLAGS_*`: which of a device's ways to run XDP programs. Without any, the driver's own
    /// where it has one. Bits that a newer kernel knows are kept; those of other than modes a link
    /// does not have (EINVAL).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct XdpFlags: u32 {
        /// `XDP_FLAGS_SKB_MODE`: the generic one, which every device has.
        const SKB_MODE = 1 << 1;
        /// `XDP_FLAGS_DRV_MODE`: the driver's.
        const DRV_MODE = 1 << 2;
        /// `XDP_FLAGS_HW_MODE`: the device's own.
        const HW_MODE = 1 << 3;
        const _ = !0;
    }
}

/// Where among those that are attached at the same place: `BPF_F_BEFORE`, `BPF_F_AFTER`. Linux 6.6.
#[derive(Debug, Clone, Copy)]
pub enum Position<'a> {
    /// Before all.
    First,
    /// Behind all.
    Last,
    /// Right before this one.
    Before(Anchor<'a>),
    /// Right behind this one.
    After(Anchor<'a>),
}

/// One of those that are attached at the same place.
#[derive(Debug, Clone, Copy)]
pub enum Anchor<'a> {
    /// `BPF_F_LINK`: what this link holds.
    Link(&'a Link),
    /// This program; of a control group, where links stand beside links, EINVAL.
    Prog(&'a Prog),
    /// `BPF_F_LINK`, `BPF_F_ID`: what the link with this id holds.
    LinkId(u32),
    /// `BPF_F_ID`: the program with this id; likewise.
    ProgId(u32),
}

impl<'a> Position<'a> {
    pub(super) fn flags(&self) -> u32 {
        let (side, anchor) = match self {
            Self::First => (abi::BPF_F_BEFORE, None),
            Self::Last => (abi::BPF_F_AFTER, None),
            Self::Before(anchor) => (abi::BPF_F_BEFORE, Some(anchor)),
            Self::After(anchor) => (abi::BPF_F_AFTER, Some(anchor)),
        };
        let of_anchor = match anchor {
            None | Some(Anchor::Prog(_)) => 0,
            Some(Anchor::Link(_)) => abi::BPF_F_LINK,
            Some(Anchor::LinkId(_)) => abi::BPF_F_LINK | abi::BPF_F_ID,
            Some(Anchor::ProgId(_)) => abi::BPF_F_ID,
        };
        side | of_anchor
    }

    /// Beside whom; with a descriptor other than 0, which says nobody.
    pub(super) fn relative(&self) -> Result<Relative<'a>, Errno> {
        let (Self::Before(anchor) | Self::After(anchor)) = *self else {
            return Ok(Relative::Id(0));
        };
        let fd = match anchor {
            Anchor::Link(link) => link.as_fd(),
            Anchor::Prog(prog) => prog.as_fd(),
            Anchor::LinkId(id) | Anchor::ProgId(id) => return Ok(Relative::Id(id)),
        };
        NonZeroFd::new(Some(fd)).map(Relative::Fd)
    }
}

/// Beside whom, kept open.
pub(super) enum Relative<'a> {
    Fd(NonZeroFd<'a>),
    Id(u32),
}

impl Relative<'_> {
    pub(super) fn number(&self) -> u32 {
        match self {
            Self::Fd(fd) => fd.number(),
            Self::Id(id) => *id,
        }
    }
}

/// Whose resources an iterator goes through. Linux 6.1.
#[derive(Debug, Clone, Copy)]
pub enum IterTask {
    /// One thread's.
    Tid(u32),
    /// One process's.
    Pid(u32),
}

/// What an iterator goes through.
#[derive(Debug, Clone, Copy)]
pub(super) enum Over<'a> {
    /// All that its program says.
    All,
    Map(BorrowedFd<'a>),
    Cgroup(BorrowedFd<'a>, CgroupIterOrder),
    CgroupId(u64, CgroupIterOrder),
    Task(IterTask),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Point<'a> {
    Cgroup(BorrowedFd<'a>),
    Netns(BorrowedFd<'a>),
    /// A network device by its index, as are the next two.
    Xdp(u32),
    Tcx(u32),
    Netkit(u32),
    Sockmap(BorrowedFd<'a>),
    /// What the program was loaded for.
    Tracing,
    /// Of another program, by its id in that one's BTF.
    Function {
        prog: BorrowedFd<'a>,
        btf_id: u32,
    },
    RawTracepoint(&'a CStr),
    Iter(Over<'a>),
    PerfEvent(BorrowedFd<'a>),
    Kprobes(Functions<'a>),
    Uprobes(Uprobes<'a>),
    Netfilter {
        pf: u32,
        hooknum: u32,
        priority: i32,
    },
    /// An option was given that the point does not have.
    Misfit(&'static str),
}

/// Places in an executable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Uprobes<'a> {
    pub(super) path: &'a CStr,
    pub(super) offsets: &'a [u64],
    pub(super) ref_ctr_offsets: &'a [u64],
    pub(super) pid: u32,
}

impl Point<'_> {
    /// What a person calls it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Cgroup(_) => "cgroup",
            Self::Netns(_) => "netns",
            Self::Xdp(_) => "device",
            Self::Tcx(_) => "device's traffic control",
            Self::Netkit(_) => "netkit device",
            Self::Sockmap(_) => "map of sockets",
            Self::Tracing => "function",
            Self::Function { .. } => "program's function",
            Self::RawTracepoint(_) => "raw tracepoint",
            Self::Iter(_) => "iterator",
            Self::PerfEvent(_) => "perf event",
            Self::Kprobes(_) => "set of functions",
            Self::Uprobes(_) => "set of places in an executable",
            Self::Netfilter { .. } => "netfilter hook",
            Self::Misfit(_) => "point of this kind",
        }
    }

    /// One word of the attr is a descriptor or a device's index, as the attach type has it: an
    /// index must not be taken for somebody's descriptor.
    pub(super) fn fits(&self, attach_type: AttachType) -> bool {
        type A = AttachType;
        match self {
            Self::Cgroup(_) => attach_type
                .name()
                .is_some_and(|name| name.starts_with("CGROUP_") || name == "LSM_CGROUP"),
            Self::Netns(_) => matches!(attach_type, A::FLOW_DISSECTOR | A::SK_LOOKUP),
            Self::Xdp(_) => attach_type == A::XDP,
            Self::Tcx(_) => matches!(attach_type, A::TCX_INGRESS | A::TCX_EGRESS),
            Self::Netkit(_) => matches!(attach_type, A::NETKIT_PRIMARY | A::NETKIT_PEER),
            Self::Sockmap(_) => matches!(
                attach_type,
                A::SK_MSG_VERDICT
                    | A::SK_SKB_STREAM_PARSER
                    | A::SK_SKB_STREAM_VERDICT
                    | A::SK_SKB_VERDICT
            ),
            Self::Tracing => matches!(
                attach_type,
                A::TRACE_RAW_TP
                    | A::TRACE_FENTRY
                    | A::TRACE_FEXIT
                    | A::TRACE_FSESSION
                    | A::MODIFY_RETURN
                    | A::LSM_MAC
            ),
            Self::Kprobes(_) => {
                matches!(attach_type, A::TRACE_KPROBE_MULTI | A::TRACE_KPROBE_SESSION)
            }
            Self::Uprobes(_) => {
                matches!(attach_type, A::TRACE_UPROBE_MULTI | A::TRACE_UPROBE_SESSION)
            }
            Self::Function { .. }
            | Self::RawTracepoint(_)
            | Self::Iter(_)
            | Self::PerfEvent(_)
            | Self::Netfilter { .. }
            | Self::Misfit(_) => true,
        }
    }

    /// `link_create.target_fd`, or the device's index.
    pub(super) fn word(&self) -> u32 {
        match self {
            Self::Cgroup(fd) | Self::Netns(fd) | Self::Sockmap(fd) | Self::PerfEvent(fd) => {
                fd.as_raw_fd() as u32
            }
            Self::Xdp(ifindex) | Self::Tcx(ifindex) | Self::Netkit(ifindex) => *ifindex,
            _ => 0,
        }
    }

    /// The device, or 0.
    pub(super) fn ifindex(&self) -> u32 {
        match self {
            Self::Xdp(ifindex) | Self::Tcx(ifindex) | Self::Netkit(ifindex) => *ifindex,
            _ => 0,
        }
    }

    /// Whether others are attached beside it, in an order.
    pub(super) fn is_ordered(&self) -> bool {
        matches!(self, Self::Cgroup(_) | Self::Tcx(_) | Self::Netkit(_))
    }
}

impl Over<'_> {
    /// Calls with the options, and with what they name by number open.
    pub(super) fn with_opts<T>(
        &self,
        call: impl FnOnce(LinkOpts<'static>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let copied;
        let number = |fd| NonZeroFd::new(Some(fd));
        let opts = match *self {
            Self::All => LinkOpts::None,
            Self::Map(fd) => {
                copied = number(fd)?;
                LinkOpts::Iter(abi::bpf_iter_link_info_map {
                    map_fd: copied.number(),
                })
            }
            Self::Cgroup(fd, order) => {
                copied = number(fd)?;
                LinkOpts::IterCgroup(abi::bpf_iter_link_info_cgroup {
                    order: order.0,
                    cgroup_fd: copied.number(),
                    cgroup_id: 0,
                })
            }
            Self::CgroupId(cgroup_id, order) => {
                LinkOpts::IterCgroup(abi::bpf_iter_link_info_cgroup {
                    order: order.0,
                    cgroup_fd: 0,
                    cgroup_id,
                })
            }
            Self::Task(task) => {
                let mut info = abi::bpf_iter_link_info_task::zeroed();
                match task {
                    IterTask::Tid(tid) => info.tid = tid,
                    IterTask::Pid(pid) => info.pid = pid,
                }
                LinkOpts::IterTask(info)
            }
        };
        call(opts)
    }

    fn target(&self) -> Result<LinkTarget, Errno> {
        let (mut map_id, mut cgroup_id, mut tid, mut pid) = (0, 0, 0, 0);
        let mut order = CgroupIterOrder::UNSPEC;
        match *self {
            Self::All => {}
            Self::Map(fd) => map_id = sys::object_id(fd)?,
            Self::Cgroup(fd, way) => (cgroup_id, order) = (fstat(fd)?.st_ino, way),
            Self::CgroupId(id, way) => (cgroup_id, order) = (id, way),
            Self::Task(IterTask::Tid(id)) => tid = id,
            Self::Task(IterTask::Pid(id)) => pid = id,
        }
        Ok(LinkTarget::Iter {
            map_id,
            cgroup_id,
            order,
            tid,
            pid,
        })
    }
}

/// What a link to this point tells of it, as far as that is known beforehand: 0 where it is not.
pub(super) fn target(
    point: &Point<'_>,
    attach_type: AttachType,
    flags: u32,
    cookie: u64,
    prog: &Prog,
) -> Result<LinkTarget, Errno> {
    Ok(match *point {
        Point::Misfit(_) => return Err(Errno::INVAL),
        Point::Cgroup(fd) => LinkTarget::Cgroup {
            cgroup_id: fstat(fd)?.st_ino,
            attach_type,
        },
        Point::Netns(fd) => LinkTarget::Netns {
            netns_ino: fstat(fd)?.st_ino as u32,
            attach_type,
        },
        Point::Xdp(ifindex) => LinkTarget::Xdp { ifindex },
        Point::Tcx(ifindex) => LinkTarget::Tcx {
            ifindex,
            attach_type,
        },
        Point::Netkit(ifindex) => LinkTarget::Netkit {
            // Of the peer the index of the other end is told.
            ifindex: match attach_type {
                AttachType::NETKIT_PEER => 0,
                _ => ifindex,
            },
            attach_type,
        },
        Point::Sockmap(fd) => LinkTarget::Sockmap {
            map_id: sys::object_id(fd)?,
            attach_type,
        },
        // A link of its own kind, which tells a name and no BTF.
        Point::Tracing if attach_type == AttachType::TRACE_RAW_TP => {
            LinkTarget::RawTracepoint { cookie }
        }
        Point::Tracing => {
            let info = prog.try_info()?;
            LinkTarget::Tracing {
                attach_type,
                obj_id: info.attach_btf_obj_id,
                btf_id: info.attach_btf_id,
                cookie,
            }
        }
        Point::Function { prog, btf_id } => LinkTarget::Tracing {
            attach_type,
            obj_id: sys::object_id(prog)?,
            btf_id,
            cookie,
        },
        Point::RawTracepoint(_) => LinkTarget::RawTracepoint { cookie },
        Point::Iter(over) => over.target()?,
        Point::PerfEvent(_) => LinkTarget::PerfEvent {
            event_type: 0,
            cookie,
        },
        Point::Kprobes(functions) => LinkTarget::KprobeMulti {
            count: functions.len() as u32,
            flags,
        },
        Point::Uprobes(uprobes) => LinkTarget::UprobeMulti {
            count: uprobes.offsets.len() as u32,
            flags,
            pid: uprobes.pid,
        },
        Point::Netfilter {
            pf,
            hooknum,
            priority,
        } => LinkTarget::Netfilter {
            pf,
            hooknum,
            priority,
            flags,
        },
    })
}
