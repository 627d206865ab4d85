//! Links: specifications, creation, updates and detachment.

mod create;
mod position;
mod prog_types;
mod query;
mod refusal;
mod spec;
mod target;
mod validate;
pub(crate) mod verify;

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Error, ObjectType, Operation, Reason, Result, Subject};
use crate::object::Prog;
use crate::object::info_error;
use crate::sys::{self, AsMap};
use crate::types::{AttachType, Kind, LinkType};

pub use crate::object::{Link, LinkInfo};
pub use crate::sys::Uprobes;
pub use crate::types::LinkTarget;
pub use position::{Anchor, IterTask, Position, XdpFlags};
pub use query::{AttachedProg, AttachedProgs};
pub use spec::LinkSpec;

impl Link {
    /// Replaces the program that the link holds, without a moment in which none is attached:
    /// `BPF_LINK_UPDATE`. Linux 5.7.
    ///
    /// Takes two syscalls, or three for the link of a control group.
    ///
    /// # Control groups
    ///
    /// For the link of a control group the kernel compares only the program types. It would accept a
    /// program for `BPF_CGROUP_INET4_BIND` in place of one for `BPF_CGROUP_INET4_CONNECT`, which
    /// [`LinkSpec::create`] rejects. So this method first tests with a `BPF_LINK_CREATE` without a target
    /// whether `new` has the right attach type. The test is inconclusive, and the update goes ahead, if a
    /// seccomp filter is active, or if `new` is of type cgroup_skb and this thread lacks `CAP_NET_ADMIN`.
    ///
    /// # Errors
    ///
    /// [`Operation::UpdateLink`](crate::error::Operation::UpdateLink):
    ///
    /// | Cause | Condition |
    /// |---|---|
    /// | [`WrongProgType`](Cause::WrongProgType) (EINVAL) | `new` has another program type |
    /// | [`NotLoadedFor`](Cause::NotLoadedFor) (EINVAL) | control group: `new` was loaded for another attach type |
    /// | [`ExpectedAttachType`](Cause::ExpectedAttachType) (EINVAL) | XDP: `new` was loaded with another `expected_attach_type` than the current program |
    /// | EINVAL | sockmap: likewise |
    /// | EINVAL | iterator: as for XDP, or `new` was loaded for other objects |
    /// | EEXIST | TCX, netkit: another link has attached `new` at the same target |
    /// | [`UnsupportedType`](Cause::UnsupportedType) (EINVAL, EOPNOTSUPP) | links of this type have no updates, such as tracing, raw tracepoints, perf events and netfilter |
    /// | [`Detached`](Cause::Detached) (ENOLINK) | the link was detached, or its target is gone |
    ///
    /// The kernel does not report the `expected_attach_type` of a program. That of an XDP program is proven if
    /// this kernel compares it in prog arrays and both programs can be opened; otherwise the error says
    /// "likely". aya, libbpf and [`ProgSpec`](crate::ProgSpec) load XDP programs with [`AttachType::XDP`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{PinnedLink, Prog};
    ///
    /// let link = PinnedLink::open("/sys/fs/bpf/egress")?;
    /// let new = Prog::open("/sys/fs/bpf/filter_2")?;
    /// link.update(&new)?;
    /// assert_eq!(link.info()?.prog_id, new.id()?);
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn update(&self, new: &Prog) -> Result<()> {
        self.check_loaded_for(new)?;
        self.update_fds(new.as_fd(), None)
    }

    /// As [`update`](Self::update), for a caller that has the info.
    pub(crate) fn update_known(&self, info: &LinkInfo, new: &Prog) -> Result<()> {
        self.check_target(info, new)?;
        self.update_fds(new.as_fd(), None)
    }

    fn check_loaded_for(&self, new: &Prog) -> Result<()> {
        match self.info() {
            Ok(info) => self.check_target(&info, new),
            // The update will fail as well.
            Err(_) => Ok(()),
        }
    }

