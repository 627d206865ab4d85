//! aya.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use aya::maps::{HashMap, Map as AyaMap, MapData};
use aya::programs::SocketFilter;
use aya::programs::links::PinnedLink;
use bpf_pin::{Kind, Map};

use crate::pairs::Contender;

const NAME: &str = "aya";

pub fn open_map<'s>(path: &'s Path) -> Contender<'s> {
    Contender::new(NAME, move || drop(MapData::from_pin(path).expect("a map")))
}

pub fn open_prog<'s>(path: &'s Path) -> Contender<'s> {
    Contender::new(NAME, move || {
        drop(SocketFilter::from_pin(path).expect("a program"));
    })
}

pub fn open_link<'s>(path: &'s Path) -> Contender<'s> {
    Contender::new(NAME, move || {
        drop(PinnedLink::from_pin(path).expect("a link"))
    })
}

fn data(map: &Map) -> MapData {
    let fd = OwnedFd::from(map.try_clone().expect("a descriptor"));
    MapData::from_fd(fd).expect("a map")
}

fn hash(map: &Map) -> HashMap<MapData, u32, u64> {
    let map = AyaMap::from_map_data(data(map)).expect("a map");
    HashMap::try_from(map).expect("a hash map")
}

/// aya's maps have no unpin.
pub fn pin<'s>(map: &Map, path: &'s Path) -> Contender<'s> {
    let map = data(map);
    Contender::new(NAME, move || {
        map.pin(path).expect("a pin");
        std::fs::remove_file(path).expect("a pin that was there");
    })
}

pub fn lookup<'s>(map: &Map, key: u32) -> Contender<'s> {
    let map = hash(map);
    Contender::new(NAME, move || {
        assert_eq!(map.get(&key, 0).expect("a value"), u64::from(key));
    })
}

pub fn update<'s>(map: &Map, key: u32) -> Contender<'s> {
    let mut map = hash(map);
    Contender::new(NAME, move || {
        map.insert(key, u64::from(key), 0).expect("an update");
    })
}

pub fn read<'s>(map: &Map, sum: u64) -> Contender<'s> {
    let map = hash(map);
    Contender::new(NAME, move || {
        let seen: u64 = map.iter().map(|entry| entry.expect("an entry").1).sum();
        assert_eq!(seen, sum);
    })
}

/// aya has no batches.
pub fn fill<'s>(map: &Map, keys: &'s [u32], values: &'s [u64]) -> Contender<'s> {
    let mut map = hash(map);
    Contender::new(NAME, move || {
        for (key, value) in keys.iter().zip(values) {
            map.insert(key, value, 0).expect("an update");
        }
    })
}

pub fn open_all<'s>(pins: &'s [(Kind, PathBuf)]) -> Contender<'s> {
    Contender::new(NAME, move || {
        for (kind, path) in pins {
            match kind {
                Kind::Link => drop(PinnedLink::from_pin(path).expect("a link")),
                _ => drop(MapData::from_pin(path).expect("a map")),
            }
        }
    })
}

pub fn make_all<'s>(paths: &'s [PathBuf], undo: &'s dyn Fn()) -> Contender<'s> {
    Contender::timed(NAME, move || {
        let begun = Instant::now();
        for path in paths {
            assert!(MapData::from_pin(path).is_err());
            let map = HashMap::<MapData, u32, u64>::create(8, 0).expect("a map");
            map.pin(path).expect("a pin");
        }
        let took = begun.elapsed();
        undo();
        took
    })
}
