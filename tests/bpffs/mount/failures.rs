//! Failing mounts give the reason and leave nothing behind.

use std::fs;
use std::path::Path;
use std::thread;

use bpf_pin::Bpffs;
use bpf_pin::bpffs::MountOptions;
use bpf_pin::error::{Cause, Operation};
use bpf_pin::probe::Capability;
use common::*;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, unmount,
};
use rustix::thread::{CapabilitySet, UnshareFlags, unshare_unsafe};

use crate::mount::child;
use crate::mount::*;

const USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];

/// The capability, and a limit of mounts that the test can reach.
const FULL: &[Need] = &[cap::SYS_ADMIN, Need::MountMax(200_000)];

fn options() -> MountOptions {
    MountOptions::new().mode(0o700)
}

/// Asserts that `mount` and `ensure` fail with the same error, and that nothing is mounted.
#[track_caller]
fn assert_mount_fails(path: &Path, errno: Option<i32>, cause: Option<Cause>) {
    let before = Bpffs::mounts().unwrap();
    let error = options().mount(path).expect_err("no bpffs");
    let operation = Operation::MountBpffs;
    assert_fails_at(&error, operation, path, errno, cause.clone());
    let error = Bpffs::ensure(path, &options()).expect_err("no bpffs");
    assert_fails_at(&error, operation, path, errno, cause);
    assert_eq!(Bpffs::mounts().unwrap(), before);
}

#[common::test(ROOT)]
fn an_unusable_path_is_named() -> Outcome {
    with_mount_point(|path| {
        let gone = path.join("gone");
        let cause = Cause::Missing { path: gone.clone() };
        assert_mount_fails(&gone, Some(libc::ENOENT), Some(cause.clone()));
        assert_mount_fails(&gone.join("further"), Some(libc::ENOENT), Some(cause));

        let file = path.join("file");
        fs::write(&file, "")?;
        let cause = Cause::NotADirectory { path: file.clone() };
        assert_mount_fails(&file, Some(libc::ENOTDIR), Some(cause.clone()));
        assert_mount_fails(&file.join("further"), Some(libc::ENOTDIR), Some(cause));

        let nul = path.join("a\0b");
        let position = path.as_os_str().len() + 2;
        let because = format!("the path contains a NUL byte at offset {position}");
        assert_mount_fails(
            &nul,
            None,
            Some(Cause::InvalidPath {
                problem: because.clone().into(),
            }),
        );

        let enoent = Some(libc::ENOENT);
        assert_mount_fails(
            Path::new(""),
            enoent,
            Some(Cause::InvalidPath {
                problem: "the path is empty".into(),
            }),
        );

        let long = path.join("n".repeat(256));
        let cause = Cause::TooLong {
            what: "name",
            length: 256,
            limit: 255,
        };
        assert_mount_fails(&long, Some(libc::ENAMETOOLONG), Some(cause));

        let (one, other) = (path.join("one"), path.join("other"));
        std::os::unix::fs::symlink(&one, &other)?;
        std::os::unix::fs::symlink(&other, &one)?;
        assert_mount_fails(&one, Some(libc::ELOOP), None);
        let mut names: Vec<_> = fs::read_dir(path)?
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["file", "one", "other"]);
        Ok(())
    })
}

fn lacks_sys_admin() -> Cause {
    Cause::MissingCapability {
        capability: Capability::SysAdmin,
        needed_for: "mounting",
    }
}

#[common::test(USER)]
fn mount_needs_cap_sys_admin() -> Outcome {
    with_mount_point(|path| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        let all = rustix::thread::capabilities(None)?.permitted;
        let all_others = all - CapabilitySet::SYS_ADMIN;
        for capabilities in [CapabilitySet::empty(), CapabilitySet::BPF, all_others] {
            as_user(capabilities, || {
                let cause = lacks_sys_admin();
                let eperm = Some(libc::EPERM);
                assert_mount_fails(path, eperm, Some(cause.clone()));
                let error = options().detached().expect_err("no bpffs");
                let (make, nowhere) = (Operation::CreateBpffs, Path::new(""));
                assert_fails_at(&error, make, nowhere, eperm, Some(cause.clone()));
                // mount(2) gives the same error.
                with_seccomp_errno(libc::SYS_fsopen, None, libc::ENOSYS as u32, || {
                    assert_mount_fails(path, eperm, Some(cause));
                });
            });
        }
        Ok(())
    })
}

