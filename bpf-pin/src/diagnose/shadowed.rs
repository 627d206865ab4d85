//! Finds a bpffs that is mounted at a path, but is below a mount of another file system.

use std::path::{Path, PathBuf};

use crate::error::Cause;
use crate::procfs::{Directory, Line, MountInfo, MountTable, ShadowedBpffs};
use crate::types::FileSystem;

/// The cause if `path` is on another file system.
#[cold]
pub(crate) fn not_bpffs(path: &Path, found: FileSystem) -> Cause {
    not_bpffs_below(path, Path::new(""), found, None)
}

/// The cause if `path` is on another file system, and so does not contain `rest`. `missing` is the first
/// directory of `rest`.
#[cold]
pub(super) fn not_bpffs_below(
    path: &Path,
    rest: &Path,
    found: FileSystem,
    missing: Option<PathBuf>,
) -> Cause {
    Cause::NotBpffs {
        path: path.to_owned(),
        found,
        missing,
        hidden: find(path, rest),
    }
}

fn find(path: &Path, rest: &Path) -> Option<ShadowedBpffs> {
    let directory = Directory::hold(path).ok()?;
    // A bpffs was mounted in the meantime.
    if directory.fs.is_bpffs() {
        return None;
    }
    let table = MountInfo::own().ok()?.read().ok()?;
    let mounts: Vec<_> = table.lines().collect();
    let found = by_id(&mounts, directory.mount_id().ok()?);
    let begin = directory.reachable_path(found.is_some())?;
    let end = begin.join(rest);
    // The other file system has no directory below `path`, so a mount there is not reachable.
    let is_shadowed = |line: &Line<'_>| {
        let at = line.mount_point();
        line.is_bpffs() && at.starts_with(&begin) && end.starts_with(&at)
    };
    let mut is_listed = false;
    // The topmost one.
    for bpffs in mounts.iter().rev().filter(|line| is_shadowed(line)) {
        if let Some(by) = covering_mount(&mounts, bpffs, found?) {
            return Some(ShadowedBpffs::ByMount {
                bpffs: bpffs.to_mount().into(),
                by: by.to_mount().into(),
            });
        }
        is_listed = true;
    }
    if is_listed {
        return None;
    }
    let table = MountTable::of_process_1()?;
    let bpffs = table.lines().filter(is_shadowed).last()?;
    Some(ShadowedBpffs::InProcess1 {
        bpffs: bpffs.to_mount().into(),
    })
}

fn by_id<'m>(mounts: &'m [Line<'m>], id: u64) -> Option<&'m Line<'m>> {
    mounts.iter().find(|line| line.mount_id == id)
}

/// The mount that this one is mounted on, if it is listed.
fn parent<'m>(mounts: &'m [Line<'m>], line: &Line<'_>) -> Option<&'m Line<'m>> {
    by_id(mounts, line.parent_id).filter(|parent| parent.mount_id != line.mount_id)
}

/// The lowest mount that is an ancestor of `found`, or `found` itself, but not an ancestor of `shadowed`.
fn covering_mount<'m>(
    mounts: &'m [Line<'m>],
    shadowed: &'m Line<'m>,
    found: &'m Line<'m>,
) -> Option<&'m Line<'m>> {
    let mut below = Vec::new();
    let mut next = Some(shadowed);
    while let Some(line) = next {
        // The parent of the topmost one may not be listed.
        below.extend([line.mount_id, line.parent_id]);
        next = parent(mounts, line);
    }
    let mut lowest = found;
    while !below.contains(&lowest.mount_id) {
        if below.contains(&lowest.parent_id) {
            return Some(lowest);
        }
        lowest = parent(mounts, lowest)?;
    }
    None
}
