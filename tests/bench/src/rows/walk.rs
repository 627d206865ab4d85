//! Many pins: their names and their info.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bpf_pin::dir::EntryType;
use bpf_pin::{MapSpec, MapType, PinDir};
use rustix::fs::{Mode, OFlags, open};

use crate::bench::Bench;
use crate::pairs::{Contender, Notes, goal};
use crate::{Failure, count, raw};

/// Buffer size of the raw getdents64. Above 8 KiB the size makes no difference.
const BUFFER: usize = 64 << 10;

pub fn rows(bench: &mut Bench) -> Result<(), Failure> {
    let count = walk_size(bench);
    let names = format!("walk {count} pins in two directories, none opened");
    let infos = format!("walk {count} pins, all opened, with kind and info");
    let nosymfollow = format!("walk {count} pins on a nosymfollow mount, all opened");
    if [&names, &infos, &nosymfollow].map(|name| bench.wants(name)) != [false; 3] {
        let (root, parts) = halves(bench.place.at("walk"))?;
        let spec = MapSpec::new(MapType::ARRAY, 4, 8, 1);
        for number in 0..count {
            parts[number % 2].pin(&spec.create()?, format!("map_{number}"))?;
        }
        let paths = parts.each_ref().map(|part| part.path().to_owned());
        walk(bench, &names, &root, &paths, count);
        with_info(bench, &infos, &root, &paths, true);

        // Mounted only now, because bpftool reads every bpffs.
        let other = bench.place.nosymfollow()?;
        let (others_root, others) = halves(other.path.join("walk"))?;
        for number in 0..count {
            parts[number % 2].copy_to(format!("map_{number}"), &others[number % 2])?;
        }
        let paths = others.each_ref().map(|part| part.path().to_owned());
        with_info(bench, &nosymfollow, &others_root, &paths, false);

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
    let mut room = vec![0; BUFFER];
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
        Contender::new("bpf-pin, next_entry", || {
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
        goal("bpf-pin, next_entry", "raw", 1.05),
        goal("bpf-pin", "raw", 1.05),
        goal("bpf-pin", "std::fs::read_dir", 1.0),
    ];
    let notes = Notes {
        raw: "getdents64, 64 KiB at a time",
        why: "An entry can outlive the batch it was read in, so it holds a reference to the batch, which takes two \
              atomic operations. An entry of Walk::next_entry holds none.",
    };
    bench.work(name, contenders, goals, notes);
}

/// Pins on a mount that follows symbolic links, compared with bpftool, or on a nosymfollow mount.
fn with_info(
    bench: &mut Bench,
    name: &str,
    root: &PinDir,
    paths: &[PathBuf; 2],
    is_followed: bool,
) {
    let count = walk_size(bench);
    let raw_walk = |checks_symlink: bool| {
        let mut room = vec![0; BUFFER];
        move || {
            let mut seen = 0;
            for path in paths {
                let dir = opened(path);
                raw::each_name(dir.as_fd(), &mut room, |name, _| {
                    let fd = raw::get_at(dir.as_fd(), name);
                    assert!(!checks_symlink || !raw::is_link_at(dir.as_raw_fd(), name));
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
        contenders.push(Contender::new("raw, symlink check", raw_walk(true)));
    }
    if is_followed && bench.wants(name) && !bpftool() {
        println!("\nbpftool is not compared, because it is not installed: apt-get install bpftool");
    } else if is_followed {
        contenders.push(Contender::new("bpftool", move || assert!(bpftool())));
    }
    let goals = vec![
        goal("bpf-pin", "raw", 1.05),
        goal("bpf-pin", "raw, symlink check", 1.05),
        goal("bpf-pin", "bpftool", 0.125),
    ];
    let notes = match is_followed {
        true => Notes {
            raw: "getdents64, and for each pin BPF_OBJ_GET from the directory, info, close. The symlink check adds \
                  readlink. bpftool -jf map show also opens every map by its id and writes JSON, in a new process",
            why: "One more syscall for each pin, readlink, as in PinDir::get. The raw calls alone take more than \
                  an eighth of bpftool's time.",
        },
        false => Notes {
            raw: "getdents64, and for each pin BPF_OBJ_GET from the directory, info, close",
            why: "A pin may be of any kind, so the buffer has the size of the longest info, and the kernel checks \
                  that the bytes it does not fill are zero.",
        },
    };
    bench.work(name, contenders, goals, notes);
}

/// Everything that a walk allocates, even if it is freed at once.
fn memory(bench: &mut Bench) -> Result<(), Failure> {
    let name = "walk: memory";
    if !bench.wants(name) {
        return Ok(());
    }
    let root = PinDir::create(bench.place.at("memory"), 0o700)?;
    let map = crate::place::hash(8)?;
    let mut memory = Vec::new();
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
        let (allocations, bytes) = (after.0 - before.0, after.1 - before.1);
        memory.push(format!(
            "{count} pins take {bytes} bytes in {allocations} allocations"
        ));
    }
    bench.fact(name, memory.join(", "));
    std::fs::remove_dir_all(root.path())?;
    Ok(())
}
