//! Opens a pinned link and makes it hold a program, or attaches the program and pins the link.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::io::Errno;

use crate::dir::{ByteLock, PinDir};
use crate::error::{Cause, Error, Operation, Reason, Result, Subject};
use crate::link::verify::{Place, Verified};
use crate::link::{Link, LinkInfo, LinkSpec, LinkTarget, has_no_update};
use crate::object::Prog;
use crate::object::open_error;
use crate::object::pin_at;
use crate::path::Component;
use crate::types::Access;
use crate::types::{AttachType, LinkType};
use crate::types::{Identity, Kind};

use super::attached::{Attached, Attachment};
use super::retry::{Attempt, retry};

/// How long to wait for the lock: the kernel may take most of a second to detach a link, and many
/// processes may be waiting.
const PATIENCE: Duration = Duration::from_secs(30);

impl PinDir {
    /// Makes the link pinned under a name hold a program at the target of the spec. Linux 5.8, the first
    /// kernel that reports the target of a link.
    ///
    /// | Pinned as `name` | What the call does |
    /// |---|---|
    /// | nothing | attaches the program and pins the link |
    /// | a link that holds `prog` | nothing |
    /// | a link that holds another program | updates it in place (`BPF_LINK_UPDATE`) |
    /// | a defunct link, which was detached or has lost its target, such as a control group that was removed and created again | attaches the program; the new link gets the name, mode and owner of the old one |
    /// | a link of a type without updates | the same, so that both are attached for a moment; detaches the old link first if the kernel allows only one, as for netfilter |
    ///
    /// # Netfilter
    ///
    /// The kernel reports neither whether a netfilter link is detached nor its network namespace. So the
    /// call takes the lock and tries to attach beside the pinned link:
    ///
    /// - If that succeeds, the pinned link was defunct or in another network namespace, and the new link
    ///   gets the name.
    /// - If the position is taken and the link holds `prog`, nothing changes.
    /// - If the position is taken and the link holds another program, the link is detached. If the position
    ///   is then taken by another process, the old program is attached again, by a new link that gets the
    ///   name. For this the old program is opened by its id first.
    ///
    /// A program in another network namespace is detached with the last descriptor of its link, so use one
    /// name per network namespace.
    ///
    /// # Verified
    ///
    /// A link reports the index of its device, but not the network namespace that the index counts in. So for
    /// TCX and netkit one `BPF_PROG_QUERY` in this thread's network namespace looks for the link, and for XDP
    /// `RTM_GETLINK` looks for its program (four syscalls). If it is not there, the call fails with
    /// [`OtherNetns`](Cause::OtherNetns) and changes nothing. Use one pin for each network namespace.
    ///
    /// [`Attached::verified`] says what was confirmed. It is [`Verified::No`] if the query is refused, or if
    /// links do not report their target: netfilter, functions, probe points and perf events. There, only the
    /// name of the pin says what it is for.
    ///
    /// The link of a control group reports the group's id. If that is another one than the spec's,
    /// `open_by_handle_at(2)` shows whether the group was removed (ESTALE), as when a service restarts: its
    /// link may stay attached for seconds, while sockets of the group live. Then the program is attached to the
    /// new group. Without `CAP_DAC_READ_SEARCH` this is not verified, and the call fails with
    /// [`AttachedElsewhere`](Cause::AttachedElsewhere).
    ///
    /// # Compared and not compared
    ///
    /// [`Attached::mismatches`] lists an XDP mode ([`xdp_flags`](LinkSpec::xdp_flags)) and a
    /// [`position`](LinkSpec::position) that a pinned link does not have. [`Attached::exact`] makes them an
    /// error. For the position of a control group this takes one more `BPF_PROG_QUERY`, which lists no links:
    /// it shows the program at the position.
    ///
    /// [`expected_revision`](LinkSpec::expected_revision), [`cookies`](LinkSpec::cookies), and
    /// [`flags`](LinkSpec::flags) except those of netfilter, functions and probe points are not reported, so
    /// they only take effect when a link is created. Those flags, the number of functions or probe points,
    /// [`pid`](crate::link::Uprobes::pid) and [`cookie`](LinkSpec::cookie) are compared if the kernel has the
    /// fields of [`LinkTarget`]. A link without a cookie matches any.
    ///
    /// To apply changed options, [`unlink`](Self::unlink) the pin and [`detach`](Link::detach) or drop the
    /// link, then attach again, with a moment in which no program is attached.
    ///
    /// # A link that lives without its pin
    ///
    /// If the name is free and a link of the same program is at the target, because another process holds it,
    /// the call fails with [`AlreadyAttached`](Cause::AlreadyAttached) instead of attaching the program twice.
    /// The cause has the id of the link if this thread may look for it (`CAP_SYS_ADMIN`): open it with
    /// [`Link::from_id`] and pin it.
    ///
    /// - TCX and netkit: the kernel rejects a program that is attached already.
    /// - XDP: a device has one program. The cause is [`XdpAttached`](Cause::XdpAttached) if no link is found, or if
    ///   several links hold the program on devices of this index: links do not report their network namespaces.
    /// - Control groups and network namespaces: a `BPF_PROG_QUERY` before the attachment shows the program.
    /// - Raw tracepoints: [`LinkSpec::links`] finds the link.
    /// - Perf events, functions and probe points are not covered.
    ///
    /// # Races
    ///
    /// Calls in one directory exclude each other with an internal lock, which is not
    /// [`lock`](Self::lock). Of any number of processes one attaches, and the others get its link. If a process
    /// is killed with the lock, it is free when the process's forked children have ended, too.
    ///
    /// If a process without this lock pins a link first, or replaces the pin, the new link is dropped and
    /// the other one is used. From Linux 5.17 on the two pins are exchanged (`RENAME_EXCHANGE`), and
    /// exchanged back if the old one is not the expected one. Before, the pin is checked right before it is
    /// replaced, and a pin that is placed in between is lost.
    ///
    /// A process that is killed leaves the old state or the new one, and at most one pin under a temporary
    /// name. The next call removes it, unless it is a defunct link, which stays for
    /// [`remove_leftovers`](Self::remove_leftovers).
    ///
    /// # Errors
    ///
    /// [`Operation::Open`] as [`get`](Self::get). Only ENOENT counts as a free name.
    ///
    /// [`Operation::Pin`] as [`pin`](Self::pin), or [`Operation::Replace`] as
    /// [`replace_if`](Self::replace_if): the program was attached and has been detached again.
    ///
    /// [`Operation::Attach`] with the pin's path, during one of these operations:
    ///
    /// | Operation | Cause |
    /// |---|---|
    /// | [`Operation::UpdateLink`] | [`AttachedElsewhere`](Cause::AttachedElsewhere), [`OtherNetns`](Cause::OtherNetns); nothing was changed |
    /// | | as [`Link::update`], such as [`NotLoadedFor`](Cause::NotLoadedFor) (EINVAL) for a control group if that can be proven; nothing was changed |
    /// | | [`ExpectedAttachType`](Cause::ExpectedAttachType) (EINVAL) for XDP if the programs were loaded with different [`expected_attach_type`](crate::ProgSpec::expected_attach_type); nothing was changed |
    /// | [`Operation::CreateLink`] | as [`LinkSpec::create`] |
    /// | | the target is still taken after retries for about a second: [`XdpAttached`](Cause::XdpAttached) (EBUSY, EEXIST in the other mode), EBUSY for netfilter, tracing and sockmap, E2BIG for a flow dissector |
    /// | | [`AlreadyAttached`](Cause::AlreadyAttached) after such retries, by a link without this pin (EEXIST for TCX and netkit) |
    /// | | [`RestoreFailed`](Cause::RestoreFailed) for netfilter, the one failure after which less is attached than before: the pinned link was defunct or in another network namespace, or another process took the position |
    /// | [`Operation::FromId`] | [`MissingCapability`](Cause::MissingCapability) (EPERM) without `CAP_SYS_ADMIN`, for a netfilter link that holds another program |
    /// | [`Operation::Info`] | the info of the program or the link could not be read |
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
    ///     Attachment::Updated { old_prog_id } => println!("replaced program {old_prog_id}"),
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

