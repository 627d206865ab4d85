//! Replacing entries of every type: which ones `replace` accepts, and the state after a failure.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::symlink;

use bpf_pin::bpffs::FileSystem;
use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Error, Kind, Map, Object, PinDir};
use common::*;
use rustix::fs::{Mode, mkdir};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;

use crate::helpers::names_at;
use crate::replace::{NAME, PINS, USERS, identity_of};
use crate::stress;

const MOUNTS: &[Need] = &[cap::SYS_ADMIN];
const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];

#[common::test(PINS)]
fn replace_keeping_mode_reports_emfile() -> Outcome {
    stress::run("few_descriptors")
}

/// Asserts a failed replacement.
#[track_caller]
pub fn assert_fails(error: &Error, errno: Option<i32>, cause: Cause) {
    common::assert_fails(error, Operation::Replace, errno, cause);
}

#[common::test(PINS)]
fn replace_creates_a_missing_pin() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let map = hash();
    dir.replace(&map, NAME)?;
    assert_eq!(dir.identity(NAME)?, map.identity()?);
    assert_eq!(fs.names(), [NAME]);
    let error = dir.replace_keeping_mode(&map, "none").unwrap_err();
    let path = fs.at("none");
    assert_fails(&error, Some(libc::ENOENT), Cause::Missing { path });
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

#[common::test(ROOT)]
fn every_kind_of_object_replaces_every_kind() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let objects: [Object; 3] = [hash().into(), prog().into(), detached_link().into()];
    for old in &objects {
        for new in &objects {
            dir.replace(old, NAME)?;
            dir.replace(new, NAME)?;
            assert_eq!(dir.identity(NAME)?, new.identity()?);
            assert_eq!(fs.names(), [NAME]);
            // A plain descriptor of the object works as well.
            dir.replace(old, NAME)?;
            dir.replace_keeping_mode(&new.as_fd().try_clone_to_owned()?, NAME)?;
            assert_eq!(dir.identity(NAME)?, identity_of(new));
        }
    }
    let kinds: Vec<_> = objects.iter().map(Object::kind).collect();
    assert_eq!(kinds, [Kind::Map, Kind::Prog, Kind::Link]);
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

#[common::test(PINS)]
fn replace_rejects_a_directory() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let map = hash();
    for inside in [None, Some("inside")] {
        mkdir(fs.at(NAME), Mode::RWXU)?;
        if let Some(inside) = inside {
            hash().pin(fs.at(NAME).join(inside))?;
        }
        for error in [
            dir.replace(&map, NAME).unwrap_err(),
            dir.replace_keeping_mode(&map, NAME).unwrap_err(),
        ] {
            let path = fs.at(NAME);
            let (what, found) = ("directory", FileSystem::BPF);
            let cause = Cause::NotAnObject { path, what, found };
            assert_fails(&error, Some(libc::EISDIR), cause);
            assert_eq!(fs.names(), [NAME]);
        }
        let names: Vec<_> = fs::read_dir(fs.at(NAME))?.collect();
        assert_eq!(names.len(), inside.iter().count());
        dir.remove_dir_all(NAME)?;
        // With the directory removed, the replacement succeeds.
        dir.replace(&map, NAME)?;
        dir.unpin(&map, NAME)?;
    }
    Ok(())
}

#[common::test(PINS)]
fn replace_leaves_other_hard_links_alone() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (old, new) = (hash(), hash());
    dir.pin(&old, NAME)?;
    dir.link(NAME, "other")?;
    assert_eq!(dir.metadata(NAME)?.links(), 2);
    for replace in [PinDir::replace, PinDir::replace_keeping_mode] {
        for map in [&new, &old, &new] {
            replace(&dir, map, NAME)?;
            assert_eq!(dir.identity(NAME)?, map.identity()?);
            assert_eq!(dir.identity("other")?, old.identity()?);
            let (one, other) = (dir.metadata(NAME)?, dir.metadata("other")?);
            assert_eq!((one.links(), other.links()), (1, 1));
            assert_ne!(one.inode(), other.inode());
            assert_eq!(fs.names(), [NAME, "other"]);
        }
    }
    Ok(())
}

