//! Maps of objects: descriptors go in, ids come out, and the lifetime of the objects.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf_pin::error::{Cause, Failed};
use bpf_pin::map::{Descriptor, ElemFlags, Elements};
use bpf_pin::prog::{Insn, ProgFlags, TestRun};
use bpf_pin::types::{AttachType, MapFlags, ProgType};
use bpf_pin::{Access, Map, MapSpec, MapType, PinnedMap, Prog, ProgSpec, abi};
use common::*;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

const BPF: &[Need] = &[cap::BPF];
const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const FRAGS: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN, kernel(6, 1)];
const BY_ID: &[Need] = &[cap::SYS_ADMIN];

fn spec(entries: u32) -> MapSpec<'static> {
    MapSpec::new(MapType::PROG_ARRAY, 4, 4, entries)
}

/// A socket filter that returns `value`.
fn returns(value: i32) -> bpf_pin::Result<Prog> {
    let insns = [Insn::mov64_imm(0, value), Insn::exit()];
    ProgSpec::new(ProgType::SOCKET_FILTER, &insns).load()
}

/// A socket filter that tail-calls the first program of `stages`, or else returns 99.
fn tail_caller(stages: &Map) -> bpf_pin::Result<Prog> {
    // r1 still holds the context.
    let mut insns = Insn::ld_map_fd(2, stages.as_fd().as_raw_fd()).to_vec();
    insns.extend([
        Insn::mov64_imm(3, 0),
        Insn::call(abi::BPF_FUNC_tail_call),
        Insn::mov64_imm(0, 99),
        Insn::exit(),
    ]);
    ProgSpec::new(ProgType::SOCKET_FILTER, &insns).load()
}

fn run(prog: &Prog) -> bpf_pin::Result<u32> {
    Ok(prog.test_run(TestRun::new().data_in(&[0; 64]))?.retval)
}

#[common::test(BPF)]
fn a_prog_array_returns_ids() -> Outcome {
    let map = spec(4).create()?;
    let stages = map.elements::<u32, Prog>()?;
    let (one, other) = (returns(1)?, returns(2)?);
    for index in 0..4 {
        assert_eq!(stages.lookup(&index)?, None);
        assert!(!stages.delete(&index)?);
    }
    stages.update(&1, &one, ElemFlags::ANY)?;
    stages.update(&2, &other, ElemFlags::ANY)?;
    assert_eq!(stages.lookup(&0)?, None);
    assert_eq!(stages.lookup(&1)?, Some(one.id()?));
    assert_eq!(stages.lookup(&2)?, Some(other.id()?));
    // Replaced and deleted.
    stages.update(&1, &other, ElemFlags::ANY)?;
    assert_eq!(stages.lookup(&1)?, Some(other.id()?));
    assert!(stages.delete(&1)?);
    assert!(!stages.delete(&1)?);
    assert_eq!(stages.lookup(&1)?, None);
    // An array accepts no flags.
    for flags in [ElemFlags::NOEXIST, ElemFlags::EXIST] {
        let error = stages.update(&1, &one, flags).expect_err("flags");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
        assert!(error.cause().is_none(), "{error}");
    }
    Ok(())
}

#[common::test(BPF)]
fn a_program_tail_calls_another() -> Outcome {
    let map = spec(1).create()?;
    let caller = tail_caller(&map)?;
    assert_eq!(run(&caller)?, 99);
    let stages: Elements<u32, Prog> = Elements::new(map)?;
    // The array keeps the program alive.
    stages.update(&0, &returns(7)?, ElemFlags::ANY)?;
    assert_eq!(run(&caller)?, 7);
    stages.update(&0, &returns(8)?, ElemFlags::ANY)?;
    assert_eq!(run(&caller)?, 8);
    stages.delete(&0)?;
    assert_eq!(run(&caller)?, 99);
    assert_eq!(stages.into_map().info()?.map_type, MapType::PROG_ARRAY);
    Ok(())
}

/// A program that tail-calls one that returns 7, and the array that holds it.
fn caller_and_array() -> bpf_pin::Result<(Prog, Map)> {
    let map = spec(1).create()?;
    let stages = map.elements::<u32, Prog>()?;
    stages.update(&0, &returns(7)?, ElemFlags::ANY)?;
    let caller = tail_caller(&map)?;
    assert_eq!(run(&caller)?, 7);
    Ok((caller, map))
}

