//! The entries of one map, put into another.

use crate::cause::Cause;
use crate::error::{Error, Result};
use crate::map::{ElemFlags, Elems, Map};
use crate::types::MapType;

use super::Migrate;

/// From one map to another, twice.
pub(super) struct Copy<'a, 'f> {
    old: Elems<&'a Map>,
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
        let (old, new) = (old.elems()?, new.elems()?);
        if let Some(sizes) = migrate.sizes {
            let of_maps = [
                ("key", old.key_len()),
                ("value", old.value_len()),
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
        let keys = self.settled_pass()?;
        self.keys.extend(keys);
        Ok(())
    }

    /// All entries as they are now, and without those that are gone since the first time.
    pub(super) fn second(&mut self) -> Result<()> {
        let keys = self.settled_pass()?;
        let key_len = self.new.key_len();
        let mut now: Vec<&[u8]> = keys.chunks_exact(key_len).collect();
        now.sort_unstable();
        let zeroes = vec![0; self.new.value_len()];
        for key in self.keys.chunks_exact(key_len) {
            match now.binary_search(&key) {
                Ok(_) => {}
                Err(_) if self.is_array => self.new.update(key, &zeroes, ElemFlags::ANY)?,
                Err(_) => drop(self.new.delete(key)?),
            }
        }
        Ok(())
    }

    /// The new keys of a pass that has come to the end, one after the other.
    fn settled_pass(&mut self) -> Result<Vec<u8>> {
        const TRIES: usize = 16;

        for _ in 1..TRIES {
            let mut keys = vec![];
            match self.pass(&mut keys) {
                Ok(()) => return Ok(keys),
                Err(error) if matches!(error.cause(), Some(Cause::Unsettled)) => {
                    self.keys.extend(keys);
                }
                Err(error) => return Err(error),
            }
        }
        let mut keys = vec![];
        self.pass(&mut keys).map(|()| keys)
    }

    fn pass(&mut self, keys: &mut Vec<u8>) -> Result<()> {
        /// So many bytes of values are put in at once.
        const CHUNK: usize = 256 << 10;

        let (key_len, value_len) = (self.new.key_len(), self.new.value_len());
        let mut values = Vec::with_capacity(CHUNK);
        let mut put = 0;
        let mut all = self.old.iter();
        while let Some(entry) = all.next() {
            let (key, value) = entry?;
            let (key_at, value_at) = (keys.len(), values.len());
            keys.resize(key_at + key_len, 0);
            values.resize(value_at + value_len, 0);
            let (new_key, new_value) = (&mut keys[key_at..], &mut values[value_at..]);
            if !(self.migrate.convert)(key, value, new_key, new_value) {
                keys.truncate(key_at);
                values.truncate(value_at);
            }
            if values.len() + value_len > CHUNK {
                self.put(&mut keys[put..], &values)?;
                put = keys.len();
                values.clear();
            }
        }
        self.put(&mut keys[put..], &values)
    }

    fn put(&self, keys: &mut [u8], values: &[u8]) -> Result<()> {
        self.new.update_batch(keys, values, ElemFlags::ANY)?;
        if self.is_trie {
            keys.chunks_exact_mut(self.new.key_len())
                .for_each(clear_rest);
        }
        Ok(())
    }
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
