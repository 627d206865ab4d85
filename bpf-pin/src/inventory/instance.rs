//! The pins of one instance, through the mounts that lead to them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags, fstat, open, statx};
use rustix::io::Errno;

use crate::bpffs::{Bpffs, error};
use crate::dir::{Entry, EntryType, PinDir, Walk};
use crate::error::{Cause, Error, Operation, Reason, Result};
use crate::object::Object;
use crate::procfs::{Mount, mount_id};
use crate::types::Access;
use crate::types::FileSystem;

use super::PinEntry;
use super::mount_points::MountPoints;

/// An instance, and the parts of it that are not walked yet.
#[derive(Debug)]
pub(super) struct Instance {
    dev: u64,
    /// Sorted by the directory that is mounted, so that a directory precedes the directories in it.
    mounts: Vec<Candidate>,
    /// The parts left to walk. None is within another.
    parts: VecDeque<Part>,
    /// Mounts of removed files and directories, which are within no part.
    removed: VecDeque<Mount>,
    /// The inodes of the removed pins that were reported.
    removed_inodes: HashSet<u64>,
    walk: Option<PartWalk>,
}

/// A mount through which an instance may be walked.
#[derive(Debug)]
struct Candidate {
    mount: Mount,
    /// The result of looking up its mount point: true if that leads to this mount.
    is_reachable: OnceLock<bool>,
}

impl Candidate {
    /// Returns true if `path`, at or below its mount point, leads to this mount, or if that is unknown.
    fn is_reachable_by(&self, path: &Path) -> bool {
        let leads_here = |path: &Path| match statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)
        {
            // Before Linux 5.8.
            Ok(stat) if stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 => true,
            Ok(stat) => stat.stx_mnt_id == self.mount.mount_id,
            Err(Errno::NOENT | Errno::NOTDIR) => false,
            Err(_) => true,
        };
        let point = &self.mount.mount_point;
        // The mount point is looked up once for all paths in it: there may be thousands of mounts.
        *self.is_reachable.get_or_init(|| leads_here(point)) && (path == point || leads_here(path))
    }
}

/// A directory of an instance with everything in it, or a single pin.
#[derive(Debug)]
struct Part {
    /// Its path from the root of the instance.
    root: PathBuf,
    if_unreachable: IfUnreachable,
}

/// The error to report for a part that no mount leads to.
#[derive(Debug)]
enum IfUnreachable {
    /// The error of the first mount that was tried.
    FirstError,
    /// The error with which a walk stopped there.
    Error(Error),
    /// No error: another bpffs is mounted there, which is walked itself.
    Nothing,
}

#[derive(Debug)]
struct PartWalk {
    /// The part's path from the root of the instance.
    root: PathBuf,
    /// Its path in this mount namespace.
    path: PathBuf,
    mount_id: u64,
    walk: Walk,
}

/// The file that a mount leads to.
enum Reached {
    Directory(Walk),
    Pin(PinEntry),
}

/// Groups the mounts by instance, in the order of their first mounts.
pub(super) fn by_instance(mounts: Vec<Mount>) -> Vec<Instance> {
    let mut indices = HashMap::new();
    let mut instances: Vec<Instance> = Vec::new();
    for mount in mounts {
        let dev = mount.dev;
        let index = *indices.entry(dev).or_insert_with(|| {
            instances.push(Instance {
                dev,
                mounts: Vec::new(),
                parts: VecDeque::new(),
                removed: VecDeque::new(),
                removed_inodes: HashSet::new(),
                walk: None,
            });
            instances.len() - 1
        });
        if is_removed(&mount.root) {
            instances[index].removed.push_back(mount);
        } else {
            let is_reachable = OnceLock::new();
            let candidate = Candidate {
                mount,
                is_reachable,
            };
            instances[index].mounts.push(candidate);
        }
    }
    for Instance { mounts, parts, .. } in &mut instances {
        mounts.sort_by(|a, b| a.mount.root.cmp(&b.mount.root));
        parts.extend(outermost(mounts));
    }
    instances
}

/// The kernel marks a file without a name. Two such files may have the same path.
fn is_removed(root: &Path) -> bool {
    root.as_os_str().as_bytes().ends_with(b"//deleted")
}

