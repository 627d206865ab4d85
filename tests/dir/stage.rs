//! A set of pins appears at once and complete. The set that it replaces stays until its last reader
//! is done.

use crate::stress;
mod readers;
mod replaced_set;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use bpf_pin::dir::{Published, Stage};
use bpf_pin::error::{Cause, Failed, Operation};
use bpf_pin::{Map, PinDir};
use common::*;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::CapabilitySet;

use crate::helpers::names_at;
use crate::stress::{StressTest, has_exchange};

const SET: &str = "current";
/// The prefix of the names of unpublished sets.
const HIDDEN: &str = "_bpf-pin-";

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const MOUNTS: &[Need] = &[cap::SYS_ADMIN];
const USERS: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];

const STRESS_TESTS: &[StressTest] = &[
    ("read_with_lock", readers::read_with_lock),
    ("read_without_lock", readers::read_without_lock),
    ("look_up_name", readers::look_up_name),
    ("work_during_cleanup", readers::work_during_cleanup),
    ("remove_during_cleanup", readers::remove_during_cleanup),
    ("cleaner", readers::cleaner),
    ("killed_with_a_stage", killed_with_a_stage),
];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    if let Some(played) = stress::run_requested(STRESS_TESTS) {
        return Some(played);
    }
    None
}

#[common::test(PINS)]
fn remove_leftovers_removes_the_stage_of_a_dead_process() -> Outcome {
    stress::run("killed_with_a_stage")
}

/// Stages a set in which every pin holds `map`.
fn staged<'d>(dir: &'d PinDir, map: &Map, pins: &[&str]) -> Stage<'d> {
    let stage = dir.stage(SET).expect("a stage");
    for name in pins {
        stage.pin(map, name).expect("a pin");
    }
    stage
}

/// Drops the stage from the error, because it borrows a directory that the test function owns.
fn publish(stage: Stage<'_>) -> bpf_pin::Result<Published<'_>> {
    Ok(stage.publish()?)
}

#[common::test(PINS)]
fn a_set_is_published_under_a_new_name() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let map = hash();
    let stage = staged(&dir, &map, &["a", "b"]);
    // Until then the set has a hidden name in the same directory.
    let [hidden] = &fs.names()[..] else {
        panic!("{:?}", fs.names())
    };
    assert!(hidden.starts_with(HIDDEN), "{hidden}");
    assert_eq!(stage.path(), fs.at(hidden));
    assert_eq!(stage.own_metadata()?.mode(), 0o700);
    let inode = stage.own_metadata()?.inode();
    let published = publish(stage)?;
    assert!(published.old.is_none() && !published.had_gap);
    assert_eq!(fs.names(), [SET]);
    assert_eq!(names_at(fs.at(SET)), ["a", "b"]);
    assert_eq!(published.dir.path(), fs.at(SET));
    assert_eq!(dir.metadata(SET)?.inode(), inode);
    // The returned directory can be locked, so it is the one at its path.
    drop(published.dir.lock(LockMode::Exclusive, Wait::Forever)?);
    assert_eq!(dir.open_dir(SET)?.identity("a")?, map.identity()?);
    drop(published);
    assert_eq!(names_at(fs.at(SET)), ["a", "b"]);
    // An empty set can be published, too.
    assert!(publish(dir.stage("empty")?)?.old.is_none());
    assert_eq!(fs.names(), [SET, "empty"]);
    Ok(())
}

