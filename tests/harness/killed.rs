//! Kills the other test programs at random moments, and checks that nothing is left.
//!
//! A process that outlives the program removes its files and control groups. Detached mounts, objects and locks end
//! with the last process that holds them. So do namespaces, unless a file of them is mounted: without processes and
//! mounts there are no namespaces.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::*;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::marked;

/// The environment variable with the seed, to repeat a failure.
const SEED: &str = "BPF_PIN_TEST_SEED";

/// The latest moment of a kill. On an emulated processor a program needs longer to start its first test.
fn latest() -> Duration {
    Duration::from_millis(if is_emulated() { 8000 } else { 800 })
}

#[common::test(&[cap::SYS_ADMIN, cap::NET_ADMIN])]
fn programs_that_are_killed_at_random_leave_nothing() -> Outcome {
    let mut random = match env::var(SEED) {
        Ok(seed) => seed.parse()?,
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64,
    };
    let seed = random;
    let mut next = |below: usize| {
        // Xorshift.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let mut programs = programs()?;
    assert!(programs.len() >= 10, "{programs:?}");
    for _ in 0..rounds(programs.len()).max(2) {
        let program = programs.swap_remove(next(programs.len()));
        let moment = latest().mul_f64(next(1000) as f64 / 1000.0);
        let whole_group = next(2) == 0;
        kill_at(&program, moment, whole_group).map_err(|error| {
            let how = if whole_group { ", its group" } else { "" };
            format!("{program:?} killed after {moment:?}{how}: {error}; {SEED}={seed}")
        })?;
    }
    Ok(())
}

/// The suite's other programs, which lie beside this one. Cargo may have added a hash to their names, and kept older
/// builds.
fn programs() -> Outcome<Vec<PathBuf>> {
    let this = env::current_exe()?;
    let directory = this.parent().expect("a directory");
    let own = stem(&this);
    let areas = include_str!("../Cargo.toml").lines();
    let areas = areas.filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    let others: Vec<_> = areas.filter(|area| *area != own).collect();
    let mut found: Vec<(&str, SystemTime, PathBuf)> = vec![];
    for name in marked::names(directory) {
        let path = directory.join(&name);
        let Some(area) = others.iter().find(|area| **area == stem(&path)) else {
            continue;
        };
        let metadata = path.metadata()?;
        if path.extension().is_none() && metadata.is_file() {
            found.push((area, metadata.modified()?, path));
        }
    }
    found.sort();
    found.reverse();
    found.dedup_by_key(|(area, ..)| *area);
    Ok(found.into_iter().map(|(.., path)| path).collect())
}

/// The name of a program without its hash.
fn stem(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    match name.rsplit_once('-') {
        Some((stem, hash)) if hash.len() == 16 => stem.to_owned(),
        _ => name.into_owned(),
    }
}

/// Runs the program, kills it or its process group after a time, and checks what is left.
fn kill_at(program: &Path, moment: Duration, whole_group: bool) -> Outcome {
    let place = tempfile::tempdir()?;
    let mark = place.path().to_str().expect("a path of ASCII");
    let mut program = command(program);
    program.env("TMPDIR", mark).process_group(0);
    program.stdin(Stdio::null()).stdout(Stdio::null());
    let mut program = program.stderr(Stdio::null()).spawn()?;
    sleep(moment);
    let temporary = marked::names(place.path());
    match whole_group {
        true => kill_process_group(Pid::from_child(&program), Signal::KILL)?,
        false => program.kill()?,
    }
    program.wait()?;
    wait_until("ended with its children", || marked::processes(mark) == 0);
    assert_empty("files", &marked::names(place.path()))?;
    let mut groups = marked::control_groups()?;
    groups.retain(|group| temporary.iter().any(|name| group.starts_with(name)));
    assert_empty("control groups", &groups)?;
    match marked::has_mounts(mark) {
        true => Err("mounts are left".into()),
        false => Ok(()),
    }
}

fn assert_empty(what: &str, left: &[String]) -> Outcome {
    match left {
        [] => Ok(()),
        left => Err(format!("{what} are left: {left:?}").into()),
    }
}
