//! `open_or_create` where it cannot be done: the error says why, and the name is whose it was.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::ExitCode;
use std::time::Duration;

use bpf_pin::{
    Access, Cause, DirOperation, ElemFlags, Error, Map, MapFlags, MapSpec, MapType, Migrate,
    Outcome as Done, PinDir, Reuse,
};
use common::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;

const CHILD: &str = "BPF_PIN_TEST_MIGRATE_FAILS";
const NAME: &str = "flows";
const KEPT: &str = "_bpf-pin-old-flows";

fn main() -> ExitCode {
    if std::env::var_os(CHILD).is_some() {
        few_descriptors();
        return ExitCode::SUCCESS;
    }
    const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
    const USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];
    Suite::new()
        .test("one_that_is_too_small", PINS, too_small)
        .test("one_that_gets_too_small", PINS, gets_too_small)
        .test("sizes_that_are_not_the_maps", PINS, sizes)
        .test("one_created_for_reading", PINS, read_only_handle)
        .test("names_that_leave_no_room_for_another", PINS, long_names)
        .test("what_is_no_map", PINS, no_map)
        .test("what_is_no_map_where_the_old_is_kept", PINS, no_map_kept)
        .test("a_pin_that_may_only_be_read", USER, may_read)
        .test("a_sticky_directory_of_anothers", USER, sticky)
        .test("modes_and_owners_go_with_the_name", USER, modes)
        .test("an_owner_that_may_not_be_given", USER, owner)
        .test("a_directory_that_goes", PINS, removed)
        .test("a_read_only_mount", &[cap::SYS_ADMIN], read_only)
        .test(
            "a_read_only_instance",
            &[cap::SYS_ADMIN],
            read_only_instance,
        )
        .test("without_map_creation", PINS, no_create)
        .test("without_freezing", PINS, no_freeze)
        .test("with_few_descriptors", PINS, || alone(CHILD, "descriptors"))
        .test("a_patience_without_end", PINS, patience)
        .test("values_that_are_mapped_for_writing", PINS, mapped)
        .test("no_errno_but_enoent_means_absent", PINS, only_enoent)
        .test("whichever_call_fails", PINS, any_call)
        .run()
}

fn old_spec() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 8, 16)
}

fn spec() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 16, 16)
}

fn grow<'f>() -> Migrate<'f> {
    Migrate::new(|key: &u32, value: &u64| Some((*key, [*value, 1]))).patience(Duration::ZERO)
}

/// A map with ten entries, pinned.
fn old(dir: &PinDir) -> bpf_pin::Result<Map> {
    let map = dir.open_or_create(NAME, &old_spec(), Reuse::Exact)?.map;
    let elems = map.typed::<u32, u64>()?;
    for key in 0..10 {
        elems.update(&key, &u64::from(key), ElemFlags::ANY)?;
    }
    Ok(map)
}

fn fails(dir: &PinDir, spec: &MapSpec<'_>, mut how: Migrate<'_>) -> Error {
    dir.open_or_create(NAME, spec, Reuse::Migrate(&mut how))
        .unwrap_err()
}

fn assert_untouched(fs: &TestFs, dir: &PinDir, old: &Map) -> Outcome {
    assert_eq!(fs.names(), [NAME]);
    assert_eq!(dir.identity(NAME)?, old.identity()?);
    // It is not frozen either.
    old.typed::<u32, u64>()?.update(&1, &1, ElemFlags::EXIST)?;
    Ok(())
}

