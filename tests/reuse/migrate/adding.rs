//! `Migration::commit_adding`: adds what the old program counted after the copy.

use std::fs::File;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::ElemFlags;
use bpf_pin::prog::{Btf, Insn};
use bpf_pin::reuse::{Attachment, MapOutcome, Migrate, Migration, Reuse};
use bpf_pin::types::{AttachType, MapFlags, ProgType};
use bpf_pin::{LinkSpec, Map, MapSpec, MapType, PinDir, Prog, ProgSpec, abi};
use common::{
    Need, Outcome, SetOnDrop, TestFs, as_user, assert_cause_matches, bring_up_loopback, btf_blob,
    cap, count_insns, in_network_namespace, lookup_insns, wait_until, with_bpf_errno,
    with_interrupted_runs, with_seccomp_errno,
};
use rustix::thread::CapabilitySet;

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];

/// A power of two.
const KEYS: u32 = 64;

/// Looks up the socket of a packet: counts the packet in the first word of the value under a random key below
/// `KEYS`, and lets it pass.
fn counting(map: &Map) -> bpf_pin::Result<Prog> {
    const BPF_FUNC_GET_PRANDOM_U32: i32 = 7;
    let mut insns = vec![
        Insn::call(BPF_FUNC_GET_PRANDOM_U32),
        Insn::alu64_imm(abi::BPF_AND, 0, KEYS as i32 - 1),
        Insn::stx_mem(abi::BPF_W, 10, 0, -4),
        Insn::mov64_reg(2, 10),
        Insn::alu64_imm(abi::BPF_ADD, 2, -4),
    ];
    insns.extend(lookup_insns(map));
    insns.extend(count_insns(1));
    ProgSpec::new(ProgType::SK_LOOKUP, &insns)
        .expected_attach_type(AttachType::SK_LOOKUP)
        .load()
}

/// Sends packets over the loopback device and waits for each, until `stop` is true.
fn send(stop: &AtomicBool, sent: &AtomicU32) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (to, timeout) = (socket.local_addr().unwrap(), Duration::from_secs(10));
    socket.set_read_timeout(Some(timeout)).unwrap();
    while !stop.load(Relaxed) {
        socket.send_to(b"packet", to).unwrap();
        sent.fetch_add(1, Relaxed);
        socket.recv(&mut [0; 16]).unwrap();
    }
}

/// The new map, its program, the link, and then what the old map counted after the copy, while packets arrive.
fn upgrade(map_type: MapType) -> Outcome<[u64; 3]> {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let spec = |value_size| MapSpec::new(map_type, 4, value_size, KEYS);
    let old = spec(8).create()?;
    let before = old.elements::<u32, u64>()?;
    (0..KEYS).try_for_each(|key| before.update(&key, &0, ElemFlags::ANY))?;
    dir.pin(&old, "counts")?;
    // Not XDP: the kernel rewrites the call of XDP programs at each update, and emulated processors can execute a
    // half of it.
    let netns = File::open("/proc/thread-self/ns/net")?;
    let link = LinkSpec::netns(&netns, AttachType::SK_LOOKUP);
    dir.open_or_attach("link", &link, &counting(&old)?)?;

    let (stop, sent) = (AtomicBool::new(false), AtomicU32::new(0));
    let late = thread::scope(|scope| -> Outcome<u64> {
        let _stop = SetOnDrop(&stop);
        (0..2).for_each(|_| drop(scope.spawn(|| send(&stop, &sent))));
        let some = || {
            let enough = sent.load(Relaxed) + 200;
            wait_until("sent", || sent.load(Relaxed) >= enough);
        };
        some();
        let mut how = Migrate::new(|key: &u32, count: &u64| Some((*key, [*count, 0])));
        let opened = dir.open_or_create("counts", &spec(16), Reuse::Migrate(&mut how))?;
        let MapOutcome::Migrated(migration) = opened.outcome else {
            panic!("{:?}", opened.outcome);
        };
        some();
        let attached = dir.open_or_attach("link", &link, &counting(&opened.map)?)?;
        assert!(matches!(attached.attachment, Attachment::Updated { .. }));
        let mut late = 0;
        let old = migration.commit_adding(&opened.map, |key: &u32, count: &u64| {
            late += count;
            Some((*key, [*count, 0]))
        })?;
        drop(old);
        some();
        Ok(late)
    })?;
    assert_eq!(fs.names(), ["counts", "link"]);
    let counted = entries(&dir.get("counts")?)?;
    let counted = counted.iter().map(|(_, [count, _])| count).sum();
    Ok([sent.into_inner().into(), counted, late])
}

