//! A pinned link that is there, holds the program and is attached, whatever was there before.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::Duration;

use rustix::io::Errno;

use crate::dir::PinDir;
use crate::error::{Cause, Error, Operation, Reason, Result, Subject};
use crate::link::{Link, LinkInfo, LinkSpec, has_no_update};
use crate::object::open_error;
use crate::object::pin_at;
use crate::path::Component;
use crate::prog::Prog;
use crate::types::Access;
use crate::types::{AttachType, LinkType};
use crate::types::{Identity, Kind};

/// A link that holds the program in its place, and what it took.
#[derive(Debug)]
#[non_exhaustive]
pub struct Attached<L> {
    /// The link that has the name.
    pub link: L,
    /// What was done.
    pub attachment: Attachment,
}

/// What [`PinDir::open_or_attach`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attachment {
    /// Nothing: the pinned link held this program already, and its place is taken where it is of
    /// netfilter, of which the kernel does not tell more.
    Unchanged,
    /// The pinned link was updated in place, without a moment in which no program was there.
    Updated {
        /// The id of the program that it held before.
        old_prog_id: u32,
    },
    /// Nothing had the name: the program was attached, and the link pinned.
    Attached,
    /// The pinned link was defunct, or one of netfilter in another network namespace: the program was
    /// attached anew, and the new link took the name.
    Reattached,
    /// The pinned link is of a type that cannot be updated: the program was attached by a link of its
    /// own, which took the name. For a moment both were there, or for netfilter none.
    Relinked {
        /// The id of the program that the old link holds for as long as somebody has that.
        old_prog_id: u32,
    },
}

/// How often a place that is taken is tried again, with pauses of up to 64 ms, which are a second
/// together: who took it may not have pinned its link yet, and the link of a killed process needs a
/// moment to let go.
const TRIES: u32 = 20;

/// How often one's turn is waited for once more: to detach from some places takes the kernel a good
/// part of a second, and many may be waiting.
const LOCK_TRIES: u32 = 5;

/// The result of an attempt.
enum Step {
    Done(Attached<Link>),
    /// Another process was faster, or is in the way.
    Retry(Error),
}

