//! Every mount option takes effect and is read back.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use bpf_pin::abi::Version;
use bpf_pin::bpffs::MountOptions;
use bpf_pin::error::{Cause, Operation};
use bpf_pin::token::Allowed;
use bpf_pin::types::{AttachType, Command, ProgType};
use bpf_pin::{Bpffs, Error, MapType};
use common::*;
use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::CapabilitySet;

use crate::mount::*;

pub fn root_of(path: &Path) -> (u32, u32, u32) {
    let found = fs::metadata(path).unwrap();
    (found.mode() & 0o7777, found.uid(), found.gid())
}

/// Mounts, calls `look` and unmounts.
#[track_caller]
pub fn with_mounted(path: &Path, options: &MountOptions, look: impl FnOnce(&Bpffs)) {
    let bpffs = options.mount(path).unwrap();
    assert_is_at(&bpffs, path);
    look(&bpffs);
    unmount_with_retries(bpffs);
    assert_nothing_is_mounted_at(path);
}

#[common::test(ROOT)]
fn default_options_are_read_back() -> Outcome {
    with_mount_point(|path| {
        with_mounted(path, &MountOptions::new(), |bpffs| {
            assert_eq!(root_of(path), (0o1700, 0, 0));
            let mount = mount_at(path);
            let has_source = kernel(5, 17).unmet().is_none();
            assert_eq!(mount.source, if has_source { "bpf" } else { "none" });
            assert_eq!(mount.root, Path::new("/"));
            for option in ["nosuid", "nodev", "noexec", "nosymfollow", "ro"] {
                assert_eq!(mount.option(option), None, "{option}");
            }
            assert!(bpffs.delegation().unwrap().is_empty());
            assert!(!bpffs.mount().unwrap().source.is_empty());
        });
        Ok(())
    })
}

#[common::test(ROOT)]
fn the_mode_sets_the_permissions_of_the_root() -> Outcome {
    with_mount_point(|path| {
        for mode in [0, 0o700, 0o755, 0o1777, 0o2750, 0o4711, 0o7777] {
            with_mounted(path, &MountOptions::new().mode(mode), |bpffs| {
                assert_eq!(root_of(path), (mode | 0o1000, 0, 0), "{mode:o}");
                let mode_found = bpffs.mount().unwrap().mode();
                assert_eq!(mode_found, Some(mode & !0o1000), "{mode:o}");
            });
        }
        // mountinfo shows the current mode, not the requested one.
        let bpffs = MountOptions::new().mount(path)?;
        assert_eq!(bpffs.mount()?.mode(), Some(0o700));
        fs::set_permissions(path, fs::Permissions::from_mode(0o751))?;
        assert_eq!(bpffs.mount()?.mode(), Some(0o751));
        Ok(())
    })
}

