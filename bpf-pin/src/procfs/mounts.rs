//! The mounts of a mount namespace, read again if they changed during the reading.

use std::cell::Cell;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, SeekFrom, open, openat, readlinkat, seek};

use crate::sys;

use super::mountinfo::{Line, Mount, lines};
use super::{Result, THREAD, check_proc, open_dir};

/// The open mountinfo file of a thread or process.
pub(crate) struct MountInfo {
    file: OwnedFd,
    /// Neither read nor polled since it was opened.
    is_fresh: Cell<bool>,
}

impl MountInfo {
    /// Opens the file of this thread, which may be in another mount namespace than its process.
    pub(crate) fn own() -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = open(c"/proc/thread-self/mountinfo", flags, Mode::empty());
        check_proc(file).map(Self::new)
    }

    fn new(file: OwnedFd) -> Self {
        let is_fresh = Cell::new(true);
        Self { file, is_fresh }
    }

    /// Reads a consistent list of mounts. If the mounts change during every attempt, the list is that of the
    /// last attempt, and may be inconsistent.
    pub(crate) fn read(&self) -> Result<MountTable> {
        const TRIES: usize = 8;

        // A poll reports changes since the file was opened, or since the last poll.
        let mut is_at_start = self.is_fresh.replace(false);
        let mut has_changed = !is_at_start && self.has_changed()?;
        let mut text = Vec::with_capacity(8 << 10);
        for _ in 0..TRIES {
            if !is_at_start {
                seek(&self.file, SeekFrom::Start(0))?;
            }
            is_at_start = false;
            text.clear();
            sys::read_to_end(self.file.as_fd(), &mut text)?;
            has_changed = self.has_changed()?;
            if !has_changed {
                break;
            }
        }
        Ok(MountTable { text, has_changed })
    }

    pub(crate) fn by_id(&self, mount_id: u64) -> Result<Option<Mount>> {
        Ok(self.read()?.by_id(mount_id))
    }

    /// True if the mounts have changed since the last call.
    fn has_changed(&self) -> Result<bool> {
        let mut files = [PollFd::from_borrowed_fd(self.file.as_fd(), PollFlags::PRI)];
        poll(&mut files, Some(&Timespec::default()))?;
        Ok(files[0].revents().contains(PollFlags::PRI))
    }
}

/// The text of mountinfo.
#[derive(Default)]
pub(crate) struct MountTable {
    text: Vec<u8>,
    /// The mounts changed during the reading, so a mount may be listed twice.
    has_changed: bool,
}

impl MountTable {
    /// The mounts of process 1, if it has another mount namespace and this thread may read them.
    pub(crate) fn of_process_1() -> Option<Self> {
        let namespace = |link: &CStr| {
            let name = readlinkat(CWD, link, Vec::new()).ok()?;
            // Old kernels return an empty name to a thread without permission.
            (!name.is_empty()).then_some(name)
        };
        if namespace(c"/proc/1/ns/mnt")? == namespace(c"/proc/thread-self/ns/mnt")? {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let path = c"../../../1/mountinfo";
        let file = openat(open_dir(THREAD).ok()?, path, flags, Mode::empty()).ok()?;
        MountInfo::new(file).read().ok()
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        lines(&self.text)
    }

    pub(crate) fn select(&self, matches: impl Fn(&Line<'_>) -> bool) -> Vec<Mount> {
        let lines = self.lines().filter(matches);
        self.unique(lines.map(|line| line.to_mount()))
    }

    /// Collects the mounts, each once even if it is listed twice.
    pub(crate) fn unique(&self, mounts: impl Iterator<Item = Mount>) -> Vec<Mount> {
        let mut found: Vec<Mount> = Vec::new();
        for mount in mounts {
            let is_same = |other: &Mount| other.mount_id == mount.mount_id;
            if !self.has_changed || !found.iter().any(is_same) {
                found.push(mount);
            }
        }
        found
    }

    pub(crate) fn bpffs(&self) -> Vec<Mount> {
        self.select(|line| line.is_bpffs())
    }

    pub(crate) fn mounted_at(&self, path: &Path) -> Vec<Mount> {
        self.select(|line| line.is_mounted_at(path))
    }

    pub(crate) fn by_id(&self, mount_id: u64) -> Option<Mount> {
        let mut lines = self.lines();
        let line = lines.find(|line| line.mount_id == mount_id)?;
        Some(line.to_mount())
    }

    /// True if the mount `above` is at `path` and stacked on top of `below`, directly or with only mounts at
    /// the same path in between.
    pub(crate) fn is_on_top(&self, above: u64, below: u64, path: &Path) -> bool {
        let here: Vec<_> = self
            .lines()
            .filter(|line| line.is_mounted_at(path))
            .collect();
        let mut above = above;
        // An id occurs once in a chain, so this many steps are enough.
        for _ in 0..here.len() {
            match here.iter().find(|line| line.mount_id == above) {
                Some(line) if line.parent_id == below => return true,
                Some(line) => above = line.parent_id,
                None => break,
            }
        }
        false
    }
}
