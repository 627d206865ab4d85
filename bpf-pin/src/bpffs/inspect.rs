//! What a path leads to, and what keeps it from leading to a bpffs.

use std::fmt;
use std::fs;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, fstatvfs};

use crate::error::escaped::Escaped;
use crate::error::sentence::Device;
use crate::error::{Cause, Operation, Reason, Result};
use crate::procfs::{Directory, Mount, MountInfo, MountTable, from_root};
use crate::types::FileSystem;

use super::instance::{Bpffs, error};

/// What a path leads to, see [`Bpffs::inspect`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing.
    Missing {
        /// The path up to the first component that does not exist.
        missing: PathBuf,
    },
    /// The path, or a component of it, is not a directory.
    NotADirectory {
        /// The path up to there.
        path: PathBuf,
    },
    /// A directory on another file system.
    Elsewhere {
        /// Which file system.
        found: FileSystem,
    },
    /// The root of a mounted bpffs.
    Mounted,
    /// A directory within a bpffs that is mounted further up.
    Within,
    /// A bpffs that is attached nowhere: [`Detached`](crate::bpffs::Detached), or unmounted while in use.
    Unattached,
}

/// What makes a bpffs read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOnly {
    /// This mount. Others of the same bpffs may be writable.
    Mount,
    /// The file system, and so all its mounts.
    FileSystem,
    /// One of the two. Which one is unknown because the mount is not listed.
    Either,
}

/// What was found at a path: as data, and by Display as a sentence. From [`Bpffs::inspect`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// The path as it was given.
    pub path: PathBuf,
    /// What it leads to.
    pub verdict: Verdict,
    /// The directory's `st_dev`, if it leads to one. For a bpffs it identifies the instance.
    pub dev: Option<u64>,
    /// The mount of the directory, if mountinfo lists it. For a bind mount, `root` is the directory that
    /// was bound. Not listed are mounts that begin above this process's root, as after chroot(2), that
    /// belong to another namespace, or that are attached nowhere.
    pub mount: Option<Mount>,
    /// What prevents pins, if it is on a bpffs.
    pub read_only: Option<ReadOnly>,
    /// The mounts that this one covers, if the path leads to its root: the topmost first.
    pub covers: Vec<Mount>,
    /// The bpffs mounts at this path that other mounts shadow: those in `covers`, and those under a mount
    /// over a directory on the path.
    pub hidden: Vec<Mount>,
    /// The bpffs that process 1 has at this path, if this thread's mount namespace is another and has none
    /// there, and if this thread may read it.
    pub of_process_1: Option<Mount>,
}

impl Bpffs {
    /// Describes what is at `path`, and changes nothing. Follows symbolic links.
    ///
    /// # Errors
    ///
    /// [`Operation::InspectBpffs`](crate::error::Operation::InspectBpffs) if that cannot be determined:
    /// - [`Blocked`](Cause::Blocked) if a directory on the path may not be searched (EACCES)
    /// - [`NoProc`](Cause::NoProc) without mountinfo
    /// - [`InvalidPath`](Cause::InvalidPath), [`TooLong`](Cause::TooLong) and the like
    ///
    /// # Examples
    ///
    /// ```
    /// use bpf_pin::bpffs::Verdict;
    /// use bpf_pin::Bpffs;
    ///
    /// let seen = Bpffs::inspect("/proc")?;
    /// assert!(matches!(seen.verdict, Verdict::Elsewhere { .. }));
    /// assert_eq!(seen.to_string(), "/proc is a directory on proc, not on a bpffs");
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn inspect(path: impl AsRef<Path>) -> Result<Inspection> {
        let path = path.as_ref();
        inspect(path).map_err(|reason| error(Operation::InspectBpffs, path, reason))
    }
}

