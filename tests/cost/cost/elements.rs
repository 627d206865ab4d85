//! The cost of elements: system calls for thousands of them, and allocations for all.

use std::mem::forget;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use bpf_pin::map::{Cursor, ElemFlags, Elements, PerCpu};
use bpf_pin::types::MapFlags;
use bpf_pin::{Map, MapSpec, MapType};
use common::*;
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::Measured;

type View = Elements<u32, u64, Map>;

type Pairs = (Vec<u32>, Vec<u64>);

/// One call per 4096 elements. A batch of a hash ends with a bucket, so a few elements of a batch may be
/// missing; those of three batches do not need a fourth.
const READ_10_000: &[&str] = &["MAP_LOOKUP_BATCH", "MAP_LOOKUP_BATCH", "MAP_LOOKUP_BATCH"];

/// A hash or array of 10 000 elements.
fn thousands(map_type: MapType) -> &'static View {
    let map = MapSpec::new(map_type, 4, 8, 10_000)
        .create()
        .expect("a map");
    let (keys, values): Pairs = (0..10_000).map(|key| (key, 7)).unzip();
    let elems = Elements::new(map).expect("a view");
    elems
        .update_batch(&keys, &values, ElemFlags::ANY)
        .expect("elements");
    Box::leak(Box::new(elems))
}

fn keys_and_values() -> Pairs {
    (vec![1; 10_000], vec![1; 10_000])
}

fn mapped() -> Map {
    let spec = MapSpec::new(MapType::ARRAY, 4, 8, 100);
    spec.flags(MapFlags::MMAPABLE).create().expect("an array")
}

/// These allocate nothing.
pub(super) const MEASURED: &[Measured] = measured! {
    update_batch_of_10_000 => &["MAP_UPDATE_BATCH"], |_scene| { (thousands(MapType::ARRAY), keys_and_values()) }
        |(elems, all): (&'static View, Pairs)| {
            elems.update_batch(&all.0, &all.1, ElemFlags::ANY).unwrap();
            forget(all);
        };
    delete_batch_of_1_000 => &["MAP_DELETE_BATCH"],
        |_scene| { (thousands(MapType::HASH), (0..1000).collect::<Vec<u32>>()) }
        |(elems, keys): (&'static View, Vec<u32>)| {
            assert_eq!(elems.delete_batch(&keys).unwrap(), 1000);
            forget(keys);
        };
    lookup_batch_of_10_000 => &["MAP_LOOKUP_BATCH"], |_scene| { (thousands(MapType::HASH), keys_and_values()) }
        |(elems, mut all): (&'static View, Pairs)| {
            let mut cursor = Cursor::new();
            let any = ElemFlags::ANY;
            let count = elems.lookup_batch(&mut cursor, &mut all.0, &mut all.1, any).unwrap();
            assert!(count == 10_000 && cursor.is_end());
            forget(all);
        };
    lookup_and_delete_batch_of_10_000 => &["MAP_LOOKUP_AND_DELETE_BATCH"],
        |_scene| { (thousands(MapType::HASH), keys_and_values()) }
        |(elems, mut all): (&'static View, Pairs)| {
            let mut cursor = Cursor::new();
            let any = ElemFlags::ANY;
            let taken = elems.take_batch(&mut cursor, &mut all.0, &mut all.1, any);
            assert_eq!(taken.unwrap(), 10_000);
            forget(all);
        };
    mmap => &["OBJ_GET_INFO_BY_FD", "mmap"], |_scene| { mapped() }
        |map: Map| {
            forget(map.mmap::<AtomicU64>().unwrap());
            forget(map);
        };
    freeze => &["MAP_FREEZE"], |fixture| { &fixture.map } |map: &Map| map.freeze().unwrap();
};

