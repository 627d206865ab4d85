//! The calls that can fail, for an error to name.

use crate::types::Command;

/// The call that failed, as [`Error::operation`](crate::Error::operation) returns it.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::error::Operation;
/// use bpf_pin::PinDir;
///
/// let dir = PinDir::open("/sys/fs/bpf")?;
/// match dir.replace(&bpf_pin::Map::from_id(7)?, "flows") {
///     Err(error) if error.operation() == Operation::FromId => println!("map 7 is gone"),
///     other => other?,
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// `BPF_OBJ_GET`, and the proof of kind that follows it.
    Open,
    /// `BPF_OBJ_PIN`.
    Pin,
    /// `unlink(2)`, and the identity check before it.
    Unpin,

    /// `open(2)` with `O_PATH`, and `fstatfs(2)`.
    OpenDir,
    /// `fstatfs(2)` of a descriptor that another library opened, to use it as a directory.
    DirFromFd,
    /// `mkdir(2)`.
    CreateDir,
    /// `fcntl(F_DUPFD_CLOEXEC)` of a directory.
    CloneDir,
    /// `getdents64(2)`.
    ListDir,
    /// `fstatat(2)`.
    Stat,
    /// `unlink(2)` or `rmdir(2)` of any name in a directory.
    Remove,
    /// `link(2)`.
    HardLink,
    /// `renameat2(2)` with `RENAME_NOREPLACE`.
    Rename,
    /// `renameat2(2)` with `RENAME_EXCHANGE`.
    Exchange,
    /// `BPF_OBJ_PIN` under a temporary name, then `rename(2)`.
    Replace,
    /// `mkdir(2)` of a hidden directory next to its target.
    Stage,
    /// `renameat2(2)` of that hidden directory to its target.
    Publish,
    /// `flock(2)`.
    Lock,
    /// `chmod(2)`.
    Chmod,
    /// `chown(2)`.
    Chown,
    /// `getdents64(2)` and `unlink(2)`: removes what processes that died have left.
    RemoveLeftovers,

    /// `statfs(2)`.
    Statfs,
    /// `fstatfs(2)`.
    Fstatfs,
    /// `open(2)` and `fstatfs(2)`: [`Bpffs::at`](crate::Bpffs::at) and
    /// [`still_here`](crate::Bpffs::still_here).
    FindBpffs,
    /// `statfs(2)` and `/proc/self/mountinfo`: [`Bpffs::inspect`](crate::Bpffs::inspect).
    InspectBpffs,
    /// `read(2)` of `/proc/self/mountinfo`: [`Bpffs::mounts`](crate::Bpffs::mounts).
    ReadMounts,
    /// `open(2)` of each bpffs: [`Inventory::take`](crate::inventory::Inventory::take).
    ListBpffs,
    /// `fsopen(2)`, `fsconfig(2)` and `fsmount(2)`:
    /// [`MountOptions::detached`](crate::bpffs::MountOptions::detached).
    CreateBpffs,
    /// `mount(2)` or `fsopen(2)` and its like: [`MountOptions::mount`](crate::bpffs::MountOptions::mount),
    /// [`Bpffs::ensure`](crate::Bpffs::ensure).
    MountBpffs,
    /// `move_mount(2)`: [`Detached::attach`](crate::bpffs::Detached::attach).
    AttachBpffs,
    /// `umount2(2)`: [`Bpffs::unmount`](crate::Bpffs::unmount).
    UnmountBpffs,
    /// `sendmsg(2)` and `fsopen(2)`:
    /// [`MountOptions::request_delegation`](crate::bpffs::MountOptions::request_delegation).
    RequestDelegation,
    /// `recvmsg(2)` and `fsconfig(2)`:
    /// [`MountOptions::grant_delegation`](crate::bpffs::MountOptions::grant_delegation).
    GrantDelegation,

    /// `BPF_TOKEN_CREATE`.
    CreateToken,
    /// `readlink(2)` in /proc of a descriptor that another library opened, to use it as a token.
    TokenFromFd,
    /// `BPF_OBJ_GET_INFO_BY_FD` of a token.
    TokenInfo,

    /// `BPF_OBJ_GET_INFO_BY_FD` of a descriptor that another library opened, to prove its kind.
    FromFd,
    /// `BPF_*_GET_FD_BY_ID`.
    FromId,
    /// `BPF_*_GET_NEXT_ID`.
    NextId,
    /// `fcntl(F_DUPFD_CLOEXEC)` of an object.
    Clone,
    /// `BPF_OBJ_GET_INFO_BY_FD`.
    Info,

    /// `BPF_MAP_CREATE`.
    CreateMap,
    /// `BPF_MAP_FREEZE`.
    Freeze,
    /// `mmap(2)` of a map's values.
    Mmap,
    /// `BPF_OBJ_GET_INFO_BY_FD` of a map, to check that its elements have the types that a view has.
    Elements,
    /// `BPF_MAP_LOOKUP_ELEM`.
    Lookup,
    /// `BPF_MAP_UPDATE_ELEM`.
    Update,
    /// `BPF_MAP_DELETE_ELEM`.
    Delete,
    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`.
    LookupAndDelete,
    /// `BPF_MAP_GET_NEXT_KEY`.
    NextKey,
    /// `BPF_MAP_LOOKUP_BATCH`.
    LookupBatch,
    /// `BPF_MAP_LOOKUP_AND_DELETE_BATCH`.
    LookupAndDeleteBatch,
    /// `BPF_MAP_UPDATE_BATCH`.
    UpdateBatch,
    /// `BPF_MAP_DELETE_BATCH`.
    DeleteBatch,

    /// `BPF_PROG_LOAD`.
    LoadProg,
    /// `BPF_PROG_TEST_RUN`.
    RunProg,
    /// `BPF_PROG_BIND_MAP`.
    BindMap,
    /// `BPF_BTF_LOAD`.
    LoadBtf,
    /// `BPF_BTF_GET_FD_BY_ID`.
    BtfFromId,
    /// `BPF_OBJ_GET_INFO_BY_FD` of a BTF object.
    BtfInfo,

    /// `BPF_LINK_CREATE` or `BPF_RAW_TRACEPOINT_OPEN`.
    CreateLink,
    /// `BPF_LINK_CREATE` of a program that replaces a function of another program.
    ReplaceFunction,
    /// `BPF_LINK_UPDATE`.
    UpdateLink,
    /// `BPF_LINK_DETACH`.
    DetachLink,
    /// `BPF_ITER_CREATE`.
    CreateIter,
    /// `BPF_PROG_QUERY`, or `RTM_GETLINK` for XDP.
    Query,

    /// `BPF_OBJ_GET` and `BPF_MAP_CREATE`: opens or creates a pinned map, see [`Reuse`](crate::reuse::Reuse).
    Reuse,
    /// Copies a map's entries to a new one that takes its name, see [`Migrate`](crate::reuse::Migrate). Only
    /// from [`Error::during`](crate::Error::during).
    Migrate,
    /// Attaches a program by a pinned link, see
    /// [`PinDir::open_or_attach`](crate::PinDir::open_or_attach). From
    /// [`Error::during`](crate::Error::during), and from [`Attached::exact`](crate::reuse::Attached::exact).
    Attach,
}

impl Operation {
    /// The verb, and a preposition before the path.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        let verb = match self {
            Self::Open | Self::FromId | Self::BtfFromId => "open",
            Self::Pin => "pin",
            Self::Unpin => "unpin",
            Self::OpenDir => "open directory",
            Self::DirFromFd => "open directory from",
            Self::CreateDir => "create directory",
            Self::CloneDir => "clone the descriptor of",
            Self::ListDir => "list",
            Self::Stat => "stat",
            Self::Remove => "remove",
            Self::HardLink => "link",
            Self::Rename => "rename",
            Self::Exchange => "exchange",
            Self::Replace => "replace",
            Self::Stage => "stage",
            Self::Publish => "publish",
            Self::Lock => "lock",
            Self::Chmod => "change the mode of",
            Self::Chown => "change the owner of",
            Self::RemoveLeftovers => "remove leftovers in",
            Self::Statfs => "statfs",
            Self::Fstatfs => "fstatfs",
            Self::FindBpffs => return ("find a bpffs", " at"),
            Self::InspectBpffs => "inspect",
            Self::ReadMounts => "read the mounts",
            Self::ListBpffs => return ("list the bpffs mounted", " at"),
            Self::CreateBpffs => "create a bpffs",
            Self::MountBpffs => return ("mount a bpffs", " at"),
            Self::AttachBpffs => return ("attach a bpffs", " at"),
            Self::UnmountBpffs => "unmount",
            Self::RequestDelegation => "request a delegated bpffs",
            Self::GrantDelegation => "grant a delegated bpffs",
            Self::CreateToken => "create a token",
            Self::TokenFromFd => "use a descriptor as a token",
            Self::TokenInfo => "read what a token allows",
            Self::FromFd => "use a descriptor as",
            Self::NextId => "find the next",
            Self::Clone => "clone the descriptor of",
            Self::Info => "read the info of",
            Self::CreateMap => "create",
            Self::Freeze => "freeze",
            Self::Mmap => "mmap",
            Self::Elements => "view the elements of",
            Self::Lookup => "look up in",
            Self::Update => "update",
            Self::Delete => "delete from",
            Self::LookupAndDelete => "take from",
            Self::NextKey => "find the next key in",
            Self::LookupBatch => "look up a batch in",
            Self::LookupAndDeleteBatch => "take a batch from",
            Self::UpdateBatch => "update a batch in",
            Self::DeleteBatch => "delete a batch from",
            Self::LoadProg => "load",
            Self::RunProg => "run a program",
            Self::BindMap => "bind a map to a program",
            Self::LoadBtf => "load BTF",
            Self::BtfInfo => "read the info of BTF",
            Self::CreateLink => "attach a program to",
            Self::ReplaceFunction => "replace",
            Self::UpdateLink => "update",
            Self::DetachLink => "detach",
            Self::CreateIter => "create an iterator",
            Self::Query => "query the programs of",
            Self::Reuse => "open or create",
            Self::Migrate => "migrate",
            Self::Attach => "open or attach",
        };
        (verb, "")
    }

    /// The command of bpf(2) that it consists of, or that comes first.
    pub(super) fn command(self) -> Option<Command> {
        Some(match self {
            Self::Open => Command::OBJ_GET,
            Self::Pin | Self::Replace => Command::OBJ_PIN,
            Self::CreateToken => Command::TOKEN_CREATE,
            Self::FromFd | Self::Info | Self::TokenInfo | Self::BtfInfo | Self::Elements => {
                Command::OBJ_GET_INFO_BY_FD
            }
            Self::CreateMap => Command::MAP_CREATE,
            Self::Freeze => Command::MAP_FREEZE,
            Self::Lookup => Command::MAP_LOOKUP_ELEM,
            Self::Update => Command::MAP_UPDATE_ELEM,
            Self::Delete => Command::MAP_DELETE_ELEM,
            Self::LookupAndDelete => Command::MAP_LOOKUP_AND_DELETE_ELEM,
            Self::NextKey => Command::MAP_GET_NEXT_KEY,
            Self::LookupBatch => Command::MAP_LOOKUP_BATCH,
            Self::LookupAndDeleteBatch => Command::MAP_LOOKUP_AND_DELETE_BATCH,
            Self::UpdateBatch => Command::MAP_UPDATE_BATCH,
            Self::DeleteBatch => Command::MAP_DELETE_BATCH,
            Self::LoadProg => Command::PROG_LOAD,
            Self::RunProg => Command::PROG_TEST_RUN,
            Self::BindMap => Command::PROG_BIND_MAP,
            Self::LoadBtf => Command::BTF_LOAD,
            Self::BtfFromId => Command::BTF_GET_FD_BY_ID,
            Self::CreateLink | Self::ReplaceFunction => Command::LINK_CREATE,
            Self::UpdateLink => Command::LINK_UPDATE,
            Self::DetachLink => Command::LINK_DETACH,
            Self::CreateIter => Command::ITER_CREATE,
            Self::Query => Command::PROG_QUERY,
            _ => return None,
        })
    }

    /// The operation of a `BPF_MAP_*_BATCH` command.
    pub(crate) fn batch(command: Command) -> Self {
        match command {
            Command::MAP_LOOKUP_BATCH => Self::LookupBatch,
            Command::MAP_LOOKUP_AND_DELETE_BATCH => Self::LookupAndDeleteBatch,
            Command::MAP_UPDATE_BATCH => Self::UpdateBatch,
            _ => Self::DeleteBatch,
        }
    }

    /// Returns true if it is done with a name in a directory, other than opening what has it.
    pub(crate) fn is_of_name(self) -> bool {
        matches!(
            self,
            Self::Pin
                | Self::Stat
                | Self::Remove
                | Self::HardLink
                | Self::Rename
                | Self::Exchange
                | Self::Replace
                | Self::Lock
                | Self::Chmod
                | Self::Chown
        )
    }
}
