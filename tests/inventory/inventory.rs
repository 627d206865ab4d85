//! The inventory yields every pin of every bpffs once, and an error for everything it cannot read.

mod hidden;
mod json;
mod listing;
mod scale;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use bpf_pin::bpffs::{FileSystem, MountOptions};
use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Bpffs, Error, Map};
use common::*;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use listing::{Listing, list_below, pin, with_private_tmpfs};

const ROOT: &[Need] = &[cap::SYS_ADMIN];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    if hidden::run_if_requested() {
        return Some(ExitCode::SUCCESS);
    }
    None
}

/// Mounts a bpffs on a new directory.
fn mount_bpffs(at: &Path) -> Result<Bpffs, bpf_pin::Error> {
    fs::create_dir_all(at).expect("a mount point");
    MountOptions::new().mount(at)
}

fn bind_mount(from: &Path, to: &Path) -> Outcome {
    fs::create_dir_all(to)?;
    Ok(mount_bind(from, to)?)
}

fn mount_tmpfs(at: &Path) -> Outcome {
    Ok(mount("tmpfs", at, "tmpfs", MountFlags::empty(), None)?)
}

/// Pins a new map under each name, creates the directories, and returns the ids.
fn pin_maps(root: &Path, names: &[&str]) -> Result<Vec<u32>, bpf_pin::Error> {
    let one = |name: &&str| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("directories");
        pin(hash(), &path)
    };
    names.iter().map(one).collect()
}

/// Asserts that a hidden mount is reported as an error.
#[track_caller]
fn assert_hidden(error: &Error, path: &Path, is_cause: impl Fn(&Cause) -> bool) {
    assert_eq!(error.operation(), Operation::ListBpffs, "{error:?}");
    assert_eq!(error.path(), Some(path));
    assert!(error.cause().is_some_and(is_cause), "{error:?}");
}

#[common::test(ROOT)]
fn every_instance_is_listed_once() -> Outcome {
    with_private_tmpfs(|dir| {
        let (one, other) = (dir.join("one"), dir.join("other"));
        let (first, second) = (mount_bpffs(&one)?, mount_bpffs(&other)?);
        let ids = pin_maps(&one, &["a", "d/b", "d/e/c"])?;
        let more = pin_maps(&other, &["a"])?;
        // Bind mounts of the whole, elsewhere and over itself, of parts, and one inside the instance.
        bind_mount(&one, &dir.join("again"))?;
        bind_mount(&one, &one)?;
        bind_mount(&one.join("d"), &dir.join("part"))?;
        bind_mount(&other, &dir.join("again/d/e"))?;
        let Listing { pins, errors } = list_below(dir)?;
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(pins.len(), 4, "{pins:?}");
        for (bpffs, ids) in [(&first, &ids), (&second, &more)] {
            let mut of_it: Vec<_> = pins.iter().filter(|pin| pin.dev == bpffs.dev()).collect();
            of_it.sort_by_key(|pin| pin.info.identity().id);
            let found: Vec<_> = of_it.iter().map(|pin| pin.info.identity().id).collect();
            assert_eq!(found, *ids);
            // The path leads to the pin.
            for pin in of_it {
                assert_eq!(Map::open(&pin.path)?.id()?, pin.info.identity().id);
            }
        }
        Ok(())
    })
}

