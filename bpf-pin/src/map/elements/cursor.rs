//! A position among the elements of a map.

use std::mem::{size_of, size_of_val};

use bytemuck::cast_slice_mut;

use crate::error::{Cause, Error, Operation, Result};

/// The position of [`lookup_batch`](crate::map::Elements::lookup_batch) or
/// [`take_batch`](crate::map::Elements::take_batch) in a map.
///
/// Use a cursor for one map, and for one of the two methods.
///
/// # Examples
///
/// See [`lookup_batch`](crate::map::Elements::lookup_batch).
#[derive(Debug, Clone, Default)]
pub struct Cursor {
    pub(super) position: Position,
    inline: [u64; INLINE],
    /// For keys that do not fit `inline`.
    heap: Vec<u64>,
    /// How many keys may still follow, for a type that may repeat keys.
    pub(super) keys_left: Option<u32>,
    pub(super) one_by_one: bool,
}

const INLINE: usize = 8;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Position {
    #[default]
    Start,
    /// After the key, or the kernel's position, that the cursor holds.
    After,
    /// At the key that the cursor holds.
    Before,
    End,
}

impl Cursor {
    /// A cursor at the start of a map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns whether all elements were read.
    pub fn is_end(&self) -> bool {
        self.position == Position::End
    }

    pub(super) fn finish(&mut self) {
        self.position = Position::End;
    }

    /// True if the next batch continues from a key that was returned. That key should not be deleted before.
    pub(super) fn holds_last_key(&self) -> bool {
        self.position == Position::After
    }

    pub(super) fn words(&mut self, key_len: usize) -> &mut [u64] {
        if key_len <= size_of_val(&self.inline) {
            return &mut self.inline;
        }
        self.heap.resize(key_len.div_ceil(size_of::<u64>()), 0);
        &mut self.heap
    }

    pub(super) fn key(&mut self, key_len: usize) -> &mut [u8] {
        &mut cast_slice_mut(self.words(key_len))[..key_len]
    }

    pub(super) fn count(&mut self, most_keys: u32, keys: usize) -> Result<()> {
        count_keys(&mut self.keys_left, most_keys, keys)
    }
}

/// Counts keys, and fails if an iteration returns more than `most`.
pub(super) fn count_keys(left: &mut Option<u32>, most: u32, keys: usize) -> Result<()> {
    let room = left.unwrap_or(most) as usize;
    *left = Some(room.saturating_sub(keys) as u32);
    if keys > room {
        return Err(Error::new(Operation::NextKey, Cause::IterationAborted));
    }
    Ok(())
}
