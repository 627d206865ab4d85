//! What an inventory derives from mountinfo before it opens anything: for tests.

use std::path::PathBuf;

use crate::procfs::{Mount, MountTable};

use super::instance::by_instance;
use super::tree::Tree;

/// See [`outline`].
#[derive(Debug)]
pub struct Outline {
    /// Each bpffs mount, and whether its mount point leads to it.
    pub bpffs: Vec<(Mount, bool)>,
    /// The device of each instance, and the directories at which a walk of it starts.
    pub parts: Vec<(u64, Vec<PathBuf>)>,
}

/// Parses any text as mountinfo.
pub fn outline(text: &[u8]) -> Outline {
    let (tree, bpffs) = Tree::of(&MountTable::from_text(text.to_owned()));
    let instances = by_instance(bpffs.clone());
    let parts = instances.iter().map(|instance| instance.outline());
    let leads = |mount: &Mount| tree.leads_to(mount, &mount.mount_point);
    Outline {
        parts: parts.collect(),
        bpffs: bpffs
            .into_iter()
            .map(|mount| (mount.clone(), leads(&mount)))
            .collect(),
    }
}
