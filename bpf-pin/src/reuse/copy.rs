//! The entries of one map, put into another.

use crate::cause::Cause;
use crate::error::{Error, Result};
use crate::map::{ElemFlags, Elems, Map};
use crate::types::MapType;

use super::Migrate;

/// From one map to another, twice.
pub(super) struct Copy<'a, 'f> {
    old: &'a Map,
    new: Elems<&'a Map>,
    migrate: &'a mut Migrate<'f>,
    /// An array's elements can be zeroed and not deleted.
    is_array: bool,
    is_trie: bool,
    /// Those that were put into the new map before the last pass, one after the other.
    keys: Vec<u8>,
}

impl<'a, 'f> Copy<'a, 'f> {
    pub(super) fn new(old: &'a Map, new: &'a Map, migrate: &'a mut Migrate<'f>) -> Result<Self> {
        let refuse = |cause: Cause| Error::Elements {
            reason: cause.into(),
        };
        let (old_type, new_type) = (old.info()?.map_type, new.info()?.map_type);
        for map_type in [old_type, new_type] {
            if !has_plain_entries(map_type) {
                return Err(refuse(Cause::NotCopied { map_type }));
            }
        }
        let new = new.elems()?;
        if let Some(sizes) = migrate.sizes {
            let elems = old.elems()?;
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
        })
    }

    /// All entries.
    pub(super) fn first(&mut self) -> Result<()> {
        let keys = self.settled(Self::pass)?;
        self.keys.extend(keys);
        Ok(())
    }

    /// All entries as they are now, and without those that are gone since the first time.
    pub(super) fn second(&mut self) -> Result<()> {
        let keys = self.settled(Self::pass)?;
        self.take_out(&self.keys, &keys).map(drop)
    }

    /// The new keys of a walk that has come to the end, one after the other.
    fn settled(&mut self, walk: fn(&mut Self, &mut Vec<u8>) -> Result<()>) -> Result<Vec<u8>> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut keys = vec![];
            match walk(self, &mut keys) {
                Ok(()) => return Ok(keys),
                Err(error) if is_unsettled(&error) && tries < TRIES => self.keys.extend(keys),
                Err(error) => return Err(error),
            }
        }
    }

    fn pass(&mut self, keys: &mut Vec<u8>) -> Result<()> {
        /// So many bytes of values are put in at once.
        const CHUNK: usize = 256 << 10;

        let mut chunk = Chunk {
            values: Vec::with_capacity(CHUNK),
            keys_at: 0,
            tries: 0,
        };
        self.each(keys, |this, keys, value| {
            chunk.values.extend_from_slice(value);
            if chunk.values.len() + value.len() > CHUNK {
                this.put(keys, &mut chunk)?;
            }
            Ok(())
        })?;
        self.put(keys, &mut chunk)
    }

    /// The keys that a pass would put into the new map.
    fn look(&mut self, keys: &mut Vec<u8>) -> Result<()> {
        self.each(keys, |_, _, _| Ok(()))
    }

    /// Collects the new key of each entry that is not left out, and calls `each` with them so far and
    /// its value.
    fn each(
        &mut self,
        keys: &mut Vec<u8>,
        mut each: impl FnMut(&mut Self, &mut Vec<u8>, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let old = self.old.elems()?;
        let key_len = self.new.key_len();
        let mut new_value = vec![0; self.new.value_len()];
        let mut all = old.iter();
        while let Some(entry) = all.next() {
            let (key, value) = entry?;
            let at = keys.len();
            keys.resize(at + key_len, 0);
            new_value.fill(0);
            if (self.migrate.convert)(key, value, &mut keys[at..], &mut new_value) {
                if self.is_trie {
                    clear_rest(&mut keys[at..]);
                }
                each(self, keys, &new_value)?;
            } else {
                keys.truncate(at);
            }
        }
        Ok(())
    }

    /// What of the chunk is not in yet, whose keys are the last ones.
    fn put(&mut self, keys: &mut Vec<u8>, chunk: &mut Chunk) -> Result<()> {
        let (key_len, value_len) = (self.new.key_len(), self.new.value_len());
        let mut values_at = 0;
        loop {
            let values = &chunk.values[values_at..];
            let put = self
                .new
                .update_batch(&keys[chunk.keys_at..], values, ElemFlags::ANY);
            let Err(error) = put else { break };
            let Error::Batch { done, .. } = error else {
                return Err(error);
            };
            chunk.keys_at += done * key_len;
            values_at += done * value_len;
            chunk.tries += 1;
            // What is gone by now makes room.
            if !is_full(&error)
                || chunk.tries == TRIES
                || !self.make_room(keys, chunk, &mut values_at)?
            {
                return Err(error);
            }
        }
        chunk.keys_at = keys.len();
        chunk.values.clear();
        Ok(())
    }

    /// Takes out what is gone since it was copied, or leaves it where it is to come; whether there
    /// was any.
    #[cold]
    fn make_room(
        &mut self,
        keys: &mut Vec<u8>,
        chunk: &mut Chunk,
        values_at: &mut usize,
    ) -> Result<bool> {
        let (key_len, value_len) = (self.new.key_len(), self.new.value_len());
        let now = self.settled(Self::look)?;
        let to_come = keys.split_off(chunk.keys_at);
        let mut count = self.take_out(&self.keys, &now)? + self.take_out(keys, &now)?;
        let sorted = sorted(&now, key_len);
        let mut values = vec![];
        let pairs = to_come
            .chunks_exact(key_len)
            .zip(chunk.values[*values_at..].chunks_exact(value_len));
        for (key, value) in pairs {
            if sorted.binary_search(&key).is_ok() {
                keys.extend_from_slice(key);
                values.extend_from_slice(value);
            } else {
                count += 1;
            }
        }
        (chunk.values, *values_at) = (values, 0);
        Ok(count > 0)
    }

    /// Takes those keys out of the new map that are not among those there are now; how many.
    fn take_out(&self, keys: &[u8], now: &[u8]) -> Result<usize> {
        let key_len = self.new.key_len();
        let now = sorted(now, key_len);
        let zeroes = vec![0; self.new.value_len()];
        let mut count = 0;
        for key in keys.chunks_exact(key_len) {
            match now.binary_search(&key) {
                Ok(_) => {}
                Err(_) if self.is_array => self.new.update(key, &zeroes, ElemFlags::ANY)?,
                Err(_) => count += usize::from(self.new.delete(key)?),
            }
        }
        Ok(count)
    }
}

/// How often what others change meanwhile is done again.
const TRIES: usize = 16;

/// What is put in at once.
struct Chunk {
    values: Vec<u8>,
    /// Where their keys begin.
    keys_at: usize,
    tries: usize,
}

fn sorted(keys: &[u8], key_len: usize) -> Vec<&[u8]> {
    let mut keys: Vec<&[u8]> = keys.chunks_exact(key_len).collect();
    keys.sort_unstable();
    keys
}

fn is_unsettled(error: &Error) -> bool {
    matches!(error.cause(), Some(Cause::Unsettled))
}

fn is_full(error: &Error) -> bool {
    matches!(error.cause(), Some(Cause::MaxEntries { .. }))
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
