//! Modes, owners and the sysctl deny operations to an ordinary user.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use bpf_pin::error::Cause;
use bpf_pin::probe::Capability;
use bpf_pin::{Access, Identity, Kind, Link, Map, Object, PinnedMap};
use common::*;
use rustix::thread::CapabilitySet;

use crate::cause::unpin::unpin_fails;
use crate::cause::*;

const USERS: &[Need] = &[cap::BPF, cap::SYS_ADMIN, cap::SETUID];

const UNPRIVILEGED: &[Need] = &[without(cap::BPF)];

const LINKS: &[Need] = &[
    cap::BPF,
    cap::NET_ADMIN,
    cap::SYS_ADMIN,
    cap::SETUID,
    kernel(5, 9),
];

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

/// Runs as an ordinary user that may use bpf(2) on every kernel.
fn as_bpf_user<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    as_user(CapabilitySet::BPF, test)
}

/// The cause for a file or directory of root with its current mode.
#[track_caller]
fn blocked(path: &Path, wanted: &'static str, read_only_would_do: bool) -> Cause {
    let stat = fs::metadata(path).unwrap();
    let mode = stat.mode() & 0o7777;
    Cause::Blocked {
        path: path.into(),
        mode,
        uid: stat.uid(),
        wanted,
        read_only_would_do,
    }
}

#[track_caller]
fn assert_is_blocked(error: &Error, operation: Operation, by: &Cause) {
    assert_fails(error, operation, libc::EACCES, by.clone());
}

#[track_caller]
fn unpin_is_blocked(pinned: PinnedMap, by: &Cause) -> PinnedMap {
    let (pinned, error) = unpin_fails(pinned);
    assert_is_blocked(&error, Operation::Unpin, by);
    pinned
}

#[common::test(USERS)]
fn the_directory_that_denies_search_is_named() -> Outcome {
    let fs = TestFs::detached("755");
    let (dir, path) = (fs.at("dir"), fs.at("dir/deep/flows"));
    fs::create_dir_all(fs.at("dir/deep"))?;
    let pinned = hash().pin(&path)?;
    set_mode(&path, 0o666);
    // Read permission does not replace search permission.
    for mode in [0o700, 0o744, 0o766] {
        set_mode(&dir, mode);
        let by = blocked(&dir, "search", false);
        as_bpf_user(|| {
            assert_is_blocked(&open_fails(&path), Operation::Open, &by);
            assert_is_blocked(&pin_fails(&path), Operation::Pin, &by);
            assert_is_blocked(&statfs_fails(&path), Operation::Statfs, &by);
            // The kernel does not reveal if the other components exist.
            let gone = fs.at("dir/gone/flows");
            assert_is_blocked(&open_fails(&gone), Operation::Open, &by);
        });
    }
    let by = blocked(&dir, "search", false);
    as_bpf_user(|| unpin_is_blocked(pinned, &by)).unpin()?;
    Ok(())
}

#[common::test(USERS)]
fn the_directory_that_denies_writing_is_named() -> Outcome {
    let fs = TestFs::detached("755");
    fs::create_dir(fs.at("dir"))?;
    set_mode(&fs.at("dir"), 0o755);
    for dir in [fs.root().to_owned(), fs.at("dir")] {
        let (path, new) = (dir.join("flows"), dir.join("new"));
        let pinned = hash().pin(&path)?;
        set_mode(&path, 0o666);
        let by = blocked(&dir, "write", false);
        let pinned = as_bpf_user(|| {
            assert_is_blocked(&pin_fails(&new), Operation::Pin, &by);
            let pinned = unpin_is_blocked(pinned, &by);
            assert_eq!(
                Map::open(&path).unwrap().id().unwrap(),
                pinned.id().unwrap()
            );
            pinned
        });
        assert!(!new.exists());
        pinned.unpin()?;
    }
    assert_eq!(fs.names(), ["dir"]);
    Ok(())
}

