//! A file system is mounted over the path, or over a name in the directory.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use bpf_pin::error::Cause;
use bpf_pin::{Error, Map, PinDir};
use common::*;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tempfile::TempDir;

use crate::attack::{ChildResult, Fixture, Progress, at_each_stop_in, is_hidden};

const TMPFS: u32 = libc::TMPFS_MAGIC as u32;

const MOUNTS: &[Need] = &[cap::BPF, cap::SYS_ADMIN];

#[common::test(MOUNTS)]
fn an_open_pin_dir_works_below_a_mount_over_its_path() -> Outcome {
    in_mount_namespace(use_below_mounts)
}

#[common::test(MOUNTS)]
fn calls_on_mount_points_fail_without_effect() -> Outcome {
    in_mount_namespace(call_on_mount_points)
}

#[common::test(MOUNTS)]
fn leftovers_that_are_mount_points_are_kept() -> Outcome {
    in_mount_namespace(remove_mounted_leftovers)
}

/// Mounts an empty file system.
fn mounted(kind: &str, at: &Path) {
    mount(kind, at, kind, MountFlags::empty(), Some(c"mode=700")).expect("a mount");
}

fn unmounted(at: &Path) {
    unmount(at, UnmountFlags::DETACH).expect("what was mounted");
}

fn bpffs() -> TempDir {
    let at = TempDir::new().expect("a directory");
    mounted("bpf", at.path());
    at
}

fn pin(map: &Map, at: PathBuf) {
    map.try_clone().unwrap().pin(at).expect("a pin");
}

#[track_caller]
fn assert_mount_point<T>(result: Result<T, impl Into<Error>>, errno: i32) {
    let Err(error) = result else {
        panic!("the call succeeded");
    };
    let error = error.into();
    assert_cause_matches!(error, Cause::MountPoint { .. });
    assert_eq!(error.raw_os_error(), Some(errno), "{error}");
}

fn use_below_mounts() -> Outcome {
    let at = bpffs();
    let path = at.path().join("app");
    fs::create_dir(&path)?;
    let (dir, map) = (PinDir::open(&path)?, hash());
    for (kind, is_bpffs) in [("tmpfs", false), ("bpf", true)] {
        mounted(kind, &path);
        for _ in 0..2 {
            dir.pin(&map, "pin")?;
            dir.replace(&map, "name")?;
            let seen = dir.identity("name")?;
            dir.replace_if(&map, "name", seen)?;
            let set = dir.stage("set")?;
            set.pin(&map, "in")?;
            drop(set.publish().map_err(Error::from)?);
            let below = dir.create_dir("below", 0o700)?.create_dir("deep", 0o700)?;
            below.pin(&map, "pin")?;
            assert_eq!(
                dir.open_dir("below")?
                    .open_dir("deep")?
                    .get::<Map>("pin")?
                    .id()?,
                map.id()?
            );
            let walked: Result<Vec<_>, _> = dir.walk()?.collect();
            assert_eq!(walked?.len(), 7);
            assert!(dir.remove_leftovers()?.failed.is_empty());
            dir.unpin(&map, "pin")?;
            dir.remove_dir_all("below")?;
        }
        let mut over = fs::read_dir(&path)?;
        assert!(
            over.all(|entry| is_kernel_iterator(&entry.unwrap().path())),
            "{kind}"
        );
        let moved = dir.lock(LockMode::Exclusive, Wait::Forever).unwrap_err();
        assert!(
            matches!(moved.cause(), Some(Cause::Moved { .. })),
            "{moved}"
        );
        // The path leads to the new mount.
        let (made, opened) = (PinDir::create(path.join("x/y"), 0o700), PinDir::open(&path));
        if is_bpffs {
            assert_eq!(made?.path(), path.join("x/y"));
            assert!(path.join("x/y").is_dir());
            assert!(
                opened?
                    .entries()?
                    .all(|entry| entry.unwrap().name() != "name")
            );
        } else {
            for error in [made.unwrap_err(), opened.unwrap_err()] {
                assert_cause_matches!(error, Cause::NotBpffs { found, .. } if found.magic() == TMPFS);
            }
            assert_eq!(fs::read_dir(&path)?.count(), 0);
        }
        unmounted(&path);
        assert!(!path.join("x").exists());
        let names: Vec<_> = tree(&path).into_keys().collect();
        assert_eq!(names, ["name", "set", "set/in"].map(PathBuf::from));
        drop(dir.lock(LockMode::Exclusive, Wait::Forever)?);
    }
    unmounted(at.path());
    Ok(())
}

