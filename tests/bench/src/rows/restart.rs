//! A loader that restarts: it opens and checks all its pins, and reuses or creates its maps.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf_pin::reuse::Reuse;
use bpf_pin::{Kind, Link, Map, MapSpec, MapType, PinDir, abi};

use crate::bench::Bench;
use crate::pairs::{Contender, Goal, Notes, goal};
use crate::place::{c_path, hash};
use crate::{Failure, peers, raw};

use super::object::{assert_is_hash, link};

const MAPS: usize = 560;
const LINKS: usize = 500;
const PAIRS: usize = 250;

/// A directory and its pins.
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
    fitting(bench, &root, true)?;
    missing(bench, &root)?;
    let other = bench.place.nosymfollow()?;
    fitting(bench, &PinDir::open(&other.path)?, false)?;
    std::fs::remove_dir_all(bench.place.at("reuse"))?;
    Ok(())
}

/// The pins of a loader for many interfaces: one link and one or two maps in each directory.
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
    let pins: Vec<_> = all
        .iter()
        .flat_map(|directory| {
            let maps = directory.maps.iter().map(|pin| (Kind::Map, pin));
            maps.chain(directory.links.iter().map(|pin| (Kind::Link, pin)))
        })
        .map(|(kind, pin)| (kind, pin.path.clone()))
        .collect();
    let mut contenders = vec![
        Contender::new("raw", || {
            for directory in all {
                for map in &directory.maps {
                    assert_is_hash(&raw::get(&map.c_path));
                }
                for link in &directory.links {
                    let info = raw::link_info(raw::get(&link.c_path).as_fd());
                    assert_eq!(info.r#type, abi::BPF_LINK_TYPE_NETNS);
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
                    drop(dir.get::<Map>(&map.name).expect("a map"));
                }
                for link in &directory.links {
                    drop(dir.get::<Link>(&link.name).expect("a link"));
                }
            }
        }),
    ];
    contenders.extend(peers::open_all(&pins));
    let notes = Notes {
        raw: "for each pin BPF_OBJ_GET by path, info with a check of its type, close",
        why: "aya requests no info of a link. A PinDir for each directory adds open, fstatfs and close for two or \
              three pins, and readlink for each pin.",
    };
    let name = "restart: open and check 560 maps and 500 links in 500 directories";
    bench.work(name, contenders, goals(), notes);
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

/// Maps that fit, on a mount that follows symbolic links or on a nosymfollow mount.
fn fitting(bench: &mut Bench, root: &PinDir, is_followed: bool) -> Result<(), Failure> {
    let count = bench.size(10_000, 500);
    let pins: Vec<_> = (0..count)
        .map(|i| Pin::new(root.path(), format!("map_{i}")))
        .collect();
    let spec = spec();
    // Every pin has its own name, but maps are shared, because the lookup is measured.
    let maps: Result<Vec<_>, _> = (0..100).map(|_| spec.create()).collect();
    for (pin, map) in pins.iter().zip(maps?.iter().cycle()) {
        root.pin(map, &pin.name)?;
    }
    let at = root.as_fd();
    let fits_checked = |pin: &Pin| {
        let fd = raw::get_at(at, &pin.c_name);
        !raw::is_link_at(at.as_raw_fd(), &pin.c_name) && fits(&fd)
    };
    let fits_at = |pin: &Pin| fits(&raw::get_at(at, &pin.c_name));
    let reuse = |pin: &Pin| {
        let reused = root.open_or_create(&pin.name, &spec, Reuse::Exact);
        drop(reused.expect("a map that fits"));
    };
    // If links are followed, equally safe bare calls check for one.
    let (on, same, notes) = match is_followed {
        true => (
            "",
            "raw, symlink check",
            Notes {
                raw: "BPF_OBJ_GET from the directory, info with a comparison of its fields, close. The symlink \
                      check adds readlink",
                why: "One more syscall than raw, readlink, because bpf(2) follows symbolic links. And about 400 \
                      instructions: bpf-pin compares every field, and keeps the name in case it has to create, \
                      migrate or replace the map.",
            },
        ),
        false => (
            ", on a nosymfollow mount",
            "raw",
            Notes {
                raw: "BPF_OBJ_GET from the directory, info with a comparison of its fields, close",
                why: "About 400 instructions: bpf-pin compares every field, and keeps the name in case it has to \
                      create, migrate or replace the map.",
            },
        ),
    };
    let pin = &pins[0];
    let mut contenders = vec![Contender::new("raw", || assert!(fits_at(pin)))];
    if is_followed {
        contenders.push(Contender::new(same, || assert!(fits_checked(pin))));
    }
    contenders.push(Contender::new("bpf-pin", || reuse(pin)));
    let name = format!("PinDir::open_or_create of a map that fits{on}");
    bench.call(&name, contenders, vec![goal("bpf-pin", same, 1.02)], notes);

    let paths: Vec<_> = pins
        .iter()
        .map(|pin| (Kind::Map, pin.path.clone()))
        .collect();
    let mut contenders = vec![Contender::new("raw", || {
        assert!(pins.iter().all(fits_at));
    })];
    if is_followed {
        contenders.push(Contender::new(same, || {
            assert!(pins.iter().all(fits_checked));
        }));
    }
    contenders.push(Contender::new("bpf-pin", || pins.iter().for_each(reuse)));
    contenders.extend(peers::open_all(&paths));
    let mut goals = goals();
    if is_followed {
        goals.push(goal("bpf-pin", same, 1.05));
    }
    // Peers have no single call for it.
    let notes = Notes {
        raw: "as above. Peers open by path and compare nothing",
        ..notes
    };
    let name = format!("restart: {count} open_or_create of maps that fit{on}");
    bench.work(&name, contenders, goals, notes);
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
        // A kernel worker frees the maps. Without the pause it would run during the next measurement.
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
    let notes = Notes {
        raw: "a BPF_OBJ_GET that fails, BPF_MAP_CREATE, BPF_OBJ_PIN, close",
        why: "The kernel's time varies from round to round, because it creates maps and frees them later.",
    };
    let name = format!("restart: {count} open_or_create of missing maps");
    bench.work(&name, contenders, goals(), notes);
    Ok(())
}
