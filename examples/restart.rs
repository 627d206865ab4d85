//! A loader restarts twice under traffic, and every packet is counted.
//!
//! Each release of the loader is a new process that does the same: it makes sure that a bpffs is mounted,
//! creates its directory, opens or creates the map, loads its program, and attaches it or updates the link.
//! Release 2 only has a new program. Release 3 needs larger values, so it also migrates the map. Packets
//! arrive all the time, on a device in a network namespace that disappears with these processes.
//!
//! All programs count in the same value. After release 3 has updated the link, it adds the packets that release
//! 2 counted after the copy, with an atomic instruction, while its own program counts. Without arguments, all
//! processes run. With arguments, one of them:
//!
//! ```text
//! restart start RELEASE
//! ```

#[path = "plumbing/exit.rs"]
mod exit;
#[path = "plumbing/say.rs"]
mod say;
#[path = "plumbing/wire.rs"]
mod wire;

use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, sleep};
use std::time::Duration;

use bpf_pin::abi::{BPF_ADD, BPF_FUNC_map_lookup_elem, BPF_SUB};
use bpf_pin::abi::{BPF_H, BPF_JEQ, BPF_JGT, BPF_JNE, BPF_W};
use bpf_pin::bpffs::MountOptions;
use bpf_pin::link::XdpFlags;
use bpf_pin::prog::Insn;
use bpf_pin::reuse::{Attachment, MapOutcome, Migrate, Reuse};
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Bpffs, LinkSpec, Map, MapSpec, MapType, PinDir, PinnedMap, Prog, ProgSpec};

use exit::{Outcome, Usage, exit_code};
use say::say;

const BPFFS: &str = "/sys/fs/bpf";
const APP: &str = "/sys/fs/bpf/restart";

const RELEASES: u32 = 3;

/// A value before release 3: the number of packets.
type Old = u64;
/// A value from release 3 on: the number of packets, and their bytes.
type New = [u64; 2];

/// The packets that arrive, at least, before the next release starts.
const PACKETS: u64 = 1000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        [] => story(),
        ["start", "1"] => start(1),
        ["start", "2"] => start(2),
        ["start", "3"] => start(3),
        _ => Err(Usage("restart [start 1|2|3]").into()),
    };
    exit_code("restart", outcome)
}

/// The loader.
fn start(release: u32) -> Outcome {
    Bpffs::ensure(BPFFS, &MountOptions::new())?;
    let app = PinDir::create(APP, 0o700)?;

    let mut migrate = Migrate::new(grow);
    let (value_size, reuse) = match release {
        3 => (size_of::<New>(), Reuse::Migrate(&mut migrate)),
        _ => (size_of::<Old>(), Reuse::Exact),
    };
    let packets = app.open_or_create("packets", &spec(value_size), reuse)?;
    let map = packets.map.id()?;

    let prog = counting(&packets.map, release)?;
    let link = LinkSpec::xdp(wire::index(wire::NEAR)?).xdp_flags(XdpFlags::SKB_MODE);
    let attached = app.open_or_attach("link", &link, &prog)?;
    let (prog, link) = (prog.id()?, attached.link.id()?);
    match attached.attachment {
        Attachment::Updated { old_prog_id: old } => say(format_args!(
            "release {release}: program {prog} replaced program {old} in link {link}"
        ))?,
        Attachment::Attached => say(format_args!(
            "release {release}: attached program {prog} by link {link}"
        ))?,
        other => return Err(format!("did not expect that the link is {other:?}").into()),
    }

    let MapOutcome::Migrated(migration) = packets.outcome else {
        say(format_args!("release {release}: counts in map {map}"))?;
        return Ok(());
    };
    let (old, mut late) = (migration.old().id()?, 0);
    let committed = migration.commit_adding(&packets.map, |key: &u32, packets: &Old| {
        late += packets;
        grow(key, packets)
    });
    committed.map_err(bpf_pin::Error::from)?;
    say(format_args!(
        "release {release}: migrated map {old} to map {map}, and added {late} packets counted after the copy"
    ))?;
    Ok(())
}

/// Converts a value to the layout of release 3.
fn grow(key: &u32, packets: &Old) -> Option<(u32, New)> {
    Some((*key, [*packets, 0]))
}

