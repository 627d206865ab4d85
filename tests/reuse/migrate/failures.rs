//! Failures of `Reuse::Migrate`: the error names the cause, and the pin keeps the old map.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::Duration;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::ElemFlags;
use bpf_pin::reuse::{MapOutcome, Migrate, Reuse};
use bpf_pin::types::MapFlags;
use bpf_pin::{Access, Map, MapSpec, MapType, PinDir};
use common::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::old_map::{NAME, assert_unchanged, create_old, grow, migrate_error, old_spec, spec};

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

#[common::test(PINS)]
fn a_new_map_that_is_too_small_is_reported() -> Outcome {
    let with = |map_type, max_entries| MapSpec::new(map_type, 4, 16, max_entries);
    let full = Cause::MaxEntries { max_entries: 9 };
    let beyond = Cause::IndexOutOfRange {
        index: 9,
        max_entries: 9,
    };
    for (spec, errno, cause) in [
        (with(MapType::HASH, 9), libc::E2BIG, &full),
        (
            with(MapType::HASH, 9).flags(MapFlags::NO_PREALLOC),
            libc::E2BIG,
            &full,
        ),
        (with(MapType::ARRAY, 9), libc::E2BIG, &beyond),
        (
            MapSpec::new(MapType::LPM_TRIE, 8, 16, 9).flags(MapFlags::NO_PREALLOC),
            libc::ENOSPC,
            &full,
        ),
    ] {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let old = create_old(&dir)?;
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
        let error = migrate_error(&dir, &spec, how.freeze());
        let path = dir.path().join(NAME);
        assert_eq!(error.cause(), Some(cause));
        assert_eq!(error.raw_os_error(), Some(errno), "{error}");
        assert_eq!(error.path(), Some(path.as_path()));
        assert_eq!(error.during(), Some(Operation::Migrate), "{error}");
        assert_eq!(error.operation(), Operation::UpdateBatch, "{error}");
        assert_unchanged(&fs, &dir, &old)?;
    }
    Ok(())
}

/// An entry is added between the passes.
#[common::test(PINS)]
fn a_new_map_that_becomes_too_small_is_reported() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = create_old(&dir)?;
    let mut seen = 0;
    let how = Migrate::new(|key: &u32, value: &u64| {
        seen += 1;
        if seen == 10 {
            let elems = old.elements::<u32, u64>().unwrap();
            elems.update(&100, &1, ElemFlags::ANY).unwrap();
        }
        Some((*key, [*value; 2]))
    });
    let small = MapSpec::new(MapType::HASH, 4, 16, 10);
    let error = migrate_error(&dir, &small, how);
    assert_eq!(error.cause(), Some(&Cause::MaxEntries { max_entries: 10 }));
    assert_unchanged(&fs, &dir, &old)
}

#[common::test(PINS)]
fn sizes_of_the_function_must_match_the_maps() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = create_old(&dir)?;
    let check = |how: Migrate<'_>, what, expected, found| {
        let error = migrate_error(&dir, &spec(), how.freeze());
        let cause = Cause::Size {
            what,
            expected,
            found,
        };
        assert_eq!(error.cause(), Some(&cause), "{error}");
        assert_eq!(error.during(), Some(Operation::Migrate));
        assert_eq!(error.raw_os_error(), None);
        assert_unchanged(&fs, &dir, &old)
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

/// Entries cannot be copied to a descriptor that is opened for reading.
#[common::test(PINS)]
fn a_read_only_spec_is_rejected() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = create_old(&dir)?;
    let error = migrate_error(&dir, &spec().flags(MapFlags::RDONLY), grow().freeze());
    let opened = Access::ReadOnly;
    assert_eq!(error.cause(), Some(&Cause::MapAccess { opened }), "{error}");
    assert_unchanged(&fs, &dir, &old)
}

/// The backup's name is 22 bytes longer.
#[common::test(PINS)]
fn a_name_that_is_too_long_for_its_backup_is_reported() -> Outcome {
    for length in [233, 234, 255] {
        let fs = TestFs::new();
        let dir = PinDir::open(fs.root())?;
        let name = "n".repeat(length);
        let open = |spec: &MapSpec<'_>| {
            dir.open_or_create(&name, spec, Reuse::Migrate(&mut grow().freeze()))
        };
        let made = open(&old_spec())?;
        assert!(matches!(made.outcome, MapOutcome::Created));
        let found = open(&old_spec())?;
        assert!(matches!(found.outcome, MapOutcome::Found));
        assert_eq!(found.map.id()?, made.map.id()?);
        let migrated = open(&spec());
        if length == 233 {
            let MapOutcome::Migrated(migration) = migrated?.outcome else {
                panic!();
            };
            migration.commit()?;
        } else {
            let error = migrated.unwrap_err();
            let length = length + 22;
            assert_eq!(
                error.cause(),
                Some(&Cause::TooLong {
                    what: "name",
                    length,
                    limit: 255
                })
            );
            assert_eq!(dir.get::<Map>(&name)?.id()?, made.map.id()?);
            let elems = found.map.elements::<u32, u64>()?;
            elems.update(&1, &1, ElemFlags::ANY)?;
        }
        assert_eq!(fs.names(), [name]);
    }
    Ok(())
}

