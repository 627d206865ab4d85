//! A directory of the path is swapped for a symbolic link between any two syscalls.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::{Map, PinDir};
use common::*;

use crate::attack::{ChildResult, Ground, PINS, Progress, at_each_stop, is_hidden};

/// Creates "a", and "victim" with the same names. "a" is then swapped for a link to "victim".
fn a_and_victim(ground: &Ground) {
    for name in ["a", "a/b", "victim", "victim/b"] {
        fs::create_dir(ground.at(name)).unwrap();
    }
    ground.pin(&ground.ours, "a/ours");
    ground.pin(&ground.ours, "a/b/ours");
    for name in ["victim/ours", "victim/secret", "victim/b/ours"] {
        ground.pin(&ground.theirs, name);
    }
}

fn swap(ground: &Ground, _: &Progress) {
    if fs::rename(ground.at("a"), ground.at("moved")).is_ok() {
        symlink("victim", ground.at("a")).unwrap();
    }
}

/// Checks that the victim has its original pins and nothing else.
fn check_victim(ground: &Ground, progress: &Progress) {
    let names: Vec<_> = tree(&ground.at("victim")).into_keys().collect();
    let expected = ["b", "b/ours", "ours", "secret"].map(PathBuf::from);
    assert_eq!(names, expected, "{:?}", progress.stops);
    for name in ["victim/ours", "victim/secret", "victim/b/ours"] {
        assert!(
            ground.has(name, &ground.theirs),
            "{name}: {:?}",
            progress.stops
        );
    }
}

#[common::test_alone(PINS)]
fn create_stays_in_a_swapped_parent() {
    let prepare = |ground: &Ground| {
        a_and_victim(ground);
        fs::rename(ground.at("a/b"), ground.at("a/other")).unwrap();
    };
    let run = |ground: &Ground, _: &PinDir| {
        let made = PinDir::create(ground.at("a/made/deep"), 0o700)?;
        made.pin(&ground.ours, "new")
    };
    at_each_stop(prepare, run, swap, |ground, progress, result| {
        check_victim(ground, progress);
        assert_eq!(ground.strays(), [""; 0], "{:?}", progress.stops);
        // The pin is in the original directory or nowhere.
        let is_made = ground.has("moved/made/deep/new", &ground.ours);
        assert_eq!(
            is_made,
            result == ChildResult::Succeeded,
            "{:?}",
            progress.stops
        );
        if !is_made {
            assert!(!ground.at("moved/made").exists(), "{:?}", progress.stops);
            let is_explained = matches!(
                result,
                ChildResult::SymbolicLink | ChildResult::NotADirectory
            );
            assert!(is_explained, "{result:?} {:?}", progress.stops);
        }
    });
}

#[common::test_alone(PINS)]
fn open_dir_does_not_follow_a_swapped_name() {
    let run = |ground: &Ground, dir: &PinDir| {
        let below = dir.open_dir("a")?;
        below.pin(&ground.ours, "new")?;
        below.get::<Map>("ours").map(drop)
    };
    at_each_stop(a_and_victim, run, swap, |ground, progress, result| {
        check_victim(ground, progress);
        let is_pinned = ground.has("moved/new", &ground.ours);
        let expected = match is_pinned {
            true => ChildResult::Succeeded,
            false => ChildResult::SymbolicLink,
        };
        assert_eq!(result, expected, "{:?}", progress.stops);
        assert_eq!(
            is_pinned,
            progress.has_done("openat2"),
            "{:?}",
            progress.stops
        );
    });
}

/// Opens "a" before the swap, so that it stays the same directory after it was moved.
fn held(ground: &Ground) -> PinDir {
    let held = PinDir::open(ground.at("a"));
    held.expect("it was opened before it was swapped")
}

/// Runs a call on "a", which is swapped after it was opened.
fn on_held(call: fn(&Ground, &PinDir) -> bpf_pin::Result<()>, check: fn(&Ground, &Progress)) {
    let run = |ground: &Ground, _: &PinDir| call(ground, &held(ground));
    let attack = |ground: &Ground, progress: &Progress| {
        // The last call of PinDir::open.
        if progress.has_done("fstatfs") {
            swap(ground, progress);
        }
    };
    at_each_stop(a_and_victim, run, attack, |ground, progress, result| {
        check_victim(ground, progress);
        assert_eq!(result, ChildResult::Succeeded, "{:?}", progress.stops);
        assert_eq!(ground.strays(), [""; 0], "{:?}", progress.stops);
        if progress.has_done("fstatfs") {
            check(ground, progress);
        }
    });
}

