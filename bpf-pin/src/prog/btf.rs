//! BTF objects: the types that maps and programs are described with, as descriptors.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Error, Operation, Reason, Result, Subject};
use crate::process::Capability;
use crate::prog::log::{Logged, with_log};
use crate::sys;

/// An owned descriptor of a BTF object, for [`MapSpec::btf`](crate::MapSpec::btf) and
/// [`ProgSpec::btf`](crate::ProgSpec::btf).
///
/// The same in memory as an [`OwnedFd`]. What is in it is other crates' to make and to read.
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
#[repr(transparent)]
pub struct Btf {
    fd: OwnedFd,
}

impl Btf {
    /// `BPF_BTF_LOAD`: an object of the bytes of a `.BTF` section, in this machine's byte order. One
    /// syscall, and another for the log where it is refused. Linux 4.18.
    ///
    /// # Errors
    ///
    /// [`Operation::LoadBtf`](crate::error::Operation::LoadBtf), with the kernel's log where it got that far: EINVAL; E2BIG for more than
    /// 16 MiB; [`MissingCapability`](crate::error::Cause::MissingCapability) (EPERM) without `CAP_BPF`.
    pub fn load(btf: &[u8]) -> Result<Self> {
        match sys::btf_load(btf, &mut []).0 {
            Ok(fd) => Ok(Self { fd }),
            Err(errno) => Self::load_again(btf, errno),
        }
    }

    #[cold]
    fn load_again(btf: &[u8], first: Errno) -> Result<Self> {
        let Logged { result, log } = with_log(|log| sys::btf_load(btf, log));
        let errno = match result {
            Ok(fd) => return Ok(Self { fd }),
            Err(Errno::NOSPC) => first,
            Err(errno) => errno,
        };
        let cause = match errno {
            Errno::PERM => diagnose::missing(Capability::Bpf, "loading BTF"),
            _ => None,
        };
        Err(Error::new(Operation::LoadBtf, Reason::new(errno, cause)).with_log(log))
    }

    /// `BPF_BTF_GET_FD_BY_ID`: the living BTF object with this id. Linux 4.18.
    ///
    /// The kernel's own, of id 1, and its modules' have ids from Linux 5.11 on.
    ///
    /// # Errors
    ///
    /// [`Operation::BtfFromId`](crate::error::Operation::BtfFromId): [`NoSuchId`](crate::error::Cause::NoSuchId) (ENOENT) where there is none;
    /// [`MissingCapability`](crate::error::Cause::MissingCapability) (EPERM) without `CAP_SYS_ADMIN`.
    pub fn from_id(id: u32) -> Result<Self> {
        match sys::btf_fd_by_id(id) {
            Ok(fd) => Ok(Self { fd }),
            Err(errno) => {
                let cause = match errno {
                    Errno::PERM => diagnose::for_id(),
                    Errno::NOENT => diagnose::no_such_id("BTF object"),
                    _ => None,
                };
                let reason = Reason::new(errno, cause);
                Err(Error::new(Operation::BtfFromId, reason).of(Subject::Btf(id)))
            }
        }
    }

    /// `id` of `struct bpf_btf_info`, unique among the living BTF objects. Linux 4.18.
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

impl fmt::Debug for Btf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Btf")
            .field("fd", &self.fd.as_raw_fd())
            .finish()
    }
}
