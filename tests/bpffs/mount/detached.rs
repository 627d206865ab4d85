//! A bpffs that is mounted nowhere, and put in its place later.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};

use bpf_pin::bpffs::{Detached, FileSystem, MountOptions};
use bpf_pin::error::Operation;
use bpf_pin::{Bpffs, Map};
use common::*;
use rustix::mount::{MountPropagationFlags, mount_change};

use crate::mount::*;

fn make() -> Detached {
    MountOptions::new().mode(0o700).detached().expect("a bpffs")
}

#[common::test(ROOT)]
fn what_was_pinned_before_is_there() -> Outcome {
    in_a_directory(|path| {
        let detached = make();
        let pinned = hash().pin(detached.path().join("map"))?;
        fs::create_dir(detached.path().join("dir"))?;
        assert_nothing_is_mounted_at(path);
        assert!(FileSystem::of(&detached)?.is_bpffs());

        let bpffs = detached.attach(path)?;
        assert_is_at(&bpffs, path);
        assert_eq!(Map::open(path.join("map"))?.id()?, pinned.id()?);
        assert!(path.join("dir").is_dir());
        // The descriptor is the same, so the old path leads there still.
        pinned.unpin()?;
        assert!(Map::open(path.join("map")).is_err());
        unmount_soon(bpffs);
        assert_nothing_is_mounted_at(path);
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_detached_one_is_gone_when_dropped() -> Outcome {
    let detached = make();
    let map = hash();
    let id = map.id()?;
    let pinned = map.pin(detached.path().join("map"))?;
    let path = detached.path();
    drop(detached);
    assert!(Map::open(path.join("map")).is_err());
    drop(pinned);
    // The kernel frees it by and by.
    for _ in 0..1000 {
        if Map::from_id(id).is_err() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Err("the map outlived its only pin".into())
}

#[common::test(ROOT)]
fn attached_by_a_link_or_a_relative_path() -> Outcome {
    in_a_directory(|path| {
        let (place, link) = (path.join("place"), path.join("link"));
        fs::create_dir(&place)?;
        symlink(&place, &link)?;
        let bpffs = make().attach(&link)?;
        assert_eq!(bpffs.path(), link);
        bpffs.still_here()?;
        assert_eq!(mount_at(&place).dev, bpffs.dev());
        assert!(fs::symlink_metadata(&link)?.is_symlink());
        // umount2(2) is told not to follow it.
        let failed = bpffs.unmount().expect_err("a link");
        assert_eq!(failed.error().raw_os_error(), Some(libc::EINVAL));
        failed.into_object().still_here()?;

        let there = Bpffs::at(place.join("."))?;
        assert_eq!(there.dev(), mount_at(&place).dev);
        unmount_soon(there);
        assert_nothing_is_mounted_at(&place);
        Ok(())
    })
}

#[common::test(ROOT)]
fn an_attachment_that_fails_gives_it_back() -> Outcome {
    in_a_directory(|path| {
        let detached = make();
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

/// What is attached below a shared mount appears in its peers: other mounts of the one instance.
#[common::test(ROOT)]
fn attached_where_mounts_are_shared() -> Outcome {
    in_a_directory(|path| {
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
        unmount_soon(bpffs);
        assert_nothing_is_mounted_at(&one.join("bpffs"));
        assert_nothing_is_mounted_at(&other.join("bpffs"));
        Ok(())
    })
}

#[common::test(ROOT)]
fn its_descriptor_is_a_mount() -> Outcome {
    in_a_directory(|path| {
        let detached = make();
        let other = detached.as_fd().try_clone_to_owned()?;
        let fd = OwnedFd::from(detached);
        assert!(FileSystem::of(&other)?.is_bpffs());
        let dev = File::from(fd).metadata()?.dev();
        let bpffs = make().attach(path)?;
        assert_ne!(bpffs.dev(), dev);
        let fd = OwnedFd::from(bpffs);
        assert!(FileSystem::of(fd)?.is_bpffs());
        assert!(
            mount_at(path).is_bpffs(),
            "it stays when the descriptor goes"
        );
        Ok(())
    })
}

#[common::test(ROOT)]
fn one_is_attached_over_another() -> Outcome {
    in_a_directory(|path| {
        let below = make().attach(path)?;
        let pinned = hash().pin(path.join("map"))?;
        let above = make().attach(path)?;
        assert!(Map::open(path.join("map")).is_err());
        let [first, second] = &mounts_at(path)[..] else {
            return Err("two mounts".into());
        };
        assert_eq!((first.dev, second.dev), (below.dev(), above.dev()));
        assert_eq!(second.parent_id, first.mount_id);
        unmount_soon(above);
        below.still_here()?;
        pinned.unpin()?;
        Ok(())
    })
}
