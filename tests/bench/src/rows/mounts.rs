//! Inventories in mount namespaces with many mounts.

use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;

use bpf_pin::inventory::Inventory;
use bpf_pin::{Bpffs, PinDir};
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use crate::bench::Bench;
use crate::pairs::{Contender, Notes, goal};
use crate::place::hash;
use crate::{Failure, raw};

/// Pins on the bench's bpffs.
const PINS: usize = 10;

pub fn rows(bench: &mut Bench) -> Result<(), Failure> {
    let map = hash(8)?;
    let dir = PinDir::create(bench.place.at("inventory"), 0o700)?;
    for number in 0..PINS {
        dir.pin(&map, format!("map_{number}"))?;
    }
    let most = bench.size(32_000, 1_000);
    let point = bench.place.mount_point();
    mount("none", &point, "tmpfs", MountFlags::empty(), None)?;
    let measured = [30, 80, most].into_iter().try_for_each(|mounts| {
        // The machine may already have more.
        let there = fs::read_to_string("/proc/self/mountinfo")?.lines().count();
        let mounts = mounts.max(there);
        let name = format!("inventory with {mounts} mounts");
        if bench.wants(&name) {
            more(&point, there..mounts)?;
        }
        row(bench, &name, dir.path());
        Ok(())
    });
    unmount(&point, UnmountFlags::DETACH)?;
    measured
}

fn more(point: &Path, numbers: Range<usize>) -> Result<(), Failure> {
    for number in numbers {
        let path = point.join(number.to_string());
        fs::create_dir(&path)?;
        mount_bind(&path, &path)?;
    }
    Ok(())
}

fn read_mountinfo(buffer: &mut [u8]) {
    let mut file = File::open("/proc/self/mountinfo").expect("mountinfo");
    let mut lines = 0;
    loop {
        let len = file.read(buffer).expect("mountinfo");
        lines += buffer[..len].iter().filter(|&&byte| byte == b'\n').count();
        if len == 0 {
            break;
        }
    }
    assert_ne!(lines, 0);
}

fn row(bench: &mut Bench, name: &str, pins: &Path) {
    let (mut buffer, mut other) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let contenders = vec![
        Contender::new("raw", || read_mountinfo(&mut buffer)),
        Contender::new("raw with the pins", || {
            read_mountinfo(&mut other);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = open(pins, flags, Mode::empty()).expect("a directory");
            let mut seen = 0;
            raw::each_name(dir.as_fd(), &mut other, |name, _| {
                let fd = raw::get_at(dir.as_fd(), name);
                seen += usize::from(raw::map_info(fd.as_fd()).id != 0);
            });
            assert_eq!(seen, PINS);
        }),
        Contender::new("bpf-pin, Bpffs::mounts", || {
            assert_ne!(Bpffs::mounts().expect("the mounts").len(), 0);
        }),
        Contender::new("bpf-pin", || {
            let found = Inventory::take().expect("an inventory");
            let pins = found.map(|found| found.expect("a pin"));
            assert!(pins.count() >= PINS);
        }),
    ];
    let goals = vec![
        goal("bpf-pin, Bpffs::mounts", "raw", 1.2),
        goal("bpf-pin", "raw", 1.2),
        goal("bpf-pin", "raw with the pins", 1.2),
    ];
    let notes = Notes {
        raw: "reads /proc/self/mountinfo and counts its lines. The variant with the pins also reads a directory of \
              10 pins, opens each pin and requests its info",
        why: "The time to read mountinfo grows with the number of mounts. The rest does not: each bpffs, its mount \
              and /proc are verified.",
    };
    bench.work(name, contenders, goals, notes);
}
