//! Where a pinned link is attached, as far as the kernel reports it.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::error::mismatch::LinkMismatch;
use crate::sys;
use crate::types::LinkTarget;

use super::position::{Anchor, Position, XdpFlags};
use super::query::{AttachedProg, AttachedProgs};
use super::spec::Operand;
use super::{LinkInfo, LinkSpec};

/// The result of checking that a link is attached to the target of its spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verified {
    /// The kernel reports the target of the link, or lists the link at the target.
    Link,
    /// The kernel lists the program at the target, but no links: XDP. If another link has attached the same
    /// program here, the pinned one may be attached to a device of the same index in another network namespace.
    Prog,
    /// Not verified. The kernel does not report the target of such links (netfilter, functions, probe points,
    /// perf events), or not to this thread: `BPF_PROG_QUERY` needs `CAP_NET_ADMIN`.
    No,
}

/// Where a link with a matching target is.
#[derive(Debug)]
pub(crate) enum Place {
    Here {
        verified: Verified,
        mismatches: Vec<LinkMismatch>,
    },
    /// In another network namespace.
    Elsewhere,
}

impl Place {
    fn here(verified: Verified) -> Self {
        Self::Here {
            verified,
            mismatches: vec![],
        }
    }
}

impl LinkSpec<'_> {
    /// Finds out where a living link with a matching target is attached, and which options it does not have.
    pub(crate) fn locate(&self, info: &LinkInfo) -> Place {
        match (self.target, info.target) {
            (LinkTarget::Tcx { .. } | LinkTarget::Netkit { .. }, _) => self.locate_link(info),
            (LinkTarget::Xdp { .. }, _) => self.locate_xdp(info),
            (LinkTarget::Cgroup { .. }, LinkTarget::Cgroup { .. }) => {
                let progs = self.position.and_then(|_| self.try_query(0).ok());
                let mismatches = self.check_position(progs.as_ref(), info).into_iter();
                Place::Here {
                    verified: Verified::Link,
                    mismatches: mismatches.collect(),
                }
            }
            // A tracing program is attached only to the function that it was loaded for, except freplace.
            (LinkTarget::Tracing { .. }, LinkTarget::Tracing { obj_id: 0, .. })
                if matches!(self.operand, Operand::Object(_)) =>
            {
                Place::here(Verified::No)
            }
            (
                LinkTarget::Netns { .. }
                | LinkTarget::Sockmap { .. }
                | LinkTarget::Iter { .. }
                | LinkTarget::RawTracepoint { .. }
                | LinkTarget::Tracing { .. },
                _,
            ) => Place::here(Verified::Link),
            _ => Place::here(Verified::No),
        }
    }

    fn locate_link(&self, info: &LinkInfo) -> Place {
        let progs = match self.try_query(0) {
            Ok(progs) => progs,
            // The link's device exists, so it is in another network namespace.
            Err(Errno::NODEV | Errno::NXIO) => return Place::Elsewhere,
            Err(_) => {
                return Place::Here {
                    verified: Verified::No,
                    mismatches: self.check_position(None, info).into_iter().collect(),
                };
            }
        };
        if !progs.has_link(info.id) {
            return Place::Elsewhere;
        }
        Place::Here {
            verified: Verified::Link,
            mismatches: self
                .check_position(Some(&progs), info)
                .into_iter()
                .collect(),
        }
    }

    fn locate_xdp(&self, info: &LinkInfo) -> Place {
        const MODES: [XdpFlags; 3] = [XdpFlags::SKB_MODE, XdpFlags::DRV_MODE, XdpFlags::HW_MODE];
        let asked = self.xdp_flags.unwrap_or_default();
        let asked = MODES.into_iter().find(|mode| *mode == asked);
        let (verified, found) = match self.try_query(0) {
            Ok(progs) => {
                let is_ours = |it: &&AttachedProg| it.prog_id == info.prog_id;
                let modes = progs.entries().iter().filter(is_ours).map(|it| it.mode);
                let modes: Vec<_> = modes.collect();
                let Some(first) = modes.first() else {
                    return Place::Elsewhere;
                };
                let is_asked = asked.is_some() && modes.contains(&asked);
                (Verified::Prog, if is_asked { asked } else { *first })
            }
            Err(Errno::NODEV) => return Place::Elsewhere,
            Err(_) => (Verified::No, None),
        };
        let mismatch = asked
            .filter(|_| found != asked)
            .map(|asked| LinkMismatch::XdpMode {
                expected: mode_name(asked),
                found: found.map(mode_name),
            });
        Place::Here {
            verified,
            mismatches: mismatch.into_iter().collect(),
        }
    }

    /// Compares the position with that of the spec. `None` for `progs` if they could not be read.
    fn check_position(
        &self,
        progs: Option<&AttachedProgs>,
        info: &LinkInfo,
    ) -> Option<LinkMismatch> {
        let position = self.position?;
        let expected = match position {
            Position::First => "first".to_owned(),
            Position::Last => "last".to_owned(),
            Position::Before(anchor) => format!("directly before {}", describe(anchor)),
            Position::After(anchor) => format!("directly after {}", describe(anchor)),
        };
        let unread = LinkMismatch::Position {
            expected: expected.clone(),
            found: None,
        };
        let Some(entries) = progs.map(AttachedProgs::entries) else {
            return Some(unread);
        };
        // A control group lists programs only, and may list one several times.
        let has_links = entries.iter().any(|it| it.link_id.is_some());
        let is_ours = |it: &AttachedProg| match has_links {
            true => it.link_id == Some(info.id),
            false => it.prog_id == info.prog_id,
        };
        let is_anchor = |anchor, it: &AttachedProg| match anchor_id(anchor, has_links) {
            Some(AnchorId::Link(id)) => it.link_id == Some(id),
            Some(AnchorId::Prog(id)) => it.prog_id == id,
            None => false,
        };
        let fits = |at: usize| match position {
            Position::First => at == 0,
            Position::Last => at + 1 == entries.len(),
            Position::Before(anchor) => entries.get(at + 1).is_some_and(|it| is_anchor(anchor, it)),
            Position::After(anchor) => at
                .checked_sub(1)
                .is_some_and(|at| is_anchor(anchor, &entries[at])),
        };
        let mut places = (0..entries.len()).filter(|at| is_ours(&entries[*at]));
        let Some(first) = places.clone().next() else {
            return Some(unread);
        };
        if places.any(fits) {
            return None;
        }
        if let Position::Before(anchor) | Position::After(anchor) = position {
            if anchor_id(anchor, has_links).is_none() {
                return Some(unread);
            }
        }
        let found = Some((first + 1, entries.len()));
        Some(LinkMismatch::Position { expected, found })
    }

    /// Returns whether a link's control group was removed: its id no longer leads to one. `false` if that is
    /// not proven, as without `CAP_DAC_READ_SEARCH`.
    #[cold]
    pub(crate) fn is_removed_cgroup(&self, found: &LinkTarget) -> bool {
        let (Operand::File(fd), LinkTarget::Cgroup { cgroup_id, .. }) = (self.operand, *found)
        else {
            return false;
        };
        self.is_cgroup() && cgroup_id != 0 && is_removed(fd, cgroup_id).unwrap_or(false)
    }
}