#[common::test(USERS)]
fn the_mode_that_denies_opening_a_pin_is_named() -> Outcome {
    let fs = TestFs::detached("755");
    let path = fs.at("flows");
    let id = pin_a_map(&path);
    use Access::{ReadOnly, ReadWrite, WriteOnly};
    // The mode, the access, and the denied permission with whether read-only access would succeed. `None` if it opens.
    for (mode, access, refused) in [
        (0o600, ReadWrite, Some(("read and write", false))),
        (0o600, ReadOnly, Some(("read", false))),
        (0o600, WriteOnly, Some(("write", false))),
        (0o644, ReadWrite, Some(("read and write", true))),
        (0o644, ReadOnly, None),
        (0o644, WriteOnly, Some(("write", false))),
        (0o622, ReadWrite, Some(("read and write", false))),
        (0o622, ReadOnly, Some(("read", false))),
        (0o622, WriteOnly, None),
        (0o666, ReadWrite, None),
    ] {
        set_mode(&path, mode);
        let by = refused.map(|(wanted, read_only)| blocked(&path, wanted, read_only));
        as_bpf_user(|| match (Map::open_with(&path, access), by) {
            (Ok(map), None) => assert_eq!(map.id().unwrap(), id),
            (Err(error), Some(by)) => assert_is_blocked(&error, Operation::Open, &by),
            (Ok(_), Some(_)) => panic!("{mode:o} opened {access}"),
            (Err(error), None) => panic!("{mode:o} did not open {access}: {error}"),
        });
    }
    // Read-only access does succeed.
    set_mode(&path, 0o644);
    as_bpf_user(|| {
        let map = Map::open_with(&path, ReadOnly).expect("a map to read");
        let elems = map.elements::<u32, u64>().unwrap();
        assert_eq!(elems.lookup(&1).unwrap(), None);
    });
    Ok(())
}

/// A link cannot be opened read-only, so that is not suggested.
#[common::test(LINKS)]
fn the_mode_that_denies_opening_the_pin_of_a_link_is_named() -> Outcome {
    let fs = TestFs::detached("755");
    let path = fs.at("lookup");
    let _pinned = detached_link().pin(&path)?;
    set_mode(&path, 0o644);
    let by = blocked(&path, "read and write", false);
    as_bpf_user(|| {
        let error = unwrap_err(Link::open(&path), &path);
        assert_is_blocked(&error, Operation::Open, &by);
        // The kernel returns EINVAL, but the kind of the object could not be determined.
        let error = unwrap_err(Link::open_with(&path, Access::ReadOnly), &path);
        assert_fails(&error, Operation::Open, Some(libc::EINVAL), None);
    });
    Ok(())
}

/// EEXIST names the object only if this user can open it.
#[common::test(USERS)]
fn eexist_names_the_object_if_it_can_be_opened() -> Outcome {
    let fs = TestFs::detached("777");
    let path = fs.at("flows");
    let id = pin_a_map(&path);
    let kind = Kind::Map;
    let seen = Some(Identity { kind, id });
    for (mode, holder) in [(0o600, None), (0o644, seen), (0o666, seen)] {
        set_mode(&path, mode);
        as_bpf_user(|| {
            let cause = Some(Cause::Exists { holder });
            assert_fails(&pin_fails(&path), Operation::Pin, Some(libc::EEXIST), cause);
        });
    }
    Ok(())
}

/// Unpinning needs write permission on the directory. The mode of the pin matters only to check the object.
#[common::test(USERS)]
fn unpin_needs_no_write_permission_on_the_pin() -> Outcome {
    let fs = TestFs::detached("755");
    let dir = fs.at("dir");
    fs::create_dir(&dir)?;
    set_mode(&dir, 0o777);
    let path = dir.join("flows");
    for mode in [0o644, 0o622, 0o666] {
        let pinned = hash().pin(&path)?;
        let id = pinned.id()?;
        set_mode(&path, mode);
        as_bpf_user(|| {
            let map = pinned
                .unpin()
                .unwrap_or_else(|error| panic!("{mode:o}: {error}"));
            assert_is_usable(&map, id);
        });
        assert!(!path.exists());
    }
    let pinned = hash().pin(&path)?;
    set_mode(&path, 0o600);
    let by = blocked(&path, "read and write", false);
    as_bpf_user(|| unpin_is_blocked(pinned, &by)).unpin()?;
    Ok(())
}

#[common::test(USERS)]
fn a_sticky_directory_is_named() -> Outcome {
    // The root of a bpffs is always sticky.
    let fs = TestFs::detached("777");
    fs::create_dir(fs.at("dir"))?;
    set_mode(&fs.at("dir"), 0o1777);
    for dir in [fs.root().to_owned(), fs.at("dir")] {
        let path = dir.join("flows");
        let id = pin_a_map(&path);
        set_mode(&path, 0o666);
        as_bpf_user(|| {
            let (pinned, error) = unpin_fails(PinnedMap::open(&path).unwrap());
            let directory = dir.clone();
            let cause = Some(Cause::Sticky { directory, uid: 0 });
            assert_fails(&error, Operation::Unpin, Some(libc::EPERM), cause);
            assert_eq!(Map::open(&path).unwrap().id().unwrap(), id);
            drop(pinned);
            // A user may remove its own pins.
            let own = any_map().pin(dir.join("own")).unwrap();
            own.unpin().unwrap();
        });
        PinnedMap::open(&path)?.unpin()?;
    }
    // The owner of the directory may remove all pins.
    chown(fs.at("dir"), Some(1234), None)?;
    let path = fs.at("dir/flows");
    pin_a_map(&path);
    set_mode(&path, 0o666);
    as_bpf_user(|| PinnedMap::open(&path).unwrap().unpin().unwrap());
    Ok(())
}

