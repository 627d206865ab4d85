//! Compare and swap: `replace_if` replaces a pin only if it still holds the expected object.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use bpf_pin::bpffs::FileSystem;
use bpf_pin::error::Cause;
use bpf_pin::{Identity, Map, PinDir};
use common::*;

use crate::replace::failures::assert_fails;
use crate::replace::{NAME, PINS};
use crate::stress::{self, Repetitions, has_exchange};

#[common::test(PINS)]
fn concurrent_swaps_lose_no_success() -> Outcome {
    stress::run("swap_concurrently")
}

#[common::test(PINS)]
fn a_swap_does_not_lose_a_concurrent_replacement() -> Outcome {
    stress::run("swap_during_replace")
}

#[common::test(PINS)]
fn replace_if_replaces_the_expected_object() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let maps = [hash(), hash(), hash()];
    dir.pin(&maps[0], NAME)?;
    let mut seen = dir.identity(NAME)?;
    for map in maps.iter().cycle().skip(1).take(10) {
        dir.replace_if(map, NAME, seen)?;
        let new = map.identity()?;
        assert_eq!(dir.identity(NAME)?, new);
        assert_eq!(fs.names(), [NAME]);
        // The first identity is outdated, so a second swap with it fails.
        let error = dir.replace_if(&maps[0], NAME, seen).unwrap_err();
        let cause = Cause::Replaced {
            expected: seen,
            found: new,
        };
        assert_fails(&error, None, cause);
        assert_eq!(dir.identity(NAME)?, new);
        seen = new;
    }
    // A swap with the same object creates a new file.
    let inode = dir.metadata(NAME)?.inode();
    let same: Map = dir.get(NAME)?;
    dir.replace_if(&same, NAME, seen)?;
    assert_eq!(dir.identity(NAME)?, seen);
    assert_ne!(dir.metadata(NAME)?.inode(), inode);
    assert_eq!(fs.names(), [NAME]);
    Ok(())
}

/// After a failure the pin is still the same file.
#[common::test(PINS)]
fn a_failed_replace_if_changes_nothing() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (old, new) = (hash(), hash());
    dir.pin(&old, NAME)?;
    dir.link(NAME, "other")?;
    dir.set_mode(NAME, 0o640)?;
    let before = dir.metadata(NAME)?;
    let wrong = new.identity()?;
    for expected in [
        wrong,
        Identity {
            kind: bpf_pin::Kind::Prog,
            id: old.id()?,
        },
    ] {
        let error = dir.replace_if(&new, NAME, expected).unwrap_err();
        let found = old.identity()?;
        assert_eq!(error.cause(), Some(&Cause::Replaced { expected, found }));
        let after = dir.metadata(NAME)?;
        assert_eq!((after.inode(), after.links()), (before.inode(), 2));
        assert_eq!(after.mode(), 0o640);
        assert_eq!(after.modified(), before.modified());
        assert_eq!(fs.names(), [NAME, "other"]);
    }
    let path = fs.at("none");
    let error = dir.replace_if(&new, "none", wrong).unwrap_err();
    assert_fails(&error, Some(libc::ENOENT), Cause::Missing { path });
    assert_eq!(fs.names(), [NAME, "other"]);
    // A hard link to the old pin still holds the old object.
    dir.replace_if(&new, NAME, old.identity()?)?;
    assert_eq!(dir.identity("other")?, old.identity()?);
    assert_eq!(dir.metadata("other")?.links(), 1);
    assert_eq!(fs.names(), [NAME, "other"]);
    Ok(())
}

#[common::test(PINS)]
fn replace_if_rejects_an_entry_that_is_not_a_pin() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (old, new) = (hash(), hash());
    let seen = old.identity()?;
    dir.pin(&old, "target")?;
    fs::create_dir(fs.at(NAME))?;
    let path = fs.at(NAME);
    let (what, found) = ("directory", FileSystem::BPF);
    let cause = Cause::NotAnObject { path, what, found };
    let error = dir.replace_if(&new, NAME, seen).unwrap_err();
    assert_fails(&error, Some(libc::EACCES), cause);
    fs::remove_dir(fs.at(NAME))?;
    // The link's target holds the expected object, but the name itself does not.
    symlink("target", fs.at(NAME))?;
    let path = fs.at(NAME);
    let error = dir.replace_if(&new, NAME, seen).unwrap_err();
    assert_fails(&error, None, Cause::SymbolicLink { path });
    assert_eq!(fs.names(), [NAME, "target"]);
    assert_eq!(dir.identity("target")?, seen);
    assert_eq!(fs::read_link(fs.at(NAME))?.to_str(), Some("target"));
    Ok(())
}

