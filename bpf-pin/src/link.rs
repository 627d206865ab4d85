//! Links: what they are, how they are made, updated and detached.

use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bpf_pin_sys as abi;
use rustix::io::Errno;

use crate::cause::Cause;
use crate::diagnose;
use crate::error::{Error, Reason, Result};
use crate::kind::Kind;
use crate::object::{Handle, ObjectKind, kinds};
use crate::prog::Prog;
use crate::sys::{self, sealed::Sealed};
use crate::types::{AttachType, LinkType};

/// An owned descriptor of a link, which holds a program in place for as long as it lives.
///
/// As every [`Handle`] it has [`open`](Handle::open), [`open_with`](Handle::open_with),
/// [`from_id`](Handle::from_id), [`pin`](Handle::pin), [`try_clone`](Handle::try_clone),
/// [`id`](Handle::id) and [`info`](Handle::info); `TryFrom<OwnedFd>`, `AsFd` and `Into<OwnedFd>`.
///
/// # Examples
///
/// ```no_run
/// use std::fs::File;
///
/// use bpf_pin::{AttachType, Insn, LinkSpec, ProgSpec, ProgType};
///
/// let insns = [Insn::mov64_imm(0, 1), Insn::exit()];
/// let prog = ProgSpec::new(ProgType::CGROUP_SKB, &insns).load()?;
/// let cgroup = File::open("/sys/fs/cgroup/app")?;
/// let link = LinkSpec::cgroup(&cgroup, AttachType::CGROUP_INET_EGRESS).create(&prog)?;
/// let link = link.pin("/sys/fs/bpf/egress")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type Link = Handle<kinds::LinkKind>;

impl Sealed for kinds::LinkKind {}

impl ObjectKind for kinds::LinkKind {
    const KIND: Kind = Kind::Link;
    type Info = LinkInfo;

    fn info(of: &Handle<Self>) -> Result<LinkInfo, Errno> {
        sys::info(of.as_fd()).map(|raw| LinkInfo::from_raw(&raw))
    }

    fn fd_by_id(id: u32) -> Result<OwnedFd, Errno> {
        sys::link_fd_by_id(id)
    }

    fn next_id(after: u32) -> Result<u32, Errno> {
        sys::link_next_id(after)
    }
}

/// `struct bpf_link_info`: what the kernel tells of a link. Linux 5.8.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkInfo {
    /// The type.
    pub link_type: LinkType,
    /// Unique among living links.
    pub id: u32,
    /// The program that it holds in place, or held before it was detached; 0 where it holds a map.
    pub prog_id: u32,
    /// Where.
    pub target: LinkTarget,
}

/// What a link is attached to, as far as a number tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkTarget {
    /// A function of the kernel or of a program. Linux 5.8.
    Tracing {
        /// In which way.
        attach_type: AttachType,
        /// The BTF object, or the program. Linux 5.13.
        obj_id: u32,
        /// The type there. Linux 5.13.
        btf_id: u32,
    },
    /// A control group. Linux 5.8.
    Cgroup {
        /// Its id, the inode number of its directory. 0 once it is gone or the link detached.
        cgroup_id: u64,
        /// In which way.
        attach_type: AttachType,
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
    /// A network device's traffic control. Linux 6.6.
    Tcx {
        /// The device. 0 once it is gone or the link detached.
        ifindex: u32,
        /// In which direction.
        attach_type: AttachType,
    },
    /// A netkit device. Linux 6.7.
    Netkit {
        /// The device. 0 once it is gone or the link detached.
        ifindex: u32,
        /// On which side.
        attach_type: AttachType,
    },
    /// What takes more than numbers to tell.
    Other,
}

