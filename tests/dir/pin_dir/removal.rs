//! Directories are removed with their content and nothing else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;

use bpf_pin::PinDir;
use bpf_pin::error::{Cause, Operation};
use common::*;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::CapabilitySet;

use crate::helpers::*;
use crate::pin_dir::{MOUNTS, PINS, USERS};

#[common::test(PINS)]
fn remove_dir_removes_only_an_empty_directory() -> Outcome {
    let fs = TestFs::new();
    let root = root_of(&fs);
    let dir = root.create_dir("dir", 0o700)?;
    for fill in [true, false] {
        if fill {
            dir.pin(&any_map(), "pin")?;
        } else {
            drop(dir.create_dir("pin", 0o700)?);
        }
        let error = unwrap_err(root.remove_dir("dir"));
        let path = fs.at("dir");
        assert_fails(
            &error,
            Operation::Remove,
            libc::ENOTEMPTY,
            Cause::NotEmpty { path },
        );
        match fill {
            true => dir.unpin(&any_map(), "pin")?,
            false => dir.remove_dir("pin")?,
        }
    }
    root.remove_dir("dir")?;
    assert!(fs.names().is_empty());
    let error = unwrap_err(root.remove_dir("dir"));
    assert_fails(
        &error,
        Operation::Remove,
        libc::ENOENT,
        missing(fs.at("dir")),
    );
    Ok(())
}

/// Fills seven directories with three pins each.
fn create_tree(dir: &PinDir, depth: u32) -> Outcome {
    for name in ["a", "b", "c"] {
        dir.pin(&any_map(), name)?;
    }
    if depth > 0 {
        for name in ["left", "right"] {
            create_tree(&dir.create_dir(name, 0o700)?, depth - 1)?;
        }
    }
    Ok(())
}

#[common::test(PINS)]
fn remove_dir_all_removes_a_tree_and_nothing_else() -> Outcome {
    let fs = TestFs::new();
    let root = root_of(&fs);
    let tree = root.create_dir("tree", 0o700)?;
    create_tree(&tree, 2)?;
    create_tree(&root.create_dir("other", 0o700)?, 1)?;
    // More names than one read of the directory returns.
    let many = tree.create_dir("many", 0o700)?;
    for i in 0..1500 {
        many.pin(&any_map(), format!("a_rather_long_name_{i}"))?;
    }
    root.remove_dir_all("tree")?;
    assert_eq!(fs.names(), ["other"]);
    assert_eq!(
        names_in(&root.open_dir("other")?),
        ["a", "b", "c", "left", "right"]
    );
    // The old descriptor now refers to a removed, empty directory.
    let error = unwrap_err(tree.pin(&any_map(), "a"));
    assert_eq!(
        error.cause(),
        Some(&Cause::Removed {
            path: fs.at("tree")
        })
    );
    let error = unwrap_err(tree.entries()?.collect::<Result<Vec<_>, _>>());
    assert_eq!(
        error.cause(),
        Some(&Cause::Removed {
            path: fs.at("tree")
        })
    );
    drop(root.create_dir("empty", 0o700)?);
    root.remove_dir_all("empty")?;
    assert_eq!(fs.names(), ["other"]);
    Ok(())
}

#[common::test(PINS)]
fn remove_dir_all_removes_a_tree_deeper_than_path_max() -> Outcome {
    let fs = TestFs::new();
    let root = root_of(&fs);
    let mut dir = root.create_dir("deep", 0o700)?;
    // Builds a path that is longer than PATH_MAX.
    let name = "d".repeat(200);
    for _ in 0..40 {
        dir.pin(&any_map(), "pin")?;
        dir = dir.create_dir(&name, 0o700)?;
    }
    assert!(dir.path().as_os_str().len() > 4096);
    dir.pin(&any_map(), "pin")?;
    assert_eq!(dir.identity("pin")?, any_identity());
    root.remove_dir_all("deep")?;
    assert!(fs.names().is_empty());
    Ok(())
}

