//! `mmap(2)` of an array: values as atomics, with the exact size, alive as long as the mapping.

use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::{fs, ptr, thread};

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::{Atom, ElemFlags, LoadOnly, Mmap};
use bpf_pin::types::MapFlags;
use bpf_pin::{Access, Map, MapSpec, MapType, PinnedMap, abi};
use common::*;

const CHILD: &str = "BPF_PIN_TEST_MMAP";

const BPF: &[Need] = &[cap::BPF];
const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    if let Some(path) = std::env::var_os(CHILD) {
        add_from_a_child(Map::open(path).expect("the parent's map"));
        return Some(ExitCode::SUCCESS);
    }
    None
}

fn array(value_size: u32, max_entries: u32) -> bpf_pin::Result<Map> {
    MapSpec::new(MapType::ARRAY, 4, value_size, max_entries)
        .flags(MapFlags::MMAPABLE)
        .name("mapped")
        .create()
}

/// The only atom of a value.
fn atom<T: Atom>(mapped: &Mmap<T>, index: usize) -> &T {
    &mapped.as_slice().expect("no padding")[index]
}

#[common::test(BPF)]
fn values_of_8_bytes_are_mapped() -> Outcome {
    for entries in [1, 2, 511, 512, 513, 100_000] {
        let map = array(8, entries)?;
        let elems = map.elements::<u32, u64>()?;
        let mapped = map.mmap::<AtomicU64>()?;
        assert_eq!(mapped.len(), entries as usize);
        assert!(!mapped.is_empty());
        let flat = mapped.as_slice().expect("no padding");
        assert_eq!(flat.len(), entries as usize);
        assert_eq!(mapped.values().len(), entries as usize);
        let last = entries - 1;
        elems.update(&last, &7, ElemFlags::ANY)?;
        assert_eq!(atom(&mapped, last as usize).load(Relaxed), 7);
        mapped.get(last as usize).expect("the last")[0].store(9, Relaxed);
        assert_eq!(elems.lookup(&last)?, Some(9));
        // Exactly the values, although the page is larger.
        assert!(mapped.get(entries as usize).is_none());
        assert!(mapped.get(usize::MAX).is_none());
        assert_eq!(
            format!("{mapped:?}"),
            format!("Mmap {{ len: {entries}, atomics_per_value: 1, .. }}")
        );
    }
    Ok(())
}

fn check_values<T: Atom + 'static>(value_size: u32, store: impl Fn(&T, usize)) -> Outcome {
    const ENTRIES: u32 = 1000;
    let map = array(value_size, ENTRIES)?;
    let mapped: Mmap<T> = map.mmap()?;
    let atoms = value_size as usize / size_of::<T>();
    let mut seen = 0;
    for (index, value) in mapped.values().enumerate() {
        assert_eq!(value.len(), atoms);
        for (at, atom) in value.iter().enumerate() {
            store(atom, index + at);
        }
        assert_eq!(value.as_ptr(), mapped.get(index).expect("a value").as_ptr());
        seen += 1;
    }
    assert_eq!(seen, ENTRIES);
    let bytes = map.elements::<[u8], [u8]>()?;
    let mut value = vec![0; value_size as usize];
    for index in 0..ENTRIES {
        assert!(bytes.lookup_into(&index.to_ne_bytes(), &mut value, ElemFlags::ANY)?);
        for (at, atom) in value.chunks(size_of::<T>()).enumerate() {
            assert_eq!(
                atom[lowest_byte(atom.len())],
                (index as usize + at) as u8,
                "{index}"
            );
        }
    }
    let has_padding = value_size % 8 != 0;
    let flat = (!has_padding).then_some(ENTRIES as usize * atoms);
    assert_eq!(mapped.as_slice().map(<[T]>::len), flat);
    Ok(())
}

/// The offset of the lowest byte in an integer of this size.
fn lowest_byte(len: usize) -> usize {
    if cfg!(target_endian = "little") {
        0
    } else {
        len - 1
    }
}

#[common::test(BPF)]
fn values_of_any_number_of_atomics_are_mapped() -> Outcome {
    // With padding between the values.
    check_values::<AtomicU8>(1, |atom, n| atom.store(n as u8, Relaxed))?;
    check_values::<AtomicU8>(13, |atom, n| atom.store(n as u8, Relaxed))?;
    check_values::<AtomicU16>(2, |atom, n| atom.store(n as u16, Relaxed))?;
    check_values::<AtomicU32>(4, |atom, n| atom.store(n as u32, Relaxed))?;
    check_values::<AtomicU32>(12, |atom, n| atom.store(n as u32, Relaxed))?;
    // Without.
    check_values::<AtomicU64>(24, |atom, n| atom.store(n as u64, Relaxed))?;
    check_values::<AtomicU32>(8, |atom, n| atom.store(n as u32, Relaxed))?;
    check_values::<AtomicU8>(8, |atom, n| atom.store(n as u8, Relaxed))
}

