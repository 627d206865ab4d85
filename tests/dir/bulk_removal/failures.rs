//! Entries that cannot be removed stay, and the report names them.

use std::collections::BTreeMap;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Error, Map, PinDir};
use common::*;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use rustix::thread::CapabilitySet;

use crate::bulk_removal::leftovers::{leftover, leftover_dir};
use crate::bulk_removal::{MOUNT, USER, names, removed, sorted};

fn assert_sticky(error: &Error, directory: &std::path::Path) {
    assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
    let directory = directory.to_owned();
    let cause = Cause::Sticky { directory, uid: 0 };
    assert_eq!(error.cause(), Some(&cause), "{error}");
    let operation = Operation::Remove;
    assert_eq!(error.operation(), operation, "{error:?}");
}

#[common::test(USER)]
fn a_sticky_directory_protects_entries_of_other_users() -> Outcome {
    let fs = TestFs::detached("755");
    let dir = PinDir::create(fs.at("app"), 0o1777)?;
    for name in ["theirs", "also theirs"] {
        dir.pin(&hash(), name)?;
    }
    dir.create_dir("their directory", 0o777)?;
    as_user(CapabilitySet::BPF, || -> Outcome {
        for name in ["ours", "ours too"] {
            dir.pin(&hash(), name)?;
        }
        dir.create_dir("our directory", 0o700)?
            .pin(&hash(), "map")?;
        let dry = dir.remove_where_dry_run(|_| true)?;
        assert_eq!(dry.removed.len(), 6);
        let report = dir.remove_where(|_| true)?;
        let ours = ["our directory", "ours", "ours too"];
        assert_eq!(sorted(&report.removed), ours);
        assert_eq!(report.failed.len(), 3, "{:?}", report.failed);
        for error in &report.failed {
            assert_sticky(error, dir.path());
        }
        let mut reported: Vec<_> = report.failed.iter().map(ToString::to_string).collect();
        reported.sort();
        let at = dir.path().display();
        let because = format!("{at} is a sticky directory, and the pin belongs to user 0");
        let expected = ["also theirs", "their directory", "theirs"];
        let expected = expected.map(|name| format!("remove {at}/{name}: {because}"));
        assert_eq!(reported, expected);
        Ok(())
    })?;
    assert_eq!(names(&dir)?, ["also theirs", "their directory", "theirs"]);
    Ok(())
}

#[common::test(MOUNT)]
fn mount_points_are_kept_and_reported() -> Outcome {
    with_mounted_bpffs(|root| -> Outcome {
        let path = root.join("app");
        let dir = PinDir::create(&path, 0o700)?;
        let map = hash();
        dir.pin(&map, "goes")?;
        dir.pin(&map, "bound")?;
        for name in ["another", "same", "plain"] {
            dir.create_dir(name, 0o700)?.pin(&map, "below")?;
        }
        dir.create_dir("around", 0o700)?
            .create_dir("inner", 0o700)?;
        mount(
            "bpf",
            path.join("another"),
            "bpf",
            MountFlags::empty(),
            None,
        )?;
        PinDir::open(path.join("another"))?.pin(&map, "above")?;
        mount_bind(path.join("plain"), path.join("same"))?;
        mount(
            "bpf",
            path.join("around/inner"),
            "bpf",
            MountFlags::empty(),
            None,
        )?;
        mount_bind(path.join("goes"), path.join("bound"))?;
        let before = names(&dir)?;
        assert_eq!(before.len(), 6);

        let report = dir.remove_where(|_| true)?;
        let mut failed = BTreeMap::new();
        for error in &report.failed {
            let path = error.path().expect("a path");
            let cause = Cause::MountPoint { path: path.into() };
            assert_eq!(error.cause(), Some(&cause), "{error}");
            // The error has the entry's own name, and not its temporary one.
            let name = path.strip_prefix(dir.path())?.to_str().unwrap().to_owned();
            failed.insert(name, error.raw_os_error().expect("an errno"));
        }
        assert_eq!(sorted(&report.removed), ["goes", "plain"]);
        assert_eq!(names(&dir)?, ["another", "around", "bound", "same"]);
        let reported: Vec<_> = failed.keys().map(String::as_str).collect();
        assert_eq!(reported, ["another", "around/inner", "bound", "same"]);

        // The mounts and the directories below them are unchanged.
        assert_eq!(
            PinDir::open(path.join("another"))?
                .get::<Map>("above")?
                .id()?,
            map.id()?
        );
        for name in ["another", "same", "around/inner", "bound"] {
            unmount(path.join(name), UnmountFlags::empty())?;
        }
        assert_eq!(
            dir.open_dir("another")?.get::<Map>("below")?.id()?,
            map.id()?
        );
        let report = dir.remove_where(|_| true)?;
        assert_eq!(removed(&report), ["another", "around", "bound", "same"]);
        assert!(names(&dir)?.is_empty());
        drop(dir);
        unmount(root, UnmountFlags::empty())?;
        Ok(())
    })
}

