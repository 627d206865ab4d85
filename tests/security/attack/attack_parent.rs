//! A directory on the way becomes a symbolic link to another, between any two syscalls.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::{Map, PinDir};
use common::*;

use crate::attack::{Alone, Ended, Ground, Moment, PINS, at_each_stop, is_hidden};

pub const ALONE: &[Alone] = &[
    ("create_below_a_swapped_parent", PINS, create),
    ("open_dir_of_a_swapped_name", PINS, open_dir),
    ("pin_in_a_swapped_directory", PINS, pin),
    ("replace_in_a_swapped_directory", PINS, replace),
    ("publish_in_a_swapped_directory", PINS, publish),
    ("walk_of_a_swapped_tree", PINS, walk),
    ("remove_dir_all_of_a_swapped_tree", PINS, remove_dir_all),
    ("remove_leftovers_of_a_swapped_tree", PINS, remove_leftovers),
];

/// "a", to be swapped for a link to "victim", which has the same names in it.
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

fn swap(ground: &Ground, _: &Moment) {
    if fs::rename(ground.at("a"), ground.at("moved")).is_ok() {
        symlink("victim", ground.at("a")).unwrap();
    }
}

/// All of the victim's that there was, and nothing else.
fn judge_victim(ground: &Ground, moment: &Moment) {
    let names: Vec<_> = tree(&ground.at("victim")).into_keys().collect();
    let expected = ["b", "b/ours", "ours", "secret"].map(PathBuf::from);
    assert_eq!(names, expected, "{:?}", moment.stops);
    for name in ["victim/ours", "victim/secret", "victim/b/ours"] {
        assert!(
            ground.has(name, &ground.theirs),
            "{name}: {:?}",
            moment.stops
        );
    }
}

fn create() {
    let prepare = |ground: &Ground| {
        a_and_victim(ground);
        fs::rename(ground.at("a/b"), ground.at("a/other")).unwrap();
    };
    let run = |ground: &Ground, _: &PinDir| {
        let made = PinDir::create(ground.at("a/made/deep"), 0o700)?;
        made.pin(&ground.ours, "new")
    };
    at_each_stop(prepare, run, swap, |ground, moment, ended| {
        judge_victim(ground, moment);
        assert_eq!(ground.strays(), [""; 0], "{:?}", moment.stops);
        // Below what was there first, or nowhere.
        let is_made = ground.has("moved/made/deep/new", &ground.ours);
        assert_eq!(is_made, ended == Ended::Well, "{:?}", moment.stops);
        if !is_made {
            assert!(!ground.at("moved/made").exists(), "{:?}", moment.stops);
            let is_told = matches!(ended, Ended::SymbolicLink | Ended::NotADirectory);
            assert!(is_told, "{ended:?} {:?}", moment.stops);
        }
    });
}

fn open_dir() {
    let run = |ground: &Ground, dir: &PinDir| {
        let below = dir.open_dir("a")?;
        below.pin(&ground.ours, "new")?;
        below.get::<Map>("ours").map(drop)
    };
    at_each_stop(a_and_victim, run, swap, |ground, moment, ended| {
        judge_victim(ground, moment);
        let is_pinned = ground.has("moved/new", &ground.ours);
        let expected = match is_pinned {
            true => Ended::Well,
            false => Ended::SymbolicLink,
        };
        assert_eq!(ended, expected, "{:?}", moment.stops);
        assert_eq!(is_pinned, moment.has_done("openat2"), "{:?}", moment.stops);
    });
}

/// Held from the beginning: then it is that directory, wherever it is by now.
fn held(ground: &Ground) -> PinDir {
    let held = PinDir::open(ground.at("a"));
    held.expect("it was opened before it was swapped")
}

/// Runs a call on "a", held. The swap comes after it was opened.
fn on_held(call: fn(&Ground, &PinDir) -> bpf_pin::Result<()>, judge: fn(&Ground, &Moment)) {
    let run = |ground: &Ground, _: &PinDir| call(ground, &held(ground));
    let attack = |ground: &Ground, moment: &Moment| {
        // What PinDir::open does.
        if moment.has_done("fstatfs") {
            swap(ground, moment);
        }
    };
    at_each_stop(a_and_victim, run, attack, |ground, moment, ended| {
        judge_victim(ground, moment);
        assert_eq!(ended, Ended::Well, "{:?}", moment.stops);
        assert_eq!(ground.strays(), [""; 0], "{:?}", moment.stops);
        if moment.has_done("fstatfs") {
            judge(ground, moment);
        }
    });
}

