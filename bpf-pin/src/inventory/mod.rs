//! Every pin on every bpffs of a mount namespace.

mod instance;
mod mount_points;
mod outline;

use std::path::PathBuf;

use crate::bpffs::Bpffs;
use crate::error::Result;
use crate::object::ObjectInfo;
use crate::types::Identity;

use instance::{Instance, by_instance};
use mount_points::MountPoints;

pub use outline::{Outline, outline};

/// A pin found by [`Inventory::take`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PinEntry {
    /// The path, in this mount namespace.
    pub path: PathBuf,
    /// The `st_dev` of its bpffs.
    pub dev: u64,
    /// The inode number: pins of one instance with the same number are one file with several names.
    pub inode: u64,
    /// The object.
    pub info: ObjectInfo,
}

/// An iterator over the pins of a mount namespace, see [`Inventory::take`].
#[derive(Debug)]
pub struct Inventory {
    instances: std::vec::IntoIter<Instance>,
    /// The instance that is being walked.
    current: Option<Instance>,
    mount_points: MountPoints,
}

impl Inventory {
    /// Finds every pin on every bpffs in this thread's mount namespace, with its path and the info of its
    /// object.
    ///
    /// Each instance is walked once, however often it is mounted or bound. A directory under another mount is
    /// walked if another mount of the instance leads to it. What no mount leads to is an error,
    /// [`MountPoint`](crate::error::Cause::MountPoint) and the like, except for a directory under another bpffs, which
    /// is walked itself. A bpffs that another mount covers is [`Covered`](crate::error::Cause::Covered). Removed pins
    /// are found if they are bound to a file.
    ///
    /// The mounts are those at the start, and each path is the one by which the pin was found. If something is
    /// mounted over it, moved or unmounted in the meantime, the path leads elsewhere: to be sure, compare the
    /// object's id after opening the pin.
    ///
    /// Mounts that mountinfo does not list are not searched: those outside of this process's root, and the one
    /// that the root is in, if the root is not a mount point.
    ///
    /// A failure to open a pin or directory is an error in its place, and does not end the inventory. What is
    /// removed meanwhile is skipped, and so are files whose objects are gone, as some kernels have them in
    /// `maps.debug` and `progs.debug`.
    ///
    /// Opening a pin for its info sets its time of last access, as the mount's options say: bpf(2) has no flag
    /// against that. Directories are opened with `O_NOATIME` if that is allowed.
    ///
    /// Memory and descriptors are those of [`PinDir::walk`](crate::PinDir::walk): a descriptor or two for each
    /// level of depth. What is deeper than the limit of descriptors is an error.
    ///
    /// # Errors
    ///
    /// [`Operation::ReadMounts`](crate::error::Operation::ReadMounts) as [`Bpffs::mounts`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::inventory::Inventory;
    /// use bpf_pin::{Identity, Kind};
    ///
    /// // Where is map 17 pinned?
    /// let map = Identity { kind: Kind::Map, id: 17 };
    /// for pin in Inventory::take()?.of(map) {
    ///     match pin {
    ///         Ok(pin) => println!("{}", pin.path.display()),
    ///         // It may be pinned there too. The iterator continues.
    ///         Err(error) => eprintln!("not searched: {error}"),
    ///     }
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn take() -> Result<Self> {
        let table = Bpffs::mount_table()?;
        // Parsed once for both: there may be tens of thousands.
        let lines: Vec<_> = table.lines().collect();
        let bpffs = lines.iter().filter(|line| line.is_bpffs());
        let bpffs = table.unique(bpffs.map(|line| line.to_mount()).collect());
        Ok(Self {
            mount_points: MountPoints::new(&lines, &bpffs),
            instances: by_instance(bpffs).into_iter(),
            current: None,
        })
    }
}

impl Inventory {
    /// The pins of one object. Errors are kept: a pin that cannot be opened may be one of them.
    pub fn of(self, object: Identity) -> impl Iterator<Item = Result<PinEntry>> {
        self.filter(move |pin| match pin {
            Ok(pin) => pin.info.identity() == object,
            Err(_) => true,
        })
    }
}

impl Iterator for Inventory {
    type Item = Result<PinEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(instance) = &mut self.current else {
                self.current = Some(self.instances.next()?);
                continue;
            };
            match instance.next(&self.mount_points) {
                None => self.current = None,
                pin => return pin,
            }
        }
    }
}
