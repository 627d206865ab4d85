//! What is in a directory and the directories below it.

use std::sync::Arc;

use rustix::io::Errno;

use crate::error::{Operation, Result};

use super::entries::Stream;
use super::{Entry, EntryType, PinDir};

/// A directory's names, and those of the directories below it: see [`PinDir::walk`].
#[derive(Debug)]
pub struct Walk {
    levels: Vec<Level>,
    /// Whether what was told of last is a directory that is entered with the next call.
    is_pending: bool,
}

#[derive(Debug)]
struct Level {
    stream: Stream<Arc<PinDir>>,
}

impl PinDir {
    /// `getdents64(2)`, `openat2(2)`: the names in the directory and in all directories below it,
    /// each directory before what is in it. Linux 5.6.
    ///
    /// Opens no object, follows no symbolic link. A directory that cannot be entered comes as an
    /// entry and then as an error, and the walk goes on; so does one that something is mounted on:
    /// [`MountPoint`](crate::error::Cause::MountPoint). One that was removed meanwhile comes as an entry alone.
    /// Memory is some 10 KiB for each level of depth, and a descriptor or two.
    ///
    /// # Errors
    ///
    /// As [`entries`](Self::entries).
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
        let levels = vec![Level::new(Arc::new(self))?];
        let is_pending = false;
        Ok(Walk { levels, is_pending })
    }
}

impl Level {
    fn new(dir: Arc<PinDir>) -> Result<Self> {
        let stream = dir.stream(Arc::clone(&dir))?;
        Ok(Self { stream })
    }
}

impl Walk {
    /// As [`next`](Iterator::next), but the entry is lent until the next call, and takes no memory of
    /// its own: the cheaper way where none is kept.
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
        match self.advance()? {
            Ok(()) => Some(Ok(self.levels.last()?.stream.entry())),
            Err(error) => Some(Err(error)),
        }
    }

    /// Does not enter the directory that was told of last.
    pub fn skip_dir(&mut self) {
        self.is_pending = false;
    }

    /// How many directories the entry that was told of last is below the one
    /// where the walk began.
    pub fn depth(&self) -> usize {
        self.levels.len().saturating_sub(1)
    }

    #[inline]
    fn advance(&mut self) -> Option<Result<()>> {
        if self.is_pending {
            self.is_pending = false;
            if let Err(error) = self.enter() {
                return Some(Err(error));
            }
        }
        loop {
            let Level { stream } = self.levels.last_mut()?;
            match stream.advance() {
                Ok(true) => {
                    self.is_pending = stream.entry().entry_type() == EntryType::Directory;
                    return Some(Ok(()));
                }
                Ok(false) => {
                    self.levels.pop();
                }
                // A directory that was removed while it was read has no more names.
                Err(Errno::NOENT) => {}
                Err(errno) => return Some(Err(stream.dir().list_error(errno))),
            }
        }
    }

    /// The directory that was told of last.
    #[cold]
    fn enter(&mut self) -> Result<()> {
        let Some(Level { stream }) = self.levels.last() else {
            return Ok(());
        };
        let (parent, directory) = (stream.dir(), stream.entry());
        let entered = parent
            .open_dir_named(&directory.filename())
            .map_err(|reason| parent.fail_at(Operation::ListDir, directory.name(), reason))
            .and_then(|dir| Level::new(Arc::new(dir)));
        match entered {
            Ok(level) => {
                self.levels.push(level);
                Ok(())
            }
            Err(error) if error.is(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Iterator for Walk {
    type Item = Result<Entry<Arc<PinDir>>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().map(|entry| entry.cloned())
    }
}
