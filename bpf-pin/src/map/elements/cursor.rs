//! A position among the elements of a map.

use std::fmt;
use std::mem::{size_of, size_of_val};

use bytemuck::cast_slice_mut;

use crate::cause::Cause;
use crate::error::{Error, Operation, Result};

/// How far [`lookup_batch`](crate::map::Elements::lookup_batch) or [`take_batch`](crate::map::Elements::take_batch)
/// has come in a map.
///
/// It belongs to one map and one of the two calls.
#[derive(Clone, Default)]
pub struct Cursor {
    pub(super) at: At,
    near: [u64; NEAR],
    /// Only for keys that are larger.
    far: Vec<u64>,
    /// How many keys may still come, of a map where some might come twice.
    pub(super) left: Option<u32>,
    pub(super) one_by_one: bool,
}

const NEAR: usize = 8;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum At {
    #[default]
    Start,
    /// After the key that it holds, or where the kernel will have it.
    After,
    /// At the key that it holds.
    Before,
    End,
}

impl Cursor {
    /// A cursor at the beginning.
    pub fn new() -> Self {
        Self::default()
    }

    /// True if all elements were read.
    pub fn is_end(&self) -> bool {
        self.at == At::End
    }

    pub(super) fn finish(&mut self) {
        self.at = At::End;
    }

    /// True if it continues from a key that was returned, which should not be deleted meanwhile.
    pub(super) fn holds_last_key(&self) -> bool {
        self.at == At::After
    }

    pub(super) fn words(&mut self, key_len: usize) -> &mut [u64] {
        if key_len <= size_of_val(&self.near) {
            return &mut self.near;
        }
        self.far.resize(key_len.div_ceil(size_of::<u64>()), 0);
        &mut self.far
    }

    pub(super) fn key(&mut self, key_len: usize) -> &mut [u8] {
        &mut cast_slice_mut(self.words(key_len))[..key_len]
    }

    pub(super) fn count(&mut self, max_entries: u32, keys: usize) -> Result<()> {
        count_keys(&mut self.left, max_entries, keys)
    }
}

/// Ends a walk after as many keys as the map has room for: some of them came twice, and a map that is
/// changed all the while may never come to its own end.
pub(super) fn count_keys(left: &mut Option<u32>, max_entries: u32, keys: usize) -> Result<()> {
    let most = if max_entries == 0 {
        u32::MAX
    } else {
        max_entries
    };
    let room = left.unwrap_or(most) as usize;
    *left = Some(room.saturating_sub(keys) as u32);
    if keys > room {
        return Err(Error::new(Operation::NextKey, Cause::IterationAborted));
    }
    Ok(())
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}
