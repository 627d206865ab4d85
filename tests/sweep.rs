//! What nobody needs is removed: what a predicate names, and what dead processes have left.

mod holder;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::symlink;
use std::process::ExitCode;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use bpf_pin::{
    Cause, DirOperation, EntryType, Error, Identity, Map, MapSpec, MapType, PinDir, Result, Swept,
};
use common::*;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use rustix::thread::CapabilitySet;

use holder::Holder;

/// How long something that should come is waited for.
const AGES: Duration = Duration::from_secs(40);

fn main() -> ExitCode {
    if let Some(task) = holder::task() {
        return child(&task);
    }
    const PINS: &[Need] = &[cap::BPF, Need::Bpffs];
    const DIRS: &[Need] = &[Need::Bpffs];
    const USER: &[Need] = &[cap::SYS_ADMIN, cap::SETUID];
    const MOUNT: &[Need] = &[cap::SYS_ADMIN];
    Suite::new()
        .test("what_the_predicate_names_goes", PINS, predicate)
        .test("a_dry_run_tells_the_same_names", PINS, dry_run)
        .test("directories_go_with_all_that_is_in_them", PINS, directories)
        .test("what_was_replaced_meanwhile_stays", PINS, replaced)
        .test("what_is_gone_meanwhile_is_not_told", PINS, gone)
        .test("pins_of_others_in_a_sticky_directory", USER, sticky)
        .test("mount_points_stay_and_are_told", MOUNT, mount_points)
        .test("a_directory_that_may_not_be_read", USER, unreadable)
        .test("two_sweeps_at_once", PINS, two_sweeps)
        .test("stale_names_and_no_others", PINS, exact_names)
        .test("stale_names_that_stand_for_links", DIRS, stale_links)
        .test("a_stale_sweep_changes_nothing_twice", PINS, idempotent)
        .test("two_stale_sweeps_at_once", PINS, two_stale_sweeps)
        .test("what_was_set_aside_gets_its_name_back", PINS, set_aside)
        .test("a_stage_of_this_process_stays", PINS, own_stage)
        .test("a_stage_of_another_process_stays", PINS, others_stage)
        .test("who_works_meanwhile_loses_nothing", PINS, amid_work)
        .test("a_stale_sweep_as_another_user", USER, stale_of_others)
        .run()
}

fn child(task: &str) -> ExitCode {
    let path = std::env::args_os().nth(1).expect("a path");
    let dir = PinDir::open(&path).expect("the directory");
    match task {
        "stage" => {
            let stage = dir.stage("set").expect("a stage");
            stage.pin(hash(), "map").expect("a pin");
            holder::say("ready");
            holder::wait();
            stage.publish().expect("it is published");
        }
        "work" => {
            let (map, own) = (hash(), format!("set{}", std::process::id()));
            holder::say("ready");
            let mut rounds = 0;
            let end = Instant::now() + Duration::from_millis(500);
            while Instant::now() < end {
                dir.replace(&map, "name").expect("a replacement");
                let stage = dir.stage(&own).expect("a stage");
                stage.pin(&map, "map").expect("a pin");
                stage.publish().expect("it is published");
                let made = format!("{own}made");
                let inner = dir.create_dir(&made, 0o700).expect("a directory");
                inner.pin(&map, "map").expect("a pin");
                dir.remove_dir_all(&made).expect("a removal");
                rounds += 1;
            }
            dir.remove_dir_all(&own).expect("a removal");
            holder::say(rounds);
            holder::wait();
        }
        other => panic!("{other}"),
    }
    ExitCode::SUCCESS
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

/// What was removed and nothing else: nothing failed.
fn removed(swept: &Swept) -> Vec<&str> {
    assert!(swept.failed.is_empty(), "{:?}", swept.failed);
    assert!(swept.restored.is_empty(), "{:?}", swept.restored);
    sorted(&swept.removed)
}

fn predicate() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let mut ids = BTreeMap::new();
    for (name, max_entries) in [("a", 1), ("b", 8), ("c", 1), ("d", 8)] {
        let map = MapSpec::new(MapType::HASH, 4, 8, max_entries).create()?;
        dir.pin(&map, name)?;
        ids.insert(name, dir.identity(name)?);
    }
    dir.pin(prog(), "e")?;
    symlink("a", fs.at("app/f"))?;
    symlink("nothing", fs.at("app/g"))?;
    assert!(removed(&dir.sweep(|_| false)?).is_empty());
    assert_eq!(names(&dir)?, ["a", "b", "c", "d", "e", "f", "g"]);

    let mut asked = Vec::new();
    let swept = dir.sweep(|entry| {
        asked.push(entry.name().to_owned());
        entry
            .open_as::<Map>()
            .is_ok_and(|map| map.info().is_ok_and(|info| info.max_entries == 1))
    })?;
    assert_eq!(removed(&swept), ["a", "c"]);
    // Of each name once.
    assert_eq!(sorted(&asked), ["a", "b", "c", "d", "e", "f", "g"]);
    assert_eq!(names(&dir)?, ["b", "d", "e", "f", "g"]);
    for name in ["b", "d"] {
        assert_eq!(dir.identity(name)?, ids[name]);
    }
    // Of a symbolic link it is the link that goes.
    symlink("b", fs.at("app/to_b"))?;
    let swept = dir.sweep(|entry| entry.entry_type() == EntryType::SymbolicLink)?;
    assert_eq!(removed(&swept), ["f", "g", "to_b"]);
    assert_eq!(names(&dir)?, ["b", "d", "e"]);
    assert_eq!(removed(&dir.sweep(|_| true)?), ["b", "d", "e"]);
    assert!(names(&dir)?.is_empty());
    assert!(removed(&dir.sweep(|_| true)?).is_empty());
    Ok(())
}