/// A successful swap: the superseded object and the new one.
type Swap = (Identity, Identity);

/// Eight threads repeat compare and swap, each time under the lock.
#[common::test(PINS)]
fn under_the_lock_each_object_is_replaced_once() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("dir"), 0o700)?;
    let first = hash();
    dir.pin(&first, NAME)?;
    let repetitions = Repetitions::new(50, 500, Duration::from_millis(500));
    let swaps: Vec<Swap> = thread::scope(|scope| {
        let (fs, repetitions) = (&fs, &repetitions);
        let swap_concurrently: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(move || {
                    let dir = PinDir::open(fs.at("dir")).unwrap();
                    let mut swaps = Vec::new();
                    while repetitions.continue_after(swaps.len() as u32) {
                        let map = hash();
                        let lock = dir.lock(LockMode::Exclusive, Wait::Forever).unwrap();
                        let seen = dir.identity(NAME).unwrap();
                        dir.replace_if(&map, NAME, seen).unwrap();
                        drop(lock);
                        swaps.push((seen, map.identity().unwrap()));
                    }
                    swaps
                })
            })
            .collect();
        let joined = swap_concurrently.into_iter().map(|c| c.join().unwrap());
        joined.flatten().collect()
    });
    let count = swaps.len();
    let mut next: HashMap<_, _> = swaps.into_iter().collect();
    assert_eq!(next.len(), count, "an object was replaced twice");
    let mut holder = first.identity()?;
    while let Some(new) = next.remove(&holder) {
        holder = new;
    }
    assert!(
        next.is_empty(),
        "{} of {count} beside the chain",
        next.len()
    );
    assert_eq!(dir.identity(NAME)?, holder);
    drop(dir);
    assert_eq!(fs::read_dir(fs.at("dir"))?.count(), 1);
    Ok(())
}

/// The results of one contender, in order.
#[derive(Default)]
struct Tries {
    swaps: Vec<Swap>,
    /// Objects of failed swaps, each with the object that it collided with.
    failed_swaps: HashMap<Identity, Identity>,
}

/// Repeats compare and swap while `continue_after` returns true.
fn contend(dir: &PinDir, continue_after: impl Fn(&Tries) -> bool) -> Tries {
    let mut tries = Tries::default();
    while continue_after(&tries) {
        let map = hash();
        let new = map.identity().unwrap();
        let seen = dir.identity(NAME).unwrap();
        match dir.replace_if(&map, NAME, seen) {
            Ok(()) => tries.swaps.push((seen, new)),
            Err(error) => match error.cause() {
                Some(&Cause::Replaced { expected, found }) => {
                    assert_eq!(expected, seen);
                    tries.failed_swaps.insert(new, found);
                }
                _ => panic!("{error}"),
            },
        }
    }
    tries
}

