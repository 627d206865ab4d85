//! Which mounts hide which, as it was at one moment.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::mountinfo::Mount;
use crate::mounts::{Row, Table};

/// What is mounted on what, as far as a bpffs may be hidden by it.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// On each mount, by its id, where others are mounted.
    points: HashMap<u64, HashSet<PathBuf>>,
    /// The mounts that no path leads to, not even the one where they are mounted.
    hidden: HashSet<u64>,
    /// Those whose parents are not listed: where they are mounted this process's root may be, and
    /// then nothing on top of that is in the way.
    top: HashSet<u64>,
    /// Where a bpffs is mounted.
    of_bpffs: HashSet<PathBuf>,
}

impl Tree {
    pub(super) fn of(table: &Table) -> Self {
        let mut tree = Self::default();
        let of_bpffs: HashSet<u64> = table.bpffs.iter().map(|mount| mount.mount_id).collect();
        let places = table.bpffs.iter().map(|mount| mount.mount_point.clone());
        tree.of_bpffs = places.collect();

        // Each bpffs and what it stands on: parents before what is mounted on them.
        let mut known = HashSet::new();
        let mut relevant = Vec::new();
        for mount in &table.bpffs {
            let begin = relevant.len();
            let mut next = table.by_id(mount.mount_id);
            while let Some(row) = next.filter(|row| known.insert(row.mount_id)) {
                relevant.push(row);
                next = table.parent(row);
            }
            relevant[begin..].reverse();
        }
        tree.find_points(table, &of_bpffs, &relevant);
        for row in relevant {
            let parent = table.parent(row);
            if parent.is_none() {
                tree.top.insert(row.mount_id);
            }
            let is_hidden = parent.is_some_and(|parent| tree.hidden.contains(&parent.mount_id))
                || tree.is_passed_by(row, parent);
            if is_hidden {
                tree.hidden.insert(row.mount_id);
            }
        }
        tree
    }

    /// Of a bpffs all points, of what it stands on those that are on the way to it.
    fn find_points(&mut self, table: &Table, of_bpffs: &HashSet<u64>, relevant: &[Row<'_>]) {
        let mut ways: HashMap<u64, Vec<&Path>> = HashMap::new();
        for row in relevant {
            ways.entry(row.mount_id).or_default();
            ways.entry(row.parent_id).or_default().push(row.mount_point);
        }
        ways.values_mut().for_each(|ways| ways.sort());
        for Row {
            parent_id,
            mount_point,
            ..
        } in table.rows()
        {
            let Some(ways) = ways.get(&parent_id) else {
                continue;
            };
            let first = ways.partition_point(|way| *way < mount_point);
            let is_on_the_way = || {
                let way = ways.get(first);
                way.is_some_and(|way| way.starts_with(mount_point))
            };
            if of_bpffs.contains(&parent_id) || is_on_the_way() {
                let points = self.points.entry(parent_id).or_default();
                points.insert(mount_point.to_owned());
            }
        }
    }

    /// Whether the way to where it is mounted leads through another mount on its parent.
    fn is_passed_by(&self, mount: Row<'_>, parent: Option<Row<'_>>) -> bool {
        // What is mounted on the root itself is passed by nobody who begins there.
        let begin = parent.map_or(Path::new("/"), |parent| parent.mount_point);
        let is_top = parent.is_none_or(|parent| self.top.contains(&parent.mount_id));
        let Some(on_the_way) = mount.mount_point.parent() else {
            return false;
        };
        self.is_covered(mount.parent_id, begin, is_top, on_the_way)
    }

    /// Whether `path`, as the mount would have it, leads to that mount.
    pub(super) fn leads_to(&self, mount: &Mount, path: &Path) -> bool {
        let (id, begin) = (mount.mount_id, &mount.mount_point);
        !self.hidden.contains(&id) && !self.is_covered(id, begin, self.top.contains(&id), path)
    }

    /// Whether something is mounted, on the mount of this id, on the path from where that begins.
    fn is_covered(&self, id: u64, begin: &Path, is_top: bool, path: &Path) -> bool {
        let Some(points) = self.points.get(&id) else {
            return false;
        };
        path.ancestors()
            .take_while(|above| above.starts_with(begin))
            .filter(|above| !is_top || *above != begin)
            .any(|above| points.contains(above))
    }

    /// Whether something is mounted exactly there, on the mount of this id.
    pub(super) fn is_mount_point(&self, id: u64, path: &Path) -> bool {
        let points = self.points.get(&id);
        points.is_some_and(|points| points.contains(path))
    }

    pub(super) fn has_bpffs_at(&self, path: &Path) -> bool {
        self.of_bpffs.contains(path)
    }
}
