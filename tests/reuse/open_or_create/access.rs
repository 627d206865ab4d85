//! The access and the `max_entries` of a spec apply whether the map is opened or created.

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::ElemFlags;
use bpf_pin::reuse::{MapOutcome, Migrate, Reuse};
use bpf_pin::types::MapFlags;
use bpf_pin::{Access, Map, MapSpec, MapType, PinDir, PinnedMap};
use common::*;
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::thread::CapabilitySet;

use super::{grow, larger, put, spec};

/// The flags of a spec, the mode of the descriptor, and the access.
const ACCESSES: [(MapFlags, OFlags, Access); 3] = [
    (MapFlags::empty(), OFlags::RDWR, Access::ReadWrite),
    (MapFlags::RDONLY, OFlags::RDONLY, Access::ReadOnly),
    (MapFlags::WRONLY, OFlags::WRONLY, Access::WriteOnly),
];

fn mode(map: &Map) -> OFlags {
    fcntl_getfl(map).expect("the status flags") & OFlags::ACCMODE
}

/// Asserts that the map refuses what it was not opened for.
fn assert_restricted(map: &Map, opened: Access) -> Outcome {
    let elems = map.elements::<u32, u64>()?;
    let refused = match opened {
        Access::ReadWrite => return Ok(()),
        Access::ReadOnly => elems.update(&1, &1, ElemFlags::ANY),
        Access::WriteOnly => elems.lookup(&1).map(drop),
    };
    let error = refused.expect_err("an operation outside the access");
    assert_eq!(error.cause(), Some(&Cause::MapAccess { opened }));
    Ok(())
}

#[common::test(super::ROOT)]
fn the_descriptor_has_the_access_of_the_spec() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    for (flags, expected, access) in ACCESSES {
        let name = format!("flows_{}", flags.bits());
        let spec = spec().flags(flags);
        let made = dir.open_or_create(&name, &spec, Reuse::Exact)?;
        assert!(matches!(made.outcome, MapOutcome::Created), "{made:?}");
        assert_eq!(mode(&made.map), expected);
        for reuse in [
            Reuse::Exact,
            Reuse::Recreate,
            Reuse::Migrate(&mut grow()),
            Reuse::OpenOnly,
        ] {
            let policy = format!("{reuse:?} {access:?}");
            let found = dir.open_or_create(&name, &spec, reuse)?;
            assert!(
                matches!(found.outcome, MapOutcome::Found),
                "{policy}: {found:?}"
            );
            assert_eq!(mode(&found.map), expected, "{policy}");
            assert_restricted(&found.map, access)?;
        }
        let by_path = PinnedMap::open_or_create(fs.at(&name), &spec, Reuse::Exact)?;
        assert_eq!(mode(&by_path.map), expected);
        assert_restricted(&by_path.map, access)?;
        let larger = larger().flags(flags);
        let made = dir.open_or_create(&name, &larger, Reuse::Recreate)?;
        assert!(
            matches!(made.outcome, MapOutcome::Recreated { .. }),
            "{made:?}"
        );
        assert_eq!(mode(&made.map), expected);
    }
    // BPF_F_RDONLY and BPF_F_WRONLY together are rejected: no access corresponds to them.
    let neither = spec().flags(MapFlags::RDONLY | MapFlags::WRONLY);
    for name in ["flows_0", "new"] {
        for reuse in [Reuse::Exact, Reuse::Recreate, Reuse::CreateOnly] {
            let error = dir.open_or_create(name, &neither, reuse).unwrap_err();
            assert_eq!(error.operation(), Operation::CreateMap, "{error}");
            let Some(Cause::InvalidArgument { what, .. }) = error.cause() else {
                panic!("{error}");
            };
            assert_eq!(*what, "map_flags");
        }
    }
    assert_eq!(fs.names().len(), 3);
    Ok(())
}

/// The old map is opened for reading and writing in every case; the new one needs only write access.
#[common::test(super::ROOT)]
fn a_migrated_map_has_the_access_of_the_spec() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = dir.open_or_create("flows", &spec(), Reuse::Exact)?.map;
    put(&old, 7, 8)?;
    let writer = larger().flags(MapFlags::WRONLY);
    let made = dir.open_or_create("flows", &writer, Reuse::Migrate(&mut grow().freeze()))?;
    let MapOutcome::Migrated(migration) = made.outcome else {
        panic!("{made:?}");
    };
    assert_eq!(mode(&made.map), OFlags::WRONLY);
    assert_eq!(mode(migration.old()), OFlags::RDWR);
    drop(migration);
    let read = dir.get::<Map>("flows")?;
    let expected = Some([8, 1]);
    assert_eq!(read.elements::<u32, [u64; 2]>()?.lookup(&7)?, expected);
    // Any access can resume it.
    for (flags, expected, _) in ACCESSES {
        let again = larger().flags(flags);
        let found = dir.open_or_create("flows", &again, Reuse::Migrate(&mut grow()))?;
        let MapOutcome::Resumed(migration) = found.outcome else {
            panic!("{found:?}");
        };
        assert_eq!(mode(&found.map), expected);
        assert_eq!(migration.old().id()?, old.id()?);
    }
    // Entries cannot be copied to a map that is opened for reading only.
    let reader = spec().flags(MapFlags::RDONLY);
    let mut shrink = Migrate::new(|key: &u32, value: &[u64; 2]| Some((*key, value[0])));
    let error = dir.open_or_create("flows", &reader, Reuse::Migrate(&mut shrink));
    let error = error.expect_err("a new map opened for reading");
    assert_eq!(error.during(), Some(Operation::Migrate), "{error}");
    let opened = Access::ReadOnly;
    assert_eq!(error.cause(), Some(&Cause::MapAccess { opened }));
    assert_eq!(dir.get::<Map>("flows")?.id()?, read.id()?);
    Ok(())
}

