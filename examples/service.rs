//! A loader runs under systemd as an ordinary user with two capabilities, and its program stays attached when
//! it exits.
//!
//! The unit is packets.service, beside this file. What a loader needs from it:
//!
//! | need | in the unit |
//! |---|---|
//! | a bpffs: mounting one takes CAP_SYS_ADMIN, and systemd's own on /sys/fs/bpf is root's, with mode 0700 | `ExecStartPre=+… prepare` |
//! | a directory in which it may pin | the root of that bpffs, which belongs to the user |
//! | CAP_BPF to create maps and to load programs | `AmbientCapabilities=` |
//! | CAP_NET_ADMIN too to load a program for XDP, tc or a control group's sockets | the same |
//! | CAP_PERFMON instead, to load one for tracing | the same |
//! | no limit on locked memory, before Linux 5.11 | `LimitMEMLOCK=` |
//!
//! Pinning and opening pins take no capability, only permission for the directory and the pin.
//!
//! Without arguments, the commands of the unit run as systemd would run them, twice, while packets arrive on a
//! device that disappears with these processes. With arguments, one of the commands:
//!
//! ```text
//! service prepare DIRECTORY | start DIRECTORY DEVICE | remove DIRECTORY
//! ```

#[path = "plumbing/counting.rs"]
mod counting;
#[path = "plumbing/exit.rs"]
mod exit;
#[path = "plumbing/say.rs"]
mod say;
#[path = "plumbing/unit.rs"]
pub mod unit;
#[path = "plumbing/wire.rs"]
mod wire;

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use bpf_pin::bpffs::MountOptions;
use bpf_pin::link::XdpFlags;
use bpf_pin::reuse::{Attachment, Reuse};
use bpf_pin::{Bpffs, LinkSpec, Map, MapSpec, MapType, PinDir};
use rustix::mount::{MountFlags, mount};

use counting::counting;
use exit::{Outcome, Usage, exit_code};
use say::say;
use unit::Unit;

/// The unit file.
pub const UNIT: &str = include_str!("packets.service");

const USAGE: &str = "service [prepare DIRECTORY | start DIRECTORY DEVICE | remove DIRECTORY]";

/// Runs the program.
pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        [] => story(),
        ["prepare", directory] => prepare(directory.as_ref()),
        ["start", directory, device] => start(directory.as_ref(), device),
        ["remove", directory] => remove(directory.as_ref()),
        _ => Err(Usage(USAGE).into()),
    };
    exit_code("service", outcome)
}

/// Mounts a bpffs on the directory, and gives it to the owner of the directory above. Runs as root.
fn prepare(directory: &Path) -> Outcome {
    let parent = directory.parent().ok_or("the directory has no parent")?;
    let owner = fs::metadata(parent)?;
    fs::create_dir_all(directory)?;
    let bpffs = Bpffs::ensure(directory, &MountOptions::new())?;
    let root = bpffs.bpffs().dir()?;
    root.chown(Some(owner.uid()), Some(owner.gid()))?;
    let (at, user) = (directory.display(), owner.uid());
    say(format_args!(
        "the bpffs on {at} belongs to user {user}, new: {}",
        bpffs.is_new()
    ))?;
    Ok(())
}

/// The loader. Runs as the user of the unit.
pub fn start(directory: &Path, device: &str) -> Outcome {
    let app = PinDir::open(directory)?;
    let packets = app.open_or_create("packets", &spec(), Reuse::Exact)?.map;
    let prog = counting(&packets)?;
    let link = LinkSpec::xdp(wire::index(device)?).xdp_flags(XdpFlags::SKB_MODE);
    let (map, new) = (packets.id()?, prog.id()?);
    match app.open_or_attach("link", &link, &prog)?.attachment {
        Attachment::Updated { old_prog_id: old } => say(format_args!(
            "program {new} replaced program {old}, and counts in map {map}"
        ))?,
        _ => say(format_args!(
            "attached program {new}, which counts in map {map}"
        ))?,
    }
    Ok(())
}

/// Detaches the program, and removes the pins.
pub fn remove(directory: &Path) -> Outcome {
    let app = PinDir::open(directory)?;
    app.unlink("link")?;
    app.unlink("packets")?;
    Ok(())
}

fn story() -> Outcome {
    println!(
        "A loader runs as a service with two capabilities, and counts packets after it has exited."
    );
    let far = UdpSocket::from(wire::own_namespaces()?);
    let near = wire::near_socket()?;
    // Only these processes see it.
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None)?;
    let unit = Unit {
        text: UNIT.replace("eth0", wire::NEAR),
        user: 65534,
        run: "/run".into(),
    };
    for sent in [100, 200] {
        unit.start()?;
        wire::traffic([&far, &near], [(100, 100), (0, 0)])?;
        let map: Map = PinDir::open("/run/packets/bpf")?.get("packets")?;
        let counted = map.elements::<u32, u64>()?.lookup(&0)?;
        let counted = counted.unwrap_or_default();
        println!("{sent} packets were sent, and {counted} were counted, ARP included");
    }
    Ok(())
}

fn spec() -> MapSpec<'static> {
    MapSpec::new(MapType::ARRAY, 4, 8, 1).name("packets")
}
