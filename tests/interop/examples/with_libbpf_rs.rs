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

use bpf_pin::reuse::Reuse;
use bpf_pin::{LinkSpec, MapSpec, MapType, PinDir, PinnedMap, Prog};
use libbpf_rs::ObjectBuilder;
use peers::story::{self, Outcome};

fn main() -> ExitCode {
    story::main(load, count)
}

/// The loader. Run once it puts everything in place; run again it replaces the program under
/// traffic and keeps the map. Any number of them may run at once.
fn load(directory: &Path, ifindex: u32) -> Outcome {
    let app = PinDir::create(directory, 0o700)?;

    // This is a map, and it fits, or the error says in what it does not.
    let packets = MapSpec::new(MapType::ARRAY, 4, 8, 1).name("packets");
    let packets = app.open_or_create("packets", &packets, Reuse::Exact)?;
    println!("map {}: {:?}", packets.map.id()?, packets.outcome);

    // In your loader: a skeleton's open, or open_file.
    let mut open = ObjectBuilder::default().open_memory(&story::object())?;
    let mut maps = open.maps_mut();
    let mut map = maps.find(|map| map.name() == "packets").ok_or("no map")?;
    // libbpf takes any descriptor.
    map.reuse_fd(packets.map.as_fd())?;
    drop(maps);
    let object = open.load()?;

    // libbpf's descriptor stays libbpf's. A clone of it becomes ours, once it is proven to be a
    // program's.
    let mut progs = object.progs();
    let count = progs
        .find(|prog| prog.name() == "count")
        .ok_or("no program")?;
    let prog = Prog::try_from(count.as_fd().try_clone_to_owned()?)?;
    // Each packet meets the old program or the new one. A link takes only programs that say the same of
    // where they belong: libbpf says XDP. So must one of your own, or the kernel refuses it here:
    // ProgSpec::expected_attach_type(AttachType::XDP).
    let link = app.open_or_attach("link", &LinkSpec::xdp(ifindex), &prog)?;
    println!("program {}: {:?}", prog.id()?, link.attachment);
    Ok(())
}

/// Another program, which has no libbpf: it reads what was counted.
fn count(directory: &Path) -> Outcome<u64> {
    let packets = PinnedMap::open(directory.join("packets"))?;
    Ok(packets
        .elements::<u32, u64>()?
        .lookup(&0)?
        .ok_or("no element")?)
}