#[common::test(PINS)]
fn remove_dir_all_does_not_follow_symbolic_links() -> Outcome {
    let fs = TestFs::new();
    let root = root_of(&fs);
    let precious = root.create_dir("precious", 0o700)?;
    precious.pin(&any_map(), "pin")?;
    let elsewhere = tempfile::tempdir()?;
    fs::write(elsewhere.path().join("file"), "precious")?;
    let tree = root.create_dir("tree", 0o700)?;
    drop(tree.create_dir("in", 0o700)?);
    let targets = [
        Path::new("../precious"),
        elsewhere.path(),
        Path::new("gone"),
        Path::new("."),
        Path::new(".."),
    ];
    for (i, target) in targets.into_iter().enumerate() {
        for place in ["tree", "tree/in"] {
            symlink(target, fs.at(place).join(format!("link{i}")))?;
        }
    }
    root.remove_dir_all("tree")?;
    assert_eq!(fs.names(), ["precious"]);
    assert_eq!(names_in(&precious), ["pin"]);
    assert_eq!(
        fs::read_to_string(elsewhere.path().join("file"))?,
        "precious"
    );
    Ok(())
}

#[common::test(PINS)]
fn remove_dir_and_remove_dir_all_keep_other_entries() -> Outcome {
    let fs = TestFs::new();
    let root = root_of(&fs);
    root.pin(&any_map(), "pin")?;
    drop(root.create_dir("dir", 0o700)?);
    symlink("dir", fs.at("link"))?;
    let inode = root.metadata("link")?.inode();
    let path = fs.at("pin");
    for error in [
        unwrap_err(root.remove_dir("pin")),
        unwrap_err(root.remove_dir_all("pin")),
    ] {
        let path = path.clone();
        assert_fails(
            &error,
            Operation::Remove,
            libc::ENOTDIR,
            Cause::NotADirectory { path },
        );
    }
    let path = fs.at("link");
    for error in [
        unwrap_err(root.remove_dir("link")),
        unwrap_err(root.remove_dir_all("link")),
    ] {
        let path = path.clone();
        assert_fails(
            &error,
            Operation::Remove,
            libc::ENOTDIR,
            Cause::SymbolicLink { path },
        );
    }
    let error = unwrap_err(root.remove_dir_all("gone"));
    assert_fails(
        &error,
        Operation::Remove,
        libc::ENOENT,
        missing(fs.at("gone")),
    );
    assert_eq!(fs.names(), ["dir", "link", "pin"]);
    assert_eq!(
        root.metadata("link")?.inode(),
        inode,
        "the entry is not renamed"
    );
    Ok(())
}

#[common::test(MOUNTS)]
fn remove_dir_all_keeps_mount_points() -> Outcome {
    let dir = tempfile::tempdir()?;
    in_mount_namespace(|| -> Outcome {
        mount_at("bpf", dir.path());
        let root = PinDir::open(dir.path())?;
        let tree = root.create_dir("tree", 0o700)?;
        drop(tree.create_dir("in", 0o700)?.create_dir("mounted", 0o700)?);
        let precious = root.create_dir("precious", 0o700)?;
        precious.pin(&any_map(), "pin")?;
        let mounted: PathBuf = dir.path().join("tree/in/mounted");
        let assert_mount_point = |path: &Path| {
            let error = unwrap_err(root.remove_dir_all("tree"));
            let cause = Cause::MountPoint { path: path.into() };
            // Below the tree the errno comes from openat2(2), for the tree itself from rename(2).
            let errno = match path.ends_with("tree") {
                true => libc::EBUSY,
                false => libc::EXDEV,
            };
            assert_fails(&error, Operation::Remove, errno, cause);
            assert_eq!(names_in(&root), ["precious", "tree"]);
        };
        // Mounts another file system, another bpffs instance, and the same instance.
        mount_at("tmpfs", &mounted);
        fs::write(mounted.join("file"), "precious")?;
        assert_mount_point(&mounted);
        assert_eq!(fs::read_to_string(mounted.join("file"))?, "precious");
        unmount(&mounted, UnmountFlags::empty())?;
        mount_at("bpf", &mounted);
        PinDir::open(&mounted)?.pin(&any_map(), "pin")?;
        assert_mount_point(&mounted);
        assert_eq!(names_in(&PinDir::open(&mounted)?), ["pin"]);
        unmount(&mounted, UnmountFlags::empty())?;
        mount_bind(dir.path().join("precious"), &mounted)?;
        assert_mount_point(&mounted);
        unmount(&mounted, UnmountFlags::empty())?;
        // A mount on the tree itself.
        let path = dir.path().join("tree");
        mount_at("tmpfs", &path);
        assert_mount_point(&path);
        unmount(&path, UnmountFlags::empty())?;
        root.remove_dir_all("tree")?;
        assert_eq!(names_in(&root), ["precious"]);
        assert_eq!(names_in(&precious), ["pin"]);
        Ok(())
    })
}

