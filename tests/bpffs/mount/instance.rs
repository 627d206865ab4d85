//! A bpffs is found, verified and unmounted.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use bpf_pin::bpffs::{FileSystem, MountOptions, ShadowedBpffs};
use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Bpffs, Map};
use common::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

use crate::mount::*;

fn mount_tmpfs(path: &Path) {
    mount("tmpfs", path, "tmpfs", MountFlags::empty(), None).expect("a tmpfs");
}

#[common::test(ROOT)]
fn at_finds_a_mounted_bpffs() -> Outcome {
    with_mount_point(|path| {
        let made = MountOptions::new().mount(path)?;
        for path in [path.to_owned(), path.join("."), path.join("")] {
            let found = Bpffs::at(&path)?;
            assert_eq!(found.path(), path);
            assert_eq!(found.dev(), made.dev());
            found.still_here()?;
            assert!(FileSystem::of(&found)?.is_bpffs());
        }
        let inside = path.join("inside");
        fs::create_dir(&inside)?;
        let within = Bpffs::at(&inside)?;
        assert_eq!(within.dev(), made.dev());
        assert_eq!(within.mount()?, made.mount()?);
        within.still_here()?;
        Ok(())
    })
}

#[common::test]
fn at_names_the_file_system_it_found_instead() -> Outcome {
    let find = Operation::FindBpffs;
    let cause = |path: &Path| not_bpffs(path, None);
    let proc = Path::new("/proc");
    let error = Bpffs::at(proc).expect_err("no bpffs");
    assert_fails_at(&error, find, proc, None, Some(cause(proc)));

    let file = Path::new("/proc/self/status");
    let error = Bpffs::at(file).expect_err("a file");
    let cause = Cause::NotADirectory {
        path: file.to_owned(),
    };
    assert_fails_at(&error, find, file, Some(libc::ENOTDIR), Some(cause));

    let gone = Path::new("/proc/self/gone/further");
    let missing = PathBuf::from("/proc/self/gone");
    let error = Bpffs::at(gone).expect_err("nothing");
    let cause = Cause::Missing { path: missing };
    assert_fails_at(&error, find, gone, Some(libc::ENOENT), Some(cause));

    let nul = Path::new("/proc\0");
    let error = Bpffs::at(nul).expect_err("a NUL");
    let because = "the path contains a NUL byte at offset 5";
    let problem = because.into();
    let cause = Cause::InvalidPath { problem };
    assert_fails_at(&error, find, nul, None, Some(cause));
    Ok(())
}

/// Behind the error `mkdir /sys/fs/bpf/x: No such file or directory` is a sysfs without a bpffs. A mount namespace with
/// another sysfs looks the same, for example after `ip netns exec`.
#[common::test(ROOT)]
fn a_bare_sysfs_gets_a_hint_to_mount_a_bpffs() -> Outcome {
    in_mount_namespace(|| {
        let path = Path::new("/sys/fs/bpf");
        // The same file system cannot be mounted directly over itself: EBUSY.
        mount_tmpfs(Path::new("/sys"));
        mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None)?;
        let error = Bpffs::system().expect_err("no bpffs");
        assert_eq!(error.operation(), Operation::FindBpffs);
        // The sentence has the hint, unless this machine has a hidden bpffs there.
        let hidden = match error.cause() {
            Some(Cause::NotBpffs {
                path: at,
                found,
                missing: None,
                hidden,
            }) if at == path && found.name() == Some("sysfs") => hidden.is_some(),
            other => return Err(format!("{other:?}").into()),
        };
        let seen = Bpffs::inspect(path)?;
        let is_elsewhere = !seen.hidden.is_empty() || seen.of_process_1.is_some();
        assert_eq!(hidden, is_elsewhere, "{error}: {seen}");

        // The path is an ordinary directory to mount on.
        let made = Bpffs::ensure(path, &MountOptions::new().mode(0o700))?;
        assert!(made.is_new());
        assert_is_at(&Bpffs::system()?, path);
        assert!(!Bpffs::ensure(path, &MountOptions::new())?.is_new());
        assert_eq!(mounts_at(path).len(), 1);
        unmount_with_retries(made.into_bpffs());
        Bpffs::system().expect_err("unmounted");
        Ok(())
    })
}