fn inspect(path: &Path) -> Result<Inspection, Reason> {
    let mounts = MountInfo::own()?;
    let mut seen = Inspection {
        path: path.to_owned(),
        verdict: Verdict::Within,
        dev: None,
        mount: None,
        read_only: None,
        covers: Vec::new(),
        hidden: Vec::new(),
        of_process_1: None,
    };
    let canonical = match Directory::open(&from_root(path)) {
        Ok(place) => {
            seen.look_at(&place, &mounts)?;
            place.reachable_path(seen.mount.is_some())
        }
        Err(reason) => {
            seen.verdict = match reason.cause() {
                Some(Cause::Missing { path }) => Verdict::Missing {
                    missing: path.clone(),
                },
                Some(Cause::NotADirectory { path }) => {
                    Verdict::NotADirectory { path: path.clone() }
                }
                _ => return Err(reason),
            };
            None
        }
    };
    let canonical = canonical.unwrap_or_else(|| match seen.dev {
        Some(_) => from_root(path).into_owned(),
        None => without_links(&from_root(path)),
    });
    let mount_id = seen.mount.as_ref().map(|mount| mount.mount_id);
    let mut bpffs_there = mounts.read()?.mounted_at(&canonical);
    bpffs_there.retain(|mount| mount.is_bpffs() && Some(mount.mount_id) != mount_id);
    seen.hidden = bpffs_there;
    if !seen.is_on_bpffs() && seen.hidden.is_empty() {
        let there = MountTable::of_process_1().map(|table| table.mounted_at(&canonical));
        let mut there = there.unwrap_or_default().into_iter();
        seen.of_process_1 = there.rfind(Mount::is_bpffs);
    }
    Ok(seen)
}

/// The path that mountinfo would show if the missing components existed: the kernel's path of those that
/// do, and the rest.
fn without_links(path: &Path) -> PathBuf {
    /// The most that the kernel follows.
    const LINKS: usize = 40;

    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let mut above = path.ancestors().skip(1);
        let Some((base, above)) = above.find_map(|above| Some((existing(above)?, above))) else {
            break;
        };
        let mut rest = path.strip_prefix(above).unwrap_or(&path).components();
        let first = rest.next().unwrap_or(Component::CurDir);
        // A link here dangles, or it would have been followed.
        match fs::read_link(base.join(first)) {
            Ok(to) => path = base.join(to).join(rest),
            Err(_) => return rest.fold(base.join(first), descend),
        }
    }
    path
}

fn descend(mut path: PathBuf, component: Component<'_>) -> PathBuf {
    match component {
        Component::ParentDir => drop(path.pop()),
        other => path.push(other),
    }
    path
}

fn existing(path: &Path) -> Option<PathBuf> {
    Directory::open(path).ok()?.path()
}

impl Inspection {
    fn look_at(&mut self, place: &Directory, mounts: &MountInfo) -> Result<(), Reason> {
        let mount = place.mount(mounts)?;
        let is_root = place.is_mount_root(mount.as_ref());
        self.verdict = match (place.fs.is_bpffs(), is_root) {
            (false, _) => Verdict::Elsewhere { found: place.fs },
            (true, _) if mount.is_none() && place.is_detached() => Verdict::Unattached,
            (true, true) => Verdict::Mounted,
            (true, false) => Verdict::Within,
        };
        if let (true, Some(mount)) = (is_root, &mount) {
            self.covers = covered_by(mount, mounts)?;
        }
        if place.fs.is_bpffs() {
            self.read_only = read_only(place, mount.as_ref())?;
        }
        self.dev = Some(place.stat.st_dev);
        self.mount = mount;
        Ok(())
    }

    /// Whether the path is on a bpffs.
    pub fn is_on_bpffs(&self) -> bool {
        matches!(
            self.verdict,
            Verdict::Mounted | Verdict::Within | Verdict::Unattached
        )
    }

    /// How many mounts are on top of `mount`, one of those in `hidden`, if they are at the same path.
    fn depth(&self, mount: &Mount) -> Option<usize> {
        let is_it = |covered: &Mount| covered.mount_id == mount.mount_id;
        self.covers.iter().position(is_it).map(|at| at + 1)
    }
}

fn read_only(place: &Directory, mount: Option<&Mount>) -> Result<Option<ReadOnly>, Reason> {
    Ok(match mount {
        Some(mount) if mount.super_option("ro").is_some() => Some(ReadOnly::FileSystem),
        Some(mount) => mount.option("ro").map(|_| ReadOnly::Mount),
        None => {
            let flags = fstatvfs(&place.fd).map_err(Reason::errno_only)?.f_flag;
            let is_set = flags.contains(StatVfsMountFlags::RDONLY);
            is_set.then_some(ReadOnly::Either)
        }
    })
}

/// The stack of mounts at one path, each mounted on the root of the next.
fn covered_by(top: &Mount, mounts: &MountInfo) -> Result<Vec<Mount>, Reason> {
    let mut here = mounts.read()?.mounted_at(&top.mount_point);
    here.retain(|mount| mount.mount_id != top.mount_id);
    let mut covered = Vec::new();
    let mut below = top.parent_id;
    while let Some(at) = here.iter().position(|mount| mount.mount_id == below) {
        let next = here.swap_remove(at);
        below = next.parent_id;
        covered.push(next);
    }
    Ok(covered)
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(Words(self)).fmt(f)
    }
}

