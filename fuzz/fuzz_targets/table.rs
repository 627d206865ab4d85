//! For any mountinfo an inventory finds each bpffs, and walks each instance in parts that are not within each
//! other.
#![no_main]

#[path = "../../tests/bpffs/mountinfo/naive.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod naive;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use bpf_pin::__proof::{Outline, outline};
use bpf_pin::bpffs::Mount;
use libfuzzer_sys::fuzz_target;

use naive::naive;

fuzz_target!(|data: &[u8]| {
    // The corpus begins with two other bytes.
    let Some(text) = data.get(2..) else {
        return;
    };
    let found = outline(text);
    check_parts(&found);
    // The first of each id.
    let mut seen = HashSet::new();
    let lines = text.split(|&byte| byte == b'\n');
    let mounts: Vec<Mount> = lines.filter_map(naive).collect();
    let bpffs = mounts.iter().filter(|mount| mount.is_bpffs());
    let bpffs: Vec<_> = bpffs.filter(|mount| seen.insert(mount.mount_id)).collect();
    assert!(found.bpffs.iter().eq(bpffs));
});

fn check_parts(found: &Outline) {
    let mut of_instance: HashMap<u64, Vec<&Path>> = HashMap::new();
    for mount in &found.bpffs {
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
