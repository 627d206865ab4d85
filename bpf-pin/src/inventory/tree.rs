//! Which mounts shadow which, at one moment.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::procfs::{Mount, MountTable};

/// What is mounted on what, as far as it may shadow a bpffs.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The mount points on each mount, by its id.
    points: HashMap<u64, HashSet<PathBuf>>,
    /// The mounts that no path leads to, not even their mount point.
    shadowed: HashSet<u64>,
    /// Mounts whose parents are not listed. This process's root may be at their mount point, and then
    /// nothing mounted over that is in the way.
    top: HashSet<u64>,
    /// The mount points of all bpffs.
    bpffs: HashSet<PathBuf>,
}

/// Where a mount is.
struct Row<'t> {
    mount_id: u64,
    parent_id: u64,
    mount_point: Cow<'t, Path>,
}

/// The row of this id. They are sorted.
fn find<'r, 't>(rows: &'r [Row<'t>], mount_id: u64) -> Option<&'r Row<'t>> {
    let at = rows.binary_search_by_key(&mount_id, |row| row.mount_id);
    Some(&rows[at.ok()?])
}

fn parent<'r, 't>(rows: &'r [Row<'t>], of: &Row<'t>) -> Option<&'r Row<'t>> {
    find(rows, of.parent_id).filter(|parent| parent.mount_id != of.mount_id)
}

impl Tree {
    /// The tree, and the bpffs mounts in it.
    pub(super) fn of(table: &MountTable) -> (Self, Vec<Mount>) {
        let (mut rows, mut bpffs) = (Vec::new(), Vec::new());
        for line in table.lines() {
            rows.push(Row {
                mount_id: line.mount_id,
                parent_id: line.parent_id,
                mount_point: line.mount_point(),
            });
            if line.is_bpffs() {
                bpffs.push(line.to_mount());
            }
        }
        let bpffs = table.unique(bpffs);
        rows.sort_by_key(|row| row.mount_id);
        rows.dedup_by_key(|row| row.mount_id);

        let mut tree = Self {
            bpffs: bpffs
                .iter()
                .map(|mount| mount.mount_point.clone())
                .collect(),
            ..Self::default()
        };
        // Each bpffs and what it is mounted on, parents first.
        let mut known = HashSet::new();
        let mut relevant = Vec::new();
        for mount in &bpffs {
            let start = relevant.len();
            let mut next = find(&rows, mount.mount_id);
            while let Some(row) = next.filter(|row| known.insert(row.mount_id)) {
                relevant.push(row);
                next = parent(&rows, row);
            }
            relevant[start..].reverse();
        }
        tree.find_points(&rows, &bpffs, &relevant);
        for row in relevant {
            let parent = parent(&rows, row);
            if parent.is_none() {
                tree.top.insert(row.mount_id);
            }
            let is_shadowed = parent.is_some_and(|parent| tree.shadowed.contains(&parent.mount_id))
                || tree.is_bypassed(row, parent);
            if is_shadowed {
                tree.shadowed.insert(row.mount_id);
            }
        }
        (tree, bpffs)
    }

    /// All mount points on a bpffs, and those on the mounts below it that are on the path to it.
    fn find_points(&mut self, rows: &[Row<'_>], bpffs: &[Mount], relevant: &[&Row<'_>]) {
        let bpffs: HashSet<u64> = bpffs.iter().map(|mount| mount.mount_id).collect();
        let mut paths: HashMap<u64, Vec<&Path>> = HashMap::new();
        for row in relevant {
            paths.entry(row.mount_id).or_default();
            let on_parent = paths.entry(row.parent_id).or_default();
            on_parent.push(&row.mount_point);
        }
        paths.values_mut().for_each(|paths| paths.sort());
        for row in rows {
            let Some(paths) = paths.get(&row.parent_id) else {
                continue;
            };
            let at = &*row.mount_point;
            let is_on_the_path = || {
                let next = paths.get(paths.partition_point(|path| *path < at));
                next.is_some_and(|path| path.starts_with(at))
            };
            if bpffs.contains(&row.parent_id) || is_on_the_path() {
                let points = self.points.entry(row.parent_id).or_default();
                points.insert(at.to_owned());
            }
        }
    }

    /// Whether the path to where it is mounted leads through another mount on its parent.
    fn is_bypassed(&self, mount: &Row<'_>, parent: Option<&Row<'_>>) -> bool {
        // A path that starts at the root does not pass what is mounted on it.
        let start = parent.map_or(Path::new("/"), |parent| &parent.mount_point);
        let is_top = parent.is_none_or(|parent| self.top.contains(&parent.mount_id));
        let directory = mount.mount_point.parent();
        directory.is_some_and(|path| self.is_covered(mount.parent_id, start, is_top, path))
    }

    /// Whether `path`, which starts at the mount's mount point, leads to that mount.
    pub(super) fn leads_to(&self, mount: &Mount, path: &Path) -> bool {
        let (id, start) = (mount.mount_id, &mount.mount_point);
        !self.shadowed.contains(&id) && !self.is_covered(id, start, self.top.contains(&id), path)
    }

    /// Whether something is mounted, on the mount of this id, between its mount point and `path`.
    fn is_covered(&self, id: u64, start: &Path, is_top: bool, path: &Path) -> bool {
        let Some(points) = self.points.get(&id) else {
            return false;
        };
        path.ancestors()
            .take_while(|above| above.starts_with(start))
            .filter(|above| !is_top || *above != start)
            .any(|above| points.contains(above))
    }

    /// Whether something is mounted exactly there, on the mount of this id.
    pub(super) fn is_mount_point(&self, id: u64, path: &Path) -> bool {
        let points = self.points.get(&id);
        points.is_some_and(|points| points.contains(path))
    }

    pub(super) fn has_bpffs_at(&self, path: &Path) -> bool {
        self.bpffs.contains(path)
    }
}
