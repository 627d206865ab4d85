//! `BPF_MAP_*_ELEM`: the elements of one map, as bytes.

use rustix::io::Errno;

use crate::cause::Cause;
use crate::error::{Error, Failed, Operation, Reason, Result};
use crate::map::explain::{Lacking, not_writable};
use crate::sys::{AsMap, ElemError, SizeError, SizedMap};

use super::ElemFlags;
use super::layout::check_size;

/// The elements of a map as bytes, whatever their layout. The sizes are read once, and every slice is
/// checked against them.
pub(crate) struct RawElements<M> {
    pub(super) map: SizedMap<M>,
    /// Which batches the map's type or the kernel is known to lack.
    pub(super) lacking: Lacking,
}

impl<M: AsMap> RawElements<M> {
    /// A view of `map`, if it passes the check.
    pub(super) fn new(
        map: M,
        check: impl FnOnce(&SizedMap<M>) -> Result<(), Cause>,
    ) -> Result<Self, Failed<M>> {
        let fail = |map, reason| Err(Failed::new(map, Error::new(Operation::Elements, reason)));
        let map = match SizedMap::new(map) {
            Ok(map) => map,
            Err((map, error)) => {
                let reason = match error {
                    SizeError::Info(errno) => Reason::errno_only(errno),
                    SizeError::UnknownType(map_type) => Cause::UnknownMapType { map_type }.into(),
                    SizeError::PossibleCpus(error) => Cause::PossibleCpus {
                        problem: error.to_string(),
                    }
                    .into(),
                };
                return fail(map, reason);
            }
        };
        match check(&map) {
            Ok(()) => Ok(Self {
                map,
                lacking: Lacking::default(),
            }),
            Err(cause) => fail(map.into_map(), cause.into()),
        }
    }

    #[inline]
    pub(super) fn key_len(&self) -> usize {
        self.map.key_len()
    }

    #[inline]
    pub(super) fn value_len(&self) -> usize {
        self.map.value_len()
    }

    #[inline]
    pub(super) fn lookup(&self, key: &[u8], value: &mut [u8], flags: ElemFlags) -> Result<bool> {
        match self.map.lookup(key, value, flags.bits()) {
            Ok(()) => Ok(true),
            Err(ElemError::Errno(Errno::NOENT)) => Ok(false),
            Err(error) => {
                let reason = self.lookup_failed(error, key, value.len(), flags);
                Err(Error::new(Operation::Lookup, reason))
            }
        }
    }

    #[inline]
    pub(super) fn put(&self, key: &[u8], value: &[u8], flags: ElemFlags) -> Result<(), Reason> {
        let updated = self.map.update(key, value, flags.bits());
        updated.or_else(|error| self.put_failed(error, key, value, flags))
    }

    /// Cold, and out of line to keep the call small.
    #[cold]
    #[inline(never)]
    pub(super) fn put_failed(
        &self,
        error: ElemError,
        key: &[u8],
        value: &[u8],
        flags: ElemFlags,
    ) -> Result<(), Reason> {
        if let ElemError::NotWritable = error {
            self.make_writable()?;
            return self.put(key, value, flags);
        }
        Err(self.reason_with(error, key, value.len(), |errno| {
            self.update_reason(errno, key, flags)
        }))
    }

    #[cold]
    #[inline(never)]
    fn lookup_failed(
        &self,
        error: ElemError,
        key: &[u8],
        value_len: usize,
        flags: ElemFlags,
    ) -> Reason {
        self.reason_with(error, key, value_len, |errno| {
            self.lookup_reason(errno, flags)
        })
    }

    pub(super) fn take(&self, key: &[u8], value: &mut [u8], flags: ElemFlags) -> Result<bool> {
        match self.map.lookup_and_delete(key, value, flags.bits()) {
            Ok(()) => Ok(true),
            Err(ElemError::Errno(Errno::NOENT)) => Ok(false),
            Err(error) => {
                let because = |errno| self.take_reason(errno, flags);
                let reason = self.reason_with(error, key, value.len(), because);
                Err(Error::new(Operation::LookupAndDelete, reason))
            }
        }
    }

    pub(super) fn remove(&self, key: &[u8]) -> Result<bool, Reason> {
        match self.map.delete(key) {
            Ok(()) => Ok(true),
            Err(ElemError::Errno(Errno::NOENT)) => Ok(false),
            Err(error) => Err(self.reason_with(error, key, self.value_len(), |errno| {
                self.delete_reason(errno, key)
            })),
        }
    }

    pub(super) fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> Result<bool> {
        match self.map.next_key(key, next) {
            Ok(()) => Ok(true),
            Err(ElemError::Errno(Errno::NOENT)) => Ok(false),
            Err(error) => {
                let is_next = next.len() != self.key_len();
                let wrong = if is_next { &*next } else { key.unwrap_or(next) };
                let because = |errno| self.key_reason(errno);
                let reason = self.reason_with(error, wrong, self.value_len(), because);
                Err(Error::new(Operation::NextKey, reason))
            }
        }
    }

    /// To be called before a batch of values is written.
    pub(super) fn make_writable(&self) -> Result<(), Reason> {
        self.map.make_writable().map_err(not_writable)
    }

    /// Why a command on an element of such sizes failed.
    #[cold]
    pub(super) fn reason_with(
        &self,
        error: ElemError,
        key: &[u8],
        value_len: usize,
        because: impl FnOnce(Errno) -> Reason,
    ) -> Reason {
        match error {
            ElemError::Errno(errno) => because(errno),
            ElemError::NotWritable => unreachable!("an update is what needs this"),
            ElemError::Size => check_size("key", self.key_len(), key.len())
                .and_then(|()| check_size("value", self.value_len(), value_len))
                .expect_err("sizes that are not the map's")
                .into(),
        }
    }
}
