//! The parts that an inventory of a mountinfo walks, for tests.

use std::path::PathBuf;

use crate::procfs::{Mount, MountTable};

use super::instance::by_instance;

/// The bpffs mounts in a mountinfo and the parts to walk, from [`outline`].
#[derive(Debug)]
pub struct Outline {
    /// The bpffs mounts.
    pub bpffs: Vec<Mount>,
    /// The device of each instance, and the directories where its walks start.
    pub parts: Vec<(u64, Vec<PathBuf>)>,
}

/// Parses any text as mountinfo.
pub fn outline(text: &[u8]) -> Outline {
    let bpffs = MountTable::from_text(text.to_owned()).bpffs();
    let instances = by_instance(bpffs.clone());
    let parts = instances.iter().map(|instance| instance.outline());
    Outline {
        parts: parts.collect(),
        bpffs,
    }
}