#[common::test(ROOT)]
fn no_packet_is_lost_by_an_upgrade() -> Outcome {
    in_network_namespace(|| {
        bring_up_loopback()?;
        let mut late = 0;
        for time in 0..50 {
            let map_type = [MapType::HASH, MapType::ARRAY, MapType::LRU_HASH][time % 3];
            let [sent, counted, added] = upgrade(map_type)?;
            assert_eq!(sent, counted, "{map_type}, upgrade {time}");
            late += added;
        }
        assert!(late > 0, "nothing was counted after a copy");
        Ok(())
    })
}

/// A migration from values `[u32; 2]` to `[u64; 2]`, with the entries (1, [10, 20]) and (2, [30, 40]).
fn small_counters(fs: &TestFs, entries: u32) -> Outcome<(Map, Migration)> {
    let dir = PinDir::open(fs.root())?;
    let old = MapSpec::new(MapType::HASH, 4, 8, 16).create()?;
    let values = old.elements::<u32, [u32; 2]>()?;
    values.update(&1, &[10, 20], ElemFlags::ANY)?;
    values.update(&2, &[30, 40], ElemFlags::ANY)?;
    dir.pin(&old, "counts")?;
    let spec = MapSpec::new(MapType::HASH, 4, 16, entries);
    let opened = dir.open_or_create("counts", &spec, Reuse::Migrate(&mut Migrate::new(widen)))?;
    match opened.outcome {
        MapOutcome::Migrated(migration) => Ok((opened.map, migration)),
        other => panic!("{other:?}"),
    }
}

fn entries(map: &Map) -> bpf_pin::Result<Vec<(u32, [u64; 2])>> {
    let entries = map.elements::<u32, [u64; 2]>()?;
    let mut entries = entries.iter().collect::<bpf_pin::Result<Vec<_>>>()?;
    entries.sort_unstable();
    Ok(entries)
}

fn widen(key: &u32, counts: &[u32; 2]) -> Option<(u32, [u64; 2])> {
    Some((*key, counts.map(u64::from)))
}

#[common::test(PINS)]
fn the_growth_of_each_counter_is_added() -> Outcome {
    let fs = TestFs::new();
    let (map, migration) = small_counters(&fs, 16)?;
    let old = migration.old().elements::<u32, [u32; 2]>()?;
    let new = map.elements::<u32, [u64; 2]>()?;
    // The second counter has wrapped around; the entry 2 is gone; the entries 3 and 4 are new, and 5 is skipped.
    old.update(&1, &[11, 15], ElemFlags::ANY)?;
    old.delete(&2)?;
    for key in 3..6 {
        old.update(&key, &[7, 0], ElemFlags::ANY)?;
    }
    // The new map was written in the meantime.
    new.update(&1, &[110, 1020], ElemFlags::ANY)?;
    new.update(&4, &[100, 1], ElemFlags::ANY)?;
    migration.commit_adding(&map, |key: &u32, counts: &[u32; 2]| match key {
        5 => None,
        _ => widen(key, counts),
    })?;
    let entries = entries(&map)?;
    let expected = [
        (1, [111, 1020 + u64::from(15_u32.wrapping_sub(20))]),
        (2, [30, 40]),
        (3, [7, 0]),
        (4, [107, 1]),
    ];
    assert_eq!(entries, expected);
    assert_eq!(fs.names(), ["counts"]);
    Ok(())
}

