//! A map is what its specification says, and what cannot be made is refused with the reason.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::{
    Access, Capability, Cause, ElemFlags, Error, Map, MapFlags, MapInfo, MapSpec, MapType,
};
use common::*;
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::thread::CapabilitySet;

fn main() -> std::process::ExitCode {
    const BPF: &[Need] = &[cap::BPF];
    const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
    const OTHERS: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];
    const NO_BPF: &[Need] = &[phase_without(cap::BPF)];
    const NO_ADMIN: &[Need] = &[phase_without(cap::SYS_ADMIN)];
    Suite::new()
        .test("every_type_that_the_kernel_knows", ROOT, every_type)
        .test("types_that_ask_for_btf", ROOT, types_of_btf)
        .test("what_each_type_asks_of_a_user", OTHERS, || {
            as_user(CapabilitySet::BPF, with_cap_bpf)?;
            as_user(CapabilitySet::empty(), without_capabilities)
        })
        .test(
            "what_each_type_asks_of_this_user",
            NO_BPF,
            without_capabilities,
        )
        .test("names", BPF, names)
        .test("invalid_names_are_refused_at_once", &[], invalid_names)
        .test("flags", BPF, flags)
        .test("lru_lists_per_cpu_round_up", BPF, lru_rounding)
        .test("read_only_and_write_only_descriptors", BPF, access)
        .test("maps_of_maps", BPF, maps_of_maps)
        .test("numa_nodes", BPF, numa)
        .test("map_extra", BPF, map_extra)
        .test("what_does_not_fit_is_refused", BPF, misfits)
        .test("a_specification_makes_any_number", BPF, many)
        .test("clones_are_one_map", BPF, clones)
        .test("by_id", &[cap::SYS_ADMIN], by_id)
        .test("by_id_of_a_map_that_is_gone", &[cap::SYS_ADMIN], gone)
        .test("by_id_as_a_user", NO_ADMIN, by_id_refused)
        .test("by_id_as_another_user", OTHERS, || {
            as_user(CapabilitySet::BPF, by_id_refused)
        })
        .run()
}

/// What a user must have to make maps of a type.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Asks {
    Nothing,
    Bpf,
    NetAdmin,
}

/// A type with sizes that suit it.
struct Row {
    map_type: MapType,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: MapFlags,
    /// What the kernel adds to them.
    added: MapFlags,
    extra: u64,
    since: (u32, u32),
    asks: Asks,
}

/// All types that a stock kernel makes without BTF.
fn rows() -> Vec<Row> {
    use Asks::{Bpf, NetAdmin, Nothing};

    // SAFETY: sysconf takes a number and gives one.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u32;
    let row = |map_type, [key_size, value_size, max_entries]: [u32; 3], since, asks| Row {
        map_type,
        key_size,
        value_size,
        max_entries,
        flags: MapFlags::empty(),
        added: MapFlags::empty(),
        extra: 0,
        since,
        asks,
    };
    let flagged = |flags, row| Row { flags, ..row };
    let device = |row| Row {
        added: MapFlags::RDONLY_PROG,
        ..row
    };
    vec![
        row(MapType::HASH, [3, 8, 4], (3, 19), Nothing),
        row(MapType::ARRAY, [4, 8, 4], (3, 19), Nothing),
        row(MapType::PROG_ARRAY, [4, 4, 4], (4, 2), Nothing),
        row(MapType::PERF_EVENT_ARRAY, [4, 4, 2], (4, 3), Nothing),
        row(MapType::PERCPU_HASH, [4, 12, 4], (4, 6), Nothing),
        row(MapType::PERCPU_ARRAY, [4, 12, 4], (4, 6), Nothing),
        row(MapType::STACK_TRACE, [4, 16, 4], (4, 6), Bpf),
        row(MapType::CGROUP_ARRAY, [4, 4, 4], (4, 8), Nothing),
        row(MapType::LRU_HASH, [4, 8, 4], (4, 10), Bpf),
        row(MapType::LRU_PERCPU_HASH, [4, 8, 4], (4, 10), Bpf),
        flagged(
            MapFlags::NO_PREALLOC,
            row(MapType::LPM_TRIE, [8, 4, 4], (4, 11), Bpf),
        ),
        row(MapType::ARRAY_OF_MAPS, [4, 4, 4], (4, 12), Nothing),
        row(MapType::HASH_OF_MAPS, [4, 4, 4], (4, 12), Nothing),
        device(row(MapType::DEVMAP, [4, 4, 4], (4, 14), NetAdmin)),
        row(MapType::SOCKMAP, [4, 4, 4], (4, 14), NetAdmin),
        row(MapType::CPUMAP, [4, 4, 1], (4, 15), Bpf),
        row(MapType::XSKMAP, [4, 4, 4], (4, 18), NetAdmin),
        row(MapType::SOCKHASH, [4, 4, 4], (4, 18), NetAdmin),
        row(MapType::CGROUP_STORAGE, [16, 8, 0], (4, 19), Nothing),
        row(MapType::REUSEPORT_SOCKARRAY, [4, 8, 4], (4, 19), Bpf),
        row(MapType::PERCPU_CGROUP_STORAGE, [16, 8, 0], (4, 20), Nothing),
        row(MapType::QUEUE, [0, 8, 4], (4, 20), Bpf),
        row(MapType::STACK, [0, 8, 4], (4, 20), Bpf),
        device(row(MapType::DEVMAP_HASH, [4, 4, 4], (5, 4), NetAdmin)),
        row(MapType::RINGBUF, [0, 0, page], (5, 8), Nothing),
        Row {
            extra: 3,
            ..row(MapType::BLOOM_FILTER, [0, 8, 4], (5, 16), Bpf)
        },
        row(MapType::USER_RINGBUF, [0, 0, page], (6, 1), Nothing),
        flagged(
            MapFlags::MMAPABLE,
            row(MapType::ARENA, [0, 0, 4], (6, 9), Bpf),
        ),
        row(MapType::INSN_ARRAY, [4, 16, 4], (6, 19), Bpf),
        flagged(
            MapFlags::NO_PREALLOC,
            row(MapType::RHASH, [4, 8, 4], (7, 2), Bpf),
        ),
    ]
}

