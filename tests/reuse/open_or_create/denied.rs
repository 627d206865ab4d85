//! `open_or_create` when permissions or the kernel deny a step: the error names it, and nothing changes.

use std::fs;
use std::os::fd::AsFd;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::ElemFlags;
use bpf_pin::reuse::{MapOutcome, Reuse};
use bpf_pin::{Error, PinDir};
use common::*;
use rustix::thread::CapabilitySet;

use crate::old_map::{NAME, assert_unchanged, create_old, grow, migrate_error, old_spec, spec};

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];

#[common::test(USER)]
fn a_pin_that_cannot_be_opened_for_writing_is_reported_and_kept() -> Outcome {
    let fs = TestFs::detached("777");
    let dir = PinDir::open(fs.root())?;
    let old = create_old(&dir)?;
    let caps = CapabilitySet::BPF;
    for mode in [0o444, 0o600, 0o222] {
        dir.set_mode(NAME, mode)?;
        as_user(caps, || {
            let mut how = grow().freeze();
            for (spec, reuse) in [
                (old_spec(), Reuse::Exact),
                (spec(), Reuse::Exact),
                (spec(), Reuse::Recreate),
                (spec(), Reuse::Migrate(&mut how)),
                (spec(), Reuse::OpenOnly),
            ] {
                let what = format!("{mode:o} {reuse:?}");
                let error = dir.open_or_create(NAME, &spec, reuse).unwrap_err();
                assert_eq!(error.operation(), Operation::Open, "{what}: {error}");
                assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{what}");
                let Some(Cause::Blocked {
                    read_only_would_do, ..
                }) = error.cause()
                else {
                    panic!("{what}: {error}");
                };
                assert_eq!(*read_only_would_do, mode == 0o444, "{what}");
            }
        });
        assert_unchanged(&fs, &dir, &old)?;
    }
    Ok(())
}