/// The sentence, with unescaped paths.
struct Words<'i>(&'i Inspection);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f)
    }
}

impl Inspection {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match (&self.verdict, &self.mount) {
            (Verdict::Missing { missing }, _) => write!(f, "{} does not exist", missing.display())?,
            (Verdict::NotADirectory { path }, _) => {
                write!(f, "{} is not a directory", path.display())?;
            }
            (Verdict::Elsewhere { found }, mount) => {
                write!(f, "{path} is a directory on {found}")?;
                // A mount that shadows another is identified by its id.
                if let (Some(mount), false) = (mount, self.hidden.is_empty()) {
                    write!(f, " (mount {})", mount.mount_id)?;
                }
                f.write_str(", not on a bpffs")?;
            }
            (Verdict::Mounted, Some(mount)) => self.mounted(f, mount)?,
            (Verdict::Within, Some(mount)) => {
                let at = mount.mount_point.display();
                write!(f, "{path} is a directory in the bpffs mounted at {at} ")?;
                details(f, mount)?;
            }
            (Verdict::Mounted, None) => {
                write!(f, "{path} is a bpffs ")?;
                self.unlisted(f)?;
            }
            (Verdict::Within, None) => {
                write!(f, "{path} is a directory in a bpffs ")?;
                self.unlisted(f)?;
            }
            (Verdict::Unattached, _) => {
                let dev = Device(self.dev.unwrap_or(0));
                write!(
                    f,
                    "{path} is on a bpffs (device {dev}) that is mounted nowhere"
                )?;
            }
        }
        match self.read_only {
            Some(ReadOnly::Mount) => f.write_str("; the mount is read-only")?,
            Some(ReadOnly::FileSystem) => f.write_str("; it is read-only")?,
            Some(ReadOnly::Either) => f.write_str("; it, or the mount, is read-only")?,
            None => {}
        }
        for mount in &self.hidden {
            write!(f, "; the bpffs ")?;
            details(f, mount)?;
            match self.depth(mount) {
                Some(1) => f.write_str(" is covered by it"),
                Some(depth) => write!(f, " is covered, {depth} mounts deep"),
                None => f.write_str(" is mounted there and hidden by a mount on the way"),
            }?;
        }
        if self.of_process_1.is_some() {
            return f.write_str("; in the mount namespace of process 1 a bpffs is mounted there");
        }
        // A bpffs is usually mounted there.
        if matches!(self.verdict, Verdict::Elsewhere { .. })
            && self.hidden.is_empty()
            && self.path.ends_with("sys/fs/bpf")
        {
            write!(f, "; to mount one: mount -t bpf bpf {path}")?;
        }
        Ok(())
    }

    fn mounted(&self, f: &mut fmt::Formatter<'_>, mount: &Mount) -> fmt::Result {
        write!(f, "{} is ", self.path.display())?;
        match mount.root.as_os_str() == "/" {
            true => f.write_str("a bpffs "),
            false => write!(f, "a bind mount of {} of a bpffs ", mount.root.display()),
        }?;
        details(f, mount)?;
        let others = self.covers.iter().filter(|mount| !mount.is_bpffs());
        for other in others {
            let fs_type = other.fs_type.to_string_lossy();
            write!(f, "; it covers {fs_type} (mount {})", other.mount_id)?;
        }
        Ok(())
    }

    fn unlisted(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dev = Device(self.dev.unwrap_or(0));
        write!(
            f,
            "(device {dev}) through a mount that is not in this thread's mountinfo"
        )
    }
}

fn details(f: &mut fmt::Formatter<'_>, mount: &Mount) -> fmt::Result {
    write!(
        f,
        "(mount {}, device {}, ",
        mount.mount_id,
        Device(mount.dev)
    )?;
    let propagation = mount.propagation;
    match (propagation.shared, propagation.master) {
        (Some(group), None) => write!(f, "shared in group {group})"),
        (None, Some(group)) => write!(f, "slave of group {group})"),
        (Some(group), Some(master)) => {
            write!(f, "shared in group {group}, slave of group {master})")
        }
        (None, None) if propagation.unbindable => f.write_str("unbindable)"),
        (None, None) => f.write_str("private)"),
    }
}
