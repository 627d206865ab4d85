//! Per-CPU values: one for every possible CPU, at the right offset, and nothing beyond the buffer.

mod one_cpu;

use std::fmt::Debug;
use std::fs;
use std::process::ExitCode;
use std::ptr;
use std::slice;

use bpf_pin::error::{Cause, Operation};
use bpf_pin::map::{ElemFlags, Elements, PerCpu};
use bpf_pin::types::MapFlags;
use bpf_pin::{Access, Map, MapSpec, MapType, PinnedMap};
use bytemuck::Pod;
use common::*;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

/// Set for the process with a covered /sys.
const CHILD: &str = "BPF_PIN_TEST_COVERED_SYS";

const BPF: &[Need] = &[cap::BPF];
const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    if std::env::var_os(CHILD).is_some() {
        return Some(match in_mount_namespace(check_without_sys) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        });
    }
    None
}

/// The kernel pads the value of each CPU to 8 bytes.
#[common::test(BPF)]
fn values_of_any_size_are_found_per_cpu() -> Outcome {
    check_values(|n| n)?;
    check_values(|n| u64::from(n) << 32)?;
    check_values(|n| [n, n + 1, n + 2])?;
    check_values(|n| [u64::from(n), !u64::from(n)])?;
    check_values(|n| [n as u8; 5])
}

fn create(map_type: MapType, value_size: u32) -> Map {
    // An LRU list evicts elements long before it is full when their CPU changes.
    let entries = if map_type == MapType::LRU_PERCPU_HASH {
        4096
    } else {
        4
    };
    let spec = MapSpec::new(map_type, 4, value_size, entries).name("per_cpu");
    let map = spec.create();
    map.unwrap_or_else(|error| panic!("{error}"))
}

/// The number of possible CPUs: the highest in the kernel's list, plus one.
fn cpus() -> usize {
    let list = fs::read_to_string("/sys/devices/system/cpu/possible").expect("sysfs");
    let numbers = list.trim().split(['-', ',']);
    let highest = numbers.map(|number| number.parse::<usize>().expect("a number"));
    highest.max().expect("one at least") + 1
}

fn check_values<V: Pod + PartialEq + Debug>(make: impl Fn(u32) -> V) -> Outcome {
    const CANARY: u32 = 0xdead_0b5e;
    let cpus = cpus();
    let stride = size_of::<V>().next_multiple_of(8);
    for map_type in [
        MapType::PERCPU_ARRAY,
        MapType::PERCPU_HASH,
        MapType::LRU_PERCPU_HASH,
    ] {
        let map = create(map_type, size_of::<V>() as u32);
        let view = map.elements::<u32, PerCpu<V>>()?;
        assert_eq!(view.cpus(), cpus);
        let bytes = map.elements::<[u8], [u8]>()?;
        assert_eq!(bytes.value_len(), stride * cpus, "{map_type}");

        // Different values for each CPU and each key.
        let each = |key: u32| (0..cpus as u32).map(move |cpu| 1000 * key + 10 * cpu + 1);
        let values_of = |key: u32| each(key).map(&make).collect::<Vec<V>>();
        for key in 0..4 {
            view.update(&key, &values_of(key), ElemFlags::ANY)?;
        }
        for key in 0..4 {
            assert_eq!(view.lookup(&key)?, Some(values_of(key)), "{map_type}");

            // Between two values that stay unchanged.
            let mut fenced = vec![make(CANARY); cpus + 2];
            assert!(view.lookup_into(&key, &mut fenced[1..=cpus], ElemFlags::ANY)?);
            assert_eq!(fenced[1..=cpus], values_of(key));
            assert_eq!((fenced[0], fenced[cpus + 1]), (make(CANARY), make(CANARY)));

            // The layout of the kernel.
            let mut fenced = vec![0xaa; 64 + stride * cpus + 64];
            let (before, rest) = fenced.split_at_mut(64);
            let (all, after) = rest.split_at_mut(stride * cpus);
            assert!(bytes.lookup_into(&key.to_ne_bytes(), all, ElemFlags::ANY)?);
            for (value, bytes) in values_of(key).iter().zip(all.chunks_exact(stride)) {
                assert_eq!(bytemuck::bytes_of(value), &bytes[..size_of::<V>()]);
            }
            let untouched = |fence: &[u8]| fence.iter().all(|byte| *byte == 0xaa);
            assert!(untouched(before) && untouched(after), "{map_type}");
        }
        let mut keys: Vec<u32> = view.keys().collect::<Result<_, _>>()?;
        keys.sort_unstable();
        assert_eq!(keys, [0, 1, 2, 3], "{map_type}");
        assert_eq!(
            format!("{view:?}"),
            format!(
                "Elements {{ key_len: 4, value_len: {}, .. }}",
                stride * cpus
            )
        );
    }
    Ok(())
}

