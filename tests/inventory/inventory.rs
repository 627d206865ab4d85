//! Every pin of every bpffs, once; and what cannot be seen is told.

mod hidden;
mod json;
mod scale;
mod seen;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use bpf_pin::bpffs::{FileSystem, MountOptions};
use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Bpffs, Error, Map};
use common::*;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use seen::{Seen, in_a_directory, pin, seen};

const ROOT: &[Need] = &[cap::SYS_ADMIN];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    if hidden::was_asked_for() {
        return Some(ExitCode::SUCCESS);
    }
    None
}

/// A bpffs on a new directory.
fn bpffs(at: &Path) -> Result<Bpffs, bpf_pin::Error> {
    fs::create_dir_all(at).expect("a mount point");
    MountOptions::new().mount(at)
}

fn bind(from: &Path, to: &Path) -> Outcome {
    fs::create_dir_all(to)?;
    Ok(mount_bind(from, to)?)
}

fn tmpfs(at: &Path) -> Outcome {
    Ok(mount("tmpfs", at, "tmpfs", MountFlags::empty(), None)?)
}

/// Pins in directories, each a map of its own; and their ids.
fn filled(root: &Path, names: &[&str]) -> Result<Vec<u32>, bpf_pin::Error> {
    let one = |name: &&str| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("directories");
        pin(hash(), &path)
    };
    names.iter().map(one).collect()
}

/// What hides a mount: nothing of it is left out in silence.
#[track_caller]
fn assert_hidden(error: &Error, path: &Path, is_cause: impl Fn(&Cause) -> bool) {
    assert_eq!(error.operation(), Operation::ListBpffs, "{error:?}");
    assert_eq!(error.path(), Some(path));
    assert!(error.cause().is_some_and(is_cause), "{error:?}");
}

#[common::test(ROOT)]
fn inventory_each_instance_once() -> Outcome {
    in_a_directory(|dir| {
        let (one, other) = (dir.join("one"), dir.join("other"));
        let (first, second) = (bpffs(&one)?, bpffs(&other)?);
        let ids = filled(&one, &["a", "d/b", "d/e/c"])?;
        let more = filled(&other, &["a"])?;
        // The whole elsewhere and over itself; parts; and one within the instance.
        bind(&one, &dir.join("again"))?;
        bind(&one, &one)?;
        bind(&one.join("d"), &dir.join("part"))?;
        bind(&other, &dir.join("again/d/e"))?;
        let Seen { pins, errors } = seen(dir)?;
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(pins.len(), 4, "{pins:?}");
        for (bpffs, ids) in [(&first, &ids), (&second, &more)] {
            let mut of_it: Vec<_> = pins.iter().filter(|pin| pin.dev == bpffs.dev()).collect();
            of_it.sort_by_key(|pin| pin.info.identity().id);
            let found: Vec<_> = of_it.iter().map(|pin| pin.info.identity().id).collect();
            assert_eq!(found, *ids);
            // The path is one that leads there.
            for pin in of_it {
                assert_eq!(Map::open(&pin.path)?.id()?, pin.info.identity().id);
            }
        }
        Ok(())
    })
}

