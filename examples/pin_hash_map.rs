//! A BPF map outlives the process that made it.
//!
//! Without arguments: one process makes a hash map and pins it, a second one finds it again and
//! changes it, a third one unpins it, and then it is gone. With arguments, one of these steps:
//!
//! ```text
//! pin_hash_map pin PATH | show PATH | set PATH KEY VALUE | unpin PATH
//! ```

use std::error::Error;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, id as pid};
use std::thread::sleep;
use std::time::Duration;

use bpf_pin::bpffs::FileSystem;
use bpf_pin::error::Cause;
use bpf_pin::map::ElemFlags;
use bpf_pin::{Map, MapSpec, MapType, PinnedMap};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::mount::{fsconfig_create, fsmount, fsopen};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        [] => story(),
        ["pin", path] => pin(path.as_ref()),
        ["show", path] => PinnedMap::open(path)
            .map_err(Into::into)
            .and_then(|map| show(&map)),
        ["set", path, key, value] => set(path.as_ref(), key, value),
        ["unpin", path] => unpin(path.as_ref()),
        _ => Err(
            "usage: pin_hash_map [pin PATH | show PATH | set PATH KEY VALUE | unpin PATH]".into(),
        ),
    };
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    eprintln!("pin_hash_map: {error}");
    let cause = error
        .downcast_ref::<bpf_pin::Error>()
        .and_then(|e| e.cause());
    if let Some(Cause::MissingCapability { capability, .. }) = cause {
        let program = std::env::current_exe().unwrap_or_else(|_| "pin_hash_map".into());
        eprintln!(
            "Run it as root (sudo {}), or give it {capability}.",
            program.display()
        );
    }
    ExitCode::FAILURE
}

fn spec() -> MapSpec<'static> {
    MapSpec::new(MapType::HASH, 4, 8, 1024).name("flows")
}

fn pin(path: &Path) -> Outcome {
    let map = spec().create()?;
    let flows = map.elements::<u32, u64>()?;
    for key in 1..=3 {
        flows.update(&key, &(u64::from(key) * 100), ElemFlags::ANY)?;
    }
    let map = map.pin(path)?;
    println!(
        "process {}: made map {} and pinned it as {}",
        pid(),
        map.id()?,
        path.display()
    );
    Ok(())
}

fn show(map: &Map) -> Outcome {
    let info = map.info()?;
    println!(
        "process {}: {:?} is map {}: {}, {} bytes to {} bytes, room for {}",
        pid(),
        info.name.as_str(),
        info.id,
        info.map_type,
        info.key_size,
        info.value_size,
        info.max_entries,
    );
    for entry in map.elements::<u32, u64>()?.iter() {
        let (key, value) = entry?;
        println!("  {key} => {value}");
    }
    Ok(())
}

fn set(path: &Path, key: &str, value: &str) -> Outcome {
    let map = PinnedMap::open(path)?;
    show(&map)?;
    let (key, value): (u32, u64) = (key.parse()?, value.parse()?);
    map.elements::<u32, u64>()?
        .update(&key, &value, ElemFlags::ANY)?;
    println!(
        "process {}: set {key} => {value} in map {}",
        pid(),
        map.id()?
    );
    Ok(())
}

fn unpin(path: &Path) -> Outcome {
    let pinned = PinnedMap::open(path)?;
    show(&pinned)?;
    let id = pinned.id()?;
    let map = pinned.unpin()?;
    println!(
        "process {}: unpinned map {id}, which lives on in this descriptor",
        pid()
    );
    drop(map);
    // The kernel lets go of it some time after the last reference.
    for _ in 0..1000 {
        match Map::from_id(id) {
            Ok(_) => sleep(Duration::from_millis(5)),
            Err(error) if error.is_missing() => {
                println!(
                    "process {}: closed the descriptor, and map {id} is gone",
                    pid()
                );
                return Ok(());
            }
            Err(error) => {
                println!(
                    "process {}: closed the descriptor; whether map {id} is gone cannot be seen ({error})",
                    pid()
                );
                return Ok(());
            }
        }
    }
    Err(format!("map {id} is still held by somebody").into())
}

/// The whole story, each step in a process of its own.
fn story() -> Outcome {
    // Says what is missing before anything is begun.
    spec().create()?;
    let (path, _own) = place()?;
    for step in [&["pin"][..], &["set", "2", "2222"], &["unpin"]] {
        let status = Command::new(std::env::current_exe()?)
            .arg(step[0])
            .arg(&path)
            .args(&step[1..])
            .status()?;
        if !status.success() {
            // What an earlier step has pinned is not left behind.
            let _ = PinnedMap::open(&path).map(PinnedMap::unpin);
            return Err(format!("{} failed", step[0]).into());
        }
    }
    Ok(())
}

/// Where to pin: in /sys/fs/bpf if that is a bpffs, else in one of our own that is mounted nowhere
/// and is gone with its descriptor.
fn place() -> Result<(PathBuf, Option<OwnedFd>), Box<dyn Error>> {
    const USUAL: &str = "/sys/fs/bpf";
    let name = format!("pin_hash_map-{}", pid());
    match FileSystem::at(USUAL) {
        Ok(fs) if fs.is_bpffs() => return Ok((Path::new(USUAL).join(name), None)),
        Ok(fs) => {
            println!("{USUAL} is on {fs}: no bpffs is mounted there. This uses one of its own.")
        }
        Err(error) => println!("{error}. This uses a bpffs of its own."),
    }
    let own = own_bpffs()
        .map_err(|e| format!("a bpffs of one's own takes CAP_SYS_ADMIN, run it as root: {e}"))?;
    File::open("/proc/self/fd").map_err(|e| format!("/proc is how to get there: {e}"))?;
    Ok((
        format!("/proc/self/fd/{}/{name}", own.as_raw_fd()).into(),
        Some(own),
    ))
}

/// `fsopen`, `fsconfig`, `fsmount`: Linux 5.3.
fn own_bpffs() -> rustix::io::Result<OwnedFd> {
    let fs = fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(fs.as_fd())?;
    let mount = fsmount(
        fs.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    // The steps' processes inherit it, under the same number.
    fcntl_setfd(&mount, FdFlags::empty())?;
    Ok(mount)
}