impl LinkInfo {
    fn from_raw(raw: &abi::bpf_link_info) -> Self {
        let words = sys::link_details(raw);
        let word = |offset: usize| words[offset / 4];
        let attach_type = |offset| AttachType(word(offset));
        let link_type = LinkType(raw.r#type);
        let target = match link_type {
            LinkType::TRACING => {
                type Arm = abi::bpf_link_info_tracing;
                LinkTarget::Tracing {
                    attach_type: attach_type(offset_of!(Arm, attach_type)),
                    obj_id: word(offset_of!(Arm, target_obj_id)),
                    btf_id: word(offset_of!(Arm, target_btf_id)),
                }
            }
            LinkType::CGROUP => {
                type Arm = abi::bpf_link_info_cgroup;
                let at = offset_of!(Arm, cgroup_id) / 4;
                let halves = [words[at].to_ne_bytes(), words[at + 1].to_ne_bytes()];
                let mut bytes = [0; 8];
                bytes.copy_from_slice(halves.as_flattened());
                LinkTarget::Cgroup {
                    cgroup_id: u64::from_ne_bytes(bytes),
                    attach_type: attach_type(offset_of!(Arm, attach_type)),
                }
            }
            LinkType::NETNS => {
                type Arm = abi::bpf_link_info_netns;
                LinkTarget::Netns {
                    netns_ino: word(offset_of!(Arm, netns_ino)),
                    attach_type: attach_type(offset_of!(Arm, attach_type)),
                }
            }
            LinkType::XDP => LinkTarget::Xdp {
                ifindex: word(offset_of!(abi::bpf_link_info_xdp, ifindex)),
            },
            LinkType::TCX => {
                type Arm = abi::bpf_link_info_tcx;
                LinkTarget::Tcx {
                    ifindex: word(offset_of!(Arm, ifindex)),
                    attach_type: attach_type(offset_of!(Arm, attach_type)),
                }
            }
            LinkType::NETKIT => {
                type Arm = abi::bpf_link_info_netkit;
                LinkTarget::Netkit {
                    ifindex: word(offset_of!(Arm, ifindex)),
                    attach_type: attach_type(offset_of!(Arm, attach_type)),
                }
            }
            _ => LinkTarget::Other,
        };
        Self {
            link_type,
            id: raw.id,
            prog_id: raw.prog_id,
            target,
        }
    }
}

/// The arguments of `BPF_LINK_CREATE`: where a program is to be attached.
#[derive(Debug, Clone, Copy)]
pub struct LinkSpec<'fd> {
    target: Target<'fd>,
    attach_type: AttachType,
    flags: u32,
}

#[derive(Debug, Clone, Copy)]
enum Target<'fd> {
    Cgroup(BorrowedFd<'fd>),
    Netns(BorrowedFd<'fd>),
    Device(u32),
}

impl Target<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Cgroup(_) => "cgroup",
            Self::Netns(_) => "netns",
            Self::Device(_) => "device",
        }
    }

    /// One word of the attr is a descriptor or a device's index, as the attach type has it: an
    /// index must not be taken for somebody's descriptor.
    fn fits(&self, attach_type: AttachType) -> bool {
        match self {
            Self::Cgroup(_) => attach_type
                .name()
                .is_some_and(|name| name.starts_with("CGROUP_") || name == "LSM_CGROUP"),
            Self::Netns(_) => {
                matches!(
                    attach_type,
                    AttachType::FLOW_DISSECTOR | AttachType::SK_LOOKUP
                )
            }
            Self::Device(_) => matches!(
                attach_type,
                AttachType::XDP | AttachType::TCX_INGRESS | AttachType::TCX_EGRESS
            ),
        }
    }
}

impl<'fd> LinkSpec<'fd> {
    /// A control group, by a descriptor of its directory in a cgroup2 file system. Linux 5.7.
    pub fn cgroup(cgroup: &'fd impl AsFd, attach_type: AttachType) -> Self {
        Self::new(Target::Cgroup(cgroup.as_fd()), attach_type)
    }

    /// A network namespace, by a descriptor of a file such as /proc/self/ns/net: its flow
    /// dissector (Linux 5.8) or its socket look-up ([`AttachType::SK_LOOKUP`], Linux 5.9).
    pub fn netns(netns: &'fd impl AsFd, attach_type: AttachType) -> Self {
        Self::new(Target::Netns(netns.as_fd()), attach_type)
    }

    /// `BPF_XDP`: a network device's driver, by the device's index. Linux 5.9.
    pub fn xdp(ifindex: u32) -> Self {
        Self::new(Target::Device(ifindex), AttachType::XDP)
    }

    /// Traffic control of a network device, by the device's index: [`AttachType::TCX_INGRESS`] or
    /// [`AttachType::TCX_EGRESS`], behind what is attached already. Linux 6.6.
    pub fn tcx(ifindex: u32, attach_type: AttachType) -> Self {
        Self::new(Target::Device(ifindex), attach_type)
    }