/// The kernel removes the programs asynchronously.
fn is_cleared(caller: &Prog) -> Outcome {
    let patience = Instant::now() + Duration::from_secs(20);
    while run(caller)? == 7 {
        assert!(Instant::now() < patience, "the array keeps its program");
        sleep(Duration::from_millis(10));
    }
    assert_eq!(run(caller)?, 99);
    Ok(())
}

#[common::test(PINS)]
fn a_pin_keeps_the_programs_of_an_array() -> Outcome {
    let fs = TestFs::new();
    let (caller, map) = caller_and_array()?;
    drop(map.pin(fs.at("stages"))?);
    for _ in 0..20 {
        sleep(Duration::from_millis(10));
        assert_eq!(run(&caller)?, 7);
    }
    // Opening the pin finds all programs.
    let stages = PinnedMap::open(fs.at("stages"))?;
    assert!(stages.elements::<u32, Prog>()?.lookup(&0)?.is_some());
    // Without the pin a descriptor keeps them; without both they are removed.
    let map = stages.unpin()?;
    sleep(Duration::from_millis(100));
    assert_eq!(run(&caller)?, 7);
    drop(map);
    is_cleared(&caller)
}

#[common::test(BPF)]
fn an_array_without_pin_and_descriptor_loses_its_programs() -> Outcome {
    let (caller, map) = caller_and_array()?;
    let clone = map.try_clone()?;
    drop(map);
    sleep(Duration::from_millis(100));
    assert_eq!(run(&caller)?, 7);
    assert!(caller.map_ids()?.contains(&clone.id()?));
    drop(clone);
    is_cleared(&caller)
}

#[common::test(ROOT)]
fn a_program_of_another_type_is_rejected() -> Outcome {
    let map = spec(1).create()?;
    let stages = map.elements::<u32, Prog>()?;
    let insns = [Insn::mov64_imm(0, 2), Insn::exit()];
    let xdp = ProgSpec::new(ProgType::XDP, &insns).load()?;
    // The first program decides, whether it is inserted or calls.
    let caller = tail_caller(&map)?;
    let error = stages.update(&0, &xdp, ElemFlags::ANY);
    let error = error.expect_err("a program of another type");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    let cause = Cause::OtherProgType {
        owner: ProgType::SOCKET_FILTER,
        found: ProgType::XDP,
    };
    assert_eq!(error.cause(), Some(&cause));
    assert_eq!(stages.lookup(&0)?, None);
    stages.update(&0, &returns(3)?, ElemFlags::ANY)?;
    assert_eq!(run(&caller)?, 3);
    // An empty array keeps its type.
    stages.delete(&0)?;
    let error = stages.update(&0, &xdp, ElemFlags::ANY).unwrap_err();
    assert_eq!(error.cause(), Some(&cause));
    Ok(())
}

/// The kernel does not report this property. A scratch array shows that the programs differ.
#[common::test(FRAGS)]
fn a_program_with_other_properties_is_rejected() -> Outcome {
    let map = spec(1).create()?;
    let stages = map.elements::<u32, Prog>()?;
    let insns = [Insn::mov64_imm(0, 2), Insn::exit()];
    let plain = ProgSpec::new(ProgType::XDP, &insns);
    let frags = plain.clone().flags(ProgFlags::XDP_HAS_FRAGS).load()?;
    let plain = plain.load()?;
    stages.update(&0, &plain, ElemFlags::ANY)?;
    let error = stages.update(&0, &frags, ElemFlags::ANY);
    let error = error.expect_err("a program that knows packets in parts");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    let prog_id = plain.id()?;
    assert_eq!(error.cause(), Some(&Cause::IncompatibleProg { prog_id }));
    assert_eq!(stages.lookup(&0)?, Some(prog_id));
    // Nothing in the array shows it.
    stages.delete(&0)?;
    let error = stages.update(&0, &frags, ElemFlags::ANY).unwrap_err();
    assert!(error.cause().is_none(), "{error}");
    Ok(())
}

