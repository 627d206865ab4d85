//! `BPF_MAP_*_BATCH`: many elements in one call, or one element per call where batches are missing.

use rustix::io::Errno;

use crate::error::{Cause, Error, Operation, Reason, Result};
use crate::sys::{AsMap, BatchBuffers};
use crate::types::{Access, Command};

use super::ElemFlags;
use super::cursor::{Cursor, Position};
use super::raw::RawElements;

/// The most elements that one call updates or deletes. The kernel handles signals only after the call.
const MAX_CHANGES: usize = 1 << 16;

/// A change of the elements under some keys.
#[derive(Clone, Copy)]
pub(super) enum Change<'a> {
    /// Updates them with these values, in order.
    Update(&'a [u8], ElemFlags),
    Delete,
}

impl<M: AsMap> RawElements<M> {
    /// Reads as many elements as fit into the slices, and returns their number.
    pub(super) fn read_batch(
        &self,
        takes: bool,
        cursor: &mut Cursor,
        keys: &mut [u8],
        values: &mut [u8],
        flags: ElemFlags,
    ) -> Result<usize> {
        let count = self
            .count(keys.len(), values.len())
            .map_err(|cause| self.error(Operation::batch(read_command(takes)), cause))?;
        if count == 0 {
            return Ok(0);
        }
        let buffers = BatchBuffers {
            keys,
            values,
            count,
        };
        self.read(takes, cursor, buffers, flags)
            .map_err(|error| self.named(error))
    }

    /// Requires room for at least one element.
    pub(super) fn read(
        &self,
        takes: bool,
        cursor: &mut Cursor,
        buffers: BatchBuffers<'_>,
        flags: ElemFlags,
    ) -> Result<usize> {
        let command = read_command(takes);
        let fail = |reason: Reason| self.error(Operation::batch(command), reason);
        if cursor.is_end() {
            return Ok(0);
        }
        // The kernel counts in 32 bits.
        let count = buffers.count.min(u32::MAX as usize);
        let key_len = self.key_len();
        let keys = &mut buffers.keys[..count * key_len];
        let values = &mut buffers.values[..count * self.value_len()];
        let has_buckets = self.map.has_buckets();
        while !cursor.one_by_one && !self.missing.contains(command) {
            let buffers = BatchBuffers {
                keys: &mut *keys,
                values: &mut *values,
                count,
            };
            let has_begun = cursor.position == Position::After;
            let words = cursor.words(key_len);
            let before = words[0];
            let done = self
                .map
                .read_batch(takes, words, has_begun, buffers, flags.bits());
            match done.result {
                Err(Errno::NOENT) if done.is_counted => cursor.finish(),
                Err(_) if done.count > 0 => cursor.position = Position::After,
                Ok(()) => cursor.position = Position::After,
                // The key to continue from was deleted. Linux 7.2, of a resizable hash.
                Err(Errno::AGAIN) if has_begun && !has_buckets => {
                    cursor.position = Position::Start;
                    continue;
                }
                // A key has no value, and some kernels cannot skip it.
                Err(Errno::INTR) if !takes && !has_buckets => {
                    cursor.one_by_one = true;
                    continue;
                }
                Err(Errno::NOSPC) if has_buckets && done.is_counted => {
                    let cause = Cause::BufferTooSmall {
                        what: "batch",
                        room: count,
                        needed: None,
                    };
                    let reason = Reason::new(Errno::NOSPC, Some(cause));
                    // Without the map's name: an iterator tries again with a larger buffer.
                    return Err(Error::new(Operation::batch(command), reason));
                }
                Err(errno) if self.missing.learn(command, errno) => break,
                Err(errno) => {
                    let needed = match takes {
                        true => Access::ReadWrite,
                        false => Access::ReadOnly,
                    };
                    let reason = self.reason(errno, needed);
                    return Err(fail(reason.explained(|errno| self.no_lock(errno, flags))));
                }
            }
            if !takes && !has_buckets {
                cursor
                    .count(self.map.most_keys(), done.count)
                    .map_err(|error| self.named(error))?;
            } else if !takes && has_begun && !cursor.is_end() && cursor.words(key_len)[0] == before
            {
                // The number of the bucket must increase.
                return Err(fail(Cause::IterationAborted.into()));
            }
            return Ok(done.count);
        }
        self.read_each(takes, cursor, keys, values, count, flags)
    }

