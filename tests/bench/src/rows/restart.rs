//! A loader that comes back: all its pins are opened and type-checked, its maps found to fit or made.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf_pin::{Link, Map, MapSpec, MapType, PinDir, Reuse, abi};

use crate::bench::Bench;
use crate::pairs::{Contender, Goal, goal};
use crate::place::{c_path, hash};
use crate::{Failure, peers, raw};

use super::object::link;

const MAPS: usize = 560;
const LINKS: usize = 500;
const PAIRS: usize = 250;

/// A directory with the pins in it.
struct Directory {
    path: PathBuf,
    maps: Vec<Pin>,
    links: Vec<Pin>,
}

struct Pin {
    name: String,
    c_name: CString,
    path: PathBuf,
    c_path: CString,
}

impl Pin {
    fn new(directory: &Path, name: String) -> Self {
        let path = directory.join(&name);
        Self {
            c_name: CString::new(name.as_str()).expect("a name"),
            c_path: c_path(&path),
            name,
            path,
        }
    }
}

pub fn rows(bench: &mut Bench) -> Result<(), Failure> {
    let directories = pins(bench)?;
    open(bench, &directories);
    std::fs::remove_dir_all(bench.place.at("restart"))?;
    let root = PinDir::create(bench.place.at("reuse"), 0o700)?;
    fitting(bench, &root)?;
    missing(bench, &root)?;
    std::fs::remove_dir_all(bench.place.at("reuse"))?;
    Ok(())
}

/// As a loader of many interfaces has them: 250 directories of maps and 250 of links, say.
fn pins(bench: &Bench) -> Result<Vec<Directory>, Failure> {
    let mut all = Vec::new();
    let link = link()?;
    for number in 0..PAIRS * 2 {
        let path = bench
            .place
            .dir(&format!("restart/{}/{}", number / 2, number % 2))?;
        let share = |of: usize| of * (number + 1) / (PAIRS * 2) - of * number / (PAIRS * 2);
        let named = |what: &str, of: usize| {
            let pins = (0..share(of)).map(|i| Pin::new(&path, format!("{what}_{i}")));
            pins.collect::<Vec<_>>()
        };
        let (maps, links) = (named("map", MAPS), named("link", LINKS));
        for pin in &maps {
            hash(8)?.pin(&pin.path)?;
        }
        for pin in &links {
            link.try_clone()?.pin(&pin.path)?;
        }
        all.push(Directory { path, maps, links });
    }
    Ok(all)
}

fn goals() -> Vec<Goal> {
    vec![goal("bpf-pin", "raw", 1.05), goal("bpf-pin", "aya", 1.0)]
}

fn open(bench: &mut Bench, all: &[Directory]) {
    let paths = |pins: fn(&Directory) -> &Vec<Pin>| {
        let pins = all.iter().flat_map(pins).map(|pin| pin.path.clone());
        pins.collect::<Vec<_>>()
    };
    let (maps, links) = (paths(|all| &all.maps), paths(|all| &all.links));
    let mut contenders = vec![
        Contender::new("raw", || {
            for directory in all {
                for map in &directory.maps {
                    let fd = raw::get(&map.c_path);
                    assert_ne!(raw::map_info(fd.as_fd()).id, 0);
                }
                for link in &directory.links {
                    let fd = raw::get(&link.c_path);
                    assert_ne!(raw::link_info(fd.as_fd()).id, 0);
                }
            }
        }),
        Contender::new("bpf-pin", || {
            for directory in all {
                for map in &directory.maps {
                    drop(Map::open(&map.path).expect("a map"));
                }
                for link in &directory.links {
                    drop(Link::open(&link.path).expect("a link"));
                }
            }
        }),
        Contender::new("bpf-pin, PinDir", || {
            for directory in all {
                let dir = PinDir::open(&directory.path).expect("a directory");
                for map in &directory.maps {
                    drop(dir.open_as::<Map>(&map.name).expect("a map"));
                }
                for link in &directory.links {
                    drop(dir.open_as::<Link>(&link.name).expect("a link"));
                }
            }
        }),
    ];
    contenders.extend(peers::open_all(&maps, &links));
    bench.work(
        "restart: open and check 560 maps and 500 links in 500 directories",
        contenders,
        goals(),
        "aya asks for no info of a link. A PinDir for each directory takes open, fstatfs and close for two \
         pins, and readlink for each.",
    );
}

fn spec() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 8, 8)
}

fn fits(fd: &OwnedFd) -> bool {
    let info = raw::map_info(fd.as_fd());
    let found = (
        info.r#type,
        info.key_size,
        info.value_size,
        info.max_entries,
    );
    found == (abi::BPF_MAP_TYPE_HASH, 4, 8, 8)
        && (info.map_flags, info.map_extra, info.ifindex) == (0, 0, 0)
}

