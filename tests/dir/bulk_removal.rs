//! `remove_where` removes the entries that a predicate selects, and `remove_leftovers` those of dead processes.

use common::child_process;
mod concurrent_changes;
mod failures;
mod in_use;
mod leftovers;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::symlink;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::dir::{EntryType, RemovalReport};
use bpf_pin::error::Cause;
use bpf_pin::{Map, MapSpec, MapType, PinDir, Result};
use common::*;

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const DIRS: &[Need] = &[Need::Bpffs];
const USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];
const MOUNT: &[Need] = &[cap::SYS_ADMIN];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    let task = child_process::task()?;
    ["stage", "work"]
        .contains(&task.as_str())
        .then(|| in_use::child(&task))
}

fn app(fs: &TestFs) -> Result<PinDir> {
    PinDir::create(fs.at("app"), 0o700)
}

fn names(dir: &PinDir) -> Result<Vec<String>> {
    let names = dir
        .entries()?
        .map(|entry| entry.map(|entry| entry.name().to_str().expect("UTF-8").to_owned()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn sorted(names: &[OsString]) -> Vec<&str> {
    let mut names: Vec<_> = names.iter().map(|name| name.to_str().unwrap()).collect();
    names.sort();
    names
}

/// Repeats a race for 400 ms, and at least five times.
fn repeat(mut race: impl FnMut() -> Outcome) -> Outcome {
    let end = Instant::now() + Duration::from_millis(400);
    let mut rounds = 0;
    while rounds < 5 || Instant::now() < end {
        rounds += 1;
        race()?;
    }
    Ok(())
}

/// Runs three removals at the same time, each on its own value from `make`, and returns their reports.
fn run_three_concurrently<D: Send>(
    make: impl Fn() -> D,
    remove: impl Fn(&D) -> RemovalReport + Sync,
) -> Vec<RemovalReport> {
    let start = Barrier::new(3);
    let (start, remove) = (&start, &remove);
    thread::scope(|scope| {
        let begin = |own: D| {
            scope.spawn(move || {
                start.wait();
                remove(&own)
            })
        };
        let threads = [make(), make(), make()].map(begin);
        threads.map(|thread| thread.join().unwrap()).into()
    })
}

/// The removed names. Fails if the removal failed for an entry or restored one.
fn removed(report: &RemovalReport) -> Vec<&str> {
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert!(report.restored.is_empty(), "{:?}", report.restored);
    sorted(&report.removed)
}

#[common::test(PINS)]
fn remove_where_removes_the_selected_entries() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let mut ids = BTreeMap::new();
    for (name, max_entries) in [("a", 1), ("b", 8), ("c", 1), ("d", 8)] {
        let map = MapSpec::new(MapType::HASH, 4, 8, max_entries).create()?;
        dir.pin(&map, name)?;
        ids.insert(name, dir.identity(name)?);
    }
    dir.pin(&prog(), "e")?;
    symlink("a", fs.at("app/f"))?;
    symlink("nothing", fs.at("app/g"))?;
    assert!(removed(&dir.remove_where(|_| false)?).is_empty());
    assert_eq!(names(&dir)?, ["a", "b", "c", "d", "e", "f", "g"]);

    let mut asked = Vec::new();
    let report = dir.remove_where(|entry| {
        asked.push(entry.name().to_owned());
        entry
            .get::<Map>()
            .is_ok_and(|map| map.info().is_ok_and(|info| info.max_entries == 1))
    })?;
    assert_eq!(removed(&report), ["a", "c"]);
    // The predicate is called once for each name.
    assert_eq!(sorted(&asked), ["a", "b", "c", "d", "e", "f", "g"]);
    assert_eq!(names(&dir)?, ["b", "d", "e", "f", "g"]);
    for name in ["b", "d"] {
        assert_eq!(dir.identity(name)?, ids[name]);
    }
    // A symbolic link is removed and its target is kept.
    symlink("b", fs.at("app/to_b"))?;
    let report = dir.remove_where(|entry| entry.entry_type() == EntryType::SymbolicLink)?;
    assert_eq!(removed(&report), ["f", "g", "to_b"]);
    assert_eq!(names(&dir)?, ["b", "d", "e"]);
    assert_eq!(removed(&dir.remove_where(|_| true)?), ["b", "d", "e"]);
    assert!(names(&dir)?.is_empty());
    assert!(removed(&dir.remove_where(|_| true)?).is_empty());
    Ok(())
}

#[common::test(PINS)]
fn a_dry_run_reports_the_same_names() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let map = hash();
    for number in 0..2000 {
        match number % 100 {
            0 => drop(dir.create_dir(format!("name{number}"), 0o700)?),
            1 => symlink("x", fs.at("app").join(format!("name{number}")))?,
            _ => dir.pin(&map, format!("name{number}"))?,
        }
    }
    let before = names(&dir)?;
    let is_selected = |name: &OsStr| name.to_str().unwrap().contains('7');
    let mut asked = 0;
    let dry = dir.remove_where_dry_run(|entry| {
        asked += 1;
        is_selected(entry.name())
    })?;
    assert_eq!(asked, 2000);
    assert_eq!(names(&dir)?, before, "nothing is removed");
    let dry = removed(&dry);
    assert!(!dry.is_empty());
    let wet = dir.remove_where(|entry| is_selected(entry.name()))?;
    assert_eq!(removed(&wet), dry);
    let mut left = before;
    left.retain(|name| !is_selected(name.as_ref()));
    assert_eq!(names(&dir)?, left);
    assert!(removed(&dir.remove_where_dry_run(|entry| is_selected(entry.name()))?).is_empty());
    Ok(())
}

#[common::test(PINS)]
fn remove_where_removes_directories_with_their_content() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let map = hash();
    let fill = |name: &str| -> Outcome {
        let one = dir.create_dir(name, 0o700)?;
        for name in ["a", "b"] {
            one.pin(&map, name)?;
        }
        symlink("/", fs.at("app").join(name).join("link"))?;
        symlink("../keep", fs.at("app").join(name).join("kept"))?;
        let two = one.create_dir("two", 0o700)?;
        two.create_dir("empty", 0o700)?;
        two.create_dir("full", 0o700)?.pin(&map, "map")?;
        Ok(())
    };
    fill("goes")?;
    fill("goes too")?;
    fill("keep")?;
    dir.create_dir("empty", 0o700)?;
    let below = |dir: &PinDir| -> Result<usize> {
        let mut count = 0;
        for entry in dir.walk()? {
            entry?;
            count += 1;
        }
        Ok(count)
    };
    let kept = below(&dir.open_dir("keep")?)?;
    assert_eq!(kept, 8);
    let held = dir.open_dir("goes")?;
    let report = dir.remove_where(|entry| entry.name() != "keep")?;
    assert_eq!(removed(&report), ["empty", "goes", "goes too"]);
    assert_eq!(names(&dir)?, ["keep"]);
    assert_eq!(
        below(&dir.open_dir("keep")?)?,
        kept,
        "links are not followed"
    );
    let error = held.pin(&map, "late").unwrap_err();
    assert_cause_matches!(error, Cause::Removed { .. });
    Ok(())
}
