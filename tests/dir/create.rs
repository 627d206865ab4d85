//! Directories are created exactly as requested and only on a bpffs, or not at all.

mod failures;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use bpf_pin::PinDir;
use bpf_pin::dir::Metadata;
use bpf_pin::error::{Cause, Operation};
use common::*;
use rustix::fs::{Mode, chmod, chown};
use rustix::process::{Gid, getegid, geteuid, umask};
use rustix::thread::CapabilitySet;

use crate::helpers::*;

pub const DIRS: &[Need] = &[Need::Bpffs];
pub const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
pub const MOUNTS: &[Need] = &[cap::SYS_ADMIN];
pub const USERS: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];

pub fn metadata_of(fs: &TestFs, name: &str) -> Metadata {
    root_of(fs).metadata(name).expect("its metadata")
}

const MODES: [u32; 10] = [
    0, 0o700, 0o711, 0o755, 0o777, 0o1777, 0o2770, 0o4700, 0o7777, 0o007,
];

/// Creates directories with all modes under the current umask, by path and by name.
fn create_with_all_modes(fs: &TestFs) -> Outcome {
    let root = root_of(fs);
    for mode in MODES {
        let name = format!("d{mode:o}");
        let by_path = PinDir::create(fs.at(&name), mode)?;
        let by_name = root.create_dir(format!("{name}n"), mode)?;
        for dir in [by_path, by_name] {
            let found = dir.own_metadata()?;
            assert_eq!(found.mode(), mode, "{mode:#o} became {:#o}", found.mode());
            assert_eq!(found.uid(), geteuid().as_raw());
            assert_eq!(found.gid(), getegid().as_raw());
        }
        root.remove_dir(&name)?;
        root.remove_dir(format!("{name}n"))?;
    }
    assert!(names_in(&root).is_empty());
    Ok(())
}

const UMASKS: [u32; 5] = [0, 0o022, 0o077, 0o777, 0o555];

#[common::test(DIRS)]
fn the_umask_does_not_affect_the_mode() -> Outcome {
    let fs = TestFs::new();
    with_own_working_directory(|| {
        for mask in UMASKS {
            umask(Mode::from_raw_mode(mask));
            create_with_all_modes(&fs)?;
        }
        Ok(())
    })
}

/// A user without read permission on its new directory cannot open it to change its mode.
#[common::test(USERS)]
fn the_umask_does_not_affect_the_mode_for_a_user() -> Outcome {
    let fs = TestFs::detached("777");
    with_own_working_directory(|| {
        as_user(CapabilitySet::empty(), || {
            for mask in UMASKS {
                umask(Mode::from_raw_mode(mask));
                create_with_all_modes(&fs)?;
            }
            Ok(())
        })
    })
}

/// A set-group-id directory, which passes its group and that bit on to new entries. No user of this
/// test is in the group.
fn set_group_id_directory(fs: &TestFs) -> PinDir {
    fs::create_dir(fs.at("parent")).expect("a directory");
    chown(fs.at("parent"), None, Some(Gid::from_raw(5678))).expect("its group");
    chmod(fs.at("parent"), Mode::from_raw_mode(0o2777)).expect("its mode");
    let parent = PinDir::open(fs.at("parent")).expect("the directory");
    fs::create_dir(fs.at("parent/plain")).expect("a directory in it");
    let plain = parent.metadata("plain").expect("its metadata");
    assert_eq!((plain.gid(), plain.mode() & 0o2000), (5678, 0o2000));
    parent.remove_dir("plain").expect("a removed directory");
    parent
}

#[common::test(USERS)]
fn a_set_group_id_parent_does_not_affect_the_mode() -> Outcome {
    let fs = TestFs::detached("777");
    let parent = set_group_id_directory(&fs);
    let check = || -> Outcome {
        let mut wrong = Vec::new();
        for mode in MODES {
            let name = format!("d{mode:o}");
            let dir = PinDir::create(fs.at("parent").join(&name), mode)?;
            let found = dir.own_metadata()?.mode();
            if found != mode {
                wrong.push(format!("{mode:#o} became {found:#o}"));
            }
            parent.remove_dir(&name)?;
        }
        assert!(wrong.is_empty(), "{wrong:?}");
        Ok(())
    };
    check()?;
    as_user(CapabilitySet::empty(), check)?;
    assert!(names_in(&parent).is_empty());
    Ok(())
}