/// Two contenders without a lock. A swap may supersede an object that the other contender put there
/// and then took back. It then counts as superseding the object that this attempt collided with.
pub fn swap_concurrently() -> Outcome {
    let fs = TestFs::new();
    let first = hash();
    first.try_clone()?.pin(fs.at(NAME))?;
    let repetitions = Repetitions::new(100, 3_000, Duration::from_millis(700));
    let start = Barrier::new(2);
    let tries: Vec<Tries> = thread::scope(|scope| {
        let (fs, repetitions, start) = (&fs, &repetitions, &start);
        let swap_concurrently: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || {
                    let dir = PinDir::open(fs.root()).unwrap();
                    start.wait();
                    contend(&dir, |tries| {
                        repetitions.continue_after(tries.swaps.len() as u32)
                    })
                })
            })
            .collect();
        swap_concurrently
            .into_iter()
            .map(|c| c.join().unwrap())
            .collect()
    });
    let failed_swaps: HashMap<_, _> = tries.iter().flat_map(|t| t.failed_swaps.clone()).collect();
    let is_success = |new: &Identity| {
        let mut all = tries.iter().flat_map(|tries| &tries.swaps);
        all.any(|(_, success)| success == new)
    };
    let dir = PinDir::open(fs.root())?;
    let holder = dir.identity(NAME)?;
    println!(
        "swapped {} and {} times, {} failed",
        tries[0].swaps.len(),
        tries[1].swaps.len(),
        failed_swaps.len()
    );
    assert_eq!(fs.names(), [NAME]);
    if !has_exchange() {
        // Without an exchange, a swap with an outdated identity may overwrite a success. Only
        // successes may end up under the name.
        assert!(is_success(&holder), "{holder} is of no success");
        return Ok(());
    }
    // Finds the objects that successes superseded, also through failed attempts.
    let mut superseded = HashSet::new();
    for (seen, _) in tries.iter().flat_map(|tries| &tries.swaps) {
        let mut seen = seen;
        while let Some(displaced) = failed_swaps.get(seen) {
            seen = displaced;
        }
        superseded.insert(*seen);
    }
    let all = tries.iter().flat_map(|tries| &tries.swaps);
    let lost: Vec<_> = all
        .map(|(_, new)| new)
        .filter(|new| !superseded.contains(new) && **new != holder)
        .collect();
    assert!(lost.is_empty(), "never replaced: {lost:?}");
    assert!(is_success(&holder), "{holder} is of no success");
    Ok(())
}

/// Three contenders and two plain replacements. At the end the name holds the last plain
/// replacement, or a swap based on it.
pub fn swap_during_replace() -> Outcome {
    let fs = TestFs::new();
    hash().pin(fs.at(NAME))?;
    let rounds = Repetitions::new(20, 2_000, Duration::from_millis(1200));
    let dir = PinDir::open(fs.root())?;
    let (mut round, mut lost, mut swapped, mut failed_swaps) = (0, 0, 0, 0);
    while rounds.continue_after(round) {
        round += 1;
        let done = AtomicBool::new(false);
        // Starts with a single contender.
        let swap_concurrently = if round % 2 == 0 { 3 } else { 1 };
        let (tries, last) = thread::scope(|scope| {
            let (fs, dir, done) = (&fs, &dir, &done);
            let swap_concurrently: Vec<_> = (0..swap_concurrently)
                .map(|_| {
                    scope.spawn(move || {
                        let dir = PinDir::open(fs.root()).unwrap();
                        contend(&dir, |_| !done.load(Relaxed))
                    })
                })
                .collect();
            let plain: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(move || {
                        let maps = [hash(), hash()];
                        for map in maps.iter().cycle().take(20) {
                            dir.replace(map, NAME).unwrap();
                        }
                        maps[1].identity().unwrap()
                    })
                })
                .collect();
            let last: Vec<_> = plain.into_iter().map(|plain| plain.join()).collect();
            done.store(true, Relaxed);
            let last: Vec<_> = last.into_iter().map(Result::unwrap).collect();
            let tries: Vec<_> = swap_concurrently
                .into_iter()
                .map(|c| c.join().unwrap())
                .collect();
            (tries, last)
        });
        let swaps = tries.iter().flat_map(|tries| &tries.swaps);
        let mut before: HashMap<_, _> = swaps.map(|&(seen, new)| (new, seen)).collect();
        swapped += before.len();
        // A failed attempt comes after the object that it collided with.
        let failed: HashMap<_, _> = tries.iter().flat_map(|t| t.failed_swaps.clone()).collect();
        failed_swaps += failed.len();
        let mut holder = dir.identity(NAME)?;
        let has_failed = failed.contains_key(&holder);
        assert!(!has_failed, "round {round}: a failed swap kept the name");
        before.extend(failed);
        while let Some(&seen) = before.get(&holder) {
            holder = seen;
        }
        lost += u32::from(!last.contains(&holder));
        assert_eq!(fs.names(), [NAME], "round {round}");
    }
    println!("{round} rounds, swapped {swapped} times, {failed_swaps} failed, {lost} lost");
    // Before Linux 5.17, an object that is pinned between the check and the swap is lost.
    assert!(lost == 0 || !has_exchange(), "{lost} of {round} lost");
    Ok(())
}
