//! The kernel stays within every buffer, for maps of all types and odd sizes, test runs and logs.
#![forbid(unsafe_code)]

use std::fs;

use bpf_pin::error::Cause;
use bpf_pin::map::{Cursor, ElemFlags, Elements};
use bpf_pin::prog::{Btf, Insn, TestRun};
use bpf_pin::types::{LogLevel, MapFlags, ProgType};
use bpf_pin::{Bpffs, Map, MapSpec, MapType, PinDir, ProgSpec};
use common::*;

use super::protected::{page, protected};

const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const PINS: &[Need] = &[cap::SYS_ADMIN, Need::Bpffs];

/// Below, at and above the sizes of words, and of a page with the kernel's own data.
const SIZES: [u32; 18] = [
    1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 15, 16, 17, 31, 63, 100, 255, 511,
];
const VALUES: [u32; 6] = [1000, 1023, 2049, 4000, 4093, 8191];

/// A type of map, its first kernel, and pairs of key size and value size.
type Row = (MapType, (u32, u32), Vec<[u32; 2]>);

fn rows() -> Vec<Row> {
    let values = || SIZES.into_iter().chain(VALUES);
    let with_key = |key: u32| values().map(|value| [key, value]).collect::<Vec<_>>();
    let all = || {
        let keys = SIZES.iter().step_by(2);
        keys.flat_map(|&key| with_key(key)).collect()
    };
    // Every size of a key, and every size of a value.
    let some = || {
        let keys = SIZES.iter().zip(SIZES.iter().rev());
        keys.map(|(&key, &value)| [key, value])
            .chain(with_key(3))
            .collect()
    };
    vec![
        (MapType::HASH, (3, 19), all()),
        (MapType::ARRAY, (3, 19), with_key(4)),
        (MapType::PROG_ARRAY, (4, 2), vec![[4, 4]]),
        (MapType::PERF_EVENT_ARRAY, (4, 3), vec![[4, 4]]),
        (MapType::PERCPU_HASH, (4, 6), some()),
        (MapType::PERCPU_ARRAY, (4, 6), with_key(4)),
        (
            MapType::STACK_TRACE,
            (4, 6),
            vec![[4, 8], [4, 24], [4, 1016]],
        ),
        (MapType::CGROUP_ARRAY, (4, 8), vec![[4, 4]]),
        (MapType::LRU_HASH, (4, 10), some()),
        (MapType::LRU_PERCPU_HASH, (4, 10), some()),
        (MapType::LPM_TRIE, (4, 11), {
            let keys = [5, 6, 7, 8, 9, 20, 260].into_iter();
            keys.flat_map(|key| [1, 3, 8, 13, 511].map(|value| [key, value]))
                .collect()
        }),
        (MapType::DEVMAP, (4, 14), vec![[4, 4], [4, 8]]),
        (MapType::SOCKMAP, (4, 14), vec![[4, 4], [4, 8]]),
        (MapType::CPUMAP, (4, 15), vec![[4, 4], [4, 8]]),
        (MapType::XSKMAP, (4, 18), vec![[4, 4]]),
        (
            MapType::SOCKHASH,
            (4, 18),
            vec![[1, 4], [3, 8], [17, 8], [511, 8]],
        ),
        (
            MapType::CGROUP_STORAGE,
            (4, 19),
            vec![[8, 3], [16, 13], [16, 511]],
        ),
        (MapType::REUSEPORT_SOCKARRAY, (4, 19), vec![[4, 4], [4, 8]]),
        (
            MapType::PERCPU_CGROUP_STORAGE,
            (4, 20),
            vec![[8, 3], [16, 13], [16, 511]],
        ),
        (MapType::QUEUE, (4, 20), with_key(0)),
        (MapType::STACK, (4, 20), with_key(0)),
        (MapType::DEVMAP_HASH, (5, 4), vec![[4, 4], [4, 8]]),
        (MapType::RINGBUF, (5, 8), vec![[0, 0]]),
        (MapType::BLOOM_FILTER, (5, 16), with_key(0)),
        (MapType::USER_RINGBUF, (6, 1), vec![[0, 0]]),
        (MapType::ARENA, (6, 9), vec![[0, 0]]),
        (MapType::INSN_ARRAY, (6, 19), vec![[4, 16]]),
        (MapType::RHASH, (7, 2), some()),
    ]
}

/// The number of entries of each map.
const ENTRIES: u32 = 5;

