//! The values of a map grow from 8 to 16 bytes while a process and then a program count in it, and no count
//! is lost.
//!
//! The counting process opens the map by its name and adds to one key after the other. Another process, a
//! newer release, needs values with a second field: it creates the larger map, copies each entry, and
//! replaces the pin in one step. It freezes the old map before it reads it for the last time. The counting
//! process then fails to write to the map that it has open, and reopens the pin.
//!
//! Freezing does not stop programs. If a program counts, the order is: create the larger map, load a program
//! that counts in it, update the link, and read the old map once more for what was counted before the link
//! was updated. Without arguments, all of this runs. With arguments, one of the processes:
//!
//! ```text
//! migrate count DIRECTORY TIMES | grow DIRECTORY
//! ```

#[path = "plumbing/exit.rs"]
mod exit;
#[path = "plumbing/root.rs"]
mod root;
#[path = "plumbing/say.rs"]
mod say;
#[path = "plumbing/times.rs"]
mod times;

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use bpf_pin::abi::{BPF_ADD, BPF_FUNC_map_lookup_elem, BPF_JEQ, BPF_W};
use bpf_pin::error::Cause;
use bpf_pin::map::{ElemFlags, Elements};
use bpf_pin::prog::{Insn, TestRun};
use bpf_pin::reuse::{MapOutcome, Migrate, Reuse};
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Link, LinkSpec, Map, MapSpec, MapType, PinDir, Prog, ProgSpec};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use exit::{Outcome, Usage, exit_code};
use say::say;
use times::times;

const NAME: &str = "counts";
const KEYS: u32 = 100;
const TIMES: u64 = 200_000;

/// A value of the old map is a count. The newer release adds a second field, which it sets to `MARK`.
type Old = u64;
type New = [u64; 2];
const MARK: u64 = 1;

const USAGE: &str = "migrate [count DIRECTORY TIMES | grow DIRECTORY]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        [] => story(),
        ["count", path, times] => count(path.as_ref(), times),
        ["grow", path] => grow(path.as_ref()),
        _ => Err(Usage(USAGE).into()),
    };
    exit_code("migrate", outcome)
}

/// The newer release: replaces the map by one with larger values.
fn grow(path: &Path) -> Outcome {
    let dir = PinDir::open(path)?;
    let spec = MapSpec::new(MapType::HASH, 4, size_of::<New>() as u32, KEYS);
    // Freezing the old map before it is read for the last time stops all processes that write to it.
    let mut migrate = Migrate::new(|key: &u32, count: &Old| Some((*key, [*count, MARK]))).freeze();
    let counts = dir.open_or_create(NAME, &spec, Reuse::Migrate(&mut migrate))?;
    let MapOutcome::Migrated(migration) = counts.outcome else {
        return Err("the map was not migrated".into());
    };
    let (old, new) = (migration.old().id()?, counts.map.id()?);
    say(format_args!(
        "map {new} has the entries and the name of map {old}, which is kept until the commit"
    ))?;
    migration.commit().map_err(bpf_pin::Error::from)?;
    Ok(())
}

/// The counting process. It uses only the field that the values of both releases begin with.
fn count(path: &Path, number: &str) -> Outcome {
    let dir = PinDir::open(path)?;
    let count = number.parse::<u64>();
    let (count, mut reopened) = (count.map_err(|_| Usage(USAGE))?, 0);
    let mut counts = Elements::<[u8], [u8], _>::new(dir.get::<Map>(NAME)?)?;
    for i in 0..count {
        let key = ((i % u64::from(KEYS)) as u32).to_ne_bytes();
        loop {
            match add(&counts, &key) {
                Err(error) if matches!(error.cause(), Some(Cause::Frozen)) => {
                    counts = successor(&dir, counts.map())?;
                    reopened += 1;
                }
                added => break added?,
            }
        }
    }
    let (count, reopened) = (times(count), times(reopened));
    say(format_args!(
        "counted {count}, and reopened the pin {reopened}"
    ))?;
    Ok(())
}

fn add(counts: &Elements<[u8], [u8]>, key: &[u8]) -> bpf_pin::Result<()> {
    let mut value = [0; size_of::<New>()];
    let value = &mut value[..counts.value_len()];
    counts.lookup_into(key, value, ElemFlags::ANY)?;
    // The values of both releases begin with the count.
    let count: &mut [u8; size_of::<Old>()] = value.first_chunk_mut().expect("a count");
    *count = (Old::from_ne_bytes(*count) + 1).to_ne_bytes();
    counts.update(key, value, ElemFlags::ANY)
}

/// Waits until the pin holds another map than `old`, and opens it.
fn successor(dir: &PinDir, old: &Map) -> Outcome<Elements<[u8], [u8]>> {
    loop {
        let map: Map = dir.get(NAME)?;
        if map.id()? != old.id()? {
            return Ok(Elements::<[u8], [u8], _>::new(map)?);
        }
        sleep(Duration::from_millis(1));
    }
}

