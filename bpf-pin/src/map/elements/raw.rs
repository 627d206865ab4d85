//! `BPF_MAP_*_ELEM`: commands on single elements, as bytes.

use rustix::io::Errno;

use crate::error::{Cause, Error, Failed, ObjectType, Operation, Reason, Result};
use crate::map::explain::{MissingBatches, not_writable};
use crate::sys::{AsMap, ElemError, SizeError, SizedMap};
use crate::types::MapType;

use super::ElemFlags;
use super::layout::check_size;

/// The elements of a map as bytes, independent of their layout. The sizes are read once, and the length of
/// every slice is checked.
pub(crate) struct RawElements<M> {
    pub(super) map: SizedMap<M>,
    pub(super) missing: MissingBatches,
}

impl<M: AsMap> RawElements<M> {
    /// Reads the sizes of `map` and checks it.
    pub(super) fn new(
        map: M,
        check: impl FnOnce(&SizedMap<M>) -> Result<(), Cause>,
    ) -> Result<Self, Failed<M>> {
        let fail = |map: M, reason| {
            let error = Error::new(Operation::Elements, reason).of_map(map.map_fd());
            Err(Failed::new(map, error))
        };
        let map = match SizedMap::new(map) {
            Ok(map) => map,
            Err((map, error)) => {
                let reason = match error {
                    SizeError::Info(errno) => Reason::errno_only(errno),
                    SizeError::UnknownType(map_type) => {
                        let problem =
                            "are newer than this library, so the size of their elements is unknown";
                        Cause::unsupported(ObjectType::Map(MapType(map_type)), problem).into()
                    }
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
                missing: MissingBatches::default(),
            }),
            Err(cause) => fail(map.into_map(), cause.into()),
        }
    }

    /// An error that names the map.
    #[cold]
    pub(super) fn error(&self, operation: Operation, reason: impl Into<Reason>) -> Error {
        self.named(Error::new(operation, reason))
    }

    #[cold]
    pub(super) fn named(&self, error: Error) -> Error {
        error.of_map(self.map.map().map_fd())
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
            Err(error) => Err(self.lookup_error(error, key, value.len(), flags)),
        }
    }

    #[cold]
    #[inline(never)]
    fn lookup_error(
        &self,
        error: ElemError,
        key: &[u8],
        value_len: usize,
        flags: ElemFlags,
    ) -> Error {
        let reason = self.reason_with(error, key, value_len, |errno| {
            self.lookup_reason(errno, flags)
        });
        self.error(Operation::Lookup, reason)
    }

    #[inline]
    pub(super) fn update(&self, key: &[u8], value: &[u8], flags: ElemFlags) -> Result<(), Reason> {
        let updated = self.map.update(key, value, flags.bits());
        updated.or_else(|error| self.recover_update(error, key, value, flags))
    }

    /// Makes the map writable and repeats the update, or explains the failure. Out of line to keep the fast
    /// path small.
    #[cold]
    #[inline(never)]
    pub(super) fn recover_update(
        &self,
        error: ElemError,
        key: &[u8],
        value: &[u8],
        flags: ElemFlags,
    ) -> Result<(), Reason> {
        if let ElemError::NotWritable = error {
            self.make_writable()?;
            return self.update(key, value, flags);
        }
        Err(self.reason_with(error, key, value.len(), |errno| {
            self.update_reason(errno, key, flags)
        }))
    }

    pub(super) fn take(&self, key: &[u8], value: &mut [u8], flags: ElemFlags) -> Result<bool> {
        match self.map.lookup_and_delete(key, value, flags.bits()) {
            Ok(()) => Ok(true),
            Err(ElemError::Errno(Errno::NOENT)) => Ok(false),
            Err(error) => {
                let explain = |errno| self.take_reason(errno, flags);
                let reason = self.reason_with(error, key, value.len(), explain);
                Err(self.error(Operation::LookupAndDelete, reason))
            }
        }
    }

    pub(super) fn delete(&self, key: &[u8]) -> Result<bool, Reason> {
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
                let is_next_wrong = next.len() != self.key_len();
                let wrong = if is_next_wrong {
                    &*next
                } else {
                    key.unwrap_or(next)
                };
                let explain = |errno| self.next_key_reason(errno);
                let reason = self.reason_with(error, wrong, self.value_len(), explain);
                Err(self.error(Operation::NextKey, reason))
            }
        }
    }

    /// Must be called before a batch of values is written.
    pub(super) fn make_writable(&self) -> Result<(), Reason> {
        self.map.make_writable().map_err(not_writable)
    }

    /// Explains a failure: a slice of the wrong length, or an errno, with `explain`.
    #[cold]
    pub(super) fn reason_with(
        &self,
        error: ElemError,
        key: &[u8],
        value_len: usize,
        explain: impl FnOnce(Errno) -> Reason,
    ) -> Reason {
        match error {
            ElemError::Errno(errno) => explain(errno),
            ElemError::NotWritable => unreachable!("only updates report this"),
            ElemError::Size => check_size("key", self.key_len(), key.len())
                .and_then(|()| check_size("value", self.value_len(), value_len))
                .expect_err("one length is wrong")
                .into(),
        }
    }
}
