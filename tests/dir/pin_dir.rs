//! Directories on a bpffs that are held by descriptor: opening them and working in them.

mod attributes;
mod seccomp;
use crate::methods;
mod names;
mod nosymfollow;
mod pins;
mod removal;
mod two_names;

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;

use bpf_pin::bpffs::FileSystem;
use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Map, PinDir};
use common::*;
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::thread::CapabilitySet;

use crate::helpers::*;

pub const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
pub const DIRS: &[Need] = &[Need::Bpffs];
/// Needed for a bpffs that all users may write to, and for a switch to another user.
pub const USERS: &[Need] = &[cap::BPF, cap::SYS_ADMIN, cap::SETUID];
pub const MOUNTS: &[Need] = &[cap::BPF, cap::SYS_ADMIN];

fn is_o_path_and_cloexec(dir: &PinDir) -> bool {
    let flags = rustix::fs::fcntl_getfl(dir).unwrap();
    flags.contains(OFlags::PATH) && fcntl_getfd(dir).unwrap().contains(FdFlags::CLOEXEC)
}

#[common::test(DIRS)]
fn a_directory_is_opened_by_path() -> Outcome {
    let fs = TestFs::new();
    fs::create_dir(fs.at("dir"))?;
    for path in [
        fs.root().to_owned(),
        fs.at("dir"),
        fs.at("dir/"),
        fs.at("dir/."),
    ] {
        let dir = PinDir::open(&path)?;
        assert_eq!(
            dir.path().as_os_str(),
            path.as_os_str(),
            "the path is unchanged"
        );
        assert!(is_o_path_and_cloexec(&dir));
        assert_eq!(
            fstat(&dir)?.st_ino,
            fs::metadata(&path).map(|m| std::os::unix::fs::MetadataExt::ino(&m))?
        );
        let text = format!("{dir:?}");
        assert!(
            text.starts_with("PinDir { fd: ") && text.contains(&format!("{path:?}")),
            "{text}"
        );
    }
    Ok(())
}

#[common::test(PINS)]
fn symbolic_links_are_resolved_only_at_open() -> Outcome {
    let fs = TestFs::new();
    for name in ["one", "two"] {
        fs::create_dir(fs.at(name))?;
    }
    symlink("one", fs.at("link"))?;
    let dir = PinDir::open(fs.at("link"))?;
    fs::remove_file(fs.at("link"))?;
    symlink("two", fs.at("link"))?;
    dir.pin(&any_map(), "map")?;
    assert_eq!(Map::open(fs.at("one/map"))?.identity()?, any_identity());
    assert_eq!(fs::read_dir(fs.at("two"))?.count(), 0);
    Ok(())
}

#[common::test(PINS)]
fn opening_something_else_than_a_directory_fails_with_its_cause() -> Outcome {
    let fs = TestFs::new();
    root_of(&fs).pin(&any_map(), "pin")?;
    symlink("gone", fs.at("link"))?;
    symlink("loop", fs.at("loop"))?;
    let long = "n".repeat(256);
    let deep = format!("{}{}", fs.root().display(), "/d".repeat(2100));
    let not_a_directory = || Cause::NotADirectory { path: fs.at("pin") };
    let nul = fs.at("a\0b");
    let position = nul.as_os_str().len() - 2;
    let at_nul = format!("the path contains a NUL byte at offset {position}");
    let component = "a.b".into();
    let length = deep.len();
    #[rustfmt::skip]
    let cases = [
        (fs.at("gone"), Some(libc::ENOENT), missing(fs.at("gone"))),
        (fs.at("gone/dir"), Some(libc::ENOENT), missing(fs.at("gone"))),
        (fs.at("link"), Some(libc::ENOENT), missing(fs.at("gone"))),
        (fs.at("pin"), Some(libc::ENOTDIR), not_a_directory()),
        (fs.at("pin/dir"), Some(libc::ENOTDIR), not_a_directory()),
        (fs.at("a.b"), Some(libc::EPERM), Cause::Dot { component }),
        (fs.at(&long), Some(libc::ENAMETOOLONG), Cause::TooLong { what: "name", length: 256, limit: 255 }),
        (deep.into(), Some(libc::ENAMETOOLONG), Cause::TooLong { what: "path", length, limit: 4095 }),
        ("".into(), Some(libc::ENOENT), invalid_path("the path is empty")),
        (nul, None, invalid_path(&at_nul)),
    ];
    for (path, errno, cause) in cases {
        let error = unwrap_err(PinDir::open(&path));
        assert_fails(&error, Operation::OpenDir, errno, cause);
        assert_eq!(error.path().unwrap_or("".as_ref()), path);
    }
    let path = fs.at("loop");
    assert_fails(
        &unwrap_err(PinDir::open(&path)),
        Operation::OpenDir,
        libc::ELOOP,
        None,
    );
    assert_eq!(fs.names(), ["link", "loop", "pin"]);
    Ok(())
}