#[common::test(ROOT)]
fn still_here_detects_a_covering_mount() -> Outcome {
    with_mount_point(|path| {
        let first = MountOptions::new().mount(path)?;
        let pinned = hash().pin(path.join("map"))?;
        let second = MountOptions::new().mount(path)?;
        let error = first.still_here().expect_err("it is covered");
        let (expected, found) = (first.dev(), second.dev());
        let cause = Cause::AnotherInstance { expected, found };
        assert_fails_at(&error, Operation::FindBpffs, path, None, Some(cause));
        second.still_here()?;
        // The covered pin is still reachable through the descriptor.
        let fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&first));
        let hidden = format!("/proc/thread-self/fd/{fd}/map");
        assert_eq!(Map::open(hidden)?.id()?, pinned.id()?);

        mount_tmpfs(path);
        let [_, top, tmpfs] = &mounts_at(path)[..] else {
            return Err("expected three mounts".into());
        };
        for bpffs in [&first, &second] {
            let error = bpffs.still_here().expect_err("it is covered");
            let cause = Cause::NotBpffs {
                path: path.to_owned(),
                found: FileSystem::at(path)?,
                missing: None,
                hidden: Some(ShadowedBpffs::ByMount {
                    bpffs: Box::new(top.clone()),
                    by: Box::new(tmpfs.clone()),
                }),
            };
            assert_fails_at(&error, Operation::FindBpffs, path, None, Some(cause));
        }
        unmount(path, UnmountFlags::empty())?;
        second.still_here()?;
        unmount_with_retries(second);
        first.still_here()?;
        Ok(())
    })
}

#[common::test(ROOT)]
fn still_here_detects_an_unmounted_bpffs() -> Outcome {
    with_mount_point(|path| {
        let place = path.join("place");
        fs::create_dir(&place)?;
        let bpffs = MountOptions::new().mount(&place)?;
        unmount(&place, UnmountFlags::DETACH)?;
        let error = bpffs.still_here().expect_err("it is gone");
        assert_cause_matches!(error, Cause::NotBpffs { .. });
        let mount_id = match bpffs.mount().expect_err("it is gone").cause() {
            Some(Cause::NotListed { mount_id }) => *mount_id,
            other => return Err(format!("{other:?}").into()),
        };
        assert!(mount_id > 0);
        fs::remove_dir(&place)?;
        let error = bpffs.still_here().expect_err("nothing is there");
        let cause = Cause::Missing {
            path: place.clone(),
        };
        let enoent = Some(libc::ENOENT);
        assert_fails_at(&error, Operation::FindBpffs, &place, enoent, Some(cause));
        Ok(())
    })
}

