//! The object or path of an operation.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use bpf_pin_sys as abi;

use crate::sys;
use crate::types::{AttachType, Identity, Kind, MapType, ObjName, ProgType};

use super::Operation;
use super::escaped::escaped_path;

/// The object or path of an operation.
#[derive(Default)]
pub(crate) enum Subject {
    #[default]
    None,
    Path(PathBuf),
    Paths(PathBuf, PathBuf),
    /// Some object of this kind.
    Kind(Kind),
    Object(Identity),
    Btf(u32),
    Map {
        map_type: MapType,
        /// Or empty.
        name: String,
    },
    /// A map with an id, and the name that it was created with.
    ExistingMap {
        id: u32,
        name: ObjName,
    },
    Prog {
        prog_type: ProgType,
        /// Or empty.
        name: String,
    },
    AttachPoint {
        attach_type: AttachType,
        /// Or 0.
        ifindex: u32,
    },
    /// A function of a program, by its id in that program's BTF.
    Function {
        prog_id: u32,
        btf_id: u32,
    },
}

impl Subject {
    /// Reads the map's id and name, so only after a failure.
    #[cold]
    pub(crate) fn map(fd: BorrowedFd<'_>) -> Self {
        let info: Result<abi::bpf_map_info, _> = sys::info(fd);
        info.map_or(Self::Kind(Kind::Map), |info| Self::ExistingMap {
            id: info.id,
            name: ObjName::from_raw(info.name),
        })
    }

    pub(crate) fn link(id: Option<u32>) -> Self {
        let kind = Kind::Link;
        id.map_or(Self::Kind(kind), |id| Self::Object(Identity { kind, id }))
    }

    /// As in "open /sys/fs/bpf/flows".
    pub(super) fn write(&self, operation: Operation, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, before) = operation.words();
        f.write_str(verb)?;
        match self {
            Self::None if operation == Operation::FromFd => f.write_str(" an object"),
            Self::None => Ok(()),
            Self::Path(path) => write!(f, "{before} {}", escaped_path(path)),
            Self::Paths(path, second) => {
                let between = match operation {
                    Operation::HardLink => "as",
                    Operation::Rename => "to",
                    _ => "and",
                };
                let (path, second) = (escaped_path(path), escaped_path(second));
                write!(f, " {path} {between} {second}")
            }
            Self::Kind(kind) if operation == Operation::NextId => write!(f, " {kind}"),
            Self::Kind(kind) => write!(f, " a {kind}"),
            Self::Object(object) => write!(f, " {object}"),
            Self::Btf(id) => write!(f, " BTF {id}"),
            Self::Map { map_type, name } => named(f, map_type, "map", name),
            Self::ExistingMap { id, name } => named(f, &"map", &id.to_string(), name.as_str()),
            Self::Prog { prog_type, name } => named(f, prog_type, "program", name),
            Self::AttachPoint {
                attach_type,
                ifindex: 0,
            } => write!(f, " {attach_type}"),
            Self::AttachPoint {
                attach_type,
                ifindex,
            } => write!(f, " {attach_type} of device {ifindex}"),
            Self::Function { prog_id, btf_id } => {
                write!(f, " function {btf_id} of program {prog_id}")
            }
        }
    }
}

fn named(
    f: &mut fmt::Formatter<'_>,
    of_type: &dyn fmt::Display,
    kind: &str,
    name: &str,
) -> fmt::Result {
    write!(f, " {of_type} {kind}")?;
    match name {
        "" => Ok(()),
        _ => write!(f, " {name:?}"),
    }
}
