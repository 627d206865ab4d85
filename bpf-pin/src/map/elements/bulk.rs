//! Commands on many elements: iterators and batches.

use crate::error::Result;
#[cfg(doc)]
use crate::error::{Cause, Operation};
use crate::sys::AsMap;

#[cfg(doc)]
use super::PerCpu;
use super::batch::Change;
use super::iter::read_all;
use super::layout::{bytes_of_all, bytes_of_all_mut, read_units, unpad, write_units};
use super::{Cursor, ElemFlags, Elements, Iter, Key, Keys, Layout, Plain, Readable};

impl<K: Key + ?Sized, V: Layout + ?Sized, M: AsMap> Elements<K, V, M> {
    /// Iterates over all keys, with one call per key. Linux 4.12.
    ///
    /// The iterator reads one key ahead, so the key that it has just yielded may be deleted.
    ///
    /// # Races
    ///
    /// If another process deletes the key that was read ahead, a hash restarts and keys are repeated. After
    /// as many keys as the map has room for, the iterator ends with
    /// [`IterationAborted`](Cause::IterationAborted).
    ///
    /// A resizable hash moves its keys to a larger table in the background, and keys that move during the
    /// iteration are repeated. The iterator ends in the same way after twice as many keys as there is room for.
    ///
    /// A trie may return the value of another key for a yielded key: if that key was deleted in between, a
    /// lookup returns the value of its longest remaining prefix.
    ///
    /// # Errors
    ///
    /// The iterator yields an error and ends: [`Operation::NextKey`] as [`next_key`](Self::next_key), or with
    /// [`IterationAborted`](Cause::IterationAborted).
    pub fn keys(&self) -> Keys<'_, K, M> {
        Keys::new(&self.raw)
    }

    /// `BPF_MAP_DELETE_BATCH`: removes the elements under these keys. Returns how many existed. Linux 5.6.
    ///
    /// A key that does not exist is skipped, for one more call. If the type or the kernel has no batches,
    /// each key takes one call.
    ///
    /// # Errors
    ///
    /// [`Operation::DeleteBatch`], as [`delete`](Self::delete). The error reports the number of keys before
    /// the one that failed: each of these was removed or did not exist. [`Size`](Cause::Size) if the slice
    /// does not hold whole keys, before any change.
    pub fn delete_batch(&self, keys: &[K::Unit]) -> Result<usize> {
        self.raw.change(bytes_of_all(keys), Change::Delete)
    }
}

