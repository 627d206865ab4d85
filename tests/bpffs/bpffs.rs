//! `FileSystem` identifies the file system of a path or a descriptor.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use bpf_pin::abi;
use bpf_pin::bpffs::FileSystem;
use bpf_pin::error::{Cause, Operation};
use common::*;
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, inotify, memfd_create, openat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::CapabilitySet;

fn is_bpffs(fs: FileSystem) {
    assert!(fs.is_bpffs());
    assert_eq!(fs, FileSystem::BPF);
    assert_eq!(fs.magic(), abi::BPF_FS_MAGIC);
    assert_eq!(
        (fs.name(), fs.to_string()),
        (Some("bpf"), "bpffs".to_owned())
    );
    assert_eq!(format!("{fs:?}"), "FileSystem(bpffs)");
}

fn assert_other(fs: FileSystem, name: &str) {
    assert_eq!(fs.name(), Some(name), "{fs}");
    assert_eq!(fs.to_string(), name);
    assert!(!fs.is_bpffs());
    assert_ne!(fs, FileSystem::BPF);
}

/// Opens a path with O_PATH.
fn o_path(path: &Path) -> rustix::io::Result<rustix::fd::OwnedFd> {
    openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

#[common::test(&[Need::Bpffs])]
fn detects_a_bpffs_by_path_and_by_descriptor() -> Outcome {
    let fs = TestFs::new();
    is_bpffs(FileSystem::at(fs.root())?);
    is_bpffs(FileSystem::of(File::open(fs.root())?)?);
    is_bpffs(FileSystem::of(o_path(fs.root())?)?);
    fs::create_dir(fs.at("directory"))?;
    is_bpffs(FileSystem::at(fs.at("directory"))?);
    is_bpffs(FileSystem::of(File::open(fs.at("directory"))?)?);
    assert_eq!(fs.names(), ["directory"]);

    let error = FileSystem::at(fs.at("nothing")).expect_err("not there");
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    let path = fs.at("nothing");
    assert_eq!(error.cause(), Some(&Cause::Missing { path }));
    Ok(())
}

#[common::test(&[cap::SYS_ADMIN])]
fn detects_a_detached_bpffs() -> Outcome {
    let fs = TestFs::detached("755");
    let mount = fs.mount().expect("a mount of its own");
    is_bpffs(FileSystem::of(mount)?);
    is_bpffs(FileSystem::of(mount.as_fd())?);
    let root = openat(
        mount,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY,
        Mode::empty(),
    )?;
    is_bpffs(FileSystem::of(root)?);
    Ok(())
}

#[common::test(&[cap::BPF, Need::Bpffs])]
fn a_pin_is_on_bpffs_but_its_object_is_not() -> Outcome {
    let fs = TestFs::new();
    let map = hash().pin(fs.at("map"))?;
    let prog = prog().pin(fs.at("prog"))?;
    for name in ["map", "prog"] {
        is_bpffs(FileSystem::at(fs.at(name))?);
        is_bpffs(FileSystem::of(o_path(&fs.at(name))?)?);
    }
    // An object's descriptor is on the file system of anonymous inodes, pinned or not.
    for found in [FileSystem::of(&map)?, FileSystem::of(&prog)?] {
        assert!(!found.is_bpffs(), "{found}");
        assert_eq!(found.name(), None);
    }
    assert_eq!(FileSystem::of(&map)?, FileSystem::of(map.unpin()?)?);
    Ok(())
}

#[common::test]
fn names_common_file_systems() -> Outcome {
    assert_other(FileSystem::at("/proc")?, "proc");
    assert_other(FileSystem::at("/proc/self/status")?, "proc");
    assert_other(FileSystem::of(File::open("/proc/self/status")?)?, "proc");
    assert_other(FileSystem::of(o_path(Path::new("/proc"))?)?, "proc");
    assert_other(FileSystem::at("/sys/kernel")?, "sysfs");
    assert_other(FileSystem::of(File::open("/sys/kernel")?)?, "sysfs");
    assert_other(FileSystem::of(File::open("/proc/self/ns/net")?)?, "nsfs");
    assert_other(
        FileSystem::of(memfd_create("memory", MemfdFlags::CLOEXEC)?)?,
        "tmpfs",
    );
    assert_other(FileSystem::of(UnixDatagram::unbound()?)?, "sockfs");
    let (reader, writer) = rustix::pipe::pipe()?;
    assert_other(FileSystem::of(reader)?, "pipefs");
    assert_other(FileSystem::of(&writer)?, "pipefs");
    assert_eq!(FileSystem::at("/proc")?.magic(), 0x9fa0);
    assert_ne!(FileSystem::at("/proc")?, FileSystem::at("/sys/kernel")?);
    // The path and the descriptor give the same result.
    assert_eq!(FileSystem::at("/")?, FileSystem::of(File::open("/")?)?);
    assert!(!FileSystem::at("/")?.is_bpffs());
    Ok(())
}

#[common::test(&[cap::SYS_ADMIN])]
fn the_topmost_mount_at_a_path_counts() -> Outcome {
    in_mount_namespace(|| {
        let dir = tempfile::tempdir()?;
        let below = FileSystem::at(dir.path())?;
        let below_by_fd = File::open(dir.path())?;
        mount("cgroup2", dir.path(), "cgroup2", MountFlags::empty(), None)?;
        assert_other(FileSystem::at(dir.path())?, "cgroup2");
        mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), None)?;
        assert_other(FileSystem::at(dir.path())?, "tmpfs");
        mount("bpf", dir.path(), "bpf", MountFlags::empty(), None)?;
        is_bpffs(FileSystem::at(dir.path())?);
        // The descriptor still refers to the directory that it was opened on.
        assert_eq!(FileSystem::of(below_by_fd)?, below);
        for _ in 0..3 {
            unmount(dir.path(), UnmountFlags::empty())?;
        }
        assert_eq!(FileSystem::at(dir.path())?, below);
        Ok(())
    })
}