/// Everyone may write to the pin, but only its owner may remove it. The error comes before the map is frozen.
#[common::test(USER)]
fn a_sticky_directory_prevents_replacing_before_the_freeze() -> Outcome {
    let fs = TestFs::detached("1777");
    let dir = PinDir::open(fs.root())?;
    let old = create_old(&dir)?;
    dir.set_mode(NAME, 0o666)?;
    let is_sticky = |error: &Error| matches!(error.cause(), Some(Cause::Sticky { uid: 0, .. }));
    as_user(CapabilitySet::BPF, || {
        for how in [grow(), grow().freeze()] {
            let error = migrate_error(&dir, &spec(), how);
            let is_known = is_sticky(&error) || error.raw_os_error() == Some(libc::EPERM);
            assert!(is_known, "{error}");
        }
        let error = dir
            .open_or_create(NAME, &spec(), Reuse::Recreate)
            .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        let found = dir.open_or_create(NAME, &old_spec(), Reuse::Migrate(&mut grow()));
        assert!(matches!(found.unwrap().outcome, MapOutcome::Found));
    });
    assert_unchanged(&fs, &dir, &old)?;
    // CAP_CHOWN and CAP_FOWNER allow it.
    as_user(
        CapabilitySet::BPF | CapabilitySet::CHOWN | CapabilitySet::FOWNER,
        || {
            let made = dir.open_or_create(NAME, &spec(), Reuse::Migrate(&mut grow().freeze()));
            let MapOutcome::Migrated(migration) = made.unwrap().outcome else {
                panic!();
            };
            migration.commit().unwrap();
        },
    );
    let stat = dir.metadata(NAME)?;
    assert_eq!((stat.uid(), stat.mode()), (0, 0o666));
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

#[common::test(USER)]
fn migrating_and_recreating_keep_mode_and_owner() -> Outcome {
    let fs = TestFs::detached("777");
    let dir = PinDir::open(fs.root())?;
    drop(create_old(&dir)?);
    let mode_and_owner = |name: &str| {
        let stat = dir.metadata(name).unwrap();
        (stat.mode(), stat.uid(), stat.gid())
    };
    let (user, group) = (1234, 4321);
    dir.set_owner(NAME, Some(user), Some(group))?;
    dir.set_mode(NAME, 0o664)?;
    let mut how = grow();
    let made = dir.open_or_create(NAME, &spec(), Reuse::Migrate(&mut how))?;
    let MapOutcome::Migrated(migration) = made.outcome else {
        panic!("{made:?}");
    };
    assert_eq!(mode_and_owner(NAME), (0o664, user, group));
    // A user that could open the old map can resume the migration or roll it back.
    let kept = migration.kept_as().to_str().unwrap().to_owned();
    assert_eq!(mode_and_owner(&kept), (0o664, user, group));
    drop(migration);
    as_user(CapabilitySet::BPF, || {
        let found = dir.open_or_create(NAME, &spec(), Reuse::Migrate(&mut grow()));
        let MapOutcome::Resumed(migration) = found.unwrap().outcome else {
            panic!();
        };
        drop(migration);
    });
    let found = dir.open_or_create(NAME, &spec(), Reuse::Migrate(&mut how))?;
    let MapOutcome::Resumed(migration) = found.outcome else {
        panic!("{found:?}");
    };
    migration.roll_back()?;
    assert_eq!(mode_and_owner(NAME), (0o664, user, group));
    let made = dir.open_or_create(NAME, &spec(), Reuse::Recreate)?;
    assert!(matches!(made.outcome, MapOutcome::Recreated { .. }));
    assert_eq!(mode_and_owner(NAME), (0o664, user, group));
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

/// Everyone may write to the directory, but the user cannot give the new pin to the old owner.
#[common::test(USER)]
fn replacing_fails_if_the_owner_cannot_be_kept() -> Outcome {
    let fs = TestFs::detached("777");
    let dir = PinDir::open(fs.root())?;
    let parent = dir.create_dir("sub", 0o777)?;
    let old = create_old(&parent)?;
    parent.set_mode(NAME, 0o666)?;
    // Not sticky, so every user may rename the pin.
    assert_eq!(parent.own_metadata()?.mode(), 0o777);
    as_user(CapabilitySet::BPF, || {
        for how in [grow(), grow().freeze()] {
            let error = migrate_error(&parent, &spec(), how);
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        }
        let error = parent.open_or_create(NAME, &spec(), Reuse::Recreate);
        assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EPERM));
    });
    assert_eq!(fs::read_dir(fs.at("sub"))?.count(), 1);
    assert_eq!(parent.identity(NAME)?, old.identity()?);
    old.elements::<u32, u64>()?
        .update(&1, &1, ElemFlags::EXIST)?;
    Ok(())
}

/// The directory is removed while the new map is filled.
#[common::test(PINS)]
fn a_directory_removed_during_the_call_is_reported() -> Outcome {
    let fs = TestFs::new();
    let root = PinDir::open(fs.root())?;
    for is_old_there in [false, true] {
        let mut how = grow().freeze();
        for reuse in [Reuse::Exact, Reuse::Recreate, Reuse::Migrate(&mut how)] {
            let dir = root.create_dir("dir", 0o700)?;
            if is_old_there {
                if let Reuse::Exact = reuse {
                    root.remove_dir_all("dir")?;
                    continue;
                }
                drop(create_old(&dir)?);
            }
            let what = format!("{reuse:?}");
            let gone = dir
                .open_or_create_with::<Error>(NAME, &spec(), reuse, |_| root.remove_dir_all("dir"));
            let error = gone.unwrap_err();
            let is_removed = matches!(error.cause(), Some(Cause::Removed { .. }));
            assert!(is_removed, "{what}: {error}");
            assert!(fs.names().is_empty(), "{what}");
            // Also if it was removed before the call.
            let error = dir.open_or_create(NAME, &spec(), Reuse::Exact).unwrap_err();
            assert_cause_matches!(error, Cause::Removed { .. });
        }
    }
    Ok(())
}

