//! The programs and links at a target: `BPF_PROG_QUERY`, and rtnetlink(7) for XDP.

use std::os::fd::AsRawFd;

use bpf_pin_sys as abi;
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Error, Operation, Reason, Result, Subject};
use crate::object::{Link, LinkInfo};
use crate::sys::{self, QueryBuffers};
use crate::types::{AttachType, LinkTarget};

use super::LinkSpec;
use super::position::XdpFlags;
use super::spec::Operand;

/// The programs of a target, from [`LinkSpec::query`], in the order in which they run.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::LinkSpec;
/// use bpf_pin::types::AttachType;
///
/// let ingress = LinkSpec::tcx(2, AttachType::TCX_INGRESS).query()?;
/// for (place, it) in ingress.entries().iter().enumerate() {
///     println!("{place}: program {} by link {:?}", it.prog_id, it.link_id);
/// }
/// println!("revision {:?}", ingress.revision());
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedProgs {
    entries: Vec<AttachedProg>,
    revision: u64,
    flags: u32,
}

/// A program that is attached to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttachedProg {
    /// Its id.
    pub prog_id: u32,
    /// The link that holds it. `None`: it was attached without a link, or the kernel reports no links of such a
    /// target. It reports those of TCX and netkit.
    pub link_id: Option<u32>,
    /// The attach flags of its hook, such as `BPF_F_ALLOW_MULTI`. They differ between the programs of
    /// [`LSM_CGROUP`](AttachType::LSM_CGROUP) only, which is many hooks.
    pub flags: u32,
    /// The mode of an XDP program.
    pub mode: Option<XdpFlags>,
}

impl AttachedProgs {
    /// The programs.
    pub fn entries(&self) -> &[AttachedProg] {
        &self.entries
    }

    /// The revision of the target, which each change increments:
    /// [`expected_revision`](LinkSpec::expected_revision). `None` if the kernel reports none.
    ///
    /// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS`: Linux 6.6. `BPF_NETKIT_PRIMARY` and `BPF_NETKIT_PEER`: Linux
    /// 6.7. Control groups on newer kernels.
    pub fn revision(&self) -> Option<u64> {
        Some(self.revision).filter(|revision| *revision != 0)
    }

    /// The attach flags of a control group's hook: `BPF_F_ALLOW_OVERRIDE`, `BPF_F_ALLOW_MULTI`, or 0 if its one
    /// program is exclusive or there is none. 0 for other targets.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// Returns whether a link holds a program here. `false` if the kernel reports no links of such a target.
    pub fn has_link(&self, link_id: u32) -> bool {
        self.entries.iter().any(|it| it.link_id == Some(link_id))
    }

    /// Returns whether a program is attached here.
    pub fn has_prog(&self, prog_id: u32) -> bool {
        self.entries.iter().any(|it| it.prog_id == prog_id)
    }
}

/// The programs that the first call has room for: as many as most targets can have.
const ROOM: usize = 64;

