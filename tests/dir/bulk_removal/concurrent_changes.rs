//! Entries change during a bulk removal, by other processes or by another removal.

use std::ffi::OsStr;

use bpf_pin::{Identity, Map, PinDir, Result};
use common::*;

use crate::bulk_removal::{PINS, app, names, removed, repeat, run_three_concurrently};

/// The predicate makes the changes, so that they always win the race.
#[common::test(PINS)]
fn an_entry_that_was_replaced_after_selection_is_kept() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let (old, new) = (hash(), hash());
    let pin_old = |name: &str| -> Result<Identity> {
        dir.pin(&old, name)?;
        dir.identity(name)
    };
    for name in [
        "replaced",
        "unlinked",
        "exchanged",
        "made a directory",
        "goes",
    ] {
        pin_old(name)?;
    }
    dir.pin(&new, "spare")?;
    let inner = dir.create_dir("directory", 0o700)?;
    inner.pin(&old, "in it")?;
    dir.create_dir("spare directory", 0o700)?
        .pin(&new, "in it")?;
    let has_exchange = kernel(5, 17).unmet().is_none();
    let report = dir.remove_where(|entry| {
        let name = entry.name().to_str().unwrap();
        match name {
            "replaced" => dir.replace(&new, name).unwrap(),
            "unlinked" => {
                dir.unlink(name).unwrap();
                dir.pin(&new, name).unwrap();
            }
            "exchanged" if has_exchange => dir.exchange(name, "spare").unwrap(),
            "exchanged" => dir.replace(&new, name).unwrap(),
            "made a directory" => {
                dir.unlink(name).unwrap();
                dir.create_dir(name, 0o700).unwrap();
            }
            "directory" => {
                dir.remove_dir_all(name).unwrap();
                dir.rename("spare directory", name).unwrap();
            }
            "goes" => {}
            // Names that the changes above created or moved.
            _ => return false,
        }
        true
    })?;
    assert_eq!(removed(&report), ["goes"]);
    for name in ["replaced", "unlinked", "exchanged"] {
        assert_eq!(dir.get::<Map>(name)?.id()?, new.id()?, "{name}");
    }
    assert_eq!(
        dir.open_dir("directory")?.get::<Map>("in it")?.id()?,
        new.id()?
    );
    let mut left = vec!["directory", "exchanged", "made a directory", "replaced"];
    left.extend(["spare", "unlinked"]);
    assert_eq!(names(&dir)?, left);
    Ok(())
}

#[common::test(PINS)]
fn an_entry_that_is_already_gone_is_not_reported() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    dir.pin(&hash(), "pin")?;
    dir.pin(&hash(), "renamed")?;
    dir.create_dir("directory", 0o700)?;
    dir.pin(&hash(), "goes")?;
    let report = dir.remove_where(|entry| {
        match entry.name().to_str().unwrap() {
            "pin" => dir.unlink("pin").unwrap(),
            "renamed" => dir.rename("renamed", "elsewhere").unwrap(),
            "directory" => dir.remove_dir("directory").unwrap(),
            "elsewhere" => return false,
            _ => {}
        }
        true
    })?;
    assert_eq!(removed(&report), ["goes"]);
    assert_eq!(names(&dir)?, ["elsewhere"]);
    Ok(())
}

/// Each removal takes the entries that the other has left. Neither reports the other's removals as failures.
#[common::test(PINS)]
fn concurrent_removals_share_the_entries() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let map = hash();
    repeat(|| {
        for number in 0..60 {
            match number % 3 {
                0 => drop(dir.create_dir(format!("selected{number}"), 0o700)?),
                _ => dir.pin(&map, format!("selected{number}"))?,
            }
        }
        let starts = |name: &OsStr| name.to_str().unwrap().starts_with("selected");
        let remove = |dir: &&PinDir| dir.remove_where(|entry| starts(entry.name())).unwrap();
        let report = run_three_concurrently(|| &dir, remove);
        let mut all: Vec<_> = report.iter().flat_map(removed).collect();
        all.sort();
        let mut expected: Vec<_> = (0..60).map(|number| format!("selected{number}")).collect();
        expected.sort();
        assert_eq!(all, expected, "each is removed once");
        assert!(names(&dir)?.is_empty());
        Ok(())
    })
}
