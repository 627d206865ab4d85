//! Failed creations of directories, and the parents that they leave behind.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::symlink;
use std::path::Path;

use bpf_pin::PinDir;
use bpf_pin::error::{Cause, Operation};
use common::*;
use rustix::mount::{
    FsPickFlags, UnmountFlags, fsconfig_reconfigure, fsconfig_set_flag, fspick, unmount,
};
use rustix::thread::CapabilitySet;

use crate::create::{DIRS, MOUNTS, PINS, USERS, metadata_of};
use crate::helpers::*;

#[common::test(DIRS)]
fn an_invalid_name_creates_nothing() -> Outcome {
    let fs = TestFs::new();
    drop(PinDir::create(fs.at("old"), 0o700)?);
    symlink("old", fs.at("old/link"))?;
    let before = metadata_of(&fs, "old");
    let dot = |component: &str| {
        let component = component.into();
        Cause::Dot { component }
    };
    let long = "n".repeat(256);
    let too_long = Cause::TooLong {
        what: "name",
        length: 256,
        limit: 255,
    };
    let cases = [
        ("new/in/a.b".to_owned(), dot("a.b")),
        ("new/in/..".into(), dot("..")),
        ("new/../new".into(), dot("..")),
        ("old/new/in/.x/y".into(), dot(".x")),
        (format!("new/in/{long}"), too_long.clone()),
        (format!("old/new/{long}/in"), too_long),
    ];
    for (path, cause) in cases {
        let path = fs.at(&path);
        let error = unwrap_err(PinDir::create(&path, 0o700));
        assert_fails(&error, Operation::CreateDir, None, cause);
        assert_eq!(error.path(), Some(&*path));
        assert_eq!(fs.names(), ["old"], "{}", path.display());
        assert_eq!(names_in(&root_of(&fs).open_dir("old")?), ["link"]);
    }
    assert_eq!(metadata_of(&fs, "old").inode(), before.inode());
    Ok(())
}

/// The mode denies access even to the caller, so the creation fails after the first parent.
#[common::test(USERS)]
fn a_failed_creation_keeps_parents_like_mkdir_p() -> Outcome {
    let fs = TestFs::detached("777");
    as_user(CapabilitySet::empty(), || {
        for (mode, wanted) in [(0, "search"), (0o600, "search"), (0o500, "write")] {
            let path = fs.at("a/b/c");
            let error = unwrap_err(PinDir::create(&path, mode));
            let cause = Cause::Blocked {
                path: fs.at("a"),
                mode,
                uid: 1234,
                wanted,
                read_only_would_do: false,
            };
            assert_fails(&error, Operation::CreateDir, libc::EACCES, cause);
            assert_eq!(names_in(&root_of(&fs)), ["a"]);
            root_of(&fs).remove_dir("a").unwrap();
        }
    });
    Ok(())
}

#[common::test(MOUNTS)]
fn another_file_system_is_rejected_and_nothing_is_created() -> Outcome {
    let (_tmpfs, tmpfs) = detached_tmpfs();
    fs::create_dir(tmpfs.join("dir"))?;
    symlink("dir", tmpfs.join("link"))?;
    let here = tempfile::tempdir()?;
    let places = [
        tmpfs.join("dir"),
        tmpfs.clone(),
        tmpfs.join("link"),
        here.path().to_owned(),
        "/sys/kernel".into(),
        "/proc/self".into(),
    ];
    for place in &places {
        let error = unwrap_err(PinDir::create(place, 0o700));
        let cause = not_bpffs(place, None);
        assert_fails(&error, Operation::CreateDir, None, cause);
        let name = format!("bpf-pin-test-{}", std::process::id());
        for end in ["in/deep", "in/a.b", "in/deep/er"] {
            let gone = place.join(&name);
            let path = gone.join(end);
            let error = unwrap_err(PinDir::create(&path, 0o700));
            let cause = not_bpffs(place, Some(gone));
            assert_fails(&error, Operation::CreateDir, libc::ENOENT, cause);
        }
        assert!(!place.join(&name).exists());
    }
    assert_eq!(fs::read_dir(tmpfs.join("dir"))?.count(), 0);
    assert_eq!(fs::read_dir(tmpfs)?.count(), 2);
    assert_eq!(fs::read_dir(here.path())?.count(), 0);
    Ok(())
}

#[common::test(MOUNTS)]
fn a_bare_sysfs_gets_a_hint_to_mount_a_bpffs() -> Outcome {
    let dir = tempfile::tempdir()?;
    in_mount_namespace(|| -> Outcome {
        let mounted = dir.path().join("sys");
        fs::create_dir(&mounted)?;
        mount_at("sysfs", &mounted);
        let place = mounted.join("fs/bpf");
        for (path, errno) in [
            (place.clone(), None),
            (place.join("app"), Some(libc::ENOENT)),
            (place.join("app/v1"), Some(libc::ENOENT)),
        ] {
            let error = unwrap_err(PinDir::create(&path, 0o700));
            assert_fails(&error, Operation::CreateDir, errno, not_bpffs(&place, None));
        }
        unmount(&mounted, UnmountFlags::empty())?;
        Ok(())
    })
}