fn fitting(bench: &mut Bench, root: &PinDir) -> Result<(), Failure> {
    let count = bench.size(10_000, 500);
    let pins: Vec<_> = (0..count)
        .map(|i| Pin::new(root.path(), format!("map_{i}")))
        .collect();
    let spec = spec();
    // Each a name of its own, though not a map: what counts is the way there.
    let maps: Result<Vec<_>, _> = (0..100).map(|_| spec.create()).collect();
    let maps = maps?;
    for (pin, map) in pins.iter().zip(maps.iter().cycle()) {
        root.pin(map, &pin.name)?;
    }
    let other = bench.place.nosymfollow()?;
    let without_links = PinDir::open(&other.path)?;
    for (pin, map) in pins.iter().zip(maps.iter().cycle()) {
        without_links.pin(map, &pin.name)?;
    }
    let at = root.as_fd();
    let pin = &pins[0];
    let contenders = vec![
        Contender::new("raw", || {
            assert!(fits(&raw::get_at(at, &pin.c_name)));
        }),
        Contender::new("raw, no link followed", || {
            let fd = raw::get_at(at, &pin.c_name);
            assert!(!raw::is_link_at(at.as_raw_fd(), &pin.c_name));
            assert!(fits(&fd));
        }),
        Contender::new("bpf-pin", || {
            let reused = root.open_or_create(&pin.name, &spec, Reuse::Exact);
            drop(reused.expect("a map that fits"));
        }),
        Contender::new("bpf-pin, nosymfollow", || {
            let reused = without_links.open_or_create(&pin.name, &spec, Reuse::Exact);
            drop(reused.expect("a map that fits"));
        }),
    ];
    bench.call(
        "PinDir::open_or_create of a map that fits",
        contenders,
        vec![
            goal("bpf-pin", "raw, no link followed", 1.02),
            goal("bpf-pin, nosymfollow", "raw", 1.02),
        ],
        "Some 500 instructions: every field is compared, and the name is kept beside its copy for what may \
         be to do: to create, to migrate, to replace.",
    );
    let paths: Vec<_> = pins.iter().map(|pin| pin.path.clone()).collect();
    let mut contenders = vec![
        Contender::new("raw", || {
            for pin in &pins {
                assert!(fits(&raw::get_at(at, &pin.c_name)));
            }
        }),
        Contender::new("raw, no link followed", || {
            for pin in &pins {
                let fd = raw::get_at(at, &pin.c_name);
                assert!(!raw::is_link_at(at.as_raw_fd(), &pin.c_name));
                assert!(fits(&fd));
            }
        }),
        Contender::new("bpf-pin", || {
            for pin in &pins {
                let reused = root.open_or_create(&pin.name, &spec, Reuse::Exact);
                drop(reused.expect("a map that fits"));
            }
        }),
        Contender::new("bpf-pin, nosymfollow", || {
            for pin in &pins {
                let reused = without_links.open_or_create(&pin.name, &spec, Reuse::Exact);
                drop(reused.expect("a map that fits"));
            }
        }),
    ];
    contenders.extend(peers::open_all(&paths, &[]));
    let mut all = goals();
    all.push(goal("bpf-pin, nosymfollow", "raw", 1.05));
    all.push(goal("bpf-pin, nosymfollow", "aya", 1.0));
    bench.work(
        &format!("restart: {count} open_or_create that fit"),
        contenders,
        all,
        "It takes a syscall more, readlink, as of PinDir::open_as: raw, no link followed. Peers compare \
         nothing.",
    );
    for pin in &pins {
        root.unlink(&pin.name)?;
    }
    Ok(())
}

fn missing(bench: &mut Bench, root: &PinDir) -> Result<(), Failure> {
    let count = bench.size(1024, 64);
    let pins: Vec<_> = (0..count)
        .map(|i| Pin::new(root.path(), format!("map_{i}")))
        .collect();
    let paths: Vec<_> = pins.iter().map(|pin| pin.path.clone()).collect();
    let (at, spec) = (root.as_fd(), spec());
    let remove = || {
        for pin in &pins {
            raw::unlink_at(at, &pin.c_name);
        }
        // Maps are freed by a worker of the kernel's, which would run amid the next one's time.
        sleep(Duration::from_millis(2));
    };
    let attr = abi::bpf_attr_map_create {
        map_type: abi::BPF_MAP_TYPE_HASH,
        key_size: 4,
        value_size: 8,
        max_entries: 8,
        ..abi::bpf_attr_map_create::zeroed()
    };
    let mut contenders = vec![
        Contender::timed("raw", || {
            let begun = Instant::now();
            for pin in &pins {
                assert!(raw::try_get_at(at, &pin.c_name).is_none());
                raw::pin_at(at, &pin.c_name, raw::create_map(&attr).as_fd());
            }
            let took = begun.elapsed();
            remove();
            took
        }),
        Contender::timed("bpf-pin", || {
            let begun = Instant::now();
            for pin in &pins {
                let reused = root.open_or_create(&pin.name, &spec, Reuse::Exact);
                drop(reused.expect("a new map"));
            }
            let took = begun.elapsed();
            remove();
            took
        }),
    ];
    contenders.extend(peers::make_all(&paths, &remove));
    bench.work(
        &format!("restart: {count} open_or_create of what is missing"),
        contenders,
        goals(),
        "As PinDir::pin, and MapSpec::create, which fills in the struct from the spec.",
    );
    Ok(())
}
