//! Operations on two names or two directories: link, rename, exchange, copy.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use bpf_pin::abi::Version;
use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Map, PinDir};
use common::*;
use rustix::fs::{RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::helpers::*;
use crate::pin_dir::{MOUNTS, PINS, USERS};

/// Pins any map as "pin" and a new map as "other", and creates "dir". Returns the root directory and the new map.
fn two_pins_and_a_directory(fs: &TestFs) -> bpf_pin::Result<(PinDir, Map)> {
    let (dir, other) = (root_of(fs), hash());
    dir.pin(&any_map(), "pin")?;
    dir.pin(&other, "other")?;
    drop(dir.create_dir("dir", 0o700)?);
    Ok((dir, other))
}

#[common::test(PINS)]
fn link_creates_a_hard_link() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    dir.pin(&any_map(), "one")?;
    dir.set_mode("one", 0o640)?;
    dir.link("one", "two")?;
    assert_eq!(fs.names(), ["one", "two"]);
    let (one, two) = (dir.metadata("one")?, dir.metadata("two")?);
    assert_eq!(one.inode(), two.inode());
    assert_eq!((one.links(), two.links()), (2, 2));
    // Both names are the same file, so they share one mode.
    dir.set_mode("two", 0o600)?;
    assert_eq!(dir.metadata("one")?.mode(), 0o600);
    dir.unpin(&any_map(), "one")?;
    assert_eq!(dir.get::<Map>("two")?.identity()?, any_identity());
    assert_eq!(dir.metadata("two")?.links(), 1);
    // A second pin of the same object is a different file.
    dir.pin(&any_map(), "three")?;
    assert_ne!(dir.metadata("three")?.inode(), dir.metadata("two")?.inode());
    // For a symbolic link, the link itself is linked, not its target.
    symlink("two", fs.at("symlink"))?;
    dir.link("symlink", "again")?;
    assert_eq!(
        fs::read_link(fs.at("again"))?,
        fs::read_link(fs.at("symlink"))?
    );
    Ok(())
}

#[common::test(PINS)]
fn link_rejects_directories_and_taken_names() -> Outcome {
    let fs = TestFs::new();
    let (dir, other) = two_pins_and_a_directory(&fs)?;
    for (name, holder) in [("other", Some(other.identity()?)), ("dir", None)] {
        let error = unwrap_err(dir.link("pin", name));
        assert_fails(
            &error,
            Operation::HardLink,
            libc::EEXIST,
            Cause::Exists { holder },
        );
    }
    let error = unwrap_err(dir.link("gone", "new"));
    assert_fails(
        &error,
        Operation::HardLink,
        libc::ENOENT,
        missing(fs.at("gone")),
    );
    let error = unwrap_err(dir.link("dir", "new"));
    assert_fails(&error, Operation::HardLink, libc::EPERM, None);
    assert_eq!(fs.names(), ["dir", "other", "pin"]);
    Ok(())
}

#[common::test(USERS)]
fn link_reports_protected_hard_links() -> Outcome {
    let is_protected = fs::read_to_string("/proc/sys/fs/protected_hardlinks")?.trim() == "1";
    let fs = TestFs::detached("777");
    let dir = root_of(&fs);
    dir.pin(&any_map(), "pin")?;
    as_user(CapabilitySet::empty(), || match dir.link("pin", "new") {
        Ok(()) => assert!(!is_protected),
        Err(error) => {
            assert_fails(&error, Operation::HardLink, libc::EPERM, None);
            assert!(is_protected);
        }
    });
    assert_eq!(fs.names().len(), if is_protected { 1 } else { 2 });
    Ok(())
}