/// Compares the topmost mount at each mount point with its type in mountinfo.
#[common::test]
fn names_agree_with_mountinfo() -> Outcome {
    /// Magic numbers that several file system types share.
    const ALIASES: &[(&str, &[&str])] = &[
        ("ext4", &["ext2", "ext3"]),
        ("fuse", &["fuseblk"]),
        ("nfs", &["nfs4"]),
        ("ramfs", &["rootfs", "devtmpfs"]),
        ("tmpfs", &["rootfs", "devtmpfs"]),
    ];
    let mut named = 0;
    for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let separator = words.iter().position(|word| *word == "-").expect("a -");
        let (device, point, kind) = (words[2], unescape(words[4]), words[separator + 1]);
        // These may ask a network, or mount something on access.
        if matches!(kind, "autofs" | "nfs" | "nfs4" | "cifs" | "smb3" | "9p") {
            continue;
        }
        // Skip a mount that is covered, unreachable or gone.
        let on_top = fs::metadata(&point).is_ok_and(|found| {
            let (major, minor) = (libc::major(found.dev()), libc::minor(found.dev()));
            format!("{major}:{minor}") == device
        });
        if !on_top {
            continue;
        }
        let found = FileSystem::at(&point)?;
        let Some(name) = found.name() else {
            assert_eq!(
                found.to_string(),
                format!("a file system of type {:#x}", found.magic())
            );
            continue;
        };
        let alias = ALIASES
            .iter()
            .any(|(of, names)| *of == name && names.contains(&kind));
        let fuse = name == "fuse" && kind.starts_with("fuse.");
        assert!(name == kind || alias || fuse, "{name} at {line}");
        named += 1;
    }
    // At least /proc and /sys.
    assert!(named >= 2, "{named} mounts");
    Ok(())
}