fn too_small() -> Outcome {
    let with = |map_type, max_entries| MapSpec::new(map_type, 4, 16, max_entries);
    for (spec, errno) in [
        (with(MapType::HASH, 9), libc::E2BIG),
        (
            with(MapType::HASH, 9).flags(MapFlags::NO_PREALLOC),
            libc::E2BIG,
        ),
        (with(MapType::ARRAY, 9), libc::E2BIG),
        (
            MapSpec::new(MapType::LPM_TRIE, 8, 16, 9).flags(MapFlags::NO_PREALLOC),
            libc::ENOSPC,
        ),
    ] {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let old = old(&dir)?;
        let how = Migrate::bytes(|key, value, new_key, new_value| {
            match new_key.split_first_chunk_mut::<4>() {
                Some((bits, rest)) if !rest.is_empty() => {
                    *bits = 32_u32.to_ne_bytes();
                    rest.copy_from_slice(key);
                }
                _ => new_key.copy_from_slice(key),
            }
            new_value[..8].copy_from_slice(value);
            true
        });
        let error = fails(&dir, &spec, how.freeze());
        let path = dir.path().join(NAME);
        assert_eq!(error.cause(), Some(&Cause::MaxEntries { max_entries: 9 }));
        assert_eq!(error.raw_os_error(), Some(errno), "{error}");
        assert_eq!(error.path(), Some(path.as_path()));
        let text = error.to_string();
        let begin = format!("migrate {}: update an element: ", path.display());
        assert!(text.starts_with(&begin), "{text}");
        assert_untouched(&fs, &dir, &old)?;
    }
    Ok(())
}

/// By what comes in between the passes.
fn gets_too_small() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = old(&dir)?;
    let mut seen = 0;
    let how = Migrate::new(|key: &u32, value: &u64| {
        seen += 1;
        if seen == 10 {
            let elems = old.typed::<u32, u64>().unwrap();
            elems.update(&100, &1, ElemFlags::ANY).unwrap();
        }
        Some((*key, [*value; 2]))
    });
    let small = MapSpec::new(MapType::HASH, 4, 16, 10);
    let error = fails(&dir, &small, how);
    assert_eq!(error.cause(), Some(&Cause::MaxEntries { max_entries: 10 }));
    assert_untouched(&fs, &dir, &old)
}

fn sizes() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = old(&dir)?;
    let check = |how: Migrate<'_>, what, expected, found| {
        let error = fails(&dir, &spec(), how.freeze());
        let cause = Cause::Size {
            what,
            expected,
            found,
        };
        assert_eq!(error.cause(), Some(&cause), "{error}");
        assert!(matches!(error, Error::Migrate { .. }));
        assert_eq!(error.raw_os_error(), None);
        assert_untouched(&fs, &dir, &old)
    };
    check(
        Migrate::new(|_: &u16, _: &u64| Some((0_u32, [0_u64; 2]))),
        "key",
        4,
        2,
    )?;
    check(
        Migrate::new(|_: &u32, _: &u32| Some((0_u32, [0_u64; 2]))),
        "value",
        8,
        4,
    )?;
    check(
        Migrate::new(|_: &u32, _: &u64| Some((0_u64, [0_u64; 2]))),
        "new key",
        4,
        8,
    )?;
    check(
        Migrate::new(|_: &u32, _: &u64| Some((0_u32, 0_u64))),
        "new value",
        16,
        8,
    )
}

/// Whoever asks for a descriptor that may not write cannot have it filled.
fn read_only_handle() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = old(&dir)?;
    let error = fails(&dir, &spec().flags(MapFlags::RDONLY), grow().freeze());
    let opened = Access::ReadOnly;
    assert_eq!(error.cause(), Some(&Cause::MapAccess { opened }), "{error}");
    assert_untouched(&fs, &dir, &old)
}

/// The old one's other name is 13 bytes longer.
fn long_names() -> Outcome {
    for length in [242, 243, 255] {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let name = "n".repeat(length);
        let ask = |spec: &MapSpec<'_>| {
            dir.open_or_create(&name, spec, Reuse::Migrate(&mut grow().freeze()))
        };
        let made = ask(&old_spec())?;
        assert!(matches!(made.outcome, Done::Created));
        let found = ask(&old_spec())?;
        assert!(matches!(found.outcome, Done::Found));
        assert_eq!(found.map.id()?, made.map.id()?);
        let migrated = ask(&spec());
        if length == 242 {
            let Done::Migrated(migration) = migrated?.outcome else {
                panic!();
            };
            migration.commit()?;
        } else {
            let error = migrated.unwrap_err();
            let length = length + 13;
            assert_eq!(error.cause(), Some(&Cause::NameTooLong { length }));
            assert_eq!(dir.open_as::<Map>(&name)?.id()?, made.map.id()?);
            let elems = found.map.typed::<u32, u64>()?;
            elems.update(&1, &1, ElemFlags::ANY)?;
        }
        assert_eq!(fs.names(), [name]);
    }
    Ok(())
}

