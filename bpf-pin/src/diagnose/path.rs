//! Why a call on a path failed.
//!
//! A path and a name in a held directory are checked in the same way: from the directory where the lookup
//! begins, because the path of a held directory may have changed. A symbolic link at the end of a path is
//! followed, but not one at a name in a held directory.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    Access as Permission, AtFlags, CWD, FileType, Mode, Stat, StatFs, fstat, fstatfs, readlinkat,
    statat, statfs,
};
use rustix::io::Errno;

use crate::error::Cause;
use crate::path::{AtError, AtPath, Base, NAME_MAX, PATH_MAX, Pathname};
use crate::process::is_filtered;
use crate::proof;
use crate::sys;
use crate::types::{Access, FileSystem, Identity, Kind};

use super::access::{denied, read_only, sticky, unreadable, unsearchable, unwritable};
use super::privilege::for_bpf;
use super::shadowed::not_bpffs_below;

/// The usual mount point of bpffs, from the root.
const USUAL_MOUNT_POINT: &str = "sys/fs/bpf";

/// Why `BPF_OBJ_PIN` failed.
#[cold]
pub(crate) fn pin(at: &AtPath<'_>, object: BorrowedFd<'_>, error: AtError) -> Option<Cause> {
    match error.errno()? {
        // The kernel checks privileges and object before the path.
        Errno::PERM if sys::probe_bpf_allowed() == Errno::PERM => for_bpf(),
        Errno::INVAL => {
            let reason = proof::find_kind(object).err()?.into_reason(None);
            reason.cause().cloned()
        }
        errno => make(at, errno),
    }
}

/// Why `BPF_OBJ_GET` failed.
#[cold]
pub(crate) fn open(at: &AtPath<'_>, access: Access, error: AtError) -> Option<Cause> {
    match error.errno()? {
        Errno::PERM if sys::probe_bpf_allowed() == Errno::PERM => for_bpf(),
        Errno::ACCESS => unsearchable(at)
            .or_else(|| not_an_object(at))
            .or_else(|| unreadable(at, access)),
        Errno::INVAL if access != Access::ReadWrite => (object(at)?.kind == Kind::Link)
            .then(|| Cause::invalid("access", "must be ReadWrite for a link")),
        Errno::ROFS => read_only(at, at.relative()),
        errno => find(at, errno),
    }
}

/// Why a name could not be removed or renamed.
#[cold]
pub(crate) fn unpin(at: &AtPath<'_>, errno: Errno) -> Option<Cause> {
    match errno {
        Errno::ACCESS => unsearchable(at).or_else(|| unwritable(at)),
        Errno::PERM => sticky(at).or_else(|| dot(at)),
        Errno::ROFS => read_only(at, at.directory()),
        _ => find(at, errno),
    }
}

/// Why a name could not be created.
#[cold]
pub(crate) fn make(at: &AtPath<'_>, errno: Errno) -> Option<Cause> {
    match (errno, at.base) {
        (Errno::EXIST, _) => Some(Cause::Exists { holder: holder(at) }),
        (Errno::NOENT, Some(base)) => removed(base),
        // A directory of the path may be missing as well.
        (Errno::NOENT, None) => missing(at, Purpose::Make).or_else(|| {
            let is_directory = at.name.to_bytes().ends_with(b"/");
            is_directory.then_some(Cause::trailing_slash())
        }),
        (Errno::PERM, _) => dot(at).or_else(|| not_bpffs(at, at.directory(), None)),
        (Errno::ACCESS | Errno::ROFS, _) => unpin(at, errno),
        _ => walk_at(at, errno),
    }
}

/// Why a name was not found.
#[cold]
pub(crate) fn find(at: &AtPath<'_>, errno: Errno) -> Option<Cause> {
    match (errno, at.base) {
        (Errno::NOENT, None) => missing(at, Purpose::Find),
        (Errno::NOENT, Some(base)) => match at.lstat() {
            Err(Errno::NOENT) => removed(base).or_else(|| Some(missing_itself(at))),
            _ => symbolic_link(at),
        },
        _ => walk_at(at, errno),
    }
}

/// Why a directory in a directory that is held open could not be opened.
#[cold]
pub(crate) fn open_dir(at: &AtPath<'_>, errno: Errno) -> Option<Cause> {
    // If the name exists afterwards, the held directory was not removed, so the name was missing. (For a pin,
    // ENOENT may mean that the file has lost its object.)
    let was_missing = || (errno == Errno::NOENT && at.lstat().is_ok()).then(|| missing_itself(at));
    find(at, errno).or_else(was_missing)
}

