//! The depth of a walk, and directories that it skips.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use bpf_pin::dir::EntryType;
use bpf_pin::{Map, PinDir, Result};
use common::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::walk::{DIRS, PINS, names};
use common::child_process::{self, ChildProcess};

fn nest(dir: &PinDir, levels: usize) -> Result<PinDir> {
    let mut top = dir.try_clone()?;
    for _ in 0..levels {
        top = top.create_dir("d", 0o700)?;
    }
    Ok(top)
}

#[common::test(PINS)]
fn a_walk_descends_300_levels() -> Outcome {
    const LEVELS: usize = 300;

    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("dir"), 0o700)?;
    nest(&dir, LEVELS)?.pin(&hash(), "map")?;
    let mut walk = dir.walk()?;
    for level in 0..LEVELS {
        let entry = walk.next().expect("a level")?;
        assert_eq!((entry.name(), walk.depth()), (OsStr::new("d"), level));
    }
    let entry = walk.next().expect("the map")?;
    assert_eq!(walk.depth(), LEVELS);
    // The pin is opened relative to its directory, so that no path is too long.
    entry.get::<Map>()?;
    let path = entry.path();
    assert_eq!(
        path.components().count(),
        dir.path().components().count() + LEVELS + 1
    );
    assert!(walk.next().is_none());
    drop((walk, entry));
    dir.remove_dir_all("d")?;
    assert!(names(&dir)?.is_empty());
    Ok(())
}

/// Runs in a separate process, which raises its limit of descriptors.
#[common::test(DIRS)]
fn a_walk_descends_to_the_limit_of_descriptors() -> Outcome {
    let fs = TestFs::new();
    let other = ChildProcess::start_ready(&fs, "deep", [fs.root()]);
    other.finish();
    assert!(fs.names().is_empty());
    Ok(())
}

/// Walks as deep as the limit of descriptors allows, with two for each level, and at most 3000 levels.
pub fn walk_to_descriptor_limit() -> ExitCode {
    let limits = getrlimit(Resource::Nofile);
    let highest = Rlimit {
        current: limits.maximum,
        ..limits
    };
    setrlimit(Resource::Nofile, highest).expect("the highest limit of descriptors");
    let levels = limits
        .maximum
        .map_or(3000, |highest| highest as usize / 2 - 50);
    let levels = levels.min(3000);
    let path = std::env::args_os().nth(1).expect("a path");
    let dir = PinDir::create(Path::new(&path).join("deep"), 0o700).expect("a directory");
    drop(nest(&dir, levels).expect("a nest"));
    let mut seen = 0;
    for entry in dir.walk().expect("a readable directory") {
        entry.expect("a level");
        seen += 1;
    }
    assert_eq!(seen, levels);
    dir.remove_dir_all("d").expect("a removal");
    PinDir::open(&path)
        .and_then(|parent| parent.remove_dir_all("deep"))
        .expect("a removal");
    child_process::send_line("ready");
    child_process::wait_for_release();
    ExitCode::SUCCESS
}

#[common::test(PINS)]
fn skip_dir_skips_a_directory_and_depth_counts_levels() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("dir"), 0o700)?;
    let map = hash();
    for a in ["a", "b", "c"] {
        let inner = dir.create_dir(a, 0o700)?;
        inner.pin(&map, "map")?;
        inner.create_dir("x", 0o700)?.pin(&map, "map")?;
    }
    let mut walk = dir.walk()?;
    let mut seen = Vec::new();
    while let Some(entry) = walk.next() {
        let entry = entry?;
        let below = entry.path().strip_prefix(dir.path())?.to_owned();
        let is_last_of_level = below.components().count() - 1 <= walk.depth();
        assert!(is_last_of_level, "{below:?} at depth {}", walk.depth());
        if entry.name() == "b" || below == Path::new("c/x") {
            walk.skip_dir();
            // A second call has no effect.
            walk.skip_dir();
        } else if entry.entry_type() == EntryType::Pin {
            // The call has no effect on an entry that is not a directory.
            walk.skip_dir();
        }
        seen.push(below.into_os_string().into_string().unwrap());
    }
    // A walk returns each directory before its entries.
    for (at, path) in seen.iter().enumerate() {
        if let Some((parent, _)) = path.rsplit_once('/') {
            let parent = seen.iter().position(|seen| seen == parent);
            assert!(parent.is_some_and(|parent| parent < at), "{seen:?}");
        }
    }
    seen.sort();
    let expected = ["a", "a/map", "a/x", "a/x/map", "b", "c", "c/map", "c/x"];
    assert_eq!(seen, expected);
    // The walk outlives the value that created it.
    let walk = dir.walk()?;
    drop(dir);
    assert_eq!(walk.filter(|entry| entry.is_ok()).count(), 12);
    Ok(())
}
