//! What is in a directory and below it: every name once, as what it is, with nothing opened.

mod holder;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bpf_pin::{Cause, DirOperation, EntryType, Error, Kind, Map, Object, PinDir, Prog, Result};
use common::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;

use holder::Holder;

fn main() -> ExitCode {
    match holder::task().as_deref() {
        Some("descriptors") => return with_few_descriptors(),
        Some("deep") => return very_deep(),
        _ => {}
    }
    const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
    const DIRS: &[Need] = &[Need::Bpffs];
    const ROOT: &[Need] = &[cap::SYS_ADMIN, cap::NET_ADMIN];
    const USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];
    const MOUNT: &[Need] = &[cap::SYS_ADMIN];
    Suite::new()
        .test("each_kind_of_name_as_what_it_is", ROOT, kinds)
        .test("an_empty_directory", DIRS, empty)
        .test("more_names_than_one_batch_holds", PINS, many)
        .test("names_of_any_bytes", PINS, odd_names)
        .test("nothing_is_opened", PINS, nothing_opened)
        .test("symbolic_links_are_told_of_and_not_followed", PINS, links)
        .test("mounts_are_told_of_and_not_crossed", MOUNT, mounts)
        .test("directories_that_may_not_be_read", USER, unreadable)
        .test("the_kernels_own_files", MOUNT, kernels_own)
        .test("what_stays_is_seen_once_whatever_changes", PINS, churn)
        .test("a_directory_that_is_removed_meanwhile", DIRS, removed)
        .test("a_tree_that_is_removed_meanwhile", DIRS, removed_tree)
        .test("three_hundred_levels", PINS, deep)
        .test("thousands_of_levels", DIRS, deeper)
        .test("skip_dir_and_depth", PINS, skipping)
        .test("too_few_descriptors", DIRS, few_descriptors)
        .run()
}

type Names = BTreeMap<OsString, EntryType>;

fn is_kernels(name: &OsStr) -> bool {
    name == "maps.debug" || name == "progs.debug"
}

/// The names in a directory, each seen once; without the kernel's own two files.
fn names(dir: &PinDir) -> Result<Names> {
    let mut names = Names::new();
    for entry in dir.entries()? {
        let entry = entry?;
        if !is_kernels(entry.name()) {
            let again = names.insert(entry.name().to_owned(), entry.entry_type());
            assert_eq!(again, None, "{entry:?} is seen twice");
        }
    }
    Ok(names)
}

