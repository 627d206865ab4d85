//! `BPF_MAP_*_BATCH`: many elements in one call.

use std::mem::size_of;

use bytemuck::{cast_slice, cast_slice_mut};
use rustix::io::Errno;

use crate::cause::Cause;
use crate::error::{Error, Operation, Reason, Result};
use crate::map::cursor::{At, Cursor};
use crate::map::refused::Needs;
use crate::map::{ElemFlags, Elems};
use crate::sys::{AsMap, Room};
use crate::types::{Command, MapType};

/// The most elements that are put in, or deleted, in one call: the kernel works them off without a
/// look at signals.
const MOST: usize = 1 << 16;

impl<M: AsMap> Elems<M> {
    /// `BPF_MAP_LOOKUP_BATCH`: copies the elements from where `cursor` is, as many as there is room
    /// for, and says how many; where the type or the kernel has no batches, one by one. Linux 5.6.
    ///
    /// `keys` and `values` have room for one element after the other. There is no more to come when
    /// the cursor is at its [end](Cursor::is_end), not when there were few.
    ///
    /// A hash gives a bucket's elements at once, so what stays comes once, whatever else is put in or
    /// deleted meanwhile. Other types go on from the last key, and may begin anew if that was deleted:
    /// after as many keys as the map has room for it ends with [`Unsettled`](Cause::Unsettled). Of a
    /// trie the kernel looks a key's value up by its longest prefix: if the key is deleted between
    /// the two, it comes with the value of a shorter prefix.
    ///
    /// A value is copied while programs write to it, so what they change in place, as in an array,
    /// may come half old and half new; with [`ElemFlags::LOCK`], of values that have a
    /// `bpf_spin_lock`, it comes whole. The lock itself comes as zeroes in either case, as do timers,
    /// kptrs and whatever else the kernel keeps for itself in a value.
    ///
    /// # Errors
    ///
    /// [`Operation::LookupBatch`](crate::Operation::LookupBatch): [`Size`](Cause::Size) or [`Uneven`](Cause::Uneven) for slices that are not
    /// for whole elements, or not for as many; [`LargerBucket`](Cause::LargerBucket) (ENOSPC) where
    /// there is too little room, and the cursor stays; [`MapAccess`](Cause::MapAccess) (EPERM); EINVAL
    /// for a flag that the map does not take, which is any but [`ElemFlags::LOCK`]. One by one:
    /// [`Operation::NextKey`](crate::Operation::NextKey) and [`Operation::Lookup`](crate::Operation::Lookup), of a queue, stack or bloom filter with
    /// [`NoCommand`](Cause::NoCommand), for they have no keys.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{Cursor, ElemFlags, Map};
    ///
    /// let map = Map::open("/sys/fs/bpf/flows")?;
    /// let flows = map.typed::<u32, u64>()?;
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
        keys: &mut [u8],
        values: &mut [u8],
        flags: ElemFlags,
    ) -> Result<usize> {
        self.read_batch(false, cursor, keys, values, flags)
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_BATCH`: as [`lookup_batch`](Self::lookup_batch), and takes the
    /// elements out. Of hashes; of a queue or stack one by one. Linux 5.6.
    ///
    /// What was taken out before something failed is given out first, so nothing is lost.
    ///
    /// # Errors
    ///
    /// As [`lookup_batch`](Self::lookup_batch), and as [`lookup_and_delete`](Self::lookup_and_delete)
    /// for a type that has no batches.
    pub fn lookup_and_delete_batch(
        &self,
        cursor: &mut Cursor,
        keys: &mut [u8],
        values: &mut [u8],
        flags: ElemFlags,
    ) -> Result<usize> {
        self.read_batch(true, cursor, keys, values, flags)
    }

    /// For as many elements as these are the bytes of.
    pub(crate) fn read_batch(
        &self,
        takes: bool,
        cursor: &mut Cursor,
        keys: &mut [u8],
        values: &mut [u8],
        flags: ElemFlags,
    ) -> Result<usize> {
        match self.pairs(keys.len(), values.len()) {
            Ok(0) => Ok(0),
            Ok(count) => {
                let room = Room {
                    keys,
                    values,
                    count,
                };
                self.read(takes, cursor, room, flags)
            }
            Err(cause) => Err(Error::new(Operation::batch(reading(takes)), cause)),
        }
    }

    /// The room is for one element at least.
    pub(crate) fn read(
        &self,
        takes: bool,
        cursor: &mut Cursor,
        room: Room<'_>,
        flags: ElemFlags,
    ) -> Result<usize> {
        let command = reading(takes);
        let fail = |reason| Error::new(Operation::batch(command), reason);
        let Room {
            keys,
            values,
            count: room,
        } = room;
        if cursor.is_end() {
            return Ok(0);
        }
        // What the kernel can count.
        let room = room.min(u32::MAX as usize);
        let (cells, key_len) = (self.cells(), self.key_len());
        while !cursor.one_by_one && !self.lacking().contains(command) {
            let room_for = Room {
                keys: &mut keys[..room * key_len],
                values: &mut values[..room * self.value_len()],
                count: room,
            };
            let has_begun = cursor.at == At::After;
            let words = cursor.words(key_len);
            let before = words[0];
            let done = cells.read_batch(takes, words, has_begun, room_for, flags.bits());
            match done.result {
                Err(Errno::NOENT) => cursor.at = At::End,
                Err(_) if done.count > 0 => cursor.at = At::After,
                Ok(()) => cursor.at = At::After,
                // The key to go on from was deleted. Linux 7.2, of a hash that grows.
                Err(Errno::AGAIN) if has_begun && !self.has_buckets() => {
                    cursor.at = At::Start;
                    continue;
                }
                // There is a key without a value, which some kernels do not get past.
                Err(Errno::INTR) if !takes && !self.has_buckets() => {
                    cursor.one_by_one = true;
                    continue;
                }
                Err(Errno::NOSPC) if self.has_buckets() => {
                    let cause = Some(Cause::LargerBucket { room });
                    return Err(fail(Reason::new(Errno::NOSPC, cause)));
                }
                Err(errno) if self.lacking().learn(command, errno) => break,
                Err(errno) => {
                    let needs = if takes { Needs::BOTH } else { Needs::READ };
                    let reason = self.reason(errno, needs);
                    return Err(fail(reason.explained(|errno| self.no_lock(errno, flags))));
                }
            }
            if !takes && !self.has_buckets() {
                cursor.count(cells.max_entries(), done.count)?;
            } else if !takes && has_begun && !cursor.is_end() && cursor.words(key_len)[0] == before
            {
                // Buckets are counted upwards, by the kernel.
                return Err(fail(Cause::Unsettled.into()));
            }
            return Ok(done.count);
        }
        match takes {
            false => self.lookup_each(cursor, keys, values, room, flags),
            true => self.take_each(cursor, keys, values, room, flags),
        }
    }

    /// One key ahead of what is given out, so that this may be deleted.
    fn lookup_each(
        &self,
        cursor: &mut Cursor,
        keys: &mut [u8],
        values: &mut [u8],
        room: usize,
        flags: ElemFlags,
    ) -> Result<usize> {
        let (key_len, value_len) = (self.key_len(), self.value_len());
        let mut count = 0;
        cursor.one_by_one = true;
        while count < room && !cursor.is_end() {
            let key = &mut keys[count * key_len..][..key_len];
            let value = &mut values[count * value_len..][..value_len];
            let step = self.step(cursor, key, value, flags);
            match step {
                Ok(found) => count += usize::from(found),
                // What was found is given out, and this comes again.
                Err(_) if count > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// Moves the cursor beyond the next key, unless that fails.
    fn step(
        &self,
        cursor: &mut Cursor,
        key: &mut [u8],
        value: &mut [u8],
        flags: ElemFlags,
    ) -> Result<bool> {
        let key_len = key.len();
        let is_there = match cursor.at {
            At::Start => self.next_key(None, key)?,
            At::After => self.next_key(Some(cursor.key(key_len)), key)?,
            At::Before => {
                key.copy_from_slice(cursor.key(key_len));
                true
            }
            At::End => false,
        };
        if !is_there {
            cursor.at = At::End;
            return Ok(false);
        }
        let max_entries = self.cells().max_entries();
        let left = cursor.left;
        cursor.count(max_entries, 1)?;
        let step = self.lookup_with(key, value, flags).and_then(|found| {
            let more = self.next_key(Some(key), cursor.key(key_len))?;
            Ok((found, more))
        });
        match step {
            Ok((found, more)) => {
                cursor.at = if more { At::Before } else { At::End };
                Ok(found)
            }
            Err(error) => {
                cursor.key(key_len).copy_from_slice(key);
                (cursor.at, cursor.left) = (At::Before, left);
                Err(error)
            }
        }
    }

    /// Always the first: what was before it is gone.
    fn take_each(
        &self,
        cursor: &mut Cursor,
        keys: &mut [u8],
        values: &mut [u8],
        room: usize,
        flags: ElemFlags,
    ) -> Result<usize> {
        let (key_len, value_len) = (self.key_len(), self.value_len());
        let mut count = 0;
        while count < room {
            let key = &mut keys[count * key_len..][..key_len];
            let value = &mut values[count * value_len..][..value_len];
            let took = match key_len {
                0 => Ok(true),
                _ => self.next_key(None, key),
            };
            let took = took.and_then(|is_there| match is_there {
                true => self.lookup_and_delete_with(key, value, flags).map(Some),
                false => Ok(None),
            });
            match took {
                Ok(Some(true)) => count += 1,
                // Somebody else was faster.
                Ok(Some(false)) if key_len > 0 => {}
                Ok(_) => {
                    cursor.finish();
                    break;
                }
                Err(_) if count > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// `BPF_MAP_UPDATE_BATCH`: puts each of the values under its key, in their order; where the type
    /// or the kernel has no batches, or does not take the flags for one, one by one. Linux 5.6.
    ///
    /// # Errors
    ///
    /// [`Operation::UpdateBatch`](crate::Operation::UpdateBatch), which says how many were done before: [`Size`](Cause::Size) or
    /// [`Uneven`](Cause::Uneven) for slices that are not of whole elements, or not of as many, before
    /// any; and as [`update`](Self::update) for the one that comes next.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use bpf_pin::{ElemFlags, Error, Map};
    ///
    /// let flows = Map::open("/sys/fs/bpf/flows")?;
    /// let (keys, values): (Vec<u32>, Vec<u64>) = (0..10_000).map(|key| (key, 0)).unzip();
    /// match flows.typed()?.update_batch(&keys, &values, ElemFlags::ANY) {
    ///     // All from this one on are still to be put in.
    ///     Err(error) => println!("{error}: {:?}", keys[error.elements_done()]),
    ///     other => other?,
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    pub fn update_batch(&self, keys: &[u8], values: &[u8], flags: ElemFlags) -> Result<()> {
        let command = Command::MAP_UPDATE_BATCH;
        let fail =
            |done, reason| Error::new(Operation::batch(command), reason).after_elements(done);
        let all = self.pairs(keys.len(), values.len());
        let all = all.map_err(|cause| fail(0, cause.into()))?;
        self.make_writable().map_err(|reason| fail(0, reason))?;
        let (cells, key_len, value_len) = (self.cells(), self.key_len(), self.value_len());
        let keys_of = |from, count| &keys[from * key_len..][..count * key_len];
        let values_of = |from, count| &values[from * value_len..][..count * value_len];
        let mut done = 0;
        let are_for_one = flags.intersects(ElemFlags::NOEXIST | ElemFlags::EXIST);
        while done < all && !are_for_one && !self.lacking().contains(command) {
            let count = MOST.min(all - done);
            let (keys, values) = (keys_of(done, count), values_of(done, count));
            let step = cells.update_batch(keys, values, count, flags.bits());
            done += step.count;
            match step.result {
                Ok(()) => {}
                Err(errno) if step.count == 0 && self.lacking().learn(command, errno) => {}
                Err(errno) => {
                    // It names how many it has done where it tried that many.
                    let key = keys_of(done, usize::from(done < all));
                    return Err(fail(done, self.update_reason(errno, key, flags)));
                }
            }
        }
        for at in done..all {
            let put = self.put(keys_of(at, 1), values_of(at, 1), flags);
            put.map_err(|reason| fail(at, reason))?;
        }
        Ok(())
    }

    /// `BPF_MAP_DELETE_BATCH`: removes the elements under these keys and says how many there were; a
    /// key that is not there is passed over, for one call more. Where the type or the kernel has no
    /// batches, one by one. Linux 5.6.
    ///
    /// # Errors
    ///
    /// [`Operation::DeleteBatch`](crate::Operation::DeleteBatch), which says how far it came: each of so many keys was removed, or was not
    /// there, and it is the next one that failed. [`Size`](Cause::Size) for a slice that is not of
    /// whole keys, before any; and as [`delete`](Self::delete).
    pub fn delete_batch(&self, keys: &[u8]) -> Result<usize> {
        let command = Command::MAP_DELETE_BATCH;
        let mut gone = 0;
        let fail =
            |done, reason| Error::new(Operation::batch(command), reason).after_elements(done);
        let all = whole("key", self.key_len(), keys.len());
        let all = all.map_err(|cause| fail(0, cause.into()))?;
        let (cells, key_len) = (self.cells(), self.key_len());
        let keys_of = |from, count| &keys[from * key_len..][..count * key_len];
        let mut at = 0;
        while at < all && !self.lacking().contains(command) {
            let count = MOST.min(all - at);
            let step = cells.delete_batch(keys_of(at, count), count);
            at += step.count;
            gone += step.count;
            match step.result {
                Ok(()) => {}
                Err(Errno::NOENT) => at += 1,
                Err(errno) if step.count == 0 && self.lacking().learn(command, errno) => {}
                Err(errno) => {
                    let key = keys_of(at, usize::from(at < all));
                    return Err(fail(at, self.delete_reason(errno, key)));
                }
            }
        }
        for at in at..all {
            let removed = self.remove(keys_of(at, 1));
            gone += usize::from(removed.map_err(|reason| fail(at, reason))?);
        }
        Ok(gone)
    }

    /// Whether the map is a hash that is read bucket by bucket.
    pub(crate) fn has_buckets(&self) -> bool {
        matches!(
            MapType(self.cells().map_type()),
            MapType::HASH
                | MapType::PERCPU_HASH
                | MapType::LRU_HASH
                | MapType::LRU_PERCPU_HASH
                | MapType::HASH_OF_MAPS
        )
    }

    /// How many elements these are the bytes of.
    fn pairs(&self, keys_len: usize, values_len: usize) -> Result<usize, Cause> {
        let keys = whole("key", self.key_len(), keys_len)?;
        let values = whole("value", self.value_len(), values_len)?;
        match (self.key_len(), self.value_len()) {
            (0, _) => Ok(values),
            (_, 0) => Ok(keys),
            _ if keys == values => Ok(keys),
            _ => Err(Cause::Uneven { keys, values }),
        }
    }
}

fn reading(takes: bool) -> Command {
    match takes {
        false => Command::MAP_LOOKUP_BATCH,
        true => Command::MAP_LOOKUP_AND_DELETE_BATCH,
    }
}

/// How many things of a length there are in so many bytes. What is left of the last is named.
fn whole(what: &'static str, length: usize, bytes: usize) -> Result<usize, Cause> {
    let rest = bytes.checked_rem(length).unwrap_or(bytes);
    if rest != 0 {
        return Err(Cause::Size {
            what,
            expected: length,
            found: rest,
        });
    }
    Ok(bytes.checked_div(length).unwrap_or(0))
}

/// The bytes of plain old data, of which there are none where it has no size.
pub(crate) fn bytes_of_all<T: bytemuck::Pod>(all: &[T]) -> &[u8] {
    match size_of::<T>() {
        0 => &[],
        _ => cast_slice(all),
    }
}

pub(crate) fn bytes_of_all_mut<T: bytemuck::Pod>(all: &mut [T]) -> &mut [u8] {
    match size_of::<T>() {
        0 => &mut [],
        _ => cast_slice_mut(all),
    }
}
