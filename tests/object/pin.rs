//! Pinning, opening and unpinning objects, and what failing calls leave intact.

use std::os::fd::AsFd;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::error::Cause;
use bpf_pin::map::ElemFlags;
use bpf_pin::{Access, Link, Map, PinnedMap, Prog};
use common::*;
use rustix::fs::{CWD, Mode, OFlags, chmod, chown, linkat};
use rustix::process::{Gid, Uid};
use rustix::thread::CapabilitySet;

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];

#[common::test(PINS)]
fn a_pinned_map_keeps_its_elements() -> Outcome {
    let fs = TestFs::new();
    let path = fs.at("flows");
    {
        let map = hash();
        map.elements::<u32, u64>()?
            .update(&7, &42, ElemFlags::ANY)?;
        map.pin(&path)?;
    }
    let again = PinnedMap::open(&path)?;
    assert_eq!(again.path(), path);
    assert_eq!(again.elements::<u32, u64>()?.lookup(&7)?, Some(42));
    Ok(())
}

#[common::test(ROOT)]
fn each_kind_opens_with_its_id() -> Outcome {
    let fs = TestFs::new();
    let map = hash().pin(fs.at("map"))?;
    let prog = prog().pin(fs.at("prog"))?;
    let link = detached_link().pin(fs.at("link"))?;
    let ids = (map.id()?, prog.id()?, link.id()?);
    drop((map, prog, link));
    assert_eq!(Map::open(fs.at("map"))?.id()?, ids.0);
    assert_eq!(Prog::open(fs.at("prog"))?.id()?, ids.1);
    assert_eq!(Link::open(fs.at("link"))?.id()?, ids.2);
    assert_eq!(fs.names(), ["link", "map", "prog"]);
    Ok(())
}

#[common::test(PINS)]
fn dropping_leaves_the_pin() -> Outcome {
    let fs = TestFs::new();
    drop(hash().pin(fs.at("map"))?);
    assert_eq!(fs.names(), ["map"]);
    Ok(())
}

#[common::test(PINS)]
fn into_inner_leaves_the_pin() -> Outcome {
    let fs = TestFs::new();
    let map: Map = hash().pin(fs.at("map"))?.into_inner();
    assert_eq!(Map::open(fs.at("map"))?.id()?, map.id()?);
    Ok(())
}

#[common::test(PINS)]
fn unpin_returns_a_usable_object() -> Outcome {
    let fs = TestFs::new();
    let pinned = hash().pin(fs.at("map"))?;
    let id = pinned.id()?;
    let map = pinned.unpin()?;
    assert!(fs.names().is_empty());
    assert_eq!(map.id()?, id);
    map.elements::<u32, u64>()?.update(&1, &1, ElemFlags::ANY)?;
    // It can be pinned and unpinned repeatedly.
    map.pin(fs.at("map"))?
        .unpin()?
        .pin(fs.at("other"))?
        .unpin()?;
    assert!(fs.names().is_empty());
    Ok(())
}

/// The kernel frees an object some time after its last reference is gone.
fn wait_until_freed(id: u32) {
    let end = Instant::now() + Duration::from_secs(30);
    while Map::from_id(id).is_ok() {
        assert!(Instant::now() < end, "map {id} was not freed");
        thread::sleep(Duration::from_millis(5));
    }
    let error = Map::from_id(id).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
}

#[common::test(ROOT)]
fn an_object_is_freed_without_descriptor_and_pin() -> Outcome {
    let fs = TestFs::new();
    let pinned = hash().pin(fs.at("map"))?;
    let id = pinned.id()?;
    drop(pinned);
    // Only the pin holds it.
    assert_eq!(Map::from_id(id)?.id()?, id);
    let map = PinnedMap::open(fs.at("map"))?.unpin()?;
    // Only the descriptor holds it.
    assert_eq!(Map::from_id(id)?.id()?, id);
    drop(map);
    wait_until_freed(id);
    Ok(())
}

#[common::test(PINS)]
fn an_object_can_have_several_pins() -> Outcome {
    let fs = TestFs::new();
    let map = hash();
    let one = map.try_clone()?.pin(fs.at("one"))?;
    let two = map.pin(fs.at("two"))?;
    assert_eq!(one.id()?, two.id()?);
    one.unpin()?;
    assert_eq!(fs.names(), ["two"]);
    // A hard link is another pin.
    linkat(
        CWD,
        fs.at("two"),
        CWD,
        fs.at("three"),
        rustix::fs::AtFlags::empty(),
    )?;
    PinnedMap::open(fs.at("three"))?.unpin()?;
    assert_eq!(fs.names(), ["two"]);
    Ok(())
}

#[common::test(PINS)]
fn long_names_and_paths_can_be_pinned() -> Outcome {
    let fs = TestFs::new();
    // Around the limit of paths that are stored inline, and the longest name.
    let root = fs.root().as_os_str().len() + 1;
    for length in [254, 255, 256]
        .map(|path| path - root)
        .into_iter()
        .chain([255])
    {
        let name = "n".repeat(length);
        let pinned = hash().pin(fs.at(&name))?;
        assert_eq!(pinned.path(), fs.at(&name));
        assert_eq!(fs.names(), [name]);
        pinned.unpin()?;
    }
    let mut deep = fs.root().to_owned();
    for _ in 0..8 {
        deep.push("d".repeat(100));
        rustix::fs::mkdir(&deep, Mode::RWXU)?;
    }
    PinnedMap::open(hash().pin(deep.join("map"))?.path())?.unpin()?;
    Ok(())
}