#[common::test(PINS)]
fn a_set_replaces_another() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let maps = [hash(), hash(), hash()];
    publish(staged(&dir, &maps[0], &["a", "b"]))?;
    for (map, pins) in [
        (&maps[1], &["b", "c"][..]),
        (&maps[2], &[]),
        (&maps[0], &["a"]),
    ] {
        let reader = dir.open_dir(SET)?;
        let old_pins = names_at(fs.at(SET));
        let stage = staged(&dir, map, pins);
        assert_eq!(names_at(fs.at(SET)), old_pins);
        let published = publish(stage)?;
        assert_eq!(published.had_gap, !has_exchange());
        assert_eq!(names_at(fs.at(SET)), pins);
        let old = published.old.expect("the entry that had the name");
        // The old set is complete under a hidden name, and it is the directory that the reader
        // holds.
        assert_eq!(fs.names().len(), 2);
        assert_eq!(names_at(old.path()), old_pins);
        assert!(fs.names()[0].starts_with(HIDDEN));
        let (ours, theirs) = (old.own_metadata()?, reader.own_metadata()?);
        assert_eq!(ours.inode(), theirs.inode());
        // A caller that opens the path would lock another directory, so this lock fails.
        let error = reader.lock(LockMode::Shared, Wait::Forever).unwrap_err();
        let path = fs.at(SET);
        assert_eq!(error.cause(), Some(&Cause::Moved { path }), "{error}");
        drop(old);
        assert_eq!(fs.names(), [SET]);
        let error = reader.get::<bpf_pin::Object>("a").unwrap_err();
        let path = fs.at(SET);
        assert_eq!(error.cause(), Some(&Cause::Removed { path }), "{error}");
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
    Ok(())
}

#[common::test(PINS)]
fn two_stages_of_one_name_are_independent() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let maps = [hash(), hash()];
    let (one, two) = (
        staged(&dir, &maps[0], &["a"]),
        staged(&dir, &maps[1], &["a"]),
    );
    assert!(publish(two)?.old.is_none());
    assert_eq!(dir.open_dir(SET)?.identity("a")?, maps[1].identity()?);
    let published = publish(one)?;
    assert_eq!(dir.open_dir(SET)?.identity("a")?, maps[0].identity()?);
    let old = published.old.expect("the other");
    assert_eq!(old.identity("a")?, maps[1].identity()?);
    old.discard()?;
    assert_eq!(fs.names(), [SET]);
    Ok(())
}

#[common::test(PINS)]
fn dropping_a_stage_removes_it() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let map = hash();
    publish(staged(&dir, &map, &["a", "b"]))?;
    for pins in [&[][..], &["a"], &["a", "b"]] {
        let fill = || {
            let stage = staged(&dir, &map, pins);
            // A dropped stage is removed with any content.
            let deep = stage.create_dir("deep", 0o700).unwrap();
            deep.pin(&map, "c").unwrap();
            deep.create_dir("deeper", 0o500).unwrap();
            symlink("nowhere", stage.path().join("link")).unwrap();
            assert_eq!(fs.names().len(), 2);
            stage
        };
        drop(fill());
        assert_eq!(fs.names(), [SET]);
        fill().discard()?;
        assert_eq!(fs.names(), [SET]);
    }
    // The published set is unchanged, and the map still exists.
    assert_eq!(names_at(fs.at(SET)), ["a", "b"]);
    assert_eq!(dir.open_dir(SET)?.identity("a")?, map.identity()?);
    Ok(())
}

#[common::test(PINS)]
fn a_stage_is_published_with_its_mode() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let map = hash();
    for mode in [0o750, 0o755, 0o1777, 0o700, 0o500] {
        let stage = staged(&dir, &map, &["a"]);
        assert_eq!(stage.own_metadata()?.mode(), 0o700);
        stage.chmod(mode)?;
        let published = publish(stage)?;
        assert_eq!(dir.metadata(SET)?.mode(), mode);
        assert_eq!(
            fs::metadata(fs.at(SET))?.permissions().mode() & 0o7777,
            mode
        );
        assert_eq!(published.dir.own_metadata()?.mode(), mode);
    }
    // Gives the owner the permission to remove the set.
    dir.set_mode(SET, 0o700)?;
    assert_eq!(fs.names(), [SET]);
    Ok(())
}

/// Publishes and expects a failure. The stage survives under its hidden name.
#[track_caller]
fn publish_fails<'d>(stage: Stage<'d>, errno: Option<i32>, cause: Cause) -> Stage<'d> {
    let (hidden, pins) = (stage.path().to_owned(), names_at(stage.path()));
    let failed: Failed<Stage<'d>> = stage.publish().unwrap_err();
    let (stage, error) = failed.into_parts();
    assert_fails(&error, Operation::Publish, errno, cause);
    assert!(error.path().unwrap().ends_with(SET));
    assert_eq!(stage.path(), hidden);
    assert_eq!(names_at(&hidden), pins);
    stage
}

