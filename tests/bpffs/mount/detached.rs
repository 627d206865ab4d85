//! A bpffs is created detached, and attached to a path later.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};

use bpf_pin::bpffs::{Detached, FileSystem, MountOptions};
use bpf_pin::error::Operation;
use bpf_pin::{Bpffs, Map};
use common::*;
use rustix::mount::{MountPropagationFlags, mount_change};

use crate::mount::*;

fn detached_bpffs() -> Detached {
    MountOptions::new().mode(0o700).detached().expect("a bpffs")
}

#[common::test(ROOT)]
fn pins_made_before_attach_stay_reachable() -> Outcome {
    with_mount_point(|path| {
        let detached = detached_bpffs();
        let pinned = hash().pin(detached.path().join("map"))?;
        fs::create_dir(detached.path().join("dir"))?;
        assert_nothing_is_mounted_at(path);
        assert!(FileSystem::of(&detached)?.is_bpffs());

        let bpffs = detached.attach(path)?;
        assert_is_at(&bpffs, path);
        assert_eq!(Map::open(path.join("map"))?.id()?, pinned.id()?);
        assert!(path.join("dir").is_dir());
        // The descriptor is the same, so the old path still works.
        pinned.unpin()?;
        assert!(Map::open(path.join("map")).is_err());
        unmount_with_retries(bpffs);
        assert_nothing_is_mounted_at(path);
        Ok(())
    })
}

#[common::test(ROOT)]
fn dropping_a_detached_bpffs_frees_its_objects() -> Outcome {
    let detached = detached_bpffs();
    let map = hash();
    let id = map.id()?;
    let pinned = map.pin(detached.path().join("map"))?;
    let path = detached.path();
    drop(detached);
    assert!(Map::open(path.join("map")).is_err());
    drop(pinned);
    // The kernel frees it asynchronously.
    for _ in 0..1000 {
        if Map::from_id(id).is_err() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Err("the map outlived its only pin".into())
}

#[common::test(ROOT)]
fn attach_follows_a_symbolic_link() -> Outcome {
    with_mount_point(|path| {
        let (place, link) = (path.join("place"), path.join("link"));
        fs::create_dir(&place)?;
        symlink(&place, &link)?;
        let bpffs = detached_bpffs().attach(&link)?;
        assert_eq!(bpffs.path(), link);
        bpffs.still_here()?;
        assert_eq!(mount_at(&place).dev, bpffs.dev());
        assert!(fs::symlink_metadata(&link)?.is_symlink());
        // The library calls umount2(2) with UMOUNT_NOFOLLOW.
        let failed = bpffs.unmount().expect_err("a link");
        assert_eq!(failed.error().raw_os_error(), Some(libc::EINVAL));
        failed.into_object().still_here()?;

        let there = Bpffs::at(place.join("."))?;
        assert_eq!(there.dev(), mount_at(&place).dev);
        unmount_with_retries(there);
        assert_nothing_is_mounted_at(&place);
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_failed_attach_returns_the_detached_bpffs() -> Outcome {
    with_mount_point(|path| {
        let detached = detached_bpffs();
        let pinned = hash().pin(detached.path().join("map"))?;
        fs::write(path.join("file"), "")?;
        let gone = path.join("gone");
        let cause = Cause::Missing { path: gone.clone() };
        let failed = detached.attach(&gone).expect_err("nowhere");
        let attach = Operation::AttachBpffs;
        assert_fails_at(
            failed.error(),
            attach,
            &gone,
            Some(libc::ENOENT),
            Some(cause),
        );
        assert!(!gone.exists());

        let file = path.join("file");
        let cause = Cause::NotADirectory { path: file.clone() };
        let failed = failed.into_object().attach(&file).expect_err("on a file");
        assert_fails_at(
            failed.error(),
            attach,
            &file,
            Some(libc::ENOTDIR),
            Some(cause),
        );

        let nul = path.join("a\0b");
        let position = path.as_os_str().len() + 2;
        let failed = failed.into_object().attach(&nul).expect_err("a NUL");
        let because = format!("the path contains a NUL byte at offset {position}");
        let problem = because.clone().into();
        let cause = Cause::InvalidPath { problem };
        assert_fails_at(failed.error(), attach, &nul, None, Some(cause));

        let (detached, error) = failed.into_parts();
        assert_eq!(error.operation(), attach);
        let bpffs = detached.attach(path)?;
        assert_eq!(Map::open(path.join("map"))?.id()?, pinned.id()?);
        assert_is_at(&bpffs, path);
        Ok(())
    })
}

/// A mount attached below a shared mount appears in its peers, as another mount of the same instance.
#[common::test(ROOT)]
fn attach_propagates_below_a_shared_mount() -> Outcome {
    with_mount_point(|path| {
        use rustix::mount::{MountFlags, mount, mount_bind};
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), None)?;
        mount_change(path, MountPropagationFlags::SHARED)?;
        let (one, other) = (path.join("one"), path.join("other"));
        fs::create_dir(&one)?;
        fs::create_dir(one.join("bpffs"))?;
        fs::create_dir(&other)?;
        mount_bind(&one, &other)?;
        let bpffs = MountOptions::new().mount(one.join("bpffs"))?;
        let here = mount_at(&one.join("bpffs"));
        let there = mount_at(&other.join("bpffs"));
        assert_eq!((here.dev, there.dev), (bpffs.dev(), bpffs.dev()));
        assert_ne!(here.mount_id, there.mount_id);
        assert_eq!(here.propagation.shared, there.propagation.shared);
        assert!(here.propagation.shared.is_some());
        assert_eq!(bpffs.mount()?, here);
        unmount_with_retries(bpffs);
        assert_nothing_is_mounted_at(&one.join("bpffs"));
        assert_nothing_is_mounted_at(&other.join("bpffs"));
        Ok(())
    })
}

#[common::test(ROOT)]
fn the_descriptor_refers_to_the_mount() -> Outcome {
    with_mount_point(|path| {
        let detached = detached_bpffs();
        let other = detached.as_fd().try_clone_to_owned()?;
        let fd = OwnedFd::from(detached);
        assert!(FileSystem::of(&other)?.is_bpffs());
        let dev = File::from(fd).metadata()?.dev();
        let bpffs = detached_bpffs().attach(path)?;
        assert_ne!(bpffs.dev(), dev);
        let fd = OwnedFd::from(bpffs);
        assert!(FileSystem::of(fd)?.is_bpffs());
        assert!(
            mount_at(path).is_bpffs(),
            "the mount stays after the descriptor is closed"
        );
        Ok(())
    })
}

#[common::test(ROOT)]
fn attach_covers_an_older_bpffs() -> Outcome {
    with_mount_point(|path| {
        let below = detached_bpffs().attach(path)?;
        let pinned = hash().pin(path.join("map"))?;
        let above = detached_bpffs().attach(path)?;
        assert!(Map::open(path.join("map")).is_err());
        let [first, second] = &mounts_at(path)[..] else {
            return Err("two mounts".into());
        };
        assert_eq!((first.dev, second.dev), (below.dev(), above.dev()));
        assert_eq!(second.parent_id, first.mount_id);
        unmount_with_retries(above);
        below.still_here()?;
        pinned.unpin()?;
        Ok(())
    })
}
