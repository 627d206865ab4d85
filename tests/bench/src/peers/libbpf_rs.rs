//! libbpf-rs.

use std::path::{Path, PathBuf};
use std::time::Instant;

use bpf_pin::{Kind, Map};
use libbpf_rs::{Link, MapCore as _, MapFlags, MapHandle, MapType, Program};

use crate::pairs::Contender;
use crate::rows::BATCH;

const NAME: &str = "libbpf-rs";

pub fn open_map<'s>(path: &'s Path) -> Contender<'s> {
    Contender::new(NAME, move || {
        drop(MapHandle::from_pinned_path(path).expect("a map"));
    })
}

/// The cheapest call of libbpf-rs that opens a program. `ProgramHandle` requests more.
pub fn open_prog<'s>(path: &'s Path) -> Contender<'s> {
    Contender::new(NAME, move || {
        drop(Program::fd_from_pinned_path(path).expect("a program"));
    })
}

pub fn open_link<'s>(path: &'s Path) -> Contender<'s> {
    Contender::new(NAME, move || drop(Link::open(path).expect("a link")))
}

fn handle(map: &Map) -> MapHandle {
    let id = map.id().expect("an id");
    MapHandle::from_map_id(id).expect("a map")
}

pub fn pin<'s>(map: &Map, path: &'s Path) -> Contender<'s> {
    let mut map = handle(map);
    Contender::new(NAME, move || {
        map.pin(path).expect("a pin");
        map.unpin(path).expect("a pin that was there");
    })
}

pub fn lookup<'s>(map: &Map, key: u32) -> Contender<'s> {
    let map = handle(map);
    Contender::new(NAME, move || {
        let found = map.lookup(&key.to_ne_bytes(), MapFlags::ANY);
        let value = found.expect("a lookup").expect("a value");
        assert_eq!(*value, u64::from(key).to_ne_bytes());
    })
}

pub fn update<'s>(map: &Map, key: u32) -> Contender<'s> {
    let map = handle(map);
    Contender::new(NAME, move || {
        let value = u64::from(key).to_ne_bytes();
        let updated = map.update(&key.to_ne_bytes(), &value, MapFlags::ANY);
        updated.expect("an update");
    })
}

pub fn read<'s>(map: &Map, sum: u64) -> Contender<'s> {
    let map = handle(map);
    // One batch: the iterator ends at the first batch that is not full, and batches of a hash map rarely are.
    let room = map.max_entries();
    Contender::new(NAME, move || {
        let all = map.lookup_batch(room, MapFlags::ANY, MapFlags::ANY);
        let values = all.expect("batches").map(|(_, value)| {
            let value: [u8; 8] = value.try_into().expect("8 bytes");
            u64::from_ne_bytes(value)
        });
        assert_eq!(values.sum::<u64>(), sum);
    })
}

pub fn fill<'s>(map: &Map, keys: &'s [u32], values: &'s [u64]) -> Contender<'s> {
    let map = handle(map);
    Contender::new(NAME, move || {
        for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
            let count = keys.len() as u32;
            let bytes = (bytes_of(keys), bytes_of(values));
            let updated = map.update_batch(bytes.0, bytes.1, count, MapFlags::ANY, MapFlags::ANY);
            updated.expect("an update");
        }
    })
}

fn bytes_of<T: bpf_pin::bytemuck::Pod>(of: &[T]) -> &[u8] {
    bpf_pin::bytemuck::cast_slice(of)
}

pub fn open_all<'s>(pins: &'s [(Kind, PathBuf)]) -> Contender<'s> {
    Contender::new(NAME, move || {
        for (kind, path) in pins {
            match kind {
                Kind::Link => drop(Link::open(path).expect("a link")),
                _ => drop(MapHandle::from_pinned_path(path).expect("a map")),
            }
        }
    })
}

pub fn make_all<'s>(paths: &'s [PathBuf], undo: &'s dyn Fn()) -> Contender<'s> {
    let opts = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as _,
        ..Default::default()
    };
    Contender::timed(NAME, move || {
        let begun = Instant::now();
        for path in paths {
            assert!(MapHandle::from_pinned_path(path).is_err());
            let map = MapHandle::create(MapType::Hash, None::<&str>, 4, 8, 8, &opts);
            map.expect("a map").pin(path).expect("a pin");
        }
        let took = begun.elapsed();
        undo();
        took
    })
}
