//! Lists the entries of a directory and below it: each name once, with its type, without opening any pin.

mod depth;
mod descriptors;
mod names;
use common::child_process;
mod concurrent_changes;
mod not_entered;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bpf_pin::dir::EntryType;
use bpf_pin::error::Cause;
use bpf_pin::{Error, Kind, Map, PinDir, Prog, Result};
use common::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
const DIRS: &[Need] = &[Need::Bpffs];
const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
const USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];
const MOUNT: &[Need] = &[cap::SYS_ADMIN];

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    match child_process::task().as_deref() {
        Some("descriptors") => return Some(descriptors::with_few_descriptors()),
        Some("deep") => return Some(depth::walk_to_descriptor_limit()),
        _ => {}
    }
    None
}

type Names = BTreeMap<OsString, EntryType>;

fn is_kernel_file(name: &OsStr) -> bool {
    name == "maps.debug" || name == "progs.debug"
}

/// The names in a directory, without the kernel's own two files. Fails if a name is seen twice.
fn names(dir: &PinDir) -> Result<Names> {
    let mut names = Names::new();
    for entry in dir.entries()? {
        let entry = entry?;
        if !is_kernel_file(entry.name()) {
            let again = names.insert(entry.name().to_owned(), entry.entry_type());
            assert_eq!(again, None, "{entry:?} is seen twice");
        }
    }
    Ok(names)
}

/// The paths below a directory, and the errors. Fails if a path is seen twice.
fn walk_all(dir: &PinDir) -> Result<(BTreeMap<PathBuf, EntryType>, Vec<Error>)> {
    let (mut paths, mut errors) = (BTreeMap::new(), Vec::new());
    for entry in dir.walk()? {
        match entry {
            Ok(entry) if is_kernel_file(entry.name()) => {}
            Ok(entry) => {
                let path = entry.path();
                let below = path.strip_prefix(dir.path()).expect("below it").to_owned();
                let again = paths.insert(below, entry.entry_type());
                assert_eq!(again, None, "{entry:?} is seen twice");
            }
            Err(error) => errors.push(error),
        }
    }
    Ok((paths, errors))
}

fn typed_paths<const N: usize>(expected: [(&str, EntryType); N]) -> BTreeMap<PathBuf, EntryType> {
    expected.map(|(path, kind)| (path.into(), kind)).into()
}

#[common::test(ROOT)]
fn every_type_of_entry_is_reported() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (map, prog, link) = (hash(), prog(), detached_link());
    dir.pin(&map, "map")?;
    dir.pin(&prog, "prog")?;
    dir.pin(&link, "link")?;
    dir.link("map", "second")?;
    let inner = dir.create_dir("dir", 0o700)?;
    inner.pin(&map, "map")?;
    symlink("map", fs.at("symbolic"))?;
    use EntryType::*;
    let (all, errors) = walk_all(&dir)?;
    assert!(errors.is_empty(), "{errors:?}");
    let expected = [
        ("map", Pin),
        ("prog", Pin),
        ("link", Pin),
        ("second", Pin),
        ("dir", Directory),
        ("dir/map", Pin),
        ("symbolic", SymbolicLink),
    ];
    assert_eq!(all, typed_paths(expected));
    let in_it = names(&dir)?;
    assert_eq!(in_it.len(), 6);
    let mut opened = 0;
    for entry in dir.entries()? {
        let entry = entry?;
        if is_kernel_file(entry.name()) {
            continue;
        }
        assert_eq!(in_it[entry.name()], entry.entry_type());
        assert_eq!(entry.path(), fs.root().join(entry.name()));
        assert_eq!(entry.dir().path(), fs.root());
        let metadata = entry.metadata()?;
        assert_eq!(metadata.entry_type(), entry.entry_type());
        assert_eq!(metadata.inode(), entry.inode());
        assert_eq!(entry.is_mount_point(), Some(false));
        let debug = format!("{entry:?}");
        assert!(debug.contains(entry.name().to_str().unwrap()), "{debug}");
        opened += 1;
        match entry.name().to_str() {
            Some("map" | "second") => {
                assert_eq!(entry.get::<Map>()?.id()?, map.id()?);
                let error = entry.get::<Prog>().unwrap_err();
                let wrong = Cause::WrongKind {
                    expected: Kind::Prog,
                    found: Kind::Map,
                };
                assert_eq!(error.cause(), Some(&wrong));
            }
            Some("prog") => assert_eq!(entry.get::<bpf_pin::Object>()?.id()?, prog.id()?),
            Some("link") => assert_eq!(entry.get::<bpf_pin::Object>()?.id()?, link.id()?),
            Some("dir") => {
                let error = entry.get::<bpf_pin::Object>().unwrap_err();
                assert_cause_matches!(error, Cause::NotAnObject { .. });
            }
            Some("symbolic") => {
                let error = entry.get::<bpf_pin::Object>().unwrap_err();
                let path = fs.at("symbolic");
                assert_eq!(error.cause(), Some(&Cause::SymbolicLink { path }));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(opened, 6);
    Ok(())
}

#[common::test(DIRS)]
fn an_empty_directory_has_no_entries() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("dir"), 0o700)?;
    assert!(dir.entries()?.next().is_none());
    let mut walk = dir.walk()?;
    assert_eq!(walk.depth(), 0);
    assert!(walk.next().is_none());
    // A finished walk stays finished.
    walk.skip_dir();
    dir.create_dir("late", 0o700)?;
    assert!(walk.next().is_none());
    assert_eq!(walk.depth(), 0);
    let mut entries = dir.entries()?;
    assert_eq!(entries.next().expect("a name")?.name(), "late");
    assert!(entries.next().is_none() && entries.next().is_none());
    Ok(())
}

