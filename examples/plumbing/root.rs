//! A bpffs for the pins of an example.

use std::error::Error;

use bpf_pin::PinDir;
use bpf_pin::bpffs::{FileSystem, MountOptions};
use rustix::io::{FdFlags, fcntl_setfd};

/// Returns the root of the bpffs on /sys/fs/bpf. If none is mounted there, makes one that is not mounted
/// anywhere. It exists until the last process that has its descriptor ends.
pub fn root() -> Result<PinDir, Box<dyn Error>> {
    const USUAL: &str = "/sys/fs/bpf";
    if FileSystem::at(USUAL).is_ok_and(|fs| fs.is_bpffs()) {
        return Ok(PinDir::open(USUAL)?);
    }
    println!("No bpffs is mounted on {USUAL}, so this example makes a private one.");
    let bpffs = MountOptions::new().detached()?.into();
    // Child processes inherit the descriptor and use its path, /proc/self/fd/N.
    fcntl_setfd(&bpffs, FdFlags::empty())?;
    Ok(PinDir::from_fd(bpffs)?)
}