#[common::test(USER)]
fn unmount_needs_cap_sys_admin() -> Outcome {
    with_mount_point(|path| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        let bpffs = MountOptions::new().mount(path)?;
        as_user(CapabilitySet::empty(), || {
            let cause = lacks_sys_admin();
            let failed = Bpffs::at(path).unwrap().unmount().expect_err("not allowed");
            let (unmount, eperm) = (Operation::UnmountBpffs, Some(libc::EPERM));
            assert_fails_at(failed.error(), unmount, path, eperm, Some(cause));
            failed.into_object().still_here().unwrap();
            // An existing bpffs is found without the capability.
            assert!(!Bpffs::ensure(path, &MountOptions::new()).unwrap().is_new());
        });
        bpffs.still_here()?;
        Ok(())
    })
}

/// A common cause of "Operation not permitted" for root in a container.
#[common::test(ROOT)]
fn a_user_namespace_cannot_create_a_bpffs() -> Outcome {
    let dir = directory();
    child::run(
        "user_namespace",
        dir.path().to_str().ok_or("a path that is text")?,
    )?;
    assert_nothing_is_mounted_at(dir.path());
    Ok(())
}

pub fn in_a_user_namespace() {
    child::become_root_of_a_user_namespace(UnshareFlags::NEWNS);
    let path = child::argument();
    let path = Path::new(&path);
    // This user namespace may mount in its mount namespace.
    mount("tmpfs", path, "tmpfs", MountFlags::empty(), None).expect("a tmpfs");
    let path = &path.join("bpffs");
    fs::create_dir(path).expect("a directory");

    let (eperm, cause) = (Some(libc::EPERM), Some(Cause::NeedsDelegation));
    assert_mount_fails(path, eperm, cause.clone());
    let error = options().detached().expect_err("no bpffs");
    let (make, nowhere) = (Operation::CreateBpffs, Path::new(""));
    assert_fails_at(&error, make, nowhere, eperm, cause.clone());
    with_seccomp_errno(libc::SYS_fsopen, None, libc::ENOSYS as u32, || {
        // The filter may be the cause, so none is named.
        assert_mount_fails(path, eperm, None);
    });
    // The filter returns the kernel's errno here.
    with_seccomp_errno(libc::SYS_fsconfig, None, libc::EPERM as u32, || {
        assert_mount_fails(path, eperm, None);
    });
}

#[common::test(ROOT)]
fn mounting_in_a_foreign_mount_namespace_fails() -> Outcome {
    let dir = directory();
    child::run(
        "old_mount_namespace",
        dir.path().to_str().ok_or("a path that is text")?,
    )?;
    assert_nothing_is_mounted_at(dir.path());
    Ok(())
}

pub fn in_foreign_mounts() {
    child::become_root_of_a_user_namespace(UnshareFlags::empty());
    let cause = Some(Cause::ForeignUserNamespace {
        what: "mount namespace",
    });
    assert_mount_fails(Path::new(&child::argument()), Some(libc::EPERM), cause);
}

