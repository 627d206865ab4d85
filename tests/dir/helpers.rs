//! Helpers for the tests of directories.

#![allow(dead_code, reason = "no program needs all of it")]

use std::cell::RefCell;
use std::fmt::Debug;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread;

use bpf_pin::error::Cause;
use bpf_pin::{Identity, Map, PinDir};
use common::*;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, fsconfig_create, fsmount, fsopen, mount,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

#[track_caller]
pub fn unwrap_err<T: Debug, E>(result: Result<T, E>) -> E {
    result.expect_err("an error")
}

/// Returns a descriptor of a map for tests that accept any map. The map is shared: before Linux
/// 5.11 the locked-memory limit allows a user about a dozen maps, and the kernel frees them with a
/// delay.
pub fn any_map() -> Map {
    static MAP: LazyLock<Map> = LazyLock::new(hash);
    THREAD_MAP.with_borrow(|own| {
        own.as_ref()
            .unwrap_or_else(|| &*MAP)
            .try_clone()
            .expect("a descriptor")
    })
}

thread_local! {
    /// Used by threads that cannot access the map of the process.
    static THREAD_MAP: RefCell<Option<Map>> = const { RefCell::new(None) };
}

pub fn any_identity() -> Identity {
    any_map().identity().expect("its identity")
}

/// Opens the root directory of the file system.
pub fn root_of(fs: &TestFs) -> PinDir {
    PinDir::open(fs.root()).expect("the root of a bpffs")
}

/// Returns true if the kernel supports `BPF_F_PATH_FD` and needs no /proc (Linux 6.5).
pub fn has_path_fd() -> bool {
    kernel(6, 5).unmet().is_none()
}

/// Lists a directory without its path: sorted, and without the kernel's own files.
pub fn names_in(dir: &PinDir) -> Vec<String> {
    let entries = dir.entries().expect("the directory can be listed");
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().name().to_str().unwrap().to_owned())
        .filter(|name| !name.ends_with(".debug"))
        .collect();
    names.sort();
    names
}

/// Lists the directory at a path, like `names_in`.
pub fn names_at(path: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(path).expect("the directory can be listed");
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.contains('.')).collect();
    names.sort();
    names
}

pub fn missing(path: impl Into<PathBuf>) -> Cause {
    Cause::Missing { path: path.into() }
}

/// A private tmpfs that disappears with its descriptor.
pub fn detached_tmpfs() -> (OwnedFd, PathBuf) {
    let mount = (|| {
        let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::empty();
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    })();
    let mount = mount.expect("a detached tmpfs");
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    (mount, path.into())
}

/// Mounts a file system at `target`. The calling thread must have its own mount namespace.
#[track_caller]
pub fn mount_at(kind: &str, target: impl AsRef<Path>) {
    let none = MountFlags::empty();
    mount(kind, target.as_ref(), kind, none, None).expect("a mount");
}

/// Runs `test` on a thread with its own working directory and umask.
pub fn with_own_working_directory<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    on_a_thread(|| {
        // SAFETY: without CLONE_FILES the descriptor table stays shared.
        unsafe { unshare_unsafe(UnshareFlags::FS) }.expect("its own working directory");
        test()
    })
}

/// Runs `test` on a thread with its own descriptor table, which holds only the first three. A full
/// copy would keep the locks and mounts of other tests alive.
pub fn with_own_descriptors<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    on_a_thread(|| {
        let (first, last) = (3, u32::MAX);
        // SAFETY: descriptors are closed only in this thread's own table, and the test opens all
        // that it uses.
        let done = unsafe {
            libc::syscall(
                libc::SYS_close_range,
                first,
                last,
                libc::CLOSE_RANGE_UNSHARE,
            )
        };
        assert_eq!(done, 0, "close_range: {}", std::io::Error::last_os_error());
        THREAD_MAP.set(Some(hash()));
        test()
    })
}

fn on_a_thread<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let result = thread::scope(|scope| scope.spawn(test).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