    /// Reads without batches.
    fn read_each(
        &self,
        takes: bool,
        cursor: &mut Cursor,
        keys: &mut [u8],
        values: &mut [u8],
        room: usize,
        flags: ElemFlags,
    ) -> Result<usize> {
        let (key_len, value_len) = (self.key_len(), self.value_len());
        let mut count = 0;
        while count < room && !cursor.is_end() {
            let key = &mut keys[count * key_len..][..key_len];
            let value = &mut values[count * value_len..][..value_len];
            let found = match takes {
                true => self.take_first(cursor, key, value, flags),
                false => self.lookup_next(cursor, key, value, flags),
            };
            match found {
                Ok(found) => count += usize::from(found),
                // The elements read so far are returned. The next call meets the error again.
                Err(_) if count > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    /// Reads the next element and moves the cursor past it. Returns false if there is none, or if it was
    /// deleted in between. Stays one key ahead, so that the key that was read may be deleted.
    fn lookup_next(
        &self,
        cursor: &mut Cursor,
        key: &mut [u8],
        value: &mut [u8],
        flags: ElemFlags,
    ) -> Result<bool> {
        cursor.one_by_one = true;
        let key_len = key.len();
        let is_found = match cursor.position {
            Position::Start => self.next_key(None, key)?,
            Position::After => self.next_key(Some(cursor.key(key_len)), key)?,
            Position::Before => {
                key.copy_from_slice(cursor.key(key_len));
                true
            }
            Position::End => false,
        };
        if !is_found {
            cursor.finish();
            return Ok(false);
        }
        let keys_left = cursor.keys_left;
        cursor
            .count(self.map.most_keys(), 1)
            .map_err(|error| self.named(error))?;
        let read = self.lookup(key, value, flags).and_then(|found| {
            let has_next = self.next_key(Some(key), cursor.key(key_len))?;
            Ok((found, has_next))
        });
        match read {
            Ok((found, has_next)) => {
                cursor.position = match has_next {
                    true => Position::Before,
                    false => Position::End,
                };
                Ok(found)
            }
            Err(error) => {
                cursor.key(key_len).copy_from_slice(key);
                (cursor.position, cursor.keys_left) = (Position::Before, keys_left);
                Err(error)
            }
        }
    }

    /// Takes the first element out. Returns false if there is none, or if another process was faster.
    fn take_first(
        &self,
        cursor: &mut Cursor,
        key: &mut [u8],
        value: &mut [u8],
        flags: ElemFlags,
    ) -> Result<bool> {
        let has_keys = !key.is_empty();
        if has_keys && !self.next_key(None, key)? {
            cursor.finish();
            return Ok(false);
        }
        let found = self.take(key, value, flags)?;
        if !found && !has_keys {
            cursor.finish();
        }
        Ok(found)
    }

    /// Changes the elements under these keys, in order, and returns how many existed.
    pub(super) fn change(&self, keys: &[u8], change: Change<'_>) -> Result<usize> {
        let (key_len, value_len) = (self.key_len(), self.value_len());
        let (command, count, has_batch) = match change {
            Change::Update(values, flags) => (
                Command::MAP_UPDATE_BATCH,
                self.count(keys.len(), values.len()),
                !flags.intersects(ElemFlags::NOEXIST | ElemFlags::EXIST),
            ),
            Change::Delete => (
                Command::MAP_DELETE_BATCH,
                count_items("key", key_len, keys.len()),
                true,
            ),
        };
        let fail = |done, reason: Reason| {
            let error = self.error(Operation::batch(command), reason);
            error.after_elements(done)
        };
        let total = count.map_err(|cause| fail(0, cause.into()))?;
        if let Change::Update(..) = change {
            self.make_writable().map_err(|reason| fail(0, reason))?;
        }
        let keys_of = |from, count| &keys[from * key_len..][..count * key_len];
        let (mut done, mut changed) = (0, 0);
        while done < total && has_batch && !self.missing.contains(command) {
            let count = MAX_CHANGES.min(total - done);
            let keys = keys_of(done, count);
            let batch = match change {
                Change::Update(values, flags) => {
                    let values = &values[done * value_len..][..count * value_len];
                    self.map.update_batch(keys, values, count, flags.bits())
                }
                Change::Delete => self.map.delete_batch(keys, count),
            };
            done += batch.count;
            changed += batch.count;
            let Err(errno) = batch.result else { continue };
            if matches!(change, Change::Delete) && errno == Errno::NOENT && batch.is_counted {
                // Skip the missing key.
                done += 1;
            } else if batch.count > 0 || !self.missing.learn(command, errno) {
                // The next key failed, unless the kernel changed all elements and failed nevertheless.
                let key = keys_of(done, usize::from(done < total));
                let reason = match change {
                    Change::Update(_, flags) => self.update_reason(errno, key, flags),
                    Change::Delete => self.delete_reason(errno, key),
                };
                return Err(fail(done, reason));
            }
        }
        for at in done..total {
            let key = keys_of(at, 1);
            let existed = match change {
                Change::Update(values, flags) => {
                    let value = &values[at * value_len..][..value_len];
                    self.update(key, value, flags).map(|()| true)
                }
                Change::Delete => self.delete(key),
            };
            changed += usize::from(existed.map_err(|reason| fail(at, reason))?);
        }
        Ok(changed)
    }

    /// The number of elements in slices of these lengths.
    fn count(&self, keys_len: usize, values_len: usize) -> Result<usize, Cause> {
        let keys = count_items("key", self.key_len(), keys_len)?;
        let values = count_items("value", self.value_len(), values_len)?;
        match (self.key_len(), self.value_len()) {
            (0, _) => Ok(values),
            (_, 0) => Ok(keys),
            _ if keys == values => Ok(keys),
            _ => Err(Cause::LengthMismatch { keys, values }),
        }
    }
}

fn read_command(takes: bool) -> Command {
    match takes {
        false => Command::MAP_LOOKUP_BATCH,
        true => Command::MAP_LOOKUP_AND_DELETE_BATCH,
    }
}

/// The number of items of this size in so many bytes. The error names the rest.
fn count_items(what: &'static str, size: usize, bytes: usize) -> Result<usize, Cause> {
    let rest = bytes.checked_rem(size).unwrap_or(bytes);
    if rest != 0 {
        return Err(Cause::Size {
            what,
            expected: size,
            found: rest,
        });
    }
    Ok(bytes.checked_div(size).unwrap_or(0))
}
