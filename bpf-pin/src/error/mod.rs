//! What went wrong: the operation, what it was done to, the errno, and a cause if one was proven.

mod failed;
mod reason;
mod words;

pub use failed::Failed;
pub use reason::Reason;

use std::path::{Path, PathBuf};

use crate::cause::Cause;
use crate::kind::Kind;
use crate::operation::{DirOperation, MountOperation, TokenOperation};
use crate::types::{AttachType, Command, MapType, ProgType};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation.
///
/// Its text names the operation, its operand and the cause, or the errno's name where no
/// cause was proven; its source is the errno in the system's words. A refusal that needed
/// no syscall, or a wrong kind found after all syscalls went well, has no errno.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// `BPF_OBJ_GET`, or the proof of kind that follows it.
    Open {
        /// The pin.
        path: PathBuf,
        /// Why.
        reason: Reason,
    },
    /// `BPF_OBJ_PIN`.
    Pin {
        /// Where it was to be.
        path: PathBuf,
        /// Why.
        reason: Reason,
    },
    /// The identity check before `unlink(2)`, or that call.
    Unpin {
        /// The pin.
        path: PathBuf,
        /// Why.
        reason: Reason,
    },
    /// What is done with a directory on a bpffs and the names in it.
    Directory {
        /// What.
        operation: DirOperation,
        /// The directory, or the name in it.
        path: PathBuf,
        /// The other name, where there are two.
        to: Option<Box<Path>>,
        /// Why.
        reason: Reason,
    },
    /// `statfs(2)`.
    Statfs {
        /// What was looked at.
        path: PathBuf,
        /// Why.
        reason: Reason,
    },
    /// `fstatfs(2)`.
    Fstatfs {
        /// Why.
        reason: Reason,
    },
    /// A descriptor from elsewhere that is not of the kind it was taken for.
    Descriptor {
        /// The kind that was asked for, or None where any would have done.
        expected: Option<Kind>,
        /// Why.
        reason: Reason,
    },
    /// `BPF_*_GET_FD_BY_ID`.
    ById {
        /// The kind that was asked for.
        kind: Kind,
        /// The object's id.
        id: u32,
        /// Why.
        reason: Reason,
    },
    /// `fcntl(F_DUPFD_CLOEXEC)`.
    Clone {
        /// Of what.
        kind: Kind,
        /// Why.
        reason: Reason,
    },
    /// `BPF_OBJ_GET_INFO_BY_FD`.
    Info {
        /// Of what.
        kind: Kind,
        /// Why.
        reason: Reason,
    },
    /// `BPF_MAP_CREATE`.
    CreateMap {
        /// The type asked for.
        map_type: MapType,
        /// The name asked for, or empty.
        name: String,
        /// Why.
        reason: Reason,
    },
    /// `BPF_PROG_LOAD`.
    LoadProg {
        /// The type asked for.
        prog_type: ProgType,
        /// The name asked for, or empty.
        name: String,
        /// What the verifier wrote, or empty where it was never reached.
        log: Box<str>,
        /// Why.
        reason: Reason,
    },
    /// `BPF_LINK_CREATE` or `BPF_RAW_TRACEPOINT_OPEN`.
    CreateLink {
        /// How the program was to be attached.
        attach_type: AttachType,
        /// The network device that it was to be attached to, or 0.
        ifindex: u32,
        /// Why.
        reason: Reason,
    },
    /// `BPF_LINK_CREATE` of a program in the place of another one's function.
    ReplaceFunction {
        /// The id of the other program, or 0 where the kernel does not tell it.
        prog_id: u32,
        /// The function, by its id in that program's BTF.
        btf_id: u32,
        /// Why.
        reason: Reason,
    },
    /// `BPF_LINK_UPDATE`.
    UpdateLink {
        /// The link's id, or 0 where the kernel does not tell it.
        id: u32,
        /// Why.
        reason: Reason,
    },
    /// `BPF_LINK_DETACH`.
    DetachLink {
        /// The link's id, or 0 where the kernel does not tell it.
        id: u32,
        /// Why.
        reason: Reason,
    },
    /// A view of a map's elements was asked for with types, or of a map, that it cannot be of.
    Elements {
        /// Why.
        reason: Reason,
    },
    /// `BPF_MAP_LOOKUP_ELEM`.
    Lookup {
        /// Why.
        reason: Reason,
    },
    /// `BPF_MAP_UPDATE_ELEM`.
    Update {
        /// Why.
        reason: Reason,
    },
    /// `BPF_MAP_DELETE_ELEM`.
    Delete {
        /// Why.
        reason: Reason,
    },
    /// `BPF_MAP_GET_NEXT_KEY`.
    NextKey {
        /// Why.
        reason: Reason,
    },
    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`.
    LookupAndDelete {
        /// Why.
        reason: Reason,
    },
    /// `BPF_MAP_*_BATCH`.
    Batch {
        /// Which of them.
        command: Command,
        /// How many elements were done before it failed: with those after them a caller can go on.
        done: usize,
        /// Why.
        reason: Reason,
    },
    /// `BPF_MAP_FREEZE`.
    Freeze {
        /// Why.
        reason: Reason,
    },
    /// `mmap(2)` of a map's values.
    Mmap {
        /// Why.
        reason: Reason,
    },
    /// `BPF_PROG_TEST_RUN`.
    RunProg {
        /// Why.
        reason: Reason,
    },
    /// `BPF_*_GET_NEXT_ID`.
    NextId {
        /// Of which kind.
        kind: Kind,
        /// Why.
        reason: Reason,
    },
    /// `BPF_ITER_CREATE`.
    CreateIter {
        /// Why.
        reason: Reason,
    },
    /// `BPF_PROG_BIND_MAP`.
    BindMap {
        /// Why.
        reason: Reason,
    },
    /// `BPF_BTF_LOAD`.
    LoadBtf {
        /// What the kernel wrote, or empty where it did not get to the types.
        log: Box<str>,
        /// Why.
        reason: Reason,
    },
    /// `BPF_BTF_GET_FD_BY_ID`.
    BtfById {
        /// The BTF object's id.
        id: u32,
        /// Why.
        reason: Reason,
    },
    /// `BPF_OBJ_GET_INFO_BY_FD` of a BTF object.
    BtfInfo {
        /// Why.
        reason: Reason,
    },
    /// A pinned map was to be opened for use, if it fits.
    Reuse {
        /// The pin.
        path: PathBuf,
        /// Why.
        reason: Reason,
    },
    /// The entries of a pinned map were to be moved to another.
    Migrate {
        /// The pin.
        path: PathBuf,
        /// What failed.
        error: Box<Error>,
    },
    /// A program was to be attached by a pinned link, and what failed has no path of its own.
    Attach {
        /// The pin.
        path: PathBuf,
        /// What failed.
        error: Box<Error>,
    },
    /// A bpffs was looked for, mounted, unmounted or delegated.
    Mount {
        /// Which of these.
        operation: MountOperation,
        /// Where, or empty where there is no place.
        path: PathBuf,
        /// Why.
        reason: Reason,
    },
    /// A BPF token was made or looked at.
    Token {
        /// Which of these.
        operation: TokenOperation,
        /// Why.
        reason: Reason,
    },
}

impl Error {
    /// Of an object without a path, which was opened by this one.
    #[cold]
    pub(crate) fn of_opened(self, path: PathBuf) -> Self {
        match self {
            Self::Info { reason, .. } => Self::Open { path, reason },
            other => other,
        }
    }

    /// The errno and the cause.
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Open { reason, .. }
            | Self::Pin { reason, .. }
            | Self::Unpin { reason, .. }
            | Self::Directory { reason, .. }
            | Self::Statfs { reason, .. }
            | Self::Fstatfs { reason }
            | Self::Descriptor { reason, .. }
            | Self::ById { reason, .. }
            | Self::Clone { reason, .. }
            | Self::Info { reason, .. }
            | Self::CreateMap { reason, .. }
            | Self::LoadProg { reason, .. }
            | Self::CreateLink { reason, .. }
            | Self::ReplaceFunction { reason, .. }
            | Self::UpdateLink { reason, .. }
            | Self::DetachLink { reason, .. }
            | Self::Elements { reason }
            | Self::Lookup { reason }
            | Self::Update { reason }
            | Self::Delete { reason }
            | Self::NextKey { reason }
            | Self::LookupAndDelete { reason }
            | Self::Batch { reason, .. }
            | Self::Freeze { reason }
            | Self::Mmap { reason }
            | Self::RunProg { reason }
            | Self::NextId { reason, .. }
            | Self::CreateIter { reason }
            | Self::BindMap { reason }
            | Self::LoadBtf { reason, .. }
            | Self::BtfById { reason, .. }
            | Self::BtfInfo { reason }
            | Self::Reuse { reason, .. }
            | Self::Mount { reason, .. }
            | Self::Token { reason, .. } => reason,
            Self::Migrate { error, .. } | Self::Attach { error, .. } => error.reason(),
        }
    }

    /// The cause, where one was proven.
    pub fn cause(&self) -> Option<&Cause> {
        self.reason().cause()
    }

    /// Whether it is that nothing has the name, or the id, that was asked for (ENOENT), as was then seen
    /// to be so; for what is to be opened if it is there. Of a directory on the way that does not exist,
    /// of a symbolic link that leads nowhere and of a bpffs that is not mounted it is false.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::PinnedMap;
    ///
    /// match PinnedMap::open("/sys/fs/bpf/flows") {
    ///     Ok(flows) => println!("map {}", flows.id()?),
    ///     Err(error) if error.is_missing() => println!("no flows yet"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn is_missing(&self) -> bool {
        match self.cause() {
            Some(Cause::Missing { path }) => self.path() == Some(path),
            Some(Cause::NoSuchId { .. }) => true,
            _ => false,
        }
    }

    /// The errno as the kernel gave it, where a syscall failed.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.reason().raw_os_error()
    }

    /// The path that was operated on, where there was one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Open { path, .. }
            | Self::Pin { path, .. }
            | Self::Unpin { path, .. }
            | Self::Directory { path, .. }
            | Self::Reuse { path, .. }
            | Self::Migrate { path, .. }
            | Self::Attach { path, .. }
            | Self::Statfs { path, .. } => Some(path),
            Self::Mount { path, .. } if !path.as_os_str().is_empty() => Some(path),
            _ => None,
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let errno = self.reason().source()?;
        Some(errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use std::error::Error as _;

    #[test]
    fn an_errno_without_a_cause_is_named_and_explained_once() {
        let error = Error::Pin {
            path: "/x".into(),
            reason: Reason::new(Errno::NOSPC, None),
        };
        assert_eq!(error.to_string(), "pin /x: ENOSPC");
        let source = error.source().unwrap().to_string();
        assert_eq!(source, "No space left on device (os error 28)");
    }

    #[test]
    fn the_kernels_own_errno_and_unknown_ones_have_text() {
        let show = |errno| Reason::new(Errno::from_raw_os_error(errno), None).to_string();
        assert_eq!(show(524), "ENOTSUPP");
        assert_eq!(show(4000), "errno 4000");
    }

    #[test]
    fn an_error_is_small_enough_to_return() {
        assert!(size_of::<Error>() <= 72, "{}", size_of::<Error>());
    }
}
