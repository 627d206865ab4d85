//! Copies the entries of one map to another.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::error::{Cause, Error, ObjectType, Operation, Result, Subject};
use crate::map::{ElemFlags, Elements, Map};
use crate::types::{Kind, MapType};

use super::migrate::Migrate;
use super::retry::{Attempt, retry};

type Bytes<'a> = Elements<[u8], [u8], &'a Map>;

/// The number of value bytes that are written in one batch.
const CHUNK: usize = 256 << 10;

/// Copies the entries in two passes: the first takes long, the second catches up with changes.
pub(super) struct Copy<'a, 'f> {
    old: Bytes<'a>,
    new: Bytes<'a>,
    migrate: &'a mut Migrate<'f>,
    /// The elements of an array can be zeroed but not deleted.
    is_array: bool,
    is_trie: bool,
    /// The keys that were written to the new map, as the kernel compares them.
    written: Vec<u8>,
    /// The entries that were in the new map before, restored when an entry that replaced one is deleted.
    filled: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The entries of a map in one allocation.
pub(super) struct Entries {
    key_len: usize,
    value_len: usize,
    bytes: Vec<u8>,
}

impl Entries {
    /// Reads all entries. Starts again if concurrent deletions abort the iteration.
    pub(super) fn read(map: &Bytes<'_>) -> Result<Self> {
        retry(|| {
            let mut entries = Self {
                key_len: map.key_len(),
                value_len: map.value_len(),
                bytes: vec![],
            };
            let mut all = map.iter();
            while let Some(entry) = all.next_ref() {
                match entry {
                    Ok((key, value)) => {
                        entries.bytes.extend_from_slice(key);
                        entries.bytes.extend_from_slice(value);
                    }
                    Err(error) if matches!(error.cause(), Some(Cause::IterationAborted)) => {
                        return Ok(Attempt::Retry(error));
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(Attempt::Done(entries))
        })
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let entries = self.bytes.chunks_exact(self.key_len + self.value_len);
        entries.map(|entry| entry.split_at(self.key_len))
    }

    fn sorted(&self) -> Vec<(&[u8], &[u8])> {
        // A resizable hash may repeat a key. The value that was read last is the one that was written.
        let mut entries: Vec<_> = self.iter().collect();
        entries.reverse();
        entries.sort_by_key(|(key, _)| *key);
        entries.dedup_by_key(|(key, _)| *key);
        entries
    }

    /// The entries of `now` up to the key `last`, and these after it.
    #[cold]
    pub(super) fn merged_up_to(&self, last: &[u8], now: &Self) -> Self {
        let (before, now) = (self.sorted(), now.sorted());
        let now = now.into_iter().filter(|(key, _)| *key <= last);
        let before = before.into_iter().filter(|(key, _)| *key > last);
        Self {
            key_len: self.key_len,
            value_len: self.value_len,
            bytes: now
                .chain(before)
                .flat_map(|(key, value)| [key, value].concat())
                .collect(),
        }
    }

    /// Calls `each` with the key, the old value and the new value of each difference, in the order of the keys.
    pub(super) fn differences(
        &self,
        now: &Self,
        mut each: impl FnMut(&[u8], Option<&[u8]>, Option<&[u8]>) -> Result<()>,
    ) -> Result<()> {
        let (before, now) = (self.sorted(), now.sorted());
        let (mut before, mut now) = (before.into_iter().peekable(), now.into_iter().peekable());
        loop {
            let order = match (before.peek(), now.peek()) {
                (Some((a, _)), Some((b, _))) => a.cmp(b),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return Ok(()),
            };
            let old = before.next_if(|_| order.is_le());
            let new = now.next_if(|_| order.is_ge());
            if old != new {
                let key = old.or(new).map_or(&[][..], |(key, _)| key);
                each(
                    key,
                    old.map(|(_, value)| value),
                    new.map(|(_, value)| value),
                )?;
            }
        }
    }
}

/// Converted entries that are written at once.
#[derive(Default)]
struct Chunk {
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl<'a, 'f> Copy<'a, 'f> {
    pub(super) fn new(old: &'a Map, new: &'a Map, migrate: &'a mut Migrate<'f>) -> Result<Self> {
        let fail = |cause| Error::new(Operation::Elements, cause).of(Subject::Kind(Kind::Map));
        let (old_type, new_type) = (old.info()?.map_type, new.info()?.map_type);
        for map_type in [old_type, new_type] {
            if !has_plain_entries(map_type) {
                return Err(fail(Cause::unsupported(
                    ObjectType::Map(map_type),
                    "cannot be copied",
                )));
            }
        }
        let (old, new) = (old.elements()?, new.elements()?);
        if let Some(sizes) = migrate.sizes {
            if old.is_per_cpu() || new.is_per_cpu() {
                return Err(fail(Cause::PerCpu { is_per_cpu: true }));
            }
            let expected = [
                ("key", old.key_len()),
                ("value", old.value_len()),
                ("new key", new.key_len()),
                ("new value", new.value_len()),
            ];
            check_sizes(expected, sizes).map_err(fail)?;
        }
        Ok(Self {
            old,
            new,
            migrate,
            is_array: matches!(new_type, MapType::ARRAY | MapType::PERCPU_ARRAY),
            is_trie: new_type == MapType::LPM_TRIE,
            written: vec![],
            filled: BTreeMap::new(),
        })
    }

    /// Remembers the entries of the new map before anything is copied.
    pub(super) fn remember_filled(&mut self) -> Result<()> {
        let mut all = self.new.iter();
        while let Some(entry) = all.next_ref() {
            let (key, value) = match entry {
                Ok(entry) => entry,
                // A write-only map cannot be read, so its entries cannot be restored.
                Err(error) if matches!(error.cause(), Some(Cause::MapAccess { .. })) => break,
                Err(error) => return Err(error),
            };
            // An array starts with zeroes.
            if self.is_array && value.iter().all(|byte| *byte == 0) {
                continue;
            }
            let mut key = key.to_vec();
            self.normalize(&mut key);
            self.filled.insert(key, value.to_vec());
        }
        Ok(())
    }

    /// Copies all entries.
    pub(super) fn first_pass(&mut self) -> Result<()> {
        self.pass().map(drop)
    }

    /// Copies all entries again, deletes those that are gone since the first pass, and returns what was read.
    pub(super) fn second_pass(mut self) -> Result<Entries> {
        let (copied, start) = self.pass()?;
        let current = self.written.split_off(start);
        self.remove_stale(&current)?;
        Ok(copied)
    }

    /// Reads all entries and writes them to the new map. Returns them, and where their keys start in `written`.
    fn pass(&mut self) -> Result<(Entries, usize)> {
        retry(|| {
            let entries = Entries::read(&self.old)?;
            let start = self.written.len();
            match self.write(&entries) {
                Ok(()) => Ok(Attempt::Done((entries, start))),
                Err(error) if is_full(&error) && self.make_room()? => Ok(Attempt::Retry(error)),
                Err(error) => Err(error),
            }
        })
    }

    fn write(&mut self, entries: &Entries) -> Result<()> {
        let value_len = self.new.value_len();
        let mut chunk = Chunk::default();
        for (key, value) in entries.iter() {
            self.convert(key, value, &mut chunk);
            if chunk.values.len() + value_len > CHUNK {
                self.write_chunk(&mut chunk)?;
            }
        }
        self.write_chunk(&mut chunk)
    }

    fn convert(&mut self, key: &[u8], value: &[u8], chunk: &mut Chunk) {
        let (key_at, value_at) = (chunk.keys.len(), chunk.values.len());
        chunk.keys.resize(key_at + self.new.key_len(), 0);
        chunk.values.resize(value_at + self.new.value_len(), 0);
        let (new_key, new_value) = (&mut chunk.keys[key_at..], &mut chunk.values[value_at..]);
        if !(self.migrate.convert)(key, value, new_key, new_value) {
            chunk.keys.truncate(key_at);
            chunk.values.truncate(value_at);
        }
    }

    fn write_chunk(&mut self, chunk: &mut Chunk) -> Result<()> {
        let any = ElemFlags::ANY;
        let written = self.new.update_batch(&chunk.keys, &chunk.values, any);
        self.normalize(&mut chunk.keys);
        // A failed batch may have written some of them.
        self.written.append(&mut chunk.keys);
        chunk.values.clear();
        written.map(drop)
    }

    /// Deletes the entries that were deleted from the old map since they were read. Returns whether there were any.
    #[cold]
    fn make_room(&mut self) -> Result<bool> {
        let entries = Entries::read(&self.old)?;
        let mut chunk = Chunk::default();
        for (key, value) in entries.iter() {
            self.convert(key, value, &mut chunk);
            chunk.values.clear();
        }
        self.normalize(&mut chunk.keys);
        self.remove_stale(&chunk.keys)
    }

    /// Removes what was written under other keys than the current ones. Returns whether there were any.
    fn remove_stale(&mut self, current: &[u8]) -> Result<bool> {
        let key_len = self.new.key_len();
        let mut current: Vec<_> = current.chunks_exact(key_len).collect();
        current.sort_unstable();
        let written = self.written.chunks_exact(key_len);
        let (written, stale): (Vec<_>, Vec<_>) =
            written.partition(|key| current.binary_search(key).is_ok());
        for key in &stale {
            self.remove(key)?;
        }
        let has_stale = !stale.is_empty();
        self.written = written.concat();
        Ok(has_stale)
    }

    /// Restores what the new map was filled with under a key.
    fn remove(&self, key: &[u8]) -> Result<()> {
        let put = |value: &[u8]| self.new.update(key, value, ElemFlags::ANY);
        match self.filled.get(key) {
            Some(value) => put(value),
            None if self.is_array => match put(&vec![0; self.new.value_len()]) {
                // The array never had this index.
                Err(error) if is_full(&error) => Ok(()),
                zeroed => zeroed,
            },
            None => self.new.delete(key).map(drop),
        }
    }

    /// Clears the bits of the keys that the kernel does not compare.
    fn normalize(&self, keys: &mut [u8]) {
        if self.is_trie {
            keys.chunks_exact_mut(self.new.key_len())
                .for_each(clear_beyond_prefix);
        }
    }
}

pub(super) fn check_sizes<const N: usize>(
    expected: [(&'static str, usize); N],
    found: [usize; N],
) -> Result<(), Cause> {
    let mut sizes = expected.into_iter().zip(found);
    match sizes.find(|((_, expected), found)| expected != found) {
        Some(((what, expected), found)) => Err(Cause::Size {
            what,
            expected,
            found,
        }),
        None => Ok(()),
    }
}

fn is_full(error: &Error) -> bool {
    matches!(
        error.cause(),
        Some(Cause::MaxEntries { .. } | Cause::IndexOutOfRange { .. })
    )
}

/// Clears the bits of a trie's key beyond its prefix length. Keys that differ only there are equal.
fn clear_beyond_prefix(key: &mut [u8]) {
    let Some((bits, address)) = key.split_first_chunk_mut() else {
        return;
    };
    let bits = u32::from_ne_bytes(*bits) as usize;
    for (at, byte) in address.iter_mut().enumerate() {
        let counted = bits.saturating_sub(8 * at).min(8);
        *byte &= (0xff00_u32 >> counted) as u8;
    }
}

/// Returns whether the entries are plain data, which a process can read and write.
fn has_plain_entries(map_type: MapType) -> bool {
    matches!(
        map_type,
        MapType::HASH
            | MapType::ARRAY
            | MapType::PERCPU_HASH
            | MapType::PERCPU_ARRAY
            | MapType::LRU_HASH
            | MapType::LRU_PERCPU_HASH
            | MapType::LPM_TRIE
            | MapType::RHASH
    )
}

#[cfg(test)]
mod tests {
    use super::{Entries, clear_beyond_prefix};

    #[test]
    fn bits_beyond_the_prefix_are_cleared() {
        for (bits, expected) in [
            (0_u32, [0, 0]),
            (1, [0x80, 0]),
            (7, [0xfe, 0]),
            (8, [0xff, 0]),
            (13, [0xff, 0xf8]),
            (16, [0xff, 0xff]),
            (u32::MAX, [0xff, 0xff]),
        ] {
            let mut key = [bits.to_ne_bytes().as_slice(), &[0xff; 2]].concat();
            clear_beyond_prefix(&mut key);
            assert_eq!(key[4..], expected, "/{bits}");
        }
        clear_beyond_prefix(&mut [1, 2]);
    }

    fn entries(bytes: &[u8]) -> Entries {
        Entries {
            key_len: 1,
            value_len: 1,
            bytes: bytes.to_vec(),
        }
    }

    #[test]
    fn a_repeated_key_has_the_value_that_was_read_last() {
        let repeated = entries(&[2, 9, 1, 5, 2, 3, 2, 4]);
        assert_eq!(repeated.sorted(), [(&[1][..], &[5][..]), (&[2], &[4])]);
    }

    #[test]
    fn merged_entries_are_new_up_to_the_last_key() {
        let before = entries(&[1, 1, 2, 2, 4, 4]);
        let now = entries(&[4, 40, 1, 10, 3, 30]);
        assert_eq!(before.merged_up_to(&[3], &now).bytes, [1, 10, 3, 30, 4, 4]);
        assert_eq!(before.merged_up_to(&[1], &now).bytes, [1, 10, 2, 2, 4, 4]);
    }
}
