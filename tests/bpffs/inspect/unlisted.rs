//! `Bpffs::inspect` on mounts that are not in this thread's mountinfo.

use std::env;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;

use bpf_pin::Bpffs;
use bpf_pin::bpffs::{FileSystem, MountOptions, ReadOnly, Verdict};
use bpf_pin::error::Cause;
use common::*;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use rustix::process::chroot;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::inspect::{CHILD, assert_sentence, directory, inspect, mount_tmpfs, with_mount_point};

const ROOT: &[Need] = &[cap::SYS_ADMIN];

#[common::test(ROOT)]
fn works_in_a_chroot_that_is_not_a_mount_point() -> Outcome {
    run("chroot")
}

#[common::test(ROOT)]
fn works_in_a_chroot_inside_a_bpffs() -> Outcome {
    run("chroot into a bpffs")
}

fn run(name: &str) -> Outcome {
    let dir = directory();
    let output = common::command(env::current_exe()?)
        .env(CHILD, name)
        .env("BPF_PIN_TEST_ARGUMENT", dir.path())
        .output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}\n{stderr}", output.status).into());
    }
    Ok(())
}

fn device(dev: u64) -> String {
    format!("device {}:{}", libc::major(dev), libc::minor(dev))
}

#[common::test(ROOT)]
fn a_detached_bpffs_is_reported() -> Outcome {
    let mut options = MountOptions::new();
    for read_only in [false, true] {
        options = options.read_only(read_only);
        let detached = options.detached()?;
        let dev = rustix::fs::fstat(&detached)?.st_dev;
        let mut paths = vec![detached.path()];
        if !read_only {
            fs::create_dir(detached.path().join("tmp"))?;
            // The kernel names this path "/tmp", like the real /tmp.
            paths.push(detached.path().join("tmp"));
        }
        for path in paths {
            let seen = inspect(&path);
            assert_eq!((&seen.verdict, seen.dev), (&Verdict::Unattached, Some(dev)));
            assert!(seen.mount.is_none() && seen.covers.is_empty() && seen.hidden.is_empty());
            assert_eq!(seen.read_only, read_only.then_some(ReadOnly::Either));
            let end = if read_only {
                "; it, or the mount, is read-only"
            } else {
                ""
            };
            let (at, device) = (path.display(), device(dev));
            assert_sentence(
                &seen,
                &format!("{at} is on a bpffs ({device}) that is mounted nowhere{end}"),
            );
            // Nothing can be mounted on a detached mount.
            let error = Bpffs::ensure(&path, &MountOptions::new()).expect_err("nowhere");
            assert_cause_matches!(error, Cause::NotListed { .. });
        }
    }
    Ok(())
}

#[common::test(ROOT)]
fn a_lazily_unmounted_bpffs_is_reported_as_unattached() -> Outcome {
    with_mount_point(|path| {
        let bpffs = MountOptions::new().mount(path)?;
        let inside = path.join("inside");
        fs::create_dir(&inside)?;
        let held = fs::File::open(&inside)?;
        unmount(path, UnmountFlags::DETACH)?;
        let by_fd = format!("/proc/thread-self/fd/{}", held.as_raw_fd());
        let seen = inspect(Path::new(&by_fd));
        assert_eq!(
            (seen.verdict, seen.dev),
            (Verdict::Unattached, Some(bpffs.dev()))
        );
        Ok(())
    })
}

/// Reached through a descriptor from the other namespace, by its path in /proc.
#[common::test(ROOT)]
fn a_bpffs_of_another_mount_namespace_is_reported() -> Outcome {
    with_mount_point(|path| {
        let bpffs = MountOptions::new().mount(path)?;
        let device = device(bpffs.dev());
        fs::create_dir(path.join("inside"))?;
        let (top, inside) = (fs::File::open(path)?, fs::File::open(path.join("inside"))?);
        in_mount_namespace(|| {
            for (file, verdict, what) in [
                (&top, Verdict::Mounted, "a bpffs"),
                (&inside, Verdict::Within, "a directory in a bpffs"),
            ] {
                let by_fd = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
                let seen = inspect(Path::new(&by_fd));
                assert_eq!(seen.verdict, verdict);
                assert!(seen.mount.is_none() && seen.hidden.is_empty(), "{seen:?}");
                assert_sentence(
                    &seen,
                    &format!(
                        "{by_fd} is {what} ({device}) through a mount that is not in this thread's \
                         mountinfo"
                    ),
                );
            }
        });
        Ok(())
    })
}

