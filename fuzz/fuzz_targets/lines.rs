//! Any text, read in any pieces, gives the same mounts as a second parser.
#![no_main]

#[path = "../../tests/bpffs/mountinfo/reference.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod reference;

use bpf_pin::bpffs::Mount;
use libfuzzer_sys::fuzz_target;

use reference::{Random, ShortReads, reference_option, reference_parse};

fuzz_target!(|data: &[u8]| {
    let [seed, most, text @ ..] = data else {
        return;
    };
    let expected: Vec<Mount> = text
        .split(|&byte| byte == b'\n')
        .filter_map(reference_parse)
        .collect();
    let pieces = ShortReads::new(text, Random::new((*seed).into()), 1 + usize::from(*most));
    let mounts = Mount::parse_all(pieces).expect("nothing fails");
    assert_eq!(mounts, expected);
    for mount in &mounts {
        for name in ["mode", "uid", "ro", "delegate_cmds"] {
            let (own, of_all) = (mount.option(name), mount.super_option(name));
            assert_eq!(own, reference_option(&mount.options, name));
            assert_eq!(of_all, reference_option(&mount.super_options, name));
        }
        let is_read_only = ["ro"].iter().any(|name| {
            reference_option(&mount.options, name).is_some()
                || reference_option(&mount.super_options, name).is_some()
        });
        assert_eq!(mount.is_read_only(), is_read_only);
        let is_shown = reference_option(&mount.super_options, "mode").is_some();
        assert!(mount.is_bpffs() || mount.mode().is_none());
        assert!(!mount.is_bpffs() || is_shown || mount.mode() == Some(0o777));
    }
});