#[common::test_alone(PINS)]
fn pins_stay_in_a_swapped_directory() {
    let call = |ground: &Ground, dir: &PinDir| {
        dir.pin(&ground.ours, "new")?;
        dir.link("new", "again")?;
        dir.rename("new", "renamed")?;
        dir.unpin(&ground.ours, "again")?;
        dir.set_mode("renamed", 0o640)
    };
    on_held(call, |ground, _| {
        assert!(ground.has("moved/renamed", &ground.ours));
        assert!(!ground.at("moved/again").exists());
    });
}

#[common::test_alone(PINS)]
fn replacements_stay_in_a_swapped_directory() {
    let call = |ground: &Ground, dir: &PinDir| {
        let seen = dir.identity("ours")?;
        dir.replace_if(&ground.ours, "ours", seen)?;
        dir.replace_keeping_mode(&ground.ours, "ours")?;
        dir.replace(&ground.new, "ours")
    };
    on_held(call, |ground, _| {
        let id = pinned_identity(&ground.at("moved/ours")).map(|holder| holder.id);
        assert_eq!(id, ground.new.id().ok());
    });
}

#[common::test_alone(PINS)]
fn publish_stays_in_a_swapped_directory() {
    let call = |ground: &Ground, dir: &PinDir| {
        let set = dir.stage("b")?;
        set.pin(&ground.ours, "new")?;
        set.publish().map(drop).map_err(Into::into)
    };
    on_held(call, |ground, _| {
        assert!(ground.has("moved/b/new", &ground.ours));
        assert!(!ground.at("moved/b/ours").exists());
    });
}