#[common::test(ROOT)]
fn bind_mounts_of_parts_are_listed() -> Outcome {
    with_private_tmpfs(|dir| {
        let whole = dir.join("whole");
        mount_bpffs(&whole)?;
        let names = ["outside", "a/1", "b/2", "b/c/3", "b/c/d/4", "bc/5", "e/f/6"];
        let ids = pin_maps(&whole, &names)?;
        // Disjoint and nested parts, the same part twice, and an inner part before the outer one.
        for (part, at) in [("b/c/d", "p1"), ("b", "p2"), ("b/c", "p3"), ("b", "p4")] {
            bind_mount(&whole.join(part), &dir.join(at))?;
        }
        bind_mount(&whole.join("a"), &dir.join("p5"))?;
        bind_mount(&whole.join("e/f"), &dir.join("p6"))?;
        bind_mount(&whole.join("bc"), &dir.join("p7"))?;
        unmount(&whole, UnmountFlags::empty())?;
        let now = list_below(dir)?;
        assert!(now.errors.is_empty(), "{:?}", now.errors);
        assert_eq!(now.ids(), ids[1..]);
        let expected = ["p2/2", "p2/c/3", "p2/c/d/4", "p5/1", "p6/6", "p7/5"];
        assert_eq!(now.names(dir), expected);
        // If the outer parts are hidden, the inner ones are listed and the outer ones reported.
        for part in ["p2", "p4"] {
            mount_tmpfs(&dir.join(part))?;
        }
        let now = list_below(dir)?;
        assert_eq!(now.names(dir), ["p3/3", "p3/d/4", "p5/1", "p6/6", "p7/5"]);
        assert_eq!(now.errors.len(), 1, "{:?}", now.errors);
        assert_hidden(
            &now.errors[0],
            &dir.join("p2"),
            |cause| matches!(cause, Cause::Covered { found, .. } if found.name() == Some("tmpfs")),
        );
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_covered_bpffs_is_reported() -> Outcome {
    with_private_tmpfs(|dir| {
        let (one, other) = (dir.join("one"), dir.join("other"));
        let first = mount_bpffs(&one)?;
        pin_maps(&one, &["a", "d/b"])?;
        mount_bpffs(&other)?;
        pin_maps(&other, &["z"])?;

        let below = first.mount()?.mount_id;
        drop(first);
        mount_tmpfs(&one)?;
        let above = Bpffs::inspect(&one)?.mount.ok_or("no mount")?.mount_id;
        let now = list_below(dir)?;
        assert_eq!(
            (now.names(dir), now.errors.len()),
            (vec!["other/z".into()], 1)
        );
        let covers = |cause: &Cause| {
            matches!(cause, &Cause::Covered { mount_id, found, by }
                if (mount_id, found.name(), by) == (below, Some("tmpfs"), above))
        };
        assert_hidden(&now.errors[0], &one, covers);
        unmount(&one, UnmountFlags::empty())?;

        // Covered by another bpffs, which is listed.
        let over = mount_bpffs(&one)?;
        pin_maps(&one, &["over"])?;
        let now = list_below(dir)?;
        assert_eq!(now.names(dir), ["one/over", "other/z"]);
        assert_eq!(now.errors.len(), 1, "{:?}", now.errors);
        let (mount_id, by) = (below, over.mount()?.mount_id);
        let found = FileSystem::BPF;
        let cause = Cause::Covered {
            mount_id,
            found,
            by,
        };
        assert_hidden(&now.errors[0], &one, |found| *found == cause);
        drop(over);
        unmount(&one, UnmountFlags::empty())?;

        // Covered by a part of itself: the same device, but not all of its pins.
        mount_bind(one.join("d"), &one)?;
        let now = list_below(dir)?;
        assert_eq!(now.names(dir), ["one/b", "other/z"]);
        assert_eq!(now.errors.len(), 1, "{:?}", now.errors);
        assert_hidden(
            &now.errors[0],
            &one,
            |cause| matches!(cause, Cause::Covered { mount_id, .. } if *mount_id == below),
        );
        unmount(&one, UnmountFlags::empty())?;

        // Covered by a mount on a parent directory.
        bind_mount(&one, &dir.join("up/on"))?;
        mount_tmpfs(&dir.join("up"))?;
        bind_mount(&other, &dir.join("away"))?;
        let now = list_below(dir)?;
        assert_eq!(now.names(dir), ["one/a", "one/d/b", "other/z"]);
        assert!(
            now.errors.is_empty(),
            "another mount leads to it: {:?}",
            now.errors
        );
        mount_tmpfs(&one)?;
        let now = list_below(dir)?;
        assert_eq!(
            (now.names(dir), now.errors.len()),
            (vec!["other/z".into()], 1)
        );
        let is_tmpfs = |cause: &Cause| matches!(cause, Cause::Covered { found, .. } if found.name() == Some("tmpfs"));
        assert_hidden(&now.errors[0], &one, is_tmpfs);
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_bpffs_mounted_in_a_bpffs_is_listed() -> Outcome {
    with_private_tmpfs(|dir| {
        let one = dir.join("one");
        mount_bpffs(&one)?;
        pin_maps(&one, &["a", "d/hidden", "e/b"])?;
        let inner = MountOptions::new().mount(one.join("d"))?;
        pin_maps(&one.join("d"), &["in", "further/in"])?;
        let now = list_below(dir)?;
        assert!(now.errors.is_empty(), "{:?}", now.errors);
        assert_eq!(
            now.names(dir),
            ["one/a", "one/d/further/in", "one/d/in", "one/e/b"]
        );
        let of_inner = now.pins.iter().filter(|pin| pin.dev == inner.dev());
        assert_eq!(of_inner.count(), 2);
        // A covered directory is listed through another mount of its instance.
        bind_mount(&one, &dir.join("whole"))?;
        let now = list_below(dir)?;
        assert!(now.errors.is_empty(), "{:?}", now.errors);
        let names = now.names(dir);
        assert_eq!(names.len(), 5, "{names:?}");
        assert!(names.contains(&"whole/d/hidden".into()), "{names:?}");
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_covered_directory_is_reported_or_listed_through_another_mount() -> Outcome {
    with_private_tmpfs(|dir| {
        let one = dir.join("one");
        mount_bpffs(&one)?;
        let ids = pin_maps(&one, &["a", "d/b", "d/e/c", "f/g"])?;
        bind_mount(&one.join("d/e"), &dir.join("deep"))?;
        mount_tmpfs(&one.join("d"))?;
        let now = list_below(dir)?;
        assert_eq!(now.names(dir), ["deep/c", "one/a", "one/f/g"]);
        assert_eq!(now.errors.len(), 1, "{:?}", now.errors);
        let error = &now.errors[0];
        let path = one.join("d");
        assert_eq!(error.operation(), Operation::ListDir);
        assert_eq!(error.path(), Some(&*path));
        assert_eq!(
            error.cause(),
            Some(&Cause::MountPoint { path: path.clone() })
        );
        assert_eq!(error.operation(), Operation::ListDir);
        // Another mount leads to all of it.
        unmount(&path, UnmountFlags::empty())?;
        bind_mount(&path, &dir.join("other"))?;
        mount_tmpfs(&path)?;
        let now = list_below(dir)?;
        assert!(now.errors.is_empty(), "{:?}", now.errors);
        assert_eq!(now.names(dir), ["one/a", "one/f/g", "other/b", "other/e/c"]);
        assert_eq!(now.ids(), ids);
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_bind_mount_of_a_single_pin_is_listed() -> Outcome {
    with_private_tmpfs(|dir| {
        let one = dir.join("one");
        let dev = mount_bpffs(&one)?.dev();
        let ids = pin_maps(&one, &["a", "b", "d/c"])?;
        let file = dir.join("file");
        fs::write(&file, "")?;
        mount_bind(one.join("a"), &file)?;
        // One pin covers another: the covered one is reported.
        mount_bind(one.join("d/c"), one.join("b"))?;
        let now = list_below(dir)?;
        let [error] = &now.errors[..] else {
            panic!("{:?}", now.errors);
        };
        let path = one.join("b");
        assert_eq!(error.path(), Some(&*path));
        assert_eq!(error.cause(), Some(&Cause::MountPoint { path }));
        assert_eq!(now.names(dir), ["one/a", "one/d/c"]);
        unmount(one.join("b"), UnmountFlags::empty())?;
        unmount(&one, UnmountFlags::empty())?;
        // The bind mount of a pin keeps the instance alive.
        let now = list_below(dir)?;
        assert!(now.errors.is_empty(), "{:?}", now.errors);
        assert_eq!(
            (now.names(dir), now.ids()),
            (vec!["file".into()], ids[..1].to_vec())
        );
        assert_eq!(now.pins[0].dev, dev);
        Ok(())
    })
}
