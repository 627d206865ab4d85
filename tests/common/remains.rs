//! What a program of tests would leave behind if it were killed, and who takes that away then.

use std::fs::{self, DirEntry, Permissions, set_permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::thread::sleep;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::process::{PidfdFlags, getpid, pidfd_open, setsid};
use tempfile::TempDir;

use crate::bpffs::given;

const PREFIX: &str = "bpf-pin-test-";

/// For a name in a place that outlives the program: its own, and told by it.
pub(crate) fn unique(number: u32) -> String {
    let place = std::env::temp_dir();
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let mark = match name.starts_with(PREFIX) {
        true => &name,
        false => PREFIX.trim_end_matches('-'),
    };
    format!("{mark}-{}-{number}", std::process::id())
}

/// Makes the place for this program's temporary files and those of the programs it starts, and a
/// process that waits for its end, whatever that is, and clears up then.
///
/// For a program with one thread.
pub(crate) fn watched() -> io::Result<TempDir> {
    let place = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
    // Users that tests become have theirs in it, too.
    set_permissions(place.path(), Permissions::from_mode(0o1777))?;
    let program = pidfd_open(getpid(), PidfdFlags::empty())?;
    // SAFETY: no other thread holds a lock that the child would wait for.
    match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: the program's buffers and destructors are the program's.
        0 => unsafe {
            // A process of nobody's: whoever waits for any child does not meet it, and who ends a
            // group of processes does not end it.
            if libc::fork() == 0 {
                let _ = setsid();
                let _ = watch(&program, place.path());
            }
            libc::_exit(0)
        },
        pid => {
            // SAFETY: no status is asked for.
            unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
        }
    }
    // SAFETY: no other thread reads the environment.
    unsafe { std::env::set_var("TMPDIR", place.path()) };
    Ok(place)
}

fn watch(program: &OwnedFd, place: &Path) -> io::Result<()> {
    keep_open(program)?;
    poll(&mut [PollFd::new(program, PollFlags::IN)], None)?;
    if !place.exists() {
        // It has ended by itself.
        return Ok(());
    }
    let mark = place.file_name().unwrap_or_default().as_encoded_bytes();
    // Its children may be about to end, and its mounts with them.
    for _ in 0..100 {
        let cleared = [
            fs::remove_dir_all(place),
            clear_cgroups(mark),
            clear_given(mark),
        ];
        let is_clear = |cleared: &io::Result<()>| match cleared {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if cleared.iter().all(is_clear) {
            break;
        }
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Who reads what the program writes is not to wait for this process.
fn keep_open(program: &OwnedFd) -> io::Result<()> {
    let kept = program.as_raw_fd() as libc::c_uint;
    for (first, last) in [(0, kept.wrapping_sub(1)), (kept + 1, libc::c_uint::MAX)] {
        // SAFETY: nothing refers to these descriptors but what never runs in this process.
        if first <= last && unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// In the machine's control groups, mounted nowhere; for who may mount, as for the tests that make them.
fn clear_cgroups(mark: &[u8]) -> io::Result<()> {
    let Ok(all) = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC) else {
        return Ok(());
    };
    fsconfig_create(all.as_fd())?;
    let flags = (FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
    let all = fsmount(all.as_fd(), flags.0, flags.1)?;
    let root = format!("/proc/self/fd/{}", all.as_raw_fd());
    // Of a control group the kernel's files go with it.
    marked(Path::new(&root), mark)?.try_for_each(fs::remove_dir)
}

/// In the bpffs that was given to the tests.
fn clear_given(mark: &[u8]) -> io::Result<()> {
    match given() {
        Some(root) => marked(&root, mark)?.try_for_each(fs::remove_dir_all),
        None => Ok(()),
    }
}

fn marked(root: &Path, mark: &[u8]) -> io::Result<impl Iterator<Item = PathBuf>> {
    let entries = fs::read_dir(root)?.flatten();
    let is_marked = |entry: &DirEntry| entry.file_name().as_encoded_bytes().starts_with(mark);
    let paths: Vec<_> = entries
        .filter(is_marked)
        .map(|entry| entry.path())
        .collect();
    Ok(paths.into_iter())
}
