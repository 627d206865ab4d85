//! Tokens: what a bpffs delegates, as a descriptor.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bpf_pin_sys as abi;
use rustix::fs::{Mode, OFlags, fstatfs, openat};
use rustix::io::Errno;

use crate::capability::{Capability, lacks, user_namespace_is_own};
use crate::cause::Cause;
use crate::diagnose;
use crate::error::{Error, Failed, Reason, Result};
use crate::kind;
use crate::magic::FileSystem;
use crate::mounts::{fdinfo, path_of};
use crate::operation::TokenOperation;
use crate::sys;
use crate::types::{AttachType, Command, MapType, ProgType};

use super::allowed::SINCE_DELEGATION;
use super::allowed::{Allowed, Delegation, Shown};

/// A BPF token: the right to use what a bpffs [delegates](crate::MountOptions::delegate_cmds), for a
/// process in a user namespace.
///
/// The same in memory as an [`OwnedFd`]. It is given to [`MapSpec::token`](crate::MapSpec::token) and
/// [`ProgSpec::token`](crate::ProgSpec::token).
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::{Bpffs, MapSpec, MapType, Token};
///
/// // In a user namespace that the bpffs was made for.
/// let token = Token::create(&Bpffs::at("/run/app/bpffs")?)?;
/// println!("maps: {}", token.info()?.maps);
/// let map = MapSpec::new(MapType::HASH, 4, 8, 1024).token(&token).create()?;
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[repr(transparent)]
pub struct Token {
    fd: OwnedFd,
}

impl Token {
    /// `BPF_TOKEN_CREATE`: a token of the bpffs whose root `bpffs` is a descriptor of: a
    /// [`Bpffs`](crate::Bpffs), a [`Detached`](crate::Detached), any other. Linux 6.9.
    ///
    /// The root is opened anew, for reading.
    ///
    /// # Errors
    ///
    /// [`Error::Token`]: [`InitialUserNamespace`](Cause::InitialUserNamespace) (EOPNOTSUPP);
    /// [`NothingDelegated`](Cause::NothingDelegated) (ENOENT);
    /// [`MissingCapability`](Cause::MissingCapability) without `CAP_BPF` in the user namespace,
    /// [`ForeignBpffs`](Cause::ForeignBpffs) where the bpffs is another's (EPERM);
    /// [`NotBpffs`](Cause::NotBpffs), [`NotTheRoot`](Cause::NotTheRoot) or, before Linux 6.9,
    /// [`Unsupported`](Cause::Unsupported) (EINVAL); EACCES where the root may not be read.
    ///
    /// # References
    ///
    /// kernel/bpf/token.c: `bpf_token_create`
    pub fn create(bpffs: impl AsFd) -> Result<Self> {
        create(bpffs.as_fd()).map_err(|reason| error(TokenOperation::Create, reason))
    }

    /// What it allows: by `BPF_OBJ_GET_INFO_BY_FD` and `struct bpf_token_info`, Linux 6.17; before
    /// that from /proc, see [`Delegation`].
    ///
    /// # Errors
    ///
    /// [`Error::Token`]: [`NoProc`](Cause::NoProc) before Linux 6.17, where /proc is not mounted.
    pub fn info(&self) -> Result<Delegation> {
        match sys::info::<abi::bpf_token_info>(self.fd.as_fd()) {
            Ok(info) => Ok(Delegation {
                cmds: Allowed::from_mask(info.allowed_cmds),
                maps: Allowed::from_mask(info.allowed_maps),
                progs: Allowed::from_mask(info.allowed_progs),
                attachs: Allowed::from_mask(info.allowed_attachs),
            }),
            // Before Linux 6.17 a token is no BPF object to this command.
            Err(Errno::INVAL) => {
                by_proc(self.fd.as_fd()).map_err(|reason| error(TokenOperation::Info, reason))
            }
            Err(errno) => Err(error(TokenOperation::Info, Reason::errno_only(errno))),
        }
    }
}

impl Token {
    /// The field and the flag for it; the kernel looks at the one only if the other is set.
    pub(crate) fn argument(token: Option<&Self>) -> (i32, u32) {
        token.map_or((0, 0), |token| (token.fd.as_raw_fd(), abi::BPF_F_TOKEN_FD))
    }

