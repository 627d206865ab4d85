//! Describes the file system and the mounts at a path.

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, fstatvfs};

use crate::error::escaped::Escaped;
use crate::error::sentence::Device;
use crate::error::{Cause, Operation, Reason, Result};
use crate::procfs::{Directory, Mount, MountInfo, MountTable, from_root};
use crate::types::FileSystem;
#[cfg(feature = "serde")]
use crate::types::serialize::text;

use super::instance::{Bpffs, error};

/// The kind of place that a path leads to, from [`Bpffs::inspect`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Verdict {
    /// The path does not exist.
    Missing {
        /// The path up to the first component that does not exist.
        #[cfg_attr(feature = "serde", serde(serialize_with = "text"))]
        missing: PathBuf,
    },
    /// The path, or a component of it, is not a directory.
    NotADirectory {
        /// The path up to that component.
        #[cfg_attr(feature = "serde", serde(serialize_with = "text"))]
        path: PathBuf,
    },
    /// A directory on another file system.
    Elsewhere {
        /// The file system.
        found: FileSystem,
    },
    /// The root of a mounted bpffs.
    Mounted,
    /// A directory within a bpffs that is mounted further up.
    Within,
    /// A bpffs that is attached nowhere: it is [`Detached`](crate::bpffs::Detached), or was unmounted while in
    /// use.
    Unattached,
}

/// The reason why a bpffs is read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum ReadOnly {
    /// The mount is read-only. Other mounts of the same bpffs may be writable.
    Mount,
    /// The file system is read-only, and so are all its mounts.
    FileSystem,
    /// One of the two is read-only. Which one is unknown because the mount is not listed.
    Either,
}

/// A description of a path, from [`Bpffs::inspect`]. `Display` writes it as a sentence.
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::bpffs::Verdict;
/// use bpf_pin::Bpffs;
///
/// let found = Bpffs::inspect("/sys/fs/bpf")?;
/// println!("{found}");
/// if let (Verdict::Mounted, Some(mount)) = (found.verdict, found.mount) {
///     println!("mount {}", mount.mount_id);
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Inspection {
    /// The path as it was given.
    #[cfg_attr(feature = "serde", serde(serialize_with = "text"))]
    pub path: PathBuf,
    /// The kind of place that it leads to.
    pub verdict: Verdict,
    /// The `st_dev` of the directory, if there is one. For a bpffs it identifies the instance.
    pub dev: Option<u64>,
    /// The mount of the directory, if mountinfo lists it. For a bind mount, `root` is the directory that
    /// was bound.
    ///
    /// Mountinfo does not list a mount that begins above this process's root, as after chroot(2), that
    /// belongs to another namespace, or that is attached nowhere.
    pub mount: Option<Mount>,
    /// The reason why nothing can be pinned there. Only set on a bpffs.
    pub read_only: Option<ReadOnly>,
    /// The mounts that this one covers, if the path leads to its root: the topmost first.
    pub covers: Vec<Mount>,
    /// The bpffs mounts at this path that other mounts shadow: those in `covers`, and those under a mount
    /// over a directory on the path.
    pub hidden: Vec<Mount>,
    /// The bpffs that process 1 has at this path. Only set if this thread is in another mount namespace
    /// without a bpffs there, and may read the mounts of process 1.
    pub of_process_1: Option<Mount>,
}

impl Bpffs {
    /// Describes what is at `path`, without changing anything. Follows symbolic links.
    ///
    /// # Errors
    ///
    /// [`Operation::InspectBpffs`](crate::error::Operation::InspectBpffs) if this cannot be determined:
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
    /// let found = Bpffs::inspect("/proc")?;
    /// assert!(matches!(found.verdict, Verdict::Elsewhere { .. }));
    /// assert_eq!(found.to_string(), "/proc is a directory on proc, not on a bpffs");
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn inspect(path: impl AsRef<Path>) -> Result<Inspection> {
        let path = path.as_ref();
        inspect(path).map_err(|reason| error(Operation::InspectBpffs, path, reason))
    }
}

fn inspect(path: &Path) -> Result<Inspection, Reason> {
    let mounts = MountInfo::own()?;
    let mut found = Inspection {
        path: path.to_owned(),
        verdict: Verdict::Within,
        dev: None,
        mount: None,
        read_only: None,
        covers: Vec::new(),
        hidden: Vec::new(),
        of_process_1: None,
    };
    let from_root = from_root(path);
    let canonical = match Directory::open(&from_root) {
        Ok(target) => {
            found.describe(&target, &mounts)?;
            let path = target.reachable_path(found.mount.is_some());
            path.unwrap_or_else(|| from_root.into_owned())
        }
        Err(reason) => {
            found.verdict = match reason.cause() {
                Some(Cause::Missing { path }) => Verdict::Missing {
                    missing: path.clone(),
                },
                Some(Cause::NotADirectory { path }) => {
                    Verdict::NotADirectory { path: path.clone() }
                }
                _ => return Err(reason),
            };
            resolve_existing(&from_root)
        }
    };
    let mount_id = found.mount.as_ref().map(|mount| mount.mount_id);
    found.hidden = mounts.read()?.mounted_at(&canonical);
    let is_hidden = |mount: &Mount| mount.is_bpffs() && Some(mount.mount_id) != mount_id;
    found.hidden.retain(is_hidden);
    if !found.is_on_bpffs() && found.hidden.is_empty() {
        let table = MountTable::of_process_1().unwrap_or_default();
        let mut there = table.mounted_at(&canonical).into_iter();
        found.of_process_1 = there.rfind(Mount::is_bpffs);
    }
    Ok(found)
}