fn dry_run() -> Outcome {
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
    let is_useless = |name: &OsStr| name.to_str().unwrap().contains('7');
    let mut asked = 0;
    let dry = dir.sweep_dry_run(|entry| {
        asked += 1;
        is_useless(entry.name())
    })?;
    assert_eq!(asked, 2000);
    assert_eq!(names(&dir)?, before, "nothing is removed");
    let dry = removed(&dry);
    assert!(!dry.is_empty());
    let wet = dir.sweep(|entry| is_useless(entry.name()))?;
    assert_eq!(removed(&wet), dry);
    let mut left = before;
    left.retain(|name| !is_useless(name.as_ref()));
    assert_eq!(names(&dir)?, left);
    assert!(removed(&dir.sweep_dry_run(|entry| is_useless(entry.name()))?).is_empty());
    Ok(())
}

fn directories() -> Outcome {
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
    let swept = dir.sweep(|entry| entry.name() != "keep")?;
    assert_eq!(removed(&swept), ["empty", "goes", "goes too"]);
    assert_eq!(names(&dir)?, ["keep"]);
    assert_eq!(below(&dir.open_dir("keep")?)?, kept, "no link was followed");
    let error = held.pin(&map, "late").unwrap_err();
    assert!(matches!(error.cause(), Some(Cause::Removed { .. })));
    Ok(())
}

/// The predicate itself is what is faster.
fn replaced() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let (old, new) = (hash(), hash());
    let goes = |name: &str| -> Result<Identity> {
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
        goes(name)?;
    }
    dir.pin(&new, "spare")?;
    let inner = dir.create_dir("directory", 0o700)?;
    inner.pin(&old, "in it")?;
    dir.create_dir("spare directory", 0o700)?
        .pin(&new, "in it")?;
    let has_exchange = kernel(5, 17).unmet().is_none();
    let swept = dir.sweep(|entry| {
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
            // What the above have made or have put aside.
            _ => return false,
        }
        true
    })?;
    assert_eq!(removed(&swept), ["goes"]);
    for name in ["replaced", "unlinked", "exchanged"] {
        assert_eq!(dir.open_as::<Map>(name)?.id()?, new.id()?, "{name}");
    }
    assert_eq!(
        dir.open_dir("directory")?.open_as::<Map>("in it")?.id()?,
        new.id()?
    );
    let mut left = vec!["directory", "exchanged", "made a directory", "replaced"];
    left.extend(["spare", "unlinked"]);
    assert_eq!(names(&dir)?, left);
    Ok(())
}

fn gone() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    dir.pin(hash(), "pin")?;
    dir.pin(hash(), "renamed")?;
    dir.create_dir("directory", 0o700)?;
    dir.pin(hash(), "goes")?;
    let swept = dir.sweep(|entry| {
        match entry.name().to_str().unwrap() {
            "pin" => dir.unlink("pin").unwrap(),
            "renamed" => dir.rename("renamed", "elsewhere").unwrap(),
            "directory" => dir.remove_dir("directory").unwrap(),
            "elsewhere" => return false,
            _ => {}
        }
        true
    })?;
    assert_eq!(removed(&swept), ["goes"]);
    assert_eq!(names(&dir)?, ["elsewhere"]);
    Ok(())
}

