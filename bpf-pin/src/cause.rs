//! The causes that are named, each only after it was checked.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use bpf_pin_sys::Version;

use crate::access::Access;
use crate::capability::Capability;
use crate::kind::{Identity, Kind, Verdict};
use crate::magic::FileSystem;
use crate::types::AttachType;

/// What was proven to be behind a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A component of the path holds a '.', which bpffs refuses in every name that a user makes
    /// (EPERM).
    Dot {
        /// The component.
        component: OsString,
    },
    /// The path leads to another file system than bpffs.
    NotBpffs {
        /// The deepest directory of the path that exists.
        path: PathBuf,
        /// What it is on.
        found: FileSystem,
        /// The directory below it that does not exist, where the path goes on.
        missing: Option<PathBuf>,
    },
    /// What is there is no BPF object: a file of another file system, a directory, … (EACCES).
    NotAnObject {
        /// The file.
        path: PathBuf,
        /// Its type: "directory", "file", ….
        what: &'static str,
        /// The file system that it is on.
        found: FileSystem,
    },
    /// Nothing is there (ENOENT).
    Missing {
        /// The first component of the path that does not exist, with what leads to it.
        path: PathBuf,
    },
    /// A component that should be a directory is none (ENOTDIR).
    NotADirectory {
        /// The path up to the component.
        path: PathBuf,
    },
    /// The name is taken (EEXIST).
    Exists {
        /// The kind and id of the object that has it, where this thread may open it.
        holder: Option<Identity>,
    },
    /// A pin cannot be made under a path that ends in '/' (ENOENT).
    TrailingSlash,
    /// The path is empty (ENOENT).
    EmptyPath,
    /// The path holds a NUL byte, so the kernel would see another path.
    InteriorNul {
        /// How many bytes stand before it.
        position: usize,
    },
    /// A component is longer than 255 bytes (ENAMETOOLONG).
    NameTooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The path is longer than 4095 bytes (ENAMETOOLONG).
    PathTooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The file system, or the mount through which it was reached, is read-only (EROFS).
    ReadOnlyFileSystem {
        /// Where that was seen.
        path: PathBuf,
    },
    /// The mode or owner of a file or directory stands in the way (EACCES).
    Blocked {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// What was not granted: "search", "write", "read", "read and write".
        wanted: &'static str,
        /// Whether opening with [`Access::ReadOnly`] would do.
        read_only_would_do: bool,
    },
    /// The directory is sticky and neither it nor the pin is this user's (EPERM).
    Sticky {
        /// The directory.
        directory: PathBuf,
        /// The owner of the pin.
        uid: u32,
    },
    /// The object is of another kind than was asked for.
    WrongKind {
        /// What was asked for.
        expected: Kind,
        /// What is there.
        found: Kind,
    },
    /// The descriptor is no map, program or link.
    NotBpf {
        /// What /proc calls it, where it can be read.
        found: Option<String>,
    },
    /// The descriptor's kind could not be proven: the kernel's structs are of sizes not known here,
    /// its commands are not to be had and /proc is not mounted.
    Unproven,
    /// Another object has the name by now; nothing was changed.
    Replaced {
        /// The object that was taken to have it.
        expected: Identity,
        /// The object that has it.
        found: Identity,
    },
    /// It is a symbolic link, which is not followed.
    SymbolicLink {
        /// The link.
        path: PathBuf,
    },
    /// A name in a directory is one component, and this one holds a '/'.
    Slash {
        /// The name.
        name: OsString,
    },
    /// The directory that is held open was removed, so nothing can be found or made in it (ENOENT).
    Removed {
        /// Its path, as it was opened.
        path: PathBuf,
    },
    /// The directory that is held open is no longer the one that its path leads to.
    Moved {
        /// The path.
        path: PathBuf,
    },
    /// Something is mounted there, and mounts are not crossed (EXDEV, EBUSY).
    MountPoint {
        /// The mount point.
        path: PathBuf,
    },
    /// Two names are on different file systems, or on different mounts of one (EXDEV).
    OtherFileSystem {
        /// The one that is not where the operation began.
        path: PathBuf,
    },
    /// The directory is not empty (ENOTEMPTY).
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else holds the lock (EWOULDBLOCK), or would not give up a turn.
    Locked,
    /// The kernel does not know what the operation needs.
    Unsupported {
        /// The command, flag or call.
        what: &'static str,
        /// The release that has it.
        since: Version,
    },
    /// Names in a directory that is held open are reached by `BPF_F_PATH_FD`, or by /proc where
    /// the kernel does not know that; here by neither.
    NeedsProc,
    /// What the operation needs /proc for cannot be done without, and /proc is not there or not
    /// genuine.
    NoProc,
    /// A mode has the bits up to 0o7777.
    InvalidMode {
        /// The mode.
        mode: u32,
    },
    /// No user or group has this id: to the kernel it means none.
    InvalidId {
        /// The id.
        id: u32,
    },
    /// The file is another user's (EPERM).
    NotOwner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// A link can only be opened for reading and writing (EINVAL).
    LinkAccess,
    /// The map was opened for reading only, or for writing only (EPERM).
    MapAccess {
        /// How it was opened.
        opened: Access,
    },
    /// The map is frozen: only programs may still write to it (EPERM).
    Frozen,
    /// The map is full, or the index is not below the number of its entries (E2BIG).
    MaxEntries {
        /// The number of entries it was made for.
        max_entries: u32,
    },
    /// This thread lacks a capability (EPERM).
    MissingCapability {
        /// Which.
        capability: Capability,
        /// What asks for it.
        needed_for: &'static str,
    },
    /// This thread has its capabilities in a user namespace of its own, where bpf(2) does
    /// not count them (EPERM).
    UserNamespace,
    /// Before Linux 5.11 maps and programs are charged to `RLIMIT_MEMLOCK`, and this one is
    /// over it (EPERM).
    Memlock {
        /// The limit in bytes.
        limit: u64,
    },
    /// The kernel is locked down and withholds what the program calls.
    Lockdown {
        /// The level: "integrity" or "confidentiality".
        level: String,
    },
    /// A key, a value or the number of values is not of the map's size.
    Size {
        /// "key", "value" or "number of values".
        what: &'static str,
        /// The map's own, in bytes or CPUs.
        expected: usize,
        /// The caller's.
        found: usize,
    },
    /// The map was changed so much meanwhile that the walk through it began anew and came to no end.
    Unsettled,
    /// What a descriptor is needed for was given none; 0 in its stead would be taken for one.
    NoDescriptor {
        /// "inner_map", or the flag that announces a descriptor.
        what: &'static str,
    },
    /// A program cannot be attached to such a target in this way.
    WrongTarget {
        /// The way.
        attach_type: AttachType,
        /// The target: "cgroup", "netns" or "device".
        target: &'static str,
    },
    /// The link was detached, or what it was attached to is gone (ENOLINK).
    Detached,
    /// The link holds another program than the caller took for the old one (EPERM).
    HoldsAnother {
        /// The id of the program that it holds.
        prog_id: u32,
    },
    /// The map's values are one per CPU, and were asked for as one; or the other way round.
    PerCpu {
        /// Whether the map is.
        is_per_cpu: bool,
    },
    /// The map is of a type that is newer than this library, which so cannot know how many
    /// bytes the kernel would move.
    UnknownMapType {
        /// Its number.
        map_type: u32,
    },
    /// The number of possible CPUs could not be read, and with it the length of a per-CPU value.
    PossibleCpus {
        /// What stood in the way.
        problem: String,
    },
    /// An object's name may have up to 15 letters, digits, '_' and '.' (EINVAL).
    InvalidName {
        /// The name.
        name: String,
    },
}

