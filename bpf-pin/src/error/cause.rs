//! The causes of failures, each reported only after it was proven.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;

use bpf_pin_sys::Version;

use crate::process::Capability;
use crate::procfs::ShadowedBpffs;
use crate::types::{Access, AttachType, Command, FileSystem, Identity, Kind, MapType, ProgType};

use super::errno::Name;
use super::escaped::{Escaped, escaped_path};
use super::sentence::{self, Device};
use super::{LinkMismatch, Mismatch, ObjectType};

/// The proven explanation of a failure, as [`Error::cause`](crate::Error::cause) returns it.
///
/// A program matches the variants that it can act on. The others are there to be read: their
/// [`Display`](std::fmt::Display) is the end of the error's sentence.
///
/// | topic | causes |
/// |---|---|
/// | path and name | [`Missing`](Self::Missing), [`Exists`](Self::Exists), [`NotBpffs`](Self::NotBpffs), [`NotAnObject`](Self::NotAnObject), [`NotADirectory`](Self::NotADirectory), [`SymbolicLink`](Self::SymbolicLink), [`Dot`](Self::Dot), [`InvalidPath`](Self::InvalidPath), [`TooLong`](Self::TooLong) |
/// | permission | [`Blocked`](Self::Blocked), [`Sticky`](Self::Sticky), [`NotOwner`](Self::NotOwner), [`UnmappedOwner`](Self::UnmappedOwner), [`ReadOnlyFileSystem`](Self::ReadOnlyFileSystem), [`MissingCapability`](Self::MissingCapability), [`UserNamespace`](Self::UserNamespace), [`Filtered`](Self::Filtered) |
/// | kind | [`WrongKind`](Self::WrongKind), [`WrongDescriptor`](Self::WrongDescriptor), [`Unproven`](Self::Unproven), [`NoSuchId`](Self::NoSuchId), [`UnsupportedType`](Self::UnsupportedType) |
/// | directory | [`Replaced`](Self::Replaced), [`Displaced`](Self::Displaced), [`Removed`](Self::Removed), [`Moved`](Self::Moved), [`MountPoint`](Self::MountPoint), [`NotEmpty`](Self::NotEmpty), [`Locked`](Self::Locked) |
/// | map and elements | [`Mismatch`](Self::Mismatch), [`Migrating`](Self::Migrating), [`KeyExists`](Self::KeyExists), [`KeyMissing`](Self::KeyMissing), [`MaxEntries`](Self::MaxEntries), [`IndexOutOfRange`](Self::IndexOutOfRange), [`Size`](Self::Size), [`LengthMismatch`](Self::LengthMismatch), [`BufferTooSmall`](Self::BufferTooSmall), [`PerCpu`](Self::PerCpu), [`PossibleCpus`](Self::PossibleCpus), [`NoCommand`](Self::NoCommand), [`MapAccess`](Self::MapAccess), [`Frozen`](Self::Frozen), [`FreezeDenied`](Self::FreezeDenied), [`BeingWritten`](Self::BeingWritten), [`ReadOnlyForProgs`](Self::ReadOnlyForProgs), [`NotMmapable`](Self::NotMmapable), [`IterationAborted`](Self::IterationAborted), [`OtherProgType`](Self::OtherProgType), [`IncompatibleProg`](Self::IncompatibleProg), [`OtherInnerMap`](Self::OtherInnerMap), [`Uptr`](Self::Uptr) |
/// | program | [`NotLoadedFor`](Self::NotLoadedFor), [`ExpectedAttachType`](Self::ExpectedAttachType), [`WrongProgType`](Self::WrongProgType), [`Lockdown`](Self::Lockdown) |
/// | link | [`NoTarget`](Self::NoTarget), [`XdpAttached`](Self::XdpAttached), [`AttachedElsewhere`](Self::AttachedElsewhere), [`OtherNetns`](Self::OtherNetns), [`AlreadyAttached`](Self::AlreadyAttached), [`TargetFull`](Self::TargetFull), [`AttachedExclusively`](Self::AttachedExclusively), [`LinkMismatch`](Self::LinkMismatch), [`Detached`](Self::Detached), [`UnexpectedProgram`](Self::UnexpectedProgram), [`UnexpectedMap`](Self::UnexpectedMap), [`RestoreFailed`](Self::RestoreFailed) |
/// | mount | [`NotTheRoot`](Self::NotTheRoot), [`NotListed`](Self::NotListed), [`AnotherInstance`](Self::AnotherInstance), [`AnotherMount`](Self::AnotherMount), [`Occupied`](Self::Occupied), [`Covered`](Self::Covered), [`Shadowed`](Self::Shadowed), [`LostRace`](Self::LostRace), [`PathBypassesMount`](Self::PathBypassesMount), [`InUse`](Self::InUse), [`ForeignUserNamespace`](Self::ForeignUserNamespace), [`MountTableFull`](Self::MountTableFull) |
/// | token and delegation | [`NeedsDelegation`](Self::NeedsDelegation), [`InitialUserNamespace`](Self::InitialUserNamespace), [`NothingDelegated`](Self::NothingDelegated), [`NotDelegated`](Self::NotDelegated), [`PeerClosed`](Self::PeerClosed), [`PeerRefused`](Self::PeerRefused), [`Handshake`](Self::Handshake) |
/// | kernel and arguments | [`Unsupported`](Self::Unsupported), [`OptionIgnored`](Self::OptionIgnored), [`NoProc`](Self::NoProc), [`Memlock`](Self::Memlock), [`InvalidArgument`](Self::InvalidArgument) |
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::PinnedMap;
/// use bpf_pin::error::Cause;
///
/// match PinnedMap::open("/sys/fs/bpf/flows") {
///     Ok(flows) => println!("map {}", flows.id()?),
///     Err(error) => match error.cause() {
///         Some(Cause::NotBpffs { found, .. }) => println!("mount a bpffs first: this is {found}"),
///         _ => return Err(error),
///     },
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    // Path and name.
    /// Nothing has this name (ENOENT), or had it when the kernel looked.
    /// [`Error::is_missing`](crate::Error::is_missing) is true if it is the name that was asked for, and
    /// not a directory on the way.
    #[error("{} does not exist", escaped_path(.path))]
    Missing {
        /// The first part of the path that does not exist.
        path: PathBuf,
    },
    /// The name is taken (EEXIST).
    #[error(fmt = sentence::exists)]
    Exists {
        /// The kind and id of the object pinned there, if this thread may open it.
        holder: Option<Identity>,
    },
    /// The path leads to another file system than bpffs. [`Bpffs::inspect`](crate::Bpffs::inspect)
    /// reports more about what is there.
    #[error(fmt = sentence::not_bpffs)]
    NotBpffs {
        /// The deepest directory of the path that exists.
        path: PathBuf,
        /// Its file system.
        found: FileSystem,
        /// The next directory of the path, which does not exist.
        missing: Option<PathBuf>,
        /// A bpffs that is mounted there or further along the path, but not reached.
        hidden: Option<ShadowedBpffs>,
    },
    /// The path leads to a file or directory that is not a BPF object (EACCES).
    #[error("{} is a {what} on {found}, not a BPF object", escaped_path(.path))]
    NotAnObject {
        /// The file.
        path: PathBuf,
        /// Its type: "directory", "file", ….
        what: &'static str,
        /// Its file system.
        found: FileSystem,
    },
    /// A part of the path is not a directory, and the path continues below it (ENOTDIR).
    #[error("{} is not a directory", escaped_path(.path))]
    NotADirectory {
        /// The path up to that part.
        path: PathBuf,
    },
    /// The path leads over a symbolic link, which is not followed.
    #[error("{} is a symbolic link, which is not followed", escaped_path(.path))]
    SymbolicLink {
        /// The link.
        path: PathBuf,
    },
    /// A name contains a '.', which bpffs refuses (EPERM), or is "." or "..".
    /// [`escape_name`](crate::dir::escape_name) makes a name without dots.
    #[error(fmt = sentence::dot)]
    Dot {
        /// The name.
        component: OsString,
    },
    /// A path or name that cannot be one of a pin: it is empty (ENOENT), ends in '/' (ENOENT), contains a
    /// NUL byte, or contains a '/' where a single name in a directory is expected.
    #[error("{problem}")]
    InvalidPath {
        /// The problem: "the path is empty", ….
        problem: Cow<'static, str>,
    },
    /// A name is longer than 255 bytes, or a path longer than 4095 (ENAMETOOLONG).
    #[error("the {what} has {length} bytes, and the limit is {limit}")]
    TooLong {
        /// "path" or "name".
        what: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The greatest length.
        limit: usize,
    },

    // Permission.
    /// The mode of a file or directory denies access (EACCES).
    #[error(fmt = sentence::blocked)]
    Blocked {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// The access that was denied: "search", "write", "read", "read and write".
        wanted: &'static str,
        /// True if opening with [`Access::ReadOnly`] would succeed.
        read_only_would_do: bool,
    },
    /// The directory is sticky, and this user owns neither it nor the pin (EPERM).
    #[error("{} is a sticky directory, and the pin belongs to user {uid}", escaped_path(.directory))]
    Sticky {
        /// The directory.
        directory: PathBuf,
        /// The owner of the pin.
        uid: u32,
    },
    /// The file belongs to another user (EPERM).
    #[error("{} belongs to user {uid}", escaped_path(.path))]
    NotOwner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The file's user or group has no mapping in this thread's user namespace, so the kernel shows the id
    /// that stands for all such users or groups. A new file with that id might belong to another one.
    #[error(
        "its {what} has no mapping in this user namespace (it shows as {id}), so it cannot be kept"
    )]
    UnmappedOwner {
        /// "user" or "group".
        what: &'static str,
        /// The id shown instead: /proc/sys/kernel/overflowuid or overflowgid.
        id: u32,
    },
    /// The file system, or the mount through which it was reached, is read-only (EROFS).
    #[error("{} is on a read-only file system", escaped_path(.path))]
    ReadOnlyFileSystem {
        /// The file or directory on it.
        path: PathBuf,
    },
    /// This thread lacks a capability (EPERM).
    #[error("this thread lacks {capability}, needed for {needed_for}")]
    MissingCapability {
        /// The capability.
        capability: Capability,
        /// The operation that needs it.
        needed_for: &'static str,
    },
    /// This thread has its capabilities in a user namespace of its own, where bpf(2) ignores them (EPERM).
    #[error("this thread has its capabilities in a user namespace, where bpf(2) ignores them")]
    UserNamespace,

    /// A seccomp filter of this thread rejects the command, with EPERM, ENOSYS or another errno. The kernel would
    /// have answered EFAULT to the command without arguments, which was tried.
    #[error("a seccomp filter of this thread rejects the command {command} of bpf(2)")]
    Filtered {
        /// The command.
        command: Command,
    },

    // Kind.
    /// The object is of another kind than was asked for.
    #[error("it is a {found}, not a {expected}")]
    WrongKind {
        /// The kind that was asked for.
        expected: Kind,
        /// The kind of the object.
        found: Kind,
    },
    /// The descriptor is of another sort of file than was asked for (EBADF of a cgroup).
    #[error(fmt = sentence::wrong_descriptor)]
    WrongDescriptor {
        /// "a map, program or link", "a token", "a cgroup2 directory".
        expected: &'static str,
        /// The sort of file, if it is known: for most files their name in /proc.
        found: Option<String>,
    },
    /// The descriptor could not be identified: its kind, or which object it is, was not proven. The kernel's
    /// structs are of unknown sizes, or it failed to describe the object, and the other proofs (its commands
    /// and /proc) are not available.
    #[error(fmt = sentence::unproven)]
    Unproven {
        /// The errno of `BPF_OBJ_GET_INFO_BY_FD`, if that failed.
        info_errno: Option<i32>,
    },
    /// No object has this id (ENOENT); it may have been released.
    #[error("no {what} has this id")]
    NoSuchId {
        /// "map", "program", "link" or "BTF object".
        what: &'static str,
    },
    /// Maps, programs or links of this type do not support the operation (EINVAL, ENOTSUPP, EOPNOTSUPP).
    #[error("{object_type} {problem}")]
    UnsupportedType {
        /// The type.
        object_type: ObjectType,
        /// The restriction: "cannot be updated", "do not hold programs", ….
        problem: &'static str,
    },

    // Directory.
    /// The pin now holds another object. Nothing was changed.
    #[error("the pin holds {found}, expected {expected}; nothing was changed")]
    Replaced {
        /// The object that was expected.
        expected: Identity,
        /// The object that has the name.
        found: Identity,
    },
    /// Another process put something else under the name during the call, and it could not be put back.
    #[error("another process changed {} during the call; what it put there is now at {}", escaped_path(.path), escaped_path(.now_at))]
    Displaced {
        /// The name.
        path: PathBuf,
        /// Where the other process's file is now.
        now_at: PathBuf,
    },
    /// The directory that is held open was removed, so nothing can be found or made in it (ENOENT).
    #[error("the directory {} was removed", escaped_path(.path))]
    Removed {
        /// Its path when it was opened.
        path: PathBuf,
    },
    /// The path no longer leads to the directory that is held open.
    #[error("{} now leads to another directory, or to none", escaped_path(.path))]
    Moved {
        /// The path.
        path: PathBuf,
    },
    /// Something is mounted there, and mounts are not crossed (EXDEV, EBUSY).
    #[error("{} is a mount point", escaped_path(.path))]
    MountPoint {
        /// The mount point.
        path: PathBuf,
    },
    /// The directory is not empty (ENOTEMPTY).
    #[error("{} is not empty", escaped_path(.path))]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Another process or thread holds the directory's lock, or the short lock that replacing takes.
    #[error("the directory is locked by another process or thread")]
    Locked,

    // Map and elements.
    /// A pinned map differs from what was asked for.
    #[error(fmt = sentence::mismatch)]
    Mismatch {
        /// The map.
        id: u32,
        /// Every field that differs.
        mismatches: Vec<Mismatch>,
    },
    /// Another [`Migration`](crate::reuse::Migration) of the name did not end in time.
    #[error("the map of this name is being migrated by another process or thread")]
    Migrating,
    /// The key exists already (EEXIST).
    #[error("the key exists already")]
    KeyExists,
    /// The key does not exist (ENOENT).
    #[error("the key does not exist")]
    KeyMissing,
    /// The map is full (E2BIG, of a trie ENOSPC).
    #[error("the map is full: max_entries is {max_entries}")]
    MaxEntries {
        /// The number of entries that it was created for.
        max_entries: u32,
    },
    /// An array has no element with this index (E2BIG).
    #[error("index {index} is out of range: max_entries is {max_entries}")]
    IndexOutOfRange {
        /// The index, counted from 0.
        index: u32,
        /// The number of elements.
        max_entries: u32,
    },
    /// A key, a value or the number of values has another size than the map's.
    #[error(fmt = sentence::size)]
    Size {
        /// "key", "value" or "number of values".
        what: &'static str,
        /// The map's, in bytes or CPUs.
        expected: usize,
        /// The caller's.
        found: usize,
    },
    /// The slices have different numbers of keys and values.
    #[error("{keys} keys but {values} values")]
    LengthMismatch {
        /// The number of keys.
        keys: usize,
        /// The number of values.
        values: usize,
    },
    /// A buffer is too small for what the kernel returns (ENOSPC): a batch for the elements of one bucket
    /// of a hash, which come together, or the output of a test run.
    #[error(fmt = sentence::buffer_too_small)]
    BufferTooSmall {
        /// "batch", "data_out" or "ctx_out".
        what: &'static str,
        /// Its size in elements or bytes.
        room: usize,
        /// The size that is needed, if the kernel reports it.
        needed: Option<usize>,
    },
    /// The map has a value for each CPU and the view has one, or the other way round.
    #[error(fmt = sentence::per_cpu)]
    PerCpu {
        /// True if the map has a value for each CPU.
        is_per_cpu: bool,
    },
    /// The number of possible CPUs, which a per-CPU value's size depends on, could not be read.
    #[error("the number of possible CPUs is unknown: {}", Escaped(.problem))]
    PossibleCpus {
        /// Why not.
        problem: String,
    },
    /// Maps of this type do not have this command (ENOTSUPP, EOPNOTSUPP, EINVAL).
    #[error("maps of type {map_type} do not support {command}")]
    NoCommand {
        /// The command.
        command: Command,
        /// The type.
        map_type: MapType,
    },
    /// The map was opened for reading only, or for writing only (EPERM).
    #[error("the map was opened {opened}")]
    MapAccess {
        /// How it was opened.
        opened: Access,
    },
    /// The map is frozen: only programs can write to it (EPERM).
    #[error("the map is frozen")]
    Frozen,
    /// Freezing requires a writable descriptor or `CAP_BPF`, depending on the kernel, and both are missing (EPERM).
    #[error(
        "freezing requires a writable descriptor or CAP_BPF, depending on the kernel, and both are missing"
    )]
    FreezeDenied,
    /// The map's values are mapped into memory for writing, or are being written (EBUSY).
    #[error("the map is mapped into memory for writing, or is being written")]
    BeingWritten,
    /// The map was created with `BPF_F_RDONLY_PROG`: programs rely on its values, so they cannot be mapped
    /// for writing (EACCES).
    #[error("the map was created with BPF_F_RDONLY_PROG, so it can be mapped for reading only")]
    ReadOnlyForProgs,
    /// Only an array created with `BPF_F_MMAPABLE` can be mapped into memory.
    #[error(
        "only an array created with BPF_F_MMAPABLE can be mapped, and this {map_type} map is not one"
    )]
    NotMmapable {
        /// The type of the map.
        map_type: MapType,
    },
    /// The map changed so much during the iteration that it started over again and again.
    #[error("the map changed too often during the iteration, so it was given up")]
    IterationAborted,
    /// The prog array is for programs of another type: that of the first program that was put into it or
    /// used it (EINVAL).
    #[error("the program is of type {found}, and the array is for programs of type {owner}")]
    OtherProgType {
        /// The array's type of program.
        owner: ProgType,
        /// The program's type.
        found: ProgType,
    },
    /// The program has the type of the prog array's programs and cannot be in one array with them (EINVAL). Two
    /// such programs differ in the `expected_attach_type` (newer kernels), in `BPF_F_XDP_HAS_FRAGS`, or because one
    /// is interpreted and the other compiled. Proven with a scratch array.
    #[error(
        "the program cannot be in one array with program {prog_id}: they differ in expected_attach_type, BPF_F_XDP_HAS_FRAGS, or how they are executed"
    )]
    IncompatibleProg {
        /// The id of a program in the array.
        prog_id: u32,
    },
    /// The map differs from the inner map that the map of maps was created with (EINVAL).
    #[error(fmt = sentence::other_inner_map)]
    OtherInnerMap {
        /// The fields in which it differs, as far as the kernel shows them.
        mismatches: Vec<Mismatch>,
    },
    /// Values of this [`TASK_STORAGE`](MapType::TASK_STORAGE) map may contain addresses at which programs
    /// write to this process's memory: its BTF has the tag "uptr". Such values are not written. Linux 6.13.
    #[error(fmt = sentence::uptr)]
    Uptr {
        /// Why the BTF, and so the tag, could not be read.
        problem: Option<String>,
    },

    // Program.
    /// The program was loaded with another type or `expected_attach_type` (EINVAL).
    #[error("the program was not loaded for {attach_type}")]
    NotLoadedFor {
        /// The attach type.
        attach_type: AttachType,
    },
    /// Programs of this type cannot be attached, or put into a link, with this attach type (EINVAL).
    #[error(fmt = sentence::wrong_prog_type)]
    WrongProgType {
        /// The program's id.
        prog_id: u32,
        /// Its type.
        found: ProgType,
        /// The attach type.
        attach_type: AttachType,
        /// The types that it takes.
        takes: &'static [ProgType],
    },
    /// The XDP program was loaded with another `expected_attach_type` than the program that the link holds
    /// (EINVAL).
    ///
    /// The only cause that may be named without a proof, because the kernel reports no such type: the sentence
    /// says "likely" if a field is `None`.
    #[error(fmt = sentence::expected_attach_type)]
    ExpectedAttachType {
        /// The type of the link's program: 0 or XDP. `None` if it could not be proven.
        expected: Option<AttachType>,
        /// The type of the new program. `None` if it could not be proven.
        found: Option<AttachType>,
    },
    /// The kernel is locked down and withholds a helper that the program calls.
    #[error("the kernel is locked down ({level}) and withholds a helper that the program calls")]
    Lockdown {
        /// The level: "integrity" or "confidentiality".
        level: String,
    },

    // Link.
    /// The target of a link does not exist (ENOENT, ENODEV, EINVAL).
    #[error("there is no {}", Escaped(.what))]
    NoTarget {
        /// "network device 7 in this thread's network namespace", "tracepoint sched_switc", ….
        what: String,
    },
    /// The network device has an XDP program in this mode (EBUSY) or in another one (EEXIST).
    #[error("device {ifindex} has XDP program {prog_id} already")]
    XdpAttached {
        /// The device's index.
        ifindex: u32,
        /// The program's id.
        prog_id: u32,
    },
    /// The pinned link is attached to something else. Nothing was changed.
    #[error("it is attached to {}, not to {}; nothing was changed", Escaped(.found), Escaped(.expected))]
    AttachedElsewhere {
        /// The target that was asked for, as far as it is known beforehand.
        expected: String,
        /// The target of the link.
        found: String,
    },
    /// The pinned link is attached to a device of the same index in another network namespace. Nothing was
    /// changed. Use one pin for each network namespace, or unpin the link first.
    #[error("it is attached to {} in another network namespace; nothing was changed: use one pin for each network namespace", Escaped(.target))]
    OtherNetns {
        /// The target of the link: "tcx_ingress of device 50".
        target: String,
    },
    /// The program is attached to the target already (EEXIST for TCX and netkit).
    ///
    /// To use the link, open it with [`Link::from_id`](crate::Link::from_id) and pin it.
    #[error(fmt = sentence::already_attached)]
    AlreadyAttached {
        /// The program's id.
        prog_id: u32,
        /// The link that holds it, if it was found.
        link_id: Option<u32>,
    },
    /// The target has as many programs as it takes (E2BIG, ERANGE).
    #[error(fmt = sentence::target_full)]
    TargetFull {
        /// The number of programs.
        count: usize,
    },
    /// A program was attached to the control group, or to an ancestor, without `BPF_F_ALLOW_MULTI`, and excludes
    /// others (EPERM). `BPF_PROG_ATTACH` does that by default; links do not.
    #[error(
        "program {prog_id} is attached to control group {cgroup_id} without BPF_F_ALLOW_MULTI, and excludes this one"
    )]
    AttachedExclusively {
        /// The control group's id.
        cgroup_id: u64,
        /// The program's id.
        prog_id: u32,
    },
    /// The pinned link lacks options of its spec:
    /// [`Attached::exact`](crate::reuse::Attached::exact).
    #[error(fmt = sentence::link_mismatch)]
    LinkMismatch {
        /// Every option that differs.
        mismatches: Vec<LinkMismatch>,
    },
    /// The link was detached, or what it was attached to is gone (ENOLINK).
    #[error("the link is detached")]
    Detached,
    /// The link holds another program than the one to be replaced (EPERM).
    #[error("the link holds program {prog_id}, not the one to be replaced")]
    UnexpectedProgram {
        /// The id of the program that it holds.
        prog_id: u32,
    },
    /// The link holds another map than the one to be replaced (EPERM).
    #[error("the link holds map {map_id}, not the one to be replaced")]
    UnexpectedMap {
        /// The id of the map that it holds.
        map_id: u32,
    },
    /// A netfilter link was detached to make room for its successor, which could not be attached, and
    /// neither could its own program again.
    #[error("the pinned link was detached, and its program {prog_id} could not be attached again")]
    RestoreFailed {
        /// The id of the program that the link held.
        prog_id: u32,
    },

    // Mount.
    /// A directory within a bpffs is not its root (EINVAL).
    #[error(fmt = sentence::not_the_root)]
    NotTheRoot {
        /// The directory, if its path is known.
        path: Option<PathBuf>,
        /// Where the bpffs is mounted, if that is known.
        mount_point: Option<PathBuf>,
    },
    /// The mount is not in this thread's mountinfo: it is not attached, no longer attached, in another mount
    /// namespace, or above this process's root.
    #[error("mount {mount_id} is not in this thread's mountinfo")]
    NotListed {
        /// Its id.
        mount_id: u64,
    },
    /// Another bpffs is now mounted there.
    #[error("another bpffs is there (device {}, expected {})", Device(*.found), Device(*.expected))]
    AnotherInstance {
        /// The `st_dev` of the expected one.
        expected: u64,
        /// The `st_dev` of the one that is there.
        found: u64,
    },
    /// Another mount of the same bpffs is now there.
    #[error("another mount of the bpffs is there (mount {found}, expected {expected})")]
    AnotherMount {
        /// The id of the expected one.
        expected: u64,
        /// The id of the one that is there.
        found: u64,
    },
    /// Another file system is mounted there already.
    #[error("{found} is mounted there already (mount {mount_id})")]
    Occupied {
        /// The file system.
        found: FileSystem,
        /// The id of the mount.
        mount_id: u64,
    },
    /// The mount cannot be reached because another is mounted over it.
    #[error("mount {mount_id} is covered by {found} (mount {by})")]
    Covered {
        /// The id of the covered mount.
        mount_id: u64,
        /// The file system that its path leads to.
        found: FileSystem,
        /// The id of the mount that its path leads to.
        by: u64,
    },
    /// A bpffs is mounted there that the path does not lead to, and the caller refused a second one.
    #[error("{}, which this path does not lead to", Escaped(.0))]
    Shadowed(ShadowedBpffs),
    /// Another process mounted or unmounted there at the same moment.
    #[error("something else was mounted there at the same moment")]
    LostRace,
    /// The path would bypass the mount: it continues from the directory below it, as with ".." or a link to
    /// ".", or starts there, as after chroot(2) and with /proc/self/cwd.
    #[error("the path would bypass a mount there: pass one without \"..\" and links")]
    PathBypassesMount,
    /// The mount is in use (EBUSY).
    #[error(fmt = sentence::in_use)]
    InUse {
        /// Something mounted within it. `None`: one of its files or directories is open, or a process has
        /// its working directory there.
        mounted: Option<PathBuf>,
    },
    /// The mount namespace or the bpffs belongs to another user namespace than this thread's (EPERM).
    #[error("the {what} belongs to another user namespace than this thread's")]
    ForeignUserNamespace {
        /// "mount namespace" or "bpffs".
        what: &'static str,
    },
    /// The mount namespace has as many mounts as it may have (ENOSPC).
    #[error("the mount namespace, or one that shares its mounts, is full: fs.mount-max is {most}")]
    MountTableFull {
        /// The limit: /proc/sys/fs/mount-max.
        most: u64,
    },

    // Token and delegation.
    /// A user namespace cannot create a bpffs, only receive one (EPERM).
    #[error(
        "creating a bpffs requires CAP_SYS_ADMIN in the initial user namespace, and this thread is in another; from Linux 6.9 a process that has it can delegate one"
    )]
    NeedsDelegation,
    /// Tokens are for user namespaces, and this is the initial one (EOPNOTSUPP).
    #[error("this thread is in the initial user namespace, which has no tokens and needs none")]
    InitialUserNamespace,
    /// The bpffs delegates nothing (ENOENT).
    #[error("the bpffs delegates nothing: mount it with delegation options")]
    NothingDelegated,
    /// The token does not allow what was asked for (EPERM).
    #[error("the token does not allow {what}")]
    NotDelegated {
        /// "map_create", "maps of type hash", ….
        what: String,
    },
    /// The other side of the handshake closed its end of the socket (EPIPE, ECONNRESET).
    #[error("the other side closed the connection")]
    PeerClosed,
    /// The other side of the handshake refused the request.
    #[error("the other side refused: {}", Name(*.errno))]
    PeerRefused {
        /// The errno that it sent.
        errno: i32,
    },
    /// The other side of the handshake did not send what it should, or nothing in time (EAGAIN), or a
    /// context that was used before (EBUSY).
    #[error("the other side {}", Escaped(.problem))]
    Handshake {
        /// The problem: "sent no descriptor", "did not answer in time", ….
        problem: Cow<'static, str>,
    },

    // Kernel and arguments.
    /// The kernel is older than what the operation needs.
    #[error("this kernel does not support {what} (Linux {since})")]
    Unsupported {
        /// The command, flag or call.
        what: &'static str,
        /// The first release that supports it.
        since: Version,
    },
    /// The kernel accepted an option without an error, and ignored it.
    #[error(fmt = sentence::option_ignored)]
    OptionIgnored {
        /// The option, by the kernel's name.
        option: &'static str,
        /// The first release that supports it, if it is newer than bpffs.
        since: Option<Version>,
    },
    /// The operation needs /proc, which is not mounted or not genuine.
    #[error("{needed_for} requires /proc, which is not mounted or not genuine")]
    NoProc {
        /// The operation that needs it.
        needed_for: &'static str,
    },
    /// Maps and programs are charged to `RLIMIT_MEMLOCK` before Linux 5.11, and this one exceeds it (EPERM).
    #[error(
        "it exceeds RLIMIT_MEMLOCK ({limit} bytes), which kernels before Linux 5.11 charge: raise the limit"
    )]
    Memlock {
        /// The limit in bytes.
        limit: u64,
    },
    /// An argument breaks a rule that no kernel would accept, or that the object's type sets (EINVAL).
    #[error("{what} {}", Escaped(.problem))]
    InvalidArgument {
        /// The argument, by the kernel's name if it has one: "max_entries", "mode", "cookies".
        what: &'static str,
        /// The problem: "must be 4", "is 0o177777, and the limit is 0o7777".
        problem: Cow<'static, str>,
    },
}
