//! Paths that would bypass a mount on them, and paths relative to a working directory.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{chroot, symlink};
use std::path::{Path, PathBuf};

use bpf_pin::bpffs::{FileSystem, MountOptions};
use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Bpffs, Error};
use common::*;
use rustix::mount::{MountFlags, mount};
use rustix::process::chdir;

use crate::mount::*;

fn options() -> MountOptions {
    MountOptions::new().mode(0o700)
}

/// Asserts that each way to mount fails with `PathBypassesMount`, and that nothing is mounted.
#[track_caller]
fn assert_bypasses_mount(path: &Path) {
    let before = Bpffs::mounts().unwrap();
    let assert_fails_and_unmounts = |error: Error, operation| {
        let cause = Some(Cause::PathBypassesMount);
        assert_fails_at(&error, operation, path, None, cause);
        assert_eq!(Bpffs::mounts().unwrap(), before);
    };
    let mut each = vec![options()];
    // Before Linux 5.17 the ignored source would be reported first.
    if kernel(5, 17).unmet().is_none() {
        each.push(options().source("mine"));
    }
    let mounting = || {
        for options in &each {
            assert_fails_and_unmounts(options.mount(path).unwrap_err(), Operation::MountBpffs);
            assert_fails_and_unmounts(
                Bpffs::ensure(path, options).unwrap_err(),
                Operation::MountBpffs,
            );
        }
    };
    mounting();
    with_seccomp_errno(libc::SYS_fsopen, None, libc::ENOSYS as u32, mounting);
    // Without statx(2) the descriptors alone are compared, as before Linux 5.8.
    with_seccomp_errno(libc::SYS_statx, None, libc::ENOSYS as u32, mounting);
    let detached = options().detached().unwrap();
    let failed = detached.attach(path).unwrap_err();
    assert_fails_and_unmounts(failed.into(), Operation::AttachBpffs);
}