fn pin() {
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

fn replace() {
    let call = |ground: &Ground, dir: &PinDir| {
        let seen = dir.identity("ours")?;
        dir.replace_if(&ground.ours, "ours", seen)?;
        dir.replace_keeping_mode(&ground.ours, "ours")?;
        dir.replace(&ground.new, "ours")
    };
    on_held(call, |ground, _| {
        let id = holder(&ground.at("moved/ours")).map(|holder| holder.id);
        assert_eq!(id, ground.new.id().ok());
    });
}

fn publish() {
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

fn walk() {
    let run = |_: &Ground, dir: &PinDir| {
        for entry in dir.walk()? {
            match entry {
                Ok(entry) if entry.path().ends_with("a/secret") => panic!("it has left the tree"),
                Ok(_) => {}
                // The link, where a directory was.
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    at_each_stop(a_and_victim, run, swap, |ground, moment, ended| {
        judge_victim(ground, moment);
        let is_fine = matches!(ended, Ended::Well | Ended::SymbolicLink);
        assert!(is_fine, "{ended:?} {:?}", moment.stops);
    });
}

fn remove_dir_all() {
    // "b" becomes the link, wherever the tree has gone meanwhile, and "a" where it is at its place.
    for swap_below in [false, true] {
        let attack = |ground: &Ground, moment: &Moment| match swap_below {
            false => swap(ground, moment),
            true => swap_below_hidden(ground, "a"),
        };
        let run = |_: &Ground, dir: &PinDir| dir.remove_dir_all("a");
        at_each_stop(a_and_victim, run, attack, |ground, moment, ended| {
            judge_victim(ground, moment);
            assert_eq!(ground.strays(), [""; 0], "{ended:?} {:?}", moment.stops);
            if ended != Ended::Well {
                let is_told = matches!(ended, Ended::SymbolicLink | Ended::NotADirectory);
                assert!(is_told, "{ended:?} {:?}", moment.stops);
                let is_back = ground.at("moved").exists() || ground.at("a").exists();
                assert!(is_back, "{:?}", moment.stops);
            }
        });
    }
}

/// Moves "b" out of `top` or of what it is called by now, and has it be a link to the victim.
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

const STALE: [&str; 2] = [
    "_bpf-pin-0123456789abcdef-0",
    "_bpf-pin-0123456789abcdef-1-aside",
];

fn remove_leftovers() {
    for stale in STALE {
        let prepare = |ground: &Ground| {
            a_and_victim(ground);
            fs::rename(ground.at("a"), ground.at(stale)).unwrap();
        };
        let run = |_: &Ground, dir: &PinDir| {
            let swept = dir.remove_leftovers()?;
            swept.failed.into_iter().next().map_or(Ok(()), Err)
        };
        let top = |ground: &Ground, _: &Moment| {
            if fs::rename(ground.at(stale), ground.at("moved")).is_ok() {
                symlink("victim", ground.at(stale)).unwrap();
            }
        };
        at_each_stop(prepare, run, top, |ground, moment, _| {
            judge_victim(ground, moment)
        });
        let below = |ground: &Ground, _: &Moment| swap_below_hidden(ground, stale);
        at_each_stop(prepare, run, below, |ground, moment, _| {
            judge_victim(ground, moment)
        });
    }
}

/// A thread that swaps as fast as it can.
#[common::test(PINS)]
fn parents_swapped_all_the_time() -> Outcome {
    let fs = TestFs::new();
    let ground = Ground::new(fs.at("ground"));
    a_and_victim(&ground);
    let before = tree(&ground.at("victim"));
    let (root, is_over) = (PinDir::open(&ground.root)?, AtomicBool::new(false));
    let (mut well, mut swaps) = ([0; 4], 0);
    thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let mut swaps = 0;
            while !is_over.load(Ordering::Relaxed) {
                // Where nothing has the name, create may be the first to make one.
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
        // In guests a second may be over before each call has met its luck.
        let latest = end + Duration::from_secs(60);
        while Instant::now() < end || (well.contains(&0) && Instant::now() < latest) {
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
            for (count, one) in well.iter_mut().zip(&all) {
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
    assert!(!well.contains(&0) && swaps > 0, "{well:?}, {swaps} swaps");
    assert_eq!(tree(&ground.at("victim")), before);
    assert!(ground.has("a/ours", &ground.ours));
    // What create could not finish for being swapped, if anything.
    root.remove_leftovers()?;
    assert_eq!(ground.strays(), [""; 0]);
    fs::remove_dir_all(&ground.root)?;
    Ok(())
}
