//! Where something is mounted on a bpffs, and where a bpffs is mounted, at one moment.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::procfs::{Line, Mount};

#[derive(Debug)]
pub(super) struct MountPoints {
    /// On each bpffs mount, by its id.
    on_bpffs: HashMap<u64, HashSet<PathBuf>>,
    of_bpffs: HashSet<PathBuf>,
}

impl MountPoints {
    pub(super) fn new(lines: &[Line<'_>], bpffs: &[Mount]) -> Self {
        let ids: HashSet<u64> = bpffs.iter().map(|mount| mount.mount_id).collect();
        let mut on_bpffs: HashMap<u64, HashSet<PathBuf>> = HashMap::new();
        for line in lines {
            if ids.contains(&line.parent_id) && line.parent_id != line.mount_id {
                let points = on_bpffs.entry(line.parent_id).or_default();
                points.insert(line.mount_point().into_owned());
            }
        }
        let of_bpffs = bpffs.iter().map(|mount| mount.mount_point.clone());
        Self {
            on_bpffs,
            of_bpffs: of_bpffs.collect(),
        }
    }

    /// Whether something is mounted exactly there, on the mount of this id.
    pub(super) fn is_covered(&self, mount_id: u64, path: &Path) -> bool {
        let points = self.on_bpffs.get(&mount_id);
        points.is_some_and(|points| points.contains(path))
    }

    pub(super) fn has_bpffs_at(&self, path: &Path) -> bool {
        self.of_bpffs.contains(path)
    }
}
