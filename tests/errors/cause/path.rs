//! Invalid paths, and paths that lead nowhere or to another file system.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use bpf_pin::bpffs::FileSystem;
use bpf_pin::error::Cause;
use bpf_pin::reuse::Reuse;
use bpf_pin::{Bpffs, Identity, Kind, Map, MapSpec, MapType, PinDir, PinnedMap};
use common::*;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::cause::*;

pub const OBJECTS: &[Need] = &[cap::BPF, Need::Bpffs];

/// True if the sysctl denies bpf(2) to this user. Then the kernel reports EPERM before it resolves the path.
pub fn bpf_is_denied() -> bool {
    sysctl_closes_all() && cap::BPF.unmet().is_some()
}

#[track_caller]
pub fn assert_open_fails(path: &Path, errno: i32, cause: Cause) {
    let error = open_fails(path);
    if bpf_is_denied() && errno != 0 {
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        return;
    }

    assert_fails(
        &error,
        Operation::Open,
        (errno != 0).then_some(errno),
        Some(cause),
    );
}

#[track_caller]
pub fn assert_pin_fails(path: &Path, errno: i32, cause: Cause) {
    let errno = (errno != 0).then_some(errno);
    assert_fails(&pin_fails(path), Operation::Pin, errno, Some(cause));
}

#[track_caller]
pub fn assert_statfs_fails(path: &Path, errno: i32, cause: Cause) {
    let errno = (errno != 0).then_some(errno);
    assert_fails(&statfs_fails(path), Operation::Statfs, errno, Some(cause));
}

/// Opening, pinning and statfs(2) of a path fail in the same way.
#[track_caller]
fn assert_all_fail(path: &Path, errno: i32, cause: Cause) {
    assert_pin_fails(path, errno, cause.clone());
    assert_open_fails(path, errno, cause.clone());
    assert_statfs_fails(path, errno, cause);
}

pub fn missing(path: impl Into<PathBuf>) -> Cause {
    let path = path.into();
    Cause::Missing { path }
}

fn paths_with_nul_bytes() -> Vec<(PathBuf, usize)> {
    let long = "x".repeat(300);
    vec![
        ("\0".into(), 0),
        ("\0flows".into(), 0),
        ("/proc/self\0".into(), 10),
        ("/proc/self\0/flows\0".into(), 10),
        (format!("/{long}\0/flows").into(), 301),
        (format!("/proc/self\0/{long}").into(), 10),
    ]
}

fn invalid_path(problem: &str) -> Cause {
    let problem = problem.to_owned().into();
    Cause::InvalidPath { problem }
}

#[common::test]
fn a_nul_byte_is_rejected() -> Outcome {
    for (path, position) in paths_with_nul_bytes() {
        let reason = format!("the path contains a NUL byte at offset {position}");
        let cause = invalid_path(&reason);
        assert_open_fails(&path, 0, cause.clone());
        assert_statfs_fails(&path, 0, cause);
    }
    Ok(())
}

#[common::test(OBJECTS)]
fn a_nul_byte_in_the_path_of_a_pin_is_rejected() -> Outcome {
    let fs = TestFs::new();
    let inside = fs.at("flows\0more");
    let position = fs.at("flows").as_os_str().len();
    for (path, position) in paths_with_nul_bytes()
        .into_iter()
        .chain([(inside, position)])
    {
        let reason = format!("the path contains a NUL byte at offset {position}");
        assert_pin_fails(&path, 0, invalid_path(&reason));
    }
    assert!(
        fs.names().is_empty(),
        "the part before the NUL is not pinned"
    );
    Ok(())
}