impl PinDir {
    /// `BPF_OBJ_GET`, and then what it takes: afterwards the name is that of a link which holds `prog`
    /// at the place that `spec` names.
    ///
    /// A link that is there is updated in place (`BPF_LINK_UPDATE`), or left alone where it holds this
    /// program already. Where nothing has the name, the program is attached and the link pinned. A link
    /// that is defunct, because it was detached or its target is gone, has the place free: the program
    /// is attached first and the new link then takes the name, mode and owner of the old one. So it is
    /// with a link that cannot be updated, too; only where two have no room beside each other, as in
    /// netfilter, the old one is detached before.
    ///
    /// Of a netfilter link the kernel tells neither whether it is detached nor in which network namespace
    /// it is. So one that holds this program already takes a turn, too, and an attempt to attach beside
    /// it: where that is refused, the place is taken and nothing changed; else the pinned one was defunct
    /// or of another namespace, and the new one takes the name. What was attached in another namespace
    /// goes with the last who has its link, so a name is for one network namespace. One that holds another
    /// program is detached where the place is taken; if it is taken still, by somebody else, the old program
    /// is put back by a link of its own, which has the name then. For that it is opened by its id before.
    ///
    /// Calls in one directory exclude each other by a lock of their own, which is unrelated to
    /// [`lock`](Self::lock): of any number of processes one attaches, and the others get its link.
    /// If a process that does not take this lock pins a link first, or replaces the pin, ours is dropped and
    /// theirs is taken: from Linux 5.17 on the two pins change places (`RENAME_EXCHANGE`), and change back if the
    /// old one is not what was seen. Before, the pin is looked at right before it is replaced, and what is
    /// put there in between is lost.
    ///
    /// A process that is killed in the middle leaves what was there or what was to be there, and at most one
    /// pin under a hidden name. The next call removes it, unless it is a defunct link that stays for
    /// [`remove_leftovers`](Self::remove_leftovers). Linux 5.8, the first that reports the target of a link.
    ///
    /// What the kernel does not tell of a link is not compared with a link that is there, and takes
    /// effect only where one is attached: [`xdp_flags`](LinkSpec::xdp_flags),
    /// [`position`](LinkSpec::position), [`expected_revision`](LinkSpec::expected_revision) and
    /// [`cookies`](LinkSpec::cookies); [`flags`](LinkSpec::flags) but those of netfilter, of functions and
    /// of places. Those, how many functions or places, [`pid`](crate::link::Uprobes::pid) and
    /// [`cookie`](LinkSpec::cookie) are compared where the kernel has the fields of
    /// [`LinkTarget`](crate::link::LinkTarget); but a link without a cookie passes for one with any. To apply
    /// them: [`unlink`](Self::unlink) the pin, [`detach`](Link::detach) the link, or drop it where it has
    /// no detaching, and attach again, with a moment in which no program is there.
    ///
    /// A device's index is that of the network namespace that this thread is in: of a link to a device
    /// of another one with the same index the kernel does not tell the difference. Of several functions
    /// or places, of perf events, of tracepoints by BTF and of what an iterator's program was loaded for
    /// it does not tell which: there the name that the caller has chosen for the pin has to.
    ///
    /// # Errors
    ///
    /// [`Operation::Open`], as [`get`](Self::get); nothing but ENOENT means that nothing is there.
    ///
    /// [`Operation::Attach`] with the pin's path and one of these:
    ///
    /// - [`Operation::UpdateLink`], and nothing was changed:
    ///   [`AttachedElsewhere`](Cause::AttachedElsewhere), [`AttachedElsewhere`](Cause::AttachedElsewhere);
    ///   as [`Link::update`], so [`NotLoadedFor`](Cause::NotLoadedFor) (EINVAL) of a control group, as far
    ///   as that is known there, and EINVAL of an XDP link that holds a program which was loaded with
    ///   another [`expected_attach_type`](crate::ProgSpec::expected_attach_type);
    /// - [`Operation::CreateLink`], as [`LinkSpec::create`]: where the place is taken, after a second in which
    ///   it was tried again: [`XdpAttached`](Cause::XdpAttached) (EBUSY, EEXIST of the other mode), EBUSY
    ///   of netfilter, tracing and maps of sockets, EEXIST of TCX and netkit, E2BIG of a flow dissector; of
    ///   netfilter [`RestoreFailed`](Cause::RestoreFailed), the one failure that leaves less than there was: the
    ///   pinned link was in another network namespace, or was defunct, or something else took the place
    ///   meanwhile;
    /// - [`Operation::FromId`], of a netfilter link that holds another program:
    ///   [`MissingCapability`](Cause::MissingCapability) (EPERM) without `CAP_SYS_ADMIN`;
    /// - [`Operation::Info`] of the program or the link.
    ///
    /// [`Operation::Pin`], as [`pin`](Self::pin), or [`Operation::Replace`], as
    /// [`replace_if`](Self::replace_if): the program was attached and is not any more.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::reuse::Attachment;
    /// use bpf_pin::types::AttachType;
    /// use bpf_pin::{LinkSpec, PinDir, Prog};
    ///
    /// let dir = PinDir::open("/sys/fs/bpf/app")?;
    /// let prog = Prog::open("/sys/fs/bpf/app/filter")?;
    /// let ingress = LinkSpec::tcx(2, AttachType::TCX_INGRESS);
    /// match dir.open_or_attach("ingress", &ingress, &prog)?.attachment {
    ///     Attachment::Updated { old_prog_id } => println!("instead of program {old_prog_id}"),
    ///     other => println!("{other:?}"),
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn open_or_attach(
        &self,
        name: impl AsRef<OsStr>,
        spec: &LinkSpec<'_>,
        prog: &Prog,
    ) -> Result<Attached<Link>> {
        self.attach_at(name.as_ref(), spec, prog)
    }

    pub(super) fn attach_at(
        &self,
        name: &OsStr,
        spec: &LinkSpec<'_>,
        prog: &Prog,
    ) -> Result<Attached<Link>> {
        let path = || self.path().join(name);
        let filename = Component::new(name).map_err(|cause| open_error(&path(), cause.into()))?;
        self.attach_named(&filename, spec, prog)
            .map_err(|error| match error.path() {
                Some(_) => error,
                None => error.while_doing(Operation::Attach, path()),
            })
    }

