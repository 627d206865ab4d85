//! The entries of a live process are kept until it ends.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bpf_pin::{Error, Map, PinDir};
use common::*;
use rustix::thread::CapabilitySet;

use crate::bulk_removal::{PINS, USER, app, names, removed};
use common::child_process::{self, ChildProcess};

/// An upper limit for waits that end early on every machine.
const TIME_LIMIT: Duration = Duration::from_secs(40);

/// Another process, which runs one task.
pub fn child(task: &str) -> ExitCode {
    let path = std::env::args_os().nth(1).expect("a path");
    let dir = PinDir::open(&path).expect("the directory");
    match task {
        "stage" => {
            let stage = dir.stage("set").expect("a stage");
            stage.pin(&hash(), "map").expect("a pin");
            child_process::send_line("ready");
            child_process::wait_for_release();
            stage.publish().expect("it is published");
        }
        "work" => {
            let (map, own) = (hash(), format!("set{}", std::process::id()));
            child_process::send_line("ready");
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
            child_process::send_line(rounds);
            child_process::wait_for_release();
        }
        other => panic!("{other}"),
    }
    ExitCode::SUCCESS
}

#[common::test(PINS)]
fn a_stage_of_this_process_is_kept() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let stage = dir.stage("set")?;
    stage.pin(&hash(), "map")?;
    let hidden = names(&dir)?;
    assert_eq!(hidden.len(), 1);
    assert!(hidden[0].starts_with("_bpf-pin-"), "{hidden:?}");
    let other = PinDir::open(fs.at("app"))?;
    for dir in [&dir, &other] {
        assert!(removed(&dir.remove_leftovers()?).is_empty());
    }
    // A removal by predicate keeps its own process's stage, too, even if the predicate selects everything.
    assert!(
        dir.entries()?
            .all(|entry| entry.is_ok_and(|entry| entry.is_hidden()))
    );
    assert!(removed(&dir.remove_where_dry_run(|_| true)?).is_empty());
    assert!(removed(&dir.remove_where(|_| true)?).is_empty());
    assert_eq!(names(&stage)?, ["map"]);
    stage.publish().map_err(Error::from)?;
    assert!(removed(&other.remove_leftovers()?).is_empty());
    assert_eq!(names(&dir)?, ["set"]);
    Ok(())
}

#[common::test(PINS)]
fn a_stage_of_another_process_is_kept_until_it_ends() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let mut other = ChildProcess::start_ready(&fs, "stage", [fs.at("app")]);
    let hidden = names(&dir)?;
    assert_eq!(hidden.len(), 1);
    for _ in 0..3 {
        assert!(removed(&dir.remove_leftovers()?).is_empty());
    }
    assert_eq!(names(&dir.open_dir(&hidden[0])?)?, ["map"]);
    other.release();
    other.finish();
    assert_eq!(names(&dir)?, ["set"]);
    assert_eq!(names(&dir.open_dir("set")?)?, ["map"]);

    // A killed process no longer needs its stage.
    let other = ChildProcess::start_ready(&fs, "stage", [fs.at("app")]);
    let mut hidden = names(&dir)?;
    hidden.retain(|name| name != "set");
    assert_eq!(hidden.len(), 1);
    assert!(removed(&dir.remove_leftovers()?).is_empty());
    other.kill();
    assert_eq!(names(&dir)?.len(), 2, "only remove_leftovers removes it");
    let begun = Instant::now();
    loop {
        // A process that is starting may hold a copy of the lock for a moment.
        let report = dir.remove_leftovers()?;
        if !removed(&report).is_empty() {
            assert_eq!(removed(&report), hidden);
            break;
        }
        assert!(begun.elapsed() < TIME_LIMIT);
    }
    assert_eq!(names(&dir)?, ["set"]);
    assert_eq!(names(&dir.open_dir("set")?)?, ["map"]);
    Ok(())
}

/// A cleanup must open a stage to see its lock. It keeps the stage, and its mode, even if the mode denies that.
#[common::test(USER)]
fn a_stage_is_kept_with_its_mode() -> Outcome {
    let fs = TestFs::detached("1777");
    as_user(CapabilitySet::empty(), || -> Outcome {
        let dir = PinDir::create(fs.at("app"), 0o700)?;
        let other = PinDir::open(fs.at("app"))?;
        for mode in [0o311, 0o000, 0o1733, 0o370, 0o200, 0o077, 0o700] {
            let stage = dir.stage("set")?;
            stage.chmod(mode)?;
            let report = other.remove_leftovers()?;
            assert!(report.failed.is_empty(), "{mode:o}: {:?}", report.failed);
            assert!(removed(&report).is_empty(), "{mode:o}");
            assert_eq!(stage.own_metadata()?.mode(), mode);
            stage.chmod(0o700)?;
        }
        assert_eq!(names(&dir)?, [""; 0]);
        // A leftover of a dead process is removed even if its mode denies access.
        for mode in [0o311, 0o000, 0o500] {
            let name = "_bpf-pin-0000000000000001-0-dir";
            dir.create_dir(name, mode)?;
            let report = other.remove_leftovers()?;
            assert!(report.failed.is_empty(), "{mode:o}: {:?}", report.failed);
            assert_eq!(removed(&report), [name], "{mode:o}");
        }
        Ok(())
    })
}

/// Two processes replace, stage, publish and remove, while this one removes leftovers.
#[common::test(PINS)]
fn remove_leftovers_does_not_disturb_live_processes() -> Outcome {
    let fs = TestFs::new();
    let dir = app(&fs)?;
    let mut others: Vec<_> = (0..2)
        .map(|_| ChildProcess::start_ready(&fs, "work", [fs.at("app")]))
        .collect();
    let (mut cleanups, mut found) = (0, 0);
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end || cleanups < 5 {
        let report = dir.remove_leftovers()?;
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        for name in &report.removed {
            // A cleanup may take an entry that its owner is removing, but never a pin that is being published.
            let name = name.to_str().unwrap();
            assert!(name.starts_with("_bpf-pin-"), "{name}");
            found += 1;
        }
        cleanups += 1;
    }
    for other in &mut others {
        let rounds: usize = other.read_line().parse()?;
        assert!(rounds > 0);
    }
    for other in others {
        other.finish();
    }
    println!("{cleanups} removals during work, which found {found} names to remove");
    let begun = Instant::now();
    while names(&dir)? != ["name"] {
        dir.remove_leftovers()?;
        assert!(begun.elapsed() < TIME_LIMIT, "{:?}", names(&dir)?);
    }
    dir.get::<Map>("name")?;
    Ok(())
}
