//! The arguments of a new link.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::fstat;
use rustix::io::Errno;

use crate::object::Prog;
use crate::object::try_info;
use crate::sys::{self, AsMap, Functions, Uprobes};
use crate::types::{AttachType, CgroupIterOrder};

use super::position::{IterTask, Position, XdpFlags};
use crate::types::LinkTarget;

/// The arguments of `BPF_LINK_CREATE` or `BPF_RAW_TRACEPOINT_OPEN`: the target of a program and how it is attached.
///
/// The setters check nothing. [`create`](Self::create) rejects an option that the target does not have.
///
/// Not supported: many functions of the kernel by their BTF ids (`BPF_TRACE_FENTRY_MULTI` and similar). The
/// arm is [`bpf_attr_link_create_tracing_multi`](bpf_pin_sys::bpf_attr_link_create_tracing_multi).
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::link::{Anchor, Position, XdpFlags};
/// use bpf_pin::types::AttachType;
/// use bpf_pin::{Link, LinkSpec, Prog};
///
/// let (filter, first) = (Prog::open("/sys/fs/bpf/filter")?, Link::open("/sys/fs/bpf/first")?);
/// let xdp = LinkSpec::xdp(2).xdp_flags(XdpFlags::SKB_MODE);
/// let tcx = LinkSpec::tcx(2, AttachType::TCX_INGRESS).position(Position::After(Anchor::Link(&first)));
/// let link = tcx.create(&filter)?;
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct LinkSpec<'a> {
    /// The target as far as numbers name it; what `operand` names is 0.
    pub(super) target: LinkTarget,
    pub(super) operand: Operand<'a>,
    pub(super) flags: u32,
    pub(super) xdp_flags: Option<XdpFlags>,
    pub(super) position: Option<Position<'a>>,
    pub(super) expected_revision: u64,
    pub(super) cookie: Option<u64>,
    pub(super) cookies: Option<&'a [u64]>,
    pub(super) session: bool,
}

