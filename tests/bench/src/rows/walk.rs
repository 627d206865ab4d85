//! Many pins: their names, and what they are of.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bpf_pin::dir::EntryType;
use bpf_pin::{MapSpec, MapType, PinDir};
use rustix::fs::{Mode, OFlags, open};

use crate::bench::Bench;
use crate::pairs::{Contender, Words, goal};
use crate::{Failure, count, raw};

/// What the raw reading gives the kernel for names. How much it is, from 8 KiB on, makes no difference.
const ROOM: usize = 64 << 10;

pub fn rows(bench: &mut Bench) -> Result<(), Failure> {
    let count = walk_size(bench);
    let names = format!("walk {count} pins in two directories, none opened");
    let infos = format!("walk {count} pins, all opened, with kind and info");
    let unfollowed = format!("walk {count} pins on a mount that is nosymfollow, all opened");
    if [&names, &infos, &unfollowed].map(|name| bench.wants(name)) != [false; 3] {
        let (root, parts) = halves(bench.place.at("walk"))?;
        let spec = MapSpec::new(MapType::ARRAY, 4, 8, 1);
        for number in 0..count {
            parts[number % 2].pin(&spec.create()?, format!("map_{number}"))?;
        }
        let paths = parts.each_ref().map(|part| part.path().to_owned());
        walk(bench, &names, &root, &paths, count);
        with_info(bench, &infos, &root, &paths, true);

        // Not before: bpftool looks at every bpffs that there is.
        let other = bench.place.nosymfollow()?;
        let (others_root, others) = halves(other.path.join("walk"))?;
        for number in 0..count {
            parts[number % 2].copy_to(format!("map_{number}"), &others[number % 2])?;
        }
        let paths = others.each_ref().map(|part| part.path().to_owned());
        with_info(bench, &unfollowed, &others_root, &paths, false);

        root.remove_dir_all("one")?;
        root.remove_dir_all("two")?;
        std::fs::remove_dir(root.path())?;
    }
    memory(bench)
}

fn walk_size(bench: &Bench) -> usize {
    bench.size(33_300, 2_000)
}

fn halves(path: PathBuf) -> Result<(PinDir, [PinDir; 2]), Failure> {
    let root = PinDir::create(path, 0o700)?;
    let parts = [
        root.create_dir("one", 0o700)?,
        root.create_dir("two", 0o700)?,
    ];
    Ok((root, parts))
}

fn opened(path: &Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).expect("a directory")
}

fn walk(bench: &mut Bench, name: &str, root: &PinDir, paths: &[PathBuf; 2], count: usize) {
    let mut room = vec![0; ROOM];
    let contenders = vec![
        Contender::new("raw", || {
            let mut seen = 0;
            for path in paths {
                raw::each_name(opened(path).as_fd(), &mut room, |_, kind| {
                    seen += usize::from(kind == libc::DT_REG);
                });
            }
            assert_eq!(seen, count);
        }),
        Contender::new("bpf-pin", || {
            let entries = root
                .walk()
                .expect("a walk")
                .map(|entry| entry.expect("an entry"));
            let pins = entries.filter(|entry| entry.entry_type() == EntryType::Pin);
            assert_eq!(pins.count(), count);
        }),
        Contender::new("bpf-pin, lent", || {
            let (mut walk, mut seen) = (root.walk().expect("a walk"), 0);
            while let Some(entry) = walk.next_entry() {
                let entry = entry.expect("an entry");
                seen += usize::from(entry.entry_type() == EntryType::Pin);
            }
            assert_eq!(seen, count);
        }),
        Contender::new("std::fs::read_dir", || {
            let read = |path| std::fs::read_dir(path).expect("a directory");
            let entries = paths
                .iter()
                .flat_map(read)
                .map(|entry| entry.expect("an entry"));
            let pins = entries.filter(|entry| entry.file_type().is_ok_and(|it| it.is_file()));
            assert_eq!(pins.count(), count);
        }),
    ];
    let goals = vec![
        goal("bpf-pin, lent", "raw", 1.05),
        goal("bpf-pin", "raw", 1.05),
        goal("bpf-pin", "std::fs::read_dir", 1.0),
    ];
    let words = Words {
        raw: "getdents64, 64 KiB at a time",
        why: "An entry may outlast the batch that it came in, and so holds on to that, in two atomic operations. One \
              that is lent, by Walk::next_entry, does not.",
    };
    bench.work(name, contenders, goals, words);
}

