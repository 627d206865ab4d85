//! Whoever may write where the library works: nothing leaves the directory, and nobody else's goes.

mod attack_mount;
mod attack_parent;
mod attack_plant;
mod attack_race;
mod attack_user;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bpf_pin::error::Cause;
use bpf_pin::{Map, PinDir, Prog};
use common::*;

/// Set where all is to be tried, however long that takes.
const LONG: &str = "BPF_PIN_TESTS_LONG";

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

/// A test of a process alone.
type Alone = (&'static str, &'static [Need], fn());

common::cases_alone!(
    || alone_ones()
        .map(|&(name, needs, _)| (name, needs))
        .collect(),
    |name| {
        let (_, _, run) = alone_ones().find(|(one, ..)| *one == name).expect("a case");
        run();
    }
);

fn alone_ones() -> impl Iterator<Item = &'static Alone> {
    let all = [
        attack_race::ALONE,
        attack_parent::ALONE,
        attack_mount::ALONE,
    ];
    all.into_iter().flatten()
}

/// A directory of its own, a map that is ours and one that is not, and what is to replace ours.
struct Ground {
    root: PathBuf,
    ours: Map,
    new: Prog,
    theirs: Map,
}

impl Ground {
    fn new(root: PathBuf) -> Self {
        fs::create_dir(&root).expect("a directory");
        let (ours, new, theirs) = (hash(), prog(), hash());
        Self {
            root,
            ours,
            new,
            theirs,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn dir(&self) -> PinDir {
        PinDir::open(&self.root).expect("the directory")
    }

    /// A pin that the library has nothing to do with.
    fn pin(&self, map: &Map, name: &str) {
        let pinned = map.try_clone().unwrap().pin(self.at(name));
        pinned.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The attacker's map takes the name, whatever had it, unless a directory has.
    fn put_theirs(&self, name: &str) {
        self.pin(&self.theirs, "put");
        fs::rename(self.at("put"), self.at(name)).expect("a rename");
    }

    fn has(&self, name: &str, map: &Map) -> bool {
        holder(&self.at(name)).is_some_and(|holder| holder.id == map.id().unwrap())
    }

    fn strays(&self) -> Vec<String> {
        let names = tree(&self.root).into_keys();
        let hidden = names.filter(|path| is_hidden(path));
        hidden
            .map(|path| path.to_string_lossy().into_owned())
            .collect()
    }
}

fn is_hidden(path: &Path) -> bool {
    path.iter()
        .any(|part| part.to_string_lossy().starts_with("_bpf-pin-"))
}

/// What the child was about when it was stopped.
struct Moment {
    stops: Vec<Stop>,
}

impl Moment {
    /// How many such calls had succeeded by then.
    fn done(&self, name: &str) -> usize {
        self.stops.iter().filter(|stop| stop.has_done(name)).count()
    }

    fn has_done(&self, name: &str) -> bool {
        self.done(name) > 0
    }
}

/// At each stop of a child in turn, each time anew: an attack, and then the child goes on to its
/// end, which is judged.
fn at_each_stop(
    prepare: impl Fn(&Ground),
    run: impl Fn(&Ground, &PinDir) -> bpf_pin::Result<()>,
    attack: impl Fn(&Ground, &Moment),
    judge: impl Fn(&Ground, &Moment, Ended),
) {
    let fs = TestFs::new();
    at_each_stop_in(fs.root(), prepare, run, attack, judge);
}

fn at_each_stop_in(
    root: &Path,
    prepare: impl Fn(&Ground),
    run: impl Fn(&Ground, &PinDir) -> bpf_pin::Result<()>,
    attack: impl Fn(&Ground, &Moment),
    judge: impl Fn(&Ground, &Moment, Ended),
) {
    // What is asked once, of the kernel, is asked here for all children.
    let _ = std::hash::RandomState::new();
    let dir = PinDir::open(root).expect("the root");
    dir.get::<bpf_pin::Object>("nothing").unwrap_err();
    let end = Instant::now() + Duration::from_secs(2);
    let is_time = || Instant::now() < end || std::env::var_os(LONG).is_some();
    let mut attacks: usize = 0;
    loop {
        // Between an exit and the entry that follows the child does nothing of note: both stops
        // are one, if there is no time for both.
        if attacks > 0 && attacks % 2 == 0 && !is_time() {
            attacks += 1;
        }
        let ground = Ground::new(root.join(attacks.to_string()));
        prepare(&ground);
        let run = |dir: PinDir| Ended::code(run(&ground, &dir));
        let mut tracee = Tracee::fork(|| ground.dir(), run).expect("a child");
        let mut moment = Moment { stops: Vec::new() };
        for _ in 0..=attacks {
            match tracee.next().expect("a stop") {
                Some(stop) => moment.stops.push(stop),
                None => break,
            }
        }
        let is_over = moment.stops.len() <= attacks;
        if !is_over {
            attack(&ground, &moment);
        }
        let ended = Ended::of(tracee.finish().expect("an end"));
        if !is_over {
            judge(&ground, &moment, ended);
        }
        fs::remove_dir_all(&ground.root).expect("a clean end");
        if is_over {
            break;
        }
        attacks += 1;
    }
    assert!(attacks > 2, "attacked {attacks} times");
}

/// How a child has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Well,
    Replaced,
    Missing,
    SymbolicLink,
    NotAnObject,
    NotADirectory,
    MountPoint,
    Exists,
    NotBpffs,
    Removed,
    NotEmpty,
    /// No cause is named.
    Otherwise,
}

impl Ended {
    const ALL: [Self; 12] = [
        Self::Well,
        Self::Replaced,
        Self::Missing,
        Self::SymbolicLink,
        Self::NotAnObject,
        Self::NotADirectory,
        Self::MountPoint,
        Self::Exists,
        Self::NotBpffs,
        Self::Removed,
        Self::NotEmpty,
        Self::Otherwise,
    ];

    fn code(result: bpf_pin::Result<()>) -> u8 {
        let this = match &result {
            Ok(()) => Self::Well,
            Err(error) => Self::of_cause(error.cause()),
        };
        this as u8
    }

    fn of_cause(cause: Option<&Cause>) -> Self {
        match cause {
            Some(Cause::Replaced { .. }) => Self::Replaced,
            Some(Cause::Missing { .. }) => Self::Missing,
            Some(Cause::SymbolicLink { .. }) => Self::SymbolicLink,
            Some(Cause::NotAnObject { .. }) => Self::NotAnObject,
            Some(Cause::NotADirectory { .. }) => Self::NotADirectory,
            Some(Cause::MountPoint { .. }) => Self::MountPoint,
            Some(Cause::Exists { .. }) => Self::Exists,
            Some(Cause::NotBpffs { .. }) => Self::NotBpffs,
            Some(Cause::Removed { .. }) => Self::Removed,
            Some(Cause::NotEmpty { .. }) => Self::NotEmpty,
            _ => Self::Otherwise,
        }
    }

    fn of(code: u8) -> Self {
        let known = Self::ALL.into_iter().find(|&ended| ended as u8 == code);
        known.unwrap_or_else(|| panic!("the child has panicked: {code}"))
    }
}