fn is_kernel_iterator(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "debug")
}

fn call_on_mount_points() -> Outcome {
    let (at, other) = (bpffs(), bpffs());
    let (root, ours, theirs) = (PinDir::open(at.path())?, hash(), hash());
    pin(&theirs, other.path().join("theirs"));
    for name in ["app", "tree", "tree/sub"] {
        fs::create_dir(at.path().join(name))?;
    }
    for name in ["pin", "file", "tree/file", "app/ours"] {
        pin(&ours, at.path().join(name));
    }
    let before = tree(at.path());
    let (on_app, on_pin) = (at.path().join("app"), at.path().join("pin"));
    let on_sub = at.path().join("tree/sub");
    mount_bind(other.path(), &on_app)?;
    mount_bind(other.path(), &on_sub)?;
    mount_bind(other.path().join("theirs"), &on_pin)?;

    assert_mount_point(root.open_dir("app"), libc::EXDEV);
    assert_mount_point(root.remove_dir_all("app"), libc::EBUSY);
    assert_mount_point(root.remove_dir("app"), libc::EBUSY);
    assert_mount_point(root.rename("app", "renamed"), libc::EBUSY);
    assert_mount_point(root.exchange("app", "tree"), libc::EBUSY);
    assert_mount_point(root.exchange("tree", "app"), libc::EBUSY);
    let set = root.stage("app")?;
    set.pin(&ours, "new")?;
    assert_mount_point(set.publish(), libc::EBUSY);

    // A file mounted on a file: opening the name opens their pin, removing it would remove ours.
    assert_mount_point(root.unlink("pin"), libc::EBUSY);
    assert_mount_point(root.unpin(&theirs, "pin"), libc::EBUSY);
    let replaced = root.unpin(&ours, "pin").unwrap_err();
    assert!(
        matches!(replaced.cause(), Some(Cause::Replaced { .. })),
        "{replaced}"
    );
    assert_mount_point(root.replace(&ours, "pin"), libc::EBUSY);
    assert_mount_point(
        root.replace_if(&ours, "pin", theirs.identity()?),
        libc::EBUSY,
    );
    assert_mount_point(root.rename("pin", "renamed"), libc::EBUSY);

    let walked: Vec<_> = root.walk()?.collect();
    let errors: Vec<_> = walked
        .iter()
        .filter_map(|entry| entry.as_ref().err())
        .collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    for error in errors {
        assert_cause_matches!(error, Cause::MountPoint { .. });
    }
    let entries = walked
        .iter()
        .flatten()
        .filter(|entry| !is_kernel_iterator(&entry.path()));
    // The walk returns app, pin, file, tree and its entries in any order, but nothing from the mounts.
    let mut found: Vec<_> = entries.map(|entry| entry.name().to_owned()).collect();
    found.sort();
    assert_eq!(found, ["app", "file", "file", "pin", "sub", "tree"]);
    for entry in root.entries()? {
        let entry = entry?;
        let is_one = entry.name() == "app" || entry.name() == "pin";
        assert_eq!(entry.is_mount_point(), Some(is_one), "{entry:?}");
    }

    // Removing everything removes only entries that are not mount points.
    let report = root.remove_where(|entry| !is_kernel_iterator(&entry.path()))?;
    assert_eq!(report.removed, ["file"]);
    unmounted(&on_pin);
    unmounted(&on_app);
    unmounted(&on_sub);
    let mut expected = before;
    expected.remove(Path::new("file"));
    expected.remove(Path::new("tree/file"));
    let mut after = tree(at.path());
    after.remove(Path::new("tree/file"));
    assert_eq!(after, expected);
    assert_eq!(
        pinned_identity(&other.path().join("theirs")),
        Some(theirs.identity()?)
    );
    unmounted(other.path());
    unmounted(at.path());
    Ok(())
}

