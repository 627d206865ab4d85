//! What is in a directory, one getdents64(2) stream.

use std::ffi::{CStr, OsStr};
use std::fmt;
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

/// What the kernel is given room for, in bytes: some two hundred names.
const ROOM: usize = 8 * 1024;

/// What a name in a directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryType {
    /// A map, a program or a link.
    Pin,
    /// A directory.
    Directory,
    /// A symbolic link, to whatever.
    SymbolicLink,
    /// What bpffs has none of.
    Other,
}

impl EntryType {
    pub(super) fn of(mode: u32) -> Self {
        match FileType::from_raw_mode(mode) {
            FileType::RegularFile => Self::Pin,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::SymbolicLink,
            _ => Self::Other,
        }
    }
}

/// A name in a directory. What it stands for is opened when asked for, not before.
///
/// `D` is how the directory is held: borrowed by [`Entries`], shared by [`Walk`](super::Walk). While it
/// lives it keeps all that was read at once with it, 8 KiB, and one of a walk the descriptor of its
/// directory: what is to be kept for long is better its [`path`](Self::path) or [`name`](Self::name).
#[derive(Clone)]
pub struct Entry<D> {
    batch: Arc<Batch<D>>,
    /// Where in the batch its record begins.
    at: usize,
    /// Of the name, in bytes: it is looked for once.
    len: usize,
    entry_type: EntryType,
}

impl<D> Entry<D> {
    /// The bytes of the name, and the NUL behind them.
    fn name_with_nul(&self) -> &[u8] {
        let begin = self.at + Dirent::NAME;
        // It was read before it became an entry.
        let name = self.batch.records().get(begin..=begin + self.len);
        name.unwrap_or(b"\0")
    }

    fn bytes(&self) -> &[u8] {
        self.name_with_nul()
            .split_last()
            .map_or(b"", |(_, bytes)| bytes)
    }

    pub(crate) fn c_name(&self) -> &CStr {
        CStr::from_bytes_with_nul(self.name_with_nul()).unwrap_or_default()
    }

    pub(super) fn filename(&self) -> Component {
        Component::of_entry(self.bytes())
    }

    /// The name.
    pub fn name(&self) -> &OsStr {
        OsStr::from_bytes(self.bytes())
    }

    /// What it was when the directory was read.
    pub fn entry_type(&self) -> EntryType {
        self.entry_type
    }

    /// The inode's number when the directory was read.
    pub fn inode(&self) -> u64 {
        self.batch.dirent(self.at).map_or(0, |dirent| dirent.inode)
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

    /// Whether it is something on its way: a pin that is to replace another, a directory that is not
    /// published yet, or is to be removed; or the map that another was migrated from. See
    /// [`PinDir::remove_leftovers`].
    pub fn is_hidden(&self) -> bool {
        let name = self.bytes();
        parse_temp_name(name).is_some() || parse_backup_name(name).is_some()
    }

    /// Opens the object.
    ///
    /// # Errors
    ///
    /// As [`PinDir::get`].
    pub fn get<T: Pinnable>(&self) -> Result<T> {
        self.dir().open_named(self.c_name(), Access::ReadWrite)
    }

    /// Opens the object, for what access is asked for.
    ///
    /// # Errors
    ///
    /// As [`PinDir::get_with`].
    pub fn get_with<T: Pinnable>(&self, access: Access) -> Result<T> {
        self.dir().open_named(self.c_name(), access)
    }

    /// `fstatat(2)`. Opens nothing.
    ///
    /// # Errors
    ///
    /// As [`PinDir::metadata`].
    pub fn metadata(&self) -> Result<Metadata> {
        self.dir().metadata_named(self.c_name())
    }

    /// `statx(2)`: whether something is mounted there. None where the kernel does not tell, before
    /// Linux 5.8.
    pub fn is_mount_point(&self) -> Option<bool> {
        self.dir().at_path(self.c_name()).is_mount_point()
    }
}

impl<D: Deref<Target = PinDir>> fmt::Debug for Entry<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("path", &self.path())
            .field("entry_type", &self.entry_type())
            .field("inode", &self.inode())
            .finish()
    }
}

/// The names in a directory, in the kernel's order, as they are read: see [`PinDir::entries`].
#[derive(Debug)]
pub struct Entries<'d> {
    stream: Stream<&'d PinDir>,
}