#[common::test(BPF)]
fn mappings_and_system_calls_see_the_same_values() -> Outcome {
    let map = array(8, 4)?;
    let (one, two) = (map.mmap::<AtomicU64>()?, map.mmap::<AtomicU64>()?);
    // Only 64-bit architectures load 64 bits without a store.
    #[cfg(target_pointer_width = "64")]
    let reader = map.mmap::<LoadOnly<AtomicU64>>()?;
    assert_ne!(
        ptr::from_ref(atom(&one, 0)).addr(),
        ptr::from_ref(atom(&two, 0)).addr()
    );
    let elems = map.elements::<u32, u64>()?;
    for n in 0..1000 {
        atom(&one, 2).store(n, Relaxed);
        assert_eq!(atom(&two, 2).load(Relaxed), n);
        #[cfg(target_pointer_width = "64")]
        assert_eq!(atom(&reader, 2).load(), n);
        assert_eq!(elems.lookup(&2)?, Some(n));
        elems.update(&2, &!n, ElemFlags::ANY)?;
        assert_eq!(atom(&one, 2).load(Relaxed), !n);
    }
    let halves = map.mmap::<LoadOnly<AtomicU32>>()?;
    assert_eq!(format!("{:?}", atom(&halves, 3)), "0");
    assert_eq!(halves.get(2).expect("a value").len(), 2);
    Ok(())
}

const ROUNDS: u64 = 20_000;

#[common::test(BPF)]
fn threads_share_a_mapping() -> Outcome {
    let map = array(8, 4)?;
    let mapped = &map.mmap::<AtomicU64>()?;
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    atom(mapped, 1).fetch_add(1, Relaxed);
                }
            });
        }
    });
    assert_eq!(map.elements::<u32, u64>()?.lookup(&1)?, Some(8 * ROUNDS));
    // Another thread can own it.
    let mapped = map.mmap::<AtomicU64>()?;
    let sum = thread::spawn(move || atom(&mapped, 1).load(Relaxed)).join();
    assert_eq!(sum.expect("no panic"), 8 * ROUNDS);
    Ok(())
}

fn add_from_a_child(map: Map) {
    let mapped = map.mmap::<AtomicU64>().expect("a mapping");
    for _ in 0..ROUNDS {
        atom(&mapped, 0).fetch_add(1, Relaxed);
    }
}

#[common::test(PINS)]
fn processes_share_a_mapping() -> Outcome {
    let fs = TestFs::new();
    let map = array(8, 1)?;
    let pinned = map.pin(fs.at("counter"))?;
    let mapped = pinned.mmap::<AtomicU64>()?;
    // The root of a test's bpffs may be a descriptor of this process.
    let path = fs.at("counter").display().to_string();
    let path = path.replace("/proc/self/", &format!("/proc/{}/", std::process::id()));
    let mut children = vec![];
    for _ in 0..4 {
        children.push(
            common::command(std::env::current_exe()?)
                .env(CHILD, &path)
                .spawn()?,
        );
    }
    for _ in 0..ROUNDS {
        atom(&mapped, 0).fetch_add(1, Relaxed);
    }
    for mut child in children {
        assert!(child.wait()?.success());
    }
    assert_eq!(atom(&mapped, 0).load(Relaxed), 5 * ROUNDS);
    Ok(())
}

#[common::test(PINS)]
fn a_mapping_outlives_the_descriptor_and_the_pin() -> Outcome {
    let fs = TestFs::new();
    let pinned = array(8, 512)?.pin(fs.at("map"))?;
    let id = pinned.id()?;
    pinned
        .elements::<u32, u64>()?
        .update(&511, &7, ElemFlags::ANY)?;
    let mapped = pinned.mmap::<AtomicU64>()?;
    drop(pinned);
    PinnedMap::open(fs.at("map"))?.unpin()?;
    assert_eq!(fs.names(), [""; 0]);
    for _ in 0..100 {
        assert_eq!(atom(&mapped, 511).fetch_add(0, Relaxed), 7);
        thread::yield_now();
    }
    if cap::SYS_ADMIN.unmet().is_none() {
        let map = Map::from_id(id)?;
        assert_eq!(map.elements::<u32, u64>()?.lookup(&511)?, Some(7));
    }
    Ok(())
}

#[common::test(BPF)]
fn other_maps_are_rejected() -> Outcome {
    let assert_rejected = |map: &Map| {
        let map_type = map.info().unwrap().map_type;
        for error in [
            map.mmap::<AtomicU64>().expect_err("no array to be mapped"),
            map.mmap::<LoadOnly<AtomicU8>>()
                .expect_err("no array to be mapped"),
        ] {
            assert_eq!(error.operation(), Operation::Mmap);
            assert_eq!(error.cause(), Some(&Cause::NotMmapable { map_type }));
            assert_eq!(error.raw_os_error(), None);
        }
    };
    // SAFETY: sysconf takes a number and returns one.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u32;
    assert_rejected(&MapSpec::new(MapType::ARRAY, 4, 8, 4).create()?);
    assert_rejected(&MapSpec::new(MapType::HASH, 4, 8, 4).create()?);
    assert_rejected(&MapSpec::new(MapType::PERCPU_ARRAY, 4, 8, 4).create()?);
    assert_rejected(&MapSpec::new(MapType::RINGBUF, 0, 0, page).create()?);
    let arena = MapSpec::new(MapType::ARENA, 0, 0, 4).flags(MapFlags::MMAPABLE);
    match arena.create() {
        Ok(arena) => assert_rejected(&arena),
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}"),
    }
    Ok(())
}

