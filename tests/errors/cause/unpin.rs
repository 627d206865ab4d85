//! A failed unpin removes nothing and returns the pinned object.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use bpf_pin::bpffs::FileSystem;
use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Access, Error, Identity, Kind, Map, PinnedMap, Prog};
use common::*;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};

use crate::cause::*;

const OBJECTS: &[Need] = &[cap::BPF, Need::Bpffs];
const MOUNTS: &[Need] = &[cap::BPF, cap::SYS_ADMIN];

/// Asserts that unpinning fails and returns the pinned object unchanged.
#[track_caller]
pub fn unpin_fails(pinned: PinnedMap) -> (PinnedMap, Error) {
    let (path, id) = (pinned.path().to_owned(), pinned.id().unwrap());
    let (pinned, error) = unwrap_err(pinned.unpin(), &path).into_parts();
    assert_eq!(pinned.path(), path);
    assert_is_usable(&pinned, id);
    assert_eq!(error.operation(), Operation::Unpin, "{error:?}");
    assert_eq!(error.path(), Some(&*path));
    (pinned, error)
}

#[common::test(OBJECTS)]
fn unpin_of_a_removed_pin_names_the_missing_component() -> Outcome {
    let fs = TestFs::new();
    fs::create_dir(fs.at("dir"))?;
    let path = fs.at("dir/flows");
    let pinned = hash().pin(&path)?;
    fs::remove_file(&path)?;
    let (pinned, error) = unpin_fails(pinned);
    let cause = Cause::Missing { path: path.clone() };
    assert_fails(&error, Operation::Unpin, Some(libc::ENOENT), Some(cause));

    fs::remove_dir(fs.at("dir"))?;
    let (pinned, error) = unpin_fails(pinned);
    let cause = Cause::Missing { path: fs.at("dir") };
    assert_fails(&error, Operation::Unpin, Some(libc::ENOENT), Some(cause));

    pin_a_map(fs.at("dir"));
    let (_, error) = unpin_fails(pinned);
    let cause = Cause::NotADirectory { path: fs.at("dir") };
    assert_eq!(error.cause(), Some(&cause), "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR), "{error}");
    assert_eq!(fs.names(), ["dir"]);
    Ok(())
}

/// The name is now the pin of another object.
#[common::test(OBJECTS)]
fn unpin_keeps_a_pin_that_another_object_holds() -> Outcome {
    let fs = TestFs::new();
    let path = fs.at("flows");
    let pinned = hash().pin(&path)?;
    let id = pinned.id()?;
    let expected = Identity {
        kind: Kind::Map,
        id,
    };

    fs::remove_file(&path)?;
    let other = pin_a_map(&path);
    let (pinned, error) = unpin_fails(pinned);
    let found = Identity {
        kind: Kind::Map,
        id: other,
    };
    let cause = Cause::Replaced { expected, found };
    assert_cause(&error, None, Some(cause));
    assert_eq!(Map::open(&path)?.id()?, other);

    fs::remove_file(&path)?;
    let other = prog().pin(&path)?.id()?;
    let (pinned, error) = unpin_fails(pinned);
    let found = Identity {
        kind: Kind::Prog,
        id: other,
    };
    // Each kind has its own ids, so the same number in another kind is another object.
    let kind = Kind::Prog;
    assert_ne!(Identity { kind, ..expected }, expected);
    assert_eq!(error.cause(), Some(&Cause::Replaced { expected, found }));
    assert_eq!(Prog::open(&path)?.id()?, other);

    // The object is pinned under another name, and can be unpinned there.
    fs::remove_file(&path)?;
    let again = pinned.into_inner().pin(fs.at("moved"))?;
    assert_is_usable(&again.unpin()?, id);
    assert!(fs.names().is_empty());
    Ok(())
}

#[common::test(OBJECTS)]
fn unpin_keeps_a_directory_at_its_path() -> Outcome {
    let fs = TestFs::new();
    let path = fs.at("flows");
    let pinned = hash().pin(&path)?;
    fs::remove_file(&path)?;
    fs::create_dir(&path)?;
    let (_, error) = unpin_fails(pinned);
    let cause = Cause::NotAnObject {
        path: path.clone(),
        what: "directory",
        found: FileSystem::BPF,
    };
    assert_fails(&error, Operation::Unpin, Some(libc::EACCES), Some(cause));
    assert_eq!(fs.names(), ["flows"]);
    Ok(())
}

/// The symbolic link leads to the object, but unlinking the path would remove the link.
#[common::test(OBJECTS)]
fn unpin_keeps_a_symbolic_link_at_its_path() -> Outcome {
    let fs = TestFs::new();
    let (path, link) = (fs.at("flows"), fs.at("link"));
    let id = pin_a_map(&path);
    symlink("flows", &link)?;
    let pinned = PinnedMap::open(&link)?;
    assert_eq!(pinned.id()?, id, "opening follows the link");
    let (_, error) = unpin_fails(pinned);
    let cause = Cause::SymbolicLink { path: link };
    assert_fails(&error, Operation::Unpin, None, Some(cause));
    assert_eq!(fs.names(), ["flows", "link"]);
    Ok(())
}

/// A second pin of the same object under the same name is the same pin.
#[common::test(OBJECTS)]
fn unpin_removes_a_recreated_pin_of_the_same_object() -> Outcome {
    let fs = TestFs::new();
    let path = fs.at("flows");
    let pinned = hash().pin(&path)?;
    let id = pinned.id()?;
    let other = pinned.try_clone()?;
    fs::remove_file(&path)?;
    other.pin(&path)?;
    assert_is_usable(&pinned.unpin()?, id);
    assert!(fs.names().is_empty());
    Ok(())
}

/// A pin that failed with EEXIST removes nothing, because the name belongs to another object.
#[common::test(OBJECTS)]
fn a_failed_pin_leaves_the_other_pin_alone() -> Outcome {
    let fs = TestFs::new();
    let path = fs.at("flows");
    let held = pin_a_map(&path);
    let map = hash();
    let id = map.id()?;
    let map = unwrap_err(map.pin(&path), &path).into_object();
    let pinned = map.pin(fs.at("other"))?;
    assert_is_usable(&pinned.unpin()?, id);
    assert_eq!(fs.names(), ["flows"]);
    assert_eq!(Map::open(&path)?.id()?, held);
    Ok(())
}

#[track_caller]
fn assert_is_read_only(error: &Error, operation: Operation, path: &Path) {
    let cause = Cause::ReadOnlyFileSystem { path: path.into() };
    assert_fails(error, operation, libc::EROFS, cause);
}

#[common::test(MOUNTS)]
fn a_read_only_file_system_is_named() -> Outcome {
    let fs = TestFs::detached("700");
    let (path, new) = (fs.at("flows"), fs.at("new"));
    let pinned = hash().pin(&path)?;
    make_superblock_read_only(&fs);

    assert_is_read_only(&pin_fails(&new), Operation::Pin, fs.root());
    let (pinned, error) = unpin_fails(pinned);
    assert_is_read_only(&error, Operation::Unpin, fs.root());
    assert_is_read_only(&open_fails(&path), Operation::Open, &path);
    let error = unwrap_err(Map::open_with(&path, Access::WriteOnly), &path);
    assert_is_read_only(&error, Operation::Open, &path);
    let read = Map::open_with(&path, Access::ReadOnly)?;
    assert_eq!(read.id()?, pinned.id()?);
    assert_eq!(fs.names(), ["flows"]);
    Ok(())
}

/// The mount is read-only but the file system is not, as in a container.
#[common::test(MOUNTS)]
fn a_read_only_mount_is_named() -> Outcome {
    let (writable, read_only) = (tempfile::tempdir()?, tempfile::tempdir()?);
    in_mount_namespace(|| {
        mount_bpffs(writable.path());
        mount_bind(writable.path(), read_only.path()).expect("a bind mount");
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        mount_remount(read_only.path(), flags, c"").expect("a read-only mount");
        let id = pin_a_map(writable.path().join("flows"));

        let (path, new) = (read_only.path().join("flows"), read_only.path().join("new"));
        assert_is_read_only(&pin_fails(&new), Operation::Pin, read_only.path());
        // Opening a pin for writing does not write to the mount.
        let pinned = PinnedMap::open(&path).expect("the pin");
        assert_eq!(pinned.id().unwrap(), id);
        let (_, error) = unpin_fails(pinned);
        assert_is_read_only(&error, Operation::Unpin, read_only.path());

        // The writable mount of the same file system allows it.
        let pinned = PinnedMap::open(writable.path().join("flows")).unwrap();
        assert_is_usable(&pinned.unpin().unwrap(), id);
    });
    Ok(())
}

#[common::test(MOUNTS)]
fn unpin_keeps_a_mount_point() -> Outcome {
    let dir = tempfile::tempdir()?;
    in_mount_namespace(|| {
        mount_bpffs(dir.path());
        let path = dir.path().join("flows");
        let pinned = hash().pin(&path).unwrap();
        let id = pinned.id().unwrap();
        mount_bind(&path, &path).expect("a bind mount");
        let (pinned, error) = unpin_fails(pinned);
        let cause = Cause::MountPoint { path: path.clone() };
        assert_fails(&error, Operation::Unpin, Some(libc::EBUSY), Some(cause));
        unmount(&path, UnmountFlags::empty()).unwrap();
        assert_is_usable(&pinned.unpin().unwrap(), id);
    });
    Ok(())
}

#[common::test(MOUNTS)]
fn unpin_after_unmount_names_the_file_system() -> Outcome {
    let dir = tempfile::tempdir()?;
    in_mount_namespace(|| {
        mount_bpffs(dir.path());
        let path = dir.path().join("flows");
        let pinned = hash().pin(&path).unwrap();
        // An open object does not keep the file system busy.
        unmount(dir.path(), UnmountFlags::empty()).expect("an idle file system");
        let (_, error) = unpin_fails(pinned);
        let cause = not_bpffs(dir.path(), None);
        assert_fails(&error, Operation::Unpin, Some(libc::ENOENT), Some(cause));
    });
    Ok(())
}