/// The paths below a directory, each seen once, and the errors on the way.
fn walked(dir: &PinDir) -> Result<(BTreeMap<PathBuf, EntryType>, Vec<Error>)> {
    let (mut paths, mut errors) = (BTreeMap::new(), Vec::new());
    for entry in dir.walk()? {
        match entry {
            Ok(entry) if is_kernels(entry.name()) => {}
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

fn of<const N: usize>(expected: [(&str, EntryType); N]) -> BTreeMap<PathBuf, EntryType> {
    expected.map(|(path, kind)| (path.into(), kind)).into()
}

fn kinds() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root())?;
    let (map, prog, link) = (hash(), prog(), link());
    dir.pin(&map, "map")?;
    dir.pin(&prog, "prog")?;
    dir.pin(&link, "link")?;
    dir.link("map", "second")?;
    let inner = dir.create_dir("dir", 0o700)?;
    inner.pin(&map, "map")?;
    symlink("map", fs.at("symbolic"))?;
    use EntryType::*;
    let (all, errors) = walked(&dir)?;
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
    assert_eq!(all, of(expected));
    let in_it = names(&dir)?;
    assert_eq!(in_it.len(), 6);
    let mut opened = 0;
    for entry in dir.entries()? {
        let entry = entry?;
        if is_kernels(entry.name()) {
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
                assert_eq!(entry.open_as::<Map>()?.id()?, map.id()?);
                let error = entry.open_as::<Prog>().unwrap_err();
                let wrong = Cause::WrongKind {
                    expected: Kind::Prog,
                    found: Kind::Map,
                };
                assert_eq!(error.cause(), Some(&wrong));
            }
            Some("prog") => assert_eq!(entry.open_any()?.id()?, prog.id()?),
            Some("link") => assert_eq!(entry.open_any()?.id()?, link.id()?),
            Some("dir") => {
                let error = entry.open_any().unwrap_err();
                assert!(matches!(error.cause(), Some(Cause::NotAnObject { .. })));
            }
            Some("symbolic") => {
                let error = entry.open_any().unwrap_err();
                let path = fs.at("symbolic");
                assert_eq!(error.cause(), Some(&Cause::SymbolicLink { path }));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(opened, 6);
    Ok(())
}

fn empty() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("dir"), 0o700)?;
    assert!(dir.entries()?.next().is_none());
    let mut walk = dir.walk()?;
    assert_eq!(walk.depth(), 0);
    assert!(walk.next().is_none());
    // And it stays at its end.
    walk.skip_dir();
    dir.create_dir("late", 0o700)?;
    assert!(walk.next().is_none());
    assert_eq!(walk.depth(), 0);
    let mut entries = dir.entries()?;
    assert_eq!(entries.next().expect("a name")?.name(), "late");
    assert!(entries.next().is_none() && entries.next().is_none());
    Ok(())
}

/// Names of all lengths, so that batches end anywhere.
fn many() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("dir"), 0o700)?;
    dir.pin(hash(), "first")?;
    let mut expected = Names::from([("first".into(), EntryType::Pin)]);
    for number in 0..3000 {
        let name = format!("{number:0width$}", width = 5 + number % 251);
        dir.link("first", &name)?;
        expected.insert(name.into(), EntryType::Pin);
    }
    assert_eq!(expected.len(), 3001);
    assert_eq!(names(&dir)?, expected);
    // The streams of one directory are several.
    let (mut one, mut other) = (dir.entries()?, dir.entries()?);
    for _ in 0..3001 {
        let (one, other) = (one.next().expect("more")?, other.next().expect("more")?);
        assert_eq!(one.name(), other.name());
    }
    assert!(one.next().is_none() && other.next().is_none());
    // What was read at once is kept for those that need it, and for no more.
    let mut entries = dir.entries()?;
    let mut kept = Vec::new();
    while let Some(entry) = entries.next().transpose()? {
        kept.push((entry.name().to_owned(), entry.inode(), entry));
    }
    drop(entries);
    assert_eq!(kept.len(), expected.len());
    for (name, inode, entry) in &kept {
        assert_eq!((entry.name(), entry.inode()), (&**name, *inode));
        assert_eq!(entry.path(), dir.path().join(name));
        assert_eq!(entry.entry_type(), EntryType::Pin);
    }
    let (_, _, last) = kept.pop().expect("the last");
    drop(kept);
    let (object, info) = last.clone().open_with_info()?;
    assert_eq!(info, object.info()?);
    assert_eq!(dir.identity(last.name())?, info.identity());
    // All of it goes while it is read.
    for entry in dir.entries()? {
        dir.unlink(entry?.name())?;
    }
    assert!(names(&dir)?.is_empty());
    Ok(())
}

fn odd_names() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("dir"), 0o700)?;
    let map = hash();
    let mut expected = Names::new();
    let single = (1..=255).filter(|byte| !b"./".contains(byte));
    let singles = single.clone().map(|byte| vec![byte]);
    let longest = [b'n', b' ', 0xff, b'\n'].map(|byte| vec![byte; 255]);
    let all_in_one: Vec<_> = single.collect();
    for name in singles.chain(longest).chain([all_in_one]) {
        let name = OsStr::from_bytes(&name);
        dir.pin(&map, name)?;
        expected.insert(name.to_owned(), EntryType::Pin);
    }
    assert_eq!(expected.len(), 253 + 4 + 1);
    assert_eq!(names(&dir)?, expected);
    let (paths, errors) = walked(&dir)?;
    assert!(errors.is_empty());
    assert_eq!(paths.len(), expected.len());
    for entry in dir.entries()? {
        assert_eq!(entry?.open_as::<Map>()?.id()?, map.id()?);
    }
    // A directory may have such a name, too.
    let odd = OsStr::from_bytes(b"\xc3\x28 \x07%*?");
    dir.create_dir(odd, 0o700)?.pin(&map, "in it")?;
    let (paths, errors) = walked(&dir)?;
    assert!(errors.is_empty());
    assert_eq!(paths[&Path::new(odd).join("in it")], EntryType::Pin);
    Ok(())
}

