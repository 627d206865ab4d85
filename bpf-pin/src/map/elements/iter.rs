//! All elements of a map, in batches.

use std::fmt;
use std::iter::FusedIterator;
use std::mem;

use bytemuck::{Pod, zeroed_vec};

use crate::cause::Cause;
use crate::error::{Error, Result};
use crate::sys::{AsMap, Room};

use super::batch::Change;
use super::cursor::{Cursor, count_keys};
use super::layout::bytes_of_all_mut;
use super::raw::RawElements;
use super::{ElemFlags, Key, Readable};

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
    raw: &'a RawElements<M>,
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
    pub(crate) fn new(raw: &'a RawElements<M>, takes: bool) -> Self {
        Self {
            raw,
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
                !self.takes && !self.raw.map.has_buckets() && self.cursor.holds_last_key();
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
        let len = self.raw.key_len();
        &self.keys[at * len..][..len]
    }

    fn value(&self, at: usize) -> &[u8] {
        let len = self.raw.value_len();
        &self.values[at * len..][..len]
    }

    /// Moves what was not given yet to the front, and reads on behind it.
    fn refill(&mut self) {
        let (key_len, value_len) = (self.raw.key_len(), self.raw.value_len());
        if self.room == 0 {
            self.resize(first_room(self.raw));
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
        let read = self.raw.read(self.takes, &mut self.cursor, room, any);
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
        self.keys.resize(room * self.raw.key_len(), 0);
        self.values.resize(room * self.raw.value_len(), 0);
    }
}

fn is_too_small(error: &Error) -> bool {
    matches!(error.cause(), Some(Cause::LargerBucket { .. }))
}

/// One is kept where the walk goes on from it, so at least two.
fn first_room<M: AsMap>(raw: &RawElements<M>) -> usize {
    let each = (raw.key_len() + raw.value_len()).max(1);
    let all = match raw.map.max_entries() {
        0 => BATCH,
        entries => (entries as usize).saturating_add(1),
    };
    all.min(BATCH).min(BATCH_BYTES / each).max(2)
}

/// The whole map, keys and values each in one allocation, or few where there are many: `max_entries`
/// says what there might be, not what there is.
pub(crate) fn read_all<K: Pod, V: Pod, M: AsMap>(raw: &RawElements<M>) -> Result<(Vec<K>, Vec<V>)> {
    let per_key = units::<K>(raw.key_len());
    let per_value = units::<V>(raw.value_len());
    let mut batch = first_room(raw);
    let largest = raw.key_len().max(raw.value_len()).max(1);
    let mut room = match raw.map.max_entries() {
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
        match raw.read(false, &mut cursor, room_for, ElemFlags::ANY) {
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
    // Releases most of the room that a nearly empty map did not fill.
    if filled < room / 4 {
        keys.shrink_to_fit();
        values.shrink_to_fit();
    }
    Ok((keys, values))
}

/// How many `T` there are in so many bytes; one if `T` has no size.
fn units<T>(len: usize) -> usize {
    len.checked_div(size_of::<T>()).unwrap_or(1)
}

impl<M: AsMap> RawElements<M> {
    pub(super) fn clear(&self) -> Result<usize> {
        let takes = self.key_len() == 0;
        let mut reader = Reader::new(self, takes);
        let mut gone = 0;
        if takes {
            while let Some(entry) = reader.next() {
                entry?;
                gone += 1;
            }
            return Ok(gone);
        }
        while !reader.cursor.is_end() {
            reader.refill();
            if let Some(error) = reader.failure.take() {
                return Err(error);
            }
            let count = reader.filled;
            let keys = &reader.keys[..count * self.key_len()];
            gone += self.change(keys, Change::Delete)?;
            reader.given = count;
        }
        Ok(gone)
    }
}

/// The elements of a map, from [`Elements::iter`](crate::map::Elements::iter) or
/// [`Elements::drain`](crate::map::Elements::drain).
///
/// As an [`Iterator`] it yields keys and values that the caller owns. [`next_ref`](Self::next_ref) yields
/// borrowed ones: it allocates nothing for an element, also if the layout is `[u8]` or
/// [`PerCpu`](crate::map::PerCpu).
pub struct Iter<'a, K: Readable + ?Sized, V: Readable + ?Sized, M> {
    reader: Reader<'a, M>,
    key: Vec<K::Unit>,
    value: Vec<V::Unit>,
}

impl<'a, K: Key + ?Sized, V: Readable + ?Sized, M: AsMap> Iter<'a, K, V, M> {
    pub(super) fn new(raw: &'a RawElements<M>, takes: bool) -> Self {
        Self {
            reader: Reader::new(raw, takes),
            key: vec![],
            value: vec![],
        }
    }

    /// The next key and value, borrowed from the iterator's buffer.
    ///
    /// # Errors
    ///
    /// Those of [`Elements::iter`](crate::map::Elements::iter) or [`Elements::drain`](crate::map::Elements::drain),
    /// and then it ends.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::map::PerCpu;
    /// use bpf_pin::Map;
    ///
    /// let map = Map::open("/sys/fs/bpf/counters")?;
    /// let counters = map.elements::<u32, PerCpu<u64>>()?;
    /// let mut all = counters.iter();
    /// while let Some(entry) = all.next_ref() {
    ///     let (key, each) = entry?;
    ///     println!("{key}: {}", each.iter().sum::<u64>());
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn next_ref(&mut self) -> Option<Result<(K::Ref<'_>, V::Ref<'_>)>> {
        let entry = self.reader.next()?;
        Some(
            entry
                .map(|(key, value)| (K::lend(key, &mut self.key), V::lend(value, &mut self.value))),
        )
    }
}

impl<K: Key + ?Sized, V: Readable + ?Sized, M: AsMap> Iterator for Iter<'_, K, V, M> {
    type Item = Result<(K::Owned, V::Owned)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.reader.next()?;
        Some(entry.map(|(key, value)| (K::read(key), V::read(value))))
    }
}