/// Checks the option on a kernel that knows it. On an older one, checks that the call fails with
/// `OptionIgnored` and mounts nothing.
fn works_since(
    path: &Path,
    options: &MountOptions,
    (option, since): (&'static str, Version),
    look: impl FnOnce(&Bpffs),
) {
    if kernel(since.major.into(), since.minor.into())
        .unmet()
        .is_none()
    {
        return with_mounted(path, options, look);
    }
    let cause = Cause::OptionIgnored {
        option,
        since: Some(since),
    };
    let assert_ignored = |error: &Error, operation, of: &Path| {
        assert_fails_at(error, operation, of, None, Some(cause.clone()));
        assert_nothing_is_mounted_at(path);
    };
    let error = options.mount(path).expect_err("the kernel is too old");
    assert_ignored(&error, Operation::MountBpffs, path);
    // A source can be read back only after the mount is attached.
    if option != "source" {
        let error = options.detached().expect_err("the kernel is too old");
        assert_ignored(&error, Operation::CreateBpffs, Path::new(""));
    }
    let error = Bpffs::ensure(path, options).expect_err("the kernel is too old");
    assert_ignored(&error, Operation::MountBpffs, path);
}

#[common::test(ROOT)]
fn uid_and_gid_set_the_owner_of_the_root() -> Outcome {
    const SINCE: Version = Version::new(6, 8);
    with_mount_point(|path| {
        let uid = MountOptions::new().uid(1234);
        works_since(path, &uid, ("uid", SINCE), |_| {
            assert_eq!(root_of(path), (0o1700, 1234, 0));
        });
        let gid = MountOptions::new().gid(4321).mode(0o750);
        works_since(path, &gid, ("gid", SINCE), |_| {
            assert_eq!(root_of(path), (0o1750, 0, 4321));
        });
        works_since(path, &gid.uid(1234), ("uid", SINCE), |_| {
            assert_eq!(root_of(path), (0o1750, 1234, 4321));
        });
        // Ignoring an option with the default value makes no difference.
        with_mounted(path, &MountOptions::new().uid(0).gid(0), |_| {
            assert_eq!(root_of(path), (0o1700, 0, 0));
        });
        Ok(())
    })
}

#[common::test(ROOT)]
fn mount_flags_take_effect() -> Outcome {
    const ALL: [(&str, StatVfsMountFlags); 5] = [
        ("nosuid", StatVfsMountFlags::NOSUID),
        ("nodev", StatVfsMountFlags::NODEV),
        ("noexec", StatVfsMountFlags::NOEXEC),
        ("ro", StatVfsMountFlags::RDONLY),
        // ST_NOSYMFOLLOW.
        ("nosymfollow", StatVfsMountFlags::from_bits_retain(0x2000)),
    ];
    with_mount_point(|path| {
        for set in 0..32u32 {
            let is_set = |at: usize| set >> at & 1 == 1;
            let options = MountOptions::new()
                .nosuid(is_set(0))
                .nodev(is_set(1))
                .noexec(is_set(2))
                .read_only(is_set(3))
                .nosymfollow(is_set(4));
            with_mounted(path, &options, |bpffs| {
                let (flags, mount) = (statvfs(path).unwrap().f_flag, bpffs.mount().unwrap());
                for (at, (name, flag)) in ALL.into_iter().enumerate() {
                    assert_eq!(flags.contains(flag), is_set(at), "{name} of {set:05b}");
                    assert_eq!(mount.option(name).is_some(), is_set(at), "{name}");
                }
                assert_eq!(hash().pin(path.join("map")).is_ok(), !is_set(3));
            });
        }
        Ok(())
    })
}

/// mount(2) has always known the flag, fsmount(2) since Linux 5.14.
#[common::test(ROOT)]
fn nosymfollow_takes_effect() -> Outcome {
    let options = MountOptions::new().nosymfollow(true).mode(0o750);
    with_mount_point(|path| {
        assert!(Bpffs::ensure(path, &options)?.is_new());
        assert!(mount_at(path).is_nosymfollow());
        unmount(path, UnmountFlags::DETACH)?;
        match options.detached() {
            Ok(detached) => {
                assert!(kernel(5, 14).unmet().is_none());
                let bpffs = detached.attach(path).map_err(Error::from)?;
                assert!(bpffs.mount()?.is_nosymfollow());
                unmount_with_retries(bpffs);
            }
            Err(error) => {
                assert!(kernel(5, 14).unmet().is_some(), "{error}");
                let cause = Cause::Unsupported {
                    what: "MOUNT_ATTR_NOSYMFOLLOW",
                    since: Version::new(5, 14),
                };
                let (make, nowhere, einval) =
                    (Operation::CreateBpffs, Path::new(""), Some(libc::EINVAL));
                assert_fails_at(&error, make, nowhere, einval, Some(cause));
            }
        }
        assert_nothing_is_mounted_at(path);
        Ok(())
    })
}

#[common::test(ROOT)]
fn a_source_may_contain_any_byte() -> Outcome {
    with_mount_point(|path| {
        const SINCE: Version = Version::new(5, 17);
        let before = Bpffs::mounts()?;
        let longest = "s".repeat(255);
        for source in [
            &b"bpf"[..],
            b"/dev/null",
            b"a b\tc\nd\\e\\040f",
            b"a,b=c#d",
            b"- bpf",
            b"\xff\xfe\x80",
            longest.as_bytes(),
        ] {
            let source = OsStr::from_bytes(source);
            let options = MountOptions::new().source(source);
            works_since(path, &options, ("source", SINCE), |bpffs| {
                let mount = bpffs.mount().unwrap();
                assert_eq!(mount.source, source);
                let mut all = Bpffs::mounts().unwrap();
                all.retain(|mount| !before.contains(mount));
                assert_eq!(all, [mount]);
            });
        }
        Ok(())
    })
}

#[common::test(ROOT)]
fn delegations_are_read_back() -> Outcome {
    const SINCE: Version = Version::new(6, 9);
    with_mount_point(|path| {
        let cmds = [
            Command::MAP_CREATE,
            Command::PROG_LOAD,
            Command::TOKEN_CREATE,
        ];
        let maps = [MapType::HASH, MapType::CGROUP_STORAGE, MapType::ARENA];
        let progs = [ProgType::XDP, ProgType::UNSPEC, ProgType::NETFILTER];
        let attachs = [AttachType(0), AttachType::XDP, AttachType::NETKIT_PEER];
        let new = MountOptions::new;
        works_since(
            path,
            &new().delegate_cmds(cmds),
            ("delegate_cmds", SINCE),
            |bpffs| {
                let found = bpffs.delegation().unwrap();
                assert_eq!(found.cmds, Allowed::from(cmds));
                assert!(
                    found.maps.is_empty() && found.progs.is_empty() && found.attachs.is_empty()
                );
            },
        );
        works_since(
            path,
            &new().delegate_maps(maps),
            ("delegate_maps", SINCE),
            |bpffs| {
                assert_eq!(bpffs.delegation().unwrap().maps, Allowed::from(maps));
            },
        );
        works_since(
            path,
            &new().delegate_progs(progs),
            ("delegate_progs", SINCE),
            |bpffs| {
                assert_eq!(bpffs.delegation().unwrap().progs, Allowed::from(progs));
            },
        );
        let options = new().delegate_attachs(attachs);
        works_since(path, &options, ("delegate_attachs", SINCE), |bpffs| {
            assert_eq!(bpffs.delegation().unwrap().attachs, Allowed::from(attachs));
        });
        let all = new()
            .delegate_cmds(Allowed::any())
            .delegate_maps(Allowed::any())
            .delegate_progs(Allowed::any())
            .delegate_attachs(Allowed::any());
        works_since(path, &all, ("delegate_cmds", SINCE), |bpffs| {
            let found = bpffs.delegation().unwrap();
            assert_eq!((found.cmds, found.maps), (Allowed::any(), Allowed::any()));
            assert_eq!(
                (found.progs, found.attachs),
                (Allowed::any(), Allowed::any())
            );
        });
        // Each bit alone, and all bits up to it. That includes bits that no kernel knows or shows.
        if kernel(6, 9).unmet().is_none() {
            for bit in 0..64 {
                for mask in [1 << bit, u64::MAX >> bit] {
                    let options = new()
                        .delegate_cmds(Allowed::from_mask(mask))
                        .delegate_maps(Allowed::from_mask(mask))
                        .delegate_progs(Allowed::from_mask(mask))
                        .delegate_attachs(Allowed::from_mask(mask));
                    with_mounted(path, &options, |_| {});
                }
            }
            let newer = new().delegate_maps([MapType::HASH, MapType(63)]);
            with_mounted(path, &newer, |bpffs| {
                let found = bpffs.delegation().unwrap().maps;
                assert_eq!(found, Allowed::from([MapType::HASH]));
            });
        }
        // Delegating an empty set delegates nothing.
        with_mounted(path, &new().delegate_cmds(Allowed::none()), |bpffs| {
            assert!(bpffs.delegation().unwrap().is_empty());
        });
        Ok(())
    })
}

/// Simulates a kernel that knows no option: fsconfig(2) accepts every string and ignores it.
#[common::test(ROOT)]
fn an_ignored_option_fails_and_mounts_nothing() -> Outcome {
    with_mount_point(|path| {
        let assert_ignored = |options: &MountOptions, option, since| {
            let error = ignoring_options(|| options.mount(path)).expect_err("an ignored option");
            let cause = Cause::OptionIgnored { option, since };
            let operation = Operation::MountBpffs;
            assert_fails_at(&error, operation, path, None, Some(cause));
            assert_nothing_is_mounted_at(path);
            // The call can be repeated.
            let error =
                ignoring_options(|| Bpffs::ensure(path, options)).expect_err("an ignored option");
            assert_cause_matches!(error, Cause::OptionIgnored { .. });
            assert_nothing_is_mounted_at(path);
        };
        // Set the kernel's default mode, so that the mode is not reported first.
        let new = || MountOptions::new().mode(0o1777);
        assert_ignored(&MountOptions::new(), "mode", Some(Version::new(4, 10)));
        assert_ignored(&new().mode(0o700), "mode", Some(Version::new(4, 10)));
        assert_ignored(&new().uid(12), "uid", Some(Version::new(6, 8)));
        assert_ignored(&new().gid(12), "gid", Some(Version::new(6, 8)));
        let since = Some(Version::new(6, 9));
        assert_ignored(&new().delegate_maps(Allowed::any()), "delegate_maps", since);
        assert_ignored(
            &new().delegate_cmds([Command::MAP_CREATE]),
            "delegate_cmds",
            since,
        );
        // A source can be read back only after the mount, which is then removed again.
        assert_ignored(&new().source("mine"), "source", Some(Version::new(5, 17)));

        let detached = ignoring_options(|| new().source("mine").detached())?;
        let failed = detached.attach(path).expect_err("another source");
        assert_cause_matches!(failed, Cause::OptionIgnored { .. });
        assert_nothing_is_mounted_at(path);
        // The detached bpffs is returned.
        let detached = failed.into_object();
        hash().pin(detached.path().join("map"))?;
        Ok(())
    })
}

/// Runs `test` on a thread where setting an option succeeds without effect.
fn ignoring_options<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    const FSCONFIG_SET_STRING: u32 = 1;
    with_seccomp_errno(libc::SYS_fsconfig, Some((1, FSCONFIG_SET_STRING)), 0, test)
}

