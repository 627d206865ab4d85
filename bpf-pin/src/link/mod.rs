//! Links: what they are, how they are made, updated and detached.

mod create;
mod position;
mod prog_types;
mod spec;
mod target;
mod validate;

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Error, Operation, Reason, Result, Subject};
use crate::object::Prog;
use crate::object::info_error;
use crate::sys::{self, AsMap};
use crate::types::{AttachType, Kind, LinkType};

pub use crate::object::{Link, LinkInfo};
pub use crate::sys::Uprobes;
pub use crate::types::LinkTarget;
pub use position::{Anchor, IterTask, Position, XdpFlags};
pub use spec::LinkSpec;

impl Link {
    /// `BPF_LINK_UPDATE`: puts `new` in the place of the program that the link holds, without a
    /// moment between them. Linux 5.7.
    ///
    /// Of a control group's link the kernel compares no more than the programs' types: it would put a
    /// program for `BPF_CGROUP_INET4_BIND` in the place of one for `BPF_CGROUP_INET4_CONNECT`, which
    /// [`LinkSpec::create`] is refused. So it is asked before, by a `BPF_LINK_CREATE` at no group, whether
    /// `new` may be attached in the link's way. It does not answer where `new` is of type cgroup_skb and
    /// this thread lacks `CAP_NET_ADMIN`, nor where a seccomp filter stands in the way; there what is
    /// compared is the kernel's. Two syscalls, three of a control group's link.
    ///
    /// # Errors
    ///
    /// [`Operation::UpdateLink`](crate::error::Operation::UpdateLink): [`WrongProgType`](Cause::WrongProgType) (EINVAL) where `new` is of another
    /// type; EINVAL of XDP and maps of sockets where it was loaded with another `expected_attach_type`
    /// than the program that the link holds, and of iterators also for something else: the kernel
    /// compares that and tells it of no program, so no cause is named. aya and libbpf set
    /// [`AttachType::XDP`]; a program that [`ProgSpec`](crate::ProgSpec) was told nothing for has 0;
    /// [`NotLoadedFor`](Cause::NotLoadedFor) (EINVAL) of a control group's link where it is of the same
    /// type and for another way;
    /// EEXIST of TCX and netkit where `new` is attached there already, by another link;
    /// [`UnsupportedType`](Cause::UnsupportedType) (EINVAL, EOPNOTSUPP) where the link's type has no updates, as
    /// tracing, raw tracepoints, perf events and netfilter;
    /// [`Detached`](Cause::Detached) (ENOLINK) where the link was detached or what it was
    /// attached to is gone.
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

    /// As [`update`](Self::update), of a link whose info is known.
    pub(crate) fn update_known(&self, info: &LinkInfo, new: &Prog) -> Result<()> {
        self.check_target(info, new)?;
        self.update_fds(new.as_fd(), None)
    }

