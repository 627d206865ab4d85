//! What a spec says of the descriptor, and of the entries, holds whether the map is found or made.

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::ElemFlags;
use bpf_pin::reuse::{MapOutcome as Done, Migrate, Reuse};
use bpf_pin::types::MapFlags;
use bpf_pin::{Access, Map, MapSpec, MapType, PinDir, PinnedMap};
use common::*;
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::thread::CapabilitySet;

use super::{grow, larger, put, spec};

const BOTH: [(MapFlags, OFlags, Access); 3] = [
    (MapFlags::empty(), OFlags::RDWR, Access::ReadWrite),
    (MapFlags::RDONLY, OFlags::RDONLY, Access::ReadOnly),
    (MapFlags::WRONLY, OFlags::WRONLY, Access::WriteOnly),
];

fn mode(map: &Map) -> OFlags {
    fcntl_getfl(map).expect("its flags") & OFlags::ACCMODE
}

/// What is refused to a descriptor that is not for everything.
fn assert_restrained(map: &Map, opened: Access) -> Outcome {
    let elems = map.elements::<u32, u64>()?;
    let refused = match opened {
        Access::ReadWrite => return Ok(()),
        Access::ReadOnly => elems.update(&1, &1, ElemFlags::ANY),
        Access::WriteOnly => elems.lookup(&1).map(drop),
    };
    let error = refused.expect_err("what it was not opened for");
    assert_eq!(error.cause(), Some(&Cause::MapAccess { opened }));
    Ok(())
}

#[common::test(super::ROOT)]
fn opened_for_what_is_asked() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    for (flags, expected, access) in BOTH {
        let name = format!("flows_{}", flags.bits());
        let spec = spec().flags(flags);
        let made = dir.open_or_create(&name, &spec, Reuse::Exact)?;
        assert!(matches!(made.outcome, Done::Created), "{made:?}");
        assert_eq!(mode(&made.map), expected);
        for reuse in [
            Reuse::Exact,
            Reuse::Recreate,
            Reuse::Migrate(&mut grow()),
            Reuse::OpenOnly,
        ] {
            let policy = format!("{reuse:?} {access:?}");
            let found = dir.open_or_create(&name, &spec, reuse)?;
            assert!(matches!(found.outcome, Done::Found), "{policy}: {found:?}");
            assert_eq!(mode(&found.map), expected, "{policy}");
            assert_restrained(&found.map, access)?;
        }
        let by_path = PinnedMap::open_or_create(fs.at(&name), &spec, Reuse::Exact)?;
        assert_eq!(mode(&by_path.map), expected);
        assert_restrained(&by_path.map, access)?;
        let larger = larger().flags(flags);
        let made = dir.open_or_create(&name, &larger, Reuse::Recreate)?;
        assert!(matches!(made.outcome, Done::Recreated { .. }), "{made:?}");
        assert_eq!(mode(&made.map), expected);
    }
    // For neither there is none: what was found would be for more than what is made.
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

/// The old map is read, whatever the new one is for; and to write is all that the new one asks for.
#[common::test(super::ROOT)]
fn migrated_for_what_is_asked() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let old = dir.open_or_create("flows", &spec(), Reuse::Exact)?.map;
    put(&old, 7, 8)?;
    let writer = larger().flags(MapFlags::WRONLY);
    let made = dir.open_or_create("flows", &writer, Reuse::Migrate(&mut grow().freeze()))?;
    let Done::Migrated(migration) = made.outcome else {
        panic!("{made:?}");
    };
    assert_eq!(mode(&made.map), OFlags::WRONLY);
    assert_eq!(mode(migration.old()), OFlags::RDWR);
    drop(migration);
    let read = dir.get::<Map>("flows")?;
    let expected = Some([8, 1]);
    assert_eq!(read.elements::<u32, [u64; 2]>()?.lookup(&7)?, expected);
    // It is gone on with, whatever it is opened for.
    for (flags, expected, _) in BOTH {
        let again = larger().flags(flags);
        let found = dir.open_or_create("flows", &again, Reuse::Migrate(&mut grow()))?;
        let Done::Resumed(migration) = found.outcome else {
            panic!("{found:?}");
        };
        assert_eq!(mode(&found.map), expected);
        assert_eq!(migration.old().id()?, old.id()?);
    }
    // Entries cannot be put into what is for reading.
    let reader = spec().flags(MapFlags::RDONLY);
    let mut shrink = Migrate::new(|key: &u32, value: &[u64; 2]| Some((*key, value[0])));
    let error = dir.open_or_create("flows", &reader, Reuse::Migrate(&mut shrink));
    let error = error.expect_err("a new map that is for reading");
    assert_eq!(error.during(), Some(Operation::Migrate), "{error}");
    let opened = Access::ReadOnly;
    assert_eq!(error.cause(), Some(&Cause::MapAccess { opened }));
    assert_eq!(dir.get::<Map>("flows")?.id()?, read.id()?);
    Ok(())
}