#[common::test(ROOT)]
fn a_path_that_passes_through_the_directory_is_rejected() -> Outcome {
    with_mount_point(|path| {
        fs::create_dir_all(path.join("d/sub/further"))?;
        symlink(".", path.join("d/self"))?;
        symlink("sub/../self", path.join("d/far"))?;
        for path_through in [
            "d/sub/..",
            "d/sub/further/../..",
            "d/self",
            "d/self/",
            "d/far",
        ] {
            assert_bypasses_mount(&path.join(path_through));
            assert!(path.join("d/sub").is_dir(), "{path_through}");
        }
        // A path from inside the directory.
        chdir(path.join("d/sub"))?;
        assert_bypasses_mount(Path::new(".."));
        chdir("/")?;
        // Paths that end at the directory are accepted.
        symlink("d", path.join("link"))?;
        for there in ["d", "d/", "d/.", "link", "link/", "link/../d", "d/../d"] {
            let bpffs = options().mount(path.join(there))?;
            bpffs.still_here()?;
            assert_eq!(mount_at(&path.join("d")).dev, bpffs.dev());
            drop(bpffs);
            unmount_with_retries(Bpffs::at(path.join("d"))?);
        }
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_path_that_starts_at_the_directory_is_rejected() -> Outcome {
    with_mount_point(|path| {
        let place = path.join("d");
        fs::create_dir(&place)?;
        chdir(&place)?;
        assert_bypasses_mount(Path::new("/proc/thread-self/cwd"));
        chdir("/")?;
        let directory = fs::File::open(&place)?;
        let link = format!("/proc/thread-self/fd/{}", directory.as_raw_fd());
        assert_bypasses_mount(Path::new(&link));
        assert_nothing_is_mounted_at(&place);
        Ok(())
    })
}

/// After chroot(2) to a directory that is not a mount point, "/" stays below a mount on that directory.
#[common::test(ROOT)]
fn the_root_of_a_chroot_is_rejected() -> Outcome {
    with_mount_point(|path| {
        for name in ["proc", "b"] {
            fs::create_dir(path.join(name))?;
        }
        mount("proc", path.join("proc"), "proc", MountFlags::empty(), None)?;
        // chroot(2) affects only this thread, because it has its own mount namespace.
        chroot(path)?;
        chdir("/")?;
        for root in ["/", "."] {
            assert_bypasses_mount(Path::new(root));
        }
        // A path that comes from below enters the mount.
        for root in ["/..", "/b/.."] {
            let ensured = Bpffs::ensure(root, &options())?;
            assert!(ensured.is_new());
            let bpffs = ensured.into_bpffs();
            bpffs.still_here()?;
            unmount_with_retries(bpffs);
        }
        assert!(Bpffs::ensure("/b", &options())?.is_new());
        assert_is_at(&Bpffs::at("/b")?, Path::new("/b"));
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_path_may_pass_through_the_new_bpffs_itself() -> Outcome {
    with_mount_point(|path| {
        fs::create_dir_all(path.join("d/sub"))?;
        symlink(".", path.join("d/self"))?;
        let detached = options().detached()?;
        for name in ["sub", "self"] {
            fs::create_dir(detached.path().join(name))?;
        }
        // The path leads to a directory in the new bpffs, not to its root.
        let failed = detached.attach(path.join("d/self")).unwrap_err();
        assert_eq!(failed.cause(), Some(&Cause::PathBypassesMount));
        drop(failed);
        assert_nothing_is_mounted_at(&path.join("d"));

        let detached = options().detached()?;
        fs::create_dir(detached.path().join("sub"))?;
        let bpffs = detached.attach(path.join("d/sub/.."))?;
        bpffs.still_here()?;
        assert_eq!(mount_at(&path.join("d")).dev, bpffs.dev());
        Ok(())
    })
}

/// Without /proc a failed mount could not be removed again.
#[common::test(ROOT)]
fn symbolic_links_are_rejected_without_proc() -> Outcome {
    with_mount_point(|path| {
        fs::create_dir_all(path.join("d/sub"))?;
        symlink(".", path.join("d/self"))?;
        symlink("d", path.join("link"))?;
        mount("tmpfs", "/proc", "tmpfs", MountFlags::empty(), None)?;
        for assert_fails_and_unmounts in ["d/sub/..", "d/self", "link"] {
            let path = path.join(assert_fails_and_unmounts);
            let error = options().mount(&path).unwrap_err();
            let (mounting, cause) = (
                Operation::MountBpffs,
                Some(Cause::NoProc {
                    needed_for: "the operation",
                }),
            );
            assert_fails_at(&error, mounting, &path, None, cause);
        }
        assert!(!FileSystem::at(path.join("d"))?.is_bpffs());
        let bpffs = options().mount(path.join("d"))?;
        assert_eq!(Bpffs::at(path.join("d"))?.dev(), bpffs.dev());
        Ok(())
    })
}

/// A relative path starts at the working directory, even if its absolute path now leads elsewhere.
#[common::test(ROOT)]
fn a_relative_path_works_in_a_covered_working_directory() -> Outcome {
    with_mount_point(|path| {
        let (within, z) = (path.join("x/y"), path.join("x/y/z"));
        fs::create_dir_all(&z)?;
        chdir(&within)?;
        mount("tmpfs", path.join("x"), "tmpfs", MountFlags::empty(), None)?;
        fs::create_dir_all(&z)?;
        let bpffs = new(Bpffs::ensure("z", &options())?);
        let same = |bpffs: Bpffs, new: &Bpffs| {
            assert_eq!((bpffs.path(), bpffs.dev()), (Path::new("z"), new.dev()));
            bpffs.still_here()
        };
        same(Bpffs::at("z")?, &bpffs)?;
        let found = existing(Bpffs::ensure("z", &options())?);
        same(found, &bpffs)?;
        assert!(!FileSystem::at(&z)?.is_bpffs());
        unmount_with_retries(bpffs);

        let bpffs = options().mount("z")?;
        same(Bpffs::at("z")?, &bpffs)?;
        unmount_with_retries(bpffs);
        let bpffs = options().detached()?.attach("z")?;
        same(Bpffs::at("z")?, &bpffs)?;
        unmount_with_retries(bpffs);
        assert!(!FileSystem::at(&z)?.is_bpffs());
        // No path from the root leads to a mount on it.
        assert_bypasses_mount(Path::new("."));
        chdir("/")?;
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_relative_path_works_in_a_removed_working_directory() -> Outcome {
    with_mount_point(|path| {
        let parent = path.join("parent");
        for name in ["gone", "z"] {
            fs::create_dir_all(parent.join(name))?;
        }
        chdir(parent.join("gone"))?;
        fs::remove_dir(parent.join("gone"))?;
        for (given, place) in [("..", parent.clone()), ("../z", parent.join("z"))] {
            let ensured = Bpffs::ensure(given, &options())?;
            assert!(ensured.is_new());
            // An absolute path leads to the same place.
            assert_is_at(&ensured.into_bpffs(), &place);
            unmount_with_retries(Bpffs::at(&place)?);
        }
        let gone = PathBuf::from("z");
        let error = Bpffs::ensure(&gone, &options()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
        // A removed directory cannot be mounted on.
        let error = Bpffs::ensure(".", &options()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
        chdir("/")?;
        Ok(())
    })
}