/// Each directory takes several reads. Entries that are kept outlive the buffers they came from.
#[common::test(PINS)]
fn next_entry_and_the_iterator_return_the_same_entries() -> Outcome {
    const PINS: usize = 1000;

    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("dir"), 0o700)?;
    let (inner, skipped) = (
        dir.create_dir("inner", 0o700)?,
        dir.create_dir("skipped", 0o700)?,
    );
    for dir in [&dir, &inner, &skipped] {
        dir.pin(&hash(), "pin")?;
        for number in 1..PINS {
            dir.link("pin", format!("pin{number}"))?;
        }
    }
    let (mut seen, mut kept, mut entries) = (Names::new(), Vec::new(), dir.entries()?);
    while let Some(entry) = entries.next_entry() {
        let entry = entry?;
        let again = seen.insert(entry.name().to_owned(), entry.entry_type());
        assert_eq!(again, None, "{entry:?} is seen twice");
        if seen.len() % 10 == 0 {
            kept.push((entry.clone(), entry.name().to_owned(), entry.inode()));
        }
    }
    assert!(entries.next_entry().is_none());
    assert_eq!(seen, names(&dir)?);
    drop(entries);
    for (entry, name, inode) in kept {
        assert_eq!((entry.name(), entry.inode()), (&*name, inode));
        assert_eq!(dir.metadata(&name)?.inode(), inode);
    }
    let (mut walk, mut seen) = (dir.walk()?, [0; 2]);
    while let Some(entry) = walk.next_entry() {
        let entry = entry?;
        let is_skipped = entry.name() == "skipped";
        if is_skipped {
            walk.skip_dir();
        }
        seen[walk.depth()] += 1;
    }
    assert_eq!(seen, [PINS + 2, PINS]);
    Ok(())
}

/// A successful BPF_OBJ_GET updates the access time, and an open(2) triggers an inotify event.
#[common::test(PINS)]
fn listing_opens_no_pin() -> Outcome {
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("dir"), 0o700)?;
    let inner = dir.create_dir("inner", 0o700)?;
    dir.pin(&hash(), "map")?;
    dir.pin(&prog(), "prog")?;
    inner.pin(&hash(), "map")?;
    let pins = [(&dir, "map"), (&dir, "prog"), (&inner, "map")];
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    for (dir, name) in pins {
        let second = Timespec {
            tv_sec: 1_000_000,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: second,
            last_modification: second,
        };
        let path = dir.path().join(name);
        utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        assert_eq!(dir.metadata(name)?.accessed(), long_ago);
    }
    let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let watched = WatchFlags::OPEN | WatchFlags::ACCESS;
    for dir in [&dir, &inner] {
        inotify::add_watch(&events, dir.path(), watched)?;
    }
    let look = || -> Result<usize> {
        let (_, errors) = walk_all(&dir)?;
        assert!(errors.is_empty(), "{errors:?}");
        for entry in dir.entries()? {
            let entry = entry?;
            assert_eq!(entry.metadata()?.inode(), entry.inode());
            entry.is_mount_point();
        }
        let report = dir.remove_where_dry_run(|_| true)?;
        dir.remove_leftovers()?;
        Ok(report.removed.len())
    };
    assert_eq!(look()?, 3);
    // The calls make no attempt to open a pin: the result is the same if bpf(2) is denied.
    assert_eq!(with_bpf_errno(None, libc::EPERM as u32, look)?, 3);

    let mut room = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(&events, &mut room);
    let mut of_directories = 0;
    loop {
        match reader.next() {
            Ok(event) if event.events().contains(ReadFlags::ISDIR) => of_directories += 1,
            Ok(event) => panic!("{:?} was opened", event.file_name()),
            Err(rustix::io::Errno::AGAIN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    assert!(of_directories > 0, "directories existed");
    for (dir, name) in pins {
        assert_eq!(dir.metadata(name)?.accessed(), long_ago, "{name}");
        // An open pin does update the access time.
        dir.get::<bpf_pin::Object>(name)?;
        assert!(dir.metadata(name)?.accessed() > long_ago, "{name}");
    }
    Ok(())
}