#[common::test(PINS)]
fn rename_never_replaces_an_entry() -> Outcome {
    let fs = TestFs::new();
    let (dir, other) = two_pins_and_a_directory(&fs)?;
    drop(dir.create_dir("empty", 0o700)?);
    symlink("gone", fs.at("symlink"))?;
    let names = fs.names();
    let (holder, own) = (Some(other.identity()?), Some(any_identity()));
    // Plain rename(2) would replace all of these targets, or do nothing and report success.
    let taken = [
        ("pin", "other", holder),
        ("pin", "symlink", None),
        ("pin", "dir", None),
        ("dir", "empty", None),
        ("dir", "pin", own),
        ("pin", "pin", own),
    ];
    for (from, to, holder) in taken {
        let error = unwrap_err(dir.rename(from, to));
        assert_fails(
            &error,
            Operation::Rename,
            libc::EEXIST,
            Cause::Exists { holder },
        );
    }
    assert_eq!(fs.names(), names);
    assert_eq!(dir.identity("other")?, other.identity()?);
    Ok(())
}

#[common::test(PINS)]
fn rename_keeps_the_file() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    dir.pin(&any_map(), "pin")?;
    dir.set_mode("pin", 0o604)?;
    let before = dir.metadata("pin")?;
    dir.rename("pin", "new")?;
    let after = dir.metadata("new")?;
    assert_eq!((after.inode(), after.mode()), (before.inode(), 0o604));
    let inside = dir.create_dir("dir", 0o700)?;
    inside.pin(&any_map(), "map")?;
    dir.rename("dir", "moved")?;
    assert_eq!(fs.names(), ["moved", "new"]);
    // A descriptor of the directory stays valid after the rename.
    inside.pin(&any_map(), "more")?;
    assert_eq!(names_in(&dir.open_dir("moved")?), ["map", "more"]);
    // For a symbolic link, the link itself is renamed, not its target.
    symlink("new", fs.at("symlink"))?;
    dir.rename("symlink", "alias")?;
    assert_eq!(fs::read_link(fs.at("alias"))?.to_str(), Some("new"));
    Ok(())
}

fn assert_lacks_exchange(dir: &PinDir, a: &str, b: &str) {
    let error = unwrap_err(dir.exchange(a, b));
    let (what, since) = ("RENAME_EXCHANGE on bpffs", Version::new(5, 17));
    assert_fails(
        &error,
        Operation::Exchange,
        libc::EINVAL,
        Cause::Unsupported { what, since },
    );
}

#[common::test(PINS)]
fn exchange_swaps_entries_or_reports_the_missing_feature() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    dir.pin(&hash(), "map")?;
    dir.pin(&prog(), "prog")?;
    drop(dir.create_dir("dir", 0o700)?);
    symlink("gone", fs.at("symlink"))?;
    let inodes = |names: &[&str]| {
        names
            .iter()
            .map(|name| dir.metadata(name).unwrap().inode())
            .collect::<Vec<_>>()
    };
    let names = ["map", "prog", "dir", "symlink"];
    let before = inodes(&names);
    for (i, a) in names.iter().enumerate() {
        for (j, b) in names.iter().enumerate().filter(|(j, _)| *j != i) {
            if kernel(5, 17).unmet().is_some() {
                assert_lacks_exchange(&dir, a, b);
                assert_eq!(inodes(&names), before);
                continue;
            }
            dir.exchange(a, b)?;
            let after = inodes(&names);
            assert_eq!((after[i], after[j]), (before[j], before[i]), "{a} and {b}");
            dir.exchange(a, b)?;
            assert_eq!(inodes(&names), before);
        }
    }
    assert_eq!(fs.names().len(), 4);
    Ok(())
}

#[common::test(PINS)]
fn exchange_names_the_missing_entry() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    dir.pin(&any_map(), "pin")?;
    symlink("pin", fs.at("symlink"))?;
    let gone = fs.at("gone");
    // The error names the missing entry, in either order.
    for (a, b) in [
        ("pin", "gone"),
        ("gone", "pin"),
        ("symlink", "gone"),
        ("gone", "symlink"),
    ] {
        let error = unwrap_err(dir.exchange(a, b));
        assert_fails(&error, Operation::Exchange, libc::ENOENT, missing(&gone));
    }
    assert_eq!(fs.names(), ["pin", "symlink"]);
    Ok(())
}