/// `replace` replaces the link, not its target.
#[common::test(PINS)]
fn replace_replaces_a_symbolic_link_and_not_its_target() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (old, new) = (hash(), hash());
    dir.pin(&old, "target")?;
    for target in ["target", "nowhere"] {
        symlink(target, fs.at(NAME))?;
        dir.replace(&new, NAME)?;
        assert_eq!(dir.identity(NAME)?, new.identity()?);
        assert_eq!(dir.identity("target")?, old.identity()?);
        assert_eq!(fs.names(), [NAME, "target"]);
        dir.unlink(NAME)?;
        // A symbolic link's mode is always 0777 and grants no access, so it cannot be kept.
        symlink(target, fs.at(NAME))?;
        let error = dir.replace_keeping_mode(&new, NAME).unwrap_err();
        let path = fs.at(NAME);
        assert_fails(&error, None, Cause::SymbolicLink { path });
        assert_eq!(fs::read_link(fs.at(NAME))?.to_str(), Some(target));
        assert_eq!(fs.names(), [NAME, "target"]);
        dir.unlink(NAME)?;
    }
    Ok(())
}

#[common::test(MOUNTS)]
fn replace_rejects_a_mount_point() -> Outcome {
    with_mounted_bpffs(|root| {
        let dir = PinDir::open(root)?;
        let (old, other, new) = (hash(), hash(), hash());
        let path = root.join(NAME);
        dir.pin(&old, NAME)?;
        dir.pin(&other, "other")?;
        mount_bind(root.join("other"), &path)?;
        // The mounted pin hides the old one, so the name shows this identity.
        let seen = other.identity()?;
        for error in [
            dir.replace(&new, NAME).unwrap_err(),
            dir.replace_keeping_mode(&new, NAME).unwrap_err(),
            dir.replace_if(&new, NAME, seen).unwrap_err(),
        ] {
            let path = path.clone();
            assert_fails(&error, Some(libc::EBUSY), Cause::MountPoint { path });
            assert_eq!(names_at(root), [NAME, "other"]);
        }
        unmount(&path, UnmountFlags::empty())?;
        assert_eq!(dir.identity(NAME)?, old.identity()?);
        dir.replace(&new, NAME)?;
        assert_eq!(dir.identity(NAME)?, new.identity()?);
        Ok(())
    })
}

#[common::test(USERS)]
fn replace_reports_a_sticky_directory() -> Outcome {
    // The root of a bpffs is sticky, regardless of the mode it was mounted with.
    let fs = TestFs::detached("777");
    let dir = PinDir::open(fs.root())?;
    let (old, new) = (hash(), hash());
    dir.pin(&old, NAME)?;
    dir.set_mode(NAME, 0o666)?;
    let seen = old.identity()?;
    let errors = as_user(CapabilitySet::BPF, || {
        dir.pin(&new, "own").unwrap();
        dir.replace(&old, "own").unwrap();
        dir.replace(&new, "new").unwrap();
        [
            dir.replace(&new, NAME).unwrap_err(),
            dir.replace_if(&new, NAME, seen).unwrap_err(),
        ]
    });
    for error in errors {
        let directory = fs.root().to_owned();
        let cause = Cause::Sticky { directory, uid: 0 };
        assert_fails(&error, Some(libc::EPERM), cause);
    }
    assert_eq!(dir.identity(NAME)?, seen);
    assert_eq!(fs.names(), [NAME, "new", "own"]);
    assert_eq!(dir.metadata("own")?.uid(), 1234);
    assert_eq!(dir.identity("own")?, seen);
    Ok(())
}

