//! The pins of one instance, through the mounts that lead to them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;

use crate::access::Access;
use crate::bpffs::Bpffs;
use crate::cause::Cause;
use crate::dir::{Entry, EntryType, PinDir, Walk};
use crate::error::{Error, Reason, Result};
use crate::magic::FileSystem;
use crate::mountinfo::Mount;
use crate::mounts::mount_id;
use crate::object::Object;
use crate::operation::{DirOperation, MountOperation};

use super::Found;
use super::tree::Tree;

/// An instance, and what of it is yet to be walked.
#[derive(Debug)]
pub(super) struct Instance {
    dev: u64,
    /// Sorted by what of it is mounted: a directory, then what is in it.
    mounts: Vec<Mount>,
    /// None is in another.
    parts: VecDeque<Part>,
    /// The mounts of what was removed, which is in nothing any more.
    removed: VecDeque<Mount>,
    /// The removed pins that were found, by inode.
    found_removed: HashSet<u64>,
    walk: Option<PartWalk>,
}

/// A directory of an instance with all that is in it, or a pin.
#[derive(Debug)]
struct Part {
    /// Its path from the root of the instance.
    root: PathBuf,
    otherwise: Otherwise,
}

/// What is told of a part that no mount leads to.
#[derive(Debug)]
enum Otherwise {
    /// What became of the first try.
    Why,
    /// Where the walk could not go on.
    This(Error),
    /// Nothing: another bpffs is mounted there, and is walked itself.
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

/// What a mount leads to.
enum Reached {
    Directory(Walk),
    Pin(Result<Found>),
}

/// In the order in which each is first mounted.
pub(super) fn by_instance(mounts: Vec<Mount>) -> Vec<Instance> {
    let mut places = HashMap::new();
    let mut instances: Vec<Instance> = Vec::new();
    for mount in mounts {
        let dev = mount.dev;
        let place = *places.entry(dev).or_insert_with(|| {
            instances.push(Instance {
                dev,
                mounts: Vec::new(),
                parts: VecDeque::new(),
                removed: VecDeque::new(),
                found_removed: HashSet::new(),
                walk: None,
            });
            instances.len() - 1
        });
        match is_removed(&mount.root) {
            true => instances[place].removed.push_back(mount),
            false => instances[place].mounts.push(mount),
        }
    }
    for Instance { mounts, parts, .. } in &mut instances {
        mounts.sort_by(|a, b| a.root.cmp(&b.root));
        parts.extend(outermost(mounts));
    }
    instances
}

/// As the kernel marks what has no name any more. Two of one name need not be the same.
fn is_removed(root: &Path) -> bool {
    root.as_os_str().as_bytes().ends_with(b"//deleted")
}

/// The parts that are mounted, without those that are in others.
fn outermost(mounts: &[Mount]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for mount in mounts {
        if !parts
            .last()
            .is_some_and(|part| mount.root.starts_with(&part.root))
        {
            parts.push(Part {
                root: mount.root.clone(),
                otherwise: Otherwise::Why,
            });
        }
    }
    parts
}

impl Instance {
    pub(super) fn outline(&self) -> (u64, Vec<PathBuf>) {
        let parts = self.parts.iter().map(|part| part.root.clone());
        (self.dev, parts.collect())
    }