impl Row {
    fn create(&self) -> bpf_pin::Result<Map> {
        let spec = MapSpec::new(
            self.map_type,
            self.key_size,
            self.value_size,
            self.max_entries,
        );
        let spec = spec.flags(self.flags).map_extra(self.extra).name("row")?;
        if !matches!(
            self.map_type,
            MapType::ARRAY_OF_MAPS | MapType::HASH_OF_MAPS
        ) {
            return spec.create();
        }
        // Where the user may make no map, none is needed to be refused.
        match MapSpec::new(MapType::ARRAY, 4, 4, 1).create() {
            Ok(inner) => spec.inner_map(&inner).create(),
            Err(_) => spec.create(),
        }
    }

    fn known(&self) -> bool {
        kernel(self.since.0, self.since.1).unmet().is_none()
    }

    fn refused(&self, result: bpf_pin::Result<Map>, capability: Capability) {
        let error = result.expect_err("what the user may not");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        assert!(
            matches!(error.cause(), Some(Cause::MissingCapability { capability: c, .. }) if *c == capability),
            "{capability} for {error}"
        );
    }
}

fn every_type() -> Outcome {
    for row in rows() {
        let made = row.create();
        if !row.known() {
            let error = made.expect_err("a type that the kernel does not know");
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
            assert!(error.cause().is_none(), "{error}");
            continue;
        }
        let map = made?;
        let info = map.info()?;
        let MapInfo {
            map_type,
            id,
            key_size,
            value_size,
            max_entries,
            flags,
            name,
            ifindex,
            netns_dev,
            netns_ino,
            btf_id,
            btf_key_type_id,
            btf_value_type_id,
            btf_vmlinux_value_type_id,
            map_extra,
            ..
        } = info;
        assert_eq!(map_type, row.map_type);
        assert!(id > 0);
        assert_eq!(id, map.id()?, "{map_type}");
        let sizes = [key_size, value_size, max_entries];
        let expected = [row.key_size, row.value_size, row.max_entries];
        assert_eq!(sizes, expected, "{map_type}");
        assert_eq!(flags, row.flags | row.added, "{map_type}");
        assert_eq!(name, "row");
        assert_eq!((ifindex, netns_dev, netns_ino), (0, 0, 0), "{map_type}");
        assert_eq!([btf_id, btf_key_type_id, btf_value_type_id], [0; 3]);
        assert_eq!(btf_vmlinux_value_type_id, 0, "{map_type}");
        assert_eq!(map_extra, row.extra, "{map_type}");
    }
    Ok(())
}

