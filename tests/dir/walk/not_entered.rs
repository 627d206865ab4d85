//! A walk reports symbolic links, mounts and unreadable directories, and does not enter them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use bpf_pin::dir::EntryType;
use bpf_pin::error::{Cause, Operation};
use bpf_pin::{PinDir, Result};
use common::*;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use rustix::thread::CapabilitySet;

use crate::walk::{MOUNT, PINS, USER, typed_paths, walk_all};

#[common::test(PINS)]
fn symbolic_links_are_listed_and_not_followed() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("dir"), 0o700)?;
    let inner = dir.create_dir("inner", 0o700)?;
    inner.pin(&hash(), "map")?;
    let targets = [
        ("dangling", "nothing/at/all"),
        ("self", "self"),
        ("one", "other"),
        ("other", "one"),
        ("to_a_directory", "inner"),
        ("to_a_pin", "inner/map"),
        ("to_dot", "."),
        ("up", ".."),
        ("out", "/"),
    ];
    for (name, target) in targets {
        symlink(target, fs.at("dir").join(name))?;
    }
    symlink("..", fs.at("dir/inner/back"))?;
    let (paths, errors) = walk_all(&dir)?;
    assert!(errors.is_empty(), "{errors:?}");
    use EntryType::*;
    let mut expected = typed_paths([
        ("inner", Directory),
        ("inner/map", Pin),
        ("inner/back", SymbolicLink),
    ]);
    expected.extend(targets.map(|(name, _)| (name.into(), SymbolicLink)));
    assert_eq!(paths, expected);
    let entries = dir.entries()?.collect::<Result<Vec<_>>>()?;
    assert_eq!(entries.len(), 1 + targets.len());
    for entry in entries {
        if entry.entry_type() != SymbolicLink {
            continue;
        }
        let metadata = entry.metadata()?;
        assert_eq!(
            (metadata.entry_type(), metadata.inode()),
            (SymbolicLink, entry.inode())
        );
        assert_eq!(entry.is_mount_point(), Some(false));
        let error = entry.get::<bpf_pin::Object>().unwrap_err();
        let path = entry.path();
        let cause = Some(Cause::SymbolicLink { path });
        assert_eq!(error.cause(), cause.as_ref(), "{error}");
    }
    Ok(())
}

#[common::test(MOUNT)]
fn mounts_are_listed_and_not_crossed() -> Outcome {
    with_mounted_bpffs(|root| -> Outcome {
        let dir = PinDir::open(root)?;
        let map = hash();
        for name in ["another", "bound", "foreign", "plain"] {
            dir.create_dir(name, 0o700)?.pin(&map, "below")?;
        }
        for name in ["map", "other_map"] {
            dir.pin(&hash(), name)?;
        }
        let inodes: BTreeMap<_, _> = dir
            .entries()?
            .map(|entry| entry.map(|entry| (entry.name().to_owned(), entry.inode())))
            .collect::<Result<_>>()?;
        mount(
            "bpf",
            root.join("another"),
            "bpf",
            MountFlags::empty(),
            None,
        )?;
        PinDir::open(root.join("another"))?.pin(&map, "above")?;
        mount(
            "tmpfs",
            root.join("foreign"),
            "tmpfs",
            MountFlags::empty(),
            None,
        )?;
        fs::write(root.join("foreign/above"), "")?;
        // The bind mounts are of the same instance, so only a check for mounts detects them.
        mount_bind(root.join("plain"), root.join("bound"))?;
        mount_bind(root.join("map"), root.join("other_map"))?;

        let mut mounted = Vec::new();
        for entry in dir.entries()? {
            let entry = entry?;
            assert_eq!(
                inodes[entry.name()],
                entry.inode(),
                "the inode is that of the directory below the mount"
            );
            if entry.is_mount_point() == Some(true) {
                mounted.push(entry.name().to_owned());
            }
        }
        mounted.sort();
        assert_eq!(mounted, ["another", "bound", "foreign", "other_map"]);

        let (paths, errors) = walk_all(&dir)?;
        use EntryType::*;
        let expected = [
            ("another", Directory),
            ("bound", Directory),
            ("foreign", Directory),
            ("map", Pin),
            ("other_map", Pin),
            ("plain", Directory),
            ("plain/below", Pin),
        ];
        assert_eq!(paths, typed_paths(expected));
        let mut reported = Vec::new();
        for error in errors {
            assert_eq!(error.raw_os_error(), Some(libc::EXDEV), "{error}");
            assert_eq!(error.operation(), Operation::ListDir);
            let path = error.path().expect("a path");
            let cause = Cause::MountPoint { path: path.into() };
            assert_eq!(error.cause(), Some(&cause));
            reported.push(path.strip_prefix(root)?.to_owned());
        }
        reported.sort();
        let reported: Vec<_> = reported.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(reported, ["another", "bound", "foreign"]);

        for name in ["another", "bound", "foreign", "other_map"] {
            unmount(root.join(name), UnmountFlags::empty())?;
        }
        let (paths, errors) = walk_all(&dir)?;
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(paths.len(), 6 + 4);
        // A mount over the root does not affect the walk, which started from the directory's descriptor.
        mount("bpf", root, "bpf", MountFlags::empty(), None)?;
        assert_eq!(walk_all(&dir)?.0.len(), 6 + 4);
        unmount(root, UnmountFlags::empty())?;
        Ok(())
    })
}

