//! Loaders replace a set of three maps in one step while a reader uses it.
//!
//! Each loader is a new process. It creates three maps that hold the number of its generation, and publishes
//! them in one step. Meanwhile a reader opens the set repeatedly and checks that all three maps have the same
//! generation. Without arguments, all processes run. With arguments, one of them:
//!
//! ```text
//! upgrade load DIRECTORY GENERATION | read DIRECTORY LAST_GENERATION
//! ```

#[path = "plumbing/exit.rs"]
mod exit;
#[path = "plumbing/root.rs"]
mod root;
#[path = "plumbing/say.rs"]
mod say;
#[path = "plumbing/times.rs"]
mod times;

use std::collections::BTreeSet;
use std::io::{Write, stdout};
use std::os::unix::process::parent_id;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use bpf_pin::dir::{LockMode, Wait};
use bpf_pin::error::Cause;
use bpf_pin::map::ElemFlags;
use bpf_pin::{Map, MapSpec, MapType, PinDir};

use exit::{Outcome, Usage, exit_code};
use say::say;
use times::times;

/// The directory of the set, and the pins of the maps in it.
const SET: &str = "current";
const MAPS: [&str; 3] = ["flows", "routes", "services"];

const GENERATIONS: u64 = 20;

const USAGE: &str = "upgrade [load DIRECTORY GENERATION | read DIRECTORY LAST_GENERATION]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        [] => story(),
        ["load", path, generation] => load(path.as_ref(), generation),
        ["read", path, last] => read(path.as_ref(), last),
        _ => Err(Usage(USAGE).into()),
    };
    exit_code("upgrade", outcome)
}

/// The loader: fills a set and then publishes it.
fn load(path: &Path, generation: &str) -> Outcome {
    let app = PinDir::open(path)?;
    let set = app.stage(SET)?;
    for name in MAPS {
        let map = MapSpec::new(MapType::ARRAY, 4, 8, 1).create()?;
        map.elements::<u32, u64>()?
            .update(&0_u32, &generation.parse::<u64>()?, ElemFlags::ANY)?;
        set.pin(&map, name)?;
    }
    // Removes the old set, unless a reader holds its lock.
    let published = set.publish().map_err(bpf_pin::Error::from)?;
    let gap = match published.had_gap {
        false => "without a gap",
        true => "with a gap, because this kernel cannot exchange two names",
    };
    say(format_args!("published generation {generation} {gap}"))?;
    Ok(())
}

/// The result of opening the set by its name.
enum Found {
    Generations([u64; 3]),
    /// Another set, because it was replaced after it was opened and before it was locked.
    Replaced,
    /// Nothing.
    Missing,
}

fn read_set(app: &PinDir) -> Outcome<Found> {
    let set = match app.open_dir(SET) {
        Err(error) if error.is_missing() => return Ok(Found::Missing),
        set => set?,
    };
    // No loader removes pins of this set until the lock is dropped.
    let _lock = match set.lock(LockMode::Shared, Wait::Forever) {
        Err(error) if matches!(error.cause(), Some(Cause::Moved { .. })) => {
            return Ok(Found::Replaced);
        }
        lock => lock?,
    };
    let mut generations = [0; 3];
    for (name, generation) in MAPS.iter().zip(&mut generations) {
        let map: Map = set.get(name)?;
        *generation = map.elements::<u32, u64>()?.lookup(&0)?.unwrap_or_default();
    }
    Ok(Found::Generations(generations))
}

/// The reader: runs until it has read the last generation, or its parent process has ended.
fn read(path: &Path, last: &str) -> Outcome {
    let (app, parent) = (PinDir::open(path)?, parent_id());
    let (last, mut seen) = (last.parse::<u64>()?, BTreeSet::new());
    let (mut reads, mut retries, mut missed) = (0, 0, 0);
    while !seen.contains(&last) && parent_id() == parent {
        match read_set(&app)? {
            Found::Generations(found) => {
                reads += 1;
                if found != [found[0]; 3] || seen.last() > Some(&found[0]) {
                    let last = seen.last().unwrap_or(&0);
                    return Err(format!("read generations {found:?} after {last}").into());
                }
                seen.insert(found[0]);
            }
            Found::Replaced => retries += 1,
            Found::Missing => missed += 1,
        }
    }
    let (reads, retries, seen) = (times(reads), times(retries), seen.len());
    say(format_args!(
        "read the set {reads}, and retried {retries} because it was replaced in between"
    ))?;
    say(format_args!(
        "saw {seen} of {last} generations, and never a mix"
    ))?;
    match missed {
        0 => say("never missed the set"),
        _ => say(format_args!("missed the set {}", times(missed))),
    }?;
    Ok(())
}

fn story() -> Outcome {
    writeln!(
        stdout(),
        "Loaders replace a set of three maps in one step while a reader uses it."
    )?;
    let root = root::root()?;
    // Removes what an interrupted run left.
    root.remove_leftovers()?;
    // A stage that is never published is removed when it is dropped.
    let app = root.stage("upgrade")?;
    let start = |step: &str, number: u64| {
        let mut process = Command::new(std::env::current_exe()?);
        process.arg(step).arg(app.path()).arg(number.to_string());
        process.stdout(Stdio::piped()).spawn()
    };
    let end = |process: Child| -> Outcome<String> {
        let output = process.wait_with_output()?;
        let text = String::from_utf8(output.stdout)?;
        stdout().write_all(text.as_bytes())?;
        match output.status.success() {
            true => Ok(text),
            false => Err("a process of this example failed".into()),
        }
    };
    end(start("load", 1)?)?;
    let reader = start("read", GENERATIONS)?;
    let mut had_gap = false;
    for generation in 2..=GENERATIONS {
        sleep(Duration::from_millis(20));
        had_gap |= end(start("load", generation)?)?.contains("with a gap");
    }
    let never_missed = end(reader)?.contains("never missed");
    if had_gap {
        writeln!(
            stdout(),
            "Since Linux 5.17 a set is published without a gap."
        )?;
    } else if !never_missed {
        return Err("the reader missed the set although there was no gap".into());
    }
    Ok(())
}