fn create((map_type, _, _): &Row, [key_size, value_size]: [u32; 2]) -> bpf_pin::Result<Map> {
    let entries = match *map_type {
        MapType::RINGBUF | MapType::USER_RINGBUF => page() as u32,
        MapType::CGROUP_STORAGE | MapType::PERCPU_CGROUP_STORAGE => 0,
        MapType::CPUMAP => 1,
        _ => ENTRIES,
    };
    let flags = match *map_type {
        MapType::LPM_TRIE | MapType::RHASH => MapFlags::NO_PREALLOC,
        MapType::ARENA => MapFlags::MMAPABLE,
        _ => MapFlags::empty(),
    };
    let spec = MapSpec::new(*map_type, key_size, value_size, entries);
    spec.flags(flags).create()
}

/// The kernel found no address that it could not access. Any other error depends on the type of map.
#[track_caller]
fn stays_within<T>(result: bpf_pin::Result<T>) -> Option<T> {
    match result {
        Err(error) => {
            assert_ne!(error.raw_os_error(), Some(libc::EFAULT), "{error}");
            None
        }
        Ok(done) => Some(done),
    }
}

/// The key of a number. A trie begins with the length of a prefix in bits.
fn key(elements: &Elements<[u8], [u8], &Map>, map_type: MapType, number: u32) -> Vec<u8> {
    let len = elements.key_len();
    let mut key = vec![number as u8; len];
    let head = match map_type {
        MapType::LPM_TRIE => (len as u32 - 4) * 8,
        _ => number,
    };
    if len >= 4 {
        key[..4].copy_from_slice(&head.to_ne_bytes());
    }
    key
}

/// Calls all commands on elements, with all their buffers protected. Returns how many elements were read.
fn use_elements(map: &Map, map_type: MapType) -> bpf_pin::Result<usize> {
    let elements = map.elements::<[u8], [u8]>()?;
    let (any, value_len) = (ElemFlags::ANY, elements.value_len());
    let keys: Vec<_> = (0..ENTRIES).map(|n| key(&elements, map_type, n)).collect();
    let fill = || {
        for key in &keys {
            stays_within(elements.update(key, &vec![7; value_len], any));
        }
    };
    fill();
    let mut read = 0;
    for key in &keys {
        let mut value = vec![0; value_len];
        read += usize::from(stays_within(elements.lookup_into(key, &mut value, any)) == Some(true));
        stays_within(elements.lookup(key));
        let mut next = vec![0; key.len()];
        stays_within(elements.next_key(Some(key), &mut next));
        stays_within(elements.next_key(None, &mut next));
    }
    elements.keys().for_each(|key| drop(stays_within(key)));
    elements.iter().for_each(|entry| drop(stays_within(entry)));
    stays_within(elements.to_vecs());
    for count in 1..=ENTRIES as usize + 1 {
        let (mut keys, mut values) = (
            vec![0; count * elements.key_len()],
            vec![0; count * value_len],
        );
        let mut cursor = Cursor::new();
        while !cursor.is_end() {
            let batch = elements.lookup_batch(&mut cursor, &mut keys, &mut values, any);
            if stays_within(batch).is_none_or(|read| read == 0) {
                break;
            }
        }
    }
    let values = vec![9; keys.len() * value_len];
    stays_within(elements.update_batch(&keys.concat(), &values, any));
    for key in &keys {
        stays_within(elements.take_into(key, &mut vec![0; value_len], any));
        stays_within(elements.take(key));
    }
    fill();
    elements.drain().for_each(|entry| drop(stays_within(entry)));
    fill();
    stays_within(elements.delete_batch(&keys.concat()));
    fill();
    for key in &keys {
        stays_within(elements.delete(key));
    }
    stays_within(elements.clear());
    Ok(read)
}

/// Types with elements that can be written and read without other objects.
const PLAIN: [MapType; 7] = [
    MapType::HASH,
    MapType::ARRAY,
    MapType::PERCPU_HASH,
    MapType::PERCPU_ARRAY,
    MapType::LRU_HASH,
    MapType::LRU_PERCPU_HASH,
    MapType::RHASH,
];

#[common::test(ROOT)]
fn commands_on_elements_stay_within_their_buffers() -> Outcome {
    let mut maps = 0;
    for row in rows() {
        let (map_type, since, sizes) = &row;
        if kernel(since.0, since.1).unmet().is_some() {
            continue;
        }
        for &sizes in sizes {
            let map = match create(&row, sizes) {
                Ok(map) => map,
                // Older kernels have smaller limits.
                Err(error) => {
                    assert!(error.cause().is_none(), "{map_type} {sizes:?}: {error}");
                    continue;
                }
            };
            let read = protected(|| use_elements(&map, *map_type));
            let read = read.map_err(|error| format!("{map_type} {sizes:?}: {error}"))?;
            let expected = if PLAIN.contains(map_type) {
                ENTRIES as usize
            } else {
                0
            };
            assert!(read >= expected, "{map_type} {sizes:?}: {read}");
            maps += 1;
        }
    }
    assert!(maps > 400, "{maps}");
    Ok(())
}