fn assert_sticky(error: &Error, directory: &std::path::Path) {
    assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
    let directory = directory.to_owned();
    let cause = Cause::Sticky { directory, uid: 0 };
    assert_eq!(error.cause(), Some(&cause), "{error}");
    let operation = DirOperation::Remove;
    assert!(
        matches!(error, Error::Directory { operation: o, .. } if *o == operation),
        "{error:?}"
    );
}

fn sticky() -> Outcome {
    let fs = TestFs::detached("755");
    let dir = PinDir::create(fs.at("app"), 0o1777)?;
    for name in ["theirs", "also theirs"] {
        dir.pin(hash(), name)?;
    }
    dir.create_dir("their directory", 0o777)?;
    as_user(CapabilitySet::BPF, || -> Outcome {
        for name in ["ours", "ours too"] {
            dir.pin(hash(), name)?;
        }
        dir.create_dir("our directory", 0o700)?.pin(hash(), "map")?;
        let dry = dir.sweep_dry_run(|_| true)?;
        assert_eq!(dry.removed.len(), 6);
        let swept = dir.sweep(|_| true)?;
        let ours = ["our directory", "ours", "ours too"];
        assert_eq!(sorted(&swept.removed), ours);
        assert_eq!(swept.failed.len(), 3, "{:?}", swept.failed);
        for error in &swept.failed {
            assert_sticky(error, dir.path());
        }
        let mut told: Vec<_> = swept.failed.iter().map(ToString::to_string).collect();
        told.sort();
        let at = dir.path().display();
        let because = format!("{at} is sticky and the pin belongs to user 0");
        let expected = ["also theirs", "their directory", "theirs"];
        let expected = expected.map(|name| format!("remove {at}/{name}: {because}"));
        assert_eq!(told, expected);
        Ok(())
    })?;
    assert_eq!(names(&dir)?, ["also theirs", "their directory", "theirs"]);
    Ok(())
}

fn mount_points() -> Outcome {
    let place = tempfile::tempdir()?;
    own_mounts(|| -> Outcome {
        mount("bpf", place.path(), "bpf", MountFlags::empty(), None)?;
        let path = place.path().join("app");
        let dir = PinDir::create(&path, 0o700)?;
        let map = hash();
        dir.pin(&map, "goes")?;
        dir.pin(&map, "bound")?;
        for name in ["another", "same", "plain"] {
            dir.create_dir(name, 0o700)?.pin(&map, "below")?;
        }
        dir.create_dir("around", 0o700)?
            .create_dir("inner", 0o700)?;
        mount(
            "bpf",
            path.join("another"),
            "bpf",
            MountFlags::empty(),
            None,
        )?;
        PinDir::open(path.join("another"))?.pin(&map, "above")?;
        mount_bind(path.join("plain"), path.join("same"))?;
        mount(
            "bpf",
            path.join("around/inner"),
            "bpf",
            MountFlags::empty(),
            None,
        )?;
        mount_bind(path.join("goes"), path.join("bound"))?;
        let before = names(&dir)?;
        assert_eq!(before.len(), 6);

        let swept = dir.sweep(|_| true)?;
        let mut failed = BTreeMap::new();
        for error in &swept.failed {
            let Error::Directory { path, .. } = error else {
                panic!("{error:?}")
            };
            let cause = Cause::MountPoint { path: path.clone() };
            assert_eq!(error.cause(), Some(&cause), "{error}");
            // By the name that it has, not by one that it had for a while.
            let name = path.strip_prefix(dir.path())?.to_str().unwrap().to_owned();
            failed.insert(name, error.raw_os_error().expect("an errno"));
        }
        assert_eq!(sorted(&swept.removed), ["goes", "plain"]);
        assert_eq!(names(&dir)?, ["another", "around", "bound", "same"]);
        let told: Vec<_> = failed.keys().map(String::as_str).collect();
        assert_eq!(told, ["another", "around/inner", "bound", "same"]);

        // What is above and what is below is still there.
        assert_eq!(
            PinDir::open(path.join("another"))?
                .open_as::<Map>("above")?
                .id()?,
            map.id()?
        );
        for name in ["another", "same", "around/inner", "bound"] {
            unmount(path.join(name), UnmountFlags::empty())?;
        }
        assert_eq!(
            dir.open_dir("another")?.open_as::<Map>("below")?.id()?,
            map.id()?
        );
        let swept = dir.sweep(|_| true)?;
        assert_eq!(removed(&swept), ["another", "around", "bound", "same"]);
        assert!(names(&dir)?.is_empty());
        drop(dir);
        unmount(place.path(), UnmountFlags::empty())?;
        Ok(())
    })
}