#[common::test(PINS)]
fn replace_rejects_descriptors_that_are_not_objects() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let map = hash();
    dir.pin(&map, NAME)?;
    let file = File::open("/dev/null")?;
    let held = PinDir::open(fs.root())?;
    let seen = map.identity()?;
    let what = [(file.as_fd(), "/dev/null"), (held.as_fd(), "/")];
    for (fd, found) in what {
        for error in [
            dir.replace(&fd, NAME).unwrap_err(),
            dir.replace_keeping_mode(&fd, NAME).unwrap_err(),
            dir.replace_if(&fd, NAME, seen).unwrap_err(),
            dir.replace(&fd, "new").unwrap_err(),
        ] {
            let found = Some(found.to_owned());
            // The name of a directory on another mount depends on where it is mounted.
            match error.cause() {
                Some(Cause::WrongDescriptor { found: Some(_), .. })
                    if fd.as_fd().try_clone_to_owned().is_ok() && found.as_deref() == Some("/") => {
                }
                _ => assert_fails(
                    &error,
                    Some(libc::EINVAL),
                    Cause::WrongDescriptor {
                        expected: "a map, program or link",
                        found,
                    },
                ),
            }
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        }
    }
    assert_eq!(fs.names(), [NAME]);
    assert_eq!(dir.identity(NAME)?, seen);
    Ok(())
}

#[common::test(PINS)]
fn replace_reports_a_removed_directory() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("gone"), 0o700)?;
    let fresh = PinDir::open(fs.at("gone"))?;
    let map = hash();
    dir.replace(&map, NAME)?;
    dir.unpin(&map, NAME)?;
    let gone = fs.at("gone");
    fs::remove_dir(&gone)?;
    let seen = map.identity()?;
    // The first descriptor has a claim for temporary names, the second has none.
    for dir in [&dir, &fresh] {
        for error in [
            dir.replace(&map, NAME).unwrap_err(),
            dir.replace_keeping_mode(&map, NAME).unwrap_err(),
            dir.replace_if(&map, NAME, seen).unwrap_err(),
        ] {
            let path = gone.clone();
            assert_fails(&error, Some(libc::ENOENT), Cause::Removed { path });
        }
    }
    assert!(fs.names().is_empty());
    assert_eq!(map.identity()?, seen);
    Ok(())
}

#[common::test(USERS)]
fn replace_reports_missing_permissions_on_the_directory() -> Outcome {
    let fs = TestFs::detached("755");
    let map = hash();
    for (mode, wanted) in [(0o755, "write"), (0o733, "read"), (0o766, "search")] {
        let dir = PinDir::create(fs.at("dir"), mode)?;
        dir.pin(&map, NAME)?;
        dir.set_mode(NAME, 0o666)?;
        let error = as_user(CapabilitySet::BPF, || dir.replace(&map, NAME).unwrap_err());
        let path = fs.at("dir");
        let (uid, read_only_would_do) = (0, false);
        let cause = Cause::Blocked {
            path,
            mode,
            uid,
            wanted,
            read_only_would_do,
        };
        assert_fails(&error, Some(libc::EACCES), cause);
        assert_eq!(fs::read_dir(fs.at("dir"))?.count(), 1);
        drop(dir);
        PinDir::open(fs.root())?.remove_dir_all("dir")?;
    }
    Ok(())
}

#[common::test(PINS)]
fn replace_rejects_an_invalid_name() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let map = hash();
    let seen = map.identity()?;
    for (name, is_expected) in &invalid_names() {
        for error in [
            dir.replace(&map, name).unwrap_err(),
            dir.replace_keeping_mode(&map, name).unwrap_err(),
            dir.replace_if(&map, name, seen).unwrap_err(),
        ] {
            assert!(error.cause().is_some_and(is_expected), "{error}");
            assert_eq!(error.raw_os_error(), None, "{error}");
        }
    }
    dir.replace(&map, "n".repeat(255))?;
    dir.replace(&map, "n".repeat(255))?;
    assert_eq!(fs.names(), ["n".repeat(255)]);
    Ok(())
}