    pub(super) fn next(&mut self, tree: &Tree) -> Option<Result<Found>> {
        loop {
            let Some(PartWalk { walk, mount_id, .. }) = &mut self.walk else {
                let begun = match self.parts.pop_front() {
                    Some(part) => self.begin(part, tree),
                    None => {
                        let mount = self.removed.pop_front()?;
                        self.removed_pin(&mount)
                    }
                };
                if begun.is_some() {
                    return begun;
                }
                continue;
            };
            match walk.next_entry() {
                Some(Ok(entry)) if entry.entry_type() == EntryType::Pin => {
                    let path = entry.path();
                    if tree.is_mount_point(*mount_id, &path) {
                        self.hidden_pin(path);
                        continue;
                    }
                    match found(self.dev, entry, path) {
                        // The file or the object was removed meanwhile.
                        Err(error) if error.reason().is(Errno::NOENT) => {}
                        // Or something was mounted on it.
                        Err(_) if entry.is_mount_point() == Some(true) => {
                            let path = entry.path();
                            self.hidden_pin(path);
                        }
                        found => return Some(found),
                    }
                }
                // A copy of the mount would have what is below.
                Some(Ok(entry)) if entry.entry_type() == EntryType::Directory => {
                    let path = entry.path();
                    if tree.is_mount_point(*mount_id, &path) {
                        let (dir, cause) = (entry.dir(), Cause::MountPoint { path: path.clone() });
                        let error = dir.fail_at(DirOperation::List, entry.name(), cause);
                        walk.skip_dir();
                        self.hidden_directory(&path, error, tree);
                    }
                }
                Some(Ok(_)) => {}
                // Mounted there meanwhile.
                Some(Err(error)) => {
                    let Some(Cause::MountPoint { path }) = error.cause() else {
                        return Some(Err(error));
                    };
                    self.hidden_directory(&path.clone(), error, tree);
                }
                None => self.walk = None,
            }
        }
    }

    fn hidden_pin(&mut self, path: PathBuf) {
        let reason = Cause::MountPoint { path: path.clone() }.into();
        let error = Error::Open {
            path: path.clone(),
            reason,
        };
        self.hidden(&path, Otherwise::This(error));
    }

    fn hidden_directory(&mut self, path: &Path, error: Error, tree: &Tree) {
        let otherwise = match tree.has_bpffs_at(path) {
            true => Otherwise::Nothing,
            false => Otherwise::This(error),
        };
        self.hidden(path, otherwise);
    }

    /// Something is mounted on what the walk has come to.
    fn hidden(&mut self, path: &Path, otherwise: Otherwise) {
        let Some(PartWalk {
            root, path: begin, ..
        }) = &self.walk
        else {
            return;
        };
        if let Ok(below) = path.strip_prefix(begin) {
            let root = root.join(below);
            self.parts.push_back(Part { root, otherwise });
        }
    }

