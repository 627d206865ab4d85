//! Stops a child process at each of its system calls, and changes its directory in between.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bpf_pin::error::Cause;
use bpf_pin::{Map, PinDir, Prog};
use common::*;

/// The environment variable that makes the tests try all stops, however long that takes.
pub const LONG: &str = "BPF_PIN_TESTS_LONG";

pub const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

/// A directory for one attack, with our map, a program that replaces it, and the attacker's map.
pub struct Fixture {
    pub root: PathBuf,
    pub ours: Map,
    pub new: Prog,
    pub theirs: Map,
}

impl Fixture {
    pub fn new(root: PathBuf) -> Self {
        fs::create_dir(&root).expect("a directory");
        let (ours, new, theirs) = (hash(), prog(), hash());
        Self {
            root,
            ours,
            new,
            theirs,
        }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn dir(&self) -> PinDir {
        PinDir::open(&self.root).expect("the directory")
    }

    /// Pins `map` in the directory, from outside the library's call.
    pub fn pin(&self, map: &Map, name: &str) {
        let pinned = map.try_clone().unwrap().pin(self.at(name));
        pinned.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Pins the attacker's map under `name`, in place of anything but a directory.
    pub fn pin_theirs(&self, name: &str) {
        self.pin(&self.theirs, "put");
        fs::rename(self.at("put"), self.at(name)).expect("a rename");
    }

    pub fn has(&self, name: &str, map: &Map) -> bool {
        pinned_identity(&self.at(name)).is_some_and(|holder| holder.id == map.id().unwrap())
    }

    pub fn hidden_names(&self) -> Vec<String> {
        let names = tree(&self.root).into_keys();
        let hidden = names.filter(|path| is_hidden(path));
        hidden
            .map(|path| path.to_string_lossy().into_owned())
            .collect()
    }
}

pub fn is_hidden(path: &Path) -> bool {
    path.iter()
        .any(|part| part.to_string_lossy().starts_with("_bpf-pin-"))
}

/// The progress of the child when it was stopped.
pub struct Progress {
    pub stops: Vec<Stop>,
}

impl Progress {
    /// The number of successful calls of this name.
    pub fn count_of(&self, name: &str) -> usize {
        self.stops
            .iter()
            .filter(|stop| stop.is_success_of(name))
            .count()
    }

    pub fn has_called(&self, name: &str) -> bool {
        self.count_of(name) > 0
    }
}

/// Runs a child once for each of its stops. At that stop `attack` runs, then the child continues to its end,
/// and `check` examines the result.
pub fn at_each_stop(
    prepare: impl Fn(&Fixture),
    run: impl Fn(&Fixture, &PinDir) -> bpf_pin::Result<()>,
    attack: impl Fn(&Fixture, &Progress),
    check: impl Fn(&Fixture, &Progress, ChildResult),
) {
    let fs = TestFs::new();
    at_each_stop_in(fs.root(), prepare, run, attack, check);
}

pub fn at_each_stop_in(
    root: &Path,
    prepare: impl Fn(&Fixture),
    run: impl Fn(&Fixture, &PinDir) -> bpf_pin::Result<()>,
    attack: impl Fn(&Fixture, &Progress),
    check: impl Fn(&Fixture, &Progress, ChildResult),
) {
    // Calls that are made once for each process are made here, before the children are forked.
    let _ = std::hash::RandomState::new();
    let dir = PinDir::open(root).expect("the root");
    dir.get::<bpf_pin::Object>("nothing").unwrap_err();
    let end = Instant::now() + Duration::from_secs(2);
    let is_time = || Instant::now() < end || std::env::var_os(LONG).is_some();
    let mut attacks: usize = 0;
    loop {
        // Between the exit of a call and the next entry the child does nothing of interest. So one of the two
        // stops is enough if time is short.
        if attacks > 0 && attacks % 2 == 0 && !is_time() {
            attacks += 1;
        }
        let fixture = Fixture::new(root.join(attacks.to_string()));
        prepare(&fixture);
        let run = |dir: PinDir| ChildResult::code(run(&fixture, &dir));
        let mut tracee = Tracee::fork(|| fixture.dir(), run).expect("a child");
        let mut progress = Progress { stops: Vec::new() };
        for _ in 0..=attacks {
            match tracee.next().expect("a stop") {
                Some(stop) => progress.stops.push(stop),
                None => break,
            }
        }
        let is_over = progress.stops.len() <= attacks;
        if !is_over {
            attack(&fixture, &progress);
        }
        let result = ChildResult::of(tracee.finish().expect("an end"));
        if !is_over {
            check(&fixture, &progress, result);
        }
        fs::remove_dir_all(&fixture.root).expect("a clean end");
        if is_over {
            break;
        }
        attacks += 1;
    }
    assert!(attacks > 2, "attacked {attacks} times");
}

/// The result of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildResult {
    Succeeded,
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
    /// Another cause, or none.
    Other,
}

impl ChildResult {
    pub const ALL: [Self; 12] = [
        Self::Succeeded,
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
        Self::Other,
    ];

    pub fn code(result: bpf_pin::Result<()>) -> u8 {
        let this = match &result {
            Ok(()) => Self::Succeeded,
            Err(error) => Self::of_cause(error.cause()),
        };
        this as u8
    }

    pub fn of_cause(cause: Option<&Cause>) -> Self {
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
            _ => Self::Other,
        }
    }

    pub fn of(code: u8) -> Self {
        let known = Self::ALL.into_iter().find(|&result| result as u8 == code);
        known.unwrap_or_else(|| panic!("the child has panicked: {code}"))
    }
}
