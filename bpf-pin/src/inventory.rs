//! Every pin on every bpffs of a mount namespace.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, Stat, fstat, open};
use rustix::io::Errno;

use crate::access::Access;
use crate::bpffs::{Bpffs, Mount, mount_id};
use crate::cause::Cause;
use crate::dir::{Entry, EntryType, PinDir, Walk};
use crate::error::{Error, Reason, Result};
use crate::kind::{Identity, Kind};
use crate::link::LinkInfo;
use crate::map::MapInfo;
use crate::name::ObjName;
use crate::object::Object;
use crate::operation::MountOperation;
use crate::prog::ProgInfo;

/// What the kernel tells of a map, a program or a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectInfo {
    /// Of a map.
    Map(MapInfo),
    /// Of a program.
    Prog(ProgInfo),
    /// Of a link.
    Link(LinkInfo),
}

impl ObjectInfo {
    /// Which object it is.
    pub fn identity(&self) -> Identity {
        let (kind, id) = match self {
            Self::Map(info) => (Kind::Map, info.id),
            Self::Prog(info) => (Kind::Prog, info.id),
            Self::Link(info) => (Kind::Link, info.id),
        };
        Identity { kind, id }
    }

    /// The name that it was created with; links have none.
    pub fn name(&self) -> Option<&ObjName> {
        match self {
            Self::Map(info) => Some(&info.name),
            Self::Prog(info) => Some(&info.name),
            Self::Link(_) => None,
        }
    }
}

/// The type and the sizes, in bytes.
impl fmt::Display for ObjectInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(info) => write!(
                f,
                "{} map, {} to {} bytes, room for {}",
                info.map_type, info.key_size, info.value_size, info.max_entries
            ),
            Self::Prog(info) => write!(
                f,
                "{} program, {} bytes",
                info.prog_type, info.xlated_prog_len
            ),
            Self::Link(info) => write!(f, "{} link of program {}", info.link_type, info.prog_id),
        }
    }
}

impl Object {
    /// `BPF_OBJ_GET_INFO_BY_FD`: what the kernel tells of the object. Linux 4.13, links 5.8.
    ///
    /// # Errors
    ///
    /// As [`Handle::info`](crate::Handle::info).
    pub fn info(&self) -> Result<ObjectInfo> {
        Ok(match self {
            Self::Map(map) => ObjectInfo::Map(map.info()?),
            Self::Prog(prog) => ObjectInfo::Prog(prog.info()?),
            Self::Link(link) => ObjectInfo::Link(link.info()?),
        })
    }
}

/// A pin that [`inventory`] has found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Found {
    /// The path, in this mount namespace.
    pub path: PathBuf,
    /// The `st_dev` of its bpffs.
    pub dev: u64,
    /// The inode's number: pins of one instance with one number are one file with several names.
    pub inode: u64,
    /// The object.
    pub info: ObjectInfo,
}

/// The pins of a mount namespace, as they are found: see [`inventory`].
#[derive(Debug)]
pub struct Inventory {
    instances: std::vec::IntoIter<Instance>,
    /// The instance that is being walked.
    current: Option<Instance>,
    /// Where a bpffs is mounted.
    mount_points: HashSet<PathBuf>,
}

/// An instance, and what of it is yet to be walked.
#[derive(Debug)]
struct Instance {
    dev: u64,
    /// Sorted by what of it is mounted: a directory, then what is in it.
    mounts: Vec<Mount>,
    /// None is in another.
    parts: VecDeque<Part>,
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
    walk: Walk,
}

/// What a mount leads to.
enum Reached {
    Directory(Walk),
    Pin(Result<Found>),
}

/// Every pin on every bpffs that is mounted in this thread's mount namespace: with its path, and what
/// the kernel tells of its object.
///
/// Each instance is walked once, however often it is mounted or bound. What is mounted over one of its
/// directories hides that; it is walked all the same where another mount leads to it. What no mount
/// leads to is told by an error, [`MountPoint`](Cause::MountPoint) and the like, unless what hides it
/// is another bpffs.
///
/// What goes wrong with a pin or a directory is told by an error in its place, and does not end the
/// inventory. What is removed meanwhile is left out, and so are files whose objects are gone, as
/// some kernels have them in `maps.debug` and `progs.debug`.
///
/// Directories are opened with `O_NOATIME` where that is allowed; opening a pin for its info sets its
/// time of last access, as the mount's options have it, which bpf(2) has no flag against.
///
/// # Errors
///
/// [`Error::Mount`] as [`Bpffs::mounts`].
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::{Identity, Kind, inventory};
///
/// // Where is map 17 pinned?
/// let map = Identity { kind: Kind::Map, id: 17 };
/// for found in inventory()?.of(map) {
///     println!("{}", found?.path.display());
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
pub fn inventory() -> Result<Inventory> {
    let mounts = Bpffs::mounts()?;
    let mount_points = mounts.iter().map(|mount| mount.mount_point.clone());
    Ok(Inventory {
        mount_points: mount_points.collect(),
        instances: by_instance(mounts).into_iter(),
        current: None,
    })
}