#[common::test(PINS)]
fn symbolic_links_are_followed_only_outside_the_bpffs() -> Outcome {
    let fs = TestFs::new();
    let outside = tempfile::tempdir()?;
    let target = PinDir::create(fs.at("target"), 0o700)?;
    for (name, to) in [
        ("link", Path::new("target")),
        ("dangling", Path::new("gone")),
        ("loop", Path::new("loop")),
        ("out", outside.path()),
    ] {
        symlink(to, fs.at(name))?;
        for end in ["", "/new", "/new/in"] {
            let path = fs.at(&format!("{name}{end}"));
            let error = unwrap_err(PinDir::create(&path, 0o700));
            let link = fs.at(name);
            assert_fails(
                &error,
                Operation::CreateDir,
                libc::ENOTDIR,
                Cause::SymbolicLink { path: link },
            );
        }
    }
    let path = fs.at("link");
    let error = unwrap_err(root_of(&fs).create_dir("link", 0o700));
    assert_eq!(error.cause(), Some(&Cause::SymbolicLink { path }));
    root_of(&fs).pin(&any_map(), "pin")?;
    for end in ["pin", "pin/new"] {
        let error = unwrap_err(PinDir::create(fs.at(end), 0o700));
        let path = fs.at("pin");
        assert_fails(
            &error,
            Operation::CreateDir,
            libc::ENOTDIR,
            Cause::NotADirectory { path },
        );
    }
    assert!(names_in(&target).is_empty());
    assert_eq!(fs::read_dir(outside.path())?.count(), 0);
    assert_eq!(
        fs.names(),
        ["dangling", "link", "loop", "out", "pin", "target"]
    );

    // Outside the bpffs, a link is followed like any other part of the path.
    let way = outside.path().join("way");
    symlink(fs.at("target"), &way)?;
    PinDir::create(way.join("a/b"), 0o700)?;
    assert_eq!(names_in(&target), ["a"]);
    Ok(())
}

#[common::test(PINS)]
fn an_unusable_path_is_rejected() -> Outcome {
    let fs = TestFs::new();
    let error = unwrap_err(PinDir::create("", 0o700));
    assert_fails(
        &error,
        Operation::CreateDir,
        libc::ENOENT,
        Cause::InvalidPath {
            problem: "the path is empty".into(),
        },
    );
    let long = "n".repeat(300);
    for end in ["a\0b", "a/b\0/c", "a/\0", &format!("a/{long}/\0")] {
        let path = fs.at(end);
        let position = path
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .position(|&byte| byte == 0)
            .unwrap();
        let error = unwrap_err(PinDir::create(&path, 0o700));
        let problem = format!("the path contains a NUL byte at offset {position}");
        let problem = problem.into();
        assert_fails(
            &error,
            Operation::CreateDir,
            None,
            Cause::InvalidPath { problem },
        );
        assert!(fs.names().is_empty());
    }
    // A file in the part of the path outside the bpffs.
    let file = tempfile::NamedTempFile::new()?;
    let path = file.path().join("a");
    let error = unwrap_err(PinDir::create(&path, 0o700));
    let at = file.path().to_owned();
    assert_fails(
        &error,
        Operation::CreateDir,
        libc::ENOTDIR,
        Cause::NotADirectory { path: at },
    );
    // A path through a removed directory.
    let gone = PinDir::create(fs.at("gone"), 0o700)?;
    root_of(&fs).remove_dir("gone")?;
    let path = format!("/proc/self/fd/{}", gone.as_fd().as_raw_fd());
    let error = unwrap_err(PinDir::create(format!("{path}/a/b"), 0o700));
    assert_fails(
        &error,
        Operation::CreateDir,
        libc::ENOENT,
        Cause::Removed { path: path.into() },
    );
    let error = unwrap_err(gone.create_dir("a", 0o700));
    assert_eq!(
        error.cause(),
        Some(&Cause::Removed {
            path: fs.at("gone")
        })
    );
    Ok(())
}

#[common::test(MOUNTS)]
fn a_read_only_bpffs_is_named() -> Outcome {
    let fs = TestFs::detached("700");
    drop(PinDir::create(fs.at("old"), 0o700)?);
    let flags = FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC;
    let context = fspick(fs.mount().expect("a detached mount"), c"", flags)?;
    fsconfig_set_flag(&context, c"ro")?;
    fsconfig_reconfigure(&context)?;
    for (end, at) in [("new", fs.root().to_owned()), ("old/new", fs.at("old"))] {
        let path = fs.at(end);
        let error = unwrap_err(PinDir::create(&path, 0o700));
        assert_fails(
            &error,
            Operation::CreateDir,
            libc::EROFS,
            Cause::ReadOnlyFileSystem { path: at },
        );
    }
    PinDir::create(fs.at("old"), 0o700)?;
    Ok(())
}

#[common::test(USERS)]
fn a_parent_without_write_permission_is_named() -> Outcome {
    let fs = TestFs::detached("777");
    let shared = PinDir::create(fs.at("shared"), 0o777)?;
    shared.create_dir("theirs", 0o755)?;
    as_user(CapabilitySet::empty(), || {
        let path = fs.at("shared/theirs/a/b");
        let error = unwrap_err(PinDir::create(&path, 0o700));
        let at = fs.at("shared/theirs");
        let cause = Cause::Blocked {
            path: at,
            mode: 0o755,
            uid: 0,
            wanted: "write",
            read_only_would_do: false,
        };
        assert_fails(&error, Operation::CreateDir, libc::EACCES, cause);
        let dir = PinDir::create(fs.at("shared/a/b"), 0o700).expect("a new directory");
        assert_eq!(dir.own_metadata().unwrap().uid(), 1234);
    });
    assert_eq!(names_in(&shared), ["a", "theirs"]);
    Ok(())
}
