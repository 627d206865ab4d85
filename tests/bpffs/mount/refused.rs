//! What cannot be mounted, with the reason, and nothing is left.

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

/// And a table that can be filled.
const FULL: &[Need] = &[cap::SYS_ADMIN, Need::MountMax(200_000)];

fn options() -> MountOptions {
    MountOptions::new().mode(0o700)
}

/// mount and ensure fail in the same words, and nothing is mounted.
#[track_caller]
fn refuses(path: &Path, errno: Option<i32>, cause: Option<Cause>) {
    let before = Bpffs::mounts().unwrap();
    let error = options().mount(path).expect_err("no bpffs");
    let operation = Operation::MountBpffs;
    assert_fails_at(&error, operation, path, errno, cause.clone());
    let error = Bpffs::ensure(path, &options()).expect_err("no bpffs");
    assert_fails_at(&error, operation, path, errno, cause);
    assert_eq!(Bpffs::mounts().unwrap(), before);
}

#[common::test(ROOT)]
fn paths_that_cannot_be_mounted_on() -> Outcome {
    in_a_directory(|path| {
        let gone = path.join("gone");
        let cause = Cause::Missing { path: gone.clone() };
        refuses(&gone, Some(libc::ENOENT), Some(cause.clone()));
        refuses(&gone.join("further"), Some(libc::ENOENT), Some(cause));

        let file = path.join("file");
        fs::write(&file, "")?;
        let cause = Cause::NotADirectory { path: file.clone() };
        refuses(&file, Some(libc::ENOTDIR), Some(cause.clone()));
        refuses(&file.join("further"), Some(libc::ENOTDIR), Some(cause));

        let nul = path.join("a\0b");
        let position = path.as_os_str().len() + 2;
        let because = format!("the path contains a NUL byte at offset {position}");
        refuses(
            &nul,
            None,
            Some(Cause::InvalidPath {
                problem: because.clone().into(),
            }),
        );

        let enoent = Some(libc::ENOENT);
        refuses(
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
        refuses(&long, Some(libc::ENAMETOOLONG), Some(cause));

        let (one, other) = (path.join("one"), path.join("other"));
        std::os::unix::fs::symlink(&one, &other)?;
        std::os::unix::fs::symlink(&other, &one)?;
        refuses(&one, Some(libc::ELOOP), None);
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
fn without_the_capability_to_mount() -> Outcome {
    in_a_directory(|path| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        let all = rustix::thread::capabilities(None)?.permitted;
        let all_others = all - CapabilitySet::SYS_ADMIN;
        for capabilities in [CapabilitySet::empty(), CapabilitySet::BPF, all_others] {
            as_user(capabilities, || {
                let cause = lacks_sys_admin();
                let eperm = Some(libc::EPERM);
                refuses(path, eperm, Some(cause.clone()));
                let error = options().detached().expect_err("no bpffs");
                let (make, nowhere) = (Operation::CreateBpffs, Path::new(""));
                assert_fails_at(&error, make, nowhere, eperm, Some(cause.clone()));
                // By mount(2), too.
                with_seccomp_errno(libc::SYS_fsopen, None, libc::ENOSYS as u32, || {
                    refuses(path, eperm, Some(cause));
                });
            });
        }
        Ok(())
    })
}

#[common::test(USER)]
fn unmounting_without_the_capability() -> Outcome {
    in_a_directory(|path| {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        let bpffs = MountOptions::new().mount(path)?;
        as_user(CapabilitySet::empty(), || {
            let cause = lacks_sys_admin();
            let failed = Bpffs::at(path).unwrap().unmount().expect_err("not allowed");
            let (unmount, eperm) = (Operation::UnmountBpffs, Some(libc::EPERM));
            assert_fails_at(failed.error(), unmount, path, eperm, Some(cause));
            failed.into_object().still_here().unwrap();
            // What is there is found all the same.
            assert!(!Bpffs::ensure(path, &MountOptions::new()).unwrap().is_new());
        });
        bpffs.still_here()?;
        Ok(())
    })
}

/// What "Operation not permitted" comes from, where one is root of a container.
#[common::test(ROOT)]
fn a_user_namespace_creates_no_bpffs() -> Outcome {
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
    // To mount at all is this namespace's right.
    mount("tmpfs", path, "tmpfs", MountFlags::empty(), None).expect("a tmpfs");
    let path = &path.join("bpffs");
    fs::create_dir(path).expect("a directory");

    let (eperm, cause) = (Some(libc::EPERM), Some(Cause::NeedsDelegation));
    refuses(path, eperm, cause.clone());
    let error = options().detached().expect_err("no bpffs");
    let (make, nowhere) = (Operation::CreateBpffs, Path::new(""));
    assert_fails_at(&error, make, nowhere, eperm, cause.clone());
    with_seccomp_errno(libc::SYS_fsopen, None, libc::ENOSYS as u32, || {
        // It may be the filter that refuses.
        refuses(path, eperm, None);
    });
    // As when it really does.
    with_seccomp_errno(libc::SYS_fsconfig, None, libc::EPERM as u32, || {
        refuses(path, eperm, None);
    });
}

#[common::test(ROOT)]
fn a_user_namespace_in_anothers_mounts() -> Outcome {
    let dir = directory();
    child::run(
        "old_mount_namespace",
        dir.path().to_str().ok_or("a path that is text")?,
    )?;
    assert_nothing_is_mounted_at(dir.path());
    Ok(())
}

pub fn in_anothers_mounts() {
    child::become_root_of_a_user_namespace(UnshareFlags::empty());
    let cause = Some(Cause::ForeignUserNamespace {
        what: "mount namespace",
    });
    refuses(Path::new(&child::argument()), Some(libc::EPERM), cause);
}

/// The limit is the machine's, so it is left alone and really reached: by binding a tree of mounts
/// into itself, over and over. The crowd is outside of what the calling thread sees.
#[common::test(FULL)]
fn a_full_table_of_mounts() -> Outcome {
    let most: u64 = fs::read_to_string("/proc/sys/fs/mount-max")?
        .trim()
        .parse()?;
    in_a_directory(|path| {
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
        // Each tree grows until there is no room for twice as much, the last by one at a time.
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
            assert!(count <= most);
        }
        let panicked = thread::scope(|scope| scope.spawn(|| in_a_full_table(&root, most)).join());
        panicked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(())
    })
}

/// On a thread of its own, whose root this becomes.
fn in_a_full_table(root: &Path, most: u64) {
    // SAFETY: no NEWUSER or FILES: only this thread's root parts ways.
    unsafe { unshare_unsafe(UnshareFlags::FS) }.expect("a root of its own");
    rustix::process::chroot(root).expect("a small root");
    std::env::set_current_dir("/").expect("a small root");
    let cause = || Some(Cause::MountTableFull { most });
    let (place, enospc) = (Path::new("/place"), Some(libc::ENOSPC));
    refuses(place, enospc, cause());
    assert_nothing_is_mounted_at(place);
    // What is mounted nowhere counts for nothing, and is not lost.
    let detached = options().detached().expect("a bpffs");
    hash().pin(detached.path().join("map")).expect("a pin");
    let failed = detached.attach(place).expect_err("no room");
    let attach = Operation::AttachBpffs;
    assert_fails_at(failed.error(), attach, place, enospc, cause());
    let detached = failed.into_object();
    unmount("/spare", UnmountFlags::DETACH).expect("a mount less");
    let bpffs = detached.attach(place).expect("room");
    assert_is_at(&bpffs, place);
    assert!(place.join("map").exists());
}

/// Without mountinfo nothing is claimed; what needs none of it is done.
#[common::test(ROOT)]
fn without_proc() -> Outcome {
    in_a_directory(|path| {
        let (place, proc) = (path.join("place"), Path::new("/proc"));
        fs::create_dir(&place)?;
        // Something that is no /proc.
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
        // What could not be read back is not mounted.
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