fn no_map() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let mut how = grow().freeze();
    let mut each = |name: &str, is_it: &dyn Fn(&Cause) -> bool| {
        let before = fs::symlink_metadata(fs.at(name)).unwrap().ino();
        let names = fs.names();
        for reuse in [
            Reuse::Exact,
            Reuse::Recreate,
            Reuse::Migrate(&mut how),
            Reuse::OpenOnly,
        ] {
            let what = format!("{name} {reuse:?}");
            let error = dir.open_or_create(name, &spec(), reuse).unwrap_err();
            // Nobody has said that something was missing.
            assert_ne!(error.raw_os_error(), Some(libc::EEXIST), "{what}: {error}");
            let dangling = name == "dangling" && what.contains("OpenOnly");
            if !dangling {
                assert!(error.cause().is_some_and(is_it), "{what}: {error}");
            }
            assert_eq!(fs::symlink_metadata(fs.at(name)).unwrap().ino(), before);
            assert_eq!(fs.names(), names, "{what}");
        }
        let error = dir
            .open_or_create(name, &spec(), Reuse::CreateOnly)
            .unwrap_err();
        assert!(
            matches!(error.cause(), Some(Cause::Exists { .. })),
            "{error}"
        );
    };
    dir.create_dir("dir", 0o700)?;
    each("dir", &|cause| matches!(cause, Cause::NotAnObject { .. }));
    dir.pin(prog(), "prog")?;
    each("prog", &|cause| matches!(cause, Cause::WrongKind { .. }));
    dir.pin(spec().create()?, "fits")?;
    symlink("fits", fs.at("symlink"))?;
    each("symlink", &|cause| {
        matches!(cause, Cause::SymbolicLink { .. })
    });
    dir.pin(old_spec().create()?, "other")?;
    symlink("other", fs.at("to_other"))?;
    each("to_other", &|cause| {
        matches!(cause, Cause::SymbolicLink { .. })
    });
    symlink("nothing", fs.at("dangling"))?;
    each("dangling", &|cause| {
        matches!(cause, Cause::SymbolicLink { .. })
    });
    symlink("loop", fs.at("loop"))?;
    each("loop", &|cause| matches!(cause, Cause::SymbolicLink { .. }));
    Ok(())
}

/// It is not there that an entry is lost.
fn no_map_kept() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = old(&dir)?;
    dir.create_dir(KEPT, 0o700)?;
    let error = fails(&dir, &spec(), grow().freeze());
    assert!(matches!(error, Error::Migrate { .. }), "{error:?}");
    assert!(
        matches!(error.cause(), Some(Cause::NotAnObject { .. })),
        "{error}"
    );
    dir.remove_dir(KEPT)?;
    assert_untouched(&fs, &dir, &old)?;
    // Whose it is, is for people to say.
    dir.replace(spec().create()?, NAME)?;
    dir.pin(prog(), KEPT)?;
    let error = fails(&dir, &spec(), grow());
    assert!(
        matches!(error.cause(), Some(Cause::WrongKind { .. })),
        "{error}"
    );
    assert_eq!(error.path(), Some(dir.path().join(KEPT).as_path()));
    let found = dir.open_or_create(NAME, &spec(), Reuse::Exact)?;
    assert!(matches!(found.outcome, Done::Found));
    assert_eq!(fs.names(), [KEPT, NAME]);
    Ok(())
}

fn may_read() -> Outcome {
    let fs = TestFs::detached("777");
    let dir = PinDir::open(fs.root())?;
    let old = old(&dir)?;
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
                assert!(matches!(error, Error::Open { .. }), "{what}: {error}");
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
        assert_untouched(&fs, &dir, &old)?;
    }
    Ok(())
}