#[common::test(PINS)]
fn counters_of_4_bytes_are_added_by_themselves() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    dir.pin(&MapSpec::new(MapType::ARRAY, 4, 4, 1).create()?, "counts")?;
    let grow = |key: &u32, count: &u32| Some((*key, [0, *count, 0_u32]));
    let spec = MapSpec::new(MapType::ARRAY, 4, 12, 1);
    let opened = dir.open_or_create("counts", &spec, Reuse::Migrate(&mut Migrate::new(grow)))?;
    let MapOutcome::Migrated(migration) = opened.outcome else {
        panic!("{:?}", opened.outcome);
    };
    let old = migration.old().elements::<u32, u32>()?;
    old.update(&0, &3, ElemFlags::ANY)?;
    let new = opened.map.elements::<u32, [u32; 3]>()?;
    new.update(&0, &[5, u32::MAX, 6], ElemFlags::ANY)?;
    migration.commit_adding(&opened.map, grow)?;
    // The sum wraps around and carries nothing into the next counter.
    assert_eq!(new.lookup(&0)?, Some([5, 2, 6]));
    Ok(())
}

/// Only the backup pin cannot be removed then, because it is root's.
#[common::test(&[cap::SYS_ADMIN, cap::SETUID, Need::Bpffs])]
fn cap_bpf_suffices_to_add() -> Outcome {
    let fs = TestFs::new();
    let (map, migration) = small_counters(&fs, 16)?;
    let old = migration.old().elements::<u32, [u32; 2]>()?;
    old.update(&1, &[11, 22], ElemFlags::ANY)?;
    let error = as_user(CapabilitySet::BPF, || {
        migration.commit_adding(&map, widen).unwrap_err()
    });
    assert_eq!(error.error().operation(), Operation::Unpin, "{error}");
    assert_eq!(entries(&map)?, [(1, [11, 22]), (2, [30, 40])]);
    // A second call adds nothing twice.
    error.into_object().commit_adding(&map, widen)?;
    assert_eq!(entries(&map)?, [(1, [11, 22]), (2, [30, 40])]);
    Ok(())
}

/// As on a kernel with nohz_full CPUs, where the grace period comes from an update of a map of maps.
#[common::test(PINS)]
fn adding_needs_no_membarrier() -> Outcome {
    let fs = TestFs::new();
    let (map, migration) = small_counters(&fs, 16)?;
    let old = migration.old().elements::<u32, [u32; 2]>()?;
    old.update(&1, &[11, 22], ElemFlags::ANY)?;
    let call = libc::SYS_membarrier;
    let done = with_seccomp_errno(call, None, libc::EINVAL as u32, || {
        migration.commit_adding(&map, widen).map(drop)
    });
    done?;
    assert_eq!(entries(&map)?, [(1, [11, 22]), (2, [30, 40])]);
    Ok(())
}

#[common::test(PINS)]
fn a_signal_during_a_run_adds_nothing_twice() -> Outcome {
    let fs = TestFs::new();
    let (map, migration) = small_counters(&fs, 16)?;
    let old = migration.old().elements::<u32, [u32; 2]>()?;
    old.update(&1, &[11, 22], ElemFlags::ANY)?;
    // This entry is created.
    old.update(&3, &[5, 0], ElemFlags::ANY)?;
    let (done, runs) = with_interrupted_runs(|| migration.commit_adding(&map, widen).map(drop));
    done?;
    assert_eq!(runs, 2);
    let expected = [(1, [11, 22]), (2, [30, 40]), (3, [5, 0])];
    assert_eq!(entries(&map)?, expected);
    Ok(())
}

#[common::test(PINS)]
fn adding_continues_after_a_failure() -> Outcome {
    let fs = TestFs::new();
    let (map, migration) = small_counters(&fs, 2)?;
    let old = migration.old().elements::<u32, [u32; 2]>()?;
    for key in 1..5 {
        old.update(&key, &[50, 60], ElemFlags::ANY)?;
    }
    let failed = migration.commit_adding(&map, widen).unwrap_err();
    let error = failed.error();
    assert_cause_matches!(error, Cause::MaxEntries { .. });
    assert_eq!(error.during(), Some(Operation::Migrate), "{error}");
    // Without the other two entries there is room. The first two are not added again.
    let migration = failed.into_object();
    let old = migration.old().elements::<u32, [u32; 2]>()?;
    old.delete(&3)?;
    old.delete(&4)?;
    migration.commit_adding(&map, widen)?;
    assert_eq!(entries(&map)?, [(1, [50, 60]), (2, [50, 60])]);
    Ok(())
}

