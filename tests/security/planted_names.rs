//! Names that an attacker has planted: symbolic links, and names like the library's own.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use bpf_pin::dir::EntryType;
use bpf_pin::error::Cause;
use bpf_pin::{Access, Error, Link, Map, Object, PinDir};
use common::*;

use crate::attack::{Fixture, PINS};

/// "ours" and "sub/theirs", and links to them: "to-pin", "to-dir", "to-nothing", "to-itself".
fn linked(fixture: &Fixture) {
    fixture.pin(&fixture.ours, "ours");
    fs::create_dir(fixture.at("sub")).unwrap();
    fixture.pin(&fixture.theirs, "sub/theirs");
    for (to, name) in [
        ("ours", "to-pin"),
        ("sub", "to-dir"),
        ("nothing", "to-nothing"),
        ("to-itself", "to-itself"),
    ] {
        symlink(to, fixture.at(name)).unwrap();
    }
}

const LINKS: [&str; 4] = ["to-pin", "to-dir", "to-nothing", "to-itself"];

#[track_caller]
fn assert_link<T>(result: Result<T, impl Into<Error>>) {
    let Err(error) = result else {
        panic!("a symbolic link was followed");
    };
    let error = error.into();
    assert_cause_matches!(error, Cause::SymbolicLink { .. });
}

#[common::test(PINS)]
fn symbolic_links_are_not_followed() -> Outcome {
    let fs = TestFs::new();
    for name in LINKS {
        let fixture = Fixture::new(fs.at(name));
        linked(&fixture);
        let (dir, before) = (fixture.dir(), tree(&fixture.root));
        assert_link(dir.get::<Map>(name));
        assert_link(dir.get_with::<Object>(name, Access::ReadOnly));
        assert_link(dir.get::<bpf_pin::Object>(name));
        assert_link(dir.identity(name));
        assert_link(dir.unpin(&fixture.ours, name));
        assert_link(dir.replace_if(&fixture.new, name, fixture.ours.identity()?));
        assert_link(dir.copy_to(name, &dir));
        assert_link(dir.set_mode(name, 0o777));
        assert_link(dir.open_dir(name));
        assert_link(dir.remove_dir(name));
        assert_link(dir.remove_dir_all(name));
        assert_link(dir.create_dir(name, 0o700));
        assert_link(PinDir::create(fixture.at(name).join("below"), 0o700));
        assert_link(dir.stage(name)?.publish());
        for error in [
            dir.pin(&fixture.new, name).unwrap_err(),
            dir.rename("ours", name).unwrap_err(),
            dir.link("ours", name).unwrap_err(),
        ] {
            assert_cause_matches!(error, Cause::Exists { .. });
        }
        // A link is neither a pin nor a directory.
        dir.get::<Link>(name).unwrap_err();
        assert_eq!(dir.metadata(name)?.entry_type(), EntryType::SymbolicLink);
        assert_eq!(tree(&fixture.root), before, "{name}");

        // Renaming, replacing or removing the name affects the link itself.
        dir.rename(name, "renamed")?;
        assert_eq!(
            dir.metadata("renamed")?.entry_type(),
            EntryType::SymbolicLink
        );
        dir.rename("renamed", name)?;
        assert_eq!(tree(&fixture.root), before, "{name}");
        dir.replace(&fixture.new, name)?;
        assert_eq!(dir.metadata(name)?.entry_type(), EntryType::Pin);
        assert_eq!(dir.identity(name)?, fixture.new.identity()?);
        dir.unlink(name)?;
        symlink("ours", fixture.at(name))?;
        dir.unlink(name)?;
        let mut expected = before;
        expected.remove(Path::new(name));
        assert_eq!(tree(&fixture.root), expected, "{name}");
        fs::remove_dir_all(&fixture.root)?;
    }
    Ok(())
}

