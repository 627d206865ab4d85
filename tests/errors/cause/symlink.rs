//! Symbolic links: loops, dangling links, and links to another file system.

use std::fs;
use std::os::unix::fs::symlink;

use bpf_pin::Map;
use bpf_pin::error::Cause;
use common::*;

use crate::cause::path::*;
use crate::cause::*;

#[common::test(OBJECTS)]
fn a_loop_of_links_has_no_cause() -> Outcome {
    let fs = TestFs::new();
    symlink("b", fs.at("a"))?;
    symlink("a", fs.at("b"))?;
    let eloop = libc::ELOOP;
    for path in [fs.at("a"), fs.at("a/flows")] {
        assert_fails(&open_fails(&path), Operation::Open, eloop, None);
        assert_fails(&statfs_fails(&path), Operation::Statfs, eloop, None);
    }
    let path = fs.at("a/flows");
    assert_fails(&pin_fails(&path), Operation::Pin, eloop, None);
    // The last component of a pin's path is not followed, so the name is taken.
    let cause = Cause::Exists { holder: None };
    assert_pin_fails(&fs.at("a"), libc::EEXIST, cause);
    assert_eq!(fs.names(), ["a", "b"]);
    Ok(())
}

#[common::test(OBJECTS)]
fn a_dangling_link_is_not_reported_as_missing_itself() -> Outcome {
    let fs = TestFs::new();
    let link = fs.at("link");
    symlink("gone", &link)?;
    let cause = Cause::Exists { holder: None };
    assert_pin_fails(&link, libc::EEXIST, cause);
    for error in [
        open_fails(&link),
        open_fails(fs.at("link/flows")),
        pin_fails(fs.at("link/flows")),
        statfs_fails(&link),
    ] {
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
        assert_cause_matches!(error, Cause::Missing { .. });
        // The link exists, its target does not.
        let wrong = format!("{} does not exist", link.display());
        assert!(!error.to_string().ends_with(&wrong), "{error}");
    }
    assert_eq!(fs.names(), ["link"]);

    // Opening follows a link to a pin. Pinning does not, because the link occupies the name.
    let id = pin_a_map(fs.at("gone"));
    assert_eq!(Map::open(&link)?.id()?, id);
    let holder = None;
    assert_pin_fails(&link, libc::EEXIST, Cause::Exists { holder });
    Ok(())
}

/// The target of a link decides, and is named only if it was examined.
#[common::test(OBJECTS)]
fn a_link_to_another_file_system_is_named() -> Outcome {
    let fs = TestFs::new();
    let dir = tempfile::tempdir()?;
    symlink(dir.path(), fs.at("out"))?;
    let cause = not_bpffs(fs.at("out"), None);
    assert_pin_fails(&fs.at("out/flows"), libc::EPERM, cause.clone());
    assert_open_fails(&fs.at("out/flows"), libc::ENOENT, cause);

    // The dot is in the target of the link, not in the path.
    symlink("a.b", fs.at("link"))?;
    let eperm = libc::EPERM;
    let path = fs.at("link");
    assert_fails(&open_fails(&path), Operation::Open, eperm, None);
    let path = fs.at("link/flows");
    assert_fails(&pin_fails(&path), Operation::Pin, eperm, None);
    assert_eq!(fs.names(), ["link", "out"]);
    assert_eq!(fs::read_dir(dir.path())?.count(), 0);
    Ok(())
}
