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
        let old = self.old.elems()?;
        let mut entry = Entry::of(&old, &self.new);
        let mut tries = 0;
        for key in old.keys() {
            if !self.convert(&old, &key?, &mut entry)? {
                continue;
            }
            while let Err(error) = self.put(&entry) {
                tries += 1;
                // What is gone by now makes room.
                if !is_full(&error) || tries == TRIES || !self.make_room(keys)? {
                    return Err(error);
                }
            }
            keys.extend_from_slice(self.as_compared(&mut entry.new_key));
        }
        Ok(())
    }

    fn put(&self, entry: &Entry) -> Result<()> {
        let (key, value) = (&entry.new_key, &entry.new_value);
        self.new.update(key, value, ElemFlags::ANY)
    }

    /// False where it is left out, or gone.
    fn convert(&mut self, old: &Elems<&Map>, key: &[u8], entry: &mut Entry) -> Result<bool> {
        if !old.lookup(key, &mut entry.value)? {
            return Ok(false);
        }
        entry.new_key.fill(0);
        entry.new_value.fill(0);
        let (new_key, new_value) = (&mut entry.new_key, &mut entry.new_value);
        Ok((self.migrate.convert)(
            key,
            &entry.value,
            new_key,
            new_value,
        ))
    }

    /// Takes out what is gone since it was copied; whether there was any.
    #[cold]
    fn make_room(&mut self, keys: &[u8]) -> Result<bool> {
        let now = self.settled(Self::look)?;
        let count = self.take_out(&self.keys, &now)? + self.take_out(keys, &now)?;
        Ok(count > 0)
    }

    /// The keys that a pass would put into the new map.
    fn look(&mut self, keys: &mut Vec<u8>) -> Result<()> {
        let old = self.old.elems()?;
        let mut entry = Entry::of(&old, &self.new);
        for key in old.keys() {
            if self.convert(&old, &key?, &mut entry)? {
                keys.extend_from_slice(self.as_compared(&mut entry.new_key));
            }
        }
        Ok(())
    }

    /// Takes those keys out of the new map that are not among those there are now; how many.
    fn take_out(&self, keys: &[u8], now: &[u8]) -> Result<usize> {
        let key_len = self.new.key_len();
        let mut now: Vec<&[u8]> = now.chunks_exact(key_len).collect();
        now.sort_unstable();
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

    fn as_compared<'k>(&self, key: &'k mut [u8]) -> &'k [u8] {
        if self.is_trie {
            clear_rest(key);
        }
        key
    }
}

/// How often what others change meanwhile is done again.
const TRIES: usize = 16;

/// Room for what one entry is and becomes.
struct Entry {
    value: Vec<u8>,
    new_key: Vec<u8>,
    new_value: Vec<u8>,
}

impl Entry {
    fn of(old: &Elems<&Map>, new: &Elems<&Map>) -> Self {
        Self {
            value: vec![0; old.value_len()],
            new_key: vec![0; new.key_len()],
            new_value: vec![0; new.value_len()],
        }
    }
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
