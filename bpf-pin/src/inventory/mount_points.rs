//! The mount points on each bpffs, and those of each bpffs, at one moment.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::procfs::{Line, Mount};

#[derive(Debug)]
pub(super) struct MountPoints {
    /// The mount points on a bpffs, with the ids of the bpffs mounts.
    on_bpffs: HashMap<PathBuf, Vec<u64>>,
    of_bpffs: HashSet<PathBuf>,
}

impl MountPoints {
    pub(super) fn new(lines: &[Line<'_>], bpffs: &[Mount]) -> Self {
        let ids: HashSet<u64> = bpffs.iter().map(|mount| mount.mount_id).collect();
        let mut on_bpffs: HashMap<PathBuf, Vec<u64>> = HashMap::new();
        for line in lines {
            if ids.contains(&line.parent_id) && line.parent_id != line.mount_id {
                let parents = on_bpffs.entry(line.mount_point().into_owned());
                parents.or_default().push(line.parent_id);
            }
        }
        let of_bpffs = bpffs.iter().map(|mount| mount.mount_point.clone());
        Self {
            on_bpffs,
            of_bpffs: of_bpffs.collect(),
        }
    }

    /// Returns true if something is mounted exactly there, on the mount with this id.
    pub(super) fn is_covered(&self, mount_id: u64, path: &Path) -> bool {
        let parents = self.on_bpffs.get(path);
        parents.is_some_and(|parents| parents.contains(&mount_id))
    }

    pub(super) fn has_bpffs_at(&self, path: &Path) -> bool {
        self.of_bpffs.contains(path)
    }
}
