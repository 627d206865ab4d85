//! What is in a directory, one getdents64(2) stream.

use std::ffi::OsStr;
use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

use crate::access::Access;
use crate::cause::Cause;
use crate::error::{Reason, Result};
use crate::filename::Filename;
use crate::object::{Object, Pinnable};
use crate::operation::DirOperation;

use super::names;
use super::{Metadata, PinDir};

/// What the kernel is given room for, in bytes: some thousand names.
const ROOM: usize = 32 * 1024;

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
    pub(super) fn of(file_type: FileType) -> Self {
        match file_type {
            FileType::RegularFile => Self::Pin,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::SymbolicLink,
            _ => Self::Other,
        }
    }
}

/// A name in a directory. What it stands for is opened when asked for, not before.
///
/// `D` is how the directory is held: borrowed by [`Entries`], shared by [`Walk`](super::Walk).
#[derive(Clone)]
pub struct Entry<D> {
    dir: D,
    pub(super) name: Filename,
    pub(super) entry_type: EntryType,
    inode: u64,
}

impl<D: Deref<Target = PinDir>> Entry<D> {
    /// The name.
    pub fn name(&self) -> &OsStr {
        self.name.as_os_str()
    }

    /// The directory that it is in.
    pub fn dir(&self) -> &PinDir {
        &self.dir
    }

    /// The directory's path and the name.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join(self.name())
    }

    /// Whether it is something on its way: a pin that is to replace another, a directory that is not
    /// published yet, or is to be removed; or the map that another was migrated from. See
    /// [`PinDir::sweep_stale`].
    pub fn is_hidden(&self) -> bool {
        let name = self.name.as_bytes();
        names::parse(name).is_some() || names::parse_kept(name).is_some()
    }

    /// What it was when the directory was read.
    pub fn entry_type(&self) -> EntryType {
        self.entry_type
    }

    /// The inode's number when the directory was read.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Opens the object.
    ///
    /// # Errors
    ///
    /// As [`PinDir::open_as`].
    pub fn open_as<T: Pinnable>(&self) -> Result<T> {
        self.dir.open_named(&self.name, Access::ReadWrite)
    }

    /// Opens the object, for what access is asked for.
    ///
    /// # Errors
    ///
    /// As [`PinDir::open_with`].
    pub fn open_with<T: Pinnable>(&self, access: Access) -> Result<T> {
        self.dir.open_named(&self.name, access)
    }

    /// Opens the object, whatever it is.
    ///
    /// # Errors
    ///
    /// As [`PinDir::open_any`].
    pub fn open_any(&self) -> Result<Object> {
        self.dir.open_named(&self.name, Access::ReadWrite)
    }

    /// Opens the object, for whatever access is granted.
    pub(crate) fn open_somehow(&self) -> Result<Object> {
        self.open_any().or_else(|error| {
            let reason = error.reason();
            if !reason.is(Errno::ACCESS) && !reason.is(Errno::ROFS) {
                return Err(error);
            }
            self.open_with(Access::ReadOnly)
                .or_else(|_| self.open_with(Access::WriteOnly))
                .map_err(|_| error)
        })
    }

    /// `fstatat(2)`. Opens nothing.
    ///
    /// # Errors
    ///
    /// As [`PinDir::metadata`].
    pub fn metadata(&self) -> Result<Metadata> {
        self.dir.metadata_named(&self.name)
    }

    /// `statx(2)`: whether something is mounted there. None where the kernel does not tell, before
    /// Linux 5.8.
    pub fn is_mount_point(&self) -> Option<bool> {
        self.dir.place(&self.name).is_mount_point()
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

/// The names in a directory, in the kernel's order, as they are read: see [`PinDir::entries`].
#[derive(Debug)]
pub struct Entries<'d> {
    dir: &'d PinDir,
    stream: Stream,
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
        let stream = self.stream()?;
        Ok(Entries { dir: self, stream })
    }

    pub(super) fn stream(&self) -> Result<Stream> {
        match self.listable() {
            Ok(file) => Ok(Stream::new(file)),
            Err(reason) => Err(self.fail(DirOperation::List, reason)),
        }
    }

    /// The next entry of one of its streams.
    #[inline]
    pub(super) fn next_of<D>(&self, stream: &mut Stream, dir: D) -> Option<Result<Entry<D>>> {
        match stream.next()? {
            Ok((name, entry_type, inode)) => Some(Ok(Entry {
                dir,
                name,
                entry_type,
                inode,
            })),
            Err(errno) => {
                // Removed while it was read.
                let path = self.path().to_owned();
                let cause = (errno == Errno::NOENT).then_some(Cause::Removed { path });
                Some(Err(self.fail(DirOperation::List, Reason::new(errno, cause))))
            }
        }
    }
}

impl<'d> Iterator for Entries<'d> {
    type Item = Result<Entry<&'d PinDir>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.dir.next_of(&mut self.stream, self.dir)
    }
}

/// The names of a directory, read by the batch.
pub(super) struct Stream {
    file: OwnedFd,
    room: Box<[MaybeUninit<u8>]>,
    /// The batch: names one after the other, and where each begins.
    names: Vec<u8>,
    heads: Vec<Head>,
    next: usize,
    has_ended: bool,
}

#[derive(Clone, Copy)]
struct Head {
    begin: u32,
    len: u8,
    entry_type: EntryType,
    inode: u64,
}

impl Stream {
    fn new(file: OwnedFd) -> Self {
        Self {
            file,
            room: vec![MaybeUninit::uninit(); ROOM].into(),
            names: Vec::new(),
            heads: Vec::new(),
            next: 0,
            has_ended: false,
        }
    }

    #[inline]
    fn next(&mut self) -> Option<Result<(Filename, EntryType, u64), Errno>> {
        if self.next == self.heads.len() {
            if let Err(errno) = self.refill() {
                self.has_ended = true;
                return Some(Err(errno));
            }
        }
        let head = *self.heads.get(self.next)?;
        self.next += 1;
        let begin = head.begin as usize;
        let name = &self.names[begin..begin + usize::from(head.len)];
        Some(Ok((Filename::of_entry(name), head.entry_type, head.inode)))
    }

    /// One batch, or none at the end.
    #[cold]
    fn refill(&mut self) -> Result<(), Errno> {
        self.names.clear();
        self.heads.clear();
        self.next = 0;
        // A batch may hold nothing but "." and "..".
        while self.heads.is_empty() && !self.has_ended {
            let mut batch = RawDir::new(&self.file, &mut self.room);
            loop {
                match batch.next() {
                    None => {
                        self.has_ended = true;
                        break;
                    }
                    Some(entry) => {
                        let entry = entry?;
                        let name = entry.file_name().to_bytes();
                        if name != b"." && name != b".." {
                            self.heads.push(Head {
                                begin: self.names.len() as u32,
                                // 255 bytes is the most.
                                len: name.len() as u8,
                                entry_type: EntryType::of(entry.file_type()),
                                inode: entry.ino(),
                            });
                            self.names.extend_from_slice(name);
                        }
                    }
                }
                if batch.is_buffer_empty() {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}
