//! What the kernel tells of an object, whatever it is.

use std::ffi::{CStr, OsStr};
use std::fmt;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;

use crate::access::Access;
use crate::dir::{Entry, PinDir};
use crate::error::Result;
use crate::filename::Filename;
use crate::kind::{Identity, Kind};
use crate::link::LinkInfo;
use crate::map::MapInfo;
use crate::name::ObjName;
use crate::object::{Object, ObjectKind, kinds, open_error};
use crate::prog::ProgInfo;
use crate::sys::AnyInfo;

/// What the kernel tells of a map, a program or a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectInfo {
    /// Of a map.
    Map(MapInfo),
    /// Of a program.
    Prog(ProgInfo),
    /// Of a link.
    Link(LinkInfo),
}

impl ObjectInfo {
    /// Which object it is.
    pub fn identity(&self) -> Identity {
        let (kind, id) = match self {
            Self::Map(info) => (Kind::Map, info.id),
            Self::Prog(info) => (Kind::Prog, info.id),
            Self::Link(info) => (Kind::Link, info.id),
        };
        Identity { kind, id }
    }

    /// The name that it was created with; links have none.
    pub fn name(&self) -> Option<&ObjName> {
        match self {
            Self::Map(info) => Some(&info.name),
            Self::Prog(info) => Some(&info.name),
            Self::Link(_) => None,
        }
    }
}

/// The type and the sizes, in bytes.
impl fmt::Display for ObjectInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(info) => write!(
                f,
                "{} map, {} to {} bytes, room for {}",
                info.map_type, info.key_size, info.value_size, info.max_entries
            ),
            Self::Prog(info) => write!(
                f,
                "{} program, {} bytes",
                info.prog_type, info.xlated_prog_len
            ),
            Self::Link(info) => write!(f, "{} link of program {}", info.link_type, info.prog_id),
        }
    }
}

impl Object {
    /// `BPF_OBJ_GET_INFO_BY_FD`: what the kernel tells of the object. Linux 4.13, links 5.8.
    ///
    /// # Errors
    ///
    /// As [`Handle::info`](crate::Handle::info).
    pub fn info(&self) -> Result<ObjectInfo> {
        Ok(match self {
            Self::Map(map) => ObjectInfo::Map(map.info()?),
            Self::Prog(prog) => ObjectInfo::Prog(prog.info()?),
            Self::Link(link) => ObjectInfo::Link(link.info()?),
        })
    }
}

impl PinDir {
    /// As [`open_any`](Self::open_any), with what [`Object::info`] tells: one syscall for both, the
    /// proof of the kind and the info.
    ///
    /// # Errors
    ///
    /// As [`open_any`](Self::open_any); what [`Object::info`] fails with comes as
    /// [`Error::Open`](crate::Error::Open), too.
    pub fn open_with_info(&self, name: impl AsRef<OsStr>) -> Result<(Object, ObjectInfo)> {
        let name = name.as_ref();
        let filename = Filename::new(name)
            .map_err(|cause| open_error(&self.path().join(name), cause.into()))?;
        with_info(self, filename.as_c_str())
    }
}

impl<D: Deref<Target = PinDir>> Entry<D> {
    /// As [`open_any`](Self::open_any), with what [`Object::info`] tells: see
    /// [`PinDir::open_with_info`].
    ///
    /// # Errors
    ///
    /// As [`PinDir::open_with_info`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{EntryType, PinDir};
    ///
    /// for entry in PinDir::open("/sys/fs/bpf")?.walk()? {
    ///     let entry = entry?;
    ///     if entry.entry_type() == EntryType::Pin {
    ///         let (_, info) = entry.open_with_info()?;
    ///         println!("{}: {} ({info})", entry.path().display(), info.identity());
    ///     }
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn open_with_info(&self) -> Result<(Object, ObjectInfo)> {
        with_info(self.dir(), self.c_name())
    }

    /// The info alone, with whatever access is granted.
    pub(crate) fn info_somehow(&self) -> Result<ObjectInfo> {
        let error = match self.open_with_info() {
            Ok((_, info)) => return Ok(info),
            Err(error) => error,
        };
        let reason = error.reason();
        if !reason.is(Errno::ACCESS) && !reason.is(Errno::ROFS) {
            return Err(error);
        }
        self.open_with::<Object>(Access::ReadOnly)
            .or_else(|_| self.open_with(Access::WriteOnly))
            .map_err(|_| error)?
            .info()
            .map_err(|error| error.of_opened(self.path()))
    }
}

fn with_info(dir: &PinDir, name: &CStr) -> Result<(Object, ObjectInfo)> {
    let mut info = AnyInfo::new();
    let (object, is_told) = dir.open_named_with_info(name, &mut info)?;
    let info = match is_told {
        true => ObjectInfo::of(object.kind(), &info),
        false => object.info().map_err(|error| {
            let name = OsStr::from_bytes(name.to_bytes());
            error.of_opened(dir.path().join(name))
        })?,
    };
    Ok((object, info))
}

impl ObjectInfo {
    /// `info` must be of an object of this kind.
    fn of(kind: Kind, info: &AnyInfo) -> Self {
        match kind {
            Kind::Map => Self::Map(kinds::MapKind::info(info.to())),
            Kind::Prog => Self::Prog(kinds::ProgKind::info(info.to())),
            Kind::Link => Self::Link(kinds::LinkKind::info(info.to())),
        }
    }
}