    fn check_target(&self, info: &LinkInfo, new: &Prog) -> Result<()> {
        let LinkTarget::Cgroup { attach_type, .. } = info.target else {
            return Ok(());
        };
        match diagnose::for_prog_of_link(new.as_fd(), attach_type) {
            Some(cause) if !info.target.is_gone() => {
                let cause = prog_types::check_update(new.as_fd(), &info.target).unwrap_or(cause);
                let reason = Reason::new(Errno::INVAL, Some(cause));
                Err(self.update_error(Some(info.id), reason))
            }
            _ => Ok(()),
        }
    }

    /// Replaces the program that the link holds only if it is still `old`: `BPF_LINK_UPDATE` with
    /// `BPF_F_REPLACE`. Linux 5.7.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update), and [`UnexpectedProgram`](Cause::UnexpectedProgram) (EPERM) if the link
    /// holds another program.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::error::Cause;
    /// use bpf_pin::{PinnedLink, Prog};
    ///
    /// let link = PinnedLink::open("/sys/fs/bpf/egress")?;
    /// let old = Prog::from_id(link.info()?.prog_id)?;
    /// let new = Prog::open("/sys/fs/bpf/filter_2")?;
    /// if let Err(error) = link.update_from(&new, &old) {
    ///     match error.cause() {
    ///         Some(Cause::UnexpectedProgram { prog_id }) => println!("the link already holds program {prog_id}"),
    ///         _ => return Err(error),
    ///     }
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn update_from(&self, new: &Prog, old: &Prog) -> Result<()> {
        self.check_loaded_for(new)?;
        self.update_fds(new.as_fd(), Some(old.as_fd()))
    }

