//! A loader that comes back: all its pins are opened and type-checked, its maps found to fit or made.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bpf_pin::reuse::Reuse;
use bpf_pin::{Kind, Link, Map, MapSpec, MapType, PinDir, abi};

use crate::bench::Bench;
use crate::pairs::{Contender, Goal, Words, goal};
use crate::place::{c_path, hash};
use crate::{Failure, peers, raw};

use super::object::{assert_is_hash, link};

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
    fitting(bench, &root, true)?;
    missing(bench, &root)?;
    let other = bench.place.nosymfollow()?;
    fitting(bench, &PinDir::open(&other.path)?, false)?;
    std::fs::remove_dir_all(bench.place.at("reuse"))?;
    Ok(())
}

/// As a loader of many interfaces has them: in each directory a link, and a map or two.
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
    let words = Words {
        raw: "of each BPF_OBJ_GET by its path, info, whose type is looked at, close",
        why: "aya asks for no info of a link. A PinDir for each directory takes open, fstatfs and close for two or \
              three pins, and readlink for each.",
    };
    let name = "restart: open and check 560 maps and 500 links in 500 directories";
    bench.work(name, contenders, goals(), words);
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

/// Where symbolic links are followed, or on a mount that is nosymfollow.
fn fitting(bench: &mut Bench, root: &PinDir, is_followed: bool) -> Result<(), Failure> {
    let count = bench.size(10_000, 500);
    let pins: Vec<_> = (0..count)
        .map(|i| Pin::new(root.path(), format!("map_{i}")))
        .collect();
    let spec = spec();
    // Each a name of its own, though not a map: what counts is the way there.
    let maps: Result<Vec<_>, _> = (0..100).map(|_| spec.create()).collect();
    for (pin, map) in pins.iter().zip(maps?.iter().cycle()) {
        root.pin(map, &pin.name)?;
    }
    let at = root.as_fd();
    let fits_unlinked = |pin: &Pin| {
        let fd = raw::get_at(at, &pin.c_name);
        !raw::is_link_at(at.as_raw_fd(), &pin.c_name) && fits(&fd)
    };
    let fits_at = |pin: &Pin| fits(&raw::get_at(at, &pin.c_name));
    let reuse = |pin: &Pin| {
        let reused = root.open_or_create(&pin.name, &spec, Reuse::Exact);
        drop(reused.expect("a map that fits"));
    };
    // Where it is followed, the bare calls that are as safe look for a link, too.
    let (on, same, words) = match is_followed {
        true => (
            "",
            "raw, no link followed",
            Words {
                raw: "BPF_OBJ_GET from the directory, info, whose fields are compared, close; where no link is followed \
                      readlink, too",
                why: "A syscall more than raw, readlink: bpf(2) follows links. And some 400 instructions: every field is \
                      compared, and the name is kept, for it may have to be created, migrated or replaced.",
            },
        ),
        false => (
            ", on a mount that is nosymfollow",
            "raw",
            Words {
                raw: "BPF_OBJ_GET from the directory, info, whose fields are compared, close",
                why: "Some 400 instructions: every field is compared, and the name is kept, for it may have to be \
                      created, migrated or replaced.",
            },
        ),
    };
    let pin = &pins[0];
    let mut contenders = vec![Contender::new("raw", || assert!(fits_at(pin)))];
    if is_followed {
        contenders.push(Contender::new(same, || assert!(fits_unlinked(pin))));
    }
    contenders.push(Contender::new("bpf-pin", || reuse(pin)));
    let name = format!("PinDir::open_or_create of a map that fits{on}");
    bench.call(&name, contenders, vec![goal("bpf-pin", same, 1.02)], words);

    let paths: Vec<_> = pins
        .iter()
        .map(|pin| (Kind::Map, pin.path.clone()))
        .collect();
    let mut contenders = vec![Contender::new("raw", || {
        assert!(pins.iter().all(fits_at));
    })];
    if is_followed {
        contenders.push(Contender::new(same, || {
            assert!(pins.iter().all(fits_unlinked));
        }));
    }
    contenders.push(Contender::new("bpf-pin", || pins.iter().for_each(reuse)));
    contenders.extend(peers::open_all(&paths));
    let mut goals = goals();
    if is_followed {
        goals.push(goal("bpf-pin", same, 1.05));
    }
    // Beside one call there is no peer.
    let words = Words {
        raw: "as above; peers open by path and compare nothing",
        ..words
    };
    let name = format!("restart: {count} open_or_create that fit{on}");
    bench.work(&name, contenders, goals, words);
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
    let words = Words {
        raw: "BPF_OBJ_GET, which fails, BPF_MAP_CREATE, BPF_OBJ_PIN, close",
        why: "It is the kernel's time that differs, from round to round: maps are made, and freed later.",
    };
    let name = format!("restart: {count} open_or_create of what is missing");
    bench.work(&name, contenders, goals(), words);
    Ok(())
}