/// Why a directory that should be on a bpffs could not be opened.
#[cold]
pub(crate) fn directory(path: &Path, errno: Errno) -> Option<Cause> {
    find(&Pathname::new(path).ok()?.at_path(), errno)
}

/// Why a directory that is held open could not be opened for reading.
#[cold]
pub(crate) fn list(base: Base<'_>, errno: Errno) -> Option<Cause> {
    let (base, name) = (Some(base), c".");
    let at = AtPath { base, name };
    match errno {
        Errno::ACCESS => {
            unsearchable(&at).or_else(|| denied(&at, Path::new("."), Permission::READ_OK, "read"))
        }
        Errno::NOENT => removed(base?),
        _ => None,
    }
}

/// Why a path could not be walked, on any file system.
#[cold]
pub(crate) fn walk(path: &Path, errno: Errno) -> Option<Cause> {
    walk_at(&Pathname::new(path).ok()?.at_path(), errno)
}

fn walk_at(at: &AtPath<'_>, errno: Errno) -> Option<Cause> {
    match errno {
        Errno::NAMETOOLONG => too_long(at.relative()),
        Errno::NOTDIR => not_a_directory(at),
        Errno::ACCESS => unsearchable(at),
        Errno::PERM => dot(at),
        Errno::LOOP => not_followed(at),
        Errno::NOENT if at.name.is_empty() => Some(Cause::empty_path()),
        Errno::NOENT => first_missing(at).map(|(_, missing)| Cause::Missing {
            path: dangling(missing).unwrap_or(missing.to_owned()),
        }),
        Errno::BUSY | Errno::XDEV => {
            let path = at.path();
            at.is_mount_point()?.then_some(Cause::MountPoint { path })
        }
        Errno::ISDIR => not_an_object(at),
        Errno::NOTEMPTY => Some(Cause::NotEmpty { path: at.path() }),
        _ => None,
    }
}

impl AtError {
    fn errno(self) -> Option<Errno> {
        match self {
            Self::Errno(errno) => Some(errno),
            Self::NeedsProc => None,
        }
    }
}

impl<'a> AtPath<'a> {
    /// The directory of the last component, relative to where the lookup begins.
    pub(super) fn directory(&self) -> &'a Path {
        parent(self.relative())
    }

    /// A prefix of the path, for messages.
    pub(super) fn displayed(&self, prefix: &Path) -> PathBuf {
        match self.base {
            Some(base) if prefix == Path::new(".") => base.path().to_owned(),
            Some(base) => base.path().join(prefix),
            None => prefix.to_owned(),
        }
    }

    pub(super) fn stat(&self, prefix: &Path) -> Option<Stat> {
        let flags = match self.base {
            // Looking up "." in it needs search permission.
            Some(base) if prefix == Path::new(".") => return fstat(base.fd).ok(),
            Some(_) => AtFlags::SYMLINK_NOFOLLOW,
            None => AtFlags::empty(),
        };
        statat(self.begin(), Pathname::known(prefix).as_c_str(), flags).ok()
    }

    pub(super) fn statfs(&self, prefix: &Path) -> Option<StatFs> {
        match self.base {
            // The path crosses no mount.
            Some(base) => fstatfs(base.fd).ok(),
            None => statfs(Pathname::known(prefix).as_c_str()).ok(),
        }
    }

    fn file_system(&self, prefix: &Path) -> Option<FileSystem> {
        self.statfs(prefix).map(|stat| FileSystem::from_stat(&stat))
    }

    /// The prefixes of the path: "/", "/sys", "/sys/fs", … A relative path begins with ".".
    pub(super) fn prefixes(&self) -> Vec<&'a Path> {
        let path = self.relative();
        // The kernel rejects a longer path.
        if path.as_os_str().len() > PATH_MAX {
            return Vec::new();
        }
        let here = Path::new(".");
        let mut all = Vec::new();
        // Without slashes at the end.
        let mut rest = Some(path.components().as_path());
        while let Some(prefix) = rest {
            all.push(if prefix == Path::new("") {
                here
            } else {
                prefix
            });
            rest = prefix.parent().filter(|_| prefix != here);
        }
        all.reverse();
        all
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The purpose of looking up a path that was not found.
#[derive(PartialEq)]
enum Purpose {
    Make,
    Find,
}