/// Their values are described by BTF, which a specification cannot carry.
fn types_of_btf() -> Outcome {
    for map_type in [
        MapType::SK_STORAGE,
        MapType::INODE_STORAGE,
        MapType::TASK_STORAGE,
        MapType::CGRP_STORAGE,
        MapType::STRUCT_OPS,
    ] {
        let spec = MapSpec::new(map_type, 4, 8, 0).flags(MapFlags::NO_PREALLOC);
        let error = spec.create().expect_err("no BTF");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        assert_eq!(error.to_string(), format!("create {map_type} map: EINVAL"));
    }
    Ok(())
}

fn with_cap_bpf() -> Outcome {
    for row in rows().iter().filter(|row| row.known()) {
        match row.asks {
            Asks::NetAdmin => row.refused(row.create(), Capability::NetAdmin),
            Asks::Nothing | Asks::Bpf => drop(row.create()?),
        }
    }
    Ok(())
}

fn without_capabilities() -> Outcome {
    let sysctl = std::fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled")?;
    let disabled = sysctl.trim() != "0";
    for row in rows().iter().filter(|row| row.known()) {
        match row.asks {
            _ if disabled => row.refused(row.create(), Capability::Bpf),
            Asks::Bpf => row.refused(row.create(), Capability::Bpf),
            Asks::NetAdmin => row.refused(row.create(), Capability::NetAdmin),
            Asks::Nothing => drop(row.create()?),
        }
    }
    Ok(())
}

fn array() -> MapSpec<'static> {
    MapSpec::new(MapType::ARRAY, 4, 8, 1)
}

fn names() -> Outcome {
    assert_eq!(array().create()?.info()?.name, "");
    for name in ["a", "flows_4.rodata", "exactly_fifteen", "..", "0"] {
        let info = array().name(name)?.create()?.info()?;
        assert_eq!(info.name, name);
        assert_eq!(format!("[{:>16}]", info.name), format!("[{name:>16}]"));
    }
    Ok(())
}

fn invalid_names() -> Outcome {
    for bad in ["sixteen_is_a_lot", "a-b", "a b", "a\0b", "\u{e4}", "a/b"] {
        let error = array().name(bad).expect_err("a name with what no name has");
        assert!(
            matches!(error.cause(), Some(Cause::InvalidName { name }) if name == bad),
            "{error}"
        );
        assert!(matches!(
            &error,
            Error::CreateMap { map_type: MapType::ARRAY, name, .. } if name.is_empty()
        ));
        assert_eq!(error.raw_os_error(), None);
        assert_eq!(
            error.to_string(),
            format!(
                "create array map: {bad:?} is not a name of up to 15 letters, digits, '_' and '.'"
            )
        );
    }
    Ok(())
}

fn flags() -> Outcome {
    let hash = || MapSpec::new(MapType::HASH, 4, 8, 4);
    for (spec, flags) in [
        (hash(), MapFlags::NO_PREALLOC),
        (hash(), MapFlags::ZERO_SEED),
        (hash(), MapFlags::RDONLY_PROG),
        (hash(), MapFlags::WRONLY_PROG),
        (hash(), MapFlags::NO_PREALLOC | MapFlags::RDONLY_PROG),
        (array(), MapFlags::MMAPABLE),
        (array(), MapFlags::INNER_MAP),
        (
            MapSpec::new(MapType::LRU_HASH, 4, 8, 64),
            MapFlags::NO_COMMON_LRU,
        ),
        (
            MapSpec::new(MapType::STACK_TRACE, 4, 32, 4),
            MapFlags::STACK_BUILD_ID,
        ),
        (
            MapSpec::new(MapType::PERF_EVENT_ARRAY, 4, 4, 1),
            MapFlags::PRESERVE_ELEMS,
        ),
    ] {
        assert_eq!(spec.flags(flags).create()?.info()?.flags, flags);
    }
    // Flags add up.
    let both = hash()
        .flags(MapFlags::NO_PREALLOC)
        .flags(MapFlags::ZERO_SEED)
        .create()?;
    assert_eq!(
        both.info()?.flags,
        MapFlags::NO_PREALLOC | MapFlags::ZERO_SEED
    );
    // A bit that nobody knows reaches the kernel, which refuses it.
    let unknown = MapFlags::from_bits_retain(1 << 31);
    let error = hash().flags(unknown).create().expect_err("an unknown flag");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert_eq!(error.to_string(), "create hash map: EINVAL");
    Ok(())
}