#[common::test(PINS)]
fn publish_rejects_a_pin() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (map, other) = (hash(), hash());
    dir.pin(&other, SET)?;
    let inode = dir.metadata(SET)?.inode();
    let mut stage = staged(&dir, &map, &["a"]);
    // The publication can be retried any number of times.
    for more in ["b", "c"] {
        let path = fs.at(SET);
        stage = publish_fails(stage, None, Cause::NotADirectory { path });
        assert_eq!(dir.metadata(SET)?.inode(), inode);
        assert_eq!(fs.names().len(), 2);
        stage.pin(&map, more)?;
    }
    // A cleanup leaves the stage of a living process alone.
    let report = dir.remove_leftovers()?;
    assert!(
        report.removed.is_empty() && report.failed.is_empty(),
        "{report:?}"
    );
    dir.unpin(&other, SET)?;
    let published = publish(stage)?;
    assert!(published.old.is_none());
    assert_eq!(fs.names(), [SET]);
    assert_eq!(names_at(fs.at(SET)), ["a", "b", "c"]);
    // Alternatively, the stage is dropped after the failure.
    dir.remove_dir_all(SET)?;
    dir.pin(&other, SET)?;
    drop(staged(&dir, &map, &["a"]).publish().unwrap_err());
    assert_eq!(fs.names(), [SET]);
    assert_eq!(dir.identity(SET)?, other.identity()?);
    Ok(())
}

#[common::test(PINS)]
fn publish_rejects_a_symbolic_link() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let map = hash();
    fs::create_dir(fs.at("target"))?;
    for target in ["target", "nowhere"] {
        symlink(target, fs.at(SET))?;
        let path = fs.at(SET);
        let stage = staged(&dir, &map, &["a"]);
        let stage = publish_fails(stage, None, Cause::SymbolicLink { path });
        assert_eq!(fs::read_link(fs.at(SET))?.to_str(), Some(target));
        assert!(names_at(fs.at("target")).is_empty());
        fs::remove_file(fs.at(SET))?;
        publish(stage)?;
        assert_eq!(fs.names(), [SET, "target"]);
        dir.remove_dir_all(SET)?;
    }
    Ok(())
}

#[common::test(MOUNTS)]
fn publish_rejects_a_mount_point() -> Outcome {
    with_mounted_bpffs(|root| {
        let dir = PinDir::open(root)?;
        let map = hash();
        publish(staged(&dir, &map, &["old"]))?;
        let path = root.join(SET);
        for source in ["bpf", "tmpfs"] {
            mount(source, &path, source, MountFlags::empty(), None)?;
            let stage = staged(&dir, &map, &["a"]);
            let cause = Cause::MountPoint { path: path.clone() };
            let stage = publish_fails(stage, Some(libc::EBUSY), cause);
            // Children of other tests hold copies of the descriptors until they execute another
            // program.
            wait_until("unmounted", || {
                unmount(&path, UnmountFlags::empty()).is_ok()
            });
            assert_eq!(names_at(&path).len(), 1);
            let published = publish(stage)?;
            assert_eq!(published.had_gap, !has_exchange());
            drop(published);
            assert_eq!(names_at(&path), ["a"]);
            assert_eq!(names_at(root), [SET]);
        }
        Ok(())
    })
}

