//! The target and options of a new link.

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

/// The target of a program and how it is attached: the arguments of `BPF_LINK_CREATE` or
/// `BPF_RAW_TRACEPOINT_OPEN`.
///
/// A constructor names the target, setters add options, and [`create`](Self::create) attaches a program.
/// The setters check nothing; `create` rejects an option that the target does not have.
///
/// Not supported: several kernel functions by their BTF ids (`BPF_TRACE_FENTRY_MULTI` and similar). The
/// struct for them is
/// [`bpf_attr_link_create_tracing_multi`](bpf_pin_sys::bpf_attr_link_create_tracing_multi).
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
    /// The numbers of the target. Those that `operand` stands for are 0.
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

/// The part of the target that is not a number.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operand<'a> {
    None,
    /// The directory of a control group, the file of a network namespace or a perf event.
    File(BorrowedFd<'a>),
    /// A map, or the program of a function.
    Object(BorrowedFd<'a>),
    Tracepoint(&'a CStr),
    Functions(Functions<'a>),
    Uprobes(Uprobes<'a>),
}

impl<'a> LinkSpec<'a> {
    /// A control group, by a descriptor of its directory in a cgroup2 file system. Linux 5.7.
    ///
    /// Programs that are attached there already stay. Any other descriptor, such as a directory of
    /// cgroup v1, fails with EBADF.
    pub fn cgroup(cgroup: &'a impl AsFd, attach_type: AttachType) -> Self {
        let target = LinkTarget::Cgroup {
            cgroup_id: 0,
            attach_type,
        };
        Self::new(target, Operand::File(cgroup.as_fd()))
    }

    /// A network namespace, by a descriptor of a file such as /proc/self/ns/net.
    ///
    /// The attach type is that of its flow dissector (Linux 5.8) or of its socket look-up
    /// ([`AttachType::SK_LOOKUP`], Linux 5.9).
    pub fn netns(netns: &'a impl AsFd, attach_type: AttachType) -> Self {
        let target = LinkTarget::Netns {
            netns_ino: 0,
            attach_type,
        };
        Self::new(target, Operand::File(netns.as_fd()))
    }

    /// `BPF_XDP`: the driver of a network device, by the index of the device in this thread's network
    /// namespace. Linux 5.9.
    ///
    /// `if_nametoindex(3)` and `/sys/class/net/NAME/ifindex` return the index.
    ///
    /// A device has one link per mode, and only one of driver mode and generic mode.
    /// [`Link::update`](super::Link::update) fails with EINVAL unless both programs were loaded with the same
    /// [`expected_attach_type`](crate::ProgSpec::expected_attach_type). aya, libbpf and
    /// [`ProgSpec`](crate::ProgSpec) load XDP programs with [`AttachType::XDP`].
    pub fn xdp(ifindex: u32) -> Self {
        Self::new(LinkTarget::Xdp { ifindex }, Operand::None)
    }

    /// The traffic control of a network device, by its index: [`AttachType::TCX_INGRESS`] or
    /// [`AttachType::TCX_EGRESS`]. The program runs after those that are attached already, unless it gets a
    /// [`position`](Self::position). Linux 6.6.
    ///
    /// On an older kernel [`create`](Self::create) fails with
    /// [`Unsupported`](crate::error::Cause::Unsupported) (EINVAL).
    pub fn tcx(ifindex: u32, attach_type: AttachType) -> Self {
        let target = LinkTarget::Tcx {
            ifindex,
            attach_type,
        };
        Self::new(target, Operand::None)
    }

    /// A netkit device, by the index of its primary end: `BPF_NETKIT_PRIMARY` or `BPF_NETKIT_PEER`. The
    /// program runs after those that are attached already, unless it gets a [`position`](Self::position).
    /// Linux 6.7.
    pub fn netkit(ifindex: u32, attach_type: AttachType) -> Self {
        let target = LinkTarget::Netkit {
            ifindex,
            attach_type,
        };
        Self::new(target, Operand::None)
    }

    /// A sockmap or sockhash: [`AttachType::SK_MSG_VERDICT`], [`AttachType::SK_SKB_VERDICT`],
    /// [`AttachType::SK_SKB_STREAM_PARSER`] or [`AttachType::SK_SKB_STREAM_VERDICT`].
    /// `BPF_LINK_TYPE_SOCKMAP`: Linux 6.10.
    pub fn sockmap(map: &'a impl AsMap, attach_type: AttachType) -> Self {
        let target = LinkTarget::Sockmap {
            map_id: 0,
            attach_type,
        };
        Self::new(target, Operand::Object(map.map_fd()))
    }

    /// The kernel function, tracepoint or LSM hook that the program was loaded for, by its `attach_btf_id`.
    ///
    /// The attach type must be the `expected_attach_type` of the program. `BPF_TRACE_FENTRY`,
    /// `BPF_TRACE_FEXIT`, `BPF_TRACE_RAW_TP`: Linux 5.5. `BPF_MODIFY_RETURN`, `BPF_LSM_MAC`: Linux 5.7.
    ///
    /// Attaches with `BPF_RAW_TRACEPOINT_OPEN`, which every kernel has for these, or with `BPF_LINK_CREATE`
    /// if there is a [`cookie`](Self::cookie). A program cannot be attached twice (EBUSY).
    pub fn tracing(attach_type: AttachType) -> Self {
        Self::new(LinkTarget::tracing(attach_type, 0), Operand::None)
    }

    /// `BPF_RAW_TRACEPOINT_OPEN`: a raw tracepoint by its name, such as "sched_switch". Linux 4.17.
    pub fn raw_tracepoint(name: &'a CStr) -> Self {
        Self::new(
            LinkTarget::RawTracepoint { cookie: 0 },
            Operand::Tracepoint(name),
        )
    }

    /// `BPF_TRACE_ITER`: an iterator over all objects of the kind that its program was loaded for. Linux 5.8.
    ///
    /// Its pin can be opened and read like a file. Each `open(2)` starts a new iteration, as
    /// [`Link::iter`](super::Link::iter) does.
    pub fn iter() -> Self {
        Self::new(LinkTarget::ITER_ALL, Operand::None)
    }

    /// An iterator over the elements of a map. Linux 5.9.
    pub fn iter_map(map: &'a impl AsMap) -> Self {
        Self::new(LinkTarget::ITER_ALL, Operand::Object(map.map_fd()))
    }

    /// An iterator over control groups that starts at this one, in an order such as
    /// `BPF_CGROUP_ITER_DESCENDANTS_PRE`. Linux 6.1.
    pub fn iter_cgroup(cgroup: &'a impl AsFd, order: CgroupIterOrder) -> Self {
        let target = LinkTarget::iter(0, order, 0, 0);
        Self::new(target, Operand::File(cgroup.as_fd()))
    }

    /// An iterator over control groups that starts at the one with this id, or at the root if the id is 0,
    /// in an order such as `BPF_CGROUP_ITER_DESCENDANTS_PRE`. Linux 6.1.
    pub fn iter_cgroup_id(cgroup_id: u64, order: CgroupIterOrder) -> Self {
        Self::new(LinkTarget::iter(cgroup_id, order, 0, 0), Operand::None)
    }

    /// An iterator over the resources of one task, such as its open files. Linux 6.1.
    pub fn iter_task(task: IterTask) -> Self {
        let (tid, pid) = match task {
            IterTask::Tid(tid) => (tid, 0),
            IterTask::Pid(pid) => (0, pid),
        };
        let target = LinkTarget::iter(0, CgroupIterOrder::UNSPEC, tid, pid);
        Self::new(target, Operand::None)
    }

    /// A function of another program, which a program of type [`EXT`](crate::types::ProgType::EXT)
    /// replaces, by the function's id in the BTF of that program (`target_btf_id`). Linux 5.10.
    ///
    /// The replacement was loaded for such a function. Both functions are global and have the same
    /// signature, and the target program is JIT-compiled. A function has at most one replacement (EBUSY).
    /// The kernel ignores the attach type.
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

    /// `BPF_PERF_EVENT`: an event from `perf_event_open(2)`, which can be a kprobe, an uprobe, a tracepoint
    /// or a counter. Linux 5.15.
    pub fn perf_event(event: &'a impl AsFd) -> Self {
        let target = LinkTarget::PerfEvent {
            event_type: 0,
            cookie: 0,
        };
        Self::new(target, Operand::File(event.as_fd()))
    }

    /// `BPF_TRACE_KPROBE_MULTI`: kernel functions, by their names. Linux 5.18.
    ///
    /// [`flags`](Self::flags) can be `BPF_F_KPROBE_MULTI_RETURN`.
    pub fn kprobe_multi(functions: &'a [&'a CStr]) -> Self {
        Self::kprobes(Functions::Names(functions))
    }

    /// `BPF_TRACE_KPROBE_MULTI`: kernel functions, by their addresses. Linux 5.18.
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
    /// [`flags`](Self::flags) can be `BPF_F_UPROBE_MULTI_RETURN`. [`Uprobes::new`] is unsafe, because the
    /// kernel writes breakpoints into the code of every process that maps the file.
    pub fn uprobe_multi(uprobes: Uprobes<'a>) -> Self {
        let target = LinkTarget::UprobeMulti {
            count: uprobes.len() as u32,
            flags: 0,
            pid: uprobes.process(),
        };
        Self::new(target, Operand::Uprobes(uprobes))
    }

    /// `BPF_NETFILTER`: a netfilter hook of this thread's network namespace, by `NFPROTO_*` and `NF_INET_*`.
    /// Linux 6.4.
    ///
    /// Lower priorities run earlier, and each has at most one function.
    /// [`flags`](Self::flags) can be `BPF_F_NETFILTER_IP_DEFRAG`.
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

    /// Sets the flags of the target: `link_create.flags`, or those of its own struct.
    ///
    /// Their meaning depends on the target. [`position`](Self::position) sets its own flags.
    pub fn flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }

    /// Sets the mode of [`xdp`](Self::xdp): `XDP_FLAGS_*`.
    pub fn xdp_flags(mut self, flags: XdpFlags) -> Self {
        self.xdp_flags = Some(flags);
        self
    }

    /// Sets the position among the programs that are attached already: `BPF_F_BEFORE`, `BPF_F_AFTER` and
    /// `relative_fd`.
    ///
    /// For `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` (Linux 6.6), `BPF_NETKIT_PRIMARY` and
    /// `BPF_NETKIT_PEER` (Linux 6.7), and control groups.
    pub fn position(mut self, position: Position<'a>) -> Self {
        self.position = Some(position);
        self
    }

    /// Attaches only if the programs of the target have not changed since this revision, and fails with
    /// ESTALE otherwise: `expected_revision`.
    ///
    /// [`query`](Self::query) returns the revision. For `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` (Linux 6.6),
    /// `BPF_NETKIT_PRIMARY` and `BPF_NETKIT_PEER` (Linux 6.7), and control groups.
    pub fn expected_revision(mut self, revision: u64) -> Self {
        self.expected_revision = revision;
        self
    }

    /// Sets a number that the program can read with `bpf_get_attach_cookie`.
    ///
    /// For perf events (`BPF_PERF_EVENT`: Linux 5.15), tracing and raw tracepoints.
    pub fn cookie(mut self, cookie: u64) -> Self {
        self.cookie = Some(cookie);
        self
    }

    /// Sets a cookie for each function or probe point, in their order.
    ///
    /// For [`kprobe_multi`](Self::kprobe_multi) and [`uprobe_multi`](Self::uprobe_multi).
    pub fn cookies(mut self, cookies: &'a [u64]) -> Self {
        self.cookies = Some(cookies);
        self
    }

    /// Runs the program at the entry of each function, and also at its return unless the program declines it
    /// at the entry: `BPF_TRACE_KPROBE_SESSION` (Linux 6.10), `BPF_TRACE_UPROBE_SESSION` (Linux 6.13).
    ///
    /// For [`kprobe_multi`](Self::kprobe_multi) and [`uprobe_multi`](Self::uprobe_multi).
    pub fn session(mut self) -> Self {
        self.session = true;
        self
    }

    /// Returns the attach type.
    pub fn attach_type(&self) -> AttachType {
        match self.target {
            LinkTarget::KprobeMulti { .. } if self.session => AttachType::TRACE_KPROBE_SESSION,
            LinkTarget::UprobeMulti { .. } if self.session => AttachType::TRACE_UPROBE_SESSION,
            target => target.attach_type(),
        }
    }

    /// Returns the target as far as it is given by numbers: those of descriptors are 0.
    pub(crate) fn target(&self) -> LinkTarget {
        self.target
    }

    /// Returns the target that a link of this spec will report. Unknown numbers are 0, and so are those of the
    /// program's own target without the program.
    pub(crate) fn expected_target(&self, prog: Option<&Prog>) -> Result<LinkTarget, Errno> {
        let mut target = self.target;
        let given = self.cookie.unwrap_or_default();
        match (&mut target, self.operand) {
            (
                LinkTarget::Cgroup { cgroup_id, .. } | LinkTarget::Iter { cgroup_id, .. },
                Operand::File(fd),
            ) => *cgroup_id = sys::kernfs_id(fd)?,
            (LinkTarget::Netns { netns_ino, .. }, Operand::File(fd)) => {
                *netns_ino = fstat(fd)?.st_ino as u32;
            }
            (
                LinkTarget::Sockmap { map_id: id, .. }
                | LinkTarget::Iter { map_id: id, .. }
                | LinkTarget::Tracing { obj_id: id, .. },
                Operand::Object(fd),
            ) => *id = sys::object_id(fd)?,
            // Such a link reports a name, and no BTF.
            (LinkTarget::Tracing { attach_type, .. }, _)
                if *attach_type == AttachType::TRACE_RAW_TP =>
            {
                target = LinkTarget::RawTracepoint { cookie: 0 };
            }
            (LinkTarget::Tracing { obj_id, btf_id, .. }, _) => {
                if let Some(prog) = prog {
                    let info = try_info(prog)?;
                    (*obj_id, *btf_id) = (info.attach_btf_obj_id, info.attach_btf_id);
                }
            }
            // A link at the peer reports the index of the other end, which is unknown.
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

    /// Returns the target name that a link of this spec will report.
    pub(crate) fn target_name(&self) -> Option<&'a CStr> {
        match self.operand {
            Operand::Tracepoint(name) => Some(name),
            _ => None,
        }
    }
}
