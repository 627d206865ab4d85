//! A loader that has aya, and what to add to it: its map and its link outlive it, and the next one
//! upgrades the program under traffic.
//!
//! ```toml
//! [dependencies]
//! aya = "0.14"
//! bpf-pin = "0.1"
//! ```
//!
//! aya reads the object and loads the program, as before. What stays is bpf-pin's: `load` below.
//! Without arguments: the whole story, as root, in a network and on a bpffs of its own. With
//! arguments, one of its processes:
//!
//! ```text
//! with_aya load DIRECTORY IFINDEX | count DIRECTORY
//! ```

use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use aya::EbpfLoader;
use aya::programs::Xdp;
use bpf_pin::{Cause, Link, LinkSpec, Map, MapType, PinDir, Pinnable, PinnedMap, Prog};
use peers::story::{self, Outcome};

fn main() -> ExitCode {
    story::main(load, count)
}

/// The loader. Run once it puts everything in place; run again it replaces the program under
/// traffic and keeps the map.
fn load(directory: &Path, ifindex: u32) -> Outcome {
    let app = PinDir::create(directory, 0o700)?;
    // One loader at a time; a killed one holds no lock.
    let _lock = app.lock()?;

    // aya takes whatever has the name: what it is, and whether it fits, is asked before.
    if let Some(map) = if_there::<Map>(&app, "packets")? {
        let info = map.info()?;
        if (info.map_type, info.key_size, info.value_size) != (MapType::ARRAY, 4, 8) {
            return Err(format!("packets is another's: {info:?}").into());
        }
    }
    // In your loader: aya::include_bytes_aligned!(…).
    let object = story::object();
    let mut ebpf = EbpfLoader::new()
        // Opened where it is there, made and pinned where it is not.
        .map_pin_path("packets", directory.join("packets"))
        .load(&object)?;
    let count: &mut Xdp = ebpf.program_mut("count").ok_or("no program")?.try_into()?;
    count.load()?;

    // aya's descriptor stays aya's. A clone of it becomes ours, once it is proven to be a program's.
    let prog = Prog::try_from(count.fd()?.as_fd().try_clone_to_owned()?)?;
    match if_there::<Link>(&app, "link")? {
        // Each packet meets the old program or the new one.
        Some(link) => link.update(&prog)?,
        None => app.pin(LinkSpec::xdp(ifindex).create(&prog)?, "link")?,
    }
    // For whoever looks at it: the link alone keeps it running.
    app.replace(&prog, "count")?;
    println!("loaded program {}", prog.id()?);
    Ok(())
}

/// Another program, which has no aya: it reads what was counted.
fn count(directory: &Path) -> Outcome<u64> {
    let packets = PinnedMap::open(directory.join("packets"))?;
    Ok(packets
        .typed::<u32, u64>()?
        .lookup(&0)?
        .ok_or("no element")?)
}

/// What is pinned under this name; None where nothing is.
fn if_there<T: Pinnable>(dir: &PinDir, name: &str) -> Outcome<Option<T>> {
    match dir.open_as(name) {
        Ok(object) => Ok(Some(object)),
        Err(error) if matches!(error.cause(), Some(Cause::Missing { .. })) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