#[common::test(ROOT)]
fn unmount_frees_the_objects_of_an_unused_bpffs() -> Outcome {
    with_mount_point(|path| {
        let bpffs = MountOptions::new().mount(path)?;
        let map = hash();
        let id = map.id()?;
        drop(map.pin(path.join("map"))?);
        unmount_with_retries(bpffs);
        assert_nothing_is_mounted_at(path);
        assert_eq!(fs::read_dir(path)?.count(), 0);
        // No copy of the mount is left that would keep the file system alive.
        for _ in 0..1000 {
            if Map::from_id(id).is_err() {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Err("the map outlived its only pin".into())
    })
}

#[track_caller]
fn assert_unmount_fails(bpffs: Bpffs, mounted: Option<PathBuf>) -> Bpffs {
    let (path, dev) = (bpffs.path().to_owned(), bpffs.dev());
    let failed = bpffs.unmount().expect_err("it is in use");
    let (ebusy, cause) = (Some(libc::EBUSY), Some(Cause::InUse { mounted }));
    let unmount = Operation::UnmountBpffs;
    assert_fails_at(failed.error(), unmount, &path, ebusy, cause);
    let bpffs = failed.into_object();
    assert_eq!(bpffs.dev(), dev);
    assert_is_at(&bpffs, &path);
    bpffs
}

#[common::test(ROOT)]
fn a_bpffs_in_use_stays_mounted() -> Outcome {
    with_mount_point(|path| {
        let bpffs = MountOptions::new().mount(path)?;
        let pinned = hash().pin(path.join("map"))?;
        let open = File::open(path)?;
        let bpffs = assert_unmount_fails(bpffs, None);
        drop(open);
        let other = Bpffs::at(path)?;
        let bpffs = assert_unmount_fails(bpffs, None);
        drop(other);
        let inside = path.join("inside");
        fs::create_dir(&inside)?;
        mount_tmpfs(&inside);
        let bpffs = assert_unmount_fails(bpffs, Some(inside.clone()));
        unmount(&inside, UnmountFlags::empty())?;
        // A pinned object's descriptor is nothing of the file system.
        unmount_with_retries(bpffs);
        assert!(pinned.id()? > 0);
        Ok(())
    })
}

#[common::test(ROOT)]
fn unmount_rejects_a_path_to_another_mount() -> Outcome {
    with_mount_point(|path| {
        let bpffs = MountOptions::new().mount(path)?;
        let inside = path.join("inside");
        fs::create_dir(&inside)?;
        let failed = Bpffs::at(&inside)?.unmount().expect_err("no mount");
        let cause = Cause::NotTheRoot {
            path: Some(inside.clone()),
            mount_point: Some(path.to_owned()),
        };
        let unmount = Operation::UnmountBpffs;
        assert_fails_at(failed.error(), unmount, &inside, None, Some(cause));
        drop(failed);
        bpffs.still_here()?;

        // Another bpffs covers it.
        let over = MountOptions::new().mount(path)?;
        let failed = bpffs.unmount().expect_err("it is covered");
        let cause = failed.cause().cloned();
        assert!(
            matches!(cause, Some(Cause::AnotherInstance { .. })),
            "{cause:?}"
        );
        let bpffs = failed.into_object();
        over.still_here()?;
        assert_eq!(mounts_at(path).len(), 2);
        mount_tmpfs(path);
        let failed = bpffs.unmount().expect_err("it is covered");
        assert_cause_matches!(failed, Cause::NotBpffs { .. });
        assert_eq!(mounts_at(path).len(), 3);
        drop(failed);
        Ok(())
    })
}

#[common::test(ROOT)]
fn mounts_lists_all_mounts_of_type_bpf() -> Outcome {
    with_mount_point(|path| {
        let before = Bpffs::mounts()?;
        let name = |name: &str| path.join(name);
        for directory in ["a", "b c", "d", "e"] {
            fs::create_dir(name(directory))?;
        }
        let a = MountOptions::new().mount(name("a"))?;
        fs::create_dir(name("a/sub"))?;
        mount_bind(name("a/sub"), name("b c"))?;
        // A tmpfs with the source "bpf" is not a bpffs.
        mount("bpf", name("d"), "tmpfs", MountFlags::empty(), c"mode=755")?;
        let covered = MountOptions::new().mount(name("e"))?;
        mount_tmpfs(&name("e"));
        mount_change(name("a"), MountPropagationFlags::SHARED)?;
        let all = Bpffs::mounts()?;
        let new: Vec<_> = all.iter().filter(|mount| !before.contains(mount)).collect();
        let [at_a, bind, at_e] = &new[..] else {
            return Err(format!("{new:#?}").into());
        };
        assert_eq!((&at_a.mount_point, at_a.dev), (&name("a"), a.dev()));
        assert!(at_a.propagation.shared.is_some() && !at_a.propagation.is_private());
        assert_eq!((&bind.mount_point, bind.dev), (&name("b c"), a.dev()));
        assert_eq!(bind.root, Path::new("/sub"));
        assert!(bind.propagation.is_private());
        assert_eq!((&at_e.mount_point, at_e.dev), (&name("e"), covered.dev()));
        Ok(())
    })
}

/// The library relies on this: it polls only after it has read.
#[common::test(ROOT)]
fn poll_reports_changes_since_mountinfo_was_opened() -> Outcome {
    with_mount_point(|path| {
        let file = File::open("/proc/thread-self/mountinfo")?;
        let has_changed = || {
            let mut files = [PollFd::new(&file, PollFlags::PRI)];
            poll(&mut files, Some(&Timespec::default())).expect("a poll");
            files[0].revents().contains(PollFlags::PRI)
        };
        assert!(!has_changed());
        mount_tmpfs(path);
        assert!(has_changed() && !has_changed());
        let file = File::open("/proc/thread-self/mountinfo")?;
        unmount(path, UnmountFlags::DETACH)?;
        let mut files = [PollFd::new(&file, PollFlags::PRI)];
        poll(&mut files, Some(&Timespec::default()))?;
        assert!(
            files[0].revents().contains(PollFlags::PRI),
            "the first poll of a file"
        );
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_forged_mountinfo_is_rejected() -> Outcome {
    with_mount_point(|path| {
        let forged = path.join("mountinfo");
        fs::write(&forged, "1 1 0:1 / /forged rw - bpf bpf rw\n")?;
        mount_bind(&forged, "/proc/thread-self/mountinfo")?;
        let error = Bpffs::mounts().expect_err("an ordinary file");
        assert_cause_matches!(error, Cause::NoProc { .. });
        Ok(())
    })
}

/// The bind mount belongs to the same instance, but to another owner.
#[common::test(ROOT)]
fn unmount_keeps_a_bind_mount_that_covers_it() -> Outcome {
    with_mount_point(|path| {
        let bpffs = MountOptions::new().mount(path)?;
        let (own, sub) = (bpffs.mount()?.mount_id, path.join("sub"));
        fs::create_dir(&sub)?;
        mount_bind(&sub, path)?;
        let both = mounts_at(path);
        assert_eq!(both.len(), 2);
        // The path still leads to the instance.
        bpffs.still_here()?;
        let failed = bpffs.unmount().expect_err("another mount");
        let (expected, found) = (own, both[1].mount_id);
        let cause = Cause::AnotherMount { expected, found };
        assert_fails_at(
            failed.error(),
            Operation::UnmountBpffs,
            path,
            None,
            Some(cause),
        );
        assert_eq!(mounts_at(path), both);
        // The upper mount can be unmounted by its path, and then the lower one.
        unmount_with_retries(Bpffs::at(path)?);
        assert_eq!(mount_at(path).mount_id, own);
        unmount_with_retries(failed.into_object());
        assert_nothing_is_mounted_at(path);
        Ok(())
    })
}
