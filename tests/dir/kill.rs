//! Sends SIGKILL before and after each syscall of a directory change. No change is left half done.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use bpf_pin::dir::Stage;
use bpf_pin::error::Cause;
use bpf_pin::{Identity, Map, MapSpec, MapType, PinDir};
use common::*;
use rustix::fs::Mode;

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

common::cases_alone!(
    || CASES.iter().map(|case| (case.name, PINS)).collect(),
    |name| kill_everywhere(CASES.iter().find(|case| case.name == name).expect("a case"))
);

/// A directory change, and how a reader observes it.
struct Case {
    name: &'static str,
    /// Creates the initial entries, in addition to the neighbours.
    before: fn(&Fixture),
    run: fn(&Fixture, &PinDir) -> bpf_pin::Result<()>,
    state: fn(&Fixture) -> State,
    /// True for a hidden directory that a cleanup may remove while its process lives.
    /// The process no longer needs it or creates another one.
    may_be_removed: fn(&Fixture, &Hidden) -> bool,
    /// True if a killed process may leave no entry under the name.
    may_have_gap: fn() -> bool,
    umask: u32,
}

/// The state that a reader observes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Nothing,
    Old,
    New,
    /// Only for a change of several names.
    Partial,
}

const CASES: &[Case] = &[
    Case {
        name: "killed_during_replace",
        before: |fixture| fixture.pin(&fixture.old[0], "name"),
        run: |fixture, dir| dir.replace(&fixture.new[0], "name"),
        state: |fixture| fixture.state("", &["name"]),
        may_be_removed: |_, _| false,
        may_have_gap: || false,
        umask: 0o077,
    },
    Case {
        name: "killed_during_replace_of_a_missing_name",
        before: |_| {},
        run: |fixture, dir| dir.replace(&fixture.new[0], "name"),
        state: |fixture| fixture.state("", &["name"]),
        may_be_removed: |_, _| false,
        may_have_gap: || true,
        umask: 0o077,
    },
    Case {
        name: "killed_during_replace_keeping_mode",
        before: |fixture| {
            fixture.pin(&fixture.old[0], "name");
            set_mode(&fixture.at("name"), 0o640);
        },
        run: |fixture, dir| dir.replace_keeping_mode(&fixture.new[0], "name"),
        state: |fixture| {
            let mode = fs::symlink_metadata(fixture.at("name")).unwrap().mode();
            assert_eq!(mode & 0o7777, 0o640);
            fixture.state("", &["name"])
        },
        may_be_removed: |_, _| false,
        may_have_gap: || false,
        umask: 0o077,
    },
    Case {
        name: "killed_during_replace_if",
        before: |fixture| fixture.pin(&fixture.old[0], "name"),
        run: |fixture, dir| {
            let old = fixture.old[0].id().map(|id| Identity {
                kind: bpf_pin::Kind::Map,
                id,
            })?;
            match dir.replace_if(&fixture.new[0], "name", old) {
                // The change was complete before the kill.
                Err(error) if matches!(error.cause(), Some(Cause::Replaced { .. })) => Ok(()),
                other => other,
            }
        },
        state: |fixture| fixture.state("", &["name"]),
        may_be_removed: |_, _| false,
        may_have_gap: || false,
        umask: 0o077,
    },
    Case {
        name: "killed_during_publish_under_a_new_name",
        before: |_| {},
        run: publish,
        state: |fixture| fixture.state("set", SET),
        may_be_removed: |_, hidden| hidden.is_fresh,
        may_have_gap: || true,
        umask: 0o077,
    },
    Case {
        name: "killed_during_publish_over_a_set",
        before: old_set,
        run: publish,
        state: |fixture| fixture.state("set", SET),
        may_be_removed: |fixture, hidden| {
            let is_old = Some(hidden.inode) == fixture.old_set.get().copied();
            hidden.is_fresh || is_old && fixture.state("set", SET) == State::New
        },
        may_have_gap: || kernel(5, 17).unmet().is_some(),
        umask: 0o077,
    },
    // With this umask, mkdir(2) creates a directory that even its owner may not search.
    Case {
        name: "killed_during_publish_with_a_restrictive_umask",
        before: |_| {},
        run: publish,
        state: |fixture| fixture.state("set", SET),
        may_be_removed: |_, hidden| hidden.is_fresh,
        may_have_gap: || true,
        umask: 0o177,
    },
    Case {
        name: "killed_during_remove_dir_all",
        before: |fixture| {
            old_set(fixture);
            fs::create_dir(fixture.at("set/below")).unwrap();
            fixture.pin(&fixture.old[0], "set/below/deep");
            symlink("../neighbours", fixture.at("set/symlink")).unwrap();
        },
        run: |_, dir| match dir.remove_dir_all("set") {
            // The change was complete before the kill.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        },
        state: |fixture| match fixture.state("set", SET) {
            State::Nothing => State::New,
            other => other,
        },
        may_be_removed: |_, _| true,
        may_have_gap: || false,
        umask: 0o077,
    },
    Case {
        name: "killed_during_create_of_three_levels",
        before: |_| {},
        run: |fixture, _| {
            let made = PinDir::create(fixture.at(LEVELS[2]), LEVEL_MODE)?;
            made.pin(&fixture.new[0], "deep")
                .or_else(|error| match error.cause() {
                    Some(Cause::Exists { .. }) => Ok(()),
                    _ => Err(error),
                })
        },
        state: |fixture| {
            let mut made = 0;
            for level in LEVELS {
                let Ok(stat) = fs::symlink_metadata(fixture.at(level)) else {
                    break;
                };
                assert_eq!(stat.mode() & 0o7777, LEVEL_MODE, "{level}");
                made += 1;
            }
            match made {
                3 => fixture.state(LEVELS[2], &["deep"]),
                _ => State::Nothing,
            }
        },
        may_be_removed: |_, hidden| hidden.is_fresh,
        may_have_gap: || true,
        umask: 0o077,
    },
];

const SET: &[&str] = &["a", "b", "c"];
const LEVELS: [&str; 3] = ["x", "x/y", "x/y/z"];
const LEVEL_MODE: u32 = 0o2751;

fn old_set(fixture: &Fixture) {
    fs::create_dir(fixture.at("set")).unwrap();
    for (map, name) in fixture.old.iter().zip(SET) {
        fixture.pin(map, &format!("set/{name}"));
    }
    let inode = fs::symlink_metadata(fixture.at("set")).unwrap().ino();
    fixture.old_set.set(inode).unwrap();
}

fn publish(fixture: &Fixture, dir: &PinDir) -> bpf_pin::Result<()> {
    let set = dir.stage("set")?;
    for (map, name) in fixture.new.iter().zip(SET) {
        set.pin(map, name)?;
    }
    let published = set.publish().map_err(bpf_pin::Error::from)?;
    let has_exchange = kernel(5, 17).unmet().is_none();
    // A concurrent cleanup may have removed the old set already.
    assert!(!published.had_gap || !has_exchange);
    assert!(published.had_gap || published.old.is_none() || has_exchange);
    assert_eq!(published.dir.own_metadata()?.mode(), 0o700);
    Ok(())
}

/// Runs in the child. The umask must not affect the modes.
fn ready(case: &Case, fixture: &Fixture) -> PinDir {
    rustix::process::umask(Mode::from_raw_mode(case.umask));
    PinDir::open(&fixture.root).unwrap()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A directory with a hidden name.
struct Hidden {
    inode: u64,
    /// Created but not locked yet.
    is_fresh: bool,
}

/// A directory with neighbours of the changed entries, and with hidden names in use by a live process.
struct Fixture {
    root: PathBuf,
    old: [Map; 3],
    new: [Map; 3],
    old_set: std::cell::OnceCell<u64>,
}

impl Fixture {
    fn new(root: PathBuf, old: &[Map; 3], new: &[Map; 3]) -> Self {
        fs::create_dir(&root).unwrap();
        let copies = |maps: &[Map; 3]| maps.each_ref().map(|map| map.try_clone().unwrap());
        let fixture = Self {
            root,
            old: copies(old),
            new: copies(new),
            old_set: std::cell::OnceCell::new(),
        };
        fixture.pin(&fixture.old[0], "flows");
        fixture.pin(&fixture.old[1], "_bpf-pinned");
        fs::create_dir(fixture.at("neighbours")).unwrap();
        fixture.pin(&fixture.old[2], "neighbours/flows");
        // These belong to another directory, so a cleanup of this one must keep them.
        fs::create_dir(fixture.at("neighbours/_bpf-pin-0123456789abcdef-0-dir")).unwrap();
        fixture.pin(&fixture.old[2], "neighbours/_bpf-pin-0123456789abcdef-1");
        symlink("flows", fixture.at("symlink")).unwrap();
        fixture
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn pin(&self, map: &Map, name: &str) {
        let map = map.try_clone().unwrap();
        map.pin(self.at(name)).expect("a pin");
    }

    /// Opens the directory by its path, as a reader does.
    fn state(&self, directory: &str, names: &[&str]) -> State {
        let ids = |maps: &[Map; 3]| maps.each_ref().map(|map| map.id().unwrap());
        let (old, new) = (ids(&self.old), ids(&self.new));
        let read_state = |(number, name): (usize, &&str)| match pinned_identity(
            &self.at(directory).join(name),
        ) {
            None => State::Nothing,
            Some(identity) if identity.id == old[number] => State::Old,
            Some(identity) if identity.id == new[number] => State::New,
            Some(other) => panic!("{name}: {other}"),
        };
        let mut state = names.iter().enumerate().map(read_state);
        let first = state.next().unwrap();
        match state.all(|next| next == first) {
            true => first,
            false => State::Partial,
        }
    }

    fn tree(&self) -> Tree {
        tree(&self.root)
    }
}

fn is_hidden(path: &Path) -> bool {
    let is_hidden = |part: &std::ffi::OsStr| part.to_string_lossy().starts_with("_bpf-pin-");
    !path.starts_with("neighbours") && path.iter().any(is_hidden)
}

/// The entries that the case must not change.
fn unrelated_entries(tree: &Tree, live_names: &[OsString]) -> Tree {
    let changed = ["name", "set", "x"];
    let is_changed = |path: &Path| changed.iter().any(|name| path.starts_with(name));
    let is_living = |path: &Path| live_names.iter().any(|name| path.starts_with(name));
    let mut tree = tree.clone();
    tree.retain(|path, _| is_living(path) || !is_changed(path) && !is_hidden(path));
    tree
}

/// Creates a new instance of the directory twice for each stop. One is cleaned up while the process lives, the
/// other after the process is killed.
fn kill_everywhere(case: &Case) {
    let fs = TestFs::new();
    let (old, new) = ([hash(), hash(), hash()], [array(), array(), array()]);
    // Reads the seed of the standard library's hashes here, so that no child reads it from the kernel.
    let _ = std::hash::RandomState::new();
    // The first access detects which calls on descriptors the kernel supports. Children inherit the result.
    let root = PinDir::open(fs.root()).unwrap();
    root.get::<bpf_pin::Object>("nothing").unwrap_err();
    // The first lock sets up the detection of forks. Children inherit that, too.
    drop(root.lock(LockMode::Shared, Wait::No).unwrap());
    let stops = stops_of(case, &fs, &old, &new);
    // At least a pin and a rename, with a stop before and after each.
    assert!(stops.len() >= 4, "{}: {stops:?}", case.name);
    // One more round runs after the last stop.
    let changes = |number| stops.get(number).is_none_or(changes);
    at_each_stop(case.name, stops.len() + 1, changes, |number| {
        for is_kept_alive in [true, false] {
            let root = fs.at(&format!("{number}-{is_kept_alive}"));
            let is_over = kill_at_stop(case, Fixture::new(root, &old, &new), number, is_kept_alive);
            assert_eq!(
                is_over,
                number == stops.len(),
                "the same syscalls each time"
            );
        }
    });
    for name in fs.names() {
        fs::remove_dir_all(fs.at(&name)).unwrap();
    }
}

/// All stops of an undisturbed run.
fn stops_of(case: &Case, fs: &TestFs, old: &[Map; 3], new: &[Map; 3]) -> Vec<Stop> {
    let fixture = Fixture::new(fs.at("alone"), old, new);
    (case.before)(&fixture);
    let dir = PinDir::open(&fixture.root).unwrap();
    let _live_stage = live_stage(&fixture, &dir);
    let ready = || ready(case, &fixture);
    let mut tracee =
        Tracee::fork(ready, |dir| u8::from((case.run)(&fixture, &dir).is_err())).unwrap();
    let mut stops = Vec::new();
    while let Some(stop) = tracee.next().unwrap() {
        stops.push(stop);
    }
    assert_eq!(tracee.finish().unwrap(), 0, "{}", case.name);
    stops
}

/// True before and after a syscall that changes the directory, and after one that changes a lock or a mode.
fn changes(stop: &Stop) -> bool {
    match stop.name().as_str() {
        "OBJ_PIN" | "mkdirat" | "renameat2" | "rmdir" | "unlink" => true,
        "close" | "fchmod" | "fchmodat" | "fchownat" | "fcntl" | "flock" => !stop.is_entry(),
        _ => false,
    }
}

fn array() -> Map {
    let spec = MapSpec::new(MapType::ARRAY, 4, 8, 1).name("test_array");
    spec.create().expect("an array")
}

/// A stage of a live process, which cleanups must keep.
fn live_stage<'d>(fixture: &Fixture, dir: &'d PinDir) -> Stage<'d> {
    let stage = dir.stage("live").unwrap();
    stage.pin(&fixture.old[0], "a").unwrap();
    stage
}

/// Returns true if the process ended before this stop.
fn kill_at_stop(case: &Case, fixture: Fixture, number: usize, is_kept_alive: bool) -> bool {
    let what = |stop: &Option<Stop>| format!("{} at stop {number}: {stop:?}", case.name);
    (case.before)(&fixture);
    let dir = PinDir::open(&fixture.root).unwrap();
    let live_stage = live_stage(&fixture, &dir);
    let living_name = [living_name(&fixture)];
    let before = unrelated_entries(&fixture.tree(), &living_name);

    let ready = || ready(case, &fixture);
    let run = |dir: PinDir| match (case.run)(&fixture, &dir) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{}: {error}", case.name);
            1
        }
    };
    let mut tracee = Tracee::fork(ready, run).unwrap();
    let (mut stop, mut is_fresh) = (None, false);
    for _ in 0..=number {
        stop = tracee.next().unwrap();
        let Some(stop) = &stop else { break };
        is_fresh = match () {
            () if stop.is_success_of("mkdirat") => true,
            () if stop.is_success_of("flock") => false,
            () => is_fresh,
        };
    }
    let is_over = stop.is_none();
    let state = (case.state)(&fixture);
    assert_old_or_new(case, state, &what(&stop));
    assert_eq!(
        unrelated_entries(&fixture.tree(), &living_name),
        before,
        "{}",
        what(&stop)
    );

    if is_kept_alive || is_over {
        clean_up_while_alive(case, &fixture, is_fresh, &what(&stop));
        assert_eq!((case.state)(&fixture), state, "{}", what(&stop));
        assert_eq!(tracee.finish().unwrap(), 0, "{}: continues", what(&stop));
    } else {
        tracee.kill().unwrap();
        assert_eq!((case.state)(&fixture), state, "{}", what(&stop));
        clean_up_levels(&fixture, &what(&stop));
        let has_gap = state == State::Nothing;
        let after = (case.state)(&fixture);
        match has_gap && case.name == "killed_during_publish_over_a_set" {
            true => assert_eq!(after, State::Old, "{}: restored", what(&stop)),
            false => assert_eq!(after, state, "{}: cleaned up", what(&stop)),
        }
        assert_eq!(
            unrelated_entries(&fixture.tree(), &living_name),
            before,
            "{}",
            what(&stop)
        );
        let again = PinDir::open(&fixture.root).unwrap();
        (case.run)(&fixture, &again).unwrap_or_else(|error| panic!("{}: {error}", what(&stop)));
    }
    assert_eq!(
        (case.state)(&fixture),
        State::New,
        "{}: in the end",
        what(&stop)
    );
    let tree = fixture.tree();
    assert_eq!(
        unrelated_entries(&tree, &living_name),
        before,
        "{}",
        what(&stop)
    );
    let stray = tree
        .keys()
        .find(|path| is_hidden(path) && !path.starts_with(&living_name[0]));
    assert_eq!(stray, None, "{}", what(&stop));
    live_stage
        .publish()
        .expect("the live stage can be published");
    is_over
}