fn remove_mounted_leftovers() -> Outcome {
    const DIR: &str = "_bpf-pin-0123456789abcdef-0-dir";
    const PIN: &str = "_bpf-pin-0123456789abcdef-1";
    const ASIDE: &str = "_bpf-pin-0123456789abcdef-2-aside";
    const FULL: &str = "_bpf-pin-0123456789abcdef-3-dir";
    let (at, other) = (bpffs(), bpffs());
    let (root, ours, theirs) = (PinDir::open(at.path())?, hash(), hash());
    pin(&theirs, other.path().join("theirs"));
    for name in [DIR, ASIDE, FULL, &format!("{FULL}/in")] {
        fs::create_dir(at.path().join(name))?;
    }
    pin(&ours, at.path().join(PIN));
    let points = [DIR, ASIDE, &format!("{FULL}/in")].map(|name| at.path().join(name));
    for point in &points {
        mount_bind(other.path(), point)?;
    }
    let on_pin = at.path().join(PIN);
    mount_bind(other.path().join("theirs"), &on_pin)?;
    let report = root.remove_leftovers()?;
    assert_eq!(report.removed, [""; 0]);
    assert_eq!(report.restored, [""; 0]);
    assert!(report.failed.len() >= 3, "{report:?}");
    for error in &report.failed {
        assert_cause_matches!(error, Cause::MountPoint { .. });
    }
    assert_eq!(
        pinned_identity(&other.path().join("theirs")),
        Some(theirs.identity()?)
    );
    // These names do not affect other calls.
    root.replace(&ours, "name")?;
    drop(root.stage("set")?.publish().map_err(Error::from)?);
    assert_eq!(
        pinned_identity(&other.path().join("theirs")),
        Some(theirs.identity()?)
    );
    points.iter().for_each(|point| unmounted(point));
    unmounted(&on_pin);
    let report = root.remove_leftovers()?;
    assert!(report.failed.is_empty(), "{report:?}");
    let names: Vec<_> = tree(at.path()).into_keys().collect();
    assert_eq!(names, ["name", "set"].map(PathBuf::from));
    unmounted(other.path());
    unmounted(at.path());
    Ok(())
}

/// Gives this process, which has one thread, and its children their own mounts.
fn unshare_mounts() {
    // SAFETY: no thread but this one sees the change.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("a new mount namespace");
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).expect("private mounts");
}

/// Mounts another file system over the directory itself at each stop, and checks both afterwards.
fn over_the_path(
    kinds: &[&str],
    run: impl Fn(&Fixture, &PinDir) -> bpf_pin::Result<()>,
    check: impl Fn(&Fixture, &Progress, ChildResult),
) {
    unshare_mounts();
    let at = bpffs();
    for &kind in kinds {
        let prepare = |fixture: &Fixture| fs::create_dir(fixture.at("set")).unwrap();
        let attack = |fixture: &Fixture, _: &Progress| mounted(kind, &fixture.root);
        at_each_stop_in(
            at.path(),
            prepare,
            &run,
            attack,
            |fixture, progress, result| {
                let over = tree(&fixture.root);
                unmounted(&fixture.root);
                let is_by_path = kind == "bpf" && result == ChildResult::Succeeded;
                assert!(
                    over.is_empty() || is_by_path,
                    "{over:?} {:?}",
                    progress.stops
                );
                if over.is_empty() {
                    check(fixture, progress, result);
                }
                assert_eq!(
                    fixture.hidden_names(),
                    [""; 0],
                    "{result:?} {:?}",
                    progress.stops
                );
            },
        );
    }
    unmounted(at.path());
}