/// Every BPF_OBJ_GET that succeeds is an access, and every open(2) an event.
fn nothing_opened() -> Outcome {
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("dir"), 0o700)?;
    let inner = dir.create_dir("inner", 0o700)?;
    dir.pin(hash(), "map")?;
    dir.pin(prog(), "prog")?;
    inner.pin(hash(), "map")?;
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
        let (_, errors) = walked(&dir)?;
        assert!(errors.is_empty(), "{errors:?}");
        for entry in dir.entries()? {
            let entry = entry?;
            assert_eq!(entry.metadata()?.inode(), entry.inode());
            entry.is_mount_point();
        }
        let swept = dir.sweep_dry_run(|_| true)?;
        dir.sweep_stale()?;
        Ok(swept.removed.len())
    };
    assert_eq!(look()?, 3);
    // Nor is it tried in vain.
    assert_eq!(denied(None, libc::EPERM as u32, look)?, 3);

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
    assert!(of_directories > 0, "the directories were");
    for (dir, name) in pins {
        assert_eq!(dir.metadata(name)?.accessed(), long_ago, "{name}");
        // And that would have shown.
        dir.open_any(name)?;
        assert!(dir.metadata(name)?.accessed() > long_ago, "{name}");
    }
    Ok(())
}

fn links() -> Outcome {
    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("dir"), 0o700)?;
    let inner = dir.create_dir("inner", 0o700)?;
    inner.pin(hash(), "map")?;
    let targets = [
        ("dangling", "nothing/at/all"),
        ("self", "self"),
        ("one", "other"),
        ("other", "one"),
        ("to_a_directory", "inner"),
        ("to_a_pin", "inner/map"),
        ("to_itself_above", "."),
        ("up", ".."),
        ("out", "/"),
    ];
    for (name, target) in targets {
        symlink(target, fs.at("dir").join(name))?;
    }
    symlink("..", fs.at("dir/inner/back"))?;
    let (paths, errors) = walked(&dir)?;
    assert!(errors.is_empty(), "{errors:?}");
    use EntryType::*;
    let mut expected = of([
        ("inner", Directory),
        ("inner/map", Pin),
        ("inner/back", SymbolicLink),
    ]);
    expected.extend(targets.map(|(name, _)| (name.into(), SymbolicLink)));
    assert_eq!(paths, expected);
    let entries = dir.entries()?.collect::<Result<Vec<_>>>()?;
    assert_eq!(entries.len(), 1 + targets.len());
    for entry in entries {
        if entry.entry_type() != SymbolicLink {
            continue;
        }
        let metadata = entry.metadata()?;
        assert_eq!(
            (metadata.entry_type(), metadata.inode()),
            (SymbolicLink, entry.inode())
        );
        assert_eq!(entry.is_mount_point(), Some(false));
        let error = entry.open_any().unwrap_err();
        let path = entry.path();
        let cause = Some(Cause::SymbolicLink { path });
        assert_eq!(error.cause(), cause.as_ref(), "{error}");
    }
    Ok(())
}