impl From<Verdict> for Cause {
    /// Of a descriptor that was not proven to be what it was taken for.
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::IsNone(found) => Self::NotBpf { found },
            Verdict::Is(_) | Verdict::Unknown => Self::Unproven,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dot { component } => write!(
                f,
                "{:?} holds a '.', which bpffs allows in no name",
                component.to_string_lossy()
            ),
            Self::NotBpffs {
                path,
                found,
                missing,
            } => {
                if let Some(missing) = missing {
                    write!(f, "{} does not exist, and ", missing.display())?;
                }
                write!(f, "{} is on {found}, not on a bpffs", path.display())?;
                // Nobody makes directories there: it is where a bpffs belongs.
                if path.ends_with("sys/fs/bpf") {
                    write!(f, "; to mount one: mount -t bpf bpf {}", path.display())?;
                }
                Ok(())
            }
            Self::NotAnObject { path, what, found } => write!(
                f,
                "{} is a {what} on {found}, not a BPF object",
                path.display()
            ),
            Self::Missing { path } => write!(f, "{} does not exist", path.display()),
            Self::NotADirectory { path } => write!(f, "{} is not a directory", path.display()),
            Self::Exists { holder: Some(held) } => write!(f, "{held} is pinned there already"),
            Self::Exists { holder: None } => f.write_str("the name is taken already"),
            Self::TrailingSlash => f.write_str("the path ends in '/', which leaves no name for the pin"),
            Self::EmptyPath => f.write_str("the path is empty"),
            Self::InteriorNul { position } => {
                write!(f, "the path holds a NUL byte after {position} bytes")
            }
            Self::NameTooLong { length } => write!(
                f,
                "a name in the path has {length} bytes, and 255 is the most"
            ),
            Self::PathTooLong { length } => {
                write!(f, "the path has {length} bytes, and 4095 is the most")
            }
            Self::ReadOnlyFileSystem { path } => {
                write!(f, "{} is on a read-only file system", path.display())
            }
            Self::Blocked {
                path,
                mode,
                uid,
                wanted,
                read_only_would_do,
            } => {
                write!(
                    f,
                    "{} (mode {mode:04o}, owner {uid}) does not let this user {wanted}",
                    path.display()
                )?;
                if *read_only_would_do {
                    f.write_str("; it may be opened for reading only")?;
                }
                Ok(())
            }
            Self::Sticky { directory, uid } => write!(
                f,
                "{} is sticky and the pin belongs to user {uid}",
                directory.display()
            ),
            Self::WrongKind { expected, found } => write!(f, "it is a {found}, not a {expected}"),
            Self::NotBpf { found: Some(found) } => {
                write!(f, "it is {found}, not a map, program or link")
            }
            Self::NotBpf { found: None } => f.write_str("it is not a map, program or link"),
            Self::Unproven => f.write_str("its kind could not be proven"),
            Self::Replaced { expected, found } => write!(
                f,
                "the name is that of {found} by now, not of {expected}; nothing was changed"
            ),
            Self::SymbolicLink { path } => {
                write!(f, "{} is a symbolic link, which is not followed", path.display())
            }
            Self::Slash { name } => write!(
                f,
                "{:?} holds a '/', and a name in a directory is one component",
                name.to_string_lossy()
            ),
            Self::Removed { path } => write!(f, "the directory {} was removed", path.display()),
            Self::Moved { path } => {
                write!(f, "{} leads to another directory by now, or to none", path.display())
            }
            Self::MountPoint { path } => write!(f, "{} is a mount point", path.display()),
            Self::NotEmpty { path } => write!(f, "{} is not empty", path.display()),
            Self::Locked => f.write_str("somebody else holds the directory's lock"),
            Self::Unsupported { what, since } => {
                write!(f, "this kernel does not know {what} (Linux {since})")
            }
            Self::NeedsProc => f.write_str(
                "this kernel does not know BPF_F_PATH_FD (Linux 6.5), and /proc, the other way to a directory's names, is not there or not genuine",
            ),
            Self::OtherFileSystem { path } => {
                write!(f, "{} is on another file system or mount", path.display())
            }
            Self::NoProc => f.write_str("it takes /proc, which is not there or not genuine"),
            Self::InvalidMode { mode } => write!(f, "{mode:#o} is no mode"),
            Self::InvalidId { id } => write!(f, "{id} is no id of a user or group"),
            Self::NotOwner { path, uid } => {
                write!(f, "{} belongs to user {uid}", path.display())
            }
            Self::LinkAccess => f.write_str("a link can only be opened for reading and writing"),
            Self::MapAccess { opened } => write!(f, "the map was opened {opened}"),
            Self::Frozen => f.write_str("the map is frozen"),
            Self::MaxEntries { max_entries } => {
                write!(f, "the map has room for {max_entries} entries and no more")
            }
            Self::MissingCapability {
                capability,
                needed_for,
            } => write!(f, "this thread lacks {capability}, needed for {needed_for}"),
            Self::UserNamespace => f.write_str(
                "this thread's capabilities are those of a user namespace, where bpf(2) does not count them",
            ),
            Self::Memlock { limit } => write!(
                f,
                "it is over RLIMIT_MEMLOCK, which is {limit} bytes and charged before Linux 5.11"
            ),
            Self::Lockdown { level } => write!(
                f,
                "the kernel is locked down ({level}) and withholds a helper that the program calls"
            ),
            Self::Size {
                what,
                expected,
                found,
            } => {
                let unit = if what.starts_with("number") { "" } else { " bytes" };
                write!(f, "the {what} is {found}{unit}, and the map's is {expected}")
            }
            Self::Unsettled => f.write_str(
                "the map was changed all the while, so the walk began anew and came to no end",
            ),
            Self::NoDescriptor { what } => write!(f, "{what} needs a descriptor, and none was given"),
            Self::WrongTarget {
                attach_type,
                target,
            } => write!(f, "{attach_type} is not for a {target}"),
            Self::Detached => f.write_str("the link is detached"),
            Self::HoldsAnother { prog_id } => write!(f, "the link holds program {prog_id}"),
            Self::PerCpu { is_per_cpu: true } => {
                f.write_str("the map has a value for each CPU: use PerCpu")
            }
            Self::PerCpu { is_per_cpu: false } => {
                f.write_str("the map has one value for all CPUs: use Typed")
            }
            Self::UnknownMapType { map_type } => write!(
                f,
                "map type {map_type} is newer than this library, which does not know the size of its elements"
            ),
            Self::PossibleCpus { problem } => {
                write!(f, "the number of possible CPUs is unknown: {problem}")
            }
            Self::InvalidName { name } => write!(
                f,
                "{name:?} is not a name of up to 15 letters, digits, '_' and '.'"
            ),
        }
    }
}