#[common::test(BPF)]
fn an_array_has_a_value_per_cpu() -> Outcome {
    let map = create(MapType::PERCPU_ARRAY, 8);
    let view = map.elements::<u32, PerCpu<u64>>()?;
    let ones = vec![1; cpus()];
    assert_eq!(view.lookup(&3)?, Some(vec![0; cpus()]));
    assert_eq!(view.lookup(&4)?, None);
    let error = view.update(&4, &ones, ElemFlags::ANY);
    let error = error.expect_err("an index that is not below 4");
    assert!(
        error
            .to_string()
            .ends_with(": index 4 is out of range: max_entries is 4")
    );
    let error = view.update(&3, &ones, ElemFlags::NOEXIST);
    assert_eq!(
        error.expect_err("it exists").raw_os_error(),
        Some(libc::EEXIST)
    );
    let error = view.delete(&3).expect_err("arrays keep their elements");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert_eq!(view.lookup(&3)?, Some(vec![0; cpus()]));
    Ok(())
}

#[common::test(BPF)]
fn a_hash_has_a_value_per_cpu() -> Outcome {
    for flags in [MapFlags::empty(), MapFlags::NO_PREALLOC] {
        let spec = MapSpec::new(MapType::PERCPU_HASH, 4, 4, 2).flags(flags);
        let map = spec.create()?;
        let view = map.elements::<u32, PerCpu<u32>>()?;
        let all = |n: u32| vec![n; cpus()];
        assert_eq!(view.lookup(&7)?, None);
        // A failed lookup leaves the buffer unchanged.
        let mut values = all(9);
        assert!(!view.lookup_into(&7, &mut values, ElemFlags::ANY)?);
        let error = view.update(&7, &all(1), ElemFlags::EXIST);
        assert_eq!(
            error.expect_err("it is not there").raw_os_error(),
            Some(libc::ENOENT)
        );
        view.update(&7, &all(1), ElemFlags::NOEXIST)?;
        view.update(&8, &all(2), ElemFlags::ANY)?;
        let error = view.update(&9, &all(3), ElemFlags::ANY);
        let error = error.expect_err("a third");
        assert_eq!(error.cause(), Some(&Cause::MaxEntries { max_entries: 2 }));
        assert!(view.delete(&7)?);
        assert!(!view.delete(&7)?);
        // A new element keeps no values of the deleted one.
        view.update(&9, &all(3), ElemFlags::ANY)?;
        assert_eq!(view.lookup(&9)?, Some(all(3)));
        assert_eq!(view.lookup(&8)?, Some(all(2)));
    }
    Ok(())
}

#[common::test(BPF)]
fn a_wrong_number_of_values_is_rejected() -> Outcome {
    let cpus = cpus();
    let map = create(MapType::PERCPU_ARRAY, 4);
    let view = map.elements::<u32, PerCpu<u32>>()?;
    for found in [0, cpus - 1, cpus + 1, 4096] {
        let mut values = vec![7; found];
        for error in [
            view.update(&0, &values, ElemFlags::ANY).expect_err("all"),
            view.lookup_into(&0, &mut values, ElemFlags::ANY)
                .expect_err("all"),
        ] {
            let size = Cause::Size {
                what: "number of values",
                expected: cpus,
                found,
            };
            assert_eq!(error.cause(), Some(&size));
            assert_eq!(error.raw_os_error(), None);
        }
        assert!(values.iter().all(|value| *value == 7));
    }
    assert_eq!(view.lookup(&0)?, Some(vec![0; cpus]));
    Ok(())
}

#[common::test(BPF)]
fn views_of_another_layout_are_rejected() -> Outcome {
    let map = create(MapType::PERCPU_ARRAY, 4);
    let error = map
        .elements::<u32, u32>()
        .expect_err("a value for each CPU");
    assert_eq!(error.cause(), Some(&Cause::PerCpu { is_per_cpu: true }));
    // The value size does not include the padding.
    let size = |what, expected, found| Cause::Size {
        what,
        expected,
        found,
    };
    let error = map.elements::<u32, PerCpu<u64>>().expect_err("8 bytes");
    assert_eq!(error.cause(), Some(&size("value", 4, 8)));
    let error = map
        .elements::<u64, PerCpu<u32>>()
        .expect_err("keys of 8 bytes");
    assert_eq!(error.cause(), Some(&size("key", 4, 8)));
    let error = map.elements::<u32, PerCpu<()>>().expect_err("no bytes");
    assert_eq!(error.cause(), Some(&size("value", 4, 0)));
    assert!(map.elements::<(), PerCpu<u32>>().is_err());
    Ok(())
}

