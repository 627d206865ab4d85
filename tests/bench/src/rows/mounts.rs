//! Inventories in mount namespaces of many mounts.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use bpf_pin::{Bpffs, inventory};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use crate::Failure;
use crate::bench::Bench;
use crate::pairs::{Contender, goal};

pub fn rows(bench: &mut Bench) -> Result<(), Failure> {
    let most = bench.size(32_000, 1_000);
    let point = bench.place.mount_point();
    mount("none", &point, "tmpfs", MountFlags::empty(), None)?;
    let measured = [30, 80, most].into_iter().try_for_each(|mounts| {
        let name = format!("inventory with {mounts} mounts");
        if bench.wants(&name) {
            more(&point, mounts)?;
            row(bench, &name);
        }
        Ok(())
    });
    unmount(&point, UnmountFlags::DETACH)?;
    measured
}

/// Until there are so many in all.
fn more(point: &Path, mounts: usize) -> Result<(), Failure> {
    let there = fs::read_to_string("/proc/self/mountinfo")?.lines().count();
    for number in there..mounts {
        let path = point.join(number.to_string());
        fs::create_dir(&path)?;
        mount_bind(&path, &path)?;
    }
    Ok(())
}

fn row(bench: &mut Bench, name: &str) {
    let mut room = vec![0; 64 << 10];
    let contenders = vec![
        Contender::new("raw", || {
            let mut file = File::open("/proc/self/mountinfo").expect("it can be opened");
            let mut lines = 0;
            loop {
                let len = file.read(&mut room).expect("it can be read");
                lines += room[..len].iter().filter(|&&byte| byte == b'\n').count();
                if len == 0 {
                    break;
                }
            }
            assert_ne!(lines, 0);
        }),
        Contender::new("bpf-pin, Bpffs::mounts", || {
            assert_ne!(Bpffs::mounts().expect("the mounts").len(), 0);
        }),
        Contender::new("bpf-pin", || {
            for found in inventory().expect("an inventory") {
                found.expect("a pin");
            }
        }),
    ];
    let goals = vec![
        goal("bpf-pin, Bpffs::mounts", "raw", 1.2),
        goal("bpf-pin", "raw", 1.2),
    ];
    let why = "Beside reading, which grows with the mounts, there is what does not: /proc is proven to be one, \
         a poll before and after the reading tells whether it held still, and each bpffs is opened, proven, \
         copied so that no time of last access is set, listed, its pins asked for their info, and the copy \
         closed, for which the kernel waits.";
    bench.work(name, contenders, goals, why);
}
