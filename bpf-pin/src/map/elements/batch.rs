//! `BPF_MAP_*_BATCH`: many elements in one call, or one by one where there is no such call.

use rustix::io::Errno;

use crate::cause::Cause;
use crate::error::{Error, Operation, Reason, Result};
use crate::map::explain::Needs;
use crate::sys::{AsMap, Room};
use crate::types::Command;

use super::ElemFlags;
use super::cursor::{At, Cursor};
use super::raw::RawElements;

/// The most elements that are put in, or deleted, in one call: the kernel does not look at signals
/// before it is done.
const MOST: usize = 1 << 16;

/// A change to the elements under some keys.
#[derive(Clone, Copy)]
pub(super) enum Change<'a> {
    /// Their values become these, one after the other.
    Update(&'a [u8], ElemFlags),
    Delete,
}

fn batch_error(command: Command, done: usize, reason: impl Into<Reason>) -> Error {
    Error::new(Operation::batch(command), reason).after_elements(done)
}

impl<M: AsMap> RawElements<M> {
    /// Reads as many elements as these are the bytes of, and returns how many there were.
    pub(super) fn read_batch(
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
            Err(cause) => Err(batch_error(reading(takes), 0, cause)),
        }
    }

    /// The room is for one element at least.
    pub(super) fn read(
        &self,
        takes: bool,
        cursor: &mut Cursor,
        room: Room<'_>,
        flags: ElemFlags,
    ) -> Result<usize> {
        let command = reading(takes);
        let fail = |reason| batch_error(command, 0, reason);
        let Room {
            keys,
            values,
            count: room,
        } = room;
        if cursor.is_end() {
            return Ok(0);
        }
        // The kernel counts in 32 bits.
        let room = room.min(u32::MAX as usize);
        let key_len = self.key_len();
        let has_buckets = self.map.has_buckets();
        while !cursor.one_by_one && !self.lacking.contains(command) {
            let room_for = Room {
                keys: &mut keys[..room * key_len],
                values: &mut values[..room * self.value_len()],
                count: room,
            };
            let has_begun = cursor.at == At::After;
            let words = cursor.words(key_len);
            let before = words[0];
            let done = self
                .map
                .read_batch(takes, words, has_begun, room_for, flags.bits());
            match done.result {
                Err(Errno::NOENT) if done.is_counted => cursor.at = At::End,
                Err(_) if done.count > 0 => cursor.at = At::After,
                Ok(()) => cursor.at = At::After,
                // The key to go on from was deleted. Linux 7.2, of a resizable hash.
                Err(Errno::AGAIN) if has_begun && !has_buckets => {
                    cursor.at = At::Start;
                    continue;
                }
                // There is a key without a value, and some kernels do not get past it.
                Err(Errno::INTR) if !takes && !has_buckets => {
                    cursor.one_by_one = true;
                    continue;
                }
                Err(Errno::NOSPC) if has_buckets && done.is_counted => {
                    let cause = Some(Cause::LargerBucket { room });
                    return Err(fail(Reason::new(Errno::NOSPC, cause)));
                }
                Err(errno) if self.lacking.learn(command, errno) => break,
                Err(errno) => {
                    let needs = if takes { Needs::BOTH } else { Needs::READ };
                    let reason = self.reason(errno, needs);
                    return Err(fail(reason.explained(|errno| self.no_lock(errno, flags))));
                }
            }
            if !takes && !has_buckets {
                cursor.count(self.map.max_entries(), done.count)?;
            } else if !takes && has_begun && !cursor.is_end() && cursor.words(key_len)[0] == before
            {
                // Buckets are counted upwards, by the kernel.
                return Err(fail(Cause::IterationAborted.into()));
            }
            return Ok(done.count);
        }
        match takes {
            false => self.lookup_each(cursor, keys, values, room, flags),
            true => self.take_each(cursor, keys, values, room, flags),
        }
    }

    /// Stays one key ahead of what it returns, so that a returned key may be deleted.
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
                // Elements that were found are returned; the next call meets the error again.
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
        let left = cursor.left;
        cursor.count(self.map.max_entries(), 1)?;
        let step = self.lookup(key, value, flags).and_then(|found| {
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

    /// Takes the first each time: those before it are gone.
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
                true => self.take(key, value, flags).map(Some),
                false => Ok(None),
            });
            match took {
                Ok(Some(true)) => count += 1,
                // Another process was faster.
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

    /// Changes the elements under these keys, in their order, and returns how many were there.
    pub(super) fn change(&self, keys: &[u8], change: Change<'_>) -> Result<usize> {
        let (key_len, value_len) = (self.key_len(), self.value_len());
        let (command, all, is_batched) = match change {
            Change::Update(values, flags) => (
                Command::MAP_UPDATE_BATCH,
                self.pairs(keys.len(), values.len()),
                !flags.intersects(ElemFlags::NOEXIST | ElemFlags::EXIST),
            ),
            Change::Delete => (
                Command::MAP_DELETE_BATCH,
                whole("key", key_len, keys.len()),
                true,
            ),
        };
        let fail = |done, reason| batch_error(command, done, reason);
        let all = all.map_err(|cause| fail(0, cause.into()))?;
        if let Change::Update(..) = change {
            self.make_writable().map_err(|reason| fail(0, reason))?;
        }
        let keys_of = |from, count| &keys[from * key_len..][..count * key_len];
        let (mut at, mut changed) = (0, 0);
        while at < all && is_batched && !self.lacking.contains(command) {
            let count = MOST.min(all - at);
            let keys = keys_of(at, count);
            let step = match change {
                Change::Update(values, flags) => {
                    let values = &values[at * value_len..][..count * value_len];
                    self.map.update_batch(keys, values, count, flags.bits())
                }
                Change::Delete => self.map.delete_batch(keys, count),
            };
            let count = step.count;
            at += count;
            changed += count;
            let Err(errno) = step.result else { continue };
            if matches!(change, Change::Delete) && errno == Errno::NOENT && step.is_counted {
                at += 1;
            } else if count > 0 || !self.lacking.learn(command, errno) {
                // The next one failed. There is none if the kernel did all and failed all the same.
                let key = keys_of(at, usize::from(at < all));
                let reason = match change {
                    Change::Update(_, flags) => self.update_reason(errno, key, flags),
                    Change::Delete => self.delete_reason(errno, key),
                };
                return Err(fail(at, reason));
            }
        }
        for at in at..all {
            let key = keys_of(at, 1);
            let done = match change {
                Change::Update(values, flags) => {
                    let value = &values[at * value_len..][..value_len];
                    self.put(key, value, flags).map(|()| true)
                }
                Change::Delete => self.remove(key),
            };
            changed += usize::from(done.map_err(|reason| fail(at, reason))?);
        }
        Ok(changed)
    }

    /// How many elements these are the bytes of.
    fn pairs(&self, keys_len: usize, values_len: usize) -> Result<usize, Cause> {
        let keys = whole("key", self.key_len(), keys_len)?;
        let values = whole("value", self.value_len(), values_len)?;
        match (self.key_len(), self.value_len()) {
            (0, _) => Ok(values),
            (_, 0) => Ok(keys),
            _ if keys == values => Ok(keys),
            _ => Err(Cause::LengthMismatch { keys, values }),
        }
    }
}

fn reading(takes: bool) -> Command {
    match takes {
        false => Command::MAP_LOOKUP_BATCH,
        true => Command::MAP_LOOKUP_AND_DELETE_BATCH,
    }
}

/// How many items of this length there are in so many bytes. An error names what is left over.
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