fn unreadable() -> Outcome {
    let fs = TestFs::detached("755");
    let dir = PinDir::create(fs.at("app"), 0o733)?;
    dir.pin(hash(), "map")?;
    as_user(CapabilitySet::empty(), || {
        for (swept, operation) in [
            (dir.sweep(|_| true), DirOperation::List),
            (dir.sweep_dry_run(|_| true), DirOperation::List),
            (dir.sweep_stale(), DirOperation::Sweep),
        ] {
            let error = swept.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EACCES));
            let wanted = "read";
            assert!(
                matches!(error.cause(), Some(Cause::Blocked { wanted: w, .. }) if *w == wanted)
            );
            assert!(matches!(&error, Error::Directory { operation: o, .. } if *o == operation));
        }
    });
    assert_eq!(names(&dir)?, ["map"]);
    Ok(())
}

/// Each removes what the other has not, and neither takes the other's work for a failure.
fn two_sweeps() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let map = hash();
    let end = Instant::now() + Duration::from_millis(400);
    let mut rounds = 0;
    while rounds < 5 || Instant::now() < end {
        rounds += 1;
        for number in 0..60 {
            match number % 3 {
                0 => drop(dir.create_dir(format!("useless{number}"), 0o700)?),
                _ => dir.pin(&map, format!("useless{number}"))?,
            }
        }
        let start = Barrier::new(3);
        let swept: Vec<_> = thread::scope(|scope| {
            let sweepers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        let starts = |name: &OsStr| name.to_str().unwrap().starts_with("useless");
                        dir.sweep(|entry| starts(entry.name())).unwrap()
                    })
                })
                .collect();
            sweepers.into_iter().map(|s| s.join().unwrap()).collect()
        });
        let mut all: Vec<_> = swept.iter().flat_map(removed).collect();
        all.sort();
        let mut expected: Vec<_> = (0..60).map(|number| format!("useless{number}")).collect();
        expected.sort();
        assert_eq!(all, expected, "each by one of them");
        assert!(names(&dir)?.is_empty());
    }
    Ok(())
}

/// A name as the dead leave it.
fn stale(token: u64, number: u64) -> String {
    format!("_bpf-pin-{token:016x}-{number:x}")
}

const NOBODYS: [&str; 16] = [
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

fn exact_names() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let map = hash();
    let (pins, directories) = (
        dir.create_dir("pins", 0o700)?,
        dir.create_dir("dirs", 0o700)?,
    );
    let stale = [
        stale(0, 0),
        stale(0x0123_4567_89ab_cdef, u64::MAX),
        stale(7, 0x1a),
    ];
    for name in NOBODYS.into_iter().chain(stale.iter().map(String::as_str)) {
        pins.pin(&map, name)?;
        let inner = directories.create_dir(name, 0o700)?;
        inner.pin(&map, "map")?;
        inner.create_dir("below", 0o700)?.pin(&map, "map")?;
    }
    let mut left = NOBODYS.map(str::to_owned);
    left.sort();
    let mut expected = stale.clone();
    expected.sort();
    for dir in [&pins, &directories] {
        assert_eq!(removed(&dir.sweep_stale()?), expected);
        assert_eq!(names(dir)?, left);
    }
    for name in NOBODYS {
        let inner = directories.open_dir(name)?;
        assert_eq!(names(&inner)?, ["below", "map"]);
    }
    // It looks at this directory, and into none.
    pins.pin(&map, &stale[0])?;
    assert!(removed(&dir.sweep_stale()?).is_empty());
    assert!(names(&pins)?.contains(&stale[0]));
    Ok(())
}