    /// Replaces the struct_ops map that the link holds, and so the programs of the map: `BPF_LINK_UPDATE`.
    /// `new_map_fd`: Linux 6.4.
    ///
    /// # Errors
    ///
    /// [`Operation::UpdateLink`](crate::error::Operation::UpdateLink):
    ///
    /// | Cause | Condition |
    /// |---|---|
    /// | EINVAL | the link holds no map |
    /// | EINVAL | `new` is no map of type [`STRUCT_OPS`](crate::MapType::STRUCT_OPS), was created without [`LINK`](crate::types::MapFlags::LINK), has no programs yet or is of another struct |
    /// | EINVAL | a rule of the struct forbids it: congestion control must keep its name |
    /// | EOPNOTSUPP | the struct cannot be updated |
    /// | [`Detached`](Cause::Detached) (ENOLINK) | the link was detached |
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{Link, Map};
    ///
    /// let old = Map::open("/sys/fs/bpf/congestion")?;
    /// let link = Link::of_struct_ops(&old)?;
    /// let new = Map::open("/sys/fs/bpf/congestion_2")?;
    /// link.update_map_from(&new, &old)?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn update_map(&self, new: &impl AsMap) -> Result<()> {
        self.update_fds(new.map_fd(), None)
    }

    /// Replaces the struct_ops map that the link holds only if it is still `old`: `BPF_LINK_UPDATE` with
    /// `BPF_F_REPLACE`. `old_map_fd`: Linux 6.4.
    ///
    /// # Errors
    ///
    /// As [`update_map`](Self::update_map), and [`UnexpectedMap`](Cause::UnexpectedMap) (EPERM) if the link
    /// holds another map.
    pub fn update_map_from(&self, new: &impl AsMap, old: &impl AsMap) -> Result<()> {
        self.update_fds(new.map_fd(), Some(old.map_fd()))
    }

    fn update_fds(&self, new: BorrowedFd<'_>, old: Option<BorrowedFd<'_>>) -> Result<()> {
        sys::link_update(self.as_fd(), new, old)
            .map_err(|errno| self.update_failed(errno, new, old))
    }

    #[cold]
    fn update_failed(
        &self,
        errno: Errno,
        new: BorrowedFd<'_>,
        old: Option<BorrowedFd<'_>>,
    ) -> Error {
        let info = self.info().ok();
        let cause = match (errno, &info) {
            (Errno::NOLINK, _) => Some(Cause::Detached),
            (Errno::PERM, Some(info)) => old.and_then(|old| {
                let (holds, cause) = match info.target {
                    LinkTarget::StructOps { map_id } => (map_id, Cause::UnexpectedMap { map_id }),
                    _ => {
                        let prog_id = info.prog_id;
                        (prog_id, Cause::UnexpectedProgram { prog_id })
                    }
                };
                (holds != sys::object_id(old).ok()?).then_some(cause)
            }),
            (Errno::INVAL | Errno::OPNOTSUPP, Some(info)) => {
                let link_type = info.link_type;
                match has_no_update(link_type) {
                    true => Some(Cause::unsupported(
                        ObjectType::Link(link_type),
                        "cannot be updated",
                    )),
                    false if errno == Errno::INVAL => prog_types::check_update(new, &info.target)
                        .or_else(|| match info.target {
                            LinkTarget::Xdp { ifindex: 1.. } => {
                                let by_id = sys::ById::PROG.fd(info.prog_id, 0).ok();
                                let by_id = by_id.as_ref().map(AsFd::as_fd);
                                diagnose::for_xdp_update(new, old.or(by_id))
                            }
                            _ => None,
                        }),
                    false => None,
                }
            }
            _ => None,
        };
        self.update_error(info.map(|info| info.id), Reason::new(errno, cause))
    }

    #[cold]
    pub(crate) fn update_error(&self, id: Option<u32>, reason: Reason) -> Error {
        Error::new(Operation::UpdateLink, reason).of(Subject::link(id))
    }

    /// Detaches the program at once, even if other processes hold the link: `BPF_LINK_DETACH`. Linux 5.9.
    ///
    /// The link and its pins stay, but are defunct. Detaching again succeeds.
    ///
    /// # Errors
    ///
    /// [`Operation::DetachLink`](crate::error::Operation::DetachLink) with
    /// [`UnsupportedType`](Cause::UnsupportedType) (EOPNOTSUPP): a link of this type is only detached with its last
    /// descriptor and pin. These are tracing, raw tracepoints, iterators, perf events, kprobes and
    /// uprobes, and struct_ops before Linux 6.11.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::PinnedLink;
    ///
    /// let link = PinnedLink::open("/sys/fs/bpf/egress")?;
    /// link.detach()?;
    /// assert!(link.info()?.target.is_gone());
    /// link.unpin()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn detach(&self) -> Result<()> {
        sys::link_detach(self.as_fd()).map_err(|errno| self.detach_failed(errno))
    }

    #[cold]
    fn detach_failed(&self, errno: Errno) -> Error {
        let info = self.info().ok();
        let cause = match (errno, &info) {
            (Errno::OPNOTSUPP, Some(info)) => {
                let link_type = info.link_type;
                let problem = "are detached only with their last descriptor and pin";
                has_no_detach(link_type)
                    .then(|| Cause::unsupported(ObjectType::Link(link_type), problem))
            }
            _ => None,
        };
        Error::new(Operation::DetachLink, Reason::new(errno, cause))
            .of(Subject::link(info.map(|info| info.id)))
    }

    /// Starts the iterator and returns a file with the output of its program: `BPF_ITER_CREATE`. Linux 5.8.
    ///
    /// The file keeps the link alive. Opening a pin of the link as a file does the same.
    ///
    /// # Errors
    ///
    /// [`Operation::CreateIter`](crate::error::Operation::CreateIter) with
    /// [`UnsupportedType`](Cause::UnsupportedType) (EINVAL) for a link of another type.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::fs::File;
    /// use std::io::read_to_string;
    ///
    /// use bpf_pin::{LinkSpec, Prog};
    ///
    /// let lists_maps = Prog::open("/sys/fs/bpf/lists_maps")?;
    /// let link = LinkSpec::iter().create(&lists_maps)?.pin("/sys/fs/bpf/maps").map_err(bpf_pin::Error::from)?;
    /// let text = read_to_string(link.iter()?)?;
    /// let again = read_to_string(File::open("/sys/fs/bpf/maps")?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> Result<File> {
        match sys::iter_create(self.as_fd()) {
            Ok(fd) => Ok(File::from(fd)),
            Err(errno) => {
                let other = |info: LinkInfo| {
                    let link_type = info.link_type;
                    let problem = "are not iterators";
                    (link_type != LinkType::ITER)
                        .then(|| Cause::unsupported(ObjectType::Link(link_type), problem))
                };
                let info = (errno == Errno::INVAL).then(|| self.info().ok()).flatten();
                let reason = Reason::new(errno, info.and_then(other));
                Err(Error::new(Operation::CreateIter, reason))
            }
        }
    }

    /// Returns the name of a raw tracepoint, or of the objects of an iterator, such as "bpf_map_elem". None
    /// for other types of links. `struct bpf_link_info`: Linux 5.8.
    ///
    /// # Errors
    ///
    /// [`Operation::Info`](crate::error::Operation::Info) as [`info`](Self::info), or with ENOSPC if the name
    /// has 512 bytes or more.
    pub fn target_name(&self) -> Result<Option<String>> {
        let mut buffer = [0; 512];
        match sys::link_name(self.as_fd(), &mut buffer) {
            Ok(()) => {
                let name = CStr::from_bytes_until_nul(&buffer).unwrap_or_default();
                Ok(Some(name.to_string_lossy().into_owned()))
            }
            Err(Errno::INVAL) => Ok(None),
            Err(errno) => Err(info_error(Kind::Link, errno)),
        }
    }

    /// Attaches the programs of a struct_ops map that was created with `BPF_F_LINK`, until the link dies:
    /// `BPF_LINK_CREATE`. Linux 6.4.
    ///
    /// # Errors
    ///
    /// [`Operation::CreateLink`](crate::error::Operation::CreateLink) with EINVAL: the map is not of type
    /// [`STRUCT_OPS`](crate::MapType::STRUCT_OPS) or was created without `BPF_F_LINK`, or the kernel does not
    /// support it.
    pub fn of_struct_ops(map: &impl AsMap) -> Result<Self> {
        match sys::link_create_struct_ops(map.map_fd()) {
            Ok(fd) => Ok(Self::from_proven_fd(fd)),
            Err(errno) => Err(
                Error::new(Operation::CreateLink, Reason::errno_only(errno)).of(
                    Subject::AttachPoint {
                        attach_type: AttachType::STRUCT_OPS,
                        ifindex: 0,
                    },
                ),
            ),
        }
    }
}

/// Returns whether links of this type cannot be detached. False for unknown types, and a driver may still
/// refuse.
fn has_no_detach(link_type: LinkType) -> bool {
    matches!(
        link_type,
        LinkType::RAW_TRACEPOINT
            | LinkType::TRACING
            | LinkType::ITER
            | LinkType::PERF_EVENT
            | LinkType::KPROBE_MULTI
            | LinkType::STRUCT_OPS
            | LinkType::UPROBE_MULTI
            | LinkType::TRACING_MULTI
    )
}

/// Returns whether links of this type cannot be updated. False for unknown types.
pub(crate) fn has_no_update(link_type: LinkType) -> bool {
    matches!(
        link_type,
        LinkType::RAW_TRACEPOINT
            | LinkType::TRACING
            | LinkType::PERF_EVENT
            | LinkType::KPROBE_MULTI
            | LinkType::NETFILTER
            | LinkType::UPROBE_MULTI
            | LinkType::TRACING_MULTI
    )
}
