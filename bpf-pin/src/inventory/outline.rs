//! What an inventory makes of a table of mounts before it looks at any of them: for tests.

use std::io::{self, Read};
use std::path::PathBuf;

use crate::mountinfo::Mount;
use crate::mounts::Table;

use super::instance::by_instance;
use super::tree::Tree;

/// See [`outline`].
#[derive(Debug)]
pub struct Outline {
    /// Of each mount its id, that of what it is mounted on where that is listed, and where it is.
    pub mounts: Vec<(u64, Option<u64>, PathBuf)>,
    /// Each of type bpf, and whether its mount point leads to it.
    pub bpffs: Vec<(Mount, bool)>,
    /// Of each instance its device, and the directories that it is to be walked from.
    pub parts: Vec<(u64, Vec<PathBuf>)>,
}

/// Of any text that is read as mountinfo is.
pub fn outline(mut source: impl Read) -> io::Result<Outline> {
    let table = Table::parse(&mut source)?;
    let tree = Tree::of(&table);
    let of_row = |row| {
        let parent = table.parent(row).map(|parent| parent.mount_id);
        (row.mount_id, parent, row.mount_point.to_owned())
    };
    let leads = |mount: &Mount| tree.leads_to(mount, &mount.mount_point);
    let instances = by_instance(table.bpffs.clone());
    Ok(Outline {
        mounts: table.rows().map(of_row).collect(),
        bpffs: table
            .bpffs
            .iter()
            .map(|mount| (mount.clone(), leads(mount)))
            .collect(),
        parts: instances
            .iter()
            .map(|instance| instance.outline())
            .collect(),
    })
}
