//! Every pin on every bpffs of a mount namespace.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::bpffs::{Bpffs, Mount};
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
    current: Option<(u64, Walk)>,
    /// Where a bpffs is mounted: a walk that stops there has missed nothing.
    mount_points: Vec<PathBuf>,
}

#[derive(Debug)]
struct Instance {
    dev: u64,
    /// Where it is mounted: the whole of it first.
    mounts: Vec<Mount>,
}

/// Every pin on every bpffs that is mounted in this thread's mount namespace: with its path, and what
/// the kernel tells of its object.
///
/// Each instance is walked once, however often it is mounted or bound. Directories are opened with
/// `O_NOATIME` where that is allowed; opening a pin for its info sets its time of last access, as the
/// mount's options have it, which bpf(2) has no flag against. What goes wrong with a pin or a
/// directory is told by an error in its place, and does not end the inventory; an instance that other
/// mounts hide is told so.
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
    let mut places = std::collections::HashMap::new();
    let mut instances: Vec<Instance> = Vec::new();
    for mount in mounts {
        let dev = mount.dev;
        let place = *places.entry(dev).or_insert_with(|| {
            let mounts = Vec::new();
            instances.push(Instance { dev, mounts });
            instances.len() - 1
        });
        instances[place].mounts.push(mount);
    }
    for Instance { mounts, .. } in &mut instances {
        // The whole before its parts, and otherwise as they were.
        mounts.sort_by_key(|mount| mount.root.components().count());
    }
    instances
}

impl Inventory {
    /// The pins of one object alone. Errors stay: a pin that cannot be opened may be one of them.
    pub fn of(self, object: Identity) -> impl Iterator<Item = Result<Found>> {
        self.filter(move |found| match found {
            Ok(found) => found.info.identity() == object,
            Err(_) => true,
        })
    }

    /// The next part of an instance that no part before has shown: None at the end of it.
    fn next_walk(&mut self, instance: Instance) -> Result<Walk> {
        let mut failed = None;
        let Instance { dev, mounts } = instance;
        let mut mounts = mounts.into_iter();
        while let Some(mount) = mounts.next() {
            match reach(&mount) {
                Ok(walk) => {
                    // Where only parts are mounted, those that are no part of this one come next.
                    let rest: Vec<_> = mounts
                        .filter(|other| !other.root.starts_with(&mount.root))
                        .collect();
                    if !rest.is_empty() {
                        let rest = Instance { dev, mounts: rest };
                        self.instances = std::iter::once(rest)
                            .chain(std::mem::take(&mut self.instances))
                            .collect::<Vec<_>>()
                            .into_iter();
                    }
                    return Ok(walk);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(|| unreachable_mount(Path::new(""), Cause::NoProc.into())))
    }

    fn found(dev: u64, entry: &Entry<std::sync::Arc<PinDir>>) -> Result<Found> {
        Ok(Found {
            path: entry.path(),
            dev,
            inode: entry.inode(),
            info: entry.open_somehow()?.info()?,
        })
    }
}

/// The directory that a mount begins with, unless another mount hides it.
fn reach(mount: &Mount) -> Result<Walk> {
    let path = &mount.mount_point;
    let bpffs = Bpffs::at(path)?;
    if bpffs.dev() != mount.dev {
        let (expected, found) = (mount.dev, bpffs.dev());
        let cause = Cause::AnotherInstance { expected, found };
        return Err(unreachable_mount(path, cause.into()));
    }
    bpffs.dir()?.walk()
}

fn unreachable_mount(path: &Path, reason: Reason) -> Error {
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
            let Some((dev, walk)) = &mut self.current else {
                let instance = self.instances.next()?;
                let dev = instance.dev;
                match self.next_walk(instance) {
                    Ok(walk) => self.current = Some((dev, walk)),
                    Err(error) => return Some(Err(error)),
                }
                continue;
            };
            match walk.next() {
                Some(Ok(entry)) if entry.entry_type() == EntryType::Pin => {
                    return Some(Self::found(*dev, &entry));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    // A bpffs on a directory of another has a walk of its own.
                    let is_listed = |path| self.mount_points.iter().any(|point| point == path);
                    let is_mount = matches!(error.cause(), Some(Cause::MountPoint { .. }));
                    if !(is_mount && error.path().is_some_and(is_listed)) {
                        return Some(Err(error));
                    }
                }
                None => self.current = None,
            }
        }
    }
}
