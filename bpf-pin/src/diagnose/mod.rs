//! From an errno to its cause. Runs after a failure only, names only what it has seen.

mod entry;
mod link;
mod mount;
mod path;
mod privilege;
mod rtnetlink;
mod shadowed;

use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::io::Errno;

use crate::access::Access;
use crate::cause::Cause;
use crate::place::{Base, Place};

pub(crate) use link::{
    for_attach_type, for_cgroup, for_device, for_prog_of_link, for_tracepoint,
    for_tracepoint_cookie, for_xdp,
};
pub(crate) use mount::{attach, missing_call, mount, mount_namespace};
pub(crate) use path::walk;
pub(crate) use privilege::{
    for_bpf, for_helper, for_id, for_link, for_map, for_next_id, for_prog, memlock, missing,
    no_such_id,
};
pub(crate) use shadowed::not_bpffs;

/// Why `BPF_OBJ_PIN` failed.
#[cold]
pub(crate) fn pin(place: &Place<'_>, object: BorrowedFd<'_>, errno: Errno) -> Option<Cause> {
    match place.base {
        Some(base) => entry::pin(place, base, object, errno),
        None => path::pin(&place.path(), errno),
    }
}

/// Why `BPF_OBJ_GET` failed.
#[cold]
pub(crate) fn open(place: &Place<'_>, access: Access, errno: Errno) -> Option<Cause> {
    match place.base {
        Some(base) => entry::open(place, base, access, errno),
        None => path::open(&place.path(), access, errno),
    }
}

/// Why `unlink(2)` of a pin failed.
#[cold]
pub(crate) fn unpin(place: &Place<'_>, errno: Errno) -> Option<Cause> {
    match place.base {
        Some(base) => entry::remove(place, base, errno),
        None => path::unpin(&place.path(), errno),
    }
}

/// Why a name was not found, whatever was to be done with it.
#[cold]
pub(crate) fn find(place: &Place<'_>, errno: Errno) -> Option<Cause> {
    match place.base {
        Some(base) => entry::find(place, base, errno),
        None => path::unpin(&place.path(), errno),
    }
}

/// Why a directory in one that is held open could not be opened.
#[cold]
pub(crate) fn open_dir(place: &Place<'_>, errno: Errno) -> Option<Cause> {
    find(place, errno).or_else(|| entry::was_missing(place, errno))
}

/// Why a name could not be made in a directory.
#[cold]
pub(crate) fn make(place: &Place<'_>, errno: Errno) -> Option<Cause> {
    let base = place.base?;
    match errno {
        Errno::EXIST => Some(Cause::Exists {
            holder: path::object_in(place),
        }),
        _ => entry::change(base, errno),
    }
}

/// Why a directory that should be on a bpffs could not be opened.
#[cold]
pub(crate) fn directory(path: &Path, errno: Errno) -> Option<Cause> {
    path::directory_at(path, errno)
}

/// Why a directory that is held open could not be opened to be read.
#[cold]
pub(crate) fn list(base: Base<'_>, errno: Errno) -> Option<Cause> {
    entry::unlistable(base, errno)
}
