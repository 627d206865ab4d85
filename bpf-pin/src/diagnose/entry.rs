//! What is wrong with a name in a directory that is held open.
//!
//! All is looked at from the descriptor: the path that the directory was opened by may lead
//! elsewhere by now.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use bpf_pin_sys as abi;
use rustix::fs::{
    Access as Permission, AtFlags, FileType, StatVfsMountFlags, accessat, fstat, fstatvfs,
};
use rustix::io::Errno;

use crate::access::Access;
use crate::cause::Cause;
use crate::diagnose::path::{Wanted, blocked_by, object_in, sticky_between, type_in_words};
use crate::diagnose::privilege::for_bpf;
use crate::object::proof;
use crate::place::{Base, Place};
use crate::process::is_filtered;
use crate::sys;
use crate::types::{FileSystem, Kind};

/// Why `BPF_OBJ_PIN` of a name in `base` failed.
pub(super) fn pin(
    place: &Place<'_>,
    base: Base<'_>,
    object: BorrowedFd<'_>,
    errno: Errno,
) -> Option<Cause> {
    match errno {
        Errno::EXIST => Some(Cause::Exists {
            holder: object_in(place),
        }),
        Errno::PERM if sys::probe_bpf_allowed() == Errno::PERM => for_bpf(),
        // Which object it is comes before the name.
        Errno::INVAL => {
            let reason = proof::find_kind(object).err()?.into_reason(None);
            reason.cause().cloned()
        }
        _ => change(base, errno),
    }
}

/// Why `BPF_OBJ_GET` of a name in `base` failed.
pub(super) fn open(
    place: &Place<'_>,
    base: Base<'_>,
    access: Access,
    errno: Errno,
) -> Option<Cause> {
    match errno {
        Errno::PERM if sys::probe_bpf_allowed() == Errno::PERM => for_bpf(),
        Errno::ACCESS => unsearchable(base)
            .or_else(|| not_an_object(place))
            .or_else(|| unreadable(place, access)),
        Errno::INVAL if access != Access::ReadWrite => {
            let is_link = object_in(place)?.kind == Kind::Link;
            is_link.then_some(Cause::LinkAccess)
        }
        Errno::ROFS => read_only(base),
        _ => find(place, base, errno),
    }
}

/// By now something has the name of what was to be opened as a directory. The one that it is in is no
/// dead one, then, so it was the name that was not there. (Of a pin ENOENT may be its object's, of
/// which only the kernel's own file is left.)
pub(super) fn was_missing(place: &Place<'_>, errno: Errno) -> Option<Cause> {
    let is_there = errno == Errno::NOENT && place.lstat().is_ok();
    is_there.then(|| Cause::Missing { path: place.path() })
}

/// Why a name in `base` was not found, whatever was to be done with it.
pub(super) fn find(place: &Place<'_>, base: Base<'_>, errno: Errno) -> Option<Cause> {
    match errno {
        Errno::NOENT => match place.lstat() {
            Err(Errno::NOENT) => {
                Some(removed(base).unwrap_or_else(|| Cause::Missing { path: place.path() }))
            }
            _ => symbolic_link(place),
        },
        // Where the kernel follows none, one is enough for that, be it gone by now.
        Errno::LOOP if !base.follows_links && !is_filtered() => {
            Some(Cause::SymbolicLink { path: place.path() })
        }
        Errno::LOOP => symbolic_link(place),
        Errno::NOTDIR => symbolic_link(place).or_else(|| not_a_directory(place)),
        Errno::BUSY | Errno::XDEV => mount_point(place),
        Errno::ISDIR => not_an_object(place),
        Errno::NOTEMPTY => Some(Cause::NotEmpty { path: place.path() }),
        Errno::ACCESS => unsearchable(base),
        _ => None,
    }
}

/// Why a name could not be taken away from `base`, or given to another.
pub(super) fn remove(place: &Place<'_>, base: Base<'_>, errno: Errno) -> Option<Cause> {
    match errno {
        Errno::ACCESS => unsearchable(base).or_else(|| unwritable(base)),
        Errno::PERM => sticky(place, base).or_else(|| dot(place)),
        Errno::ROFS => read_only(base),
        _ => find(place, base, errno),
    }
}

