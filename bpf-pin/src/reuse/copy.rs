//! The entries of one map, put into another.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::error::{Cause, Error, Operation, Result};
use crate::map::{ElemFlags, Elements, Map};
use crate::types::MapType;

use super::Migrate;

/// From one map to another, twice.
pub(super) struct Copy<'a, 'f> {
    old: &'a Map,
    new: Elements<[u8], [u8], &'a Map>,
    migrate: &'a mut Migrate<'f>,
    /// An array's elements can be zeroed and not deleted.
    is_array: bool,
    is_trie: bool,
    /// Those that were put into the new map before the last pass, one after the other.
    keys: Vec<u8>,
    /// What the new map was filled with, by its key: an entry that takes its place may go again.
    filled: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What the last pass has read of the old map.
    copied: Entries,
}

/// The entries of a map, one after the other.
#[derive(Default)]
pub(super) struct Entries {
    key_len: usize,
    bytes: Vec<u8>,
    /// Of one entry.
    len: usize,
}

impl Entries {
    fn of(key_len: usize, value_len: usize) -> Self {
        Self {
            key_len,
            bytes: vec![],
            len: key_len + value_len,
        }
    }

    /// What is in the map now. A walk that comes to no end is begun again.
    pub(super) fn read(map: &Map) -> Result<Self> {
        let elems = map.elements::<[u8], [u8]>()?;
        let mut tries = 0;
        'again: loop {
            tries += 1;
            let mut entries = Self::of(elems.key_len(), elems.value_len());
            let mut all = elems.iter();
            while let Some(entry) = all.next_ref() {
                match entry {
                    Ok((key, value)) => entries.push(key, value),
                    Err(error) if is_aborted(&error) && tries < TRIES => continue 'again,
                    Err(error) => return Err(error),
                }
            }
            return Ok(entries);
        }
    }

    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
    }

    /// Keys and values, in the order of the keys.
    fn sorted(&self) -> Vec<(&[u8], &[u8])> {
        let entries = self.bytes.chunks_exact(self.len.max(1));
        let mut entries: Vec<_> = entries.map(|entry| entry.split_at(self.key_len)).collect();
        entries.sort_unstable();
        entries.dedup_by_key(|(key, _)| *key);
        entries
    }

    /// Calls `each` with the key and both values of what differs.
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
            match (old, new) {
                (Some(old), Some(new)) if old == new => {}
                _ => {
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
}

/// New keys and values that are put in at once.
#[derive(Default)]
struct Chunk {
    keys: Vec<u8>,
    values: Vec<u8>,
}

/// So many bytes of values are put in at once.
const CHUNK: usize = 256 << 10;

/// How often what others change meanwhile is done again.
const TRIES: usize = 16;

impl<'a, 'f> Copy<'a, 'f> {
    pub(super) fn new(old: &'a Map, new: &'a Map, migrate: &'a mut Migrate<'f>) -> Result<Self> {
        let refuse = |cause: Cause| Error::new(Operation::Elements, cause);
        let (old_type, new_type) = (old.info()?.map_type, new.info()?.map_type);
        for map_type in [old_type, new_type] {
            if !has_plain_entries(map_type) {
                return Err(refuse(Cause::unsupported_map(map_type, "cannot be copied")));
            }
        }
        let new = new.elements()?;
        if let Some(sizes) = migrate.sizes {
            let elems = old.elements::<[u8], [u8]>()?;
            let is_per_cpu = elems.is_per_cpu() || new.is_per_cpu();
            if is_per_cpu {
                return Err(refuse(Cause::PerCpu { is_per_cpu }));
            }
            let of_maps = [
                ("key", elems.key_len()),
                ("value", elems.value_len()),
                ("new key", new.key_len()),
                ("new value", new.value_len()),
            ];
            for ((what, expected), found) in of_maps.into_iter().zip(sizes) {
                if expected != found {
                    return Err(refuse(Cause::Size {
                        what,
                        expected,
                        found,
                    }));
                }
            }
        }
        let is_array = matches!(new_type, MapType::ARRAY | MapType::PERCPU_ARRAY);
        Ok(Self {
            old,
            new,
            migrate,
            is_array,
            is_trie: new_type == MapType::LPM_TRIE,
            keys: vec![],
            filled: BTreeMap::new(),
            copied: Entries::default(),
        })
    }

    /// Remembers what is in the new map before anything is copied.
    pub(super) fn remember_filled(&mut self) -> Result<()> {
        let mut all = self.new.iter();
        while let Some(entry) = all.next_ref() {
            let (key, value) = match entry {
                Ok(entry) => entry,
                // It is not to be read, so nothing of it comes back.
                Err(error) if matches!(error.cause(), Some(Cause::MapAccess { .. })) => break,
                Err(error) => return Err(error),
            };
            // What an array has of itself.
            if self.is_array && value.iter().all(|byte| *byte == 0) {
                continue;
            }
            let mut key = key.to_vec();
            self.compare_by(&mut key);
            self.filled.insert(key, value.to_vec());
        }
        Ok(())
    }

    /// All entries.
    pub(super) fn first(&mut self) -> Result<()> {
        let keys = self.pass()?;
        self.keys.extend(keys);
        Ok(())
    }

    /// All entries as they are now, and without those that are gone since the first time. What was read.
    pub(super) fn second(mut self) -> Result<Entries> {
        let keys = self.pass()?;
        self.take_out(&self.keys, &self.sorted(&keys))?;
        Ok(self.copied)
    }

    /// Puts all entries into the new map; their keys, as they are compared. A walk that comes to no
    /// end is begun anew.
    fn pass(&mut self) -> Result<Vec<u8>> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut keys = vec![];
            match self.walk(&mut keys) {
                Ok(()) => return Ok(keys),
                Err(error) if is_aborted(&error) && tries < TRIES => self.keys.extend(keys),
                Err(error) => return Err(error),
            }
        }
    }

    fn walk(&mut self, keys: &mut Vec<u8>) -> Result<()> {
        let old = self.old.elements::<[u8], [u8]>()?;
        let value_len = self.new.value_len();
        let mut chunk = Chunk::default();
        self.copied = Entries::of(old.key_len(), old.value_len());
        let mut all = old.iter();
        while let Some(entry) = all.next_ref() {
            let (key, value) = entry?;
            self.copied.push(key, value);
            self.convert(key, value, &mut chunk);
            if chunk.values.len() + value_len > CHUNK {
                self.put(&mut chunk, keys)?;
            }
        }
        self.put(&mut chunk, keys)
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

    /// Leaves the chunk empty, its keys with those that were put before.
    fn put(&mut self, chunk: &mut Chunk, keys: &mut Vec<u8>) -> Result<()> {
        let mut tries = 0;
        loop {
            let any = ElemFlags::ANY;
            let Err(error) = self.new.update_batch(&chunk.keys, &chunk.values, any) else {
                break;
            };
            tries += 1;
            // What is gone by now makes room.
            if !is_full(&error) || tries == TRIES || !self.make_room(chunk, keys)? {
                return Err(error);
            }
        }
        self.compare_by(&mut chunk.keys);
        keys.append(&mut chunk.keys);
        chunk.values.clear();
        Ok(())
    }

    /// Takes out what is gone since it was read, of the chunk, too; whether there was any.
    #[cold]
    fn make_room(&mut self, chunk: &mut Chunk, keys: &[u8]) -> Result<bool> {
        let now = self.look()?;
        let now = self.sorted(&now);
        let mut count = self.take_out(&self.keys, &now)? + self.take_out(keys, &now)?;
        let all = std::mem::take(chunk);
        let values = all.values.chunks_exact(self.new.value_len());
        for (key, value) in all.keys.chunks_exact(self.new.key_len()).zip(values) {
            let mut compared = key.to_vec();
            self.compare_by(&mut compared);
            if now.binary_search(&&*compared).is_ok() {
                chunk.keys.extend_from_slice(key);
                chunk.values.extend_from_slice(value);
            } else {
                count += 1;
                if !self.is_array {
                    self.take_out_one(&compared)?;
                }
            }
        }
        Ok(count > 0)
    }

    /// The keys that a pass would put into the new map.
    fn look(&mut self) -> Result<Vec<u8>> {
        let old = self.old.elements::<[u8], [u8]>()?;
        let mut tries = 0;
        'anew: loop {
            tries += 1;
            let mut all = old.iter();
            let mut chunk = Chunk::default();
            while let Some(entry) = all.next_ref() {
                match entry {
                    Ok((key, value)) => self.convert(key, value, &mut chunk),
                    Err(error) if is_aborted(&error) && tries < TRIES => continue 'anew,
                    Err(error) => return Err(error),
                }
                chunk.values.clear();
            }
            self.compare_by(&mut chunk.keys);
            return Ok(chunk.keys);
        }
    }

    /// Takes those keys out of the new map that are not among those there are now; how many.
    fn take_out(&self, keys: &[u8], now: &[&[u8]]) -> Result<usize> {
        let mut count = 0;
        for key in keys.chunks_exact(self.new.key_len()) {
            if now.binary_search(&key).is_err() {
                count += usize::from(self.take_out_one(key)?);
            }
        }
        Ok(count)
    }

    /// Leaves under a key what the map was filled with; whether that makes room.
    fn take_out_one(&self, key: &[u8]) -> Result<bool> {
        let put = |value: &[u8]| self.new.update(key, value, ElemFlags::ANY).map(|()| false);
        match self.filled.get(key) {
            Some(value) => put(value),
            None if self.is_array => put(&vec![0; self.new.value_len()]),
            None => self.new.delete(key),
        }
    }

    fn sorted<'k>(&self, keys: &'k [u8]) -> Vec<&'k [u8]> {
        let mut keys: Vec<_> = keys.chunks_exact(self.new.key_len()).collect();
        keys.sort_unstable();
        keys
    }

    /// Leaves of the keys what the kernel compares them by.
    fn compare_by(&self, keys: &mut [u8]) {
        if self.is_trie {
            keys.chunks_exact_mut(self.new.key_len())
                .for_each(clear_rest);
        }
    }
}

fn is_aborted(error: &Error) -> bool {
    matches!(error.cause(), Some(Cause::IterationAborted))
}

fn is_full(error: &Error) -> bool {
    matches!(
        error.cause(),
        Some(Cause::MaxEntries { .. } | Cause::IndexOutOfRange { .. })
    )
}

/// Of a trie's key as many bits count as it says: keys that differ in others are the same.
fn clear_rest(key: &mut [u8]) {
    let Some((bits, address)) = key.split_first_chunk_mut() else {
        return;
    };
    let bits = u32::from_ne_bytes(*bits) as usize;
    for (at, byte) in address.iter_mut().enumerate() {
        let counted = bits.saturating_sub(8 * at).min(8);
        *byte &= (0xff00_u32 >> counted) as u8;
    }
}

/// Those whose values are no more than what is read.
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
    use super::clear_rest;

    #[test]
    fn bits_that_count() {
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
            clear_rest(&mut key);
            assert_eq!(key[4..], expected, "/{bits}");
        }
        clear_rest(&mut [1, 2]);
    }
}
