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
use bpf_pin::reuse::Reuse;
use bpf_pin::{LinkSpec, MapSpec, MapType, PinDir, PinnedMap, Prog};
use peers::story::{self, Outcome};

fn main() -> ExitCode {
    story::main(load, count)
}

/// The loader. Run once it puts everything in place; run again it replaces the program under
/// traffic and keeps the map. Any number of them may run at once.
fn load(directory: &Path, ifindex: u32) -> Outcome {
    let app = PinDir::create(directory, 0o700)?;

    // aya takes whatever is pinned. This is a map, and it fits, or the error says in what it does not.
    let packets = MapSpec::new(MapType::ARRAY, 4, 8, 1).name("packets");
    let packets = app.open_or_create("packets", &packets, Reuse::Exact)?;
    println!("map {}: {:?}", packets.map.id()?, packets.outcome);

    // In your loader: aya::include_bytes_aligned!(…).
    let object = story::object();
    let mut ebpf = EbpfLoader::new()
        .map_pin_path("packets", directory.join("packets"))
        .load(&object)?;
    let count: &mut Xdp = ebpf.program_mut("count").ok_or("no program")?.try_into()?;
    count.load()?;

    // aya's descriptor stays aya's. A clone of it becomes ours, once it is proven to be a program's.
    let prog = Prog::try_from(count.fd()?.as_fd().try_clone_to_owned()?)?;
    // Each packet meets the old program or the new one. A link takes only programs that say the same of
    // where they belong: aya says XDP. So must one of your own, or the kernel refuses it here:
    // ProgSpec::expected_attach_type(AttachType::XDP).
    let link = app.open_or_attach("link", &LinkSpec::xdp(ifindex), &prog)?;
    println!("program {}: {:?}", prog.id()?, link.attachment);
    Ok(())
}

/// Another program, which has no aya: it reads what was counted.
fn count(directory: &Path) -> Outcome<u64> {
    let packets = PinnedMap::open(directory.join("packets"))?;
    Ok(packets
        .elements::<u32, u64>()?
        .lookup(&0)?
        .ok_or("no element")?)
}
