//! The values of a map grow from 8 to 16 bytes, first while a process and then while a program counts in it.
//! No count is lost.
//!
//! The counting process opens the map by its name and adds to one key after the other. Another process, a
//! newer release, needs values with a second field: it creates the larger map, copies each entry, and
//! replaces the pin in one step. It freezes the old map before it reads it for the last time. The counting
//! process then fails to write to the map that it has open, and reopens the pin.
//!
//! Freezing does not stop programs. If a program counts, the order is: create the larger map with the entries,
//! load a program that counts in it, update the link, and add what the old map has counted after the copy. The
//! new program counts in the same value at that time, so it is added with an atomic instruction. Without
//! arguments, all of this runs. With arguments, one of the processes:
//!
//! ```text
//! migrate count DIRECTORY TIMES | grow DIRECTORY
//! ```

#[path = "plumbing/counting.rs"]
mod counting;
#[path = "plumbing/exit.rs"]
mod exit;
#[path = "plumbing/netlink.rs"]
mod netlink;
#[path = "plumbing/root.rs"]
mod root;
#[path = "plumbing/say.rs"]
mod say;
#[path = "plumbing/times.rs"]
mod times;

use std::io;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::{self, sleep};
use std::time::Duration;

use bpf_pin::error::Cause;
use bpf_pin::link::XdpFlags;
use bpf_pin::map::{ElemFlags, Elements};
use bpf_pin::reuse::{MapOutcome, Migrate, Reuse};
use bpf_pin::{LinkSpec, Map, MapSpec, MapType, PinDir};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use counting::counting;
use exit::{Outcome, Usage, exit_code};
use netlink::Netlink;
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

/// The newer release, if a process counts: replaces the map by one with larger values.
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
    println!("The values of a map grow while a process and then a program count in it.");
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
    // Runs on a thread with a network namespace of its own, in which nothing else sends packets.
    let program = || program_story(&dir).map_err(|error| error.to_string());
    let outcome = thread::scope(|scope| scope.spawn(program).join());
    Ok(outcome.map_err(|_| "the thread panicked")??)
}

/// A program counts the packets that arrive before, during and after its upgrade.
fn program_story(dir: &PinDir) -> Outcome {
    const LOOPBACK: u32 = 1;
    const PACKETS: u32 = 1000;

    // SAFETY: only the network namespace of this thread changes, and of those that it starts.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    Netlink::open()?.up(LOOPBACK)?;
    let link = LinkSpec::xdp(LOOPBACK).xdp_flags(XdpFlags::SKB_MODE);
    let spec = |value_size: usize| MapSpec::new(MapType::ARRAY, 4, value_size as u32, 1);
    let old = dir.open_or_create("packets", &spec(size_of::<Old>()), Reuse::CreateOnly)?;
    dir.open_or_attach("link", &link, &counting(&old.map)?)?;

    let (sent, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let send = || -> Result<(), String> {
        while !stop.load(Relaxed) {
            send_packet().map_err(|error| format!("send a packet: {error}"))?;
            sent.fetch_add(1, Relaxed);
        }
        Ok(())
    };
    let late = thread::scope(|scope| -> Outcome<u64> {
        let sender = scope.spawn(send);
        let wait = || {
            let enough = sent.load(Relaxed) + PACKETS;
            while sent.load(Relaxed) < enough && !sender.is_finished() {
                sleep(Duration::from_millis(1));
            }
        };
        wait();
        let upgraded = upgrade(dir, &spec(size_of::<New>()), &link, wait);
        wait();
        stop.store(true, Relaxed);
        sender.join().map_err(|_| "the sender panicked")??;
        upgraded
    })?;
    let new: Map = dir.get("packets")?;
    let value = new.elements::<u32, New>()?.lookup(&0)?;
    let ([counted, _], sent) = (value.unwrap_or_default(), sent.into_inner());
    say(format_args!(
        "a program counted {counted} of {sent} packets across its upgrade, {late} of them between the copy and the commit"
    ))?;
    dir.unlink("link")?;
    match counted == u64::from(sent) {
        true => Ok(()),
        false => Err("packets were lost".into()),
    }
}

/// The newer release, if a program counts. Returns how many packets the old program counted after the copy.
fn upgrade(dir: &PinDir, spec: &MapSpec, link: &LinkSpec, wait: impl Fn()) -> Outcome<u64> {
    // The new map with the entries of the old one, and its name.
    let mut migrate = Migrate::new(grown);
    let packets = dir.open_or_create("packets", spec, Reuse::Migrate(&mut migrate))?;
    let MapOutcome::Migrated(migration) = packets.outcome else {
        return Err("the map was not migrated".into());
    };
    // The old program is still attached and counts in the old map.
    wait();
    dir.open_or_attach("link", link, &counting(&packets.map)?)?;
    // From here on only the new map counts. What the old map has counted since it was copied is added.
    let mut late = 0;
    let committed = migration.commit_adding(&packets.map, |key: &u32, count: &Old| {
        late += count;
        grown(key, count)
    });
    committed.map_err(bpf_pin::Error::from)?;
    Ok(late)
}

/// Converts an entry to the layout of the newer release: the count becomes the first of two counters.
fn grown(key: &u32, count: &Old) -> Option<(u32, New)> {
    Some((*key, [*count, 0]))
}

/// Sends a packet over the loopback device and waits for it.
fn send_packet() -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.send_to(b"packet", socket.local_addr()?)?;
    socket.recv(&mut [0; 16])?;
    Ok(())
}

fn sum(values: impl Iterator<Item = bpf_pin::Result<u64>>) -> bpf_pin::Result<u64> {
    values.sum()
}