#[common::test(BPF)]
fn every_per_cpu_type_has_a_value_per_cpu() -> Outcome {
    for (map_type, key_size, max_entries) in [
        (MapType::PERCPU_HASH, 4, 4),
        (MapType::PERCPU_ARRAY, 4, 4),
        (MapType::LRU_PERCPU_HASH, 4, 4),
        (MapType::PERCPU_CGROUP_STORAGE, 16, 0),
    ] {
        let map = MapSpec::new(map_type, key_size, 12, max_entries).create()?;
        assert_eq!(
            map.elements::<[u8], [u8]>()?.value_len(),
            16 * cpus(),
            "{map_type}"
        );
    }
    // No attached program uses the storage.
    let storage = MapSpec::new(MapType::PERCPU_CGROUP_STORAGE, 16, 12, 0).create()?;
    let view = storage.elements::<[u64; 2], PerCpu<[u32; 3]>>()?;
    assert_eq!(view.lookup(&[1, 0])?, None);
    Ok(())
}

#[common::test(PINS)]
fn a_read_only_map_rejects_writes() -> Outcome {
    let fs = TestFs::new();
    let pinned = create(MapType::PERCPU_HASH, 4).pin(fs.at("counts"))?;
    let ones = vec![1; cpus()];
    pinned
        .elements::<u32, PerCpu<u32>>()?
        .update(&7, &ones, ElemFlags::ANY)?;
    let map = Map::open_with(fs.at("counts"), Access::ReadOnly)?;
    let view = map.elements::<u32, PerCpu<u32>>()?;
    assert_eq!(view.lookup(&7)?.as_ref(), Some(&ones));
    for error in [
        view.update(&7, &ones, ElemFlags::ANY).expect_err("a write"),
        view.delete(&7).expect_err("a delete"),
    ] {
        let opened = Access::ReadOnly;
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        assert_eq!(error.cause(), Some(&Cause::MapAccess { opened }));
    }
    Ok(())
}

#[common::test(PINS)]
fn a_view_can_own_its_map() -> Outcome {
    let fs = TestFs::new();
    let pinned = create(MapType::PERCPU_ARRAY, 12).pin(fs.at("counts"))?;
    let view: Elements<u32, PerCpu<[u32; 3]>, PinnedMap> = Elements::new(pinned)?;
    view.update(&0, &vec![[1, 2, 3]; cpus()], ElemFlags::ANY)?;
    let pinned = view.into_map();
    let failed = Elements::<u32, PerCpu<u64>, _>::new(pinned).expect_err("values of 8 bytes");
    assert_eq!(failed.error().operation(), Operation::Elements);
    let pinned = failed.into_object();
    assert_eq!(pinned.path(), fs.at("counts"));
    let map = pinned.unpin()?;
    assert_eq!(fs.names(), [""; 0]);
    assert_eq!(
        map.elements::<u32, PerCpu<[u32; 3]>>()?.lookup(&0)?,
        Some(vec![[1, 2, 3]; cpus()])
    );
    Ok(())
}

/// Memory that ends at a page without access.
struct Guarded {
    start: *mut u8,
    room: usize,
    page: usize,
}

impl Guarded {
    fn new(room: usize) -> Self {
        // SAFETY: sysconf takes a number and returns one.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let room = room.next_multiple_of(page);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                room + page,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED);
        let start = start.cast::<u8>();
        // SAFETY: the last page of that mapping; there are no references to it.
        let done = unsafe { libc::mprotect(start.add(room).cast(), page, libc::PROT_NONE) };
        assert_eq!(done, 0);
        Self { start, room, page }
    }