/// Starts each release while packets arrive, and compares the packets sent with those counted.
fn story() -> Outcome {
    println!("A loader restarts twice under traffic, and every packet is counted.");
    // Fails before anything is pinned if this process may not load programs.
    counting(&spec(size_of::<Old>()).create()?, 1)?;
    let far = UdpSocket::from(wire::own_namespaces()?);
    let run = |release: u32| -> Outcome {
        let mut process = Command::new(std::env::current_exe()?);
        match process.args(["start", &release.to_string()]).status()? {
            status if status.success() => Ok(()),
            status => Err(format!("release {release}: {status}").into()),
        }
    };
    run(1)?;

    let near = wire::near_socket()?;
    let (sent, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let send = || -> Result<(), String> {
        while !stop.load(Relaxed) {
            wire::traffic([&far, &near], [(1, 100), (0, 0)]).map_err(|error| error.to_string())?;
            sent.fetch_add(1, Relaxed);
        }
        Ok(())
    };
    thread::scope(|scope| -> Outcome {
        let sender = scope.spawn(send);
        let wait = || {
            let enough = sent.load(Relaxed) + PACKETS;
            while sent.load(Relaxed) < enough && !sender.is_finished() {
                sleep(Duration::from_millis(1));
            }
        };
        wait();
        let restarted = (2..=RELEASES).try_for_each(|release| {
            run(release)?;
            wait();
            Ok(())
        });
        stop.store(true, Relaxed);
        sender.join().map_err(|_| "the sender panicked")??;
        restarted
    })?;

    let map = PinnedMap::open(format!("{APP}/packets"))?;
    let value = map.elements::<u32, New>()?.lookup(&0)?;
    let [counted, bytes] = value.unwrap_or_default();
    println!("release {RELEASES} counted {bytes} bytes");
    let sent = sent.into_inner();
    println!("{counted} of {sent} packets were counted");
    match counted == sent {
        true => Ok(()),
        false => Err("not every packet was counted once".into()),
    }
}

/// The map: an array with one element.
fn spec(value_size: usize) -> MapSpec<'static> {
    MapSpec::new(MapType::ARRAY, 4, value_size as u32, 1).name("packets")
}

/// Loads a program that counts each IPv4 packet, and from release 3 on its bytes, and passes it on.
fn counting(map: &Map, release: u32) -> bpf_pin::Result<Prog> {
    const XDP_PASS: i32 = 2;
    // Offsets in struct xdp_md, to which register 1 points.
    const DATA: i16 = 0;
    const DATA_END: i16 = 4;
    // Length of an Ethernet header, and the offset of the protocol in it.
    const ETH_HLEN: i32 = 14;
    const H_PROTO: i16 = 12;
    let ipv4 = i32::from(0x0800_u16.to_be());
    let mut insns = vec![
        // if (data + ETH_HLEN > data_end) goto out;
        Insn::ldx_mem(BPF_W, 2, 1, DATA),
        Insn::ldx_mem(BPF_W, 6, 1, DATA_END),
        Insn::mov64_reg(3, 2),
        Insn::alu64_imm(BPF_ADD, 3, ETH_HLEN),
        Insn::jmp_reg(BPF_JGT, 3, 6, 13),
        // if (eth->h_proto != htons(ETH_P_IP)) goto out; len = data_end - data;
        Insn::ldx_mem(BPF_H, 4, 2, H_PROTO),
        Insn::jmp_imm(BPF_JNE, 4, ipv4, 11),
        Insn::alu64_reg(BPF_SUB, 6, 2),
        // value = bpf_map_lookup_elem(map, &0); if (!value) goto out;
        Insn::st_mem(BPF_W, 10, -4, 0),
        Insn::mov64_reg(2, 10),
        Insn::alu64_imm(BPF_ADD, 2, -4),
    ];
    insns.extend(Insn::ld_map_fd(1, map.as_fd().as_raw_fd()));
    insns.extend([
        Insn::call(BPF_FUNC_map_lookup_elem),
        Insn::jmp_imm(BPF_JEQ, 0, 0, 3),
        // __sync_fetch_and_add(&value[0], 1); and from release 3 on (&value[1], len);
        Insn::mov64_imm(1, 1),
        Insn::atomic_add64(0, 1, 0),
        match release {
            3 => Insn::atomic_add64(0, 6, 8),
            _ => Insn::ja(0),
        },
        // out: return XDP_PASS;
        Insn::mov64_imm(0, XDP_PASS),
        Insn::exit(),
    ]);
    ProgSpec::new(ProgType::XDP, &insns)
        .expected_attach_type(AttachType::XDP)
        .name("counting")
        .load()
}