fn living_name(fixture: &Fixture) -> OsString {
    let tree = fixture.tree();
    let hidden = tree.keys().find(|path| is_hidden(path)).unwrap();
    hidden.iter().next().unwrap().to_owned()
}

fn assert_old_or_new(case: &Case, state: State, what: &str) {
    match state {
        State::Old | State::New => {}
        State::Nothing => assert!((case.may_have_gap)(), "{what}: no entry has the name"),
        State::Partial => panic!("{what}: only a part of it exists"),
    }
}

/// Cleanups keep the entries of a live process.
fn clean_up_while_alive(case: &Case, fixture: &Fixture, is_fresh: bool, what: &str) {
    let before = fixture.tree();
    clean_up(&fixture.root, what);
    for level in LEVELS {
        if fixture.at(level).exists() {
            clean_up(&fixture.at(level), what);
        }
    }
    let after = fixture.tree();
    for (path, standing) in &before {
        if after.get(path) == Some(standing) {
            continue;
        }
        let hidden = path.ancestors().filter(|above| is_hidden(above)).last();
        let top = hidden.unwrap_or_else(|| panic!("{what}: took {path:?}"));
        let directory = &before[top];
        let hidden = Hidden {
            inode: directory.inode,
            is_fresh,
        };
        let is_dir = directory.is_dir();
        let may_go = is_dir && (case.may_be_removed)(fixture, &hidden);
        assert!(may_go, "{what}: took {path:?} from a live process");
        assert!(!after.contains_key(path), "{what}: changed {path:?}");
    }
    assert!(after.keys().all(|path| before.contains_key(path)), "{what}");
}

fn clean_up_levels(fixture: &Fixture, what: &str) {
    clean_up(&fixture.root, what);
    for level in LEVELS {
        if fixture.at(level).exists() {
            clean_up(&fixture.at(level), what);
        }
    }
    // A second cleanup finds nothing to remove.
    let again = PinDir::open(&fixture.root)
        .unwrap()
        .remove_leftovers()
        .unwrap();
    assert!(
        again.removed.is_empty() && again.restored.is_empty(),
        "{what}: {again:?}"
    );
    let hidden: Vec<_> = fixture
        .tree()
        .into_keys()
        .filter(|path| is_hidden(path))
        .collect();
    // The stage of the live process, and its pin.
    assert_eq!(hidden.len(), 2, "{what}: {hidden:?}");
}

fn clean_up(root: &Path, what: &str) {
    let report = PinDir::open(root).unwrap().remove_leftovers().unwrap();
    assert!(report.failed.is_empty(), "{what}: {:?}", report.failed);
}