    fn attach_named(
        &self,
        name: &Component,
        spec: &LinkSpec<'_>,
        prog: &Prog,
    ) -> Result<Attached<Link>> {
        spec.check()?;
        let request = AttachRequest {
            dir: self,
            name,
            spec,
            prog,
            prog_id: prog.id()?,
        };
        // What is there as it should be takes no turn.
        if let Some(there) = request.open()? {
            if let Ok(attached) = request.take(there)? {
                return Ok(attached);
            }
        }
        let (mut tries, mut lock_tries) = (0, 0);
        loop {
            match request.attach_locked() {
                Ok(Step::Done(attached)) => return Ok(attached),
                Ok(Step::Retry(error)) if tries == TRIES => return Err(error),
                Ok(Step::Retry(_)) => tries += 1,
                Err(error)
                    if lock_tries < LOCK_TRIES && matches!(error.cause(), Some(Cause::Locked)) =>
                {
                    lock_tries += 1;
                    continue;
                }
                Err(error) => return Err(error),
            }
            sleep(Duration::from_millis(1 << tries.min(6)));
        }
    }
}

/// The link that a caller asks for.
struct AttachRequest<'a> {
    dir: &'a PinDir,
    name: &'a Component,
    spec: &'a LinkSpec<'a>,
    prog: &'a Prog,
    prog_id: u32,
}

/// A pinned link that has to be replaced.
struct StaleLink {
    link: Link,
    info: LinkInfo,
    why: StaleReason,
}

/// StaleReason it does not.
#[derive(Clone, Copy, PartialEq)]
enum StaleReason {
    Gone,
    NoUpdate,
    /// It may be detached, or in another network namespace.
    Unsure,
}

impl StaleLink {
    fn is_of_netfilter(&self) -> bool {
        self.info.link_type == LinkType::NETFILTER
    }

    fn identity(&self) -> Identity {
        let (kind, id) = (Kind::Link, self.info.id);
        Identity { kind, id }
    }

    /// What a new one in its place will have been, which there was room for beside it.
    fn attachment(&self) -> Attachment {
        match self.why {
            StaleReason::NoUpdate if !self.is_of_netfilter() => self.relinked(),
            _ => Attachment::Reattached,
        }
    }

    fn relinked(&self) -> Attachment {
        Attachment::Relinked {
            old_prog_id: self.info.prog_id,
        }
    }
}

