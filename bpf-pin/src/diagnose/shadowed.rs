//! Finds a bpffs that is mounted where a path leads to another file system.

use std::collections::{HashMap, HashSet};
use std::iter::successors;
use std::path::{Path, PathBuf};

use crate::error::Cause;
use crate::procfs::{Directory, Line, MountInfo, MountTable, ShadowedBpffs};
use crate::types::FileSystem;

/// `path` is on another file system.
#[cold]
pub(crate) fn not_bpffs(path: &Path, found: FileSystem) -> Cause {
    not_bpffs_below(path, Path::new(""), found, None)
}

/// `path` is on another file system, so nothing of what should be below it exists: `rest`, of which
/// `missing` is the first directory.
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
    let place = Directory::hold(path).ok()?;
    // It was mounted in the meantime.
    if place.fs.is_bpffs() {
        return None;
    }
    let table = MountInfo::own().ok()?.read().ok()?;
    let mounts: HashMap<u64, Line<'_>> = table.lines().map(|line| (line.mount_id, line)).collect();
    let leading = mounts.get(&place.mount_id().ok()?);
    let begin = place.reachable_path(leading.is_some())?;
    let end = match rest.as_os_str().is_empty() {
        true => begin.clone(),
        false => begin.join(rest),
    };
    // Nothing below another file system is reached, so what is mounted there is shadowed.
    let is_shadowed = |line: &Line<'_>| {
        let at = line.mount_point();
        line.is_bpffs() && at.starts_with(&begin) && end.starts_with(&at)
    };
    let here = table.select(is_shadowed);
    if here.is_empty() {
        let bpffs = MountTable::of_process_1()?.select(is_shadowed).pop()?;
        return Some(ShadowedBpffs::InProcess1 {
            bpffs: bpffs.into(),
        });
    }
    // The topmost of them.
    here.into_iter().rev().find_map(|bpffs| {
        let by = first_apart(&mounts, mounts.get(&bpffs.mount_id)?, leading?)?;
        Some(ShadowedBpffs::ByMount {
            bpffs: bpffs.into(),
            by: by.to_mount().into(),
        })
    })
}

/// The mount at which the chain of `leading` leaves that of `shadowed`.
fn first_apart<'m>(
    mounts: &'m HashMap<u64, Line<'m>>,
    shadowed: &'m Line<'m>,
    leading: &'m Line<'m>,
) -> Option<&'m Line<'m>> {
    let up = |from| {
        let parent = |line: &&'m Line<'m>| {
            let parent = mounts.get(&line.parent_id);
            parent.filter(|parent| parent.mount_id != line.mount_id)
        };
        successors(Some(from), parent)
    };
    // The parent of the last one need not be listed.
    let below: HashSet<u64> = up(shadowed)
        .flat_map(|line| [line.mount_id, line.parent_id])
        .collect();
    let is_apart = |line: &&Line<'_>| !below.contains(&line.mount_id);
    let first = up(leading).take_while(is_apart).last()?;
    below.contains(&first.parent_id).then_some(first)
}
