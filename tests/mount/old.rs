//! Where a kernel, or a filter that is as old, lacks the newer calls.

use std::fs;
use std::path::Path;

use bpf_pin::abi::Version;
use bpf_pin::{Bpffs, Cause, MapType, MountOperation, MountOptions};
use common::*;

use crate::options::{root_of, with_mounted};
use crate::*;

pub fn tests(suite: Suite) -> Suite {
    suite
        .test("without_fsopen", ROOT, without_fsopen)
        .test(
            "an_ignored_option_without_fsopen",
            ROOT,
            ignored_without_fsopen,
        )
        .test("without_statx", ROOT, without_statx)
}

/// A kernel before Linux 5.2, or a container's filter that is as old.
fn without_fsopen() -> Outcome {
    in_a_directory(|path| {
        let enosys = libc::ENOSYS as u32;
        let options = MountOptions::new().mode(0o750).nodev(true).noexec(true);
        answered(libc::SYS_fsopen, None, enosys, || {
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
            let cause = Cause::Unsupported {
                what: "fsopen(2)",
                since: Version::new(5, 2),
            };
            let because = "this kernel does not know fsopen(2) (Linux 5.2)";
            let (make, nowhere) = (MountOperation::Make, Path::new(""));
            assert_says(
                &error,
                make,
                nowhere,
                Some(libc::ENOSYS),
                Some(cause),
                because,
            );
            Ok(())
        })
    })
}

fn ignored_without_fsopen() -> Outcome {
    in_a_directory(|path| {
        answered(libc::SYS_fsopen, None, libc::ENOSYS as u32, || {
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

/// A kernel before Linux 5.8, as far as the ids of mounts go.
fn without_statx() -> Outcome {
    in_a_directory(|path| {
        answered(libc::SYS_statx, None, libc::ENOSYS as u32, || {
            let new = MountOptions::new;
            with_mounted(path, &new().mode(0o700), |_| {});
            assert!(Bpffs::ensure(path, &new())?.is_new());
            let found = Bpffs::ensure(path, &new())?;
            assert!(!found.is_new());
            let found = found.into_bpffs();
            let inside = path.join("inside");
            fs::create_dir(&inside)?;
            let error = Bpffs::ensure(&inside, &new()).expect_err("within");
            assert!(
                matches!(error.cause(), Some(Cause::NotTheRoot { .. })),
                "{error}"
            );
            let within = Bpffs::at(&inside)?.unmount().expect_err("within");
            assert!(
                matches!(within.cause(), Some(Cause::NotTheRoot { .. })),
                "{within}"
            );
            drop(within);
            unmount_soon(found);
            Ok(())
        })
    })
}