impl AttachRequest<'_> {
    /// None where nothing has the name.
    fn open(&self) -> Result<Option<(Link, LinkInfo)>> {
        self.dir.find_with_info(self.name, Access::ReadWrite)
    }

    /// Makes the link hold the program, if it can.
    fn take(&self, (link, info): (Link, LinkInfo)) -> Result<Result<Attached<Link>, StaleLink>> {
        self.check(&link, &info)?;
        let old_prog_id = info.prog_id;
        let has_it = old_prog_id == self.prog_id;
        let why = match info.target.is_gone() {
            true => StaleReason::Gone,
            false if has_it && info.link_type == LinkType::NETFILTER => StaleReason::Unsure,
            false if has_it => {
                // A process that was killed while it relinked has left the old link attached.
                if has_no_update(info.link_type) {
                    let _ = self.dir.remove_leftovers();
                }
                let attachment = Attachment::Unchanged;
                return Ok(Ok(Attached { link, attachment }));
            }
            false => match link.update_known(&info, self.prog) {
                Ok(()) => {
                    let attachment = Attachment::Updated { old_prog_id };
                    return Ok(Ok(Attached { link, attachment }));
                }
                Err(error) => match error.cause() {
                    Some(Cause::Detached) => StaleReason::Gone,
                    Some(Cause::UnsupportedType { .. }) => StaleReason::NoUpdate,
                    _ => return Err(error),
                },
            },
        };
        Ok(Err(StaleLink { link, info, why }))
    }

    /// That it is attached to what it is to be attached to, as far as it is at all.
    fn check(&self, link: &Link, info: &LinkInfo) -> Result<()> {
        let fail = |reason| Err(link.update_error(Some(info.id), reason));
        let expected = match self.spec.expected_target(self.prog) {
            Ok(expected) => expected,
            Err(errno) => return fail(Reason::errno_only(errno)),
        };
        if !expected.matches(&info.target) {
            let (expected, found) = (expected.to_string(), info.target.to_string());
            return fail(Cause::AttachedElsewhere { expected, found }.into());
        }
        let Some(name) = self.spec.target_name() else {
            return Ok(());
        };
        let expected = name.to_string_lossy();
        match link.target_name()? {
            Some(found) if found != expected => {
                let of = |name: &str| format!("tracepoint {name}");
                let (expected, found) = (of(&expected), of(&found));
                fail(Cause::AttachedElsewhere { expected, found }.into())
            }
            _ => Ok(()),
        }
    }

    /// Attaches, unless somebody was faster.
    fn attach_locked(&self) -> Result<Step> {
        let fail = |reason| {
            let name = self.name.as_os_str();
            self.dir.fail_at(Operation::Replace, name, reason)
        };
        // Let go when the turn has ended: that takes the kernel its time.
        let old;
        let _turn = self.dir.lock_swap().map_err(fail)?;
        let Some(there) = self.open()? else {
            // Where one leads to may be missing, too, and no link is pinned over it.
            self.dir.refuse_link(self.name)?;
            return self.attach();
        };
        old = match self.take(there)? {
            Ok(attached) => return Ok(Step::Done(attached)),
            Err(stale) => stale,
        };
        // A process that was killed right here has left its link, which may be in the way.
        let _ = self.dir.remove_leftovers();
        match self.spec.create(self.prog) {
            Ok(link) => self.take_name(link, &old, old.attachment()),
            Err(error) if !is_occupied(&error) => Err(error),
            Err(_) if old.why == StaleReason::Unsure => {
                let (link, attachment) = (old.link, Attachment::Unchanged);
                Ok(Step::Done(Attached { link, attachment }))
            }
            Err(_) if old.why == StaleReason::NoUpdate && old.is_of_netfilter() => {
                self.attach_in_place_of(&old)
            }
            // Of one that is about to die.
            Err(error) => Ok(Step::Retry(error)),
        }
    }

    /// Gives the name of the old link to the new one.
    fn take_name(&self, link: Link, old: &StaleLink, attachment: Attachment) -> Result<Step> {
        let fail = |reason| {
            let name = self.name.as_os_str();
            self.dir.fail_at(Operation::Replace, name, reason)
        };
        match self
            .dir
            .replace_locked_if(link.as_fd(), self.name, old.identity())
        {
            Ok(()) => Ok(Step::Done(Attached { link, attachment })),
            Err(reason) => match (reason.cause(), reason.is(Errno::NOENT)) {
                (Some(Cause::Replaced { .. }), _) | (_, true) => Ok(Step::Retry(fail(reason))),
                _ => Err(fail(reason)),
            },
        }
    }

    /// Detaches the old link of netfilter, for the new one is refused beside it, and attaches that; or puts
    /// back what was there.
    fn attach_in_place_of(&self, old: &StaleLink) -> Result<Step> {
        let prog_id = old.info.prog_id;
        let before = Prog::from_id(prog_id)?;
        old.link.detach()?;
        let restore = || {
            let link = self.spec.create(&before).ok()?;
            let done = self
                .dir
                .replace_locked_if(link.as_fd(), self.name, old.identity());
            done.ok()
        };
        let attached = self.spec.create(self.prog).and_then(|link| {
            let ours = link.try_clone()?;
            let step = self.take_name(link, old, old.relinked());
            if step.is_err() {
                // It makes room at once, where to be closed takes the kernel its time.
                let _ = ours.detach();
            }
            step
        });
        attached.or_else(|error| match restore() {
            Some(()) => Err(error),
            // Who is in the way may be about to die.
            None if is_occupied(&error) => {
                Ok(Step::Retry(error.because(Cause::RestoreFailed { prog_id })))
            }
            None => Err(error.because(Cause::RestoreFailed { prog_id })),
        })
    }

    fn attach(&self) -> Result<Step> {
        let link = match self.spec.create(self.prog) {
            Ok(link) => link,
            Err(error) if is_occupied(&error) => {
                let _ = self.dir.remove_leftovers();
                return Ok(Step::Retry(error));
            }
            Err(error) => return Err(error),
        };
        let place = self.dir.at_path(self.name);
        let attachment = Attachment::Attached;
        match pin_at(&place, link.as_fd()) {
            Ok(()) => Ok(Step::Done(Attached { link, attachment })),
            Err(reason) => {
                let is_overtaken = reason.is(Errno::EXIST);
                let path = place.path();
                let error = Error::new(Operation::Pin, reason).at(path);
                match is_overtaken {
                    true => Ok(Step::Retry(error)),
                    false => Err(error),
                }
            }
        }
    }
}

/// Whether somebody is there already, whom a link beside is refused for.
fn is_occupied(error: &Error) -> bool {
    match (error.operation(), error.subject()) {
        (Operation::CreateLink, Subject::AttachPoint { attach_type, .. }) => {
            error.is(Errno::BUSY)
                || error.is(Errno::EXIST)
                || error.is(Errno::TOOBIG) && *attach_type == AttachType::FLOW_DISSECTOR
        }
        (Operation::ReplaceFunction, _) => error.is(Errno::BUSY),
        _ => false,
    }
}