/// New directories belong to the user and group of the process.
#[common::test(USERS)]
fn a_set_group_id_parent_does_not_affect_the_group() -> Outcome {
    let fs = TestFs::detached("777");
    let parent = set_group_id_directory(&fs);
    let check = |name: &str| -> Outcome {
        let found = parent.create_dir(name, 0o700)?.own_metadata()?;
        assert_eq!(found.uid(), geteuid().as_raw());
        assert_eq!(found.gid(), getegid().as_raw());
        Ok(())
    };
    check("root")?;
    as_user(CapabilitySet::empty(), || check("user"))?;
    Ok(())
}

#[common::test(DIRS)]
fn missing_parents_are_created() -> Outcome {
    let fs = TestFs::new();
    let path = fs.at("a/b/c");
    let dir = PinDir::create(&path, 0o750)?;
    assert_eq!(dir.path(), path);
    let mut at = root_of(&fs);
    for name in ["a", "b", "c"] {
        assert_eq!(names_in(&at), [name]);
        at = at.open_dir(name)?;
        assert_eq!(at.own_metadata()?.mode(), 0o750);
    }
    assert_eq!(at.own_metadata()?.inode(), dir.own_metadata()?.inode());
    assert!(names_in(&at).is_empty());
    // A second directory below the same parents, as another loader would create it.
    PinDir::create(fs.at("a/b/d"), 0o700)?;
    assert_eq!(names_in(&PinDir::open(fs.at("a/b"))?), ["c", "d"]);
    assert_eq!(
        metadata_of(&fs, "a").mode(),
        0o750,
        "parents that exist stay as they are"
    );
    Ok(())
}

#[common::test(PINS)]
fn an_existing_directory_is_opened_unchanged() -> Outcome {
    let fs = TestFs::new();
    let first = PinDir::create(fs.at("a/b"), 0o711)?;
    first.pin(&any_map(), "pin")?;
    let before = first.own_metadata()?;
    for mode in [0o700, 0o777, 0] {
        for again in [
            PinDir::create(fs.at("a/b"), mode)?,
            root_of(&fs).open_dir("a")?.create_dir("b", mode)?,
        ] {
            let after = again.own_metadata()?;
            assert_eq!((after.inode(), after.mode()), (before.inode(), 0o711));
            assert_eq!(after.changed(), before.changed(), "nothing was touched");
            assert_eq!(again.identity("pin")?, any_identity());
        }
    }
    assert_eq!(
        PinDir::create(fs.root(), 0o777)?.own_metadata()?.mode(),
        root_of(&fs).own_metadata()?.mode()
    );
    assert_eq!(fs.names(), ["a"]);
    Ok(())
}

#[common::test(USERS)]
fn create_owned_sets_the_owner_of_new_directories() -> Outcome {
    let fs = TestFs::detached("700");
    let cases = [
        (Some(1234), Some(5678)),
        (Some(1234), None),
        (None, Some(5678)),
        (None, None),
    ];
    for (i, (uid, gid)) in cases.into_iter().enumerate() {
        let name = format!("d{i}");
        // The set-user-id and set-group-id bits survive the change of owner.
        let dir = PinDir::create_owned(fs.at(&name).join("in"), 0o6750, uid, gid)?;
        for found in [metadata_of(&fs, &name), dir.own_metadata()?] {
            assert_eq!(
                (found.uid(), found.gid()),
                (uid.unwrap_or(0), gid.unwrap_or(0))
            );
            assert_eq!(found.mode(), 0o6750);
        }
    }
    // An existing directory keeps its owner.
    PinDir::create_owned(fs.at("d0"), 0o700, Some(1), Some(1))?;
    assert_eq!(metadata_of(&fs, "d0").uid(), 1234);
    Ok(())
}