impl<K: Key + ?Sized, V: Readable + ?Sized, M: AsMap> FusedIterator for Iter<'_, K, V, M> {}

impl<K: Readable + ?Sized, V: Readable + ?Sized, M> fmt::Debug for Iter<'_, K, V, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").finish_non_exhaustive()
    }
}

/// The keys of a map, from [`Elements::keys`](crate::map::Elements::keys).
///
/// It is one key ahead of what it yields, so that a key may be deleted as soon as it was yielded.
pub struct Keys<'a, K: Readable + ?Sized, M> {
    raw: &'a RawElements<M>,
    ahead: Ahead<K::Owned>,
    left: Option<u32>,
}

enum Ahead<T> {
    Start,
    Key(T),
    Failure(Error),
    End,
}

impl<'a, K: Key + ?Sized, M: AsMap> Keys<'a, K, M> {
    pub(super) fn new(raw: &'a RawElements<M>) -> Self {
        let (ahead, left) = (Ahead::Start, None);
        Self { raw, ahead, left }
    }

    fn next_key(&self, last: Option<&mut K::Owned>) -> Result<Option<K::Owned>> {
        let mut next = K::zeroed(self.raw.key_len());
        let last = last.map(|key| &*bytes_of_all_mut(K::units(key)));
        let found = self
            .raw
            .next_key(last, bytes_of_all_mut(K::units(&mut next)))?;
        Ok(found.then_some(next))
    }
}

impl<K: Key + ?Sized, M: AsMap> Iterator for Keys<'_, K, M> {
    type Item = Result<K::Owned>;

    fn next(&mut self) -> Option<Self::Item> {
        let key = match mem::replace(&mut self.ahead, Ahead::End) {
            Ahead::Start => self.next_key(None).transpose()?,
            Ahead::Key(key) => Ok(key),
            Ahead::Failure(error) => Err(error),
            Ahead::End => return None,
        };
        let mut key = key.and_then(|key| {
            count_keys(&mut self.left, self.raw.map.max_entries(), 1)?;
            Ok(key)
        });
        if let Ok(key) = &mut key {
            self.ahead = match self.next_key(Some(key)) {
                Ok(Some(next)) => Ahead::Key(next),
                Ok(None) => Ahead::End,
                Err(error) => Ahead::Failure(error),
            };
        }
        Some(key)
    }
}

impl<K: Key + ?Sized, M: AsMap> FusedIterator for Keys<'_, K, M> {}

impl<K: Readable + ?Sized, M> fmt::Debug for Keys<'_, K, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}