#[common::test(BPF)]
fn values_of_other_sizes_are_rejected() -> Outcome {
    fn assert_rejected<T: Atom>(value_size: u32) -> Outcome {
        let error = array(value_size, 4)?.mmap::<T>().expect_err("no multiple");
        assert_cause_matches!(
            error,
            Cause::InvalidArgument {
                what: "value_size",
                ..
            }
        );
        assert_eq!(error.raw_os_error(), None);
        Ok(())
    }
    let error = array(12, 4)?.mmap::<AtomicU64>().expect_err("12 bytes");
    assert!(
        error
            .to_string()
            .ends_with(": value_size is 12, not a multiple of 8, the atomic's size")
    );
    assert_rejected::<AtomicU64>(4)?;
    assert_rejected::<AtomicU64>(12)?;
    assert_rejected::<AtomicU32>(6)?;
    assert_rejected::<AtomicU16>(5)?;
    assert_rejected::<LoadOnly<AtomicU32>>(1)?;
    Ok(())
}

#[common::test(PINS)]
fn mapping_requires_a_descriptor_for_reading_and_writing() -> Outcome {
    let fs = TestFs::new();
    let pinned = array(8, 4)?.pin(fs.at("map"))?;
    pinned
        .elements::<u32, u64>()?
        .update(&1, &7, ElemFlags::ANY)?;
    // The kernel maps only a descriptor for both, even for reading.
    for (opened, read_errno) in [
        (Access::ReadOnly, libc::EINVAL),
        (Access::WriteOnly, libc::EACCES),
    ] {
        let map = Map::open_with(fs.at("map"), opened)?;
        let error = map.mmap::<AtomicU64>().expect_err("for writing");
        assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
        assert_eq!(error.cause(), Some(&Cause::MapAccess { opened }), "{error}");
        let error = map.mmap::<LoadOnly<AtomicU32>>().expect_err("for reading");
        assert_eq!(error.raw_os_error(), Some(read_errno), "{error}");
        assert_eq!(error.cause(), Some(&Cause::MapAccess { opened }), "{error}");
    }
    let spec = MapSpec::new(MapType::ARRAY, 4, 8, 1);
    let map = spec
        .flags(MapFlags::MMAPABLE | MapFlags::RDONLY_PROG)
        .create()?;
    let error = map.mmap::<AtomicU64>().expect_err("for writing");
    assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
    assert_eq!(error.cause(), Some(&Cause::ReadOnlyForProgs), "{error}");
    assert_eq!(atom(&map.mmap::<LoadOnly<AtomicU32>>()?, 0).load(), 0);
    Ok(())
}

/// Maps and unmaps more often than a process may have mappings. In the end no writable mapping is left.
#[common::test(BPF)]
fn dropping_a_mapping_unmaps_it() -> Outcome {
    let map = array(8, 4)?;
    let most = fs::read_to_string("/proc/sys/vm/max_map_count")?;
    let most: u32 = most.trim().parse()?;
    for _ in 0..most.min(100_000) + 1000 {
        drop(map.mmap::<AtomicU64>()?);
    }
    Ok(map.freeze()?)
}

/// A program and this process add to the same value.
#[common::test(BPF)]
fn a_program_and_a_mapping_share_values() -> Outcome {
    let map = array(8, 1)?;
    let mapped = map.mmap::<AtomicU64>()?;
    let prog = counting_filter(&map, 0)?;
    drop(map);
    let packet = [0u8; 64];
    let run = |repeat| {
        let mut attr = abi::bpf_attr_test {
            prog_fd: prog.as_fd().as_raw_fd() as u32,
            data_size_in: packet.len() as u32,
            data_in: packet.as_ptr() as u64,
            repeat,
            ..abi::bpf_attr_test::zeroed()
        };
        let (size, attr) = (size_of_val(&attr) as u32, ptr::from_mut(&mut attr).cast());
        // SAFETY: the packet has the given length and is only read; there is no output buffer.
        let done = unsafe { abi::bpf(abi::BPF_PROG_TEST_RUN, attr, size) };
        assert!(done >= 0, "{}", std::io::Error::last_os_error());
    };
    run(3);
    assert_eq!(atom(&mapped, 0).swap(100, Relaxed), 3);
    run(1);
    assert_eq!(atom(&mapped, 0).swap(0, Relaxed), 101);
    thread::scope(|scope| {
        scope.spawn(|| run(ROUNDS as u32));
        for _ in 0..ROUNDS {
            atom(&mapped, 0).fetch_add(1, Relaxed);
        }
    });
    assert_eq!(atom(&mapped, 0).load(Relaxed), 2 * ROUNDS);
    Ok(())
}
