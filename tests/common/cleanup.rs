//! Cleans up after a test program, even if the program is killed.

use std::ffi::OsString;
use std::fs::{self, DirEntry, File, Permissions, set_permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::thread::sleep;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{PidfdFlags, getpid, pidfd_open, setsid};

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

/// The directory for temporary files of this program and its children. It is removed on drop.
pub(crate) struct TemporaryDir(PathBuf);

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Starts a process that creates the directory for temporary files of this program and its children, and cleans up
/// after the program has ended.
///
/// The program must have one thread.
pub(crate) fn start_cleanup() -> io::Result<TemporaryDir> {
    let program = pidfd_open(getpid(), PidfdFlags::empty())?;
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: this is the only thread, so the child waits for no lock.
    #[allow(clippy::disallowed_methods, reason = "the child outlives the program")]
    match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: _exit runs no destructors and flushes no buffers of the program.
        0 => unsafe {
            // A grandchild in its own session: waiting for any child does not return it, and killing the
            // process group does not kill it.
            if libc::fork() == 0 {
                let _ = setsid();
                let _ = create_and_clean_up(&program, writer.into());
            }
            libc::_exit(0)
        },
        pid => {
            // SAFETY: the status pointer may be null.
            unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
        }
    }
    drop(writer);
    let mut path = vec![];
    File::from(reader).read_to_end(&mut path)?;
    if path.is_empty() {
        return Err(io::Error::other("the process that cleans up has failed"));
    }
    let place = TemporaryDir(OsString::from_vec(path).into());
    // SAFETY: this is the only thread, so none reads the environment.
    unsafe { std::env::set_var("TMPDIR", &place.0) };
    Ok(place)
}

/// In the process that cleans up: creates the directory and sends its path to the program.
fn create_and_clean_up(program: &OwnedFd, mut writer: File) -> io::Result<()> {
    let place = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
    // Tests that run as other users create files in it, too.
    set_permissions(place.path(), Permissions::from_mode(0o1777))?;
    writer.write_all(place.path().as_os_str().as_bytes())?;
    clean_up_after(program, &place.keep())
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
        let have_ended = !has_processes(place);
        let cleared = [
            fs::remove_dir_all(place),
            clear_cgroups(mark),
            clear_bpffs(mark),
        ];
        let is_clear = |cleared: &io::Result<()>| match cleared {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if have_ended && cleared.iter().all(is_clear) {
            break;
        }
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// True if the environment of a process names the directory for temporary files.
fn has_processes(place: &Path) -> bool {
    let variable = [b"TMPDIR=", place.as_os_str().as_bytes()].concat();
    let is_there = |environ: Vec<u8>| environ.split(|&byte| byte == 0).any(|it| it == variable);
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|process| fs::read(process.path().join("environ")).ok())
        .any(is_there)
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
    marked(Path::new(&root), mark)?.try_for_each(|group| remove_cgroup(&group))
}

/// Removes a control group with the groups in it. The kernel removes its files.
pub(crate) fn remove_cgroup(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(group)
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
