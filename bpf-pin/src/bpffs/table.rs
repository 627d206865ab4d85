//! The table of mounts: mountinfo read as a stream, until it has held still meanwhile.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Seek;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, openat};

use crate::cause::Cause;
use crate::error::Reason;
use crate::kind::{self, proc_dir};

use super::mountinfo::{Line, Mount, each_line};

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
        let mut mounts = Vec::new();
        let has_changed = self.read(&mut |step| match step {
            Step::Begin => mounts.clear(),
            Step::Line(line) => mounts.extend(wanted(&line).then(|| line.to_mount())),
        })?;
        if has_changed {
            keep_first(&mut mounts);
        }
        Ok(mounts)
    }

    /// All mounts, and the more of those of type bpf, likewise.
    pub(crate) fn table(&self) -> Result<Table, Reason> {
        let mut table = Table::default();
        let has_changed = self.read(&mut |step| match step {
            Step::Begin => table.clear(),
            Step::Line(line) => table.push(&line),
        })?;
        table.rows.sort_by_key(|row| row.mount_id);
        if has_changed {
            keep_first(&mut table.bpffs);
            table.rows.dedup_by_key(|row| row.mount_id);
        }
        Ok(table)
    }

    /// Tells of each line, anew until nothing has changed meanwhile. Whether something has, in the end.
    fn read(&self, tell: &mut dyn FnMut(Step<'_>)) -> Result<bool, Reason> {
        const TRIES: usize = 8;

        let mut has_changed = self.has_changed()?;
        for _ in 0..TRIES {
            tell(Step::Begin);
            let mut file = &self.0;
            file.rewind().map_err(Reason::from_io)?;
            each_line(&mut file, |line| {
                if let Some(line) = Line::parse(line) {
                    tell(Step::Line(line));
                }
            })
            .map_err(Reason::from_io)?;
            has_changed = self.has_changed()?;
            if !has_changed {
                break;
            }
        }
        Ok(has_changed)
    }

    pub(crate) fn by_id(&self, mount_id: u64) -> Result<Option<Mount>, Reason> {
        Ok(self.select(|line| line.mount_id == mount_id)?.pop())
    }

    /// Whether the mount `above` is on top of `below`, or of what is at `path` in that, with nothing
    /// between them but what is mounted there, too.
    pub(crate) fn is_on_top(&self, above: u64, below: u64, path: &Path) -> Result<bool, Reason> {
        let here = self.select(|line| line.is_mounted_at(path))?;
        let parents: HashMap<_, _> = here.iter().map(|m| (m.mount_id, m.parent_id)).collect();
        let mut above = above;
        // Which ends, for no id is met twice in a list of so many.
        for _ in 0..here.len() {
            match parents.get(&above) {
                Some(&parent) if parent == below => return Ok(true),
                Some(&parent) => above = parent,
                None => break,
            }
        }
        Ok(false)
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

enum Step<'l> {
    /// What was told before is void.
    Begin,
    Line(Line<'l>),
}

/// What moved within the list may have been met twice.
fn keep_first(mounts: &mut Vec<Mount>) {
    let mut seen = HashSet::new();
    mounts.retain(|mount| seen.insert(mount.mount_id));
}

/// All mounts, tens of thousands as they may be, in little memory: where each is. Of those of type bpf
/// there is the rest, too.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) bpffs: Vec<Mount>,
    /// By their ids.
    rows: Vec<Packed>,
    /// All paths, one behind the other.
    paths: Vec<u8>,
}

#[derive(Debug)]
struct Packed {
    mount_id: u64,
    parent_id: u64,
    begin: usize,
    len: usize,
}

/// Where a mount is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'t> {
    pub(crate) mount_id: u64,
    pub(crate) parent_id: u64,
    pub(crate) mount_point: &'t Path,
}

impl Table {
    fn clear(&mut self) {
        self.bpffs.clear();
        self.rows.clear();
        self.paths.clear();
    }

    fn push(&mut self, line: &Line<'_>) {
        if line.is_bpffs() {
            self.bpffs.push(line.to_mount());
        }
        let path = line.mount_point();
        self.rows.push(Packed {
            mount_id: line.mount_id,
            parent_id: line.parent_id,
            begin: self.paths.len(),
            len: path.len(),
        });
        self.paths.extend_from_slice(&path);
    }

    fn row(&self, packed: &Packed) -> Row<'_> {
        let path = &self.paths[packed.begin..packed.begin + packed.len];
        Row {
            mount_id: packed.mount_id,
            parent_id: packed.parent_id,
            mount_point: Path::new(OsStr::from_bytes(path)),
        }
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|packed| self.row(packed))
    }

    pub(crate) fn by_id(&self, mount_id: u64) -> Option<Row<'_>> {
        let at = self
            .rows
            .binary_search_by_key(&mount_id, |row| row.mount_id);
        Some(self.row(&self.rows[at.ok()?]))
    }

    /// What it is mounted on, where that is listed.
    pub(crate) fn parent(&self, of: Row<'_>) -> Option<Row<'_>> {
        let is_another = of.parent_id != of.mount_id;
        self.by_id(of.parent_id).filter(|_| is_another)
    }
}