/// Reaches the machine's real limit without changing it: a tree of mounts is bound into itself repeatedly. Most of
/// these mounts are outside the root directory of the thread that calls the library.
#[common::test(FULL)]
fn a_full_mount_table_is_reported_with_its_limit() -> Outcome {
    let max: u64 = fs::read_to_string("/proc/sys/fs/mount-max")?
        .trim()
        .parse()?;
    with_mount_point(|path| {
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), None)?;
        mount_change(path, MountPropagationFlags::PRIVATE)?;
        let (root, last) = (path.join("root"), path.join("last"));
        for name in ["root/place", "root/proc", "root/spare", "last"] {
            fs::create_dir_all(path.join(name))?;
        }
        mount_bind(&root, &root)?;
        mount_bind("/proc", root.join("proc"))?;
        mount(
            "tmpfs",
            root.join("spare"),
            "tmpfs",
            MountFlags::empty(),
            None,
        )?;
        // Each tree doubles until the limit is reached. The last mounts are added one by one.
        for tree in ["large", "medium", "small"].map(|name| path.join(name)) {
            fs::create_dir(&tree)?;
            mount("tmpfs", &tree, "tmpfs", MountFlags::empty(), None)?;
            for number in 0.. {
                let branch = tree.join(number.to_string());
                fs::create_dir(&branch)?;
                if mount_bind_recursive(&tree, &branch).is_err() {
                    break;
                }
            }
        }
        let mut count = 0;
        while mount("tmpfs", &last, "tmpfs", MountFlags::empty(), None).is_ok() {
            count += 1;
            assert!(count <= max);
        }
        let panicked = thread::scope(|scope| scope.spawn(|| in_a_full_table(&root, max)).join());
        panicked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(())
    })
}

/// Runs on a thread of its own, because it changes the root directory.
fn in_a_full_table(root: &Path, max: u64) {
    // SAFETY: no NEWUSER or FILES: only this thread's root directory is separated.
    unsafe { unshare_unsafe(UnshareFlags::FS) }.expect("a root of its own");
    rustix::process::chroot(root).expect("a small root");
    std::env::set_current_dir("/").expect("a small root");
    let cause = || Some(Cause::MountTableFull { most: max });
    let (place, enospc) = (Path::new("/place"), Some(libc::ENOSPC));
    assert_mount_fails(place, enospc, cause());
    assert_nothing_is_mounted_at(place);
    // A detached mount does not count towards the limit, and is not lost.
    let detached = options().detached().expect("a bpffs");
    hash().pin(detached.path().join("map")).expect("a pin");
    let failed = detached.attach(place).expect_err("no room");
    let attach = Operation::AttachBpffs;
    assert_fails_at(failed.error(), attach, place, enospc, cause());
    let detached = failed.into_object();
    unmount("/spare", UnmountFlags::DETACH).expect("one mount less");
    let bpffs = detached.attach(place).expect("room");
    assert_is_at(&bpffs, place);
    assert!(place.join("map").exists());
}

/// Without mountinfo no cause is named. Calls that do not need mountinfo succeed.
#[common::test(ROOT)]
fn mounting_without_proc_works_or_reports_the_missing_proc() -> Outcome {
    with_mount_point(|path| {
        let (place, proc) = (path.join("place"), Path::new("/proc"));
        fs::create_dir(&place)?;
        // Cover /proc with another file system.
        mount("tmpfs", proc, "tmpfs", MountFlags::empty(), None)?;
        let bpffs = options().mount(&place)?;
        bpffs.still_here()?;
        assert_eq!(Bpffs::at(&place)?.dev(), bpffs.dev());
        let cause = || {
            Some(Cause::NoProc {
                needed_for: "the operation",
            })
        };
        let (read, mounting) = (Operation::ReadMounts, Operation::MountBpffs);
        let error = Bpffs::mounts().expect_err("no /proc");
        assert_fails_at(&error, read, Path::new(""), None, cause());
        let error = bpffs.mount().expect_err("no /proc");
        assert_fails_at(&error, read, &place, None, cause());
        let error = Bpffs::ensure(&place, &options()).expect_err("no /proc");
        assert_fails_at(&error, mounting, &place, None, cause());
        let error = Bpffs::inspect(&place).expect_err("no /proc");
        assert_fails_at(&error, Operation::InspectBpffs, &place, None, cause());
        // Nothing is mounted if its options could not be read back.
        let other = path.join("other");
        fs::create_dir(&other)?;
        let error = options()
            .source("mine")
            .mount(&other)
            .expect_err("no /proc");
        assert_fails_at(&error, mounting, &other, None, cause());
        unmount(proc, UnmountFlags::empty())?;
        assert_nothing_is_mounted_at(&other);
        assert_is_at(&bpffs, &place);
        Ok(())
    })
}
