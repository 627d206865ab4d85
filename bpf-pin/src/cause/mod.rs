//! The causes that are named, each only after it was checked.

mod words;

use std::ffi::OsString;
use std::path::PathBuf;

use bpf_pin_sys::Version;

use crate::mismatch::Mismatch;
use crate::path::{ComponentError, InteriorNul};
use crate::process::Capability;
use crate::procfs::{ShadowedBpffs, ids::UnmappedId};
use crate::types::Access;
use crate::types::{
    AttachType, Command, FileSystem, Identity, Kind, LinkTarget, LinkType, MapType, ProgType,
};

/// What was proven to be behind a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A component of the path holds a '.', which bpffs refuses in every name that a user makes
    /// (EPERM); or it is "." or "..", which are names of the directories themselves.
    Dot {
        /// The component.
        component: OsString,
    },
    /// The path leads to another file system than bpffs. [`Bpffs::inspect`](crate::Bpffs::inspect) tells
    /// more of what is there.
    NotBpffs {
        /// The deepest directory of the path that exists.
        path: PathBuf,
        /// What it is on.
        found: FileSystem,
        /// The directory below it that does not exist, where the path goes on.
        missing: Option<PathBuf>,
        /// A bpffs that is mounted there all the same, or where the path goes on, and is not seen.
        hidden: Option<ShadowedBpffs>,
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
    /// Nothing is there (ENOENT), or was there when the kernel looked. Whether it is the name itself:
    /// [`Error::is_missing`](crate::Error::is_missing).
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
    /// The descriptor could not be identified: its kind, or which object it is, was not proven. The kernel's
    /// structs are of unknown sizes, or it failed to describe the object, and the other proofs (its commands
    /// and /proc) are not available.
    Unproven {
        /// The errno of `BPF_OBJ_GET_INFO_BY_FD`, if that failed.
        info_errno: Option<i32>,
    },
    /// Another object has the name by now; nothing was changed.
    Replaced {
        /// The object that was taken to have it.
        expected: Identity,
        /// The object that has it.
        found: Identity,
    },
    /// Another process put something else under the name during the call, and the name could not be given
    /// back to it.
    ChangedHands {
        /// The name.
        path: PathBuf,
        /// Where what the other process put there is now.
        now_at: PathBuf,
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
    /// The directory is not empty (ENOTEMPTY).
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody holds the directory's lock, or has a turn and does not end it.
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
    /// In this thread's user namespace the file's user or group shows as the id that stands for all who
    /// are not mapped there. Another file given to that id may be somebody else's.
    UnmappedOwner {
        /// "user" or "group".
        what: &'static str,
        /// The id: /proc/sys/kernel/overflowuid or overflowgid.
        id: u32,
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
    /// The map is full (E2BIG, of a trie ENOSPC).
    MaxEntries {
        /// The number of entries it was made for.
        max_entries: u32,
    },
    /// There is no such index in an array (E2BIG).
    IndexBeyond {
        /// The index, counted from 0.
        index: u32,
        /// The number of entries that there are.
        max_entries: u32,
    },
    /// There is such a key already (EEXIST).
    KeyExists,
    /// There is no such key (ENOENT).
    KeyMissing,
    /// There are more keys than values, or the other way round.
    LengthMismatch {
        /// The number of keys.
        keys: usize,
        /// The number of values.
        values: usize,
    },
    /// A hash has more elements in one of its buckets than there is room for, and gives them all at
    /// once or none (ENOSPC).
    LargerBucket {
        /// The number of elements that there is room for.
        room: usize,
    },
    /// The map's values are mapped into memory for writing somewhere, or written to at this moment
    /// (EBUSY).
    BeingWritten,
    /// Only an array that was made with `BPF_F_MMAPABLE` is mapped into memory.
    NotMmapable {
        /// The type of the map.
        map_type: MapType,
    },
    /// A value is not made of whole atomics.
    NoMultiple {
        /// Its bytes.
        value_size: u32,
        /// Those of one atomic.
        atomic: usize,
    },
    /// The map was made with `BPF_F_RDONLY_PROG`: programs count on it that nothing is written to it
    /// where it is mapped (EACCES).
    ReadOnlyForProgs,
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
    /// Maps of this type do not have this command, whatever is in them (ENOTSUPP, EOPNOTSUPP, EINVAL).
    NoCommand {
        /// Of one element.
        command: Command,
        /// The type.
        map_type: MapType,
    },
    /// A field of the call's argument breaks a rule that the type of the map or program sets (EINVAL).
    InvalidField {
        /// The field, by the kernel's name.
        field: &'static str,
        /// What it must be: "must be 4", "must hold BPF_F_NO_PREALLOC", ….
        rule: &'static str,
    },
    /// The map was changed so much meanwhile that the walk through it began anew and came to no end.
    IterationAborted,
    /// A pinned map is not what was asked for.
    Mismatch {
        /// The map.
        id: u32,
        /// All that differs.
        mismatches: Vec<Mismatch>,
    },
    /// Another [`Migration`](crate::reuse::Migration) of the name has not ended in time.
    Migrating,
    /// Entries of maps of this type cannot be copied by a process.
    NotCopied {
        /// The type.
        map_type: MapType,
    },
    /// What a descriptor is needed for was given none; 0 in its stead would be taken for one.
    NoDescriptor {
        /// "inner_map", "btf", or the flag that announces a descriptor.
        what: &'static str,
    },
    /// A program cannot be attached to such a target in this way.
    WrongTarget {
        /// The way.
        attach_type: AttachType,
        /// The target: "cgroup", "netns", "device", ….
        target: &'static str,
    },
    /// The program is of another type, or was loaded with another `expected_attach_type`, than can be
    /// attached in this way (EINVAL).
    NotLoadedFor {
        /// The way.
        attach_type: AttachType,
    },
    /// The program is of a type that is not attached, or put into a link, in this way (EINVAL).
    WrongProgType {
        /// The program's id.
        prog_id: u32,
        /// Its type.
        found: ProgType,
        /// The way.
        attach_type: AttachType,
        /// The types of program that are attached so.
        takes: &'static [ProgType],
    },
    /// The descriptor is not of a control group in a cgroup2 file system (EBADF).
    NotACgroup {
        /// The file system that it is of.
        found: FileSystem,
    },
    /// The network device has an XDP program: in this mode (EBUSY), or in the other one (EEXIST).
    XdpAttached {
        /// The device's index.
        ifindex: u32,
        /// The program's id.
        prog_id: u32,
    },
    /// The link was detached, or what it was attached to is gone (ENOLINK).
    Detached,
    /// The link holds another program than the caller took for the old one (EPERM).
    UnexpectedProgram {
        /// The id of the program that it holds.
        prog_id: u32,
    },
    /// The link holds another map than the caller took for the old one (EPERM).
    UnexpectedMap {
        /// The id of the map that it holds.
        map_id: u32,
    },
    /// Links of this type cannot be updated (EINVAL, EOPNOTSUPP).
    NoUpdate {
        /// The type.
        link_type: LinkType,
    },
    /// Links of this type cannot be detached but by their last descriptor and pin (EOPNOTSUPP).
    NoDetach {
        /// The type.
        link_type: LinkType,
    },
    /// The link is attached to something else than it was to be; nothing was changed.
    AttachedElsewhere {
        /// What it was to be attached to, as far as that is known beforehand.
        expected: LinkTarget,
        /// What it is attached to.
        found: LinkTarget,
    },
    /// Neither the kernel nor a module that is loaded has a tracepoint of this name (ENOENT).
    NoTracepoint {
        /// The name.
        name: String,
    },
    /// The link is attached to a tracepoint of another name; nothing was changed.
    AnotherTracepoint {
        /// The tracepoint that it was to be attached to.
        expected: String,
        /// The one that it is attached to.
        found: String,
    },
    /// The pinned link of netfilter was detached to make room, which it did not make, and the program that it
    /// held could not be attached again here.
    RestoreFailed {
        /// The id of the program that the pinned link held.
        prog_id: u32,
    },
    /// The link holds no iterator (EINVAL).
    NotAnIterator {
        /// What it is.
        link_type: LinkType,
    },
    /// This thread's network namespace has no such device (EINVAL, ENODEV).
    NoDevice {
        /// Its index.
        ifindex: u32,
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
    /// The BTF of a map of type [`TASK_STORAGE`](MapType::TASK_STORAGE) has the name "uptr": with that
    /// tag a pointer in a value is the address of what programs read and write in the process that puts
    /// it in. So nothing is, here. Linux 6.13.
    Uptr {
        /// Why the BTF could not be read, so that it may have it.
        problem: Option<String>,
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
    /// The mount is not in this thread's mountinfo: it is attached nowhere, no longer, in another mount
    /// namespace, or above this process's root.
    NotListed {
        /// Its id.
        mount_id: u64,
    },
    /// Another bpffs is there than the one that was meant.
    AnotherInstance {
        /// The `st_dev` of the one that was meant.
        expected: u64,
        /// The `st_dev` of the one that is there.
        found: u64,
    },
    /// Another mount of the same bpffs is there than the one that was meant.
    AnotherMount {
        /// The id of the one that was meant.
        expected: u64,
        /// The id of the one that is there.
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
    /// A mount cannot be reached: another is mounted over it.
    Covered {
        /// The id of the mount that was meant.
        mount_id: u64,
        /// What file system its path leads to.
        found: FileSystem,
        /// The id of the mount that its path leads to.
        by: u64,
    },
    /// A bpffs is mounted there that the path does not lead to, and a second one was to be refused.
    Shadowed(ShadowedBpffs),
    /// Others mounted or unmounted there at the same moment.
    LostRace,
    /// The path would bypass the mount: it continues from the directory below it, as with ".." or a link to
    /// ".", or starts there, as after chroot(2) and with /proc/self/cwd.
    PathBypassesMount,
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
    /// The other side of the handshake has closed its end of the socket (EPIPE, ECONNRESET).
    HungUp,
    /// The socket's time was over before the other side of the handshake sent something (EAGAIN).
    NoAnswer,
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
    /// What came over the socket is the context of a file system that was made before (EBUSY).
    UsedContext,
    /// The other side of the handshake refused.
    Refused {
        /// The errno that it gave.
        errno: i32,
    },
    /// Records about a program's instructions are all of one size.
    Records {
        /// "func_info", "line_info" or "core_relos".
        what: &'static str,
        /// How many bytes they are.
        length: usize,
        /// The bytes of one.
        rec_size: u32,
    },
    /// An instruction names a descriptor that `fd_array` does not have.
    FdArray {
        /// Which instruction, counted from 0.
        insn: usize,
        /// Which descriptor, counted from 0.
        index: usize,
        /// How many there are.
        length: usize,
    },
    /// A program has at least one instruction, which ends it.
    NoInsns,
    /// No object that lives has the id (ENOENT): it may be gone by now.
    NoSuchId {
        /// "map", "program", "link" or "BTF object".
        what: &'static str,
    },
    /// Programs of this type are not run by `BPF_PROG_TEST_RUN` (ENOTSUPP).
    NoTestRun {
        /// The type.
        prog_type: ProgType,
    },
    /// Of a program of this type a context holds an address that the kernel follows, or the type is newer
    /// than this library, which so cannot know.
    NoContext {
        /// The type.
        prog_type: ProgType,
    },
    /// What a program left takes more room than was given (ENOSPC).
    NoRoom {
        /// "data_out" or "ctx_out".
        what: &'static str,
        /// The bytes that were given.
        room: usize,
        /// The bytes that it takes.
        needed: usize,
    },
    /// Maps of this type hold no such objects.
    HoldsNo {
        /// The map's type.
        map_type: MapType,
        /// "programs", "maps" or "cgroups or perf events".
        what: &'static str,
    },
    /// The prog array is for programs of another type: that of the first program that was put into
    /// it or used it (EINVAL). Where the types are the same, EINVAL without this cause is said of
    /// another `expected_attach_type` on newer kernels, and of `BPF_F_XDP_HAS_FRAGS`.
    OtherProgType {
        /// The type that it is for.
        owner: ProgType,
        /// The program's.
        found: ProgType,
    },
}

impl From<UnmappedId> for Cause {
    fn from(UnmappedId { what, id }: UnmappedId) -> Self {
        Self::UnmappedOwner { what, id }
    }
}

impl From<ComponentError> for Cause {
    fn from(error: ComponentError) -> Self {
        match error {
            ComponentError::Empty => Self::EmptyPath,
            ComponentError::Dot(component) => Self::Dot { component },
            ComponentError::Slash(name) => Self::Slash { name },
            ComponentError::InteriorNul(InteriorNul { position }) => Self::InteriorNul { position },
            ComponentError::TooLong { length } => Self::NameTooLong { length },
        }
    }
}

pub(crate) use words::Device;