#[common::test(PINS)]
fn adding_takes_only_the_new_map_and_its_sizes() -> Outcome {
    let fs = TestFs::new();
    let (map, migration) = small_counters(&fs, 16)?;
    let other = MapSpec::of(&map)?.create()?;
    let failed = migration.commit_adding(&other, widen).unwrap_err();
    assert_cause_matches!(failed, Cause::InvalidArgument { what: "new", .. });
    let narrow = |key: &u32, counts: &[u32; 2]| Some((*key, *counts));
    let failed = failed
        .into_object()
        .commit_adding(&map, narrow)
        .unwrap_err();
    assert_cause_matches!(
        failed,
        Cause::Size {
            what: "new value",
            ..
        }
    );
    let wide = |key: &u32, count: &u32| Some((*key, [u64::from(*count), 0]));
    let failed = failed.into_object().commit_adding(&map, wide).unwrap_err();
    assert_cause_matches!(failed, Cause::Size { what: "value", .. });
    failed.into_object().commit_adding(&map, widen)?;
    Ok(())
}

#[common::test(PINS)]
fn values_of_each_cpu_cannot_be_added_to() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    dir.pin(
        &MapSpec::new(MapType::PERCPU_ARRAY, 4, 8, 1).create()?,
        "counts",
    )?;
    let mut how = Migrate::bytes(|_, _, _, _| true);
    let spec = MapSpec::new(MapType::PERCPU_ARRAY, 4, 16, 1);
    let opened = dir.open_or_create("counts", &spec, Reuse::Migrate(&mut how))?;
    let MapOutcome::Migrated(migration) = opened.outcome else {
        panic!("{:?}", opened.outcome);
    };
    let grow = |key: &u32, count: &u64| Some((*key, [*count, 0]));
    let failed = migration.commit_adding(&opened.map, grow).unwrap_err();
    assert_cause_matches!(failed, Cause::PerCpu { is_per_cpu: true });
    failed.into_object().commit()?;
    Ok(())
}

/// The program that adds cannot be loaded here.
#[common::test(PINS)]
fn no_program_is_loaded_if_nothing_was_counted() -> Outcome {
    let fs = TestFs::new();
    let load = Some(abi::BPF_PROG_LOAD);
    let (map, migration) = small_counters(&fs, 16)?;
    let add = |migration: Migration| {
        with_bpf_errno(load, libc::ENOMEM as u32, || {
            migration.commit_adding(&map, widen)
        })
    };
    let old = migration.old().elements::<u32, [u32; 2]>()?;
    old.update(&1, &[11, 20], ElemFlags::ANY)?;
    let failed = add(migration).expect_err("no program");
    assert_eq!(failed.error().operation(), Operation::LoadProg, "{failed}");
    let migration = failed.into_object();
    let old = migration.old().elements::<u32, [u32; 2]>()?;
    old.update(&1, &[10, 20], ElemFlags::ANY)?;
    drop(add(migration)?);
    assert_eq!(entries(&map)?, [(1, [10, 20]), (2, [30, 40])]);
    Ok(())
}

/// Another process copied the entries, so what was counted since then is unknown.
#[common::test(PINS)]
fn a_resumed_migration_adds_nothing() -> Outcome {
    let fs = TestFs::new();
    let (map, migration) = small_counters(&fs, 16)?;
    let old = migration.old().try_clone()?;
    drop(migration);
    old.elements::<u32, [u32; 2]>()?
        .update(&1, &[11, 22], ElemFlags::ANY)?;
    let spec = MapSpec::of(&map)?;
    let mut how = Migrate::new(widen);
    let opened =
        PinDir::open(fs.root())?.open_or_create("counts", &spec, Reuse::Migrate(&mut how))?;
    let MapOutcome::Resumed(migration) = opened.outcome else {
        panic!("{:?}", opened.outcome);
    };
    let failed = migration.commit_adding(&map, widen).unwrap_err();
    assert_cause_matches!(failed, Cause::InvalidArgument { .. });
    assert_eq!(entries(&map)?, [(1, [10, 20]), (2, [30, 40])]);
    failed.into_object().commit()?;
    Ok(())
}

