//! A map's values grow from 8 bytes to 16 while a process goes on counting in it, and no count is lost.
//!
//! The counter knows the map by its name and adds to it, one key after the other. Another process, a
//! newer release, wants values with a second half: it creates the larger map, copies each entry, and
//! gives it the name in one step. The old map is frozen before it is read for the last time, so the
//! counter, which has it open, is told, and opens the name anew.
//!
//! Freezing does not stop a program. So where a program counts, the order is: the larger map, a program that
//! counts in it, the link, and then the old map once more, for what was counted before the link had the new
//! program. Without arguments: the whole story. With arguments, one of its processes:
//!
//! ```text
//! migrate count DIRECTORY TIMES | grow DIRECTORY
//! ```

#[path = "plumbing/root.rs"]
mod root;

use std::error::Error;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Child, Command, ExitCode, id as pid};
use std::thread::sleep;
use std::time::Duration;

use bpf_pin::abi::{BPF_ADD, BPF_FUNC_map_lookup_elem, BPF_JEQ, BPF_W};
use bpf_pin::error::Cause;
use bpf_pin::map::{ElemFlags, Elements};
use bpf_pin::prog::{Insn, TestRun};
use bpf_pin::reuse::{MapOutcome as Done, Migrate, Reuse};
use bpf_pin::types::{AttachType, ProgType};
use bpf_pin::{Link, LinkSpec, Map, MapSpec, MapType, PinDir, Prog, ProgSpec};
use rustix::thread::{UnshareFlags, unshare_unsafe};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const NAME: &str = "counts";
const KEYS: u32 = 100;
const TIMES: u64 = 200_000;

/// What a value was, and what it is to be: the count, and what the newer release wants beside it.
type Old = u64;
type New = [u64; 2];
const MARK: u64 = 1;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        [] => story(),
        ["count", path, times] => count(path.as_ref(), times),
        ["grow", path] => grow(path.as_ref()),
        _ => Err("usage: migrate [count DIRECTORY TIMES | grow DIRECTORY]".into()),
    };
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    eprintln!("migrate: {error}");
    ExitCode::FAILURE
}

/// The newer release.
fn grow(path: &Path) -> Outcome {
    let dir = PinDir::open(path)?;
    let spec = MapSpec::new(MapType::HASH, 4, size_of::<New>() as u32, KEYS);
    // Nothing that was counted is left behind: from its second look on nobody adds to the old map.
    let mut migrate = Migrate::new(|key: &u32, count: &Old| Some((*key, [*count, MARK]))).freeze();
    let counts = dir.open_or_create(NAME, &spec, Reuse::Migrate(&mut migrate))?;
    let Done::Migrated(migration) = counts.outcome else {
        return Err(format!("not migrated but {:?}", counts.outcome).into());
    };
    let (old, new) = (migration.old().id()?, counts.map.id()?);
    println!(
        "process {}: map {old} is kept, map {new} has its entries and its name",
        pid()
    );
    migration.commit().map_err(bpf_pin::Error::from)?;
    Ok(())
}

/// The counter, of which both releases' values are the same as far as it knows them.
fn count(path: &Path, times: &str) -> Outcome {
    let dir = PinDir::open(path)?;
    let (times, mut anew) = (times.parse::<u64>()?, 0);
    let mut counts = Elements::<[u8], [u8], _>::new(dir.get::<Map>(NAME)?)?;
    for i in 0..times {
        let key = ((i % u64::from(KEYS)) as u32).to_ne_bytes();
        loop {
            match add(&counts, &key) {
                Err(error) if matches!(error.cause(), Some(Cause::Frozen)) => {
                    counts = successor(&dir, counts.map())?;
                    anew += 1;
                }
                done => break done?,
            }
        }
    }
    println!(
        "process {}: counted {times} times, and opened the name anew {anew} times",
        pid()
    );
    Ok(())
}