#[common::test(PINS)]
fn a_name_may_hold_unusual_bytes() -> Outcome {
    let fs = TestFs::new();
    for name in [" ", "a b", "-", "ä", "\u{1}\n", "*", "~", "%s", "\"", "\\"] {
        let pinned = hash().pin(fs.at(name))?;
        assert_eq!(fs.names(), [name]);
        assert_eq!(Map::open(fs.at(name))?.id()?, pinned.id()?);
        pinned.unpin()?;
    }
    let bytes = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    use std::os::unix::ffi::OsStrExt;
    hash().pin(fs.root().join(bytes))?.unpin()?;
    Ok(())
}

#[common::test(ROOT)]
fn unpin_works_with_read_only_or_write_only_pins() -> Outcome {
    let fs = TestFs::detached("777");
    let (user, group) = (Uid::from_raw(1234), Gid::from_raw(1234));
    let directory = fs.at("of_the_user");
    rustix::fs::mkdir(&directory, Mode::RWXU)?;
    chown(&directory, Some(user), Some(group))?;
    for (mode, access) in [(0o400, Access::ReadOnly), (0o200, Access::WriteOnly)] {
        let path = directory.join("map");
        hash().pin(&path)?;
        chown(&path, Some(user), Some(group))?;
        chmod(&path, Mode::from_raw_mode(mode))?;
        as_user(CapabilitySet::BPF, || -> Result<(), bpf_pin::Error> {
            PinnedMap::open_with(&path, access)?.unpin()?;
            Ok(())
        })?;
        assert_eq!(std::fs::read_dir(&directory)?.count(), 0);
    }
    Ok(())
}

#[common::test(PINS)]
fn one_of_eight_concurrent_pins_wins() -> Outcome {
    let fs = TestFs::new();
    for _ in 0..20 {
        let path = fs.at("map");
        let start = Barrier::new(8);
        let winners: Vec<u32> = thread::scope(|scope| {
            let racers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let map = hash();
                        let id = map.id().unwrap();
                        start.wait();
                        match map.pin(&path) {
                            Ok(_) => Some(id),
                            Err(failed) => {
                                let cause = failed.error().cause().cloned();
                                assert!(matches!(cause, Some(Cause::Exists { .. })), "{failed}");
                                let map = failed.into_object();
                                assert_eq!(map.id().unwrap(), id);
                                None
                            }
                        }
                    })
                })
                .collect();
            racers
                .into_iter()
                .filter_map(|r| r.join().unwrap())
                .collect()
        });
        assert_eq!(winners.len(), 1);
        let pinned = PinnedMap::open(&path)?;
        assert_eq!(pinned.id()?, winners[0]);
        pinned.unpin()?;
    }
    Ok(())
}

#[common::test(PINS)]
fn one_of_eight_concurrent_unpins_wins() -> Outcome {
    let fs = TestFs::new();
    for _ in 0..20 {
        let path = fs.at("map");
        let map = hash();
        map.try_clone()?.pin(&path)?;
        let start = Barrier::new(8);
        let winners = thread::scope(|scope| {
            let racers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let pinned = PinnedMap::open(&path).unwrap();
                        start.wait();
                        match pinned.unpin() {
                            Ok(_) => 1,
                            Err(failed) => {
                                assert_eq!(failed.error().raw_os_error(), Some(libc::ENOENT));
                                0
                            }
                        }
                    })
                })
                .collect();
            racers.into_iter().map(|r| r.join().unwrap()).sum::<i32>()
        });
        assert_eq!(winners, 1);
        assert!(fs.names().is_empty());
    }
    Ok(())
}

#[common::test(PINS)]
fn a_failed_pin_can_be_retried() -> Outcome {
    let fs = TestFs::new();
    let map = hash();
    let id = map.id()?;
    let failed = map.pin(fs.at("missing/map")).unwrap_err();
    rustix::fs::mkdir(fs.at("missing"), Mode::RWXU)?;
    let pinned = failed.into_object().pin(fs.at("missing/map"))?;
    assert_eq!(pinned.id()?, id);
    Ok(())
}

#[common::test(PINS)]
fn concurrent_opens_never_see_a_partial_pin() -> Outcome {
    let fs = TestFs::new();
    let path = fs.at("map");
    let end = Instant::now() + Duration::from_millis(300);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut map = hash();
            while Instant::now() < end {
                map = map.pin(&path).unwrap().unpin().unwrap();
            }
        });
        let opener = scope.spawn(|| {
            let mut opened = 0;
            while Instant::now() < end {
                match Map::open(&path) {
                    Ok(map) => {
                        assert_eq!(map.info().unwrap().name, "test_hash");
                        opened += 1;
                    }
                    Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}"),
                }
            }
            opened
        });
        assert!(opener.join().unwrap() > 0, "the pin was never opened");
    });
    // The root can still be opened.
    rustix::fs::open(fs.root(), OFlags::RDONLY, Mode::empty())?.as_fd();
    assert!(fs.names().is_empty());
    Ok(())
}
