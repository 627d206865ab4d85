//! What is in a directory and the directories below it.

use std::sync::Arc;

use rustix::io::Errno;

use crate::error::Result;
use crate::operation::DirOperation;

use super::entries::Stream;
use super::{Entry, EntryType, PinDir};

/// A directory's names, and those of the directories below it: see [`PinDir::walk`].
#[derive(Debug)]
pub struct Walk {
    levels: Vec<Level>,
    /// A directory that was told of, and is entered with the next call.
    pending: Option<Entry<Arc<PinDir>>>,
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
    /// [`MountPoint`](crate::Cause::MountPoint). One that was removed meanwhile comes as an entry alone.
    /// Memory is some 20 KiB for each level of depth, and a descriptor or two.
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
        let pending = None;
        Ok(Walk { levels, pending })
    }
}

impl Level {
    fn new(dir: Arc<PinDir>) -> Result<Self> {
        let stream = dir.stream(Arc::clone(&dir))?;
        Ok(Self { stream })
    }
}

impl Walk {
    /// Does not enter the directory that [`next`](Iterator::next) has just told of.
    pub fn skip_dir(&mut self) {
        self.pending = None;
    }

    /// How many directories the entry that [`next`](Iterator::next) has just told of is below the one
    /// where the walk began.
    pub fn depth(&self) -> usize {
        self.levels.len().saturating_sub(1)
    }

    fn enter(&mut self, directory: &Entry<Arc<PinDir>>) -> Result<()> {
        let parent = directory.dir();
        let entered = parent
            .open_dir_named(&directory.filename())
            .map_err(|reason| parent.fail_at(DirOperation::List, directory.name(), reason))
            .and_then(|dir| Level::new(Arc::new(dir)));
        match entered {
            Ok(level) => {
                self.levels.push(level);
                Ok(())
            }
            Err(error) if error.reason().is(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Iterator for Walk {
    type Item = Result<Entry<Arc<PinDir>>>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(directory) = self.pending.take() {
            if let Err(error) = self.enter(&directory) {
                return Some(Err(error));
            }
        }
        loop {
            let Level { stream } = self.levels.last_mut()?;
            match stream.next() {
                Some(Ok(entry)) => {
                    if entry.entry_type() == EntryType::Directory {
                        self.pending = Some(entry.clone());
                    }
                    return Some(Ok(entry));
                }
                // A directory that was removed while it was read has no more names.
                Some(Err(Errno::NOENT)) => {}
                Some(Err(errno)) => return Some(Err(stream.dir().list_error(errno))),
                None => {
                    self.levels.pop();
                }
            }
        }
    }
}