/// Where symbolic links are followed, beside bpftool, or on a mount that is nosymfollow.
fn with_info(
    bench: &mut Bench,
    name: &str,
    root: &PinDir,
    paths: &[PathBuf; 2],
    is_followed: bool,
) {
    let count = walk_size(bench);
    let raw_walk = |looks_for_links: bool| {
        let mut room = vec![0; ROOM];
        move || {
            let mut seen = 0;
            for path in paths {
                let dir = opened(path);
                raw::each_name(dir.as_fd(), &mut room, |name, _| {
                    let fd = raw::get_at(dir.as_fd(), name);
                    assert!(!looks_for_links || !raw::is_link_at(dir.as_raw_fd(), name));
                    seen += usize::from(raw::map_info(fd.as_fd()).id != 0);
                });
            }
            assert_eq!(seen, count);
        }
    };
    let mut contenders = vec![
        Contender::new("raw", raw_walk(false)),
        Contender::new("bpf-pin", || {
            let mut seen = 0;
            for entry in root.walk().expect("a walk") {
                let entry = entry.expect("an entry");
                if entry.entry_type() == EntryType::Pin {
                    let (_object, info) = entry.open_with_info().expect("an object");
                    seen += usize::from(info.identity().id != 0);
                }
            }
            assert_eq!(seen, count);
        }),
    ];
    let bpftool = || {
        let mut command = Command::new("bpftool");
        command.args(["-jf", "map", "show"]).stdout(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if is_followed {
        contenders.push(Contender::new("raw, no link followed", raw_walk(true)));
    }
    if is_followed && bench.wants(name) && !bpftool() {
        println!("\nno bpftool here, which this is compared with: apt-get install bpftool");
    } else if is_followed {
        contenders.push(Contender::new("bpftool", move || assert!(bpftool())));
    }
    let goals = vec![
        goal("bpf-pin", "raw", 1.05),
        goal("bpf-pin", "raw, no link followed", 1.05),
        goal("bpf-pin", "bpftool", 0.125),
    ];
    let words = match is_followed {
        true => Words {
            raw: "getdents64, and of each pin BPF_OBJ_GET from the directory, info, close; where no link is followed \
                  readlink, too. bpftool -jf map show asks for every map by its id, too, and writes JSON, in a \
                  process that is started",
            why: "A syscall more a pin: readlink, as of PinDir::get. Of what bpftool takes, the raw calls alone \
                  are more than an eighth.",
        },
        false => Words {
            raw: "getdents64, and of each pin BPF_OBJ_GET from the directory, info, close",
            why: "A pin may be of any kind, so there is room for the longest info, of which the kernel looks whether \
                  what it leaves is zero.",
        },
    };
    bench.work(name, contenders, goals, words);
}

/// All that a walk allocates, be it given back at once or not.
fn memory(bench: &mut Bench) -> Result<(), Failure> {
    let name = "walk: memory";
    if !bench.wants(name) {
        return Ok(());
    }
    let root = PinDir::create(bench.place.at("memory"), 0o700)?;
    let map = crate::place::hash(8)?;
    let mut told = Vec::new();
    let mut made = 0;
    for count in [1_000, bench.size(100_000, 5_000)] {
        while made < count {
            match made % 100 {
                0 => root.pin(&map, format!("pin_{made}"))?,
                _ => root.link(format!("pin_{}", made - made % 100), format!("pin_{made}"))?,
            }
            made += 1;
        }
        let before = count::allocated();
        assert_eq!(root.walk()?.count(), count);
        let after = count::allocated();
        let (pieces, bytes) = (after.0 - before.0, after.1 - before.1);
        told.push(format!("{count} pins {bytes} bytes in {pieces} pieces"));
    }
    bench.fact(name, told.join(", "));
    std::fs::remove_dir_all(root.path())?;
    Ok(())
}