fn stale_links() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let kept = dir.create_dir("kept", 0o700)?;
    kept.create_dir("inner", 0o700)?;
    let names_of_links = [stale(1, 1), stale(2, 2), format!("{}-aside", stale(3, 3))];
    for (name, target) in names_of_links.iter().zip(["kept", "nothing", "kept"]) {
        symlink(target, fs.at("app").join(name))?;
    }
    let swept = dir.sweep_stale()?;
    assert!(removed(&swept).is_empty());
    assert_eq!(names(&dir)?.len(), 4);
    assert_eq!(names(&kept)?, ["inner"]);
    Ok(())
}

fn idempotent() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let map = hash();
    dir.pin(&map, "stays")?;
    dir.pin(&map, stale(1, 0))?;
    dir.create_dir(stale(2, 0), 0o700)?.pin(&map, "map")?;
    // And what this process has made and let go of in the meantime is nobody's worry.
    dir.replace(&map, "stays")?;
    drop(dir.stage("set")?);
    assert_eq!(removed(&dir.sweep_stale()?).len(), 2);
    for _ in 0..3 {
        assert!(removed(&dir.sweep_stale()?).is_empty());
        assert_eq!(names(&dir)?, ["stays"]);
    }
    assert_eq!(dir.open_as::<Map>("stays")?.id()?, map.id()?);
    Ok(())
}

fn two_stale_sweeps() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let map = hash();
    let end = Instant::now() + Duration::from_millis(400);
    let mut rounds = 0;
    while rounds < 5 || Instant::now() < end {
        rounds += 1;
        let (mut expected, mut aside) = (Vec::new(), Vec::new());
        for number in 0..30 {
            let name = stale(number * 0x1234_5678, number);
            match number % 3 {
                0 => dir.pin(&map, &name)?,
                1 => dir.create_dir(&name, 0o700)?.pin(&map, "map")?,
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
        let start = Barrier::new(3);
        let swept: Vec<_> = thread::scope(|scope| {
            let sweepers: Vec<_> = (0..3)
                .map(|_| {
                    let own = PinDir::open(fs.at("app")).unwrap();
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        own.sweep_stale().unwrap()
                    })
                })
                .collect();
            sweepers.into_iter().map(|s| s.join().unwrap()).collect()
        });
        let (mut all, mut restored) = (Vec::new(), Vec::new());
        for swept in &swept {
            assert!(swept.failed.is_empty(), "{:?}", swept.failed);
            all.extend(sorted(&swept.removed));
            restored.extend(sorted(&swept.restored));
        }
        all.sort();
        restored.sort();
        expected.sort();
        aside.sort();
        assert_eq!(all, expected, "each by one of them");
        assert_eq!(restored, aside);
        assert_eq!(names(&dir)?, aside);
        for set in &aside {
            assert_eq!(dir.open_dir(set)?.open_as::<Map>("map")?.id()?, map.id()?);
            dir.remove_dir_all(set)?;
        }
    }
    Ok(())
}

fn set_aside() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let (old, new) = (hash(), hash());
    let aside = |token: u64, set: &str| -> Result<String> {
        let name = format!("{}-aside", stale(token, 0));
        let moved = dir.create_dir(&name, 0o700)?;
        moved.create_dir(set, 0o700)?.pin(&old, "map")?;
        Ok(name)
    };
    // Killed before the new one had the name, and after.
    let (before, after) = (aside(1, "lost")?, aside(2, "has")?);
    dir.create_dir("has", 0o700)?.pin(&new, "map")?;
    let swept = dir.sweep_stale()?;
    assert!(swept.failed.is_empty(), "{:?}", swept.failed);
    assert_eq!(sorted(&swept.removed), [before, after]);
    assert_eq!(sorted(&swept.restored), ["lost"]);
    assert_eq!(names(&dir)?, ["has", "lost"]);
    let held = |name: &str| dir.open_dir(name)?.open_as::<Map>("map")?.id();
    assert_eq!((held("lost")?, held("has")?), (old.id()?, new.id()?));
    Ok(())
}

