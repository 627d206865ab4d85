//! Mounting on a kernel, or behind a seccomp filter, without the newer system calls.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bpf_pin::abi::Version;
use bpf_pin::bpffs::MountOptions;
use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Bpffs, MapType};
use common::*;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::mount::child;
use crate::mount::options::{root_of, with_mounted};
use crate::mount::*;

/// A kernel before Linux 5.2, or a container with an old filter.
#[common::test(ROOT)]
fn mounts_without_fsopen() -> Outcome {
    with_mount_point(|path| {
        let enosys = libc::ENOSYS as u32;
        let options = MountOptions::new().mode(0o750).nodev(true).noexec(true);
        with_seccomp_errno(libc::SYS_fsopen, None, enosys, || {
            with_mounted(path, &options, |bpffs| {
                assert_eq!(root_of(path), (0o1750, 0, 0));
                let mount = bpffs.mount().unwrap();
                assert!(mount.option("nodev").is_some() && mount.option("noexec").is_some());
                assert!(mount.option("nosuid").is_none());
            });
            with_mounted(path, &MountOptions::new().read_only(true), |_| {
                assert!(hash().pin(path.join("map")).is_err());
            });
            assert!(Bpffs::ensure(path, &options)?.is_new());
            assert!(!Bpffs::ensure(path, &options)?.is_new());
            assert!(mount_at(path).is_bpffs());

            let error = options.detached().expect_err("no fsopen(2)");
            // The filter may have denied it, so no least kernel is named.
            let (make, nowhere) = (Operation::CreateBpffs, Path::new(""));
            assert_fails_at(&error, make, nowhere, Some(libc::ENOSYS), None);
            Ok(())
        })
    })
}

#[common::test(ROOT)]
fn mounts_without_fsconfig_fsmount_or_move_mount() -> Outcome {
    for call in [libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_move_mount] {
        with_mount_point(|path| {
            let options = MountOptions::new().mode(0o750).noexec(true);
            with_seccomp_errno(call, None, libc::ENOSYS as u32, || {
                with_mounted(path, &options, |_| {
                    assert_eq!(root_of(path), (0o1750, 0, 0));
                });
                let ensured = Bpffs::ensure(path, &options)?;
                assert!(ensured.is_new());
                assert_is_at(&ensured.into_bpffs(), path);
                Ok(())
            })
        })?;
    }
    Ok(())
}

/// Linux 5.10 to 5.13, where only mount(2) knows the attribute, or an old filter.
#[common::test(ROOT)]
fn mounts_nosymfollow_without_its_fsmount_attribute() -> Outcome {
    with_mount_point(|path| {
        let options = MountOptions::new().nosymfollow(true);
        let attribute = Some((2, 0x20_0000));
        with_seccomp_errno(libc::SYS_fsmount, attribute, libc::EINVAL as u32, || {
            with_mounted(path, &options, |_| assert!(mount_at(path).is_nosymfollow()));
            let ensured = Bpffs::ensure(path, &options)?;
            assert!(ensured.is_new() && mount_at(path).is_nosymfollow());
            unmount_with_retries(ensured.into_bpffs());
            let error = options.detached().expect_err("no such attribute");
            let (make, nowhere) = (Operation::CreateBpffs, Path::new(""));
            assert_fails_at(&error, make, nowhere, Some(libc::EINVAL), None);
            Ok(())
        })
    })
}