#[common::test(PINS)]
fn symbolic_links_in_a_tree_are_not_followed() -> Outcome {
    let fs = TestFs::new();
    let victim = Fixture::new(fs.at("victim"));
    victim.pin(&victim.theirs, "theirs");
    let fixture = Fixture::new(fs.at("fixture"));
    linked(&fixture);
    for at in ["to-victim", "sub/to-victim"] {
        symlink(&victim.root, fixture.at(at))?;
    }
    let (dir, before) = (fixture.dir(), tree(&victim.root));
    let mut names = Vec::new();
    for entry in dir.walk()? {
        let entry = entry?;
        let is_link = entry.name().to_string_lossy().starts_with("to-");
        assert_eq!(
            entry.entry_type() == EntryType::SymbolicLink,
            is_link,
            "{entry:?}"
        );
        if is_link {
            assert_link(entry.get::<bpf_pin::Object>());
        }
        names.push(entry.name().to_owned());
    }
    names.sort();
    let all = [
        "ours",
        "sub",
        "theirs",
        "to-dir",
        "to-itself",
        "to-nothing",
        "to-pin",
        "to-victim",
        "to-victim",
    ];
    assert_eq!(names, all);
    // remove_where removes the links themselves.
    let report = dir.remove_where(|entry| entry.entry_type() == EntryType::SymbolicLink)?;
    assert!(report.failed.is_empty(), "{report:?}");
    assert_eq!(report.removed.len(), 5);
    assert!(fixture.has("ours", &fixture.ours) && fixture.has("sub/theirs", &fixture.theirs));
    dir.remove_dir_all("sub")?;
    assert_eq!(tree(&victim.root), before);
    fs::remove_dir_all(&victim.root)?;
    fs::remove_dir_all(&fixture.root)?;
    Ok(())
}

/// Every symbolic link has mode 0777.
#[common::test(PINS)]
fn replace_keeping_mode_rejects_a_symbolic_link() -> Outcome {
    let fs = TestFs::new();
    let fixture = Fixture::new(fs.at("fixture"));
    linked(&fixture);
    let dir = fixture.dir();
    for name in LINKS {
        let replaced = dir.replace_keeping_mode(&fixture.new, name);
        let mode = fs::symlink_metadata(fixture.at(name))?.mode();
        let is_link = mode & libc::S_IFMT == libc::S_IFLNK;
        assert!(is_link || mode & 0o077 == 0, "a pin of mode {mode:o}");
        assert_link(replaced);
    }
    assert_eq!(fixture.hidden_names(), [""; 0]);
    fs::remove_dir_all(&fixture.root)?;
    Ok(())
}

fn hidden(number: u64) -> String {
    format!("_bpf-pin-0123456789abcdef-{number:x}")
}

fn hidden_dir(number: u64) -> String {
    format!("{}-dir", hidden(number))
}

/// Plants a pin, empty and full directories, and links.
fn plant(fixture: &Fixture) {
    fixture.pin(&fixture.theirs, &hidden(0));
    fs::create_dir(fixture.at(&hidden_dir(1))).unwrap();
    for below in ["", "/in", "/in/deep", &format!("/{}", hidden(0))] {
        fs::create_dir(fixture.at(&format!("{}{below}", hidden_dir(2)))).unwrap();
    }
    for below in ["pin", "in/pin", "in/deep/pin"] {
        fixture.pin(&fixture.theirs, &format!("{}/{below}", hidden_dir(2)));
    }
    for (below, goal) in [("up", ".."), ("ours", "../ours"), ("in/sub", "../../sub")] {
        symlink(goal, fixture.at(&format!("{}/{below}", hidden_dir(2)))).unwrap();
    }
    symlink("ours", fixture.at(&hidden(3))).unwrap();
    symlink("sub", fixture.at(&hidden(4))).unwrap();
    symlink("nothing", fixture.at(&hidden(5))).unwrap();
    symlink("sub", fixture.at(&format!("{}-aside", hidden(6)))).unwrap();
}

