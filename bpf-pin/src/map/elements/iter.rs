//! Iterators over the elements of a map.

use std::fmt;
use std::iter::FusedIterator;
use std::mem;

use bytemuck::{Pod, zeroed_vec};

use crate::error::{Cause, Error, Result};
use crate::sys::{AsMap, BatchBuffers};

use super::batch::Change;
use super::cursor::{Cursor, count_keys};
use super::layout::bytes_of_all_mut;
use super::raw::RawElements;
use super::{ElemFlags, Key, Readable};

/// The most elements that are read in one call.
const BATCH: usize = 4096;

/// The most bytes that are read in one call.
const BATCH_BYTES: usize = 1 << 18;

/// The most bytes that are allocated at first for all keys of a map, or for all values. Pages that stay
/// untouched take no memory.
const FIRST_BYTES: usize = 1 << 25;

/// Reads the elements of a map in batches, into one buffer for keys and one for values. The buffers are
/// allocated once, and again only if a bucket of a hash is larger.
pub(crate) struct Reader<'a, M, K = u8, V = u8> {
    raw: &'a RawElements<M>,
    cursor: Cursor,
    takes: bool,
    keys: Vec<K>,
    values: Vec<V>,
    /// The elements that fit the buffers.
    capacity: usize,
    /// The most elements to read in one call.
    batch: usize,
    filled: usize,
    yielded: usize,
    failure: Option<Error>,
}

impl<'a, M: AsMap, K: Pod, V: Pod> Reader<'a, M, K, V> {
    pub(crate) fn new(raw: &'a RawElements<M>, takes: bool) -> Self {
        Self {
            raw,
            cursor: Cursor::new(),
            takes,
            keys: vec![],
            values: vec![],
            capacity: 0,
            batch: first_batch(raw),
            filled: 0,
            yielded: 0,
            failure: None,
        }
    }

    /// The next key and value.
    pub(crate) fn next(&mut self) -> Option<Result<(&[K], &[V])>> {
        loop {
            // The caller may delete a yielded key, and the next batch may continue from the last one. So
            // the last one is kept until the next batch is read.
            let keeps_last =
                !self.takes && !self.raw.map.has_buckets() && self.cursor.holds_last_key();
            if self.yielded + usize::from(keeps_last) < self.filled {
                break;
            }
            if !self.cursor.is_end() {
                self.refill();
            } else if self.yielded == self.filled {
                return self.failure.take().map(Err);
            }
        }
        let at = self.yielded;
        self.yielded += 1;
        let (key_units, value_units) = self.units();
        let key = &self.keys[at * key_units..][..key_units];
        Some(Ok((key, &self.values[at * value_units..][..value_units])))
    }

    /// The number of units of a key and of a value.
    fn units(&self) -> (usize, usize) {
        let (key_len, value_len) = (self.raw.key_len(), self.raw.value_len());
        (units::<K>(key_len), units::<V>(value_len))
    }

    /// Drops the yielded elements and reads a batch.
    fn refill(&mut self) {
        let (key_units, value_units) = self.units();
        let left = self.filled - self.yielded;
        if self.yielded > 0 {
            let range = |units| self.yielded * units..self.filled * units;
            self.keys.copy_within(range(key_units), 0);
            self.values.copy_within(range(value_units), 0);
            (self.yielded, self.filled) = (0, left);
        }
        if left == self.capacity {
            self.reserve((left * 2).max(self.batch));
        }
        let count = self.batch.min(self.capacity - left);
        let buffers = BatchBuffers {
            keys: bytes_of_all_mut(&mut self.keys[left * key_units..][..count * key_units]),
            values: bytes_of_all_mut(&mut self.values[left * value_units..][..count * value_units]),
            count,
        };
        let any = ElemFlags::ANY;
        match self.raw.read(self.takes, &mut self.cursor, buffers, any) {
            Ok(count) => self.filled += count,
            Err(error) if matches!(error.cause(), Some(Cause::BufferTooSmall { .. })) => {
                if count == self.batch {
                    self.batch *= 2;
                }
                self.reserve(left + self.batch);
            }
            Err(error) => {
                self.failure = Some(error);
                self.cursor.finish();
            }
        }
    }

    /// Makes the buffers large enough for so many elements.
    fn reserve(&mut self, capacity: usize) {
        let (key_units, value_units) = self.units();
        if self.capacity == 0 {
            self.keys = zeroed_vec(capacity * key_units);
            self.values = zeroed_vec(capacity * value_units);
        } else if capacity > self.capacity {
            self.keys.resize(capacity * key_units, K::zeroed());
            self.values.resize(capacity * value_units, V::zeroed());
        }
        self.capacity = self.capacity.max(capacity);
    }
}

