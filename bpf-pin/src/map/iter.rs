//! All elements of a map, in batches.

use std::fmt;
use std::mem::size_of;

use bytemuck::{Pod, zeroed_vec};

use crate::cause::Cause;
use crate::error::{Error, Result};
use crate::map::batch::bytes_of_all_mut;
use crate::map::cursor::Cursor;
use crate::map::{ElemFlags, Elems};
use crate::sys::{AsMap, Room};

/// How many elements are read in one call, where they are small.
const BATCH: usize = 4096;

/// The bytes that a batch has.
const BATCH_BYTES: usize = 1 << 18;

/// The bytes that a whole map's keys, or its values, get at first. What nothing is written to takes
/// no memory.
const FIRST_BYTES: usize = 1 << 25;

/// The elements of a map from a buffer, which is made once; again only where a hash has a bucket that
/// is larger.
pub(crate) struct Reader<'a, M> {
    elems: &'a Elems<M>,
    cursor: Cursor,
    takes: bool,
    keys: Vec<u8>,
    values: Vec<u8>,
    /// How many elements there is room for.
    room: usize,
    filled: usize,
    given: usize,
    failure: Option<Error>,
}

impl<'a, M: AsMap> Reader<'a, M> {
    pub(crate) fn new(elems: &'a Elems<M>, takes: bool) -> Self {
        Self {
            elems,
            cursor: Cursor::new(),
            takes,
            keys: vec![],
            values: vec![],
            room: 0,
            filled: 0,
            given: 0,
            failure: None,
        }
    }

    /// The next element's bytes.
    pub(crate) fn next(&mut self) -> Option<Result<(&[u8], &[u8])>> {
        loop {
            // The walk goes on from the last key, which so must not be deleted for having been given.
            let goes_on_from_last =
                !self.takes && !self.elems.has_buckets() && self.cursor.holds_last_key();
            if self.given + usize::from(goes_on_from_last) < self.filled {
                break;
            }
            if !self.cursor.is_end() {
                self.refill();
            } else if self.given == self.filled {
                return self.failure.take().map(Err);
            }
        }
        let at = self.given;
        self.given += 1;
        Some(Ok((self.key(at), self.value(at))))
    }

    fn key(&self, at: usize) -> &[u8] {
        let len = self.elems.key_len();
        &self.keys[at * len..][..len]
    }

    fn value(&self, at: usize) -> &[u8] {
        let len = self.elems.value_len();
        &self.values[at * len..][..len]
    }

    /// Moves what was not given yet to the front, and reads on behind it.
    fn refill(&mut self) {
        let (key_len, value_len) = (self.elems.key_len(), self.elems.value_len());
        if self.room == 0 {
            self.resize(first_room(self.elems));
        }
        let kept = self.filled - self.given;
        let moved = |len| self.given * len..self.filled * len;
        self.keys.copy_within(moved(key_len), 0);
        self.values.copy_within(moved(value_len), 0);
        (self.given, self.filled) = (0, kept);
        let room = Room {
            keys: &mut self.keys[kept * key_len..],
            values: &mut self.values[kept * value_len..],
            count: self.room - kept,
        };
        let any = ElemFlags::ANY;
        let read = self.elems.read(self.takes, &mut self.cursor, room, any);
        match read {
            Ok(count) => self.filled += count,
            Err(error) if is_too_small(&error) => self.resize(self.room * 2),
            Err(error) => {
                self.failure = Some(error);
                self.cursor.finish();
            }
        }
    }

    fn resize(&mut self, room: usize) {
        self.room = room;
        self.keys.resize(room * self.elems.key_len(), 0);
        self.values.resize(room * self.elems.value_len(), 0);
    }
}

fn is_too_small(error: &Error) -> bool {
    matches!(error.cause(), Some(Cause::LargerBucket { .. }))
}

/// One is kept where the walk goes on from it, so at least two.
fn first_room<M: AsMap>(elems: &Elems<M>) -> usize {
    let each = (elems.key_len() + elems.value_len()).max(1);
    let all = match elems.cells().max_entries() {
        0 => BATCH,
        entries => (entries as usize).saturating_add(1),
    };
    all.min(BATCH).min(BATCH_BYTES / each).max(2)
}