fn invalid_path(problem: &str) -> Cause {
    let problem = problem.to_owned().into();
    Cause::InvalidPath { problem }
}

#[common::test(&[cap::SYS_ADMIN])]
fn a_directory_on_another_file_system_is_rejected() -> Outcome {
    let (_tmpfs, tmpfs) = detached_tmpfs();
    fs::create_dir(tmpfs.join("dir"))?;
    let proc = "/proc/self".into();
    let sys = "/sys".into();
    for (path, name) in [(tmpfs.join("dir"), "tmpfs"), (proc, "proc"), (sys, "sysfs")] {
        let error = unwrap_err(PinDir::open(&path));
        let found = FileSystem::at(&path)?;
        assert_eq!(found.to_string(), name);
        let at = path.clone();
        let cause = |missing| not_bpffs(&at, missing);
        assert_fails(&error, Operation::OpenDir, None, cause(None));

        let inside = path.join("gone/app");
        let error = unwrap_err(PinDir::open(&inside));
        let gone = path.join("gone");
        assert_fails(&error, Operation::OpenDir, libc::ENOENT, cause(Some(gone)));
    }
    Ok(())
}

#[common::test(PINS)]
fn open_dir_opens_a_subdirectory() -> Outcome {
    let fs = TestFs::new();
    let root = root_of(&fs);
    drop(root.create_dir("dir", 0o700)?.create_dir("in", 0o700)?);
    let dir = root.open_dir("dir")?;
    assert_eq!(dir.path(), fs.at("dir"));
    assert!(is_o_path_and_cloexec(&dir));
    dir.open_dir("in")?.pin(&any_map(), "map")?;
    assert_eq!(Map::open(fs.at("dir/in/map"))?.identity()?, any_identity());
    assert_eq!(dir.open_dir("in")?.path(), fs.at("dir/in"));

    root.pin(&any_map(), "pin")?;
    symlink("dir", fs.at("link"))?;
    symlink("gone", fs.at("dangling"))?;
    let assert_open_dir_fails = |name: &str, errno: i32, cause| {
        let error = unwrap_err(root.open_dir(name));
        assert_fails(&error, Operation::OpenDir, errno, cause);
    };
    assert_open_dir_fails("gone", libc::ENOENT, missing(fs.at("gone")));
    let path = fs.at("pin");
    assert_open_dir_fails("pin", libc::ENOTDIR, Cause::NotADirectory { path });
    for name in ["link", "dangling"] {
        let cause = Cause::SymbolicLink { path: fs.at(name) };
        assert_open_dir_fails(name, libc::ENOTDIR, cause);
    }
    Ok(())
}

#[common::test(MOUNTS)]
fn open_dir_crosses_no_mount() -> Outcome {
    let dir = tempfile::tempdir()?;
    in_mount_namespace(|| -> Outcome {
        mount_at("bpf", dir.path());
        let root = PinDir::open(dir.path())?;
        drop(root.create_dir("dir", 0o700)?);
        let path = dir.path().join("dir");
        for kind in ["bpf", "tmpfs"] {
            mount_at(kind, &path);
            let error = unwrap_err(root.open_dir("dir"));
            let cause = Cause::MountPoint { path: path.clone() };
            assert_fails(&error, Operation::OpenDir, libc::EXDEV, cause);
            rustix::mount::unmount(&path, rustix::mount::UnmountFlags::empty())?;
        }
        root.open_dir("dir")?;
        Ok(())
    })
}