/// At least two elements: one is kept if the next batch continues from it.
fn first_batch<M: AsMap>(raw: &RawElements<M>) -> usize {
    let largest = (raw.key_len() + raw.value_len()).max(1);
    let all = max_entries(raw).unwrap_or(BATCH);
    all.min(BATCH).min(BATCH_BYTES / largest).max(2)
}

/// One more than the map's `max_entries`, so that a batch of all elements does not fill its buffer and
/// reaches the end. None if the map sets no limit.
fn max_entries<M: AsMap>(raw: &RawElements<M>) -> Option<usize> {
    match raw.map.max_entries() {
        0 => None,
        entries => Some((entries as usize).saturating_add(1)),
    }
}

/// All keys and all values, each in one allocation, or in a few for a large map. The limit of the map
/// does not say how many elements there are.
pub(crate) fn read_all<K: Pod, V: Pod, M: AsMap>(raw: &RawElements<M>) -> Result<(Vec<K>, Vec<V>)> {
    let mut reader = Reader::<M, K, V>::new(raw, false);
    let largest = raw.key_len().max(raw.value_len()).max(1);
    let most = (FIRST_BYTES / largest).max(reader.batch);
    reader.reserve(max_entries(raw).map_or(reader.batch, |all| all.min(most)));
    while !reader.cursor.is_end() {
        reader.refill();
    }
    if let Some(error) = reader.failure {
        return Err(error);
    }
    let (key_units, value_units) = reader.units();
    let (mut keys, mut values) = (reader.keys, reader.values);
    keys.truncate(reader.filled * key_units);
    values.truncate(reader.filled * value_units);
    // Release the memory that a nearly empty map did not need.
    if reader.filled < reader.capacity / 4 {
        keys.shrink_to_fit();
        values.shrink_to_fit();
    }
    Ok((keys, values))
}

/// The number of `T` in so many bytes; one if `T` has no size.
fn units<T>(len: usize) -> usize {
    len.checked_div(size_of::<T>()).unwrap_or(1)
}

impl<M: AsMap> RawElements<M> {
    pub(super) fn clear(&self) -> Result<usize> {
        let takes = self.key_len() == 0;
        let mut reader: Reader<'_, M> = Reader::new(self, takes);
        let mut removed = 0;
        while !reader.cursor.is_end() {
            reader.refill();
            removed += if takes {
                reader.filled
            } else {
                let keys = &reader.keys[..reader.filled * self.key_len()];
                self.change(keys, Change::Delete)?
            };
            reader.yielded = reader.filled;
        }
        reader.failure.map_or(Ok(removed), Err)
    }
}

/// An iterator over the elements of a map, from [`Elements::iter`](crate::map::Elements::iter) or
/// [`Elements::drain`](crate::map::Elements::drain).
///
/// It yields owned keys and values. [`next_ref`](Self::next_ref) yields borrowed ones and allocates nothing
/// per element, also for the layouts `[u8]` and [`PerCpu`](crate::map::PerCpu).
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

    /// Returns the next key and value, borrowed from the iterator's buffers.
    ///
    /// # Errors
    ///
    /// Those of [`Elements::iter`](crate::map::Elements::iter) or
    /// [`Elements::drain`](crate::map::Elements::drain). The iterator ends after an error.
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
        let (key, value) = match self.reader.next()? {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error)),
        };
        let key = K::borrow(key, &mut self.key);
        Some(Ok((key, V::borrow(value, &mut self.value))))
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

/// An iterator over the keys of a map, from [`Elements::keys`](crate::map::Elements::keys).
///
/// It reads one key ahead, so a key may be deleted as soon as it was yielded.
pub struct Keys<'a, K: Readable + ?Sized, M> {
    raw: &'a RawElements<M>,
    next: Next<K::Owned>,
    keys_left: Option<u32>,
}

/// The key to yield next.
enum Next<T> {
    Start,
    Key(T),
    Failure(Error),
    End,
}

impl<'a, K: Key + ?Sized, M: AsMap> Keys<'a, K, M> {
    pub(super) fn new(raw: &'a RawElements<M>) -> Self {
        Self {
            raw,
            next: Next::Start,
            keys_left: None,
        }
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
        let key = match mem::replace(&mut self.next, Next::End) {
            Next::Start => self.next_key(None).transpose()?,
            Next::Key(key) => Ok(key),
            Next::Failure(error) => Err(error),
            Next::End => return None,
        };
        let mut key = key.and_then(|key| {
            count_keys(&mut self.keys_left, self.raw.map.most_keys(), 1)
                .map_err(|error| self.raw.named(error))?;
            Ok(key)
        });
        if let Ok(key) = &mut key {
            self.next = match self.next_key(Some(key)) {
                Ok(Some(next)) => Next::Key(next),
                Ok(None) => Next::End,
                Err(error) => Next::Failure(error),
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
