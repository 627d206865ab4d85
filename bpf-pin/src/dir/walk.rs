//! Lists a directory and all directories below it.

use std::iter::FusedIterator;
use std::sync::Arc;

use rustix::io::Errno;

use crate::error::{Operation, Result};

use super::entries::Stream;
use super::{Entry, EntryType, PinDir};

/// The names in a directory and in the directories below it: see [`PinDir::walk`].
#[derive(Debug)]
pub struct Walk {
    levels: Vec<Stream<Arc<PinDir>>>,
    /// The last entry is a directory, and the next call enters it.
    enters_next: bool,
}

impl PinDir {
    /// `getdents64(2)`, `openat2(2)`: returns the names in the directory and in all directories below it.
    /// A directory comes before its contents. Linux 5.6.
    ///
    /// Opens no object and follows no symbolic link. Takes about 10 KiB of memory and one or two descriptors
    /// for each level of depth.
    ///
    /// # Errors
    ///
    /// As [`entries`](Self::entries).
    ///
    /// A directory that cannot be entered comes as an entry and then as an error, and the walk goes on. So
    /// does a mount point: [`MountPoint`](crate::error::Cause::MountPoint). A directory that was removed
    /// meanwhile comes as an entry alone.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::PinDir;
    ///
    /// for entry in PinDir::open("/sys/fs/bpf")?.walk()? {
    ///     match entry {
    ///         Ok(entry) => println!("{} ({:?})", entry.path().display(), entry.entry_type()),
    ///         Err(error) => eprintln!("{error}"),
    ///     }
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn walk(&self) -> Result<Walk> {
        self.try_clone()?.into_walk()
    }

    pub(crate) fn into_walk(self) -> Result<Walk> {
        Ok(Walk {
            levels: vec![self.into_stream()?],
            enters_next: false,
        })
    }

    fn into_stream(self) -> Result<Stream<Arc<Self>>> {
        let dir = Arc::new(self);
        dir.stream(Arc::clone(&dir))
    }
}

impl Walk {
    /// Like [`next`](Iterator::next), but returns a reference that is valid until the next call. This saves
    /// the memory of entries that are not kept.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::dir::EntryType;
    /// use bpf_pin::PinDir;
    ///
    /// let (mut walk, mut pins) = (PinDir::open("/sys/fs/bpf")?.walk()?, 0);
    /// while let Some(entry) = walk.next_entry() {
    ///     pins += usize::from(entry?.entry_type() == EntryType::Pin);
    /// }
    /// println!("{pins} pins");
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    #[inline]
    pub fn next_entry(&mut self) -> Option<Result<&Entry<Arc<PinDir>>>> {
        match self.advance() {
            Ok(true) => Some(Ok(self.levels.last()?.entry())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Skips the contents of the directory that was returned last.
    pub fn skip_dir(&mut self) {
        self.enters_next = false;
    }

    /// Returns the depth of the entry that was returned last: 0 in the directory where the walk began.
    pub fn depth(&self) -> usize {
        self.levels.len().saturating_sub(1)
    }

    /// Goes to the next entry. False at the end.
    #[inline]
    fn advance(&mut self) -> Result<bool> {
        if std::mem::take(&mut self.enters_next) {
            self.enter()?;
        }
        while let Some(stream) = self.levels.last_mut() {
            match stream.advance() {
                Ok(true) => {
                    self.enters_next = stream.entry().entry_type() == EntryType::Directory;
                    return Ok(true);
                }
                Ok(false) => {
                    self.levels.pop();
                }
                // The directory was removed while it was read, and has no more names.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(stream.dir().list_error(errno)),
            }
        }
        Ok(false)
    }

    /// Enters the directory that was returned last.
    #[cold]
    fn enter(&mut self) -> Result<()> {
        let Some(stream) = self.levels.last() else {
            return Ok(());
        };
        let (parent, entry) = (stream.dir(), stream.entry());
        let entered = parent
            .open_dir_named(entry.c_name())
            .map_err(|reason| parent.fail_at(Operation::ListDir, entry.name(), reason))
            .and_then(PinDir::into_stream);
        match entered {
            Ok(stream) => self.levels.push(stream),
            Err(error) if error.is(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl Iterator for Walk {
    type Item = Result<Entry<Arc<PinDir>>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().map(|entry| entry.cloned())
    }
}

impl FusedIterator for Walk {}