/// The new map of a migration from one counter to two.
fn one_counter(dir: &PinDir, map_type: MapType) -> Outcome<(Map, Migration)> {
    dir.pin(&MapSpec::new(map_type, 4, 8, 1).create()?, "counts")?;
    let mut how = Migrate::new(|key: &u32, count: &u64| Some((*key, [*count, 0])));
    let spec = MapSpec::new(map_type, 4, 16, 1);
    let opened = dir.open_or_create("counts", &spec, Reuse::Migrate(&mut how))?;
    match opened.outcome {
        MapOutcome::Migrated(migration) => Ok((opened.map, migration)),
        other => panic!("{other:?}"),
    }
}

#[common::test(PINS)]
fn an_index_beyond_the_new_array_is_reported() -> Outcome {
    let fs = TestFs::new();
    let (map, migration) = one_counter(&PinDir::open(fs.root())?, MapType::ARRAY)?;
    let old = migration.old().elements::<u32, u64>()?;
    old.update(&0, &3, ElemFlags::ANY)?;
    let failed = migration
        .commit_adding(&map, |_: &u32, count: &u64| Some((5_u32, [*count, 0])))
        .unwrap_err();
    assert_eq!(failed.error().raw_os_error(), Some(libc::E2BIG), "{failed}");
    let (index, max_entries) = (5, 1);
    assert_eq!(
        failed.error().cause(),
        Some(&Cause::IndexOutOfRange { index, max_entries })
    );
    failed.into_object().commit()?;
    Ok(())
}

#[common::test(PINS)]
fn a_trie_has_no_counters_to_add_to() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let spec = |value_size| {
        let spec = MapSpec::new(MapType::LPM_TRIE, 8, value_size, 1);
        spec.flags(MapFlags::NO_PREALLOC)
    };
    dir.pin(&spec(8).create()?, "counts")?;
    let grow = |key: &[u32; 2], count: &u64| Some((*key, [*count, 0]));
    let mut how = Migrate::new(grow);
    let opened = dir.open_or_create("counts", &spec(16), Reuse::Migrate(&mut how))?;
    let MapOutcome::Migrated(migration) = opened.outcome else {
        panic!("{:?}", opened.outcome);
    };
    let failed = migration.commit_adding(&opened.map, grow).unwrap_err();
    assert_cause_matches!(failed, Cause::UnsupportedType { .. });
    failed.into_object().commit()?;
    Ok(())
}

/// The program that adds is a socket filter, which may not use such values.
#[common::test(PINS)]
fn values_with_a_spin_lock_cannot_be_added_to() -> Outcome {
    const STRUCT: u32 = 4 << 24;
    let names = b"\0int\0bpf_spin_lock\0val\0counter\0lock\0count\0";
    // 2: struct bpf_spin_lock { int val; }, 3: struct counter { struct bpf_spin_lock lock; int count; }
    let types = [
        &[1, 1 << 24, 4, 32][..],
        &[5, STRUCT | 1, 4, 19, 1, 0],
        &[23, STRUCT | 2, 8, 31, 2, 0, 36, 1, 32],
    ];
    let btf = Btf::load(&btf_blob(&types.concat(), names))?;
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    dir.pin(&MapSpec::new(MapType::HASH, 4, 4, 1).create()?, "counts")?;
    let grow = |key: &u32, count: &u32| Some((*key, [0, *count]));
    let spec = MapSpec::new(MapType::HASH, 4, 8, 1).btf(&btf, 1, 3);
    let opened = dir.open_or_create("counts", &spec, Reuse::Migrate(&mut Migrate::new(grow)))?;
    let MapOutcome::Migrated(migration) = opened.outcome else {
        panic!("{:?}", opened.outcome);
    };
    let old = migration.old().elements::<u32, u32>()?;
    old.update(&1, &7, ElemFlags::ANY)?;
    let failed = migration.commit_adding(&opened.map, grow).unwrap_err();
    let error = failed.error();
    assert_eq!(error.operation(), Operation::LoadProg, "{error}");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    failed.into_object().commit()?;
    Ok(())
}