#[common::test(OBJECTS)]
fn a_component_with_a_dot_is_named() -> Outcome {
    let fs = TestFs::new();
    fs::create_dir(fs.at("dir"))?;
    for (name, component) in [
        (&b".flows"[..], &b".flows"[..]),
        (b"flows.", b"flows."),
        (b"a.b.c", b"a.b.c"),
        (b"...", b"..."),
        (b"dir/a.b", b"a.b"),
        (b"dir/../a.b", b"a.b"),
        (b"a.b/c/d", b"a.b"),
        (b"dir/a.b/c.d/e", b"a.b"),
        (b"\xff.x", b"\xff.x"),
    ] {
        let path = fs.root().join(OsStr::from_bytes(name));
        let component = OsStr::from_bytes(component).to_owned();
        let cause = Cause::Dot { component };
        assert_all_fail(&path, libc::EPERM, cause);
    }
    assert_eq!(fs.names(), ["dir"]);
    // The error is about the first component that the kernel rejects.
    let cause = missing(fs.at("gone"));
    assert_pin_fails(&fs.at("gone/a.b"), libc::ENOENT, cause);
    Ok(())
}

#[common::test(OBJECTS)]
fn dot_and_dot_dot_are_not_names() -> Outcome {
    let fs = TestFs::new();
    fs::create_dir(fs.at("dir"))?;
    // As intermediate components they are allowed.
    for path in ["./flows", "dir/../flows", "dir/./../././flows"] {
        let pinned = any_map().pin(fs.at(path))?;
        assert_eq!(fs.names(), ["dir", "flows"], "{path}");
        pinned.unpin()?;
    }
    // As the last component they are directories.
    for end in [".", "..", "dir/.", "dir/.."] {
        let cause = Cause::Exists { holder: None };
        assert_pin_fails(
            &followed_by(fs.root(), &format!("/{end}")),
            libc::EEXIST,
            cause,
        );
    }
    for path in ["gone/.", "gone/..", "gone/../flows", "gone/./flows"] {
        let path = followed_by(fs.root(), &format!("/{path}"));
        let cause = missing(fs.at("gone"));
        assert_pin_fails(&path, libc::ENOENT, cause.clone());
        assert_open_fails(&path, libc::ENOENT, cause);
    }
    assert_eq!(fs.names(), ["dir"]);
    Ok(())
}

/// On another file system a dot is allowed, and the file system is the cause.
#[common::test(&[cap::BPF])]
fn a_dot_outside_bpffs_is_not_the_cause() -> Outcome {
    let dir = tempfile::Builder::new().prefix("a.b").tempdir()?;
    let path = dir.path().join("c.d");
    let cause = not_bpffs(dir.path(), None);
    assert_pin_fails(&path, libc::EPERM, cause.clone());
    assert_open_fails(&path, libc::ENOENT, cause);
    Ok(())
}

#[common::test(OBJECTS)]
fn the_limit_of_names_is_255_bytes() -> Outcome {
    let fs = TestFs::new();
    let longest = fs.at(&"n".repeat(255));
    let id = pin_a_map(&longest);
    assert_eq!(Map::open(&longest)?.id()?, id);

    for name in ["n".repeat(256), format!("{}/flows", "n".repeat(300))] {
        let length = name.split('/').next().unwrap().len();
        let path = fs.at(&name);
        let cause = Cause::TooLong {
            what: "name",
            length,
            limit: 255,
        };
        assert_all_fail(&path, libc::ENAMETOOLONG, cause);
    }
    assert_eq!(fs.names().len(), 1);
    Ok(())
}

/// The path of `name` in `root`, extended with slashes to this length.
fn path_of_length(root: &Path, name: &str, length: usize) -> PathBuf {
    let slashes = length - root.as_os_str().len() - name.len();
    followed_by(root, &("/".repeat(slashes) + name))
}

