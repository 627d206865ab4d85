//! What a person reads of a cause.

use std::fmt;

use rustix::fs::{major, minor};

use super::Cause;
use crate::errno::errno_name;
use crate::shown::Shown;

/// A device's number as people know it.
pub(crate) struct Device(pub(crate) u64);

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", major(self.0), minor(self.0))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown(Words(self)).fmt(f)
    }
}

/// A cause in words, with paths and names as they are.
struct Words<'c>(&'c Cause);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f)
    }
}

impl Cause {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dot { component } if component == "." || component == ".." => write!(
                f,
                "{:?} is no name in a directory",
                component.to_string_lossy()
            ),
            Self::Dot { component } => write!(
                f,
                "{:?} holds a '.', which bpffs allows in no name",
                component.to_string_lossy()
            ),
            Self::NotBpffs {
                path,
                found,
                missing,
                hidden,
            } => {
                if let Some(missing) = missing {
                    write!(f, "{} does not exist, and ", missing.display())?;
                }
                write!(f, "{} is on {found}, not on a bpffs", path.display())?;
                match hidden {
                    Some(hidden) => write!(f, "; {hidden}"),
                    // Nobody makes directories there: it is where a bpffs belongs.
                    None if path.ends_with("sys/fs/bpf") => {
                        write!(f, "; to mount one: mount -t bpf bpf {}", path.display())
                    }
                    None => Ok(()),
                }
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
            Self::Unproven { info_errno: None } => f.write_str("its kind could not be proven"),
            Self::Unproven {
                info_errno: Some(errno),
            } => {
                f.write_str("it could not be identified: BPF_OBJ_GET_INFO_BY_FD failed with ")?;
                match errno_name(*errno) {
                    Some(name) => f.write_str(name),
                    None => write!(f, "errno {errno}"),
                }
            }
            Self::Replaced { expected, found } => write!(
                f,
                "the name is that of {found} by now, not of {expected}; nothing was changed"
            ),
            Self::ChangedHands { path, now_at } => write!(
                f,
                "{} has changed hands: what another process put there during the call is now {}",
                path.display(),
                now_at.display()
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
            Self::Locked => f.write_str("somebody holds the directory's lock"),
            Self::Unsupported { what, since } => {
                write!(f, "this kernel does not know {what} (Linux {since})")
            }
            Self::NeedsProc => f.write_str(
                "this kernel does not know BPF_F_PATH_FD (Linux 6.5), and /proc, the other way to a directory's names, is not there or not genuine",
            ),
            Self::NoProc => f.write_str("it takes /proc, which is not there or not genuine"),
            Self::InvalidMode { mode } => write!(f, "{mode:#o} is no mode"),
            Self::InvalidId { id } => write!(f, "{id} is no id of a user or group"),
            Self::NotOwner { path, uid } => {
                write!(f, "{} belongs to user {uid}", path.display())
            }
            Self::UnmappedOwner { what, id } => write!(
                f,
                "its {what} shows as {id}, as all do who are not mapped in this user namespace, and so cannot be kept"
            ),
            Self::LinkAccess => f.write_str("a link can only be opened for reading and writing"),
            Self::MapAccess { opened } => write!(f, "the map was opened {opened}"),
            Self::Frozen => f.write_str("the map is frozen"),
            Self::MaxEntries { max_entries } => {
                write!(f, "the map has room for {max_entries} entries and no more")
            }
            Self::IndexBeyond { index, max_entries } => match max_entries.checked_sub(1) {
                Some(last) => write!(f, "index {index} is beyond the last, {last}"),
                None => write!(f, "index {index} is beyond the end: the map has no entries"),
            },
            Self::KeyExists => f.write_str("there is such a key already"),
            Self::KeyMissing => f.write_str("there is no such key"),
            Self::LengthMismatch { keys, values } => {
                write!(f, "the keys are {keys} and the values {values}")
            }
            Self::LargerBucket { room } => write!(
                f,
                "a bucket of the hash has more elements than the {room} that there is room for"
            ),
            Self::BeingWritten => {
                f.write_str("the map is mapped into memory for writing, or written to right now")
            }
            Self::NotMmapable { map_type } => write!(
                f,
                "only an array made with BPF_F_MMAPABLE can be mapped, and this {map_type} map is none"
            ),
            Self::NoMultiple { value_size, atomic } => write!(
                f,
                "values of {value_size} bytes are not made of whole atomics of {atomic}"
            ),
            Self::ReadOnlyForProgs => f.write_str(
                "the map was made with BPF_F_RDONLY_PROG, so it can be mapped for reading only",
            ),
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
            Self::NoCommand { command, map_type } => {
                write!(f, "maps of type {map_type} have no {command}")
            }
            Self::InvalidField { field, rule } => write!(f, "{field} {rule}"),
            Self::Mismatch { id, mismatches } => {
                write!(f, "map {id} does not fit: ")?;
                for (i, mismatch) in mismatches.iter().enumerate() {
                    // Each has a comma of its own.
                    let between = if i == 0 { "" } else { "; " };
                    write!(f, "{between}{mismatch}")?;
                }
                Ok(())
            }
            Self::Migrating => f.write_str("somebody else is migrating the map of this name"),
            Self::NotCopied { map_type } => {
                write!(f, "the entries of a {map_type} map cannot be copied")
            }
            Self::IterationAborted => f.write_str(
                "the map was changed all the while, so the walk began anew and came to no end",
            ),
            Self::NoDescriptor { what } => write!(f, "{what} needs a descriptor, and none was given"),
            Self::WrongTarget {
                attach_type,
                target,
            } => write!(f, "{attach_type} is not for a {target}"),
            Self::NotLoadedFor { attach_type } => {
                write!(f, "the program was not loaded for {attach_type}")
            }
            Self::WrongProgType {
                prog_id,
                found,
                attach_type,
                takes,
            } => {
                write!(f, "program {prog_id} is {found}, and {attach_type} takes ")?;
                one_of(f, takes)
            }
            Self::NotACgroup { found } => {
                write!(f, "the descriptor is on {found}, not of a control group in cgroup2")
            }
            Self::XdpAttached { ifindex, prog_id } => {
                write!(f, "device {ifindex} has XDP program {prog_id} already")
            }
            Self::Detached => f.write_str("the link is detached"),
            Self::UnexpectedProgram { prog_id } => write!(f, "the link holds program {prog_id}"),
            Self::UnexpectedMap { map_id } => write!(f, "the link holds map {map_id}"),
            Self::NoUpdate { link_type } => {
                write!(f, "links of type {link_type} cannot be updated")
            }
            Self::NoDetach { link_type } => write!(
                f,
                "links of type {link_type} cannot be detached but by their last descriptor and pin"
            ),
            Self::AttachedElsewhere { expected, found } => write!(
                f,
                "it is attached to {found}, not to {expected}; nothing was changed"
            ),
            Self::NoTracepoint { name } => {
                write!(f, "there is no tracepoint {name}")
            }
            Self::AnotherTracepoint { expected, found } => write!(
                f,
                "it is attached to the tracepoint {found}, not to {expected}; nothing was changed"
            ),
            Self::RestoreFailed { prog_id } => write!(
                f,
                "the pinned link was detached in vain, and program {prog_id}, which it held, could not be attached again"
            ),
            Self::NotAnIterator { link_type } => {
                write!(f, "it is a link of type {link_type}, which is no iterator")
            }
            Self::NoDevice { ifindex } => write!(
                f,
                "there is no network device {ifindex} in this thread's network namespace"
            ),
            Self::PerCpu { is_per_cpu: true } => {
                f.write_str("the map has a value for each CPU: use PerCpu")
            }
            Self::PerCpu { is_per_cpu: false } => {
                f.write_str("the map has one value for all CPUs: use no PerCpu")
            }
            Self::UnknownMapType { map_type } => write!(
                f,
                "map type {map_type} is newer than this library, which does not know the size of its elements"
            ),
            Self::Uptr { problem: None } => f.write_str(
                "the map's BTF has the tag \"uptr\", of an address in a value where programs write to this process's memory",
            ),
            Self::Uptr { problem: Some(problem) } => write!(
                f,
                "whether a value holds an address where programs write to this process's memory is told by the map's BTF, which cannot be read: {problem}"
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
            Self::NotListed { mount_id } => {
                write!(f, "mount {mount_id} is not in this thread's mountinfo")
            }
            Self::AnotherInstance { expected, found } => write!(
                f,
                "another bpffs is there (device {}, not {})",
                Device(*found),
                Device(*expected)
            ),
            Self::AnotherMount { expected, found } => write!(
                f,
                "another mount of the bpffs is there (mount {found}, not {expected})"
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
            Self::Covered {
                mount_id,
                found,
                by,
            } => write!(f, "mount {mount_id} is covered by {found} (mount {by})"),
            Self::Shadowed(bpffs) => write!(f, "{bpffs}, which this path does not lead to"),
            Self::LostRace => {
                f.write_str("something else was mounted there at the same moment")
            }
            Self::PathBypassesMount => f.write_str("the path would lead past what is mounted by it"),
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
            Self::HungUp => f.write_str("the other side has hung up"),
            Self::NoAnswer => f.write_str("the other side did not answer in time"),
            Self::Handshake { problem } => write!(f, "the other side {problem}"),
            Self::NotABpfContext { found: Some(found) } => {
                write!(f, "the other side sent {found}, not the context of a bpffs")
            }
            Self::NotABpfContext { found: None } => {
                f.write_str("the other side sent something else than the context of a bpffs")
            }
            Self::UsedContext => {
                f.write_str("the other side sent a context that was used before")
            }
            Self::Refused { errno } => match errno_name(*errno) {
                Some(name) => write!(f, "the other side refused: {name}"),
                None => write!(f, "the other side refused: errno {errno}"),
            },
            Self::Records {
                what,
                length,
                rec_size,
            } => write!(
                f,
                "{what} is {length} bytes, no whole number of records of {rec_size}"
            ),
            Self::FdArray {
                insn,
                index,
                length,
            } => write!(
                f,
                "instruction {insn} names descriptor {index} of fd_array, which has {length}"
            ),
            Self::NoInsns => f.write_str("the program has no instructions"),
            Self::NoSuchId { what } => write!(f, "no living {what} has this id"),
            Self::NoTestRun { prog_type } => {
                write!(f, "this kernel runs no {prog_type} programs for tests")
            }
            Self::NoContext { prog_type } => write!(
                f,
                "a {prog_type} program is given no context, for the kernel may follow addresses in it"
            ),
            Self::NoRoom { what, room, needed } => {
                write!(f, "{what} takes {needed} bytes, and there is room for {room}")
            }
            Self::HoldsNo { map_type, what } => {
                write!(f, "a map of type {map_type} does not hold {what}")
            }
            Self::OtherProgType { owner, found } => write!(
                f,
                "the array is for programs of type {owner}, and this one is of type {found}"
            ),
        }
    }
}

/// "a", "a or b", "a, b or c".
fn one_of(f: &mut fmt::Formatter<'_>, all: &[impl fmt::Display]) -> fmt::Result {
    for (at, each) in all.iter().enumerate() {
        let before = match at {
            0 => "",
            _ if at + 1 == all.len() => " or ",
            _ => ", ",
        };
        write!(f, "{before}{each}")?;
    }
    Ok(())
}
