//! The causes that are named, each only after it was checked.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use bpf_pin_sys::Version;
use rustix::fs::{major, minor};

use crate::access::Access;
use crate::capability::Capability;
use crate::error::errno_name;
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
    /// Another object has the name by now; nothing was removed.
    Replaced {
        /// The object that was to be unpinned.
        expected: Identity,
        /// The object that the path leads to.
        found: Identity,
    },
    /// The path is a symbolic link and so is no pin itself; nothing was removed.
    SymbolicLink,
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
    /// An option has a value that the kernel would refuse, or cut short.
    InvalidOption {
        /// The option, by the kernel's name.
        option: &'static str,
        /// What is wrong with the value.
        problem: String,
    },
    /// The kernel took an option without an error, and did not heed it.
    OptionIgnored {
        /// The option, by the kernel's name.
        option: &'static str,
        /// The first release that knows it, where it is newer than bpffs.
        since: Option<Version>,
    },
    /// This kernel does not have what was asked for.
    Unsupported {
        /// What.
        what: &'static str,
        /// The first release that has it.
        since: Version,
    },
    /// /proc is not mounted, or what is mounted there is none.
    NoProc,
    /// The mount is none of this mount namespace: it is attached nowhere, elsewhere, or no longer.
    NotListed {
        /// Its id.
        mount_id: u64,
    },
    /// Another bpffs is there by now.
    AnotherInstance {
        /// The `st_dev` of the one that was meant.
        expected: u64,
        /// The `st_dev` of the one that is there.
        found: u64,
    },
    /// A directory within a bpffs, where its root was wanted (EINVAL).
    NotTheRoot {
        /// The directory, where its path is known.
        path: Option<PathBuf>,
        /// Where the bpffs is mounted, where that is known.
        mount_point: Option<PathBuf>,
    },
    /// Another file system is mounted there already.
    Occupied {
        /// Which.
        found: FileSystem,
        /// The id of the mount.
        mount_id: u64,
    },
    /// Somebody else mounted something there at the same moment.
    Overtaken,
    /// The mount is in use (EBUSY).
    InUse {
        /// Something that is mounted within it. None: a file or directory of it is open, or a
        /// process works there.
        mounted: Option<PathBuf>,
    },
    /// In a user namespace no bpffs can be created, only taken over (EPERM).
    NeedsDelegation,
    /// The mount namespace belongs to another user namespace than this thread's (EPERM).
    ForeignMountNamespace,
    /// A mount namespace has as many mounts as it may have (ENOSPC).
    MountTableFull {
        /// How many it may have: /proc/sys/fs/mount-max.
        most: u64,
    },
    /// Tokens are for user namespaces; in the initial one there are none (EOPNOTSUPP).
    InitialUserNamespace,
    /// The bpffs delegates nothing (ENOENT).
    NothingDelegated,
    /// The bpffs belongs to another user namespace than this thread's (EPERM).
    ForeignBpffs,
    /// The descriptor is no token.
    NotAToken {
        /// What /proc calls it.
        found: String,
    },
    /// The token does not allow what was asked for (EPERM).
    NotDelegated {
        /// What it does not allow: "map_create", "maps of type hash", ….
        what: String,
    },
    /// What came over the socket is not what the other side of the handshake should send.
    Handshake {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// What came over the socket is not the context of a bpffs to be made.
    NotABpfContext {
        /// What it is: what /proc calls it, or the file system's name.
        found: Option<String>,
    },
    /// The other side of the handshake refused.
    Refused {
        /// The errno that it gave.
        errno: i32,
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

/// A device's number as people know it.
pub(crate) struct Device(pub(crate) u64);

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", major(self.0), minor(self.0))
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
                "the path leads to {found} by now, not to {expected}; nothing was removed"
            ),
            Self::SymbolicLink => {
                f.write_str("the path is a symbolic link, not a pin; nothing was removed")
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
            Self::InvalidOption { option, problem } => write!(f, "{option} {problem}"),
            Self::OptionIgnored { option, since } => {
                write!(f, "the kernel ignored the option {option}")?;
                match since {
                    Some(since) => write!(f, ", which it knows since Linux {since}"),
                    None => Ok(()),
                }
            }
            Self::Unsupported { what, since } => {
                write!(f, "this kernel has no {what}, which came with Linux {since}")
            }
            Self::NoProc => f.write_str("/proc is not mounted"),
            Self::NotListed { mount_id } => {
                write!(f, "mount {mount_id} is none of this mount namespace")
            }
            Self::AnotherInstance { expected, found } => write!(
                f,
                "another bpffs is there by now (device {}, not {})",
                Device(*found),
                Device(*expected)
            ),
            Self::NotTheRoot { path, mount_point } => {
                match path {
                    Some(path) => write!(f, "{} is a directory in a bpffs", path.display()),
                    None => f.write_str("it is a directory in a bpffs"),
                }?;
                match mount_point {
                    Some(mount_point) => write!(f, ", which is mounted at {}", mount_point.display()),
                    None => f.write_str(", not its root"),
                }
            }
            Self::Occupied { found, mount_id } => {
                write!(f, "{found} is mounted there already (mount {mount_id})")
            }
            Self::Overtaken => {
                f.write_str("something else was mounted there at the same moment")
            }
            Self::InUse { mounted: Some(path) } => {
                write!(f, "it is in use: something is mounted at {}", path.display())
            }
            Self::InUse { mounted: None } => f.write_str(
                "it is in use: a file or directory in it is open, or a process works there",
            ),
            Self::NeedsDelegation => f.write_str(
                "creating a bpffs takes CAP_SYS_ADMIN in the initial user namespace, and this thread is in another; from Linux 6.9 a process that has it can delegate one",
            ),
            Self::ForeignMountNamespace => f.write_str(
                "this thread's mount namespace belongs to another user namespace; it may mount in one of its own",
            ),
            Self::MountTableFull { most } => write!(
                f,
                "the mount namespace, or one that shares its mounts, has all the {most} mounts that fs.mount-max allows"
            ),
            Self::InitialUserNamespace => f.write_str(
                "this thread is in the initial user namespace, where there are no tokens and none are needed",
            ),
            Self::NothingDelegated => f.write_str("the bpffs delegates nothing"),
            Self::ForeignBpffs => {
                f.write_str("the bpffs belongs to another user namespace than this thread's")
            }
            Self::NotAToken { found } => write!(f, "it is {found}, not a token"),
            Self::NotDelegated { what } => write!(f, "the token does not allow {what}"),
            Self::Handshake { problem } => write!(f, "the other side {problem}"),
            Self::NotABpfContext { found: Some(found) } => {
                write!(f, "the other side sent {found}, not the context of a bpffs")
            }
            Self::NotABpfContext { found: None } => {
                f.write_str("the other side sent something else than the context of a bpffs")
            }
            Self::Refused { errno } => match errno_name(*errno) {
                Some(name) => write!(f, "the other side refused: {name}"),
                None => write!(f, "the other side refused: errno {errno}"),
            },
        }
    }
}
