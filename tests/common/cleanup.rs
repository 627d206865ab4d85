//! Cleans up after a test program, even if the program is killed.

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

use crate::bpffs::bpffs_from_environment;

const PREFIX: &str = "bpf-pin-test-";

/// A unique name for a directory that may outlive the program, marked so that the clean-up finds it.
pub(crate) fn unique(number: u32) -> String {
    let place = std::env::temp_dir();
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let mark = match name.starts_with(PREFIX) {
        true => &name,
        false => PREFIX.trim_end_matches('-'),
    };
    format!("{mark}-{}-{number}", std::process::id())
}

/// Creates the directory for temporary files of this program and its children, and a process that cleans up
/// after the program has ended.
///
/// The program must have one thread.
pub(crate) fn start_cleanup() -> io::Result<TempDir> {
    let place = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
    // Tests that run as other users create files in it, too.
    set_permissions(place.path(), Permissions::from_mode(0o1777))?;
    let program = pidfd_open(getpid(), PidfdFlags::empty())?;
    // SAFETY: this is the only thread, so the child waits for no lock.
    match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: _exit runs no destructors and flushes no buffers of the program.
        0 => unsafe {
            // A grandchild in its own session: waiting for any child does not return it, and killing the
            // process group does not kill it.
            if libc::fork() == 0 {
                let _ = setsid();
                let _ = clean_up_after(&program, place.path());
            }
            libc::_exit(0)
        },
        pid => {
            // SAFETY: the status pointer may be null.
            unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
        }
    }
    // SAFETY: this is the only thread, so none reads the environment.
    unsafe { std::env::set_var("TMPDIR", place.path()) };
    Ok(place)
}

fn clean_up_after(program: &OwnedFd, place: &Path) -> io::Result<()> {
    close_all_but(program)?;
    poll(&mut [PollFd::new(program, PollFlags::IN)], None)?;
    if !place.exists() {
        // The program has cleaned up itself.
        return Ok(());
    }
    let mark = place.file_name().unwrap_or_default().as_encoded_bytes();
    // Its children and their mounts may end a little later.
    for _ in 0..100 {
        let cleared = [
            fs::remove_dir_all(place),
            clear_cgroups(mark),
            clear_bpffs(mark),
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

/// Closes all other descriptors, so that readers of the program's output do not wait for this process.
fn close_all_but(program: &OwnedFd) -> io::Result<()> {
    let kept = program.as_raw_fd() as libc::c_uint;
    for (first, last) in [(0, kept.wrapping_sub(1)), (kept + 1, libc::c_uint::MAX)] {
        // SAFETY: nothing that runs in this process uses these descriptors.
        if first <= last && unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Removes marked control groups through a detached mount, if this process may mount.
fn clear_cgroups(mark: &[u8]) -> io::Result<()> {
    let Ok(all) = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC) else {
        return Ok(());
    };
    fsconfig_create(all.as_fd())?;
    let flags = (FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
    let all = fsmount(all.as_fd(), flags.0, flags.1)?;
    let root = format!("/proc/self/fd/{}", all.as_raw_fd());
    // Removing a control group removes the kernel's files in it.
    marked(Path::new(&root), mark)?.try_for_each(fs::remove_dir)
}

/// Removes marked directories from the bpffs of the environment.
fn clear_bpffs(mark: &[u8]) -> io::Result<()> {
    match bpffs_from_environment() {
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