impl LinkSpec<'_> {
    /// Returns the programs that are attached to the target: `BPF_PROG_QUERY`, or `RTM_GETLINK` of rtnetlink(7)
    /// for XDP. Linux 4.15.
    ///
    /// The target is that of [`create`](Self::create): a control group, a network namespace, a network device
    /// of this thread's network namespace, or a sockmap. Options of the spec have no effect.
    ///
    /// One syscall for up to 64 programs, or four for XDP.
    ///
    /// # Errors
    ///
    /// [`Operation::Query`](crate::error::Operation::Query):
    ///
    /// | Cause | Condition |
    /// |---|---|
    /// | [`InvalidArgument`](Cause::InvalidArgument) | the kernel has no query for such a target; no syscall was made |
    /// | [`MissingCapability`](Cause::MissingCapability) (EPERM) | `CAP_NET_ADMIN` is missing, which all but XDP need |
    /// | [`NoTarget`](Cause::NoTarget) (ENODEV) | no such network device |
    /// | [`NoTarget`](Cause::NoTarget) (ENOENT) | the control group was removed |
    /// | ENXIO | netkit: the device is of another type |
    /// | [`WrongDescriptor`](Cause::WrongDescriptor) (EBADF) | the descriptor is not of a cgroup2 directory |
    /// | [`Unsupported`](Cause::Unsupported) (EINVAL) | the kernel does not know the attach type, if that can be proven |
    /// | EINVAL | the kernel has no query for the attach type |
    ///
    /// # References
    ///
    /// kernel/bpf/syscall.c: `bpf_prog_query`
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::fs::File;
    ///
    /// use bpf_pin::LinkSpec;
    /// use bpf_pin::types::AttachType;
    ///
    /// let cgroup = File::open("/sys/fs/cgroup/app")?;
    /// let egress = LinkSpec::cgroup(&cgroup, AttachType::CGROUP_INET_EGRESS).query()?;
    /// println!("{} programs", egress.entries().len());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn query(&self) -> Result<AttachedProgs> {
        self.query_checked(0)
    }

    /// Returns the programs that run in a control group, those of its ancestors included:
    /// `BPF_F_QUERY_EFFECTIVE`. Linux 4.15.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query), and [`InvalidArgument`](Cause::InvalidArgument) for another target than a
    /// control group.
    pub fn query_effective(&self) -> Result<AttachedProgs> {
        if !matches!(self.target, LinkTarget::Cgroup { .. }) {
            let problem = format!("is set for a {}", self.target.description());
            let cause = Cause::invalid("BPF_F_QUERY_EFFECTIVE", problem);
            return Err(self.query_error(cause));
        }
        self.query_checked(abi::BPF_F_QUERY_EFFECTIVE)
    }

    /// Returns the living links at the target, also those that are not pinned.
    ///
    /// [`Inventory`](crate::inventory::Inventory) finds where each is pinned. For TCX and netkit these are the
    /// links of [`query`](Self::query). Otherwise all links of the system are compared, in four syscalls each,
    /// and one more for the name of a raw tracepoint. For XDP that proves less: a device of the same index in
    /// another network namespace may have another link with the same program. For netfilter the links of all
    /// network namespaces are returned.
    ///
    /// # Errors
    ///
    /// - As [`query`](Self::query). [`InvalidArgument`](Cause::InvalidArgument) also if links do not report
    ///   their target: functions, probe points, perf events and iterators.
    /// - As [`Link::ids`] and [`Link::from_id`]: [`MissingCapability`](Cause::MissingCapability) (EPERM)
    ///   without `CAP_SYS_ADMIN`.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::inventory::Inventory;
    /// use bpf_pin::types::AttachType;
    /// use bpf_pin::{Identity, Kind, LinkSpec};
    ///
    /// for link in LinkSpec::tcx(2, AttachType::TCX_INGRESS).links()? {
    ///     println!("link {} of program {}", link.id, link.prog_id);
    ///     let of_link = Identity { kind: Kind::Link, id: link.id };
    ///     for pin in Inventory::take()?.of(of_link) {
    ///         println!("  is pinned at {}", pin?.path.display());
    ///     }
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn links(&self) -> Result<Vec<LinkInfo>> {
        self.check()?;
        let mut links = vec![];
        match self.target {
            LinkTarget::Tcx { .. } | LinkTarget::Netkit { .. } => {
                for id in self.query()?.entries.iter().filter_map(|it| it.link_id) {
                    if let Some((_, info)) = open_link(id)? {
                        links.push(info);
                    }
                }
                return Ok(links);
            }
            LinkTarget::Cgroup { .. }
            | LinkTarget::Netns { .. }
            | LinkTarget::Sockmap { .. }
            | LinkTarget::Netfilter { .. }
            | LinkTarget::RawTracepoint { .. }
            | LinkTarget::Xdp { .. } => {}
            _ => {
                let problem = format!(
                    "of a {} is not reported by links",
                    self.target.description()
                );
                return Err(self.query_error(Cause::invalid("the target", problem)));
            }
        }
        let xdp = match self.target {
            LinkTarget::Xdp { .. } => Some(self.query()?),
            _ => None,
        };
        let expected = self.expected_target(None);
        let expected = expected.map_err(|errno| self.query_error(Reason::errno_only(errno)))?;
        let name = self.target_name().map(|name| name.to_string_lossy());
        for id in Link::ids() {
            let Some((link, info)) = open_link(id?)? else {
                continue;
            };
            if info.target.is_gone()
                || !expected.matches(&info.target)
                || xdp.as_ref().is_some_and(|xdp| !xdp.has_prog(info.prog_id))
                || name.is_some() && link.target_name()?.as_deref() != name.as_deref()
            {
                continue;
            }
            links.push(info);
        }
        Ok(links)
    }

    fn query_checked(&self, query_flags: u32) -> Result<AttachedProgs> {
        self.check()?;
        if !self.has_query() {
            let problem = format!("of a {} cannot be queried", self.target.description());
            return Err(self.query_error(Cause::invalid("the target", problem)));
        }
        let queried = self.try_query(query_flags);
        queried.map_err(|errno| {
            let reason = Reason::new(errno, self.query_cause(errno));
            self.query_error(reason)
        })
    }

    /// The cause if a query shows that the program is attached to the target.
    pub(crate) fn already_attached(&self, prog_id: u32) -> Option<Cause> {
        let found = self.try_query(0).ok()?;
        let attached = found.entries.iter().find(|it| it.prog_id == prog_id)?;
        let link_id = attached.link_id;
        Some(Cause::AlreadyAttached { prog_id, link_id })
    }

    fn has_query(&self) -> bool {
        matches!(
            self.target,
            LinkTarget::Cgroup { .. }
                | LinkTarget::Netns { .. }
                | LinkTarget::Sockmap { .. }
                | LinkTarget::Tcx { .. }
                | LinkTarget::Netkit { .. }
                | LinkTarget::Xdp { .. }
        )
    }

    /// EINVAL if the target has no query.
    pub(crate) fn try_query(&self, query_flags: u32) -> Result<AttachedProgs, Errno> {
        let (target, has_link_ids) = match (self.target, self.operand) {
            (LinkTarget::Xdp { ifindex }, _) => return query_xdp(ifindex),
            (LinkTarget::Tcx { ifindex, .. } | LinkTarget::Netkit { ifindex, .. }, _) => {
                (ifindex, true)
            }
            (
                LinkTarget::Cgroup { .. } | LinkTarget::Netns { .. } | LinkTarget::Sockmap { .. },
                Operand::File(fd) | Operand::Object(fd),
            ) => (fd.as_raw_fd() as u32, false),
            _ => return Err(Errno::INVAL),
        };
        // Kernels with this attach type require the buffer, and those without it reject it.
        let has_prog_flags = self.attach_type() == AttachType::LSM_CGROUP && query_flags == 0;
        let (mut inline, mut larger);
        inline = [0; 3 * ROOM];
        let mut ids = &mut inline[..];
        // More programs may be attached between two calls.
        for _ in 0..10 {
            let room = ids.len() / 3;
            let (prog_ids, rest) = ids.split_at_mut(room);
            let (link_ids, prog_flags) = rest.split_at_mut(room);
            let buffers = QueryBuffers {
                prog_ids,
                link_ids: &mut link_ids[..if has_link_ids { room } else { 0 }],
                prog_flags: &mut prog_flags[..if has_prog_flags { room } else { 0 }],
            };
            let attach_type = self.attach_type().0;
            let (result, queried) = sys::prog_query(target, attach_type, query_flags, buffers);
            match result {
                Err(Errno::NOSPC) => {}
                // The first kernels with TCX answer so if nothing is attached.
                Err(Errno::NOENT) if has_link_ids => return Ok(AttachedProgs::NONE),
                Err(errno) => return Err(errno),
                Ok(()) => {
                    let entry = |at: usize| AttachedProg {
                        prog_id: prog_ids[at],
                        link_id: Some(link_ids[at]).filter(|id| *id != 0),
                        flags: match has_prog_flags {
                            true => prog_flags[at],
                            false => queried.flags,
                        },
                        mode: None,
                    };
                    return Ok(AttachedProgs {
                        entries: (0..queried.count.min(room)).map(entry).collect(),
                        revision: queried.revision,
                        flags: queried.flags,
                    });
                }
            }
            larger = vec![0; 3 * queried.count];
            ids = &mut larger;
        }
        Err(Errno::NOSPC)
    }

    #[cold]
    fn query_cause(&self, errno: Errno) -> Option<Cause> {
        let ifindex = self.target.ifindex();
        match (errno, self.operand) {
            (Errno::PERM, _) => diagnose::for_query(),
            (Errno::NODEV, _) => diagnose::for_device(ifindex),
            (Errno::INVAL, _) => diagnose::for_attach_type(self.attach_type()),
            (Errno::BADF, Operand::File(fd)) if self.is_cgroup() => diagnose::for_cgroup(fd),
            (Errno::NOENT, Operand::File(fd)) if self.is_cgroup() => {
                diagnose::for_removed_cgroup(fd, self.attach_type())
            }
            _ => None,
        }
    }

    pub(super) fn is_cgroup(&self) -> bool {
        matches!(self.target, LinkTarget::Cgroup { .. })
    }

    #[cold]
    fn query_error(&self, reason: impl Into<Reason>) -> Error {
        Error::new(Operation::Query, reason).of(Subject::AttachPoint {
            attach_type: self.attach_type(),
            ifindex: self.target.ifindex(),
        })
    }
}

impl AttachedProgs {
    const NONE: Self = Self {
        entries: vec![],
        revision: 0,
        flags: 0,
    };
}

fn query_xdp(ifindex: u32) -> Result<AttachedProgs, Errno> {
    let progs = sys::xdp_progs(ifindex)?;
    let by_mode = [
        (progs.driver, XdpFlags::DRV_MODE),
        (progs.generic, XdpFlags::SKB_MODE),
        (progs.offloaded, XdpFlags::HW_MODE),
    ];
    let attached = by_mode.into_iter().filter(|(prog_id, _)| *prog_id != 0);
    let entries = attached.map(|(prog_id, mode)| AttachedProg {
        prog_id,
        link_id: None,
        flags: 0,
        mode: Some(mode),
    });
    Ok(AttachedProgs {
        entries: entries.collect(),
        ..AttachedProgs::NONE
    })
}

/// Opens a link by its id. `None` if it has died, or is being created (EAGAIN).
fn open_link(id: u32) -> Result<Option<(Link, LinkInfo)>> {
    match Link::from_id(id) {
        Ok(link) => {
            let info = link.info()?;
            Ok(Some((link, info)))
        }
        Err(error) if error.is_missing() || error.is(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error),
    }
}