/// The mounted parts that are not within other mounted parts.
fn outermost(mounts: &[Candidate]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for Candidate { mount, .. } in mounts {
        if !parts
            .last()
            .is_some_and(|part| mount.root.starts_with(&part.root))
        {
            parts.push(Part {
                root: mount.root.clone(),
                if_unreachable: IfUnreachable::FirstError,
            });
        }
    }
    parts
}

impl Instance {
    pub(super) fn next(&mut self, mount_points: &MountPoints) -> Option<Result<PinEntry>> {
        loop {
            let Some(PartWalk { walk, mount_id, .. }) = &mut self.walk else {
                let started = match self.parts.pop_front() {
                    Some(part) => self.start(part),
                    None => {
                        let mount = self.removed.pop_front()?;
                        self.removed_pin(&mount)
                    }
                };
                if started.is_some() {
                    return started;
                }
                continue;
            };
            match walk.next_entry() {
                Some(Ok(entry)) if entry.entry_type() == EntryType::Pin => {
                    let path = entry.path();
                    if mount_points.is_covered(*mount_id, &path) {
                        self.add_covered_pin(path);
                        continue;
                    }
                    match pin_entry(self.dev, entry, path) {
                        // The pin or its object was removed in the meantime.
                        Err(error) if error.is(Errno::NOENT) => {}
                        // Something was mounted on it in the meantime.
                        Err(_) if entry.is_mount_point() == Some(true) => {
                            let path = entry.path();
                            self.add_covered_pin(path);
                        }
                        pin => return Some(pin),
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    let Some(Cause::MountPoint { path }) = error.cause() else {
                        return Some(Err(error));
                    };
                    let path = path.clone();
                    let if_unreachable = if mount_points.has_bpffs_at(&path) {
                        IfUnreachable::Nothing
                    } else {
                        IfUnreachable::Error(error)
                    };
                    self.add_covered(&path, if_unreachable);
                }
                None => self.walk = None,
            }
        }
    }

    fn add_covered_pin(&mut self, path: PathBuf) {
        let reason = Cause::MountPoint { path: path.clone() };
        let error = Error::new(Operation::Open, reason).at(path.clone());
        self.add_covered(&path, IfUnreachable::Error(error));
    }

    /// Adds a part for `path`, which the walk cannot enter because something is mounted there. Another mount
    /// may lead to it.
    fn add_covered(&mut self, path: &Path, if_unreachable: IfUnreachable) {
        let Some(walk) = &self.walk else {
            return;
        };
        if let Ok(below) = path.strip_prefix(&walk.path) {
            let root = walk.root.join(below);
            self.parts.push_back(Part {
                root,
                if_unreachable,
            });
        }
    }

    /// Starts to walk a part through the first mount that leads to it. If none does, returns the error and
    /// adds the directories in it that are mounted elsewhere.
    fn start(&mut self, part: Part) -> Option<Result<PinEntry>> {
        let Part {
            root,
            if_unreachable,
        } = part;
        let first_error = match self.reach(&root) {
            Ok((path, mount_id, Reached::Directory(walk))) => {
                self.walk = Some(PartWalk {
                    root,
                    path,
                    mount_id,
                    walk,
                });
                return None;
            }
            Ok((_, _, Reached::Pin(pin))) => return Some(Ok(pin)),
            Err(error) => error,
        };
        let first = self.mounts.partition_point(|each| each.mount.root <= root);
        let below = &self.mounts[first..];
        let end = below.partition_point(|each| each.mount.root.starts_with(&root));
        self.parts.extend(outermost(&below[..end]));
        match if_unreachable {
            IfUnreachable::FirstError => first_error.map(Err),
            IfUnreachable::Error(error) => Some(Err(error)),
            IfUnreachable::Nothing => None,
        }
    }

    /// Opens a file of the instance through the first mount that leads to it. Returns its path and the
    /// mount's id too.
    fn reach(&self, root: &Path) -> Result<(PathBuf, u64, Reached), Option<Error>> {
        let candidates = root.ancestors().flat_map(|above| {
            let begin = self
                .mounts
                .partition_point(|each| *each.mount.root < *above);
            let from_there = self.mounts[begin..].iter();
            from_there.take_while(move |each| each.mount.root == above)
        });
        let (mut first_error, mut shadowed) = (None, None);
        for candidate in candidates {
            let mount = &candidate.mount;
            let path = path_through(mount, root);
            if !candidate.is_reachable_by(&path) {
                shadowed = shadowed.or(Some((mount, path)));
                continue;
            }
            match reach(mount, &path) {
                Ok(reached) => return Ok((path, mount.mount_id, reached)),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        // For its error, or because it is not shadowed any more.
        if let (None, Some((mount, path))) = (&first_error, shadowed) {
            match reach(mount, &path) {
                Ok(reached) => return Ok((path, mount.mount_id, reached)),
                Err(error) => first_error = Some(covered_by(mount, &path).unwrap_or(error)),
            }
        }
        Err(first_error)
    }

    /// The pin that the mount of a removed file leads to. Returns each pin once. A removed directory is empty.
    fn removed_pin(&mut self, mount: &Mount) -> Option<Result<PinEntry>> {
        match reach(mount, &mount.mount_point) {
            Ok(Reached::Directory(_)) => None,
            Ok(Reached::Pin(pin)) => {
                let is_new = self.removed_inodes.insert(pin.inode);
                is_new.then_some(Ok(pin))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

fn pin_entry(dev: u64, entry: &Entry<Arc<PinDir>>, path: PathBuf) -> Result<PinEntry> {
    Ok(PinEntry {
        path,
        dev,
        inode: entry.inode(),
        info: entry.info_any_access()?,
    })
}

/// The path by which a mount leads to `root`, a path in the instance.
fn path_through(mount: &Mount, root: &Path) -> PathBuf {
    match root.strip_prefix(&mount.root) {
        Ok(below) if below != Path::new("") => mount.mount_point.join(below),
        _ => mount.mount_point.clone(),
    }
}

/// Opens the file at `path`, unless that leads to another mount.
fn reach(mount: &Mount, path: &Path) -> Result<Reached> {
    match Bpffs::at(path) {
        Ok(bpffs) => {
            prove(mount, path, bpffs.as_fd(), bpffs.dev())?;
            let dir = PinDir::of_bpffs(bpffs.into(), path);
            let dir = dir.map_err(|nul| not_found(path, nul))?;
            dir.into_walk().map(Reached::Directory)
        }
        Err(error) => match error.cause() {
            Some(Cause::NotADirectory { path: file }) if file == path => {
                mounted_pin(mount, path).map(Reached::Pin)
            }
            _ => Err(error),
        },
    }
}

/// Proves that `fd`, opened by `path` and found to be of the instance `dev`, is in this mount.
fn prove(mount: &Mount, path: &Path, fd: BorrowedFd<'_>, dev: u64) -> Result<()> {
    let (expected, found) = (mount.dev, dev);
    if expected != found {
        return Err(not_found(path, Cause::AnotherInstance { expected, found }));
    }
    match mount_id(fd) {
        Ok(id) if id == mount.mount_id => Ok(()),
        Ok(_) => Err(not_found(path, Cause::MountPoint { path: path.into() })),
        Err(error) => Err(not_found(path, error)),
    }
}

/// A pin that is mounted as a file.
fn mounted_pin(mount: &Mount, path: &Path) -> Result<PinEntry> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = open(path, flags, Mode::empty()).and_then(|fd| Ok((fstat(&fd)?, fd)));
    let (stat, fd) = opened.map_err(|errno| not_found(path, Reason::errno_only(errno)))?;
    prove(mount, path, fd.as_fd(), stat.st_dev)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Err(not_found(path, Cause::SymbolicLink { path: path.into() }));
    }
    let object = Object::open(path)
        .or_else(|error| Object::open_with(path, Access::ReadOnly).map_err(|_| error))?;
    let info = object.info();
    Ok(PinEntry {
        path: path.to_owned(),
        dev: stat.st_dev,
        inode: stat.st_ino,
        info: info.map_err(|error| error.of_opened(path.to_owned()))?,
    })
}

/// The error that names the mount that covers this one, if `path` leads to another mount.
#[cold]
fn covered_by(mount: &Mount, path: &Path) -> Option<Error> {
    let fd = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let by = mount_id(fd.as_fd()).ok()?;
    let cause = Cause::Covered {
        mount_id: mount.mount_id,
        found: FileSystem::of(&fd).ok()?,
        by,
    };
    (by != mount.mount_id).then(|| error(Operation::ListBpffs, path, cause))
}

fn not_found(path: &Path, reason: impl Into<Reason>) -> Error {
    error(Operation::FindBpffs, path, reason)
}
