//! Two programs count the packets that enter and leave a network device in one map, after their loader has
//! exited.
//!
//! A loader creates the map and the programs, pins them and exits. Later processes, which know only the pins,
//! attach the programs and read the counters. They attach them twice: by TCX links and with tc(8). Without
//! arguments, all processes run, in namespaces that disappear with them. With arguments, one of the processes:
//!
//! ```text
//! tc_shared_map load | attach | traffic | read ROUNDS | detach
//! ```

#[path = "plumbing/exit.rs"]
mod exit;
#[path = "plumbing/say.rs"]
mod say;
#[path = "plumbing/wire.rs"]
mod wire;

use std::io::{ErrorKind, stdin};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use bpf_pin::abi::{BPF_ADD, BPF_FUNC_map_lookup_elem, BPF_JEQ, BPF_JNE, BPF_W};
use bpf_pin::prog::Insn;
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Access, LinkSpec, Map, MapSpec, MapType};
use bpf_pin::{PinDir, PinnedLink, PinnedMap, Prog, ProgSpec};

use exit::{Outcome, Usage, exit_code};
use say::say;

const USAGE: &str = "tc_shared_map [load | attach | traffic | read ROUNDS | detach]";

/// The directory of the pins: `counters`, the two programs, and their TCX links.
const PINS: &str = "/sys/fs/bpf/traffic";

/// The name of the program for each direction. Its index is its key in the map.
const DIRECTIONS: [(&str, AttachType); 2] = [
    ("ingress", AttachType::TCX_INGRESS),
    ("egress", AttachType::TCX_EGRESS),
];

/// The loader. The pins keep its map and programs, and appear in one step.
fn load() -> Outcome {
    let bpffs = PinDir::open("/sys/fs/bpf")?;
    let pins = bpffs.stage("traffic")?;
    let counters = counters()?;
    pins.pin(&counters, "counters")?;
    for (key, (direction, _)) in DIRECTIONS.iter().enumerate() {
        let prog = counting(&counters, key as i32)?;
        pins.pin(&prog, direction)?;
        say(format_args!("{direction} is program {}", prog.id()?))?;
    }
    pins.publish().map_err(bpf_pin::Error::from)?;
    let id = counters.id()?;
    say(format_args!(
        "pinned both programs and map {id} in {PINS}, and exits"
    ))?;
    Ok(())
}

/// Attaches the programs by links: a link keeps a program attached, and a pin keeps the link.
fn attach() -> Outcome {
    let (pins, device) = (PinDir::open(PINS)?, wire::index(wire::NEAR)?);
    for (direction, attach_type) in DIRECTIONS {
        let prog: Prog = pins.get(direction)?;
        let link = match LinkSpec::tcx(device, attach_type).create(&prog) {
            // EINVAL
            Err(error) if error.raw_os_error() == Some(22) => {
                say(format_args!(
                    "skipped TCX links, which do not exist before Linux 6.6: {error}"
                ))?;
                return Ok(());
            }
            link => link?.pin(link_path(direction))?,
        };
        say(format_args!("attached {direction} by link {}", link.id()?))?;
    }
    Ok(())
}

/// Detaches the programs now. A link that is only unpinned and closed detaches some time later.
fn detach() -> Outcome {
    for (direction, _) in DIRECTIONS {
        let link = PinnedLink::open(link_path(direction))?.unpin()?;
        link.detach()?;
        say(format_args!("detached {direction} by link {}", link.id()?))?;
    }
    Ok(())
}

/// Attaches the programs with tc(8), which opens their pins. Returns false if tc is not installed.
fn attach_with_tc() -> Outcome<bool> {
    let qdisc = format!("qdisc add dev {} clsact", wire::NEAR);
    let filters = DIRECTIONS.map(|(direction, _)| {
        let (dev, prog) = (wire::NEAR, format!("{PINS}/{direction}"));
        format!("filter add dev {dev} {direction} bpf direct-action object-pinned {prog}")
    });
    for words in [&qdisc].into_iter().chain(&filters) {
        println!("$ tc {words}");
        let status = match Command::new("tc").args(words.split(' ')).status() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                println!("skipped tc, which is not installed (package iproute2)");
                return Ok(false);
            }
            status => status?,
        };
        if !status.success() {
            return Err(format!("tc: {status}").into());
        }
    }
    Ok(true)
}

/// The number and the bytes of the packets that come in, and of those that go out.
const SENT: [(u64, u64); 2] = [(4, 300), (7, 100)];

/// The bytes of a packet before its payload: Ethernet, IPv4 and UDP headers.
const HEADERS: u64 = 14 + 20 + 8;

/// Sends packets both ways. Standard input is the socket at the far end.
fn traffic() -> Outcome {
    let far = stdin().as_fd().try_clone_to_owned()?.into();
    wire::traffic([&far, &wire::near_socket()?], SENT)?;
    let [(incoming, incoming_size), (outgoing, outgoing_size)] = SENT;
    say(format_args!(
        "{incoming} packets of {incoming_size} bytes came in, {outgoing} of {outgoing_size} went out"
    ))?;
    Ok(())
}

