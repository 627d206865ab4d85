//! Files that are not pins, and file systems that are not bpffs.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use bpf_pin::Object;
use bpf_pin::bpffs::FileSystem;
use bpf_pin::error::Cause;
use common::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::cause::path::*;
use crate::cause::*;

#[track_caller]
fn assert_is_no_object(path: &Path, what: &'static str) {
    let found = FileSystem::at(path).unwrap();
    let cause = Cause::NotAnObject {
        path: path.into(),
        what,
        found,
    };
    assert_open_fails(path, libc::EACCES, cause);
}

#[common::test]
fn opening_a_file_names_its_type() -> Outcome {
    let dir = tempfile::tempdir()?;
    let (file, pipe, socket) = (
        dir.path().join("file"),
        dir.path().join("pipe"),
        dir.path().join("socket"),
    );
    fs::write(&file, "")?;
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0)?;
    let _listener = UnixListener::bind(&socket)?;
    assert_is_no_object(dir.path(), "directory");
    assert_is_no_object(&file, "file");
    assert_is_no_object(&pipe, "pipe");
    assert_is_no_object(&socket, "socket");
    assert_is_no_object(Path::new("/dev/null"), "device");
    assert_is_no_object(Path::new("/proc/version"), "file");
    assert_is_no_object(Path::new("/"), "directory");
    assert_is_no_object(Path::new("/proc"), "directory");
    assert_is_no_object(Path::new("/sys/kernel"), "directory");
    assert_is_no_object(Path::new("/sys/kernel/notes"), "file");
    // A symbolic link leads to the same file.
    symlink(&file, dir.path().join("link"))?;
    assert_is_no_object(&dir.path().join("link"), "file");
    // The result does not depend on the access.
    for access in [bpf_pin::Access::ReadOnly, bpf_pin::Access::WriteOnly] {
        let error = unwrap_err(Object::open_with(&file, access), &file);
        let not = matches!(error.cause(), Some(Cause::NotAnObject { .. }));
        assert!(not || bpf_is_denied(), "{error}");
    }
    Ok(())
}

#[common::test(&[cap::SYS_ADMIN, cap::BPF])]
fn the_file_system_of_the_path_is_named() -> Outcome {
    let (_mount, root) = detached_tmpfs();
    let file = root.join("file");
    fs::write(&file, "")?;
    let found = FileSystem::at(&file)?;
    assert_eq!(found.name(), Some("tmpfs"));
    let cause = Cause::NotAnObject {
        path: file.clone(),
        what: "file",
        found,
    };
    assert_open_fails(&file, libc::EACCES, cause);

    let cause = not_bpffs(&root, None);
    assert_open_fails(&root.join("gone"), libc::ENOENT, cause.clone());
    assert_pin_fails(&root.join("flows"), libc::EPERM, cause);
    let cause = not_bpffs(&root, Some(root.join("a")));
    assert_pin_fails(&root.join("a/b/flows"), libc::ENOENT, cause);
    Ok(())
}

#[common::test(&[cap::BPF])]
fn pinning_outside_bpffs_names_the_file_system() -> Outcome {
    let dir = tempfile::tempdir()?;
    let temporary = FileSystem::at(dir.path())?;
    let proc = FileSystem::at("/proc")?;
    for (path, parent, found, missing) in [
        (dir.path().join("flows"), dir.path(), temporary, None),
        (
            dir.path().join("a/b/flows"),
            dir.path(),
            temporary,
            Some(dir.path().join("a")),
        ),
        (
            followed_by(dir.path(), "/flows/"),
            dir.path(),
            temporary,
            None,
        ),
        ("/proc/flows".into(), Path::new("/proc"), proc, None),
        (
            "/proc/a/b/flows".into(),
            Path::new("/proc"),
            proc,
            Some("/proc/a".into()),
        ),
    ] {
        let error = pin_fails(&path);
        let mut because = format!("{} is on {found}, not on a bpffs", parent.display());
        if let Some(missing) = &missing {
            because = format!("{} does not exist, and {because}", missing.display());
        }
        let sentence = format!("pin {}: {because}", path.display());
        assert_eq!(error.to_string(), sentence);
        let cause = Cause::NotBpffs {
            path: parent.into(),
            found,
            missing,
            hidden: None,
        };
        assert_eq!(error.cause(), Some(&cause), "{error}");
        assert!(
            matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOENT)),
            "{error:?}"
        );
    }
    assert_eq!(fs::read_dir(dir.path())?.count(), 0);
    Ok(())
}

#[common::test]
fn statfs_names_the_file_system_or_the_failing_component() -> Outcome {
    for (path, name) in [
        ("/proc", "proc"),
        ("/proc/self/status", "proc"),
        ("/sys/kernel", "sysfs"),
    ] {
        let found = FileSystem::at(path)?;
        assert!(!found.is_bpffs());
        assert_eq!(found.name(), Some(name));
        assert_eq!(FileSystem::of(fs::File::open(path)?)?, found);
    }
    let cause = missing("/proc/nothing");
    assert_statfs_fails(Path::new("/proc/nothing/here"), libc::ENOENT, cause);
    let cause = Cause::NotADirectory {
        path: "/proc/version".into(),
    };
    assert_statfs_fails(Path::new("/proc/version/x"), libc::ENOTDIR, cause);
    Ok(())
}