#[common::test(OBJECTS)]
fn the_limit_of_paths_is_4095_bytes() -> Outcome {
    let fs = TestFs::new();
    // At 256 bytes the path moves from the stack to the heap.
    for length in [255, 256, 4095] {
        let path = path_of_length(fs.root(), "flows", length);
        assert_eq!(path.as_os_str().len(), length);
        let pinned = any_map().pin(&path)?;
        assert_eq!(pinned.path().as_os_str(), path.as_os_str());
        assert_eq!(Map::open(&path)?.id()?, pinned.id()?);
        let taken = pin_fails(&path);
        let holder = Some(Identity {
            kind: Kind::Map,
            id: pinned.id()?,
        });
        assert_eq!(taken.cause(), Some(&Cause::Exists { holder }));
        pinned.unpin()?;
        assert!(fs.names().is_empty());
        let cause = missing(fs.at("flows"));
        assert_open_fails(&path, libc::ENOENT, cause);
    }
    let path = path_of_length(fs.root(), "flows", 4096);
    let cause = Cause::TooLong {
        what: "path",
        length: 4096,
        limit: 4095,
    };
    assert_pin_fails(&path, libc::ENAMETOOLONG, cause.clone());
    assert_open_fails(&path, libc::ENAMETOOLONG, cause);
    assert!(fs.names().is_empty());
    Ok(())
}

#[common::test]
fn the_limits_are_the_same_outside_bpffs() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("n".repeat(256));
    let cause = Cause::TooLong {
        what: "name",
        length: 256,
        limit: 255,
    };
    assert_open_fails(&path, libc::ENAMETOOLONG, cause.clone());
    assert_statfs_fails(&path, libc::ENAMETOOLONG, cause);

    assert!(FileSystem::at("/".repeat(4095)).is_ok());
    let path = PathBuf::from("/".repeat(4096));
    let cause = Cause::TooLong {
        what: "path",
        length: 4096,
        limit: 4095,
    };
    assert_open_fails(&path, libc::ENAMETOOLONG, cause.clone());
    assert_statfs_fails(&path, libc::ENAMETOOLONG, cause);
    Ok(())
}

#[common::test]
fn an_empty_path_is_rejected() -> Outcome {
    let (path, reason) = (Path::new(""), "the path is empty");
    assert_open_fails(path, libc::ENOENT, invalid_path(reason));
    assert_statfs_fails(path, libc::ENOENT, invalid_path(reason));
    Ok(())
}

#[common::test(OBJECTS)]
fn an_empty_path_for_a_pin_is_rejected() -> Outcome {
    let reason = "the path is empty";
    assert_pin_fails(Path::new(""), libc::ENOENT, invalid_path(reason));
    Ok(())
}

#[common::test(OBJECTS)]
fn a_trailing_slash_leaves_no_name_for_a_pin() -> Outcome {
    let fs = TestFs::new();
    let path = followed_by(&fs.at("flows"), "/");
    let reason = "the path ends in '/', which leaves no name for the pin";
    assert_pin_fails(&path, libc::ENOENT, invalid_path(reason));
    let cause = missing(fs.at("flows"));
    assert_open_fails(&path, libc::ENOENT, cause);
    // A missing directory is reported first.
    let cause = missing(fs.at("gone"));
    let further = followed_by(&fs.at("gone/flows"), "/");
    assert_pin_fails(&further, libc::ENOENT, cause);
    assert!(fs.names().is_empty());

    pin_a_map(fs.at("flows"));
    let cause = Cause::NotADirectory {
        path: fs.at("flows"),
    };
    assert_open_fails(&path, libc::ENOTDIR, cause);
    assert!(matches!(
        pin_fails(&path).cause(),
        Some(Cause::Exists { .. })
    ));
    assert_eq!(fs.names(), ["flows"]);
    Ok(())
}