    fn check_loaded_for(&self, new: &Prog) -> Result<()> {
        match self.info() {
            Ok(info) => self.check_target(&info, new),
            // The update has an errno for it.
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

    /// `BPF_LINK_UPDATE` with `BPF_F_REPLACE`: only if the link still holds `old`. Linux 5.7.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update), and [`UnexpectedProgram`](Cause::UnexpectedProgram) (EPERM).
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
    ///         Some(Cause::UnexpectedProgram { prog_id }) => println!("program {prog_id} was faster"),
    ///         _ => return Err(error),
    ///     }
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn update_from(&self, new: &Prog, old: &Prog) -> Result<()> {
        self.check_loaded_for(new)?;
        self.update_fds(new.as_fd(), Some(old.as_fd()))
    }

    /// `BPF_LINK_UPDATE` of a link that holds a map of type
    /// [`STRUCT_OPS`](crate::MapType::STRUCT_OPS): the programs in `new` take the places of those in the
    /// map that it holds. `new_map_fd`: Linux 6.4.
    ///
    /// # Errors
    ///
    /// [`Operation::UpdateLink`](crate::error::Operation::UpdateLink): EINVAL where the link holds no map, where `new` is no such, was created
    /// without [`LINK`](crate::types::MapFlags::LINK), has no programs yet or is of another struct, and where the
    /// struct's own rules say so: congestion control keeps its name; EOPNOTSUPP where the struct cannot
    /// be updated; [`Detached`](Cause::Detached) (ENOLINK).
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

    /// `BPF_LINK_UPDATE` with `BPF_F_REPLACE`, as [`update_map`](Self::update_map): only if the link still
    /// holds `old`. `old_map_fd`: Linux 6.4.
    ///
    /// # Errors
    ///
    /// As [`update_map`](Self::update_map), and [`UnexpectedMap`](Cause::UnexpectedMap) (EPERM).
    pub fn update_map_from(&self, new: &impl AsMap, old: &impl AsMap) -> Result<()> {
        self.update_fds(new.map_fd(), Some(old.map_fd()))
    }

    fn update_fds(&self, new: BorrowedFd<'_>, old: Option<BorrowedFd<'_>>) -> Result<()> {
        sys::link_update(self.as_fd(), new, old).map_err(|errno| self.not_updated(errno, new, old))
    }

    #[cold]
    fn not_updated(&self, errno: Errno, new: BorrowedFd<'_>, old: Option<BorrowedFd<'_>>) -> Error {
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
                    true => Some(Cause::unsupported_link(link_type, "cannot be updated")),
                    false if errno == Errno::INVAL => prog_types::check_update(new, &info.target),
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

    /// `BPF_LINK_DETACH`: detaches the program now, whoever else has the link. The link and its
    /// pins stay, defunct; to detach it again is no error. Linux 5.9.
    ///
    /// # Errors
    ///
    /// [`Operation::DetachLink`](crate::error::Operation::DetachLink): [`UnsupportedType`](Cause::UnsupportedType) (EOPNOTSUPP) where only the last descriptor
    /// and pin of a link of this type detach it: tracing, raw tracepoints, iterators, perf events,
    /// kprobes and uprobes, and struct_ops before Linux 6.11.
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
        sys::link_detach(self.as_fd()).map_err(|errno| self.not_detached(errno))
    }

    #[cold]
    fn not_detached(&self, errno: Errno) -> Error {
        let info = self.info().ok();
        let cause = match (errno, &info) {
            (Errno::OPNOTSUPP, Some(info)) => {
                let link_type = info.link_type;
                let problem = "are detached only with their last descriptor and pin";
                has_no_detach(link_type).then(|| Cause::unsupported_link(link_type, problem))
            }
            _ => None,
        };
        Error::new(Operation::DetachLink, Reason::new(errno, cause))
            .of(Subject::link(info.map(|info| info.id)))
    }

    /// `BPF_ITER_CREATE`: starts the iterator. What is read is what its program writes. Linux 5.8.
    ///
    /// The file keeps the link; a pin of the link is opened and read in the same way.
    ///
    /// # Errors
    ///
    /// [`Operation::CreateIter`](crate::error::Operation::CreateIter): [`UnsupportedType`](Cause::UnsupportedType) (EINVAL).
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
                        .then(|| Cause::unsupported_link(link_type, problem))
                };
                let info = (errno == Errno::INVAL).then(|| self.info().ok()).flatten();
                let reason = Reason::new(errno, info.and_then(other));
                Err(Error::new(Operation::CreateIter, reason))
            }
        }
    }

    /// The name of what it is attached to: of a raw tracepoint, or of what an iterator goes through,
    /// such as "bpf_map_elem"; None of another type of link. `struct bpf_link_info`: Linux 5.8.
    ///
    /// # Errors
    ///
    /// [`Operation::Info`](crate::error::Operation::Info) as [`info`](Self::info); ENOSPC where the name has 512 bytes or more.
    pub fn target_name(&self) -> Result<Option<String>> {
        let mut room = [0; 512];
        match sys::link_name(self.as_fd(), &mut room) {
            Ok(()) => {
                let name = CStr::from_bytes_until_nul(&room).unwrap_or_default();
                Ok(Some(name.to_string_lossy().into_owned()))
            }
            Err(Errno::INVAL) => Ok(None),
            Err(errno) => Err(info_error(Kind::Link, errno)),
        }
    }

    /// `BPF_LINK_CREATE` of a map of type [`STRUCT_OPS`](crate::MapType::STRUCT_OPS) that was created
    /// with `BPF_F_LINK`: its programs take their places until the link dies. Linux 6.4.
    ///
    /// # Errors
    ///
    /// [`Operation::CreateLink`](crate::error::Operation::CreateLink): EINVAL where the map is no such, or the kernel does not know of it.
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

/// Of types newer than this library nobody knows; a driver may refuse what its type has.
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

/// Of types newer than this library nobody knows.
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
