//! What is wrong with a path.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use bpf_pin_sys as abi;
use rustix::fs::{
    Access as Permission, AtFlags, CWD, FileType, Mode, Stat, StatVfsMountFlags, accessat, lstat,
    stat, statfs, statvfs,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::access::Access;
use crate::cause::Cause;
use crate::object::proof;
use crate::pathname::Pathname;
use crate::place::Place;
use crate::process::owns_all;
use crate::sys;
use crate::types::{FileSystem, Identity, Kind};

use super::privilege::for_bpf;
use super::shadowed::not_bpffs_below;

/// Where bpffs is usually mounted, from the root.
const USUAL_PLACE: &str = "sys/fs/bpf";
/// The longest name, and the longest path without its NUL.
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4095;

/// Why a directory that should be on a bpffs could not be opened.
pub(super) fn directory_at(path: &Path, errno: Errno) -> Option<Cause> {
    match errno {
        Errno::NOENT => missing(path, PinOrOpen::Open),
        _ => walk(path, errno),
    }
}

/// Why `BPF_OBJ_PIN` failed.
pub(super) fn pin(path: &Path, errno: Errno) -> Option<Cause> {
    match errno {
        Errno::EXIST => Some(Cause::Exists {
            holder: at_path(path, object_in),
        }),
        Errno::NOENT if path.as_os_str().as_bytes().ends_with(b"/") => {
            // What is missing may as well be a directory on the way.
            missing(path, PinOrOpen::Pin).or(Some(Cause::TrailingSlash))
        }
        Errno::NOENT => missing(path, PinOrOpen::Pin),
        // Before it looks at the path, the kernel looks at who is asking.
        Errno::PERM if sys::probe_bpf_allowed() == Errno::PERM => for_bpf(),
        Errno::PERM => dot(path).or_else(|| not_bpffs(directory(path), path, None)),
        Errno::ACCESS => unsearchable(path).or_else(|| unwritable(path)),
        Errno::ROFS => read_only(directory(path)),
        _ => walk(path, errno),
    }
}

/// Why `BPF_OBJ_GET` failed.
pub(super) fn open(path: &Path, access: Access, errno: Errno) -> Option<Cause> {
    match errno {
        Errno::NOENT => missing(path, PinOrOpen::Open),
        Errno::PERM if sys::probe_bpf_allowed() == Errno::PERM => for_bpf(),
        Errno::PERM => dot(path),
        Errno::ACCESS => unsearchable(path)
            .or_else(|| not_an_object(path))
            .or_else(|| unreadable(path, access)),
        Errno::INVAL if access != Access::ReadWrite => link_access(path),
        Errno::ROFS => read_only(path),
        _ => walk(path, errno),
    }
}

/// Why `unlink(2)` of a pin failed.
pub(super) fn unpin(path: &Path, errno: Errno) -> Option<Cause> {
    match errno {
        Errno::NOENT => missing(path, PinOrOpen::Open),
        Errno::PERM => dot(path).or_else(|| sticky(path)),
        Errno::ACCESS => unsearchable(path).or_else(|| unwritable(path)),
        Errno::ROFS => read_only(directory(path)),
        _ => walk(path, errno),
    }
}

/// Why a path could not be walked, whatever it was walked for.
#[cold]
pub(crate) fn walk(path: &Path, errno: Errno) -> Option<Cause> {
    match errno {
        Errno::NAMETOOLONG => too_long(path),
        Errno::NOTDIR => not_a_directory(path),
        Errno::ACCESS => unsearchable(path),
        Errno::PERM => dot(path),
        Errno::LOOP => not_followed(path),
        Errno::NOENT if path.as_os_str().is_empty() => Some(Cause::EmptyPath),
        Errno::NOENT => first_missing(path).map(|(_, missing)| Cause::Missing {
            path: dangling(&missing).unwrap_or(missing),
        }),
        _ => None,
    }
}

/// The first symbolic link that its mount lets nobody follow.
fn not_followed(path: &Path) -> Option<Cause> {
    let is_it = |prefix: &PathBuf| {
        let is_link = at_path(prefix, |place| place.is_symbolic_link().ok());
        is_link == Some(true)
            && statfs(directory(prefix)).is_ok_and(|stat| !FileSystem::follows_links(&stat))
    };
    let link = prefixes(path).into_iter().find(is_it);
    link.map(|path| Cause::SymbolicLink { path })
}

#[derive(PartialEq)]
enum PinOrOpen {
    Pin,
    Open,
}

/// "/", "/sys", "/sys/fs", …, or the same from "." on for a relative path.
fn prefixes(path: &Path) -> Vec<PathBuf> {
    // Of a path that the kernel never walks nothing need be looked at.
    if path.as_os_str().len() > PATH_MAX {
        return Vec::new();
    }
    let mut prefix = PathBuf::new();
    let mut all = Vec::new();
    if path.is_relative() {
        all.push(PathBuf::from("."));
    }
    for component in path.components() {
        prefix.push(component);
        if component != Component::CurDir {
            all.push(prefix.clone());
        }
    }
    all
}

/// Where the last component stands.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// The deepest prefix that exists, and the first that does not.
fn first_missing(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut existing = None;
    for prefix in prefixes(path) {
        match stat(&prefix) {
            Ok(_) => existing = Some(prefix),
            Err(Errno::NOENT) => return Some((existing?, prefix)),
            Err(_) => return None,
        }
    }
    None
}

fn missing(path: &Path, what_for: PinOrOpen) -> Option<Cause> {
    if path.as_os_str().is_empty() {
        return Some(Cause::EmptyPath);
    }
    let (existing, missing) = first_missing(path)?;
    if let Some(path) = dangling(&missing) {
        return Some(Cause::Missing { path });
    }
    // "name/." wants a directory.
    let is_all_of_it =
        missing.components().eq(path.components()) && !path.as_os_str().as_bytes().ends_with(b"/.");
    // Where a bpffs belongs and is not, it is no wonder that nothing exists.
    let is_unexpected = !is_all_of_it && !existing.ends_with(USUAL_PLACE);
    let on_the_way = is_unexpected.then(|| missing.clone());
    if let Some(cause) = not_bpffs(&existing, path, on_the_way) {
        return Some(cause);
    }
    // That nothing has the name yet is what a pin wants.
    let expected = what_for == PinOrOpen::Pin && is_all_of_it;
    (!expected).then_some(Cause::Missing { path: missing })
}

/// What a symbolic link, or a chain of them, leads to and is not there.
fn dangling(path: &Path) -> Option<PathBuf> {
    /// As many as the kernel follows.
    const MOST: usize = 40;

    let mut path = path.to_owned();
    let mut is_link = false;
    for _ in 0..MOST {
        match std::fs::read_link(&path) {
            Ok(target) => path = directory(&path).join(target),
            Err(_) => return is_link.then(|| first_missing(&path).map_or(path, |(_, path)| path)),
        }
        is_link = true;
    }
    None
}

/// What `existing`, of which `path` goes on, is on.
fn not_bpffs(existing: &Path, path: &Path, missing: Option<PathBuf>) -> Option<Cause> {
    let found = FileSystem::found_at(existing)?;
    let rest = match existing == Path::new(".") {
        true => path,
        false => path.strip_prefix(existing).unwrap_or(Path::new("")),
    };
    (!found.is_bpffs()).then(|| not_bpffs_below(existing, rest, found, missing))
}

/// The first component that bpffs refuses. Elsewhere a '.' is nobody's business.
fn dot(path: &Path) -> Option<Cause> {
    prefixes(path).into_iter().find_map(|prefix| {
        let component = prefix.file_name()?;
        let refused = component.as_bytes().contains(&b'.') && refuses_dots(directory(&prefix));
        refused.then(|| Cause::Dot {
            component: component.to_owned(),
        })
    })
}

/// A directory of bpffs does, but for one without permissions, where the kernel puts its own.
fn refuses_dots(directory: &Path) -> bool {
    let on_bpffs = FileSystem::found_at(directory).is_some_and(FileSystem::is_bpffs);
    on_bpffs && stat(directory).is_ok_and(|stat| !Mode::from_raw_mode(stat.st_mode).is_empty())
}

fn too_long(path: &Path) -> Option<Cause> {
    let length = path.as_os_str().len();
    let names = path.components().map(|name| name.as_os_str().len());
    match names.max() {
        _ if length > PATH_MAX => Some(Cause::PathTooLong { length }),
        Some(length) if length > NAME_MAX => Some(Cause::NameTooLong { length }),
        _ => None,
    }
}

fn not_a_directory(path: &Path) -> Option<Cause> {
    let on_the_way = prefixes(path);
    let found = on_the_way
        .into_iter()
        .find(|prefix| stat(prefix).is_ok_and(|stat| file_type(&stat) != FileType::Directory))?;
    Some(Cause::NotADirectory { path: found })
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn denied(path: &Path, wanted: Permission) -> bool {
    accessat(CWD, path, wanted, AtFlags::EACCESS) == Err(Errno::ACCESS)
}

fn blocked(path: &Path, wanted: Wanted, read_only_would_do: bool) -> Option<Cause> {
    let stat = stat(path).ok()?;
    Some(blocked_by(
        path.to_owned(),
        &stat,
        wanted,
        read_only_would_do,
    ))
}

/// A permission in words.
pub(super) type Wanted = &'static str;

pub(super) fn blocked_by(
    path: PathBuf,
    stat: &Stat,
    wanted: Wanted,
    read_only_would_do: bool,
) -> Cause {
    Cause::Blocked {
        path,
        mode: (Mode::from_raw_mode(stat.st_mode) & Mode::all()).bits(),
        uid: stat.st_uid,
        wanted,
        read_only_would_do,
    }
}

pub(super) fn permission(access: Access) -> (Permission, Wanted) {
    match access {
        Access::ReadWrite => (Permission::READ_OK | Permission::WRITE_OK, "read and write"),
        Access::ReadOnly => (Permission::READ_OK, "read"),
        Access::WriteOnly => (Permission::WRITE_OK, "write"),
    }
}

/// The first directory on the way that may not be searched.
fn unsearchable(path: &Path) -> Option<Cause> {
    let mut on_the_way = prefixes(path);
    on_the_way.pop();
    let found = on_the_way
        .into_iter()
        .find(|prefix| denied(prefix, Permission::EXEC_OK))?;
    blocked(&found, "search", false)
}

fn unwritable(path: &Path) -> Option<Cause> {
    let directory = directory(path);
    if denied(directory, Permission::WRITE_OK) {
        return blocked(directory, "write", false);
    }
    None
}

/// The mode of the pin itself.
fn unreadable(path: &Path, access: Access) -> Option<Cause> {
    let (wanted, words) = permission(access);
    if !denied(path, wanted) {
        return None;
    }
    let read_only_would_do = access == Access::ReadWrite
        && Pathname::new(path)
            .is_ok_and(|name| sys::obj_get(name.as_c_str(), abi::BPF_F_RDONLY).is_ok());
    blocked(path, words, read_only_would_do)
}

fn not_an_object(path: &Path) -> Option<Cause> {
    let what = type_in_words(&stat(path).ok()?)?;
    let found = FileSystem::found_at(path)?;
    (what == "directory" || !found.is_bpffs()).then(|| Cause::NotAnObject {
        path: path.to_owned(),
        what,
        found,
    })
}

pub(super) fn type_in_words(stat: &Stat) -> Option<&'static str> {
    Some(match file_type(stat) {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        FileType::Fifo => "pipe",
        FileType::Socket => "socket",
        _ => return None,
    })
}

fn read_only(path: &Path) -> Option<Cause> {
    let flags = statvfs(path).ok()?.f_flag;
    flags
        .contains(StatVfsMountFlags::RDONLY)
        .then(|| Cause::ReadOnlyFileSystem {
            path: path.to_owned(),
        })
}

fn sticky(path: &Path) -> Option<Cause> {
    let directory = directory(path);
    let (around, pin) = (stat(directory).ok()?, lstat(path).ok()?);
    sticky_between(&around, &pin).then(|| Cause::Sticky {
        directory: directory.to_owned(),
        uid: pin.st_uid,
    })
}

/// Whether this user may not remove what has these attributes from a directory that has those.
pub(super) fn sticky_between(around: &Stat, pin: &Stat) -> bool {
    let user = geteuid().as_raw();
    Mode::from_raw_mode(around.st_mode).contains(Mode::SVTX)
        && around.st_uid != user
        && pin.st_uid != user
        && !owns_all()
}

/// Which object has the name: that name itself, not where a symbolic link leads.
pub(super) fn object_in(place: &Place<'_>) -> Option<Identity> {
    if place.is_symbolic_link().ok()? {
        return None;
    }
    object_behind(place)
}

fn object_behind(place: &Place<'_>) -> Option<Identity> {
    let fd = place
        .get(0)
        .or_else(|_| place.get(abi::BPF_F_RDONLY))
        .ok()?;
    proof::identity(fd.as_fd()).ok()
}

fn at_path<T>(path: &Path, look: impl FnOnce(&Place<'_>) -> Option<T>) -> Option<T> {
    let name = Pathname::new(path).ok()?;
    look(&Place {
        base: None,
        name: name.as_c_str(),
    })
}

fn link_access(path: &Path) -> Option<Cause> {
    let found = at_path(path, object_behind)?;
    (found.kind == Kind::Link).then_some(Cause::LinkAccess)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_lead_to_the_path() {
        let list = |path| {
            let all = prefixes(Path::new(path));
            all.iter()
                .map(|p| p.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(list("/a/b"), ["/", "/a", "/a/b"]);
        assert_eq!(list("a/b/"), [".", "a", "a/b"]);
        assert_eq!(list("./a/../b"), [".", "./a", "./a/..", "./a/../b"]);
        assert_eq!(list(""), ["."]);
    }

    #[test]
    fn what_exists_and_what_does_not() {
        let found = first_missing(Path::new("/proc/self/nothing/here"));
        let (existing, missing) = found.unwrap();
        assert_eq!(existing, Path::new("/proc/self"));
        assert_eq!(missing, Path::new("/proc/self/nothing"));
        assert_eq!(first_missing(Path::new("/proc/self")), None);
    }

    #[test]
    fn a_dot_outside_a_bpffs_is_no_cause() {
        assert_eq!(dot(Path::new("/proc/self/a.b")), None);
        assert_eq!(dot(Path::new("/nowhere.d/x")), None);
    }

    #[test]
    fn lengths() {
        let name = "n".repeat(256);
        let length = 256;
        assert_eq!(
            too_long(&Path::new("/a").join(&name)),
            Some(Cause::NameTooLong { length })
        );
        assert_eq!(too_long(Path::new("/a/b")), None);
        let path = "/ab".repeat(1400);
        assert_eq!(
            too_long(Path::new(&path)),
            Some(Cause::PathTooLong { length: 4200 })
        );
    }
}
