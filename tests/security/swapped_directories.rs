//! A directory of the path is swapped for a symbolic link between any two syscalls.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::{Map, PinDir};
use common::*;

use crate::attack::{ChildResult, Fixture, PINS, Progress, at_each_stop, is_hidden};

/// Creates "a", and "victim" with the same names. "a" is then swapped for a link to "victim".
fn a_and_victim(fixture: &Fixture) {
    for name in ["a", "a/b", "victim", "victim/b"] {
        fs::create_dir(fixture.at(name)).unwrap();
    }
    fixture.pin(&fixture.ours, "a/ours");
    fixture.pin(&fixture.ours, "a/b/ours");
    for name in ["victim/ours", "victim/secret", "victim/b/ours"] {
        fixture.pin(&fixture.theirs, name);
    }
}

fn swap(fixture: &Fixture, _: &Progress) {
    if fs::rename(fixture.at("a"), fixture.at("moved")).is_ok() {
        symlink("victim", fixture.at("a")).unwrap();
    }
}

/// Checks that the victim has its original pins and nothing else.
fn check_victim(fixture: &Fixture, progress: &Progress) {
    let names: Vec<_> = tree(&fixture.at("victim")).into_keys().collect();
    let expected = ["b", "b/ours", "ours", "secret"].map(PathBuf::from);
    assert_eq!(names, expected, "{:?}", progress.stops);
    for name in ["victim/ours", "victim/secret", "victim/b/ours"] {
        assert!(
            fixture.has(name, &fixture.theirs),
            "{name}: {:?}",
            progress.stops
        );
    }
}