#[common::test(&[cap::SYS_ADMIN])]
fn a_read_only_mount_allows_opening_only() -> Outcome {
    use rustix::mount::{MountFlags, mount_bind, mount_remount};
    use rustix::mount::{MoveMountFlags, move_mount};
    in_mount_namespace(|| {
        let fs = TestFs::detached("700");
        let mount_point =
            std::env::temp_dir().join(format!("bpf-pin-reuse-{}", std::process::id()));
        let other = mount_point.with_extension("ro");
        fs::create_dir(&mount_point)?;
        fs::create_dir(&other)?;
        let end = || -> Outcome {
            let mount = fs.mount().expect("a mount");
            move_mount(
                mount,
                c"",
                rustix::fs::CWD,
                &mount_point,
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
            )?;
            let dir = PinDir::open(&mount_point)?;
            let old = create_old(&dir)?;
            mount_bind(&mount_point, &other)?;
            mount_remount(&other, MountFlags::BIND | MountFlags::RDONLY, "")?;
            let read_only = PinDir::open(&other)?;
            let found = read_only.open_or_create(NAME, &old_spec(), Reuse::Migrate(&mut grow()))?;
            assert!(matches!(found.outcome, MapOutcome::Found));
            let mut how = grow().freeze();
            for (name, reuse) in [
                ("none", Reuse::Exact),
                (NAME, Reuse::Recreate),
                (NAME, Reuse::Migrate(&mut how)),
            ] {
                let what = format!("{name} {reuse:?}");
                let error = read_only.open_or_create(name, &spec(), reuse).unwrap_err();
                let is_read_only = matches!(error.cause(), Some(Cause::ReadOnlyFileSystem { .. }));
                assert!(is_read_only, "{what}: {error}");
                assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{what}");
            }
            assert_eq!(dir.identity(NAME)?, old.identity()?);
            old.elements::<u32, u64>()?
                .update(&1, &1, ElemFlags::EXIST)?;
            let names: Vec<_> = dir.entries()?.map(|entry| entry.unwrap()).collect();
            let ours = names
                .iter()
                .filter(|entry| !entry.name().to_string_lossy().contains('.'));
            assert_eq!(ours.count(), 1);
            Ok(())
        }();
        let _ = rustix::mount::unmount(&other, rustix::mount::UnmountFlags::DETACH);
        let _ = rustix::mount::unmount(&mount_point, rustix::mount::UnmountFlags::DETACH);
        fs::remove_dir(&mount_point)?;
        fs::remove_dir(&other)?;
        end
    })
}

#[common::test(&[cap::SYS_ADMIN])]
fn a_read_only_bpffs_is_reported() -> Outcome {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsmount,
        fsopen,
    };
    let context = fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_flag(context.as_fd(), "ro")?;
    fsconfig_create(context.as_fd())?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let mount = fsmount(context.as_fd(), flags, MountAttrFlags::empty())?;
    let dir = PinDir::from_fd(mount)?;
    let mut how = grow().freeze();
    for reuse in [Reuse::Exact, Reuse::Recreate, Reuse::Migrate(&mut how)] {
        let error = dir.open_or_create(NAME, &spec(), reuse).unwrap_err();
        assert_cause_matches!(error, Cause::ReadOnlyFileSystem { .. });
    }
    Ok(())
}

#[common::test(PINS)]
fn denied_map_creation_is_reported_and_nothing_changes() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = create_old(&dir)?;
    with_bpf_errno(
        Some(bpf_pin::abi::BPF_MAP_CREATE),
        libc::EPERM as u32,
        || {
            let mut how = grow().freeze();
            for (name, reuse) in [
                ("none", Reuse::Exact),
                (NAME, Reuse::Recreate),
                (NAME, Reuse::Migrate(&mut how)),
            ] {
                let error = dir.open_or_create(name, &spec(), reuse).unwrap_err();
                assert_eq!(error.operation(), Operation::CreateMap, "{error:?}");
                assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            }
            let found = dir.open_or_create(NAME, &old_spec(), Reuse::Exact);
            assert!(matches!(found.unwrap().outcome, MapOutcome::Found));
        },
    );
    assert_unchanged(&fs, &dir, &old)
}

/// EPERM is not taken for "frozen already".
#[common::test(PINS)]
fn a_denied_freeze_is_reported_and_nothing_changes() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = create_old(&dir)?;
    with_bpf_errno(
        Some(bpf_pin::abi::BPF_MAP_FREEZE),
        libc::EPERM as u32,
        || {
            let error = migrate_error(&dir, &spec(), grow().freeze());
            assert_eq!(error.during(), Some(Operation::Migrate));
            assert_eq!(error.operation(), Operation::Freeze, "{error}");
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        },
    );
    assert_unchanged(&fs, &dir, &old)
}

