//! A loader with libbpf-rs. Its map and its link outlive it. The next run upgrades the program under traffic.
//!
//! ```toml
//! [dependencies]
//! libbpf-rs = "0.27"
//! bpf-pin = "0.1"
//! ```
//!
//! libbpf reads the object and loads the program. bpf-pin manages the map and the link: see `load` below.
//! Without arguments it runs all processes, as root, in its own network namespace and on its own bpffs. With arguments
//! it is one of these processes:
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

/// The loader. The first run creates everything. Later runs replace the program under traffic and keep the map. Several
/// loaders may run at once.
fn load(directory: &Path, ifindex: u32) -> Outcome {
    let app = PinDir::create(directory, 0o700)?;

    // The pin is a map that fits, or the error says why not.
    let packets = MapSpec::new(MapType::ARRAY, 4, 8, 1).name("packets");
    let packets = app.open_or_create("packets", &packets, Reuse::Exact)?;
    println!("map {}: {:?}", packets.map.id()?, packets.outcome);

    // In your loader: a skeleton's open, or open_file.
    let mut open = ObjectBuilder::default().open_memory(&story::object())?;
    let mut maps = open.maps_mut();
    let mut map = maps.find(|map| map.name() == "packets").ok_or("no map")?;
    // libbpf does not check the descriptor.
    map.reuse_fd(packets.map.as_fd())?;
    drop(maps);
    let object = open.load()?;

    // libbpf keeps its descriptor. try_from proves that the clone is a program.
    let mut progs = object.progs();
    let count = progs
        .find(|prog| prog.name() == "count")
        .ok_or("no program")?;
    let prog = Prog::try_from(count.as_fd().try_clone_to_owned()?)?;
    // Each packet is handled by the old program or the new one. A link accepts only programs with the same
    // expected attach type: libbpf sets XDP. Your own programs must set it too, or the kernel rejects them:
    // ProgSpec::expected_attach_type(AttachType::XDP).
    let link = app.open_or_attach("link", &LinkSpec::xdp(ifindex), &prog)?;
    println!("program {}: {:?}", prog.id()?, link.attachment);
    Ok(())
}

/// Another process, without libbpf, which reads the count.
fn count(directory: &Path) -> Outcome<u64> {
    let packets = PinnedMap::open(directory.join("packets"))?;
    Ok(packets
        .elements::<u32, u64>()?
        .lookup(&0)?
        .ok_or("no element")?)
}
