//! Lists a directory: a stream of getdents64(2) records.

use std::ffi::{CStr, OsStr};
use std::fmt;
use std::iter::FusedIterator;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::error::{Cause, Error, Operation, Reason, Result};
use crate::object::Pinnable;
use crate::path::Component;
use crate::sys::{self, Dirent};
use crate::types::Access;

use super::temp_names::{parse_backup_name, parse_temp_name};
use super::{Metadata, PinDir};

/// The size of the buffer for getdents64(2): about two hundred names.
const BUFFER_SIZE: usize = 8 * 1024;

/// The type of a name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryType {
    /// A pinned map, program or link.
    Pin,
    /// A directory.
    Directory,
    /// A symbolic link. Its target may not exist.
    SymbolicLink,
    /// Any other type. bpffs has none.
    Other,
}

impl EntryType {
    pub(super) fn from_mode(mode: u32) -> Self {
        match FileType::from_raw_mode(mode) {
            FileType::RegularFile => Self::Pin,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::SymbolicLink,
            _ => Self::Other,
        }
    }
}

/// A name in a directory. The object is not opened until [`get`](Self::get).
///
/// `D` is a reference to the directory: borrowed in [`Entries`], shared in [`Walk`](super::Walk).
///
/// An entry keeps the 8 KiB alive that were read with it. An entry of a walk also keeps its directory's
/// descriptor open. To keep many for long, keep their [`path`](Self::path) or [`name`](Self::name) instead.
#[derive(Clone)]
pub struct Entry<D> {
    batch: Arc<Batch<D>>,
    /// Where the name begins in the batch.
    name: usize,
    inode: u64,
    entry_type: EntryType,
}

impl<D> Entry<D> {
    pub(crate) fn c_name(&self) -> &CStr {
        let name = self.batch.records().get(self.name..).unwrap_or_default();
        CStr::from_bytes_until_nul(name).unwrap_or_default()
    }

    pub(super) fn component(&self) -> Component {
        Component::of_entry(self.c_name().to_bytes())
    }

    /// The name.
    pub fn name(&self) -> &OsStr {
        OsStr::from_bytes(self.c_name().to_bytes())
    }

    /// The type that it had when the directory was read.
    pub fn entry_type(&self) -> EntryType {
        self.entry_type
    }

    /// The inode number that it had when the directory was read.
    pub fn inode(&self) -> u64 {
        self.inode
    }
}

impl<D: Deref<Target = PinDir>> Entry<D> {
    /// The directory that it is in.
    pub fn dir(&self) -> &PinDir {
        &self.batch.dir
    }

    /// The directory's path and the name.
    pub fn path(&self) -> PathBuf {
        self.dir().path().join(self.name())
    }

    /// Returns true for a temporary name of this crate, and for the backup of a migrated map.
    ///
    /// A temporary name is a pin that is about to replace another, a directory that is not published yet,
    /// or one that is being removed. [`PinDir::remove_leftovers`] removes those of killed processes.
    pub fn is_hidden(&self) -> bool {
        let name = self.c_name().to_bytes();
        parse_temp_name(name).is_some() || parse_backup_name(name).is_some()
    }

    /// Opens the object for reading and writing.
    ///
    /// # Errors
    ///
    /// As [`PinDir::get`].
    pub fn get<T: Pinnable>(&self) -> Result<T> {
        self.get_with(Access::ReadWrite)
    }

    /// Opens the object with this access.
    ///
    /// # Errors
    ///
    /// As [`PinDir::get_with`].
    pub fn get_with<T: Pinnable>(&self, access: Access) -> Result<T> {
        self.dir().open_named(self.c_name(), access)
    }

    /// `fstatat(2)`: returns mode, owner and times. Opens nothing.
    ///
    /// # Errors
    ///
    /// As [`PinDir::metadata`].
    pub fn metadata(&self) -> Result<Metadata> {
        let dir = self.dir();
        Metadata::at(&dir.at_path(self.c_name()))
            .map_err(|reason| dir.fail_at(Operation::Stat, self.name(), reason))
    }

    /// `statx(2)`: returns whether something is mounted on it. `None` if the kernel does not report that,
    /// before Linux 5.8.
    pub fn is_mount_point(&self) -> Option<bool> {
        self.dir().at_path(self.c_name()).is_mount_point()
    }
}

impl<D: Deref<Target = PinDir>> fmt::Debug for Entry<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("path", &self.path())
            .field("entry_type", &self.entry_type)
            .field("inode", &self.inode)
            .finish()
    }
}

/// The names in a directory, in the kernel's order: see [`PinDir::entries`].
#[derive(Debug)]
pub struct Entries<'d> {
    stream: Stream<&'d PinDir>,
}