#[common::test_alone(MOUNTS)]
fn create_makes_all_or_nothing_under_a_mount_over_its_path() {
    let run = |fixture: &Fixture, _: &PinDir| {
        let made = PinDir::create(fixture.at("made/deep"), 0o700)?;
        made.pin(&fixture.ours, "new")
    };
    over_the_path(&["tmpfs", "bpf"], run, |fixture, progress, result| {
        let is_made = fixture.has("made/deep/new", &fixture.ours);
        assert_eq!(
            is_made,
            result == ChildResult::Succeeded,
            "{result:?} {:?}",
            progress.stops
        );
        assert!(
            is_made || result == ChildResult::NotBpffs,
            "{result:?} {:?}",
            progress.stops
        );
    });
}

#[common::test_alone(MOUNTS)]
fn publish_and_replace_work_below_a_mount_over_the_path() {
    let run = |fixture: &Fixture, dir: &PinDir| {
        let set = dir.stage("set")?;
        set.pin(&fixture.ours, "new")?;
        set.publish().map(drop)?;
        dir.replace(&fixture.ours, "name")
    };
    over_the_path(&["tmpfs"], run, |fixture, progress, result| {
        assert_eq!(result, ChildResult::Succeeded, "{:?}", progress.stops);
        for name in ["set/new", "name"] {
            assert!(fixture.has(name, &fixture.ours), "{:?}", progress.stops);
        }
    });
}

/// Mounts another bpffs over a directory in the tree, wherever the tree was moved.
#[common::test_alone(MOUNTS)]
fn remove_dir_all_keeps_a_mount_inside_the_tree() {
    unshare_mounts();
    let (at, other) = (bpffs(), bpffs());
    let theirs = hash();
    pin(&theirs, other.path().join("theirs"));
    let is_mounted = Cell::new(false);
    let prepare = |fixture: &Fixture| {
        fs::create_dir(fixture.at("tree")).unwrap();
        fs::create_dir(fixture.at("tree/sub")).unwrap();
        fixture.pin(&fixture.ours, "tree/sub/ours");
    };
    let below = |fixture: &Fixture| {
        let all = tree(&fixture.root).into_keys();
        let mut sub =
            all.filter(|path| path.ends_with("sub") || is_hidden(path) && path.iter().count() == 2);
        sub.next().map(|path| fixture.root.join(path))
    };
    let attack = |fixture: &Fixture, _: &Progress| {
        let sub = below(fixture);
        is_mounted.set(sub.is_some_and(|sub| mount_bind(other.path(), sub).is_ok()));
    };
    let kept = Cell::new(0);
    let run = |_: &Fixture, dir: &PinDir| dir.remove_dir_all("tree");
    at_each_stop_in(
        at.path(),
        prepare,
        run,
        attack,
        |fixture, progress, result| {
            assert_eq!(
                pinned_identity(&other.path().join("theirs")),
                theirs.identity().ok()
            );
            assert_eq!(
                fixture.hidden_names(),
                [""; 0],
                "{result:?} {:?}",
                progress.stops
            );
            if is_mounted.get() && result != ChildResult::Succeeded {
                assert_eq!(result, ChildResult::MountPoint, "{:?}", progress.stops);
                kept.set(kept.get() + 1);
                unmounted(&fixture.at("tree/sub"));
                assert!(fixture.at("tree/sub").is_dir(), "{:?}", progress.stops);
            } else {
                assert!(
                    !is_mounted.get() && result == ChildResult::Succeeded,
                    "{result:?} {:?}",
                    progress.stops
                );
            }
        },
    );
    assert!(kept.get() > 0, "no mount was made in time");
    unmounted(other.path());
    unmounted(at.path());
}
