//! Makes causes, with the words of those that carry text.

use std::borrow::Cow;
use std::ffi::OsStr;

use crate::path::{ComponentError, NAME_MAX, PATH_MAX};
use crate::procfs::ids::UnmappedId;
use crate::types::{LinkType, MapType, ProgType};

use super::cause::{Cause, ObjectType};

impl Cause {
    pub(crate) fn invalid(what: &'static str, problem: impl Into<Cow<'static, str>>) -> Self {
        let problem = problem.into();
        Self::InvalidArgument { what, problem }
    }

    pub(crate) fn no_descriptor(what: &'static str) -> Self {
        Self::invalid(what, "requires a descriptor, and none was given")
    }

    pub(crate) fn empty_path() -> Self {
        Self::invalid_path("the path is empty")
    }

    pub(crate) fn trailing_slash() -> Self {
        Self::invalid_path("the path ends in '/', which leaves no name for the pin")
    }

    pub(crate) fn interior_nul(position: usize) -> Self {
        Self::invalid_path(format!("the path contains a NUL byte at offset {position}"))
    }

    pub(crate) fn slash(name: &OsStr) -> Self {
        let name = name.to_string_lossy();
        Self::invalid_path(format!(
            "{name:?} contains '/', and a name in a directory is one component"
        ))
    }

    fn invalid_path(problem: impl Into<Cow<'static, str>>) -> Self {
        let problem = problem.into();
        Self::InvalidPath { problem }
    }

    pub(crate) fn name_too_long(length: usize) -> Self {
        let (what, limit) = ("name", NAME_MAX);
        Self::TooLong {
            what,
            length,
            limit,
        }
    }

    pub(crate) fn path_too_long(length: usize) -> Self {
        let (what, limit) = ("path", PATH_MAX);
        Self::TooLong {
            what,
            length,
            limit,
        }
    }

    pub(crate) fn invalid_name(name: &str) -> Self {
        let allowed = "up to 15 letters, digits, '_' and '.'";
        Self::invalid(
            "the name",
            format!("{name:?} is not valid: it may have {allowed}"),
        )
    }

    pub(crate) fn unsupported_map(map_type: MapType, problem: &'static str) -> Self {
        let object_type = ObjectType::Map(map_type);
        Self::UnsupportedType {
            object_type,
            problem,
        }
    }

    pub(crate) fn unsupported_prog(prog_type: ProgType, problem: &'static str) -> Self {
        let object_type = ObjectType::Prog(prog_type);
        Self::UnsupportedType {
            object_type,
            problem,
        }
    }

    pub(crate) fn unsupported_link(link_type: LinkType, problem: &'static str) -> Self {
        let object_type = ObjectType::Link(link_type);
        Self::UnsupportedType {
            object_type,
            problem,
        }
    }

    pub(crate) fn no_device(ifindex: u32) -> Self {
        let what = format!("network device {ifindex} in this thread's network namespace");
        Self::NoTarget { what }
    }

    pub(crate) fn no_proc() -> Self {
        let needed_for = "the operation";
        Self::NoProc { needed_for }
    }

    pub(crate) fn handshake(problem: impl Into<Cow<'static, str>>) -> Self {
        let problem = problem.into();
        Self::Handshake { problem }
    }
}

impl From<ComponentError> for Cause {
    fn from(error: ComponentError) -> Self {
        match error {
            ComponentError::Empty => Self::empty_path(),
            ComponentError::Dot(component) => Self::Dot { component },
            ComponentError::Slash(name) => Self::slash(&name),
            ComponentError::InteriorNul(nul) => Self::interior_nul(nul.position),
            ComponentError::TooLong { length } => Self::name_too_long(length),
        }
    }
}

impl From<UnmappedId> for Cause {
    fn from(UnmappedId { what, id }: UnmappedId) -> Self {
        Self::UnmappedOwner { what, id }
    }
}