#[common::test(USER)]
fn unreadable_directories_are_reported_and_skipped() -> Outcome {
    let fs = TestFs::detached("755");
    let dir = PinDir::create(fs.at("dir"), 0o755)?;
    let modes = [0o700, 0o711, 0o744, 0o755, 0o722];
    for mode in modes {
        let inner = dir.create_dir(format!("mode{mode:o}"), mode)?;
        inner.pin(&hash(), "map")?;
    }
    let blocked = |path: PathBuf, mode| Cause::Blocked {
        path,
        mode,
        uid: 0,
        // Search permission is checked before read permission.
        wanted: if mode & 1 == 0 { "search" } else { "read" },
        read_only_would_do: false,
    };
    as_user(CapabilitySet::empty(), || -> Outcome {
        let (paths, errors) = walk_all(&dir)?;
        let expected = modes.map(|mode| PathBuf::from(format!("mode{mode:o}")));
        let mut expected: BTreeMap<_, _> = expected.map(|name| (name, EntryType::Directory)).into();
        expected.insert("mode755/map".into(), EntryType::Pin);
        assert_eq!(paths, expected);
        assert_eq!(errors.len(), 4);
        for error in errors {
            assert_eq!(error.raw_os_error(), Some(libc::EACCES));
            assert_eq!(error.operation(), Operation::ListDir);
            let path = error.path().expect("a path");
            let name = path.file_name().and_then(OsStr::to_str).unwrap();
            let mode = u32::from_str_radix(&name[4..], 8)?;
            let cause = blocked(path.into(), mode);
            assert_eq!(error.cause(), Some(&cause));
            assert_eq!(error.operation(), Operation::ListDir);
        }
        // A descriptor of a directory does not grant permission to read it.
        for mode in [0o700, 0o711] {
            let held = dir.open_dir(format!("mode{mode:o}"))?;
            let cause = blocked(held.path().to_owned(), mode);
            let error = held.entries().unwrap_err();
            assert_eq!(error.cause(), Some(&cause));
            let error = held.walk().unwrap_err();
            assert_eq!(error.cause(), Some(&cause));
        }
        Ok(())
    })?;
    // The directory's owner has the capability, so this walk has no errors.
    let (paths, errors) = walk_all(&dir)?;
    assert!(errors.is_empty());
    assert_eq!(paths.len(), 10);
    Ok(())
}
