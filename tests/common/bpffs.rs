//! A bpffs for one test.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use crate::{cap, cleanup};

/// The bpffs for tests that may not mount one, from the environment.
pub(crate) fn bpffs_from_environment() -> Option<PathBuf> {
    std::env::var_os("BPF_PIN_TEST_BPFFS").map(PathBuf::from)
}

/// A bpffs for one test: a detached mount that ends with its descriptor, or a directory in the bpffs from the
/// environment.
pub struct TestFs {
    path: PathBuf,
    backing: Backing,
}

enum Backing {
    Detached(OwnedFd),
    Directory,
}

impl TestFs {
    pub fn new() -> Self {
        match bpffs_from_environment() {
            Some(place) if cap::SYS_ADMIN.unmet().is_some() => Self::within(&place),
            _ => Self::detached("700"),
        }
    }

    /// A detached mount by fsopen, fsconfig and fsmount. Linux 5.3.
    pub fn detached(mode: &str) -> Self {
        Self::with_attributes(mode, MountAttrFlags::empty())
    }

    /// A detached mount with `nosymfollow`. Linux 5.14.
    pub fn nosymfollow() -> Self {
        Self::with_attributes("700", MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW)
    }

    fn with_attributes(mode: &str, attributes: MountAttrFlags) -> Self {
        let mount = (|| {
            let fs = fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(fs.as_fd(), "mode", mode)?;
            fsconfig_create(fs.as_fd())?;
            fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        })();
        let mount: OwnedFd = mount.expect("a new bpffs");
        Self {
            path: format!("/proc/self/fd/{}", mount.as_raw_fd()).into(),
            backing: Backing::Detached(mount),
        }
    }

    fn within(place: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = place.join(cleanup::unique(number));
        fs::create_dir(&path).expect("a directory in BPF_PIN_TEST_BPFFS");
        let backing = Backing::Directory;
        Self { path, backing }
    }

    /// The path of `name` in its root.
    pub fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn root(&self) -> &Path {
        &self.path
    }

    /// The names in its root, sorted, without the kernel's own two files.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.path).expect("the root can be listed");
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "maps.debug" && name != "progs.debug")
            .collect();
        names.sort();
        names
    }

    /// The mount, if it is a detached one.
    pub fn mount(&self) -> Option<&OwnedFd> {
        match &self.backing {
            Backing::Detached(mount) => Some(mount),
            Backing::Directory => None,
        }
    }
}

impl Default for TestFs {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestFs {
    fn drop(&mut self) {
        if let Backing::Directory = self.backing {
            let removed = fs::remove_dir_all(&self.path);
            if !std::thread::panicking() {
                removed.expect("the directory can be removed");
            }
        }
    }
}

/// A path as error messages print it: a NUL is escaped.
pub fn escaped(path: &Path) -> String {
    path.display().to_string().replace('\0', "\\0")
}
