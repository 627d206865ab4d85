//! Whether a bpffs is mounted where a path leads to something else.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::iter::successors;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::cause::Cause;
use crate::hidden::HiddenBpffs;
use crate::magic::FileSystem;
use crate::mountinfo::Mount;
use crate::mounts::{Directory, MountInfo, Row, Table, of_process_1};

/// `path` is on another file system.
#[cold]
pub(crate) fn not_bpffs(path: &Path, found: FileSystem) -> Cause {
    not_bpffs_below(path, Path::new(""), found, None)
}

/// `path` is on another file system, and so nothing of what should be below it is there: `rest`, of which
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
        hidden: look(path, rest),
    }
}

/// Below what is on another file system nothing is reached: what is mounted on the way is hidden.
fn look(path: &Path, rest: &Path) -> Option<HiddenBpffs> {
    let place = Directory::hold(path).ok()?;
    // It was mounted a moment ago.
    if place.fs.is_bpffs() {
        return None;
    }
    let mounts = MountInfo::own().ok()?;
    let table = mounts.table().ok()?;
    let leading = table.by_id(place.mount_id().ok()?);
    let begin = place.path_that_leads_here(leading.is_some())?;
    let end = match rest.as_os_str().is_empty() {
        true => begin.clone(),
        false => begin.join(rest),
    };
    let is_on_the_way = |at: &Path| at.starts_with(&begin) && end.starts_with(at);

    let is_here = |mount: &&Mount| is_on_the_way(&mount.mount_point);
    let mut here = table.bpffs.iter().filter(is_here).peekable();
    if here.peek().is_none() {
        let wanted = of_process_1(|line| {
            line.is_bpffs() && is_on_the_way(Path::new(OsStr::from_bytes(&line.mount_point())))
        });
        return Some(HiddenBpffs::InProcess1 {
            bpffs: Box::new(wanted?.pop()?),
        });
    }
    // The one on top of the others.
    here.rev().find_map(|bpffs| {
        let by = hides(&table, table.by_id(bpffs.mount_id)?, leading?)?;
        Some(HiddenBpffs::ByMount {
            bpffs: Box::new(bpffs.clone()),
            by: Box::new(mounts.by_id(by).ok()??),
        })
    })
}

/// The id of the mount where the way that ends in `leading` parts from the one to `hidden`.
fn hides(table: &Table, hidden: Row<'_>, leading: Row<'_>) -> Option<u64> {
    let up = |from| successors(Some(from), |row: &Row<'_>| table.parent(*row));
    // The last one's parent need not be listed.
    let stands_on: HashSet<u64> = up(hidden)
        .flat_map(|row| [row.mount_id, row.parent_id])
        .collect();
    let parted = |row: &Row<'_>| !stands_on.contains(&row.mount_id);
    let first = up(leading).take_while(parted).last()?;
    stands_on
        .contains(&first.parent_id)
        .then_some(first.mount_id)
}