#[common::test(PINS)]
fn publish_reports_a_removed_directory() -> Outcome {
    let fs = TestFs::new();
    let parent = fs.at("parent");
    let dir = PinDir::create(&parent, 0o700)?;
    let map = hash();
    let stage = staged(&dir, &map, &["a"]);
    PinDir::open(fs.root())?.remove_dir_all("parent")?;
    assert!(fs.names().is_empty());
    let failed = stage.publish().unwrap_err();
    let path = parent.clone();
    assert_eq!(failed.cause(), Some(&Cause::Removed { path }), "{failed}");
    assert_eq!(failed.error().raw_os_error(), Some(libc::ENOENT));
    // Nothing is left to remove, and a new stage is not even created.
    failed.into_object().discard()?;
    let error = dir.stage(SET).unwrap_err();
    let path = parent.clone();
    assert_eq!(error.cause(), Some(&Cause::Removed { path }), "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    assert_eq!(error.operation(), Operation::Stage);
    // If only the stage was removed, the error names the stage.
    let dir = PinDir::create(&parent, 0o700)?;
    let stage = staged(&dir, &map, &[]);
    fs::remove_dir(stage.path())?;
    let path = stage.path().to_owned();
    let failed = stage.publish().unwrap_err();
    assert_eq!(failed.error().raw_os_error(), Some(libc::ENOENT));
    assert_eq!(failed.cause(), Some(&Cause::Missing { path }), "{failed}");
    drop(failed);
    assert!(names_at(&parent).is_empty());
    Ok(())
}

#[common::test(USERS)]
fn publish_reports_a_sticky_directory() -> Outcome {
    // The root of a bpffs is sticky, regardless of the mode it was mounted with.
    let fs = TestFs::detached("777");
    let dir = PinDir::open(fs.root())?;
    let map = hash();
    let published = publish(staged(&dir, &map, &["a"]))?;
    published.dir.chmod(0o777)?;
    drop(published);
    let inode = dir.metadata(SET)?.inode();
    let stage = as_user(CapabilitySet::BPF, || {
        let stage = staged(&dir, &map, &["b"]);
        let directory = fs.root().to_owned();
        let cause = Cause::Sticky { directory, uid: 0 };
        publish_fails(stage, Some(libc::EPERM), cause)
    });
    assert_eq!(dir.metadata(SET)?.inode(), inode);
    assert_eq!(names_at(fs.at(SET)), ["a"]);
    assert_eq!(fs.names().len(), 2);
    // Root may replace the set of another user.
    drop(publish(stage)?);
    assert_eq!(names_at(fs.at(SET)), ["b"]);
    assert_eq!(dir.metadata(SET)?.uid(), 1234);
    assert_eq!(fs.names(), [SET]);
    Ok(())
}

#[common::test(USERS)]
fn stage_needs_write_permission() -> Outcome {
    let fs = TestFs::detached("755");
    let dir = PinDir::open(fs.root())?;
    let error = as_user(CapabilitySet::BPF, || dir.stage(SET).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    assert_eq!(error.operation(), Operation::Stage);
    assert_cause_matches!(error, Cause::Blocked { .. });
    assert!(fs.names().is_empty());
    Ok(())
}

#[common::test(PINS)]
fn stage_rejects_an_invalid_name() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    for (name, is_expected) in invalid_names() {
        let error = dir.stage(name).unwrap_err();
        assert!(error.cause().is_some_and(is_expected), "{error}");
        assert_eq!(error.raw_os_error(), None, "{error}");
        assert!(fs.names().is_empty());
    }
    Ok(())
}

/// A cleanup removes the stage of the dead process and nothing else.
fn killed_with_a_stage() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let map = hash();
    publish(staged(&dir, &map, &["a"]))?;
    let alive = staged(&dir, &map, &["a", "b"]);
    // SAFETY: this process has one thread.
    let child = unsafe { common::fork() };
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    if child == 0 {
        let own = PinDir::open(fs.root()).map(|dir| {
            let stage = staged(&dir, &map, &["a"]);
            stage.create_dir("deep", 0o700).unwrap();
            dir.replace(&map, "flows").unwrap();
            std::mem::forget(stage);
        });
        // SAFETY: _exit skips the buffers and destructors, which belong to the parent.
        unsafe { libc::_exit(own.is_err().into()) };
    }
    let mut status = 0;
    // SAFETY: `status` is writable, and `child` is a child of this process.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    assert_eq!(fs.names().len(), 4);
    let report = dir.remove_leftovers()?;
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert_eq!((report.removed.len(), report.restored.len()), (1, 0));
    assert_eq!(names_at(alive.path()), ["a", "b"]);
    drop(publish(alive)?);
    assert_eq!(fs.names(), [SET, "flows"]);
    Ok(())
}