/// What names the target, if it is not a number.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operand<'a> {
    None,
    /// The directory of a control group, the file of a network namespace, or a perf event.
    File(BorrowedFd<'a>),
    /// A map, or the program that has a function.
    Object(BorrowedFd<'a>),
    Tracepoint(&'a CStr),
    Functions(Functions<'a>),
    Uprobes(Uprobes<'a>),
}

impl<'a> LinkSpec<'a> {
    /// A control group, by a descriptor of its directory in a cgroup2 file system, which others may
    /// have attached programs to, too. Linux 5.7.
    ///
    /// Of a cgroup v1, of another file system's directory or of a file: EBADF.
    pub fn cgroup(cgroup: &'a impl AsFd, attach_type: AttachType) -> Self {
        let target = LinkTarget::Cgroup {
            cgroup_id: 0,
            attach_type,
        };
        Self::new(target, Operand::File(cgroup.as_fd()))
    }

    /// A network namespace, by a descriptor of a file such as /proc/self/ns/net: its flow
    /// dissector (Linux 5.8) or its socket look-up ([`AttachType::SK_LOOKUP`], Linux 5.9).
    pub fn netns(netns: &'a impl AsFd, attach_type: AttachType) -> Self {
        let target = LinkTarget::Netns {
            netns_ino: 0,
            attach_type,
        };
        Self::new(target, Operand::File(netns.as_fd()))
    }

    /// `BPF_XDP`: a network device's driver, by the device's index. Linux 5.9.
    ///
    /// The index is in `/sys/class/net/NAME/ifindex`, and if_nametoindex(3) tells it: that of this
    /// thread's network namespace.
    ///
    /// A device has one link in a mode, and one of the driver's mode and the generic one. The link
    /// takes another program by [`Link::update`](super::Link::update) only if both were loaded with the same
    /// [`expected_attach_type`](crate::ProgSpec::expected_attach_type), else EINVAL: aya and libbpf set
    /// [`AttachType::XDP`], and [`ProgSpec`](crate::ProgSpec) sets what it is told.
    pub fn xdp(ifindex: u32) -> Self {
        Self::new(LinkTarget::Xdp { ifindex }, Operand::None)
    }

    /// Traffic control of a network device, by the device's index: [`AttachType::TCX_INGRESS`] or
    /// [`AttachType::TCX_EGRESS`], behind what is attached already. Linux 6.6, before which
    /// [`create`](Self::create) says [`Unsupported`](crate::error::Cause::Unsupported) (EINVAL).
    pub fn tcx(ifindex: u32, attach_type: AttachType) -> Self {
        let target = LinkTarget::Tcx {
            ifindex,
            attach_type,
        };
        Self::new(target, Operand::None)
    }

    /// A netkit device, by the index of its primary end: `BPF_NETKIT_PRIMARY` or `BPF_NETKIT_PEER`,
    /// behind what is attached already. Linux 6.7.
    pub fn netkit(ifindex: u32, attach_type: AttachType) -> Self {
        let target = LinkTarget::Netkit {
            ifindex,
            attach_type,
        };
        Self::new(target, Operand::None)
    }

    /// A map of sockets: [`AttachType::SK_MSG_VERDICT`], [`AttachType::SK_SKB_VERDICT`] and their
    /// like. `BPF_LINK_TYPE_SOCKMAP`: Linux 6.10.
    pub fn sockmap(map: &'a impl AsMap, attach_type: AttachType) -> Self {
        let target = LinkTarget::Sockmap {
            map_id: 0,
            attach_type,
        };
        Self::new(target, Operand::Object(map.map_fd()))
    }

    /// What the program was loaded for, by its `attach_btf_id`: the way must be the
    /// `expected_attach_type` that it was loaded with. `BPF_TRACE_FENTRY`, `BPF_TRACE_FEXIT`,
    /// `BPF_TRACE_RAW_TP`: Linux 5.5. `BPF_MODIFY_RETURN`, `BPF_LSM_MAC`: Linux 5.7.
    ///
    /// By `BPF_RAW_TRACEPOINT_OPEN`, which every kernel has for these; with a
    /// [`cookie`](Self::cookie) by `BPF_LINK_CREATE`. The same program is not attached twice (EBUSY).
    pub fn tracing(attach_type: AttachType) -> Self {
        Self::new(LinkTarget::tracing(attach_type, 0), Operand::None)
    }

    /// `BPF_RAW_TRACEPOINT_OPEN`: a tracepoint by its name, such as "sched_switch". Linux 4.17.
    pub fn raw_tracepoint(name: &'a CStr) -> Self {
        Self::new(
            LinkTarget::RawTracepoint { cookie: 0 },
            Operand::Tracepoint(name),
        )
    }

    /// `BPF_TRACE_ITER`: an iterator, through all that its program was loaded for. Linux 5.8.
    ///
    /// Its pin is a file to be read: each `open(2)` of it starts anew, as [`Link::iter`](super::Link::iter) does.
    pub fn iter() -> Self {
        Self::new(LinkTarget::ITER_ALL, Operand::None)
    }

    /// An iterator through the elements of a map. Linux 5.9.
    pub fn iter_map(map: &'a impl AsMap) -> Self {
        Self::new(LinkTarget::ITER_ALL, Operand::Object(map.map_fd()))
    }

    /// An iterator through control groups, from this one on, `BPF_CGROUP_ITER_DESCENDANTS_PRE` or in
    /// another order. Linux 6.1.
    pub fn iter_cgroup(cgroup: &'a impl AsFd, order: CgroupIterOrder) -> Self {
        let target = LinkTarget::iter_cgroup(0, order);
        Self::new(target, Operand::File(cgroup.as_fd()))
    }

    /// An iterator through control groups, from the one with this id on, or from the root where that
    /// is 0, `BPF_CGROUP_ITER_DESCENDANTS_PRE` or in another order. Linux 6.1.
    pub fn iter_cgroup_id(cgroup_id: u64, order: CgroupIterOrder) -> Self {
        Self::new(LinkTarget::iter_cgroup(cgroup_id, order), Operand::None)
    }

    /// An iterator through the resources of one task. Linux 6.1.
    pub fn iter_task(task: IterTask) -> Self {
        Self::new(LinkTarget::iter_task(task), Operand::None)
    }

    /// `target_btf_id`: the place of a function of another program, by the function's id in that
    /// program's BTF. What takes it is of type [`EXT`](crate::types::ProgType::EXT) and was loaded for such a
    /// function. Linux 5.10.
    ///
    /// Both functions are global, and alike in what they take and return; the target is compiled. A
    /// function has one in its place (EBUSY). The kernel has no attach type for it, and looks at none.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::prog::{Btf, Insn};
    /// use bpf_pin::types::ProgType;
    /// use bpf_pin::{LinkSpec, Prog, ProgSpec};
    ///
    /// # let (btf, functions) = (Btf::from_id(1)?, [0; 8]);
    /// let filter = Prog::open("/sys/fs/bpf/filter")?;
    /// let insns = [Insn::mov64_imm(0, 0), Insn::exit()];
    /// let drops_all = ProgSpec::new(ProgType::EXT, &insns)
    ///     .btf(&btf)
    ///     .func_info(&functions, 8)
    ///     .attach_prog(&filter)
    ///     .attach_btf_id(4)
    ///     .load()?;
    /// let link = LinkSpec::freplace(&filter, 4).create(&drops_all)?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn freplace(target: &'a Prog, btf_id: u32) -> Self {
        let function = LinkTarget::tracing(AttachType(0), btf_id);
        Self::new(function, Operand::Object(target.as_fd()))
    }

    /// `BPF_PERF_EVENT`: an event of `perf_event_open(2)`, which is a kprobe, an uprobe, a tracepoint
    /// or a counter. Linux 5.15.
    pub fn perf_event(event: &'a impl AsFd) -> Self {
        let target = LinkTarget::PerfEvent {
            event_type: 0,
            cookie: 0,
        };
        Self::new(target, Operand::File(event.as_fd()))
    }

    /// `BPF_TRACE_KPROBE_MULTI`: functions of the kernel by their names. Linux 5.18.
    ///
    /// [`flags`](Self::flags) are `BPF_F_KPROBE_MULTI_RETURN` or 0.
    pub fn kprobe_multi(functions: &'a [&'a CStr]) -> Self {
        Self::kprobes(Functions::Names(functions))
    }

    /// `BPF_TRACE_KPROBE_MULTI`: functions of the kernel by their addresses. Linux 5.18.
    pub fn kprobe_multi_at(addresses: &'a [u64]) -> Self {
        Self::kprobes(Functions::Addresses(addresses))
    }

    fn kprobes(functions: Functions<'a>) -> Self {
        let target = LinkTarget::KprobeMulti {
            count: functions.len() as u32,
            flags: 0,
        };
        Self::new(target, Operand::Functions(functions))
    }

    /// `BPF_TRACE_UPROBE_MULTI`: probe points in an executable or library. Linux 6.6.
    ///
    /// [`flags`](Self::flags) are `BPF_F_UPROBE_MULTI_RETURN` or 0. [`Uprobes::new`] is unsafe: the kernel
    /// writes breakpoints into the code of every process that maps the file.
    pub fn uprobe_multi(uprobes: Uprobes<'a>) -> Self {
        let target = LinkTarget::UprobeMulti {
            count: uprobes.len() as u32,
            flags: 0,
            pid: uprobes.process(),
        };
        Self::new(target, Operand::Uprobes(uprobes))
    }

    /// `BPF_NETFILTER`: a hook of this thread's network namespace, by `NFPROTO_*` and `NF_INET_*`. One
    /// priority has one function: the lower, the earlier. Linux 6.4.
    ///
    /// [`flags`](Self::flags) are `BPF_F_NETFILTER_IP_DEFRAG` or 0.
    pub fn netfilter(pf: u32, hooknum: u32, priority: i32) -> Self {
        let target = LinkTarget::Netfilter {
            pf,
            hooknum,
            priority,
            flags: 0,
        };
        Self::new(target, Operand::None)
    }

    fn new(target: LinkTarget, operand: Operand<'a>) -> Self {
        Self {
            target,
            operand,
            flags: 0,
            xdp_flags: None,
            position: None,
            expected_revision: 0,
            cookie: None,
            cookies: None,
            session: false,
        }
    }

    /// `link_create.flags`, or the flags of the target's own arm. Their meaning depends on the target. The
    /// flags of a [`position`](Self::position) are not among them.
    pub fn flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }

    /// `XDP_FLAGS_*`, for [`xdp`](Self::xdp).
    pub fn xdp_flags(mut self, flags: XdpFlags) -> Self {
        self.xdp_flags = Some(flags);
        self
    }

    /// `BPF_F_BEFORE`, `BPF_F_AFTER` and `relative_fd`: where among those that are attached already;
    /// of `BPF_TCX_INGRESS` and its
    /// like (Linux 6.6), `BPF_NETKIT_PRIMARY` and its like (Linux 6.7), and control groups.
    pub fn position(mut self, position: Position<'a>) -> Self {
        self.position = Some(position);
        self
    }

    /// `expected_revision`: only if nobody has attached or detached anything there since it was of
    /// this revision, which `BPF_PROG_QUERY` tells; else ESTALE. Of `BPF_TCX_INGRESS` and
    /// its like (Linux 6.6), `BPF_NETKIT_PRIMARY` and its like (Linux 6.7), and control groups.
    pub fn expected_revision(mut self, revision: u64) -> Self {
        self.expected_revision = revision;
        self
    }

    /// A number that the program can ask for: of a perf event (`BPF_PERF_EVENT`: Linux 5.15), of
    /// tracing and of a raw tracepoint.
    pub fn cookie(mut self, cookie: u64) -> Self {
        self.cookie = Some(cookie);
        self
    }

    /// A number for each function or place, in their order; of [`kprobe_multi`](Self::kprobe_multi)
    /// and [`uprobe_multi`](Self::uprobe_multi).
    pub fn cookies(mut self, cookies: &'a [u64]) -> Self {
        self.cookies = Some(cookies);
        self
    }

    /// `BPF_TRACE_KPROBE_SESSION` (Linux 6.10), `BPF_TRACE_UPROBE_SESSION` (Linux 6.13): the program runs
    /// at the entry of a function, and at its return if it says so at the entry. For
    /// [`kprobe_multi`](Self::kprobe_multi) and [`uprobe_multi`](Self::uprobe_multi).
    pub fn session(mut self) -> Self {
        self.session = true;
        self
    }

    /// How the program is attached.
    pub fn attach_type(&self) -> AttachType {
        match self.target {
            LinkTarget::KprobeMulti { .. } if self.session => AttachType::TRACE_KPROBE_SESSION,
            LinkTarget::UprobeMulti { .. } if self.session => AttachType::TRACE_UPROBE_SESSION,
            target => target.attach_type(),
        }
    }

    /// The target that a link of this spec will report. What is not known beforehand is 0.
    pub(crate) fn expected_target(&self, prog: &Prog) -> Result<LinkTarget, Errno> {
        let mut target = self.target;
        let given = self.cookie.unwrap_or_default();
        match (&mut target, self.operand) {
            (
                LinkTarget::Cgroup { cgroup_id, .. } | LinkTarget::Iter { cgroup_id, .. },
                Operand::File(fd),
            ) => *cgroup_id = fstat(fd)?.st_ino,
            (LinkTarget::Netns { netns_ino, .. }, Operand::File(fd)) => {
                *netns_ino = fstat(fd)?.st_ino as u32;
            }
            (
                LinkTarget::Sockmap { map_id: id, .. }
                | LinkTarget::Iter { map_id: id, .. }
                | LinkTarget::Tracing { obj_id: id, .. },
                Operand::Object(fd),
            ) => *id = sys::object_id(fd)?,
            // Such a link reports a name and no BTF.
            (LinkTarget::Tracing { attach_type, .. }, _)
                if *attach_type == AttachType::TRACE_RAW_TP =>
            {
                target = LinkTarget::RawTracepoint { cookie: 0 };
            }
            (LinkTarget::Tracing { obj_id, btf_id, .. }, _) => {
                let info = try_info(prog)?;
                (*obj_id, *btf_id) = (info.attach_btf_obj_id, info.attach_btf_id);
            }
            // A link at the peer reports the index of the other end.
            (
                LinkTarget::Netkit {
                    ifindex,
                    attach_type: AttachType::NETKIT_PEER,
                },
                _,
            ) => *ifindex = 0,
            _ => {}
        }
        match &mut target {
            LinkTarget::RawTracepoint { cookie }
            | LinkTarget::Tracing { cookie, .. }
            | LinkTarget::PerfEvent { cookie, .. } => *cookie = given,
            LinkTarget::KprobeMulti { flags, .. }
            | LinkTarget::UprobeMulti { flags, .. }
            | LinkTarget::Netfilter { flags, .. } => *flags = self.flags,
            _ => {}
        }
        Ok(target)
    }

    /// The name that a link of this spec reports for its target.
    pub(crate) fn target_name(&self) -> Option<&'a CStr> {
        match self.operand {
            Operand::Tracepoint(name) => Some(name),
            _ => None,
        }
    }
}