/// Of a name that the kernel has made: a user's is looked at before.
fn dot(place: &Place<'_>) -> Option<Cause> {
    let name = place.name.to_bytes();
    name.contains(&b'.').then(|| Cause::Dot {
        component: OsStr::from_bytes(name).to_owned(),
    })
}

/// Why a name could not be made in `base`.
pub(super) fn change(base: Base<'_>, errno: Errno) -> Option<Cause> {
    match errno {
        Errno::NOENT => removed(base),
        Errno::ACCESS => unsearchable(base).or_else(|| unwritable(base)),
        Errno::ROFS => read_only(base),
        _ => None,
    }
}

/// Nothing has a link to it any more, not even its own '.'.
fn removed(base: Base<'_>) -> Option<Cause> {
    (fstat(base.fd).ok()?.st_nlink == 0).then(|| Cause::Removed {
        path: base.path().to_owned(),
    })
}

fn denied(base: Base<'_>, wanted: Permission) -> bool {
    accessat(base.fd, c".", wanted, AtFlags::EACCESS) == Err(Errno::ACCESS)
}

fn unsearchable(base: Base<'_>) -> Option<Cause> {
    blocks(base, Permission::EXEC_OK, "search")
}

fn unwritable(base: Base<'_>) -> Option<Cause> {
    blocks(base, Permission::WRITE_OK, "write")
}

/// Why a directory could not be opened to be read.
pub(crate) fn unlistable(base: Base<'_>, errno: Errno) -> Option<Cause> {
    match errno {
        Errno::ACCESS => unsearchable(base).or_else(|| blocks(base, Permission::READ_OK, "read")),
        _ => change(base, errno),
    }
}

fn blocks(base: Base<'_>, wanted: Permission, words: Wanted) -> Option<Cause> {
    if !denied(base, wanted) {
        return None;
    }
    let stat = fstat(base.fd).ok()?;
    Some(blocked_by(base.path().to_owned(), &stat, words, false))
}

fn symbolic_link(place: &Place<'_>) -> Option<Cause> {
    let is_link = place.is_symbolic_link().ok()?;
    is_link.then(|| Cause::SymbolicLink { path: place.path() })
}

fn not_a_directory(place: &Place<'_>) -> Option<Cause> {
    let stat = place.lstat().ok()?;
    (FileType::from_raw_mode(stat.st_mode) != FileType::Directory)
        .then(|| Cause::NotADirectory { path: place.path() })
}

fn not_an_object(place: &Place<'_>) -> Option<Cause> {
    let stat = place.lstat().ok()?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Some(Cause::SymbolicLink { path: place.path() });
    }
    let what = type_in_words(&stat).filter(|&what| what == "directory")?;
    Some(Cause::NotAnObject {
        path: place.path(),
        what,
        found: FileSystem::BPF,
    })
}

fn unreadable(place: &Place<'_>, access: Access) -> Option<Cause> {
    let (wanted, words) = super::path::permission(access);
    let is_denied =
        accessat(place.begin(), place.name, wanted, AtFlags::EACCESS) == Err(Errno::ACCESS);
    if !is_denied {
        return None;
    }
    let read_only_would_do = access == Access::ReadWrite && place.get(abi::BPF_F_RDONLY).is_ok();
    let stat = place.lstat().ok()?;
    Some(blocked_by(place.path(), &stat, words, read_only_would_do))
}

fn mount_point(place: &Place<'_>) -> Option<Cause> {
    let path: PathBuf = place.path();
    place
        .is_mount_point()?
        .then_some(Cause::MountPoint { path })
}

fn sticky(place: &Place<'_>, base: Base<'_>) -> Option<Cause> {
    let (around, pin) = (fstat(base.fd).ok()?, place.lstat().ok()?);
    sticky_between(&around, &pin).then(|| Cause::Sticky {
        directory: base.path().to_owned(),
        uid: pin.st_uid,
    })
}

fn read_only(base: Base<'_>) -> Option<Cause> {
    let flags = fstatvfs(base.fd).ok()?.f_flag;
    flags
        .contains(StatVfsMountFlags::RDONLY)
        .then(|| Cause::ReadOnlyFileSystem {
            path: base.path().to_owned(),
        })
}
