//! Memory does not grow with the pins, nor the time for a mount with the mounts.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bpf_pin::inventory::Inventory;
use common::*;
use rustix::mount::{UnmountFlags, unmount};

use crate::inventory::seen::{in_a_directory, pin, seen};
use crate::inventory::{ROOT, bind, bpffs, filled};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// How many pins an inventory has below `dir`, and the bytes that it had allocated at most.
fn peak(dir: &Path) -> bpf_pin::Result<(usize, usize)> {
    let (pins, used) = count_allocations(|| -> bpf_pin::Result<usize> {
        let mut pins = 0;
        for found in Inventory::take()? {
            pins += usize::from(found?.path.starts_with(dir));
        }
        Ok(pins)
    });
    let pins = pins?;
    assert_eq!(used.bytes, 0, "all of it was given back");
    Ok((pins, used.peak_bytes))
}

#[common::test(ROOT)]
fn inventory_in_constant_memory() -> Outcome {
    const FEW: usize = 1_000;
    const MANY: usize = 20_000;

    in_a_directory(|dir| {
        let one = dir.join("one");
        bpffs(&one)?;
        let own = peak(dir)?.0;
        let fill = |from: usize, to: usize| -> Outcome {
            for number in from..to {
                let path = |number: usize| one.join(format!("pin{number:06}"));
                // One in ten has an inode of its own.
                match number % 10 {
                    0 => drop(pin(hash(), &path(number))?),
                    _ => fs::hard_link(path(number - number % 10), path(number))?,
                }
            }
            Ok(())
        };
        fill(0, FEW)?;
        let (pins, few) = peak(dir)?;
        assert_eq!(pins, own + FEW);
        fill(FEW, MANY)?;
        let begun = Instant::now();
        let (pins, many) = peak(dir)?;
        let took = begun.elapsed();
        assert_eq!(pins, own + MANY);
        println!("{FEW} pins: {few} bytes; {MANY} pins: {many} bytes, {took:?}");
        // The first batch may be all that there is to few.
        assert!(many <= few + 64 * 1024, "{few} bytes, {many} bytes");
        Ok(())
    })
}

#[common::test(ROOT)]
fn inventory_of_thousands_of_mounts() -> Outcome {
    const FEW: usize = 200;
    const MANY: usize = 2_000;
    const TRIES: usize = 20;
    /// For a mount among ten times as many; ten where each looked at all the others.
    const BOUND: f64 = 4.0;

    in_a_directory(|dir| {
        let one = dir.join("one");
        bpffs(&one)?;
        let ids = filled(&one, &["a", "d/b"])?;
        let took = || -> Result<Duration, bpf_pin::Error> {
            let begun = Instant::now();
            let now = seen(dir)?;
            let took = begun.elapsed();
            assert!(now.errors.is_empty(), "{:?}", now.errors);
            assert_eq!(now.ids(), ids, "each is seen once");
            Ok(took)
        };
        let mut few = Duration::MAX;
        for number in 0..FEW {
            bind(&one, &dir.join(format!("bind{number}")))?;
        }
        for _ in 0..TRIES {
            few = few.min(took()?);
        }
        for number in FEW..MANY {
            bind(&one, &dir.join(format!("bind{number}")))?;
        }
        let (mut many, mut growth) = (Duration::MAX, f64::INFINITY);
        for _ in 0..TRIES {
            many = many.min(took()?);
            growth = many.as_secs_f64() / few.as_secs_f64() * FEW as f64 / MANY as f64;
            if growth < BOUND {
                break;
            }
        }
        println!("{FEW} mounts: {few:?}; {MANY} mounts: {many:?}; {growth:.2} times each");
        assert!(growth < BOUND, "{few:?} {many:?}");

        // As many parts, none in another, and each with a pin; and then the whole is gone.
        let two = dir.join("two");
        bpffs(&two)?;
        for number in 0..MANY {
            let (part, name) = (format!("part{number}"), format!("part{number}/pin"));
            filled_with_one(&two, &name)?;
            bind(&two.join(&part), &dir.join(part))?;
        }
        unmount(&two, UnmountFlags::empty())?;
        let begun = Instant::now();
        let now = seen(dir)?;
        let parts = begun.elapsed();
        println!("{MANY} parts: {parts:?}");
        assert!(now.errors.is_empty(), "{:?}", now.errors);
        assert_eq!(now.pins.len(), MANY + ids.len());
        Ok(())
    })
}

fn filled_with_one(root: &Path, name: &str) -> Outcome {
    filled(root, &[name])?;
    Ok(())
}
