//! Snapshots of a directory tree.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bpf_pin::{Identity, Object};

/// The entries of a tree by their paths. Symbolic links are not followed, but mounts are.
pub type Tree = BTreeMap<PathBuf, TreeEntry>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    pub inode: u64,
    pub mode: u32,
    pub uid: u32,
    /// The object of a pin, or the target of a link.
    pub content: String,
}

impl TreeEntry {
    pub fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// Reads the tree below `root`, without the kernel's own two files.
pub fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    list(root, Path::new(""), &mut tree);
    tree
}

/// The object that is pinned at `path`. `None` if nothing or a directory has the name.
pub fn pinned_identity(path: &Path) -> Option<Identity> {
    match Object::open(path) {
        Ok(object) => Some(object.identity().expect("an identity")),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
        Err(_) if path.is_dir() => None,
        Err(error) => panic!("{error}"),
    }
}

fn list(root: &Path, below: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(root.join(below)).expect("a directory") {
        let name = below.join(entry.unwrap().file_name());
        let path = root.join(&name);
        let stat = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            stat => stat.unwrap(),
        };
        let content = match stat.file_type() {
            kind if kind.is_dir() => "directory".to_owned(),
            kind if kind.is_symlink() => format!("{:?}", fs::read_link(&path).unwrap()),
            _ if name.extension().is_some() => continue,
            _ => pinned_identity(&path)
                .map_or_else(|| "gone".into(), |identity| identity.to_string()),
        };
        let (inode, mode, uid) = (stat.ino(), stat.mode(), stat.uid());
        let entry = TreeEntry {
            inode,
            mode,
            uid,
            content,
        };
        tree.insert(name.clone(), entry);
        if stat.is_dir() {
            list(root, &name, tree);
        }
    }
}