/// Gives this process its own mount namespace.
fn unshare_mounts() {
    // SAFETY: NEWNS does not separate descriptors, and this is the only thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("mounts of its own");
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).expect("private mounts");
}

/// Makes `root` the root directory of this process, which has one thread.
fn enter_chroot(root: &Path) {
    for name in ["proc", "place", "other", "third"] {
        fs::create_dir(root.join(name)).expect("a directory");
    }
    mount_bind("/proc", root.join("proc")).expect("a /proc");
    chroot(root).expect("a root that is no mount point");
    env::set_current_dir("/").expect("that root");
}

fn root() -> std::path::PathBuf {
    env::var_os("BPF_PIN_TEST_ARGUMENT").expect("a root").into()
}

pub fn in_a_plain_root() {
    unshare_mounts();
    enter_chroot(&root());
    let options = MountOptions::new().mode(0o700);

    let found = FileSystem::at("/").unwrap();
    for path in ["/", "/place"] {
        let seen = inspect(Path::new(path));
        assert_eq!(seen.verdict, Verdict::Elsewhere { found });
        assert!(seen.mount.is_none() && seen.hidden.is_empty(), "{seen:?}");
        assert_sentence(
            &seen,
            &format!("{path} is a directory on {found}, not on a bpffs"),
        );
    }
    let ensure = |path: &str| {
        let first = Bpffs::ensure(path, &options).unwrap();
        assert!(first.is_new(), "{first:?}");
        let dev = first.into_bpffs().dev();
        let again = Bpffs::ensure(path, &options).unwrap();
        assert!(!again.is_new() && again.bpffs().dev() == dev, "{again:?}");
        let seen = inspect(Path::new(path));
        assert_eq!((seen.verdict, seen.dev), (Verdict::Mounted, Some(dev)));
        assert_eq!(seen.mount.unwrap(), again.into_bpffs().mount().unwrap());
    };
    ensure("/place");
    // Without the newer system calls, as on older kernels.
    with_seccomp_errno(libc::SYS_statx, None, libc::ENOSYS as u32, || {
        ensure("/other");
    });
    with_seccomp_errno(libc::SYS_fsopen, None, libc::ENOSYS as u32, || {
        ensure("/third");
    });
    assert_eq!(Bpffs::mounts().unwrap().len(), 3);

    fs::create_dir("/place/inside").unwrap();
    let error = Bpffs::ensure("/place/inside", &options).unwrap_err();
    let path = Some("/place/inside".into());
    let mount_point = Some("/place".into());
    assert_eq!(
        error.cause(),
        Some(&Cause::NotTheRoot { path, mount_point })
    );
    mount_tmpfs(Path::new("/other"));
    let error = Bpffs::ensure("/other", &options).unwrap_err();
    assert_cause_matches!(error, Cause::Occupied { .. });
}

pub fn in_a_root_in_a_bpffs() {
    let place = root();
    unshare_mounts();
    let bpffs = MountOptions::new().mount(&place).expect("a bpffs");
    let (dev, device) = (bpffs.dev(), device(bpffs.dev()));
    let root = place.join("root");
    fs::create_dir(&root).expect("a directory");
    enter_chroot(&root);

    for path in ["/", "/place"] {
        let seen = inspect(Path::new(path));
        assert_eq!((&seen.verdict, seen.dev), (&Verdict::Within, Some(dev)));
        assert_sentence(
            &seen,
            &format!(
                "{path} is a directory in a bpffs ({device}) through a mount that is not in this \
                 thread's mountinfo"
            ),
        );
    }
    let error = Bpffs::ensure("/place", &MountOptions::new()).unwrap_err();
    let (path, mount_point) = (Some("/place".into()), None);
    assert_eq!(
        error.cause(),
        Some(&Cause::NotTheRoot { path, mount_point })
    );
    assert_eq!(Bpffs::mounts().unwrap(), []);
    let error = bpffs.mount().unwrap_err();
    assert_cause_matches!(error, Cause::NotListed { .. });
}
