//! Processes that mount without the lock, stopped at their system calls.

use std::fs::{File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

use bpf_pin::bpffs::MountOptions;
use bpf_pin::{Bpffs, Map};
use common::*;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::mount::{ROOT, directory, mount_at, mounts_at};

/// Gives this process its own mounts. It has one thread.
fn unshare_mounts() {
    // SAFETY: no NEWUSER or FILES: only the view of mounts changes.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).unwrap();
}

/// A process in `ensure` that cannot lock, stopped before it mounts. Meanwhile this process mounts a bpffs there
/// and pins a map as "pin". It is continued to the end of its own mount.
fn mounts_without_the_lock(path: &Path) -> (Tracee, Bpffs) {
    let ready = || set_seccomp_errno(libc::SYS_flock, None, libc::ENOSYS as u32);
    let run = |()| u8::from(Bpffs::ensure(path, &MountOptions::new()).unwrap().is_new());
    let mut ensures = Tracee::fork(ready, run).unwrap();
    ensures.run_to(|stop| stop.is_entry() && stop.nr == libc::SYS_move_mount);
    let below = MountOptions::new().mount(path).unwrap();
    hash().pin(path.join("pin")).unwrap();
    ensures.run_to(|stop| stop.nr == libc::SYS_move_mount);
    assert_eq!(mounts_at(path).len(), 2);
    (ensures, below)
}

#[common::test_alone(ROOT)]
fn a_mount_that_covers_another_is_removed_again() {
    let dir = directory();
    let path = dir.path();
    unshare_mounts();
    let (ensures, below) = mounts_without_the_lock(path);
    assert_eq!(ensures.finish().unwrap(), 0, "the other bpffs was found");
    assert_eq!(mount_at(path).dev, below.dev());
    Map::open(path.join("pin")).unwrap();
    below.unmount().unwrap();
}

/// As documented for `Bpffs::ensure`.
#[common::test_alone(ROOT)]
fn a_killed_process_without_the_lock_leaves_a_mount_that_covers_another() {
    let dir = directory();
    let path = dir.path();
    unshare_mounts();
    let (ensures, below) = mounts_without_the_lock(path);
    ensures.kill().unwrap();
    let covers = Bpffs::inspect(path).unwrap().covers;
    assert_eq!(covers.first().map(|mount| mount.dev), Some(below.dev()));
    Map::open(path.join("pin")).unwrap_err();
    // It would be returned after five seconds. This makes it older.
    let ago = SystemTime::now() - Duration::from_secs(60);
    let times = FileTimes::new().set_accessed(ago).set_modified(ago);
    File::open(path).unwrap().set_times(times).unwrap();
    let found = Bpffs::ensure(path, &MountOptions::new()).unwrap();
    assert!(!found.is_new());
    found.into_bpffs().unmount().unwrap();
    assert_eq!(mount_at(path).dev, below.dev());
    Map::open(path.join("pin")).unwrap();
    below.unmount().unwrap();
}
