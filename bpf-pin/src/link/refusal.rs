//! Why a target refuses another program. Runs only after a failure.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bpf_pin_sys as abi;
use bpf_pin_sys::Version;
use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use crate::error::Cause;
use crate::object::Prog;
use crate::process::is_filtered;
use crate::sys::{self, LinkOpts};
use crate::types::{AttachType, LinkTarget};

use super::LinkSpec;
use super::position::XdpFlags;
use super::query::AttachedProgs;
use super::spec::Operand;

/// `BPF_CGROUP_MAX_PROGS`, and `netns_bpf_max_progs` of socket look-up.
const MAX_PROGS: usize = 64;
/// `bpf_mprog_max`: one less than `BPF_MPROG_MAX`.
const MAX_MPROG: usize = 63;

impl LinkSpec<'_> {
    /// E2BIG, or ERANGE of TCX and netkit: the target has as many programs as it takes.
    #[cold]
    pub(super) fn full(&self) -> Option<Cause> {
        if self.is_many_hooks() {
            return None;
        }
        let count = self.try_query(0).ok()?.entries().len();
        let limit = match self.target {
            LinkTarget::Tcx { .. } | LinkTarget::Netkit { .. } => MAX_MPROG,
            LinkTarget::Netns {
                attach_type: AttachType::FLOW_DISSECTOR,
                ..
            } => 1,
            _ => MAX_PROGS,
        };
        (count >= limit).then_some(Cause::TargetFull { count })
    }

    /// EPERM of a control group: a program of the group, or of an ancestor, excludes others
    /// (kernel/bpf/cgroup.c: `__cgroup_bpf_attach`, `hierarchy_allows_attach`).
    #[cold]
    pub(super) fn exclusive(&self) -> Option<Cause> {
        let Operand::File(fd) = self.operand else {
            return None;
        };
        if self.is_many_hooks() {
            return None;
        }
        if let Some(prog_id) = excluding(&self.try_query(0).ok()?, abi::BPF_F_ALLOW_MULTI) {
            return attached_exclusively(fd, prog_id);
        }
        let mut parent = open_parent(fd)?;
        loop {
            // EBADF outside of the mounted control groups.
            let spec = LinkSpec::cgroup(&parent, self.attach_type());
            let found = spec.try_query(0).ok()?;
            if found.flags() & abi::BPF_F_ALLOW_MULTI != 0 {
                return None;
            }
            if let Some(prog_id) = excluding(&found, abi::BPF_F_ALLOW_OVERRIDE) {
                return attached_exclusively(parent.as_fd(), prog_id);
            }
            // The nearest ancestor with a program decides.
            if !found.entries().is_empty() {
                return None;
            }
            let next = open_parent(parent.as_fd())?;
            let inode = |fd: &OwnedFd| fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino));
            if inode(&next) == inode(&parent) {
                return None;
            }
            parent = next;
        }
    }

    /// A query of this attach type reports the programs of all its hooks, which proves nothing of one of them.
    fn is_many_hooks(&self) -> bool {
        self.attach_type() == AttachType::LSM_CGROUP
    }

    /// EINVAL: the flags or the position are not accepted, whatever the target.
    #[cold]
    pub(super) fn wrong_flags(&self, prog: &Prog) -> Option<Cause> {
        let invalid = |option, flags: u32, problem: &str| {
            let links = self.target.description();
            Some(Cause::invalid(
                option,
                format!("{flags:#x} of a link to a {links} {problem}"),
            ))
        };
        match self.target {
            // The flags are checked before the descriptor of the target.
            LinkTarget::Cgroup { .. } | LinkTarget::Netns { .. } if !is_filtered() => {
                let is_refused = |flags| {
                    let attach_type = self.attach_type().0;
                    let probe = |flags| {
                        let made = sys::link_create(
                            prog.as_fd(),
                            u32::MAX,
                            attach_type,
                            flags,
                            LinkOpts::None,
                        );
                        made.err()
                    };
                    probe(0) == Some(Errno::BADF) && probe(flags) == Some(Errno::INVAL)
                };
                if self.flags != 0 && is_refused(self.flags) {
                    let allows = abi::BPF_F_ALLOW_MULTI | abi::BPF_F_ALLOW_OVERRIDE;
                    let problem = match self.is_cgroup() && self.flags & allows != 0 {
                        true => "are not accepted: links always allow several programs",
                        false => "are not accepted",
                    };
                    return invalid("flags", self.flags, problem);
                }
                let is_before = self.position.is_some() && is_refused(abi::BPF_F_BEFORE);
                is_before.then_some(Cause::Unsupported {
                    what: "positions in control groups",
                    since: Version::new(6, 17),
                })
            }
            LinkTarget::Xdp { .. } => {
                let flags = self.flags | self.xdp_flags.unwrap_or_default().bits();
                let modes = XdpFlags::SKB_MODE | XdpFlags::DRV_MODE | XdpFlags::HW_MODE;
                let is_one_mode = flags & !modes.bits() == 0 && flags.count_ones() <= 1;
                match is_one_mode {
                    true => None,
                    false => invalid(
                        "xdp_flags",
                        flags,
                        "are not accepted: a link takes one mode",
                    ),
                }
            }
            LinkTarget::Tcx { .. } | LinkTarget::Netkit { .. } => {
                let known = abi::BPF_F_BEFORE | abi::BPF_F_AFTER;
                match self.flags & !known {
                    0 => None,
                    flags => invalid("flags", flags, "are not accepted"),
                }
            }
            _ => None,
        }
    }
}

/// The program that excludes others, unless all programs have one of these flags.
fn excluding(found: &AttachedProgs, allowing: u32) -> Option<u32> {
    let prog = found.entries().first()?;
    (found.flags() & allowing == 0).then_some(prog.prog_id)
}

fn attached_exclusively(cgroup: BorrowedFd<'_>, prog_id: u32) -> Option<Cause> {
    let cgroup_id = sys::kernfs_id(cgroup).ok()?;
    Some(Cause::AttachedExclusively { cgroup_id, prog_id })
}

fn open_parent(cgroup: BorrowedFd<'_>) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(cgroup, c"..", flags, Mode::empty()).ok()
}
