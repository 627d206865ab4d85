//! Three maps are replaced as one under a running reader, generation by generation.
//!
//! A loader, a new process each time, makes three maps that hold its generation's number, and
//! publishes them at once. All the while a reader opens the set again and again and looks whether
//! the three agree. Without arguments: the whole story. With arguments, one of its processes:
//!
//! ```text
//! upgrade load DIRECTORY GENERATION | read DIRECTORY LAST_GENERATION
//! ```

#[path = "plumbing/root.rs"]
mod root;

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{Write, stderr, stdout};
use std::os::unix::process::parent_id;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio, id as pid};
use std::thread::sleep;
use std::time::Duration;

use bpf_pin::dir::{LockMode, Wait};
use bpf_pin::error::Cause;
use bpf_pin::map::ElemFlags;
use bpf_pin::{Map, MapSpec, MapType, PinDir};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The set, and the maps in it.
const SET: &str = "current";
const MAPS: [&str; 3] = ["flows", "routes", "services"];

const GENERATIONS: u64 = 20;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        [] => story(),
        ["load", path, generation] => load(path.as_ref(), generation),
        ["read", path, last] => read(path.as_ref(), last),
        _ => Err("usage: upgrade [load DIRECTORY GENERATION | read DIRECTORY LAST]".into()),
    };
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    // Who started it may be gone, and with it whoever would read this.
    let _ = writeln!(stderr(), "upgrade: {error}");
    ExitCode::FAILURE
}

/// The loader: a whole set, and then its name.
fn load(path: &Path, generation: &str) -> Outcome {
    let app = PinDir::open(path)?;
    let set = app.stage(SET)?;
    for name in MAPS {
        let map = MapSpec::new(MapType::ARRAY, 4, 8, 1).create()?;
        map.elements::<u32, u64>()?
            .update(&0_u32, &generation.parse::<u64>()?, ElemFlags::ANY)?;
        set.pin(&map, name)?;
    }
    // Whoever still reads the old set holds its lock and keeps it; else it is removed here.
    let published = set.publish().map_err(bpf_pin::Error::from)?;
    let gap = match published.had_gap {
        false => "without a gap",
        true => "with a gap, for this kernel cannot exchange two names",
    };
    writeln!(
        stdout(),
        "process {}: published generation {generation} {gap}",
        pid()
    )?;
    Ok(())
}

/// What there is to see for one who looks.
enum Look {
    Generations([u64; 3]),
    /// The set was replaced between the moment it was opened and the moment it was locked.
    Replaced,
    /// Nothing had its name.
    Missed,
}

fn look(app: &PinDir) -> Outcome<Look> {
    let set = match app.open_dir(SET) {
        Err(error) if error.is_missing() => return Ok(Look::Missed),
        set => set?,
    };
    // Nobody removes anything from it until this is dropped.
    let _lock = match set.lock(LockMode::Shared, Wait::Forever) {
        Err(error) if matches!(error.cause(), Some(Cause::Moved { .. })) => {
            return Ok(Look::Replaced);
        }
        lock => lock?,
    };
    let mut found = [0; 3];
    for (name, found) in MAPS.iter().zip(&mut found) {
        let map: Map = set.get(name)?;
        *found = map.elements::<u32, u64>()?.lookup(&0)?.unwrap_or_default();
    }
    Ok(Look::Generations(found))
}

/// The reader: until it has seen the last generation, or who started it is gone.
fn read(path: &Path, last: &str) -> Outcome {
    let (app, parent) = (PinDir::open(path)?, parent_id());
    let (last, mut seen) = (last.parse::<u64>()?, BTreeSet::new());
    let (mut looks, mut again, mut missed) = (0, 0, 0);
    while !seen.contains(&last) && parent_id() == parent {
        looks += 1;
        match look(&app)? {
            Look::Generations(found) => {
                if found != [found[0]; 3] || seen.last() > Some(&found[0]) {
                    return Err(format!("saw {found:?} after {:?}", seen.last()).into());
                }
                seen.insert(found[0]);
            }
            Look::Replaced => again += 1,
            Look::Missed => missed += 1,
        }
    }
    let (pid, seen) = (pid(), seen.len());
    writeln!(
        stdout(),
        "process {pid}: looked {looks} times, and {again} times of these had to look again"
    )?;
    writeln!(
        stdout(),
        "process {pid}: saw {seen} of {last} generations, and never a mix"
    )?;
    match missed {
        0 => writeln!(stdout(), "process {pid}: never missed the set"),
        _ => writeln!(stdout(), "process {pid}: missed the set {missed} times"),
    }?;
    Ok(())
}

fn story() -> Outcome {
    let root = root::root()?;
    // What is left of a story that was interrupted.
    root.remove_leftovers()?;
    // A stage that is never published: a directory for as long as this process lives.
    let app = root.stage("upgrade")?;
    let start = |step: &str, number: u64| {
        let mut process = Command::new(std::env::current_exe()?);
        process.arg(step).arg(app.path()).arg(number.to_string());
        process.stdout(Stdio::piped()).spawn()
    };
    let end = |process: Child| -> Outcome<String> {
        let output = process.wait_with_output()?;
        let said = String::from_utf8(output.stdout)?;
        stdout().write_all(said.as_bytes())?;
        match output.status.success() {
            true => Ok(said),
            false => Err("one of the processes failed".into()),
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
            "From Linux 5.17 on there is no gap to miss the set in."
        )?;
    } else if !never_missed {
        return Err("there was no gap, and the reader missed the set".into());
    }
    Ok(())
}
