//! The table of mounts: mountinfo read as a stream, until it has held still meanwhile.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, openat};

use crate::cause::Cause;
use crate::error::Reason;
use crate::kind::{self, proc_dir};

use super::mountinfo::{Line, Mount};

/// Calls `each` with every line, of whatever length.
pub(crate) fn each_line(source: &mut dyn Read, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    /// The kernel fills what it is given with whole lines, and holds a lock meanwhile.
    const ROOM: usize = 64 << 10;

    let mut buffer = vec![0; ROOM];
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            buffer.resize(filled * 2, 0);
        }
        let count = match source.read(&mut buffer[filled..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        if count == 0 {
            if filled > 0 {
                each(&buffer[..filled]);
            }
            return Ok(());
        }
        let (fresh, end) = (filled, filled + count);
        filled = end;
        let is_end = |&byte: &u8| byte == b'\n';
        if let Some(last) = buffer[fresh..end].iter().rposition(is_end) {
            let last = fresh + last;
            buffer[..last].split(is_end).for_each(&mut each);
            buffer.copy_within(last + 1..end, 0);
            filled = end - (last + 1);
        }
    }
}

/// A directory of this thread in a genuine /proc.
pub(crate) fn genuine_proc(name: &str) -> Result<OwnedFd, Reason> {
    let directory = kind::genuine_proc(name).map_err(Reason::errno_only)?;
    directory.ok_or_else(|| Cause::NoProc.into())
}

/// The open mountinfo of a process.
pub(crate) struct MountInfo(File);

impl MountInfo {
    /// Of this thread, which may have a mount namespace of its own.
    pub(crate) fn own() -> Result<Self, Reason> {
        Self::open(genuine_proc(".")?, Path::new("mountinfo"))
    }

    /// Of process 1, where that may be looked at.
    pub(crate) fn of_process_1() -> Option<Self> {
        Self::open(proc_dir(".")?, Path::new("../../../1/mountinfo")).ok()
    }

    fn open(directory: OwnedFd, path: &Path) -> Result<Self, Reason> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(directory, path, flags, Mode::empty());
        let file = file.map_err(Reason::errno_only)?;
        Ok(Self(File::from(file)))
    }

    /// The mounts that are `wanted`: as they were at one moment, or, where mounts come and go all
    /// the while, as they were in the course of one reading.
    pub(crate) fn select(&self, wanted: impl Fn(&Line<'_>) -> bool) -> Result<Vec<Mount>, Reason> {
        const TRIES: usize = 8;

        let mut mounts = Vec::new();
        let mut has_changed = self.has_changed()?;
        for _ in 0..TRIES {
            mounts.clear();
            let mut file = &self.0;
            let read = file.seek(SeekFrom::Start(0)).and_then(|_| {
                each_line(&mut file, |line| {
                    let line = Line::parse(line).filter(&wanted);
                    mounts.extend(line.map(|line| line.to_mount()));
                })
            });
            read.map_err(Reason::from_io)?;
            has_changed = self.has_changed()?;
            if !has_changed {
                break;
            }
        }
        if has_changed {
            // What moved within the list may have been met twice.
            let mut seen = HashSet::new();
            mounts.retain(|mount| seen.insert(mount.mount_id));
        }
        Ok(mounts)
    }

    pub(crate) fn by_id(&self, mount_id: u64) -> Result<Option<Mount>, Reason> {
        Ok(self.select(|line| line.mount_id == mount_id)?.pop())
    }

    /// Whether a mount came or went since this was asked last.
    fn has_changed(&self) -> Result<bool, Reason> {
        let now = Timespec::default();
        let mut files = [PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::PRI)];
        match poll(&mut files, Some(&now)) {
            Ok(_) => Ok(files[0].revents().contains(PollFlags::PRI)),
            Err(errno) => Err(Reason::errno_only(errno)),
        }
    }
}