#[common::test(USERS)]
fn a_failed_remove_dir_all_restores_the_name() -> Outcome {
    let fs = TestFs::detached("777");
    let root = root_of(&fs);
    let tree = root.create_dir("tree", 0o777)?;
    let shared = tree.create_dir("shared", 0o1777)?;
    shared.pin(&any_map(), "theirs")?;
    root.set_owner("tree", Some(1234), Some(1234))?;
    as_user(CapabilitySet::empty(), || {
        let error = unwrap_err(root.remove_dir_all("tree"));
        let (path, directory) = (fs.at("tree/shared/theirs"), fs.at("tree/shared"));
        assert_fails(
            &error,
            Operation::Remove,
            libc::EPERM,
            Cause::Sticky { directory, uid: 0 },
        );
        assert_eq!(error.path(), Some(&*path));
    });
    assert_eq!(fs.names(), ["tree"]);
    assert_eq!(shared.identity("theirs")?, any_identity());
    assert_eq!(
        root.open_dir("tree")?.own_metadata()?.inode(),
        tree.own_metadata()?.inode()
    );
    root.remove_dir_all("tree")?;
    assert!(fs.names().is_empty());
    Ok(())
}

#[common::test(USERS)]
fn remove_dir_all_of_an_unreadable_tree_restores_the_name() -> Outcome {
    let fs = TestFs::detached("777");
    let root = root_of(&fs);
    let tree = root.create_dir("tree", 0o777)?;
    tree.create_dir("shut", 0o700)?.pin(&any_map(), "theirs")?;
    root.set_owner("tree", Some(1234), Some(1234))?;
    as_user(CapabilitySet::empty(), || {
        let error = unwrap_err(root.remove_dir_all("tree"));
        assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
        let Some(Cause::Blocked {
            path,
            mode: 0o700,
            uid: 0,
            ..
        }) = error.cause()
        else {
            panic!("{error}");
        };
        assert_eq!(*path, fs.at("tree/shut"));
    });
    assert_eq!(fs.names(), ["tree"]);
    assert_eq!(names_in(&tree.open_dir("shut")?), ["theirs"]);
    Ok(())
}

#[common::test(USERS)]
fn a_sticky_directory_protects_trees_of_other_users() -> Outcome {
    let fs = TestFs::detached("777");
    let root = root_of(&fs);
    root.create_dir("tree", 0o777)?.pin(&any_map(), "pin")?;
    drop(root.create_dir("empty", 0o777)?);
    as_user(CapabilitySet::empty(), || {
        for (name, error) in [
            ("tree", unwrap_err(root.remove_dir_all("tree"))),
            ("empty", unwrap_err(root.remove_dir("empty"))),
        ] {
            let directory = fs.root().to_owned();
            let sticky = Cause::Sticky { directory, uid: 0 };
            assert_fails(&error, Operation::Remove, libc::EPERM, sticky);
            assert_eq!(error.path(), Some(&*fs.at(name)));
        }
    });
    assert_eq!(fs.names(), ["empty", "tree"]);
    assert_eq!(names_in(&root.open_dir("tree")?), ["pin"]);
    Ok(())
}

#[common::test(PINS)]
fn one_of_eight_concurrent_removals_succeeds() -> Outcome {
    let fs = TestFs::new();
    let root = root_of(&fs);
    for _ in 0..10 {
        create_tree(&root.create_dir("tree", 0o700)?, 2)?;
        let start = Barrier::new(8);
        let won = thread::scope(|scope| {
            let remove = || {
                start.wait();
                match root.remove_dir_all("tree") {
                    Ok(()) => 1,
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
                        assert_eq!(error.cause(), Some(&missing(fs.at("tree"))), "{error}");
                        0
                    }
                }
            };
            let racers: Vec<_> = (0..8).map(|_| scope.spawn(remove)).collect();
            racers
                .into_iter()
                .map(|racer| racer.join().unwrap())
                .sum::<u32>()
        });
        assert_eq!(won, 1);
        assert!(fs.names().is_empty());
    }
    Ok(())
}
