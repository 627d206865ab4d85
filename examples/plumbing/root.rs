//! A bpffs for an example to play on.

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};

use bpf_pin::PinDir;
use bpf_pin::bpffs::FileSystem;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::mount::{fsconfig_create, fsmount, fsopen};

/// /sys/fs/bpf if that is a bpffs, else one of our own that is mounted nowhere and gone with the
/// last of these processes.
pub fn root() -> Result<PinDir, Box<dyn Error>> {
    const USUAL: &str = "/sys/fs/bpf";
    if FileSystem::at(USUAL).is_ok_and(|fs| fs.is_bpffs()) {
        return Ok(PinDir::open(USUAL)?);
    }
    println!("No bpffs is mounted on {USUAL}. This uses one of its own.");
    let own = own_bpffs()
        .map_err(|e| format!("a bpffs of one's own takes CAP_SYS_ADMIN, run it as root: {e}"))?;
    Ok(PinDir::from_fd(own)?)
}

/// `fsopen`, `fsconfig`, `fsmount`: Linux 5.3.
fn own_bpffs() -> rustix::io::Result<OwnedFd> {
    let fs = fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(fs.as_fd())?;
    let (flags, attributes) = (FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
    let mount = fsmount(fs.as_fd(), flags, attributes)?;
    // The other processes inherit it, under the same number.
    fcntl_setfd(&mount, FdFlags::empty())?;
    Ok(mount)
}
