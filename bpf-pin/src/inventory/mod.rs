//! An iterator over every pin on every bpffs of a mount namespace.

mod instance;
mod mount_points;

use std::path::PathBuf;

use crate::bpffs::Bpffs;
use crate::error::Result;
use crate::object::ObjectInfo;
use crate::types::Identity;
#[cfg(feature = "serde")]
use crate::types::serialize::text;

use instance::{Instance, by_instance};
use mount_points::MountPoints;

/// A pin found by [`Inventory::take`].
///
/// With the feature `serde` a pin is one flat object, here as JSON:
///
/// ```json
/// {"path":"/sys/fs/bpf/flows","dev":31,"inode":5,"kind":"map","type":"hash","id":17,"key_size":4,"value_size":8,…}
/// {"path":"/sys/fs/bpf/link","dev":31,"inode":6,"kind":"link","type":"xdp","id":2,"prog_id":9,"xdp":{"ifindex":3}}
/// ```
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PinEntry {
    /// Its path in this mount namespace.
    #[cfg_attr(feature = "serde", serde(serialize_with = "text"))]
    pub path: PathBuf,
    /// The `st_dev` of its bpffs.
    pub dev: u64,
    /// The inode number: pins of one instance with the same number are one file with several names.
    pub inode: u64,
    /// The info of the object.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub info: ObjectInfo,
}

/// An iterator over the pins of a mount namespace, from [`Inventory::take`].
///
/// # Examples
///
/// ```no_run
/// use bpf_pin::inventory::Inventory;
///
/// for pin in Inventory::take()? {
///     match pin {
///         Ok(pin) => println!("{}: {}", pin.path.display(), pin.info.identity()),
///         Err(error) => eprintln!("not searched: {error}"),
///     }
/// }
/// # Ok::<(), bpf_pin::Error>(())
/// ```
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
    /// Each instance is walked once, even if it has several mounts. If a directory is under another mount, it
    /// is walked through a mount of the instance that leads to it. If none does, the inventory contains an
    /// error with the cause [`MountPoint`](crate::error::Cause::MountPoint) or the like. There is no error if
    /// the other mount is a bpffs, which is walked itself. A bpffs that another mount covers is an error with
    /// the cause [`Covered`](crate::error::Cause::Covered). Removed pins are found if they are bound to a file.
    ///
    /// If a pin or directory cannot be opened, its place in the inventory holds an error, and the iterator
    /// continues.
    ///
    /// Opening a pin for its info updates its time of last access, according to the mount's options: bpf(2)
    /// has no flag to prevent it. Directories are opened with `O_NOATIME` if that is allowed.
    ///
    /// # Races
    ///
    /// The mounts are those at the start, and each path is the one by which the pin was found. If a mount is
    /// added, moved or removed in the meantime, the path may lead elsewhere: to be sure, compare the object's
    /// id after opening the pin.
    ///
    /// A pin that is removed in the meantime is skipped, and so is a file without an object, which some
    /// kernels have in `maps.debug` and `progs.debug`.
    ///
    /// # Limits
    ///
    /// Mounts that mountinfo does not list are not searched: those outside of this process's root, and the one
    /// that the root is in, if the root is not a mount point.
    ///
    /// Memory and descriptors are those of [`PinDir::walk`](crate::PinDir::walk): a descriptor or two for each
    /// level of depth. A directory deeper than the limit of descriptors is an error.
    ///
    /// # Errors
    ///
    /// [`Operation::ReadMounts`](crate::error::Operation::ReadMounts) with the causes of [`Bpffs::mounts`].
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
        // Parse them once for both: there may be tens of thousands.
        let lines: Vec<_> = table.lines().collect();
        let bpffs = lines.iter().filter(|line| line.is_bpffs());
        let bpffs = table.unique(bpffs.map(|line| line.to_mount()));
        Ok(Self {
            mount_points: MountPoints::new(&lines, &bpffs),
            instances: by_instance(bpffs).into_iter(),
            current: None,
        })
    }
}

impl Inventory {
    /// Keeps only the pins of one object, and the errors: a pin that cannot be opened may be one of them.
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