/// Newer kernels compare it.
#[common::test(ROOT)]
fn a_program_with_another_attach_type_is_accepted_or_explained() -> Outcome {
    let map = spec(1).create()?;
    let stages = map.elements::<u32, Prog>()?;
    let insns = [Insn::mov64_imm(0, 2), Insn::exit()];
    let load = |attach_type| {
        let spec = ProgSpec::new(ProgType::XDP, &insns);
        spec.expected_attach_type(attach_type).load()
    };
    let (xdp, devmap) = (load(AttachType::XDP)?, load(AttachType::XDP_DEVMAP)?);
    stages.update(&0, &xdp, ElemFlags::ANY)?;
    if let Err(error) = stages.update(&0, &devmap, ElemFlags::ANY) {
        let prog_id = xdp.id()?;
        assert_eq!(error.cause(), Some(&Cause::IncompatibleProg { prog_id }));
    }
    Ok(())
}

#[common::test(BPF)]
fn objects_of_the_wrong_kind_are_rejected() -> Outcome {
    #[track_caller]
    fn assert_unsupported_type<T>(result: Result<T, bpf_pin::Error>) {
        let error = result.err().expect("another kind of map");
        assert_cause_matches!(error, Cause::UnsupportedType { .. });
        assert_eq!(error.raw_os_error(), None);
    }

    let (stages, hash, inner) = (spec(1).create()?, hash(), hash());
    let outer = MapSpec::new(MapType::ARRAY_OF_MAPS, 4, 4, 1).inner_map(&inner);
    let outer = outer.create()?;
    assert_unsupported_type(hash.elements::<u32, Prog>());
    assert_unsupported_type(stages.elements::<u32, Map>());
    assert_unsupported_type(outer.elements::<u32, Prog>());
    assert_unsupported_type(outer.elements::<u32, Descriptor>());

    // Keys are checked too, and the error returns the map.
    let id = stages.id()?;
    let failed: Failed<Map> = Elements::<u64, Prog>::new(stages).unwrap_err();
    let cause = failed.error().cause();
    let (what, expected, found) = ("key", 4, 8);
    assert_eq!(
        cause,
        Some(&Cause::Size {
            what,
            expected,
            found
        })
    );
    assert_eq!(failed.into_object().id()?, id);
    Ok(())
}

#[common::test(BPF)]
fn an_index_out_of_range_is_rejected() -> Outcome {
    let map = spec(2).create()?;
    let stages = map.elements::<u32, Prog>()?;
    assert_eq!(stages.lookup(&2)?, None);
    for error in [
        stages.update(&2, &returns(1)?, ElemFlags::ANY).unwrap_err(),
        stages.delete(&2).unwrap_err(),
    ] {
        assert_eq!(error.raw_os_error(), Some(libc::E2BIG), "{error}");
        let (index, max_entries) = (2, 2);
        assert_eq!(
            error.cause(),
            Some(&Cause::IndexOutOfRange { index, max_entries })
        );
    }
    Ok(())
}

#[common::test(PINS)]
fn a_read_only_map_rejects_objects() -> Outcome {
    let fs = TestFs::new();
    let (_, map) = caller_and_array()?;
    let map = map.pin(fs.at("stages"))?;
    let reader = Map::open_with(fs.at("stages"), Access::ReadOnly)?;
    let stages = reader.elements::<u32, Prog>()?;
    assert!(stages.lookup(&0)?.is_some());
    let opened = Access::ReadOnly;
    for error in [
        stages.update(&0, &returns(1)?, ElemFlags::ANY).unwrap_err(),
        stages.delete(&0).unwrap_err(),
    ] {
        assert_eq!(error.cause(), Some(&Cause::MapAccess { opened }), "{error}");
    }
    drop(map);
    Ok(())
}

#[common::test(BY_ID)]
fn an_array_of_maps_returns_ids() -> Outcome {
    let (one, other) = (hash(), hash());
    let outer = MapSpec::new(MapType::ARRAY_OF_MAPS, 4, 4, 2).inner_map(&one);
    let outer = outer.create()?;
    let maps = outer.elements::<u32, Map>()?;
    assert_eq!(maps.lookup(&0)?, None);
    maps.update(&0, &one, ElemFlags::ANY)?;
    maps.update(&1, &other, ElemFlags::ANY)?;
    let id = maps.lookup(&0)?.ok_or("no map")?;
    assert!(Map::from_id(id)?.is_same_object(&one)?);
    assert!(!Map::from_id(id)?.is_same_object(&other)?);
    // The array keeps its maps alive.
    let ids = (one.id()?, other.id()?);
    drop((one, other));
    sleep(Duration::from_millis(50));
    assert_eq!(maps.lookup(&0)?, Some(ids.0));
    assert_eq!(maps.lookup(&1)?, Some(ids.1));
    assert_eq!(Map::from_id(ids.1)?.info()?.name, "test_hash");
    assert!(maps.delete(&1)?);
    assert!(!maps.delete(&1)?);
    assert_eq!(maps.lookup(&1)?, None);
    // A map that differs from the inner map.
    let unlike = MapSpec::new(MapType::HASH, 4, 16, 8).create()?;
    let error = maps.update(&1, &unlike, ElemFlags::ANY);
    let error = error.expect_err("values of another size");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    let is_explained = matches!(error.cause(), Some(Cause::OtherInnerMap { .. }));
    assert!(is_explained, "{error}");
    Ok(())
}