#[common::test_alone(PINS)]
fn walk_does_not_leave_a_swapped_tree() {
    let run = |_: &Ground, dir: &PinDir| {
        for entry in dir.walk()? {
            match entry {
                Ok(entry) if entry.path().ends_with("a/secret") => panic!("it has left the tree"),
                Ok(_) => {}
                // The link that replaced a directory.
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    at_each_stop(a_and_victim, run, swap, |ground, progress, result| {
        check_victim(ground, progress);
        let is_fine = matches!(result, ChildResult::Succeeded | ChildResult::SymbolicLink);
        assert!(is_fine, "{result:?} {:?}", progress.stops);
    });
}

#[common::test_alone(PINS)]
fn remove_dir_all_does_not_leave_a_swapped_tree() {
    // Swaps "a" in its place, or "b" wherever the tree was moved.
    for swap_below in [false, true] {
        let attack = |ground: &Ground, progress: &Progress| match swap_below {
            false => swap(ground, progress),
            true => swap_below_hidden(ground, "a"),
        };
        let run = |_: &Ground, dir: &PinDir| dir.remove_dir_all("a");
        at_each_stop(a_and_victim, run, attack, |ground, progress, result| {
            check_victim(ground, progress);
            assert_eq!(ground.strays(), [""; 0], "{result:?} {:?}", progress.stops);
            if result != ChildResult::Succeeded {
                let is_explained = matches!(
                    result,
                    ChildResult::SymbolicLink | ChildResult::NotADirectory
                );
                assert!(is_explained, "{result:?} {:?}", progress.stops);
                let is_back = ground.at("moved").exists() || ground.at("a").exists();
                assert!(is_back, "{:?}", progress.stops);
            }
        });
    }
}

/// Swaps "b" in `top`, or in the hidden directory that `top` was renamed to, for a link to the victim.
fn swap_below_hidden(ground: &Ground, top: &str) {
    let is_top =
        |path: &PathBuf| path.iter().count() == 1 && (is_hidden(path) || path.ends_with(top));
    for path in tree(&ground.root).into_keys().filter(is_top) {
        let below = ground.root.join(path).join("b");
        if fs::rename(&below, ground.at("moved")).is_ok() {
            symlink(ground.at("victim"), below).unwrap();
        }
    }
}

const LEFTOVERS: [&str; 2] = [
    "_bpf-pin-0123456789abcdef-0",
    "_bpf-pin-0123456789abcdef-1-aside",
];

#[common::test_alone(PINS)]
fn remove_leftovers_does_not_leave_a_swapped_tree() {
    for leftover in LEFTOVERS {
        let prepare = |ground: &Ground| {
            a_and_victim(ground);
            fs::rename(ground.at("a"), ground.at(leftover)).unwrap();
        };
        let run = |_: &Ground, dir: &PinDir| {
            let report = dir.remove_leftovers()?;
            report.failed.into_iter().next().map_or(Ok(()), Err)
        };
        let top = |ground: &Ground, _: &Progress| {
            if fs::rename(ground.at(leftover), ground.at("moved")).is_ok() {
                symlink("victim", ground.at(leftover)).unwrap();
            }
        };
        at_each_stop(prepare, run, top, |ground, progress, _| {
            check_victim(ground, progress)
        });
        let below = |ground: &Ground, _: &Progress| swap_below_hidden(ground, leftover);
        at_each_stop(prepare, run, below, |ground, progress, _| {
            check_victim(ground, progress)
        });
    }
}

/// Another thread swaps "a" as fast as it can.
#[common::test(PINS)]
fn nothing_leaves_a_directory_that_is_swapped_all_the_time() -> Outcome {
    let fs = TestFs::new();
    let ground = Ground::new(fs.at("ground"));
    a_and_victim(&ground);
    let before = tree(&ground.at("victim"));
    let (root, is_over) = (PinDir::open(&ground.root)?, AtomicBool::new(false));
    let (mut successes, mut swaps) = ([0; 4], 0);
    thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let mut swaps = 0;
            while !is_over.load(Ordering::Relaxed) {
                // While the name is missing, create may make a new directory.
                let until_done = |swap: &dyn Fn() -> std::io::Result<()>| {
                    while swap().is_err() {
                        let _ = fs::remove_dir_all(ground.at("a"));
                    }
                };
                fs::rename(ground.at("a"), ground.at("moved")).unwrap();
                until_done(&|| symlink("victim", ground.at("a")));
                fs::remove_file(ground.at("a")).unwrap();
                until_done(&|| fs::rename(ground.at("moved"), ground.at("a")));
                swaps += 1;
            }
            swaps
        });
        let end = Instant::now() + Duration::from_millis(700);
        // In a virtual machine each call may need longer to succeed once.
        let latest = end + Duration::from_secs(60);
        while Instant::now() < end || (successes.contains(&0) && Instant::now() < latest) {
            let all = [
                PinDir::create(ground.at("a/made/deep"), 0o700).map(drop),
                root.open_dir("a")
                    .and_then(|dir| dir.replace(&ground.ours, "new")),
                root.open_dir("a").and_then(|dir| dir.remove_dir_all("b")),
                root.open_dir("a").and_then(|dir| {
                    let set = dir.stage("b")?;
                    set.pin(&ground.ours, "ours")?;
                    set.publish().map(drop).map_err(Into::into)
                }),
            ];
            for (count, one) in successes.iter_mut().zip(&all) {
                *count += usize::from(one.is_ok());
            }
            let _ = root
                .open_dir("a")
                .and_then(|dir| dir.remove_dir_all("made"));
            for entry in root.walk().into_iter().flatten().flatten() {
                assert!(!entry.path().ends_with("a/secret"), "it has left the tree");
            }
        }
        is_over.store(true, Ordering::Relaxed);
        swaps = attacker.join().unwrap();
    });
    assert!(
        !successes.contains(&0) && swaps > 0,
        "{successes:?}, {swaps} swaps"
    );
    assert_eq!(tree(&ground.at("victim")), before);
    assert!(ground.has("a/ours", &ground.ours));
    // Removes directories that create could not finish because of a swap.
    root.remove_leftovers()?;
    assert_eq!(ground.strays(), [""; 0]);
    fs::remove_dir_all(&ground.root)?;
    Ok(())
}
