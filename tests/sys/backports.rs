//! Names that updates of older releases have, too.

use bpf_pin_sys::Version;

/// Names that updates of an older release have too: the release, the name.
const BACKPORTS: &[(Version, &str)] = &[
    (Version::new(6, 1), "bpf_lpm_trie_key_hdr.prefixlen"),
    (Version::new(6, 1), "BPF_F_TEST_SKB_CHECKSUM_COMPLETE"),
    (Version::new(6, 12), "BPF_F_TEST_SKB_CHECKSUM_COMPLETE"),
    (Version::new(6, 12), "BPF_F_PREORDER"),
    (
        Version::new(6, 12),
        "bpf_attr.link_create.cgroup.relative_fd",
    ),
    (
        Version::new(6, 12),
        "bpf_attr.link_create.cgroup.relative_id",
    ),
    (
        Version::new(6, 12),
        "bpf_attr.link_create.cgroup.expected_revision",
    ),
];

/// True if updates of `release` may have `name`, which a later release introduced.
pub fn is_backported(release: Version, name: &str) -> bool {
    BACKPORTS.contains(&(release, name))
}