/// In the order in which each is first mounted.
fn by_instance(mounts: Vec<Mount>) -> Vec<Instance> {
    let mut places = HashMap::new();
    let mut instances: Vec<Instance> = Vec::new();
    for mount in mounts {
        let dev = mount.dev;
        let place = *places.entry(dev).or_insert_with(|| {
            instances.push(Instance {
                dev,
                mounts: Vec::new(),
                parts: VecDeque::new(),
                walk: None,
            });
            instances.len() - 1
        });
        instances[place].mounts.push(mount);
    }
    for Instance { mounts, parts, .. } in &mut instances {
        mounts.sort_by(|a, b| a.root.cmp(&b.root));
        parts.extend(outermost(mounts));
    }
    instances
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

impl Inventory {
    /// The pins of one object alone. Errors stay: a pin that cannot be opened may be one of them.
    pub fn of(self, object: Identity) -> impl Iterator<Item = Result<Found>> {
        self.filter(move |found| match found {
            Ok(found) => found.info.identity() == object,
            Err(_) => true,
        })
    }
}

impl Instance {
    fn next(&mut self, mount_points: &HashSet<PathBuf>) -> Option<Result<Found>> {
        loop {
            let Some(PartWalk { walk, .. }) = &mut self.walk else {
                let part = self.parts.pop_front()?;
                if let Some(item) = self.begin(part) {
                    return Some(item);
                }
                continue;
            };
            match walk.next() {
                Some(Ok(entry)) if entry.entry_type() == EntryType::Pin => {
                    let path = entry.path();
                    if mount_points.contains(&path) {
                        self.hidden(&path, Otherwise::Nothing);
                        continue;
                    }
                    match found(self.dev, &entry, path) {
                        // The file or the object was removed meanwhile.
                        Err(error) if error.reason().is(Errno::NOENT) => {}
                        found => return Some(found),
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    let Some(Cause::MountPoint { path }) = error.cause() else {
                        return Some(Err(error));
                    };
                    let path = path.clone();
                    let otherwise = match mount_points.contains(&path) {
                        true => Otherwise::Nothing,
                        false => Otherwise::This(error),
                    };
                    self.hidden(&path, otherwise);
                }
                None => self.walk = None,
            }
        }
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
    fn begin(&mut self, part: Part) -> Option<Result<Found>> {
        let Part { root, otherwise } = part;
        let mut failed = None;
        for above in root.ancestors() {
            let first = self.mounts.partition_point(|mount| *mount.root < *above);
            let of_it = self.mounts[first..]
                .iter()
                .take_while(|mount| mount.root == above);
            for mount in of_it {
                let path = place(mount, &root);
                match reach(mount, &path) {
                    Ok(Reached::Directory(walk)) => {
                        self.walk = Some(PartWalk { root, path, walk });
                        return None;
                    }
                    Ok(Reached::Pin(found)) => return Some(found),
                    Err(error) => failed = failed.or(Some(error)),
                }
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
}

fn found(dev: u64, entry: &Entry<Arc<PinDir>>, path: PathBuf) -> Result<Found> {
    Ok(Found {
        path,
        dev,
        inode: entry.inode(),
        info: entry.open_somehow()?.info()?,
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
            prove(mount, path, bpffs.as_fd())?;
            bpffs.dir()?.walk().map(Reached::Directory)
        }
        Err(error) => match error.cause() {
            Some(Cause::NotADirectory { path: file }) if file == path => {
                pin_alone(mount, path).map(Reached::Pin)
            }
            _ => Err(error),
        },
    }
}

/// Whether `fd`, opened by `path`, is in this mount and no other.
fn prove(mount: &Mount, path: &Path, fd: BorrowedFd<'_>) -> Result<Stat> {
    let proof = || {
        let stat = fstat(fd).map_err(Reason::errno_only)?;
        let (expected, found) = (mount.dev, stat.st_dev);
        if expected != found {
            return Err(Cause::AnotherInstance { expected, found }.into());
        }
        match mount_id(fd)? == mount.mount_id {
            true => Ok(stat),
            false => Err(Cause::MountPoint { path: path.into() }.into()),
        }
    };
    proof().map_err(|reason| not_found(path, reason))
}

/// A pin that is mounted as a file.
fn pin_alone(mount: &Mount, path: &Path) -> Result<Result<Found>> {
    let fd = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| not_found(path, Reason::errno_only(errno)))?;
    let file = prove(mount, path, fd.as_fd())?;
    let object = Object::open(path)
        .or_else(|error| Object::open_with(path, Access::ReadOnly).map_err(|_| error));
    Ok(object.and_then(|object| {
        Ok(Found {
            path: path.to_owned(),
            dev: file.st_dev,
            inode: file.st_ino,
            info: object.info()?,
        })
    }))
}

fn not_found(path: &Path, reason: Reason) -> Error {
    Error::Mount {
        operation: MountOperation::Find,
        path: path.to_owned(),
        reason,
    }
}

impl Iterator for Inventory {
    type Item = Result<Found>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(instance) = &mut self.current else {
                self.current = Some(self.instances.next()?);
                continue;
            };
            match instance.next(&self.mount_points) {
                None => self.current = None,
                found => return found,
            }
        }
    }
}
