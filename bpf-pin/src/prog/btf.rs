//! BTF objects: the kernel's descriptions of types, as descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::diagnose;
use crate::error::{Error, Operation, Reason, Result, Subject};
use crate::process::Capability;
use crate::prog::log::{Logged, with_log};
use crate::sys;

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
    /// - [`MissingCapability`](crate::error::Cause::MissingCapability) (EPERM) without `CAP_BPF`
    pub fn load(btf: &[u8]) -> Result<Self> {
        match sys::btf_load(btf, &mut []).0 {
            Ok(fd) => Ok(Self { fd }),
            Err(errno) => Self::load_with_log(btf, errno),
        }
    }

    #[cold]
    fn load_with_log(btf: &[u8], first: Errno) -> Result<Self> {
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

    /// `BPF_BTF_GET_FD_BY_ID`: opens the loaded BTF object with this id. Linux 4.18.
    ///
    /// The kernel's own, of id 1, and those of its modules have ids since Linux 5.11.
    ///
    /// # Errors
    ///
    /// [`Operation::BtfFromId`](crate::error::Operation::BtfFromId):
    /// - [`NoSuchId`](crate::error::Cause::NoSuchId) (ENOENT) if there is none
    /// - [`MissingCapability`](crate::error::Cause::MissingCapability) (EPERM) without `CAP_SYS_ADMIN`
    pub fn from_id(id: u32) -> Result<Self> {
        match sys::ById::BTF.fd(id, 0) {
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