    /// Why EPERM, with a token: it does not allow the command, or what `of_command` says of it.
    #[cold]
    pub(crate) fn forbids(
        &self,
        command: Command,
        of_command: impl Fn(&Delegation) -> Option<String>,
    ) -> Option<Cause> {
        let allowed = self.info().ok()?;
        let what = match allowed.cmds.contains(command) {
            true => of_command(&allowed)?,
            false => command.to_string(),
        };
        Some(Cause::NotDelegated { what })
    }
}

fn error(operation: TokenOperation, reason: Reason) -> Error {
    Error::Token { operation, reason }
}

fn create(bpffs: BorrowedFd<'_>) -> Result<Token, Reason> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(bpffs, c".", flags, Mode::empty()).map_err(Reason::errno_only)?;
    match sys::token_create(root.as_fd()) {
        Ok(fd) => Ok(Token { fd }),
        Err(errno) => Err(Reason::new(errno, why_not_created(root.as_fd(), errno))),
    }
}

#[cold]
fn why_not_created(root: BorrowedFd<'_>, errno: Errno) -> Option<Cause> {
    // It is the kernel that answers, and it knows the command.
    let is_known = || sys::no_token_create() == Errno::BADF;
    match errno {
        Errno::OPNOTSUPP if user_namespace_is_own() == Some(false) => {
            Some(Cause::InitialUserNamespace)
        }
        Errno::NOENT if is_known() => Some(Cause::NothingDelegated),
        Errno::PERM if is_known() => diagnose::missing(Capability::Bpf, "creating a token")
            .or_else(|| (lacks(Capability::Bpf) == Some(false)).then_some(Cause::ForeignBpffs)),
        Errno::INVAL if sys::no_token_create() == Errno::INVAL => Some(Cause::Unsupported {
            what: "BPF tokens",
            since: SINCE_DELEGATION,
        }),
        Errno::INVAL if is_known() => {
            let path = path_of(root);
            let found = FileSystem::from_stat(&fstatfs(root).ok()?);
            Some(match found.is_bpffs() {
                true => Cause::NotTheRoot {
                    path,
                    mount_point: None,
                },
                false => diagnose::not_bpffs(&path?, found),
            })
        }
        _ => None,
    }
}

/// The lines `allowed_…` of a token's fdinfo.
fn by_proc(token: BorrowedFd<'_>) -> Result<Delegation, Reason> {
    let text = fdinfo(token)?;
    let line = |name: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value
            .map(str::trim)
            .ok_or(Cause::Unproven { info_errno: None })
    };
    Ok(Delegation {
        cmds: Shown::parse::<Command>(line("allowed_cmds")?).allowed(),
        maps: Shown::parse::<MapType>(line("allowed_maps")?).allowed(),
        progs: Shown::parse::<ProgType>(line("allowed_progs")?).allowed(),
        attachs: Shown::parse::<AttachType>(line("allowed_attachs")?).allowed(),
    })
}

impl AsFd for Token {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Token> for OwnedFd {
    fn from(token: Token) -> Self {
        token.fd
    }
}

/// Proves by what /proc tells of it that it is a token, whose name anybody could give a file; the error
/// gives the descriptor back.
///
/// # Errors
///
/// [`Error::Token`]: [`NotAToken`](Cause::NotAToken), which says what it is; [`NoProc`](Cause::NoProc).
impl TryFrom<OwnedFd> for Token {
    type Error = Failed<OwnedFd>;

    fn try_from(fd: OwnedFd) -> std::result::Result<Self, Failed<OwnedFd>> {
        let reason = match by_proc(fd.as_fd()) {
            Ok(_) => return Ok(Self { fd }),
            Err(reason) if matches!(reason.cause(), Some(Cause::Unproven { .. })) => {
                let found = kind::describe(fd.as_fd());
                found.map_or(reason, |found| Cause::NotAToken { found }.into())
            }
            Err(reason) => reason,
        };
        Err(Failed::new(fd, error(TokenOperation::Descriptor, reason)))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("fd", &self.fd.as_raw_fd())
            .finish()
    }
}