#[common::test]
fn values_out_of_range_are_rejected_before_any_syscall() -> Outcome {
    let dir = directory();
    let assert_rejected = |options: MountOptions, option, problem: &str| {
        let cause = || {
            Some(Cause::InvalidArgument {
                what: option,
                problem: problem.to_owned().into(),
            })
        };
        // The path is not checked either.
        for path in [dir.path(), Path::new("/nowhere/at/all")] {
            let error = options.mount(path).expect_err("out of range");
            assert_fails_at(&error, Operation::MountBpffs, path, None, cause());
            let error = Bpffs::ensure(path, &options).expect_err("out of range");
            assert_fails_at(&error, Operation::MountBpffs, path, None, cause());
        }
        let error = options.detached().expect_err("out of range");
        assert_fails_at(&error, Operation::CreateBpffs, Path::new(""), None, cause());
    };
    let new = MountOptions::new;
    // The check needs no privileges.
    as_user_if_possible(|| {
        assert_rejected(
            new().mode(0o10000),
            "mode",
            "is 0o10000, and the limit is 0o7777",
        );
        assert_rejected(
            new().mode(u32::MAX),
            "mode",
            "is 0o37777777777, and the limit is 0o7777",
        );
        assert_rejected(
            new().uid(u32::MAX),
            "uid",
            "is 4294967295, which means \"no change\"",
        );
        assert_rejected(
            new().gid(u32::MAX),
            "gid",
            "is 4294967295, which means \"no change\"",
        );
        assert_rejected(new().source("a\0b"), "source", "contains a NUL byte");
        assert_rejected(new().source(""), "source", "is empty");
        let long = "s".repeat(256);
        assert_rejected(
            new().source(long),
            "source",
            "has 256 bytes, and the limit is 255",
        );
        let most = "the limit is 63";
        let problem = format!("contains 64, and {most}");
        assert_rejected(
            new().delegate_cmds([Command(64)]),
            "delegate_cmds",
            &problem,
        );
        assert_rejected(
            new().delegate_maps([MapType::HASH, MapType(64)]),
            "delegate_maps",
            &problem,
        );
        let problem = format!("contains 4294967295, and {most}");
        assert_rejected(
            new().delegate_progs([ProgType(u32::MAX)]),
            "delegate_progs",
            &problem,
        );
        let problem = format!("contains 65536, and {most}");
        assert_rejected(
            new().delegate_attachs([AttachType(65536)]),
            "delegate_attachs",
            &problem,
        );
    });
    Ok(())
}

/// Runs `test` as an ordinary user if this thread may become one.
fn as_user_if_possible<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    match cap::SETUID.unmet() {
        None => as_user(CapabilitySet::empty(), test),
        Some(_) => test(),
    }
}