#[common::test(PINS)]
fn replace_keeping_mode_keeps_mode_and_owner() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let maps = [hash(), hash()];
    dir.pin(&maps[0], NAME)?;
    for mode in [0o600, 0o640, 0o444, 0o777, 0o1666, 0] {
        dir.set_mode(NAME, mode)?;
        let before = dir.metadata(NAME)?;
        dir.replace_keeping_mode(&maps[1], NAME)?;
        let after = dir.metadata(NAME)?;
        assert_eq!(after.mode(), mode);
        assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
        assert_ne!(after.inode(), before.inode());
    }
    dir.replace(&maps[0], NAME)?;
    // The default mode less the umask, which leaves the owner's bits here.
    assert_eq!(dir.metadata(NAME)?.mode(), 0o600);
    assert_eq!(dir.identity(NAME)?, maps[0].identity()?);
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

/// A lack of descriptors is not reported as a missing /proc.
pub fn few_descriptors() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let maps = [hash(), hash()];
    dir.pin(&maps[0], NAME)?;
    // Creates the claim, which takes one descriptor, before the limit applies.
    dir.replace(&maps[0], NAME)?;
    dir.set_mode(NAME, 0o640)?;
    let mut all = vec![];
    while all.len() < 64 {
        all.push(File::open("/dev/null")?);
    }
    let limits = getrlimit(Resource::Nofile);
    let highest = all.last().map_or(0, |file| file.as_raw_fd() as u64);
    let few = Rlimit {
        current: Some(highest + 1),
        ..limits
    };
    setrlimit(Resource::Nofile, few)?;
    while let Ok(file) = File::open("/dev/null") {
        all.push(file);
    }
    let (mut set, mut replaced) = (0, 0);
    for room in 0..6 {
        for (done, what) in [
            (&mut set, dir.set_mode(NAME, 0o640)),
            (&mut replaced, dir.replace_keeping_mode(&maps[1], NAME)),
        ] {
            match what {
                Ok(()) => *done += 1,
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{room}: {error}");
                    assert_eq!(error.cause(), None, "{room}");
                }
            }
        }
        all.pop();
    }
    setrlimit(Resource::Nofile, limits)?;
    assert!(set > 0 && set < 6, "{set}");
    assert!(replaced > 0 && replaced < set, "{replaced}");
    assert_eq!(dir.metadata(NAME)?.mode(), 0o640);
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

#[common::test(USERS)]
fn replace_keeping_mode_needs_permission_to_set_the_owner() -> Outcome {
    let fs = TestFs::detached("755");
    let dir = PinDir::create(fs.at("dir"), 0o777)?;
    let (old, new) = (hash(), hash());
    dir.pin(&old, NAME)?;
    dir.set_owner(NAME, Some(77), Some(88))?;
    dir.set_mode(NAME, 0o6666)?;
    // Root may set the owner. The set-user-id and set-group-id bits survive the change.
    dir.replace_keeping_mode(&new, NAME)?;
    let found = dir.metadata(NAME)?;
    assert_eq!((found.mode(), found.uid(), found.gid()), (0o6666, 77, 88));
    let inode = found.inode();
    // The directory is not sticky, so an ordinary user may replace the pin. It may not give the
    // new pin to the old owner, though.
    let error = as_user(CapabilitySet::BPF, || {
        let error = dir.replace_keeping_mode(&old, NAME).unwrap_err();
        assert_eq!(fs::read_dir(fs.at("dir")).unwrap().count(), 1);
        error
    });
    assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
    assert_eq!(dir.metadata(NAME)?.inode(), inode);
    assert_eq!(dir.get::<Map>(NAME)?.id()?, new.id()?);
    as_user(CapabilitySet::BPF, || dir.replace(&old, NAME).unwrap());
    let found = dir.metadata(NAME)?;
    assert_eq!(
        (found.mode(), found.uid(), found.gid()),
        (0o600, 1234, 1234)
    );
    Ok(())
}