/// These allocate what they return, or a buffer. Calls for memory are not counted.
pub(super) const WITH_BUFFERS: &[Measured] = measured! {
    to_vecs_of_10_000 => READ_10_000, |_scene| { thousands(MapType::HASH) }
        |elems: &'static View| {
            let all = elems.to_vecs().unwrap();
            assert_eq!(all.0.len(), 10_000);
            forget(all);
        };
    to_vecs_of_an_array => READ_10_000, |_scene| { thousands(MapType::ARRAY) }
        |elems: &'static View| {
            let all = elems.to_vecs().unwrap();
            assert_eq!(all.0.len(), 10_000);
            forget(all);
        };
    iter_of_10_000 => READ_10_000, |_scene| { thousands(MapType::HASH) }
        |elems: &'static View| {
            let mut all = elems.iter();
            assert_eq!(all.by_ref().count(), 10_000);
            forget(all);
        };
    iter_of_1 => &["MAP_LOOKUP_BATCH"], |fixture| { fixture.map.elements::<u32, u64>().unwrap() }
        |elems: Elements<u32, u64, &Map>| {
            let mut all = elems.iter();
            assert_eq!(all.by_ref().count(), 1);
            forget(all);
        };
};

/// The first update of a view reads the BTF into a buffer; the next ones do not.
pub(super) const TASK_STORAGE: &[Measured] = measured! {
    updates_of_a_task => &[
            "BTF_GET_FD_BY_ID", "OBJ_GET_INFO_BY_FD", "OBJ_GET_INFO_BY_FD",
            "MAP_UPDATE_ELEM", "MAP_UPDATE_ELEM",
        ],
        |_scene| { task_storage() }
        |(elems, task): (Elements<i32, u32, Map>, OwnedFd)| {
            for value in [1, 2] {
                elems.update(&task.as_raw_fd(), &value, ElemFlags::ANY).unwrap();
            }
            forget((elems, task));
        };
};

fn task_storage() -> (Elements<i32, u32, Map>, OwnedFd) {
    let map = MapSpec::new(MapType::TASK_STORAGE, 4, 4, 0)
        .flags(MapFlags::NO_PREALLOC)
        .btf(&btf_object(), 1, 1)
        .create()
        .expect("a map");
    let task = pidfd_open(getpid(), PidfdFlags::empty()).expect("this process");
    (Elements::new(map).expect("a view"), task)
}

/// Exact counts for a whole map, independent of its size.
#[common::test(super::ROOT)]
fn reading_a_whole_map_takes_few_allocations() -> Outcome {
    let count = |call: &dyn Fn()| count_allocations(call).1.count;
    for map_type in [MapType::HASH, MapType::ARRAY] {
        let elems = thousands(map_type);
        assert_eq!(
            count(&|| drop(elems.to_vecs().unwrap())),
            2,
            "{map_type}: two Vecs"
        );
        let iterate = || assert_eq!(elems.iter().count(), 10_000);
        assert_eq!(
            count(&iterate),
            2,
            "{map_type}: a buffer for keys, and one for values"
        );
        assert_eq!(
            count(&|| drop(elems.iter())),
            0,
            "{map_type}: none before it is needed"
        );
    }
    let elems = thousands(MapType::HASH);
    let drain = || assert_eq!(elems.drain().count(), 10_000);
    assert_eq!(count(&drain), 2);
    let map = MapSpec::new(MapType::PERCPU_HASH, 4, 12, 5000).create()?;
    let view = map.elements::<u32, PerCpu<[u32; 3]>>()?;
    let keys: Vec<u32> = (0..5000).collect();
    view.update_batch(&keys, &vec![[7; 3]; 5000 * view.cpus()], ElemFlags::ANY)?;
    let iterate = || {
        let (mut all, mut seen) = (view.iter(), 0);
        while let Some(entry) = all.next_ref() {
            entry.unwrap();
            seen += 1;
        }
        assert_eq!(seen, 5000);
    };
    assert_eq!(
        count(&iterate),
        3,
        "a buffer for keys, one for values, one for a key's values"
    );
    let to_vecs = || {
        let (keys, values) = view.to_vecs().unwrap();
        assert_eq!((keys.len(), values.len()), (5000, 5000 * view.cpus()));
    };
    assert_eq!(
        count(&to_vecs),
        3,
        "two Vecs, and a buffer for values with gaps"
    );
    let array = mapped();
    assert_eq!(count(&|| drop(array.mmap::<AtomicU64>().unwrap())), 0);
    Ok(())
}
