//! Memory does not grow with the number of pins, and the time for each mount does not grow with the number of mounts.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bpf_pin::inventory::Inventory;
use common::*;
use rustix::mount::{UnmountFlags, unmount};
use rustix::time::{ClockId, clock_gettime};

use crate::inventory::listing::{list_below, pin, with_private_tmpfs};
use crate::inventory::{ROOT, bind_mount, mount_bpffs, pin_maps};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// The number of pins below `dir`, and the peak of allocated bytes.
fn count_pins_and_peak_bytes(dir: &Path) -> bpf_pin::Result<(usize, usize)> {
    let (pins, used) = count_allocations(|| -> bpf_pin::Result<usize> {
        let mut pins = 0;
        for found in Inventory::take()? {
            pins += usize::from(found?.path.starts_with(dir));
        }
        Ok(pins)
    });
    let pins = pins?;
    assert_eq!(used.bytes, 0, "all memory is freed");
    Ok((pins, used.peak_bytes))
}

#[common::test(ROOT)]
fn memory_is_constant() -> Outcome {
    const FEW: usize = 1_000;
    const MANY: usize = 20_000;

    with_private_tmpfs(|dir| {
        let one = dir.join("one");
        mount_bpffs(&one)?;
        let own = count_pins_and_peak_bytes(dir)?.0;
        let fill = |from: usize, to: usize| -> Outcome {
            for number in from..to {
                let path = |number: usize| one.join(format!("pin{number:06}"));
                // One name in ten has its own inode, and the others are hard links.
                match number % 10 {
                    0 => drop(pin(hash(), &path(number))?),
                    _ => fs::hard_link(path(number - number % 10), path(number))?,
                }
            }
            Ok(())
        };
        fill(0, FEW)?;
        let (pins, few) = count_pins_and_peak_bytes(dir)?;
        assert_eq!(pins, own + FEW);
        fill(FEW, MANY)?;
        let begun = Instant::now();
        let (pins, many) = count_pins_and_peak_bytes(dir)?;
        let elapsed = begun.elapsed();
        assert_eq!(pins, own + MANY);
        println!("{FEW} pins: {few} bytes; {MANY} pins: {many} bytes, {elapsed:?}");
        // The smaller directory may fit into the first buffer.
        assert!(many <= few + 64 * 1024, "{few} bytes, {many} bytes");
        Ok(())
    })
}

#[common::test(ROOT)]
fn the_time_is_linear_in_mounts() -> Outcome {
    const FEW: usize = 200;
    const MANY: usize = 2_000;
    const TRIES: usize = 20;
    /// The limit of the growth of the time for each mount. It would be 10 if each mount were compared with all.
    const BOUND: f64 = 4.0;

    with_private_tmpfs(|dir| {
        let one = dir.join("one");
        mount_bpffs(&one)?;
        let ids = pin_maps(&one, &["a", "d/b"])?;
        let list_time = || -> Result<Duration, bpf_pin::Error> {
            let begun = cpu_time();
            let now = list_below(dir)?;
            let elapsed = cpu_time() - begun;
            assert!(now.errors.is_empty(), "{:?}", now.errors);
            assert_eq!(now.ids(), ids, "each pin is listed once");
            Ok(elapsed)
        };
        let mut few = Duration::MAX;
        for number in 0..FEW {
            bind_mount(&one, &dir.join(format!("bind{number}")))?;
        }
        for _ in 0..TRIES {
            few = few.min(list_time()?);
        }
        for number in FEW..MANY {
            bind_mount(&one, &dir.join(format!("bind{number}")))?;
        }
        let (mut many, mut growth) = (Duration::MAX, f64::INFINITY);
        for _ in 0..TRIES {
            many = many.min(list_time()?);
            growth = many.as_secs_f64() / few.as_secs_f64() * FEW as f64 / MANY as f64;
            if growth < BOUND {
                break;
            }
        }
        println!("{FEW} mounts: {few:?}; {MANY} mounts: {many:?}; {growth:.2} times each");
        assert!(growth < BOUND, "{few:?} {many:?}");

        // As many disjoint parts with one pin each, after the mount of the whole is gone.
        let two = dir.join("two");
        mount_bpffs(&two)?;
        for number in 0..MANY {
            let (part, name) = (format!("part{number}"), format!("part{number}/pin"));
            pin_one_map(&two, &name)?;
            bind_mount(&two.join(&part), &dir.join(part))?;
        }
        unmount(&two, UnmountFlags::empty())?;
        let begun = Instant::now();
        let now = list_below(dir)?;
        let parts = begun.elapsed();
        println!("{MANY} parts: {parts:?}");
        assert!(now.errors.is_empty(), "{:?}", now.errors);
        assert_eq!(now.pins.len(), MANY + ids.len());
        Ok(())
    })
}

/// The CPU time of this thread, which other processes do not affect.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn pin_one_map(root: &Path, name: &str) -> Outcome {
    pin_maps(root, &[name])?;
    Ok(())
}
