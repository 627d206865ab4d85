//! `BPF_MAP_GET_NEXT_KEY`: the keys of a map, one call each.

use std::fmt;
use std::mem;

use crate::cause::Cause;
use crate::error::{Error, Operation, Result};
use crate::map::Elems;
use crate::sys::AsMap;

impl<M: AsMap> Elems<M> {
    /// All keys, each in a `Vec` of its own. Linux 4.12.
    ///
    /// The iterator is one key ahead, so the key that it has just yielded may be deleted. If
    /// somebody else deletes the one ahead, a hash begins anew, and keys come twice; after as many
    /// as the map has room for it ends with [`Unsettled`](Cause::Unsettled).
    ///
    /// A key that is yielded was there. Of a trie a look at its value may still find another's: if
    /// the key is deleted meanwhile, that of the longest prefix that is left.
    ///
    /// # Errors
    ///
    /// Yielded, and then it ends: [`Operation::NextKey`](crate::Operation::NextKey) as [`next_key`](Self::next_key), and with
    /// [`Unsettled`](Cause::Unsettled).
    pub fn keys(&self) -> Keys<'_, M> {
        Keys {
            elems: self,
            walk: Walk::new(),
        }
    }
}

/// How far an iteration has come. It is one key ahead of what it yields, so that a key may be
/// deleted as soon as it was yielded.
pub(crate) struct Walk<K> {
    ahead: Ahead<K>,
    left: Option<u32>,
}

enum Ahead<K> {
    Start,
    Key(K),
    Failure(Error),
    End,
}

impl<K> Walk<K> {
    pub(crate) fn new() -> Self {
        let (ahead, left) = (Ahead::Start, None);
        Self { ahead, left }
    }

    /// The next key. `next_key` gives the one after a key, or the first.
    pub(crate) fn step<M: AsMap>(
        &mut self,
        elems: &Elems<M>,
        next_key: impl Fn(Option<&K>) -> Result<Option<K>>,
    ) -> Option<Result<K>> {
        let key = match mem::replace(&mut self.ahead, Ahead::End) {
            Ahead::Start => next_key(None).transpose()?,
            Ahead::Key(key) => Ok(key),
            Ahead::Failure(error) => Err(error),
            Ahead::End => return None,
        };
        let result = key.and_then(|key| {
            self.count(elems.cells().max_entries())?;
            Ok(key)
        });
        if let Ok(key) = &result {
            self.ahead = match next_key(Some(key)) {
                Ok(Some(next)) => Ahead::Key(next),
                Ok(None) => Ahead::End,
                Err(error) => Ahead::Failure(error),
            };
        }
        Some(result)
    }

    /// After as many keys as the map has room for, some of them have come twice: a map that is
    /// changed all the while may never come to its own end.
    fn count(&mut self, max_entries: u32) -> Result<()> {
        let most = if max_entries == 0 {
            u32::MAX
        } else {
            max_entries
        };
        let left = self.left.unwrap_or(most).checked_sub(1);
        self.left = Some(left.ok_or_else(|| Error::new(Operation::NextKey, Cause::Unsettled))?);
        Ok(())
    }
}

/// The keys of a map, from [`Elems::keys`].
pub struct Keys<'a, M> {
    elems: &'a Elems<M>,
    walk: Walk<Vec<u8>>,
}

impl<M: AsMap> Iterator for Keys<'_, M> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let elems = self.elems;
        self.walk.step(elems, |last| {
            let mut next = vec![0; elems.key_len()];
            let found = elems.next_key(last.map(Vec::as_slice), &mut next)?;
            Ok(found.then_some(next))
        })
    }
}

impl<M> fmt::Debug for Keys<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}
