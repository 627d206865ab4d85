//! A loader that has libbpf-rs, and what to add to it: its map and its link outlive it, and the
//! next one upgrades the program under traffic.
//!
//! ```toml
//! [dependencies]
//! libbpf-rs = "0.27"
//! bpf-pin = "0.1"
//! ```
//!
//! libbpf reads the object and loads the program, as before. What stays is bpf-pin's: `load` below.
//! Without arguments: the whole story, as root, in a network and on a bpffs of its own. With
//! arguments, one of its processes:
//!
//! ```text
//! with_libbpf_rs load DIRECTORY IFINDEX | count DIRECTORY
//! ```

use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use bpf_pin::{Cause, Link, LinkSpec, Map, MapType, PinDir, Pinnable, PinnedMap, Prog};
use libbpf_rs::{MapCore, ObjectBuilder};
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

    // In your loader: a skeleton's open, or open_file.
    let mut open = ObjectBuilder::default().open_memory(&story::object())?;
    let packets = if_there::<Map>(&app, "packets")?;
    if let Some(packets) = &packets {
        // libbpf takes any descriptor: that this is a map is proven, whether it fits is asked here.
        let info = packets.info()?;
        if (info.map_type, info.key_size, info.value_size) != (MapType::ARRAY, 4, 8) {
            return Err(format!("packets is another's: {info:?}").into());
        }
        let mut maps = open.maps_mut();
        let mut map = maps.find(|map| map.name() == "packets").ok_or("no map")?;
        map.reuse_fd(packets.as_fd())?;
    }
    let object = open.load()?;

    // libbpf's descriptors stay libbpf's. Clones of them become ours, each proven to be what it is.
    if packets.is_none() {
        let map = object
            .maps()
            .find(|map| map.name() == "packets")
            .ok_or("no map")?;
        app.pin(Map::try_from(map.as_fd().try_clone_to_owned()?)?, "packets")?;
    }
    let count = object
        .progs()
        .find(|prog| prog.name() == "count")
        .ok_or("no program")?;
    let prog = Prog::try_from(count.as_fd().try_clone_to_owned()?)?;
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

/// Another program, which has no libbpf: it reads what was counted.
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
