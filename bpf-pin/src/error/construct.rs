//! Makes causes, with the words of those that carry text.

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;

use crate::path::{InteriorNul, InvalidComponent, NAME_MAX, PATH_MAX};
use crate::process::filter_errno;
use crate::procfs::ids::UnmappedId;
use crate::types::Command;

use super::{Cause, ObjectType};

impl Cause {
    pub(crate) fn invalid(what: &'static str, problem: impl Into<Cow<'static, str>>) -> Self {
        let problem = problem.into();
        Self::InvalidArgument { what, problem }
    }

    /// [`Filtered`](Self::Filtered), if a seccomp filter fails the command with this errno.
    #[cold]
    pub(crate) fn filtered(command: Command, errno: Errno) -> Option<Self> {
        (filter_errno(command) == Some(errno)).then_some(Self::Filtered { command })
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

    fn invalid_path(problem: impl Into<Cow<'static, str>>) -> Self {
        let problem = problem.into();
        Self::InvalidPath { problem }
    }

    pub(crate) fn name_too_long(length: usize) -> Self {
        Self::TooLong {
            what: "name",
            length,
            limit: NAME_MAX,
        }
    }

    pub(crate) fn path_too_long(length: usize) -> Self {
        Self::TooLong {
            what: "path",
            length,
            limit: PATH_MAX,
        }
    }

    pub(crate) fn invalid_name(name: &str) -> Self {
        let allowed = "up to 15 letters, digits, '_' and '.'";
        Self::invalid(
            "the name",
            format!("{name:?} is not valid: it may have {allowed}"),
        )
    }

    pub(crate) fn unsupported(object_type: ObjectType, problem: &'static str) -> Self {
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

impl From<InteriorNul> for Cause {
    fn from(InteriorNul { position }: InteriorNul) -> Self {
        Self::invalid_path(format!("the path contains a NUL byte at offset {position}"))
    }
}

impl From<InvalidComponent> for Cause {
    fn from(InvalidComponent(component): InvalidComponent) -> Self {
        let bytes = component.as_bytes();
        if let Some(position) = bytes.iter().position(|&byte| byte == 0) {
            InteriorNul { position }.into()
        } else if bytes.contains(&b'/') {
            let name = component.to_string_lossy();
            Self::invalid_path(format!(
                "{name:?} contains '/', and a name in a directory is one component"
            ))
        } else if bytes.contains(&b'.') {
            Self::Dot { component }
        } else if bytes.is_empty() {
            Self::empty_path()
        } else {
            Self::name_too_long(bytes.len())
        }
    }
}

impl From<UnmappedId> for Cause {
    fn from(UnmappedId { what, id }: UnmappedId) -> Self {
        Self::UnmappedOwner { what, id }
    }
}
