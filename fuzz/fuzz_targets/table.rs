//! For any mountinfo an inventory finds each bpffs, knows which mounts are shadowed as a walk of the path
//! would, and walks each instance in parts that are not within each other.
#![no_main]

#[path = "../../tests/mountinfo/naive.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod naive;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use bpf_pin::__proof::{Outline, outline};
use bpf_pin::Mount;
use libfuzzer_sys::fuzz_target;

use naive::naive;

fuzz_target!(|data: &[u8]| {
    match data {
        [0, _, text @ ..] => any_text(text),
        [1, plan @ ..] => namespace(plan),
        _ => {}
    }
});

fn any_text(text: &[u8]) {
    let found = outline(text);
    check_parts(&found);
    // The first of each id.
    let mut seen = HashSet::new();
    let lines = text.split(|&byte| byte == b'\n');
    let mounts: Vec<Mount> = lines.filter_map(naive).collect();
    let bpffs = mounts.iter().filter(|mount| mount.is_bpffs());
    let bpffs: Vec<_> = bpffs.filter(|mount| seen.insert(mount.mount_id)).collect();
    assert!(found.bpffs.iter().map(|(mount, _)| mount).eq(bpffs));
}

fn check_parts(found: &Outline) {
    let mut of_instance: HashMap<u64, Vec<&Path>> = HashMap::new();
    for (mount, _) in &found.bpffs {
        of_instance.entry(mount.dev).or_default().push(&mount.root);
    }
    assert_eq!(found.parts.len(), of_instance.len());
    for (dev, parts) in &found.parts {
        for (at, part) in parts.iter().enumerate() {
            let mut others = parts.iter().enumerate().filter(|(other, _)| *other != at);
            assert!(
                !others.any(|(_, other)| part.starts_with(other)),
                "{found:?}"
            );
        }
        let is_removed = |root: &Path| root.as_os_str().to_string_lossy().ends_with("//deleted");
        for root in &of_instance[dev] {
            let is_in = parts.iter().any(|part| root.starts_with(part));
            assert!(is_in || is_removed(root), "{found:?}");
        }
    }
}

struct Planned {
    parent: usize,
    path: PathBuf,
    is_bpffs: bool,
}

/// A mount namespace as a kernel could have it: on each of its mounts, others.
fn namespace(plan: &[u8]) {
    const NAMES: [&str; 4] = ["", "a", "a/b", "c"];
    const ROOTS: [&str; 4] = ["/", "/x", "/x/y", "/xy"];

    let mut mounts = vec![Planned {
        parent: 0,
        path: "/".into(),
        is_bpffs: false,
    }];
    let mut taken = HashSet::new();
    let mut text = "1 0 0:1 / / rw - rootfs none rw\n".to_owned();
    for bytes in plan.chunks_exact(2).take(40) {
        let parent = usize::from(bytes[0]) % mounts.len();
        let path = mounts[parent].path.join(NAMES[usize::from(bytes[1] & 3)]);
        // What is mounted on the root itself is passed by who begins there.
        if path == Path::new("/") || !taken.insert((parent, path.clone())) {
            continue;
        }
        let is_bpffs = bytes[1] & 4 != 0;
        let (fs_type, dev) = match is_bpffs {
            true => ("bpf", 2 + (bytes[1] >> 3 & 1)),
            false => ("tmpfs", 9),
        };
        let root = ROOTS[usize::from(bytes[1] >> 4 & 3)];
        let (id, parent_id, at) = (mounts.len() + 1, parent + 1, path.display());
        text += &format!("{id} {parent_id} 0:{dev} {root} {at} rw - {fs_type} none rw\n");
        mounts.push(Planned {
            parent,
            path,
            is_bpffs,
        });
    }
    let found = outline(text.as_bytes());
    check_parts(&found);
    let mut leads = found.bpffs.iter();
    for (at, mount) in mounts
        .iter()
        .enumerate()
        .filter(|(_, mount)| mount.is_bpffs)
    {
        let (bpffs, leads) = leads.next().expect("each of type bpf");
        assert_eq!(bpffs.mount_id, at as u64 + 1);
        assert_eq!(*leads, walk(&mounts, &mount.path) == at, "{at}:\n{text}");
    }
}

/// The mount that a path leads to, name by name, as the kernel goes.
fn walk(mounts: &[Planned], path: &Path) -> usize {
    let mut here = 0;
    let mut at = PathBuf::new();
    for name in path {
        at.push(name);
        while let Some(next) =
            (1..mounts.len()).find(|&next| mounts[next].parent == here && mounts[next].path == at)
        {
            here = next;
        }
    }
    here
}