#[common::test(PINS)]
fn a_pin_that_is_not_a_map_is_reported_and_kept() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let mut how = grow().freeze();
    let mut each = |name: &str, is_expected: &dyn Fn(&Cause) -> bool| {
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
            // The name was never found missing, so nothing was created.
            assert_ne!(error.raw_os_error(), Some(libc::EEXIST), "{what}: {error}");
            let dangling = name == "dangling" && what.contains("OpenOnly");
            if !dangling {
                assert!(error.cause().is_some_and(is_expected), "{what}: {error}");
            }
            assert_eq!(fs::symlink_metadata(fs.at(name)).unwrap().ino(), before);
            assert_eq!(fs.names(), names, "{what}");
        }
        let error = dir
            .open_or_create(name, &spec(), Reuse::CreateOnly)
            .unwrap_err();
        assert_cause_matches!(error, Cause::Exists { .. });
    };
    dir.create_dir("dir", 0o700)?;
    each("dir", &|cause| matches!(cause, Cause::NotAnObject { .. }));
    dir.pin(&prog(), "prog")?;
    each("prog", &|cause| matches!(cause, Cause::WrongKind { .. }));
    dir.pin(&spec().create()?, "fits")?;
    symlink("fits", fs.at("symlink"))?;
    each("symlink", &|cause| {
        matches!(cause, Cause::SymbolicLink { .. })
    });
    dir.pin(&old_spec().create()?, "other")?;
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

#[common::test(PINS)]
fn other_objects_under_the_name_of_the_backup_are_ignored() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let id = dir.open_or_create(NAME, &spec(), Reuse::Exact)?.map.id()?;
    let kept = backup_name(NAME, id);
    let finds = || -> Outcome {
        let found = dir.open_or_create(NAME, &spec(), Reuse::Migrate(&mut grow()))?;
        assert!(matches!(found.outcome, MapOutcome::Found), "{found:?}");
        assert_eq!(found.map.id()?, id);
        Ok(())
    };
    dir.create_dir(&kept, 0o700)?;
    finds()?;
    dir.remove_dir(&kept)?;
    dir.pin(&prog(), &kept)?;
    finds()?;
    dir.unlink(&kept)?;
    symlink(NAME, fs.at(&kept))?;
    finds()?;
    dir.unlink(&kept)?;
    // The same map, as a killed rollback leaves it.
    dir.link(NAME, &kept)?;
    finds()?;
    assert_eq!(fs.names(), [kept.as_str(), NAME]);
    Ok(())
}

#[common::test(PINS)]
fn patience_is_honoured_and_may_be_unlimited() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    drop(create_old(&dir)?);
    let mut how = grow().patience(Duration::MAX);
    let made = dir.open_or_create(NAME, &spec(), Reuse::Migrate(&mut how))?;
    let MapOutcome::Migrated(migration) = made.outcome else {
        panic!("{made:?}");
    };
    // The old version waits for the commit as long as its patience lasts.
    let back = Migrate::new(|key: &u32, value: &[u64; 2]| Some((*key, value[0])));
    let mut back = back.patience(Duration::from_millis(250));
    let begin = std::time::Instant::now();
    let error = dir
        .open_or_create(NAME, &old_spec(), Reuse::Migrate(&mut back))
        .unwrap_err();
    assert!(begin.elapsed() >= Duration::from_millis(250));
    assert_eq!(error.cause(), Some(&Cause::Migrating), "{error}");
    let is_lock = error.operation() == Operation::Lock;
    assert!(is_lock, "{error:?}");
    migration.commit()?;
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

/// With each limit of open descriptors the call succeeds, or it fails and changes nothing.
#[common::test_alone(PINS)]
fn a_lack_of_descriptors_changes_nothing() {
    let fs = TestFs::new();
    let root = PinDir::open(fs.root()).unwrap();
    let limits = getrlimit(Resource::Nofile);
    let _ = std::hash::RandomState::new();
    for kind in 0..4 {
        let mut done = 0;
        for more in 0..16 {
            let dir = root.create_dir("dir", 0o700).unwrap();
            let map = (kind > 0).then(|| create_old(&dir).unwrap().identity().unwrap());
            let next = rustix::io::fcntl_dupfd_cloexec(&dir, 0).unwrap();
            let first_free = u64::from(next.as_raw_fd() as u32);
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
                    if let MapOutcome::Migrated(migration) = made.outcome {
                        migration.commit().unwrap();
                    }
                    done += 1;
                }
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{what}");
                    assert_eq!(dir.identity(NAME).ok(), map, "{what}");
                    let stray = names.iter().find(|name| **name != *NAME);
                    assert_eq!(stray, None, "{what}");
                }
            }
            let mut how = grow();
            let again = dir.open_or_create(NAME, &spec(), Reuse::Migrate(&mut how));
            if let MapOutcome::Migrated(migration) = again.unwrap().outcome {
                migration.commit().unwrap();
            }
            let left = fs::read_dir(fs.at("dir")).unwrap().count();
            assert_eq!(left, 1, "{what}");
            root.remove_dir_all("dir").unwrap();
        }
        assert!(done > 4, "{kind}: {done}");
    }
}

/// Freezing would not stop writes through the mapping, so the kernel refuses it.
#[common::test(PINS)]
fn a_map_that_is_mapped_for_writing_is_migrated_only_without_a_freeze() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let array =
        |value_size| MapSpec::new(MapType::ARRAY, 4, value_size, 4).flags(MapFlags::MMAPABLE);
    let old = dir.open_or_create(NAME, &array(8), Reuse::Exact)?.map;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let fd = old.as_fd().as_raw_fd();
    // SAFETY: a new mapping of the map's first page.
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
    let error = migrate_error(&dir, &array(16), grow().freeze());
    assert_eq!(error.during(), Some(Operation::Migrate));
    assert_eq!(error.operation(), Operation::Freeze, "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY), "{error}");
    assert_unchanged(&fs, &dir, &old)?;
    // Without a freeze it is migrated.
    let mut how = grow();
    let made = dir.open_or_create(NAME, &array(16), Reuse::Migrate(&mut how))?;
    assert!(matches!(made.outcome, MapOutcome::Migrated(_)));
    // SAFETY: nothing uses the mapping.
    unsafe { libc::munmap(at, 32) };
    Ok(())
}