/// The whole map, keys and values each in one allocation, or few where there are many: `max_entries`
/// says what there might be, not what there is.
pub(crate) fn read_all<K: Pod, V: Pod, M: AsMap>(elems: &Elems<M>) -> Result<(Vec<K>, Vec<V>)> {
    let per_key = units::<K>(elems.key_len());
    let per_value = units::<V>(elems.value_len());
    let mut batch = first_room(elems);
    let largest = elems.key_len().max(elems.value_len()).max(1);
    let mut room = match elems.cells().max_entries() {
        0 => batch,
        // So that the last batch, too, is short of its room, and the end is seen by it.
        entries => (entries as usize).saturating_add(1),
    };
    room = room.min((FIRST_BYTES / largest).max(batch));
    let mut keys: Vec<K> = zeroed_vec(room * per_key);
    let mut values: Vec<V> = zeroed_vec(room * per_value);
    let (mut cursor, mut filled) = (Cursor::new(), 0);
    while !cursor.is_end() {
        let count = batch.min(room - filled);
        if count == 0 {
            room *= 2;
            keys.resize(room * per_key, K::zeroed());
            values.resize(room * per_value, V::zeroed());
            continue;
        }
        let room_for = Room {
            keys: bytes_of_all_mut(&mut keys[filled * per_key..][..count * per_key]),
            values: bytes_of_all_mut(&mut values[filled * per_value..][..count * per_value]),
            count,
        };
        match elems.read(false, &mut cursor, room_for, ElemFlags::ANY) {
            Ok(count) => filled += count,
            // A larger bucket, or the end of the room.
            Err(error) if is_too_small(&error) => {
                if count == batch {
                    batch *= 2;
                }
                room = room.max(filled + batch);
                keys.resize(room * per_key, K::zeroed());
                values.resize(room * per_value, V::zeroed());
            }
            Err(error) => return Err(error),
        }
    }
    keys.truncate(filled * per_key);
    values.truncate(filled * per_value);
    // Of a map that is all but empty little is kept.
    if filled < room / 4 {
        keys.shrink_to_fit();
        values.shrink_to_fit();
    }
    Ok((keys, values))
}

/// How many `T` there are in so many bytes; of what has no size, one.
fn units<T>(len: usize) -> usize {
    len.checked_div(size_of::<T>()).unwrap_or(1)
}

/// All elements as bytes, from [`Elems::iter`] or [`Elems::drain`].
///
/// It lends what it yields, so it is no [`Iterator`].
pub struct ElemsIter<'a, M> {
    reader: Reader<'a, M>,
}

impl<M: AsMap> ElemsIter<'_, M> {
    /// The next element's key and value.
    ///
    /// # Errors
    ///
    /// As of [`Elems::iter`] or [`Elems::drain`], after which there is no more.
    #[allow(clippy::should_implement_trait, reason = "it lends")]
    pub fn next(&mut self) -> Option<Result<(&[u8], &[u8])>> {
        self.reader.next()
    }
}

impl<M> fmt::Debug for ElemsIter<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ElemsIter").finish_non_exhaustive()
    }
}

impl<M: AsMap> Elems<M> {
    /// All elements, read in batches into one buffer: as they were when their batch was read.
    ///
    /// A key that was yielded may be deleted. Of a hash, on a kernel that has batches, what stays
    /// comes once, whatever others put in or delete meanwhile; for the rest see
    /// [`lookup_batch`](Self::lookup_batch), which also tells of the key of a trie that comes with
    /// another's value, and of values with a spin lock or a timer: they are read without
    /// [`ElemFlags::LOCK`].
    ///
    /// # Errors
    ///
    /// Yielded, after all that was read before it: as [`lookup_batch`](Self::lookup_batch), which makes
    /// more room by itself where a bucket is larger.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// let map = bpf_pin::Map::open("/sys/fs/bpf/flows")?;
    /// let elems = map.elems()?;
    /// let mut all = elems.iter();
    /// while let Some(entry) = all.next() {
    ///     let (key, value) = entry?;
    ///     println!("{key:x?}: {value:x?}");
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn iter(&self) -> ElemsIter<'_, M> {
        let reader = Reader::new(self, false);
        ElemsIter { reader }
    }

    /// As [`iter`](Self::iter), and takes the elements out: of a hash, in batches, or of a queue or
    /// stack, until it is empty. What was taken out and not yielded when it is dropped is lost.
    ///
    /// # Errors
    ///
    /// Yielded, after all that was taken out before it: as
    /// [`lookup_and_delete_batch`](Self::lookup_and_delete_batch). Other types have no such command:
    /// [`NoCommand`](Cause::NoCommand), and nothing is taken out.
    pub fn drain(&self) -> ElemsIter<'_, M> {
        let reader = Reader::new(self, true);
        ElemsIter { reader }
    }

    /// All keys, one after the other, and all values: what [`iter`](Self::iter) yields, in two
    /// allocations, or a few where there is more than fits the first.
    ///
    /// # Errors
    ///
    /// As [`lookup_batch`](Self::lookup_batch).
    pub fn to_vecs(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        read_all(self)
    }

    /// Removes all elements, in batches, and says how many there were. Those that somebody puts in
    /// meanwhile may stay.
    ///
    /// # Errors
    ///
    /// As [`lookup_batch`](Self::lookup_batch) and [`delete_batch`](Self::delete_batch), which counts
    /// from the last batch that was read: [`NoCommand`](Cause::NoCommand) (EINVAL) of an array, whose
    /// elements stay.
    pub fn clear(&self) -> Result<usize> {
        let mut gone = 0;
        if self.key_len() == 0 {
            let mut all = self.drain();
            while let Some(entry) = all.next() {
                entry?;
                gone += 1;
            }
            return Ok(gone);
        }
        let mut reader = Reader::new(self, false);
        while !reader.cursor.is_end() {
            reader.refill();
            if let Some(error) = reader.failure.take() {
                return Err(error);
            }
            let count = reader.filled;
            gone += self.delete_batch(&reader.keys[..count * self.key_len()])?;
            reader.given = count;
        }
        Ok(gone)
    }
}
