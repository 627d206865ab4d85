//! The number of descriptors that a walk uses, and its errors at the limit.

use std::fs::{self, File};
use std::process::ExitCode;

use bpf_pin::{Error, PinDir};
use common::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::walk::DIRS;
use common::child_process::{self, ChildProcess};

/// Runs in a separate process, because the limit is per process.
#[common::test(DIRS)]
fn a_walk_reports_emfile_and_leaks_no_descriptor() -> Outcome {
    let fs = TestFs::new();
    let other = ChildProcess::start_ready(&fs, "descriptors", [fs.root()]);
    other.finish();
    assert!(fs.names().is_empty());
    Ok(())
}

fn open_descriptors() -> Vec<i32> {
    let numbers = fs::read_dir("/proc/self/fd").expect("/proc");
    // The list always contains the descriptor of this read, too.
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

/// Runs `call` with only `room` free descriptors.
fn with_free_descriptors<T>(room: u64, call: impl FnOnce() -> T) -> T {
    // Fills all numbers below the limit, so that there are no holes.
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

pub fn with_few_descriptors() -> ExitCode {
    let path = std::env::args_os().nth(1).expect("a path");
    let parent = PinDir::open(&path).expect("the directory");
    let dir = parent.create_dir("few", 0o700).expect("a directory");
    for name in ["a", "b", "c"] {
        let inner = dir.create_dir(name, 0o700).expect("a directory");
        inner.create_dir("below", 0o700).expect("a directory");
    }
    let before = open_descriptors().len();
    // A walk needs two descriptors for its root and two more for each level.
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
        };
        let walked = with_free_descriptors(room, || {
            // With too few descriptors the walk itself fails to start.
            let walk = dir.walk()?;
            let (mut entries, mut errors) = (0, Vec::new());
            for entry in walk {
                // An entry that is kept also keeps its directory's descriptor.
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
        let read = with_free_descriptors(room, || dir.entries().map(|entries| entries.count()));
        match room {
            0 => assert_full(&read.unwrap_err()),
            _ => assert_eq!(read.unwrap(), 3),
        }
        assert_eq!(open_descriptors().len(), before, "{room}");
    }
    // A walk that is dropped before its end closes all descriptors.
    let mut walk = dir.walk().expect("a walk");
    for _ in 0..2 {
        walk.next().expect("an entry").expect("an entry");
    }
    drop(walk);
    assert_eq!(open_descriptors().len(), before);
    parent.remove_dir_all("few").expect("a removal");
    child_process::send_line("ready");
    child_process::wait_for_release();
    ExitCode::SUCCESS
}
