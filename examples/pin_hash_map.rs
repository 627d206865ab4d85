//! A pinned BPF map outlives the process that created it.
//!
//! Without arguments, one process creates a hash map and pins it, a second one opens the pin and changes
//! an element, and a third one unpins the map, which is then freed. With arguments, one of these steps:
//!
//! ```text
//! pin_hash_map pin PATH | show PATH | set PATH KEY VALUE | unpin PATH
//! ```

#[path = "plumbing/exit.rs"]
mod exit;
#[path = "plumbing/root.rs"]
mod root;
#[path = "plumbing/say.rs"]
mod say;

use std::path::Path;
use std::process::{Command, ExitCode, id as pid};
use std::thread::sleep;
use std::time::Duration;

use bpf_pin::map::ElemFlags;
use bpf_pin::{Map, MapSpec, MapType, PinnedMap};

use exit::{Outcome, Usage, exit_code};
use say::say;

const USAGE: &str = "pin_hash_map [pin PATH | show PATH | set PATH KEY VALUE | unpin PATH]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        [] => story(),
        ["pin", path] => pin(path.as_ref()),
        ["show", path] => PinnedMap::open(path)
            .map_err(Into::into)
            .and_then(|map| show(&map)),
        ["set", path, key, value] => set(path.as_ref(), key, value),
        ["unpin", path] => unpin(path.as_ref()),
        _ => Err(Usage(USAGE).into()),
    };
    exit_code("pin_hash_map", outcome)
}

fn spec() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 8, 1024).name("flows")
}

fn pin(path: &Path) -> Outcome {
    let map = spec().create()?;
    let flows = map.elements::<u32, u64>()?;
    for key in 1..=3 {
        flows.update(&key, &(u64::from(key) * 100), ElemFlags::ANY)?;
    }
    let map = map.pin(path)?;
    let (id, path) = (map.id()?, path.display());
    say(format_args!("created map {id} and pinned it at {path}"))?;
    Ok(())
}

fn show(map: &Map) -> Outcome {
    let info = map.info()?;
    say(format_args!(
        "{:?} is map {}: {}, {} byte keys, {} byte values, at most {} entries",
        info.name.as_str(),
        info.id,
        info.map_type,
        info.key_size,
        info.value_size,
        info.max_entries,
    ))?;
    for entry in map.elements::<u32, u64>()?.iter() {
        let (key, value) = entry?;
        println!("  {key} => {value}");
    }
    Ok(())
}

fn set(path: &Path, key: &str, value: &str) -> Outcome {
    let number = |text: &str| format!("{text:?} is not a number that fits");
    let key: u32 = key.parse().map_err(|_| number(key))?;
    let value: u64 = value.parse().map_err(|_| number(value))?;
    let map = PinnedMap::open(path)?;
    show(&map)?;
    map.elements::<u32, u64>()?
        .update(&key, &value, ElemFlags::ANY)?;
    say(format_args!("set {key} => {value} in map {}", map.id()?))?;
    Ok(())
}

fn unpin(path: &Path) -> Outcome {
    let pinned = PinnedMap::open(path)?;
    show(&pinned)?;
    let id = pinned.id()?;
    let map = pinned.unpin()?;
    say(format_args!(
        "unpinned map {id}, which this process still has open"
    ))?;
    drop(map);
    // The kernel frees a map some time after its last reference is gone.
    for _ in 0..1000 {
        match Map::from_id(id) {
            Ok(_) => sleep(Duration::from_millis(5)),
            Err(error) if error.is_missing() => {
                say(format_args!("closed the descriptor, and map {id} is gone"))?;
                return Ok(());
            }
            Err(error) => {
                say(format_args!(
                    "closed the descriptor, but cannot check that map {id} was freed: {error}"
                ))?;
                return Ok(());
            }
        }
    }
    Err(format!("another process still uses map {id}").into())
}

/// Runs each step in a process of its own.
fn story() -> Outcome {
    println!("A pinned map outlives the process that created it.");
    // Fails before anything is pinned if this process may not create maps.
    spec().create()?;
    let root = root::root()?;
    let path = root.path().join(format!("pin_hash_map-{}", pid()));
    for step in [&["pin"][..], &["set", "2", "2222"], &["unpin"]] {
        let status = Command::new(std::env::current_exe()?)
            .arg(step[0])
            .arg(&path)
            .args(&step[1..])
            .status()?;
        if !status.success() {
            // Removes the pin of an earlier step.
            let _ = PinnedMap::open(&path).map(PinnedMap::unpin);
            return Err(format!("the step {} failed", step[0]).into());
        }
    }
    Ok(())
}