fn own_stage() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let stage = dir.stage("set")?;
    stage.pin(hash(), "map")?;
    let hidden = names(&dir)?;
    assert_eq!(hidden.len(), 1);
    assert!(hidden[0].starts_with("_bpf-pin-"), "{hidden:?}");
    let other = PinDir::open(fs.at("app"))?;
    for dir in [&dir, &other] {
        assert!(removed(&dir.sweep_stale()?).is_empty());
    }
    // Nor does the sweep that asks, even where all is of no use.
    assert!(
        dir.entries()?
            .all(|entry| entry.is_ok_and(|entry| entry.is_hidden()))
    );
    assert!(removed(&dir.sweep_dry_run(|_| true)?).is_empty());
    assert!(removed(&dir.sweep(|_| true)?).is_empty());
    assert_eq!(names(&stage)?, ["map"]);
    stage.publish().map_err(Error::from)?;
    assert!(removed(&other.sweep_stale()?).is_empty());
    assert_eq!(names(&dir)?, ["set"]);
    Ok(())
}

fn others_stage() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let mut other = Holder::ready(&fs, "stage", [fs.at("app")]);
    let hidden = names(&dir)?;
    assert_eq!(hidden.len(), 1);
    for _ in 0..3 {
        assert!(removed(&dir.sweep_stale()?).is_empty());
    }
    assert_eq!(names(&dir.open_dir(&hidden[0])?)?, ["map"]);
    other.begin();
    other.let_go();
    assert_eq!(names(&dir)?, ["set"]);
    assert_eq!(names(&dir.open_dir("set")?)?, ["map"]);

    // And one that is killed needs it no more.
    let other = Holder::ready(&fs, "stage", [fs.at("app")]);
    let mut hidden = names(&dir)?;
    hidden.retain(|name| name != "set");
    assert_eq!(hidden.len(), 1);
    assert!(removed(&dir.sweep_stale()?).is_empty());
    other.kill();
    assert_eq!(names(&dir)?.len(), 2, "nobody else has removed it");
    let begun = Instant::now();
    loop {
        // A process that is just being started may have a copy of the lock for a moment.
        let swept = dir.sweep_stale()?;
        if !removed(&swept).is_empty() {
            assert_eq!(removed(&swept), hidden);
            break;
        }
        assert!(begun.elapsed() < AGES);
    }
    assert_eq!(names(&dir)?, ["set"]);
    assert_eq!(names(&dir.open_dir("set")?)?, ["map"]);
    Ok(())
}

/// Two processes replace, stage, publish and remove, and this one sweeps all the while.
fn amid_work() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let mut others: Vec<_> = (0..2)
        .map(|_| Holder::ready(&fs, "work", [fs.at("app")]))
        .collect();
    let (mut sweeps, mut found) = (0, 0);
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end || sweeps < 5 {
        let swept = dir.sweep_stale()?;
        assert!(swept.failed.is_empty(), "{:?}", swept.failed);
        for name in &swept.removed {
            // What is being removed anyway may be swept; a pin on its way never.
            let name = name.to_str().unwrap();
            assert!(name.starts_with("_bpf-pin-"), "{name}");
            found += 1;
        }
        sweeps += 1;
    }
    for other in &mut others {
        let rounds: usize = other.line().parse()?;
        assert!(rounds > 0);
    }
    for other in others {
        other.let_go();
    }
    println!("{sweeps} sweeps amid work, which found {found} names to remove");
    let begun = Instant::now();
    while names(&dir)? != ["name"] {
        dir.sweep_stale()?;
        assert!(begun.elapsed() < AGES, "{:?}", names(&dir)?);
    }
    dir.open_as::<Map>("name")?;
    Ok(())
}

fn stale_of_others() -> Outcome {
    let fs = TestFs::detached("755");
    let dir = PinDir::create(fs.at("app"), 0o1777)?;
    let map = hash();
    dir.pin(&map, stale(1, 0))?;
    dir.create_dir(stale(2, 0), 0o700)?;
    as_user(CapabilitySet::BPF, || -> Outcome {
        dir.pin(hash(), stale(3, 0))?;
        let swept = dir.sweep_stale()?;
        assert_eq!(sorted(&swept.removed), [stale(3, 0)]);
        assert_eq!(swept.failed.len(), 2, "{:?}", swept.failed);
        for error in &swept.failed {
            let is_typed = matches!(
                error.cause(),
                Some(Cause::Sticky { .. } | Cause::Blocked { .. })
            );
            assert!(is_typed, "{error}");
        }
        Ok(())
    })?;
    assert_eq!(names(&dir)?, [stale(1, 0), stale(2, 0)]);
    assert_eq!(removed(&dir.sweep_stale()?).len(), 2);
    assert!(names(&dir)?.is_empty());
    Ok(())
}