/// Without open_tree(2) nothing is unmounted, because a failure could not return the bpffs.
#[common::test(ROOT)]
fn unmount_without_open_tree_fails() -> Outcome {
    with_mount_point(|path| {
        let bpffs = MountOptions::new().mount(path)?;
        let (unmount, enosys) = (Operation::UnmountBpffs, libc::ENOSYS);
        let failed =
            with_seccomp_errno(libc::SYS_open_tree, None, enosys as u32, || bpffs.unmount());
        let failed = failed.expect_err("no open_tree(2)");
        // The filter may have denied it, so no least kernel is named.
        assert_fails_at(failed.error(), unmount, path, Some(enosys), None);
        let bpffs = failed.into_object();
        bpffs.still_here()?;
        unmount_with_retries(bpffs);
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_symbolic_link_that_changes_leaves_no_stray_mount() -> Outcome {
    const ROUNDS: usize = 300;

    with_mount_point(|path| {
        let (link, next) = (path.join("link"), path.join("next"));
        for name in ["one", "other"] {
            fs::create_dir(path.join(name))?;
        }
        symlink("one", &link)?;
        let is_done = AtomicBool::new(false);
        let all = || {
            let mut all = Bpffs::mounts().unwrap();
            all.retain(|mount| mount.mount_point.starts_with(path));
            all
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                for name in ["other", "one"].iter().cycle() {
                    symlink(name, &next).unwrap();
                    fs::rename(&next, &link).unwrap();
                    if is_done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            let mounting = || {
                let _done = SetOnDrop(&is_done);
                for round in 0..ROUNDS {
                    let options = MountOptions::new().mode(0o700);
                    let mounted = match round % 2 {
                        0 => options.mount(&link),
                        _ => Bpffs::ensure(&link, &options).map(|ensured| ensured.into_bpffs()),
                    };
                    match mounted {
                        Ok(bpffs) => {
                            let mount = bpffs.mount().unwrap();
                            assert_eq!(all(), std::slice::from_ref(&mount));
                            unmount(&mount.mount_point, UnmountFlags::DETACH).unwrap();
                        }
                        Err(error) => assert_eq!(all(), [], "{error}"),
                    }
                }
            };
            with_seccomp_errno(libc::SYS_fsopen, None, libc::ENOSYS as u32, mounting);
        });
        Ok(())
    })
}

#[common::test(ROOT)]
fn emfile_leaves_no_mount() -> Outcome {
    let dir = directory();
    let path = dir.path().to_str().ok_or("a path that is text")?;
    child::run("few_descriptors", path)
}

/// Nothing stays mounted, for every descriptor that cannot be opened.
pub fn emfile_in_child() {
    let path = child::argument();
    let path = Path::new(&path);
    in_mount_namespace(|| {
        let every = |by: &dyn Fn(&MountOptions) -> bpf_pin::Result<()>| {
            for has_source in [false, true] {
                let mut failed = 0;
                for spare_descriptors in 0.. {
                    let options = match has_source {
                        true => MountOptions::new().source("mine"),
                        false => MountOptions::new(),
                    };
                    let mounted = with_spare_descriptors(spare_descriptors, || by(&options));
                    let Err(error) = mounted else { break };
                    assert_nothing_is_mounted_at(path);
                    if matches!(error.cause(), Some(Cause::OptionIgnored { .. })) {
                        // The mount was complete, and this kernel ignored the option.
                        break;
                    }
                    failed += 1;
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
                }
                // If the kernel ignores the source, the call ends after its second descriptor.
                let least = if has_source { 2 } else { 3 };
                assert!(
                    failed >= least,
                    "{failed} failures, with a source: {has_source}"
                );
                let _ = unmount(path, UnmountFlags::DETACH);
            }
        };
        let all = || {
            every(&|options| options.mount(path).map(drop));
            every(&|options| Bpffs::ensure(path, options).map(drop));
        };
        all();
        with_seccomp_errno(libc::SYS_fsopen, None, libc::ENOSYS as u32, all);
    });
}

/// Runs with at most this many more descriptors.
fn with_spare_descriptors<T>(count: u64, run: impl FnOnce() -> T) -> T {
    let next = fs::File::open("/dev/null").unwrap().as_raw_fd() as u64;
    let before = getrlimit(Resource::Nofile);
    let fewer = Rlimit {
        current: Some(next + count),
        ..before
    };
    setrlimit(Resource::Nofile, fewer).unwrap();
    let done = run();
    setrlimit(Resource::Nofile, before).unwrap();
    done
}

#[common::test(ROOT)]
fn an_ignored_option_is_reported_without_fsopen() -> Outcome {
    with_mount_point(|path| {
        with_seccomp_errno(libc::SYS_fsopen, None, libc::ENOSYS as u32, || {
            let uid = MountOptions::new().uid(1234);
            let delegation = MountOptions::new().delegate_maps([MapType::HASH]);
            for (options, option, since) in [
                (uid, "uid", Version::new(6, 8)),
                (delegation, "delegate_maps", Version::new(6, 9)),
            ] {
                if kernel(since.major.into(), since.minor.into())
                    .unmet()
                    .is_none()
                {
                    with_mounted(path, &options, |_| {});
                    continue;
                }
                for error in [
                    options.mount(path).expect_err("too old"),
                    Bpffs::ensure(path, &options).expect_err("too old"),
                ] {
                    let since = Some(since);
                    let cause = Cause::OptionIgnored { option, since };
                    assert_eq!(error.cause(), Some(&cause), "{error}");
                    assert_nothing_is_mounted_at(path);
                }
            }
            Ok(())
        })
    })
}

/// A kernel before Linux 5.8, which does not report the ids of mounts.
#[common::test(ROOT)]
fn mounts_and_unmounts_without_statx() -> Outcome {
    with_mount_point(|path| {
        with_seccomp_errno(libc::SYS_statx, None, libc::ENOSYS as u32, || {
            let new = MountOptions::new;
            with_mounted(path, &new().mode(0o700), |_| {});
            assert!(Bpffs::ensure(path, &new())?.is_new());
            let found = Bpffs::ensure(path, &new())?;
            assert!(!found.is_new());
            let found = found.into_bpffs();
            let inside = path.join("inside");
            fs::create_dir(&inside)?;
            let error = Bpffs::ensure(&inside, &new()).expect_err("within");
            assert_cause_matches!(error, Cause::NotTheRoot { .. });
            let within = Bpffs::at(&inside)?.unmount().expect_err("within");
            assert!(
                matches!(within.cause(), Some(Cause::NotTheRoot { .. })),
                "{within}"
            );
            drop(within);
            unmount_with_retries(found);
            Ok(())
        })
    })
}