/// Runs on a thread with its own working directory.
#[common::test(OBJECTS)]
fn relative_paths_are_resolved_and_reported_as_given() -> Outcome {
    let fs = TestFs::new();
    let walk = || -> Outcome {
        // SAFETY: no NEWUSER or FILES: only this thread's working directory and umask are separated.
        unsafe { unshare_unsafe(UnshareFlags::FS) }?;
        std::env::set_current_dir(fs.root())?;
        let pinned = any_map().pin("flows")?;
        assert_eq!(pinned.path(), Path::new("flows"));
        assert_eq!(Map::open("./flows")?.id()?, pinned.id()?);
        assert!(matches!(
            pin_fails("flows").cause(),
            Some(Cause::Exists { holder: Some(_) })
        ));
        pinned.unpin()?;

        let cause = missing("flows");
        assert_open_fails(Path::new("flows"), libc::ENOENT, cause);
        let cause = missing("gone");
        assert_pin_fails(Path::new("gone/flows"), libc::ENOENT, cause);
        let cause = Cause::Dot {
            component: "a.b".into(),
        };
        assert_pin_fails(Path::new("a.b"), libc::EPERM, cause);

        let dir = tempfile::tempdir()?;
        std::env::set_current_dir(dir.path())?;
        let cause = not_bpffs(".", None);
        assert_pin_fails(Path::new("flows"), libc::EPERM, cause);
        Ok(())
    };
    let walked = thread::scope(|scope| {
        let walker = scope.spawn(|| walk().map_err(|error| error.to_string()));
        walker.join()
    });
    walked.unwrap_or_else(|panic| resume_unwind(panic))?;
    assert!(fs.names().is_empty());
    Ok(())
}

#[common::test(OBJECTS)]
fn a_component_that_is_not_a_directory_is_named() -> Outcome {
    let fs = TestFs::new();
    pin_a_map(fs.at("flows"));
    for name in ["flows/more", "flows/more/flows", "flows/../more"] {
        let path = fs.at(name);
        let cause = Cause::NotADirectory {
            path: fs.at("flows"),
        };
        assert_all_fail(&path, libc::ENOTDIR, cause);
    }
    assert_eq!(fs.names(), ["flows"]);

    let file = tempfile::NamedTempFile::new()?;
    let cause = Cause::NotADirectory {
        path: file.path().into(),
    };
    let path = file.path().join("flows");
    assert_pin_fails(&path, libc::ENOTDIR, cause);
    Ok(())
}

#[common::test(OBJECTS)]
fn a_directory_is_not_an_object_and_occupies_its_name() -> Outcome {
    let fs = TestFs::new();
    let dir = fs.at("dir");
    fs::create_dir(&dir)?;
    for path in [dir.clone(), followed_by(&dir, "/"), fs.at("dir/..")] {
        let found = FileSystem::at(&path)?;
        assert!(found.is_bpffs());
        let cause = Cause::NotAnObject {
            path: path.clone(),
            what: "directory",
            found,
        };
        assert_open_fails(&path, libc::EACCES, cause);
        let cause = Cause::Exists { holder: None };
        assert_pin_fails(&path, libc::EEXIST, cause);
    }
    assert_eq!(fs.names(), ["dir"]);
    assert_eq!(fs::read_dir(&dir)?.count(), 0);
    Ok(())
}

#[common::test(OBJECTS)]
fn the_first_missing_component_is_named() -> Outcome {
    let fs = TestFs::new();
    fs::create_dir(fs.at("a"))?;
    for (name, gone) in [
        ("flows", "flows"),
        ("b/flows", "b"),
        ("b/c/flows", "b"),
        ("a/b/c/d/flows", "a/b"),
        ("a/flows", "a/flows"),
    ] {
        let path = fs.at(name);
        let cause = missing(fs.at(gone));
        assert_open_fails(&path, libc::ENOENT, cause.clone());
        assert_statfs_fails(&path, libc::ENOENT, cause.clone());
        if name != gone {
            assert_pin_fails(&path, libc::ENOENT, cause);
        }
    }
    assert_eq!(fs.names(), ["a"]);
    assert_eq!(fs::read_dir(fs.at("a"))?.count(), 0);
    Ok(())
}

