//! Another process that migrates beside a stopped one.

use bpf_pin::PinDir;
use bpf_pin::error::Cause;
use bpf_pin::reuse::Reuse;
use common::{Need, TestFs, Tracee, cap, syscalls};

use super::{CASES, Seen, grow, migration, open_or_create, see, start};

const PINS: &[Need] = &[cap::BPF, Need::Bpffs];

/// The number of stops at fcntl(2) in a row, without a call of bpf(2), after which a process is waiting for a lock.
const WAITING: usize = 60;

pub enum Outcome {
    /// It has completed a migration.
    Resumed,
    Other,
    /// The stopped process has excluded it.
    Excluded,
    /// It was killed while it waited for a lock of the stopped process.
    Waited,
}

/// Migrates in another process. If that waits for a lock of the stopped process, it is killed unless it `may_wait`.
pub fn migrate(dir: &PinDir, may_wait: bool, what: &str) -> Outcome {
    let path = dir.path().to_owned();
    let run = |dir: PinDir| match open_or_create(&dir, Reuse::Migrate(&mut grow())) {
        Ok(reused) => match migration(reused).map(|m| m.commit().unwrap()) {
            Some(_) => 1,
            None => 0,
        },
        Err(error) if matches!(error.cause(), Some(Cause::Locked | Cause::Migrating)) => 2,
        Err(error) => panic!("{error}"),
    };
    let mut other = Tracee::fork(|| PinDir::open(path).unwrap(), run).unwrap();
    let mut tries = 0;
    while let Some(stop) = other.next().unwrap() {
        match stop.nr {
            syscalls::FCNTL => tries += 1,
            libc::SYS_bpf => tries = 0,
            _ => {}
        }
        if tries == WAITING && !may_wait {
            other.kill().unwrap();
            return Outcome::Waited;
        }
    }
    match other.finish().unwrap() {
        0 => Outcome::Other,
        1 => Outcome::Resumed,
        2 => Outcome::Excluded,
        code => panic!("{what}: the other process ended with {code}"),
    }
}

/// A process that is stopped while it holds the lock for a new pin delays others, but not forever.
#[common::test_alone(PINS)]
fn creation_beside_a_stopped_owner_of_the_lock_fails_after_a_wait() {
    let fs = TestFs::new();
    let dir = PinDir::open(fs.root()).unwrap();
    let mut owner = start(&CASES[0], fs.root().to_owned());
    while owner.next().unwrap().expect("a pin").name() != "OBJ_PIN" {}
    let error = open_or_create(&dir, Reuse::Exact).unwrap_err();
    assert!(matches!(error.cause(), Some(Cause::Locked)), "{error}");
    assert_eq!(owner.finish().unwrap(), 0);
    assert_eq!(see(&dir), Seen::Empty);
}
