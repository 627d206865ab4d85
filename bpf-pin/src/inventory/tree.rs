//! Which mounts hide which, as it was at one moment.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::bpffs::Mount;

/// What is mounted on what.
#[derive(Debug)]
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
    pub(super) fn of(mounts: &[Mount]) -> Self {
        let mut tree = Self {
            points: HashMap::new(),
            hidden: HashSet::new(),
            top: HashSet::new(),
            of_bpffs: HashSet::new(),
        };
        let by_id: HashMap<u64, &Mount> =
            mounts.iter().map(|mount| (mount.mount_id, mount)).collect();
        for mount in mounts {
            let points = tree.points.entry(mount.parent_id).or_default();
            points.insert(mount.mount_point.clone());
            if mount.is_bpffs() {
                tree.of_bpffs.insert(mount.mount_point.clone());
            }
            if parent_of(mount, &by_id).is_none() {
                tree.top.insert(mount.mount_id);
            }
        }
        tree.find_hidden(mounts, &by_id);
        tree
    }

    fn find_hidden(&mut self, mounts: &[Mount], by_id: &HashMap<u64, &Mount>) {
        let mut known: HashSet<u64> = HashSet::new();
        let mut on_the_way = Vec::new();
        for mount in mounts {
            // Up to what is known, and down again.
            let mut next = Some(mount);
            while let Some(mount) = next.filter(|mount| known.insert(mount.mount_id)) {
                on_the_way.push(mount);
                next = parent_of(mount, by_id);
            }
            while let Some(mount) = on_the_way.pop() {
                let parent = parent_of(mount, by_id);
                let is_hidden = parent.is_some_and(|parent| self.hidden.contains(&parent.mount_id))
                    || self.is_passed_by(mount, parent);
                if is_hidden {
                    self.hidden.insert(mount.mount_id);
                }
            }
        }
    }

    /// Whether the way to where it is mounted leads through another mount on its parent.
    fn is_passed_by(&self, mount: &Mount, parent: Option<&Mount>) -> bool {
        let begin = parent.map(|parent| &*parent.mount_point);
        let is_top = parent.is_none_or(|parent| self.top.contains(&parent.mount_id));
        let Some(on_the_way) = mount.mount_point.parent() else {
            return false;
        };
        self.is_covered(mount.parent_id, begin, is_top, on_the_way)
    }

    /// Whether `path`, as the mount would have it, leads to that mount.
    pub(super) fn leads_to(&self, mount: &Mount, path: &Path) -> bool {
        let (id, begin) = (mount.mount_id, &mount.mount_point);
        !self.hidden.contains(&id)
            && !self.is_covered(id, Some(begin), self.top.contains(&id), path)
    }

    /// Whether something is mounted, on the mount of this id, on the path from where that begins.
    fn is_covered(&self, id: u64, begin: Option<&Path>, is_top: bool, path: &Path) -> bool {
        let Some(points) = self.points.get(&id) else {
            return false;
        };
        path.ancestors()
            .take_while(|above| begin.is_none_or(|begin| above.starts_with(begin)))
            .filter(|above| !is_top || Some(*above) != begin)
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

/// What is listed of it.
fn parent_of<'m>(mount: &Mount, by_id: &HashMap<u64, &'m Mount>) -> Option<&'m Mount> {
    let is_another = mount.parent_id != mount.mount_id;
    by_id.get(&mount.parent_id).copied().filter(|_| is_another)
}
