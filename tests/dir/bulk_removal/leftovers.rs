//! Leftovers of dead processes are recognized by their exact names. They are removed, or get their old names
//! back.

use std::os::unix::fs::symlink;

use bpf_pin::{Map, PinDir, Result};
use common::*;

use crate::bulk_removal::{
    DIRS, PINS, app, names, removed, repeat, run_three_concurrently, sorted,
};

/// The name of a leftover pin.
pub fn leftover(token: u64, number: u64) -> String {
    format!("_bpf-pin-{token:016x}-{number:x}")
}

/// The name of a leftover directory.
pub fn leftover_dir(token: u64, number: u64) -> String {
    format!("{}-dir", leftover(token, number))
}

const SIMILAR_NAMES: [&str; 16] = [
    "flows",
    "_bpf-pin",
    "_bpf-pin-",
    "_bpf-pin-0123456789abcdef",
    "_bpf-pin-0123456789abcdef-",
    "_bpf-pin-0123456789ABCDEF-1",
    "_bpf-pin-0123456789abcdef-01",
    "_bpf-pin-0123456789abcdef-A",
    "_bpf-pin-0123456789abcdef-+1",
    "_bpf-pin-0123456789abcdef-1-",
    "_bpf-pin-0123456789abcdef-1-asid",
    "_bpf-pin-0123456789abcdef-1-aside-aside",
    "_bpf-pin-123456789abcdef-1",
    "_bpf-pin-0123456789abcdef-10000000000000000",
    "x_bpf-pin-0123456789abcdef-1",
    "_bpf-pin-\u{e9}123456789abcdef-1",
];

#[common::test(PINS)]
fn only_exact_leftover_names_are_removed() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let map = hash();
    let (pins, directories) = (
        dir.create_dir("pins", 0o700)?,
        dir.create_dir("dirs", 0o700)?,
    );
    let leftover = [
        leftover(0, 0),
        leftover(0x0123_4567_89ab_cdef, u64::MAX),
        leftover(7, 0x1a),
    ];
    let leftover_dirs = leftover.clone().map(|name| format!("{name}-dir"));
    for name in SIMILAR_NAMES
        .into_iter()
        .chain(leftover.iter().map(String::as_str))
    {
        pins.pin(&map, name)?;
    }
    for name in SIMILAR_NAMES
        .into_iter()
        .chain(leftover_dirs.iter().map(String::as_str))
    {
        let inner = directories.create_dir(name, 0o700)?;
        inner.pin(&map, "map")?;
        inner.create_dir("below", 0o700)?.pin(&map, "map")?;
    }
    let mut left = SIMILAR_NAMES.map(str::to_owned);
    left.sort();
    for (dir, mut expected) in [(&pins, leftover.clone()), (&directories, leftover_dirs)] {
        expected.sort();
        assert_eq!(removed(&dir.remove_leftovers()?), expected);
        assert_eq!(names(dir)?, left);
    }
    for name in SIMILAR_NAMES {
        let inner = directories.open_dir(name)?;
        assert_eq!(names(&inner)?, ["below", "map"]);
    }
    // A cleanup does not descend into subdirectories.
    pins.pin(&map, &leftover[0])?;
    assert!(removed(&dir.remove_leftovers()?).is_empty());
    assert!(names(&pins)?.contains(&leftover[0]));
    Ok(())
}

#[common::test(DIRS)]
fn a_symbolic_link_with_a_leftover_name_is_kept() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let kept = dir.create_dir("kept", 0o700)?;
    kept.create_dir("inner", 0o700)?;
    let names_of_links = [
        leftover(1, 1),
        leftover(2, 2),
        format!("{}-aside", leftover(3, 3)),
    ];
    for (name, target) in names_of_links.iter().zip(["kept", "nothing", "kept"]) {
        symlink(target, fs.at("app").join(name))?;
    }
    let report = dir.remove_leftovers()?;
    assert!(removed(&report).is_empty());
    assert_eq!(names(&dir)?.len(), 4);
    assert_eq!(names(&kept)?, ["inner"]);
    Ok(())
}

#[common::test(PINS)]
fn a_second_removal_of_leftovers_changes_nothing() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let map = hash();
    dir.pin(&map, "stays")?;
    dir.pin(&map, leftover(1, 0))?;
    dir.create_dir(leftover_dir(2, 0), 0o700)?
        .pin(&map, "map")?;
    // Temporary names that this process has released do not matter.
    dir.replace(&map, "stays")?;
    drop(dir.stage("set")?);
    assert_eq!(removed(&dir.remove_leftovers()?).len(), 2);
    for _ in 0..3 {
        assert!(removed(&dir.remove_leftovers()?).is_empty());
        assert_eq!(names(&dir)?, ["stays"]);
    }
    assert_eq!(dir.get::<Map>("stays")?.id()?, map.id()?);
    Ok(())
}

#[common::test(PINS)]
fn concurrent_removals_of_leftovers_share_the_entries() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let map = hash();
    repeat(|| {
        let (mut expected, mut aside) = (Vec::new(), Vec::new());
        for number in 0..30 {
            let mut name = leftover(number * 0x1234_5678, number);
            match number % 3 {
                0 => dir.pin(&map, &name)?,
                1 => {
                    name += "-dir";
                    dir.create_dir(&name, 0o700)?.pin(&map, "map")?;
                }
                _ => {
                    let set = format!("set{number}");
                    let moved = dir.create_dir(format!("{name}-aside"), 0o700)?;
                    moved.create_dir(&set, 0o700)?.pin(&map, "map")?;
                    aside.push(set);
                    expected.push(format!("{name}-aside"));
                    continue;
                }
            }
            expected.push(name);
        }
        let own = || PinDir::open(fs.at("app")).unwrap();
        let report = run_three_concurrently(own, |own| own.remove_leftovers().unwrap());
        let (mut all, mut restored) = (Vec::new(), Vec::new());
        for report in &report {
            assert!(report.failed.is_empty(), "{:?}", report.failed);
            all.extend(sorted(&report.removed));
            restored.extend(sorted(&report.restored));
        }
        all.sort();
        restored.sort();
        expected.sort();
        aside.sort();
        assert_eq!(all, expected, "each is removed once");
        assert_eq!(restored, aside);
        assert_eq!(names(&dir)?, aside);
        for set in &aside {
            assert_eq!(dir.open_dir(set)?.get::<Map>("map")?.id()?, map.id()?);
            dir.remove_dir_all(set)?;
        }
        Ok(())
    })
}

#[common::test(PINS)]
fn a_set_that_was_moved_aside_is_restored() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let (old, new) = (hash(), hash());
    let aside = |token: u64, set: &str| -> Result<String> {
        let name = format!("{}-aside", leftover(token, 0));
        let moved = dir.create_dir(&name, 0o700)?;
        moved.create_dir(set, 0o700)?.pin(&old, "map")?;
        Ok(name)
    };
    // One process was killed before the new set got the name, the other after.
    let (before, after) = (aside(1, "lost")?, aside(2, "has")?);
    dir.create_dir("has", 0o700)?.pin(&new, "map")?;
    let report = dir.remove_leftovers()?;
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert_eq!(sorted(&report.removed), [before, after]);
    assert_eq!(sorted(&report.restored), ["lost"]);
    assert_eq!(names(&dir)?, ["has", "lost"]);
    let held = |name: &str| dir.open_dir(name)?.get::<Map>("map")?.id();
    assert_eq!((held("lost")?, held("has")?), (old.id()?, new.id()?));
    Ok(())
}
