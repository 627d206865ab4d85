//! BPF tokens, the sets of commands and types that they allow, and the messages to delegate a bpffs.

mod allowed;
#[cfg(feature = "mount")]
pub(crate) mod socket;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bpf_pin_sys as abi;
use rustix::fs::{Mode, OFlags, fstatfs, openat};
use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Error, Failed, Operation, Reason, Result};
use crate::process::{Capability, in_user_namespace, lacks};
use crate::procfs::{fd_name, fdinfo, path_of};
use crate::sys;
use crate::types::{Command, FileSystem};

pub(crate) use allowed::SINCE_DELEGATION;
pub use allowed::{Allowed, Delegable, Delegation};

/// A BPF token: lets a process in a user namespace use what a bpffs
/// [delegates](crate::bpffs::MountOptions::delegate_cmds).
///
/// Has the memory layout of an [`OwnedFd`]. Pass it to [`MapSpec::token`](crate::MapSpec::token) and
/// [`ProgSpec::token`](crate::ProgSpec::token).
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::token::Token;
/// use bpf_pin::{Bpffs, MapSpec, MapType};
///
/// // In the user namespace that the bpffs was created for.
/// let token = Token::create(&Bpffs::at("/run/app/bpffs")?)?;
/// println!("maps: {}", token.info()?.maps);
/// let map = MapSpec::new(MapType::HASH, 4, 8, 1024).token(&token).create()?;
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug)]
#[repr(transparent)]
pub struct Token {
    fd: OwnedFd,
}

impl Token {
    /// `BPF_TOKEN_CREATE`: creates a token from the root of a bpffs. Linux 6.9.
    ///
    /// `bpffs` is a [`Bpffs`](crate::Bpffs), a [`Detached`](crate::bpffs::Detached) or another descriptor.
    /// The root is opened again for reading.
    ///
    /// # Errors
    ///
    /// [`Operation::CreateToken`]:
    /// - [`InitialUserNamespace`](Cause::InitialUserNamespace) (EOPNOTSUPP)
    /// - [`NothingDelegated`](Cause::NothingDelegated) (ENOENT)
    /// - [`MissingCapability`](Cause::MissingCapability) without `CAP_BPF` in the user namespace (EPERM)
    /// - [`ForeignUserNamespace`](Cause::ForeignUserNamespace) for a bpffs of another user namespace (EPERM)
    /// - [`NotBpffs`](Cause::NotBpffs), [`NotTheRoot`](Cause::NotTheRoot) (EINVAL)
    /// - [`Unsupported`](Cause::Unsupported) before Linux 6.9 (EINVAL)
    /// - EACCES if the root may not be read
    ///
    /// # References
    ///
    /// kernel/bpf/token.c: `bpf_token_create`
    pub fn create(bpffs: impl AsFd) -> Result<Self> {
        create(bpffs.as_fd()).map_err(|reason| error(Operation::CreateToken, reason))
    }

    /// `BPF_OBJ_GET_INFO_BY_FD` with `struct bpf_token_info`: returns what the token allows. Linux 6.17.
    ///
    /// Before that it is read from fdinfo, see [`Delegation`].
    ///
    /// # Errors
    ///
    /// [`Operation::TokenInfo`] with [`NoProc`](Cause::NoProc) before Linux 6.17 without /proc.
    pub fn info(&self) -> Result<Delegation> {
        match sys::info::<abi::bpf_token_info>(self.fd.as_fd()) {
            Ok(info) => Ok(Delegation {
                cmds: Allowed::from_mask(info.allowed_cmds),
                maps: Allowed::from_mask(info.allowed_maps),
                progs: Allowed::from_mask(info.allowed_progs),
                attachs: Allowed::from_mask(info.allowed_attachs),
            }),
            // Before Linux 6.17 this command does not know tokens.
            Err(Errno::INVAL) => {
                from_fdinfo(self.fd.as_fd()).map_err(|reason| error(Operation::TokenInfo, reason))
            }
            Err(errno) => Err(error(Operation::TokenInfo, Reason::errno_only(errno))),
        }
    }

