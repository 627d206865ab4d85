//! BTF objects: the kernel's descriptions of types, as descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Cause, Error, Operation, Reason, Result, Subject};
use crate::process::Capability;
use crate::prog::log::{Logged, with_log};
use crate::sys;
use crate::token::Token;
use crate::types::Command;

/// An owned descriptor of a BTF object, for [`MapSpec::btf`](crate::MapSpec::btf) and
/// [`ProgSpec::btf`](crate::ProgSpec::btf).
///
/// Has the memory layout of an [`OwnedFd`]. Other crates create and parse BTF; this type only loads it.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::prog::Btf;
/// use bpf_pin::{MapSpec, MapType};
///
/// # let section = [];
/// let btf = Btf::load(&section)?;
/// let map = MapSpec::new(MapType::HASH, 4, 4, 64).btf(&btf, 1, 1).create()?;
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug)]
#[repr(transparent)]
pub struct Btf {
    fd: OwnedFd,
}

impl Btf {
    /// `BPF_BTF_LOAD`: loads the bytes of a `.BTF` section, in native byte order. Linux 4.18.
    ///
    /// One syscall. If the kernel rejects the bytes, a second one fetches its log.
    ///
    /// # Errors
    ///
    /// [`Operation::LoadBtf`](crate::error::Operation::LoadBtf), with the kernel's log if it began to verify:
    /// - EINVAL for invalid BTF
    /// - E2BIG for more than 16 MiB
    /// - [`MissingCapability`](Cause::MissingCapability) (EPERM) without `CAP_BPF`
    /// - [`UserNamespace`](Cause::UserNamespace) (EPERM) with `CAP_BPF` in a user namespace
    pub fn load(btf: &[u8]) -> Result<Self> {
        Self::load_as(btf, None)
    }

    /// As [`load`](Self::load), with `btf_token_fd` and `BPF_F_TOKEN_FD`: the token that allows loading it. Linux
    /// 6.9.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), except [`UserNamespace`](Cause::UserNamespace):
    /// - [`NotDelegated`](Cause::NotDelegated) (EPERM) if the token does not allow `BPF_BTF_LOAD`
    /// - [`MissingCapability`](Cause::MissingCapability) (EPERM) without `CAP_BPF` in the token's user namespace
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::prog::Btf;
    /// use bpf_pin::token::Token;
    /// use bpf_pin::Bpffs;
    ///
    /// # let section = [];
    /// let token = Token::create(&Bpffs::at("/sys/fs/bpf")?)?;
    /// let btf = Btf::load_with_token(&section, &token)?;
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn load_with_token(btf: &[u8], token: &Token) -> Result<Self> {
        Self::load_as(btf, Some(token))
    }

    fn load_as(btf: &[u8], token: Option<&Token>) -> Result<Self> {
        match sys::btf_load(btf, Token::argument(token), &mut []).0 {
            Ok(fd) => Ok(Self { fd }),
            Err(errno) => Self::load_with_log(btf, token, errno),
        }
    }

    #[cold]
    fn load_with_log(btf: &[u8], token: Option<&Token>, first: Errno) -> Result<Self> {
        let Logged { result, log } =
            with_log(|log| sys::btf_load(btf, Token::argument(token), log));
        let errno = match result {
            Ok(fd) => return Ok(Self { fd }),
            Err(Errno::NOSPC) => first,
            Err(errno) => errno,
        };
        let forbidden = || token?.forbids(Command::BTF_LOAD, |_| None);
        let cause = match errno {
            Errno::PERM => forbidden().or_else(|| diagnose::for_btf(token.is_some())),
            _ => None,
        };
        Err(Error::new(Operation::LoadBtf, Reason::new(errno, cause)).with_log(log))
    }

    /// `BPF_BTF_GET_FD_BY_ID`: opens the loaded BTF object with this id. Linux 4.18.
    ///
    /// The kernel's own, of id 1, and those of its modules have ids since Linux 5.11.
    ///
    /// # Errors
    ///
    /// [`Operation::BtfFromId`](crate::error::Operation::BtfFromId):
    /// - [`NoSuchId`](Cause::NoSuchId) (ENOENT) if there is none
    /// - [`MissingCapability`](Cause::MissingCapability) (EPERM) without `CAP_SYS_ADMIN`
    /// - [`UserNamespace`](Cause::UserNamespace) (EPERM) with `CAP_SYS_ADMIN` in a user namespace
    pub fn from_id(id: u32) -> Result<Self> {
        let opened = sys::ById::BTF.fd(id, 0);
        opened
            .map(|fd| Self { fd })
            .map_err(|errno| by_id_error(id, errno, diagnose::for_id))
    }

    /// As [`from_id`](Self::from_id), with `fd_by_id_token_fd` and `BPF_F_TOKEN_FD`: the token that allows opening
    /// it. Linux 6.15.
    ///
    /// # Errors
    ///
    /// As [`from_id`](Self::from_id), except [`UserNamespace`](Cause::UserNamespace):
    /// - [`NotDelegated`](Cause::NotDelegated) (EPERM) if the token does not allow `BPF_BTF_GET_FD_BY_ID`
    /// - [`MissingCapability`](Cause::MissingCapability) (EPERM) without `CAP_SYS_ADMIN` in the token's user
    ///   namespace
    /// - EINVAL from a kernel without the field
    pub fn from_id_with_token(id: u32, token: &Token) -> Result<Self> {
        let opened = sys::ById::BTF.fd_with_token(id, Token::argument(Some(token)));
        opened.map(|fd| Self { fd }).map_err(|errno| {
            by_id_error(id, errno, || {
                token
                    .forbids(Command::BTF_GET_FD_BY_ID, |_| None)
                    .or_else(|| {
                        diagnose::missing(Capability::SysAdmin, "opening an object by its id")
                    })
            })
        })
    }

    /// `id` of `struct bpf_btf_info`: the id, unique among the loaded BTF objects. Linux 4.18.
    ///
    /// # Errors
    ///
    /// [`Operation::BtfInfo`](crate::error::Operation::BtfInfo): EPERM as [`Map::info`](crate::Map::info).
    pub fn id(&self) -> Result<u32> {
        sys::btf_id(self.fd.as_fd()).map_err(|errno| {
            let cause = (errno == Errno::PERM).then(diagnose::for_bpf).flatten();
            Error::new(Operation::BtfInfo, Reason::new(errno, cause))
        })
    }
}

#[cold]
fn by_id_error(id: u32, errno: Errno, unprivileged: impl FnOnce() -> Option<Cause>) -> Error {
    let cause = match errno {
        Errno::PERM => unprivileged(),
        Errno::NOENT => diagnose::no_such_id("BTF object"),
        _ => None,
    };
    let reason = Reason::new(errno, cause);
    Error::new(Operation::BtfFromId, reason).of(Subject::Btf(id))
}

impl AsFd for Btf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Btf> for OwnedFd {
    fn from(btf: Btf) -> Self {
        btf.fd
    }
}
