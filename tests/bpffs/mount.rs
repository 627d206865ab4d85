//! A bpffs is mounted once, with the requested options at the requested path, or the call fails with the reason.

mod bypassing_paths;
mod child;
mod detached;
mod ensure;
mod failures;
mod instance;
mod interleavings;
mod old_kernels;
mod options;
mod statmount;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use bpf_pin::bpffs::{Mount, MountOutcome};
use bpf_pin::error::{Cause, Operation};
use bpf_pin::{Bpffs, Error};
use common::*;
use tempfile::TempDir;

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    if child::run_if_requested() {
        return Some(ExitCode::SUCCESS);
    }
    None
}

const ROOT: &[Need] = &[cap::SYS_ADMIN];

/// Runs `test` with a directory to mount on, in its own mount namespace so that no mount is left behind.
pub fn with_mount_point(test: impl FnOnce(&Path) -> Outcome + Send) -> Outcome {
    // Declared first, so that it is removed after the namespace's mounts are gone.
    let dir = directory();
    in_mount_namespace(|| test(dir.path()))
}

/// A directory with a path without symbolic links, as mountinfo prints it.
pub fn directory() -> TempDir {
    let place = fs::canonicalize(std::env::temp_dir()).expect("a directory for temporary files");
    tempfile::tempdir_in(place).expect("a temporary directory")
}

/// The mounts at `path`, from bottom to top.
#[track_caller]
fn mounts_at(path: &Path) -> Vec<Mount> {
    let text = fs::read("/proc/thread-self/mountinfo").expect("mountinfo");
    let mounts = Mount::parse_all(&text[..]).expect("mountinfo");
    let here = mounts.into_iter();
    here.filter(|mount| mount.mount_point == path).collect()
}

#[track_caller]
fn mount_at(path: &Path) -> Mount {
    let mut mounts = mounts_at(path);
    assert_eq!(mounts.len(), 1, "{mounts:#?}");
    mounts.remove(0)
}

#[track_caller]
fn assert_nothing_is_mounted_at(path: &Path) {
    assert_eq!(mounts_at(path), []);
}

/// Asserts the operation, its path, the errno and the cause.
#[track_caller]
fn assert_fails_at(
    error: &Error,
    operation: Operation,
    path: &Path,
    errno: Option<i32>,
    cause: Option<Cause>,
) {
    assert_fails(error, operation, errno, cause);
    assert_eq!(error.path(), (!path.as_os_str().is_empty()).then_some(path));
}

#[track_caller]
fn new(outcome: MountOutcome) -> Bpffs {
    assert!(outcome.is_new(), "{outcome:?}");
    outcome.into_bpffs()
}

#[track_caller]
fn existing(outcome: MountOutcome) -> Bpffs {
    assert!(!outcome.is_new(), "{outcome:?}");
    outcome.into_bpffs()
}

/// Asserts that `path` leads to this bpffs, and that mountinfo lists it.
#[track_caller]
fn assert_is_at(bpffs: &Bpffs, path: &Path) {
    assert_eq!(bpffs.path(), path);
    bpffs.still_here().unwrap();
    assert_eq!(Bpffs::at(path).unwrap().dev(), bpffs.dev());
    let mount = mounts_at(path).pop().expect("a mount");
    assert!(mount.is_bpffs());
    assert_eq!(mount.dev, bpffs.dev());
    assert_eq!(bpffs.mount().unwrap(), mount);
}

/// Unmounts a bpffs that no test uses. A process that another test is starting has a copy of every descriptor
/// until it calls execve(2), so the mount may be busy for a moment.
#[track_caller]
fn unmount_with_retries(mut bpffs: Bpffs) {
    for _ in 0..1000 {
        bpffs = match bpffs.unmount() {
            Ok(()) => return,
            Err(failed) if matches!(failed.cause(), Some(Cause::InUse { mounted: None })) => {
                failed.into_object()
            }
            Err(failed) => panic!("{failed}"),
        };
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    panic!("{} is in use", bpffs.path().display());
}