impl PinDir {
    /// `getdents64(2)`: returns the names in the directory, as a stream in constant memory.
    ///
    /// Opens no object, follows no symbolic link and crosses no mount. The kernel's own `maps.debug` and
    /// `progs.debug` are pins of links with a '.' in their names. On some kernels their objects are gone,
    /// and opening them fails with ENOENT.
    ///
    /// # Races
    ///
    /// A name that is made, removed, replaced or renamed meanwhile may be missed. A name that does not
    /// change is returned once.
    ///
    /// # Errors
    ///
    /// [`Operation::ListDir`], with the causes of [access](Self#access). An error of an entry ends the
    /// stream.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::dir::EntryType;
    /// use bpf_pin::{Object, PinDir};
    ///
    /// for entry in PinDir::open("/sys/fs/bpf")?.entries()? {
    ///     let entry = entry?;
    ///     match entry.entry_type() {
    ///         EntryType::Pin => println!("{}: {:?}", entry.path().display(), entry.get::<Object>()),
    ///         other => println!("{}: {other:?}", entry.path().display()),
    ///     }
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn entries(&self) -> Result<Entries<'_>> {
        let stream = self.stream(self)?;
        Ok(Entries { stream })
    }

    /// `dir` is a reference to this directory, for the entries.
    pub(super) fn stream<D: Clone>(&self, dir: D) -> Result<Stream<D>> {
        match self.open_to_list() {
            Ok(file) => Ok(Stream::new(file, dir)),
            Err(reason) => Err(self.fail(Operation::ListDir, reason)),
        }
    }

    /// Why reading a stream failed.
    #[cold]
    pub(super) fn list_error(&self, errno: Errno) -> Error {
        let path = self.path().to_owned();
        let cause = (errno == Errno::NOENT).then_some(Cause::Removed { path });
        self.fail(Operation::ListDir, Reason::new(errno, cause))
    }
}

impl<'d> Entries<'d> {
    /// Like [`next`](Iterator::next), but returns a reference that is valid until the next call. This saves
    /// the memory of entries that are not kept.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::PinDir;
    ///
    /// let dir = PinDir::open("/sys/fs/bpf")?;
    /// let mut entries = dir.entries()?;
    /// while let Some(entry) = entries.next_entry() {
    ///     println!("{:?}", entry?.name());
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    #[inline]
    pub fn next_entry(&mut self) -> Option<Result<&Entry<&'d PinDir>>> {
        match self.stream.advance() {
            Ok(true) => Some(Ok(self.stream.entry())),
            Ok(false) => None,
            Err(errno) => Some(Err(self.stream.dir().list_error(errno))),
        }
    }
}

impl<'d> Iterator for Entries<'d> {
    type Item = Result<Entry<&'d PinDir>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().map(|entry| entry.cloned())
    }
}

impl FusedIterator for Entries<'_> {}

/// The names of a directory, read in batches.
pub(super) struct Stream<D> {
    file: OwnedFd,
    /// The current entry.
    entry: Entry<D>,
    /// Where the next record begins in the batch.
    next: usize,
    has_ended: bool,
}

/// The records of one getdents64(2) call. Its entries share it.
struct Batch<D> {
    dir: D,
    buffer: Box<[u8]>,
    /// The length of the records in bytes.
    len: usize,
}

impl<D> Batch<D> {
    fn new(dir: D) -> Self {
        let (buffer, len) = (vec![0; BUFFER_SIZE].into(), 0);
        Self { dir, buffer, len }
    }

    #[inline]
    fn records(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }
}

impl<D: Clone> Stream<D> {
    fn new(file: OwnedFd, dir: D) -> Self {
        let entry = Entry {
            batch: Arc::new(Batch::new(dir)),
            name: 0,
            inode: 0,
            entry_type: EntryType::Other,
        };
        Self {
            file,
            entry,
            next: 0,
            has_ended: false,
        }
    }

    pub(super) fn dir(&self) -> &D {
        &self.entry.batch.dir
    }

    /// The entry that [`advance`](Self::advance) went to.
    pub(super) fn entry(&self) -> &Entry<D> {
        &self.entry
    }

    /// Goes to the next entry. False at the end.
    #[inline]
    pub(super) fn advance(&mut self) -> Result<bool, Errno> {
        loop {
            let records = self.entry.batch.records().get(self.next..);
            let Some(dirent) = records.and_then(Dirent::first) else {
                if self.has_ended {
                    return Ok(false);
                }
                self.refill()?;
                continue;
            };
            let name = self.next + Dirent::NAME;
            self.next += dirent.len;
            if !matches!(dirent.name, b"." | b"..") {
                // The four highest bits of a mode are the type.
                let entry_type = EntryType::from_mode(u32::from(dirent.d_type) << 12);
                (self.entry.inode, self.entry.entry_type) = (dirent.inode, entry_type);
                self.entry.name = name;
                return Ok(true);
            }
        }
    }

    /// Reads the next batch, into the same buffer unless an entry still needs it.
    #[cold]
    fn refill(&mut self) -> Result<(), Errno> {
        if Arc::get_mut(&mut self.entry.batch).is_none() {
            self.entry.batch = Arc::new(Batch::new(self.dir().clone()));
        }
        let Some(batch) = Arc::get_mut(&mut self.entry.batch) else {
            return Ok(());
        };
        let filled = sys::getdents(self.file.as_fd(), &mut batch.buffer);
        batch.len = *filled.as_ref().unwrap_or(&0);
        self.has_ended = batch.len == 0;
        self.next = 0;
        filled.map(drop)
    }
}

impl<D> fmt::Debug for Stream<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}