/// The path that mountinfo would show if the missing components existed: the kernel's path of the part that
/// exists, and the rest.
fn resolve_existing(path: &Path) -> PathBuf {
    let resolve = |above: &Path| {
        let existing = Directory::hold(above).ok()?.path()?;
        let missing = path.strip_prefix(above).ok()?;
        Some(existing.join(missing).components().collect())
    };
    let resolved = path.ancestors().find_map(resolve);
    resolved.unwrap_or_else(|| path.to_owned())
}

impl Inspection {
    fn describe(&mut self, target: &Directory, mounts: &MountInfo) -> Result<(), Reason> {
        let mount = target.mount(mounts)?;
        let is_root = target.is_mount_root(mount.as_ref());
        self.verdict = match (target.fs.is_bpffs(), is_root) {
            (false, _) => Verdict::Elsewhere { found: target.fs },
            (true, _) if mount.is_none() && target.is_detached() => Verdict::Unattached,
            (true, true) => Verdict::Mounted,
            (true, false) => Verdict::Within,
        };
        if let (true, Some(mount)) = (is_root, &mount) {
            self.covers = covered_by(mount, mounts)?;
        }
        if target.fs.is_bpffs() {
            self.read_only = read_only(target, mount.as_ref())?;
        }
        self.dev = Some(target.stat.st_dev);
        self.mount = mount;
        Ok(())
    }

    /// Returns true if the path is on a bpffs.
    pub fn is_on_bpffs(&self) -> bool {
        matches!(
            self.verdict,
            Verdict::Mounted | Verdict::Within | Verdict::Unattached
        )
    }

    /// The number of mounts on top of `mount`, if it is in `covers`.
    fn depth(&self, mount: &Mount) -> Option<usize> {
        let is_same = |covered: &Mount| covered.mount_id == mount.mount_id;
        self.covers.iter().position(is_same).map(|index| index + 1)
    }
}

fn read_only(target: &Directory, mount: Option<&Mount>) -> Result<Option<ReadOnly>, Reason> {
    Ok(match mount {
        Some(mount) if mount.super_option("ro").is_some() => Some(ReadOnly::FileSystem),
        Some(mount) => mount.option("ro").map(|_| ReadOnly::Mount),
        None => {
            let flags = fstatvfs(&target.fd).map_err(Reason::errno_only)?.f_flag;
            let is_set = flags.contains(StatVfsMountFlags::RDONLY);
            is_set.then_some(ReadOnly::Either)
        }
    })
}

/// The mounts under `top` at the same path, from the top to the bottom.
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
        let mut sentence = String::new();
        self.write(&mut sentence)?;
        Escaped(sentence).fmt(f)
    }
}

impl Inspection {
    /// Writes the sentence, with unescaped paths.
    fn write(&self, f: &mut impl Write) -> fmt::Result {
        let path = self.path.display();
        match (&self.verdict, &self.mount) {
            (Verdict::Missing { missing }, _) => write!(f, "{} does not exist", missing.display())?,
            (Verdict::NotADirectory { path }, _) => {
                write!(f, "{} is not a directory", path.display())?;
            }
            (Verdict::Elsewhere { found }, mount) => {
                write!(f, "{path} is a directory on {found}")?;
                // The id says which mount shadows the other.
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
                write!(f, "{path} is ")?;
                self.unlisted(f)?;
            }
            (Verdict::Within, None) => {
                write!(f, "{path} is a directory in ")?;
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
        // Where a bpffs is usually mounted.
        if matches!(self.verdict, Verdict::Elsewhere { .. })
            && self.hidden.is_empty()
            && self.path.ends_with("sys/fs/bpf")
        {
            write!(f, "; to mount one: mount -t bpf bpf {path}")?;
        }
        Ok(())
    }

    fn mounted(&self, f: &mut impl Write, mount: &Mount) -> fmt::Result {
        write!(f, "{} is ", self.path.display())?;
        if mount.root.as_os_str() != "/" {
            write!(f, "a bind mount of {} of ", mount.root.display())?;
        }
        f.write_str("a bpffs ")?;
        details(f, mount)?;
        let others = self.covers.iter().filter(|mount| !mount.is_bpffs());
        for other in others {
            let fs_type = other.fs_type.to_string_lossy();
            write!(f, "; it covers {fs_type} (mount {})", other.mount_id)?;
        }
        Ok(())
    }

    fn unlisted(&self, f: &mut impl Write) -> fmt::Result {
        let dev = Device(self.dev.unwrap_or(0));
        write!(
            f,
            "a bpffs (device {dev}) through a mount that is not in this thread's mountinfo"
        )
    }
}

fn details(f: &mut impl Write, mount: &Mount) -> fmt::Result {
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