/// Whose pin may be written by all and removed by its owner alone: that shows before it is frozen.
fn sticky() -> Outcome {
    let fs = TestFs::detached("1777");
    let dir = PinDir::open(fs.root())?;
    let old = old(&dir)?;
    dir.set_mode(NAME, 0o666)?;
    let is_sticky = |error: &Error| matches!(error.cause(), Some(Cause::Sticky { uid: 0, .. }));
    as_user(CapabilitySet::BPF, || {
        for how in [grow(), grow().freeze()] {
            let error = fails(&dir, &spec(), how);
            let is_known = is_sticky(&error) || error.raw_os_error() == Some(libc::EPERM);
            assert!(is_known, "{error}");
        }
        let error = dir
            .open_or_create(NAME, &spec(), Reuse::Recreate)
            .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        let found = dir.open_or_create(NAME, &old_spec(), Reuse::Migrate(&mut grow()));
        assert!(matches!(found.unwrap().outcome, Done::Found));
    });
    assert_untouched(&fs, &dir, &old)?;
    // Whoever may give files away, and remove what is others', may do it.
    as_user(
        CapabilitySet::BPF | CapabilitySet::CHOWN | CapabilitySet::FOWNER,
        || {
            let made = dir.open_or_create(NAME, &spec(), Reuse::Migrate(&mut grow().freeze()));
            let Done::Migrated(migration) = made.unwrap().outcome else {
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

fn modes() -> Outcome {
    let fs = TestFs::detached("777");
    let dir = PinDir::open(fs.root())?;
    drop(old(&dir)?);
    let as_it_is = |name: &str| {
        let stat = dir.metadata(name).unwrap();
        (stat.mode(), stat.uid(), stat.gid())
    };
    let (user, group) = (1234, 4321);
    dir.set_owner(NAME, Some(user), Some(group))?;
    dir.set_mode(NAME, 0o664)?;
    let mut how = grow();
    let made = dir.open_or_create(NAME, &spec(), Reuse::Migrate(&mut how))?;
    let Done::Migrated(migration) = made.outcome else {
        panic!("{made:?}");
    };
    assert_eq!(as_it_is(NAME), (0o664, user, group));
    // Whoever might open the old one may go on with it, or undo it.
    assert_eq!(as_it_is(KEPT), (0o664, user, group));
    drop(migration);
    as_user(CapabilitySet::BPF, || {
        let found = dir.open_or_create(NAME, &spec(), Reuse::Migrate(&mut grow()));
        let Done::Resumed(migration) = found.unwrap().outcome else {
            panic!();
        };
        drop(migration);
    });
    let found = dir.open_or_create(NAME, &spec(), Reuse::Migrate(&mut how))?;
    let Done::Resumed(migration) = found.outcome else {
        panic!("{found:?}");
    };
    migration.roll_back()?;
    assert_eq!(as_it_is(NAME), (0o664, user, group));
    let made = dir.open_or_create(NAME, &spec(), Reuse::Recreate)?;
    assert!(matches!(made.outcome, Done::Recreated { .. }));
    assert_eq!(as_it_is(NAME), (0o664, user, group));
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

/// Its directory is everybody's; but the new pin cannot be the owner's, so there is none.
fn owner() -> Outcome {
    let fs = TestFs::detached("777");
    let dir = PinDir::open(fs.root())?;
    let parent = dir.create_dir("sub", 0o777)?;
    let old = old(&parent)?;
    parent.set_mode(NAME, 0o666)?;
    // Not sticky, so anybody may take the name away.
    assert_eq!(parent.own_metadata()?.mode(), 0o777);
    as_user(CapabilitySet::BPF, || {
        for how in [grow(), grow().freeze()] {
            let error = fails(&parent, &spec(), how);
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        }
        let error = parent.open_or_create(NAME, &spec(), Reuse::Recreate);
        assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EPERM));
    });
    assert_eq!(fs::read_dir(fs.at("sub"))?.count(), 1);
    assert_eq!(parent.identity(NAME)?, old.identity()?);
    old.typed::<u32, u64>()?.update(&1, &1, ElemFlags::EXIST)?;
    Ok(())
}

/// While the new one is filled.
fn removed() -> Outcome {
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
                drop(old(&dir)?);
            }
            let what = format!("{reuse:?}");
            let gone = dir
                .open_or_create_with::<Error>(NAME, &spec(), reuse, |_| root.remove_dir_all("dir"));
            let error = gone.unwrap_err();
            let is_removed = matches!(error.cause(), Some(Cause::Removed { .. }));
            assert!(is_removed, "{what}: {error}");
            assert!(fs.names().is_empty(), "{what}");
            // And when it is gone from the start.
            let error = dir.open_or_create(NAME, &spec(), Reuse::Exact).unwrap_err();
            assert!(
                matches!(error.cause(), Some(Cause::Removed { .. })),
                "{error}"
            );
        }
    }
    Ok(())
}

