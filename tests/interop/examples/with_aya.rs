//! A loader with aya. Its map and its link outlive it. The next run upgrades the program under traffic.
//!
//! ```toml
//! [dependencies]
//! aya = "0.14"
//! bpf-pin = "0.1"
//! ```
//!
//! aya reads the object and loads the program. bpf-pin manages the map and the link: see `load` below.
//! Without arguments it runs all processes, as root, in its own network namespace and on its own bpffs. With arguments
//! it is one of these processes:
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

/// The loader. The first run creates everything. Later runs replace the program under traffic and keep the map. Several
/// loaders may run at once.
fn load(directory: &Path, ifindex: u32) -> Outcome {
    let app = PinDir::create(directory, 0o700)?;

    // aya does not check the pinned object. open_or_create does: it is a map that fits, or the error says why not.
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

    // aya keeps its descriptor. try_from proves that the clone is a program.
    let prog = Prog::try_from(count.fd()?.as_fd().try_clone_to_owned()?)?;
    // Each packet is handled by the old program or the new one. A link accepts only programs with the same
    // expected attach type: aya sets XDP. Your own programs must set it too, or the kernel rejects them:
    // ProgSpec::expected_attach_type(AttachType::XDP).
    let link = app.open_or_attach("link", &LinkSpec::xdp(ifindex), &prog)?;
    println!("program {}: {:?}", prog.id()?, link.attachment);
    Ok(())
}

/// Another process, without aya, which reads the count.
fn count(directory: &Path) -> Outcome<u64> {
    let packets = PinnedMap::open(directory.join("packets"))?;
    Ok(packets
        .elements::<u32, u64>()?
        .lookup(&0)?
        .ok_or("no element")?)
}
