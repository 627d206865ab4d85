//! Values with a spin lock, which the kernel holds on request.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bpf_pin::map::{Cursor, ElemFlags};
use bpf_pin::{Map, MapSpec, MapType, abi};
use common::*;

const BPF: &[Need] = &[cap::BPF];

/// The value: a lock and fifteen words.
type Value = [u32; 16];

/// A BTF object: type 4 is the value, and type 1 a key.
fn btf_of_value() -> OwnedFd {
    let names = b"\0int\0bpf_spin_lock\0val\0value\0lock\0words\0";
    let name = |name: &str| {
        let at = names
            .windows(name.len())
            .position(|window| window == name.as_bytes());
        at.expect("a name") as u32
    };
    const INT: u32 = 1 << 24;
    const ARRAY: u32 = 3 << 24;
    const STRUCT: u32 = 4 << 24;
    let types: Vec<u32> = [
        // 1: int of 32 bits
        &[name("int\0"), INT, 4, 32][..],
        // 2: struct bpf_spin_lock { int val; }
        &[name("bpf_spin_lock"), STRUCT | 1, 4, name("val\0"), 1, 0],
        // 3: int[15]; its index is an int too
        &[0, ARRAY, 0, 1, 1, 15],
        // 4: struct value { struct bpf_spin_lock lock; int words[15]; }
        &[
            name("value"),
            STRUCT | 2,
            64,
            name("lock\0"),
            2,
            0,
            name("words"),
            3,
            32,
        ],
    ]
    .concat();
    let types_len = 4 * types.len() as u32;
    let mut blob = 0xeb9f_u16.to_ne_bytes().to_vec();
    blob.extend([1, 0]);
    let header = [24, 0, types_len, types_len, names.len() as u32];
    blob.extend(header.into_iter().chain(types).flat_map(u32::to_ne_bytes));
    blob.extend(names);
    let mut attr = abi::bpf_attr_btf_load {
        btf: blob.as_ptr() as u64,
        btf_size: blob.len() as u32,
        ..abi::bpf_attr_btf_load::zeroed()
    };
    let size = size_of_val(&attr) as u32;
    // SAFETY: btf is btf_size readable bytes.
    let fd = unsafe { abi::bpf(abi::BPF_BTF_LOAD, (&raw mut attr).cast(), size) };
    assert!(fd >= 0, "BPF_BTF_LOAD: {}", io::Error::last_os_error());
    // SAFETY: the kernel has just created it.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn create(map_type: MapType) -> bpf_pin::Result<Map> {
    let btf = btf_of_value();
    MapSpec::new(map_type, 4, 64, 64).btf(&btf, 1, 4).create()
}

/// The lock itself is never copied out.
fn value(n: u32) -> Value {
    let mut value = [n; 16];
    value[0] = 0;
    value
}

#[common::test(BPF)]
fn lock_flag_reads_and_writes_under_the_lock() -> Outcome {
    for map_type in [MapType::HASH, MapType::ARRAY] {
        let map = create(map_type)?;
        let elems = map.elements::<u32, Value>()?;
        let lock = ElemFlags::LOCK;
        // The key must exist to be locked; then it is changed in place.
        elems.update(&1, &value(1), ElemFlags::ANY)?;
        elems.update(&1, &value(2), lock)?;
        let mut found = value(0);
        assert!(elems.lookup_into(&1, &mut found, lock)?);
        assert_eq!(found, value(2), "{map_type}");
        elems.update(&1, &value(3), lock | ElemFlags::EXIST)?;
        assert_eq!(elems.lookup(&1)?, Some(value(3)), "{map_type}");
        elems.update_batch(&[1, 2, 3], &[value(4), value(5), value(6)], lock)?;
        let (mut keys, mut values, mut cursor) = ([0; 65], [[0; 16]; 65], Cursor::new());
        let mut found = BTreeMap::new();
        while !cursor.is_end() {
            let count = elems.lookup_batch(&mut cursor, &mut keys, &mut values, lock)?;
            found.extend(keys.iter().copied().zip(values).take(count));
        }
        found.retain(|_, value| *value != [0; 16]);
        let expected = [(1, value(4)), (2, value(5)), (3, value(6))];
        assert_eq!(found, expected.into(), "{map_type}");
        if map_type == MapType::HASH && kernel(5, 14).unmet().is_none() {
            let mut taken: Value = [0; 16];
            let bytes = map.elements::<[u8], [u8]>()?;
            let room = bytemuck::bytes_of_mut(&mut taken);
            assert!(bytes.take_into(&1u32.to_ne_bytes(), room, lock)?);
            assert_eq!(taken, value(4));
        }
    }
    Ok(())
}

#[common::test(BPF)]
fn locked_values_are_never_mixed() -> Outcome {
    let map = create(MapType::HASH)?;
    let elems = &map.elements::<u32, Value>()?;
    elems.update(&1, &value(1), ElemFlags::ANY)?;
    let done = &AtomicBool::new(false);
    thread::scope(|scope| -> Outcome {
        let stop = SetOnDrop(done);
        let writer = scope.spawn(move || -> bpf_pin::Result<()> {
            let mut n = 1;
            while !done.load(Ordering::Relaxed) {
                n += 1;
                elems.update(&1, &value(n), ElemFlags::LOCK)?;
            }
            Ok(())
        });
        let mut result = Ok(());
        for _ in 0..20_000 {
            let mut found = value(0);
            match elems.lookup_into(&1, &mut found, ElemFlags::LOCK) {
                Ok(true) => assert_eq!(found, value(found[1])),
                Ok(false) => panic!("it stays"),
                Err(error) => {
                    result = Err(error.into());
                    break;
                }
            }
        }
        drop(stop);
        writer.join().expect("no panic")?;
        result
    })
}