#[common::test(USERS)]
fn create_owned_fails_without_permission_or_with_an_invalid_id() -> Outcome {
    let fs = TestFs::detached("777");
    let path = fs.at("a/b");
    let id = u32::MAX;
    for (uid, gid) in [(Some(id), None), (Some(0), Some(id))] {
        let error = unwrap_err(PinDir::create_owned(&path, 0o700, uid, gid));
        assert_eq!(error.operation(), Operation::CreateDir);
        assert!(fs.names().is_empty());
    }
    as_user(CapabilitySet::empty(), || {
        let error = unwrap_err(PinDir::create_owned(&path, 0o700, Some(0), None));
        assert_fails(&error, Operation::CreateDir, libc::EPERM, None);
        assert!(names_in(&root_of(&fs)).is_empty());
        // Asking for the caller's own ids changes nothing, so it succeeds.
        PinDir::create_owned(&path, 0o700, Some(1234), Some(1234)).expect("a directory");
    });
    assert_eq!(metadata_of(&fs, "a").uid(), 1234);
    Ok(())
}

#[common::test(DIRS)]
fn relative_paths_are_accepted() -> Outcome {
    let fs = TestFs::new();
    with_own_working_directory(|| -> Outcome {
        change_dir(fs.root())?;
        assert_eq!(PinDir::create("a/b", 0o700)?.path(), Path::new("a/b"));
        assert_eq!(PinDir::create("./c", 0o700)?.path(), Path::new("./c"));
        PinDir::create("c/./d/", 0o700)?;
        PinDir::create(".", 0o700)?;
        assert_eq!(fs.names(), ["a", "c"]);
        assert_eq!(names_in(&PinDir::open("c")?), ["d"]);
        // On a bpffs ".." is treated like any other name, and names there may not contain a '.'.
        let error = unwrap_err(PinDir::create("..", 0o700));
        assert_cause_matches!(error, Cause::Dot { .. });
        change_dir(&fs.at("a"))?;
        PinDir::create("deeper", 0o700)?;
        assert_eq!(names_in(&PinDir::open(".")?), ["b", "deeper"]);
        // Outside the bpffs, a path may contain "..".
        let outside = tempfile::tempdir()?;
        fs::create_dir(outside.path().join("x"))?;
        symlink(fs.root(), outside.path().join("way"))?;
        change_dir(&outside.path().join("x"))?;
        PinDir::create("../way/e", 0o700)?;
        let error = unwrap_err(PinDir::create("f", 0o700));
        assert_cause_matches!(error, Cause::NotBpffs { .. });
        assert_eq!(fs::read_dir(".")?.count(), 0);
        Ok(())
    })?;
    assert_eq!(fs.names(), ["a", "c", "e"]);
    Ok(())
}

/// Changes the working directory of this thread only, which `with_own_working_directory` has separated.
fn change_dir(path: &Path) -> Outcome {
    Ok(rustix::process::chdir(path)?)
}

#[common::test(DIRS)]
fn any_spelling_of_a_path_is_accepted() -> Outcome {
    let fs = TestFs::new();
    let root = fs.root().display();
    for path in [
        format!("{root}/a"),
        format!("{root}//a"),
        format!("{root}/a/"),
        format!("{root}/./a/."),
        format!("/.{root}///a//"),
    ] {
        let dir = PinDir::create(&path, 0o700)?;
        assert_eq!(dir.path().as_os_str(), &*path, "the path is unchanged");
        assert_eq!(fs.names(), ["a"], "{path}");
        root_of(&fs).remove_dir("a")?;
    }
    // The longest possible name, in a path longer than PATH_MAX allows.
    let deep = format!("{root}{}", format!("/{}", "n".repeat(255)).repeat(15));
    drop(PinDir::create(&deep, 0o700)?);
    PinDir::open(&deep)?;
    root_of(&fs).remove_dir_all("n".repeat(255))?;
    assert!(fs.names().is_empty());
    Ok(())
}