fn mounts() -> Outcome {
    let place = tempfile::tempdir()?;
    own_mounts(|| -> Outcome {
        let root = place.path();
        mount("bpf", root, "bpf", MountFlags::empty(), None)?;
        let dir = PinDir::open(root)?;
        let map = hash();
        for name in ["another", "bound", "foreign", "plain"] {
            dir.create_dir(name, 0o700)?.pin(&map, "below")?;
        }
        for name in ["map", "other_map"] {
            dir.pin(hash(), name)?;
        }
        let inodes: BTreeMap<_, _> = dir
            .entries()?
            .map(|entry| entry.map(|entry| (entry.name().to_owned(), entry.inode())))
            .collect::<Result<_>>()?;
        mount(
            "bpf",
            root.join("another"),
            "bpf",
            MountFlags::empty(),
            None,
        )?;
        PinDir::open(root.join("another"))?.pin(&map, "above")?;
        mount(
            "tmpfs",
            root.join("foreign"),
            "tmpfs",
            MountFlags::empty(),
            None,
        )?;
        fs::write(root.join("foreign/above"), "")?;
        // Of the same instance, so nothing but the mount tells.
        mount_bind(root.join("plain"), root.join("bound"))?;
        mount_bind(root.join("map"), root.join("other_map"))?;

        let mut mounted = Vec::new();
        for entry in dir.entries()? {
            let entry = entry?;
            assert_eq!(
                inodes[entry.name()],
                entry.inode(),
                "what is below the mount"
            );
            if entry.is_mount_point() == Some(true) {
                mounted.push(entry.name().to_owned());
            }
        }
        mounted.sort();
        assert_eq!(mounted, ["another", "bound", "foreign", "other_map"]);

        let (paths, errors) = walked(&dir)?;
        use EntryType::*;
        let expected = [
            ("another", Directory),
            ("bound", Directory),
            ("foreign", Directory),
            ("map", Pin),
            ("other_map", Pin),
            ("plain", Directory),
            ("plain/below", Pin),
        ];
        assert_eq!(paths, of(expected));
        let mut told = Vec::new();
        for error in errors {
            assert_eq!(error.raw_os_error(), Some(libc::EXDEV), "{error}");
            let Error::Directory {
                operation: DirOperation::List,
                path,
                ..
            } = &error
            else {
                panic!("{error:?}")
            };
            let cause = Cause::MountPoint { path: path.clone() };
            assert_eq!(error.cause(), Some(&cause));
            let at = path.display();
            assert_eq!(
                error.to_string(),
                format!("list {at}: {at} is a mount point")
            );
            told.push(path.strip_prefix(root)?.to_owned());
        }
        told.sort();
        let told: Vec<_> = told.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(told, ["another", "bound", "foreign"]);

        for name in ["another", "bound", "foreign", "other_map"] {
            unmount(root.join(name), UnmountFlags::empty())?;
        }
        let (paths, errors) = walked(&dir)?;
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(paths.len(), 6 + 4);
        // What is mounted on the directory itself is not where the walk began.
        mount("bpf", root, "bpf", MountFlags::empty(), None)?;
        assert_eq!(walked(&dir)?.0.len(), 6 + 4);
        unmount(root, UnmountFlags::empty())?;
        Ok(())
    })
}

fn unreadable() -> Outcome {
    let fs = TestFs::detached("755");
    let dir = PinDir::create(fs.at("dir"), 0o755)?;
    let modes = [0o700, 0o711, 0o744, 0o755, 0o722];
    for mode in modes {
        let inner = dir.create_dir(format!("mode{mode:o}"), mode)?;
        inner.pin(hash(), "map")?;
    }
    let blocked = |path: PathBuf, mode| Cause::Blocked {
        path,
        mode,
        uid: 0,
        // Of search and read, the first that is missing.
        wanted: if mode & 1 == 0 { "search" } else { "read" },
        read_only_would_do: false,
    };
    as_user(CapabilitySet::empty(), || -> Outcome {
        let (paths, errors) = walked(&dir)?;
        let expected = modes.map(|mode| PathBuf::from(format!("mode{mode:o}")));
        let mut expected: BTreeMap<_, _> = expected.map(|name| (name, EntryType::Directory)).into();
        expected.insert("mode755/map".into(), EntryType::Pin);
        assert_eq!(paths, expected);
        assert_eq!(errors.len(), 4);
        for error in errors {
            assert_eq!(error.raw_os_error(), Some(libc::EACCES));
            let Error::Directory {
                operation: DirOperation::List,
                path,
                ..
            } = &error
            else {
                panic!("{error:?}")
            };
            let name = path.file_name().and_then(OsStr::to_str).unwrap();
            let mode = u32::from_str_radix(&name[4..], 8)?;
            let cause = blocked(path.clone(), mode);
            assert_eq!(error.cause(), Some(&cause));
            assert_eq!(
                error.to_string(),
                format!("list {}: {cause}", path.display())
            );
        }
        // Held is not read.
        for mode in [0o700, 0o711] {
            let held = dir.open_dir(format!("mode{mode:o}"))?;
            let cause = blocked(held.path().to_owned(), mode);
            let error = held.entries().unwrap_err();
            assert_eq!(error.cause(), Some(&cause));
            let error = held.walk().unwrap_err();
            assert_eq!(error.cause(), Some(&cause));
        }
        Ok(())
    })?;
    // The same for its owner, who has the capability.
    let (paths, errors) = walked(&dir)?;
    assert!(errors.is_empty());
    assert_eq!(paths.len(), 10);
    Ok(())
}