    fn attach_at(&self, name: &OsStr, spec: &LinkSpec<'_>, prog: &Prog) -> Result<Attached<Link>> {
        let path = || self.path().join(name);
        let name = &Component::new(name).map_err(|cause| open_error(&path(), cause.into()))?;
        let attach = || {
            spec.check()?;
            let request = AttachRequest {
                dir: self,
                name,
                spec,
                prog,
                prog_id: prog.id()?,
            };
            request.attach()
        };
        attach().map_err(|error| match error.path() {
            Some(_) => error,
            None => error.while_doing(Operation::Attach, path()),
        })
    }
}

/// The arguments of [`PinDir::open_or_attach`].
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
    reason: StaleReason,
}

#[derive(Clone, Copy, PartialEq)]
enum StaleReason {
    /// Detached, or its target is gone.
    Defunct,
    /// The type has no updates.
    NoUpdate,
    /// A netfilter link with the right program. It may be detached or in another network namespace.
    Unknown,
}

impl StaleLink {
    fn is_netfilter(&self) -> bool {
        self.info.link_type == LinkType::NETFILTER
    }

    fn relinked(&self) -> Attachment {
        Attachment::Relinked {
            old_prog_id: self.info.prog_id,
        }
    }
}

impl AttachRequest<'_> {
    fn attach(&self) -> Result<Attached<Link>> {
        // A link that needs no replacement is used without the lock.
        if let Some(found) = self.open()? {
            if let Ok(attached) = self.reuse(found, None)? {
                return Ok(attached);
            }
        }
        retry(|| self.attach_locked()).map_err(|error| self.name_holder(error))
    }

    /// Attaches the program, unless it is attached to the target already: it would run twice.
    fn create(&self, has_pin: bool) -> Result<Link> {
        let prog_id = self.prog_id;
        let cause = match self.spec.target() {
            LinkTarget::Cgroup { .. } | LinkTarget::Netns { .. } => {
                self.spec.already_attached(prog_id)
            }
            // This looks at every link of the system, so only for a free name.
            LinkTarget::RawTracepoint { .. } if !has_pin => {
                let link_id = self.link_of_prog();
                link_id.map(|id| Cause::AlreadyAttached {
                    prog_id,
                    link_id: Some(id),
                })
            }
            // The kernel refuses the second one, or does not report the target.
            _ => None,
        };
        match cause {
            Some(cause) => Err(self.spec.error(cause.into())),
            None => self.spec.create(self.prog),
        }
    }

    /// A living link of the program at the target.
    fn link_of_prog(&self) -> Option<u32> {
        let links = self.spec.links().ok()?;
        let mut of_prog = links.iter().filter(|info| info.prog_id == self.prog_id);
        let first = of_prog.next()?;
        let is_xdp = matches!(self.spec.target(), LinkTarget::Xdp { .. });
        // One of several may be on a device with this index in another network namespace.
        let is_ambiguous = is_xdp && of_prog.next().is_some();
        (!is_ambiguous).then_some(first.id)
    }

    /// Adds the link that has attached the same program to the target.
    #[cold]
    fn name_holder(&self, error: Error) -> Error {
        let prog_id = self.prog_id;
        let is_ours = match error.cause() {
            Some(Cause::AlreadyAttached { link_id: None, .. }) => true,
            Some(Cause::XdpAttached { prog_id: found, .. }) => *found == prog_id,
            _ => false,
        };
        match is_ours.then(|| self.link_of_prog()).flatten() {
            Some(id) => error.because(Cause::AlreadyAttached {
                prog_id,
                link_id: Some(id),
            }),
            None => error,
        }
    }

    /// Opens the pinned link. None if the name is free.
    fn open(&self) -> Result<Option<(Link, LinkInfo)>> {
        self.dir.find_with_info(self.name, Access::ReadWrite)
    }

    /// Makes a pinned link hold the program if its type, state and place allow it.
    fn reuse(
        &self,
        found: (Link, LinkInfo),
        lock: Option<&ByteLock>,
    ) -> Result<Result<Attached<Link>, StaleLink>> {
        let (link, mut info) = found;
        let (verified, mismatches) = loop {
            let is_removed = self.check_target(&link, &info)?;
            if is_removed || info.target.is_gone() {
                let reason = StaleReason::Defunct;
                return Ok(Err(StaleLink { link, info, reason }));
            }
            match self.spec.locate(&info) {
                Place::Here {
                    verified,
                    mismatches,
                } => break (verified, mismatches),
                Place::Elsewhere => {
                    // It may have been updated or detached since its info was read.
                    let now = link.info()?;
                    if now == info {
                        let target = info.target.to_string();
                        let reason = Cause::OtherNetns { target }.into();
                        return Err(link.update_error(Some(info.id), reason));
                    }
                    info = now;
                }
            }
        };
        Ok(match self.update(&link, &info, lock)? {
            Ok(attachment) => Ok(Attached {
                link,
                attachment,
                verified,
                mismatches,
            }),
            Err(reason) => Err(StaleLink { link, info, reason }),
        })
    }

    fn update(
        &self,
        link: &Link,
        info: &LinkInfo,
        lock: Option<&ByteLock>,
    ) -> Result<Result<Attachment, StaleReason>> {
        let old_prog_id = info.prog_id;
        if old_prog_id != self.prog_id {
            return match link.update_known(info, self.prog) {
                Ok(()) => Ok(Ok(Attachment::Updated { old_prog_id })),
                Err(error) => match error.cause() {
                    Some(Cause::Detached) => Ok(Err(StaleReason::Defunct)),
                    Some(Cause::UnsupportedType { .. }) => Ok(Err(StaleReason::NoUpdate)),
                    _ => Err(error),
                },
            };
        }
        if info.link_type == LinkType::NETFILTER {
            return Ok(Err(StaleReason::Unknown));
        }
        // A process that was killed while it replaced the link has left the old one attached.
        if has_no_update(info.link_type) {
            let _ = self.dir.remove_leftovers_holding(lock);
        }
        Ok(Ok(Attachment::Unchanged))
    }

    /// Fails if the link has another target than the spec, as far as the kernel reports it. Returns whether
    /// it has another one because its control group was removed.
    fn check_target(&self, link: &Link, info: &LinkInfo) -> Result<bool> {
        let fail = |reason| Err(link.update_error(Some(info.id), reason));
        let expected = match self.spec.expected_target(Some(self.prog)) {
            Ok(expected) => expected,
            Err(errno) => return fail(Reason::errno_only(errno)),
        };
        if !expected.matches(&info.target) {
            // A service's group is removed and created again when it restarts.
            if self.spec.is_removed_cgroup(&info.target) {
                return Ok(true);
            }
            let (expected, found) = (expected.to_string(), info.target.to_string());
            return fail(Cause::AttachedElsewhere { expected, found }.into());
        }
        let Some(name) = self.spec.target_name() else {
            return Ok(false);
        };
        let expected = name.to_string_lossy();
        match link.target_name()? {
            Some(found) if found != expected => {
                let of = |name: &str| format!("tracepoint {name}");
                let (expected, found) = (of(&expected), of(&found));
                fail(Cause::AttachedElsewhere { expected, found }.into())
            }
            _ => Ok(false),
        }
    }

    fn attach_locked(&self) -> Result<Attempt<Attached<Link>, Error>> {
        // Declared before the lock, to be dropped after it: the kernel takes long to detach a link.
        let stale;
        let lock = self.dir.lock_swap_for(PATIENCE);
        let lock = lock.map_err(|reason| self.replace_error(reason))?;
        let Some(found) = self.open()? else {
            // ENOENT also comes from a dangling symbolic link, which must not be replaced.
            self.dir.refuse_link(self.name)?;
            return self.attach_new(&lock);
        };
        stale = match self.reuse(found, Some(&lock))? {
            Ok(attached) => return Ok(Attempt::Done(attached)),
            Err(stale) => stale,
        };
        // The link of a process that was killed at this point may occupy the target.
        let _ = self.dir.remove_leftovers_holding(Some(&lock));
        match self.create(true) {
            Ok(link) => {
                let attachment = match stale.reason {
                    StaleReason::NoUpdate if !stale.is_netfilter() => stale.relinked(),
                    _ => Attachment::Reattached,
                };
                self.replace_pin(link, &stale, attachment)
            }
            Err(error) if !is_occupied(&error) => Err(error),
            Err(_) if stale.reason == StaleReason::Unknown => {
                let attached = Attached::new(stale.link, Attachment::Unchanged);
                Ok(Attempt::Done(Attached {
                    verified: Verified::No,
                    ..attached
                }))
            }
            Err(_) if stale.reason == StaleReason::NoUpdate && stale.is_netfilter() => {
                self.detach_and_attach(&stale)
            }
            // The link that occupies the target may be about to die.
            Err(error) => Ok(Attempt::Retry(error)),
        }
    }

    /// Attaches the program and pins the link under a free name.
    fn attach_new(&self, lock: &ByteLock) -> Result<Attempt<Attached<Link>, Error>> {
        let link = match self.create(false) {
            Ok(link) => link,
            Err(error) if is_occupied(&error) => {
                let _ = self.dir.remove_leftovers_holding(Some(lock));
                return Ok(Attempt::Retry(error));
            }
            Err(error) => return Err(error),
        };
        let at = self.dir.at_path(self.name);
        match pin_at(&at, link.as_fd()) {
            Ok(()) => Ok(Attempt::Done(Attached::new(link, Attachment::Attached))),
            Err(reason) => {
                let lost_race = reason.is(Errno::EXIST);
                let error = Error::new(Operation::Pin, reason).at(at.path());
                if lost_race {
                    Ok(Attempt::Retry(error))
                } else {
                    Err(error)
                }
            }
        }
    }

    /// Gives the name of the stale link to the new one.
    fn replace_pin(
        &self,
        link: Link,
        stale: &StaleLink,
        attachment: Attachment,
    ) -> Result<Attempt<Attached<Link>, Error>> {
        match self.replace_locked(&link, stale) {
            Ok(()) => Ok(Attempt::Done(Attached::new(link, attachment))),
            Err(reason) => {
                let lost_race = matches!(reason.cause(), Some(Cause::Replaced { .. }))
                    || reason.is(Errno::NOENT);
                let error = self.replace_error(reason);
                if lost_race {
                    Ok(Attempt::Retry(error))
                } else {
                    Err(error)
                }
            }
        }
    }

    fn replace_locked(&self, link: &Link, stale: &StaleLink) -> Result<(), Reason> {
        let (kind, id) = (Kind::Link, stale.info.id);
        let expected = Identity { kind, id };
        self.dir
            .replace_locked_if(link.as_fd(), self.name, expected)
    }

    /// Detaches a netfilter link, because the kernel allows no second one beside it, and attaches the
    /// program. If that fails, attaches the old program again.
    fn detach_and_attach(&self, stale: &StaleLink) -> Result<Attempt<Attached<Link>, Error>> {
        let prog_id = stale.info.prog_id;
        let old_prog = Prog::from_id(prog_id)?;
        stale.link.detach()?;
        let attached = self.spec.create(self.prog).and_then(|link| {
            let duplicate = link.try_clone()?;
            let replaced = self.replace_pin(link, stale, stale.relinked());
            if replaced.is_err() {
                // Detaches at once. The kernel detaches a closed link later.
                let _ = duplicate.detach();
            }
            replaced
        });
        attached.or_else(|error| {
            let restored = self.spec.create(&old_prog);
            if restored.is_ok_and(|link| self.replace_locked(&link, stale).is_ok()) {
                return Err(error);
            }
            // The link that occupies the position may be about to die.
            let may_retry = is_occupied(&error);
            let error = error.because(Cause::RestoreFailed { prog_id });
            if may_retry {
                Ok(Attempt::Retry(error))
            } else {
                Err(error)
            }
        })
    }

    fn replace_error(&self, reason: Reason) -> Error {
        self.dir
            .fail_at(Operation::Replace, self.name.as_os_str(), reason)
    }
}

/// Returns whether a link was refused because another one occupies its target.
fn is_occupied(error: &Error) -> bool {
    if let Some(Cause::AlreadyAttached { .. }) = error.cause() {
        return true;
    }
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
