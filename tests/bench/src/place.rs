//! A bpffs that only the bench sees, at a path of typical length.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bpf_pin::bpffs::MountOptions;
use bpf_pin::{Map, MapSpec, MapType};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities, unshare_unsafe};

use crate::Failure;

pub struct Place {
    /// Removed with the bench. The mounts in it end with the namespace.
    directory: tempfile::TempDir,
    pub root: PathBuf,
}

/// Fails unless this thread may create a mount namespace.
pub fn check_privilege() -> Result<(), Failure> {
    match capabilities(None)?
        .effective
        .contains(CapabilitySet::SYS_ADMIN)
    {
        true => Ok(()),
        false => Err("a mount namespace needs CAP_SYS_ADMIN: run as root".into()),
    }
}

impl Place {
    pub fn new() -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        // SAFETY: this process has one thread, and only its mounts and networks change.
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

    /// Mounts another bpffs that follows no symbolic links.
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

    /// A directory for other mounts.
    pub fn mount_point(&self) -> PathBuf {
        self.directory.path().join("mounts")
    }

    /// Creates an empty directory.
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

/// A bpffs that is unmounted on drop.
pub struct Mounted {
    pub path: PathBuf,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}

/// Returns the path at an address that is a multiple of 64: the number of instructions of the C library's copy depends
/// on the address.
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
    // SAFETY: the lines are contiguous, have at least this many bytes and are never freed.
    let bytes = unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), bytes.len()) };
    Path::new(OsStr::from_bytes(bytes))
}

pub fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path without NUL")
}

/// Creates a hash map from u32 to u64.
pub fn hash(max_entries: u32) -> Result<Map, Failure> {
    Ok(MapSpec::new(MapType::HASH, 4, 8, max_entries).create()?)
}
