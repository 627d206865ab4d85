//! Finds the processes, mounts and control groups of a test program by its mark.

use std::fs;
use std::path::{Path, PathBuf};

use common::*;
use rustix::mount::{MountFlags, mount};

/// The number of processes with `mark` in their environment. A process that has ended and was not waited for has no
/// environment.
pub fn processes(mark: &str) -> usize {
    let contains = |environ: &Vec<u8>| {
        environ
            .windows(mark.len())
            .any(|part| part == mark.as_bytes())
    };
    files_of_processes("environ").filter(contains).count()
}

/// True if a mount namespace of any process has a mount or the root of a mount with `mark` in its path.
pub fn has_mounts(mark: &str) -> bool {
    files_of_processes("mountinfo").any(|mounts| String::from_utf8_lossy(&mounts).contains(mark))
}

fn files_of_processes(name: &str) -> impl Iterator<Item = Vec<u8>> {
    let all = fs::read_dir("/proc").expect("processes").flatten();
    all.map(move |entry| entry.path().join(name))
        .filter_map(|path: PathBuf| fs::read(path).ok())
}

/// The names in the root of the control groups.
pub fn control_groups() -> Outcome<Vec<String>> {
    let at = tempfile::tempdir()?;
    in_mount_namespace(|| {
        mount("cgroup2", at.path(), "cgroup2", MountFlags::empty(), None)?;
        Ok(names(at.path()))
    })
}

/// The names in a directory.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory").flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