/// ENOENT of a path.
fn missing(at: &AtPath<'_>, purpose: Purpose) -> Option<Cause> {
    let path = at.relative();
    if path.as_os_str().is_empty() {
        return Some(Cause::empty_path());
    }
    let (existing, missing) = first_missing(at)?;
    if let Some(path) = dangling(missing) {
        return Some(Cause::Missing { path });
    }
    // "name/." requires a directory.
    let is_whole = missing == path && !path.as_os_str().as_bytes().ends_with(b"/.");
    let path = missing.to_owned();
    // At the usual mount point a missing name is expected if no bpffs is mounted.
    let is_unexpected = !is_whole && !existing.ends_with(USUAL_MOUNT_POINT);
    not_bpffs(at, existing, is_unexpected.then(|| path.clone())).or_else(|| {
        // The name of a new pin is expected to be missing.
        let is_expected = purpose == Purpose::Make && is_whole;
        (!is_expected).then_some(Cause::Missing { path })
    })
}

fn missing_itself(at: &AtPath<'_>) -> Cause {
    Cause::Missing { path: at.path() }
}

/// The deepest prefix that exists, and the first that does not.
fn first_missing<'a>(at: &AtPath<'a>) -> Option<(&'a Path, &'a Path)> {
    let mut existing = None;
    for prefix in at.prefixes() {
        let name = Pathname::known(prefix);
        match statat(at.begin(), name.as_c_str(), AtFlags::empty()) {
            Ok(_) => existing = Some(prefix),
            Err(Errno::NOENT) => return Some((existing?, prefix)),
            Err(_) => return None,
        }
    }
    None
}

/// The missing target of a symbolic link, or of a chain of symbolic links.
fn dangling(path: &Path) -> Option<PathBuf> {
    /// The limit of the kernel.
    const MAX_LINKS: usize = 40;

    let mut path = path.to_owned();
    for followed in 0..MAX_LINKS {
        let name = Pathname::known(&path);
        let Ok(target) = readlinkat(CWD, name.as_c_str(), Vec::new()) else {
            if followed == 0 {
                return None;
            }
            let missing = first_missing(&name.at_path()).map(|(_, missing)| missing.to_owned());
            return Some(missing.unwrap_or(path));
        };
        path = parent(&path).join(OsStr::from_bytes(target.as_bytes()));
    }
    None
}

/// The cause if the directory was removed: it has no links left.
fn removed(base: Base<'_>) -> Option<Cause> {
    (fstat(base.fd).ok()?.st_nlink == 0).then(|| Cause::Removed {
        path: base.path().to_owned(),
    })
}

/// The cause if `existing`, a prefix of the path, is not on a bpffs.
fn not_bpffs(at: &AtPath<'_>, existing: &Path, missing: Option<PathBuf>) -> Option<Cause> {
    let found = at.file_system(existing)?;
    let path = at.relative();
    let rest = if existing == Path::new(".") {
        path
    } else {
        path.strip_prefix(existing).unwrap_or(Path::new(""))
    };
    (!found.is_bpffs()).then(|| not_bpffs_below(existing, rest, found, missing))
}

/// The first component with a '.' that bpffs rejects. It accepts one only in a directory without any
/// permissions, such as the kernel uses for its own names.
fn dot(at: &AtPath<'_>) -> Option<Cause> {
    let has_dot = |name: &OsStr| name.as_bytes().contains(&b'.');
    let is_rejected = |directory: &Path| {
        let on_bpffs = at.file_system(directory).is_some_and(FileSystem::is_bpffs);
        let mode = at
            .stat(directory)
            .map(|stat| Mode::from_raw_mode(stat.st_mode));
        on_bpffs && mode.is_some_and(|mode| !mode.is_empty())
    };
    at.prefixes().into_iter().find_map(|prefix| {
        let component = prefix.file_name().filter(|name| has_dot(name))?;
        is_rejected(parent(prefix)).then(|| Cause::Dot {
            component: component.to_owned(),
        })
    })
}

