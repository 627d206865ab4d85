//! The table of mounts: mountinfo read as a stream, until it has held still meanwhile.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fstatfs, open, openat};
use rustix::io::Errno;

use crate::cause::Cause;
use crate::error::Reason;
use crate::kind::{self, proc_dir};
use crate::magic::FileSystem;
use crate::mountinfo::{Line, Mount, Place, bpffs_lines, each_piece, lines};

/// A directory of this thread in a genuine /proc.
pub(crate) fn genuine_proc(name: &str) -> Result<OwnedFd, Reason> {
    let directory = kind::genuine_proc(name).map_err(Reason::errno_only)?;
    directory.ok_or_else(|| Cause::NoProc.into())
}

/// The open mountinfo of a process.
pub(crate) struct MountInfo {
    file: File,
    /// Nothing was read yet, and nothing asked, since it was opened.
    is_fresh: Cell<bool>,
}

impl MountInfo {
    /// Of this thread, which may have a mount namespace of its own.
    pub(crate) fn own() -> Result<Self, Reason> {
        // Whatever is mounted on the way: it is this file that is proven to be of a /proc.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match open(c"/proc/thread-self/mountinfo", flags, Mode::empty()) {
            Ok(file) => file,
            Err(errno) => return Err(why_not_open(errno)),
        };
        let found = fstatfs(&file).map(|stat| FileSystem::from_stat(&stat));
        match found == Ok(FileSystem::PROC) {
            true => Ok(Self::new(file)),
            false => Err(Cause::NoProc.into()),
        }
    }

    /// Of process 1, where that may be looked at.
    fn of_process_1() -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let path = c"../../../1/mountinfo";
        let file = openat(proc_dir(".")?, path, flags, Mode::empty());
        file.ok().map(Self::new)
    }

    fn new(file: OwnedFd) -> Self {
        let (file, is_fresh) = (File::from(file), Cell::new(true));
        Self { file, is_fresh }
    }

    /// The mounts that are `wanted`: as they were at one moment, or, where mounts come and go all
    /// the while, as they were in the course of one reading.
    pub(crate) fn select(&self, wanted: impl Fn(&Line<'_>) -> bool) -> Result<Vec<Mount>, Reason> {
        self.select_of(false, wanted)
    }

    /// Those of type bpf that are `wanted`, likewise: less to read of all others.
    pub(crate) fn select_bpffs(
        &self,
        wanted: impl Fn(&Line<'_>) -> bool,
    ) -> Result<Vec<Mount>, Reason> {
        self.select_of(true, |line| line.is_bpffs() && wanted(line))
    }

    fn select_of(
        &self,
        are_of_type_bpf: bool,
        wanted: impl Fn(&Line<'_>) -> bool,
    ) -> Result<Vec<Mount>, Reason> {
        let mut mounts = Vec::new();
        let has_changed = self.read(&mut |step| match step {
            Step::Begin => mounts.clear(),
            Step::Text(text) => {
                let mut take = |line: &[u8]| {
                    let line = Line::parse(line).filter(&wanted);
                    mounts.extend(line.map(|line| line.to_mount()));
                };
                match are_of_type_bpf {
                    true => bpffs_lines(text).for_each(&mut take),
                    false => lines(text).for_each(&mut take),
                }
            }
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
            Step::Text(text) => table.extend(text),
        })?;
        table.settle(has_changed);
        Ok(table)
    }

    /// Tells of all lines, anew until nothing has changed meanwhile. Whether something has, in the end.
    fn read(&self, tell: &mut dyn FnMut(Step<'_>)) -> Result<bool, Reason> {
        const TRIES: usize = 8;

        let mut file = &self.file;
        // What changes after the opening is told by the first poll, as by any other what changes after
        // the one before.
        let mut is_at_begin = self.is_fresh.replace(false);
        let mut has_changed = !is_at_begin && self.has_changed()?;
        for _ in 0..TRIES {
            tell(Step::Begin);
            if !is_at_begin {
                file.rewind().map_err(Reason::from_io)?;
            }
            is_at_begin = false;
            each_piece(&mut file, |text| tell(Step::Text(text))).map_err(Reason::from_io)?;
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
        let mut files = [PollFd::from_borrowed_fd(self.file.as_fd(), PollFlags::PRI)];
        match poll(&mut files, Some(&now)) {
            Ok(_) => Ok(files[0].revents().contains(PollFlags::PRI)),
            Err(errno) => Err(Reason::errno_only(errno)),
        }
    }
}

/// The mounts of process 1 that are `wanted`, where it has another mount namespace and may be looked at.
pub(crate) fn of_process_1(wanted: impl Fn(&Line<'_>) -> bool) -> Option<Vec<Mount>> {
    let namespace = |process| {
        let name = fs::read_link(format!("/proc/{process}/ns/mnt")).ok()?;
        // What old kernels give to who may not look.
        (!name.as_os_str().is_empty()).then_some(name)
    };
    if namespace("1")? == namespace("thread-self")? {
        return None;
    }
    MountInfo::of_process_1()?.select(wanted).ok()
}

enum Step<'l> {
    /// What was told before is void.
    Begin,
    /// Whole lines.
    Text(&'l [u8]),
}

/// Why there is no mountinfo.
#[cold]
fn why_not_open(errno: Errno) -> Reason {
    match genuine_proc(".") {
        Ok(_) => Reason::errno_only(errno),
        Err(reason) => reason,
    }
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

    fn extend(&mut self, text: &[u8]) {
        let of_type_bpf = bpffs_lines(text).filter_map(Line::parse);
        let of_type_bpf = of_type_bpf.filter(|line| line.is_bpffs());
        self.bpffs.extend(of_type_bpf.map(|line| line.to_mount()));
        for place in lines(text).filter_map(Place::parse) {
            let path = place.mount_point;
            self.rows.push(Packed {
                mount_id: place.mount_id,
                parent_id: place.parent_id,
                begin: self.paths.len(),
                len: path.len(),
            });
            self.paths.extend_from_slice(&path);
        }
    }

    /// When all has been told; what moved within the list may have been met twice.
    fn settle(&mut self, has_changed: bool) {
        self.rows.sort_by_key(|row| row.mount_id);
        if has_changed {
            keep_first(&mut self.bpffs);
            self.rows.dedup_by_key(|row| row.mount_id);
        }
    }

    /// Of any text, which may have changed while it was read.
    pub(crate) fn parse(source: &mut dyn Read) -> io::Result<Self> {
        let mut table = Self::default();
        each_piece(source, |text| table.extend(text))?;
        table.settle(true);
        Ok(table)
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
