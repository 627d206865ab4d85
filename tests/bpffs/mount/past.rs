//! Paths that would lead past what is mounted by them, and paths from a working directory.

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

/// In each way to mount, and nothing is mounted.
#[track_caller]
fn leads_past(path: &Path) {
    let before = Bpffs::mounts().unwrap();
    let refused = |error: Error, operation| {
        let cause = Some(Cause::PathBypassesMount);
        assert_fails_at(&error, operation, path, None, cause);
        assert_eq!(Bpffs::mounts().unwrap(), before);
    };
    let mut each = vec![options()];
    // Before, mountinfo does not show it, and that is told first.
    if kernel(5, 17).unmet().is_none() {
        each.push(options().source("mine"));
    }
    let mounting = || {
        for options in &each {
            refused(options.mount(path).unwrap_err(), Operation::MountBpffs);
            refused(
                Bpffs::ensure(path, options).unwrap_err(),
                Operation::MountBpffs,
            );
        }
    };
    mounting();
    with_seccomp_errno(libc::SYS_fsopen, None, libc::ENOSYS as u32, mounting);
    // By descriptors alone, as before Linux 5.8.
    with_seccomp_errno(libc::SYS_statx, None, libc::ENOSYS as u32, mounting);
    let detached = options().detached().unwrap();
    let failed = detached.attach(path).unwrap_err();
    refused(failed.into(), Operation::AttachBpffs);
}

#[common::test(ROOT)]
fn a_path_that_goes_on_from_the_directory() -> Outcome {
    in_a_directory(|path| {
        fs::create_dir_all(path.join("d/sub/further"))?;
        symlink(".", path.join("d/self"))?;
        symlink("sub/../self", path.join("d/far"))?;
        for past in [
            "d/sub/..",
            "d/sub/further/../..",
            "d/self",
            "d/self/",
            "d/far",
        ] {
            leads_past(&path.join(past));
            assert!(path.join("d/sub").is_dir(), "{past}");
        }
        // From within, too.
        chdir(path.join("d/sub"))?;
        leads_past(Path::new(".."));
        chdir("/")?;
        // And what leads there.
        symlink("d", path.join("link"))?;
        for there in ["d", "d/", "d/.", "link", "link/", "link/../d", "d/../d"] {
            let bpffs = options().mount(path.join(there))?;
            bpffs.still_here()?;
            assert_eq!(mount_at(&path.join("d")).dev, bpffs.dev());
            drop(bpffs);
            unmount_soon(Bpffs::at(path.join("d"))?);
        }
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_path_that_begins_in_the_directory() -> Outcome {
    in_a_directory(|path| {
        let place = path.join("d");
        fs::create_dir(&place)?;
        chdir(&place)?;
        leads_past(Path::new("/proc/thread-self/cwd"));
        chdir("/")?;
        let directory = fs::File::open(&place)?;
        let link = format!("/proc/thread-self/fd/{}", directory.as_raw_fd());
        leads_past(Path::new(&link));
        assert_nothing_is_mounted_at(&place);
        Ok(())
    })
}

/// A directory that is no mount point, and what is mounted on it nobody sees who has it for a root.
#[common::test(ROOT)]
fn a_root_that_was_changed() -> Outcome {
    in_a_directory(|path| {
        for name in ["proc", "b"] {
            fs::create_dir(path.join(name))?;
        }
        mount("proc", path.join("proc"), "proc", MountFlags::empty(), None)?;
        // Of this thread alone, as its mounts are.
        chroot(path)?;
        chdir("/")?;
        for root in ["/", "."] {
            leads_past(Path::new(root));
        }
        // What comes from below enters what is mounted on it.
        for root in ["/..", "/b/.."] {
            let ensured = Bpffs::ensure(root, &options())?;
            assert!(ensured.is_new());
            let bpffs = ensured.into_bpffs();
            bpffs.still_here()?;
            unmount_soon(bpffs);
        }
        assert!(Bpffs::ensure("/b", &options())?.is_new());
        assert_is_at(&Bpffs::at("/b")?, Path::new("/b"));
        Ok(())
    })
}

#[common::test(ROOT)]
fn what_is_in_it_may_lead_there() -> Outcome {
    in_a_directory(|path| {
        fs::create_dir_all(path.join("d/sub"))?;
        symlink(".", path.join("d/self"))?;
        let detached = options().detached()?;
        for name in ["sub", "self"] {
            fs::create_dir(detached.path().join(name))?;
        }
        // To a directory in it, and not to its root.
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

/// Nothing could be taken away again.
#[common::test(ROOT)]
fn without_proc_no_link_is_mounted_by() -> Outcome {
    in_a_directory(|path| {
        fs::create_dir_all(path.join("d/sub"))?;
        symlink(".", path.join("d/self"))?;
        symlink("d", path.join("link"))?;
        mount("tmpfs", "/proc", "tmpfs", MountFlags::empty(), None)?;
        for refused in ["d/sub/..", "d/self", "link"] {
            let path = path.join(refused);
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

/// What a relative path leads to is meant, not what is there by now from the root.
#[common::test(ROOT)]
fn a_working_directory_that_is_covered() -> Outcome {
    in_a_directory(|path| {
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
        unmount_soon(bpffs);

        let bpffs = options().mount("z")?;
        same(Bpffs::at("z")?, &bpffs)?;
        unmount_soon(bpffs);
        let bpffs = options().detached()?.attach("z")?;
        same(Bpffs::at("z")?, &bpffs)?;
        unmount_soon(bpffs);
        assert!(!FileSystem::at(&z)?.is_bpffs());
        // Nothing leads from the root to what would be mounted on it.
        leads_past(Path::new("."));
        chdir("/")?;
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_working_directory_that_was_removed() -> Outcome {
    in_a_directory(|path| {
        let parent = path.join("parent");
        for name in ["gone", "z"] {
            fs::create_dir_all(parent.join(name))?;
        }
        chdir(parent.join("gone"))?;
        fs::remove_dir(parent.join("gone"))?;
        for (given, place) in [("..", parent.clone()), ("../z", parent.join("z"))] {
            let ensured = Bpffs::ensure(given, &options())?;
            assert!(ensured.is_new());
            // A path that leads there from elsewhere, too.
            assert_is_at(&ensured.into_bpffs(), &place);
            unmount_soon(Bpffs::at(&place)?);
        }
        let gone = PathBuf::from("z");
        let error = Bpffs::ensure(&gone, &options()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
        // Nothing is mounted on what has no name.
        let error = Bpffs::ensure(".", &options()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
        chdir("/")?;
        Ok(())
    })
}