#[common::test(PINS)]
fn planted_leftovers_are_removed_without_following_links() -> Outcome {
    let fs = TestFs::new();
    let fixture = Fixture::new(fs.at("fixture"));
    linked(&fixture);
    let before = tree(&fixture.root);
    plant(&fixture);
    let dir = fixture.dir();
    let report = dir.remove_leftovers()?;
    assert!(
        report.failed.is_empty() && report.restored.is_empty(),
        "{report:?}"
    );
    let mut removed = report.removed;
    removed.sort();
    assert_eq!(
        removed,
        [hidden(0), hidden_dir(1), hidden_dir(2)].map(OsString::from)
    );
    // The library creates no links, so these are no leftovers.
    let mut after = tree(&fixture.root);
    for number in 3..6 {
        assert!(after.remove(Path::new(&hidden(number))).is_some());
    }
    assert!(
        after
            .remove(Path::new(&format!("{}-aside", hidden(6))))
            .is_some()
    );
    assert_eq!(after, before);
    assert!(dir.remove_leftovers()?.removed.is_empty());
    fs::remove_dir_all(&fixture.root)?;
    Ok(())
}

#[common::test(PINS)]
fn similar_names_are_not_leftovers() -> Outcome {
    let fs = TestFs::new();
    let fixture = Fixture::new(fs.at("fixture"));
    for name in [
        "_bpf-pin-",
        "_bpf-pin-0123456789abcdef",
        "_bpf-pin-0123456789abcdef-",
        "_bpf-pin-0123456789ABCDEF-1",
        "_bpf-pin-0123456789abcdef-01",
        "_bpf-pin-0123456789abcdef-+1",
        "_bpf-pin-0123456789abcdef--1",
        "_bpf-pin-0123456789abcdef-1-asid",
        "_bpf-pin-0123456789abcdef-1-aside-aside",
        "_bpf-pin-0123456789abcdef-11111111111111111",
        "_bpf-pin-0123456789abcde-1",
        "_bpf-pin-0123456789abcdef0-1",
        "x_bpf-pin-0123456789abcdef-1",
        "_BPF-PIN-0123456789abcdef-1",
        " _bpf-pin-0123456789abcdef-1",
        "_bpf-pin-0123456789abcdef-1 ",
        "_bpf-pin-\u{e9}123456789abcde-1",
    ] {
        fixture.pin(&fixture.theirs, name);
        let below = format!("{name}~dir");
        fs::create_dir(fixture.at(&below))?;
        fixture.pin(&fixture.theirs, &format!("{below}/{}", hidden(0)));
    }
    let before = tree(&fixture.root);
    let report = fixture.dir().remove_leftovers()?;
    assert!(report.removed.is_empty() && report.restored.is_empty() && report.failed.is_empty());
    assert_eq!(tree(&fixture.root), before);
    fs::remove_dir_all(&fixture.root)?;
    Ok(())
}

/// An entry of an aside directory is restored only if its name is free.
#[common::test(PINS)]
fn an_aside_directory_restores_only_to_free_names() -> Outcome {
    let fs = TestFs::new();
    let fixture = Fixture::new(fs.at("fixture"));
    linked(&fixture);
    let before = tree(&fixture.root);
    let aside = format!("{}-aside", hidden(7));
    fs::create_dir(fixture.at(&aside))?;
    for name in ["ours", "sub", "to-pin", "free"] {
        fixture.pin(&fixture.theirs, &format!("{aside}/{name}"));
    }
    symlink("/", fixture.at(&format!("{aside}/to-root")))?;
    let report = fixture.dir().remove_leftovers()?;
    assert!(report.failed.is_empty(), "{report:?}");
    assert_eq!(report.removed, [OsString::from(aside)]);
    let mut restored = report.restored;
    restored.sort();
    assert_eq!(restored, ["free", "to-root"]);
    let mut after = tree(&fixture.root);
    assert!(after.remove(Path::new("free")).is_some());
    assert!(after.remove(Path::new("to-root")).is_some());
    assert_eq!(after, before);
    fs::remove_dir_all(&fixture.root)?;
    Ok(())
}

