//! Paths that lead nowhere, elsewhere, or are none.

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

/// To those to whom the sysctl closes bpf(2), the kernel says nothing of the path.
pub fn open_is_closed() -> bool {
    sysctl_closes_all() && cap::BPF.unmet().is_some()
}

#[track_caller]
pub fn assert_open_fails(path: &Path, errno: i32, cause: Cause) {
    let error = open_fails(path);
    if open_is_closed() && errno != 0 {
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

pub fn missing(path: impl Into<PathBuf>) -> Cause {
    let path = path.into();
    Cause::Missing { path }
}

fn with_nuls() -> Vec<(PathBuf, usize)> {
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
fn a_nul_stops_all() -> Outcome {
    for (path, position) in with_nuls() {
        let because = format!("the path contains a NUL byte at offset {position}");
        let cause = invalid_path(&because);
        assert_open_fails(&path, 0, cause.clone());
        assert_statfs_fails(&path, 0, cause);
    }
    Ok(())
}

#[common::test(OBJECTS)]
fn a_nul_stops_a_pin() -> Outcome {
    let fs = TestFs::new();
    let inside = fs.at("flows\0more");
    let position = fs.at("flows").as_os_str().len();
    for (path, position) in with_nuls().into_iter().chain([(inside, position)]) {
        let because = format!("the path contains a NUL byte at offset {position}");
        assert_pin_fails(&path, 0, invalid_path(&because));
    }
    assert!(fs.names().is_empty(), "nor was what stands before it");
    Ok(())
}

#[common::test(OBJECTS)]
fn dots_anywhere() -> Outcome {
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
        assert_pin_fails(&path, libc::EPERM, cause.clone());
        assert_open_fails(&path, libc::EPERM, cause.clone());
        // statfs(2) of what is beyond the dot, too.
        assert_statfs_fails(&path, libc::EPERM, cause);
    }
    assert_eq!(fs.names(), ["dir"]);
    // The first thing that is wrong, as the kernel sees it.
    let cause = missing(fs.at("gone"));
    assert_pin_fails(&fs.at("gone/a.b"), libc::ENOENT, cause);
    Ok(())
}

#[common::test(OBJECTS)]
fn dots_that_are_no_names() -> Outcome {
    let fs = TestFs::new();
    fs::create_dir(fs.at("dir"))?;
    // As steps of a path they are nobody's name.
    for path in ["./flows", "dir/../flows", "dir/./../././flows"] {
        let pinned = any_map().pin(fs.at(path))?;
        assert_eq!(fs.names(), ["dir", "flows"], "{path}");
        pinned.unpin()?;
    }
    // At the end they are directories.
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

/// Where a '.' is allowed it is not what stands in the way.
#[common::test(&[cap::BPF])]
fn a_dot_elsewhere() -> Outcome {
    let dir = tempfile::Builder::new().prefix("a.b").tempdir()?;
    let found = FileSystem::at(dir.path())?;
    let path = dir.path().join("c.d");
    let cause = Cause::NotBpffs {
        path: dir.path().into(),
        found,
        missing: None,
        hidden: None,
    };
    assert_pin_fails(&path, libc::EPERM, cause.clone());
    assert_open_fails(&path, libc::ENOENT, cause);
    Ok(())
}

#[common::test(OBJECTS)]
fn lengths_of_names() -> Outcome {
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
        assert_pin_fails(&path, libc::ENAMETOOLONG, cause.clone());
        assert_open_fails(&path, libc::ENAMETOOLONG, cause.clone());
        assert_statfs_fails(&path, libc::ENAMETOOLONG, cause);
    }
    assert_eq!(fs.names().len(), 1);
    Ok(())
}

/// The path of `name` in `root`, `length` bytes long by way of many a '/'.
fn stretched(root: &Path, name: &str, length: usize) -> PathBuf {
    let slashes = length - root.as_os_str().len() - name.len();
    followed_by(root, &("/".repeat(slashes) + name))
}

#[common::test(OBJECTS)]
fn lengths_of_paths() -> Outcome {
    let fs = TestFs::new();
    // 255 and 256 bytes are where the path moves to the heap.
    for length in [255, 256, 4095] {
        let path = stretched(fs.root(), "flows", length);
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
    let path = stretched(fs.root(), "flows", 4096);
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
fn lengths_without_bpffs() -> Outcome {
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
fn an_empty_path() -> Outcome {
    let (path, because) = (Path::new(""), "the path is empty");
    assert_open_fails(path, libc::ENOENT, invalid_path(because));
    assert_statfs_fails(path, libc::ENOENT, invalid_path(because));
    Ok(())
}

#[common::test(OBJECTS)]
fn an_empty_path_for_a_pin() -> Outcome {
    let because = "the path is empty";
    assert_pin_fails(Path::new(""), libc::ENOENT, invalid_path(because));
    Ok(())
}

#[common::test(OBJECTS)]
fn a_trailing_slash() -> Outcome {
    let fs = TestFs::new();
    let path = followed_by(&fs.at("flows"), "/");
    let because = "the path ends in '/', which leaves no name for the pin";
    assert_pin_fails(&path, libc::ENOENT, invalid_path(because));
    let cause = missing(fs.at("flows"));
    assert_open_fails(&path, libc::ENOENT, cause);
    // The way comes first.
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

/// On a thread with a working directory of its own.
#[common::test(OBJECTS)]
fn relative_paths() -> Outcome {
    let fs = TestFs::new();
    let walk = || -> Outcome {
        // SAFETY: no NEWUSER or FILES: only this thread's working directory and umask part ways.
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
        let found = FileSystem::at(".")?;
        let cause = Cause::NotBpffs {
            path: ".".into(),
            found,
            missing: None,
            hidden: None,
        };
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
fn no_directory_on_the_way() -> Outcome {
    let fs = TestFs::new();
    pin_a_map(fs.at("flows"));
    for name in ["flows/more", "flows/more/flows", "flows/../more"] {
        let path = fs.at(name);
        let cause = Cause::NotADirectory {
            path: fs.at("flows"),
        };
        assert_pin_fails(&path, libc::ENOTDIR, cause.clone());
        assert_open_fails(&path, libc::ENOTDIR, cause.clone());
        assert_statfs_fails(&path, libc::ENOTDIR, cause);
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
fn directories() -> Outcome {
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
fn missing_parents() -> Outcome {
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

/// The way is there and yet leads nowhere: that proves nothing.
#[common::test(OBJECTS)]
fn a_parent_that_was_removed() -> Outcome {
    let fs = TestFs::new();
    fs::create_dir(fs.at("dir"))?;
    let dir = fs::File::open(fs.at("dir"))?;
    fs::remove_dir(fs.at("dir"))?;
    let held = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir));
    let path = Path::new(&held).join("flows");
    assert_fails(&pin_fails(&path), Operation::Pin, libc::ENOENT, None);
    Ok(())
}

/// A name may hold what moves a terminal's cursor.
#[common::test(OBJECTS)]
fn control_bytes() -> Outcome {
    let fs = TestFs::new();
    let path = fs.at("a\n\u{1b}[2Jb");
    let shown = format!("{}/a\\n\\u{{1b}}[2Jb", fs.root().display());
    let because = format!("{shown} does not exist");
    assert_eq!(
        open_fails(&path).to_string(),
        format!("open {shown}: {because}")
    );
    let error = PinDir::open(&path).expect_err("nothing there");
    assert_eq!(
        error.to_string(),
        format!("open directory {shown}: {because}")
    );
    let error = Bpffs::at(&path).expect_err("nothing there");
    assert_eq!(
        error.to_string(),
        format!("find a bpffs at {shown}: {because}")
    );
    assert_eq!(Bpffs::inspect(&path)?.to_string(), because);
    fs::create_dir(&path)?;
    let error = open_fails(&path);
    let because = format!("{shown} is a directory on bpffs, not a BPF object");
    assert_eq!(error.to_string(), format!("open {shown}: {because}"));
    // Whoever works with it has it as it is.
    assert_eq!(error.path(), Some(&*path));
    fs::remove_dir(&path)?;
    Ok(())
}

/// True only if the name itself is missing, whichever call opens it: not for a directory on the way or
/// for the target of a symbolic link.
#[common::test(OBJECTS)]
fn a_name_that_is_missing() -> Outcome {
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
        // A bpffs that is not mounted has no names.
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