/// Every component of the path exists, so nothing is proven.
#[common::test(OBJECTS)]
fn a_removed_parent_directory_has_no_cause() -> Outcome {
    let fs = TestFs::new();
    fs::create_dir(fs.at("dir"))?;
    let dir = fs::File::open(fs.at("dir"))?;
    fs::remove_dir(fs.at("dir"))?;
    let held = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir));
    let path = Path::new(&held).join("flows");
    assert_fails(&pin_fails(&path), Operation::Pin, libc::ENOENT, None);
    Ok(())
}

/// A name may contain bytes that move a terminal's cursor.
#[common::test(OBJECTS)]
fn control_characters_are_escaped_in_messages() -> Outcome {
    let fs = TestFs::new();
    let path = fs.at("a\n\u{1b}[2Jb");
    let escaped = format!("{}/a\\n\\u{{1b}}[2Jb", fs.root().display());
    let reason = format!("{escaped} does not exist");
    assert_eq!(
        open_fails(&path).to_string(),
        format!("open {escaped}: {reason}")
    );
    let error = PinDir::open(&path).expect_err("nothing there");
    assert_eq!(
        error.to_string(),
        format!("open directory {escaped}: {reason}")
    );
    let error = Bpffs::at(&path).expect_err("nothing there");
    assert_eq!(
        error.to_string(),
        format!("find a bpffs at {escaped}: {reason}")
    );
    assert_eq!(Bpffs::inspect(&path)?.to_string(), reason);
    fs::create_dir(&path)?;
    let error = open_fails(&path);
    let reason = format!("{escaped} is a directory on bpffs, not a BPF object");
    assert_eq!(error.to_string(), format!("open {escaped}: {reason}"));
    // The path itself is not escaped.
    assert_eq!(error.path(), Some(&*path));
    fs::remove_dir(&path)?;
    Ok(())
}

/// `is_missing` is true only if the last component is missing, for every call that opens it. It is false for a missing
/// directory before it and for the missing target of a symbolic link.
#[common::test(OBJECTS)]
fn is_missing_means_that_the_last_component_is_missing() -> Outcome {
    let fs = TestFs::new();
    let spec = MapSpec::new(MapType::HASH, 4, 8, 16);
    let dir = PinDir::open(fs.root())?;
    std::os::unix::fs::symlink(fs.at("nowhere"), fs.at("link"))?;
    fs::create_dir(fs.at("dir"))?;
    for (name, expected) in [
        ("flows", true),
        ("dir/flows", true),
        ("no/flows", false),
        ("link", false),
        ("dir", false),
        ("a.b", false),
    ] {
        let error = open_fails(fs.at(name));
        assert_eq!(error.is_missing(), expected, "{error}");
        assert_eq!(
            PinnedMap::open(fs.at(name)).unwrap_err().is_missing(),
            expected
        );
        let reused = PinnedMap::open_or_create(fs.at(name), &spec, Reuse::OpenOnly);
        let error = reused.unwrap_err();
        assert_eq!(error.is_missing(), expected, "{error}");
        assert_eq!(error.path(), Some(&*fs.at(name)));
    }
    for (error, expected) in [
        (dir.get::<Map>("flows").unwrap_err(), true),
        (dir.open_dir("flows").unwrap_err(), true),
        (dir.identity("flows").unwrap_err(), true),
        (dir.get::<Map>("link").unwrap_err(), false),
        (dir.open_dir("link").unwrap_err(), false),
        (PinDir::open(fs.at("no")).unwrap_err(), true),
        // Outside a bpffs no name counts as missing.
        (open_fails(Path::new("/proc/self/flows")), false),
    ] {
        assert_eq!(error.is_missing(), expected, "{error}");
    }
    let gone = dir.create_dir("gone", 0o700)?;
    dir.remove_dir("gone")?;
    let error = gone.get::<Map>("flows").unwrap_err();
    assert!(!error.is_missing(), "{error}");
    fs::remove_file(fs.at("link"))?;
    Ok(())
}