#[common::test(PINS)]
fn planted_names_do_not_affect_a_replacement() -> Outcome {
    let fs = TestFs::new();
    let fixture = Fixture::new(fs.at("fixture"));
    linked(&fixture);
    plant(&fixture);
    let dir = fixture.dir();
    if kernel(5, 17).unmet().is_some() {
        // A publish with a gap removes leftovers first.
        dir.remove_leftovers()?;
    }
    let before = tree(&fixture.root);
    dir.replace(&fixture.new, "name")?;
    dir.replace(&fixture.new, "name")?;
    dir.replace_if(&fixture.ours, "name", fixture.new.identity()?)?;
    for _ in 0..2 {
        let set = dir.stage("set")?;
        set.pin(&fixture.ours, "in")?;
        drop(set.publish().map_err(Error::from)?);
    }
    drop(dir.create_dir("made", 0o700)?);
    dir.remove_dir_all("made")?;
    assert!(fixture.has("name", &fixture.ours) && fixture.has("set/in", &fixture.ours));
    let mut after = tree(&fixture.root);
    after.retain(|path, _| !path.starts_with("name") && !path.starts_with("set"));
    assert_eq!(after, before);
    fs::remove_dir_all(&fixture.root)?;
    Ok(())
}

/// /proc/locks shows the token, so an attacker can predict the next names.
#[common::test(PINS)]
fn predicted_temporary_names_are_skipped() -> Outcome {
    let fs = TestFs::new();
    let fixture = Fixture::new(fs.at("fixture"));
    let dir = fixture.dir();
    dir.replace(&fixture.ours, "name")?;
    let inode = dir.own_metadata()?.inode();
    let of_dir = |line: &&str| line.contains("OFDLCK") && line.contains(&format!(":{inode} "));
    let token = || {
        // The file is read in several calls, and locks change in between, so a lock may be missing.
        let locks = fs::read_to_string("/proc/locks").expect("the locks");
        let line = locks.lines().find(of_dir)?;
        line.split_whitespace().last()?.parse::<u64>().ok()
    };
    let token = (0..100)
        .find_map(|_| token())
        .expect("the lock of this directory");
    let planted = |number: u64| format!("_bpf-pin-{token:016x}-{number:x}");

    let replace = |map: &Map| dir.replace(map, "name");
    let mut before = tree(&fixture.root);
    // Plants the next names.
    for number in [1, 2, 3, 4] {
        let name = planted(number);
        match number % 4 {
            1 => fs::create_dir(fixture.at(&name))?,
            2 => symlink("nothing", fixture.at(&name))?,
            _ => fixture.pin(&fixture.theirs, &name),
        }
        let entry = tree(&fixture.root).remove(Path::new(&name));
        before.insert(PathBuf::from(name), entry.expect("it was planted"));
    }
    for map in [&fixture.theirs, &fixture.ours] {
        replace(map)?;
        assert_eq!(dir.identity("name")?, map.identity()?);
        let mut after = tree(&fixture.root);
        // Each replacement is a new file.
        let inode = after[Path::new("name")].inode;
        before.get_mut(Path::new("name")).unwrap().inode = inode;
        before.get_mut(Path::new("name")).unwrap().content = map.identity()?.to_string();
        assert_eq!(after, before);
        after.clear();
    }
    // The process is alive, so none of its names is a leftover.
    assert!(dir.remove_leftovers()?.removed.is_empty());

    // After a thousand taken names the call fails without effect.
    for number in 7..7 + 1100 {
        symlink("nothing", fixture.at(&planted(number)))?;
    }
    let before = tree(&fixture.root);
    let error = replace(&fixture.theirs).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{error}");
    assert_eq!(tree(&fixture.root), before);
    // Another handle of the directory has another token.
    fixture.dir().replace(&fixture.theirs, "name")?;
    assert!(fixture.has("name", &fixture.theirs));
    fs::remove_dir_all(&fixture.root)?;
    Ok(())
}