    /// The last `length` bytes before the end.
    fn last(&mut self, length: usize) -> &mut [u8] {
        assert!(length <= self.room);
        // SAFETY: within the mapping, which is initialised; borrowed like self.
        unsafe { slice::from_raw_parts_mut(self.start.add(self.room - length), length) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping of new(), without any borrows.
        let done = unsafe { libc::munmap(self.start.cast(), self.room + self.page) };
        assert_eq!(done, 0);
    }
}

/// With a buffer that ends at a page without access, one byte too many fails with EFAULT.
#[common::test(BPF)]
fn the_kernel_stays_within_the_buffer() -> Outcome {
    for map_type in [MapType::PERCPU_ARRAY, MapType::PERCPU_HASH] {
        for size in [1, 4, 7, 8, 12, 16, 1000] {
            let map = create(map_type, size);
            let elems = map.elements::<[u8], [u8]>()?;
            let length = elems.value_len();
            let mut values = Guarded::new(length + 64);
            let mut keys = Guarded::new(4);
            keys.last(4).copy_from_slice(&3u32.to_ne_bytes());
            values.last(length).fill(0x11);
            elems.update(keys.last(4), values.last(length), ElemFlags::ANY)?;

            values.last(length + 64).fill(0xaa);
            assert!(elems.lookup_into(keys.last(4), values.last(length), ElemFlags::ANY)?);
            let all = values.last(length + 64);
            assert!(all[..64].iter().all(|byte| *byte == 0xaa));
            let stride = (size as usize).next_multiple_of(8);
            for value in all[64..].chunks_exact(stride) {
                assert_eq!(value[..size as usize], vec![0x11; size as usize]);
            }
            // No key follows the last key. The first key follows none.
            keys.last(4).fill(0xff);
            assert!(elems.next_key(None, keys.last(4))?);
            let first = u32::from_ne_bytes(keys.last(4).try_into()?);
            assert!(first < 4);
        }
    }
    let map = create(MapType::PERCPU_ARRAY, 8);
    let view = map.elements::<u32, PerCpu<u64>>()?;
    let mut values = Guarded::new(8 * cpus());
    let numbers = bytemuck::cast_slice_mut(values.last(8 * cpus()));
    assert!(view.lookup_into(&0, numbers, ElemFlags::ANY)?);

    // The guard page works: a value longer than the map's would be detected.
    let other = create(MapType::PERCPU_ARRAY, 16);
    let mut bytes = Guarded::new(0x1000);
    let room = bytes.last(16 * cpus()).as_mut_ptr();
    let faulted = raw_lookup(&other, room.wrapping_add(8));
    assert_eq!(faulted, Err(libc::EFAULT));
    Ok(())
}

/// `BPF_MAP_LOOKUP_ELEM` of key 0 to an address that may be too close to the end.
fn raw_lookup(map: &Map, value: *mut u8) -> Result<(), i32> {
    use bpf_pin::abi;
    use std::os::fd::{AsFd, AsRawFd};

    let key = 0u32;
    let mut attr = abi::bpf_attr_map_elem {
        map_fd: map.as_fd().as_raw_fd() as u32,
        key: ptr::from_ref(&key) as u64,
        value: value as u64,
        ..abi::bpf_attr_map_elem::zeroed()
    };
    let size = size_of_val(&attr) as u32;
    // SAFETY: the key outlives the call; the kernel writes the value into the caller's mapping up to its end,
    // and no further, because the next page is not writable.
    let done = unsafe {
        abi::bpf(
            abi::BPF_MAP_LOOKUP_ELEM,
            ptr::from_mut(&mut attr).cast(),
            size,
        )
    };
    if done == 0 {
        return Ok(());
    }
    Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// The number is read once per process, so this needs its own process.
#[common::test(&[cap::SYS_ADMIN])]
fn the_number_of_cpus_comes_from_sysfs_only() -> Outcome {
    let output = common::command(std::env::current_exe()?)
        .env(CHILD, "1")
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    Ok(())
}

fn check_without_sys() -> Outcome {
    const CPU: &str = "/sys/devices/system/cpu";
    let expected = cpus();
    let map = create(MapType::PERCPU_ARRAY, 8);
    mount("tmpfs", CPU, "tmpfs", MountFlags::empty(), None)?;
    let unknown = |problem: &str| {
        for error in [
            map.elements::<u32, PerCpu<u64>>()
                .expect_err("an unknown number"),
            map.elements::<[u8], [u8]>().expect_err("an unknown number"),
        ] {
            assert_cause_matches!(error, Cause::PossibleCpus { problem: p } if p.contains(problem));
        }
    };
    unknown("another is mounted there");
    // The view of a container differs from the kernel's.
    fs::write(format!("{CPU}/possible"), "0\n")?;
    unknown("another is mounted there");
    // Other maps do not need it.
    assert_eq!(hash_map()?, Some(7));

    unmount(CPU, UnmountFlags::empty())?;
    // Another file of sysfs with a list of CPUs is rejected.
    let possible = format!("{CPU}/possible");
    mount_bind("/sys/devices/system/node/possible", &possible)?;
    unknown("another is mounted there");
    unmount(&possible, UnmountFlags::empty())?;
    let view = map.elements::<u32, PerCpu<u64>>()?;
    assert_eq!(view.cpus(), expected);
    // Now the number is known, whatever is mounted there.
    mount("tmpfs", CPU, "tmpfs", MountFlags::empty(), None)?;
    assert_eq!(map.elements::<u32, PerCpu<u64>>()?.cpus(), expected);
    Ok(())
}

fn hash_map() -> bpf_pin::Result<Option<u64>> {
    let map = common::hash();
    let elems = map.elements::<u32, u64>()?;
    elems.update(&1, &7, ElemFlags::ANY)?;
    elems.lookup(&1)
}