/// Replaces the octal escapes of mountinfo, such as `\040`.
fn unescape(word: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = word.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (*first, after) {
            (b'\\', [a, b, c, after @ ..]) => {
                let digits = [a, b, c].map(|digit| u32::from(digit - b'0'));
                bytes.push((digits[0] * 64 + digits[1] * 8 + digits[2]) as u8);
                rest = after;
            }
            _ => bytes.push(*first),
        }
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

#[common::test]
fn an_unknown_file_system_is_printed_as_its_magic_number() -> Outcome {
    let found = FileSystem::of(inotify::init(inotify::CreateFlags::CLOEXEC)?)?;
    // `ANON_INODE_FS_MAGIC`; no path leads to this file system.
    assert_eq!(found.magic(), 0x0904_1934);
    assert_eq!(found.name(), None);
    assert_eq!(found.to_string(), "a file system of type 0x9041934");
    assert!(!found.is_bpffs());
    Ok(())
}

#[common::test]
fn symbolic_links_are_followed() -> Outcome {
    let dir = tempfile::tempdir()?;
    let link = dir.path().join("link");
    symlink("/proc", &link)?;
    assert_other(FileSystem::at(&link)?, "proc");
    assert_other(FileSystem::at(link.join("self/status"))?, "proc");
    // An O_PATH descriptor of the link itself is on its directory's file system.
    let itself = openat(
        CWD,
        &link,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    assert_eq!(FileSystem::of(itself)?, FileSystem::at(dir.path())?);
    Ok(())
}

#[common::test]
fn accepts_paths_of_any_length() -> Outcome {
    for steps in [1, 40, 80, 500, 2040] {
        let path = format!("/proc{}", "/.".repeat(steps));
        assert_other(FileSystem::at(&path)?, "proc");
    }
    for length in 253..=259 {
        let mut path = String::from("/proc");
        while path.len() < length {
            path.push('/');
        }
        assert_other(FileSystem::at(&path)?, "proc");
    }
    Ok(())
}

fn fails(path: impl AsRef<Path>, errno: i32, cause: impl Into<Option<Cause>>) {
    let path = path.as_ref();
    let error = FileSystem::at(path).expect_err("an invalid path");
    assert_fails(&error, Operation::Statfs, errno, cause);
    let named = Some(path).filter(|path| *path != Path::new(""));
    assert_eq!(error.path(), named);
}

#[common::test]
fn a_missing_path_component_is_named() -> Outcome {
    let dir = tempfile::tempdir()?;
    let absent = dir.path().join("absent");
    for path in [absent.clone(), absent.join("and/more"), absent.join("")] {
        let named = absent.clone();
        fails(path, libc::ENOENT, Cause::Missing { path: named });
    }
    // A dangling link exists itself, so no component is named.
    let dangling = dir.path().join("dangling");
    symlink(&absent, &dangling)?;
    let error = FileSystem::at(&dangling).expect_err("a link to nothing");
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    Ok(())
}

#[common::test]
fn a_component_that_is_not_a_directory_is_named() -> Outcome {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("file");
    fs::write(&file, "")?;
    for path in [file.join("name"), file.join("name/more"), file.join("")] {
        let named = file.clone();
        fails(path, libc::ENOTDIR, Cause::NotADirectory { path: named });
    }
    Ok(())
}

#[common::test]
fn an_empty_path_fails() -> Outcome {
    let problem = "the path is empty".into();
    fails("", libc::ENOENT, Cause::InvalidPath { problem });
    Ok(())
}

#[common::test]
fn a_nul_byte_is_rejected_before_any_syscall() -> Outcome {
    // The part before the NUL exists.
    let error = FileSystem::at("/proc\0/self").expect_err("a NUL");
    assert_eq!(error.raw_os_error(), None);
    assert_cause_matches!(error, Cause::InvalidPath { .. });
    assert!(
        error
            .to_string()
            .ends_with("the path contains a NUL byte at offset 5"),
        "{error}"
    );
    let long = format!("/{}\0", "p".repeat(5000));
    let error = FileSystem::at(&long).expect_err("a NUL at the end of a long path");
    assert_cause_matches!(error, Cause::InvalidPath { .. });
    Ok(())
}

#[common::test]
fn a_name_or_path_that_is_too_long_fails() -> Outcome {
    // /proc has no such limit on names.
    let dir = tempfile::tempdir()?;
    let name = dir.path().join("n".repeat(256));
    let cause = Cause::TooLong {
        what: "name",
        length: 256,
        limit: 255,
    };
    fails(&name, libc::ENAMETOOLONG, cause);

    let path = format!("/proc{}", "/.".repeat(2046));
    assert_eq!(path.len(), 4097);
    let cause = Cause::TooLong {
        what: "path",
        length: 4097,
        limit: 4095,
    };
    fails(&path, libc::ENAMETOOLONG, cause);
    // The longest path that the kernel accepts.
    assert_other(FileSystem::at(&path[..4095])?, "proc");
    Ok(())
}

#[common::test]
fn a_loop_of_symbolic_links_fails() -> Outcome {
    let dir = tempfile::tempdir()?;
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    symlink(&one, &other)?;
    symlink(&other, &one)?;
    fails(&one, libc::ELOOP, None);
    Ok(())
}

#[common::test(&[cap::SYS_ADMIN, cap::SETUID])]
fn an_unsearchable_directory_is_named() -> Outcome {
    let fs = TestFs::detached("700");
    fs::create_dir(fs.at("inside"))?;
    as_user(CapabilitySet::empty(), || {
        // statfs(2) of the directory itself needs no permission on it.
        is_bpffs(FileSystem::at(fs.root())?);
        let cause = Cause::Blocked {
            path: fs.root().to_owned(),
            // The root of a bpffs is always sticky.
            mode: 0o1700,
            uid: 0,
            wanted: "search",
            read_only_would_do: false,
        };
        fails(fs.at("inside"), libc::EACCES, cause);
        Ok(())
    })
}