fn story() -> Outcome {
    println!("The values of a map grow while a process counts in it, and no count is lost.");
    let root = root::root()?;
    // Removes what an interrupted run left.
    root.remove_leftovers()?;
    // A stage that is never published is removed when it is dropped.
    let dir = root.stage("migrate")?;
    let spec = MapSpec::new(MapType::HASH, 4, size_of::<Old>() as u32, KEYS);
    let old = dir.open_or_create(NAME, &spec, Reuse::CreateOnly)?.map;
    let start = |args: &[&str]| {
        let mut process = Command::new(std::env::current_exe()?);
        process
            .arg(args[0])
            .arg(dir.path())
            .args(&args[1..])
            .spawn()
    };
    let end = |mut process: Child| -> Outcome {
        match process.wait()?.success() {
            true => Ok(()),
            false => Err("a process of this example failed".into()),
        }
    };
    let counter = start(&["count", &TIMES.to_string()])?;
    // The map is replaced after half of the counts.
    while sum(old.elements::<u32, Old>()?.iter().map(|entry| Ok(entry?.1)))? < TIMES / 2 {
        sleep(Duration::from_millis(1));
    }
    end(start(&["grow"])?)?;
    end(counter)?;
    let new: Map = dir.get(NAME)?;
    let all = sum(new
        .elements::<u32, New>()?
        .iter()
        .map(|entry| Ok(entry?.1[0])))?;
    let size = size_of::<New>();
    say(format_args!(
        "found {all} of {TIMES} counts in values of {size} bytes"
    ))?;
    let is_left = dir
        .entries()?
        .any(|entry| entry.is_ok_and(|e| e.name() != NAME));
    if all != TIMES || is_left {
        return Err("counts were lost, or a pin was left".into());
    }
    // Runs on a thread with a network namespace of its own, in which nothing else uses the device.
    let program = || program_story(&dir).map_err(|error| error.to_string());
    let outcome = std::thread::scope(|scope| scope.spawn(program).join());
    Ok(outcome.map_err(|_| "the thread panicked")??)
}

/// A program counts packets before, during and after its upgrade.
fn program_story(dir: &PinDir) -> Outcome {
    const LOOPBACK: u32 = 1;
    const PACKETS: u32 = 1000;

    // SAFETY: only the network namespace of this thread changes.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    let link = LinkSpec::xdp(LOOPBACK);
    let spec = |value_size: usize| MapSpec::new(MapType::HASH, 4, value_size as u32, 1);
    let old = dir
        .open_or_create("packets", &spec(size_of::<Old>()), Reuse::CreateOnly)?
        .map;
    old.elements::<u32, Old>()?.update(&0, &0, ElemFlags::ANY)?;
    dir.open_or_attach("link", &link, &counting(&old)?)?;
    packets(dir, PACKETS)?;

    // Creates the new map, copies the entries, and replaces the pin.
    let mut migrate = Migrate::new(|key: &u32, count: &Old| Some((*key, [*count, MARK])));
    let spec = spec(size_of::<New>());
    let opened = dir.open_or_create("packets", &spec, Reuse::Migrate(&mut migrate))?;
    // The old program is still attached and counts in the old map.
    packets(dir, PACKETS)?;
    dir.open_or_attach("link", &link, &counting(&opened.map)?)?;
    packets(dir, PACKETS)?;

    // Reads the old map once more and adds what was counted after the copy.
    let MapOutcome::Migrated(migration) = opened.outcome else {
        return Err("the map was not migrated".into());
    };
    let new = opened.map.elements::<u32, New>()?;
    let merge = |key: &u32, copied: Option<&Old>, now: Option<&Old>| {
        let more = now.unwrap_or(&0).saturating_sub(*copied.unwrap_or(&0));
        let [count, mark] = new.lookup(key)?.unwrap_or_default();
        new.update(key, &[count + more, mark], ElemFlags::ANY)
    };
    migration.commit_with(merge).map_err(bpf_pin::Error::from)?;
    let counted = new.lookup(&0)?.unwrap_or_default()[0];
    let sent = 3 * PACKETS;
    say(format_args!(
        "a program counted {counted} of {sent} packets across its upgrade"
    ))?;
    dir.unlink("link")?;
    match counted == u64::from(sent) {
        true => Ok(()),
        false => Err("packets were lost".into()),
    }
}

/// Runs the program that the link holds, once for each packet.
fn packets(dir: &PinDir, count: u32) -> bpf_pin::Result<()> {
    let link: Link = dir.get("link")?;
    let prog = Prog::from_id(link.info()?.prog_id)?;
    prog.test_run(TestRun::new().data_in(&[0; 64]).repeat(count))?;
    Ok(())
}

/// Loads a program that adds 1 to the first field of the value of key 0 for each packet.
fn counting(map: &Map) -> bpf_pin::Result<Prog> {
    const XDP_PASS: i32 = 2;
    let mut insns = vec![
        // count = bpf_map_lookup_elem(map, &0); if (!count) goto out;
        Insn::st_mem(BPF_W, 10, -4, 0),
        Insn::mov64_reg(2, 10),
        Insn::alu64_imm(BPF_ADD, 2, -4),
    ];
    insns.extend(Insn::ld_map_fd(1, map.as_fd().as_raw_fd()));
    insns.extend([
        Insn::call(BPF_FUNC_map_lookup_elem),
        Insn::jmp_imm(BPF_JEQ, 0, 0, 2),
        // __sync_fetch_and_add(count, 1);
        Insn::mov64_imm(1, 1),
        Insn::atomic_add64(0, 1, 0),
        // out: return XDP_PASS;
        Insn::mov64_imm(0, XDP_PASS),
        Insn::exit(),
    ]);
    let spec = ProgSpec::new(ProgType::XDP, &insns).expected_attach_type(AttachType::XDP);
    spec.load()
}

fn sum(values: impl Iterator<Item = bpf_pin::Result<u64>>) -> bpf_pin::Result<u64> {
    values.sum()
}