fn read_only() -> Outcome {
    use rustix::mount::{MountFlags, mount_bind, mount_remount};
    use rustix::mount::{MoveMountFlags, move_mount};
    own_mounts(|| {
        let fs = TestFs::detached("700");
        let place = std::env::temp_dir().join(format!("bpf-pin-reuse-{}", std::process::id()));
        let other = place.with_extension("ro");
        fs::create_dir(&place)?;
        fs::create_dir(&other)?;
        let end = || -> Outcome {
            let mount = fs.mount().expect("a mount");
            move_mount(
                mount,
                c"",
                rustix::fs::CWD,
                &place,
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
            )?;
            let dir = PinDir::open(&place)?;
            let old = old(&dir)?;
            mount_bind(&place, &other)?;
            mount_remount(&other, MountFlags::BIND | MountFlags::RDONLY, "")?;
            let read_only = PinDir::open(&other)?;
            let found = read_only.open_or_create(NAME, &old_spec(), Reuse::Migrate(&mut grow()))?;
            assert!(matches!(found.outcome, Done::Found));
            let mut how = grow().freeze();
            for (name, reuse) in [
                ("none", Reuse::Exact),
                (NAME, Reuse::Recreate),
                (NAME, Reuse::Migrate(&mut how)),
            ] {
                let what = format!("{name} {reuse:?}");
                let error = read_only.open_or_create(name, &spec(), reuse).unwrap_err();
                let is_it = matches!(error.cause(), Some(Cause::ReadOnlyFileSystem { .. }));
                assert!(is_it, "{what}: {error}");
                assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{what}");
            }
            assert_eq!(dir.identity(NAME)?, old.identity()?);
            old.typed::<u32, u64>()?.update(&1, &1, ElemFlags::EXIST)?;
            let names: Vec<_> = dir.entries()?.map(|entry| entry.unwrap()).collect();
            let ours = names
                .iter()
                .filter(|entry| !entry.name().to_string_lossy().contains('.'));
            assert_eq!(ours.count(), 1);
            Ok(())
        }();
        let _ = rustix::mount::unmount(&other, rustix::mount::UnmountFlags::DETACH);
        let _ = rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH);
        fs::remove_dir(&place)?;
        fs::remove_dir(&other)?;
        end
    })
}

fn read_only_instance() -> Outcome {
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
        let is_it = matches!(error.cause(), Some(Cause::ReadOnlyFileSystem { .. }));
        assert!(is_it, "{error}");
    }
    Ok(())
}

fn no_create() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = old(&dir)?;
    denied(
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
                assert!(matches!(error, Error::CreateMap { .. }), "{error:?}");
                assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            }
            let found = dir.open_or_create(NAME, &old_spec(), Reuse::Exact);
            assert!(matches!(found.unwrap().outcome, Done::Found));
        },
    );
    assert_untouched(&fs, &dir, &old)
}

/// That it is refused is not taken for having been done.
fn no_freeze() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = old(&dir)?;
    denied(
        Some(bpf_pin::abi::BPF_MAP_FREEZE),
        libc::EPERM as u32,
        || {
            let error = fails(&dir, &spec(), grow().freeze());
            let Error::Migrate { error: inner, .. } = &error else {
                panic!("{error:?}");
            };
            assert!(matches!(**inner, Error::Freeze { .. }), "{error}");
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        },
    );
    assert_untouched(&fs, &dir, &old)
}