fn too_long(path: &Path) -> Option<Cause> {
    let length = path.as_os_str().len();
    let names = path.components().map(|name| name.as_os_str().len());
    match names.max() {
        _ if length > PATH_MAX => Some(Cause::path_too_long(length)),
        Some(length) if length > NAME_MAX => Some(Cause::name_too_long(length)),
        _ => None,
    }
}

/// The first component that is not a directory.
fn not_a_directory(at: &AtPath<'_>) -> Option<Cause> {
    at.prefixes().into_iter().find_map(|prefix| {
        let path = at.displayed(prefix);
        match file_type(&at.stat(prefix)?) {
            FileType::Directory => None,
            FileType::Symlink => Some(Cause::SymbolicLink { path }),
            _ => Some(Cause::NotADirectory { path }),
        }
    })
}

fn symbolic_link(at: &AtPath<'_>) -> Option<Cause> {
    let is_link = at.is_symbolic_link().ok()?;
    is_link.then(|| Cause::SymbolicLink { path: at.path() })
}

/// ELOOP: finds the first symbolic link that its mount does not follow.
fn not_followed(at: &AtPath<'_>) -> Option<Cause> {
    match at.base {
        // On such a mount one link is enough for ELOOP. It may have been removed since.
        Some(base) if !base.follows_links && !is_filtered() => {
            Some(Cause::SymbolicLink { path: at.path() })
        }
        Some(_) => symbolic_link(at),
        None => at.prefixes().into_iter().find_map(|prefix| {
            let stat = at.statfs(parent(prefix))?;
            let is_followed = FileSystem::follows_links(&stat);
            symbolic_link(&Pathname::known(prefix).at_path()).filter(|_| !is_followed)
        }),
    }
}

fn not_an_object(at: &AtPath<'_>) -> Option<Cause> {
    let path = at.path();
    let what = match file_type(&at.stat(at.relative())?) {
        FileType::Symlink => return Some(Cause::SymbolicLink { path }),
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        FileType::Fifo => "pipe",
        FileType::Socket => "socket",
        _ => return None,
    };
    let found = at.file_system(at.relative())?;
    // A regular file of bpffs is a pinned object.
    (what == "directory" || !found.is_bpffs()).then_some(Cause::NotAnObject { path, what, found })
}

/// The object that is pinned at the name itself. Does not follow a symbolic link.
fn holder(at: &AtPath<'_>) -> Option<Identity> {
    let is_link = at.is_symbolic_link().ok()?;
    object(at).filter(|_| !is_link)
}

fn object(at: &AtPath<'_>) -> Option<Identity> {
    proof::identity(at.get_any_access().ok()?.as_fd()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn at(name: &CStr) -> AtPath<'_> {
        let base = None;
        AtPath { base, name }
    }

    #[test]
    fn prefixes_lead_to_the_path() {
        for (path, prefixes) in [
            (c"/a/b", &["/", "/a", "/a/b"][..]),
            (c"a/b/", &[".", "a", "a/b"]),
            (c"a//b/.", &[".", "a", "a//b"]),
            (c"./a/../b", &[".", "./a", "./a/..", "./a/../b"]),
            (c"", &["."]),
            (c".", &["."]),
        ] {
            let found: Vec<_> = at(path).prefixes();
            let found: Vec<_> = found
                .into_iter()
                .map(|prefix| prefix.to_str().unwrap())
                .collect();
            assert_eq!(found, prefixes, "{path:?}");
        }
    }

    #[test]
    fn the_first_missing_component_is_found() {
        let (existing, missing) = first_missing(&at(c"/proc/self/nothing/here")).unwrap();
        assert_eq!(existing, Path::new("/proc/self"));
        assert_eq!(missing, Path::new("/proc/self/nothing"));
        assert_eq!(first_missing(&at(c"/proc/self")), None);
    }

    #[test]
    fn a_dot_outside_a_bpffs_is_no_cause() {
        assert_eq!(dot(&at(c"/proc/self/a.b")), None);
        assert_eq!(dot(&at(c"/nowhere.d/x")), None);
    }

    #[test]
    fn lengths_of_paths_and_names() {
        let name = "n".repeat(256);
        let length = 256;
        assert_eq!(
            too_long(&Path::new("/a").join(&name)),
            Some(Cause::name_too_long(length))
        );
        assert_eq!(too_long(Path::new("/a/b")), None);
        let path = "/ab".repeat(1400);
        assert_eq!(too_long(Path::new(&path)), Some(Cause::path_too_long(4200)));
    }
}