fn is_removed(cgroup: BorrowedFd<'_>, id: u64) -> Result<bool, Errno> {
    // The caller's may be opened with O_PATH, which the call rejects.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let here = openat(cgroup, c".", flags, Mode::empty())?;
    // The call works here if it finds the spec's own group.
    sys::open_kernfs_node(here.as_fd(), sys::kernfs_id(here.as_fd())?)?;
    Ok(sys::open_kernfs_node(here.as_fd(), id).is_err_and(|errno| errno == Errno::STALE))
}

fn mode_name(mode: XdpFlags) -> &'static str {
    match mode {
        XdpFlags::SKB_MODE => "generic",
        XdpFlags::DRV_MODE => "driver",
        _ => "offloaded",
    }
}

enum AnchorId {
    Link(u32),
    Prog(u32),
}

/// The number by which a query lists the anchor. `None` if it could not be read.
fn anchor_id(anchor: Anchor<'_>, has_links: bool) -> Option<AnchorId> {
    Some(match anchor {
        Anchor::Link(link) if has_links => AnchorId::Link(sys::object_id(link.as_fd()).ok()?),
        Anchor::Link(link) => AnchorId::Prog(link.info().ok()?.prog_id),
        Anchor::LinkId(id) if has_links => AnchorId::Link(id),
        Anchor::LinkId(id) => AnchorId::Prog(super::Link::from_id(id).ok()?.info().ok()?.prog_id),
        Anchor::Prog(prog) => AnchorId::Prog(sys::object_id(prog.as_fd()).ok()?),
        Anchor::ProgId(id) => AnchorId::Prog(id),
    })
}

fn describe(anchor: Anchor<'_>) -> String {
    let (kind, id) = match anchor {
        Anchor::Link(link) => ("link", sys::object_id(link.as_fd()).ok()),
        Anchor::Prog(prog) => ("program", sys::object_id(prog.as_fd()).ok()),
        Anchor::LinkId(id) => ("link", Some(id)),
        Anchor::ProgId(id) => ("program", Some(id)),
    };
    match id {
        Some(id) => format!("{kind} {id}"),
        None => format!("a {kind}"),
    }
}
