//! statmount(2) and mountinfo describe a mount in the same way.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use bpf_pin::Bpffs;
use bpf_pin::bpffs::MountOptions;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change,
    mount_remount, unmount,
};

use crate::mount::*;

/// Behind a seccomp filter the library uses only mountinfo.
fn filtered<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    with_seccomp_errno(libc::SYS_reboot, None, libc::EPERM as u32, test)
}

/// Asserts that statmount(2) and mountinfo give the same result.
#[track_caller]
fn assert_same(path: &Path) -> Mount {
    let mount = || Bpffs::inspect(path).expect("a look").mount;
    let (by_statmount, by_mountinfo) = (mount(), filtered(mount));
    assert_eq!(by_statmount, by_mountinfo, "{path:?}");
    by_statmount.expect("a mount that is listed")
}

#[common::test(ROOT)]
fn statmount_agrees_with_mountinfo() -> Outcome {
    with_mount_point(|dir| {
        let place = dir.join("a b\\040\n#\u{fffd}");
        let (part, slave) = (dir.join("part"), dir.join("slave"));
        for path in [&place, &part, &slave] {
            fs::create_dir(path)?;
        }
        let options = MountOptions::new().mode(0o1750);
        drop(options.mount(&place)?);
        fs::create_dir(place.join("d e\\"))?;
        mount_bind(place.join("d e\\"), &part)?;
        for path in [&place, &part, &place.join("d e\\")] {
            let mount = assert_same(path);
            assert!(mount.is_bpffs());
        }
        // Each option of a mount.
        let all = [
            MountFlags::RDONLY,
            MountFlags::NOSUID,
            MountFlags::NODEV,
            MountFlags::NOEXEC,
            MountFlags::NOATIME,
            MountFlags::NODIRATIME,
            MountFlags::RELATIME,
            MountFlags::STRICTATIME,
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME | MountFlags::RDONLY,
        ];
        for flags in all {
            mount_remount(&place, MountFlags::BIND | flags, "")?;
            let mount = assert_same(&place);
            assert_eq!(
                mount.option("ro").is_some(),
                flags.contains(MountFlags::RDONLY)
            );
            mount_remount(&place, MountFlags::BIND, "")?;
        }
        // Each kind of propagation.
        assert_same(&place);
        mount_change(&place, MountPropagationFlags::SHARED)?;
        let group = assert_same(&place).propagation.shared;
        assert!(group.is_some());
        mount_bind(&place, &slave)?;
        mount_change(&slave, MountPropagationFlags::DOWNSTREAM)?;
        assert_eq!(assert_same(&slave).propagation.master, group);
        mount_change(&slave, MountPropagationFlags::SHARED)?;
        assert!(assert_same(&slave).propagation.shared.is_some());
        mount_change(&slave, MountPropagationFlags::UNBINDABLE)?;
        assert!(assert_same(&slave).propagation.unbindable);
        // Options of the file system, including a long one, and an empty source.
        let other = dir.join("other");
        fs::create_dir(&other)?;
        let flags = MountFlags::SYNCHRONOUS | MountFlags::DIRSYNC | MountFlags::LAZYTIME;
        mount("", &other, "tmpfs", flags, Some(c"mode=700,size=1m"))?;
        assert_same(&other);
        unmount(&other, UnmountFlags::empty())?;
        mount("x y", &other, "tmpfs", MountFlags::RDONLY, None)?;
        assert_same(&other);
        // A bind mount of a removed directory, and a path through a symbolic link.
        symlink(&place, dir.join("link"))?;
        assert_eq!(assert_same(&dir.join("link")).mount_point, place);
        fs::remove_dir(place.join("d e\\"))?;
        let gone = assert_same(&part);
        assert!(
            gone.root.to_string_lossy().ends_with("//deleted"),
            "{gone:?}"
        );
        Ok(())
    })
}

#[common::test(ROOT)]
fn statmount_agrees_with_mountinfo_on_this_machine() -> Outcome {
    in_mount_namespace(|| {
        let text = fs::read("/proc/thread-self/mountinfo")?;
        for mount in Mount::parse_all(&text[..])? {
            if fs::metadata(&mount.mount_point).is_ok_and(|file| file.is_dir()) {
                assert_same(&mount.mount_point);
            }
        }
        Ok(())
    })
}

/// `ensure` finds and mounts the same with statmount(2) and with mountinfo.
#[common::test(ROOT)]
fn ensure_works_behind_a_filter() -> Outcome {
    with_mount_point(|dir| {
        let ensure = |path: &Path| Bpffs::ensure(path, &MountOptions::new());
        for name in ["statmount", "mountinfo"] {
            let path = dir.join(name);
            fs::create_dir(&path)?;
            let both = || (ensure(&path).map(|done| done.is_new()), ensure(&path));
            let (is_new, found) = match name {
                "statmount" => both(),
                _ => filtered(both),
            };
            assert!(is_new?);
            let found = existing(found?);
            assert_eq!(found.mount()?, mount_at(&path));
            assert_eq!(filtered(|| found.mount())?, mount_at(&path));
            let unmounted = match name {
                "statmount" => found.unmount(),
                _ => filtered(|| found.unmount()),
            };
            unmounted.map_err(|failed| failed.error().to_string())?;
            assert_nothing_is_mounted_at(&path);
        }
        Ok(())
    })
}
