//! An error names a cause only if it was proven. A failed call has changed nothing.

mod capability;
mod file;
mod filtered;
mod kind;
mod misleading_errno;
mod path;
mod symlink;
mod unpin;
mod user;

use std::env;
use std::fmt::Debug;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::LazyLock;

use bpf_pin::bpffs::FileSystem;
use bpf_pin::error::Operation;
use bpf_pin::map::ElemFlags;
use bpf_pin::{Error, Link, Map, Object, Prog};
use common::*;
use rustix::mount::{
    FsPickFlags, MountFlags, fsconfig_reconfigure, fsconfig_set_flag, fspick, mount,
};

#[common::child]
fn child_role() -> Option<std::process::ExitCode> {
    if let Some(name) = env::var_os(CHILD) {
        match name.to_str() {
            Some("user_namespace") => capability::in_a_user_namespace(),
            Some("memlock") => capability::under_a_memory_limit(),
            Some("no_memory_no_privilege") => capability::without_memory_or_privilege(),
            _ => panic!("no child is called {name:?}"),
        }
        return Some(ExitCode::SUCCESS);
    }
    None
}

const CHILD: &str = "BPF_PIN_TEST_CAUSE";

/// Runs one of the functions above in its own process, which starts with a single thread.
fn in_a_child(name: &str) -> Outcome {
    let output = common::command(env::current_exe()?)
        .env(CHILD, name)
        .output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name}: {}\n{stderr}", output.status).into());
    }
    Ok(())
}

/// A map that tests share. Before Linux 5.11 the memory of a user suffices for about a dozen maps, and the kernel
/// frees them asynchronously.
fn any_map() -> Map {
    static MAP: LazyLock<Map> = LazyLock::new(hash);
    MAP.try_clone().expect("a descriptor")
}

/// Asserts that pinning a map fails and returns it unchanged. Returns the error.
#[track_caller]
fn pin_fails(path: impl AsRef<Path>) -> Error {
    let path = path.as_ref();
    let map = any_map();
    let id = map.id().unwrap();
    let (map, error) = unwrap_err(map.pin(path), path).into_parts();
    assert_is_usable(&map, id);
    assert_eq!(error.operation(), Operation::Pin, "{error:?}");
    assert_eq!(
        error.path(),
        Some(path).filter(|path| *path != Path::new(""))
    );
    error
}

/// Asserts that opening the path fails with the same error for each type. Returns the error.
#[track_caller]
fn open_fails(path: impl AsRef<Path>) -> Error {
    let path = path.as_ref();
    let error = unwrap_err(Object::open(path), path);
    let typed = [
        unwrap_err(Map::open(path), path),
        unwrap_err(Prog::open(path), path),
        unwrap_err(Link::open(path), path),
    ];
    for other in typed {
        assert_eq!(other.to_string(), error.to_string());
        assert_eq!(other.cause(), error.cause());
    }
    assert_eq!(error.operation(), Operation::Open, "{error:?}");
    assert_eq!(
        error.path(),
        Some(path).filter(|path| *path != Path::new(""))
    );
    error
}

#[track_caller]
fn statfs_fails(path: impl AsRef<Path>) -> Error {
    let path = path.as_ref();
    let error = unwrap_err(FileSystem::at(path), path);
    assert_eq!(error.operation(), Operation::Statfs, "{error:?}");
    assert_eq!(
        error.path(),
        Some(path).filter(|path| *path != Path::new(""))
    );
    error
}

#[track_caller]
fn unwrap_err<T: Debug, E>(result: Result<T, E>, path: &Path) -> E {
    match result {
        Ok(done) => panic!("{} did not fail: {done:?}", path.display()),
        Err(error) => error,
    }
}

/// Asserts that the map has this id, and that its elements can be written and read.
#[track_caller]
fn assert_is_usable(map: &Map, id: u32) {
    assert_eq!(map.id().unwrap(), id);
    let elems = map.elements::<u32, u64>().unwrap();
    elems.update(&7, &49, ElemFlags::ANY).unwrap();
    assert_eq!(elems.lookup(&7).unwrap(), Some(49));
}

/// Pins a map and returns its id.
#[track_caller]
fn pin_a_map(path: impl AsRef<Path>) -> u32 {
    let pinned = any_map().pin(path).expect("a pin");
    pinned.id().unwrap()
}

/// The path with text appended, for example "/" or "/.".
fn followed_by(path: &Path, end: &str) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    text.push(end);
    text.into()
}

fn sysctl_is_zero() -> bool {
    let value = std::fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled");
    value.expect("the sysctl").trim() == "0"
}

/// True if the sysctl denies all of bpf(2) to threads without CAP_BPF, not only the creation of maps and programs.
fn sysctl_closes_all() -> bool {
    kernel(5, 19).unmet().is_some() && !sysctl_is_zero()
}

/// Makes the file system read-only, for all of its mounts.
fn make_superblock_read_only(fs: &TestFs) {
    let mount = fs.mount().expect("a detached mount");
    let flags = FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC;
    let context = fspick(mount, c"", flags).expect("fspick");
    fsconfig_set_flag(&context, c"ro").expect("ro");
    fsconfig_reconfigure(&context).expect("a read-only file system");
}

/// A detached tmpfs, which ends with its descriptor.
fn detached_tmpfs() -> (File, PathBuf) {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen,
    };
    let mount = (|| {
        let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::empty();
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    })();
    let mount = File::from(mount.expect("a detached tmpfs"));
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&mount));
    (mount, path.into())
}

/// Mounts a bpffs at `target`, for a thread with its own mount namespace.
fn mount_bpffs(target: impl AsRef<Path>) {
    mount(
        "bpf",
        target.as_ref(),
        "bpf",
        MountFlags::empty(),
        c"mode=700",
    )
    .expect("a bpffs");
}
