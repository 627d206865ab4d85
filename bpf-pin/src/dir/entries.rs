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

use crate::access::Access;
use crate::cause::Cause;
use crate::error::{Error, Reason, Result};
use crate::filename::Filename;
use crate::object::{Object, Pinnable};
use crate::operation::DirOperation;
use crate::sys::{self, Dirent};

use super::names;
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
/// lives it keeps all that was read at once with it, up to 8 KiB, and one of a walk the descriptor of its
/// directory: what is to be kept for long is better its [`path`](Self::path) or [`name`](Self::name).
#[derive(Clone)]
pub struct Entry<D> {
    batch: Arc<Batch<D>>,
    /// Where in the batch its record begins.
    at: usize,
    entry_type: EntryType,
}

impl<D> Entry<D> {
    fn dirent(&self) -> Dirent<'_> {
        const NONE: Dirent<'_> = Dirent {
            inode: 0,
            d_type: 0,
            name: c"",
            len: 0,
        };
        // It was read before it became an entry.
        self.batch.dirent(self.at).unwrap_or(NONE)
    }

    pub(crate) fn c_name(&self) -> &CStr {
        self.dirent().name
    }

    pub(super) fn filename(&self) -> Filename {
        Filename::of_entry(self.c_name().to_bytes())
    }

    /// The name.
    pub fn name(&self) -> &OsStr {
        OsStr::from_bytes(self.c_name().to_bytes())
    }

    /// What it was when the directory was read.
    pub fn entry_type(&self) -> EntryType {
        self.entry_type
    }

    /// The inode's number when the directory was read.
    pub fn inode(&self) -> u64 {
        self.dirent().inode
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
    /// [`PinDir::sweep_stale`].
    pub fn is_hidden(&self) -> bool {
        let name = self.c_name().to_bytes();
        names::parse(name).is_some() || names::parse_kept(name).is_some()
    }

    /// Opens the object.
    ///
    /// # Errors
    ///
    /// As [`PinDir::open_as`].
    pub fn open_as<T: Pinnable>(&self) -> Result<T> {
        self.dir().open_named(self.c_name(), Access::ReadWrite)
    }

    /// Opens the object, for what access is asked for.
    ///
    /// # Errors
    ///
    /// As [`PinDir::open_with`].
    pub fn open_with<T: Pinnable>(&self, access: Access) -> Result<T> {
        self.dir().open_named(self.c_name(), access)
    }

    /// Opens the object, whatever it is.
    ///
    /// # Errors
    ///
    /// As [`PinDir::open_any`].
    pub fn open_any(&self) -> Result<Object> {
        self.dir().open_named(self.c_name(), Access::ReadWrite)
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
        self.dir().place(self.c_name()).is_mount_point()
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
    /// [`Error::Directory`](crate::Error::Directory): [`Blocked`](Cause::Blocked) (EACCES) where the directory may not
    /// be read. The same of an entry ends the stream.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{EntryType, PinDir};
    ///
    /// for entry in PinDir::open("/sys/fs/bpf")?.entries()? {
    ///     let entry = entry?;
    ///     match entry.entry_type() {
    ///         EntryType::Pin => println!("{}: {:?}", entry.path().display(), entry.open_any()),
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
            Err(reason) => Err(self.fail(DirOperation::List, reason)),
        }
    }

    /// Why one of its streams has ended before its time.
    #[cold]
    pub(super) fn list_error(&self, errno: Errno) -> Error {
        // Removed while it was read.
        let path = self.path().to_owned();
        let cause = (errno == Errno::NOENT).then_some(Cause::Removed { path });
        self.fail(DirOperation::List, Reason::new(errno, cause))
    }
}

impl<'d> Iterator for Entries<'d> {
    type Item = Result<Entry<&'d PinDir>>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.stream.next()?;
        Some(next.map_err(|errno| self.stream.dir().list_error(errno)))
    }
}

/// The names of a directory, read by the batch.
pub(super) struct Stream<D> {
    file: OwnedFd,
    room: Box<[u8]>,
    batch: Arc<Batch<D>>,
    /// Where the next record begins.
    next: usize,
    has_ended: bool,
}

/// What was read at once. Its entries share it.
struct Batch<D> {
    dir: D,
    records: Vec<u8>,
}

impl<D> Batch<D> {
    #[inline]
    fn dirent(&self, at: usize) -> Option<Dirent<'_>> {
        Dirent::first(self.records.get(at..)?)
    }
}

impl<D: Clone> Stream<D> {
    fn new(file: OwnedFd, dir: D) -> Self {
        let records = Vec::new();
        Self {
            file,
            room: vec![0; ROOM].into(),
            batch: Arc::new(Batch { dir, records }),
            next: 0,
            has_ended: false,
        }
    }

    pub(super) fn dir(&self) -> &D {
        &self.batch.dir
    }

    #[inline]
    pub(super) fn next(&mut self) -> Option<Result<Entry<D>, Errno>> {
        loop {
            let Some(dirent) = self.batch.dirent(self.next) else {
                match self.refill() {
                    Ok(()) if self.has_ended => return None,
                    Ok(()) => continue,
                    Err(errno) => return Some(Err(errno)),
                }
            };
            let (at, name) = (self.next, dirent.name);
            // A mode has these four bits on top.
            let entry_type = EntryType::of(u32::from(dirent.d_type) << 12);
            self.next += dirent.len;
            if name != c"." && name != c".." {
                let batch = Arc::clone(&self.batch);
                return Some(Ok(Entry {
                    batch,
                    at,
                    entry_type,
                }));
            }
        }
    }

    /// Into the same memory, unless an entry is there that needs it.
    #[cold]
    fn refill(&mut self) -> Result<(), Errno> {
        if self.has_ended {
            return Ok(());
        }
        let filled = sys::getdents(self.file.as_fd(), &mut self.room);
        let records = &self.room[..*filled.as_ref().unwrap_or(&0)];
        self.has_ended = records.is_empty();
        self.next = 0;
        match Arc::get_mut(&mut self.batch) {
            Some(batch) => {
                batch.records.clear();
                batch.records.reserve_exact(records.len());
                batch.records.extend_from_slice(records);
            }
            None => {
                let (dir, records) = (self.batch.dir.clone(), records.to_vec());
                self.batch = Arc::new(Batch { dir, records });
            }
        }
        filled.map(drop)
    }
}

impl<D> fmt::Debug for Stream<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}