#[common::test(ROOT)]
fn inventory_of_parts_alone() -> Outcome {
    in_a_directory(|dir| {
        let whole = dir.join("whole");
        bpffs(&whole)?;
        let names = ["outside", "a/1", "b/2", "b/c/3", "b/c/d/4", "bc/5", "e/f/6"];
        let ids = filled(&whole, &names)?;
        // Disjoint, nested, twice, and the inner one before the outer one.
        for (part, at) in [("b/c/d", "p1"), ("b", "p2"), ("b/c", "p3"), ("b", "p4")] {
            bind(&whole.join(part), &dir.join(at))?;
        }
        bind(&whole.join("a"), &dir.join("p5"))?;
        bind(&whole.join("e/f"), &dir.join("p6"))?;
        bind(&whole.join("bc"), &dir.join("p7"))?;
        unmount(&whole, UnmountFlags::empty())?;
        let now = seen(dir)?;
        assert!(now.errors.is_empty(), "{:?}", now.errors);
        assert_eq!(now.ids(), ids[1..]);
        let expected = ["p2/2", "p2/c/3", "p2/c/d/4", "p5/1", "p6/6", "p7/5"];
        assert_eq!(now.names(dir), expected);
        // Where the outer ones are hidden, the inner ones are found, and the outer ones are told.
        for part in ["p2", "p4"] {
            tmpfs(&dir.join(part))?;
        }
        let now = seen(dir)?;
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
fn inventory_of_what_is_covered() -> Outcome {
    in_a_directory(|dir| {
        let (one, other) = (dir.join("one"), dir.join("other"));
        let first = bpffs(&one)?;
        filled(&one, &["a", "d/b"])?;
        bpffs(&other)?;
        filled(&other, &["z"])?;

        let below = first.mount()?.mount_id;
        drop(first);
        tmpfs(&one)?;
        let above = Bpffs::inspect(&one)?.mount.ok_or("no mount")?.mount_id;
        let now = seen(dir)?;
        assert_eq!(
            (now.names(dir), now.errors.len()),
            (vec!["other/z".into()], 1)
        );
        let is_tmpfs = |cause: &Cause| matches!(cause, Cause::Covered { found, .. } if found.name() == Some("tmpfs"));
        assert_hidden(&now.errors[0], &one, is_tmpfs);
        assert_eq!(
            now.errors[0].to_string(),
            format!(
                "list the bpffs mounted at {}: mount {below} is covered by tmpfs (mount {above})",
                one.display()
            )
        );
        unmount(&one, UnmountFlags::empty())?;

        // By another bpffs, which is walked.
        let over = bpffs(&one)?;
        filled(&one, &["over"])?;
        let now = seen(dir)?;
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

        // By a part of itself: the same device, and yet not all that there is.
        mount_bind(one.join("d"), &one)?;
        let now = seen(dir)?;
        assert_eq!(now.names(dir), ["one/b", "other/z"]);
        assert_eq!(now.errors.len(), 1, "{:?}", now.errors);
        assert_hidden(
            &now.errors[0],
            &one,
            |cause| matches!(cause, Cause::Covered { mount_id, .. } if *mount_id == below),
        );
        unmount(&one, UnmountFlags::empty())?;

        // By a mount further up.
        bind(&one, &dir.join("up/on"))?;
        tmpfs(&dir.join("up"))?;
        bind(&other, &dir.join("away"))?;
        let now = seen(dir)?;
        assert_eq!(now.names(dir), ["one/a", "one/d/b", "other/z"]);
        assert!(
            now.errors.is_empty(),
            "it is reached elsewhere: {:?}",
            now.errors
        );
        tmpfs(&one)?;
        let now = seen(dir)?;
        assert_eq!(
            (now.names(dir), now.errors.len()),
            (vec!["other/z".into()], 1)
        );
        assert_hidden(&now.errors[0], &one, is_tmpfs);
        Ok(())
    })
}

#[common::test(ROOT)]
fn inventory_of_a_bpffs_on_a_bpffs() -> Outcome {
    in_a_directory(|dir| {
        let one = dir.join("one");
        bpffs(&one)?;
        filled(&one, &["a", "d/hidden", "e/b"])?;
        let inner = MountOptions::new().mount(one.join("d"))?;
        filled(&one.join("d"), &["in", "further/in"])?;
        let now = seen(dir)?;
        assert!(now.errors.is_empty(), "{:?}", now.errors);
        assert_eq!(
            now.names(dir),
            ["one/a", "one/d/further/in", "one/d/in", "one/e/b"]
        );
        let of_inner = now.pins.iter().filter(|pin| pin.dev == inner.dev());
        assert_eq!(of_inner.count(), 2);
        // What is below it is found where another mount leads to it.
        bind(&one, &dir.join("whole"))?;
        let now = seen(dir)?;
        assert!(now.errors.is_empty(), "{:?}", now.errors);
        let names = now.names(dir);
        assert_eq!(names.len(), 5, "{names:?}");
        assert!(names.contains(&"whole/d/hidden".into()), "{names:?}");
        Ok(())
    })
}

#[common::test(ROOT)]
fn inventory_behind_another_file_system() -> Outcome {
    in_a_directory(|dir| {
        let one = dir.join("one");
        bpffs(&one)?;
        let ids = filled(&one, &["a", "d/b", "d/e/c", "f/g"])?;
        bind(&one.join("d/e"), &dir.join("deep"))?;
        tmpfs(&one.join("d"))?;
        let now = seen(dir)?;
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
        // A mount that has all of it.
        unmount(&path, UnmountFlags::empty())?;
        bind(&path, &dir.join("other"))?;
        tmpfs(&path)?;
        let now = seen(dir)?;
        assert!(now.errors.is_empty(), "{:?}", now.errors);
        assert_eq!(now.names(dir), ["one/a", "one/f/g", "other/b", "other/e/c"]);
        assert_eq!(now.ids(), ids);
        Ok(())
    })
}

#[common::test(ROOT)]
fn inventory_of_a_pin_mounted_alone() -> Outcome {
    in_a_directory(|dir| {
        let one = dir.join("one");
        let dev = bpffs(&one)?.dev();
        let ids = filled(&one, &["a", "b", "d/c"])?;
        let file = dir.join("file");
        fs::write(&file, "")?;
        mount_bind(one.join("a"), &file)?;
        // One pin over another: the one below is told of.
        mount_bind(one.join("d/c"), one.join("b"))?;
        let now = seen(dir)?;
        let [error] = &now.errors[..] else {
            panic!("{:?}", now.errors);
        };
        let path = one.join("b");
        assert_eq!(error.path(), Some(&*path));
        assert_eq!(error.cause(), Some(&Cause::MountPoint { path }));
        assert_eq!(now.names(dir), ["one/a", "one/d/c"]);
        unmount(one.join("b"), UnmountFlags::empty())?;
        unmount(&one, UnmountFlags::empty())?;
        // With a pin alone the instance lives on.
        let now = seen(dir)?;
        assert!(now.errors.is_empty(), "{:?}", now.errors);
        assert_eq!(
            (now.names(dir), now.ids()),
            (vec!["file".into()], ids[..1].to_vec())
        );
        assert_eq!(now.pins[0].dev, dev);
        Ok(())
    })
}
