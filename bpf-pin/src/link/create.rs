//! Attaches programs: `BPF_LINK_CREATE`, and `BPF_RAW_TRACEPOINT_OPEN` for older targets.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bpf_pin_sys as abi;
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Error, Operation, Reason, Result, Subject};
use crate::object::Prog;
use crate::object::try_info;
use crate::sys::{self, LinkOpts, NonZeroFd};
use crate::types::ProgType;

use super::position::Relative;
use super::spec::Operand;
use super::{Link, LinkSpec, prog_types};
use crate::types::LinkTarget;

impl LinkSpec<'_> {
    /// Attaches the program until the returned link dies: `BPF_LINK_CREATE` (Linux 5.7), or
    /// `BPF_RAW_TRACEPOINT_OPEN` (Linux 4.17) for raw tracepoints and for tracing without a cookie.
    ///
    /// # Errors
    ///
    /// [`Operation::CreateLink`](crate::error::Operation::CreateLink), or
    /// [`Operation::ReplaceFunction`](crate::error::Operation::ReplaceFunction) for
    /// [`freplace`](Self::freplace):
    ///
    /// | Cause | Condition |
    /// |---|---|
    /// | [`InvalidArgument`](Cause::InvalidArgument) | the spec is invalid; no syscall was made |
    /// | [`MissingCapability`](Cause::MissingCapability) (EPERM) | a capability is missing |
    /// | [`WrongProgType`](Cause::WrongProgType) (EINVAL) | the target accepts no program of this type |
    /// | [`NotLoadedFor`](Cause::NotLoadedFor) (EINVAL) | control group: the program was loaded for another attach type |
    /// | [`Unsupported`](Cause::Unsupported) (EINVAL) | the kernel does not know the attach type, if that can be proven |
    /// | EINVAL | the program and the target do not match otherwise |
    /// | [`NoTarget`](Cause::NoTarget) (ENODEV, EINVAL for XDP) | no such network device |
    /// | [`XdpAttached`](Cause::XdpAttached) (EBUSY, EEXIST) | the device has an XDP program, in the same mode or in the other one |
    /// | EEXIST | the device is part of a device with an XDP program |
    /// | [`AlreadyAttached`](Cause::AlreadyAttached) (EEXIST) | TCX, netkit: the program is attached already |
    /// | EBUSY | netfilter: the priority is taken |
    /// | EBUSY | tracing: the program is attached already |
    /// | [`TargetFull`](Cause::TargetFull) (E2BIG, ERANGE) | the target has as many programs as it takes: a control group or socket look-up 64, TCX and netkit 63, a network namespace one flow dissector |
    /// | [`AttachedExclusively`](Cause::AttachedExclusively) (EPERM) | control group: a program of the group or of an ancestor excludes others |
    /// | [`InvalidArgument`](Cause::InvalidArgument) (EINVAL) | links to the target do not accept the flags, such as `BPF_F_ALLOW_MULTI` for a control group |
    /// | [`Unsupported`](Cause::Unsupported) (EINVAL) | a [`position`](Self::position) in a control group before Linux 6.17 |
    /// | ESTALE | the target has another revision |
    /// | [`WrongDescriptor`](Cause::WrongDescriptor) (EBADF) | the descriptor is not of a cgroup2 directory, but of a file in it or of another file system |
    /// | [`NoTarget`](Cause::NoTarget) (ENOENT) | the control group was removed |
    /// | [`NoTarget`](Cause::NoTarget) (ENOENT) | no such tracepoint |
    ///
    /// # References
    ///
    /// kernel/bpf/syscall.c: `link_create`, `bpf_raw_tracepoint_open`
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::error::Cause;
    /// use bpf_pin::{LinkSpec, Prog};
    ///
    /// let pass = Prog::open("/sys/fs/bpf/pass")?;
    /// match LinkSpec::xdp(2).create(&pass) {
    ///     Ok(link) => drop(link.pin("/sys/fs/bpf/pass_link")?),
    ///     Err(error) => match error.cause() {
    ///         Some(Cause::XdpAttached { prog_id, .. }) => println!("program {prog_id} is there"),
    ///         _ => return Err(error.into()),
    ///     },
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(&self, prog: &Prog) -> Result<Link> {
        self.check()?;
        match self.create_fd(prog) {
            Ok(fd) => Ok(Link::from_proven_fd(fd)),
            Err(errno) => Err(self.error(Reason::new(errno, self.cause(prog, errno)))),
        }
    }

    fn create_fd(&self, prog: &Prog) -> Result<OwnedFd, Errno> {
        let (flags, cookie) = (self.flags, self.cookie.unwrap_or_default());
        let cookies = self.cookies.unwrap_or_default();
        let create = |target, flags, opts| {
            sys::link_create(prog.as_fd(), target, self.attach_type().0, flags, opts)
        };
        let file = match self.operand {
            Operand::File(fd) | Operand::Object(fd) => fd.as_raw_fd() as u32,
            _ => 0,
        };
        match (self.target, self.operand) {
            (LinkTarget::Cgroup { .. }, _) => {
                let (more, opts, _anchor) = self.order(prog)?;
                create(file, flags | more, opts)
            }
            (LinkTarget::Tcx { ifindex, .. } | LinkTarget::Netkit { ifindex, .. }, _) => {
                let (more, opts, _anchor) = self.order(prog)?;
                create(ifindex, flags | more, opts)
            }
            (LinkTarget::Xdp { ifindex }, _) => {
                let mode = self.xdp_flags.unwrap_or_default().bits();
                create(ifindex, flags | mode, LinkOpts::None)
            }
            (LinkTarget::Netns { .. } | LinkTarget::Sockmap { .. }, _) => {
                create(file, flags, LinkOpts::None)
            }
            (LinkTarget::PerfEvent { .. }, _) => {
                create(file, flags, LinkOpts::PerfEvent { cookie })
            }
            (LinkTarget::Tracing { btf_id, .. }, Operand::Object(target)) => {
                // 0 would mean the program that this one was loaded for.
                let target = NonZeroFd::new(Some(target))?;
                let opts = LinkOpts::Tracing {
                    target_btf_id: btf_id,
                    cookie: 0,
                };
                create(target.number(), flags, opts)
            }
            (LinkTarget::Tracing { .. }, _) if cookie == 0 => {
                sys::raw_tracepoint_open(prog.as_fd(), None, 0)
            }
            (LinkTarget::Tracing { .. }, _) => {
                let opts = LinkOpts::Tracing {
                    target_btf_id: 0,
                    cookie,
                };
                create(0, 0, opts)
            }
            (LinkTarget::RawTracepoint { .. }, _) => {
                sys::raw_tracepoint_open(prog.as_fd(), self.target_name(), cookie)
            }
            (LinkTarget::Iter { .. }, operand) => {
                let fd = match operand {
                    Operand::File(fd) | Operand::Object(fd) => NonZeroFd::new(Some(fd))?,
                    _ => NonZeroFd::None,
                };
                create(0, flags, self.iter_opts(fd.number()))
            }
            (_, Operand::Functions(functions)) => {
                let opts = LinkOpts::Kprobes {
                    flags,
                    functions,
                    cookies,
                };
                create(0, 0, opts)
            }
            (_, Operand::Uprobes(uprobes)) => {
                let opts = LinkOpts::Uprobes {
                    flags,
                    uprobes,
                    cookies,
                };
                create(0, 0, opts)
            }
            (
                LinkTarget::Netfilter {
                    pf,
                    hooknum,
                    priority,
                    ..
                },
                _,
            ) => {
                let netfilter = abi::bpf_attr_link_create_netfilter {
                    pf,
                    hooknum,
                    priority,
                    flags,
                };
                create(0, 0, LinkOpts::Netfilter(netfilter))
            }
            // No constructor makes these targets.
            (
                LinkTarget::KprobeMulti { .. }
                | LinkTarget::UprobeMulti { .. }
                | LinkTarget::StructOps { .. }
                | LinkTarget::Other,
                _,
            ) => Err(Errno::INVAL),
        }
    }

    fn iter_opts(&self, fd: u32) -> LinkOpts<'static> {
        let LinkTarget::Iter {
            cgroup_id,
            order,
            tid,
            pid,
            ..
        } = self.target
        else {
            return LinkOpts::None;
        };
        match self.operand {
            Operand::Object(_) => LinkOpts::Iter(abi::bpf_iter_link_info_map { map_fd: fd }),
            _ if (tid, pid) != (0, 0) => {
                let mut task = abi::bpf_iter_link_info_task::zeroed();
                (task.tid, task.pid) = (tid, pid);
                LinkOpts::IterTask(task)
            }
            Operand::None if self.target == LinkTarget::ITER_ALL => LinkOpts::None,
            _ => LinkOpts::IterCgroup(abi::bpf_iter_link_info_cgroup {
                order: order.0,
                cgroup_fd: fd,
                cgroup_id,
            }),
        }
    }

    /// Returns the flags and options for a position, and the anchor. Its descriptor must stay open.
    fn order(&self, prog: &Prog) -> Result<(u32, LinkOpts<'static>, Option<Relative<'_>>), Errno> {
        if self.position.is_none() && self.expected_revision == 0 {
            return Ok((0, LinkOpts::None, None));
        }
        let (flags, anchor) = match &self.position {
            Some(position) => (position.flags(), position.relative()?),
            None => (0, Relative::Id(0)),
        };
        let relative = anchor.number();
        // For an extension the kernel ignores the attach type. It would take the device index for the
        // descriptor of its target, and the anchor for a BTF id there.
        let is_device = self.target.ifindex() != 0;
        if is_device && relative != 0 && try_info(prog)?.prog_type == ProgType::EXT {
            return Err(Errno::INVAL);
        }
        let opts = LinkOpts::Beside {
            relative,
            expected_revision: self.expected_revision,
        };
        Ok((flags, opts, Some(anchor)))
    }

    #[cold]
    fn cause(&self, prog: &Prog, errno: Errno) -> Option<Cause> {
        let ifindex = self.target.ifindex();
        match (errno, self.target) {
            (Errno::PERM, LinkTarget::Cgroup { .. }) => {
                diagnose::for_link(prog.info().ok()?.prog_type).or_else(|| self.exclusive())
            }
            (Errno::PERM, _) => diagnose::for_link(prog.info().ok()?.prog_type),
            (Errno::TOOBIG, LinkTarget::Cgroup { .. } | LinkTarget::Netns { .. })
            | (Errno::RANGE, LinkTarget::Tcx { .. } | LinkTarget::Netkit { .. }) => self.full(),
            (Errno::BUSY | Errno::EXIST, LinkTarget::Xdp { ifindex }) => diagnose::for_xdp(ifindex),
            (Errno::INVAL, _) if ifindex != 0 => diagnose::for_attach_type(self.attach_type())
                .or_else(|| self.wrong_type(prog))
                .or_else(|| diagnose::for_device(ifindex))
                .or_else(|| self.wrong_flags(prog)),
            (Errno::NODEV, _) if ifindex != 0 => diagnose::for_device(ifindex),
            (Errno::EXIST, LinkTarget::Tcx { .. } | LinkTarget::Netkit { .. }) => {
                self.already_attached(sys::object_id(prog.as_fd()).ok()?)
            }
            (Errno::BADF, LinkTarget::Cgroup { .. }) => match self.operand {
                Operand::File(fd) => diagnose::for_cgroup(fd),
                _ => None,
            },
            (Errno::NOENT, LinkTarget::RawTracepoint { .. }) => {
                diagnose::for_tracepoint(self.target_name()?)
            }
            (Errno::INVAL, LinkTarget::RawTracepoint { .. }) => {
                let has_cookie = self.cookie.unwrap_or_default() != 0;
                let unsupported = has_cookie.then(diagnose::for_tracepoint_cookie).flatten();
                unsupported.or_else(|| self.wrong_type(prog))
            }
            (Errno::NOENT, LinkTarget::Cgroup { .. }) => match self.operand {
                Operand::File(fd) => diagnose::for_removed_cgroup(fd, self.attach_type()),
                _ => None,
            },
            (Errno::INVAL, LinkTarget::Cgroup { .. }) => self
                .wrong_type(prog)
                .or_else(|| diagnose::for_prog_of_link(prog.as_fd(), self.attach_type()))
                .or_else(|| self.wrong_flags(prog)),
            (Errno::INVAL, LinkTarget::Netns { .. }) => {
                self.wrong_type(prog).or_else(|| self.wrong_flags(prog))
            }
            // The type of a program does not say whether it can replace a function.
            (_, LinkTarget::Tracing { .. }) if self.replaced_function().is_some() => None,
            (Errno::INVAL, _) => self.wrong_type(prog),
            _ => None,
        }
    }

    fn wrong_type(&self, prog: &Prog) -> Option<Cause> {
        prog_types::check_new_link(prog.as_fd(), self)
    }

    #[cold]
    pub(crate) fn error(&self, reason: Reason) -> Error {
        match self.replaced_function() {
            Some((prog, btf_id)) => {
                Error::new(Operation::ReplaceFunction, reason).of(Subject::Function {
                    prog_id: sys::object_id(prog).unwrap_or_default(),
                    btf_id,
                })
            }
            None => Error::new(Operation::CreateLink, reason).of(Subject::AttachPoint {
                attach_type: self.attach_type(),
                ifindex: self.target.ifindex(),
            }),
        }
    }

    /// Returns the program and the id of its function for [`freplace`](Self::freplace).
    fn replaced_function(&self) -> Option<(BorrowedFd<'_>, u32)> {
        match (self.target, self.operand) {
            (LinkTarget::Tracing { btf_id, .. }, Operand::Object(prog)) => Some((prog, btf_id)),
            _ => None,
        }
    }
}