/// Who only reads needs no more than the right to read.
#[common::test(super::USER)]
fn opened_as_far_as_it_is_granted() -> Outcome {
    let fs = TestFs::detached("755");
    let dir = PinDir::open(fs.root())?;
    drop(dir.open_or_create("flows", &spec(), Reuse::Exact)?);
    for (mode, granted) in [(0o444, MapFlags::RDONLY), (0o222, MapFlags::WRONLY)] {
        dir.set_mode("flows", mode)?;
        as_user(CapabilitySet::BPF, || {
            for (flags, ..) in BOTH {
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
                        assert!(matches!(found.outcome, Done::Found), "{what}");
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

/// What is made is of the size of what would have been found.
#[common::test(super::ROOT)]
fn entries_as_compared() -> Outcome {
    // SAFETY: sysconf takes a number and gives one.
    let (page, cpus) = unsafe {
        (
            libc::sysconf(libc::_SC_PAGESIZE) as u32,
            libc::sysconf(libc::_SC_NPROCESSORS_CONF) as u32,
        )
    };
    let ring = |entries| MapSpec::new(MapType::RINGBUF, 0, 0, entries);
    let by_cpu = |map_type, entries| MapSpec::new(map_type, 4, 4, entries);
    let mut rows = vec![
        (ring(page + 1), 2 * page),
        (ring(0), page),
        (ring(4 * page), 4 * page),
        // Of other types every number is one.
        (MapSpec::new(MapType::HASH, 4, 8, page + 1), page + 1),
    ];
    for map_type in [MapType::CPUMAP, MapType::PERF_EVENT_ARRAY] {
        rows.extend([
            (by_cpu(map_type, 0), cpus),
            (by_cpu(map_type, 1), 1),
            (by_cpu(map_type, cpus + 7), cpus),
        ]);
    }
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    for (at, (spec, expected)) in rows.into_iter().enumerate() {
        let name = format!("map{at}");
        let made = dir.open_or_create(&name, &spec, Reuse::Exact)?;
        assert!(matches!(made.outcome, Done::Created), "{made:?}");
        assert_eq!(made.map.info()?.max_entries, expected, "{spec:?}");
        let found = dir.open_or_create(&name, &spec, Reuse::Exact)?;
        assert!(matches!(found.outcome, Done::Found), "{found:?}");
        // One that was made in that size fits as well.
        let like = MapSpec::of(&made.map)?.create()?;
        assert_eq!(spec.compare(&like)?, []);
    }
    // The call by itself makes nothing of it.
    for spec in [ring(page + 1), by_cpu(MapType::PERF_EVENT_ARRAY, 0)] {
        let error = spec.create().expect_err("a number that the kernel refuses");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    }
    let kept = by_cpu(MapType::PERF_EVENT_ARRAY, cpus + 7).create()?;
    assert_eq!(kept.info()?.max_entries, cpus + 7);
    // More than there is a number for is the kernel's to refuse.
    let error = dir.open_or_create("huge", &ring(u32::MAX), Reuse::Exact);
    assert_eq!(error.unwrap_err().operation(), Operation::CreateMap);
    Ok(())
}