/// A fresh mount may show them, and a directory of ours never does.
fn kernels_own() -> Outcome {
    let place = tempfile::tempdir()?;
    own_mounts(|| -> Outcome {
        mount("bpf", place.path(), "bpf", MountFlags::empty(), None)?;
        let dir = PinDir::open(place.path())?;
        dir.pin(hash(), "map")?;
        let mut shown = Vec::new();
        for entry in dir.walk()? {
            let entry = entry?;
            if !is_kernels(entry.name()) {
                assert_eq!(entry.name(), "map");
                continue;
            }
            assert_eq!(entry.entry_type(), EntryType::Pin);
            assert_eq!(entry.metadata()?.mode(), 0o400);
            match entry.open_any() {
                Ok(object) => {
                    assert!(matches!(object, Object::Link(_)), "{object:?}");
                    let error = entry.open_as::<Map>().unwrap_err();
                    assert!(matches!(error.cause(), Some(Cause::WrongKind { .. })));
                }
                // Some kernels show what they do not open, and that is not missing.
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
                    assert_eq!(error.cause(), None, "{error}");
                }
            }
            // By a name that nobody may make it is not asked for.
            let component = entry.name().to_owned();
            let error = dir.open_any(entry.name()).unwrap_err();
            assert_eq!(error.cause(), Some(&Cause::Dot { component }));
            shown.push(entry.name().to_owned());
        }
        shown.sort();
        let listed = fs::read_dir(place.path())?.count() - 1;
        assert_eq!(shown.len(), listed);
        println!("a fresh mount shows {shown:?}");
        // No sweep for what the dead have left takes them.
        let swept = dir.sweep_stale()?;
        assert!(swept.removed.is_empty() && swept.failed.is_empty());
        assert_eq!(fs::read_dir(place.path())?.count() - 1, listed);
        Ok(())
    })
}

/// Names come and go and change, and what stays is seen in every walk, once.
fn churn() -> Outcome {
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
        // Many come and go.
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
        // One is renamed, one replaced, whole directories come, change places and go.
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
                        let counts = look_once(dir);
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
    println!("{walks} walks amid {changes} changes");
    assert!(changes > 4, "{changes}");
    Ok(())
}