#[common::test(MOUNTS)]
fn a_path_may_cross_mounts() -> Outcome {
    let dir = tempfile::tempdir()?;
    in_mount_namespace(|| -> Outcome {
        mount_at("bpf", dir.path());
        let outer = PinDir::create(dir.path().join("outer"), 0o700)?;
        mount_at("bpf", dir.path().join("outer"));
        PinDir::create(dir.path().join("outer/a/b"), 0o700)?;
        assert!(names_in(&outer).is_empty());
        assert_eq!(names_in(&PinDir::open(dir.path().join("outer"))?), ["a"]);
        // Nothing is created on another file system, even if it is mounted on a bpffs.
        mount_at("tmpfs", dir.path().join("outer/a"));
        for end in ["outer/a", "outer/a/c", "outer/a/c/d"] {
            let error = unwrap_err(PinDir::create(dir.path().join(end), 0o700));
            let cause = not_bpffs(dir.path().join("outer/a"), None);
            assert_fails(&error, Operation::CreateDir, None, cause);
        }
        assert_eq!(fs::read_dir(dir.path().join("outer/a"))?.count(), 0);
        Ok(())
    })
}

#[common::test(DIRS)]
fn eight_concurrent_creations_of_one_directory_succeed() -> Outcome {
    let fs = TestFs::new();
    let root = root_of(&fs);
    for _ in 0..10 {
        let start = Barrier::new(8);
        let path = fs.at("a/b/c");
        let mut inodes: Vec<u64> = thread::scope(|scope| {
            let create = || {
                start.wait();
                let dir = PinDir::create(&path, 0o751).expect("the directory");
                let found = dir.own_metadata().unwrap();
                assert_eq!(found.mode(), 0o751);
                found.inode()
            };
            let racers: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
            racers
                .into_iter()
                .map(|racer| racer.join().unwrap())
                .collect()
        });
        inodes.dedup();
        assert_eq!(inodes.len(), 1, "all have the same directory");
        // No temporary names are left at any level.
        for (at, name) in [("", "a"), ("a", "b"), ("a/b", "c")] {
            assert_eq!(names_in(&PinDir::open(fs.at(at))?), [name]);
        }
        root.remove_dir_all("a")?;
    }
    assert!(fs.names().is_empty());
    Ok(())
}

/// A failed creation leaves directories alone that another creator already uses.
#[common::test(DIRS)]
fn a_failed_creation_keeps_directories_in_use() -> Outcome {
    let fs = TestFs::new();
    let root = root_of(&fs);
    for _ in 0..20 {
        let start = Barrier::new(4);
        let (good, bad) = (fs.at("a/b/c"), fs.at("a/b/x.y"));
        let made = thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    start.wait();
                    let error = unwrap_err(PinDir::create(&bad, 0o700));
                    assert_cause_matches!(error, Cause::Dot { .. } | Cause::Removed { .. });
                });
            }
            let create = || {
                start.wait();
                PinDir::create(&good, 0o700)
            };
            let racers: Vec<_> = (0..2).map(|_| scope.spawn(create)).collect();
            let made: Vec<_> = racers
                .into_iter()
                .map(|racer| racer.join().unwrap())
                .collect();
            made
        });
        let mut is_made = false;
        for created in made {
            match created {
                Ok(dir) => {
                    is_made = true;
                    assert!(names_in(&dir).is_empty(), "it exists");
                }
                // Another creator removed a parent that it had created itself.
                Err(error) => assert!(
                    matches!(error.cause(), Some(Cause::Removed { .. })),
                    "{error}"
                ),
            }
        }
        // Each creator removes only what it created. If all fail, an empty parent may stay, because
        // it was in use by another creator when its own creator tried to remove it. No unexpected
        // names are left.
        let mut dir = root.try_clone()?;
        let mut left = Vec::new();
        while let Some(name) = names_in(&dir).first() {
            assert_eq!(names_in(&dir).len(), 1, "{:?}", names_in(&dir));
            dir = dir.open_dir(name)?;
            left.push(name.clone());
        }
        let all = ["a", "b", "c"];
        let is_expected = if is_made {
            left == all
        } else {
            all[..2].starts_with(&as_strs(&left))
        };
        assert!(is_expected, "{left:?}, made: {is_made}");
        if !left.is_empty() {
            root.remove_dir_all("a")?;
        }
        assert!(fs.names().is_empty(), "{:?}", fs.names());
    }
    Ok(())
}

fn as_strs(names: &[String]) -> Vec<&str> {
    names.iter().map(|name| &**name).collect()
}