#[common::test(MOUNTS)]
fn rename_and_exchange_keep_mount_points() -> Outcome {
    let dir = tempfile::tempdir()?;
    in_mount_namespace(|| -> Outcome {
        mount_at("bpf", dir.path());
        let root = PinDir::open(dir.path())?;
        drop(root.create_dir("mounted", 0o700)?);
        root.pin(&any_map(), "pin")?;
        let at = |name: &str| dir.path().join(name).display().to_string();
        mount_at("tmpfs", at("mounted"));
        let assert_mount_point = |error, operation| {
            let path = at("mounted").into();
            assert_fails(&error, operation, libc::EBUSY, Cause::MountPoint { path });
        };
        assert_mount_point(unwrap_err(root.rename("mounted", "new")), Operation::Rename);
        assert_mount_point(unwrap_err(root.remove_dir("mounted")), Operation::Remove);
        if kernel(5, 17).unmet().is_none() {
            assert_mount_point(
                unwrap_err(root.exchange("mounted", "pin")),
                Operation::Exchange,
            );
            assert_mount_point(
                unwrap_err(root.exchange("pin", "mounted")),
                Operation::Exchange,
            );
        }
        assert_eq!(names_in(&root), ["mounted", "pin"]);
        Ok(())
    })
}

#[common::test(PINS)]
fn copy_to_pins_the_object_in_another_directory() -> Outcome {
    let fs = TestFs::new();
    let root = root_of(&fs);
    let (one, two) = (
        root.create_dir("one", 0o700)?,
        root.create_dir("two", 0o700)?,
    );
    one.pin(&any_map(), "pin")?;
    one.set_mode("pin", 0o644)?;
    one.copy_to("pin", &two)?;
    assert_eq!(two.identity("pin")?, any_identity());
    assert_eq!(two.metadata("pin")?.mode(), 0o600, "a new file");
    assert_ne!(two.metadata("pin")?.inode(), one.metadata("pin")?.inode());
    let error = unwrap_err(one.copy_to("pin", &two));
    let holder = Some(any_identity());
    assert_fails(
        &error,
        Operation::Pin,
        libc::EEXIST,
        Cause::Exists { holder },
    );
    let error = unwrap_err(one.copy_to("gone", &two));
    let path = fs.at("one/gone");
    assert_fails(&error, Operation::Open, libc::ENOENT, missing(path));
    Ok(())
}

#[common::test(MOUNTS)]
fn copy_to_works_across_bpffs_instances() -> Outcome {
    let (here, there) = (TestFs::detached("700"), TestFs::detached("700"));
    let (from, to) = (root_of(&here), root_of(&there));
    from.pin(&hash(), "map")?;
    from.pin(&prog(), "prog")?;
    for name in ["map", "prog"] {
        let moved = renameat_with(&from, name, &to, name, RenameFlags::NOREPLACE);
        assert_eq!(moved, Err(Errno::XDEV));
        from.copy_to(name, &to)?;
        assert_eq!(from.identity(name)?, to.identity(name)?);
    }
    assert_ne!(
        fs::metadata(here.root())?.dev(),
        fs::metadata(there.root())?.dev()
    );
    assert_eq!(there.names(), ["map", "prog"]);
    Ok(())
}

/// The kernel reports ENOENT for either name, so only one that is missing is named.
#[common::test(PINS)]
fn enoent_names_only_a_name_that_is_missing() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    dir.pin(&any_map(), "pin")?;
    type Attempt<'a> = &'a (dyn Fn(&str, &str) -> bpf_pin::Result<()> + Sync);
    let attempts: [(libc::c_long, Attempt<'_>); 2] = [
        (libc::SYS_linkat, &|from, to| dir.link(from, to)),
        (libc::SYS_renameat2, &|from, to| dir.rename(from, to)),
    ];
    for (call, attempt) in attempts {
        let error = attempt("missing", "new").unwrap_err();
        let path = fs.at("missing");
        assert_eq!(error.cause(), Some(&Cause::Missing { path }), "{error}");
        // The old name exists, and the new one need not.
        let error = with_seccomp_errno(call, None, libc::ENOENT as u32, || {
            attempt("pin", "new").unwrap_err()
        });
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
        assert_eq!(error.cause(), None, "{error}");
    }
    Ok(())
}