fn add(counts: &Elements<[u8], [u8]>, key: &[u8]) -> bpf_pin::Result<()> {
    let mut value = [0; size_of::<New>()];
    let value = &mut value[..counts.value_len()];
    counts.lookup_into(key, value, ElemFlags::ANY)?;
    // What both values begin with.
    let count: &mut [u8; size_of::<Old>()] = value.first_chunk_mut().expect("a count");
    *count = (Old::from_ne_bytes(*count) + 1).to_ne_bytes();
    counts.update(key, value, ElemFlags::ANY)
}

/// What has the name after this map.
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
    let root = root::root()?;
    // What is left of a story that was interrupted.
    root.remove_leftovers()?;
    // A stage that is never published: a directory for as long as this process lives.
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
            false => Err("one of the processes failed".into()),
        }
    };
    let counter = start(&["count", &TIMES.to_string()])?;
    // Half of it before, half of it after.
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
    println!(
        "process {}: {all} of {TIMES} counts are in values of {} bytes",
        pid(),
        size_of::<New>()
    );
    let is_left = dir
        .entries()?
        .any(|entry| entry.is_ok_and(|e| e.name() != NAME));
    if all != TIMES || is_left {
        return Err("counts are lost, or something is left".into());
    }
    // On a thread with a network of its own, where nothing else uses the device.
    let program = || program_story(&dir).map_err(|error| error.to_string());
    let done = std::thread::scope(|scope| scope.spawn(program).join());
    Ok(done.map_err(|_| "the thread panicked")??)
}

/// Packets that a program counts before, during and after its upgrade.
fn program_story(dir: &PinDir) -> Outcome {
    const LOOPBACK: u32 = 1;
    const PACKETS: u32 = 1000;

    // SAFETY: only this thread's view of the network changes.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    let link = LinkSpec::xdp(LOOPBACK);
    let spec = |value_size: usize| MapSpec::new(MapType::HASH, 4, value_size as u32, 1);
    let old = dir
        .open_or_create("packets", &spec(size_of::<Old>()), Reuse::CreateOnly)?
        .map;
    old.elements::<u32, Old>()?.update(&0, &0, ElemFlags::ANY)?;
    dir.open_or_attach("link", &link, &counting(&old)?)?;
    packets(dir, PACKETS)?;

    // The new map, which has the name and the entries.
    let mut migrate = Migrate::new(|key: &u32, count: &Old| Some((*key, [*count, MARK])));
    let spec = spec(size_of::<New>());
    let opened = dir.open_or_create("packets", &spec, Reuse::Migrate(&mut migrate))?;
    // The old program is still attached, and counts in the old map.
    packets(dir, PACKETS)?;
    dir.open_or_attach("link", &link, &counting(&opened.map)?)?;
    packets(dir, PACKETS)?;

    // The old map once more.
    let Done::Migrated(migration) = opened.outcome else {
        return Err(format!("not migrated but {:?}", opened.outcome).into());
    };
    let new = opened.map.elements::<u32, New>()?;
    let merge = |key: &u32, copied: Option<&Old>, now: Option<&Old>| {
        let more = now.unwrap_or(&0).saturating_sub(*copied.unwrap_or(&0));
        let [count, mark] = new.lookup(key)?.unwrap_or_default();
        new.update(key, &[count + more, mark], ElemFlags::ANY)
    };
    migration.commit_with(merge).map_err(bpf_pin::Error::from)?;
    let counted = new.lookup(&0)?.unwrap_or_default()[0];
    println!(
        "process {}: a program has counted {counted} of {} packets across its upgrade",
        pid(),
        3 * PACKETS
    );
    dir.unlink("link")?;
    match counted == u64::from(3 * PACKETS) {
        true => Ok(()),
        false => Err("packets are lost".into()),
    }
}

/// Runs the program that the link holds, as packets would.
fn packets(dir: &PinDir, count: u32) -> bpf_pin::Result<()> {
    let link: Link = dir.get("link")?;
    let prog = Prog::from_id(link.info()?.prog_id)?;
    prog.test_run(TestRun::new().data_in(&[0; 64]).repeat(count))?;
    Ok(())
}

/// A program that adds 1 to the first word of the value under the key 0, for each packet.
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
