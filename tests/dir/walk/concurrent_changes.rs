//! Directories that change or are removed during a read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Error, PinDir, Result};
use common::*;

use crate::walk::{DIRS, Names, PINS, names};

/// Entries appear, disappear and change. Each walk sees every stable entry exactly once.
#[common::test(PINS)]
fn a_stable_entry_is_listed_once_during_changes() -> Outcome {
    const STAYING: usize = 400;

    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("dir"), 0o700)?;
    let map = hash();
    dir.pin(&map, "stays0")?;
    for number in 1..STAYING {
        dir.link("stays0", format!("stays{number}"))?;
    }
    for number in 0..10 {
        let inner = dir.create_dir(format!("dir{number}"), 0o700)?;
        inner.pin(&map, "stays")?;
    }
    dir.pin(&map, "moves0")?;
    let (is_over, changes, walks) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    let change = |mut step: Box<dyn FnMut(usize) -> Result<()> + Send>| {
        let mut round = 0;
        while !is_over.load(SeqCst) {
            step(round).expect("a change");
            changes.fetch_add(1, SeqCst);
            round += 1;
        }
    };
    let end = Instant::now() + Duration::from_millis(600);
    thread::scope(|scope| {
        let (dir, map, change) = (&dir, &map, &change);
        // Creates and removes many entries.
        scope.spawn(move || {
            let dir = dir.try_clone().unwrap();
            let map = map.try_clone().unwrap();
            change(Box::new(move |round| {
                let name = format!("comes{}", round % 50);
                match round / 50 % 2 {
                    0 => dir.pin(&map, name),
                    _ => dir.unlink(name),
                }
            }))
        });
        // Renames one entry and replaces another. Creates, exchanges and removes whole directories.
        scope.spawn(move || {
            let dir = dir.try_clone().unwrap();
            let map = map.try_clone().unwrap();
            change(Box::new(move |round| {
                dir.rename(
                    format!("moves{}", round % 7),
                    format!("moves{}", (round + 1) % 7),
                )?;
                dir.replace(&map, "replaced")?;
                let set = dir.stage("set")?;
                set.pin(&map, "in it")?;
                set.create_dir("below", 0o700)?.pin(&map, "in it")?;
                set.publish()?;
                if round % 3 == 0 {
                    dir.remove_dir_all("set")?;
                }
                Ok(())
            }))
        });
        let walkers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while Instant::now() < end || walks.load(SeqCst) < 4 {
                        let counts = list_once(dir);
                        assert_eq!(counts, (STAYING, 10, 10));
                        walks.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        let walked: Vec<_> = walkers.into_iter().map(|w| w.join()).collect();
        is_over.store(true, SeqCst);
        assert!(walked.iter().all(|walked| walked.is_ok()));
    });
    let (changes, walks) = (changes.into_inner(), walks.into_inner());
    println!("{walks} walks during {changes} changes");
    assert!(changes > 4, "{changes}");
    Ok(())
}

/// The numbers of stable pins, directories and pins in those, after one walk and one stream.
fn list_once(dir: &PinDir) -> (usize, usize, usize) {
    let mut of_stream = Names::new();
    let mut inodes = std::collections::HashSet::new();
    for entry in dir.entries().expect("a readable directory") {
        let entry = entry.expect("an entry");
        let name = entry.name().to_owned();
        let again = of_stream.insert(name.clone(), entry.entry_type());
        let text = name.to_str().expect("a temporary name");
        if text.starts_with("stays") || text.starts_with("dir") {
            assert_eq!(again, None, "{text} is seen twice");
        }
        // A renamed entry is seen under one of its names, but not under both.
        if text.starts_with("moves") {
            assert!(inodes.insert(entry.inode()), "{text} is seen twice");
        }
    }
    let of_stream = of_stream
        .keys()
        .filter(|name| name.to_str().unwrap().starts_with("stays"))
        .count();
    let mut seen = BTreeMap::new();
    for entry in dir.walk().expect("a readable directory") {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => panic!("{error}"),
        };
        let below = entry.path().strip_prefix(dir.path()).unwrap().to_owned();
        *seen.entry(below).or_insert(0) += 1;
    }
    let count = |prefix: &str, depth: usize| {
        let of_them = seen.iter().filter(|(path, _)| {
            path.to_str().unwrap().starts_with(prefix) && path.components().count() == depth
        });
        of_them.inspect(|&(_, &times)| assert_eq!(times, 1)).count()
    };
    assert_eq!(of_stream, count("stays", 1));
    (of_stream, count("dir", 1), count("dir", 2))
}

#[common::test(DIRS)]
fn a_directory_removed_during_a_listing_is_reported() -> Outcome {
    let fs = TestFs::new();
    let parent = PinDir::create(fs.at("dir"), 0o700)?;
    let dir = parent.create_dir("goes", 0o700)?;
    let path = fs.at("dir/goes");
    dir.create_dir("inner", 0o700)?;
    let mut begun = dir.entries()?;
    let mut begun_walk = dir.walk()?;
    let fresh = dir.entries()?;
    assert_eq!(begun.next().expect("a name")?.name(), "inner");
    assert_eq!(begun_walk.next().expect("a name")?.name(), "inner");
    parent.remove_dir_all("goes")?;

    let assert_removed = |error: Error| {
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
        let cause = Cause::Removed { path: path.clone() };
        assert_eq!(error.cause(), Some(&cause));
        assert_eq!(error.operation(), Operation::ListDir);
    };
    for mut entries in [begun, fresh, dir.entries()?] {
        // A stream ends without an error if its first batch was complete.
        if let Some(error) = entries.next() {
            assert_removed(error.unwrap_err());
        }
        assert!(entries.next().is_none() && entries.next().is_none());
    }
    let mut entries = dir.entries()?;
    assert_removed(entries.next().expect("an error").unwrap_err());
    assert!(entries.next().is_none());
    // A walk ends without an error.
    assert!(begun_walk.next().is_none());
    assert!(dir.walk()?.next().is_none());
    assert!(dir.remove_where(|_| true)?.removed.is_empty());
    Ok(())
}

#[common::test(DIRS)]
fn a_tree_removed_during_a_walk_is_reported_or_ends() -> Outcome {
    let fs = TestFs::new();
    let parent = PinDir::create(fs.at("dir"), 0o700)?;
    let end = Instant::now() + Duration::from_millis(300);
    let mut rounds = 0;
    while Instant::now() < end || rounds < 5 {
        rounds += 1;
        let tree = parent.create_dir("tree", 0o700)?;
        for a in 0..5 {
            let inner = tree.create_dir(format!("a{a}"), 0o700)?;
            for b in 0..5 {
                inner.create_dir(format!("b{b}"), 0o700)?;
            }
        }
        parent
            .create_dir("stays", 0o700)?
            .create_dir("in it", 0o700)?;
        // The removal comes immediately, or after some entries of the walk.
        let mut walk = parent.walk()?;
        let mut seen = Vec::new();
        for _ in 0..rounds % 30 {
            if let Some(entry) = walk.next() {
                seen.push(entry?.path());
            }
        }
        thread::scope(|scope| {
            scope.spawn(|| parent.remove_dir_all("tree").expect("a removal"));
            for entry in walk.by_ref() {
                seen.push(entry.expect("no error for a removed directory").path());
            }
        });
        let stays = [fs.at("dir/stays"), fs.at("dir/stays/in it")];
        assert!(stays.iter().all(|path| seen.contains(path)), "{seen:?}");
        assert_eq!(walk.depth(), 0);
        parent.remove_dir_all("stays")?;
    }
    assert!(names(&parent)?.is_empty());
    Ok(())
}