/// Reads the counters, and checks that each packet was counted. It needs read access to the map's pin only.
fn read(rounds: &str) -> Outcome {
    let rounds: u64 = rounds.parse().map_err(|_| Usage(USAGE))?;
    let path = Path::new(PINS).join("counters");
    let counters = PinnedMap::open_with(path, Access::ReadOnly)?;
    for (key, (direction, _)) in DIRECTIONS.iter().enumerate() {
        let pair = counters
            .elements::<u32, [u64; 2]>()?
            .lookup(&(key as u32))?;
        let [packets, bytes] = pair.unwrap_or_default();
        let id = counters.id()?;
        say(format_args!(
            "map {id}: {direction} {packets} packets, {bytes} bytes"
        ))?;
        let (sent, size) = (SENT[key].0 * rounds, SENT[key].1 + HEADERS);
        if (packets, bytes) != (sent, sent * size) {
            let bytes = sent * size;
            return Err(format!("{sent} packets were sent, of {bytes} bytes").into());
        }
    }
    Ok(())
}

fn story() -> Outcome {
    println!("Two programs count packets in one map after their loader has exited.");
    // Fails before anything is pinned if this process may not load programs.
    counting(&counters()?, 0)?;
    let far = wire::own_namespaces()?;
    let run = |step: &[&str]| -> Outcome {
        let mut process = Command::new(std::env::current_exe()?);
        match process.args(step).stdin(far.try_clone()?).status()? {
            status if status.success() => Ok(()),
            status => Err(format!("{}: {status}", step[0]).into()),
        }
    };
    run(&["load"])?;
    // The counters continue from the first round to the second.
    let mut rounds = 0;
    let mut count = || -> Outcome {
        rounds += 1;
        run(&["traffic"])?;
        run(&["read", &rounds.to_string()])
    };
    run(&["attach"])?;
    if link_path("ingress").exists() {
        count()?;
        run(&["detach"])?;
    }
    if attach_with_tc()? {
        count()?;
    }
    if rounds == 0 {
        return Err("neither TCX links nor tc can attach the programs here".into());
    }
    println!("Every packet was counted after the loader had exited.");
    Ok(())
}

/// Creates the map: for each direction the number of packets and of bytes.
fn counters() -> bpf_pin::Result<Map> {
    let spec = MapSpec::new(MapType::ARRAY, 4, 16, 2).name("counters");
    spec.create()
}

/// Loads a classifier that adds each IPv4 packet to the counters at `key` and passes it on.
fn counting(counters: &Map, key: i32) -> bpf_pin::Result<Prog> {
    // Offsets in struct __sk_buff. Register 1 points to it.
    const LEN: i16 = 0;
    const PROTOCOL: i16 = 16;
    let ipv4 = i32::from(0x0800_u16.to_be());
    let mut insns = vec![
        // len = skb->len; if (skb->protocol != htons(ETH_P_IP)) goto out;
        Insn::ldx_mem(BPF_W, 6, 1, LEN),
        Insn::ldx_mem(BPF_W, 2, 1, PROTOCOL),
        Insn::jmp_imm(BPF_JNE, 2, ipv4, 10),
        // pair = bpf_map_lookup_elem(counters, &key); if (!pair) goto out;
        Insn::st_mem(BPF_W, 10, -4, key),
        Insn::mov64_reg(2, 10),
        Insn::alu64_imm(BPF_ADD, 2, -4),
    ];
    insns.extend(Insn::ld_map_fd(1, counters.as_fd().as_raw_fd()));
    insns.extend([
        Insn::call(BPF_FUNC_map_lookup_elem),
        Insn::jmp_imm(BPF_JEQ, 0, 0, 3),
        // Atomic, because other CPUs count too: __sync_fetch_and_add(&pair[0], 1), (&pair[1], len);
        Insn::mov64_imm(1, 1),
        Insn::atomic_add64(0, 1, 0),
        Insn::atomic_add64(0, 6, 8),
        // out: return TC_ACT_UNSPEC, which TCX calls TCX_NEXT;
        Insn::mov64_imm(0, -1),
        Insn::exit(),
    ]);
    let spec = ProgSpec::new(ProgType::SCHED_CLS, &insns).name("counting");
    spec.load()
}

fn link_path(direction: &str) -> PathBuf {
    Path::new(PINS).join(format!("{direction}_link"))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        [] => story(),
        ["load"] => load(),
        ["attach"] => attach(),
        ["traffic"] => traffic(),
        ["read", rounds] => read(rounds),
        ["detach"] => detach(),
        _ => Err(Usage(USAGE).into()),
    };
    exit_code("tc_shared_map", outcome)
}