/// The directory that denies access is not on the given path, but behind a symbolic link.
#[common::test(USERS)]
fn a_denial_behind_a_symbolic_link_is_not_guessed() -> Outcome {
    let fs = TestFs::detached("755");
    fs::create_dir(fs.at("closed"))?;
    set_mode(&fs.at("closed"), 0o700);
    pin_a_map(fs.at("closed/flows"));
    let link = fs.at("link");
    symlink("closed/flows", &link)?;
    as_bpf_user(|| {
        let error = open_fails(&link);
        assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
        // The cause may be absent. It must not blame the link or its target.
        match error.cause() {
            None => assert_eq!(
                error.to_string(),
                format!("open {}: EACCES", link.display())
            ),
            Some(Cause::Blocked { path, wanted, .. }) => {
                assert_eq!((&**path, *wanted), (&*fs.at("closed"), "search"));
            }
            Some(other) => panic!("{other:?}"),
        }
    });
    Ok(())
}

fn bpf_denied_by_sysctl() -> Cause {
    Cause::MissingCapability {
        capability: Capability::Bpf,
        needed_for: "bpf(2) while kernel.unprivileged_bpf_disabled is not 0",
    }
}

/// Before Linux 5.19 the sysctl denies all of bpf(2). Later only the file system decides about pins.
#[common::test(USERS)]
fn the_sysctl_is_named() -> Outcome {
    let fs = TestFs::detached("777");
    let path = fs.at("flows");
    let id = pin_a_map(&path);
    set_mode(&path, 0o666);
    let (map, new) = (any_map(), fs.at("new"));
    as_user(CapabilitySet::empty(), || {
        if sysctl_closes_all() {
            let cause = bpf_denied_by_sysctl();
            let eperm = Some(libc::EPERM);
            assert_fails(
                &open_fails(&path),
                Operation::Open,
                eperm,
                Some(cause.clone()),
            );
            let (map, error) = unwrap_err(map.pin(&new), &new).into_parts();
            assert_fails(&error, Operation::Pin, eperm, Some(cause.clone()));
            assert_fails(
                &map.info().unwrap_err(),
                Operation::Info,
                eperm,
                Some(cause),
            );
        } else {
            assert_eq!(Object::open(&path).unwrap().id().unwrap(), id);
            let pinned = map.pin(&new).expect("a pin of this user");
            pinned.unpin().expect("a pin of this user");
        }
    });
    assert_eq!(fs.names(), ["flows"]);
    Ok(())
}

/// The process pins, drops its privileges and unpins.
#[common::test(USERS)]
fn unpin_after_dropping_privileges_names_the_sysctl() -> Outcome {
    let fs = TestFs::detached("755");
    let dir = fs.at("dir");
    fs::create_dir(&dir)?;
    set_mode(&dir, 0o777);
    let path = dir.join("flows");
    let pinned = hash().pin(&path)?;
    set_mode(&path, 0o666);
    let back = as_user(CapabilitySet::empty(), || {
        let unpinned = pinned.unpin();
        if !sysctl_closes_all() {
            unpinned.expect("the mode allows it");
            return None;
        }
        let (pinned, error) = unwrap_err(unpinned, &path).into_parts();
        let cause = bpf_denied_by_sysctl();
        assert_fails(&error, Operation::Unpin, Some(libc::EPERM), Some(cause));
        Some(pinned)
    });
    assert_eq!(path.exists(), back.is_some());
    if let Some(pinned) = back {
        pinned.unpin()?;
    }
    Ok(())
}

/// Runs as a user that never had privileges.
#[common::test(UNPRIVILEGED)]
fn open_without_privileges_names_the_sysctl_or_the_path() -> Outcome {
    let dir = tempfile::tempdir()?;
    let missing = dir.path().join("gone/flows");
    let error = open_fails(&missing);
    if sysctl_closes_all() {
        let cause = bpf_denied_by_sysctl();
        assert_fails(&error, Operation::Open, Some(libc::EPERM), Some(cause));
    } else {
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
        let not_bpffs =
            matches!(error.cause(), Some(Cause::NotBpffs { path, .. }) if path == dir.path());
        assert!(not_bpffs, "{error}");
    }
    Ok(())
}