fn lru_rounding() -> Outcome {
    let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = possible.trim().rsplit(['-', ',']).next();
    let cpus: u32 = last.expect("a number").parse::<u32>()? + 1;
    let entries = 64 * cpus - (cpus - 1);
    let spec = MapSpec::new(MapType::LRU_HASH, 4, 8, entries).flags(MapFlags::NO_COMMON_LRU);
    assert_eq!(spec.create()?.info()?.max_entries, 64 * cpus);
    let spec = MapSpec::new(MapType::LRU_HASH, 4, 8, entries);
    assert_eq!(spec.create()?.info()?.max_entries, entries);
    Ok(())
}

fn access() -> Outcome {
    let mode = |map: &Map| fcntl_getfl(map).map(|flags| flags & OFlags::ACCMODE);
    let spec = array();
    assert_eq!(mode(&spec.create()?)?, OFlags::RDWR);

    let reader = spec.clone().flags(MapFlags::RDONLY).create()?;
    assert_eq!(mode(&reader)?, OFlags::RDONLY);
    assert_eq!(reader.info()?.flags, MapFlags::empty());
    let elems = reader.typed::<u32, u64>()?;
    assert_eq!(elems.lookup(&0)?, Some(0));
    let error = elems
        .update(&0, &1, ElemFlags::ANY)
        .expect_err("a write through a reader");
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    let opened = Access::ReadOnly;
    assert_eq!(error.cause(), Some(&Cause::MapAccess { opened }));

    let writer = spec.flags(MapFlags::WRONLY).create()?;
    assert_eq!(mode(&writer)?, OFlags::WRONLY);
    assert_eq!(writer.info()?.flags, MapFlags::empty());
    let elems = writer.typed::<u32, u64>()?;
    elems.update(&0, &1, ElemFlags::ANY)?;
    let error = elems.lookup(&0).expect_err("a look through a writer");
    let opened = Access::WriteOnly;
    assert_eq!(error.cause(), Some(&Cause::MapAccess { opened }));

    let neither = array().flags(MapFlags::RDONLY | MapFlags::WRONLY);
    let error = neither.create().expect_err("neither to read nor to write");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    Ok(())
}

fn maps_of_maps() -> Outcome {
    for outer in [MapType::ARRAY_OF_MAPS, MapType::HASH_OF_MAPS] {
        let spec = MapSpec::new(outer, 4, 4, 2).name("outer")?;
        let map = {
            let inner = MapSpec::new(MapType::HASH, 4, 8, 4).create()?;
            spec.clone().inner_map(&inner).create()?
        };
        // The template may be gone: what counts is its shape.
        let (fits, other) = (
            MapSpec::new(MapType::HASH, 4, 8, 4).create()?,
            MapSpec::new(MapType::HASH, 4, 16, 4).create()?,
        );
        let elems = map.typed::<u32, u32>()?;
        let fd = |map: &Map| std::os::fd::AsRawFd::as_raw_fd(&map.as_fd()) as u32;
        elems.update(&0, &fd(&fits), ElemFlags::ANY)?;
        assert_eq!(elems.lookup(&0)?, Some(fits.id()?));
        let error = elems
            .update(&1, &fd(&other), ElemFlags::ANY)
            .expect_err("an inner map of another shape");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));

        // Maps of maps of maps are not to be had.
        let error = spec.clone().inner_map(&map).create();
        let error = error.expect_err("a third level");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        assert!(matches!(
            &error,
            Error::CreateMap { map_type, name, .. } if *map_type == outer && name == "outer"
        ));
        let error = spec.create().expect_err("no template");
        assert!(
            matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EBADF)),
            "{error}"
        );
    }
    Ok(())
}

fn numa() -> Outcome {
    let spec = MapSpec::new(MapType::HASH, 4, 8, 4).numa_node(0);
    assert_eq!(spec.create()?.info()?.flags, MapFlags::NUMA_NODE);
    let error = array().numa_node(1 << 20).create();
    let error = error.expect_err("a node that no machine has");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    Ok(())
}

fn map_extra() -> Outcome {
    // Not for this type, and before Linux 5.16 for none.
    let error = array().map_extra(1).create();
    let error = error.expect_err("what an array does not take");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert_eq!(array().map_extra(0).create()?.info()?.map_extra, 0);
    // Of a bloom filter the low four bits count, and no others may be set.
    let spec = MapSpec::new(MapType::BLOOM_FILTER, 0, 8, 4).map_extra(1 << 4);
    let error = spec.create().expect_err("17 hash functions");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    Ok(())
}

