//! `BPF_LINK_CREATE`, and `BPF_RAW_TRACEPOINT_OPEN` for what is older.

use std::os::fd::{AsFd, OwnedFd};

use bpf_pin_sys as abi;
use rustix::io::Errno;

use crate::cause::Cause;
use crate::diagnose;
use crate::error::{Error, Reason, Result};
use crate::prog::Prog;
use crate::sys::{self, LinkOpts, NonZeroFd};
use crate::types::ProgType;

use super::point::{Point, Relative};
use super::spec::Cookies;
use super::{Link, LinkSpec, takes};

impl LinkSpec<'_> {
    /// `BPF_LINK_CREATE` (Linux 5.7), or `BPF_RAW_TRACEPOINT_OPEN` (Linux 4.17) of tracing without a
    /// cookie and of raw tracepoints: attaches the program until the link dies.
    ///
    /// # Errors
    ///
    /// [`Error::CreateLink`], or [`Error::ReplaceFunction`] of [`freplace`](Self::freplace):
    /// [`WrongProgType`](Cause::WrongProgType) (EINVAL) where programs of this type are not attached so,
    /// [`NotLoadedFor`](Cause::NotLoadedFor) (EINVAL) of a control group where the program is for
    /// another way; EINVAL where they do not fit otherwise or the kernel does not know the attach type, with [`Unsupported`](Cause::Unsupported) where that was proven;
    /// [`NoDevice`](Cause::NoDevice) (EINVAL for XDP, ENODEV);
    /// [`XdpAttached`](Cause::XdpAttached) where the device has an XDP program, in the same mode
    /// (EBUSY) or in the other one (EEXIST); EEXIST of a device that is part of one with an XDP
    /// program; EBUSY where a function of netfilter has this priority, and where the program traces
    /// already; EEXIST where TCX or netkit has this program already, E2BIG where the network namespace
    /// has a flow dissector; ESTALE where the revision is another;
    /// [`NotACgroup`](Cause::NotACgroup) (EBADF); [`NoTracepoint`](Cause::NoTracepoint) (ENOENT);
    /// [`WrongTarget`](Cause::WrongTarget), [`InvalidOption`](Cause::InvalidOption) and
    /// [`NoDescriptor`](Cause::NoDescriptor), without a syscall;
    /// [`MissingCapability`](Cause::MissingCapability) (EPERM).
    ///
    /// # References
    ///
    /// kernel/bpf/syscall.c: `link_create`, `bpf_raw_tracepoint_open`
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{Cause, LinkSpec, Prog};
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

    pub(super) fn one_cookie(&self) -> u64 {
        match self.cookies {
            Cookies::One(cookie) => cookie,
            Cookies::None | Cookies::Each(_) => 0,
        }
    }

    fn create_fd(&self, prog: &Prog) -> std::result::Result<OwnedFd, Errno> {
        let create = |flags, opts| {
            let target = self.point.word();
            sys::link_create(prog.as_fd(), target, self.attach_type.0, flags, opts)
        };
        let cookie = self.one_cookie();
        let cookies = match self.cookies {
            Cookies::Each(cookies) => cookies,
            Cookies::None | Cookies::One(_) => &[],
        };
        match self.point {
            Point::Misfit(_) => Err(Errno::INVAL),
            Point::Cgroup(_) | Point::Tcx(_) | Point::Netkit(_)
                if self.position.is_some() || self.expected_revision != 0 =>
            {
                let position = self.position;
                let relative = position.map_or(Ok(Relative::Id(0)), |it| it.relative())?;
                let relative_number = relative.number();
                // Of an extension, whatever the attach type, the index would be the descriptor of its
                // target, and whom it stands beside a type there.
                let by_index = !matches!(self.point, Point::Cgroup(_)) && relative_number != 0;
                if by_index && prog.try_info()?.prog_type == ProgType::EXT {
                    return Err(Errno::INVAL);
                }
                let opts = LinkOpts::Beside {
                    relative: relative_number,
                    expected_revision: self.expected_revision,
                };
                create(self.flags | position.map_or(0, |it| it.flags()), opts)
            }
            Point::Cgroup(_)
            | Point::Netns(_)
            | Point::Xdp(_)
            | Point::Tcx(_)
            | Point::Netkit(_)
            | Point::Sockmap(_) => create(self.flags, LinkOpts::None),
            Point::Tracing if cookie == 0 => sys::raw_tracepoint_open(prog.as_fd(), None, 0),
            Point::Tracing => {
                let opts = LinkOpts::Tracing {
                    target_btf_id: 0,
                    cookie,
                };
                create(0, opts)
            }
            Point::Function {
                prog: target,
                btf_id: target_btf_id,
            } => {
                // 0 would be the program that it was loaded for.
                let target = NonZeroFd::new(Some(target))?;
                let opts = LinkOpts::Tracing {
                    target_btf_id,
                    cookie: 0,
                };
                let attach_type = self.attach_type.0;
                sys::link_create(prog.as_fd(), target.number(), attach_type, self.flags, opts)
            }
            Point::RawTracepoint(name) => {
                sys::raw_tracepoint_open(prog.as_fd(), Some(name), cookie)
            }
            Point::Iter(over) => over.with_opts(|opts| create(self.flags, opts)),
            Point::PerfEvent(_) => create(self.flags, LinkOpts::PerfEvent { cookie }),
            Point::Kprobes(functions) => {
                let opts = LinkOpts::Kprobes {
                    flags: self.flags,
                    functions,
                    cookies,
                };
                create(0, opts)
            }
            Point::Uprobes(uprobes) => {
                let opts = LinkOpts::Uprobes {
                    flags: self.flags,
                    path: uprobes.path,
                    offsets: uprobes.offsets,
                    ref_ctr_offsets: uprobes.ref_ctr_offsets,
                    cookies,
                    pid: uprobes.pid,
                };
                create(0, opts)
            }
            Point::Netfilter {
                pf,
                hooknum,
                priority,
            } => {
                let flags = self.flags;
                let netfilter = abi::bpf_attr_link_create_netfilter {
                    pf,
                    hooknum,
                    priority,
                    flags,
                };
                create(0, LinkOpts::Netfilter(netfilter))
            }
        }
    }

    #[cold]
    fn cause(&self, prog: &Prog, errno: Errno) -> Option<Cause> {
        match (errno, self.point) {
            (Errno::PERM, _) => diagnose::for_link(prog.info().ok()?.prog_type),
            (Errno::INVAL | Errno::NODEV, Point::Xdp(ifindex)) => self
                .wrong_type(prog, errno)
                .or_else(|| diagnose::for_device(ifindex)),
            (Errno::BUSY | Errno::EXIST, Point::Xdp(ifindex)) => diagnose::for_xdp(ifindex),
            (Errno::INVAL, Point::Tcx(ifindex) | Point::Netkit(ifindex)) => {
                diagnose::for_attach_type(self.attach_type)
                    .or_else(|| self.wrong_type(prog, errno))
                    .or_else(|| diagnose::for_device(ifindex))
            }
            (Errno::NODEV, Point::Tcx(ifindex) | Point::Netkit(ifindex)) => {
                diagnose::for_device(ifindex)
            }
            (Errno::BADF, Point::Cgroup(fd)) => diagnose::for_cgroup(fd),
            (Errno::NOENT, Point::RawTracepoint(name)) => diagnose::for_tracepoint(name),
            (Errno::INVAL, Point::RawTracepoint(_)) => match self.cookies {
                Cookies::One(1..) => diagnose::for_tracepoint_cookie(),
                _ => None,
            }
            .or_else(|| self.wrong_type(prog, errno)),
            (Errno::INVAL, Point::Cgroup(_)) => self
                .wrong_type(prog, errno)
                .or_else(|| diagnose::for_prog_of_link(prog.as_fd(), self.attach_type)),
            // Which programs replace a function, their own types do not tell.
            (_, Point::Function { .. }) => None,
            _ => self.wrong_type(prog, errno),
        }
    }

    fn wrong_type(&self, prog: &Prog, errno: Errno) -> Option<Cause> {
        let is_it = errno == Errno::INVAL;
        is_it
            .then(|| takes::for_point(prog.as_fd(), &self.point, self.attach_type))
            .flatten()
    }

    #[cold]
    pub(super) fn error(&self, reason: Reason) -> Error {
        match self.point {
            Point::Function { prog, btf_id } => Error::ReplaceFunction {
                prog_id: sys::object_id(prog).unwrap_or_default(),
                btf_id,
                reason,
            },
            _ => Error::CreateLink {
                attach_type: self.attach_type,
                ifindex: self.point.ifindex(),
                reason,
            },
        }
    }
}