/// How many pins, directories and pins in these stayed, after one walk and one stream.
fn look_once(dir: &PinDir) -> (usize, usize, usize) {
    let mut of_stream = Names::new();
    let mut inodes = std::collections::HashSet::new();
    for entry in dir.entries().expect("it can be read") {
        let entry = entry.expect("an entry");
        let name = entry.name().to_owned();
        let again = of_stream.insert(name.clone(), entry.entry_type());
        let text = name.to_str().expect("a name of ours");
        if text.starts_with("stays") || text.starts_with("dir") {
            assert_eq!(again, None, "{text} is seen twice");
        }
        // Under one name or the next, but not both.
        if text.starts_with("moves") {
            assert!(inodes.insert(entry.inode()), "{text} is seen twice");
        }
    }
    let of_stream = of_stream
        .keys()
        .filter(|name| name.to_str().unwrap().starts_with("stays"))
        .count();
    let mut seen = BTreeMap::new();
    for entry in dir.walk().expect("it can be read") {
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

fn removed() -> Outcome {
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
        let at = path.display();
        assert_eq!(
            error.to_string(),
            format!("list {at}: the directory {at} was removed")
        );
    };
    for mut entries in [begun, fresh, dir.entries()?] {
        // What was told in one batch may be all.
        if let Some(error) = entries.next() {
            assert_removed(error.unwrap_err());
        }
        assert!(entries.next().is_none() && entries.next().is_none());
    }
    let mut entries = dir.entries()?;
    assert_removed(entries.next().expect("that it is gone").unwrap_err());
    assert!(entries.next().is_none());
    // A walk only ends.
    assert!(begun_walk.next().is_none());
    assert!(dir.walk()?.next().is_none());
    assert!(dir.sweep(|_| true)?.removed.is_empty());
    Ok(())
}

fn removed_tree() -> Outcome {
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
        // Right away, or after some entries of the walk.
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
                seen.push(entry.expect("that it is gone is no error").path());
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

fn tower(dir: &PinDir, levels: usize) -> Result<PinDir> {
    let mut top = dir.try_clone()?;
    for _ in 0..levels {
        top = top.create_dir("d", 0o700)?;
    }
    Ok(top)
}

fn deep() -> Outcome {
    const LEVELS: usize = 300;

    let fs = TestFs::new();
    let dir = PinDir::create(fs.at("dir"), 0o700)?;
    tower(&dir, LEVELS)?.pin(hash(), "map")?;
    let mut walk = dir.walk()?;
    for level in 0..LEVELS {
        let entry = walk.next().expect("a level")?;
        assert_eq!((entry.name(), walk.depth()), (OsStr::new("d"), level));
    }
    let entry = walk.next().expect("the map")?;
    assert_eq!(walk.depth(), LEVELS);
    // It is opened from where it is, with no path that could be too long.
    entry.open_as::<Map>()?;
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

/// In a process of its own, which may have that many descriptors.
fn deeper() -> Outcome {
    let fs = TestFs::new();
    let other = Holder::ready(&fs, "deep", [fs.root()]);
    other.let_go();
    assert!(fs.names().is_empty());
    Ok(())
}

/// As deep as descriptors go, two for each level, and no deeper than 3000.
fn very_deep() -> ExitCode {
    let limits = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limits.maximum,
        ..limits
    };
    setrlimit(Resource::Nofile, most).expect("all the descriptors there are");
    let levels = limits.maximum.map_or(3000, |most| most as usize / 2 - 50);
    let levels = levels.min(3000);
    let path = std::env::args_os().nth(1).expect("a path");
    let dir = PinDir::create(Path::new(&path).join("deep"), 0o700).expect("a directory");
    drop(tower(&dir, levels).expect("a tower"));
    let mut seen = 0;
    for entry in dir.walk().expect("it can be read") {
        entry.expect("a level");
        seen += 1;
    }
    assert_eq!(seen, levels);
    dir.remove_dir_all("d").expect("a removal");
    PinDir::open(&path)
        .and_then(|parent| parent.remove_dir_all("deep"))
        .expect("a removal");
    holder::say("ready");
    holder::wait();
    ExitCode::SUCCESS
}

fn skipping() -> Outcome {
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
            // Twice is once.
            walk.skip_dir();
        } else if entry.entry_type() == EntryType::Pin {
            // Of what is no directory there is nothing to skip.
            walk.skip_dir();
        }
        seen.push(below.into_os_string().into_string().unwrap());
    }
    // Each directory before what is in it.
    for (at, path) in seen.iter().enumerate() {
        if let Some((parent, _)) = path.rsplit_once('/') {
            let parent = seen.iter().position(|seen| seen == parent);
            assert!(parent.is_some_and(|parent| parent < at), "{seen:?}");
        }
    }
    seen.sort();
    let expected = ["a", "a/map", "a/x", "a/x/map", "b", "c", "c/map", "c/x"];
    assert_eq!(seen, expected);
    // It outlasts the value that it came from.
    let walk = dir.walk()?;
    drop(dir);
    assert_eq!(walk.filter(|entry| entry.is_ok()).count(), 12);
    Ok(())
}