#[common::test(BY_ID)]
fn a_hash_of_maps_returns_ids() -> Outcome {
    let (one, other) = (hash(), hash());
    let outer = MapSpec::new(MapType::HASH_OF_MAPS, 8, 4, 2).inner_map(&one);
    let maps: Elements<u64, Map> = Elements::new(outer.create()?)?;
    let key = 1 << 40;
    assert_eq!(maps.lookup(&key)?, None);
    assert!(!maps.delete(&key)?);
    maps.update(&key, &one, ElemFlags::NOEXIST)?;
    assert_eq!(maps.lookup(&key)?, Some(one.id()?));
    let error = maps.update(&key, &other, ElemFlags::NOEXIST).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{error}");
    maps.update(&key, &other, ElemFlags::EXIST)?;
    assert_eq!(maps.lookup(&key)?, Some(other.id()?));
    assert!(maps.delete(&key)?);
    let error = maps.update(&key, &one, ElemFlags::EXIST).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
    Ok(())
}

#[common::test(ROOT)]
fn a_cgroup_array_accepts_cgroups() -> Outcome {
    in_mount_namespace(|| {
        let root = tempfile::tempdir()?;
        mount("cgroup2", root.path(), "cgroup2", MountFlags::empty(), None)?;
        let group = OwnedFd::from(File::open(root.path())?);
        let map = MapSpec::new(MapType::CGROUP_ARRAY, 4, 4, 1).create()?;
        let groups = map.elements::<u32, Descriptor>()?;
        assert!(!groups.delete(&0)?);
        groups.update(&0, &group, ElemFlags::ANY)?;
        assert!(groups.delete(&0)?);
        assert!(!groups.delete(&0)?);
        let other = OwnedFd::from(File::open("/dev/null")?);
        let error = groups.update(&0, &other, ElemFlags::ANY);
        let error = error.expect_err("no control group");
        assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{error}");
        drop(group);
        unmount(root.path(), UnmountFlags::DETACH)?;
        fs::remove_dir(root.path())?;
        Ok(())
    })
}

/// `perf_event_open(2)`: a software event on the first CPU that programs can write to.
fn event() -> std::io::Result<OwnedFd> {
    // PERF_TYPE_SOFTWARE, the struct's first size of 64 bytes, PERF_COUNT_SW_BPF_OUTPUT.
    let mut attr = [0u8; 64];
    attr[0..4].copy_from_slice(&1u32.to_ne_bytes());
    attr[4..8].copy_from_slice(&64u32.to_ne_bytes());
    attr[8..16].copy_from_slice(&10u64.to_ne_bytes());
    // SAFETY: the struct has the size that it states, and is only read.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), -1, 0, -1, 0) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel has just created it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[common::test(ROOT)]
fn a_perf_event_array_accepts_events() -> Outcome {
    for flags in [MapFlags::empty(), MapFlags::PRESERVE_ELEMS] {
        let map = MapSpec::new(MapType::PERF_EVENT_ARRAY, 4, 4, 1).flags(flags);
        let map = map.create()?;
        let events = map.elements::<u32, Descriptor>()?;
        events.update(&0, &event()?, ElemFlags::ANY)?;
        // An event is removed when the descriptor that inserted it is closed.
        let again = Map::from_id(map.id()?)?;
        again
            .elements::<u32, Descriptor>()?
            .update(&0, &event()?, ElemFlags::ANY)?;
        drop(again);
        assert_eq!(events.delete(&0)?, flags == MapFlags::PRESERVE_ELEMS);
        let other = OwnedFd::from(File::open("/dev/null")?);
        let error = events.update(&0, &other, ElemFlags::ANY);
        let error = error.expect_err("no event");
        assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{error}");
    }
    Ok(())
}