impl<K: Key + ?Sized, V: Readable + ?Sized, M: AsMap> Elements<K, V, M> {
    /// `BPF_MAP_LOOKUP_BATCH`: copies elements from the position of `cursor`, as many as fit. Returns their
    /// number. Linux 5.6; for arrays of per-CPU values 5.13.
    ///
    /// `keys` and `values` hold one element after the other. With [`PerCpu`], `values` holds all values of
    /// one key, then those of the next. All elements were read when the cursor is at its
    /// [end](Cursor::is_end); a short batch is not the end. If the type or the kernel has no batches, each
    /// element is read on its own.
    ///
    /// # Races
    ///
    /// A hash returns whole buckets, so an element that stays is returned exactly once, whatever else is
    /// inserted or deleted in between. Other types continue from the last key, and may restart if that key
    /// was deleted. After as many keys as the map has room for, the call fails with
    /// [`IterationAborted`](Cause::IterationAborted).
    ///
    /// A trie may return the value of another key: the kernel looks up the value by its longest prefix, and
    /// returns that of a shorter prefix if the key is deleted in between.
    ///
    /// A value is copied while programs write to it. A value that they change in place, as in an array, may
    /// be half old and half new. With [`ElemFlags::LOCK`], for values with a `bpf_spin_lock`, it is copied as
    /// a whole. Locks, timers, kptrs and other fields that belong to the kernel are returned as zeroes.
    ///
    /// # Errors
    ///
    /// [`Operation::LookupBatch`]:
    /// - [`Size`](Cause::Size) if a slice does not hold whole elements
    /// - [`LengthMismatch`](Cause::LengthMismatch) if the slices hold different numbers of elements
    /// - [`BufferTooSmall`](Cause::BufferTooSmall) (ENOSPC) if the slices are too short for a bucket; the
    ///   cursor stays
    /// - [`MapAccess`](Cause::MapAccess) (EPERM)
    /// - [`IterationAborted`](Cause::IterationAborted), see above
    /// - EINVAL for a flag other than [`ElemFlags::LOCK`]
    ///
    /// Without batches: [`Operation::NextKey`] and [`Operation::Lookup`]. A queue, stack or bloom filter has
    /// no keys and fails with [`NoCommand`](Cause::NoCommand).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::map::{Cursor, ElemFlags};
    /// use bpf_pin::Map;
    ///
    /// let map = Map::open("/sys/fs/bpf/flows")?;
    /// let flows = map.elements::<u32, u64>()?;
    /// let (mut keys, mut values, mut cursor) = ([0; 256], [0; 256], Cursor::new());
    /// while !cursor.is_end() {
    ///     let count = flows.lookup_batch(&mut cursor, &mut keys, &mut values, ElemFlags::ANY)?;
    ///     println!("{:?}", &keys[..count]);
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn lookup_batch(
        &self,
        cursor: &mut Cursor,
        keys: &mut [K::Unit],
        values: &mut [V::Unit],
        flags: ElemFlags,
    ) -> Result<usize> {
        self.read_batch(false, cursor, keys, values, flags)
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_BATCH`: as [`lookup_batch`](Self::lookup_batch), and removes the elements.
    /// Linux 5.6.
    ///
    /// For hashes. A queue or stack takes one call per element. Elements removed before a failure are
    /// returned first, and the next call reports the failure.
    ///
    /// # Errors
    ///
    /// As [`lookup_batch`](Self::lookup_batch), and as [`take`](Self::take) for a type without batches.
    pub fn take_batch(
        &self,
        cursor: &mut Cursor,
        keys: &mut [K::Unit],
        values: &mut [V::Unit],
        flags: ElemFlags,
    ) -> Result<usize> {
        self.read_batch(true, cursor, keys, values, flags)
    }

    fn read_batch(
        &self,
        takes: bool,
        cursor: &mut Cursor,
        keys: &mut [K::Unit],
        values: &mut [V::Unit],
        flags: ElemFlags,
    ) -> Result<usize> {
        let keys = bytes_of_all_mut(keys);
        read_units::<V, _>(values, self.value_len(), |values| {
            self.raw.read_batch(takes, cursor, keys, values, flags)
        })
    }

    /// Iterates over all elements, read in batches into one buffer. An element is as it was when its batch
    /// was read.
    ///
    /// A yielded key may be deleted. Values with a spin lock or a timer are read without [`ElemFlags::LOCK`].
    /// For races see [`lookup_batch`](Self::lookup_batch): an element of a hash that stays is yielded exactly
    /// once, on a kernel with batches.
    ///
    /// # Errors
    ///
    /// Yielded after the elements that were read before it, as those of [`lookup_batch`](Self::lookup_batch).
    /// The buffer grows for a larger bucket.
    pub fn iter(&self) -> Iter<'_, K, V, M> {
        Iter::new(&self.raw, false)
    }

    /// Iterates over all elements and removes them: in batches from a hash, and from a queue or stack until
    /// it is empty.
    ///
    /// Dropping the iterator loses elements that were removed and not yet yielded.
    ///
    /// # Errors
    ///
    /// Yielded after the elements that were removed before it, as those of [`take_batch`](Self::take_batch).
    /// Other types fail with [`NoCommand`](Cause::NoCommand), and nothing is removed.
    pub fn drain(&self) -> Iter<'_, K, V, M> {
        Iter::new(&self.raw, true)
    }

    /// Returns all keys and all values; the value of a key has the same index.
    ///
    /// Contains what [`iter`](Self::iter) yields, with one allocation for keys and one for values, or a few
    /// for a large map. Keys and values are separate because the kernel writes them so, and
    /// [`update_batch`](Self::update_batch) takes them so.
    ///
    /// The layout `[u8]` returns their bytes one after the other. With [`PerCpu`], each key has as many
    /// values as there are CPUs, and one more allocation is made if the size of `T` is not a multiple of 8,
    /// to remove the padding.
    ///
    /// # Errors
    ///
    /// As [`lookup_batch`](Self::lookup_batch).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// let map = bpf_pin::Map::open("/sys/fs/bpf/flows")?;
    /// let (keys, values) = map.elements::<u32, u64>()?.to_vecs()?;
    /// for (key, value) in keys.iter().zip(&values) {
    ///     println!("{key}: {value}");
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    #[allow(clippy::type_complexity, reason = "two vectors")]
    pub fn to_vecs(&self) -> Result<(Vec<K::Unit>, Vec<V::Unit>)> {
        if !V::PADDED {
            return read_all(&self.raw);
        }
        let (keys, padded): (_, Vec<u8>) = read_all(&self.raw)?;
        Ok((keys, unpad::<V>(&padded)))
    }

    /// Removes all elements, in batches. Returns their number. Elements that another process inserts during
    /// the call may stay.
    ///
    /// # Errors
    ///
    /// As [`lookup_batch`](Self::lookup_batch) and [`delete_batch`](Self::delete_batch), which counts from
    /// the last batch that was read. [`NoCommand`](Cause::NoCommand) (EINVAL) for an array.
    pub fn clear(&self) -> Result<usize> {
        self.raw.clear()
    }
}

impl<K: Key + ?Sized, V: Plain + ?Sized, M: AsMap> Elements<K, V, M> {
    /// `BPF_MAP_UPDATE_BATCH`: sets the values under these keys, in order. Linux 5.6; for arrays of per-CPU
    /// values 5.13.
    ///
    /// With [`PerCpu`] each key has as many values as there are CPUs. If the type or the kernel has no
    /// batches, or does not support the flags in a batch, each element takes one call.
    ///
    /// # Errors
    ///
    /// [`Operation::UpdateBatch`], as [`update`](Self::update). The error reports the number of elements
    /// before the one that failed. [`Size`](Cause::Size) or [`LengthMismatch`](Cause::LengthMismatch) if the
    /// slices do not hold whole elements, or different numbers of them, before any change.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::map::ElemFlags;
    /// use bpf_pin::Map;
    ///
    /// let flows = Map::open("/sys/fs/bpf/flows")?;
    /// let (keys, values): (Vec<u32>, Vec<u64>) = (0..10_000).map(|key| (key, 0)).unzip();
    /// if let Err(error) = flows.elements::<u32, u64>()?.update_batch(&keys, &values, ElemFlags::ANY) {
    ///     // This element failed; those after it were not tried.
    ///     println!("{error}: {:?}", keys[error.elements_done()]);
    /// }
    /// # Ok::<(), bpf_pin::Error>(())
    /// ```
    pub fn update_batch(
        &self,
        keys: &[K::Unit],
        values: &[V::Unit],
        flags: ElemFlags,
    ) -> Result<()> {
        let keys = bytes_of_all(keys);
        write_units::<V, _>(values, |values| {
            self.raw
                .change(keys, Change::Update(values, flags))
                .map(drop)
        })
    }
}

impl<'a, K: Key + ?Sized, V: Readable + ?Sized, M: AsMap> IntoIterator for &'a Elements<K, V, M> {
    type Item = Result<(K::Owned, V::Owned)>;
    type IntoIter = Iter<'a, K, V, M>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