/// A slice of another length than the map's is rejected before the kernel sees it.
#[common::test(ROOT)]
fn slices_of_another_length_are_rejected() -> Outcome {
    let map = MapSpec::new(MapType::HASH, 5, 7, ENTRIES).create()?;
    let elements = map.elements::<[u8], [u8]>()?;
    let any = ElemFlags::ANY;
    let rejected = |result: bpf_pin::Result<()>| {
        let error = result.unwrap_err();
        assert_cause_matches!(error, Cause::Size { .. });
    };
    protected(|| {
        for (key_len, value_len) in [(0, 7), (4, 7), (6, 7), (5, 0), (5, 6), (5, 8)] {
            let (key, mut value) = (vec![0; key_len], vec![0; value_len]);
            rejected(elements.update(&key, &value, any));
            rejected(elements.lookup_into(&key, &mut value, any).map(drop));
            rejected(elements.take_into(&key, &mut value, any).map(drop));
        }
        for len in [0, 4, 6] {
            rejected(elements.next_key(None, &mut vec![0; len]).map(drop));
            rejected(elements.delete(&vec![0; len]).map(drop));
        }
    });
    Ok(())
}

#[common::test(&[cap::BPF])]
fn test_runs_stay_within_their_buffers() -> Outcome {
    let insns = [Insn::mov64_imm(0, 0), Insn::exit()];
    for prog_type in [ProgType::SOCKET_FILTER, ProgType::SCHED_CLS, ProgType::XDP] {
        // Only root may load the other two.
        let Ok(prog) = ProgSpec::new(prog_type, &insns).load() else {
            continue;
        };
        for input in [14, 15, 63, 64, 65, 999, 1500, 3000] {
            for output in [0, 1, 13, 14, 15, 63, 64, 65, 1000, 2999, 4096] {
                protected(|| {
                    let (data, mut packet) = (vec![1; input], vec![0; output]);
                    let run = TestRun::new().data_in(&data).data_out(&mut packet);
                    stays_within(prog.test_run(run));
                    let mut context = vec![0; output];
                    let run = TestRun::new().data_in(&data).ctx_out(&mut context);
                    stays_within(prog.test_run(run));
                    let (mut given, mut context) = (vec![0; output], vec![0; input]);
                    let run = TestRun::new().data_in(&data).ctx_in(&mut given);
                    stays_within(prog.test_run(run.ctx_out(&mut context)));
                });
            }
        }
    }
    Ok(())
}

#[common::test(&[cap::BPF])]
fn logs_and_ids_stay_within_their_buffers() -> Outcome {
    for length in [1, 2, 17, 100, 1000] {
        // An invalid instruction at the end makes the verifier write about each.
        let mut insns = vec![Insn::mov64_imm(0, 0); length];
        let failing = [&insns[..], &[Insn::mov64_reg(0, 9), Insn::exit()]].concat();
        insns.push(Insn::exit());
        protected(|| {
            for level in [LogLevel::LEVEL1, LogLevel::LEVEL2] {
                let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &failing).log_level(level);
                let error = spec.load().unwrap_err();
                assert_ne!(error.raw_os_error(), Some(libc::EFAULT), "{error}");
                let spec = ProgSpec::new(ProgType::SOCKET_FILTER, &insns);
                stays_within(spec.load_with_log(level));
            }
            stays_within(Btf::load(&vec![0; length]));
        });
    }
    let prog = prog();
    for count in 0..9 {
        assert_eq!(
            protected(|| stays_within(prog.map_ids())).unwrap().len(),
            count
        );
        prog.bind_map(&hash())?;
    }
    let link = NetnsLink::new();
    protected(|| -> Outcome {
        stays_within(link.link.target_name());
        prog.info()?;
        link.link.info()?;
        hash().info()?;
        Ok(())
    })
}

#[common::test(PINS)]
fn listings_stay_within_their_buffers() -> Outcome {
    let bpffs = TestFs::new();
    let dir = PinDir::open(bpffs.root())?;
    for len in 1..=255 {
        dir.pin(&hash(), "n".repeat(len))?;
    }
    protected(|| -> Outcome {
        let names: Result<Vec<_>, _> = dir.entries()?.collect();
        assert!(names?.len() >= 255);
        stays_within(Bpffs::mounts());
        Ok(())
    })?;
    assert!(fs::read_dir(bpffs.root())?.count() >= 255);
    Ok(())
}