#[common::test(USER)]
fn an_unreadable_directory_is_reported() -> Outcome {
    let fs = TestFs::detached("755");
    let dir = PinDir::create(fs.at("app"), 0o733)?;
    dir.pin(&hash(), "map")?;
    as_user(CapabilitySet::empty(), || {
        for (report, operation) in [
            (dir.remove_where(|_| true), Operation::ListDir),
            (dir.remove_where_dry_run(|_| true), Operation::ListDir),
            (dir.remove_leftovers(), Operation::RemoveLeftovers),
        ] {
            let error = report.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EACCES));
            let wanted = "read";
            assert_cause_matches!(error, Cause::Blocked { wanted: w, .. } if *w == wanted);
            assert_eq!(error.operation(), operation);
        }
    });
    assert_eq!(names(&dir)?, ["map"]);
    Ok(())
}

#[common::test(USER)]
fn leftovers_of_another_user_are_reported() -> Outcome {
    let fs = TestFs::detached("755");
    let dir = PinDir::create(fs.at("app"), 0o1777)?;
    let map = hash();
    dir.pin(&map, leftover(1, 0))?;
    dir.create_dir(leftover_dir(2, 0), 0o700)?;
    as_user(CapabilitySet::BPF, || -> Outcome {
        dir.pin(&hash(), leftover(3, 0))?;
        let report = dir.remove_leftovers()?;
        assert_eq!(sorted(&report.removed), [leftover(3, 0)]);
        assert_eq!(report.failed.len(), 2, "{:?}", report.failed);
        for error in &report.failed {
            assert_cause_matches!(error, Cause::Sticky { .. } | Cause::Blocked { .. });
        }
        Ok(())
    })?;
    assert_eq!(names(&dir)?, [leftover(1, 0), leftover_dir(2, 0)]);
    assert_eq!(removed(&dir.remove_leftovers()?).len(), 2);
    assert!(names(&dir)?.is_empty());
    Ok(())
}

/// Names with a dot, which some kernels create in each bpffs and do not allow to be removed.
#[common::test(MOUNT)]
fn the_files_of_the_kernel_are_kept_and_reported() -> Outcome {
    let fs = TestFs::detached("700");
    let dir = PinDir::open(fs.root())?;
    dir.create_dir("dir", 0o700)?;
    let made = names(&dir)?.len() - 1;
    let report = dir.remove_where(|_| true)?;
    assert_eq!(report.removed, ["dir"]);
    assert_eq!(report.failed.len(), made, "{:?}", report.failed);
    for error in &report.failed {
        let Some(Cause::Dot { component }) = error.cause() else {
            return Err(error.to_string().into());
        };
        assert!(component == "maps.debug" || component == "progs.debug");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }
    println!("{made} names that the kernel has made");
    Ok(())
}