    /// The field and its flag. The kernel reads the field only if the flag is set.
    pub(crate) fn argument(token: Option<&Self>) -> (i32, u32) {
        token.map_or((0, 0), |token| (token.fd.as_raw_fd(), abi::BPF_F_TOKEN_FD))
    }

    /// Explains an EPERM: the token does not allow the command, or `forbidden_type` names a type that it does
    /// not allow.
    #[cold]
    pub(crate) fn forbids(
        &self,
        command: Command,
        forbidden_type: impl Fn(&Delegation) -> Option<String>,
    ) -> Option<Cause> {
        let allowed = self.info().ok()?;
        let what = match allowed.cmds.contains(command) {
            true => forbidden_type(&allowed)?,
            false => command.to_string(),
        };
        Some(Cause::NotDelegated { what })
    }
}

fn error(operation: Operation, reason: Reason) -> Error {
    Error::new(operation, reason)
}

fn create(bpffs: BorrowedFd<'_>) -> Result<Token, Reason> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(bpffs, c".", flags, Mode::empty()).map_err(Reason::errno_only)?;
    match sys::token_create(root.as_fd()) {
        Ok(fd) => Ok(Token { fd }),
        Err(errno) => Err(Reason::new(errno, create_cause(root.as_fd(), errno))),
    }
}

#[cold]
fn create_cause(root: BorrowedFd<'_>, errno: Errno) -> Option<Cause> {
    // The kernel knows the command, and no filter answers in its place.
    let is_known = || sys::probe_token_create() == Errno::BADF;
    match errno {
        Errno::OPNOTSUPP if in_user_namespace() == Some(false) => Some(Cause::InitialUserNamespace),
        Errno::NOENT if is_known() => Some(Cause::NothingDelegated),
        Errno::PERM if is_known() => diagnose::missing(Capability::Bpf, "creating a token")
            .or_else(|| {
                (lacks(Capability::Bpf) == Some(false))
                    .then_some(Cause::ForeignUserNamespace { what: "bpffs" })
            }),
        Errno::INVAL if sys::probe_token_create() == Errno::INVAL => Some(Cause::Unsupported {
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

/// Parses the lines `allowed_*` of a token's fdinfo. [`Cause::Unproven`] if there are none.
fn from_fdinfo(token: BorrowedFd<'_>) -> Result<Delegation, Reason> {
    let info = fdinfo(token)?;
    let value = |key: &str| info.get(key).ok_or(Cause::Unproven { info_errno: None });
    Ok(Delegation {
        cmds: Allowed::parse(value("allowed_cmds")?),
        maps: Allowed::parse(value("allowed_maps")?),
        progs: Allowed::parse(value("allowed_progs")?),
        attachs: Allowed::parse(value("allowed_attachs")?),
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

/// Checks fdinfo for the lines of a token, because any file could have a token's name. The error returns the
/// descriptor.
///
/// # Errors
///
/// [`Operation::TokenFromFd`]: [`WrongDescriptor`](Cause::WrongDescriptor), with what the descriptor is;
/// [`NoProc`](Cause::NoProc).
impl TryFrom<OwnedFd> for Token {
    type Error = Failed<OwnedFd>;

    fn try_from(fd: OwnedFd) -> std::result::Result<Self, Failed<OwnedFd>> {
        let reason = match from_fdinfo(fd.as_fd()) {
            Ok(_) => return Ok(Self { fd }),
            Err(reason) if matches!(reason.cause(), Some(Cause::Unproven { .. })) => {
                match fd_name(fd.as_fd()) {
                    Ok(name) => Cause::WrongDescriptor {
                        expected: "a token",
                        found: Some(name.to_string_lossy().into_owned()),
                    }
                    .into(),
                    Err(_) => reason,
                }
            }
            Err(reason) => reason,
        };
        Err(Failed::new(fd, error(Operation::TokenFromFd, reason)))
    }
}