#[common::test(PINS)]
fn only_enoent_counts_as_missing() -> Outcome {
    let fs = TestFs::new();
    let root = fs.root();
    for errno in (1..=133).filter(|&errno| errno != libc::ENOENT) {
        with_bpf_errno(Some(bpf_pin::abi::BPF_OBJ_GET), errno as u32, || {
            let dir = PinDir::open(root).unwrap();
            let mut how = grow();
            for reuse in [
                Reuse::Exact,
                Reuse::Recreate,
                Reuse::Migrate(&mut how),
                Reuse::OpenOnly,
            ] {
                let error = dir.open_or_create(NAME, &spec(), reuse).unwrap_err();
                assert_eq!(error.operation(), Operation::Open, "{errno}: {error}");
                let is_reported = error.raw_os_error() == Some(errno);
                assert!(is_reported || error.cause().is_some(), "{errno}: {error}");
            }
        });
        assert!(fs.names().is_empty(), "{errno}");
    }
    Ok(())
}

/// The library gives EIO no meaning of its own.
#[common::test(PINS)]
fn an_eio_of_any_call_is_reported_and_nothing_changes() -> Outcome {
    use bpf_pin::abi;
    let bpf = |cmd| (libc::SYS_bpf, Some((0, cmd)));
    let fcntl = |cmd: i32| (common::syscalls::FCNTL, Some((1, cmd as u32)));
    let calls = [
        bpf(abi::BPF_OBJ_GET),
        bpf(abi::BPF_OBJ_PIN),
        bpf(abi::BPF_OBJ_GET_INFO_BY_FD),
        bpf(abi::BPF_MAP_CREATE),
        bpf(abi::BPF_MAP_FREEZE),
        bpf(abi::BPF_MAP_LOOKUP_BATCH),
        bpf(abi::BPF_MAP_UPDATE_BATCH),
        fcntl(libc::F_OFD_SETLK),
        fcntl(libc::F_OFD_GETLK),
        (libc::SYS_openat, None),
        (libc::SYS_renameat2, None),
    ];
    for (number, (call, argument)) in calls.into_iter().enumerate() {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let old = create_old(&dir)?;
        let failed = with_seccomp_errno(call, argument, libc::EIO as u32, || {
            let ask = |reuse| dir.open_or_create(NAME, &spec(), reuse);
            let of_entries = (4..7).contains(&number);
            let mut how = grow().freeze();
            let mut failed = vec![ask(Reuse::Migrate(&mut how))];
            if !of_entries {
                failed.push(ask(Reuse::Recreate));
            }
            failed
        });
        for done in failed {
            let error = done.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO), "{number}: {error}");
        }
        assert_unchanged(&fs, &dir, &old)?;
    }
    // A backup that cannot be unlinked is left, and the next call finds it.
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = create_old(&dir)?;
    #[cfg(target_arch = "x86_64")]
    let unlinks = [libc::SYS_unlinkat, libc::SYS_unlink];
    #[cfg(not(target_arch = "x86_64"))]
    let unlinks = [libc::SYS_unlinkat];
    for (number, call) in unlinks.into_iter().enumerate() {
        with_seccomp_errno(call, None, libc::EIO as u32, || {
            let made = dir.open_or_create(NAME, &spec(), Reuse::Migrate(&mut grow()));
            let (MapOutcome::Migrated(migration) | MapOutcome::Resumed(migration)) =
                made.unwrap().outcome
            else {
                panic!();
            };
            assert_eq!(migration.old().id().unwrap(), old.id().unwrap());
            // The library uses unlinkat only.
            if number == 0 {
                let failed = migration.commit().unwrap_err();
                assert_eq!(failed.error().raw_os_error(), Some(libc::EIO));
                drop(failed.into_object());
            }
        });
    }
    let mut how = grow();
    let again = dir.open_or_create(NAME, &spec(), Reuse::Migrate(&mut how))?;
    let MapOutcome::Resumed(migration) = again.outcome else {
        panic!("{again:?}");
    };
    migration.commit()?;
    drop(dir);
    let dir = PinDir::open(fs.root())?;
    assert!(dir.remove_leftovers()?.failed.is_empty());
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}
