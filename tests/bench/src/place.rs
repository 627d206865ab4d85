//! A bpffs of the bench's own, under a path as users have one, that nobody else sees.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bpf_pin::bpffs::MountOptions;
use bpf_pin::{Map, MapSpec, MapType};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities, unshare_unsafe};

use crate::Failure;

pub struct Place {
    /// What is mounted in it goes with the namespace, it itself with the bench.
    directory: tempfile::TempDir,
    pub root: PathBuf,
}

/// Whether this thread may have mounts of its own.
pub fn may_be_made() -> Result<(), Failure> {
    match capabilities(None)?
        .effective
        .contains(CapabilitySet::SYS_ADMIN)
    {
        true => Ok(()),
        false => Err("a mount namespace takes CAP_SYS_ADMIN: be root".into()),
    }
}

impl Place {
    pub fn new() -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        // SAFETY: only this process's view of mounts and networks changes; it has one thread.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET) }
            .map_err(|errno| format!("a mount and a network namespace: {errno}"))?;
        let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
        mount_change("/", private)?;
        let root = directory.path().join("bpf");
        std::fs::create_dir(&root)?;
        std::fs::create_dir(directory.path().join("mounts"))?;
        MountOptions::new().mode(0o700).mount(&root)?;
        Ok(Self { directory, root })
    }

    /// Another bpffs, on a mount that follows no symbolic links.
    pub fn nosymfollow(&self) -> Result<Mounted, Failure> {
        let path = self.directory.path().join("nosymfollow");
        std::fs::create_dir_all(&path)?;
        let options = MountOptions::new().mode(0o700).nosymfollow(true);
        options.mount(&path)?;
        Ok(Mounted { path })
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where other mounts may be made.
    pub fn mount_point(&self) -> PathBuf {
        self.directory.path().join("mounts")
    }

    /// An empty directory.
    pub fn dir(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.at(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = unmount(&self.root, UnmountFlags::DETACH);
    }
}

/// Until it is dropped.
pub struct Mounted {
    pub path: PathBuf,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}

/// A path at an address that is a multiple of 64: how many instructions the C library takes to copy it
/// depends on that.
pub fn aligned(path: &Path) -> &'static Path {
    #[derive(Clone, Copy)]
    #[repr(align(64))]
    struct Line([u8; 64]);

    let bytes = path.as_os_str().as_bytes();
    let mut lines = vec![Line([0; 64]); bytes.len().div_ceil(64)];
    for (line, chunk) in lines.iter_mut().zip(bytes.chunks(64)) {
        line.0[..chunk.len()].copy_from_slice(chunk);
    }
    let lines = Box::leak(lines.into_boxed_slice());
    // SAFETY: the lines are as many bytes or more, one behind the other, and stay.
    let bytes = unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), bytes.len()) };
    Path::new(OsStr::from_bytes(bytes))
}

pub fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path without NUL")
}

/// From u32 to u64.
pub fn hash(max_entries: u32) -> Result<Map, Failure> {
    Ok(MapSpec::new(MapType::HASH, 4, 8, max_entries).create()?)
}