fn patience() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    drop(old(&dir)?);
    let mut how = grow().patience(Duration::MAX);
    let made = dir.open_or_create(NAME, &spec(), Reuse::Migrate(&mut how))?;
    let Done::Migrated(migration) = made.outcome else {
        panic!("{made:?}");
    };
    // Another version waits for its commit, for as long as it likes to.
    let back = Migrate::new(|key: &u32, value: &[u64; 2]| Some((*key, value[0])));
    let mut back = back.patience(Duration::from_millis(250));
    let begin = std::time::Instant::now();
    let error = dir
        .open_or_create(NAME, &old_spec(), Reuse::Migrate(&mut back))
        .unwrap_err();
    assert!(begin.elapsed() >= Duration::from_millis(250));
    assert_eq!(error.cause(), Some(&Cause::Locked), "{error}");
    let is_lock = matches!(
        error,
        Error::Directory {
            operation: DirOperation::Lock,
            ..
        }
    );
    assert!(is_lock, "{error:?}");
    migration.commit()?;
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

/// As few as there may be: it is done, or nothing is.
fn few_descriptors() {
    let fs = TestFs::new();
    let root = PinDir::open(fs.root()).unwrap();
    let limits = getrlimit(Resource::Nofile);
    let _ = std::hash::RandomState::new();
    for kind in 0..4 {
        let mut done = 0;
        for more in 0..16 {
            let dir = root.create_dir("dir", 0o700).unwrap();
            let map = (kind > 0).then(|| old(&dir).unwrap().identity().unwrap());
            let next = rustix::io::fcntl_dupfd_cloexec(&dir, 0).unwrap();
            let first_free = u64::from(std::os::fd::AsRawFd::as_raw_fd(&next) as u32);
            drop(next);
            let few = Rlimit {
                current: Some(first_free + more),
                ..limits
            };
            setrlimit(Resource::Nofile, few).unwrap();
            let mut how = if kind == 3 { grow().freeze() } else { grow() };
            let reuse = match kind {
                0 => Reuse::Exact,
                1 => Reuse::Recreate,
                _ => Reuse::Migrate(&mut how),
            };
            let made = dir.open_or_create(NAME, &spec(), reuse);
            setrlimit(Resource::Nofile, limits).unwrap();
            let what = format!("{kind} with {more}: {made:?}");
            let names: Vec<_> = fs::read_dir(fs.at("dir"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            match made {
                Ok(made) => {
                    let id = made.map.identity().unwrap();
                    assert_eq!(dir.identity(NAME).unwrap(), id, "{what}");
                    if let Done::Migrated(migration) = made.outcome {
                        migration.commit().unwrap();
                    }
                    done += 1;
                }
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{what}");
                    assert_eq!(dir.identity(NAME).ok(), map, "{what}");
                    // What is left of it is the old one's other name.
                    let stray = names.iter().find(|name| **name != *NAME && **name != *KEPT);
                    assert_eq!(stray, None, "{what}");
                }
            }
            let mut how = grow();
            let again = dir.open_or_create(NAME, &spec(), Reuse::Migrate(&mut how));
            if let Done::Migrated(migration) = again.unwrap().outcome {
                migration.commit().unwrap();
            }
            let left = fs::read_dir(fs.at("dir")).unwrap().count();
            assert_eq!(left, 1, "{what}");
            root.remove_dir_all("dir").unwrap();
        }
        assert!(done > 4, "{kind}: {done}");
    }
}

/// A write through the mapping could not be kept out, so there is no freezing it.
fn mapped() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let array =
        |value_size| MapSpec::new(MapType::ARRAY, 4, value_size, 4).flags(MapFlags::MMAPABLE);
    let old = dir.open_or_create(NAME, &array(8), Reuse::Exact)?.map;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&old.as_fd());
    // SAFETY: a mapping of its own, of the map's first page.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            32,
            protection,
            libc::MAP_SHARED,
            fd,
            0,
        )
    };
    assert_ne!(at, libc::MAP_FAILED);
    let error = fails(&dir, &array(16), grow().freeze());
    let Error::Migrate { error: inner, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(matches!(**inner, Error::Freeze { .. }), "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY), "{error}");
    assert_untouched(&fs, &dir, &old)?;
    // Without, it is copied.
    let mut how = grow();
    let made = dir.open_or_create(NAME, &array(16), Reuse::Migrate(&mut how))?;
    assert!(matches!(made.outcome, Done::Migrated(_)));
    // SAFETY: nobody uses it.
    unsafe { libc::munmap(at, 32) };
    Ok(())
}

/// Nothing is created where it is not known that nothing is there.
fn only_enoent() -> Outcome {
    let fs = TestFs::new();
    let root = fs.root();
    for errno in (1..=133).filter(|&errno| errno != libc::ENOENT) {
        denied(Some(bpf_pin::abi::BPF_OBJ_GET), errno as u32, || {
            let dir = PinDir::open(root).unwrap();
            let mut how = grow();
            for reuse in [
                Reuse::Exact,
                Reuse::Recreate,
                Reuse::Migrate(&mut how),
                Reuse::OpenOnly,
            ] {
                let error = dir.open_or_create(NAME, &spec(), reuse).unwrap_err();
                assert!(matches!(error, Error::Open { .. }), "{errno}: {error}");
                let is_told = error.raw_os_error() == Some(errno);
                assert!(is_told || error.cause().is_some(), "{errno}: {error}");
            }
        });
        assert!(fs.names().is_empty(), "{errno}");
    }
    Ok(())
}

/// With EIO, which no one takes for anything else.
fn any_call() -> Outcome {
    use bpf_pin::abi;
    let bpf = |cmd| (libc::SYS_bpf, Some((0, cmd)));
    let fcntl = |cmd: i32| (libc::SYS_fcntl, Some((1, cmd as u32)));
    let calls = [
        bpf(abi::BPF_OBJ_GET),
        bpf(abi::BPF_OBJ_PIN),
        bpf(abi::BPF_OBJ_GET_INFO_BY_FD),
        bpf(abi::BPF_MAP_CREATE),
        bpf(abi::BPF_MAP_FREEZE),
        bpf(abi::BPF_MAP_GET_NEXT_KEY),
        bpf(abi::BPF_MAP_LOOKUP_ELEM),
        bpf(abi::BPF_MAP_UPDATE_ELEM),
        fcntl(libc::F_OFD_SETLK),
        fcntl(libc::F_OFD_GETLK),
        (libc::SYS_openat, None),
        (libc::SYS_renameat2, None),
    ];
    for (number, (call, argument)) in calls.into_iter().enumerate() {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let old = old(&dir)?;
        let failed = answered(call, argument, libc::EIO as u32, || {
            let ask = |reuse| dir.open_or_create(NAME, &spec(), reuse);
            let of_entries = (4..8).contains(&number);
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
        assert_untouched(&fs, &dir, &old)?;
    }
    // What cannot be taken away is left, and found again.
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = old(&dir)?;
    #[cfg(target_arch = "x86_64")]
    let unlinks = [libc::SYS_unlinkat, libc::SYS_unlink];
    #[cfg(not(target_arch = "x86_64"))]
    let unlinks = [libc::SYS_unlinkat];
    for (number, call) in unlinks.into_iter().enumerate() {
        answered(call, None, libc::EIO as u32, || {
            let made = dir.open_or_create(NAME, &spec(), Reuse::Migrate(&mut grow()));
            let (Done::Migrated(migration) | Done::Resumed(migration)) = made.unwrap().outcome
            else {
                panic!();
            };
            assert_eq!(migration.old().id().unwrap(), old.id().unwrap());
            // The library calls the first.
            if number == 0 {
                let failed = migration.commit().unwrap_err();
                assert_eq!(failed.error().raw_os_error(), Some(libc::EIO));
                drop(failed.into_object());
            }
        });
    }
    let mut how = grow();
    let again = dir.open_or_create(NAME, &spec(), Reuse::Migrate(&mut how))?;
    let Done::Resumed(migration) = again.outcome else {
        panic!("{again:?}");
    };
    migration.commit()?;
    drop(dir);
    let dir = PinDir::open(fs.root())?;
    assert!(dir.sweep_stale()?.failed.is_empty());
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}