/// In a process of its own, for the limit is the whole process's.
fn few_descriptors() -> Outcome {
    let fs = TestFs::new();
    let other = Holder::ready(&fs, "descriptors", [fs.root()]);
    other.let_go();
    assert!(fs.names().is_empty());
    Ok(())
}

fn open_descriptors() -> Vec<i32> {
    let numbers = fs::read_dir("/proc/self/fd").expect("/proc");
    // The stream's own is among them, each time.
    numbers
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect()
}

/// Runs `call` while no more than that many further descriptors can be had.
fn with_room_for<T>(room: u64, call: impl FnOnce() -> T) -> T {
    // No holes: all below the limit but the room is taken.
    let mut fillers = Vec::new();
    let next = loop {
        let file = File::open("/dev/null").expect("a descriptor");
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        let highest = open_descriptors().into_iter().max();
        if highest.is_none_or(|highest| number + 1 >= highest) {
            break number as u64;
        }
        fillers.push(file);
    };
    let limits = getrlimit(Resource::Nofile);
    let low = Rlimit {
        current: Some(next + room),
        ..limits
    };
    setrlimit(Resource::Nofile, low).expect("fewer descriptors");
    let result = call();
    setrlimit(Resource::Nofile, limits).expect("as many as before");
    result
}

fn with_few_descriptors() -> ExitCode {
    let path = std::env::args_os().nth(1).expect("a path");
    let parent = PinDir::open(&path).expect("the directory");
    let dir = parent.create_dir("few", 0o700).expect("a directory");
    for name in ["a", "b", "c"] {
        let inner = dir.create_dir(name, 0o700).expect("a directory");
        inner.create_dir("below", 0o700).expect("a directory");
    }
    let before = open_descriptors().len();
    // Two for where the walk begins, two more for each level.
    for (room, seen, failed) in [
        (0, None, 0),
        (1, None, 0),
        (2, Some(3), 3),
        (3, Some(3), 3),
        (4, Some(6), 3),
        (5, Some(6), 3),
        (6, Some(6), 0),
    ] {
        let assert_full = |error: &Error| {
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{room}: {error}");
            assert_eq!(error.cause(), None, "{error}");
            assert!(error.to_string().contains("EMFILE"), "{error}");
        };
        let walked = with_room_for(room, || {
            // At first the walk itself cannot begin.
            let walk = dir.walk()?;
            let (mut entries, mut errors) = (0, Vec::new());
            for entry in walk {
                // An entry that is kept keeps its directory's descriptor.
                match entry {
                    Ok(_) => entries += 1,
                    Err(error) => errors.push(error),
                }
            }
            Ok((entries, errors))
        });
        match (walked, seen) {
            (Err(error), None) => assert_full(&error),
            (Ok((entries, errors)), Some(seen)) => {
                assert_eq!((entries, errors.len()), (seen, failed), "{room}");
                errors.iter().for_each(assert_full);
            }
            (walked, _) => panic!("{room}: {walked:?}"),
        }
        let read = with_room_for(room, || dir.entries().map(|entries| entries.count()));
        match room {
            0 => assert_full(&read.unwrap_err()),
            _ => assert_eq!(read.unwrap(), 3),
        }
        assert_eq!(open_descriptors().len(), before, "{room}");
    }
    // One that is dropped on its way gives all of them back.
    let mut walk = dir.walk().expect("a walk");
    for _ in 0..2 {
        walk.next().expect("an entry").expect("an entry");
    }
    drop(walk);
    assert_eq!(open_descriptors().len(), before);
    parent.remove_dir_all("few").expect("a removal");
    holder::say("ready");
    holder::wait();
    ExitCode::SUCCESS
}