    fn new(target: Target<'fd>, attach_type: AttachType) -> Self {
        Self {
            target,
            attach_type,
            flags: 0,
        }
    }

    /// `link_create.flags`, whose meaning depends on the attach type: of XDP `XDP_FLAGS_*`.
    pub fn flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }

    /// `BPF_LINK_CREATE`: attaches the program until the link dies. Linux 5.7.
    ///
    /// # Errors
    ///
    /// [`Error::CreateLink`]: EINVAL where program and attach type do not fit, the kernel does not
    /// know the attach type, or there is no such device for XDP; ENODEV where there is none for TCX;
    /// EBUSY where another XDP program is attached to the device, E2BIG where the network namespace
    /// has a flow dissector; [`WrongTarget`](Cause::WrongTarget), without a syscall;
    /// [`MissingCapability`](Cause::MissingCapability) (EPERM).
    ///
    /// # References
    ///
    /// kernel/bpf/syscall.c: `link_create`
    pub fn create(&self, prog: &Prog) -> Result<Link> {
        let fail = |reason| Error::CreateLink {
            attach_type: self.attach_type,
            reason,
        };
        if !self.target.fits(self.attach_type) {
            let (attach_type, target) = (self.attach_type, self.target.name());
            let cause = Cause::WrongTarget {
                attach_type,
                target,
            };
            return Err(fail(cause.into()));
        }
        let target = match self.target {
            Target::Cgroup(fd) | Target::Netns(fd) => fd.as_raw_fd() as u32,
            Target::Device(ifindex) => ifindex,
        };
        match sys::link_create(prog.as_fd(), target, self.attach_type.0, self.flags) {
            Ok(fd) => Ok(Link::from_proven_fd(fd)),
            Err(errno) => {
                let cause = match (errno, prog.info()) {
                    (Errno::PERM, Ok(info)) => diagnose::for_link(info.prog_type),
                    _ => None,
                };
                Err(fail(Reason::new(errno, cause)))
            }
        }
    }
}

impl Link {
    /// `BPF_LINK_UPDATE`: puts `new` in the place of the program that the link holds, without a
    /// moment between them. Linux 5.7.
    ///
    /// # Errors
    ///
    /// [`Error::UpdateLink`]: EINVAL where `new` is of another type, or the link's type has no
    /// updates; [`Detached`](Cause::Detached) (ENOLINK) where the link was detached or what it was
    /// attached to is gone.
    pub fn update(&self, new: &Prog) -> Result<()> {
        self.update_fds(new, None)
    }

    /// `BPF_LINK_UPDATE` with `BPF_F_REPLACE`: only if the link still holds `old`. Linux 5.7.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update), and [`HoldsAnother`](Cause::HoldsAnother) (EPERM).
    pub fn update_from(&self, new: &Prog, old: &Prog) -> Result<()> {
        self.update_fds(new, Some(old))
    }

    fn update_fds(&self, new: &Prog, old: Option<&Prog>) -> Result<()> {
        let updated = sys::link_update(self.as_fd(), new.as_fd(), old.map(AsFd::as_fd));
        updated.map_err(|errno| {
            let cause = match errno {
                Errno::NOLINK => Some(Cause::Detached),
                Errno::PERM => old.and_then(|old| self.holds_another(old)),
                _ => None,
            };
            let reason = Reason::new(errno, cause);
            Error::UpdateLink { reason }
        })
    }

    #[cold]
    fn holds_another(&self, old: &Prog) -> Option<Cause> {
        let prog_id = self.info().ok()?.prog_id;
        (prog_id != old.id().ok()?).then_some(Cause::HoldsAnother { prog_id })
    }

    /// `BPF_LINK_DETACH`: detaches the program now, whoever else has the link. The link and its
    /// pins stay, defunct; to detach it again is no error. Linux 5.9.
    ///
    /// # Errors
    ///
    /// [`Error::DetachLink`]: EOPNOTSUPP where the link's type cannot: tracing, raw tracepoints, perf.
    pub fn detach(&self) -> Result<()> {
        let detached = sys::link_detach(self.as_fd());
        detached.map_err(|errno| Error::DetachLink {
            reason: Reason::errno_only(errno),
        })
    }
}
