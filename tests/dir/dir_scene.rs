//! What the tests of directories stand on.

#![allow(dead_code, reason = "no program needs all of it")]

use std::cell::RefCell;
use std::fmt::Debug;
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
    result.expect_err("what must fail")
}

/// A map for where it does not matter which. Before Linux 5.11 a user has room for a dozen, and the
/// kernel frees them only by and by.
pub fn any_map() -> Map {
    static MAP: LazyLock<Map> = LazyLock::new(hash);
    OWN_MAP.with_borrow(|own| {
        own.as_ref()
            .unwrap_or_else(|| &*MAP)
            .try_clone()
            .expect("a descriptor")
    })
}

thread_local! {
    /// Where the process's is not open.
    static OWN_MAP: RefCell<Option<Map>> = const { RefCell::new(None) };
}

pub fn any_identity() -> Identity {
    any_map().identity().expect("its identity")
}

/// The root of the file system.
pub fn root_of(fs: &TestFs) -> PinDir {
    PinDir::open(fs.root()).expect("the root of a bpffs")
}

/// Whether the kernel takes a directory's descriptor without /proc. Linux 6.5.
pub fn has_path_fd() -> bool {
    kernel(6, 5).unmet().is_none()
}

/// The names in a directory that need not have a path any more, sorted, without the kernel's own.
pub fn names_in(dir: &PinDir) -> Vec<String> {
    let entries = dir.entries().expect("the directory can be listed");
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().name().to_str().unwrap().to_owned())
        .filter(|name| !name.ends_with(".debug"))
        .collect();
    names.sort();
    names
}

pub fn missing(path: impl Into<PathBuf>) -> Cause {
    Cause::Missing { path: path.into() }
}

/// A tmpfs nobody else sees, gone with its descriptor.
pub fn detached_tmpfs() -> (OwnedFd, PathBuf) {
    let mount = (|| {
        let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::empty();
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    })();
    let mount = mount.expect("a tmpfs of the test's own");
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    (mount, path.into())
}

/// A file system at `target`, for a thread with mounts of its own.
#[track_caller]
pub fn mount_a(kind: &str, target: impl AsRef<Path>) {
    let none = MountFlags::empty();
    mount(kind, target.as_ref(), kind, none, None).expect("a mount");
}

/// Runs `test` on a thread with a working directory and a umask of its own.
pub fn own_fs_struct<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    on_a_thread(|| {
        // SAFETY: no FILES: descriptors stay what they are.
        unsafe { unshare_unsafe(UnshareFlags::FS) }.expect("a working directory of its own");
        test()
    })
}

/// Runs `test` on a thread with a table of descriptors of its own, empty but for the first three: a
/// copy would hold the other tests' locks and mounts.
pub fn own_descriptors<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    on_a_thread(|| {
        let (first, last) = (3, u32::MAX);
        // SAFETY: what is closed is closed in a table of this thread's own, whose test opens anew
        // all that it uses.
        let done = unsafe {
            libc::syscall(
                libc::SYS_close_range,
                first,
                last,
                libc::CLOSE_RANGE_UNSHARE,
            )
        };
        assert_eq!(done, 0, "close_range: {}", std::io::Error::last_os_error());
        OWN_MAP.set(Some(hash()));
        test()
    })
}

fn on_a_thread<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let result = thread::scope(|scope| scope.spawn(test).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