impl PinDir {
    /// `getdents64(2)`: the names in the directory, as one stream, in constant memory.
    ///
    /// Opens no object, follows no symbolic link, crosses no mount. What is made, removed, replaced
    /// or renamed meanwhile may be seen or not; what is left alone is seen once. The kernel's own `maps.debug` and
    /// `progs.debug` are pins of links with a '.' in their names; on some kernels no object is behind
    /// them any more, and opening them is ENOENT.
    ///
    /// # Errors
    ///
    /// [`Operation::ListDir`] with [`Blocked`](Cause::Blocked) (EACCES) where the directory may not
    /// be read. The same of an entry ends the stream.
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

    pub(super) fn stream<D: Clone>(&self, dir: D) -> Result<Stream<D>> {
        match self.listable() {
            Ok(file) => Ok(Stream::new(file, dir)),
            Err(reason) => Err(self.fail(Operation::ListDir, reason)),
        }
    }

    /// Why one of its streams has ended before its time.
    #[cold]
    pub(super) fn list_error(&self, errno: Errno) -> Error {
        // Removed while it was read.
        let path = self.path().to_owned();
        let cause = (errno == Errno::NOENT).then_some(Cause::Removed { path });
        self.fail(Operation::ListDir, Reason::new(errno, cause))
    }
}

impl<'d> Entries<'d> {
    /// As [`next`](Iterator::next), but the entry is lent until the next call, and takes no memory of
    /// its own: the cheaper way where none is kept.
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

/// The names of a directory, read by the batch.
pub(super) struct Stream<D> {
    file: OwnedFd,
    /// What was come to last, in what was read last.
    entry: Entry<D>,
    /// Where the next record begins.
    next: usize,
    has_ended: bool,
}

/// What was read at once. Its entries share it.
struct Batch<D> {
    dir: D,
    room: Box<[u8]>,
    /// How much of the room, in bytes.
    filled: usize,
}

impl<D> Batch<D> {
    fn new(dir: D) -> Self {
        let (room, filled) = (vec![0; ROOM].into(), 0);
        Self { dir, room, filled }
    }

    #[inline]
    fn records(&self) -> &[u8] {
        self.room.get(..self.filled).unwrap_or_default()
    }

    #[inline]
    fn dirent(&self, at: usize) -> Option<Dirent<'_>> {
        Dirent::first(self.records().get(at..)?)
    }
}

impl<D: Clone> Stream<D> {
    fn new(file: OwnedFd, dir: D) -> Self {
        let entry = Entry {
            batch: Arc::new(Batch::new(dir)),
            at: 0,
            len: 0,
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

    /// What [`advance`](Self::advance) has come to.
    pub(super) fn entry(&self) -> &Entry<D> {
        &self.entry
    }

    /// To the next entry; false where there is none.
    #[inline]
    pub(super) fn advance(&mut self) -> Result<bool, Errno> {
        loop {
            let Some(dirent) = self.entry.batch.dirent(self.next) else {
                if self.has_ended {
                    return Ok(false);
                }
                self.refill()?;
                continue;
            };
            let (at, name) = (self.next, dirent.name);
            self.next += dirent.len;
            if !matches!(name, b"." | b"..") {
                let len = name.len();
                // A mode has these four bits on top.
                self.entry.entry_type = EntryType::of(u32::from(dirent.d_type) << 12);
                (self.entry.at, self.entry.len) = (at, len);
                return Ok(true);
            }
        }
    }

    /// Into the same memory, unless an entry is there that needs it.
    #[cold]
    fn refill(&mut self) -> Result<(), Errno> {
        if Arc::get_mut(&mut self.entry.batch).is_none() {
            self.entry.batch = Arc::new(Batch::new(self.dir().clone()));
        }
        let Some(batch) = Arc::get_mut(&mut self.entry.batch) else {
            return Ok(());
        };
        let filled = sys::getdents(self.file.as_fd(), &mut batch.room);
        batch.filled = *filled.as_ref().unwrap_or(&0);
        self.has_ended = batch.filled == 0;
        self.next = 0;
        filled.map(drop)
    }
}

impl<D> fmt::Debug for Stream<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}