#[common::test_alone(PINS)]
fn create_stays_in_a_swapped_parent() {
    let prepare = |fixture: &Fixture| {
        a_and_victim(fixture);
        fs::rename(fixture.at("a/b"), fixture.at("a/other")).unwrap();
    };
    let run = |fixture: &Fixture, _: &PinDir| {
        let made = PinDir::create(fixture.at("a/made/deep"), 0o700)?;
        made.pin(&fixture.ours, "new")
    };
    at_each_stop(prepare, run, swap, |fixture, progress, result| {
        check_victim(fixture, progress);
        assert_eq!(fixture.hidden_names(), [""; 0], "{:?}", progress.stops);
        // The pin is in the original directory or nowhere.
        let is_made = fixture.has("moved/made/deep/new", &fixture.ours);
        assert_eq!(
            is_made,
            result == ChildResult::Succeeded,
            "{:?}",
            progress.stops
        );
        if !is_made {
            assert!(!fixture.at("moved/made").exists(), "{:?}", progress.stops);
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
    let run = |fixture: &Fixture, dir: &PinDir| {
        let below = dir.open_dir("a")?;
        below.pin(&fixture.ours, "new")?;
        below.get::<Map>("ours").map(drop)
    };
    at_each_stop(a_and_victim, run, swap, |fixture, progress, result| {
        check_victim(fixture, progress);
        let is_pinned = fixture.has("moved/new", &fixture.ours);
        let expected = match is_pinned {
            true => ChildResult::Succeeded,
            false => ChildResult::SymbolicLink,
        };
        assert_eq!(result, expected, "{:?}", progress.stops);
        assert_eq!(
            is_pinned,
            progress.has_called("openat2"),
            "{:?}",
            progress.stops
        );
    });
}

/// Opens "a" before the swap, so that it stays the same directory after it was moved.
fn held(fixture: &Fixture) -> PinDir {
    let held = PinDir::open(fixture.at("a"));
    held.expect("it was opened before it was swapped")
}

/// Runs a call on "a", which is swapped after it was opened.
fn on_held(call: fn(&Fixture, &PinDir) -> bpf_pin::Result<()>, check: fn(&Fixture, &Progress)) {
    let run = |fixture: &Fixture, _: &PinDir| call(fixture, &held(fixture));
    let attack = |fixture: &Fixture, progress: &Progress| {
        // The last call of PinDir::open.
        if progress.has_called("fstatfs") {
            swap(fixture, progress);
        }
    };
    at_each_stop(a_and_victim, run, attack, |fixture, progress, result| {
        check_victim(fixture, progress);
        assert_eq!(result, ChildResult::Succeeded, "{:?}", progress.stops);
        assert_eq!(fixture.hidden_names(), [""; 0], "{:?}", progress.stops);
        if progress.has_called("fstatfs") {
            check(fixture, progress);
        }
    });
}

#[common::test_alone(PINS)]
fn pins_stay_in_a_swapped_directory() {
    let call = |fixture: &Fixture, dir: &PinDir| {
        dir.pin(&fixture.ours, "new")?;
        dir.link("new", "again")?;
        dir.rename("new", "renamed")?;
        dir.unpin(&fixture.ours, "again")?;
        dir.set_mode("renamed", 0o640)
    };
    on_held(call, |fixture, _| {
        assert!(fixture.has("moved/renamed", &fixture.ours));
        assert!(!fixture.at("moved/again").exists());
    });
}

#[common::test_alone(PINS)]
fn replacements_stay_in_a_swapped_directory() {
    let call = |fixture: &Fixture, dir: &PinDir| {
        let seen = dir.identity("ours")?;
        dir.replace_if(&fixture.ours, "ours", seen)?;
        dir.replace_keeping_mode(&fixture.ours, "ours")?;
        dir.replace(&fixture.new, "ours")
    };
    on_held(call, |fixture, _| {
        let id = pinned_identity(&fixture.at("moved/ours")).map(|holder| holder.id);
        assert_eq!(id, fixture.new.id().ok());
    });
}

#[common::test_alone(PINS)]
fn publish_stays_in_a_swapped_directory() {
    let call = |fixture: &Fixture, dir: &PinDir| {
        let set = dir.stage("b")?;
        set.pin(&fixture.ours, "new")?;
        set.publish().map(drop).map_err(Into::into)
    };
    on_held(call, |fixture, _| {
        assert!(fixture.has("moved/b/new", &fixture.ours));
        assert!(!fixture.at("moved/b/ours").exists());
    });
}

#[common::test_alone(PINS)]
fn walk_does_not_leave_a_swapped_tree() {
    let run = |_: &Fixture, dir: &PinDir| {
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
    at_each_stop(a_and_victim, run, swap, |fixture, progress, result| {
        check_victim(fixture, progress);
        let is_fine = matches!(result, ChildResult::Succeeded | ChildResult::SymbolicLink);
        assert!(is_fine, "{result:?} {:?}", progress.stops);
    });
}

#[common::test_alone(PINS)]
fn remove_dir_all_does_not_leave_a_swapped_tree() {
    // Swaps "a" in its place, or "b" wherever the tree was moved.
    for swap_below in [false, true] {
        let attack = |fixture: &Fixture, progress: &Progress| match swap_below {
            false => swap(fixture, progress),
            true => swap_below_hidden(fixture, "a"),
        };
        let run = |_: &Fixture, dir: &PinDir| dir.remove_dir_all("a");
        at_each_stop(a_and_victim, run, attack, |fixture, progress, result| {
            check_victim(fixture, progress);
            assert_eq!(
                fixture.hidden_names(),
                [""; 0],
                "{result:?} {:?}",
                progress.stops
            );
            if result != ChildResult::Succeeded {
                let is_explained = matches!(
                    result,
                    ChildResult::SymbolicLink | ChildResult::NotADirectory
                );
                assert!(is_explained, "{result:?} {:?}", progress.stops);
                let is_back = fixture.at("moved").exists() || fixture.at("a").exists();
                assert!(is_back, "{:?}", progress.stops);
            }
        });
    }
}

/// Swaps "b" in `top`, or in the hidden directory that `top` was renamed to, for a link to the victim.
fn swap_below_hidden(fixture: &Fixture, top: &str) {
    let is_top =
        |path: &PathBuf| path.iter().count() == 1 && (is_hidden(path) || path.ends_with(top));
    for path in tree(&fixture.root).into_keys().filter(is_top) {
        let below = fixture.root.join(path).join("b");
        if fs::rename(&below, fixture.at("moved")).is_ok() {
            symlink(fixture.at("victim"), below).unwrap();
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
        let prepare = |fixture: &Fixture| {
            a_and_victim(fixture);
            fs::rename(fixture.at("a"), fixture.at(leftover)).unwrap();
        };
        let run = |_: &Fixture, dir: &PinDir| {
            let report = dir.remove_leftovers()?;
            report.failed.into_iter().next().map_or(Ok(()), Err)
        };
        let top = |fixture: &Fixture, _: &Progress| {
            if fs::rename(fixture.at(leftover), fixture.at("moved")).is_ok() {
                symlink("victim", fixture.at(leftover)).unwrap();
            }
        };
        at_each_stop(prepare, run, top, |fixture, progress, _| {
            check_victim(fixture, progress)
        });
        let below = |fixture: &Fixture, _: &Progress| swap_below_hidden(fixture, leftover);
        at_each_stop(prepare, run, below, |fixture, progress, _| {
            check_victim(fixture, progress)
        });
    }
}

/// Another thread swaps "a" as fast as it can.
#[common::test(PINS)]
fn no_call_leaves_a_directory_that_is_swapped_continuously() -> Outcome {
    let fs = TestFs::new();
    let fixture = Fixture::new(fs.at("fixture"));
    a_and_victim(&fixture);
    let before = tree(&fixture.at("victim"));
    let (root, is_over) = (PinDir::open(&fixture.root)?, AtomicBool::new(false));
    let (mut successes, mut swaps) = ([0; 4], 0);
    thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let mut swaps = 0;
            while !is_over.load(Ordering::Relaxed) {
                // While the name is missing, create may make a new directory.
                let until_done = |swap: &dyn Fn() -> std::io::Result<()>| {
                    while swap().is_err() {
                        let _ = fs::remove_dir_all(fixture.at("a"));
                    }
                };
                fs::rename(fixture.at("a"), fixture.at("moved")).unwrap();
                until_done(&|| symlink("victim", fixture.at("a")));
                fs::remove_file(fixture.at("a")).unwrap();
                until_done(&|| fs::rename(fixture.at("moved"), fixture.at("a")));
                swaps += 1;
            }
            swaps
        });
        let end = Instant::now() + Duration::from_millis(700);
        // In a virtual machine each call may need longer to succeed once.
        let latest = end + Duration::from_secs(60);
        while Instant::now() < end || (successes.contains(&0) && Instant::now() < latest) {
            let all = [
                PinDir::create(fixture.at("a/made/deep"), 0o700).map(drop),
                root.open_dir("a")
                    .and_then(|dir| dir.replace(&fixture.ours, "new")),
                root.open_dir("a").and_then(|dir| dir.remove_dir_all("b")),
                root.open_dir("a").and_then(|dir| {
                    let set = dir.stage("b")?;
                    set.pin(&fixture.ours, "ours")?;
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
    assert_eq!(tree(&fixture.at("victim")), before);
    assert!(fixture.has("a/ours", &fixture.ours));
    // Removes directories that create could not finish because of a swap.
    root.remove_leftovers()?;
    assert_eq!(fixture.hidden_names(), [""; 0]);
    fs::remove_dir_all(&fixture.root)?;
    Ok(())
}