fn misfits() -> Outcome {
    for (map_type, sizes, errno, text) in [
        (MapType::UNSPEC, [4, 8, 1], libc::EINVAL, "unspec"),
        (MapType(4711), [4, 8, 1], libc::EINVAL, "type 4711"),
        (
            MapType(u32::MAX),
            [4, 8, 1],
            libc::EINVAL,
            "type 4294967295",
        ),
        (MapType::HASH, [0, 8, 1], libc::EINVAL, "hash"),
        (MapType::HASH, [4, 0, 1], libc::EINVAL, "hash"),
        (MapType::HASH, [4, 8, 0], libc::EINVAL, "hash"),
        (MapType::ARRAY, [8, 8, 1], libc::EINVAL, "array"),
        (MapType::QUEUE, [4, 8, 1], libc::EINVAL, "queue"),
        // Preallocation is asked of a trie, which has none.
        (MapType::LPM_TRIE, [8, 8, 1], libc::EINVAL, "lpm_trie"),
        (MapType::RINGBUF, [0, 0, 1000], libc::EINVAL, "ringbuf"),
        (MapType::HASH, [u32::MAX, 8, 1], libc::E2BIG, "hash"),
        (MapType::ARRAY, [4, u32::MAX, 1], libc::E2BIG, "array"),
    ] {
        let [key_size, value_size, max_entries] = sizes;
        let spec = MapSpec::new(map_type, key_size, value_size, max_entries);
        let error = spec.create().expect_err("sizes that do not fit");
        assert_eq!(error.raw_os_error(), Some(errno), "{error} {sizes:?}");
        assert!(error.cause().is_none(), "{error}");
        let name = if errno == libc::EINVAL {
            "EINVAL"
        } else {
            "E2BIG"
        };
        assert_eq!(error.to_string(), format!("create {text} map: {name}"));
        let named = spec.name("misfit")?.create().expect_err("the same");
        assert_eq!(
            named.to_string(),
            format!("create {text} map \"misfit\": {name}")
        );
    }
    Ok(())
}

fn many() -> Outcome {
    let spec = array().name("many")?;
    let (one, other) = (spec.create()?, spec.create()?);
    assert_ne!(one.id()?, other.id()?);
    one.typed::<u32, u64>()?.update(&0, &1, ElemFlags::ANY)?;
    assert_eq!(other.typed::<u32, u64>()?.lookup(&0)?, Some(0));
    assert!(fcntl_getfd(&one)?.contains(FdFlags::CLOEXEC));
    Ok(())
}

fn clones() -> Outcome {
    let map = array().create()?;
    let clone = map.try_clone()?;
    assert_eq!(map.id()?, clone.id()?);
    assert!(fcntl_getfd(&clone)?.contains(FdFlags::CLOEXEC));
    map.typed::<u32, u64>()?.update(&0, &7, ElemFlags::ANY)?;
    drop(map);
    assert_eq!(clone.typed::<u32, u64>()?.lookup(&0)?, Some(7));
    Ok(())
}

fn by_id() -> Outcome {
    let map = array().name("by_id")?.create()?;
    let id = map.id()?;
    let same = Map::from_id(id)?;
    assert_eq!(same.info()?, map.info()?);
    assert!(fcntl_getfd(&same)?.contains(FdFlags::CLOEXEC));
    map.typed::<u32, u64>()?.update(&0, &7, ElemFlags::ANY)?;
    drop(map);
    assert_eq!(same.typed::<u32, u64>()?.lookup(&0)?, Some(7));

    for nobody in [0, u32::MAX] {
        let error = Map::from_id(nobody).expect_err("an id that no map has");
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        assert!(error.cause().is_none());
        assert_eq!(error.to_string(), format!("open map {nobody}: ENOENT"));
    }
    Ok(())
}

fn gone() -> Outcome {
    let map = array().create()?;
    let id = map.id()?;
    drop(map);
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        match Map::from_id(id) {
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
                return Ok(());
            }
            Ok(_) if Instant::now() > patience => return Err("a map that does not die".into()),
            Ok(map) => drop(map),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn by_id_refused() -> Outcome {
    let error = Map::from_id(1).expect_err("the right of another");
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    assert!(matches!(
        error.cause(),
        Some(Cause::MissingCapability {
            capability: Capability::SysAdmin,
            ..
        })
    ));
    assert_eq!(
        error.to_string(),
        "open map 1: this thread lacks CAP_SYS_ADMIN, needed for opening an object by its id"
    );
    Ok(())
}
