//! Every pin on every bpffs of a mount namespace.

mod instance;
mod outline;
mod tree;

use std::path::PathBuf;

use crate::bpffs::Bpffs;
use crate::error::Result;
use crate::kind::Identity;
use crate::object::ObjectInfo;

use instance::{Instance, by_instance};
use tree::Tree;

pub use outline::{Outline, outline};

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
    tree: Tree,
}

/// Every pin on every bpffs that is mounted in this thread's mount namespace: with its path, and what
/// the kernel tells of its object.
///
/// Each instance is walked once, however often it is mounted or bound. What is mounted over one of its
/// directories hides that; it is walked all the same where another mount leads to it. What no mount
/// leads to is told by an error, [`MountPoint`](crate::Cause::MountPoint) and the like; unless it is a
/// directory and what hides it is another bpffs, which is walked itself. A bpffs that another mount
/// covers is told by [`Covered`](crate::Cause::Covered). Pins that were removed are
/// found where they are bound to a file.
///
/// The mounts are those of the moment when it begins, and each path is the one by which a pin was
/// found. What is mounted over it, moved or unmounted while the inventory goes on, or after it, makes
/// the path lead elsewhere: what must be sure of a pin compares its id when it has opened it.
///
/// What mountinfo leaves out is not found: what is mounted outside of this process's root, and what that
/// root is itself in, if it is no mount point.
///
/// What goes wrong with a pin or a directory is told by an error in its place, and does not end the
/// inventory. What is removed meanwhile is left out, and so are files whose objects are gone, as
/// some kernels have them in `maps.debug` and `progs.debug`.
///
/// Opening a pin for its info would set its time of last access, as the mount's options have it: bpf(2)
/// has no flag against that. So each instance is walked through a copy of its mount, attached nowhere,
/// that sets no such times: `open_tree(2)`, `mount_setattr(2)`. That takes Linux 5.12 and
/// `CAP_SYS_ADMIN`, and it costs the time of an unmount for each instance. Pins' times are set as by
/// anybody who opens them where it cannot be had: without these two, behind a seccomp filter, of a mount
/// that is unbindable, and of a pin that is itself mounted on a file. Directories are opened with `O_NOATIME` where that
/// is allowed.
///
/// Memory and descriptors are those of [`PinDir::walk`](crate::PinDir::walk), a descriptor or two for each
/// level of depth: what is deeper than the process may have descriptors is told by an error.
///
/// # Errors
///
/// [`Error::Mount`](crate::Error::Mount) as [`Bpffs::mounts`].
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::{Identity, Kind, inventory};
///
/// // Where is map 17 pinned?
/// let map = Identity { kind: Kind::Map, id: 17 };
/// for found in inventory()?.of(map) {
///     match found {
///         Ok(found) => println!("{}", found.path.display()),
///         // It may be pinned there, too. What follows is found all the same.
///         Err(error) => eprintln!("not seen: {error}"),
///     }
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
pub fn inventory() -> Result<Inventory> {
    let table = Bpffs::table()?;
    Ok(Inventory {
        tree: Tree::of(&table),
        instances: by_instance(table.bpffs).into_iter(),
        current: None,
    })
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

impl Iterator for Inventory {
    type Item = Result<Found>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(instance) = &mut self.current else {
                self.current = Some(self.instances.next()?);
                continue;
            };
            match instance.next(&self.tree) {
                None => self.current = None,
                found => return found,
            }
        }
    }
}