    /// Walks a part by the first mount that leads to it; or tells why there is none, and goes on with
    /// what of it is mounted elsewhere.
    fn begin(&mut self, part: Part, tree: &Tree) -> Option<Result<Found>> {
        let Part { root, otherwise } = part;
        let (mut failed, mut hidden) = (None, None);
        for above in root.ancestors() {
            let first = self.mounts.partition_point(|mount| *mount.root < *above);
            let of_it = self.mounts[first..]
                .iter()
                .take_while(|mount| mount.root == above);
            for mount in of_it {
                let path = place(mount, &root);
                // To try each of thousands takes long.
                if !tree.leads_to(mount, &path) {
                    hidden = hidden.or(Some((mount, path)));
                    continue;
                }
                match reach(mount, &path) {
                    Ok(reached) => {
                        let mount_id = mount.mount_id;
                        return self.enter(root, path, mount_id, reached);
                    }
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
        }
        // For its reason, or because it is hidden no more.
        if let (None, Some((mount, path))) = (&failed, hidden) {
            match reach(mount, &path) {
                Ok(reached) => {
                    let mount_id = mount.mount_id;
                    return self.enter(root, path, mount_id, reached);
                }
                Err(error) => failed = Some(covered(mount, &path).unwrap_or(error)),
            }
        }
        let first = self.mounts.partition_point(|mount| mount.root <= root);
        let below = &self.mounts[first..];
        let end = below.partition_point(|mount| mount.root.starts_with(&root));
        self.parts.extend(outermost(&below[..end]));
        match otherwise {
            Otherwise::Why => failed.map(Err),
            Otherwise::This(error) => Some(Err(error)),
            Otherwise::Nothing => None,
        }
    }

    fn enter(
        &mut self,
        root: PathBuf,
        path: PathBuf,
        mount_id: u64,
        reached: Reached,
    ) -> Option<Result<Found>> {
        match reached {
            Reached::Directory(walk) => {
                self.walk = Some(PartWalk {
                    root,
                    path,
                    mount_id,
                    walk,
                });
                None
            }
            Reached::Pin(found) => Some(found),
        }
    }

    /// A pin that was removed, once; there is none in a directory that was.
    fn removed_pin(&mut self, mount: &Mount) -> Option<Result<Found>> {
        match reach(mount, &mount.mount_point) {
            Ok(Reached::Directory(_)) => None,
            Ok(Reached::Pin(Ok(found))) => {
                let is_new = self.found_removed.insert(found.inode);
                is_new.then_some(Ok(found))
            }
            Ok(Reached::Pin(Err(error))) | Err(error) => Some(Err(error)),
        }
    }
}

fn found(dev: u64, entry: &Entry<Arc<PinDir>>, path: PathBuf) -> Result<Found> {
    Ok(Found {
        path,
        dev,
        inode: entry.inode(),
        info: entry.info_any_access()?,
    })
}

/// Where what is at `root` in the instance is found through a mount.
fn place(mount: &Mount, root: &Path) -> PathBuf {
    match root.strip_prefix(&mount.root) {
        Ok(below) if below != Path::new("") => mount.mount_point.join(below),
        _ => mount.mount_point.clone(),
    }
}

/// What is at `path`, unless that leads to another mount.
fn reach(mount: &Mount, path: &Path) -> Result<Reached> {
    match Bpffs::at(path) {
        Ok(bpffs) => {
            prove(mount, path, bpffs.as_fd(), bpffs.dev())?;
            let dir = bpffs.into_dir_without_atime(mount)?;
            dir.into_walk().map(Reached::Directory)
        }
        Err(error) => match error.cause() {
            Some(Cause::NotADirectory { path: file }) if file == path => {
                pin_alone(mount, path).map(Reached::Pin)
            }
            _ => Err(error),
        },
    }
}

/// Whether `fd`, opened by `path` and found to be of the instance `dev`, is in this mount and no other.
fn prove(mount: &Mount, path: &Path, fd: BorrowedFd<'_>, dev: u64) -> Result<()> {
    let proof = || {
        let (expected, found) = (mount.dev, dev);
        if expected != found {
            return Err(Cause::AnotherInstance { expected, found }.into());
        }
        match mount_id(fd)? == mount.mount_id {
            true => Ok(()),
            false => Err(Cause::MountPoint { path: path.into() }.into()),
        }
    };
    proof().map_err(|reason| not_found(path, reason))
}

/// A pin that is mounted as a file.
fn pin_alone(mount: &Mount, path: &Path) -> Result<Result<Found>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = open(path, flags, Mode::empty())
        .map_err(|errno| not_found(path, Reason::errno_only(errno)))?;
    let file = fstat(&fd).map_err(|errno| not_found(path, Reason::errno_only(errno)))?;
    prove(mount, path, fd.as_fd(), file.st_dev)?;
    if FileType::from_raw_mode(file.st_mode) == FileType::Symlink {
        return Err(not_found(
            path,
            Cause::SymbolicLink { path: path.into() }.into(),
        ));
    }
    let object = Object::open(path)
        .or_else(|error| Object::open_with(path, Access::ReadOnly).map_err(|_| error));
    Ok(object.and_then(|object| {
        let info = object.info();
        Ok(Found {
            path: path.to_owned(),
            dev: file.st_dev,
            inode: file.st_ino,
            info: info.map_err(|error| error.of_opened(path.to_owned()))?,
        })
    }))
}

/// What a path that should lead to a mount leads to in its stead.
#[cold]
fn covered(mount: &Mount, path: &Path) -> Option<Error> {
    let fd = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let by = mount_id(fd.as_fd()).ok()?;
    let cause = Cause::Covered {
        mount_id: mount.mount_id,
        found: FileSystem::of(&fd).ok()?,
        by,
    };
    (by != mount.mount_id).then(|| Error::Mount {
        operation: MountOperation::List,
        path: path.to_owned(),
        reason: cause.into(),
    })
}

fn not_found(path: &Path, reason: Reason) -> Error {
    Error::Mount {
        operation: MountOperation::Find,
        path: path.to_owned(),
        reason,
    }
}