/// A read-only spec needs only read permission on the pin, and a write-only spec only write permission.
#[common::test(super::USER)]
fn permission_for_the_access_of_the_spec_suffices() -> Outcome {
    let fs = TestFs::detached("755");
    let dir = PinDir::open(fs.root())?;
    drop(dir.open_or_create("flows", &spec(), Reuse::Exact)?);
    for (mode, granted) in [(0o444, MapFlags::RDONLY), (0o222, MapFlags::WRONLY)] {
        dir.set_mode("flows", mode)?;
        as_user(CapabilitySet::BPF, || {
            for (flags, ..) in ACCESSES {
                for reuse in [
                    Reuse::Exact,
                    Reuse::Recreate,
                    Reuse::Migrate(&mut grow()),
                    Reuse::OpenOnly,
                ] {
                    let what = format!("{mode:o} {flags:?} {reuse:?}");
                    let found = dir.open_or_create("flows", &spec().flags(flags), reuse);
                    if flags == granted {
                        let found = found.expect(&what);
                        assert!(matches!(found.outcome, MapOutcome::Found), "{what}");
                        continue;
                    }
                    let error = found.expect_err(&what);
                    assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{what}: {error}");
                }
            }
        });
    }
    Ok(())
}

/// A created map has the `max_entries` that `MapSpec::compare` expects of a pinned one.
#[common::test(super::ROOT)]
fn max_entries_are_adjusted_as_they_are_compared() -> Outcome {
    // SAFETY: sysconf takes and returns numbers.
    let (page, cpus) = unsafe {
        (
            libc::sysconf(libc::_SC_PAGESIZE) as u32,
            libc::sysconf(libc::_SC_NPROCESSORS_CONF) as u32,
        )
    };
    let ring = |entries| MapSpec::new(MapType::RINGBUF, 0, 0, entries);
    let per_cpu_sized = |map_type, entries| MapSpec::new(map_type, 4, 4, entries);
    let mut rows = vec![
        (ring(page + 1), 2 * page),
        (ring(0), page),
        (ring(4 * page), 4 * page),
        // Other types are not adjusted.
        (MapSpec::new(MapType::HASH, 4, 8, page + 1), page + 1),
    ];
    for map_type in [MapType::CPUMAP, MapType::PERF_EVENT_ARRAY] {
        rows.extend([
            (per_cpu_sized(map_type, 0), cpus),
            (per_cpu_sized(map_type, 1), 1),
            (per_cpu_sized(map_type, cpus + 7), cpus),
        ]);
    }
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    for (at, (spec, expected)) in rows.into_iter().enumerate() {
        let name = format!("map{at}");
        let made = dir.open_or_create(&name, &spec, Reuse::Exact)?;
        assert!(matches!(made.outcome, MapOutcome::Created), "{made:?}");
        assert_eq!(made.map.info()?.max_entries, expected, "{spec:?}");
        let found = dir.open_or_create(&name, &spec, Reuse::Exact)?;
        assert!(matches!(found.outcome, MapOutcome::Found), "{found:?}");
        // A map created with the adjusted number matches too.
        let like = MapSpec::of(&made.map)?.create()?;
        assert_eq!(spec.compare(&like)?, []);
    }
    // MapSpec::create does not adjust.
    for spec in [ring(page + 1), per_cpu_sized(MapType::PERF_EVENT_ARRAY, 0)] {
        let error = spec.create().expect_err("an invalid max_entries");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    }
    let kept = per_cpu_sized(MapType::PERF_EVENT_ARRAY, cpus + 7).create()?;
    assert_eq!(kept.info()?.max_entries, cpus + 7);
    // A number that would overflow is left for the kernel to refuse.
    let error = dir.open_or_create("huge", &ring(u32::MAX), Reuse::Exact);
    assert_eq!(error.unwrap_err().operation(), Operation::CreateMap);
    Ok(())
}
