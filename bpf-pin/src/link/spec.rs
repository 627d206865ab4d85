//! What a link is to be.

use std::ffi::CStr;
use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::prog::Prog;
use crate::sys::{AsMap, Functions};
use crate::target::LinkTarget;
use crate::types::{AttachType, CgroupIterOrder};

use super::point::{self, IterTask, Over, Point, Position, Uprobes, XdpFlags};

/// The arguments of `BPF_LINK_CREATE` or `BPF_RAW_TRACEPOINT_OPEN`: where a program is to be attached.
///
/// What an attach point does not have is refused by [`create`](Self::create), not left out.
///
/// There is none here for many functions of the kernel by their BTF ids, `BPF_TRACE_FENTRY_MULTI` and its
/// like: that arm is in [`bpf_attr_link_create_tracing_multi`](bpf_pin_sys::bpf_attr_link_create_tracing_multi).
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::{Anchor, AttachType, Link, LinkSpec, Position, Prog, XdpFlags};
///
/// let (filter, first) = (Prog::open("/sys/fs/bpf/filter")?, Link::open("/sys/fs/bpf/first")?);
/// let xdp = LinkSpec::xdp(2).xdp_flags(XdpFlags::SKB_MODE);
/// let tcx = LinkSpec::tcx(2, AttachType::TCX_INGRESS).position(Position::After(Anchor::Link(&first)));
/// let link = tcx.create(&filter)?;
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct LinkSpec<'a> {
    pub(super) point: Point<'a>,
    pub(super) attach_type: AttachType,
    pub(super) flags: u32,
    pub(super) position: Option<Position<'a>>,
    pub(super) expected_revision: u64,
    pub(super) cookies: Cookies<'a>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Cookies<'a> {
    None,
    One(u64),
    Each(&'a [u64]),
}

impl<'a> LinkSpec<'a> {
    /// A control group, by a descriptor of its directory in a cgroup2 file system, which others may
    /// have attached programs to, too. Linux 5.7.
    ///
    /// Of a cgroup v1, of another file system's directory or of a file: EBADF.
    pub fn cgroup(cgroup: &'a impl AsFd, attach_type: AttachType) -> Self {
        Self::new(Point::Cgroup(cgroup.as_fd()), attach_type)
    }

    /// A network namespace, by a descriptor of a file such as /proc/self/ns/net: its flow
    /// dissector (Linux 5.8) or its socket look-up ([`AttachType::SK_LOOKUP`], Linux 5.9).
    pub fn netns(netns: &'a impl AsFd, attach_type: AttachType) -> Self {
        Self::new(Point::Netns(netns.as_fd()), attach_type)
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
        Self::new(Point::Xdp(ifindex), AttachType::XDP)
    }

    /// Traffic control of a network device, by the device's index: [`AttachType::TCX_INGRESS`] or
    /// [`AttachType::TCX_EGRESS`], behind what is attached already. Linux 6.6, before which
    /// [`create`](Self::create) says [`Unsupported`](crate::Cause::Unsupported) (EINVAL).
    pub fn tcx(ifindex: u32, attach_type: AttachType) -> Self {
        Self::new(Point::Tcx(ifindex), attach_type)
    }

    /// A netkit device, by the index of its primary end: `BPF_NETKIT_PRIMARY` or `BPF_NETKIT_PEER`,
    /// behind what is attached already. Linux 6.7.
    pub fn netkit(ifindex: u32, attach_type: AttachType) -> Self {
        Self::new(Point::Netkit(ifindex), attach_type)
    }

    /// A map of sockets: [`AttachType::SK_MSG_VERDICT`], [`AttachType::SK_SKB_VERDICT`] and their
    /// like. `BPF_LINK_TYPE_SOCKMAP`: Linux 6.10.
    pub fn sockmap(map: &'a impl AsMap, attach_type: AttachType) -> Self {
        Self::new(Point::Sockmap(map.map_fd()), attach_type)
    }

    /// What the program was loaded for, by its `attach_btf_id`: the way must be the
    /// `expected_attach_type` that it was loaded with. `BPF_TRACE_FENTRY`, `BPF_TRACE_FEXIT`,
    /// `BPF_TRACE_RAW_TP`: Linux 5.5. `BPF_MODIFY_RETURN`, `BPF_LSM_MAC`: Linux 5.7.
    ///
    /// By `BPF_RAW_TRACEPOINT_OPEN`, which every kernel has for these; with a
    /// [`cookie`](Self::cookie) by `BPF_LINK_CREATE`. The same program is not attached twice (EBUSY).
    pub fn tracing(attach_type: AttachType) -> Self {
        Self::new(Point::Tracing, attach_type)
    }

    /// `BPF_RAW_TRACEPOINT_OPEN`: a tracepoint by its name, such as "sched_switch". Linux 4.17.
    pub fn raw_tracepoint(name: &'a CStr) -> Self {
        Self::new(Point::RawTracepoint(name), AttachType::TRACE_RAW_TP)
    }

    /// `BPF_TRACE_ITER`: an iterator, through all that its program was loaded for. Linux 5.8.
    ///
    /// Its pin is a file to be read: each `open(2)` of it starts anew, as [`Link::iter`](super::Link::iter) does.
    pub fn iter() -> Self {
        Self::iter_over(Over::All)
    }

    /// An iterator through the elements of a map. Linux 5.9.
    pub fn iter_map(map: &'a impl AsMap) -> Self {
        Self::iter_over(Over::Map(map.map_fd()))
    }

    /// An iterator through control groups, from this one on, `BPF_CGROUP_ITER_DESCENDANTS_PRE` or in
    /// another order. Linux 6.1.
    pub fn iter_cgroup(cgroup: &'a impl AsFd, order: CgroupIterOrder) -> Self {
        Self::iter_over(Over::Cgroup(cgroup.as_fd(), order))
    }

    /// An iterator through control groups, from the one with this id on, or from the root where that
    /// is 0, `BPF_CGROUP_ITER_DESCENDANTS_PRE` or in another order. Linux 6.1.
    pub fn iter_cgroup_id(cgroup_id: u64, order: CgroupIterOrder) -> Self {
        Self::iter_over(Over::CgroupId(cgroup_id, order))
    }

    /// An iterator through the resources of one task. Linux 6.1.
    pub fn iter_task(task: IterTask) -> Self {
        Self::iter_over(Over::Task(task))
    }

    /// `target_btf_id`: the place of a function of another program, by the function's id in that
    /// program's BTF. What takes it is of type [`EXT`](crate::ProgType::EXT) and was loaded for such a
    /// function. Linux 5.10.
    ///
    /// Both functions are global, and alike in what they take and return; the target is compiled. A
    /// function has one in its place (EBUSY). The kernel has no attach type for it, and looks at none.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{Btf, Insn, LinkSpec, Prog, ProgSpec, ProgType};
    ///
    /// # let (btf, functions) = (Btf::from_id(1)?, [0; 8]);
    /// let filter = Prog::open("/sys/fs/bpf/filter")?;
    /// let insns = [Insn::mov64_imm(0, 0), Insn::exit()];
    /// let drops_all = ProgSpec::new(ProgType::EXT, &insns)
    ///     .btf(&btf)
    ///     .func_info(&functions, 8)?
    ///     .attach_prog(&filter)
    ///     .attach_btf_id(4)
    ///     .load()?;
    /// let link = LinkSpec::freplace(&filter, 4).create(&drops_all)?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn freplace(target: &'a Prog, btf_id: u32) -> Self {
        let prog = target.as_fd();
        Self::new(Point::Function { prog, btf_id }, AttachType(0))
    }

    fn iter_over(over: Over<'a>) -> Self {
        Self::new(Point::Iter(over), AttachType::TRACE_ITER)
    }

    /// `BPF_PERF_EVENT`: an event of `perf_event_open(2)`, which is a kprobe, an uprobe, a tracepoint
    /// or a counter. Linux 5.15.
    pub fn perf_event(event: &'a impl AsFd) -> Self {
        Self::new(Point::PerfEvent(event.as_fd()), AttachType::PERF_EVENT)
    }

    /// `BPF_TRACE_KPROBE_MULTI`: functions of the kernel by their names. Linux 5.18.
    ///
    /// [`flags`](Self::flags) are `BPF_F_KPROBE_MULTI_RETURN` or 0.
    pub fn kprobe_multi(functions: &'a [&'a CStr]) -> Self {
        let functions = Functions::Names(functions);
        Self::new(Point::Kprobes(functions), AttachType::TRACE_KPROBE_MULTI)
    }

    /// `BPF_TRACE_KPROBE_MULTI`: functions of the kernel by their addresses. Linux 5.18.
    pub fn kprobe_multi_at(addresses: &'a [u64]) -> Self {
        let functions = Functions::Addresses(addresses);
        Self::new(Point::Kprobes(functions), AttachType::TRACE_KPROBE_MULTI)
    }

    /// `BPF_TRACE_UPROBE_MULTI`: places in an executable by their offsets in bytes from the beginning
    /// of the file, in all processes. Linux 6.6.
    ///
    /// [`flags`](Self::flags) are `BPF_F_UPROBE_MULTI_RETURN` or 0.
    pub fn uprobe_multi(path: &'a CStr, offsets: &'a [u64]) -> Self {
        let uprobes = Uprobes {
            path,
            offsets,
            ref_ctr_offsets: &[],
            pid: 0,
        };
        Self::new(Point::Uprobes(uprobes), AttachType::TRACE_UPROBE_MULTI)
    }

    /// `BPF_NETFILTER`: a hook of this thread's network namespace, by `NFPROTO_*` and `NF_INET_*`. One
    /// priority has one function: the lower, the earlier. Linux 6.4.
    ///
    /// [`flags`](Self::flags) are `BPF_F_NETFILTER_IP_DEFRAG` or 0.
    pub fn netfilter(pf: u32, hooknum: u32, priority: i32) -> Self {
        let point = Point::Netfilter {
            pf,
            hooknum,
            priority,
        };
        Self::new(point, AttachType::NETFILTER)
    }

    fn new(point: Point<'a>, attach_type: AttachType) -> Self {
        Self {
            point,
            attach_type,
            flags: 0,
            position: None,
            expected_revision: 0,
            cookies: Cookies::None,
        }
    }

    /// `link_create.flags`, or the flags that the attach point has of its own: what they mean depends
    /// on it. Those of a [`position`](Self::position) come from there.
    pub fn flags(mut self, flags: u32) -> Self {
        self.flags |= flags;
        self
    }

    /// `XDP_FLAGS_*`, of [`xdp`](Self::xdp).
    pub fn xdp_flags(mut self, flags: XdpFlags) -> Self {
        match self.point {
            Point::Xdp(_) => self.flags |= flags.bits(),
            // Elsewhere the same bits say where among others.
            _ => self.point = Point::Misfit("xdp_flags"),
        }
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
        self.cookies = Cookies::One(cookie);
        self
    }

    /// A number for each function or place, in their order; of [`kprobe_multi`](Self::kprobe_multi)
    /// and [`uprobe_multi`](Self::uprobe_multi).
    pub fn cookies(mut self, cookies: &'a [u64]) -> Self {
        self.cookies = Cookies::Each(cookies);
        self
    }

    /// `BPF_TRACE_KPROBE_SESSION` (Linux 6.10), `BPF_TRACE_UPROBE_SESSION` (Linux 6.13): at the entry
    /// and at the return, as far as the program says at the entry.
    pub fn session(mut self) -> Self {
        match self.point {
            Point::Uprobes(_) => self.attach_type = AttachType::TRACE_UPROBE_SESSION,
            Point::Kprobes(_) => self.attach_type = AttachType::TRACE_KPROBE_SESSION,
            _ => self.point = Point::Misfit("session"),
        }
        self
    }

    /// `uprobe_multi.pid`: of one process alone.
    pub fn pid(mut self, process: u32) -> Self {
        match &mut self.point {
            Point::Uprobes(uprobes) => uprobes.pid = process,
            _ => self.point = Point::Misfit("pid"),
        }
        self
    }

    /// `uprobe_multi.ref_ctr_offsets`: the offset of each place's counter of those who watch it.
    pub fn ref_ctr_offsets(mut self, offsets: &'a [u64]) -> Self {
        match &mut self.point {
            Point::Uprobes(uprobes) => uprobes.ref_ctr_offsets = offsets,
            _ => self.point = Point::Misfit("ref_ctr_offsets"),
        }
        self
    }

    /// How it is attached.
    pub fn attach_type(&self) -> AttachType {
        self.attach_type
    }

    /// What a link of it will say of its target; 0 is what cannot be known before.
    pub(crate) fn target(&self, prog: &Prog) -> Result<LinkTarget, Errno> {
        point::target(
            &self.point,
            self.attach_type,
            self.flags,
            self.one_cookie(),
            prog,
        )
    }

    /// The name that a link of it has of its target.
    pub(crate) fn target_name(&self) -> Option<&'a CStr> {
        match self.point {
            Point::RawTracepoint(name) => Some(name),
            _ => None,
        }
    }
}
