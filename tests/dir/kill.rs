//! Sends SIGKILL before and after each syscall of a directory change. No change is left half done.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

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
    before: fn(&Scene),
    run: fn(&Scene, &PinDir) -> bpf_pin::Result<()>,
    seen: fn(&Scene) -> Seen,
    /// True for a hidden directory that a sweep may remove while its process lives.
    /// The process no longer needs it or creates another one.
    expendable: fn(&Scene, &Hidden) -> bool,
    /// True if a killed process may leave no entry under the name.
    may_have_gap: fn() -> bool,
    umask: u32,
}

/// The state that a reader observes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    Old,
    New,
    /// Only for a change of several names.
    Half,
}

const CASES: &[Case] = &[
    Case {
        name: "killed_amid_replace",
        before: |scene| scene.pin(&scene.old[0], "name"),
        run: |scene, dir| dir.replace(&scene.new[0], "name"),
        seen: |scene| scene.see("", &["name"]),
        expendable: |_, _| false,
        may_have_gap: || false,
        umask: 0o077,
    },
    Case {
        name: "killed_amid_replace_nothing",
        before: |_| {},
        run: |scene, dir| dir.replace(&scene.new[0], "name"),
        seen: |scene| scene.see("", &["name"]),
        expendable: |_, _| false,
        may_have_gap: || true,
        umask: 0o077,
    },
    Case {
        name: "killed_amid_replace_keeping_mode",
        before: |scene| {
            scene.pin(&scene.old[0], "name");
            set_mode(&scene.at("name"), 0o640);
        },
        run: |scene, dir| dir.replace_keeping_mode(&scene.new[0], "name"),
        seen: |scene| {
            let mode = fs::symlink_metadata(scene.at("name")).unwrap().mode();
            assert_eq!(mode & 0o7777, 0o640);
            scene.see("", &["name"])
        },
        expendable: |_, _| false,
        may_have_gap: || false,
        umask: 0o077,
    },
    Case {
        name: "killed_amid_replace_if",
        before: |scene| scene.pin(&scene.old[0], "name"),
        run: |scene, dir| {
            let old = scene.old[0].id().map(|id| Identity {
                kind: bpf_pin::Kind::Map,
                id,
            })?;
            match dir.replace_if(&scene.new[0], "name", old) {
                // The change was complete before the kill.
                Err(error) if matches!(error.cause(), Some(Cause::Replaced { .. })) => Ok(()),
                other => other,
            }
        },
        seen: |scene| scene.see("", &["name"]),
        expendable: |_, _| false,
        may_have_gap: || false,
        umask: 0o077,
    },
    Case {
        name: "killed_amid_publish_a_new_name",
        before: |_| {},
        run: publish,
        seen: |scene| scene.see("set", SET),
        expendable: |_, hidden| hidden.is_fresh,
        may_have_gap: || true,
        umask: 0o077,
    },
    Case {
        name: "killed_amid_publish_over_a_set",
        before: old_set,
        run: publish,
        seen: |scene| scene.see("set", SET),
        expendable: |scene, hidden| {
            let is_old = Some(hidden.inode) == scene.old_set.get().copied();
            hidden.is_fresh || is_old && scene.see("set", SET) == Seen::New
        },
        may_have_gap: || kernel(5, 17).unmet().is_some(),
        umask: 0o077,
    },
    // With this umask, mkdir(2) creates a directory that even its owner may not search.
    Case {
        name: "killed_amid_publish_under_an_odd_umask",
        before: |_| {},
        run: publish,
        seen: |scene| scene.see("set", SET),
        expendable: |_, hidden| hidden.is_fresh,
        may_have_gap: || true,
        umask: 0o177,
    },
    Case {
        name: "killed_amid_remove_dir_all",
        before: |scene| {
            old_set(scene);
            fs::create_dir(scene.at("set/below")).unwrap();
            scene.pin(&scene.old[0], "set/below/deep");
            symlink("../neighbours", scene.at("set/symlink")).unwrap();
        },
        run: |_, dir| match dir.remove_dir_all("set") {
            // The change was complete before the kill.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        },
        seen: |scene| match scene.see("set", SET) {
            Seen::Nothing => Seen::New,
            other => other,
        },
        expendable: |_, _| true,
        may_have_gap: || false,
        umask: 0o077,
    },
    Case {
        name: "killed_amid_create_three_levels",
        before: |_| {},
        run: |scene, _| {
            let made = PinDir::create(scene.at(LEVELS[2]), LEVEL_MODE)?;
            made.pin(&scene.new[0], "deep")
                .or_else(|error| match error.cause() {
                    Some(Cause::Exists { .. }) => Ok(()),
                    _ => Err(error),
                })
        },
        seen: |scene| {
            let mut made = 0;
            for level in LEVELS {
                let Ok(stat) = fs::symlink_metadata(scene.at(level)) else {
                    break;
                };
                assert_eq!(stat.mode() & 0o7777, LEVEL_MODE, "{level}");
                made += 1;
            }
            match made {
                3 => scene.see(LEVELS[2], &["deep"]),
                _ => Seen::Nothing,
            }
        },
        expendable: |_, hidden| hidden.is_fresh,
        may_have_gap: || true,
        umask: 0o077,
    },
];

const SET: &[&str] = &["a", "b", "c"];
const LEVELS: [&str; 3] = ["x", "x/y", "x/y/z"];
const LEVEL_MODE: u32 = 0o2751;

fn old_set(scene: &Scene) {
    fs::create_dir(scene.at("set")).unwrap();
    for (map, name) in scene.old.iter().zip(SET) {
        scene.pin(map, &format!("set/{name}"));
    }
    let inode = fs::symlink_metadata(scene.at("set")).unwrap().ino();
    scene.old_set.set(inode).unwrap();
}

fn publish(scene: &Scene, dir: &PinDir) -> bpf_pin::Result<()> {
    let set = dir.stage("set")?;
    for (map, name) in scene.new.iter().zip(SET) {
        set.pin(map, name)?;
    }
    let published = set.publish().map_err(bpf_pin::Error::from)?;
    let has_exchange = kernel(5, 17).unmet().is_none();
    // A concurrent sweep may have removed the old set already.
    assert!(!published.had_gap || !has_exchange);
    assert!(published.had_gap || published.old.is_none() || has_exchange);
    assert_eq!(published.dir.own_metadata()?.mode(), 0o700);
    Ok(())
}

/// Runs in the child. The umask must not affect the modes.
fn ready(case: &Case, scene: &Scene) -> PinDir {
    rustix::process::umask(Mode::from_raw_mode(case.umask));
    PinDir::open(&scene.root).unwrap()
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
struct Scene {
    root: PathBuf,
    old: [Map; 3],
    new: [Map; 3],
    old_set: std::cell::OnceCell<u64>,
}

impl Scene {
    fn new(root: PathBuf, old: &[Map; 3], new: &[Map; 3]) -> Self {
        fs::create_dir(&root).unwrap();
        let copies = |maps: &[Map; 3]| maps.each_ref().map(|map| map.try_clone().unwrap());
        let scene = Self {
            root,
            old: copies(old),
            new: copies(new),
            old_set: std::cell::OnceCell::new(),
        };
        scene.pin(&scene.old[0], "flows");
        scene.pin(&scene.old[1], "_bpf-pinned");
        fs::create_dir(scene.at("neighbours")).unwrap();
        scene.pin(&scene.old[2], "neighbours/flows");
        // These belong to another directory, so a sweep of this one must keep them.
        fs::create_dir(scene.at("neighbours/_bpf-pin-0123456789abcdef-0-dir")).unwrap();
        scene.pin(&scene.old[2], "neighbours/_bpf-pin-0123456789abcdef-1");
        symlink("flows", scene.at("symlink")).unwrap();
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn pin(&self, map: &Map, name: &str) {
        let map = map.try_clone().unwrap();
        map.pin(self.at(name)).expect("a pin");
    }

    /// Opens the directory by its path, as a reader does.
    fn see(&self, directory: &str, names: &[&str]) -> Seen {
        let ids = |maps: &[Map; 3]| maps.each_ref().map(|map| map.id().unwrap());
        let (old, new) = (ids(&self.old), ids(&self.new));
        let see = |(number, name): (usize, &&str)| match pinned_identity(
            &self.at(directory).join(name),
        ) {
            None => Seen::Nothing,
            Some(identity) if identity.id == old[number] => Seen::Old,
            Some(identity) if identity.id == new[number] => Seen::New,
            Some(other) => panic!("{name}: {other}"),
        };
        let mut seen = names.iter().enumerate().map(see);
        let first = seen.next().unwrap();
        match seen.all(|next| next == first) {
            true => first,
            false => Seen::Half,
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
fn bystanders(tree: &Tree, living: &[OsString]) -> Tree {
    let changed = ["name", "set", "x"];
    let is_changed = |path: &Path| changed.iter().any(|name| path.starts_with(name));
    let is_living = |path: &Path| living.iter().any(|name| path.starts_with(name));
    let mut tree = tree.clone();
    tree.retain(|path, _| is_living(path) || !is_changed(path) && !is_hidden(path));
    tree
}

/// Creates a new instance of the directory twice for each stop. One is swept while the process lives, the
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
        for to_live in [true, false] {
            let root = fs.at(&format!("{number}-{to_live}"));
            let is_over = go(case, Scene::new(root, &old, &new), number, to_live);
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
    let scene = Scene::new(fs.at("alone"), old, new);
    (case.before)(&scene);
    let ready = || ready(case, &scene);
    let mut tracee =
        Tracee::fork(ready, |dir| u8::from((case.run)(&scene, &dir).is_err())).unwrap();
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

/// Returns true if the process ended before this stop.
fn go(case: &Case, scene: Scene, number: usize, to_live: bool) -> bool {
    let what = |stop: &Option<Stop>| format!("{} at stop {number}: {stop:?}", case.name);
    (case.before)(&scene);
    // A stage of a live process, which sweeps must keep.
    let dir = PinDir::open(&scene.root).unwrap();
    let living = dir.stage("living").unwrap();
    living.pin(&scene.old[0], "a").unwrap();
    let living_name = [living_name(&scene)];
    let before = bystanders(&scene.tree(), &living_name);

    let ready = || ready(case, &scene);
    let run = |dir: PinDir| match (case.run)(&scene, &dir) {
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
    let seen = (case.seen)(&scene);
    assert_sound(case, seen, &what(&stop));
    assert_eq!(
        bystanders(&scene.tree(), &living_name),
        before,
        "{}",
        what(&stop)
    );

    if to_live || is_over {
        sweep_the_living(case, &scene, is_fresh, &what(&stop));
        assert_eq!((case.seen)(&scene), seen, "{}", what(&stop));
        assert_eq!(tracee.finish().unwrap(), 0, "{}: goes on", what(&stop));
    } else {
        tracee.kill().unwrap();
        assert_eq!((case.seen)(&scene), seen, "{}", what(&stop));
        sweep_levels(&scene, &what(&stop));
        let has_gap = seen == Seen::Nothing;
        let after = (case.seen)(&scene);
        match has_gap && case.name == "killed_amid_publish_over_a_set" {
            true => assert_eq!(after, Seen::Old, "{}: given back", what(&stop)),
            false => assert_eq!(after, seen, "{}: swept", what(&stop)),
        }
        assert_eq!(
            bystanders(&scene.tree(), &living_name),
            before,
            "{}",
            what(&stop)
        );
        let again = PinDir::open(&scene.root).unwrap();
        (case.run)(&scene, &again).unwrap_or_else(|error| panic!("{}: {error}", what(&stop)));
    }
    assert_eq!(
        (case.seen)(&scene),
        Seen::New,
        "{}: in the end",
        what(&stop)
    );
    let tree = scene.tree();
    assert_eq!(bystanders(&tree, &living_name), before, "{}", what(&stop));
    let stray = tree
        .keys()
        .find(|path| is_hidden(path) && !path.starts_with(&living_name[0]));
    assert_eq!(stray, None, "{}", what(&stop));
    living.publish().expect("whoever lives goes on");
    is_over
}

fn living_name(scene: &Scene) -> OsString {
    let tree = scene.tree();
    let hidden = tree.keys().find(|path| is_hidden(path)).unwrap();
    hidden.iter().next().unwrap().to_owned()
}

fn assert_sound(case: &Case, seen: Seen, what: &str) {
    match seen {
        Seen::Old | Seen::New => {}
        Seen::Nothing => assert!((case.may_have_gap)(), "{what}: nothing is there"),
        Seen::Half => panic!("{what}: half of it is there"),
    }
}

/// Sweeps keep the entries of a live process.
fn sweep_the_living(case: &Case, scene: &Scene, is_fresh: bool, what: &str) {
    let before = scene.tree();
    sweep(&scene.root, what);
    for level in LEVELS {
        if scene.at(level).exists() {
            sweep(&scene.at(level), what);
        }
    }
    let after = scene.tree();
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
        let may_go = is_dir && (case.expendable)(scene, &hidden);
        assert!(may_go, "{what}: took {path:?} from the living");
        assert!(!after.contains_key(path), "{what}: changed {path:?}");
    }
    assert!(after.keys().all(|path| before.contains_key(path)), "{what}");
}

fn sweep_levels(scene: &Scene, what: &str) {
    sweep(&scene.root, what);
    for level in LEVELS {
        if scene.at(level).exists() {
            sweep(&scene.at(level), what);
        }
    }
    // A second sweep finds nothing to remove.
    let again = PinDir::open(&scene.root)
        .unwrap()
        .remove_leftovers()
        .unwrap();
    assert!(
        again.removed.is_empty() && again.restored.is_empty(),
        "{what}: {again:?}"
    );
    let hidden: Vec<_> = scene
        .tree()
        .into_keys()
        .filter(|path| is_hidden(path))
        .collect();
    // The stage of the live process, and its pin.
    assert_eq!(hidden.len(), 2, "{what}: {hidden:?}");
}

fn sweep(root: &Path, what: &str) {
    let swept = PinDir::open(root).unwrap().remove_leftovers().unwrap();
    assert!(swept.failed.is_empty(), "{what}: {:?}", swept.failed);
}
