//! What enters and what leaves a network device is counted by two programs in one map.
//!
//! A loader makes the map and the programs, pins them and exits. Others, who come later and know
//! nothing but the pins, attach the programs, once by TCX links and once with tc(8), and read the
//! counters. Without arguments: the whole story, in namespaces of its own, which are gone with it.
//! With arguments, one of its processes:
//!
//! ```text
//! tc_shared_map load | attach | traffic | read ROUNDS | detach
//! ```

#[path = "plumbing/wire.rs"]
mod wire;

use std::error::Error;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, id as pid};

use bpf_pin::abi::{BPF_ADD, BPF_FUNC_map_lookup_elem, BPF_JEQ, BPF_JNE, BPF_W};
use bpf_pin::error::Cause;
use bpf_pin::prog::Insn;
use bpf_pin::types::AttachType;
use bpf_pin::types::ProgType;
use bpf_pin::{Access, LinkSpec, Map, MapSpec, MapType};
use bpf_pin::{PinDir, PinnedLink, PinnedMap, Prog, ProgSpec};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The directory of pins: `counters`, the two programs, and their links if it takes links.
const PINS: &str = "/sys/fs/bpf/traffic";

/// Each direction has a program of this name, and its place here is its key in the map.
const DIRECTIONS: [(&str, AttachType); 2] = [
    ("ingress", AttachType::TCX_INGRESS),
    ("egress", AttachType::TCX_EGRESS),
];

/// The loader. What it makes is kept by the pins, which appear all at once or not at all.
fn load() -> Outcome {
    let bpffs = PinDir::open("/sys/fs/bpf")?;
    let pins = bpffs.stage("traffic")?;
    let counters = counters()?;
    pins.pin(&counters, "counters")?;
    for (key, (direction, _)) in DIRECTIONS.iter().enumerate() {
        let prog = counting(&counters, key as i32)?;
        pins.pin(&prog, direction)?;
        say(&format!("{direction} is program {}", prog.id()?));
    }
    pins.publish().map_err(bpf_pin::Error::from)?;
    let id = counters.id()?;
    say(&format!("pinned both and map {id} in {PINS}, and exits"));
    Ok(())
}

/// One way to attach them: a link holds a program in place, and a pin holds the link.
fn attach() -> Outcome {
    let (pins, device) = (PinDir::open(PINS)?, wire::near_index()?);
    for (direction, attach_type) in DIRECTIONS {
        let prog: Prog = pins.get(direction)?;
        let link = match LinkSpec::tcx(device, attach_type).create(&prog) {
            // EINVAL
            Err(error) if error.raw_os_error() == Some(22) => {
                say(&format!(
                    "{error}, as before Linux 6.6, which brought TCX: left out"
                ));
                return Ok(());
            }
            link => link?.pin(link_path(direction))?,
        };
        say(&format!("attached {direction} by link {}", link.id()?));
    }
    Ok(())
}

/// Without its pin a link would let go some time after its last descriptor; this one does so now.
fn detach() -> Outcome {
    for (direction, _) in DIRECTIONS {
        let link = PinnedLink::open(link_path(direction))?.unpin()?;
        link.detach()?;
        say(&format!("detached {direction} from link {}", link.id()?));
    }
    Ok(())
}

/// Another way: tc(8) opens the program's pin itself. Returns false if there is no tc.
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
                println!("tc is not installed (try apt install iproute2): left out");
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

/// Packets of so many bytes each: as many come in, and as many go out.
const SENT: [(u64, u64); 2] = [(4, 300), (7, 100)];

/// Whoever may read the map's pin sees what was counted; and here, whether it is what was sent.
fn read(rounds: &str) -> Outcome {
    let rounds: u64 = rounds.parse()?;
    let path = Path::new(PINS).join("counters");
    let counters = PinnedMap::open_with(path, Access::ReadOnly)?;
    for (key, (direction, _)) in DIRECTIONS.iter().enumerate() {
        let pair = counters
            .elements::<u32, [u64; 2]>()?
            .lookup(&(key as u32))?;
        let [packets, bytes] = pair.unwrap_or_default();
        let id = counters.id()?;
        say(&format!(
            "map {id}: {direction} {packets} packets, {bytes} bytes"
        ));
        let (sent, size) = (SENT[key].0 * rounds, SENT[key].1 + wire::HEADERS);
        if (packets, bytes) != (sent, sent * size) {
            return Err(format!("there were {sent} packets, {} bytes", sent * size).into());
        }
    }
    Ok(())
}

fn story() -> Outcome {
    // Says what is missing before anything is begun.
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
    // The counters go on from where they were: to them it makes no difference who attaches what.
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
        return Err("here is neither TCX nor tc to attach the programs with".into());
    }
    println!("Each packet was counted, by programs whose loader was gone.");
    Ok(())
}

/// For each direction a pair of numbers: packets, and bytes.
fn counters() -> bpf_pin::Result<Map> {
    let spec = MapSpec::new(MapType::ARRAY, 4, 16, 2).name("counters");
    spec.create()
}

/// A classifier that adds each IPv4 packet to the pair at `key`, and lets it go on.
fn counting(counters: &Map, key: i32) -> bpf_pin::Result<Prog> {
    // Of struct __sk_buff, which register 1 points to.
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
        // Other CPUs count, too: __sync_fetch_and_add(&pair[0], 1), (&pair[1], len);
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

fn say(what: &str) {
    println!("process {}: {what}", pid());
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        [] => story(),
        ["load"] => load(),
        ["attach"] => attach(),
        ["traffic"] => wire::traffic(SENT).map(|()| {
            let [(ins, of), (outs, and)] = SENT;
            say(&format!(
                "{ins} packets of {of} bytes came in, {outs} of {and} went out"
            ));
        }),
        ["read", rounds] => read(rounds),
        ["detach"] => detach(),
        _ => Err("usage: tc_shared_map [load | attach | traffic | read ROUNDS | detach]".into()),
    };
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    eprintln!("tc_shared_map: {error}");
    let error = error.downcast_ref::<bpf_pin::Error>();
    if let Some(Cause::MissingCapability { .. }) = error.and_then(|error| error.cause()) {
        eprintln!("Run it as root.");
    }
    ExitCode::FAILURE
}