#[common::test(USERS)]
fn open_dir_needs_search_permission() -> Outcome {
    let fs = TestFs::detached("777");
    let shut = root_of(&fs).create_dir("shut", 0o700)?;
    drop(shut.create_dir("in", 0o777)?);
    as_user(CapabilitySet::empty(), || -> Outcome {
        let blocked = || Cause::Blocked {
            path: fs.at("shut"),
            mode: 0o700,
            uid: 0,
            wanted: "search",
            read_only_would_do: false,
        };
        // `open` needs no search permission on the directory itself.
        let held = PinDir::open(fs.at("shut"))?;
        let error = unwrap_err(held.open_dir("in"));
        assert_fails(&error, Operation::OpenDir, libc::EACCES, blocked());
        let error = unwrap_err(PinDir::open(fs.at("shut/in")));
        assert_fails(&error, Operation::OpenDir, libc::EACCES, blocked());
        let error = unwrap_err(held.metadata("in"));
        assert_cause(&error, libc::EACCES, blocked());
        Ok(())
    })
}

#[common::test(PINS)]
fn from_fd_accepts_a_directory_on_a_bpffs() -> Outcome {
    let fs = TestFs::new();
    root_of(&fs).pin(&any_map(), "map")?;
    for flags in [OFlags::PATH, OFlags::RDONLY] {
        let fd = open(fs.root(), flags | OFlags::CLOEXEC, Mode::empty())?;
        let number = fd.as_raw_fd();
        let dir = PinDir::from_fd(fd)?;
        assert_eq!(dir.as_fd().as_raw_fd(), number, "the same object");
        let path = format!("/proc/self/fd/{number}");
        assert_eq!(dir.path(), std::path::Path::new(&path));
        assert_eq!(dir.identity("map")?, any_identity());
        dir.pin(&any_map(), "other")?;
        dir.unpin(&any_map(), "other")?;
        // The conversion back to a descriptor, and `TryFrom`.
        let fd = OwnedFd::from(dir);
        assert_eq!(fd.as_raw_fd(), number);
        let dir = PinDir::try_from(fd)?;
        assert_eq!(names_in(&dir), ["map"]);
    }
    Ok(())
}

#[common::test(PINS)]
fn from_fd_rejects_other_descriptors_and_returns_them() -> Outcome {
    let fs = TestFs::new();
    root_of(&fs).pin(&any_map(), "map")?;
    let directory = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let file = open(
        "/proc/self/status",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let pin = open(fs.at("map"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let object: OwnedFd = any_map().into();
    let (pipe, _writer) = rustix::pipe::pipe()?;
    for fd in [directory, file, object, pipe] {
        let (number, inode) = (fd.as_raw_fd(), fstat(&fd)?.st_ino);
        let path = format!("/proc/self/fd/{number}");
        let (fd, error) = unwrap_err(PinDir::from_fd(fd)).into_parts();
        assert_fails(&error, Operation::DirFromFd, None, not_bpffs(path, None));
        assert_eq!(
            (fd.as_raw_fd(), fstat(&fd)?.st_ino),
            (number, inode),
            "the directory is still open"
        );
    }
    let path = format!("/proc/self/fd/{}", pin.as_raw_fd());
    let (_, error) = unwrap_err(PinDir::try_from(pin)).into_parts();
    assert_fails(
        &error,
        Operation::DirFromFd,
        None,
        Cause::NotADirectory { path: path.into() },
    );
    Ok(())
}

#[common::test(PINS)]
fn a_clone_refers_to_the_same_directory() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    let other = dir.try_clone()?;
    assert_ne!(dir.as_fd().as_raw_fd(), other.as_fd().as_raw_fd());
    assert!(is_o_path_and_cloexec(&other));
    assert_eq!(other.path(), dir.path());
    dir.pin(&any_map(), "map")?;
    drop(dir);
    assert_eq!(other.identity("map")?, any_identity());
    Ok(())
}

#[common::test(DIRS)]
fn errors_have_the_operation_and_both_paths() -> Outcome {
    let fs = TestFs::new();
    let dir = root_of(&fs);
    let error = unwrap_err(dir.rename("from", "to"));
    assert_eq!(error.operation(), Operation::Rename);
    assert_eq!(error.second_path(), Some(&*fs.at("to")));
    assert_eq!(error.path(), Some(&*fs.at("from")));
    assert_fails(
        &error,
        Operation::Rename,
        libc::ENOENT,
        missing(fs.at("from")),
    );
    Ok(())
}
